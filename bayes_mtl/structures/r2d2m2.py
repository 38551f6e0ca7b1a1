"""One budget of explained variance for all features, shared out over means and deviations."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.structures._options import positive_finding
from bayes_mtl.structures.base import Candidates, FeatureLaw, FeatureScales, Namer

TERMS = ("mean", "deviation")


@dataclass(frozen=True)
class R2D2M2(FeatureScales):
    """A prior on how much of the variance the features explain, split over their means and deviations.

        R^2 ~ Beta(mean_r2 precision, (1 - mean_r2) precision)         tau^2 = R^2 / (1 - R^2)
        phi ~ Dirichlet(concentration, ..., concentration)             over 2 P terms
        beta_mean_j ~ N(0, sigma^2 tau^2 phi_j / s_j^2)
        feature_sd_j^2 = sigma^2 tau^2 phi_(P + j) / s_j^2

    with s_j the standard deviation of feature j over all rows and sigma the noise. Given the scales, what the
    features say has expected variance sigma^2 tau^2, however many they are: `r2` is its share in the variance
    of the outcome around the intercepts. (If deviations of different features correlate, only about;
    `Diagonal` rules that out.) `variance_share` is phi.

    For binary outcomes sigma is that of a standard logistic variable, pi / sqrt(3), so that R^2 is of the
    latent variable whose sign is the outcome.

    Parameters
    ----------
    mean_r2 : float
        Prior mean of R^2, default 0.5.
    precision : float
        Of the Beta distribution; default 2, which with `mean_r2` 0.5 is uniform.
    concentration : float
        Default 0.5; the smaller, the fewer terms explain it all.

    References
    ----------
    Aguilar & Buerkner (2023), Electronic Journal of Statistics 17; Zhang, Naughton, Bondell & Reich (2022),
    Journal of the American Statistical Association 117; McKelvey & Zavoina (1975), Journal of Mathematical
    Sociology 4.

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> mtl.R2D2M2(mean_r2=0.3).to_dict()
    {'name': 'R2D2M2', 'mean_r2': 0.3, 'precision': 2.0, 'concentration': 0.5}
    """

    mean_r2: float = 0.5
    precision: float = 2.0
    concentration: float = 0.5

    def __post_init__(self) -> None:
        findings = positive_finding("R2D2M2", "mean_r2", self.mean_r2)
        if not findings and not self.mean_r2 < 1.0:
            findings.append(Finding("R2D2M2", f"`mean_r2` should be below 1, found {self.mean_r2!r}"))
        findings += positive_finding("R2D2M2", "precision", self.precision)
        findings += positive_finding("R2D2M2", "concentration", self.concentration)
        raise_if_any(findings, SpecError)
        for option in ("mean_r2", "precision", "concentration"):
            object.__setattr__(self, option, float(getattr(self, option)))

    @property
    def parameters(self) -> tuple[str, ...]:
        """The explained variance, and who explains it."""
        return ("r2", "variance_share")

    def law(self, candidates: Candidates, name: Namer) -> FeatureLaw:
        """Register R^2 and its division."""
        n, a, b = candidates.n_features, self.mean_r2, 1.0 - self.mean_r2
        r2 = pm.Beta(name("r2"), a * self.precision, b * self.precision)
        phi = pm.Dirichlet(name("variance_share_part"), np.full(2 * n, self.concentration))
        term = name("term")
        pm.modelcontext(None).add_coord(term, TERMS)
        share = pm.Deterministic(name("variance_share"), phi.reshape((2, n)), dims=(term, candidates.dims[1]))
        scale = candidates.noise * candidates.inverse_sd * pt.sqrt(r2 / (1.0 - r2) * share)
        return FeatureLaw(scale[0], scale[1])

    def at_noise(self, size: FloatArray, ratio: FloatArray) -> FloatArray:
        """Return sizes under another noise: they are relative to it."""
        return ratio * size
