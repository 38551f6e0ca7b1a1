"""What a fit of each structure is said to have found, and its pictures."""

from functools import cache
from unittest.mock import patch

import matplotlib as mpl
import numpy as np
import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl import cli
from bayes_mtl.errors import SpecError
from bayes_mtl.inference.attributes import describe
from bayes_mtl.inference.groups import PRIOR_DRAWS, constant_data, in_table_order, prior_draws, row_coords
from bayes_mtl.model import outcome_units, sampling_model
from bayes_mtl.recipes import load_recipe
from bayes_mtl.report.by_structure import answers

mpl.use("Agg")

PAIRS = {"task_correlation.csv", "task_correlation.png"}
COEFFICIENTS = {"task_coefficients.csv", "task_coefficients.png"}


def without_data(name, n=PRIOR_DRAWS):
    """What the fit of a recipe would be had the data said nothing."""
    return drawn_twice(name, n).copy(deep=True)


@cache
def drawn_twice(name, n):
    """Draws from the prior of a recipe as prior, and others as posterior."""
    data, spec = load_recipe(name).load()
    with patch("bayes_mtl.inference.groups.PRIOR_DRAWS", n):
        drawn = prior_draws(sampling_model(spec, data, collapsed=True, rows=data.pseudo_rows), data, 1)
    half = n // 2
    # Chains that differ by chance alone.
    posterior = xr.concat(
        [drawn.isel(draw=slice(k * half // 2, (k + 1) * half // 2)) for k in (0, 1)], "chain", join="override"
    )
    prior = drawn.isel(draw=slice(half, None))
    known = constant_data(data).assign(outcome_unit=outcome_units(spec, data).scale)
    observed = xr.Dataset({"y": ("row", in_table_order(data, data.y))}, coords=row_coords(data))
    groups = {"posterior": posterior, "prior": prior, "constant_data": known, "observed_data": observed}
    idata = xr.DataTree.from_dict(groups)
    idata.attrs.update(describe(spec, data.schema, mtl.__version__))
    return idata


@pytest.mark.parametrize(
    ("name", "headings", "files"),
    [
        (
            "barley",
            ["Is a task unlike the others?", "Coefficients of the tasks"],
            {"task_reliability.csv", *COEFFICIENTS},
        ),
        (
            "cigarettes",
            ["How far do the data follow what is known of the tasks?", "Coefficients of the tasks"],
            {"structure.png", *COEFFICIENTS},
        ),
        (
            "countries",
            ["How far do the data follow what is known of the tasks?", "Coefficients of the tasks"],
            {"structure.png", *COEFFICIENTS},
        ),
        ("rats", ["Kinds of tasks", ""], {"clusters.csv", "clusters.png", *COEFFICIENTS}),
        (
            "sensors",
            ["Which features matter", "Coefficients of the tasks"],
            {"features.csv", "features.png", "task_coefficients.csv"},
        ),
        (
            "mixed_tastes",
            ["Which tasks use which basis tasks", "How the tasks relate", ""],
            {*PAIRS, "basis.csv", "basis.png", "task_coefficients.csv"},
        ),
    ],
)
def test_every_structure_has_its_answer(name, headings, files, tmp_path, capsys):
    found = answers(without_data(name), load_recipe(name).relations)
    assert [answer.heading for answer in found] == headings
    written = {}
    for answer in found:
        written |= cli._show(answer, tmp_path)
    assert set(written) == files == {path.name for path in tmp_path.iterdir()}
    for path in tmp_path.glob("*.png"):
        assert path.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.count("\n---") == len([h for h in headings if h])


def test_where_the_data_say_nothing_the_answers_say_so():
    (_, table), *_ = answers(without_data("countries", 20_000), load_recipe("countries").relations)[0].tables
    assert abs(int(table["contraction"][0].split("%")[0])) < 15
    answer = answers(without_data("barley", 20_000), load_recipe("barley").relations)[0]
    before = float(answer.text[0].rpartition("that was ")[2].split()[0])
    assert before == pytest.approx(1 - np.exp(-0.25), abs=0.03)  # Gamma(1, 1) below 0.25
    np.testing.assert_allclose(answer.tables[0][1]["P(<0.25)"].astype(float), before, atol=0.08)


def test_the_most_unlike_task_comes_first():
    recipe = load_recipe("barley")
    idata = without_data(recipe.name)
    idata["posterior"]["task_reliability"].loc[{"task": "Morris"}] = 0.1
    (_, table), *_ = answers(idata, recipe.relations)[0].tables
    assert table["task"].iloc[0] == "Morris"
    assert table["P(<0.25)"].iloc[0] == "1.00"


def test_chains_that_found_different_kinds_are_said_to():
    recipe = load_recipe("rats")
    idata = without_data(recipe.name)
    alone = np.eye(3)[np.r_[np.zeros(8, int), np.ones(8, int)]]
    for chain, member in enumerate((alone, np.roll(alone, 4, axis=0))):
        idata["posterior"]["cluster_probability"][chain] = member
    answer = answers(idata, recipe.relations)[0]
    assert "Number of clusters in use: 2 with probability 1.00" in answer.text[0]
    assert "different divisions" in answer.text[1]
    idata["posterior"]["cluster_probability"][:] = alone
    answer = answers(idata, recipe.relations)[0]
    assert len(answer.text) == 1
    (_, table), *_ = answer.tables
    assert table["members"].tolist() == ["1, 2, 3, 4, 5, 6, 7, 8", "9, 10, 11, 12, 13, 14, 15, 16"]
    assert set(table["least certain"]) == {"100%"}


def test_pictures_of_coefficients_show_means_and_intervals():
    idata = without_data("barley")
    beta = idata["posterior"]["beta"].sel(feature="year").transpose("task", "chain", "draw")
    beta = beta.to_numpy().reshape(6, -1)
    axes = mtl.plot_coefficients(idata, ["year"], ci_prob=0.5)
    assert [ax.get_title() for ax in axes] == ["year", "reliability"]
    order = np.argsort(beta.mean(axis=1))
    np.testing.assert_allclose(axes[0].lines[0].get_xdata(), beta.mean(axis=1)[order])
    ends = np.array([s[:, 0] for s in axes[0].collections[0].get_segments()])
    np.testing.assert_allclose(ends, np.quantile(beta, [0.25, 0.75], axis=1).T[order])
    labels = [t.get_text() for t in axes[0].get_yticklabels()]
    assert labels == [str(t) for t in idata["posterior"]["task"].to_numpy()[order]]
    years = without_data("cigarettes")
    axes = mtl.plot_coefficients(years, order="label")
    assert len(axes) == 3
    np.testing.assert_array_equal(axes[0].lines[0].get_xdata(), np.arange(63, 93))
    for wrong, words in (({"features": ["x"]}, "features: names"), ({"order": "size"}, "order: should be")):
        with pytest.raises(SpecError, match=words):
            mtl.plot_coefficients(idata, **wrong)
    mpl.pyplot.close("all")


def test_pictures_of_hyperparameters_have_the_area_of_their_draws():
    idata = without_data("cigarettes")
    axes = mtl.plot_prior_posterior(idata)
    assert [ax.get_title() for ax in axes] == ["rho", "lengthscale"]
    for ax in axes:
        for bars in ax.containers:
            area = sum(bar.get_width() * bar.get_height() for bar in bars)
            assert 0.9 < area <= 1 + 1e-9  # but for the tails that are not shown
    assert len(mtl.plot_prior_posterior(idata, ["feature_sd"])) == 3
    with pytest.raises(SpecError, match="has \\['tau'\\], which are not in the fit"):
        mtl.plot_prior_posterior(idata, ["tau"])
    with pytest.raises(SpecError, match="SparseBasis has no parameters that are worth reading"):
        mtl.plot_prior_posterior(without_data("mixed_tastes"))
    mpl.pyplot.close("all")
