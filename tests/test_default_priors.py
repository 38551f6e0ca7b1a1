"""Units of the default priors: they follow the units of the table, and nothing else moves them."""

from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy.stats import expon, norm

import bayes_mtl as mtl
from bayes_mtl.data.spread import (
    between_spread,
    feature_spread,
    outcome_spread,
    relative_weights,
    weighted_median,
)
from bayes_mtl.model import default_priors, explicit_priors

TASKS = list("abcde")
OF_COEFFICIENTS = ("beta_mean", "beta_shared", "feature_sd", "cluster_sd", "task_feature_effects", "item_sd")
OF_OUTCOMES = (*OF_COEFFICIENTS, "sigma")

SPECS = {
    "exchangeable": mtl.ModelSpec(),
    "lkj": mtl.ModelSpec(task_covariance=mtl.LKJ()),
    "low rank": mtl.ModelSpec(task_covariance=mtl.StudentT(mtl.LowRank(1))),
    "no pooling": mtl.ModelSpec(task_covariance=mtl.NoPooling()),
    "complete pooling": mtl.ModelSpec(task_covariance=mtl.CompletePooling()),
    "clusters": mtl.ModelSpec(task_covariance=mtl.Clusters(2)),
    "task noise": mtl.ModelSpec(family=mtl.Gaussian(task_noise=True), task_sd=True),
    "horseshoe": mtl.ModelSpec(feature_scales=mtl.Horseshoe(expected_features=1)),
    "r2d2m2": mtl.ModelSpec(feature_scales=mtl.R2D2M2()),
}
OPTIONS = ("weights", "noise", "offset", "groupings", "shared", "shared intercept", "task features")


def table(seed, discrete=False):
    """Five tasks of 2 to 12 rows, levels far apart, a feature, a rare dummy, an item, weights and all."""
    rng = np.random.default_rng(seed)
    n = rng.integers(2, 13, len(TASKS))
    task = np.repeat(np.arange(len(TASKS)), n)
    rows = len(task)
    y = 3.0 * rng.standard_normal(len(TASKS))[task] + rng.standard_normal(rows)
    return pd.DataFrame(
        {
            "task": np.array(TASKS)[task],
            "x": 0.5 + rng.standard_normal(rows),
            "d": (np.arange(rows) == rows // 2).astype(float),
            "v": rng.standard_normal(rows),
            "q": rng.standard_normal(len(TASKS))[task],
            "item": np.array(list("pqr"))[rng.integers(0, 3, rows)],
            "w": rng.lognormal(0.0, 1.0, rows),
            "e": rng.lognormal(0.0, 0.5, rows),
            "o": rng.standard_normal(rows),
            "y": np.round(y) if discrete else y,
            "z": rng.permutation(np.arange(rows) % 2),
        }
    )


def read(frame, options=(), outcome="y"):
    return mtl.TaskData.from_table(
        frame,
        task="task",
        outcome=outcome,
        features=["x", "d"],
        shared_features=[
            *(["v"] if "shared" in options else []),
            *(["Intercept"] if "shared intercept" in options else []),
        ],
        task_features=["q"] if "task features" in options else [],
        groupings={"item": ["Intercept", "x"]} if "groupings" in options else (),
        weights="w" if "weights" in options else None,
        noise="e" if "noise" in options else None,
        offset="o" if "offset" in options else None,
        allow_one_class=True,
    )


def sizes(data, spec):
    """Location and scale of every default, by parameter and, where it has any, feature."""
    priors, _ = default_priors(spec, data)
    labels = dict.fromkeys(("beta_mean", "feature_sd", "cluster_sd", "task_feature_effects"), data.features)
    labels |= {"beta_shared": data.shared_features, "item_sd": ("Intercept", "x")}
    if not data.task_feature_names:
        labels["task_feature_effects"] = ()
    out = {}
    for name, entry in priors.items():
        flat = np.ravel(np.array(entry, dtype=object))
        fixed = "mu" if name == "beta_mean" else "sigma"
        given = [dict(p.params) if isinstance(p, mtl.Prior) else {fixed: p} for p in flat]
        for label, p in zip(labels.get(name, ("",)), given, strict=True):
            out[name, label] = np.array([p.get("mu", 0.0), p.get("sigma", 0.0)], dtype=float)
    return out


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in found.items():
        np.testing.assert_allclose(value, expected[key], rtol=1e-7, atol=1e-7, err_msg=str(key))


cases = given(
    seed=st.integers(0, 2**32 - 1),
    discrete=st.booleans(),
    spec=st.sampled_from(sorted(SPECS)),
    options=st.sets(st.sampled_from(OPTIONS)),
    factor=st.sampled_from([1e-3, 0.5, -1.0, 1e3]),
)
quickly = settings(max_examples=40, deadline=None, database=None, derandomize=True, phases=[Phase.generate])


class TestEquivariance:
    """Every structure and option; numbers compared, nothing sampled."""

    @cases
    @quickly
    def test_outcome_in_other_units(self, seed, discrete, spec, options, factor):
        frame, factor = table(seed, discrete), abs(factor)
        base = sizes(read(frame, options), SPECS[spec])
        other = frame.assign(y=factor * frame.y, e=factor * frame.e, o=factor * frame.o)
        expected = {k: v * (factor if k[0] in OF_OUTCOMES else 1.0) for k, v in base.items()}
        assert_same(sizes(read(other, options), SPECS[spec]), expected)

    @cases
    @quickly
    def test_outcome_turned_around(self, seed, discrete, spec, options, factor):
        frame = table(seed, discrete)
        base = sizes(read(frame, options), SPECS[spec])
        other = frame.assign(y=-frame.y, o=-frame.o)
        expected = {k: v * [-1.0, 1.0] if k[0].startswith("beta") else v for k, v in base.items()}
        assert_same(sizes(read(other, options), SPECS[spec]), expected)

    @cases
    @quickly
    def test_outcome_and_a_constant(self, seed, discrete, spec, options, factor):
        frame = table(seed, discrete)
        base = sizes(read(frame, options), SPECS[spec])
        other = frame.assign(y=frame.y + 100.0)
        expected = {
            k: v + np.array([100.0, 0.0]) if k[0].startswith("beta") and k[1] == "Intercept" else v
            for k, v in base.items()
        }
        assert_same(sizes(read(other, options), SPECS[spec]), expected)

    @cases
    @quickly
    def test_levels_say_nothing_of_slopes(self, seed, discrete, spec, options, factor):
        """What intercepts of tasks or of items take up moves the priors of these intercepts alone."""
        frame = table(seed, discrete)
        apart = np.zeros(len(frame))
        if spec != "complete pooling" and "shared intercept" not in options:
            apart += 100.0 * frame.task.map(TASKS.index)
        if "groupings" in options:
            apart += 1000.0 * frame.item.map("pqr".index)
        data, other = read(frame, options), read(frame.assign(y=frame.y + apart), options)
        base, found = sizes(data, SPECS[spec]), sizes(other, SPECS[spec])
        if "groupings" in options:  # whose effects are found by iteration, from another start
            base, found = ({k: np.round(v, 6) for k, v in s.items()} for s in (base, found))
        slopes = [k for k in base if k[1] != "Intercept"]
        assert_same({k: found[k] for k in slopes}, {k: base[k] for k in slopes})

    @cases
    @quickly
    def test_an_offset_is_no_part_of_the_outcome(self, seed, discrete, spec, options, factor):
        frame = table(seed, discrete)
        options = options | {"offset"}
        base = sizes(read(frame, options), SPECS[spec])
        moved = 7.0 * frame.v
        assert_same(
            sizes(read(frame.assign(y=frame.y + moved, o=frame.o + moved), options), SPECS[spec]), base
        )

    @cases
    @quickly
    def test_feature_in_other_units(self, seed, discrete, spec, options, factor):
        frame = table(seed, discrete)
        for outcome, described in (("y", SPECS[spec]), ("z", None)):
            some = options if described is not None else options - {"noise"}
            described = described or replace(SPECS[spec], family="bernoulli")
            base = sizes(read(frame, some, outcome), described)
            for name in ("x", "d"):
                other = frame.assign(**{name: factor * frame[name]})
                expected = {k: v / [1, abs(factor)] if k[1] == name else v for k, v in base.items()}
                assert_same(sizes(read(other, some, outcome), described), expected)

    @cases
    @quickly
    @pytest.mark.filterwarnings("ignore:0 lies far outside")
    def test_feature_and_a_constant(self, seed, discrete, spec, options, factor):
        """The intercept takes it up: it lies elsewhere now, and its prior is wide enough to find it there."""
        frame = table(seed, discrete)
        base = sizes(read(frame, options), SPECS[spec])
        found = sizes(read(frame.assign(x=frame.x + 50.0, d=frame.d + 1.0), options), SPECS[spec])
        slopes = [k for k in base if k[1] != "Intercept"]
        assert_same({k: found[k] for k in slopes}, {k: base[k] for k in slopes})
        spread = {k: v[1] for k, v in base.items() if k[1] == "Intercept"}
        assert all(found[k][1] > value for k, value in spread.items())

    @cases
    @quickly
    def test_weights_in_other_units(self, seed, discrete, spec, options, factor):
        """The variance of a row is sigma^2 / w: with other weights sigma is another, and nothing else."""
        frame, factor = table(seed, discrete), abs(factor)
        options = (options | {"weights"}) - {"noise"}
        base = sizes(read(frame, options), SPECS[spec])
        expected = {k: v * (factor**0.5 if k[0] == "sigma" else 1.0) for k, v in base.items()}
        assert_same(sizes(read(frame.assign(w=factor * frame.w), options), SPECS[spec]), expected)

    @cases
    @quickly
    def test_order_does_not_matter(self, seed, discrete, spec, options, factor):
        frame = table(seed, discrete)
        base = sizes(read(frame, options), SPECS[spec])
        turned = frame.sample(frac=1.0, random_state=1).assign(
            task=lambda f: f.task.map(lambda t: 9 - TASKS.index(t))
        )
        assert_same(sizes(read(turned, options), SPECS[spec]), base)

    @cases
    @quickly
    def test_binary_outcomes(self, seed, discrete, spec, options, factor):
        frame, options = table(seed), options - {"noise"}
        spec = replace(SPECS[spec], family="bernoulli")
        base = sizes(read(frame, options, "z"), spec)
        # A one is no more than a zero.
        turned = {k: v * [-1.0, 1.0] if k[0].startswith("beta") else v for k, v in base.items()}
        assert_same(sizes(read(frame.assign(z=1 - frame.z, o=-frame.o), options, "z"), spec), turned)
        # An offset moves the intercept.
        options = options | {"offset"}
        base = sizes(read(frame, options, "z"), spec)
        moved = {
            k: v - [5.0, 0.0] if k[0].startswith("beta") and k[1] == "Intercept" else v
            for k, v in base.items()
        }
        assert_same(sizes(read(frame.assign(o=frame.o + 5.0), options, "z"), spec), moved)
        # A row with weight w is w equal rows.
        frame, options = frame.assign(w=1 + np.arange(len(frame)) % 3), options | {"weights"}
        written = frame.loc[frame.index.repeat(frame.w)].assign(w=1)
        assert_same(sizes(read(written, options, "z"), spec), sizes(read(frame, options, "z"), spec))


def mixed(quantile, n):
    """Return n evenly spaced quantiles, in an order that goes with no task."""
    return quantile((np.arange(n) * 17 % n + 0.5) / n)


class TestRobustness:
    @cases
    @quickly
    def test_one_odd_row(self, seed, discrete, spec, options, factor):
        """Slopes and intercepts of a table with a row at 10^4 have the priors of one with a row at 10."""
        frame = table(seed, discrete)
        frame["w"], frame["e"] = 1.0, 1.0
        at = frame.index[frame.task == frame.task.value_counts().index[0]][0]
        options, spec = options - {"groupings"}, SPECS[spec]
        far = [
            sizes(read(frame.assign(y=frame.y.where(frame.index != at, v)), options), spec)
            for v in (1e2, 1e4)
        ]
        for key in far[0]:
            if key[0] != "sigma":
                np.testing.assert_allclose(far[1][key], far[0][key], rtol=1e-6, atol=1e-6, err_msg=str(key))

    def test_odd_rows_of_tasks_of_two(self):
        y, task = mixed(norm.ppf, 24), np.repeat(np.arange(12), 2)
        before = outcome_spread(y, np.ones(24), task)
        y[5] = 1e4
        after = outcome_spread(y, np.ones(24), task)
        assert 0.5 < after.within / before.within < 2.0

    def test_an_uncertain_study_among_five(self):
        y, noise = np.array([0.1, -0.3, 0.5, 0.2, -0.6]), np.array([1.0, 1.0, 0.8, 1.2, 1.0])
        spec, read = mtl.ModelSpec(), mtl.TaskData.from_arrays
        five = sizes(read(np.zeros((5, 0)), y, list("abcde"), noise=noise), spec)
        six = sizes(
            read(np.zeros((6, 0)), np.append(y, 50.0), list("abcdef"), noise=np.append(noise, 60.0)), spec
        )
        for key in (("beta_mean", "Intercept"), ("feature_sd", "Intercept")):
            np.testing.assert_allclose(six[key], five[key], rtol=0.1, atol=0.1)

    def test_a_row_that_is_known_exactly_does_not_decide_alone(self):
        y, task, noise = mixed(norm.ppf, 40), np.repeat(np.arange(4), 10), np.ones(40)
        noise[[0, 1]] = 1e-6
        y[1] = y[0] + 1e-6
        found = outcome_spread(y, noise**-2.0, task)
        assert 0.5 < found.within < 1.5

    @pytest.mark.parametrize("share", [0.02, 0.06, 0.3])
    def test_most_rows_are_zero(self, share):
        y = mixed(lambda p: np.where(p < share, expon.ppf(p / share), 0.0), 500)
        assert (y > 0).sum() == share * 500
        found = outcome_spread(y, np.ones(500), np.arange(500) % 5)
        assert 0.4 * y.std() < found.within < 1.5 * y.std()

    def test_outcomes_that_do_not_vary_within_tasks(self):
        y = np.repeat([1.0, 4.0, 9.0], 4)
        priors = sizes(
            mtl.TaskData.from_arrays(np.zeros((12, 0)), y, np.repeat(list("abc"), 4)), mtl.ModelSpec()
        )
        assert 2.0 < priors["sigma", ""][1] < 8.0

    def test_it_is_a_standard_deviation_where_nothing_is_odd(self):
        rng = np.random.default_rng(0)
        task = rng.integers(0, 50, 80_000)
        found = outcome_spread(5.0 * task + 2.0 * rng.standard_normal(80_000), np.ones(80_000), task)
        assert found.within == pytest.approx(1.83, abs=0.05)  # of 2, the largest tenth clipped
        assert found.noise == pytest.approx(2.0, abs=0.04)
        assert found.between == pytest.approx(np.std(5.0 * np.arange(50), ddof=1), rel=0.01)

    def test_two_rows_per_task_have_one_degree_of_freedom(self):
        rng = np.random.default_rng(0)
        task = np.repeat(np.arange(20_000), 2)
        found = outcome_spread(rng.standard_normal(40_000), np.ones(40_000), task)
        assert found.noise == pytest.approx(1.0, abs=0.03)
        assert found.within == pytest.approx(0.91, abs=0.03)

    def test_one_row_per_task_spreads_between_tasks(self):
        y = mixed(norm.ppf, 200)
        found = outcome_spread(y, np.ones(200), np.arange(200))
        assert found.within == pytest.approx(0.91 * y.std(), rel=0.1)


class TestFeatures:
    def test_a_dummy_has_the_prior_of_one_that_is_as_often_one_as_zero(self):
        rare, common = np.arange(200) == 7, np.arange(200) % 2
        X = np.column_stack([rare, common, 3.0 * rare + 5.0, 1.0 - rare]).astype(float)
        np.testing.assert_allclose(feature_spread(X), [0.5, 0.5, 1.5, 0.5])
        y, task = np.arange(200) % 2, np.repeat(list("ab"), 100)
        data = mtl.TaskData.from_arrays(X[:, :2], y[np.random.default_rng(0).permutation(200)], task)
        found = sizes(data, mtl.ModelSpec(family="bernoulli"))
        assert found["beta_mean", "x0"][1] == pytest.approx(5.0)
        assert found["beta_mean", "x1"][1] == pytest.approx(5.0)

    def test_what_is_zero_in_most_rows(self):
        """An interaction with a rare dummy counts as in the rows where it is not zero."""
        rng = np.random.default_rng(0)
        x = np.where(np.arange(1000) < 10, 5.0 + rng.standard_normal(1000), 0.0)
        assert feature_spread(x[:, None])[0] == pytest.approx(0.5 * np.sqrt((x[:10] ** 2).mean()))

    def test_else_it_is_the_standard_deviation(self):
        X = np.random.default_rng(0).standard_normal((50, 3)) * [1.0, 10.0, 0.1] + 4.0
        np.testing.assert_allclose(feature_spread(X), X.std(axis=0))
        weights = np.arange(50) % 4.0
        written = np.repeat(X, weights.astype(int), axis=0)
        np.testing.assert_allclose(feature_spread(X, weights), written.std(axis=0))
        np.testing.assert_array_equal(feature_spread(np.ones((5, 1))), [1.0])

    def test_without_an_intercept_slopes_reach_the_level(self):
        """Levels of groups as dummies, far from zero; a feature in proportion to which the outcome is."""
        rng = np.random.default_rng(0)
        group, task = np.arange(60) % 2, np.repeat(list("abc"), 20)
        X = np.column_stack([group == 0, group == 1, rng.standard_normal(60)]).astype(float)
        data = mtl.TaskData.from_arrays(X, 1000.0 + rng.standard_normal(60), task, intercept=False)
        found = sizes(data, mtl.ModelSpec())
        assert found["beta_mean", "x0"][1] > 1000.0
        data = mtl.TaskData.from_arrays(10.0 + 0.1 * X[:, 2:], 1000.0 + X[:, 2], task, intercept=False)
        assert sizes(data, mtl.ModelSpec())["beta_mean", "x0"][1] > 100.0


class TestPieces:
    @given(
        st.lists(st.tuples(st.integers(-5, 5), st.integers(1, 4), st.integers(0, 2)), min_size=3, max_size=30)
    )
    @quickly
    def test_weighted_median(self, rows):
        """That of rows written out as often as they weigh."""
        values, weights, group = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
        group = group.astype(int)
        found = weighted_median(values, 0.1 * weights, group, 3)
        for g in set(group):
            mine = group == g
            written = np.repeat(values[mine], weights[mine].astype(int))
            assert found[g] == pytest.approx(np.median(written))

    def test_relative_weights(self):
        precision = np.array([1e-4, 1.0, 1.0, 1.0, 1e6])
        np.testing.assert_allclose(relative_weights(precision), [1e-4, 1, 1, 1, 1])
        np.testing.assert_array_equal(relative_weights(np.array([2.0])), [1.0])

    def test_a_task_without_rows_is_none(self):
        levels, precision = np.array([1.0, 99.0, 3.0, 5.0]), np.array([2.0, 0.0, 2.0, 2.0])
        assert between_spread(levels, precision) == between_spread(levels[[0, 2, 3]], precision[[0, 2, 3]])


@cache
def two_tables():
    rng = np.random.default_rng(1)
    X = rng.standard_normal((40, 6))
    task = np.repeat(list("ab"), 20)
    y = X @ rng.standard_normal(6) + 0.5 * rng.standard_normal(40)
    return [
        mtl.TaskData.from_arrays(X, y + level * (task == "b"), task, weights=np.full(40, weight))
        for level, weight in ((0.0, 1.0), (1000.0, 1.0), (0.0, 1e4))
    ]


@pytest.mark.slow
def test_posteriors_do_not_move_with_levels_and_weights():
    """The same seed and the same graph; levels of tasks are taken up, weights are relative."""
    fits = [
        mtl.fit(
            data,
            mtl.ModelSpec(feature_covariance=mtl.Diagonal()),
            draws=3000,
            tune=500,
            chains=2,
            random_seed=1,
            progressbar=False,
            target_accept=0.95,
        )["posterior"]
        for data in two_tables()
    ]
    slopes = {"feature": [f"x{i}" for i in range(6)]}
    for other, weight in zip(fits[1:], (1.0, 1e4), strict=True):
        for name, factor in (("beta", 1.0), ("feature_sd", 1.0), ("sigma", weight**0.5)):
            one, two = (
                f[name].sel(slopes) if "feature" in f[name].dims else f[name] for f in (fits[0], other)
            )
            # About 500 effective draws: means differ by 6 standard errors of their difference at most.
            gap = np.abs(one.mean(("chain", "draw")) - two.mean(("chain", "draw")) / factor)
            assert (gap < 6 * one.std(("chain", "draw")) * np.sqrt(2 / 500)).all(), name


def test_explicit_priors_are_the_defaults():
    for options in ({"groupings", "shared"}, {"weights", "task features"}):
        data = read(table(0), options)
        spec = explicit_priors(mtl.ModelSpec(), data)
        assert_same(sizes(data, spec), sizes(data, mtl.ModelSpec()))
