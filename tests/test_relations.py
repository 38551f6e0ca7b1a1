"""Conflict, comparison and the pictures of relations: what they show is what the numbers say."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl.summaries.conflict import conflict_draws
from tests.fits import exact_rows


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def opposed(seed=0):
    """Draw six tasks of which the last has the opposite slopes."""
    beta = np.column_stack([np.zeros(6), np.repeat([[1.0], [-1.0]], [5, 1], axis=0) * np.ones(4)])
    X, y, task = exact_rows(beta, 80, seed)
    return mtl.TaskData.from_arrays(X * [1.0, 10.0, 0.1, 1.0], y, np.array(list("abcdez"))[task])


@pytest.fixture(scope="module")
def opposed_fit():
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal())
    return mtl.fit(
        opposed(), spec, draws=4000, chains=2, random_seed=1, target_accept=0.95, progressbar=False
    )


class TestConflict:
    def test_is_the_cosine_of_gradients_in_units_free_coordinates(self, opposed_fit):
        cosine, _ = conflict_draws(opposed_fit)
        data = opposed()
        mean = opposed_fit["posterior"]["beta_mean"].stack(sample=("chain", "draw")).transpose("sample", ...)
        every = np.unique(np.linspace(0, len(mean) - 1, 500).astype(int))
        residual = data.y - data.X @ mean.to_numpy()[every[7]]
        g = np.stack([data.X[data.task_index == t].T @ residual[data.task_index == t] for t in range(6)])
        inner = g @ np.linalg.inv(data.X.T @ data.X) @ g.T
        size = np.sqrt(np.diag(inner))
        np.testing.assert_allclose(cosine[7], inner / np.outer(size, size), rtol=1e-8)

    def test_names_the_opposed_tasks(self, opposed_fit):
        found = mtl.gradient_conflict(opposed_fit).to_dataframe().set_index(["task_a", "task_b"])
        for t in "abcde":
            assert found.loc[(t, "z"), "mean"] < -0.3
        assert found.loc[("a", "b"), "mean"] > 0.3
        assert mtl.plot_task_correlation(mtl.gradient_conflict(opposed_fit)).get_title(loc="left")


class TestCompare:
    @pytest.mark.slow
    def test_prefers_the_model_that_made_the_data(self, opposed_fit):
        one = mtl.fit(
            opposed(), mtl.ModelSpec(task_covariance=mtl.CompletePooling()), chains=2, random_seed=1,
            progressbar=False,
        )  # fmt: skip
        table = mtl.compare([one, opposed_fit])
        assert table.index[0] == "Exchangeable()"
        assert "Clearly worse: CompletePooling()" in table.attrs["words"]
        assert table["weight"].sum() == pytest.approx(1.0)
        assert mtl.compare({"one": one, "many": opposed_fit}, by="task").shape[0] == 2

    def test_wants_two_fits_of_the_same_rows(self, opposed_fit):
        with pytest.raises(mtl.errors.SpecError, match="two at least"):
            mtl.compare([opposed_fit])
        other = opposed_fit.copy()
        other["observed_data"] = xr.DataTree(opposed_fit["observed_data"].to_dataset() + 1.0)
        with pytest.raises(mtl.errors.SpecError, match="other outcomes"):
            mtl.compare({"a": opposed_fit, "b": other})


class TestPictures:
    def test_of_pooling_has_an_arrow_per_task(self, sleepstudy_fit):
        found = mtl.pooling(sleepstudy_fit)
        ax = mtl.plot_pooling(found, "Days")
        drawn = next(line for line in ax.lines if line.get_label() == "together")
        expected = np.sort(found["together"].sel(feature="Days").to_numpy())[::-1]
        np.testing.assert_allclose(drawn.get_xdata(), expected)
        assert len([t for t in ax.texts if t.arrow_patch is not None]) == 18
        with pytest.raises(mtl.errors.SpecError, match="found 'days'"):
            mtl.plot_pooling(found, "days")

    def test_of_gain_is_red_for_the_hurt(self):
        table = xr.Dataset(
            {
                "gain": ("task", [1.0, -5.0]),
                "gain_se": ("task", [1.0, 1.0]),
                "hurt": ("task", [False, True]),
                "verdict": ("task", ["no clear difference", "hurt by the others"]),
            },
            coords={"task": ["fine", "harmed"]},
        )
        ax = mtl.plot_transfer_gain(table)
        colours = {
            float(line.get_xdata()[0]): line.get_color() for line in ax.lines if len(line.get_xdata()) == 1
        }
        assert colours[1.0] != colours[-5.0]
        assert [t.get_text() for t in ax.get_yticklabels()] == ["fine", "harmed"]

    def test_of_a_tree_joins_the_alike_first(self, related_fit):
        ax = mtl.plot_task_tree(related_fit[0])
        order = [t.get_text() for t in ax.get_yticklabels()]
        assert abs(order.index("a") - order.index("b")) == 1

    def test_of_a_network_has_the_sure_pairs_only(self, related_fit):
        relations = mtl.task_correlation(related_fit[0])
        sure = np.maximum(relations["p_positive"], 1 - relations["p_positive"]) >= 0.95
        ax = mtl.plot_task_network(relations)
        assert len([line for line in ax.lines if line.get_linestyle() != "None"]) == int(sure.sum()) > 0

    def test_of_an_update_has_prior_and_posterior(self, related_fit):
        ax = mtl.plot_correlation_update(related_fit[0], "a", "b")
        assert "contraction from the prior" in ax.get_title(loc="left")
        with pytest.raises(mtl.errors.SpecError, match="'q' is not known"):
            mtl.plot_correlation_update(related_fit[0], "a", "q")

    def test_of_the_fit_says_how_many_tasks_do_not_fit(self, sleepstudy_fit):
        found = mtl.task_fit(sleepstudy_fit)
        n = int(found["misfit"].sel(check="spread").sum())
        ax = mtl.plot_task_fit(found, "spread")
        assert ax.get_title(loc="left").startswith(f"spread: {n} of 18")

    def test_of_five_hundred_tasks_are_drawn(self):
        n = 500
        rng = np.random.default_rng(0)
        a, b = np.triu_indices(n, 1)
        p = rng.random(len(a))
        table = xr.Dataset(
            {"mean": ("pair", 2 * p - 1), "p_positive": ("pair", p)},
            coords={"task_a": ("pair", a), "task_b": ("pair", b)},
        )
        for draw in (mtl.plot_task_tree, mtl.plot_task_network, mtl.plot_task_correlation):
            draw(table).figure.canvas.draw()
