"""What comes out keeps the order and the index of the rows of the table that went in."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import bayes_mtl as mtl
from bayes_mtl.data.rows import in_table_order, row_coords, row_names
from bayes_mtl.inference.attributes import data_of, order_by_task, rows_by_task
from bayes_mtl.summaries.conflict import conflict_draws
from bayes_mtl.summaries.leave_out import row_elpd

# Some outcomes here are made of each other.
pytestmark = pytest.mark.filterwarnings("ignore:Residuals of outcomes in one row are correlated")

# Nothing to sample: draws are exact and a fit takes a moment.
FIXED = mtl.ModelSpec(priors={"sigma": 1.0, "feature_sd": 1.0}, feature_covariance=mtl.Diagonal())


def fitted(data, draws=40):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)  # so few draws say little
        return mtl.fit(data, FIXED, draws=draws, tune=1, chains=2, cores=1, progressbar=False, random_seed=1)


def shuffled(n=60, seed=0):
    """A table whose rows are in no order, with an index that is no range."""
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "task": rng.permutation(np.repeat(list("cab"), n // 3)),
            "x": rng.normal(size=n),
            "z": rng.normal(size=n),
        }
    )
    table["y"] = 1.0 + table.x + rng.normal(size=n)
    return table.set_axis([f"row {i}" for i in rng.permutation(n)])


def log_density(idata, table, mean):
    """Of the rows of `table`, whose expected outcomes are `mean` (chain, draw, row)."""
    return norm.logpdf(table.y.to_numpy(), mean.to_numpy(), 1.0)


@pytest.fixture(scope="module")
def table():
    return shuffled()


@pytest.fixture(scope="module")
def idata(table):
    return fitted(mtl.TaskData.from_table(table, task="task", formula="y ~ x + z", shared_features=["z"]))


class TestLongTables:
    @pytest.mark.parametrize("group", ["observed_data", "log_likelihood", "constant_data"])
    def test_groups_have_the_index_of_the_table(self, idata, table, group):
        assert idata[group]["row"].to_numpy().tolist() == table.index.tolist()

    def test_position_and_label_agree(self, idata, table):
        np.testing.assert_array_equal(idata["observed_data"]["y"], table.y)
        fixed = idata["constant_data"]
        np.testing.assert_array_equal(fixed["X"].sel(feature="x"), table.x)
        np.testing.assert_array_equal(fixed["X_shared"].sel(shared_feature="z"), table.z)
        np.testing.assert_array_equal(fixed["task"].to_numpy()[fixed["task_index"]], table.task)

    def test_fitted_values_are_predictions_of_the_same_rows(self, idata, table):
        predicted = mtl.predict(idata, table)["predictions"]["y"]
        assert predicted["row"].to_numpy().tolist() == table.index.tolist()
        beta = idata["posterior"]["beta"].sel(task=xr.DataArray(table.task.to_numpy(), dims="row"))
        mean = beta.sel(feature="Intercept") + beta.sel(feature="x") * xr.DataArray(
            table.x.to_numpy(), dims="row"
        )
        mean = mean + idata["posterior"]["beta_shared"][..., 0] * xr.DataArray(table.z.to_numpy(), dims="row")
        np.testing.assert_allclose(predicted, mean.transpose("chain", "draw", "row"), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(
            idata["log_likelihood"]["y"], log_density(idata, table, predicted), rtol=1e-10, atol=1e-10
        )

    def test_data_are_read_back_as_they_were(self, idata, table):
        data = mtl.TaskData.from_table(table, task="task", formula="y ~ x + z", shared_features=["z"])
        back = data_of(idata)
        for name in ("X", "X_shared", "y", "task_index", "row", "weights", "offset", "row_names"):
            np.testing.assert_array_equal(getattr(back, name), getattr(data, name))
        np.testing.assert_array_equal(in_table_order(back, back.y), table.y)

    def test_arviz_leaves_out_the_rows_that_it_names(self, idata, table):
        wrapper = mtl.sampling_wrapper(idata, draws=20, chains=2)
        rest, out = wrapper.sel_observations([3, 17])
        kept = table.drop(index=table.index[[3, 17]])
        np.testing.assert_array_equal(in_table_order(rest, rest.y), kept.y)
        assert in_table_order(rest, rest.row_names).tolist() == kept.index.tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)
            refit = wrapper.sample(rest)
        mean = mtl.predict(refit, table.iloc[[3, 17]])["predictions"]["y"]
        np.testing.assert_allclose(
            wrapper.log_likelihood__i(out, refit), log_density(refit, table.iloc[[3, 17]], mean), rtol=1e-10
        )

    def test_summaries_do_not_depend_on_the_order(self, idata, table):
        in_order = table.iloc[np.argsort(table.task, kind="stable")]
        again = fitted(
            mtl.TaskData.from_table(in_order, task="task", formula="y ~ x + z", shared_features=["z"])
        )
        for found, expected in zip(row_elpd(idata), row_elpd(again), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(conflict_draws(idata)[0], conflict_draws(again)[0], rtol=1e-8, atol=1e-8)

    def test_files_keep_the_order(self, idata, tmp_path):
        again = mtl.load(mtl.save(idata, tmp_path / "fit.nc"))
        for group in ("observed_data", "log_likelihood", "constant_data"):
            xr.testing.assert_allclose(again[group].to_dataset(), idata[group].to_dataset())
            assert again[group]["row"].to_numpy().tolist() == idata[group]["row"].to_numpy().tolist()


def test_scores_from_a_log_likelihood_are_sorted_by_task(binary_fit):
    idata = binary_fit if isinstance(binary_fit, xr.DataTree) else binary_fit[0]
    order = np.random.default_rng(1).permutation(idata["observed_data"].sizes["row"])
    moved = idata.copy()
    for group in ("observed_data", "constant_data", "log_likelihood"):
        moved[group] = xr.DataTree(idata[group].to_dataset().isel(row=order))
    position = order[order_by_task(moved)]  # of the rows of the moved fit, by task, among the others
    np.testing.assert_allclose(row_elpd(moved)[0], row_elpd(idata)[0][position], rtol=1e-10)
    np.testing.assert_array_equal(rows_by_task(moved, "observed_data")["y"], data_of(idata).y[position])


@pytest.fixture(scope="module")
def wide():
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"x": rng.normal(size=30)}, index=pd.date_range("2020-01-01", periods=30))
    return table.assign(
        b=1 + table.x + rng.normal(size=30), a=np.where(np.arange(30) % 7 == 0, np.nan, table.x), c=np.nan
    )


@pytest.fixture(scope="module")
def wide_fit(wide):
    with pytest.warns(
        mtl.errors.DataWarning, match=r"'c' \(30\), 'a' \(5\)\), and with them altogether the outcome 'c'"
    ):
        data = mtl.TaskData.from_table(wide, outcomes=["b", "a", "c"], features=["x"], missing="drop")
    return fitted(data)


class TestWideTables:
    def test_rows_have_the_name_of_the_row_and_of_the_outcome(self, wide_fit, wide):
        y = wide_fit["observed_data"]["y"]
        long = wide[["b", "a"]].melt(ignore_index=False).dropna()
        np.testing.assert_array_equal(y, long.value)
        assert y["outcome"].to_numpy().tolist() == long.variable.tolist()
        np.testing.assert_array_equal(y["row"], long.index.to_numpy())
        np.testing.assert_array_equal(wide_fit["log_likelihood"]["outcome"], y["outcome"])

    def test_outcomes_that_were_fitted_are_predicted(self, wide_fit, wide):
        predicted = mtl.predict(wide_fit, wide[["x"]])["predictions"]["y"]
        assert predicted["outcome"].to_numpy().tolist() == ["b"] * 30 + ["a"] * 30
        np.testing.assert_array_equal(predicted["row"], np.tile(wide.index.to_numpy(), 2))
        y = wide_fit["observed_data"]["y"]
        for label, name, density in zip(
            y["row"].to_numpy(), y["outcome"].to_numpy(), range(y.size), strict=True
        ):
            at = np.flatnonzero((predicted["row"] == label) & (predicted["outcome"] == name))
            expected = norm.logpdf(float(y[density]), predicted[..., at[0]].to_numpy(), 1.0)
            np.testing.assert_allclose(wide_fit["log_likelihood"]["y"][..., density], expected, rtol=1e-10)

    def test_after_a_subset(self, wide):
        full = mtl.TaskData.from_table(
            wide.assign(a=wide.b + 1, c=wide.b - 1), outcomes=["b", "a", "c"], features=["x"]
        )
        idata = fitted(full.subset(np.arange(60)))
        predicted = mtl.predict(idata, wide[["x"]])["predictions"]["y"]
        assert predicted["row_task"].to_numpy().tolist() == ["b"] * 30 + ["a"] * 30


@pytest.mark.parametrize(
    "index",
    [
        pd.Index(list("bbaacc")),
        pd.date_range("2020-01-01", periods=6, tz="Europe/Berlin"),
        pd.period_range("2020-01", periods=6, freq="M"),
        pd.MultiIndex.from_product([["a", "b"], [1, 2, 3]]),
        pd.CategoricalIndex([3, 1, 2, 3, 1, 2]),
        pd.Index([1.5, 2.5, np.nan, 4.5, 5.5, 6.5]),
        pd.Index(["a", 1, None, 2.5, (1, 2), b"c"], dtype=object),
        pd.timedelta_range(0, periods=6),
        pd.Index([2**64 - 1, 2**64 - 2, 2**64 - 3, 2**63, 1, 0], dtype="uint64"),
    ],
    ids=lambda index: str(index.dtype),
)
def test_any_index_can_be_stored(index, tmp_path):
    table = pd.DataFrame({"task": list("ababab"), "x": np.arange(6.0), "y": np.arange(6.0) ** 2}).set_axis(
        index
    )
    data = mtl.TaskData.from_table(table, task="task", formula="y ~ x")
    group = xr.Dataset({"y": ("row", in_table_order(data, data.y))}, coords=row_coords(data))
    group.to_netcdf(tmp_path / "group.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "group.nc", engine="h5netcdf") as again:
        xr.testing.assert_identical(again.load(), group)
    np.testing.assert_array_equal(group["y"], table.y)
    assert len(set(group["row"].to_numpy().tolist())) == len(set(index))
    np.testing.assert_array_equal(row_names(table, 6), group["row"])


@given(st.permutations(range(12)), st.sampled_from(["pandas", "polars", "pyarrow", "dict"]))
@settings(max_examples=12)
def test_order_of_any_frame(order, kind):
    """Values are those of the table, in its order, whatever the frame; and the order changes no draw."""
    table = pd.DataFrame(
        {"task": np.repeat(["b", "a", "c"], 4), "x": np.arange(12) % 5 - 2.0, "y": np.cos(np.arange(12))}
    ).iloc[list(order)]
    native = {
        "pandas": lambda: table,
        "polars": lambda: pl.DataFrame(table.to_dict("list")),
        "pyarrow": lambda: pl.DataFrame(table.to_dict("list")).to_arrow(),
        "dict": lambda: table.to_dict("list"),
    }[kind]()
    idata = fitted(mtl.TaskData.from_table(native, task="task", formula="y ~ x"), draws=4)
    np.testing.assert_array_equal(idata["observed_data"]["y"], table.y)
    predicted = mtl.predict(idata, native)["predictions"]["y"]
    names = table.index.tolist() if kind == "pandas" else list(range(12))
    assert predicted["row"].to_numpy().tolist() == idata["observed_data"]["row"].to_numpy().tolist() == names
    np.testing.assert_allclose(
        idata["log_likelihood"]["y"], log_density(idata, table, predicted), rtol=1e-9, atol=1e-9
    )
