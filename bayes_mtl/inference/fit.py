"""`fit`: the only place that calls the sampler."""

from __future__ import annotations

import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pymc as pm
import xarray as xr

from bayes_mtl.data import TaskData
from bayes_mtl.errors import ConvergenceWarning, Finding, SpecError, raise_if_any
from bayes_mtl.inference.attributes import describe
from bayes_mtl.inference.diagnostics import diagnose
from bayes_mtl.inference.hyperdraws import evaluate
from bayes_mtl.inference.log_likelihood import log_likelihood as pointwise
from bayes_mtl.inference.recover import draw_from_population, from_whitened, recover
from bayes_mtl.model import AssembledModel, assemble
from bayes_mtl.spec import ModelSpec

PRIOR_DRAWS = 1000
_MAX_LOG_LIKELIHOOD = 2**26  # entries: half a GiB


def fit(
    data: TaskData,
    spec: ModelSpec | None = None,
    *,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    cores: int | None = None,
    random_seed: int | np.random.Generator | None = None,
    target_accept: float = 0.9,
    marginal: bool | Literal["auto"] = "auto",
    backend: Literal["numba"] = "numba",
    progressbar: bool = True,
    log_likelihood: bool | Literal["auto"] = "auto",
) -> xr.DataTree:
    """Sample the posterior with NUTS (nutpie), recover the coefficients, check the draws.

    Parameters
    ----------
    data : TaskData
        The data.
    spec : ModelSpec, optional
        The description; default ``ModelSpec()``.
    draws, tune, chains : int
        Draws kept per chain, draws to adapt per chain, number of chains.
    cores : int, optional
        Chains run at a time. Default: all processors, at most `chains`.
    random_seed : int or Generator, optional
        For draws that can be repeated (in one process; not bit for bit across machines).
    target_accept : float
        Acceptance rate that the step size aims at.
    marginal : {"auto", True, False}
        Whether coefficients are integrated out while sampling; see `build_model`. The result has the
        same variables either way.
    backend : {"numba"}
        What compiles the model.
    progressbar : bool
        Show progress, in a terminal or a notebook.
    log_likelihood : {"auto", True, False}
        Store the pointwise log-likelihood. "auto": unless it takes more than half a GiB.

    Returns
    -------
    DataTree
        ``posterior`` (hyperparameters and ``beta``), ``sample_stats``, ``log_likelihood``,
        ``observed_data``, ``constant_data``, and ``prior`` (draws of the same variables from the prior,
        so that a summary can say what the data added). Description and design are in its attributes.
        An interrupt (Ctrl-C) while sampling returns the draws that are there.

    Raises
    ------
    SpecError
        If description, data or arguments do not fit together; before anything is compiled.

    Warns
    -----
    ConvergenceWarning
        If the draws should not be trusted; says why and what to do.

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> data = mtl.TaskData.from_table(df, task="school", formula="normexam ~ standLRT")  # doctest: +SKIP
    >>> idata = mtl.fit(data, mtl.ModelSpec(task_covariance=mtl.LowRank(2)))              # doctest: +SKIP
    """
    spec = ModelSpec() if spec is None else spec
    _check(data, spec, draws, tune, chains, cores, target_accept, backend)
    seeds = _seeds(random_seed)
    assembled = assemble(spec, data, marginal=marginal)
    prior = _prior(assembled, data, seeds[1])  # first, so that what fails here costs no sampling
    started = time.perf_counter()
    trace = _sample(
        assembled.model,
        progressbar,
        draws=draws,
        tune=tune,
        chains=chains,
        cores=cores or min(chains, os.cpu_count() or 1),
        seed=seeds[0],
        target_accept=target_accept,
    )
    elapsed = time.perf_counter() - started
    raw = trace["posterior"].to_dataset()
    posterior, hyper = evaluate(assembled, raw, data)
    if assembled.collapsed:
        block = assembled.block
        beta = recover(data, hyper, block.inside, varies=block.varies, seed=seeds[2])
    else:
        beta = from_whitened(hyper, assembled.block, raw)
    beta_shape = (posterior.sizes["chain"], posterior.sizes["draw"], data.n_tasks, data.n_features)
    posterior["beta"] = (("chain", "draw", "task", "feature"), beta.reshape(beta_shape))
    posterior = posterior.assign_coords(task=list(data.tasks), feature=list(data.features))
    groups: dict[str, xr.Dataset] = {
        "posterior": posterior,
        "sample_stats": _sample_stats(trace),
        "prior": prior,
        "observed_data": xr.Dataset({"y": ("row", data.y)}, coords={"row": data.row}),
        "constant_data": constant_data(data),
    }
    idata = xr.DataTree.from_dict(groups)
    idata.attrs.update(describe(spec, data.schema, version("bayes_mtl")))
    complete = int(len(hyper) >= draws * chains)
    idata.attrs.update(
        sampling_time=elapsed, tuning_steps=tune, collapsed=int(assembled.collapsed), complete=complete
    )
    if log_likelihood is True or (
        log_likelihood == "auto" and len(hyper) * data.n_rows <= _MAX_LOG_LIKELIHOOD
    ):
        idata["log_likelihood"] = xr.DataTree(pointwise(idata))
    diagnosis = diagnose(idata)
    if diagnosis.problems:
        warnings.warn(str(diagnosis), ConvergenceWarning, stacklevel=2)
    return idata


def constant_data(data: TaskData) -> xr.Dataset:
    """Return what the model conditions on, labelled."""
    out = xr.Dataset(
        {
            "X": (("row", "feature"), data.X),
            "task_index": ("row", data.task_index),
            "weights": ("row", data.weights),
            "offset": ("row", data.offset),
        },
        coords={"row": data.row, "task": list(data.tasks), "feature": list(data.features)},
    )
    if data.shared_features:
        out["X_shared"] = (("row", "shared_feature"), data.X_shared)
        out = out.assign_coords(shared_feature=list(data.shared_features))
    if data.task_feature_names:
        out["task_features"] = (("task", "task_feature"), data.task_features)
        out = out.assign_coords(task_feature=list(data.task_feature_names))
    if data.noise is not None:
        out["noise"] = ("row", data.noise)
    return out


def _check(
    data: TaskData,
    spec: ModelSpec,
    draws: int,
    tune: int,
    chains: int,
    cores: int | None,
    target: float,
    backend: str,
) -> None:
    findings = []
    if not isinstance(data, TaskData):
        hint = "Build it with TaskData.from_table"
        raise SpecError(Finding("data", f"should be a TaskData, found {type(data).__name__}", hint))
    if not isinstance(spec, ModelSpec):
        raise SpecError(Finding("spec", f"should be a ModelSpec, found {type(spec).__name__}"))
    for name, value, least in (
        ("draws", draws, 1),
        ("tune", tune, 1),
        ("chains", chains, 1),
        ("cores", cores or 1, 1),
    ):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            findings.append(Finding(name, f"should be an integer of at least {least}, found {value!r}"))
    if not 0.0 < target < 1.0:
        findings.append(
            Finding("target_accept", f"should be between 0 and 1, found {target!r}", "Default 0.9")
        )
    if backend != "numba":
        findings.append(Finding("backend", f"should be 'numba', found {backend!r}"))
    raise_if_any([*findings, *spec.findings(data)], SpecError)


def _seeds(random_seed: Any) -> list[int]:
    try:
        rng = np.random.default_rng(random_seed)
    except (TypeError, ValueError) as err:
        raise SpecError(
            Finding("random_seed", f"should be an integer or a Generator, found {random_seed!r}")
        ) from err
    return [int(s) for s in rng.integers(0, 2**31 - 1, size=3)]


def _sample(model: pm.Model, progressbar: bool, **settings: Any) -> xr.DataTree:
    import nutpie  # loads slowly

    names = [v.name for v in model.free_RVs]
    if not names:
        return _without_sampling(settings["chains"], settings["draws"])
    with _note("Compiling the model", enabled=progressbar):
        compiled = nutpie.compile_pymc_model(model, var_names=names)
    trace = nutpie.sample(compiled, progress_bar=progressbar, save_warmup=False, **settings)
    return _whole_chains(trace, settings["chains"] * settings["draws"])


def _without_sampling(chains: int, draws: int) -> xr.DataTree:
    """Return chains of nothing: all hyperparameters are fixed, so the coefficients are drawn exactly."""
    coords = {"chain": np.arange(chains), "draw": np.arange(draws)}
    stats = xr.Dataset(
        {"diverging": (("chain", "draw"), np.zeros((chains, draws), dtype=bool))}, coords=coords
    )
    return xr.DataTree.from_dict({"posterior": xr.Dataset(coords=coords), "sample_stats": stats})


def _whole_chains(trace: xr.DataTree, asked: int) -> xr.DataTree:
    """After an interrupt, keep the largest block of draws that all of its chains have.

    The sampler pads unfinished chains with NaN, and chains may be at very different points.
    """
    draws = trace["posterior"].to_dataset()
    have = np.ones((draws.sizes["chain"], draws.sizes["draw"]), dtype=bool)
    for values in draws.data_vars.values():
        inner = [d for d in values.dims if d not in ("chain", "draw")]
        have &= values.notnull().all(inner).transpose("chain", "draw").to_numpy()
    lengths = have.cumprod(axis=1).sum(axis=1)
    by_length = np.argsort(-lengths, kind="stable")
    sizes = lengths[by_length] * np.arange(1, len(lengths) + 1)
    if not sizes.any():
        raise KeyboardInterrupt("interrupted before the first draw after adaptation")
    if lengths.sum() == asked:
        return trace
    best = int(np.argmax(sizes))
    chains, length = np.sort(by_length[: best + 1]), int(lengths[by_length[best]])
    warnings.warn(
        f"Interrupted after {lengths.sum()} of {asked} draws; kept {len(chains)} chains x {length} draws "
        f"(chains reached {lengths.tolist()}).",
        ConvergenceWarning,
        stacklevel=4,
    )
    groups = ("posterior", "sample_stats")
    return xr.DataTree.from_dict(
        {g: trace[g].to_dataset().isel(chain=chains, draw=slice(length)) for g in groups}
    )


@contextmanager
def _note(text: str, *, enabled: bool) -> Iterator[None]:
    """Tell the reader what takes long, and how long it took."""
    started = time.perf_counter()
    if enabled:
        print(f"{text} ...", end=" ", file=sys.stderr, flush=True)
    yield
    if enabled:
        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)


def _prior(assembled: AssembledModel, data: TaskData, seed: int) -> xr.Dataset:
    """Draw hyperparameters and coefficients from the prior."""
    model = assembled.model
    names = [v.name for v in model.free_RVs if v.name not in ("beta_offset", "basis_offset")]
    if not names:
        drawn = _without_sampling(1, PRIOR_DRAWS)["posterior"].to_dataset()
        return _with_coefficients(assembled, drawn, data, seed)
    logger = logging.getLogger("pymc")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        drawn = pm.sample_prior_predictive(
            PRIOR_DRAWS,
            model=model,
            var_names=names,
            random_seed=seed,
            compile_kwargs={"mode": "FAST_COMPILE"},
        )
    finally:
        logger.setLevel(level)
    return _with_coefficients(assembled, drawn["prior"].to_dataset(), data, seed)


def _with_coefficients(assembled: AssembledModel, drawn: xr.Dataset, data: TaskData, seed: int) -> xr.Dataset:
    prior, hyper = evaluate(assembled, drawn, data)
    block = assembled.block
    beta = draw_from_population(hyper, block.inside, varies=block.varies, rng=np.random.default_rng(seed))
    prior["beta"] = (("chain", "draw", "task", "feature"), beta[None])
    return prior.assign_coords(task=list(data.tasks), feature=list(data.features))


def _sample_stats(trace: xr.DataTree) -> xr.Dataset:
    stats = trace["sample_stats"].to_dataset()
    stats = stats.drop_vars([v for v in stats if stats[v].dtype == object])
    # The name that ArviZ looks for.
    return (
        stats.rename({"maxdepth_reached": "reached_max_treedepth"}) if "maxdepth_reached" in stats else stats
    )
