"""From a description and data to a plain `pm.Model`."""

from bayes_mtl.model.build import build_model, is_collapsed
from bayes_mtl.model.coefficients import CoefficientPrior, task_coefficients

__all__ = ["CoefficientPrior", "build_model", "is_collapsed", "task_coefficients"]
