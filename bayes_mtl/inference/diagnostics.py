"""Whether the draws can be trusted, said in words."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace

import numpy as np
import xarray as xr

from bayes_mtl.errors import Finding
from bayes_mtl.inference.attributes import (
    FORMAT_KEY,
    check_groups,
    data_of,
    reads_data_once,
    schema_of,
    spec_of,
)
from bayes_mtl.inference.hyperdraws import is_auxiliary
from bayes_mtl.inference.noise_by_task import noise_findings
from bayes_mtl.inference.prechecks import noise_is_confounded
from bayes_mtl.inference.spread import spread_findings

MAX_R_HAT = 1.01
MAX_R_HAT_OF_MANY = 1.03  # for the largest of hundreds of noisy estimates
_MANY = 100
MIN_ESS_PER_CHAIN = 100
MIN_BFMI = 0.3
_MAX_ELEMENTS = 300  # of one parameter; more are looked at in a spread-out sample

_MAX_CO_CLUSTERED = 25  # tasks, whose pairs are looked at

_KEPT = "bayes_mtl_diagnosis"

_ONE_ROW = (
    "Each task has one row, whose noise and own coefficients trade off: fix sigma, or name a column of known "
    "noise (noise=)"
)

# Rotations of loadings (of tasks, or of the levels of a grouping) and numbers of clusters do not matter, so
# their mixing does not either. Endings of names.
_NOT_IDENTIFIED = (
    "_loadings",
    "_loadings_scale",
    "_unique_sd",
    "cluster_mean",
    "cluster_weight",
    "cluster_gating",
    "cluster_probability",
)


# Hyperparameters whose priors can be chosen, or whose structure can. Endings of names.
_WITH_PRIORS = ("_sd", "_scale", "_corr", "_mean", "_spread", "_shared", "sigma", "rho", "nu", "r2")


@dataclass(frozen=True)
class Diagnosis:
    """What the sampler's own checks say.

    Attributes
    ----------
    problems : tuple of Finding
        What is wrong and what to do; empty if nothing is.
    worst_r_hat, least_ess : float
        Over all identified parameters; NaN where there is one draw only.
    divergences, draws, chains : int
    sampled : bool
        False where no hyperparameter is left to learn, so that all draws are exact and independent.
    notes : tuple of Finding
        What the draws say of the model itself, however well they were sampled.
    """

    problems: tuple[Finding, ...]
    worst_r_hat: float
    least_ess: float
    divergences: int
    draws: int
    chains: int
    sampled: bool = True
    notes: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        notes = "".join(f"\nNote: {note}" for note in self.notes)
        return self._sampling() + notes

    def _sampling(self) -> str:
        size = f"{self.chains} chains x {self.draws} draws"
        if not self.sampled:
            return f"No hyperparameter is left to learn: {size} of coefficients, exact and independent."
        if not self.problems:
            return (
                f"No problems found in {size}: largest R-hat {self.worst_r_hat:.3f}, "
                f"smallest effective sample size {self.least_ess:.0f}, no divergences."
            )
        lines = "\n".join(f"  - {p}" for p in self.problems)
        return f"{len(self.problems)} problem(s) found in {size}:\n{lines}"


@reads_data_once
def diagnose(idata: xr.DataTree) -> Diagnosis:
    """Check divergences, tree depth, energy, R-hat and effective sample size, and `feature_sd`.

    Constants and the mirrored half of correlation matrices are left out, and so are loadings, whose
    rotation is arbitrary. Notes say where `feature_sd` is well below the spread of the coefficients
    that were drawn (`inference.spread`), and which tasks have another noise than the one that a model
    has for all (`inference.noise_by_task`).

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.

    Returns
    -------
    Diagnosis
        Prints as a few sentences.
    """
    check_groups(idata, "posterior", "sample_stats")
    posterior = idata["posterior"].to_dataset()
    stats = idata["sample_stats"].to_dataset()
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    noise = tuple(noise_findings(idata)) if FORMAT_KEY in idata.attrs else ()
    if set(stats) <= {"diverging"}:
        return Diagnosis((), float("nan"), float("nan"), 0, draws, chains, sampled=False, notes=noise)
    problems: list[Finding] = []
    mixing: list[Finding] = []
    worst, least, slowest = _convergence(posterior, mixing)
    divergences = int(stats["diverging"].sum()) if "diverging" in stats else 0
    if divergences:
        share = 100 * divergences / (chains * draws)
        problems.append(
            Finding(
                "divergences",
                f"{divergences} transitions diverged ({share:.2g} %): draws miss parts of the posterior",
                _more_careful(idata.attrs.get("target_accept", 0.8), slowest),
            )
        )
    deep = float(stats["reached_max_treedepth"].mean()) if "reached_max_treedepth" in stats else 0.0
    if deep > 0.01:
        problems.append(
            Finding(
                "tree depth",
                f"{100 * deep:.0f} % of transitions hit the largest tree depth: slow exploration",
                _simpler(idata),
            )
        )
    if "energy" in stats and draws > 10:
        energy = stats["energy"].transpose("chain", "draw").to_numpy()
        bfmi = np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.maximum(energy.var(axis=1), 1e-300)
        if (bfmi < MIN_BFMI).any():
            problems.append(
                Finding(
                    "energy",
                    f"BFMI is {bfmi.min():.2f} (below {MIN_BFMI}): heavy tails",
                    "Use tighter priors, or more draws",
                )
            )
    problems += mixing
    if chains < 2:
        problems.append(
            Finding("chains", "there is only one, so disagreement between chains cannot be seen", "Use 4")
        )
    if problems and noise_is_confounded(spec_of(idata), data_of(idata)):
        slow = ("divergences", "energy", "R-hat", "effective sample size")
        problems = [replace(p, remedy=_ONE_ROW) if p.where in slow else p for p in problems]
    notes = (*spread_findings(idata), *noise) if FORMAT_KEY in idata.attrs else ()
    return Diagnosis(tuple(problems), worst, least, divergences, draws, chains, notes=notes)


def _more_careful(target_accept: float, slowest: str) -> str:
    """Return what to do about divergences that has not been done, by the hyperparameter that mixes worst."""
    higher = [str(t) for t in (0.95, 0.99) if t > target_accept]
    if slowest.partition("[")[0].endswith("_corr"):
        simpler = f"choose a simpler covariance: {slowest} mixes most slowly"
    elif slowest:
        simpler = f"give {slowest}, which mixes most slowly, a tighter prior"
    else:
        simpler = "use tighter priors"
    if not higher:
        return simpler[0].upper() + simpler[1:]
    return f"Raise target_accept ({', '.join(higher)}), or {simpler}"


def _simpler(idata: xr.DataTree) -> str:
    """Return what to do about slow exploration that has not been done."""
    if FORMAT_KEY in idata.attrs and any(schema_of(idata).design.center):
        return "Simplify the covariances"
    return "Center features far from zero (center=True), or simplify the covariances"


def keep(idata: xr.DataTree, diagnosis: Diagnosis) -> None:
    """Write down in a fit what was found: it takes a while to find it again."""
    idata.attrs[_KEPT] = json.dumps(asdict(diagnosis))


def kept(idata: xr.DataTree) -> Diagnosis:
    """Return what `keep` wrote down if the fit still has these draws, or find it again."""
    sizes = idata["posterior"].sizes
    if _KEPT in idata.attrs:
        found = json.loads(idata.attrs[_KEPT])
        if (found["chains"], found["draws"]) == (sizes["chain"], sizes["draw"]):
            problems, notes = (tuple(Finding(**p) for p in found.pop(k, ())) for k in ("problems", "notes"))
            return Diagnosis(problems=problems, notes=notes, **found)
    return diagnose(idata)


def _convergence(posterior: xr.Dataset, problems: list[Finding]) -> tuple[float, float, str]:
    """Return the largest R-hat, the least effective sample size, and the slowest hyperparameter."""
    import arviz_stats  # loads slowly

    posterior = posterior.drop_vars([name for name in posterior if is_auxiliary(str(name))])
    elements = unique_elements(_with_co_clustering(posterior))
    if posterior.sizes["draw"] < 4 or not elements.data_vars:
        problems.append(Finding("draws", f"there are only {posterior.sizes['draw']}", "Draw more"))
        return float("nan"), float("nan"), ""
    r_hat, ess = arviz_stats.rhat(elements), arviz_stats.ess(elements)
    tail = arviz_stats.ess(elements, method="tail")
    worst = _extreme(r_hat, largest=True)
    least = min(_extreme(ess, largest=False), _extreme(tail, largest=False), key=lambda item: item[1])
    size = elements[worst[0].partition("[")[0]].shape[-1] if worst[0] else 0
    limit = MAX_R_HAT if size < _MANY else MAX_R_HAT_OF_MANY
    if worst[1] > limit:
        problems.append(
            Finding(
                "R-hat",
                f"is {worst[1]:.4f} for {worst[0]} (above {limit}): chains disagree",
                "Raise tune and draws",
            )
        )
    enough = MIN_ESS_PER_CHAIN * posterior.sizes["chain"]
    if least[1] < enough:
        problems.append(
            Finding(
                "effective sample size", f"is {least[1]:.0f} for {least[0]} (below {enough})", "Raise draws"
            )
        )
    hyper = [name for name in ess.data_vars if str(name).endswith(_WITH_PRIORS)]
    slowest = min((_extreme(found[hyper], largest=False) for found in (ess, tail)), key=lambda item: item[1])
    return worst[1], least[1], slowest[0]


def _with_co_clustering(posterior: xr.Dataset) -> xr.Dataset:
    """Add the probability that two tasks are in one cluster, which does not depend on numbers of clusters."""
    if "cluster_weight" not in posterior or "cluster_probability" not in posterior:
        return posterior
    n_tasks = min(posterior.sizes["task"], _MAX_CO_CLUSTERED)
    at = np.linspace(0, posterior.sizes["task"] - 1, n_tasks).astype(int)
    # Dims of its own: those of the posterior have all tasks.
    member = posterior["cluster_probability"].isel(task=at).rename(task="some_task")
    return posterior.assign(co_clustering=(member * member.rename(some_task="some_task_bis")).sum("cluster"))


def unique_elements(posterior: xr.Dataset, *, limit: int | None = _MAX_ELEMENTS) -> xr.Dataset:
    """Return the identified parameters with each free number once, on one labelled axis each.

    Of a parameter with more than `limit` of them, a spread-out sample.
    """
    out = {}
    for name, values in posterior.data_vars.items():
        if str(name).endswith(_NOT_IDENTIFIED):
            continue
        core = [d for d in values.dims if d not in ("chain", "draw")]
        flat = values.transpose("chain", "draw", *core).to_numpy()
        shape = flat.shape[2:]
        flat = flat.reshape(*flat.shape[:2], -1)
        keep = np.arange(flat.shape[2])
        if len(core) == 2 and core[1] == f"{core[0]}_bis":
            keep = np.flatnonzero(np.tri(shape[0], k=-1).T.ravel())
        if len(keep):
            keep = keep[np.ptp(flat[..., keep], axis=(0, 1)) > 1e-12]
        if limit is not None and len(keep) > limit:
            keep = keep[np.linspace(0, len(keep) - 1, limit).astype(int)]
        if not len(keep):
            continue
        labels = [
            values.coords[d].to_numpy() if d in values.coords else np.arange(s)
            for d, s in zip(core, shape, strict=True)
        ]
        names = [
            _label(str(name), labels, tuple(int(j) for j in np.unravel_index(i, shape)) if shape else ())
            for i in keep
        ]
        axis = f"{name}_element"
        out[str(name)] = xr.DataArray(flat[..., keep], dims=("chain", "draw", axis), coords={axis: names})
    return xr.Dataset(out)


def _label(name: str, labels: list[np.ndarray], index: tuple[int, ...]) -> str:
    inner = ", ".join(str(axis[i]) for axis, i in zip(labels, index, strict=True))
    return f"{name}[{inner}]" if inner else name


def _extreme(values: xr.Dataset, *, largest: bool) -> tuple[str, float]:
    best = ("", -np.inf if largest else np.inf)
    for name, array in values.data_vars.items():
        numbers = array.to_numpy()
        finite = np.where(np.isfinite(numbers), numbers, -np.inf if largest else np.inf)
        at = int(np.argmax(finite) if largest else np.argmin(finite))
        value = float(finite.ravel()[at])
        if (value > best[1]) if largest else (value < best[1]):
            best = (str(array[f"{name}_element"].to_numpy()[at]), value)
    return best
