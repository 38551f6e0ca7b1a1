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
from bayes_mtl.model.coords import CANDIDATE, FEATURE, SHARED_FEATURE, TASK, TASK_FEATURE, own_model
from bayes_mtl.model.feature_scales import STANDARD, ScaledFeatures, place, standardised
from bayes_mtl.model.numbers import Numbers, constants
from bayes_mtl.model.priors import default_priors, register
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec

# Up to this many parts of single tasks are integrated out with what tasks share: that costs their cube.
MAX_SPECIFIC = 128


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
    learned : tuple of str
        Those of them whose size is a parameter.
    """

    fixed: FloatArray
    sampled: Tensor | None
    column: IntArray
    design: FloatArray
    effect_scale: Tensor
    integrated: Mapping[str, Integrated]
    learned: tuple[str, ...] = ()

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

    learned: dict[str, tuple[IntArray, Tensor]] = {}  # elements whose scale is a parameter, and the scale
    if scaled is not None:
        learned["beta_mean"] = (scaled.at, scaled.law.mean_sd)
        if (specific_sd := scaled.law.specific_sd) is not None:
            n_specific = n_tasks * len(scaled.at)
            learned["beta_specific"] = (np.arange(n_specific), specific_sd.flatten())
            priors = {**priors, "beta_specific": [[STANDARD] * len(scaled.at)] * n_tasks}
            scales = {**scales, "beta_specific": np.ones((n_tasks, len(scaled.at)))}
            one_task = np.repeat(np.eye(n_tasks), len(scaled.at), axis=0)
            effects["beta_specific"] = ((TASK, CANDIDATE), np.tile(scaled.at, n_tasks), one_task)

    sparse = "beta_specific" in effects and (not integrate or n_specific > MAX_SPECIFIC)
    by_task = bool(data.task_feature_names) or sparse
    fixed = np.zeros((n_tasks if by_task else 1, n_varying + n_shared))
    sampled: dict[str, Tensor] = {}
    columns, designs, integrated, n_effects = [], [], {}, 0
    for name, (dims, at, multiple) in effects.items():
        shape = np.shape(priors[name])
        flat = [p for row in priors[name] for p in row] if len(shape) == 2 else list(priors[name])
        normal = not any(isinstance(p, Prior) and p.distribution != "Normal" for p in flat)
        if not integrate or not normal or (name == "beta_specific" and sparse):
            options = {"dims": dims, "scale": scales[name], "numbers": numbers}
            sampled[name] = (
                _scaled(name, priors[name], *learned[name], **options)
                if name in learned
                else register(name, priors[name], **options)
            )
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
    for name, (at, scale) in learned.items():
        if name in integrated:
            effect_scale = place(effect_scale, integrated[name].position.ravel()[at], scale)
    return Population(
        fixed=fixed,
        sampled=_sampled_mean(sampled, scaled, data, len(fixed), n_varying, n_shared, numbers),
        column=np.concatenate([*columns, np.zeros(0)]).astype(np.int64),
        design=np.concatenate([*designs, np.zeros((0, n_tasks))]),
        effect_scale=effect_scale,
        integrated=integrated,
        learned=tuple(name for name in learned if name in integrated),
    )


def integrated_population(spec: ModelSpec, data: TaskData) -> Population:
    """Return the population as `sampling_model` has it, without that model, and without learned scales."""
    priors, scales = default_priors(spec, data)
    if spec.feature_scales is not None:
        at = np.flatnonzero(np.isin(data.features, spec.candidates(data)))
        priors = {**priors, "beta_mean": standardised(priors["beta_mean"], at)}
    with own_model(data):
        return population(data, priors, scales, integrate=True)


def _scaled(
    name: str, priors: Any, at: IntArray, size: Tensor, *, dims: Any, scale: FloatArray, numbers: Numbers
) -> Tensor:
    """Register a parameter of which the elements `at` are standard normals times their size."""
    outer = scale.copy()
    outer.flat[at] = 1.0
    offset = register(f"{name}_offset", priors, scale=outer, numbers=numbers)
    whole = place(pt.ones(scale.size), at, size).reshape(scale.shape)
    return pm.Deterministic(name, offset * whole, dims=dims)


def _sampled_mean(
    sampled: Mapping[str, Tensor],
    scaled: ScaledFeatures | None,
    data: TaskData,
    n_rows: int,
    n_varying: int,
    n_shared: int,
    numbers: Numbers,
) -> Tensor | None:
    if not sampled:
        return None
    mean = sampled["beta_mean"][None, :] if "beta_mean" in sampled else np.zeros((1, n_varying))
    if "task_feature_effects" in sampled:
        features = pt.as_tensor_variable(numbers("task_features", data.task_features))
        mean = mean + product(features, sampled["task_feature_effects"].T)
    if "beta_specific" in sampled:
        assert scaled is not None
        mean = mean + place(pt.zeros((n_varying, n_rows)), scaled.at, sampled["beta_specific"].T).T
    if not n_shared:
        return pt.as_tensor_variable(mean)
    slopes = sampled["beta_shared"][None, :] if "beta_shared" in sampled else np.zeros((1, n_shared))
    parts = [repeat(pt.as_tensor_variable(part), n_rows) for part in (mean, slopes)]
    return pt.concatenate(parts, axis=1) if n_varying else parts[1]
