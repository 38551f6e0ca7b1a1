"""Whatever is passed for a fit, a seed, a size or a path: public functions answer in words."""

from __future__ import annotations

import inspect

import numpy as np
import pymc as pm
import pytest
import xarray as xr

import bayes_mtl as mtl
from tests.test_bad_input import TABLE
from tests.test_rows import FIXED, fitted, shuffled

FUNCTIONS = {name: f for name in mtl.__all__ if inspect.isfunction(f := getattr(mtl, name))}
# What they take besides the first argument.
OTHERS = {
    "build_model": (mtl.ModelSpec(),),
    "plot_correlation_update": ("a", "b"),
    "recover": (None,),
    "report": ("report.html",),
    "save": ("fit.nc",),
}
NO_FITS = {
    "nothing": None,
    "mapping": {},
    "text": "fit",
    "number": 3,
    "list": [1],
    "frame": TABLE,
    "array": np.ones(3),
    "empty tree": xr.DataTree(),
    "dataset": xr.Dataset(),
    "group": xr.DataTree.from_dict({"posterior": xr.Dataset({"beta": 1.0})}),
    "class": mtl.TaskData,
}
TAKES = {name: inspect.signature(f).parameters for name, f in FUNCTIONS.items()}
SWITCHES = [
    (name, key) for name, taken in TAKES.items() for key, p in taken.items() if p.annotation == "bool"
]
SAMPLING = [name for name, taken in TAKES.items() if "sampler" in taken]
SEEDED = [name for name, taken in TAKES.items() if "random_seed" in taken]
PICTURES = [name for name in FUNCTIONS if name.startswith("plot_")]
# These need a structure that the fit here does not have; what they take is read in the same place.
ELSEWHERE = {"plot_basis", "plot_clusters", "plot_feature_selection"}


@pytest.fixture(scope="module")
def data():
    return mtl.TaskData.from_table(shuffled(), task="task", formula="y ~ x + z")


@pytest.fixture(scope="module")
def idata(data):
    return fitted(data)


@pytest.fixture
def arguments(data, idata):
    """What each function takes, all in order."""
    own = idata["posterior"].to_dataset().drop_vars("beta")
    special = {
        "choose_structure": (data, FIXED),
        "compare": ([idata, idata],),
        "fit": (data, FIXED),
        "recover": (own, data, FIXED),
        "task_coefficients": ("beta",),
        "plot_correlation_update": (idata, "a", "b", "coefficients"),
        "plot_prior_posterior": (idata, ["beta_mean"]),
        **{f"plot_task_{what}": (idata, "coefficients") for what in ("correlation", "network", "tree")},
        "plot_model": (mtl.build_model(FIXED, data),),
    }
    return lambda name: special.get(name, (idata,))


@pytest.mark.parametrize("what", NO_FITS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_no_fit_is_refused_in_words(name, what, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(mtl.errors.BayesMTLError) as found:
        FUNCTIONS[name](NO_FITS[what], *OTHERS.get(name, ()))
    assert len(str(found.value)) > 20
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("seed", ["a", 1.5, -1, [1, "a"], {}], ids=str)
@pytest.mark.parametrize("name", SEEDED)
def test_seeds_that_are_none_are_refused_before_anything_is_done(name, seed, arguments):
    with pytest.raises(mtl.errors.BayesMTLError, match="random_seed: should be an integer"):
        FUNCTIONS[name](*arguments(name), random_seed=seed)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        *(({"figsize": x}, "figsize: should be width and height") for x in ("big", 3, (1,), (0, 1), "ab")),
        *(({"ax": ax}, "ax: should be axes of matplotlib") for ax in ("here", 3, {})),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", sorted(set(PICTURES) - ELSEWHERE))
def test_sizes_and_axes_that_are_none(name, option, words, arguments):
    with pytest.raises(mtl.errors.SpecError, match=words):
        FUNCTIONS[name](*arguments(name), **option)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("leave_one_task_out", {"refit": "q"}, "refit: should be True or False"),
        ("plot_coefficients", {"features": 3}, "features: should be a list of names"),
        ("plot_coefficients", {"features": "x"}, "features: should be a list of names"),
        ("plot_prior_posterior", {"names": 3}, "names: should be a list of names"),
        ("report", {"path": "r.html", "title": 3}, "title: should be text"),
        ("report", {"path": "r.html", "max_refits": "a"}, "max_refits: should be a whole number"),
        ("report", {"path": 3}, "path: should be text or a Path"),
        ("save", {"path": None}, "path: should be text or a Path"),
        ("transfer_gain", {"max_refits": -1}, "max_refits: should be a whole number"),
        ("compare", {}, "fits: should be two fits"),
    ],
)
def test_options_that_make_no_sense(name, options, words, idata):
    with pytest.raises(mtl.errors.BayesMTLError, match=words):
        FUNCTIONS[name](idata, **options)


def test_generators_are_seeds(idata):
    one, two = (
        mtl.predict(idata, kind="response", random_seed=seed)["predictions"]["y"]
        for seed in (np.random.default_rng(3), np.random.default_rng(3))
    )
    xr.testing.assert_identical(one, two)


def test_a_block_is_a_part_of_a_model():
    with pytest.raises(mtl.errors.SpecError, match=r"there is none around it\. Write: with pm\.Model"):
        mtl.task_coefficients("beta")
    with pytest.raises(mtl.errors.SpecError), pm.Model(coords={"task": [1, 2], "feature": ["a"]}):
        mtl.task_coefficients("beta", dims=("task",))


@pytest.mark.parametrize("value", ["no", 2, None, [True]])
@pytest.mark.parametrize(("name", "key"), SWITCHES)
def test_a_switch_is_true_or_false(name, key, value, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = (*arguments(name), *OTHERS.get(name, ()))
    with pm.Model(coords={"task": ["a"], "feature": ["x"]}), pytest.raises(mtl.errors.SpecError, match=key):
        FUNCTIONS[name](*given, **{key: value})


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"banana": 3}, r"banana.*is not an argument of `fit`.*draws, tune"),
        ({"draws": 0}, "draws.*at least 1, found 0"),
        ({"chains": "two"}, "chains.*found 'two'"),
        ({"progressbar": "no"}, "progressbar.*True or False"),
    ],
)
@pytest.mark.parametrize("name", SAMPLING)
def test_what_is_handed_on_to_refits_is_checked_even_if_there_are_none(name, option, words, arguments):
    with pytest.raises(mtl.errors.SpecError, match=f"(?s){words}"):
        FUNCTIONS[name](*arguments(name), **option)
