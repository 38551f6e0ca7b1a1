"""Draws of the correlations of pairs, each computed where it is asked for.

Of T tasks there are T (T - 1) / 2 correlations per draw: too many to hold for every draw. But all kinds are
inner products rho_ts = u_t'u_s of vectors that are small: loadings, scaled coefficients, coefficients in the
metric of the features. Those are held, and correlations are computed for one task and all later ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, IntArray, Label
from bayes_mtl.arguments import task_positions
from bayes_mtl.data.groupings import named
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import check_grouping, inside_of, rows_by_task, spec_of
from bayes_mtl.inference.deviations import deviations
from bayes_mtl.inference.hyperdraws import CHUNK_BYTES, evenly_spaced

Kind = Literal["structural", "partial", "coefficients", "functions"]
REFERENCE_ROWS = 200
_SMALL = 1e-300
_LEAST_UNIQUE = 1e-5
# Not needed for any kind but by name: large.
_LARGE = ("task_corr", "task_loadings", "cluster_probability")


class Budget(NamedTuple):
    """How much may be held and computed; more draws than that are thinned evenly.

    Attributes
    ----------
    draws : int
    held : int
        Numbers, over all draws.
    """

    draws: float = np.inf
    held: float = np.inf


_EVERYTHING = Budget()


@dataclass(frozen=True)
class PairDraws:
    """Draws of correlations of n tasks.

    Attributes
    ----------
    vectors : (K, n, D) or None
        u_t, correlations being their inner products.
    matrices : (D, n, n) or None
        The correlations themselves, where they are parameters of a free matrix.
    shape : (chains, draws)
        D = chains x draws, chains one after the other.
    """

    vectors: FloatArray | None
    matrices: FloatArray | None
    shape: tuple[int, int]

    @property
    def n_tasks(self) -> int:
        """Number of tasks."""
        return self.matrices.shape[1] if self.vectors is None else self.vectors.shape[1]  # type: ignore[union-attr]

    @property
    def n_draws(self) -> int:
        """Number of draws."""
        return self.shape[0] * self.shape[1]

    def with_later(self, a: int) -> FloatArray:
        """Return the correlations of task a and all later ones, (n - a - 1, D)."""
        if self.vectors is None:
            assert self.matrices is not None
            return np.ascontiguousarray(self.matrices[:, a, a + 1 :].T)
        out = self.vectors[0, a + 1 :] * self.vectors[0, a]
        for u in self.vectors[1:]:
            out += u[a + 1 :] * u[a]
        return out

    def pairs(self, a: IntArray, b: IntArray) -> FloatArray:
        """Return the correlations of some pairs, (chain, draw, pair)."""
        if self.vectors is None:
            assert self.matrices is not None
            return self.matrices[:, a, b].reshape(*self.shape, len(a))
        rho = np.einsum("kpd,kpd->dp", self.vectors[:, a], self.vectors[:, b])
        return rho.reshape(*self.shape, len(a))


def pair_draws(
    idata: xr.DataTree,
    kind: Kind,
    *,
    group: str = "posterior",
    grouping: str | None = None,
    tasks: Sequence[Label] | None = None,
    budget: Budget = _EVERYTHING,
) -> PairDraws:
    """Return the correlations of tasks (or of levels of a grouping) under every draw.

    Parameters
    ----------
    idata, kind, grouping
        As in `task_correlation`.
    group : {"posterior", "prior"}
    tasks : sequence of labels, optional
        Only these. Partial correlations are given all tasks all the same.
    budget : Budget
        Default: every draw.

    Raises
    ------
    SpecError
        If the fit has no correlation of this kind.
    """
    if kind not in get_args(Kind):
        known = ", ".join(map(repr, get_args(Kind)))
        raise SpecError(Finding("kind", f"should be one of {known}, found {kind!r}"))
    draws = idata[group].to_dataset()
    if grouping is not None:
        check_grouping(idata, grouping)
    elif draws.sizes["task"] < 2:
        raise SpecError(Finding("task_correlation", "needs two tasks at least, found one"))
    task = "task" if grouping is None else grouping
    at = None if tasks is None else task_positions(draws[task].to_numpy(), tasks, least=2)
    if grouping is not None:
        return _of_levels(idata, draws, kind, grouping, at, budget)
    if kind in ("structural", "partial"):
        return _structural(idata, draws, kind, at, budget)
    draws = draws.drop_vars([name for name in _LARGE if name in draws])
    if kind == "coefficients":
        _check_varying(idata, draws)
        draws = _thinned(draws, len(inside_of(idata)) * draws.sizes["task"], budget)
        return cosines(deviations(idata, draws), at)
    return _functions(idata, draws, at, budget)


def _thinned(draws: xr.Dataset, per_draw: int, budget: Budget) -> xr.Dataset:
    """Return as many draws of each chain as may be used, evenly spaced."""
    keep = min(budget.draws, budget.held / max(1, per_draw)) / draws.sizes["chain"]
    length = draws.sizes["draw"]
    return draws if keep >= length else draws.isel(draw=evenly_spaced(length, max(1, int(keep))))


def _of_vectors(vectors: FloatArray, at: IntArray | None) -> PairDraws:
    """Take vectors (chain, draw, task, K)."""
    chains, length = vectors.shape[:2]
    vectors = vectors if at is None else vectors[:, :, at]
    vectors = vectors.reshape(chains * length, *vectors.shape[2:])
    return PairDraws(np.ascontiguousarray(vectors.transpose(2, 1, 0)), None, (chains, length))


def _of_matrices(matrices: FloatArray, kind: Kind, at: IntArray | None) -> PairDraws:
    """Take matrices (chain, draw, task, task) of correlations."""
    chains, length, n = matrices.shape[:3]
    flat = matrices.reshape(chains * length, n, n)
    if kind == "partial":
        size = n if at is None else len(at)
        out = np.empty((chains * length, size, size))
        step = max(1, CHUNK_BYTES // (16 * n * n))
        for start in range(0, len(flat), step):
            partial = partial_correlation(flat[start : start + step])
            out[start : start + step] = partial if at is None else partial[:, at[:, None], at]
        flat = out
    elif at is not None:
        flat = flat[:, at[:, None], at]
    return PairDraws(None, flat, (chains, length))


def _of_loadings(loadings: FloatArray, unique_sd: FloatArray, kind: Kind, at: IntArray | None) -> PairDraws:
    """Take loadings (chain, draw, task, K) and unique scales (chain, draw, task)."""
    if kind == "structural":
        return _of_vectors(loadings, at)
    chains, length, n, k = loadings.shape
    size = n if at is None else len(at)
    out = np.empty((chains, length, size, k))
    step = max(1, CHUNK_BYTES // (64 * n * k))
    for chain in range(chains):
        for start in range(0, length, step):
            piece = slice(start, start + step)
            vectors = partial_vectors(loadings[chain, piece], unique_sd[chain, piece])
            out[chain, piece] = vectors if at is None else vectors[:, at]
    return _of_vectors(out, None)


def partial_correlation(corr: FloatArray) -> FloatArray:
    """Return -P_ts / sqrt(P_tt P_ss), P = corr^-1, of matrices (..., T, T)."""
    precision = np.linalg.inv(corr)
    sd = np.sqrt(np.diagonal(precision, axis1=-2, axis2=-1))
    partial = -precision / (sd[..., :, None] * sd[..., None, :])
    at = np.arange(corr.shape[-1])
    partial[..., at, at] = 1.0
    return partial


def partial_vectors(loadings: FloatArray, unique_sd: FloatArray) -> FloatArray:
    """Return vectors (..., T, K) whose inner products are the partial correlations of a factor model.

    With Omega = Lambda Lambda' + D and M = I + Lambda' D^-1 Lambda = C C',

        Omega^-1 = D^-1 - W W',      W = D^-1 Lambda C^-T
        -P_ts / sqrt(P_tt P_ss) = w_t'w_s / sqrt(P_tt P_ss),      P_tt = 1 / d_t - |w_t|^2
    """
    over_d = np.maximum(unique_sd, _LEAST_UNIQUE) ** -2
    weighted = loadings * over_d[..., None]
    M = np.eye(loadings.shape[-1]) + np.swapaxes(loadings, -1, -2) @ weighted
    W = np.swapaxes(np.linalg.solve(np.linalg.cholesky(M), np.swapaxes(weighted, -1, -2)), -1, -2)
    return W / np.sqrt(over_d - (W**2).sum(axis=-1))[..., None]


def _factor_model(
    draws: xr.Dataset,
    kind: Kind,
    at: IntArray | None,
    budget: Budget,
    task: str,
    factor: str,
    name: Callable[[str], str] = str,
) -> PairDraws | None:
    """Return what stored loadings, or else a stored matrix, say; None if neither is stored."""
    loadings, unique, corr = (name(key) for key in ("task_loadings", "task_unique_sd", "task_corr"))
    if loadings in draws and unique in draws:
        draws = draws[[loadings, unique]]
        draws = _thinned(draws, draws.sizes[task] * draws.sizes[factor], budget)
        return _of_loadings(
            draws[loadings].transpose("chain", "draw", task, factor).to_numpy(),
            draws[unique].transpose("chain", "draw", task).to_numpy(),
            kind,
            at,
        )
    if corr not in draws:
        return None
    # Copies are made of all of a matrix for partial correlations, and of what is chosen otherwise.
    size = draws.sizes[task] if at is None or kind == "partial" else len(at)
    draws = _thinned(draws[[corr]], size**2, budget)
    matrices = draws[corr].transpose("chain", "draw", task, f"{task}_bis").to_numpy()
    return _of_matrices(matrices, kind, at)


def _structural(
    idata: xr.DataTree, draws: xr.Dataset, kind: Kind, at: IntArray | None, budget: Budget
) -> PairDraws:
    structure = spec_of(idata).task_covariance
    if not structure.relates_tasks:
        name = type(structure).__name__
        hint = "Use a structure that relates tasks (LowRank, for example), or kind='coefficients'"
        raise SpecError(Finding("kind", f"{name} has no task correlation to learn", hint))
    found = _factor_model(draws, kind, at, budget, "task", "factor")
    assert found is not None
    return found


def _of_levels(
    idata: xr.DataTree, draws: xr.Dataset, kind: Kind, grouping: str, at: IntArray | None, budget: Budget
) -> PairDraws:
    """Return the correlations of the levels of a grouping."""

    def name(key: str) -> str:
        return named(grouping, key)

    if kind == "functions":
        hint = "Choose 'structural', 'partial' or 'coefficients'"
        raise SpecError(Finding("kind", f"{kind!r} is not for groupings", hint))
    if kind == "coefficients":
        inside, feature = inside_of(idata, grouping), name("feature")
        effects = _thinned(draws[[name("beta"), name("feature_sd")]], draws[name("beta")][0, 0].size, budget)
        scaled = effects[name("beta")] / effects[name("feature_sd")]
        values = scaled.sel({feature: inside}).transpose("chain", "draw", grouping, feature).to_numpy()
        return cosines(values, at)
    found = _factor_model(draws, kind, at, budget, grouping, name("factor"), name)
    if found is None:
        structure = spec_of(idata).levels_of(grouping)
        words = f"{type(structure).__name__} has no correlation of levels to learn"
        hint = "Use a structure that relates levels (LowRank, for example)"
        if structure.relates_tasks:
            words = f"the correlations of {draws.sizes[grouping]} levels were too many to store"
            hint = "Fit with fewer draws"
        raise SpecError(Finding("kind", words, hint))
    return found


def _check_varying(idata: xr.DataTree, draws: xr.Dataset) -> None:
    inside = inside_of(idata)
    if len(inside) < 2 or "feature_sd" not in draws:
        hint = "Look at the coefficients themselves"
        found = f"found {len(inside)}" if "feature_sd" in draws else "but nothing varies in this model"
        raise SpecError(
            Finding("kind='coefficients'", f"needs two features that vary at least, {found}", hint)
        )


def cosines(values: FloatArray, at: IntArray | None) -> PairDraws:
    """Return correlations around the known mean of zero: sum_j d_tj d_sj / (|d_t| |d_s|)."""
    if values.shape[-1] < 2:
        found = f"needs two features that vary at least, found {values.shape[-1]}"
        raise SpecError(Finding("kind='coefficients'", found, "Look at the effects themselves"))
    values = values if at is None else values[:, :, at]
    return _of_vectors(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), _SMALL), None)


def reference_rows(idata: xr.DataTree) -> IntArray:
    """Return the rows over which predictions of tasks are compared."""
    return evenly_spaced(idata["constant_data"].sizes["row"], REFERENCE_ROWS)


def _functions(idata: xr.DataTree, draws: xr.Dataset, at: IntArray | None, budget: Budget) -> PairDraws:
    """Return correlations of predictions f_t = X b_t over rows of X.

    With the centred rows X_c = Q R, f_t'f_s = (R b_t)'(R b_s) around the means: the rows are not needed.
    """
    fixed, rows = rows_by_task(idata, "constant_data"), reference_rows(idata)
    columns = [fixed["X"].transpose("row", "feature").to_numpy()[rows]]
    names = ["beta"]
    if "X_shared" in fixed:
        columns.append(fixed["X_shared"].transpose("row", "shared_feature").to_numpy()[rows])
        names.append("beta_shared")
    X = np.hstack(columns)
    X = X - X.mean(axis=0)
    if np.linalg.matrix_rank(X) < 2:
        found = "needs two features at least: with one slope it would be the sign of a product of slopes"
        raise SpecError(Finding("kind='functions'", found, "Look at the coefficients themselves"))
    if not X[:, : columns[0].shape[1]].any():
        found = "needs a slope of each task: with an intercept of each only, predictions differ by a constant"
        raise SpecError(Finding("kind='functions'", found, "Look at the coefficients themselves"))
    draws = draws[names]
    draws = draws if at is None else draws.isel(task=at)
    draws = _thinned(draws, draws.sizes["task"] * X.shape[1], budget)
    R, P = np.linalg.qr(X, mode="r"), columns[0].shape[1]
    values = draws["beta"].transpose("chain", "draw", "task", "feature").to_numpy() @ R[:, :P].T
    if len(names) == 2:
        shared = draws["beta_shared"].transpose("chain", "draw", "shared_feature").to_numpy()
        values = values + (shared @ R[:, P:].T)[:, :, None]
    return _of_vectors(values / np.maximum(np.linalg.norm(values, axis=-1, keepdims=True), _SMALL), None)
