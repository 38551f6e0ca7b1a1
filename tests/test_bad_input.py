"""Inputs that would silently become something else than what they look like."""

from __future__ import annotations

import copy
import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl import errors
from bayes_mtl.summaries.correlation import interval_probability

N = 30
RNG = np.random.default_rng(0)
TABLE = pd.DataFrame(RNG.standard_normal((N, 3)), columns=["x", "w", "y"])
TABLE["task"] = np.repeat(["a", "b", "c"], 10)


def read(frame=TABLE, **options):
    return mtl.TaskData.from_table(frame, **{"task": "task", "outcome": "y", **options})


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (TABLE.assign(Intercept=TABLE.x), {"features": ["Intercept", "w"]}, "reserved name"),
        (TABLE.rename(columns={"x": "1"}), {"features": ["1", "w"]}, "cannot hold"),
        (TABLE, {"features": ["x", "y"]}, "also the outcome"),
        (TABLE, {"features": ["x", "task"]}, "also the task"),
        (TABLE, {"features": ["x"], "weights": "x"}, "also the weights"),
        (
            TABLE.assign(z=TABLE.task.map(ord)),
            {"features": ["z"], "task_features": ["z"]},
            "also a task feature",
        ),
        (TABLE.assign(x=TABLE.x.astype(str)), {"features": ["x"]}, "numbers as text"),
        (TABLE.assign(x=pd.date_range("2020", periods=N)), {"features": ["x"]}, "dates or durations"),
        (TABLE, {"outcome": None, "formula": "y ~ x + (x | task)"}, "shared_features"),
        (TABLE.rename(columns={"x": 3}), {"features": [3]}, "names of columns"),
        (TABLE, {"features": 3}, "features: should be a list of columns, found 3"),
        (TABLE, {"features": ["x"], "center": "x"}, "center: should be True, False or a list"),
        (TABLE, {"features": ["x"], "center": 1}, "center: should be True, False or a list"),
        (TABLE, {"features": ["x"], "intercept": "no"}, "intercept: should be True or False"),
        (TABLE, {"features": ["x"], "groupings": None}, "groupings: should be a list of columns"),
        (TABLE, {"features": ["x"], "groupings": {"w": 1}}, "groupings 'w': should be a list of features"),
        (TABLE, {"outcome": None, "formula": b"y ~ x"}, "formula: should be text"),
    ],
)
def test_is_refused(frame, options, message):
    with pytest.raises(errors.DataError, match=message):
        read(frame, **options)


@pytest.mark.parametrize("kind", [pd.Index, pd.Series, np.array, tuple, iter], ids=lambda kind: kind.__name__)
def test_names_may_come_in_anything_that_can_be_gone_through_once(kind):
    table = TABLE.assign(lv=TABLE.task.map(ord).astype(float), h=np.tile(list("pq"), N // 2))
    lists = {"features": ["x"], "shared_features": ["w"], "task_features": ["lv"], "center": ["x"]}
    names = {name: kind(value) for name, value in lists.items()}
    for by_level in (["h"], {"h": ["Intercept", "x"]}):
        expected = read(table, **lists, groupings=by_level)
        again = {k: kind(v) for k, v in by_level.items()} if isinstance(by_level, dict) else kind(by_level)
        found = read(table, **names, groupings=again)
        assert found.schema == expected.schema
        np.testing.assert_array_equal(found.X, expected.X)
        np.testing.assert_array_equal(found.X_shared, expected.X_shared)
        names = {name: kind(value) for name, value in lists.items()}
    wide = mtl.TaskData.from_table(TABLE, outcomes=kind(["w", "y"]), features=kind(["x"]))
    assert (wide.tasks, wide.features) == (("w", "y"), ("Intercept", "x"))


def test_messages_have_no_terminal_colours():
    with pytest.raises(errors.DataError) as caught:
        mtl.TaskData.from_table(TABLE, task="task", formula="y ~ x +")
    assert "\x1b" not in str(caught.value)


def test_all_missing_columns_are_named_together():
    with pytest.raises(errors.DataError) as caught:
        mtl.TaskData.from_table(TABLE, task="tsk", formula="yy ~ xx + w")
    assert len(caught.value.findings) == 3


def test_numbers_of_any_type_are_numbers():
    small = TABLE.assign(a=np.arange(90, 90 + N, dtype="int8"))
    np.testing.assert_array_equal(
        mtl.TaskData.from_table(small, task="task", formula="y ~ 0 + I(a**2)").X[:, 0],
        np.arange(90, 90 + N) ** 2.0,
    )
    for kind in (float, lambda v: Decimal(repr(v))):
        changed = TABLE.assign(x=np.array([kind(float(v)) for v in TABLE.x], dtype=object))
        np.testing.assert_allclose(read(changed, features=["x"]).X, read(features=["x"]).X, rtol=1e-12)


def test_dropping_rows_keeps_the_other_checks():
    bad = TABLE.assign(wt=[-1.0, *np.ones(N - 1)])
    with pytest.raises(errors.DataError, match="should be positive"):
        read(bad, features=["x"], weights="wt", missing="drop")
    bad = TABLE.assign(x=[np.inf, *TABLE.x[1:]])
    with pytest.raises(errors.DataError, match="infinite"):
        read(bad, features=["x"], missing="drop")


def test_what_is_dropped_teaches_nothing():
    gone = TABLE.assign(
        x=[1e6, *TABLE.x[1:]], w=[np.nan, *TABLE.w[1:]], c=["rare", *["u", "v", "u"] * 9, "u", "v"]
    )
    with pytest.warns(
        errors.DataWarning, match=r"in 'w' \(1\)\), and with them altogether the level 'rare' of 'c'"
    ):
        data = read(gone, features=["x", "w", "c"], center=True, missing="drop")
    np.testing.assert_allclose(data.X[:, 1:].mean(axis=0), 0, atol=1e-12)
    assert data.features == ("Intercept", "x", "w", "c[T.v]")
    assert data.row.min() == 1
    with pytest.warns(errors.DataWarning, match="removed 10 of 30 rows .* altogether the task 'a'"):
        read(TABLE.assign(w=np.where(TABLE.task == "a", np.nan, TABLE.w)), features=["w"], missing="drop")


def test_stateful_terms_with_dropped_rows():
    gone = TABLE.assign(x=[np.nan, *TABLE.x[1:]])
    data = mtl.TaskData.from_table(gone, task="task", formula="y ~ center(x)", missing="drop")
    assert abs(data.X[:, 1].mean()) < 1e-12


def test_subset_speaks_of_the_table():
    shuffled = TABLE.sample(frac=1, random_state=1).reset_index(drop=True)
    data = read(shuffled, features=["x"])
    mask = (shuffled.x > 0).to_numpy()
    assert sorted(data.subset(mask).row) == np.flatnonzero(mask).tolist()
    assert sorted(data.subset([3, 5]).row) == [3, 5]
    with pytest.raises(errors.DataError, match="mask of 3 rows"):
        data.subset(np.ones(3, dtype=bool))


def test_arrays_keep_the_types_of_labels():
    X, y = np.arange(4.0)[:, None] ** 2, np.array([0.0, 1.0, 3.0, 2.0])
    for task in ([1, "1", 2, 2], ["a", np.nan, "b", "b"]):
        with pytest.raises(errors.DataError):
            mtl.TaskData.from_arrays(X, y, task)


def test_outcomes_on_different_scales_are_said():
    with pytest.warns(errors.DataWarning, match="different scales"):
        mtl.TaskData.from_table(TABLE.assign(big=100 * TABLE.y), outcomes=["y", "big"], features=["x"])


def test_spec_copies_and_hashes():
    spec = mtl.ModelSpec(
        priors={"beta_mean": {"distribution": mtl.Prior("Normal", mu=0, sigma=1), "x": np.int64(2)}}
    )
    assert (
        pickle.loads(pickle.dumps(spec))
        == copy.deepcopy(spec)
        == spec
        == mtl.ModelSpec.from_dict(spec.to_dict())
    )
    assert hash(spec) == hash(copy.deepcopy(spec))
    assert {spec: 1}[spec] == 1


def test_swapped_arguments():
    with pytest.raises(errors.SpecError, match="a ModelSpec and a TaskData"):
        mtl.build_model(read(features=["x"]), mtl.ModelSpec())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mtl.ModelSpec.from_dict({"task_covariance": "Tree"}), "needs parents"),
        (lambda: mtl.ModelSpec.from_dict({"priors": 3}), "should be a Mapping"),
        (lambda: mtl.ModelSpec(independent_features=3), "should be a list of names"),
        (lambda: mtl.Gaussian(task_noise="no"), "should be True or False"),
        (lambda: mtl.Kernel([[1.0, 0.5], [0.5, 1.0]]), "needs `tasks`"),
    ],
)
def test_descriptions_that_make_no_sense(make, words):
    with pytest.raises(errors.SpecError, match=words):
        make()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"marginal": 1}, "should be True, False or 'auto'"),
        ({"marginal": np.zeros(2)}, "should be True, False or 'auto'"),
        ({"log_likelihood": "yes"}, "should be True, False or 'auto'"),
        ({"cores": 0}, "at least 1"),
        ({"target_accept": "0.9"}, "between 0 and 1"),
    ],
)
def test_arguments_of_a_fit(options, words):
    with pytest.raises(errors.SpecError, match=words):
        mtl.fit(read(), **options)


def test_parameters_that_the_rows_cannot_reach():
    plain = read()
    every = {"independent_features": list(plain.features)}
    for spec, words in (
        (mtl.ModelSpec(task_sd=True, **every), "scales no feature"),
        (mtl.ModelSpec(task_covariance=mtl.StudentT(), **every), "leaves no feature for StudentT"),
    ):
        with pytest.raises(errors.SpecError, match=words):
            mtl.build_model(spec, plain)
    frame = TABLE.assign(item=["p", "q"] * (len(TABLE) // 2) + ["p"] * (len(TABLE) % 2))
    data = read(frame, groupings=["item"])
    spec = mtl.ModelSpec(groupings={"item": mtl.LowRank(1)}, independent_features=["Intercept"])
    with pytest.raises(errors.SpecError, match="no feature of the grouping 'item' inside"):
        mtl.build_model(spec, data)


@pytest.mark.filterwarnings("ignore::bayes_mtl.errors.ConvergenceWarning")
def test_two_classes_are_hardly_gaussian():
    data = read(TABLE.assign(y=np.arange(N) % 2))
    with pytest.warns(errors.DataWarning, match="two classes are 'bernoulli'"):
        mtl.fit(data, mtl.ModelSpec(priors={"sigma": 0.5}), draws=4, tune=4, chains=1, progressbar=False)


def test_text_that_is_the_same_in_every_row_is_said():
    with pytest.raises(errors.DataError, match="is 'same' in every row"):
        read(TABLE.assign(kind="same"), features=["x", "kind"])


@pytest.mark.parametrize("given", ["LowRank", mtl.LowRank], ids=str)
def test_structures_are_written_with_their_options(given):
    with pytest.raises(errors.SpecError, match=r"Write mtl\.LowRank\(\.\.\.\)"):
        mtl.ModelSpec(task_covariance=given)


@pytest.mark.parametrize("no_fit", [None, TABLE, xr.DataTree()], ids=lambda no_fit: type(no_fit).__name__)
@pytest.mark.parametrize(
    "function",
    [
        "summary",
        "pooling",
        "transfer_gain",
        "leave_one_task_out",
        "clusters",
        "basis",
        "feature_selection",
        "gradient_conflict",
        "task_fit",
        "plot_coefficients",
    ],
)
def test_what_is_no_fit_is_said_to_be_none(function, no_fit):
    with pytest.raises(errors.StorageError, match=f"this {type(no_fit).__name__} is not a fit"):
        getattr(mtl, function)(no_fit)


@pytest.mark.parametrize("prob", [90, 0, 1, "half", float("nan")])
def test_the_probability_of_an_interval_is_one(prob):
    with pytest.raises(errors.SpecError, match="ci_prob: should be between 0 and 1"):
        interval_probability(prob)
