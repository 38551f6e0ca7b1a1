"""Columns may hold anything where nothing reads them; what is read is plain, or refused in words."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from uuid import UUID

import numpy as np
import pandas as pd
import polars as pl
import pytest

import bayes_mtl as mtl
from bayes_mtl import errors
from bayes_mtl.data import TaskSchema
from tests.test_bad_input import TABLE, N, read
from tests.test_rows import fitted


@pytest.mark.parametrize(
    "column",
    [
        [[1.0, 2.0]] * N,
        [np.zeros(3)] * N,
        [(1, "a")] * N,
        [{"a": 1}] * N,
        [[1] * (i % 3 + 1) for i in range(N)],
        [2**70 + i for i in range(N)],
    ],
    ids=["lists", "arrays", "tuples", "dicts", "ragged", "wide"],
)
@pytest.mark.parametrize("name", ["extra", "y2", 7, ("a", 1), None, pd.Timestamp("2020-01-01")])
def test_columns_that_nothing_reads_may_hold_anything(column, name):
    more = TABLE.assign(extra=pd.Series(column, dtype=object)).rename(columns={"extra": name})
    np.testing.assert_array_equal(read(more, features=["x"]).X, read(features=["x"]).X)
    if name == "y2" and not isinstance(column[0], int):
        with pytest.raises(
            errors.DataError, match=f"column 'y2': holds values of type {type(column[0]).__name__}"
        ):
            read(more, features=["y2"])


def test_columns_that_nothing_reads_in_other_frames():
    frame = pl.from_pandas(TABLE)
    odd = frame.with_columns(
        a=pl.Series([[1, 2]] * N), b=pl.Series(np.ones((N, 3))), c=pl.struct(["x", "y"]), d=pl.lit(b"1")
    )
    for table in (odd, odd.to_arrow(), {**frame.to_dict(as_series=False), "short": [1]}):
        np.testing.assert_array_equal(read(table, features=["x"]).X, read(features=["x"]).X)
    twice = pd.concat([TABLE, TABLE[["w"]]], axis=1)
    np.testing.assert_array_equal(read(twice, features=["x"]).X, read(features=["x"]).X)
    with pytest.raises(errors.DataError, match=r"repeats columns \['w'\]"):
        read(twice, features=["w"])
    for task in (0, None, ("a", "b")):
        with pytest.raises(errors.DataError, match="task"):
            mtl.TaskData.from_table(TABLE.rename(columns={"task": task}), task=task, outcome="y")


@pytest.mark.parametrize(
    "levels",
    [
        pd.cut(TABLE.x, 3),
        pd.PeriodIndex(["2020-01", "2020-02", "2020-03"] * (N // 3), freq="M"),
        [UUID(int=i % 3) for i in range(N)],
        pd.Categorical([Decimal(i % 3) for i in range(N)]),
    ],
    ids=["intervals", "periods", "UUIDs", "decimals"],
)
def test_levels_that_are_no_text(levels):
    data = read(TABLE.assign(k=levels), features=["k"])
    assert len(data.features) == 3
    again = TaskSchema.from_dict(json.loads(json.dumps(data.schema.to_dict())))
    np.testing.assert_array_equal(
        again.design.matrix(TABLE.assign(k=levels), errors.DataError)[data.row], data.X
    )


@pytest.mark.parametrize("value", [b"a", 1j, dt.date(2020, 1, 1)])
def test_levels_that_are_refused_in_words(value):
    with pytest.raises(errors.DataError, match="column 'k'"):
        read(TABLE.assign(k=[value, None] * (N // 2)), features=["k"])


@pytest.mark.parametrize(
    "table", [[1, 2], np.ones((3, 2)), 1.0, TABLE["x"], pl.from_pandas(TABLE).lazy(), "data.csv"]
)
def test_what_is_no_table(table):
    data = read(features=["x"])
    for use, error in (
        (lambda: read(table, features=["x"]), errors.DataError),
        (lambda: mtl.predict(fitted(data, draws=2), table), errors.PredictionError),
        (lambda: mtl.Kernel.from_table(table, task="task", columns=["x"]), errors.SpecError),
    ):
        with pytest.raises(error, match="should be a data frame"):
            use()


@pytest.mark.parametrize(
    "formula",
    ["y ~ I(x > 0)", "I(x > 0) ~ w", "y ~ {np.where(x > 0, 1, 0)}", "y ~ I(1 / x)", "np.arctan(x) ~ w"],
)
def test_infinite_values_are_found_where_an_expression_would_hide_them(formula):
    for value in (np.inf, -np.inf):
        bad = TABLE.assign(x=[*TABLE.x[:7], value, *TABLE.x[8:]])
        for missing in ("error", "drop"):
            with pytest.raises(errors.DataError, match=r"'x': 1 value is infinite \(rows 7"):
                mtl.TaskData.from_table(bad, task="task", formula=formula, missing=missing)
    design = mtl.TaskData.from_table(TABLE, task="task", formula=formula).schema.design
    if "x" in design.reads:
        with pytest.raises(errors.PredictionError, match=r"not finite in 'x', rows \[7\]"):
            design.matrix(bad, errors.PredictionError)


@pytest.mark.parametrize(
    ("levels", "new", "words"),
    [
        ([1, 2, 3], ["1", "2", "3"], r"has text \('1'\) for levels that are numbers. Convert it to numbers"),
        (["1", "2", "3"], [1, 2, 3], r"has numbers \(1\) for levels that are text. Convert it to text"),
        ([1, 2, 3], [1, 2, 4], r"has unknown levels \[4\]. Known: \[1, 2, 3\]\.$"),
    ],
)
def test_levels_of_another_type_are_said_to_be(levels, new, words):
    table = TABLE.assign(k=pd.Categorical(levels * 10))
    design = mtl.TaskData.from_table(table, task="task", formula="y ~ k").schema.design
    with pytest.raises(errors.PredictionError, match=words):
        design.matrix(pd.DataFrame({"k": new}), errors.PredictionError)


def test_text_that_an_expression_compares_has_levels():
    table = TABLE.assign(s=list("abc") * 10)
    design = mtl.TaskData.from_table(table, task="task", formula="y ~ {s == 'a'}").schema.design
    with pytest.raises(
        errors.PredictionError, match=r"unknown levels \['d'\].*compute the column that it makes"
    ):
        design.matrix(pd.DataFrame({"s": ["a", "d"]}), errors.PredictionError)


@pytest.mark.parametrize("kind", [pd.DataFrame, pl.DataFrame, lambda frame: pl.DataFrame(frame).to_arrow()])
def test_arrays_that_are_frames_have_the_names_of_their_columns(kind):
    X = TABLE[["x", "w"]]
    data = mtl.TaskData.from_arrays(kind(X), TABLE.y, TABLE.task)
    assert data.features == ("Intercept", "x", "w")
    np.testing.assert_array_equal(data.X[:, 1:], X)
    given = mtl.TaskData.from_arrays(kind(X), TABLE.y, TABLE.task, feature_names=["a", "b"])
    assert given.features == ("Intercept", "a", "b")
    numbered = mtl.TaskData.from_arrays(X.set_axis([0, 1], axis=1), TABLE.y, TABLE.task)
    assert numbered.features == ("Intercept", "x0", "x1")
    with pytest.raises(errors.DataError, match=r"reserved names \['y'\]"):
        mtl.TaskData.from_arrays(kind(X.rename(columns={"w": "y"})), TABLE.y, TABLE.task)
