"""Which structure predicts better: scores are those of rows left out, and the ladder fits the description."""

import numpy as np
import pandas as pd
import pytest

import bayes_mtl as mtl
from bayes_mtl.summaries.compare import rungs
from bayes_mtl.summaries.leave_out import row_elpd
from bayes_mtl.summaries.transfer_gain import alone_spec

SETTINGS = {"draws": 400, "tune": 400, "max_refits": 0, "progressbar": False}
pytestmark = pytest.mark.filterwarnings("ignore::bayes_mtl.errors.ConvergenceWarning")  # short chains


def table(n_tasks=6, n_rows=12, spread=1.0):
    rng = np.random.default_rng(0)
    task = np.repeat(np.arange(n_tasks), n_rows)
    x = rng.standard_normal(len(task))
    beta = 1.0 + spread * rng.standard_normal((n_tasks, 2))
    y = beta[task, 0] + beta[task, 1] * x + 0.7 * rng.standard_normal(len(task))
    return pd.DataFrame({"task": task, "x": x, "y": y, "item": [f"i{i % 3}" for i in range(len(task))]})


def describe(**options):
    return mtl.TaskData.from_table(table(**options), task="task", outcome="y", features=["x"])


@pytest.mark.slow
def test_the_ladder_finds_that_tasks_differ_but_not_without_relation():
    """Priors that a rung has no use for are left out there, not an error after the others were sampled."""
    narrow = mtl.Prior("HalfNormal", sigma=1)
    priors = {"feature_sd_scale": narrow, "cluster_sd": 1.0, "task_sd": narrow}
    found, fits = mtl.choose_structure(describe(), mtl.ModelSpec(priors=priors, task_sd=True), **SETTINGS)
    assert list(fits) == ["CompletePooling", "Exchangeable", "StudentT", "LowRank", "Clusters", "NoPooling"]
    assert found.index[-1] == "CompletePooling"
    assert found.attrs["left_out"] == {}
    for name, idata in fits.items():
        assert found.loc[name, "elpd"] == pytest.approx(row_elpd(idata)[0].sum())
    assert "feature_sd_scale" in fits["Exchangeable"]["posterior"]
    assert "task_sd" in fits["Exchangeable"]["posterior"]
    assert "task_sd" not in fits["StudentT"]["posterior"]


def with_items():
    return mtl.TaskData.from_table(
        table(), task="task", outcome="y", features=["x"], groupings={"item": ["Intercept"]}
    )


@pytest.mark.slow
def test_the_ladder_beside_effects_of_levels():
    found, fits = mtl.choose_structure(with_items(), **SETTINGS)
    assert list(fits) == ["CompletePooling", "Exchangeable", "StudentT", "LowRank", "NoPooling"]
    assert "groupings are not possible" in found.attrs["left_out"]["Clusters"]
    assert "Left out: Clusters" in found.attrs["words"]


def test_structures_that_do_not_go_with_the_data_are_left_out_of_the_ladder_and_refused_if_asked_for():
    data = with_items()
    ladder, left_out = rungs(data, mtl.ModelSpec())
    assert list(ladder) == ["CompletePooling", "Exchangeable", "StudentT", "LowRank", "NoPooling"]
    assert "groupings are not possible" in left_out["Clusters"]
    with pytest.raises(mtl.errors.SpecError, match=r"Clusters.*groupings are not possible"):
        mtl.choose_structure(data, structures=[mtl.Exchangeable(), mtl.Clusters(2)])
    with pytest.raises(mtl.errors.SpecError, match="should be a TaskData, found DataFrame"):
        mtl.choose_structure(table())
    with pytest.raises(mtl.errors.SpecError, match="not be used by any structure"):
        mtl.choose_structure(describe(), mtl.ModelSpec(priors={"beta_shared": 1.0}))
    with pytest.raises(mtl.errors.SpecError, match="'z', which is not among"):
        mtl.choose_structure(describe(), mtl.ModelSpec(priors={"feature_sd": {"z": 1.0}}))


def test_alone_a_task_has_the_prior_that_it_has_as_the_only_one():
    """Var(beta) = sd(mean)^2 + E[c^2] E[sd^2], by simulation from the described prior."""
    data = describe()
    rng = np.random.default_rng(1)
    for c, draws in (
        (3.0, 3.0),
        (mtl.Prior("HalfNormal", sigma=2), 2.0 * np.abs(rng.standard_normal(100_000))),
        (mtl.Prior("Uniform", lower=1, upper=2), rng.uniform(1, 2, 100_000)),
    ):
        spec = mtl.ModelSpec(
            task_covariance=mtl.LKJ(),
            priors={
                "beta_mean": mtl.Prior("Normal", mu=0, sigma=1),
                "feature_sd": mtl.Prior("HalfNormal", sigma=0.5),
                "feature_sd_scale": c,
            },
        )
        sd = 0.5 * np.abs(rng.standard_normal(100_000))
        width = alone_spec(spec, data).priors["feature_sd"]
        assert width["x"] == pytest.approx(np.sqrt(1.0 + (draws**2 * sd**2).mean()), rel=0.02)
        assert width["Intercept"] == pytest.approx(np.sqrt(1.0 + (sd**2).mean()), rel=0.02)  # outside
