"""What is said of a table: warnings, counts and advice."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl.errors import DataError, DataWarning, SpecError
from bayes_mtl.inference.diagnostics import diagnose
from tests.test_rows import fitted

RNG = np.random.default_rng(4)
TABLE = pd.DataFrame(RNG.standard_normal((24, 3)), columns=["x", "z", "y"]).assign(
    child=np.repeat(list("abcdef"), 4),
    sex=np.repeat(["f", "m", "m", "f", "f", "m"], 4),
    age=np.repeat([-1.0, 0, 1, 2, 0, -1], 4),
    day=np.tile([1.0, 2, 3, 4], 6),
)


def read(frame=TABLE, **options):
    return mtl.TaskData.from_table(frame, **{"task": "child", **options})


class TestFeaturesOfTasks:
    @pytest.mark.parametrize(
        ("formula", "named"),
        [
            ("y ~ x + sex", "^'sex' is constant within every task"),
            ("y ~ x + age + sex", "^'age', 'sex' are constant within every task"),
            ("y ~ I(age > 0) + x", r"^'I\(age > 0\)' is constant"),
            ("y ~ x + scale(age)", r"^'scale\(age\)' is constant"),
        ],
    )
    def test_are_named_where_they_vary_by_task(self, formula, named):
        with pytest.warns(DataWarning, match=named + r"(?s:.)*task_features(?s:.)*shared_features"):
            read(formula=formula)

    @pytest.mark.parametrize(
        "options",
        [
            {"formula": "y ~ x + sex", "shared_features": ["sex"]},
            {"formula": "y ~ x", "task_features": ["sex", "age"]},
            {"formula": "y ~ x * day"},
            {"formula": "y ~ x + x:age"},  # changes with x
        ],
    )
    def test_are_at_home_elsewhere(self, options):
        read(**options)

    def test_are_not_told_from_others_by_one_row_each(self):
        read(TABLE.iloc[::4], formula="y ~ age")

    def test_one_task_that_changes_is_enough(self):
        read(TABLE.assign(age=[5.0, *TABLE.age[1:]]), formula="y ~ age")


class TestOneClass:
    frame = TABLE.assign(won=[1, 1, 1, 1, 0, 0, 0, 0, *([0, 1] * 8)])

    def test_is_counted(self):
        data = read(self.frame, formula="won ~ x")
        assert data.one_class == ("a", "b")
        assert "one class only: 2 of 6 tasks" in repr(data)
        assert "one class" not in repr(read(formula="y ~ x"))
        assert data.subset(np.arange(4, 24)).one_class == ("b",)
        rest = mtl.TaskData.from_table(self.frame.iloc[8:], task="child", formula="won ~ x")
        assert rest.one_class == ()
        assert "one class" not in repr(rest)

    def test_is_refused_where_nothing_is_shared(self):
        data = read(self.frame, formula="won ~ x")
        spec = mtl.ModelSpec(family="bernoulli", task_covariance=mtl.NoPooling())
        found = [str(f) for f in spec.findings(data)]
        assert len(found) == 1
        assert "has one class only in 2 tasks ('a', 'b')" in found[0]
        with pytest.raises(SpecError, match="one class only in 2 tasks"):
            mtl.fit(data, spec)
        believed = mtl.ModelSpec(
            family="bernoulli", task_covariance=mtl.NoPooling(), priors={"feature_sd": 1.5}
        )
        assert not believed.findings(data)
        assert not mtl.ModelSpec(task_covariance=mtl.NoPooling()).findings(data)  # Gaussian
        some = read(self.frame, formula="won ~ x", shared_features=["x"])
        assert not spec.findings(some)  # a slope is shared
        for structure in (mtl.Exchangeable(), mtl.CompletePooling(), mtl.LowRank(1), mtl.Clusters(2)):
            assert not mtl.ModelSpec(family="bernoulli", task_covariance=structure).findings(data)

    def test_an_argument_of_old_has_no_effect(self):
        np.testing.assert_array_equal(
            read(self.frame, formula="won ~ x", allow_one_class=True).X, read(self.frame, formula="won ~ x").X
        )

    def test_one_class_in_all_rows_is_nothing_to_explain(self):
        with pytest.raises(DataError, match="is constant"):
            read(self.frame.assign(won=1), formula="won ~ x")


class TestAdvice:
    """Rows are those of the table that was given; what was passed already is not advised."""

    broken = TABLE.assign(
        x=[np.nan, *TABLE.x[1:7], np.inf, *TABLE.x[8:]], z=[*TABLE.z[:9], -1.0, *TABLE.z[10:].abs()]
    ).assign(z=lambda d: d.z.where(d.z < 0, d.z.abs()).where(d.index == 9, d.z.abs() + 0.1))

    def test_with_missing_rows(self):
        with pytest.raises(DataError) as caught:
            read(self.broken, formula="y ~ x", weights="z")
        text = str(caught.value)
        assert "1 value is NaN (rows 0; tasks 'a'). Impute them, or pass missing='drop'" in text
        assert "1 value is infinite (rows 7; tasks 'b'). Correct them" in text
        assert "should be positive, found -1.0 in row 9" in text

    @pytest.mark.parametrize("wide", [False, True])
    def test_without_them(self, wide):
        options = {"formula": "y ~ x"}
        frame = self.broken
        if wide:
            options = {"formula": "~ x", "outcomes": ["y", "other"], "task": None}
            frame = frame.assign(other=lambda d: d.y**2)
        with pytest.raises(DataError) as caught:
            read(frame, **options, weights="z", missing="drop")
        text = str(caught.value)
        assert "infinite (rows 7" in text
        assert "in row 9" in text
        assert "missing=" not in text

    def test_task_features_in_the_rows_of_the_table(self):
        frame = TABLE.assign(age=TABLE.age.where(TABLE.child != "c"))
        with pytest.raises(DataError, match=r"rows 8; tasks 'c'"):
            read(frame, formula="y ~ x", task_features=["age"])


@pytest.mark.parametrize(
    ("accepted", "advice"),
    [
        (0.8, "Raise target_accept (0.95, 0.99), or "),
        (0.95, "Raise target_accept (0.99), or "),
        (0.99, ""),
    ],
)
@pytest.mark.parametrize("center", [False, True])
def test_diagnostics_advise_what_has_not_been_done(accepted, advice, center):
    idata = fitted(read(formula="y ~ x", center=center), draws=100)
    stats = {
        "diverging": (("chain", "draw"), np.ones((2, 100), dtype=bool)),
        "reached_max_treedepth": (("chain", "draw"), np.ones((2, 100), dtype=bool)),
    }
    idata["sample_stats"] = xr.DataTree(xr.Dataset(stats))
    idata.attrs["target_accept"] = accepted
    remedies = {problem.where: problem.remedy for problem in diagnose(idata).problems}
    assert remedies["divergences"].startswith(advice)
    assert "mixes most slowly" in remedies["divergences"]
    assert ("target_accept" in remedies["divergences"]) == bool(advice)
    assert ("center=True" in remedies["tree depth"]) is not center


@pytest.mark.parametrize("column", ["x", "y", "w", "o", "s", "z"])
@pytest.mark.parametrize("unit", [1e-300, 1e-160, 1e-100, 1e100, 1e160, 1e290])
def test_units_that_have_no_room_are_said_before_anything_is_computed(column, unit):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({name: 1 + rng.uniform(size=30) for name in "xywos"})
    table = table.assign(task=np.repeat(list("abc"), 10), z=np.repeat([1.0, 2.0, 4.0], 10))
    roles = {"weights": "w", "offset": "o", "noise": "s", "task_features": ["z"]}
    table[column] *= unit
    words = f"column '{column}': holds .* Change its unit: (divide|multiply)"
    with pytest.raises(DataError, match=words) as found:
        mtl.TaskData.from_table(table, task="task", formula="y ~ x", **roles)
    assert len(found.value.findings) == 1
