"""How far outcomes and features spread, for the default priors: by precision, whatever one odd row says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.data.dependence import is_constant

_CLIPPED = 0.1  # share of the largest deviations that count no more than the next one, and at least
_CLIPPED_AT_LEAST = 2  # rows: of two rows of a task both deviate from their median if one of them is odd
_LEAST_FREEDOM = 2.0  # rows of full weight beyond one per level, to learn a spread within levels from
_SWEEPS = 10
_ROUNDING = 1e-10  # relative: what is closer is equal


def relative_weights(precision: FloatArray) -> FloatArray:
    """Return weights in proportion to the precision, but 1 for the most precise quarter (three at least).

    So neither rows that are hardly known nor a single one that is known exactly says how far all spread.
    """
    n = len(precision)
    full = min(n, max(3, -(-n // 4)))
    limit = np.partition(precision, n - full)[n - full]
    return np.minimum(precision / limit, 1.0)


def weighted_median(
    values: FloatArray, weights: FloatArray, group: IntArray | None = None, n_groups: int = 1
) -> FloatArray:
    """Return the weighted median of each group, in the middle where half the weight is on either side."""
    group = np.zeros(len(values), dtype=np.int64) if group is None else group
    order = np.lexsort((values, group))
    total = np.bincount(group, weights, n_groups)
    before = np.concatenate([[0.0], np.cumsum(total)])[:-1]
    reached = np.cumsum(weights[order]) - before[group[order]]
    share = reached / total[group[order]]
    last = np.searchsorted(group[order], np.arange(n_groups), side="right") - 1
    out = np.zeros(n_groups)
    for edge in (0.5 - _ROUNDING, 0.5 + _ROUNDING):
        below = np.bincount(group[order], share < edge, n_groups).astype(np.int64)
        first = np.searchsorted(group[order], np.arange(n_groups))
        out += values[order][np.minimum(first + below, last)] / 2
    return out


def _median(values: FloatArray, weights: FloatArray) -> float:
    """Return the weighted median of one group: quickly, where weights are equal."""
    equal = (weights == weights[0]).all()
    return float(np.median(values) if equal else weighted_median(values, weights)[0])


def feature_spread(X: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Return how far each column spreads: its standard deviation, or more where few rows differ.

    Where more than half of the rows have one value, half the root mean square of what the others differ by
    counts if it is larger: of a 0/1 column 1/2, however rare the ones. Of a column that never changes,
    its size (1 where it is zero).
    """
    weights = np.ones(len(X)) if weights is None else weights
    share = weights / weights.sum()
    mean = share @ X
    out = np.sqrt(share @ (X - mean) ** 2)
    for j, column in enumerate(X.T):
        # A value that more than half of the weight is on is the median.
        away = column - _median(column, weights)
        moved = away != 0.0
        if 0.0 < share[moved].sum() < 0.5 - _ROUNDING:
            out[j] = max(out[j], 0.5 * np.sqrt(share[moved] @ away[moved] ** 2 / share[moved].sum()))
        if is_constant(column):
            out[j] = np.abs(column[0]) or 1.0
    return out


def between_spread(levels: FloatArray, precision: FloatArray) -> tuple[float, float]:
    """Return the middle of levels, and how far they spread around it, by their precision."""
    known = precision > 0.0  # a task that lost its rows has none
    levels, weights = levels[known], relative_weights(precision[known])
    middle = float(weighted_median(levels, weights)[0])
    freedom = weights.sum() - (weights**2).sum() / weights.sum()
    return middle, float(np.sqrt(weights @ (levels - middle) ** 2 / freedom)) if freedom > 1e-9 else 0.0


@dataclass(frozen=True)
class OutcomeSpread:
    """Where an outcome is, and how far it spreads.

    Attributes
    ----------
    location : float
        The middle of the levels of tasks.
    within : float
        Around the levels that intercepts take up. The largest tenth of deviations is clipped.
    between : float
        Of the levels of tasks.
    by_grouping : tuple of float
        Of the levels of each grouping.
    noise : float
        Root mean square around the levels of tasks, of a row of weight 1, with all rows as they are.
    """

    location: float
    within: float
    between: float
    by_grouping: tuple[float, ...]
    noise: float


def outcome_spread(
    y: FloatArray,
    precision: FloatArray,
    task_index: IntArray | None,
    groupings: Sequence[IntArray] = (),
) -> OutcomeSpread:
    """Measure how far outcomes spread around the levels of tasks and of groupings.

    Parameters
    ----------
    y : (n_rows,)
        Outcomes without their offset.
    precision : (n_rows,)
        1 / variance of each row, relative or not.
    task_index : (n_rows,), optional
        Task of each row, if tasks have intercepts of their own.
    groupings : sequence of (n_rows,)
        Level of each row, of every grouping whose levels have intercepts.
    """
    weights = relative_weights(precision)
    common = np.zeros(len(y), dtype=np.int64)
    index = common if task_index is None else task_index
    freedom, no_groupings = _freedom(weights, index), (0.0,) * len(groupings)
    if freedom < _LEAST_FREEDOM - _ROUNDING:  # hardly more rows than tasks: their levels are all there is
        index, groupings = common, ()
        freedom = _freedom(weights, index)
    n_levels = int(index.max()) + 1
    effects = _level_effects(y, weights, index, groupings)
    of_levels = np.zeros(len(y))
    for effect, g in zip(effects, groupings, strict=True):
        of_levels += effect[g]
    level = weighted_median(y - of_levels, weights, index, n_levels)
    residual = y - of_levels - level[index]
    residual[np.abs(residual) <= _ROUNDING * np.abs(y).max()] = 0.0
    rows = max(len(y) - n_levels, 1)
    left = max(1.0 - sum(len(effect) - 1 for effect in effects) / rows, 0.1)  # beside effects of groupings
    within = _clipped_spread(residual, weights, freedom * left)
    noise = float(np.sqrt(precision @ residual**2 / (rows * left)))
    middle, between = between_spread(level, np.bincount(index, precision, n_levels))
    by_grouping = []
    for effect, g in zip(effects, groupings, strict=True):
        own = residual + effect[g] + (level - middle)[index] * _nested(g, index)
        own = weighted_median(own, weights, g, len(effect))
        by_grouping.append(between_spread(own, np.bincount(g, precision, len(effect)))[1])
    return OutcomeSpread(middle, within, between, tuple(by_grouping) or no_groupings, noise)


def _freedom(weights: FloatArray, index: IntArray) -> float:
    """Return sum_t (W_t - sum_i w_i^2 / W_t): E sum_i w_i (y_i - mean_t)^2 for rows of variance 1."""
    total, square = np.bincount(index, weights), np.bincount(index, weights**2)
    return float((total - square / np.where(total > 0, total, 1.0)).sum())


def _clipped_spread(residual: FloatArray, weights: FloatArray, freedom: float) -> float:
    """Return the root mean square of residuals; the largest of those that are not zero are clipped."""
    size = np.abs(residual)
    order = np.argsort(size)
    order = order[size[order] > 0.0]
    if not len(order) or freedom <= 0.0:
        return 0.0
    above = weights[order].sum() - np.cumsum(weights[order])
    at = int(np.argmax(above <= (_CLIPPED + _ROUNDING) * weights[order].sum()))
    at = max(min(at, len(order) - 1 - _CLIPPED_AT_LEAST), 0)
    return float(np.sqrt(weights @ np.minimum(size, size[order[at]]) ** 2 / freedom))


def _level_effects(
    y: FloatArray, weights: FloatArray, index: IntArray, groupings: Sequence[IntArray]
) -> list[FloatArray]:
    """Return effects of the levels of groupings beside those of tasks, by sweeps of medians.

    They start from least squares: what is then left does not depend on the effects that y contains, so
    neither does what the medians make of it.
    """
    if not groupings:
        return []
    sizes = [int(g.max()) + 1 for g in groupings]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    columns = [start + g for start, g in zip(starts[:-1], groupings, strict=True)]
    size, n_levels = int(starts[-1]), int(index.max()) + 1
    by_task, gram, moment = np.zeros((n_levels, size)), np.zeros((size, size)), np.zeros(size)
    total = np.maximum(np.bincount(index, weights, n_levels), 1e-300)  # 0 for a task that lost its rows
    centred = y - (np.bincount(index, weights * y, n_levels) / total)[index]
    for a in columns:
        np.add.at(by_task, (index, a), weights)
        moment += np.bincount(a, weights * centred, size)
        for b in columns:
            np.add.at(gram, (a, b), weights)
    gram -= by_task.T @ (by_task / total[:, None])
    effects = np.split(np.linalg.lstsq(gram, moment, rcond=1e-10)[0], starts[1:-1])
    residual = y - sum(e[g] for e, g in zip(effects, groupings, strict=True))
    for _ in range(_SWEEPS):
        residual = residual - weighted_median(residual, weights, index, n_levels)[index]
        for i, g in enumerate(groupings):
            step = weighted_median(residual, weights, g, sizes[i])
            effects[i] = effects[i] + step
            residual = residual - step[g]
    return [e - e.mean() for e in effects]


def _nested(grouping: IntArray, index: IntArray) -> float:
    """Return 1 if every task is in one level, so that tasks take up what these levels differ by."""
    first = np.zeros(index.max() + 1, dtype=np.int64)
    first[index] = grouping
    return float((first[index] == grouping).all())
