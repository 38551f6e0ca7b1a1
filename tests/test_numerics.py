"""Digits: the integrated density and its gradient against dense algebra with sixty digits."""

from __future__ import annotations

import warnings
from decimal import Decimal, localcontext

import numpy as np
import pytest

import bayes_mtl as mtl
from bayes_mtl.errors import DataWarning
from bayes_mtl.model import sampling_model
from tests import contracts

PI = Decimal("3.14159265358979323846264338327950288419716939937510582097494459")


def exact(X, y, task, weights, mean, sd, sigma):
    """Return log N(y; X mean, blocks of X diag(sd^2) X' + sigma^2 / w), and by log sigma and log sd_1."""
    with localcontext() as context:
        context.prec = 60
        n = len(y)
        rows = [[Decimal(float(v)) for v in row] for row in X]
        centre = [Decimal(float(m)) for m in mean]
        left = [
            Decimal(float(v)) - sum(x * m for x, m in zip(row, centre, strict=True))
            for v, row in zip(y, rows, strict=True)
        ]

        def density(sd, sigma):
            L, z = [[Decimal(0)] * n for _ in range(n)], [Decimal(0)] * n
            for i in range(n):
                for j in range(i + 1):
                    entry = -sum(L[i][m] * L[j][m] for m in range(j))
                    if task[i] == task[j]:
                        entry += sum(a * b * s * s for a, b, s in zip(rows[i], rows[j], sd, strict=True))
                    if i == j:
                        L[i][i] = (entry + sigma * sigma / Decimal(float(weights[i]))).sqrt()
                    else:
                        L[i][j] = entry / L[j][j]
                z[i] = (left[i] - sum(L[i][m] * z[m] for m in range(i))) / L[i][i]
            squares = sum(v * v for v in z)
            return -sum(L[i][i].ln() for i in range(n)) - squares / 2 - n * (2 * PI).ln() / 2

        sd, sigma, step = [Decimal(float(s)) for s in sd], Decimal(float(sigma)), Decimal(10) ** -20
        more, less = step.exp(), (-step).exp()
        by_sigma = (density(sd, sigma * more) - density(sd, sigma * less)) / (2 * step)
        changed = [[sd[0], sd[1] * factor, *sd[2:]] for factor in (more, less)]
        by_sd = (density(changed[0], sigma) - density(changed[1], sigma)) / (2 * step)
        return float(density(sd, sigma)), float(by_sigma), float(by_sd)


@pytest.mark.parametrize(
    ("n", "noise", "near", "far", "high", "weights", "tolerance"),
    [
        (2, 1.0, 0.0, 0.0, 0.0, 0.0, 1e-10),  # fewer rows than columns
        (6, 1e-8, 0.0, 0.0, 0.0, 0.0, 1e-6),  # nearly no noise
        (6, 1e-6, 0.9999, 0.0, 0.0, 0.0, 1e-6),  # and nearly collinear
        (6, 1.0, 1 - 1e-10, 0.0, 0.0, 0.0, 1e-8),
        (6, 1.0, 0.0, 1e6, 0.0, 0.0, 1e-8),  # features far from zero
        (6, 1.0, 0.0, 0.0, 1e6, 0.0, 1e-8),  # outcomes far from zero
        (6, 1.0, 0.0, 0.0, 0.0, 6.0, 1e-8),  # weights from 1e-6 to 1e6
        (6, 1e4, 0.0, 0.0, 0.0, 0.0, 1e-8),
    ],
)
def test_density_and_gradient(n, noise, near, far, high, weights, tolerance):
    rng = np.random.default_rng(0)
    task = np.repeat(np.arange(3), n)
    X = rng.standard_normal((3 * n, 2))
    X[:, 1] = near * X[:, 0] + np.sqrt(1 - near**2) * X[:, 1]
    w = 10.0 ** rng.uniform(-weights, weights, 3 * n)
    beta = rng.standard_normal((3, 3))
    y = (
        high
        + beta[task, 0]
        + (X * beta[task, 1:]).sum(axis=1)
        + noise * rng.standard_normal(3 * n) / np.sqrt(w)
    )
    mean, sd = np.array([high + 0.1 + 0.1 * far, 0.2, -0.3]), np.array([1.0, 0.7, 1.3])
    X += far
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # an intercept far from the data
        data = mtl.TaskData.from_arrays(X, y, task, weights=w)
    learned = mtl.Prior("Uniform", lower=0.0, upper=1e5)
    priors = {
        "beta_mean": dict(zip(data.features, mean.tolist(), strict=True)),
        "feature_sd": {"Intercept": 1.0, "x0": learned, "x1": 1.3},
        "sigma": learned,
    }
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), priors=priors)
    model = sampling_model(spec, data, collapsed=True, rows=data.pseudo_rows).model
    evaluator = contracts.Evaluator(model)
    names = {
        value: next(k for k in evaluator.names if k.startswith(value)) for value in ("sigma", "feature_sd")
    }
    at = {"sigma": noise, "feature_sd": 0.7}
    point = {}
    for name, key in names.items():
        share = at[name] / 1e5
        point[key] = np.full(evaluator.start[key].shape, np.log(share) - np.log1p(-share))
    X = np.column_stack([np.ones(3 * n), X])
    value, by_sigma, by_sd = exact(X, y, task, w, mean, sd, noise)
    gradient = evaluator.gradient(point)
    # The logarithm of a uniform variable's odds: d value / d odds = value (1 - share), with its own Jacobian.
    found = [evaluator.data_term(point)]
    for name, key in names.items():
        share = at[name] / 1e5
        found.append((float(np.ravel(gradient[key])[0]) - (1 - 2 * share)) / (1 - share))
    np.testing.assert_allclose(found, [value, by_sigma, by_sd], rtol=tolerance, atol=tolerance)
