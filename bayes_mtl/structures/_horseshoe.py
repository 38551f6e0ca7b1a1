"""Numbers most of which are near zero, and some of which are not."""

from __future__ import annotations

from typing import Any

import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import Tensor

_TAILS = 3.0  # degrees of freedom of the local scales: lighter than a Cauchy's, whose tails NUTS cannot reach
_SLAB = 2.0


def horseshoe(name: str, scale: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Register a regularised horseshoe and return it.

    z * scale * lambda', with z ~ N(0, 1), lambda ~ HalfStudentT(3) and
    lambda'^2 = c^2 lambda^2 / (c^2 + scale^2 lambda^2), c = 2, so that the largest are about N(0, c).

    References
    ----------
    Piironen & Vehtari (2017), Electronic Journal of Statistics 11.
    """
    options: dict[str, Any] = {"shape": shape}
    local = scale * pm.HalfStudentT(f"{name}_local", nu=_TAILS, sigma=1.0, **options)
    return pm.Normal(f"{name}_offset", 0.0, 1.0, **options) * local / pt.sqrt(1.0 + (local / _SLAB) ** 2)
