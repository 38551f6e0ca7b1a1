"""Default priors in the units of the data, and how a prior becomes a random variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pymc.logprob.transforms import Transform

from bayes_mtl._typing import FloatArray, Tensor
from bayes_mtl.data import TaskData, feature_spread
from bayes_mtl.data.groupings import named
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.model.numbers import Numbers, constants
from bayes_mtl.model.units import CoefficientSizes, outcome_units
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec, PriorEntry, PriorValue, no_common_scale, scaled_together
from bayes_mtl.structures import NoPooling, TaskCovariance

WIDE = 10.0
TASK_SD = Prior("LogNormal", mu=0, sigma=0.5)
_MANY_SLOPES = 5  # whose variation across tasks has a scale that is learned


class Scaled(Transform):
    """The sampler moves value / scale, so that all coefficients have about the same size for it."""

    name = "scaled"

    def __init__(self, scale: Tensor):
        self.scale = scale

    def forward(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Divide."""
        return value / self.scale

    def backward(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Multiply."""
        return value * self.scale

    def log_jac_det(self, value: Tensor, *inputs: Tensor) -> Tensor:
        """Log scale per element."""
        return pt.broadcast_to(pt.log(self.scale), value.shape)


def default_priors(spec: ModelSpec, data: TaskData) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the prior of every element of every hyperparameter, and the scale of each.

    With s_y how far the outcome spreads within tasks (1 for a logit), s_b how far the levels of tasks spread,
    m_y their middle, and s_j how far feature j spreads over all rows (`outcome_units`, `data.spread`), the
    defaults are

    ======================  ==========================================================
    `beta_mean`             Normal(0, 2.5 s_y / s_j); intercept: Normal(m_y, 2.5 s_0)
    `beta_shared`           as `beta_mean`
    `feature_sd`            HalfNormal(c s_y / s_j); intercept: HalfNormal(s_0)
    `feature_sd_scale`      c, inside the task covariance: 1, or HalfNormal(1), see below
    `cluster_sd`            fixed at s_y / s_j; intercept: s_0
    `task_feature_effects`  Normal(0, s_y / (s_j s_q)) for task feature q; intercept: Normal(0, s_0 / s_q)
    `task_sd`               LogNormal(0, 0.5)
    `sigma`                 HalfNormal(s_e)
    `sigma_spread`          HalfNormal(0.3)
    `{grouping}_sd`         as `feature_sd`, with `{grouping}_sd_scale` and how far its own levels spread
    ======================  ==========================================================

    where s_0^2 = s_b^2 + s_y^2 (1 + sum_j (mean_j / s_j)^2) makes room for levels of tasks, and for an
    intercept that lies away from the data, and s_e is the standard deviation within tasks of a row of
    weight 1. Without an intercept the slopes have to reach the level of the outcome, too:
    (s_y / s_j)^2 + (m_y^2 + s_b^2) mean_j^2 / E[x_j^2]^2 takes the place of (s_y / s_j)^2.

    c is learned where five slopes or more are inside the covariance of tasks (or levels), all with default
    priors. Each `feature_sd` has T values to go by. A prior that is much wider than it is flat in sd where
    ignorance would be flat in log sd: with few tasks every scale comes out too large, and where tasks are
    related this weighs like det(Omega)^(-1 / 2T) for every feature, so that correlations do too (Neyman &
    Scott 1948).

    Under `NoPooling`, `beta_mean` is fixed at its centre and
    `feature_sd` at 10 times the scale above.

    Returns
    -------
    priors, scales : dict
        By name: an array (of objects, of floats) with one entry per element of the parameter.
    """
    unit = outcome_units(spec, data)
    sizes = CoefficientSizes(spec, data, unit)
    varying = sizes.of("X", data.X, data.features, unit.between)
    shared = sizes.of("X_shared", data.X_shared, data.shared_features, unit.between)
    task_scale = feature_spread(data.task_features)
    fixed = isinstance(spec.task_covariance, NoPooling)

    def location(name: str) -> float:
        return unit.location if name == INTERCEPT else 0.0

    defaults: dict[str, Any] = {
        "beta_mean": [
            location(f) if fixed else Prior("Normal", mu=location(f), sigma=2.5 * s)
            for f, s in zip(data.features, varying, strict=True)
        ],
        "beta_shared": [
            Prior("Normal", mu=location(f), sigma=2.5 * s)
            for f, s in zip(data.shared_features, shared, strict=True)
        ],
        "feature_sd": [float(WIDE * s) if fixed else Prior("HalfNormal", sigma=s) for s in varying],
        "feature_sd_scale": (
            1.0
            if spec.feature_scales is not None
            else _common_scale(spec, spec.task_covariance, "feature_sd", data.features)
        ),
        "cluster_sd": [float(s) for s in varying],
        "task_feature_effects": [[Prior("Normal", mu=0, sigma=s / z) for z in task_scale] for s in varying],
        "task_sd": TASK_SD,
        "sigma": Prior("HalfNormal", sigma=unit.noise),
        "sigma_spread": Prior("HalfNormal", sigma=0.3),
    }
    labels = {
        "beta_mean": data.features,
        "feature_sd": data.features,
        "cluster_sd": data.features,
        "beta_shared": data.shared_features,
    }
    by_level = {}
    levels = iter(unit.by_grouping)
    for grouping in data.groupings:
        name, wide = named(grouping.name, "feature_sd"), isinstance(spec.levels_of(grouping.name), NoPooling)
        between = next(levels) if INTERCEPT in grouping.features else 0.0
        by_level[name] = sizes.of(f"X_{grouping.name}", grouping.X, grouping.features, between)
        defaults[name] = [float(WIDE * s) if wide else Prior("HalfNormal", sigma=s) for s in by_level[name]]
        labels[name] = grouping.features
        structure = spec.levels_of(grouping.name)
        defaults[f"{name}_scale"] = _common_scale(spec, structure, name, grouping.features)
    for name, entry in spec.priors.items():
        if name == "task_feature_effects":
            defaults[name] = [
                [
                    _pick(_pick(entry, f, old), z, old)
                    for z, old in zip(data.task_feature_names, row, strict=True)
                ]
                for f, row in zip(data.features, defaults[name], strict=True)
            ]
        elif name in labels:
            defaults[name] = [
                _pick(entry, f, old) for f, old in zip(labels[name], defaults[name], strict=True)
            ]
        else:
            defaults[name] = entry
    scales = {
        "beta_mean": varying,
        "beta_shared": shared,
        "task_feature_effects": varying[:, None] / task_scale
        if task_scale.size
        else np.ones((len(varying), 0)),
        **by_level,
    }
    return defaults, scales


def explicit_priors(spec: ModelSpec, data: TaskData) -> ModelSpec:
    """Write everything out that is a default, so that it stays what it is for other data."""
    groupings = {g.name: spec.levels_of(g.name) for g in data.groupings}
    spec = replace(spec, groupings=groupings, feature_covariance=spec.feature_covariance_of(data))
    priors, _ = default_priors(spec, data)
    features = {"beta_mean": data.features, "feature_sd": data.features, "cluster_sd": data.features}
    features["beta_shared"] = data.shared_features
    features |= {named(g.name, "feature_sd"): g.features for g in data.groupings}
    elsewhere = dict.fromkeys(("beta_mean", "feature_sd"), spec.candidates(data))  # said by `feature_scales`
    written: dict[str, PriorEntry] = {
        name: {f: p for f, p in zip(labels, priors[name], strict=True) if f not in elsewhere.get(name, ())}
        for name, labels in features.items()
    }
    factors = ["feature_sd_scale", *(named(g.name, "feature_sd_scale") for g in data.groupings)]
    written |= {name: priors[name] for name in ("task_sd", "sigma", "sigma_spread", *factors)}
    written["task_feature_effects"] = {
        f: dict(zip(data.task_feature_names, row, strict=True))
        for f, row in zip(data.features, priors["task_feature_effects"], strict=True)
    }
    used = replace(spec, priors=written).without_unused_priors(data).priors
    return replace(spec, priors={**spec.priors, **used})


def common_scale(structure: TaskCovariance, slopes: Sequence[str], given: Any) -> PriorValue:
    """Return the default prior of `feature_sd_scale`: 1 unless there are the scales of many slopes to learn.

    Parameters
    ----------
    structure : TaskCovariance
    slopes : sequence of str
        Those inside its covariance.
    given : prior, or mapping from feature to prior
        What the description says of `feature_sd`.
    """
    known = set(slopes) & set(given) if isinstance(given, Mapping) else slopes
    learned = not no_common_scale(structure, slopes) and not known and len(slopes) >= _MANY_SLOPES
    return Prior("HalfNormal", sigma=1) if learned else 1.0


def _common_scale(
    spec: ModelSpec, structure: TaskCovariance, name: str, features: Sequence[str]
) -> PriorValue:
    slopes = scaled_together(structure, spec.independent_features, features)
    return common_scale(structure, slopes, spec.priors.get(name, {}))


def _pick(entry: Any, feature: str, default: PriorValue) -> Any:
    return entry.get(feature, default) if isinstance(entry, Mapping) else entry


def register(
    name: str,
    priors: Any,
    *,
    dims: Any = None,
    scale: FloatArray | None = None,
    shape: Any = None,
    factor: Tensor | None = None,
    numbers: Numbers = constants,
) -> Tensor:
    """Register a parameter in the current model, whose elements may differ in their priors.

    Elements with the same distribution become one random variable. If all do, it bears `name`;
    otherwise `name` is a Deterministic put together from the parts and the constants.

    Parameters
    ----------
    name : str
        Name of the parameter.
    priors : Prior, float, or nested list of them
        One per element; one alone with `shape` means the same for every element.
    dims : str or tuple of str, optional
        Dims of the parameter.
    scale : ndarray, optional
        Size of each element, for the sampler.
    shape : tuple of int, optional
        Shape, where `priors` is a single value.
    factor : TensorVariable, optional
        What the `sigma` of each element's prior is multiplied by; one per element of a vector.
    numbers : callable
        How the parameters of the priors enter the graph.

    Returns
    -------
    TensorVariable
    """
    elements = np.empty(np.shape(priors) if isinstance(priors, list) else (shape or ()), dtype=object)
    elements[...] = priors if not isinstance(priors, list) else _object_array(priors)
    flat = list(elements.ravel())
    size = np.ones(elements.shape) if scale is None else np.broadcast_to(scale, elements.shape)
    kinds = list(dict.fromkeys(p.distribution if isinstance(p, Prior) else None for p in flat))
    if len(kinds) == 1 and kinds[0] is not None:
        return _random(name, flat, size, elements.shape, dims, numbers, factor)
    fixed = np.array([0.0 if isinstance(p, Prior) else float(p) for p in flat])
    values: Tensor = numbers(f"{name}_fixed", fixed)
    for kind in kinds:
        if kind is not None:
            at = [i for i, p in enumerate(flat) if isinstance(p, Prior) and p.distribution == kind]
            part_name, some = f"{name}_{kind.lower()}_part", [flat[i] for i in at]
            own = None if factor is None else factor[np.array(at)]
            part = _random(part_name, some, size.ravel()[at], (len(at),), None, numbers, own)
            values = pt.set_subtensor(pt.as_tensor_variable(values)[np.array(at)], part)
    return pm.Deterministic(name, pt.as_tensor_variable(values).reshape(elements.shape), dims=dims)


def _object_array(nested: list[Any]) -> Any:
    out = np.empty(np.shape(nested), dtype=object)
    for index in np.ndindex(*out.shape):
        value: Any = nested
        for i in index:
            value = value[i]
        out[index] = value
    return out


def _random(
    name: str,
    priors: Sequence[Prior],
    scale: FloatArray,
    shape: tuple[int, ...],
    dims: Any,
    numbers: Numbers,
    factor: Tensor | None = None,
) -> Tensor:
    distribution = getattr(pm, priors[0].distribution)
    columns = {
        key: numbers(f"{name}_{key}", np.array([dict(p.params)[key] for p in priors]).reshape(shape))
        for key, _ in priors[0].params
    }
    if priors[0].distribution == "TruncatedNormal":
        columns = _without_infinite_bounds(name, columns, priors)
    if factor is not None and "sigma" in columns:
        columns["sigma"] = factor * columns["sigma"]
    transform = {}
    if priors[0].support == "real" and not np.allclose(scale, 1.0):
        transform = {"transform": Scaled(pt.constant(power_of_two(np.asarray(scale).reshape(shape))))}
    # The shape is given beside the dims: a shape known when compiling saves seconds per variable.
    return distribution(name, **columns, shape=shape, dims=dims, **transform)


def _without_infinite_bounds(name: str, columns: dict[str, Any], priors: Sequence[Prior]) -> dict[str, Any]:
    for bound in ("lower", "upper"):
        infinite = {np.isinf(dict(p.params)[bound]) for p in priors}
        if len(infinite) > 1:
            problem = f"has an `{bound}` for some features, and none for others"
            raise SpecError(Finding(f"prior {name!r}", problem, "Give one to all, or to none"))
        if infinite == {True}:
            del columns[bound]
    return columns


def draw_prior(prior: PriorValue, shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Draw independent values; a number is a constant."""
    if not isinstance(prior, Prior):
        return np.full(shape, float(prior))
    variable = getattr(pm, prior.distribution).dist(**dict(prior.params), shape=shape)
    drawn = pm.draw(variable, random_seed=int(rng.integers(2**31)), mode="FAST_COMPILE")
    return np.asarray(drawn, dtype=float)


def power_of_two(scale: FloatArray) -> FloatArray:
    """Return the nearest power of two.

    A transform is not seen as a part of the graph, so its scale is a constant there: as a power of two it
    changes, and the model is compiled again, only for data in other units.
    """
    return np.asarray(2.0 ** np.round(np.log2(scale)))
