"""Labels are kept as they are: never rounded, never confused, recognised in new rows and in files."""

from __future__ import annotations

import datetime as dt
import enum
from decimal import Decimal
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import bayes_mtl as mtl
from bayes_mtl.data.labels import Labels, label_array, plain_label
from bayes_mtl.errors import DataError, PredictionError, SpecError
from bayes_mtl.model.coords import model_coords
from tests.test_rows import fitted


class Arm(enum.Enum):
    CONTROL = 1
    DRUG = 2
    BOTH = 3


BIG = [10**18 + 1, 10**18 + 2, 10**18 + 3]
KINDS = {
    "int8": [3, 1, 2],
    "int64": BIG,
    "uint64": [2**64 - 1, 2**64 - 2, 1],  # on both sides of 2**63: NumPy makes floats of such a list
    "text": ["b", "10", "9"],
    "bool": [True, False, True],
    "date": [dt.date(2024, 3, day) for day in (3, 1, 2)],
    "stamp": [pd.Timestamp("2024-03-01 05:00"), pd.Timestamp("2024-03-01"), pd.Timestamp("2024-03-02")],
    "float": [3.0, 1.0, 2.0],
}


def as_table(kind, native, labels, x, y):
    """The same columns in one of several types of frames."""
    if kind == "int8":
        labels = np.array(labels, dtype=np.int8)
    columns = {"g": labels, "x": x, "y": y}
    if native == "dict":
        return columns
    if native == "pandas":
        return pd.DataFrame(columns)
    if native == "categorical":
        return pd.DataFrame({**columns, "g": pd.Categorical(pd.Series(labels))})
    frame = pl.DataFrame(
        {**columns, "g": pl.Series(labels, dtype=pl.UInt64) if kind == "uint64" else pl.Series(labels)}
    )
    return frame if native == "polars" else frame.to_arrow()


@given(
    kind=st.sampled_from(list(KINDS)),
    native=st.sampled_from(["pandas", "categorical", "polars", "pyarrow", "dict"]),
    picks=st.lists(st.integers(0, 2), min_size=4, max_size=12),
)
@settings(max_examples=15)
def test_every_row_meets_its_own_task_again(kind, native, picks):
    """Labels of any type in any frame: predictions of the table are what was fitted, row by row."""
    labels = [KINDS[kind][pick] for pick in picks]
    assume(len(set(labels)) > 1)
    x, y = np.cos(np.arange(len(picks))), np.sin(3.0 + np.arange(len(picks)))
    table = as_table(kind, native, labels, x, y)
    data = mtl.TaskData.from_table(table, task="g", formula="y ~ x")
    assert len(data.tasks) == len(set(labels))
    names = {label: plain_label(label) for label in labels}
    idata = fitted(data, draws=3)
    found = mtl.predict(idata, table)["predictions"]
    assert found["row_task"].to_numpy().tolist() == [names[label] for label in labels]
    beta = idata["posterior"]["beta"].to_numpy()[:, :, [data.tasks.index(names[label]) for label in labels]]
    np.testing.assert_allclose(found["y"], beta[..., 0] + beta[..., 1] * x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "column",
    [
        pd.array([None, *BIG, *BIG], dtype="Int64"),
        pd.array([None, *BIG, *BIG], dtype="UInt64"),
        pd.array([None, *BIG, *BIG], dtype="int64[pyarrow]"),
        pd.Series([None, *BIG, *BIG], dtype=object),
        pd.Categorical([None, *BIG, *BIG]),
        [None, *BIG, *BIG],
        pl.Series([None, *BIG, *BIG]),
        pa.array([None, *BIG, *BIG]).dictionary_encode(),
        pd.Series([None, *map(Decimal, BIG), *map(Decimal, BIG)], dtype=object),
    ],
    ids=lambda column: f"{type(column).__module__.split('.')[0]} {getattr(column, 'dtype', '')}",
)
@pytest.mark.parametrize("role", ["task", "grouping"])
def test_large_integers_with_gaps_are_exact(column, role, tmp_path):
    x = np.arange(7.0) ** 2
    if isinstance(column, pl.Series):
        table = pl.DataFrame({"g": column, "h": list("aababab"), "x": x, "y": np.cos(x)})
    elif isinstance(column, pa.Array):
        table = pa.table({"g": column, "h": list("aababab"), "x": x, "y": np.cos(x)})
    elif isinstance(column, list):
        table = {"g": column, "h": list("aababab"), "x": x, "y": np.cos(x)}
    else:
        table = pd.DataFrame({"g": column, "h": list("aababab"), "x": x, "y": np.cos(x)})
    if role == "grouping":
        data = mtl.TaskData.from_table(
            table, task="h", outcome="y", features=["x"], groupings=["g"], missing="drop"
        )
        assert data.groupings[0].levels == tuple(BIG)
        assert [BIG[i] for i in data.groupings[0].index] == [(BIG + BIG)[row - 1] for row in data.row]
        return
    data = mtl.TaskData.from_table(table, task="g", formula="y ~ x", missing="drop")
    assert data.tasks == tuple(BIG)
    assert [BIG[i] for i in data.task_index] == [(BIG + BIG)[row - 1] for row in data.row]
    again = mtl.load(mtl.save(fitted(data, draws=2), tmp_path / "fit.nc"))
    assert again["posterior"]["task"].to_numpy().tolist() == BIG
    found = mtl.predict(again, pd.DataFrame({"g": BIG, "x": 1.0}))["predictions"]
    assert found["row_task"].to_numpy().tolist() == BIG


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (dt.date(2024, 3, 1), "2024-03-01"),
        (np.datetime64("2024-03-01"), "2024-03-01"),
        (dt.datetime(2024, 3, 1, 12, 30), "2024-03-01T12:30:00"),
        (pd.Timestamp("2024-03-01 00:00:00.000000001"), "2024-03-01T00:00:00.000000001"),
        (pd.Timestamp("2024-03-01", tz="Asia/Tokyo"), "2024-03-01T00:00:00+09:00"),
        (dt.date(1066, 10, 14), "1066-10-14"),
        (pd.Period("2024-03"), "2024-03"),
        (pd.Interval(0.5, 1.0), "(0.5, 1.0]"),
        (dt.timedelta(hours=30), "1 days 06:00:00"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Arm.DRUG, "DRUG"),
        (Decimal("1000000000000000001"), 10**18 + 1),
        (np.str_("a"), "a"),
        (np.uint64(2**64 - 1), 2**64 - 1),
    ],
)
def test_what_labels_are_called(value, label):
    assert plain_label(value) == label
    assert type(plain_label(value)) is type(label)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([b"a", b"b"], "found \\['bytes'\\]. Decode them"),
        ([(1, 2), (3, 4)], "found \\['tuple'\\]"),
        ([[1], [2]], "found \\['list'\\]"),
        ([1j, 2j], "found \\['complex'\\]"),
        ([Decimal("0.5"), Decimal("1.5")], "found \\['Decimal'\\]"),
        ([1e18, 2e18], "Floats of this size are rounded"),
        ([2**70, 2**71], "beyond 64 bits"),
        ([-1, 2**63], "beyond 64 bits"),
        ([1, "1"], "found \\['int', 'str'\\]"),
        (["a", "a\0"], "end in a null character"),
    ],
)
def test_what_is_no_label(labels, message):
    with pytest.raises(DataError, match=message):
        mtl.TaskData.from_table({"g": labels * 3, "y": np.arange(6.0)}, task="g", outcome="y")


@pytest.mark.parametrize(
    ("known", "labels", "message"),
    [
        ([1, 2], ["01", "1"], r"type str \('01'\), the model knows int"),
        ([1, 2], ["1", "2"], r"type str \('1'\), the model knows int"),
        ([1, 2], [1.0, 2.0], r"type float \(1.0\), the model knows int"),
        ([1, 2], [True, False], r"type bool \(True\), the model knows int"),
        (["1", "2"], [1, 2], r"type int \(1\), the model knows str"),
        (["01", "02"], [1, 2], r"type int \(1\), the model knows str"),
        ([True, False], [1, 0], r"type int \(1\), the model knows bool"),
        ([1, 2], [b"1", b"2"], r"found b'1'"),
        (["a", "b"], [9], r"type int \(9\), the model knows str"),
        ([1, 2], ["9"], r"type str \('9'\), the model knows int"),
        (["a", "b"], [("a",), ("b",)], r"found \('a',\)"),
        (["a", "b"], [[1], [2]], r"found \[1\]"),
    ],
)
@pytest.mark.parametrize("new_tasks", ["error", "population"])
def test_labels_of_another_type_are_named(known, labels, message, new_tasks):
    idata = fitted(
        mtl.TaskData.from_table({"g": known * 3, "y": np.arange(6.0)}, task="g", outcome="y"), draws=2
    )
    with pytest.raises(PredictionError, match=message):
        mtl.predict(idata, pd.DataFrame({"g": pd.Series(labels)}), new_tasks=new_tasks)


def test_integers_learned_from_floats_are_met_again_as_either():
    """A column of integers with gaps is a column of floats, in the table that is predicted as well."""
    table = pd.DataFrame({"g": [1.0, 2.0, np.nan, 1.0, 2.0], "y": np.arange(5.0)})
    idata = fitted(mtl.TaskData.from_table(table, task="g", outcome="y", missing="drop"), draws=2)
    for labels in ([1.0, 2.0], [1, 2]):
        assert mtl.predict(idata, pd.DataFrame({"g": labels}))["predictions"][
            "row_task"
        ].to_numpy().tolist() == [1, 2]


def test_no_array_changes_a_label():
    for labels in (BIG, ["a", "b"], [1, "a"], [-1, 2**64 - 1], [True, 1], [2**70], [1, 2**63 + 1], [1, 2]):
        again = label_array(labels).tolist()
        assert again == labels
        assert list(map(type, again)) == list(map(type, labels))


def test_hashes_on_both_sides_of_2_to_the_63_are_coordinates(tmp_path):
    hashes = np.array([1, 10**18 + 1, 2**63 + 1, 2**63 + 2], dtype="uint64")
    table = pd.DataFrame({"g": np.repeat(hashes, 4), "h": np.tile(hashes, 4), "x": np.cos(np.arange(16.0))})
    data = mtl.TaskData.from_table(table.assign(y=table.x**2), task="g", outcome="y", features=["x"])
    again = mtl.load(mtl.save(fitted(data, draws=20), tmp_path / "fit.nc"))
    found = [again[group]["task"] for group in ("posterior", "prior", "constant_data")]
    found += [mtl.pooling(again)["task"], mtl.leave_one_task_out(again, refit=False)["task"]]
    for labels in found:
        assert labels.to_numpy().tolist() == hashes.tolist()
    for new in (mtl.predict(again, table), mtl.predict(again)):
        assert new["predictions"]["row_task"].to_numpy().tolist() == table.g.tolist()
    new = mtl.predict(again, table.assign(g=np.uint64(2**63 + 3)).head(1), new_tasks="population")
    assert new["predictions"]["row_task"].to_numpy().tolist() == [2**63 + 3]
    by_level = mtl.TaskData.from_table(table.assign(y=table.x**2), task="g", outcome="y", groupings=["h"])
    assert model_coords(by_level)["h"].tolist() == hashes.tolist()


def test_positions_may_be_dates():
    months = pd.date_range("2024-01-01", periods=4, freq="MS")
    days = [(19723.0,), (19754.0,), (19783.0,), (19814.0,)]
    table = pd.DataFrame({"month": np.repeat(months, 2), "y": np.arange(8.0)})
    names = ("2024-01-01", "2024-02-01", "2024-03-01", "2024-04-01")
    for kernel in (
        mtl.Kernel(positions={m: m for m in months}),
        mtl.Kernel(positions={m.date(): m.date() for m in months}),
        mtl.Kernel(positions=pd.Series(months, index=months)),
        mtl.Kernel(positions=pd.DataFrame({"when": months}, index=months)),
        mtl.Kernel(positions=months, tasks=months),
        mtl.Kernel.from_table(table, task="month", columns=["month"]),
        mtl.Kernel.from_table(pl.from_pandas(table), task="month", columns=["month"]),
    ):
        assert list(kernel.positions) == days
        assert kernel.tasks == names
    assert mtl.TaskData.from_table(table, task="month", outcome="y").tasks == names
    grown = mtl.Kernel.from_table(table, task="month", columns=["month"]).with_tasks(
        {"new": (dt.date(2024, 5, 1),)}
    )
    assert grown.positions[-1] == (19844.0,)
    with pytest.raises(SpecError, match="found 'north'"):
        mtl.Kernel(positions={"a": "north", "b": "south"})


def test_one_label_for_all_rows_of_arrays():
    with pytest.raises(DataError, match=r"task: should have shape \(6,\)"):
        mtl.TaskData.from_arrays(np.ones((6, 1)), np.arange(6.0), 3)


def test_labels_say_where_they_are_missing():
    found = Labels.read(pd.DataFrame({"g": pd.array([1, None, 3], dtype="Int64")}), "g", DataError)
    assert found.values == [1, None, 3]
    assert [str(f) for f in found.findings()] == [
        "column 'g': 1 task labels are missing (rows [1]). Fill them in, or pass missing='drop'."
    ]
