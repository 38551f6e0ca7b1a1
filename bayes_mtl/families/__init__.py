"""Likelihoods: one declarative file per family."""

from bayes_mtl.families.base import Family, OutcomeScale
from bayes_mtl.families.bernoulli import Bernoulli
from bayes_mtl.families.gaussian import Gaussian

__all__ = ["Bernoulli", "Family", "Gaussian", "OutcomeScale"]
