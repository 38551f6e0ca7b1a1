"""Where the coefficients are centred: population means, shared slopes, effects of task features.

Each is an effect that moves one coefficient of every task by a known multiple. An effect with a normal
prior can be integrated out together with the deviations of the tasks; the others are sampled.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, IntArray, Tensor
from bayes_mtl.data import TaskData
from bayes_mtl.kernels import product, repeat
from bayes_mtl.model.coords import FEATURE, SHARED_FEATURE, TASK_FEATURE
from bayes_mtl.model.feature_scales import ScaledFeatures
from bayes_mtl.model.numbers import Numbers, constants
from bayes_mtl.model.priors import register
from bayes_mtl.prior import Prior


@dataclass(frozen=True)
class Integrated:
    """A parameter whose elements are location + scale * alpha[position]; position -1: a constant."""

    location: FloatArray
    scale: FloatArray
    position: IntArray

    def values(self, alpha: FloatArray) -> FloatArray:
        """Compute the parameter from draws of alpha, shape (n_draws, ...)."""
        if not alpha.shape[1]:
            return np.broadcast_to(self.location, (len(alpha), *self.location.shape)).copy()
        return self.location + self.scale * alpha[:, self.position]


@dataclass(frozen=True)
class Population:
    """Means of the coefficients of all columns, varying first.

    mean_t = fixed_t + sampled_t + sum_c effect_scale_c design_ct alpha_c e_column(c), alpha ~ N(0, I).

    Attributes
    ----------
    fixed : (1, n_columns) or (n_tasks, n_columns)
        What follows from the description alone.
    sampled : TensorVariable of the same shape as `fixed`, or None
        The part with parameters in the model.
    column, design : (C,), (C, n_tasks)
        The effects that are integrated out.
    effect_scale : (C,)
        What of the size of these effects is a parameter; 1 for the others.
    integrated : mapping
        By name, the parameters that these effects make up.
    """

    fixed: FloatArray
    sampled: Tensor | None
    column: IntArray
    design: FloatArray
    effect_scale: Tensor
    integrated: Mapping[str, Integrated]

    def mean(self, numbers: Numbers, reference: FloatArray | float = 0.0) -> Tensor:
        """Return the part of the mean that is not integrated out, less a reference."""
        fixed = numbers("fixed_mean", self.fixed - reference)
        return pt.as_tensor_variable(fixed) if self.sampled is None else self.sampled + fixed


def population(
    data: TaskData,
    priors: Mapping[str, Any],
    scales: Mapping[str, FloatArray],
    *,
    integrate: bool,
    scaled: ScaledFeatures | None = None,
    numbers: Numbers = constants,
) -> Population:
    """Register the effects in the current model that are not integrated out.

    Parameters
    ----------
    data : TaskData
    priors, scales : mapping
        As `default_priors` returns them.
    integrate : bool
        Whether to leave out of the model what can be integrated out.
    scaled : ScaledFeatures, optional
        Features whose population means have a learned scale.
    """
    n_tasks, n_varying, n_shared = data.n_tasks, data.n_features, len(data.shared_features)
    each_task = np.ones(n_tasks)
    # name: dims, the coefficient that each element moves, and by how much in each task.
    effects: dict[str, tuple[Any, IntArray, FloatArray]] = {}
    if n_varying:
        effects["beta_mean"] = (FEATURE, np.arange(n_varying), np.tile(each_task, (n_varying, 1)))
    if n_shared:
        at = n_varying + np.arange(n_shared)
        effects["beta_shared"] = (SHARED_FEATURE, at, np.tile(each_task, (n_shared, 1)))
    if data.task_feature_names and n_varying:
        at = np.repeat(np.arange(n_varying), len(data.task_feature_names))
        dims = (FEATURE, TASK_FEATURE)
        effects["task_feature_effects"] = (dims, at, np.tile(data.task_features.T, (n_varying, 1)))

    specific = None if scaled is None else scaled.specific(n_varying)
    by_task = bool(data.task_feature_names) or specific is not None
    fixed = np.zeros((n_tasks if by_task else 1, n_varying + n_shared))
    sampled: dict[str, Tensor] = {}
    columns, designs, integrated, n_effects = [], [], {}, 0
    for name, (dims, at, multiple) in effects.items():
        shape = np.shape(priors[name])
        flat = [p for row in priors[name] for p in row] if len(shape) == 2 else list(priors[name])
        if not integrate or any(isinstance(p, Prior) and p.distribution != "Normal" for p in flat):
            if name == "beta_mean" and scaled is not None:
                sampled[name] = _scaled_mean(scaled, priors[name], scales[name], numbers)
            else:
                sampled[name] = register(name, priors[name], dims=dims, scale=scales[name], numbers=numbers)
            continue
        numerals = [dict(p.params) if isinstance(p, Prior) else {"mu": p, "sigma": 0.0} for p in flat]
        location = np.array([n["mu"] for n in numerals], dtype=float)
        scale = np.array([n["sigma"] for n in numerals], dtype=float)
        moves = scale > 0.0
        position = np.full(len(flat), -1)
        position[moves] = n_effects + np.arange(moves.sum())
        n_effects += int(moves.sum())
        columns.append(at[moves])
        designs.append(scale[moves, None] * multiple[moves])
        for c, row in zip(at, location[:, None] * multiple, strict=True):
            fixed[:, c] += row[: len(fixed)]
        integrated[name] = Integrated(location.reshape(shape), scale.reshape(shape), position.reshape(shape))

    effect_scale = pt.ones(n_effects)
    if scaled is not None and "beta_mean" in integrated:
        effect_scale = scaled.among(
            n_effects, scaled.law.mean_sd, integrated["beta_mean"].position[scaled.at]
        )
    return Population(
        fixed=fixed,
        sampled=_sampled_mean(sampled, specific, data, len(fixed), n_varying, n_shared, numbers),
        column=np.concatenate([*columns, np.zeros(0)]).astype(np.int64),
        design=np.concatenate([*designs, np.zeros((0, n_tasks))]),
        effect_scale=effect_scale,
        integrated=integrated,
    )


def _scaled_mean(scaled: ScaledFeatures, priors: Any, scale: FloatArray, numbers: Numbers) -> Tensor:
    """Register population means of which some are standard normals times their scales."""
    size = np.where(np.isin(np.arange(len(scale)), scaled.at), 1.0, scale)
    offset = register("beta_mean_offset", priors, scale=size, numbers=numbers)
    return pm.Deterministic("beta_mean", offset * scaled.among(len(scale), scaled.law.mean_sd), dims=FEATURE)


def _sampled_mean(
    sampled: Mapping[str, Tensor],
    specific: Tensor | None,
    data: TaskData,
    n_rows: int,
    n_varying: int,
    n_shared: int,
    numbers: Numbers,
) -> Tensor | None:
    if not sampled and specific is None:
        return None
    mean = sampled["beta_mean"][None, :] if "beta_mean" in sampled else np.zeros((1, n_varying))
    if "task_feature_effects" in sampled:
        features = pt.as_tensor_variable(numbers("task_features", data.task_features))
        mean = mean + product(features, sampled["task_feature_effects"].T)
    if specific is not None:
        mean = specific + mean
    if not n_shared:
        return pt.as_tensor_variable(mean)
    slopes = sampled["beta_shared"][None, :] if "beta_shared" in sampled else np.zeros((1, n_shared))
    parts = [repeat(pt.as_tensor_variable(part), n_rows) for part in (mean, slopes)]
    return pt.concatenate(parts, axis=1) if n_varying else parts[1]
