"""What can be known before sampling: outcomes without noise, and what no rows can tell apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayes_mtl._typing import FloatArray
from bayes_mtl.data import TaskData, sum_by_task
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.errors import Finding
from bayes_mtl.model.priors import default_priors
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import CompletePooling, NoPooling

_SUSPECT = 1e-6  # of the squares: more than rounding leaves of none in cross-products
_EXACT = 1e-10  # of the standard deviation within tasks
_ROUNDING = 64 * np.finfo(float).eps  # of the largest number
_FAR_BELOW = 25.0  # log units below its prior that a log-normal scale would go
_FEW = 10  # features, of which each might be the only one that varies
_NAMED = 10


def noise_free(spec: ModelSpec, data: TaskData) -> list[Finding]:
    """Return the outcome if it is an exact linear combination of the columns, and `sigma` is learned.

    With residuals of zero in d directions the likelihood grows like sigma^-d, without limit: no prior that is
    positive near zero outweighs that, so there is no posterior, and draws of it mean nothing.
    """
    if not spec.family.has_noise or data.noise is not None:
        return []
    priors, _ = default_priors(spec, data)
    found = _tasks_without_noise(data, priors["sigma_spread"]) if _by_task(spec) else []
    if found:
        return found
    free = _directions_without_noise(spec, data, priors["feature_sd"])
    if free and not _outweighs(priors["sigma"], free):
        hint = "Name a column of known noise (noise=)"
        if not _by_task(spec):
            hint += f", or fix sigma, for example priors={{'sigma': {0.01 * data.y.std():.1g}}}"
        problem = (
            "is an exact linear combination of the features in every task, so nothing is left for noise: the "
            "likelihood grows without limit as sigma goes to 0, and there is no posterior"
        )
        return [Finding(f"outcome {data.schema.outcome!r}", problem, hint)]
    return []


def hard_to_tell_apart(spec: ModelSpec, data: TaskData) -> list[str]:
    """Return sentences on what the rows cannot say, whatever their values."""
    said = []
    apart = not isinstance(spec.task_covariance, CompletePooling | NoPooling)
    if data.n_tasks == 1 and apart and data.features:
        said.append(
            "There is one task only, so nothing can be learned of how tasks differ: beta_mean and feature_sd "
            "are about as uncertain as their priors. CompletePooling() describes one task on its own."
        )
    elif noise_is_confounded(spec, data):
        said.append(
            "Every task has one row only, so priors alone tell its noise from its own coefficients: sigma "
            "and feature_sd trade off. Name a column of known noise (noise=), fix sigma, or use "
            "CompletePooling()."
        )
    return said


def noise_is_confounded(spec: ModelSpec, data: TaskData) -> bool:
    """Whether tasks have one row each, which may deviate by noise or by coefficients of its own."""
    learned = isinstance(default_priors(spec, data)[0]["sigma"], Prior)
    alone = not isinstance(spec.task_covariance, CompletePooling) and INTERCEPT in data.features
    return (
        spec.family.has_noise
        and data.noise is None
        and learned
        and alone
        and data.n_tasks > 1
        and data.n_rows == data.n_tasks
    )


def _by_task(spec: ModelSpec) -> bool:
    return getattr(spec.family, "task_noise", False)


def _tasks_without_noise(data: TaskData, spread: Prior | float) -> list[Finding]:
    """Return the tasks whose own noise has no posterior.

    sigma_t = sigma_mean exp(spread k_t) with k_t ~ N(0, 1): the mean of sigma_t^-d_t grows like
    exp(d_t^2 spread^2 / 2), which a half-normal prior of `spread` outweighs while its variance times the sum
    of d_t^2 is below 1; priors with longer tails never do.
    """
    if not isinstance(spread, Prior):
        return []
    free = {}
    for t in _suspects(data):
        if not data.rows_per_task[t]:
            continue  # a task whose rows are left out
        at = slice(data.starts[t], data.starts[t + 1])
        y = data.y[at] - data.offset[at]
        left, rank = _orthogonal(data.X[at], data.features, np.column_stack([y, data.X_shared[at]]))
        spare = len(y) - rank - _rank(left[:, 1:])
        if spare > 0 and _is_zero(left[:, 0], y, float(y.std())):
            free[data.tasks[t]] = spare
    normal = spread.distribution == "HalfNormal"
    limit = 1.0 / dict(spread.params)["sigma"] ** 2 if normal else 0.0
    if not free or sum(d**2 for d in free.values()) < limit:
        return []
    labels = ", ".join(map(repr, list(free)[:_NAMED]))
    more = f" and {len(free) - _NAMED} more" if len(free) > _NAMED else ""
    problem = (
        f"has no noise in {'task' if len(free) == 1 else 'tasks'} {labels}{more} (constant there, or an "
        "exact linear combination of the features), so a noise scale of its own has no posterior: the "
        "likelihood grows without limit as it goes to 0"
    )
    hint = "Leave them out, use one noise scale (task_noise=False), or name a column of known noise (noise=)"
    return [Finding(f"outcome {data.schema.outcome!r}", problem, hint)]


def _suspects(data: TaskData) -> Sequence[int]:
    """Return the tasks whose rows their own columns explain, as far as cross-products can tell."""
    y = data.y - data.offset
    square = sum_by_task(data.precision * (y - y.mean()) ** 2, data.starts)
    return np.flatnonzero(data.pseudo_rows.rest <= _SUSPECT * np.maximum(square, square.mean())).tolist()


def _may_be_exact(data: TaskData) -> bool:
    """Whether all columns together explain the outcome, as far as cross-products can tell: that is quick."""
    if not data.groupings:
        return len(_suspects(data)) == data.n_tasks
    y = data.y - data.offset
    square = (data.precision * (y - y.mean()) ** 2).sum()
    return bool(data.level_rows(by_task=False).rest.sum() <= _SUSPECT * square)


def _outweighs(prior: Prior | float, directions: int) -> bool:
    """Whether a prior of `sigma` falls faster towards 0 than sigma^-directions grows."""
    if not isinstance(prior, Prior):
        return True
    params = dict(prior.params)
    return {
        "InverseGamma": True,
        "Uniform": params.get("lower", 0.0) > 0.0,
        "Gamma": params.get("alpha", 0.0) > directions,
        "Weibull": params.get("alpha", 0.0) > directions,
        "LogNormal": directions * params.get("sigma", 1.0) ** 2 < _FAR_BELOW,
    }.get(prior.distribution, False)


def _directions_without_noise(spec: ModelSpec, data: TaskData, feature_sd: Sequence[Prior | float]) -> int:
    """Return how fast the density grows where all noise vanishes, perhaps together with deviations of tasks.

    As sigma and s scales of deviations go to zero together, the density grows like their size to the power
    of -d, with d the directions in which residuals from what is left are zero, and their volume is the s-th
    power of it.
    """
    if not _may_be_exact(data):
        return 0
    y, everything = data.y - data.offset, list(range(data.n_features))
    varying = [] if isinstance(spec.task_covariance, CompletePooling) else everything
    candidates = spec.candidates(data)
    learned = [p for p in varying if isinstance(feature_sd[p], Prior) or data.features[p] in candidates]
    within, _ = _by_task_orthogonal(data, [], y[:, None], centred=True)
    spread = float(within.std()) or float(y.std())
    common = [data.X_shared, data.levels.dense()] if data.groupings else [data.X_shared]
    alone = learned if len(learned) <= _FEW else [p for p in learned if data.features[p] == INTERCEPT]
    vanishing = [learned, *([p for p in learned if p != kept] for kept in alone)] if learned else []
    for gone in ([], *vanishing):
        shared = [*common, *_means(data, gone if varying else everything)]
        own = [p for p in varying if p not in gone]
        left, rank = _by_task_orthogonal(data, own, np.column_stack([y, *shared]))
        rest, rank_of_shared = _orthogonal(left[:, 1:], (), left[:, :1])
        spare = data.n_rows - rank - rank_of_shared - (len(gone) + 1 if gone else 0)
        if spare > 0 and _is_zero(rest[:, 0], y, spread):
            return spare
    return 0


def _means(data: TaskData, features: Sequence[int]) -> list[FloatArray]:
    """Return the columns of population means, and of effects of task features on them."""
    X = data.X[:, features]
    of_tasks = data.task_features[data.task_index]
    return [X, *(X * z[:, None] for z in of_tasks.T)]


def _by_task_orthogonal(
    data: TaskData, own: Sequence[int], columns: FloatArray, *, centred: bool = False
) -> tuple[FloatArray, int]:
    """Return what is left of columns beside each task's own ones, and how many directions these take."""
    names = [INTERCEPT] if centred else [data.features[p] for p in own]
    left, total = np.array(columns), 0
    if not names:
        return left, 0
    for begin, end in zip(data.starts[:-1], data.starts[1:], strict=True):
        if begin == end:
            continue  # a task whose rows are left out
        X = np.ones((end - begin, 1)) if centred else data.X[begin:end, own]
        left[begin:end], rank = _orthogonal(X, names, left[begin:end])
        total += rank
    return left, total


def _orthogonal(X: FloatArray, names: Sequence[str], columns: FloatArray) -> tuple[FloatArray, int]:
    """Return what is left of columns beside X, and the rank of X; an intercept is taken out first."""
    rank = 0
    if INTERCEPT in names:
        X = np.delete(X, list(names).index(INTERCEPT), axis=1)
        X, columns, rank = X - X.mean(axis=0), columns - columns.mean(axis=0), 1
    U, found = _basis(X)
    for _ in range(2):  # once more, for what rounding left
        columns = columns - U @ (U.T @ columns)
    return columns, rank + found


def _basis(X: FloatArray) -> tuple[FloatArray, int]:
    scale = np.sqrt((X**2).sum(axis=0))
    U, length, _ = np.linalg.svd(X / np.where(scale > 0, scale, 1.0), full_matrices=False)
    rank = int((length > max(X.shape, default=0) * _ROUNDING * length.max(initial=0.0)).sum())
    return U[:, :rank], rank


def _rank(X: FloatArray) -> int:
    return _basis(X)[1] if X.shape[1] else 0


def _is_zero(left: FloatArray, y: FloatArray, spread: float) -> bool:
    return bool(np.sqrt(np.mean(left**2)) <= _EXACT * spread + _ROUNDING * np.abs(y).max())
