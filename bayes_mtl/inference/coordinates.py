"""Coordinates in which the hyperparameters look like independent standard normals.

The sampler's own adaptation learns the scale of each coordinate, slowly, and not how they move together. The
mode and the curvature of the density tell both before the first step. They only choose coordinates
(theta = centre + scale x, linear): poor ones make sampling slower, never the answer wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from bayes_mtl._typing import FloatArray

ValueAndGradient = Callable[[FloatArray], tuple[float, FloatArray]]

_STEP = 1e-3  # of the differences of gradients
_ROUNDS = 2  # the first finds the scales in which the second finds the mode
_STARTS, _ITERATIONS = 8, 60  # of the search for the best of several modes
_LEAST_CURVATURE = 0.25  # hyperparameters are on the scale of logarithms: none is wider than 2


@dataclass(frozen=True)
class Coordinates:
    """The first k unconstrained parameters are centre + scale x; the others are what the sampler moves.

    Attributes
    ----------
    centre : (k,)
    scale : (k, k)
        Symmetric.
    """

    centre: FloatArray
    scale: FloatArray

    @classmethod
    def identity(cls, k: int) -> Coordinates:
        """Leave everything as it is."""
        return cls(np.zeros(k), np.eye(k))

    def forward(self, x: FloatArray) -> FloatArray:
        """Return the parameters of positions, shape (..., size)."""
        k = len(self.centre)
        theta = np.array(x, dtype=float)
        theta[..., :k] = self.centre + x[..., :k] @ self.scale
        return theta


def laplace_coordinates(evaluate: ValueAndGradient, start: FloatArray, k: int) -> Coordinates:
    """Centre and scale the first k parameters at the mode given that the others are zero.

    Whitened coefficients are zero in the middle of their law given the hyperparameters, so this is the
    mode of what is left when they are integrated out.

    Parameters
    ----------
    evaluate : callable
        Log density and gradient at a position.
    start : (size,)
        Where to start; entries from k on are not read.
    k : int
    """
    if not k:
        return Coordinates.identity(0)
    loss = _loss(evaluate, len(start), k)
    # Not from the start itself, which may be a saddle: where all loadings are zero, none has a slope.
    centre, scale = start[:k] + np.random.default_rng(0).uniform(-0.3, 0.3, k), np.eye(k)
    for _ in range(_ROUNDS):
        centre = _mode(loss, centre, scale)
        steps = _STEP * scale
        change = np.array([loss(centre + step)[1] - loss(centre - step)[1] for step in steps])
        curvature = np.linalg.solve(scale, change / (2 * _STEP))
        if not np.isfinite(curvature).all():
            return Coordinates.identity(k)
        values, vectors = np.linalg.eigh((curvature + curvature.T) / 2)
        scale = vectors / np.sqrt(np.maximum(values, _LEAST_CURVATURE)) @ vectors.T
        scale = (scale + scale.T) / 2
    return Coordinates(centre, scale)


def _loss(evaluate: ValueAndGradient, size: int, k: int) -> ValueAndGradient:
    """Return minus the density as a function of the first k parameters, the others being zero."""
    position = np.zeros(size)

    def loss(theta: FloatArray) -> tuple[float, FloatArray]:
        position[:k] = theta
        value, gradient = evaluate(position)
        if not np.isfinite(value):
            return 1e100, np.zeros(k)
        return -value, -np.array(gradient[:k])

    return loss


def _mode(loss: ValueAndGradient, start: FloatArray, scale: FloatArray) -> FloatArray:
    """Return the minimum of a loss, looked for in coordinates start + scale x."""

    def scaled(x: FloatArray) -> tuple[float, FloatArray]:
        value, gradient = loss(start + scale @ x)
        return value, scale @ gradient

    # Relative to the loss of millions of rows, no change that matters is large enough to count: ftol is 0.
    options = {"maxiter": 300, "ftol": 0.0, "gtol": 1e-3}
    return (
        start + scale @ minimize(scaled, np.zeros(len(start)), jac=True, method="L-BFGS-B", options=options).x
    )


def best_start(evaluate: ValueAndGradient, centre: FloatArray, k: int, seed: int) -> FloatArray:
    """Return the best of a few points, found by optimising the first k parameters from random ones.

    A chain can hardly leave one way of dividing tasks into clusters for another. So each begins in a good
    one, and since each looks on its own, chains that disagree say that there are several.

    Parameters
    ----------
    evaluate : callable
        Log density and gradient at a position.
    centre : (size,)
        Around which to look; from k on, positions are zero (whitened coefficients).
    k : int
    seed : int
    """
    rng, loss = np.random.default_rng(seed), _loss(evaluate, len(centre), k)
    options = {"maxiter": _ITERATIONS}
    starts = [centre[:k] + rng.uniform(-1.5, 1.5, k) for _ in range(_STARTS)]
    ends = [minimize(loss, start, jac=True, method="L-BFGS-B", options=options) for start in starts]
    found = np.zeros(len(centre))
    found[:k] = min(ends, key=lambda end: end.fun).x + rng.normal(0.0, 0.1, k)
    found[k:] = rng.uniform(-1.0, 1.0, len(centre) - k)
    return found
