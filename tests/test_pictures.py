"""Pictures name tasks at any number, can be placed, and are not stretched by one outlier."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

import bayes_mtl as mtl
from bayes_mtl.errors import SpecError
from bayes_mtl.plots._common import limits, name, off_screen
from tests.test_correlation import made_up


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def gains(labels):
    rng, n = np.random.default_rng(0), len(labels)
    values = {"gain": rng.normal(size=n), "gain_se": np.ones(n), "hurt": rng.random(n) < 0.1}
    values["verdict"] = np.array(["no clear difference"] * n)
    return xr.Dataset({k: ("task", v) for k, v in values.items()}, coords={"task": labels})


def pooled(labels):
    rng, n = np.random.default_rng(0), len(labels)
    each = {k: (("task", "feature"), rng.random((n, 1))) for k in ("alone", "together", "factor")}
    return xr.Dataset({**each, "n_rows": ("task", np.arange(n))}, coords={"task": labels, "feature": ["x"]})


def clustered(labels):
    n = len(labels)
    same = np.full((n, n), 0.5)
    values = {"co_clustering": (("task", "task_bis"), same), "partition": ("task", 1 + np.arange(n) % 3)}
    values["certainty"] = ("task", np.full(n, 0.5))
    return xr.Dataset(values, coords={"task": labels, "task_bis": labels})


def related(labels):
    a, b = np.triu_indices(len(labels), 1)
    rng = np.random.default_rng(0)
    p = rng.random(len(a))
    values = {"mean": ("pair", 2 * p - 1), "p_positive": ("pair", p), "contraction": ("pair", p)}
    labels = np.array(labels, dtype=object)
    return xr.Dataset(values, coords={"task_a": ("pair", labels[a]), "task_b": ("pair", labels[b])})


OF_SUMMARIES = {
    "correlation": (mtl.plot_task_correlation, related),
    "tree": (mtl.plot_task_tree, related),
    "network": (mtl.plot_task_network, related),
    "gain": (mtl.plot_transfer_gain, gains),
    "pooling": (mtl.plot_pooling, pooled),
    "clusters": (mtl.plot_clusters, clustered),
    "coefficients": (mtl.plot_coefficients, lambda labels: made_up(len(labels), 10, labels=labels)),
}


def texts(ax):
    labels = [t.get_text() for t in (*ax.get_yticklabels(), *ax.texts)]
    return [t for t in labels if t]


@pytest.mark.parametrize("n", [3, 60, 400, 946])
@pytest.mark.parametrize("picture", OF_SUMMARIES)
def test_tasks_are_named_at_any_number_and_names_fit(picture, n):
    plot, summary = OF_SUMMARIES[picture]
    labels = [f"the name of school {i:04d}, which is about sixty characters long" for i in range(n)]
    short = {name(label) for label in labels}
    ax = np.atleast_1d(plot(summary(labels)))[0]
    ax.figure.canvas.draw()  # a layout that collapses is a warning, which is an error here
    found = [t.partition("  (")[0] for t in texts(ax)]
    named = [t for t in found if t in short]
    assert len(named) == n if n <= 60 else 40 <= len(named) <= 80
    assert max(map(len, named)) <= 26
    assert ax.get_window_extent().width > 0.15 * ax.figure.bbox.width


@pytest.mark.parametrize("picture", OF_SUMMARIES)
def test_tasks_can_be_chosen_and_pictures_placed(picture):
    plot, summary = OF_SUMMARIES[picture]
    labels = [f"task {i}" for i in range(30)]
    found = summary(labels)
    asked = ["task 20", "task 3", "task 7"]
    ax = np.atleast_1d(plot(found, tasks=asked, figsize=(5.0, 4.0)))[0]
    assert {t.partition("  (")[0] for t in texts(ax)} & set(labels) == set(asked)
    np.testing.assert_allclose(ax.figure.get_size_inches(), (5.0, 4.0))
    with pytest.raises(SpecError, match="'nobody' is not known"):
        plot(found, tasks=["task 3", "nobody"])
    figure = Figure()
    mine = figure.subplots(1, 4) if picture == "coefficients" else figure.subplots()
    assert np.atleast_1d(plot(found, ax=mine))[0].figure is figure


def test_pictures_off_screen_are_unknown_to_pyplot():
    with off_screen():
        for plot, summary in OF_SUMMARIES.values():
            plot(summary([f"task {i}" for i in range(5)]))
    assert not plt.get_fignums()
    mtl.plot_task_tree(related(["a", "b", "c"]))
    assert len(plt.get_fignums()) == 1


def test_one_outlier_does_not_stretch_an_axis():
    values = np.linspace(-1.0, 1.0, 100)
    np.testing.assert_allclose(limits(values), (-1.1, 1.1))
    low, high = limits(np.append(values, 1e4))
    assert low > -1.3
    assert high < 5.0
    assert limits(np.full(5, 2.0)) == (1.9, 2.1)
    found = gains([f"task {i}" for i in range(30)])
    found["gain"][4] = 1e4
    ax = mtl.plot_transfer_gain(found)
    assert ax.get_xlim()[1] < 20.0
    triangles = [line for line in ax.lines if line.get_marker() == ">"]
    assert [len(line.get_xdata()) for line in triangles] == [1]


def test_names_keep_their_beginning_and_their_end():
    assert name("short") == "short"
    assert name("school of the northern district, number 7") == "school of the n…, number 7"
