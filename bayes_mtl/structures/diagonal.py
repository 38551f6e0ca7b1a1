"""Coefficients that vary independently of each other."""

from __future__ import annotations

from dataclasses import dataclass

from bayes_mtl.structures.base import FeatureCovariance, Namer


@dataclass(frozen=True)
class Diagonal(FeatureCovariance):
    """A scale per feature and no correlation between features: R = I."""

    def correlation_cholesky(self, n_features: int, name: Namer) -> None:
        """Return None, the identity."""
