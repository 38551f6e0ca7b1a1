"""The audit: which tasks gain from the others, which are hurt by them, and which hurt them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logit
from scipy.stats import norm

from bayes_mtl._typing import FloatArray
from bayes_mtl.arguments import generator, whole_number
from bayes_mtl.data import TaskData, sum_by_task
from bayes_mtl.data.labels import as_coordinate
from bayes_mtl.families import Bernoulli
from bayes_mtl.inference.attributes import data_of, reads_data_once, schema_of, spec_of
from bayes_mtl.inference.fit import check_sampler
from bayes_mtl.inference.leave_out import is_closed
from bayes_mtl.inference.noise_by_task import (
    REMEDY,
    has_one_noise,
    noise_cost,
    noise_findings,
    noise_ratios,
    stands_out,
)
from bayes_mtl.progress import progress
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import CompletePooling, NoPooling, StudentT, TaskCovariance, TaskMixture
from bayes_mtl.summaries.baselines import alone_fit, alone_scores, alone_spec, pooled_scores, pooled_spec
from bayes_mtl.summaries.leave_out import (
    check_several_tasks,
    law_of_tasks,
    row_scores_without,
    score_of_absent,
    task_scores,
)
from bayes_mtl.summaries.own_noise import may_have_own_noise, surprise_given_noise
from bayes_mtl.summaries.refit import fit_without, quick_fit
from bayes_mtl.summaries.row_scores import (
    MAX_PARETO_K,
    RowScores,
    batch_variance,
    row_scores,
    score_draws,
    sums_of_differences,
    with_refits,
)

__all__ = ["alone_spec", "pooled_spec", "transfer_gain"]

LEAST = 0.5  # nats: a smaller gain or loss of a task matters to nobody
# Of the probability that any task is called hurt by its gain, if none is, and as much again that any is said
# to contradict, if none does: 5 % together.
_LEVEL = 0.025
# A tail probability, averaged over draws, is below alpha with a probability of at most 2 alpha (Meng 1994).
_SURPRISE = _LEVEL / 2


@reads_data_once
def transfer_gain(
    idata: xr.DataTree,
    *,
    single_task: xr.DataTree | None = None,
    pooled: xr.DataTree | None = None,
    max_refits: int = 10,
    random_seed: int | None = 1,
    **sampler: Any,
) -> xr.Dataset:
    """Compare, task by task, learning together with learning alone and with one model for all.

    Three questions are asked of each task. Does it predict its own rows better than alone (`gain`)? Do the
    other tasks contradict it (`surprise`)? And would the others be predicted better without it
    (`gain_of_others`)?

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    single_task, pooled : DataTree, optional
        Fits of the same data to compare with. Default: each task alone, with the law that the hyperprior
        gives to the coefficients of the only task there is, and with noise and shared slopes of its own; and
        one model for all, with `CompletePooling`. Both are integrated by quadrature for Gaussian outcomes,
        and fitted here otherwise. Effects of the levels of groupings are common to tasks in either.
    max_refits : int
        At most this many fits to leave something out exactly, where importance sampling fails (Pareto k
        above 0.7): first for rows, which share these fits, then for tasks that move the hyperparameters too
        far, the most surprising first.
    random_seed : int, optional
        Of the fits made here.
    **sampler
        Options of these fits: `draws`, `tune`, `chains`, ... (default 1000, 1000, 2).

    Returns
    -------
    Dataset
        By task: ``n_rows`` (a binary row of weight w is w rows); ``elpd``, the expected log density of a row
        of the task given all others, summed over its rows; ``gain`` and ``gain_se``, by how much it exceeds
        learning alone, with its standard error; ``gain_over_pooled`` and ``gain_over_pooled_se``;
        ``surprise``, the probability that a task like the others would lie further out (NaN for mixtures);
        ``gain_of_others`` and ``gain_of_others_se``, what the other tasks gain if it is left out (NaN where
        that was not looked at: a task that fits in hurts nobody); ``noise_ratio``, its noise relative to that
        of the task in the middle; ``hurt``, ``hurts_others``; ``verdict`` in words; ``pareto_k``, the largest
        of its rows that were left out by weighting (above 0.7 the numbers of the task are unreliable).
        Attributes ``remedy``, and ``alone``, which says what is a task's own if it learns alone.

    Notes
    -----
    Rows are left out by Pareto-smoothed importance sampling; for Gaussian outcomes only over hyperparameters,
    the rest is exact. Standard errors are those of a sum of as many rows as there are, and of the draws.

    There is no verdict below half a nat. A task is called hurt if ``gain`` is below that and by so many
    standard errors below zero that chance would do it with a probability of 0.025 / number of tasks (10
    tasks: 2.8), or if the others contradict it, unless ``gain`` says otherwise (more than a standard error
    above zero: with few rows a task may be unlike the others and yet be better off than alone). It is not
    called so if the loss is what it costs that one noise scale stands for all; ``verdict`` names that.
    Contradicted is a ``surprise`` below 0.0125 / number of tasks (it is an average over draws, and so up to
    twice as often small as it says), so that with tasks that are all alike the chance of naming any one, on
    either ground, is about 5 %; a task that stands out is first allowed a noise of its own. It hurts others
    if they contradict it, since it makes their population look wider than it is and keeps them from leaning
    on each other, unless `gain_of_others` says otherwise (more than a standard error, or half a nat, below
    zero). For outcomes that are not Gaussian the surprise rests on a normal approximation of what a task's
    rows say.

    References
    ----------
    Vehtari, Gelman & Gabry (2017), Statistics and Computing 27; Marshall & Spiegelhalter (2007), Bayesian
    Analysis 2; Meng (1994), Annals of Statistics 22.

    Examples
    --------
    >>> mtl.transfer_gain(idata)[["gain", "gain_se", "verdict"]].to_dataframe()  # doctest: +SKIP
    """
    spec, data = spec_of(idata), data_of(idata)
    generator(random_seed)
    max_refits = whole_number("max_refits", max_refits)
    check_several_tasks(data, "transfer_gain")
    sampler = {"random_seed": random_seed, **sampler}
    check_sampler(sampler)
    refits = _Refits(max_refits, sampler)
    show = sampler.get("progressbar", True)
    with progress("ways to learn (together, alone, as one)", 3, show=show) as done:
        own = refits.scores(idata)
        done()
        alone, words = _alone(single_task, idata, refits)
        done()
        as_one = _pooled(pooled, idata, refits)
        done()
    task, n_tasks = data.task_index, data.n_tasks
    gain, gain_se = _paired(own, alone, spec, data)
    over_pooled, over_pooled_se = _paired(own, as_one, spec, data)
    one_noise = has_one_noise(spec, data)
    ratio, by_chance = noise_ratios(data) if one_noise else (np.full(n_tasks, np.nan), np.ones(n_tasks))
    noisy = stands_out(ratio, by_chance)
    surprise, others, others_se = np.full((3, n_tasks), np.nan)
    if is_closed(spec):
        scores = task_scores(law_of_tasks(idata), data)
        surprise, unreliable = scores.surprise, scores.pareto_k
        reliable = (unreliable <= MAX_PARETO_K) & spec.family.gaussian_coefficients
        small = 2 * _SURPRISE / n_tasks  # that is, near the limit
        suspect = (surprise < small) | (unreliable > MAX_PARETO_K) | noisy
        if may_have_own_noise(spec, data):
            some = np.flatnonzero(suspect & reliable)
            surprise[some] = surprise_given_noise(idata, data, some, absent=False)
            suspect &= (surprise < small) | ~reliable
        suspects = np.flatnonzero(suspect)
        with progress("tasks that stand out", len(suspects), show=show) as done:
            for t in suspects[np.argsort(surprise[suspects], kind="stable")]:
                _look_closely(idata, data, int(t), own, reliable[t], refits, surprise, others, others_se)
                done()
    contradicted = surprise < _SURPRISE / n_tasks
    z, limit = gain / np.maximum(gain_se, 1e-12), float(norm.ppf(_LEVEL / n_tasks))
    worse = (gain < -LEAST) & (z < limit)
    # What it costs alone that tasks have one noise scale.
    its_share, cost = noise_cost(idata) if one_noise else (np.full(n_tasks, np.nan), np.zeros(n_tasks))
    beyond = (gain + cost < -LEAST) & ((gain + cost) / np.maximum(gain_se, 1e-12) < limit)
    hurt = (worse & beyond) | (contradicted & (z < 1.0))
    hurts = contradicted & (others > np.maximum(-others_se, -LEAST))
    worst = np.zeros(n_tasks)
    np.maximum.at(worst, task, np.max([s.pareto_k for s in (own, alone, as_one)], axis=0))
    better = (gain > LEAST) & (z > 2.0)
    verdict = _verdicts(better, worse, hurt, contradicted, hurts, np.where(noisy, ratio, np.nan), its_share)
    verdict = [
        f"{v} (unreliable: see pareto_k)" if bad else v
        for v, bad in zip(verdict, worst > MAX_PARETO_K, strict=True)
    ]
    remedy = _remedy(list(data.tasks), hurt, hurts, worse & ~hurt, spec.task_covariance)
    if gain.sum() < -LEAST and not (worse & ~hurt).any() and (found := noise_findings(idata)):
        remedy += f" In all, tasks are predicted worse than alone: sigma {found[0].problem}; {REMEDY}."
    n_rows = sum_by_task(own.count, data.starts)
    columns = {
        "n_rows": n_rows.astype(np.int64) if (n_rows == np.rint(n_rows)).all() else n_rows,
        "elpd": sum_by_task(own.elpd, data.starts),
        "gain": gain,
        "gain_se": gain_se,
        "gain_over_pooled": over_pooled,
        "gain_over_pooled_se": over_pooled_se,
        "surprise": surprise,
        "gain_of_others": others,
        "gain_of_others_se": others_se,
        "noise_ratio": ratio,
        "hurt": hurt,
        "hurts_others": hurts,
        "verdict": verdict,
        "pareto_k": worst,
    }
    return xr.Dataset(
        {name: ("task", values) for name, values in columns.items()},
        coords={"task": as_coordinate(data.tasks)},
        attrs={"task": schema_of(idata).task or "outcome", "remedy": remedy, "alone": words},
    )


@dataclass
class _Refits:
    """How many fits may still be made to leave something out, and how."""

    left: int
    sampler: dict[str, Any]

    def scores(self, idata: xr.DataTree) -> RowScores:
        """Score rows left out, exactly where weights fail."""
        return self.exact(idata, row_scores(idata))

    def exact(self, idata: xr.DataTree, scores: RowScores, log_ratio: Any = None) -> RowScores:
        """Replace scores where weights fail by those of refits."""
        scores, used = with_refits(idata, scores, self.left, log_ratio, **self.sampler)
        self.left -= used
        return scores


def _alone(given: xr.DataTree | None, idata: xr.DataTree, refits: _Refits) -> tuple[RowScores, str]:
    """Score rows given the other rows of their task, and say what "alone" means."""
    if given is not None:
        return refits.scores(given), "As in the fit that was given (`single_task`)."
    its_own = "Each task has coefficients and shared slopes of its own, with the priors of the description"
    if (found := alone_scores(idata)) is not None:
        noise = "" if data_of(idata).noise is not None else ", and a noise scale of its own"
        return found, f"{its_own}{noise}: nothing is common to tasks."
    fitted, log_ratio = alone_fit(idata, **refits.sampler)
    found = score_draws(fitted, data_of(fitted), log_ratio(fitted))
    levels = list(schema_of(idata).groupings)
    common = f"effects of the levels of {', '.join(levels)} are common to tasks" if levels else ""
    if spec_of(idata).family.has_noise and data_of(idata).noise is None:
        common += " and so is what the description says of noise"
    return refits.exact(
        fitted, found, log_ratio
    ), f"{its_own}{'; ' + common if common else ': nothing is common to tasks'}."


def _pooled(given: xr.DataTree | None, idata: xr.DataTree, refits: _Refits) -> RowScores:
    """Score rows under one model for all."""
    if given is not None:
        return refits.scores(given)
    spec, data = pooled_spec(spec_of(idata), data_of(idata)), data_of(idata)
    found = pooled_scores(spec, data)
    return (
        refits.scores(quick_fit(data, spec, "one model for all", **refits.sampler))
        if found is None
        else found
    )


def _look_closely(
    idata: xr.DataTree,
    data: TaskData,
    t: int,
    own: RowScores,
    reliable: bool,
    refits: _Refits,
    surprise: FloatArray,
    others: FloatArray,
    others_se: FloatArray,
) -> None:
    """Ask what the others gain without a task that stands out; if weights fail, by a fit without it."""
    rest = data.task_index != t
    if reliable:
        without = row_scores_without(idata, t)
    elif refits.left > 0:
        refits.left -= 1
        fitted = fit_without(idata, t, **refits.sampler)
        without = row_scores(fitted)
        if may_have_own_noise(spec_of(idata), data):
            surprise[t] = surprise_given_noise(fitted, data, np.array([t]), absent=True)[0]
        else:
            surprise[t] = score_of_absent(fitted, data, t)[1]
    else:
        return
    count, change = own.count[rest], without.density - own.density[rest]
    n, total = count.sum(), (count * change).sum()
    variance = np.maximum((count * change**2).sum() - total**2 / n, 0.0) / max(n - 1.0, 1.0) * n
    moved = batch_variance(np.delete(own.error, t, axis=1).sum(axis=1) - without.error.sum(axis=1))
    others[t], others_se[t] = total, np.sqrt(variance + moved)


def _paired(
    own: RowScores, other: RowScores, spec: ModelSpec, data: TaskData
) -> tuple[FloatArray, FloatArray]:
    """Return the sum of differences of each task's rows, and its standard error.

    Rows of one outcome only hardly differ, so that their spread says nothing of how uncertain the sum is. If
    the outcome is binary, with probabilities p and q of a one, the difference of a row would be
    log(p / q) or log((1 - p) / (1 - q)), with variance m (1 - m) (logit p - logit q)^2 at m = (p + q) / 2.
    The larger of the two variances counts.
    """
    expected = None
    if isinstance(spec.family, Bernoulli):
        p, q = (np.where(data.y == 1, np.exp(e), -np.expm1(e)) for e in (own.density, other.density))
        middle = (p + q) / 2
        expected = middle * (1 - middle) * (logit(p) - logit(q)) ** 2
    return sums_of_differences(own, other, data, expected)


def _verdicts(
    better: Any, worse: Any, hurt: Any, contradicted: Any, hurts: Any, ratio: FloatArray, share: FloatArray
) -> list[str]:
    words = []
    for t in range(len(better)):
        noise = "" if np.isnan(ratio[t]) else f"noise {ratio[t]:z.2g} times that of the others"
        if contradicted[t]:
            harm = "contradicts the others" + (", and hurts them" if hurts[t] else "")
            words.append(harm if hurt[t] else f"{harm}, yet is better off than alone")
        elif hurt[t]:
            words.append("hurt by the others")
        elif worse[t]:
            words.append(f"predicted worse than alone: its noise is {share[t]:z.2g} times that of all")
        else:
            verdict = "gains from the others" if better[t] else "no clear difference"
            words.append(f"{verdict}; {noise}" if noise else verdict)
    return words


def _remedy(tasks: list[Any], hurt: Any, hurts: Any, noisy: Any, structure: TaskCovariance) -> str:
    """Say what to do about tasks that are hurt or hurt others."""
    named = [str(t) for t, bad in zip(tasks, hurt | hurts, strict=True) if bad]
    by_noise = [str(t) for t, bad in zip(tasks, noisy, strict=True) if bad]
    noise = f"{', '.join(by_noise)}: their noise is not that of all; {REMEDY}." if by_noise else ""
    if not named:
        return noise or "No task is hurt: nothing needs to be done."
    several = len(named) > 0.2 * len(tasks) and not isinstance(structure, TaskMixture)
    advice = ""
    if several:
        advice = "Many tasks do not fit in: try Clusters(2), which lets there be several populations. Or "
    elif isinstance(structure, StudentT):
        advice = "StudentT lets them stand apart already. If that is not enough, "
    elif not isinstance(structure, TaskMixture | CompletePooling | NoPooling):
        advice = (
            "Try StudentT(...) around the structure: tasks can then stand apart without pulling others. Or "
        )
    apart = "fit these tasks apart (NoPooling), and compare."
    said = f"{', '.join(named)}: {advice}{apart if advice else apart[0].upper() + apart[1:]}"
    return f"{said} {noise}".strip()
