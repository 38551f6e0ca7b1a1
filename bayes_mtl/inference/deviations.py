"""How far coefficients of tasks are from their means, in the draws of a fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, Label
from bayes_mtl.inference.attributes import inside_of, spec_of
from bayes_mtl.structures import Clusters, Namer, TaskCovariance


def task_means(idata: xr.DataTree, draws: xr.Dataset) -> xr.DataArray:
    """Return what is expected of the coefficients of each task; without ``task`` if the same of all.

    Under a mixture that is the mean of its centres, weighted as for the average task: around which point
    they lie is hardly known.
    """
    mean = draws["beta_mean"]
    if "cluster_mean" in draws:
        weight = cluster_weights(spec_of(idata).task_covariance, draws, draws["task"].to_numpy().tolist())
        average = xr.DataArray(weight.mean(axis=-2), dims=("chain", "draw", "cluster"))
        mean = (average * draws["cluster_mean"]).sum("cluster")
    if "task_feature_effects" in draws:
        effects = draws["task_feature_effects"] * idata["constant_data"]["task_features"]
        mean = mean + effects.sum("task_feature")
    return mean


def cluster_weights(structure: TaskCovariance, draws: xr.Dataset, tasks: Sequence[Label]) -> FloatArray:
    """Return the prior weights of clusters for tasks, known or new, (chain, draw, task, cluster)."""
    weight = draws["cluster_weight"].transpose("chain", "draw", "cluster").to_numpy()[..., None, :]
    if "cluster_gating" not in draws:
        return np.repeat(weight, len(tasks), axis=-2)
    assert isinstance(structure, Clusters)
    effect = draws["cluster_gating"].transpose("chain", "draw", "gate", "cluster").to_numpy()
    return structure.weights(weight, effect, tasks, draws["task"].to_numpy().tolist())


def coefficient_deviations(idata: xr.DataTree, draws: xr.Dataset) -> xr.DataArray:
    """Return beta_t - mean_t, without what a task has of its own in single features (`beta_specific`)."""
    deviation = draws["beta"] - task_means(idata, draws)
    if "beta_specific" in draws:
        specific = draws["beta_specific"].rename(candidate_feature="feature")
        deviation = deviation - specific.reindex(feature=draws["feature"], fill_value=0.0)
    return deviation


def deviations(idata: xr.DataTree, draws: xr.Dataset) -> FloatArray:
    """Return (beta_t - mean_t) / feature_sd inside the task covariance, (chain, draw, task, feature)."""
    deviation = coefficient_deviations(idata, draws) / draws["feature_sd"]
    return deviation.sel(feature=inside_of(idata)).transpose("chain", "draw", "task", "feature").to_numpy()


def task_scales(draws: xr.Dataset, name: Namer = str) -> FloatArray | None:
    """Return how far each task (or level) may deviate (..., task), or None if all may equally.

    In front is the draw, with the chain if there is one.
    """
    in_front = [d for d in ("chain", "draw") if d in draws.dims]
    if "task_sd" in draws and name is str:
        return draws["task_sd"].transpose(*in_front, "task").to_numpy()
    if (reliability := name("task_reliability")) in draws:
        return draws[reliability].transpose(*in_front, ...).to_numpy() ** -0.5
    return None
