"""Simulation-based calibration: parameters drawn from the prior are ranked among posterior draws.

If the sampler is right, the rank of the true value among L draws is uniform on 0..L (Talts, Betancourt,
Simpson, Vehtari & Gelman 2018). What is ranked does not depend on numbers of clusters or rotations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import xarray as xr
from scipy.stats import chisquare

import bayes_mtl as mtl
from bayes_mtl.inference.density import DensityGraph
from bayes_mtl.inference.fit import density_graph, sample
from bayes_mtl.inference.groups import coefficients, prior_coefficients, with_coefficients
from bayes_mtl.inference.hyperdraws import evaluate
from bayes_mtl.inference.pilot import pilot
from bayes_mtl.model import WHITENED, is_chained, is_collapsed, sampling_model
from bayes_mtl.model.coords import dims_of
from bayes_mtl.structures import FeatureScales, TaskCovariance, TaskMixture

TASKS = [f"t{i}" for i in range(6)]
_GROUPS = {"t0": "a", "t1": "a", "t2": "b", "t3": "b", "t4": "c", "t5": "c", "a": "A", "b": "A", "c": "B"}
_COMMON_SCALE = "LKJ, feature_sd_scale"
STRUCTURES: dict[str, TaskCovariance] = {
    "Exchangeable": mtl.Exchangeable(),
    "LKJ": mtl.LKJ(2.0),
    _COMMON_SCALE: mtl.LKJ(2.0),
    "LowRank": mtl.LowRank(1),
    "Kernel": mtl.Kernel(positions={t: i for i, t in enumerate(TASKS)}),
    "Graph": mtl.Graph({a: [b] for a, b in pairwise(TASKS)}),
    "Tree": mtl.Tree(_GROUPS),
    "SparseBasis": mtl.SparseBasis(2),
    "DisjointBasis": mtl.SparseBasis(2, overlap=False),
    "SparsePrecision": mtl.SparsePrecision(),
    "StudentT": mtl.StudentT(),
    "Clusters": mtl.Clusters(2),
    "Clusters, gating": mtl.Clusters(2, gating={t: i % 3 for i, t in enumerate(TASKS)}),
    "DirichletProcess": mtl.DirichletProcess(3),
    "OrthogonalGroups": mtl.OrthogonalGroups({t: "p" if i < 3 else "q" for i, t in enumerate(TASKS)}),
}
# Instead of independent priors; under `Exchangeable`, with more slopes.
FEATURE_SCALES: dict[str, FeatureScales] = {
    "Horseshoe": mtl.Horseshoe(expected_features=1, unit=1.0),
    "Horseshoe, task-specific": mtl.Horseshoe(expected_features=1, unit=1.0, task_specific=True),
    "R2D2M2": mtl.R2D2M2(),
}
_MORE = ["x2", "x3", "x4"]
FAMILIES = ("gaussian", "bernoulli")
KEPT = 99  # draws that the truth is ranked among
_THIN, _TUNE = 4, 400


@dataclass(frozen=True)
class Calibration:
    """Ranks of true values: name of the quantity -> one rank per replication."""

    structure: str
    family: str
    ranks: dict[str, np.ndarray]

    def p_values(self, bins: int = 20) -> dict[str, float]:
        """Return, per quantity, the probability of ranks that are this far from uniform, or further."""
        found = {}
        for name, ranks in self.ranks.items():
            counts = np.bincount(ranks * bins // (KEPT + 1), minlength=bins)
            found[name] = float(chisquare(counts).pvalue)
        return found


def calibrate(structure: str, family: str, replications: int, seed: int = 0) -> Calibration:
    """Simulate and fit again and again."""
    spec, data = _problem(structure, family)
    rng = np.random.default_rng(seed)
    ranks: dict[str, list[int]] = {}
    for truth in prior_draws(spec, data, replications, rng):
        posterior = _fit(spec, with_outcome(data, truth, family, rng), int(rng.integers(2**31)))
        true, drawn = dict(_quantities(truth, spec)), dict(_quantities(posterior, spec))
        for name, value in true.items():
            if not np.ptp(drawn[name]) > 0.0:
                continue  # fixed by the structure
            ranks.setdefault(name, []).append(int((drawn[name][-KEPT:] < value[0]).sum()))
    return Calibration(structure, family, {name: np.array(found) for name, found in ranks.items()})


def _problem(structure: str, family: str) -> tuple[mtl.ModelSpec, mtl.TaskData]:
    rng = np.random.default_rng(1)
    n = 8 if family == "gaussian" else 15
    frame = pd.DataFrame({"task": np.repeat(TASKS, n), "x": rng.standard_normal(len(TASKS) * n)})
    frame["y"] = np.arange(len(frame)) % 2
    features = ["x"]
    priors: dict[str, Any] = {
        "beta_mean": mtl.Prior("Normal", mu=0, sigma=1),
        "feature_sd": mtl.Prior("HalfNormal", sigma=1),
    }
    if structure in FEATURE_SCALES:
        features += _MORE
        frame[_MORE] = rng.standard_normal((len(frame), len(_MORE)))
        priors = {name: {"Intercept": prior} for name, prior in priors.items()}
    if structure == _COMMON_SCALE:
        priors["feature_sd_scale"] = mtl.Prior("HalfNormal", sigma=1)
    if family == "gaussian":
        priors["sigma"] = mtl.Prior("HalfNormal", sigma=1)
    chosen = STRUCTURES.get(structure, mtl.Exchangeable())
    if isinstance(chosen, TaskMixture) and chosen.has_centres:
        priors["cluster_sd"] = 1.5
    spec = mtl.ModelSpec(
        family=family,
        task_covariance=chosen,
        priors=priors,
        independent_features=None if isinstance(chosen, TaskMixture) else (),
        feature_scales=FEATURE_SCALES.get(structure),
    )
    return spec, mtl.TaskData.from_table(frame, task="task", outcome="y", features=features)


def prior_draws(
    spec: mtl.ModelSpec, data: mtl.TaskData, n: int, rng: np.random.Generator
) -> Iterator[xr.Dataset]:
    """Yield `n` draws of hyperparameters and coefficients from the prior, one at a time."""
    assembled = _assembled(spec, data)[0]
    free = [v for v in assembled.model.free_RVs if v.name not in WHITENED]
    draws = pm.draw(free, n, random_seed=int(rng.integers(2**31)), mode="FAST_COMPILE")
    drawn = xr.Dataset(coords={"chain": [0], "draw": np.arange(n)})
    for variable, values in zip(free, draws, strict=True):
        dims = dims_of(assembled.model, variable.name, values.ndim - 1)
        drawn[variable.name] = (("chain", "draw", *dims), values[None])
    prior, hyper = evaluate(assembled, drawn, data)
    found = prior_coefficients(assembled, hyper, data, rng)
    whole = with_coefficients(prior, found, hyper, assembled, data)
    for i in range(n):
        yield whole.isel(draw=[i])


def with_outcome(
    data: mtl.TaskData, truth: xr.Dataset, family: str, rng: np.random.Generator
) -> mtl.TaskData:
    """Return the rows with an outcome drawn given the true coefficients."""
    beta = truth["beta"].to_numpy()[0, 0]
    eta = (data.X * beta[data.task_index]).sum(axis=1)
    if family == "gaussian":
        y = rng.normal(eta, float(truth["sigma"].to_numpy()[0, 0]))
    else:
        y = rng.binomial(1, 1.0 / (1.0 + np.exp(-eta)))
    features = list(data.features[1:])
    frame = pd.DataFrame(data.X[:, 1:], columns=features)
    frame = frame.assign(task=np.array(TASKS)[data.task_index], y=y)
    return mtl.TaskData.from_table(
        frame,
        task="task",
        outcome="y",
        features=features,
    )


def _assembled(spec: mtl.ModelSpec, data: mtl.TaskData):
    collapsed = is_collapsed(spec) and not is_chained(spec, data)
    rows = data.pseudo_rows if spec.family.gaussian_coefficients else pilot(spec, data)
    return sampling_model(spec, data, collapsed=collapsed, rows=rows), rows, collapsed


def _fit(spec: mtl.ModelSpec, data: mtl.TaskData, seed: int) -> xr.Dataset:
    """Do as `fit` does, without prior draws, diagnostics and log-likelihood."""
    assembled, rows, collapsed = _assembled(spec, data)
    graph = density_graph(assembled, spec, data)
    assert isinstance(graph, DensityGraph)
    settings = {"draws": KEPT * _THIN, "tune": _TUNE, "chains": 1, "cores": 1, "seed": seed}
    trace = sample(graph, "numba", False, settings | {"target_accept": 0.9})
    raw = trace["posterior"].to_dataset()
    posterior, hyper = evaluate(assembled, raw, data)
    rng = np.random.default_rng(seed)
    found = coefficients(assembled, hyper, raw, data, spec, rows, rng, collapsed=collapsed)
    whole = with_coefficients(posterior, found, hyper, assembled, data)
    return whole.isel(draw=slice(None, None, _THIN))


def _quantities(draws: xr.Dataset, spec: mtl.ModelSpec) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what is ranked, for every draw."""
    scales = spec.feature_scales.parameters if spec.feature_scales else ()
    names = ("beta_mean", "feature_sd", "feature_sd_scale", "sigma", "beta")
    for name in (*names, *spec.task_covariance.parameters, *scales):
        if name in draws:
            values = draws[name].to_numpy()[0].reshape(draws.sizes["draw"], -1)
            for i in range(min(2, values.shape[1])):
                yield f"{name}[{i}]", values[:, i]
    if "feature_corr" in draws:
        yield "feature_corr", draws["feature_corr"].to_numpy()[0, :, 0, 1]
    if "task_corr" in draws:
        yield "task_corr[0, 1]", draws["task_corr"].to_numpy()[0, :, 0, 1]
        yield "task_corr[0, 5]", draws["task_corr"].to_numpy()[0, :, 0, 5]
    difference = draws["beta"].to_numpy()[0, :, 0] - draws["beta"].to_numpy()[0, :, 1]
    yield "distance of two tasks", (difference**2).sum(axis=1)
