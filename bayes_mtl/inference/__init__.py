"""Sampling, exact recovery of coefficients, diagnostics in words, storage."""

from bayes_mtl.inference.diagnostics import diagnose
from bayes_mtl.inference.fit import fit
from bayes_mtl.inference.storage import load, save

__all__ = ["diagnose", "fit", "load", "save"]
