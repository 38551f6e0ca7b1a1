"""From tables to arrays: the same whatever the frame, complete in its complaints, repeatable on new rows."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayes_mtl as mtl
from bayes_mtl.data import TaskSchema, TaskStatistics
from bayes_mtl.errors import DataError, DataWarning, PredictionError

ARRAYS = ("X", "X_shared", "y", "task_index", "row", "task_features", "weights", "offset")


def columns(n=18, seed=0):
    rng = np.random.default_rng(seed)
    task = [("c", "a", "b")[i] for i in rng.permutation(np.arange(n) % 3)]
    return {
        "task": task,
        "y": rng.standard_normal(n),
        "x": rng.standard_normal(n),
        "z": rng.standard_normal(n) + 1,
        "colour": [("red", "green", "blue")[i] for i in rng.permutation(np.arange(n) % 3)],
        "flag": [bool(i) for i in rng.permutation(np.arange(n) % 2)],
        "w": rng.uniform(0.5, 2, n),
        "o": rng.standard_normal(n),
        "s": rng.uniform(0.5, 2, n),
        "size": [{"a": 1.5, "b": -0.5, "c": 4.0}[t] for t in task],
        "kind": [{"a": "big", "b": "small", "c": "big"}[t] for t in task],
    }


def assert_same(one, two):
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)
    assert (one.noise is None) == (two.noise is None)
    if one.noise is not None:
        np.testing.assert_array_equal(one.noise, two.noise)
    assert one.tasks == two.tasks
    assert one.features == two.features
    assert one.shared_features == two.shared_features
    assert one.task_feature_names == two.task_feature_names


def findings(**arguments):
    with pytest.raises(DataError) as caught:
        mtl.TaskData.from_table(**arguments)
    for finding in caught.value.findings:
        assert str(finding) in str(caught.value)
    return [(f.where, f.problem) for f in caught.value.findings]


EVERYTHING = {
    "task": "task",
    "outcome": "y",
    "features": ["x", "colour", "flag"],
    "shared_features": ["z"],
    "task_features": ["size"],
    "weights": "w",
    "offset": "o",
    "noise": "s",
}


class TestTables:
    def test_every_array_by_hand(self):
        c = columns()
        data = mtl.TaskData.from_table(c, **EVERYTHING)
        order = sorted(range(18), key=lambda i: (c["task"][i], i))
        assert data.tasks == ("a", "b", "c")
        np.testing.assert_array_equal(data.row, order)
        np.testing.assert_array_equal(data.task_index, [("a", "b", "c").index(c["task"][i]) for i in order])
        np.testing.assert_array_equal(data.starts, [0, 6, 12, 18])
        assert data.features == ("Intercept", "x", "colour[T.green]", "colour[T.red]", "flag")
        expected = [
            [1, c["x"][i], c["colour"][i] == "green", c["colour"][i] == "red", c["flag"][i]] for i in order
        ]
        np.testing.assert_array_equal(data.X, np.array(expected, dtype=float))
        np.testing.assert_array_equal(data.X_shared, np.array(c["z"])[order][:, None])
        for name, key in (("y", "y"), ("weights", "w"), ("offset", "o"), ("noise", "s")):
            np.testing.assert_array_equal(getattr(data, name), np.array(c[key])[order])
        np.testing.assert_array_equal(data.task_features, [[1.5], [-0.5], [4.0]])
        assert (data.n_rows, data.n_tasks, data.n_features) == (18, 3, 5)
        np.testing.assert_array_equal(data.full_matrix, np.hstack([data.X, data.X_shared]))

    @pytest.mark.parametrize("formula", [None, "y ~ x * colour + np.exp(z)"])
    def test_pandas_polars_and_dict_are_equal(self, formula):
        c = columns()
        arguments = {"task": "task", "formula": formula} if formula else EVERYTHING
        frame = pd.DataFrame(c)
        one = mtl.TaskData.from_table(c, **arguments)
        assert_same(one, mtl.TaskData.from_table(frame, **arguments))
        assert_same(one, mtl.TaskData.from_table(frame.set_index("y", drop=False), **arguments))
        assert_same(one, mtl.TaskData.from_table(pl.DataFrame(c), **arguments))

    def test_categories_keep_their_order(self):
        c = columns()
        levels = ["red", "purple", "green", "blue"]
        for frame in (
            pd.DataFrame(c).assign(colour=pd.Categorical(c["colour"], categories=levels)),
            pl.DataFrame(c).with_columns(pl.col("colour").cast(pl.Enum(levels))),
        ):
            data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=["colour"])
            assert data.features == ("Intercept", "colour[T.green]", "colour[T.blue]")

    def test_formula_and_lists_are_equal(self):
        c = columns()
        lists = mtl.TaskData.from_table(
            c, task="task", outcome="y", features=["x", "colour"], shared_features=["z"]
        )
        formula = mtl.TaskData.from_table(c, task="task", formula="y ~ x + colour + z", shared_features=["z"])
        assert_same(lists, formula)
        bare = mtl.TaskData.from_table(c, task="task", outcome="y", features=["x"], intercept=False)
        assert_same(bare, mtl.TaskData.from_table(c, task="task", formula="y ~ 0 + x"))
        only = mtl.TaskData.from_table(c, task="task", outcome="y")
        assert_same(only, mtl.TaskData.from_table(c, task="task", formula="y ~ 1"))
        assert only.features == ("Intercept",)

    def test_shared_terms(self):
        data = mtl.TaskData.from_table(
            columns(), task="task", formula="y ~ x + colour", shared_features=["colour", "Intercept"]
        )
        assert data.features == ("x",)
        assert data.shared_features == ("Intercept", "colour[T.green]", "colour[T.red]")

    def test_outcome_transformed_and_boolean(self):
        c = columns()
        c["y"] = np.exp(c["y"])
        data = mtl.TaskData.from_table(c, task="task", formula="np.log(y) ~ x")
        np.testing.assert_allclose(data.y, np.log(c["y"])[data.row])
        data = mtl.TaskData.from_table(c, task="task", outcome="flag", features=["x"])
        np.testing.assert_array_equal(data.y, np.array(c["flag"], dtype=float)[data.row])

    def test_columns_with_odd_names(self):
        c = {"my task": ["b", "a"] * 5, "the outcome": np.arange(10.0), "a x": np.arange(10.0) ** 2 / 50}
        data = mtl.TaskData.from_table(c, task="my task", outcome="the outcome", features=["a x"])
        assert data.features == ("Intercept", "a x")
        np.testing.assert_array_equal(data.X[:, 1], c["a x"][data.row])

    def test_wide(self):
        c = columns()
        c["y2"] = c["y"] ** 2
        arguments = {"features": ["x", "colour"], "shared_features": ["z"], "weights": "w"}
        wide = mtl.TaskData.from_table(c, outcomes=["y2", "y"], **arguments)
        stacked = {k: [*c[k], *c[k]] for k in ("x", "colour", "z", "w")}
        stacked |= {"value": [*c["y2"], *c["y"]], "name": ["y2"] * 18 + ["y"] * 18}
        assert_same(wide, mtl.TaskData.from_table(stacked, task="name", outcome="value", **arguments))
        assert wide.tasks == ("y", "y2")
        assert wide.schema.task is None
        assert wide.schema.outcomes == ("y2", "y")
        formula = mtl.TaskData.from_table(
            c, outcomes=["y2", "y"], formula="~ x + colour + z", shared_features=["z"], weights="w"
        )
        assert_same(wide, formula)

    def test_wide_with_columns_called_task_and_outcome(self):
        c = columns()
        outcomes = {"a": c["y"], "b": c["y"][::-1]}  # of one scale
        wide = {**outcomes, "task": c["x"], "outcome": c["z"]}
        plain = {**outcomes, "x1": c["x"], "x2": c["z"]}
        one = mtl.TaskData.from_table(wide, outcomes=["a", "b"], features=["task", "outcome"])
        two = mtl.TaskData.from_table(plain, outcomes=["a", "b"], features=["x1", "x2"])
        np.testing.assert_array_equal(one.X, two.X)
        np.testing.assert_array_equal(one.y, two.y)
        assert one.tasks == two.tasks == ("a", "b")

    def test_from_arrays(self):
        c = columns()
        X = np.column_stack([c["x"], c["z"]])
        arrays = mtl.TaskData.from_arrays(
            X,
            c["y"],
            c["task"],
            feature_names=["x", "z"],
            weights=c["w"],
            offset=c["o"],
            noise=c["s"],
            shared_features=["z"],
        )
        table = mtl.TaskData.from_table(
            c,
            task="task",
            outcome="y",
            features=["x"],
            shared_features=["z"],
            weights="w",
            offset="o",
            noise="s",
        )
        assert_same(arrays, table)

    def test_from_arrays_lists_what_does_not_match(self):
        with pytest.raises(DataError) as caught:
            mtl.TaskData.from_arrays(
                np.ones((4, 2)), [1, 2, 3], ["a"] * 4, feature_names=["y", "y", "z"], weights=[1]
            )
        assert [f.where for f in caught.value.findings] == ["feature_names"] * 3 + ["y", "weights"]
        with pytest.raises(DataError, match="2 dimensions, found 1"):
            mtl.TaskData.from_arrays([1.0, 2.0], [1, 2], ["a", "b"])


class TestLabels:
    @pytest.mark.parametrize(
        ("labels", "tasks"),
        [
            (["10", "9", "a"], ("10", "9", "a")),
            ([10, 9, -1], (-1, 9, 10)),
            ([10.0, 9.0, -1.0], (-1, 9, 10)),
            (np.array([3, 1, 2], dtype=np.int8), (1, 2, 3)),
            ([True, False, True], (False, True)),
            (pd.Categorical(["b", "a", "c"], categories=["c", "b", "a"]), ("a", "b", "c")),
        ],
    )
    def test_kept_and_sorted(self, labels, tasks):
        table = {"task": list(labels) * 3, "y": np.arange(9.0)}
        data = mtl.TaskData.from_table(table, task="task", outcome="y")
        assert data.tasks == tasks
        assert [type(t) for t in data.tasks] == [type(t) for t in tasks]
        for t, row in zip(data.task_index, data.row, strict=True):
            assert data.tasks[t] == table["task"][row]

    @given(st.lists(st.tuples(st.integers(-5, 5), st.floats(-5, 5)), min_size=3, max_size=30))
    def test_rows_find_their_tasks(self, rows):
        labels, y = (list(v) for v in zip(*rows, strict=True))
        table = {"task": labels, "y": np.array(y) + np.arange(len(y))}
        data = mtl.TaskData.from_table(table, task="task", outcome="y")
        assert data.tasks == tuple(sorted(set(labels)))
        assert sorted(data.row) == list(range(len(rows)))
        assert (np.diff(data.task_index) >= 0).all()
        for i, row in enumerate(data.row):
            assert data.tasks[data.task_index[i]] == labels[row]
            assert data.y[i] == table["y"][row]
        for t in range(data.n_tasks):
            assert (data.task_index[data.starts[t] : data.starts[t + 1]] == t).all()


class TestCentering:
    def test_all_and_some(self):
        c = columns()
        arguments = {"task": "task", "outcome": "y", "features": ["x", "z"], "task_features": ["size"]}
        plain = mtl.TaskData.from_table(c, **arguments)
        centered = mtl.TaskData.from_table(c, **arguments, center=True)
        np.testing.assert_allclose(centered.X[:, 1:], plain.X[:, 1:] - plain.X[:, 1:].mean(axis=0))
        np.testing.assert_array_equal(centered.X[:, 0], 1.0)
        np.testing.assert_allclose(centered.task_features, plain.task_features - plain.task_features.mean())
        some = mtl.TaskData.from_table(c, **arguments, center=["z"])
        np.testing.assert_array_equal(some.X[:, 1], plain.X[:, 1])
        np.testing.assert_allclose(some.X[:, 2], centered.X[:, 2])
        np.testing.assert_array_equal(some.task_features, plain.task_features)

    def test_new_rows_lose_the_old_mean(self):
        data = mtl.TaskData.from_table(columns(), task="task", outcome="y", features=["x"], center=True)
        matrix = data.schema.design.matrix({"x": [0.0, 10.0]}, PredictionError)
        np.testing.assert_allclose(matrix[:, 1], np.array([0.0, 10.0]) - np.mean(columns()["x"]))

    def test_unknown_column(self):
        found = findings(table=columns(), task="task", outcome="y", features=["x"], center=["x", "nope"])
        assert found == [("center", "names ['nope']")]


class TestNewRows:
    @pytest.mark.parametrize(
        "right",
        [
            "center(x) + z",
            "bs(x, df=4)",
            "poly(x, 2) + scale(z)",
            "colour:x + flag",
            "C(colour, contr.sum) * z",
            "np.log(w) + I(x**2)",
            "0 + colour + x",
        ],
    )
    def test_the_same_numbers_after_a_trip_through_json(self, right):
        c = columns()
        data = mtl.TaskData.from_table(c, task="task", formula=f"y ~ {right}")
        text = json.dumps(data.schema.to_dict())
        schema = TaskSchema.from_dict(json.loads(text))
        assert schema.varying == data.features
        # A few of the old rows, in another order, as new ones: means, knots and levels are those of all rows.
        some = [7, 2, 11]
        new = pd.DataFrame(c).iloc[some]
        varying, shared = schema.split(schema.design.matrix(new, PredictionError))
        back = np.argsort(data.row)
        np.testing.assert_allclose(varying, data.X[back][some], rtol=1e-13, atol=1e-13)
        assert shared.shape == (3, 0)
        assert json.dumps(schema.to_dict()) == text

    def test_task_features_too(self):
        data = mtl.TaskData.from_table(
            columns(), task="task", outcome="y", features=["x"], task_features=["size", "kind"], center=True
        )
        assert data.task_feature_names == ("size", "kind[T.small]")
        schema = TaskSchema.from_dict(json.loads(json.dumps(data.schema.to_dict())))
        new = schema.task_design.matrix({"size": [2.0], "kind": ["small"]}, PredictionError)
        mean = np.mean([1.5, -0.5, 4.0])
        np.testing.assert_allclose(new[:, -2:], [[2.0 - mean, 1 - 1 / 3]])
        assert new.shape == (1, 2)

    def test_everything_wrong_at_once(self):
        options = {"features": ["x", "colour"], "shared_features": ["kind"]}
        data = mtl.TaskData.from_table(columns(), task="task", outcome="y", **options)
        with pytest.raises(PredictionError) as caught:
            data.schema.design.matrix({"x": ["one"], "colour": ["mauve"], "kind": ["huge"]}, PredictionError)
        assert {f.where for f in caught.value.findings} == {"column 'x'", "column 'colour'", "column 'kind'"}
        with pytest.raises(PredictionError, match=r"'kind'.*is not in the table"):
            data.schema.design.matrix({"x": [1.0], "colour": ["red"]}, PredictionError)
        with pytest.raises(PredictionError, match="not finite in 'x', rows"):
            data.schema.design.matrix(
                {"x": [1.0, np.nan], "colour": ["red"] * 2, "kind": ["big"] * 2}, PredictionError
            )

    def test_outside_of_a_spline(self):
        data = mtl.TaskData.from_table(columns(), task="task", formula="y ~ bs(x, df=4)")
        with pytest.raises(PredictionError, match="cannot be evaluated on these rows"):
            data.schema.design.matrix({"x": [99.0]}, PredictionError)


class TestSubset:
    def test_mask_positions_and_labels(self):
        data = mtl.TaskData.from_table(columns(), **EVERYTHING)
        keep = data.task_index != 1
        part = data.subset(data.row[keep])
        assert part.tasks == ("a", "c")
        np.testing.assert_array_equal(part.task_index, np.repeat([0, 1], 6))
        for name in ("X", "X_shared", "y", "row", "weights", "offset", "noise"):
            np.testing.assert_array_equal(getattr(part, name), getattr(data, name)[keep])
        np.testing.assert_array_equal(part.task_features, data.task_features[[0, 2]])
        assert part.schema == data.schema
        assert_same(part, data.subset(data.row[keep][::-1]))
        assert_same(data, data.subset(range(18)))
        np.testing.assert_allclose(part.statistics.gram, data.statistics.gram[[0, 2]])

    def test_nothing(self):
        data = mtl.TaskData.from_table(columns(), task="task", outcome="y")
        with pytest.raises(DataError, match="select nothing"):
            data.subset(np.zeros(18, dtype=bool))


class TestStatistics:
    @given(seed=st.integers(0, 2**32 - 1), n_tasks=st.integers(1, 4), n_columns=st.integers(0, 3))
    def test_brute_force(self, seed, n_tasks, n_columns):
        rng = np.random.default_rng(seed)
        task = np.sort(np.concatenate([np.arange(n_tasks), rng.integers(0, n_tasks, 6)]))
        n = len(task)
        X, y, w = rng.standard_normal((n, n_columns)), rng.standard_normal(n), rng.uniform(0.2, 3, n)
        found = TaskStatistics.from_rows(X, y, np.searchsorted(task, np.arange(n_tasks + 1)), w)
        residual = y - X @ found.reference
        np.testing.assert_allclose((X * w[:, None]).T @ residual, 0.0, atol=1e-9)  # weighted least squares
        for t in range(n_tasks):
            rows = np.flatnonzero(task == t)
            gram = sum((w[i] * np.outer(X[i], X[i]) for i in rows), np.zeros((n_columns, n_columns)))
            moment = sum((w[i] * X[i] * residual[i] for i in rows), np.zeros(n_columns))
            np.testing.assert_allclose(found.gram[t], gram, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(found.moment[t], moment, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(
                found.square[t], sum(w[i] * residual[i] ** 2 for i in rows), rtol=1e-12
            )
            assert found.count[t] == len(rows)
        assert found.log_weight == pytest.approx(0.5 * np.log(w).sum())

    def test_digits_survive_an_outcome_far_from_zero(self):
        c = columns()
        data = mtl.TaskData.from_table(c, task="task", outcome="y", features=["x"])
        far = mtl.TaskData.from_table(c | {"y": c["y"] + 1e7}, task="task", outcome="y", features=["x"])
        np.testing.assert_allclose(far.statistics.square, data.statistics.square, rtol=1e-6)

    def test_weights_noise_and_offset_are_inside(self):
        c = columns()
        data = mtl.TaskData.from_table(
            c, task="task", outcome="y", features=["x"], weights="w", noise="s", offset="o"
        )
        precision = data.weights / data.noise**2
        by_hand = TaskStatistics.from_rows(data.full_matrix, data.y - data.offset, data.starts, precision)
        for name in ("gram", "moment", "square", "reference", "log_weight"):
            np.testing.assert_array_equal(getattr(data.statistics, name), getattr(by_hand, name))


class TestFindings:
    def test_all_of_them_together(self):
        rng = np.random.default_rng(0)
        n = 12
        table = pd.DataFrame({"task": list("abc") * 4, "x": rng.standard_normal(n), "five": 5.0})
        table["twice"] = 2 * table.x + 1
        table["some_nan"], table["some_inf"] = rng.standard_normal(n), rng.standard_normal(n)
        table.loc[[2, 4], "some_nan"] = np.nan
        table.loc[7, "some_inf"] = -np.inf
        table["y"] = np.where(table.task == "a", 1, np.arange(n) % 2)
        found = findings(
            table=table,
            task="task",
            outcome="y",
            features=["x", "twice", "five", "some_nan", "some_inf"],
            strict=True,
        )
        assert found == [
            ("column 'some_inf'", "1 value is infinite (rows 7; tasks 'b')"),
            ("column 'some_nan'", "2 values are NaN (rows 2, 4; tasks 'c', 'b')"),
            ("feature 'five'", "is constant (5 in every row)"),
            ("feature 'twice'", "is collinear: an exact linear combination of 'x'"),
        ]

    def test_side_columns(self):
        c = columns()
        c["w"][3], c["s"][4], c["o"][5], c["y"][6] = 0.0, -1.0, np.inf, np.nan
        found = findings(
            table=c, task="task", outcome="y", features=["x"], weights="w", noise="s", offset="o"
        )
        where = [f[0] for f in found]
        assert where == ["column 'y'", "column 'w'", "column 'o'", "column 's'"]
        assert found[1][1] == "should be positive, found 0.0 in row 3"
        assert found[3][1] == "should be positive, found -1.0 in row 4"

    def test_missing_rows_can_be_dropped(self):
        c = columns()
        c["x"][3], c["y"][6], c["w"][9] = np.nan, np.nan, np.nan
        c["colour"][1] = None
        data = mtl.TaskData.from_table(
            c, task="task", outcome="y", features=["x", "colour"], weights="w", missing="drop"
        )
        assert sorted(data.row) == [i for i in range(18) if i not in (1, 3, 6, 9)]
        kept = pd.DataFrame(c).iloc[sorted(data.row)].reset_index(drop=True)
        again = mtl.TaskData.from_table(kept, task="task", outcome="y", features=["x", "colour"], weights="w")
        np.testing.assert_array_equal(data.X, again.X)
        np.testing.assert_array_equal(data.y, again.y)
        assert findings(table={"task": ["a"], "y": [np.nan]}, task="task", outcome="y", missing="drop") == [
            ("table", "has no complete row: of 1 rows values are missing in 'y' (1)")
        ]
        assert findings(table=c, task="task", outcome="y", missing="ignore")[0][0] == "missing"

    def test_a_missing_level_is_not_the_reference_level(self):
        c = columns()
        c["colour"][1] = None
        where = [f[0] for f in findings(table=c, task="task", formula="y ~ x + colour:flag")]
        assert where
        assert all("colour" in w for w in where)
        frame = pl.DataFrame(c)
        where = [f[0] for f in findings(table=frame, task="task", outcome="y", features=["x", "colour"])]
        assert where == ["column 'colour'"]

    @pytest.mark.parametrize("kind", ["three", "without_intercept"])
    def test_collinear_in_many(self, kind):
        c = columns()
        c["sum"] = 2 * np.array(c["x"]) - c["z"] + (4.0 if kind == "three" else 0.0)
        arguments = {"task": "task", "outcome": "y", "features": ["x", "z", "w", "sum"]}
        arguments["intercept"] = kind == "three"
        found = findings(table=c, strict=True, **arguments)
        assert found == [("feature 'sum'", "is collinear: an exact linear combination of 'x', 'z'")]

    def test_a_shift_is_collinear_only_with_an_intercept(self):
        c = columns()
        c["shifted"] = np.array(c["x"]) + 1
        arguments = {"table": c, "task": "task", "outcome": "y", "features": ["x", "shifted"]}
        assert [f[0] for f in findings(**arguments, strict=True)] == ["feature 'shifted'"]
        mtl.TaskData.from_table(**arguments, intercept=False)

    @given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 4), scale=st.floats(-3, 3))
    def test_collinearity_is_rank(self, seed, n, scale):
        """One finding per column that adds nothing to the rank, whatever the units."""
        rng = np.random.default_rng(seed)
        basis = rng.standard_normal((20, n)) * 10.0 ** (scale * rng.uniform(-1, 1, n))
        extra = basis[:, rng.integers(0, n, 2)] @ np.diag(rng.uniform(0.5, 2, 2))
        X = np.hstack([basis, extra])
        names = [f"x{i}" for i in range(n + 2)]
        with pytest.raises(DataError) as caught:
            mtl.TaskData.from_arrays(
                X,
                rng.standard_normal(20),
                ["a", "b"] * 10,
                feature_names=names,
                intercept=False,
                strict=True,
            )
        assert [f.where for f in caught.value.findings] == [f"feature 'x{n}'", f"feature 'x{n + 1}'"]

    def test_outcome_that_never_changes(self):
        c = columns() | {"y": np.full(18, 3.0)}
        assert findings(table=c, task="task", outcome="y") == [
            ("outcome 'y'", "is constant (3 in every row)")
        ]

    def test_labels(self):
        y = np.arange(4.0)
        kinds = "should hold text or integers as task labels, found "
        assert findings(table={"task": [1, "a"] * 2, "y": y}, task="task", outcome="y") == [
            ("column 'task'", kinds + "['int', 'str']")
        ]
        assert findings(table={"task": [0.5, 1.0] * 2, "y": y}, task="task", outcome="y") == [
            ("column 'task'", kinds + "['float']")
        ]
        for labels in (["a", None, "b", "b"], [1, None, 2, 2]):
            found = findings(table={"task": labels, "y": y}, task="task", outcome="y")
            assert found == [("column 'task'", "1 task labels are missing (rows [1])")]
        for labels, kept in ((["a", None, "b", "b"], ("a", "b")), ([1, None, 2, 2], (1, 2))):
            table = {"task": labels, "y": y}
            assert mtl.TaskData.from_table(table, task="task", outcome="y", missing="drop").tasks == kept

    def test_task_features(self):
        c = columns()
        c["five"], c["twice"], c["hole"] = [5.0] * 18, [2 * v for v in c["size"]], list(c["size"])
        c["hole"] = [np.nan if t == "b" else v for t, v in zip(c["task"], c["hole"], strict=True)]
        arguments = {"table": c, "task": "task", "outcome": "y"}
        assert findings(**arguments, task_features=["x"]) == [
            ("task feature 'x'", "is not constant within tasks 'a', 'b', 'c'")
        ]
        assert findings(**arguments, task_features=["size", "twice", "five"], strict=True) == [
            ("feature 'five'", "is constant (5 in every row)"),
            ("feature 'twice'", "is collinear: an exact linear combination of 'size'"),
        ]
        assert findings(**arguments, task_features=["hole"])[0][0] == "column 'hole'"

    @pytest.mark.parametrize(
        ("arguments", "where"),
        [
            ({"outcome": "y"}, ["task"]),
            ({"task": "task"}, ["formula"]),
            ({"task": "task", "outcome": "y", "formula": "y ~ x"}, ["formula"]),
            ({"task": "task", "formula": "y ~ x", "features": ["x"]}, ["formula"]),
            ({"task": "task", "outcome": "y", "features": "x"}, ["features"]),
            (
                {"task": "task", "outcomes": ["y", "y"], "formula": "~ x", "features": ["x"]},
                ["outcomes", "formula", "outcomes"],
            ),
            ({"task": "tsk", "outcome": "Y", "weights": "ww"}, ["column 'tsk'", "column 'ww'", "column 'Y'"]),
            ({"task": "task", "outcome": "y", "features": ["xx", "zz"]}, ["column 'xx'", "column 'zz'"]),
            ({"task": "task", "formula": "y + x"}, ["formula 'y + x'"]),
            ({"task": "task", "formula": "~ x"}, ["formula '~ x'"]),
            ({"outcomes": ["y", "w"], "formula": "z ~ x"}, ["formula 'z ~ x'"]),
            ({"task": "task", "formula": "y ~ x +"}, ["formula 'x +'"]),
            ({"task": "task", "formula": "y ~ nothing(x)"}, ["formula 'nothing(x)'"]),
            (
                {"task": "task", "outcome": "y", "features": ["x"], "shared_features": ["colour", "q"]},
                ["column 'q'"],
            ),
            ({"task": "task", "formula": "y ~ x", "shared_features": ["z", "q"]}, ["shared_features"] * 2),
            ({"task": "task", "outcome": "colour"}, ["column 'colour'"]),
            ({"task": "task", "formula": "C(colour) ~ x"}, ["outcome 'C(colour)'"]),
            ({"table": [1, 2], "task": "task", "outcome": "y"}, ["table"]),
        ],
    )
    def test_arguments(self, arguments, where):
        assert [f[0] for f in findings(**({"table": columns()} | arguments))] == where

    def test_close_names_are_suggested(self):
        with pytest.raises(DataError, match="Did you mean 'colour'"):
            mtl.TaskData.from_table(columns(), task="task", outcome="y", features=["color"])

    def test_repeated_columns(self):
        frame = pd.DataFrame(np.ones((3, 3)), columns=["task", "y", "y"])
        with pytest.raises(DataError, match="repeats columns"):
            mtl.TaskData.from_table(frame, task="task", outcome="y")

    def test_an_intercept_that_extrapolates_gets_a_warning(self):
        c = columns()
        c["year"] = 2000 + np.arange(18.0)
        with pytest.warns(DataWarning, match=r"year \(mean 2008, sd 5.19\).*center=True"):
            mtl.TaskData.from_table(c, task="task", outcome="y", features=["year"])
        mtl.TaskData.from_table(c, task="task", outcome="y", features=["year"], center=True)
        mtl.TaskData.from_table(c, task="task", outcome="y", features=["year"], shared_features=["Intercept"])


def test_repr():
    text = repr(mtl.TaskData.from_table(columns(), **EVERYTHING))
    assert text.splitlines() == [
        "TaskData: 3 tasks ('task'), 18 rows (6 per task), outcome 'y'",
        "  by task: Intercept, x, colour[T.green], colour[T.red], flag",
        "  shared: z",
        "  of tasks: size",
    ]
