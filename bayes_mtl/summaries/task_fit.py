"""Posterior predictive checks by task, of what a model does not fit by construction."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import xarray as xr
from scipy.special import ndtr

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.arguments import generator, truth
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.attributes import rows_by_task, schema_of, spec_of
from bayes_mtl.inference.hyperdraws import CHUNK_BYTES, thinned
from bayes_mtl.inference.log_likelihood import fitted_predictor, sigma_of_rows
from bayes_mtl.progress import progress
from bayes_mtl.summaries.correlation import interval_probability

FALSE_ALARMS = 0.05
_DRAWS, _LEAST_DRAWS = 500, 100
_MAX_NUMBERS = 2**25  # rows times draws

# What is computed of the residuals of a task, each in units of the noise that the model gives it.
CHECKS: Mapping[str, str] = MappingProxyType(
    {
        "spread": "root mean square of the residuals, 1 if the noise is right",
        "smallest": "smallest residual",
        "largest": "largest residual",
        "trend": "largest sum of residuals in the order of the predictions, over the root of the rows: large "
        "if the relation is bent",
        "pit": "distance of the probability integral transform from uniform, times the root of the rows: "
        "large if outcomes are skewed, heavy-tailed or lumped",
        "zeros": "share of outcomes that are zero",
    }
)
_ONE_SIDED = ("trend", "pit")


def task_fit(
    idata: xr.DataTree,
    *,
    ci_prob: float | None = None,
    random_seed: int | None = 1,
    progressbar: bool = True,
) -> xr.Dataset:
    """Check by task what the model does not fit by construction: spread, extremes, bends, shape, zeros.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    ci_prob : float, optional
        Probability of the interval of replicated values; default ArviZ's ``stats.ci_prob``.
    random_seed : int, optional
        Of the replicated outcomes.
    progressbar : bool
        Show progress if it takes more than two seconds.

    Returns
    -------
    Dataset
        By check and task: ``observed``, the statistic of the outcomes, averaged over draws; ``expected``,
        ``lower``, ``upper``, the mean and the interval of that of replicated outcomes; ``p_value``, the
        posterior predictive p-value (two-sided but for "trend" and "pit"); ``adjusted_p``, the same for the
        largest departure among all tasks, times the number of checks; ``misfit``, whether `adjusted_p` is at
        most 0.025. By check: ``p_overall``, the p-value of the largest departure among tasks. The checks are
        "spread", "smallest" and "largest" residual in units of the noise (for binary outcomes: of their
        standard deviation), "trend" along the predictions; for continuous outcomes "pit" (uniformity of the
        probability integral transform within the task), and "zeros" if there are any.

    Raises
    ------
    SpecError
        For binary outcomes with weights: rows are then not single outcomes.

    Notes
    -----
    For each of up to 500 draws theta of the posterior, outcomes are replicated, and every statistic
    T(y, theta) is compared with T(y_rep, theta) (Gelman, Meng & Stern 1996). A posterior predictive p-value
    is at most alpha with a probability of at most 2 alpha (Meng 1994): in at most 5 % of data sets that come
    from the model is any task called a misfit. Means of tasks are not checked: each task has a coefficient
    for its own.

    References
    ----------
    Gelman, Meng & Stern (1996), Statistica Sinica 6; Meng (1994), Annals of Statistics 22.

    Examples
    --------
    >>> found = mtl.task_fit(idata)  # doctest: +SKIP
    >>> found.sel(check="spread").to_dataframe().query("misfit")  # doctest: +SKIP
    """
    prob, family, rng = interval_probability(ci_prob), spec_of(idata).family, generator(random_seed)
    progressbar = truth("progressbar", progressbar)
    fixed = rows_by_task(idata, "constant_data")
    y = rows_by_task(idata, "observed_data")["y"].to_numpy()
    weights, task = fixed["weights"].to_numpy(), fixed["task_index"].to_numpy()
    if not family.has_noise and (weights != 1.0).any():
        hint = "Write each outcome as a row of its own"
        raise SpecError(Finding("task_fit", "needs one outcome per row, but rows have weights", hint))
    limit = max(_LEAST_DRAWS, min(_DRAWS, _MAX_NUMBERS // max(1, len(y))))
    draws = thinned(idata["posterior"].to_dataset().drop_vars("task_corr", errors="ignore"), limit)
    rows = _Rows(task, y, continuous=family.has_noise)
    n_draws = draws.sizes["draw"]
    step = max(1, CHUNK_BYTES // (64 * max(1, len(y))))
    parts: list[tuple[FloatArray, FloatArray]] = []
    with progress("replicated outcomes", -(-n_draws // step), show=progressbar) as done:
        for start in range(0, n_draws, step):
            part = draws.isel(draw=slice(start, start + step))
            eta = fitted_predictor(part, fixed, list(schema_of(idata).groupings))
            sigma = fixed["noise"].to_numpy() if "noise" in fixed else sigma_of_rows(part, task)
            scale = np.broadcast_to(sigma / np.sqrt(weights), eta.shape)
            replicated = family.draw(rng, eta, scale)
            residuals = (family.residuals(values, eta, scale) for values in (y, replicated))
            along = np.argsort(task + _within_one(eta), axis=1, kind="stable")
            parts.append(
                tuple(  # type: ignore[arg-type]
                    rows.statistics(values, r, along)
                    for values, r in zip((y, replicated), residuals, strict=True)
                )
            )
            done()
    observed, reference = (np.concatenate([part[i] for part in parts], axis=1) for i in (0, 1))
    values = _compared(observed, reference, rows, prob)
    tasks = fixed["task"].to_numpy()
    each = {"p_overall": ("check", values.pop("p_overall"))}
    for name, of_tasks in values.items():
        out = np.full((len(rows.checks), len(tasks)), False if name == "misfit" else np.nan)
        out[:, rows.present] = of_tasks
        each[name] = (("check", "task"), out.astype(bool) if name == "misfit" else out)  # type: ignore[assignment]
    return xr.Dataset(
        each,
        coords={"check": list(rows.checks), "task": tasks},
        attrs={
            "task": schema_of(idata).task or "outcome",
            "ci_prob": prob,
            "n_draws": n_draws,
            "false_alarms": FALSE_ALARMS,
        },
    )


class _Rows:
    """Rows sorted by task, and the statistics of each task."""

    def __init__(self, task: IntArray, y: FloatArray, *, continuous: bool) -> None:
        self.present, self.starts, self.n = np.unique(task, return_index=True, return_counts=True)
        self.task = np.repeat(np.arange(len(self.present)), self.n)
        self.rank = np.arange(len(task)) - self.starts[self.task]
        self.resolution = _resolution(y) if continuous else 0.0
        used = ["spread", "smallest", "largest", "trend"]
        used += ["pit"] if continuous else []
        used += ["zeros"] if continuous and (y == 0.0).any() else []
        self.checks = tuple(used)

    def statistics(self, y: FloatArray, r: FloatArray, along: IntArray) -> FloatArray:
        """Return all statistics of outcomes (rows or draws, rows) with residuals (draws, rows).

        Parameters
        ----------
        along : (draws, rows)
            Rows sorted by task, and in each task by what is predicted.

        Returns
        -------
        array, shape (checks, draws, tasks)
        """
        starts, n, root = self.starts, self.n, np.sqrt(self.n)
        out = [
            np.sqrt(np.add.reduceat(r**2, starts, axis=1) / n),
            np.minimum.reduceat(r, starts, axis=1),
            np.maximum.reduceat(r, starts, axis=1),
        ]
        total = np.add.reduceat(r, starts, axis=1)
        walk = np.cumsum(np.take_along_axis(r, along, axis=1), axis=1)
        walk -= (np.cumsum(total, axis=1) - total)[:, self.task]
        walk -= total[:, self.task] * ((self.rank + 1) / n[self.task])
        out.append(np.maximum.reduceat(np.abs(walk), starts, axis=1) / root)
        if "pit" in self.checks:
            u = np.sort(self.task + np.minimum(ndtr(r), 1 - 1e-12), axis=1) - self.task
            distance = np.abs(u - (self.rank + 0.5) / n[self.task])
            out.append(np.maximum.reduceat(distance, starts, axis=1) * root)
        if "zeros" in self.checks:
            zero = np.abs(y) <= self.resolution / 2
            share = np.add.reduceat(np.atleast_2d(zero).astype(float), starts, axis=1) / n
            out.append(np.broadcast_to(share, out[0].shape))
        return np.array(out)

    def on_a_line(self, values: FloatArray) -> FloatArray:
        """Return statistics (checks, draws, tasks) on scales on which they are roughly normal."""
        out = values.copy()
        out[0] **= 2 / 3  # Wilson & Hilferty
        out[1:3] = np.sign(out[1:3]) * np.log1p(np.abs(out[1:3]))
        if "zeros" in self.checks:
            out[-1] *= self.n
        return out


def _compared(observed: FloatArray, reference: FloatArray, rows: _Rows, prob: float) -> dict[str, FloatArray]:
    """Compare statistics (checks, draws, tasks) with those of replicated outcomes."""
    z_observed, z = rows.on_a_line(observed), rows.on_a_line(reference)
    # The outcomes are one more replicate if the model is right: no replicate counts in its own scale alone.
    pool = np.concatenate([z, z_observed.mean(axis=1, keepdims=True)], axis=1)
    mean, sd = pool.mean(axis=1, keepdims=True), pool.std(axis=1, keepdims=True)
    if "zeros" in rows.checks:
        sd[-1] = np.sqrt(sd[-1] ** 2 + 1.0)  # a single zero is nothing
    sd = np.maximum(sd, 1e-12)
    z_observed, z = (z_observed - mean) / sd, (z - mean) / sd
    two_sided = np.array([check not in _ONE_SIDED for check in rows.checks])
    higher, lower = (z >= z_observed).mean(axis=1), (z <= z_observed).mean(axis=1)
    p_value = np.where(two_sided[:, None], np.minimum(1.0, 2 * np.minimum(higher, lower)), higher)
    for values in (z_observed, z):
        values[two_sided] = np.abs(values[two_sided])
    # The largest departure among tasks, and Bonferroni's bound for several checks.
    adjusted = np.minimum(1.0, len(z) * (z.max(axis=2)[:, :, None] >= z_observed).mean(axis=1))
    low, high = np.quantile(reference, [(1 - prob) / 2, (1 + prob) / 2], axis=1)
    return {
        "observed": observed.mean(axis=1),
        "expected": reference.mean(axis=1),
        "lower": low,
        "upper": high,
        "p_value": p_value,
        "adjusted_p": adjusted,
        "misfit": adjusted <= FALSE_ALARMS / 2,
        "p_overall": (z.max(axis=2) >= z_observed.max(axis=2)).mean(axis=1),
    }


def _within_one(eta: FloatArray) -> FloatArray:
    """Return values between 0 and 1 in the same order, by draw."""
    low = eta.min(axis=1, keepdims=True)
    return (eta - low) / (np.maximum(np.ptp(eta, axis=1, keepdims=True), 1e-300) * (1 + 1e-9))


def _resolution(y: FloatArray) -> float:
    """Return the unit to which outcomes were rounded (1, 0.1, ... 1e-6), or 0 if to none."""
    for digits in range(7):
        scaled = y * 10.0**digits
        if np.abs(scaled).max(initial=0.0) > 1e8:  # any number would pass
            return 0.0
        if np.abs(scaled - np.round(scaled)).max(initial=0.0) < 1e-6:
            return 10.0**-digits
    return 0.0


def misfit_in_words(found: xr.Dataset) -> list[str]:
    """Say what the checks found, one sentence each."""
    share = f"{found.attrs['false_alarms']:.0%}"
    level = f"(if the model is right, any task is named in at most {share} of data sets)"
    n = found.sizes["task"]
    if not bool(found["misfit"].any()):
        checks = ", ".join(map(str, found["check"].to_numpy()))
        return [f"No misfit was found in {checks} of {n} tasks {level}."]
    out = []
    for check in found["check"].to_numpy():
        part = found.sel(check=check)
        bad = part.isel(task=np.flatnonzero(part["misfit"].to_numpy())).sortby("adjusted_p")
        if not bad.sizes["task"]:
            continue
        names = ", ".join(map(str, bad["task"].to_numpy()[:8])) + (", ..." if bad.sizes["task"] > 8 else "")
        first = bad.isel(task=0)
        out.append(
            f"{check}: {bad.sizes['task']} of {n} tasks do not fit ({names}). In {first['task'].item()} it "
            f"is {float(first['observed']):z.2f}, where the model expects {float(first['expected']):z.2f} "
            f"[{float(first['lower']):z.2f}, {float(first['upper']):z.2f}]."
        )
    return [f"Misfit was found {level}.", *out]


def p_value_in_words(p: float) -> str:
    """Return a p-value of a few hundred draws: none of them is zero."""
    return f"{p:z.2f}" if p >= 0.005 else "below 0.01"
