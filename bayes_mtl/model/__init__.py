"""From a description and data to a plain `pm.Model`."""

from bayes_mtl.model.block import task_coefficients
from bayes_mtl.model.block_scales import ScaledBy
from bayes_mtl.model.build import (
    WHITENED,
    AssembledModel,
    assembled_model,
    build_model,
    is_chained,
    is_collapsed,
    sampling_model,
)
from bayes_mtl.model.coefficients import CoefficientPrior
from bayes_mtl.model.levels import LEVEL_OFFSET, LevelEffects, LevelPilot
from bayes_mtl.model.mixture import MixturePrior
from bayes_mtl.model.noise import NOISE_OFFSETS, SIGMA_OFFSET
from bayes_mtl.model.population import Population, integrated_population
from bayes_mtl.model.priors import default_priors, explicit_priors
from bayes_mtl.model.units import outcome_units

__all__ = [
    "LEVEL_OFFSET",
    "NOISE_OFFSETS",
    "SIGMA_OFFSET",
    "WHITENED",
    "AssembledModel",
    "CoefficientPrior",
    "LevelEffects",
    "LevelPilot",
    "MixturePrior",
    "Population",
    "ScaledBy",
    "assembled_model",
    "build_model",
    "default_priors",
    "explicit_priors",
    "integrated_population",
    "is_chained",
    "is_collapsed",
    "outcome_units",
    "sampling_model",
    "task_coefficients",
]
