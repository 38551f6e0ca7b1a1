"""The effects of the levels of grouping factors: gamma ~ N(0, Omega_g (x) Sigma_g), shared by all tasks.

All effects of all groupings are one vector: levels one after the other, the features of each side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Tensor
from bayes_mtl.data import Grouping, LevelRows, TaskData
from bayes_mtl.data.groupings import named
from bayes_mtl.kernels import gaussian_tasks, joint_effects, product, repeat
from bayes_mtl.model.coefficients import CoefficientPrior, coefficient_prior
from bayes_mtl.model.coords import level_dims
from bayes_mtl.model.feature_correlation import embed
from bayes_mtl.model.latent import latent_coefficients
from bayes_mtl.model.numbers import Numbers
from bayes_mtl.spec import ModelSpec, outside_features

LEVEL_OFFSET = "level_offset"


@dataclass(frozen=True)
class LevelPilot:
    """About what the data say of the effects of levels; it chooses coordinates only.

    Attributes
    ----------
    slope : (T, F, C)
        As in `LevelRows`: by how much an effect moves what rows say of the coefficients of each task.
    information, moment : (C, C), (C,)
        The quadratic -gamma'H gamma / 2 + h'gamma, coefficients of tasks being integrated out.
    """

    slope: FloatArray
    information: FloatArray
    moment: FloatArray


@dataclass(frozen=True)
class LevelEffects:
    """The effects in a model.

    Attributes
    ----------
    values : (C,)
        Given the data's coordinates, or latent.
    from_prior : (C,)
        What the same coordinates are without data: a draw of the prior if they are standard normal.
    slope : (T, F, C)
    """

    values: Tensor
    from_prior: Tensor
    slope: FloatArray

    def shift(self, numbers: Numbers) -> Tensor:
        """Return A_t gamma (T, F): what rows of a task cannot tell from its coefficients."""
        n_tasks, n_columns, size = self.slope.shape
        slope = pt.as_tensor_variable(numbers("level_slope", self.slope.reshape(-1, size)))
        return product(slope, self.values[:, None]).reshape((n_tasks, n_columns))


def level_priors(spec: ModelSpec, data: TaskData, priors: Any, numbers: Numbers) -> list[CoefficientPrior]:
    """Register the hyperparameters of every grouping in the current model."""
    return [
        coefficient_prior(
            task_covariance=spec.levels_of(grouping.name),
            feature_covariance=spec.feature_covariance_of(data),
            outside=outside_features(
                spec.levels_of(grouping.name), spec.independent_features, grouping.features
            ),
            tasks=grouping.levels,
            features=grouping.features,
            dims=level_dims(grouping),
            feature_sd=priors[named(grouping.name, "feature_sd")],
            feature_sd_scale=priors[named(grouping.name, "feature_sd_scale")],
            task_sd=None,
            name=partial(named, grouping.name),
            numbers=numbers,
        )
        for grouping in data.groupings
    ]


def latent_levels(blocks: Sequence[CoefficientPrior], data: TaskData, slope: FloatArray) -> LevelEffects:
    """Register the effects themselves, non-centered."""
    values = [_latent(block, grouping) for block, grouping in zip(blocks, data.groupings, strict=True)]
    gamma = pt.concatenate(values) if len(values) > 1 else values[0]
    return LevelEffects(gamma, gamma, slope)


def _latent(block: CoefficientPrior, grouping: Grouping) -> Tensor:
    effects = latent_coefficients(
        block,
        pt.zeros((1, len(grouping.features))),
        n_tasks=len(grouping.levels),
        dims=level_dims(grouping),
        name=partial(named, grouping.name),
        factors=False,
    )
    return effects.reshape((grouping.n_effects,))


def whitened_levels(blocks: Sequence[CoefficientPrior], pilot: LevelPilot, numbers: Numbers) -> LevelEffects:
    """Register coordinates of the effects that look standard normal.

    The coordinates know how the data relate effects to each other, for example that data hardly tell their
    average from the population mean.
    """
    laws = [_law(block) for block in blocks]
    sd = pt.concatenate([scale for scale, _ in laws])
    size, used, correlation = int(sd.type.shape[0]), 0, laws[0][1]
    if len(laws) > 1:
        correlation = pt.zeros((size, size))
        for _, factor in laws:
            at = slice(used, used + int(factor.type.shape[0]))
            correlation, used = pt.set_subtensor(correlation[at, at], factor), at.stop
    z = pm.Flat(LEVEL_OFFSET, shape=(size,))
    about = numbers("level_information", pilot.information), numbers("level_moment", pilot.moment)
    value, values = joint_effects(sd, correlation, z, *about)
    pm.Potential("level_coordinates", value)
    prior = sd * product(correlation, z[:, None])[:, 0]
    return LevelEffects(values, prior, pilot.slope)


def _law(block: CoefficientPrior) -> tuple[Tensor, Tensor]:
    """Return D and a lower triangular C with D C C'D = Omega (x) Sigma, D = diag(first)."""
    n_levels, n_features, unique_sd = block.n_tasks, block.n_features, block.unique_sd
    scale = repeat(block.sd[None, :], n_levels)
    levels: Tensor = np.eye(n_levels)
    if block.loadings is None:
        assert unique_sd is not None
        is_inside = np.isin(np.arange(n_features), block.inside)
        scale = scale * pt.switch(is_inside, unique_sd[:, None], 1.0)
    elif unique_sd is None:
        levels = block.loadings  # square and lower triangular
    else:
        omega = product(block.loadings, block.loadings.T) + pt.diag(unique_sd**2)
        levels = pt.linalg.cholesky(omega)
    n_inside = len(block.inside)
    both = levels[:, None, :, None] * block.correlation[None, :, None, :]
    both = both.reshape((n_levels * n_inside, n_levels * n_inside))
    if n_inside < n_features:
        at = (n_features * np.arange(n_levels)[:, None] + block.inside).ravel()
        both = embed(both, at, n_levels * n_features)
    return scale.reshape((n_levels * n_features,)), both


def level_log_likelihood(gamma: Tensor, sigma: Tensor, rows: LevelRows, numbers: Numbers) -> Tensor:
    """Return the part of a Gaussian log density that depends on the effects and on no coefficient."""
    n_groups = len(rows.rest)
    return gaussian_tasks(
        repeat(gamma[None, :], n_groups),
        sigma,
        numbers("level_root", rows.root),
        numbers("level_target", rows.target),
        numbers("level_rest", rows.rest),
        np.zeros(n_groups),
    )
