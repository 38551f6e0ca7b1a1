"""How well the rest predicts each row, and how sure the draws are of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData, sum_by_task
from bayes_mtl.inference.attributes import data_of, order_by_task, spec_of
from bayes_mtl.inference.hyperdraws import evenly_spaced
from bayes_mtl.inference.leave_out import Stored, law_of_rows
from bayes_mtl.inference.leave_out_mixtures import StoredMixture
from bayes_mtl.summaries.refit import exact_rows, log_likelihood_of

# Above, importance weights rest on too few draws (Vehtari et al. 2024, JMLR 25).
MAX_PARETO_K = 0.7
_MAX_ENTRIES = 2**24  # draws x rows
_BLOCK = 2**21  # of these held at a time
_SMALL_BLOCK = 2**19  # where it costs nothing
_FEW_DRAWS = 100  # are enough to reweight hyperparameters, which a row of so many hardly moves
_MANY_DRAWS = 4000  # where a row moves them: the error of the draws is to be small beside that of the rows
BATCHES = 20  # of consecutive draws, whose spread says how well their mean is known
_ALIKE = 1.0  # log weights that differ by less have no tail to smooth


RowLaw = Stored | StoredMixture


@dataclass(frozen=True)
class RowScores:
    """Scores of rows that were left out, one by one.

    A row that stands for w equal rows (a binary outcome with a weight) is scored as if it were written out:
    one of the w is left out and predicted by all others, and the row counts w times. Of a row with w < 1,
    all there is of it is left out.

    Attributes
    ----------
    density : (N,)
        log p(y_i | all other rows).
    count : (N,)
        w; 1 for outcomes whose weights are precisions.
    pareto_k : (N,)
        Of the weights of draws; 0 where the row was left out exactly.
    error : (20, T)
        By how much each batch of draws moves the sum over the rows of each task.
    unsure : mapping of int to (20,)
        What the rows whose weights fail add to that: nothing, once they are left out exactly.
    """

    density: FloatArray
    count: FloatArray
    pareto_k: FloatArray
    error: FloatArray
    unsure: Mapping[int, FloatArray] = field(default_factory=dict)

    @property
    def elpd(self) -> FloatArray:
        """What each row adds to the score, (N,)."""
        return self.count * self.density

    @property
    def monte_carlo_variance(self) -> FloatArray:
        """Variance of the sums of tasks over repetitions of the sampling, (T,)."""
        return batch_variance(self.error)


def batch_variance(error: FloatArray) -> FloatArray:
    """Return the variance of a sum of errors of batches, which add up to zero (first axis)."""
    n = len(error)
    return (error**2).sum(axis=0) * n / (n - 1) if n > 1 else np.zeros(error.shape[1:])


def by_batch(pull: FloatArray) -> FloatArray:
    """Return what each batch of consecutive draws (first axis) adds to an error."""
    return np.stack([batch.sum(axis=0) for batch in np.array_split(pull, BATCHES)])


def row_scores(idata: xr.DataTree) -> RowScores:
    """Score every row of a fit given all others.

    In closed form given hyperparameters where coefficients are Gaussian, of which only the draws of
    hyperparameters are reweighted; else by reweighting draws of the coefficients.
    """
    spec, data = spec_of(idata), data_of(idata)
    if spec.family.gaussian_coefficients and (law := law_of_rows(idata, enough_draws(data))) is not None:
        return score_rows(law, data)
    return score_draws(idata, data)


def score_rows(law: RowLaw, data: TaskData, *, also_out: FloatArray | None = None) -> RowScores:
    """Score rows in closed form given hyperparameters.

    Parameters
    ----------
    also_out : (D, T), optional
        Log density of what is left out along with each row of a task.
    """
    return _score(row_densities(law, data), data, np.ones(data.n_rows), also_out)


def score_draws(idata: xr.DataTree, data: TaskData, log_ratio: FloatArray | None = None) -> RowScores:
    """Score rows by reweighting draws of the coefficients.

    Parameters
    ----------
    log_ratio : (D, T), optional
        Of the prior that is meant for the coefficients of each task to the one that they were drawn with.
    """
    count = spec_of(idata).family.copies(data.weights)
    also_out = None if log_ratio is None else -log_ratio
    return _score(_densities_by_draws(idata, data, count), data, count, also_out)


def _score(
    blocks: Iterable[tuple[slice, FloatArray]],
    data: TaskData,
    count: FloatArray,
    also_out: FloatArray | None,
) -> RowScores:
    density, k = np.empty((2, data.n_rows))
    error, unsure = np.zeros((BATCHES, data.n_tasks)), {}
    whole = also_out is None and (count >= 1.0).all()
    for at, by_draw in blocks:
        out = by_draw
        if not whole:
            out = np.minimum(count[at], 1.0) * by_draw
            if also_out is not None:
                out += also_out[:, data.task_index[at]]
        density[at], k[at], pull = _left_out(by_draw, out)
        task = data.task_index[at]
        moved = by_batch(pull) * count[at]
        for b, batch in enumerate(moved):
            error[b] += np.bincount(task, batch, minlength=data.n_tasks)
        for i in np.flatnonzero(k[at] > MAX_PARETO_K):
            unsure[at.start + int(i)] = moved[:, i]
    return RowScores(density, count, k, error, unsure)


def _left_out(by_draw: FloatArray, out: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Predict rows by draws that are weighed by 1 / density of what is left out, both logs (D, n).

    Returns
    -------
    density, pareto_k : (n,)
    pull : (D, n)
        Of sum_d W_d p_d / sum_d W_d, what draw d adds to the error of its logarithm.
    """
    least, k = out.min(axis=0), np.zeros(out.shape[1])
    density, pull = np.empty_like(least), np.subtract(least, out)
    np.exp(pull, out=pull)
    total = pull.sum(axis=0)
    if out is by_draw:  # what is left out is what is predicted, so that every W_d p_d is the same
        density[:] = np.log(len(out)) + least - np.log(total)
        pull /= -total
        pull += 1.0 / len(out)
        rest = np.flatnonzero(out.max(axis=0) - least > _ALIKE)
    else:
        rest = np.arange(out.shape[1])
    if len(rest):
        some = by_draw[:, rest]
        weight, k[rest] = smoothed_weights(out[:, rest])
        density[rest] = logsumexp(weight + some, axis=0)
        pull[:, rest] = np.exp(weight + some - density[rest]) - np.exp(weight)
    return density, k, pull


def row_elpd(idata: xr.DataTree) -> tuple[FloatArray, FloatArray]:
    """Return what each row adds to the score if it is left out, and the Pareto k of weights, both (N,).

    Rows are in the order of `data_of(idata)`.
    """
    scores = row_scores(idata)
    return scores.elpd, scores.pareto_k


def with_refits(
    idata: xr.DataTree, scores: RowScores, max_refits: int, log_ratio: Any = None, **sampler: Any
) -> tuple[RowScores, int]:
    """Replace scores by those of refits where weights fail; return how many refits there were."""
    density, k, used = exact_rows(
        idata,
        scores.density,
        scores.pareto_k,
        MAX_PARETO_K,
        max_refits,
        count=scores.count,
        log_ratio=log_ratio,
        **sampler,
    )
    error, exact = scores.error.copy(), [i for i in scores.unsure if k[i] == 0.0]
    for i in exact:
        error[:, data_of(idata).task_index[i]] -= scores.unsure[i]
    unsure = {i: moved for i, moved in scores.unsure.items() if k[i] > 0.0}
    return replace(scores, density=density, pareto_k=k, error=error, unsure=unsure), used


def enough_draws(data: TaskData) -> int:
    """Return how many draws: a single row hardly moves the hyperparameters, so few will do for many rows."""
    return int(np.clip(_MAX_ENTRIES // max(data.n_rows, 1), _FEW_DRAWS, _MANY_DRAWS))


def row_densities(law: RowLaw, data: TaskData) -> Iterator[tuple[slice, FloatArray]]:
    """Yield log p(y_i | all other rows, hyperparameters) of each draw, (D, block), block by block."""
    n_draws = len(law.hyper)
    chunks: Iterator[tuple[slice, Any]] = iter(law.chunks())
    at, first = next(chunks)
    if at.stop == n_draws:  # one law serves all blocks
        for rows in _blocks(data.n_rows, n_draws, _SMALL_BLOCK):
            yield rows, first.row_log_density(data, rows)
        return
    del chunks, first
    for rows in _blocks(data.n_rows, n_draws, _BLOCK):
        yield rows, np.concatenate([piece.row_log_density(data, rows) for _, piece in law.chunks()])


def _densities_by_draws(
    idata: xr.DataTree, data: TaskData, count: FloatArray
) -> Iterator[tuple[slice, FloatArray]]:
    """Yield log p(y_i | coefficients) of each draw, of one of the rows that a row stands for."""
    known: Any = idata["log_likelihood"]["y"] if "log_likelihood" in idata else None
    posterior = idata["posterior"].to_dataset()
    if known is None:
        limit = max(4 * _MAX_ENTRIES // max(data.n_rows, 1), 4 * _FEW_DRAWS) // posterior.sizes["chain"]
        at = evenly_spaced(posterior.sizes["draw"], max(1, limit))
        thin = xr.DataTree.from_dict({"posterior": posterior.isel(draw=at)})
    sizes = posterior.sizes if known is None else known.sizes
    n_draws = sizes["chain"] * (len(at) if known is None else sizes["draw"])
    position = order_by_task(idata)
    for rows in _blocks(data.n_rows, n_draws, _BLOCK):
        if known is None:
            found = log_likelihood_of(idata, position[rows], thin)
        else:
            found = known.isel(row=position[rows])
        values = found.transpose("chain", "draw", "row").to_numpy()
        yield rows, values.reshape(n_draws, -1) / count[rows]


def _blocks(n_rows: int, n_draws: int, entries: int) -> Iterator[slice]:
    step = max(1, entries // max(n_draws, 1))
    for start in range(0, n_rows, step):
        yield slice(start, min(start + step, n_rows))


def smoothed_weights(log_density: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the weights of draws if a density is left out, as normalised logs (D, K), and Pareto k (K,).

    They are proportional to 1 / density, with the tail of the largest smoothed.
    """
    weight = -log_density - logsumexp(-log_density, axis=0)
    k = np.zeros(log_density.shape[1])
    if len(log_density) >= 25:
        uneven = np.flatnonzero(np.ptp(log_density, axis=0) > _ALIKE)
        if len(uneven):
            from arviz_stats.base import array_stats  # loads slowly

            smoothed, k[uneven] = array_stats.psislw(np.ascontiguousarray(log_density[:, uneven].T), axis=-1)
            weight[:, uneven] = np.asarray(smoothed).T
    return weight, k


def sums_of_differences(
    own: RowScores, other: RowScores, data: TaskData, expected: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the sum of differences of the rows of each task, and its standard error.

    The error is that of a sum of as many rows as there are, and that of the draws of both fits.

    Parameters
    ----------
    expected : (N,), optional
        Variance of the difference of each row over outcomes that might have been; the larger of the two
        variances counts.
    """
    count, difference = own.count, own.density - other.density
    n, total, square = (
        sum_by_task(v, data.starts) for v in (count, count * difference, count * difference**2)
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.where(n > 1, np.maximum(square - total**2 / n, 0.0) / (n - 1) * n, np.nan)
    if expected is not None:
        variance = np.fmax(variance, sum_by_task(count * expected, data.starts))
    return total, np.sqrt(variance + own.monte_carlo_variance + other.monte_carlo_variance)
