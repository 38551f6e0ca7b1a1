"""Parts of the law of coefficients, read from the reported variables of a fit (first dim ``draw``)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData
from bayes_mtl.data.groupings import named


def read(draws: xr.Dataset, name: str, *dims: str) -> FloatArray:
    """Return a variable with the draw first."""
    return draws[name].transpose("draw", *dims).to_numpy()


def noise_of(draws: xr.Dataset) -> FloatArray:
    """Return the noise scale, (n, 1) or (n, T); ones where none is learned."""
    if "sigma" not in draws:
        return np.ones((draws.sizes["draw"], 1))
    return read(draws, "sigma", "task") if "task" in draws["sigma"].dims else read(draws, "sigma")[:, None]


def levels_of(draws: xr.Dataset, data: TaskData) -> FloatArray:
    """Return the effects of the levels of all groupings, (n, C)."""
    found = [np.zeros((draws.sizes["draw"], 0))]
    for grouping in data.groupings:
        effects = read(draws, named(grouping.name, "beta"), grouping.name, named(grouping.name, "feature"))
        found.append(effects.reshape(len(effects), grouping.n_effects))
    return np.concatenate(found, axis=1)


def mean_of(draws: xr.Dataset, data: TaskData, fixed: FloatArray, integrated: Collection[str]) -> FloatArray:
    """Return the part of the mean that is not integrated out, (n, 1 or T, F)."""
    mean = np.broadcast_to(fixed, (draws.sizes["draw"], *fixed.shape)).copy()
    n_varying = data.n_features
    sampled = {name for name in ("beta_mean", "beta_shared", "task_feature_effects") if name in draws}
    sampled -= set(integrated)
    if "beta_mean" in sampled:
        mean[:, :, :n_varying] += read(draws, "beta_mean", "feature")[:, None]
    if "beta_shared" in sampled:
        mean[:, :, n_varying:] += read(draws, "beta_shared", "shared_feature")[:, None]
    if "task_feature_effects" in sampled:
        moved = read(draws, "task_feature_effects", "feature", "task_feature")
        moved = np.einsum("tq,nfq->ntf", data.task_features, moved)
        mean = mean + np.zeros((data.n_tasks, 1))
        mean[:, :, :n_varying] += moved
    if "beta_specific" in draws:  # taken as known
        at = np.flatnonzero(np.isin(data.features, draws["candidate_feature"].to_numpy()))
        mean = mean + np.zeros((data.n_tasks, 1))
        mean[:, :, at] += read(draws, "beta_specific", "task", "candidate_feature")
    return mean
