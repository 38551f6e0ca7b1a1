"""What follows for the rows that were fitted: log-likelihood, means, draws; and the linear predictor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from bayes_mtl._typing import FloatArray
from bayes_mtl.data.groupings import named
from bayes_mtl.inference.attributes import schema_of, spec_of
from bayes_mtl.inference.hyperdraws import CHUNK_BYTES


def log_likelihood(idata: xr.DataTree) -> xr.Dataset:
    """Compute the log density of every row under every draw, in bounded working memory.

    Parameters
    ----------
    idata : DataTree
        With ``posterior``, ``constant_data`` and ``observed_data``.

    Returns
    -------
    Dataset
        ``y`` with dims (chain, draw, row).
    """
    family, y = spec_of(idata).family, idata["observed_data"]["y"].to_numpy()

    def density(part: xr.Dataset, eta: FloatArray, sigma: FloatArray, weights: FloatArray) -> FloatArray:
        return family.log_likelihood(y, eta, sigma, weights)

    return _of_fitted_rows(idata, density)


def fitted_mean(idata: xr.DataTree) -> xr.Dataset:
    """Compute the expected outcome of every row that was fitted, ``y`` (chain, draw, row)."""
    family = spec_of(idata).family
    return _of_fitted_rows(idata, lambda _part, eta, *_: family.mean(eta))


def posterior_predictive(idata: xr.DataTree, seed: int) -> xr.Dataset:
    """Draw an outcome of every row that was fitted for every draw, ``y`` (chain, draw, row).

    An outcome depends on the seed, the labels of chain and draw, and nothing else of the other draws: some of
    the draws get what they got among all.
    """
    family = spec_of(idata).family

    def draw(part: xr.Dataset, eta: FloatArray, sigma: FloatArray, weights: FloatArray) -> FloatArray:
        scale = np.broadcast_to(sigma / np.sqrt(weights), eta.shape)
        chain = int(part["chain"])
        generators = [np.random.default_rng([seed, chain, int(d)]) for d in part["draw"].to_numpy()]
        drawn = [family.draw(rng, eta[i], scale[i]) for i, rng in enumerate(generators)]
        return np.array(drawn).reshape(eta.shape)

    return _of_fitted_rows(idata, draw)


def _of_fitted_rows(
    idata: xr.DataTree, compute: Callable[[xr.Dataset, FloatArray, FloatArray, FloatArray], FloatArray]
) -> xr.Dataset:
    """Compute something of draws, their linear predictor, noise scale and weights, piece by piece."""
    groupings = list(schema_of(idata).groupings)
    posterior, fixed = idata["posterior"].to_dataset(), idata["constant_data"].to_dataset()
    task, weights = fixed["task_index"].to_numpy(), fixed["weights"].to_numpy()
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    out = np.empty((chains, draws, len(task)))
    step = max(1, CHUNK_BYTES // (8 * len(task) * (posterior.sizes.get("feature", 0) + 3)))
    for chain in range(chains):
        for start in range(0, draws, step):
            part = posterior.isel(chain=chain, draw=slice(start, start + step))
            eta = fitted_predictor(part, fixed, groupings)
            sigma = fixed["noise"].to_numpy() if "noise" in fixed else sigma_of_rows(part, task)
            out[chain, start : start + step] = compute(part, eta, sigma, weights)
    of_rows = {str(name): fixed[name] for name in fixed.coords if fixed[name].dims == ("row",)}
    coords = {"chain": posterior["chain"], "draw": posterior["draw"], **of_rows}
    return xr.Dataset({"y": (("chain", "draw", "row"), out)}, coords=coords)


def fitted_predictor(draws: xr.Dataset, fixed: xr.Dataset, groupings: Sequence[str]) -> FloatArray:
    """Return the linear predictor of the rows that were fitted, shape (n_draws, n_rows)."""
    shared = fixed["X_shared"].to_numpy() if "X_shared" in fixed else None
    task, offset = fixed["task_index"].to_numpy(), fixed["offset"].to_numpy()
    eta = linear_predictor(draws, fixed["X"].to_numpy(), shared, offset, task)
    return eta + effects_of_levels(draws, fixed, groupings)


def linear_predictor(
    draws: xr.Dataset,
    X: FloatArray,
    X_shared: FloatArray | None,
    offset: FloatArray,
    task: npt.NDArray[np.int64],
) -> FloatArray:
    """Return eta = X beta_task + X_shared beta_shared + offset, shape (n_draws, n_rows)."""
    beta = draws["beta"].transpose("task", "draw", "feature").to_numpy()
    eta = np.empty((beta.shape[1], len(X)))
    order = np.argsort(task, kind="stable")
    starts = np.searchsorted(task[order], np.arange(len(beta) + 1))
    for t, begin, end in zip(range(len(beta)), starts[:-1], starts[1:], strict=True):
        rows: Any = order[begin:end]
        if len(rows) and len(rows) == rows[-1] - rows[0] + 1:  # neighbours: a view, not a copy
            rows = slice(rows[0], rows[-1] + 1)
        eta[:, rows] = beta[t] @ X[rows].T
    eta += offset
    if X_shared is not None:
        eta += draws["beta_shared"].transpose("draw", "shared_feature").to_numpy() @ X_shared.T
    return eta


def effects_of_levels(draws: xr.Dataset, fixed: xr.Dataset, groupings: Sequence[str]) -> FloatArray:
    """Return what levels add to the linear predictor, shape (n_draws, n_rows).

    Parameters
    ----------
    draws, fixed : Dataset
        Effects; and each row's position among the levels, with its features.
    groupings : sequence of str
    """
    eta = np.zeros((draws.sizes["draw"], fixed.sizes["row"]))
    for name in groupings:
        effects = draws[named(name, "beta")].transpose("draw", name, named(name, "feature")).to_numpy()
        index, X = fixed[named(name, "index")].to_numpy(), fixed[f"X_{name}"].to_numpy()
        for p in range(X.shape[1]):
            eta += effects[:, index, p] * X[:, p]
    return eta


def sigma_of_rows(draws: xr.Dataset, task: npt.NDArray[np.int64]) -> FloatArray:
    """Return the noise scale of each row, shape (n_draws, n_rows) or (n_draws, 1)."""
    if "sigma" not in draws:
        return np.ones((1, 1))
    if "task" in draws["sigma"].dims:
        return draws["sigma"].transpose("draw", "task").to_numpy()[:, task]
    return draws["sigma"].to_numpy()[:, None]
