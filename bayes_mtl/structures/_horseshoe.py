"""Numbers most of which are near zero, and some of which are not."""

from __future__ import annotations

from functools import cache

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Tensor

TAILS = 3.0  # degrees of freedom of the local scales: lighter than a Cauchy's, whose tails NUTS cannot reach
_SLAB = 2.0


def local_scales(name: str, scale: Tensor, shape: tuple[int, ...], slab: float = _SLAB) -> Tensor:
    """Register the scales of a regularised horseshoe and return them.

    scale * lambda', with lambda ~ HalfStudentT(3) and lambda'^2 = c^2 lambda^2 / (c^2 + scale^2 lambda^2):
    none is larger than the slab c.

    References
    ----------
    Piironen & Vehtari (2017), Electronic Journal of Statistics 11.
    """
    local = scale * pm.HalfStudentT(f"{name}_local", nu=TAILS, sigma=1.0, shape=shape)
    return local / pt.sqrt(1.0 + (local / slab) ** 2)


def horseshoe(name: str, scale: Tensor, shape: tuple[int, ...], slab: float = _SLAB) -> Tensor:
    """Register a regularised horseshoe and return it: standard normals times `local_scales`."""
    scales = local_scales(name, scale, shape, slab)
    return pm.Normal(f"{name}_offset", 0.0, 1.0, shape=shape) * scales


def draw_horseshoe(
    scale: FloatArray, shape: tuple[int, ...], rng: np.random.Generator, slab: float = _SLAB
) -> FloatArray:
    """Draw what `horseshoe` registers, given the scale."""
    local = scale * np.abs(rng.standard_t(TAILS, shape))
    return np.asarray(rng.standard_normal(shape) * local / np.sqrt(1.0 + (local / slab) ** 2))


@cache
def global_scale(share: float) -> float:
    """Return the scale a at which a share of the numbers is expected to matter: E[a^2 l^2 / (1 + a^2 l^2)].

    That is 1 - kappa of a number whose prior variance is a^2 l^2 times the variance of its estimate. For
    Cauchy local scales it is share / (1 - share); here l ~ HalfStudentT(3).
    """
    from scipy.integrate import quad  # loads slowly
    from scipy.optimize import brentq
    from scipy.stats import t

    def excess(log_a: float) -> float:
        def matters(angle: float) -> float:  # l = tan(angle)
            square = (np.exp(log_a) * np.tan(angle)) ** 2
            return 2.0 * t.pdf(np.tan(angle), TAILS) / np.cos(angle) ** 2 * square / (1.0 + square)

        return float(quad(matters, 0.0, np.pi / 2, limit=200)[0]) - share

    return float(np.exp(brentq(excess, -20.0, 20.0)))
