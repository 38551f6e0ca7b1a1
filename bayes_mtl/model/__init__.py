"""From a description and data to a plain `pm.Model`."""

from bayes_mtl.model.build import AssembledModel, assemble, build_model, is_collapsed
from bayes_mtl.model.coefficients import CoefficientPrior, task_coefficients

__all__ = [
    "AssembledModel",
    "CoefficientPrior",
    "assemble",
    "build_model",
    "is_collapsed",
    "task_coefficients",
]
