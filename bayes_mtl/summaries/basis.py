"""Basis tasks: which tasks use them, what they do, and which tasks use the same ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import inside_of, schema_of, spec_of
from bayes_mtl.inference.deviations import deviations, task_scales
from bayes_mtl.structures import LowRank, StudentT, Tree
from bayes_mtl.summaries._alignment import match_factors, matched, varimax
from bayes_mtl.summaries.contraction import contraction
from bayes_mtl.summaries.correlation import convergence, interval_probability


def basis(idata: xr.DataTree, *, ci_prob: float | None = None) -> xr.Dataset:
    """Summarise the basis tasks (latent coefficient vectors) that tasks are combinations of.

    Parameters
    ----------
    idata : DataTree
        A fit with `SparseBasis`, `LowRank` or `Tree`, or one of these inside `StudentT`.
    ci_prob : float, optional
        Probability of the equal-tailed intervals; default ArviZ's ``stats.ci_prob``.

    Returns
    -------
    Dataset
        Which tasks use the same basis tasks, whatever their order and sign:

        ``overlap`` (task, task_bis)
            E[|S_t|'|S_s| / (|S_t| |S_s|)], with S_t the loadings of task t: 1 if two tasks use the same basis
            tasks in the same proportions (with any sign), 0 if they have none in common; with
            ``overlap_lower``, ``overlap_upper``, and ``overlap_contraction`` = 1 - var(posterior) /
            var(prior). It says nothing of a task that uses hardly any basis task: see ``shared``.
        ``shared`` (task)
            Share of the variance of a task's deviation that is due to basis tasks, E[|S_t|^2].

        The basis tasks, with one number for the same basis task in all draws, those that explain most first:

        ``loading`` (task, factor)
            What task t has of basis task k, -1 to 1; with ``loading_lower``, ``loading_upper``,
            ``loading_r_hat``.
        ``basis`` (factor, feature)
            What basis task k adds to each coefficient of a task whose loading is one, in the units of the
            coefficients; with ``basis_lower``, ``basis_upper``, ``basis_r_hat``. ``feature_sd`` (feature) is
            how far coefficients vary.
        ``belongs`` (task, factor)
            Probability that this is the largest loading of the task, in size.
        ``share`` (factor)
            Mean over tasks of the squared loadings.

        Attribute ``r_hat`` is the largest R-hat: well above 1.01, chains disagree on the basis tasks, so
        their numbers mean nothing (those of ``overlap`` still may).

    Raises
    ------
    SpecError
        If the fit has no basis tasks.

    Notes
    -----
    In each draw, loadings of `LowRank` are first rotated by varimax; then the order and the signs of the
    basis tasks are matched to a common reference. Matching makes draws look alike, so R-hat is a little
    optimistic: it finds chains with other basis tasks, not doubts within one. The groups of a `Tree` have
    names.

    References
    ----------
    Kumar & Daume (2012), ICML; Poworoznek, Ferrari & Dunson (2021), arXiv 2107.13783.

    Examples
    --------
    >>> mtl.basis(idata)["loading"].to_pandas().round(2)  # doctest: +SKIP
    """
    prob = interval_probability(ci_prob)
    structure = spec_of(idata).task_covariance
    structure = structure.inner if isinstance(structure, StudentT) else structure
    posterior = idata["posterior"].to_dataset()
    if "task_unique_sd" not in posterior:
        name = type(structure).__name__
        hint = "Use SparseBasis, LowRank or Tree; or read task_correlation(idata)"
        raise SpecError(Finding("basis", f"tasks are not part of this fit, whose structure is {name}", hint))
    drawn = _Factors.of(posterior)
    prior = _Factors.of(idata["prior"].to_dataset())
    if rotates := isinstance(structure, LowRank):
        drawn, prior = drawn.rotated(), prior.rotated()
    if named := isinstance(structure, Tree):
        labels = posterior["factor"].to_numpy()
    else:
        drawn, labels = drawn.aligned(), np.arange(1, drawn.loadings.shape[-1] + 1)

    by_draw = (posterior.sizes["chain"], posterior.sizes["draw"])
    loadings = drawn.loadings.reshape(*by_draw, *drawn.loadings.shape[1:])
    values = drawn.coefficients(idata, posterior).reshape(*by_draw, len(labels), -1)
    size = np.abs(drawn.loadings)
    largest = size.argmax(axis=2)[..., None] == np.arange(len(labels))
    found: dict[str, Any] = {
        **_overlap(drawn.loadings, prior.loadings, prob),
        "shared": ("task", (size**2).sum(axis=2).mean(axis=0)),
        **_described("loading", ("task", "factor"), loadings, prob),
        **_described("basis", ("factor", "feature"), values, prob),
        "belongs": (("task", "factor"), largest.mean(axis=0)),
        "share": ("factor", (size**2).mean(axis=(0, 1))),
        "feature_sd": posterior["feature_sd"].sel(feature=inside_of(idata)).mean(("chain", "draw")).variable,
    }
    r_hat = np.concatenate([found[f"{name}_r_hat"][1].ravel() for name in ("loading", "basis")])
    r_hat = r_hat[np.isfinite(r_hat)]  # one chain has none
    tasks = posterior["task"].to_numpy()
    coords = {"task": tasks, "task_bis": tasks, "factor": labels, "feature": inside_of(idata)}
    return xr.Dataset(
        found,
        coords=coords,
        attrs={
            "task": schema_of(idata).task or "outcome",
            "structure": type(structure).__name__,
            "alignment": "groups have names" if named else f"{'varimax, ' * rotates}order and signs matched",
            "r_hat": float(r_hat.max()) if len(r_hat) else np.nan,
            "ci_prob": prob,
        },
    )


@dataclass(frozen=True)
class _Factors:
    """Draws of loadings, chains one after the other.

    Attributes
    ----------
    loadings : (N, T, K)
    unique_sd : (N, T)
    """

    loadings: FloatArray
    unique_sd: FloatArray

    @classmethod
    def of(cls, draws: xr.Dataset) -> Self:
        loadings = draws["task_loadings"].transpose("chain", "draw", "task", "factor").to_numpy()
        unique_sd = draws["task_unique_sd"].transpose("chain", "draw", "task").to_numpy()
        return cls(loadings.reshape(-1, *loadings.shape[2:]), unique_sd.reshape(-1, unique_sd.shape[2]))

    def rotated(self) -> Self:
        return replace(self, loadings=self.loadings @ varimax(self.loadings))

    def aligned(self) -> Self:
        """Return the same factors in all draws, the one that explains most first, with a positive largest."""
        loadings = matched(self.loadings, *match_factors(self.loadings))
        mean = loadings.mean(axis=0)
        largest = np.take_along_axis(mean, np.abs(mean).argmax(axis=0)[None], axis=0)
        loadings = loadings * np.where(largest < 0.0, -1.0, 1.0)
        order = np.argsort(-(loadings**2).mean(axis=(0, 1)), kind="stable")
        return replace(self, loadings=loadings[..., order])

    def coefficients(self, idata: xr.DataTree, posterior: xr.Dataset) -> FloatArray:
        """Draw what a task with a loading of one has from each basis task, (N, K, P).

        Given the coefficients, of which D = (B - mean) diag(sd)^-1 / scale = Lambda F + E with rows of E ~
        N(0, delta_t^2 R), rows of F ~ N(0, R):

            F ~ MN(Q^-1 Lambda' diag(delta)^-2 D, Q^-1, R),      Q = I + Lambda' diag(delta)^-2 Lambda
        """
        inside = inside_of(idata)
        D = deviations(idata, posterior)
        if (scale := task_scales(posterior)) is not None:
            D = D / scale[..., None]
        D = D.reshape(-1, *D.shape[2:])
        weighted = np.swapaxes(self.loadings / self.unique_sd[..., None] ** 2, 1, 2)
        Q = np.eye(self.loadings.shape[2]) + weighted @ self.loadings
        noise = np.random.default_rng(0).standard_normal((*Q.shape[:2], len(inside)))
        if "feature_corr" in posterior:
            block = posterior["feature_corr"].sel(feature=inside, feature_bis=inside)
            R = self._flat(block, "feature", "feature_bis")
            noise = noise @ np.swapaxes(np.linalg.cholesky(R), 1, 2)
        upper = np.swapaxes(np.linalg.cholesky(Q), 1, 2)
        F = np.linalg.solve(Q, weighted @ D) + np.linalg.solve(upper, noise)
        sd = posterior["feature_sd"].sel(feature=inside)
        return F * self._flat(sd, "feature")[:, None, :]

    def _flat(self, draws: xr.DataArray, *dims: str) -> FloatArray:
        values = draws.transpose("chain", "draw", *dims).to_numpy()
        return values.reshape(len(self.loadings), *values.shape[2:])


def _overlap(
    loadings: FloatArray, prior: FloatArray, prob: float
) -> dict[str, tuple[tuple[str, str], FloatArray]]:
    """Return the overlap of every two tasks, a row of pairs at a time."""
    unit, before = _unit(loadings), _unit(prior)
    rows = []
    for t in range(loadings.shape[1]):
        values = np.einsum("nk,nsk->ns", unit[:, t], unit)
        prior_sd = np.einsum("nk,nsk->ns", before[:, t], before).std(axis=0)
        narrower = contraction(values.std(axis=0), prior_sd)
        narrower[t] = np.nan
        rows.append([values.mean(axis=0), *_interval(values, prob), narrower])
    names = ("overlap", "overlap_lower", "overlap_upper", "overlap_contraction")
    return {n: (("task", "task_bis"), m) for n, m in zip(names, np.array(rows).swapaxes(0, 1), strict=True)}


def _unit(loadings: FloatArray) -> FloatArray:
    size = np.abs(loadings)
    return size / np.maximum(np.linalg.norm(size, axis=2, keepdims=True), 1e-300)


def _interval(values: FloatArray, prob: float) -> FloatArray:
    return np.quantile(values, [(1 - prob) / 2, (1 + prob) / 2], axis=0)


def _described(
    name: str, dims: tuple[str, str], values: FloatArray, prob: float
) -> dict[str, tuple[tuple[str, str], FloatArray]]:
    """Return mean, interval and R-hat of values (chain, draw, ...)."""
    flat = values.reshape(-1, *values.shape[2:])
    lower, upper = _interval(flat, prob)
    r_hat = np.full(flat[0].size, np.nan)
    moves = np.ptp(flat, axis=0).ravel() > 0.0  # a Tree's tasks are not in most of its groups
    _, r_hat[moves] = convergence(values.reshape(*values.shape[:2], -1)[..., moves])
    return {
        name: (dims, flat.mean(axis=0)),
        f"{name}_lower": (dims, lower),
        f"{name}_upper": (dims, upper),
        f"{name}_r_hat": (dims, r_hat.reshape(flat.shape[1:])),
    }
