"""`fit`: the only place that calls the sampler."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from inspect import Parameter, signature
from numbers import Real
from typing import Any, Literal

import numpy as np
import xarray as xr

from bayes_mtl.arguments import generator, truth_findings
from bayes_mtl.collector import without_collections
from bayes_mtl.data import TaskData
from bayes_mtl.data.rows import in_table_order, row_coords
from bayes_mtl.errors import ConvergenceWarning, DataError, DataWarning, Finding, SpecError, raise_if_any
from bayes_mtl.families import Gaussian
from bayes_mtl.inference import log_likelihood as of_rows
from bayes_mtl.inference.attributes import describe
from bayes_mtl.inference.density import Backend, DensityGraph, compile_density, nutpie_model
from bayes_mtl.inference.diagnostics import diagnose, keep
from bayes_mtl.inference.groups import (
    coefficients,
    constant_data,
    prior_draws,
    sample_stats,
    with_coefficients,
)
from bayes_mtl.inference.hyperdraws import evaluate
from bayes_mtl.inference.interrupts import as_far_as_there_is_time, recovered
from bayes_mtl.inference.level_pilot import level_pilot
from bayes_mtl.inference.log_prior import log_prior
from bayes_mtl.inference.pilot import pilot
from bayes_mtl.inference.prechecks import hard_to_tell_apart, noise_free
from bayes_mtl.inference.row_correlation import row_correlation
from bayes_mtl.model import (
    AssembledModel,
    explicit_priors,
    is_chained,
    is_collapsed,
    outcome_units,
    sampling_model,
)
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import TaskMixture

# Coordinates look standard normal, so steps follow the motion that is exact for a standard normal: they turn
# position and velocity. A step of pi would return the mirror image, whose square is the same, so chains would
# never learn a variance; steps well below pi / 2 mix means and variances.
_ROTATING = {"exact_normal_trajectory": True, "max_step_size": 1.2}
_MAX_ROWS_TIMES_DRAWS = 2**26  # entries: half a GiB
_FEW_TASKS = 5  # which say little of their covariances


def fit(
    data: TaskData,
    spec: ModelSpec | None = None,
    *,
    draws: int = 1000,
    tune: int = 1000,
    chains: int = 4,
    cores: int | None = None,
    random_seed: int | np.random.Generator | None = None,
    target_accept: float | None = None,
    marginal: bool | Literal["auto"] = "auto",
    backend: Backend = "numba",
    progressbar: bool = True,
    log_likelihood: bool | Literal["auto"] = "auto",
    posterior_predictive: bool | Literal["auto"] = "auto",
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
        For draws that can be repeated on one machine, to the last digit; other machines may
        round differently.
    target_accept : float, optional
        Acceptance rate that the step size aims at. Default: 0.8; for up to five tasks 0.95, since so few say
        little of their covariances, along whose edges longer steps diverge; 0.9 where coefficients move along
        factors (`LowRank` as feature covariance, the default from four coefficients on).
    marginal : {"auto", True, False}
        Whether coefficients are integrated out while sampling; see `build_model`. The result has the
        same variables either way. "auto": for Gaussian outcomes, unless any two of many tasks may be
        related (`LKJ` over tasks): integrating T tasks with P features out then costs (T P)³, and
        sampling them is faster.
    backend : {"numba", "jax"}
        What compiles the model. "jax" needs the extra ``bayes_mtl[jax]``.
    progressbar : bool
        Show progress, in a terminal or a notebook.
    log_likelihood : {"auto", True, False}
        Store the pointwise log-likelihood, and the log prior densities of the hyperparameters. "auto": unless
        the former takes more than half a GiB.
    posterior_predictive : {"auto", True, False}
        Store an outcome of every row for every draw. "auto": as above.

    Returns
    -------
    DataTree
        ``posterior`` (hyperparameters, ``beta``, and what else `build_model` leaves free), ``sample_stats``,
        ``log_likelihood``, ``log_prior``, ``posterior_predictive``, ``observed_data``, ``constant_data``, and
        ``prior`` (draws of the same variables from the prior, so that a summary can say what the data
        added). Description and design are in its attributes.
        Rows are in the order of the table that the data came from: the coordinate ``row`` is its index (of
        a wide table together with the coordinate ``outcome``).
        Of structures with loadings, ``task_corr`` is stored up to 128 MiB (65 tasks with 4,000 draws);
        `task_correlation` computes what it needs from ``task_loadings``.
        An interrupt (Ctrl-C) while sampling returns the draws that are there; afterwards, all draws, and of
        the other groups those that are there.

    Raises
    ------
    SpecError
        If description, data or arguments do not fit together; before anything is compiled.
    DataError
        If the outcome has no noise, so that there is no posterior of `sigma`; before sampling.

    Warns
    -----
    DataWarning
        If the rows cannot tell apart what is asked for, or residuals of outcomes in one row are correlated.
    ConvergenceWarning
        If the draws should not be trusted; says why and what to do.

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> data = mtl.TaskData.from_table(df, task="school", formula="normexam ~ standLRT")  # doctest: +SKIP
    >>> idata = mtl.fit(data, mtl.ModelSpec(task_covariance=mtl.LowRank(2)))              # doctest: +SKIP
    """
    spec = ModelSpec() if spec is None else spec
    asked: dict[str, Any] = {"draws": draws, "tune": tune, "chains": chains, "cores": cores}
    asked |= {"target_accept": target_accept, "backend": backend, "progressbar": progressbar}
    asked |= {"log_likelihood": log_likelihood, "posterior_predictive": posterior_predictive}
    _check(data, spec, asked)
    if target_accept is None:
        target_accept = _target_accept(spec, data)
    seeds = _seeds(random_seed)
    if isinstance(spec.family, Gaussian) and ((data.y == 0) | (data.y == 1)).all():
        said = "The outcome is 0 or 1 in every row, and the family is Gaussian; two classes are 'bernoulli'."
        warnings.warn(said, DataWarning, stacklevel=2)
    for sentence in hard_to_tell_apart(spec, data):
        warnings.warn(sentence, DataWarning, stacklevel=2)
    collapsed = is_collapsed(spec, marginal) and not (marginal == "auto" and is_chained(spec, data))
    levels = None
    if data.groupings:
        rows, levels = level_pilot(spec, data)
    else:
        rows = data.pseudo_rows if spec.family.gaussian_coefficients else pilot(spec, data)
    assembled = sampling_model(spec, data, collapsed=collapsed, rows=rows, levels=levels)
    description = describe(explicit_priors(spec, data), data.schema, version("bayes_mtl"), given=spec)
    graph = density_graph(assembled, spec, data)
    if graph is not None and backend == "numba":
        graph.begin()
    prior = prior_draws(assembled, data, seeds[1])  # first, so that what fails here costs no sampling
    started = time.perf_counter()
    settings = {
        "draws": draws,
        "tune": tune,
        "chains": chains,
        "cores": cores or min(chains, os.cpu_count() or 1),
        "seed": seeds[0],
        "target_accept": target_accept,
    }
    trace = sample(graph, backend, progressbar, settings)
    elapsed = time.perf_counter() - started

    def with_all_variables(raw: xr.Dataset) -> xr.Dataset:
        rng = np.random.default_rng(seeds[2])
        posterior, hyper = evaluate(assembled, raw, data)
        found = coefficients(assembled, hyper, raw, data, spec, rows, rng, collapsed=collapsed)
        return with_coefficients(posterior, found, hyper, assembled, data)

    trace, posterior, interrupted = recovered(trace, with_all_variables)
    n_draws = posterior.sizes["chain"] * posterior.sizes["draw"]
    groups: dict[str, xr.Dataset] = {
        "posterior": posterior,
        "sample_stats": sample_stats(trace),
        "prior": prior,
        "observed_data": xr.Dataset({"y": ("row", in_table_order(data, data.y))}, coords=row_coords(data)),
        "constant_data": constant_data(data).assign(outcome_unit=outcome_units(spec, data).scale),
    }
    idata = xr.DataTree.from_dict(groups)
    idata.attrs.update(description)
    complete = int(n_draws >= draws * chains)
    idata.attrs.update(sampling_time=elapsed, tuning_steps=tune, collapsed=int(collapsed), complete=complete)
    idata.attrs["target_accept"] = target_accept
    if isinstance(random_seed, int | np.integer):
        idata.attrs["random_seed"] = int(random_seed)
    small = n_draws * data.n_rows <= _MAX_ROWS_TIMES_DRAWS

    def check() -> None:
        diagnosis = diagnose(idata)
        keep(idata, diagnosis)
        if diagnosis.problems:
            warnings.warn(str(diagnosis), ConvergenceWarning, stacklevel=4)

    def check_rows() -> None:
        between = row_correlation(idata)
        if between is not None and between.matters:
            warnings.warn(str(between), DataWarning, stacklevel=4)

    def add(group: str, compute: Callable[[], xr.Dataset]) -> tuple[str, Callable[[], None]]:
        def step() -> None:
            idata[group] = xr.DataTree(compute())

        return group, step

    steps = [("diagnostics (summary computes them)", check), ("check of outcomes of one row", check_rows)]
    if small if log_likelihood == "auto" else log_likelihood:
        steps.append(add("log_likelihood", lambda: of_rows.log_likelihood(idata)))
        steps.append(add("log_prior", lambda: log_prior(spec, data, posterior)))
    if small if posterior_predictive == "auto" else posterior_predictive:
        idata.attrs["posterior_predictive_seed"] = seeds[3]
        steps.append(add("posterior_predictive", lambda: of_rows.posterior_predictive(idata, seeds[3])))
    if not as_far_as_there_is_time(steps, interrupted=interrupted):
        idata.attrs["complete"] = 0
    return idata


def check_sampler(options: Mapping[str, Any]) -> None:
    """Check arguments that are handed on to `fit`, before it is known whether anything will be fitted.

    Raises
    ------
    SpecError
        If `fit` has no such argument, or would refuse its value.
    """
    known = {
        name: argument.default
        for name, argument in signature(fit).parameters.items()
        if argument.kind is Parameter.KEYWORD_ONLY
    }
    findings = [
        Finding(name, "is not an argument of `fit`", f"These are: {', '.join(known)}")
        for name in options
        if name not in known
    ]
    raise_if_any([*findings, *_findings_of_settings({**known, **options})], SpecError)


def _findings_of_settings(asked: Mapping[str, Any]) -> list[Finding]:
    findings = truth_findings("progressbar", asked["progressbar"])
    for name in ("draws", "tune", "chains", "cores"):
        value = asked[name]
        if name == "cores" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            findings.append(Finding(name, f"should be an integer of at least 1, found {value!r}"))
    target = asked["target_accept"]
    if target is not None and not (isinstance(target, Real) and 0.0 < float(target) < 1.0):
        findings.append(
            Finding(
                "target_accept",
                f"should be between 0 and 1, found {target!r}",
                "Default 0.8, or 0.95 for few tasks",
            )
        )
    for name in ("log_likelihood", "posterior_predictive"):
        value = asked[name]
        if not (isinstance(value, bool) or (isinstance(value, str) and value == "auto")):
            findings.append(Finding(name, f"should be True, False or 'auto', found {value!r}"))
    backend = asked["backend"]
    if backend not in ("numba", "jax"):
        findings.append(Finding("backend", f"should be 'numba' or 'jax', found {backend!r}"))
    elif backend == "jax" and find_spec("jax") is None:
        findings.append(
            Finding("backend", "is 'jax', which is not installed", 'pip install "bayes_mtl[jax]"')
        )
    return findings


def _check(data: TaskData, spec: ModelSpec, asked: Mapping[str, Any]) -> None:
    if not isinstance(data, TaskData):
        hint = "Build it with TaskData.from_table"
        raise SpecError(Finding("data", f"should be a TaskData, found {type(data).__name__}", hint))
    if not isinstance(spec, ModelSpec):
        raise SpecError(Finding("spec", f"should be a ModelSpec, found {type(spec).__name__}"))
    raise_if_any([*_findings_of_settings(asked), *spec.findings(data)], SpecError)
    raise_if_any(noise_free(spec, data), DataError)


def _seeds(random_seed: Any) -> list[int]:
    return [int(s) for s in generator(random_seed).integers(0, 2**31 - 1, size=4)]


def sample(
    graph: DensityGraph | None, backend: Backend, progressbar: bool, settings: dict[str, Any]
) -> xr.DataTree:
    """Run the chains; return draws of the free variables, and what the sampler says of them."""
    if graph is None:
        return _without_sampling(settings["chains"], settings["draws"])
    import nutpie  # loads slowly

    density = compile_density(graph, backend=backend, progress=progressbar).in_laplace_coordinates()
    compiled = nutpie_model(density)
    trace = nutpie.sample(compiled, progress_bar=progressbar, save_warmup=False, **_ROTATING, **settings)
    trace = _whole_chains(trace, settings["chains"] * settings["draws"])
    draws = density.constrain(trace["posterior"]["position"].to_numpy())
    return xr.DataTree.from_dict({"posterior": draws, "sample_stats": trace["sample_stats"].to_dataset()})


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


def _target_accept(spec: ModelSpec, data: TaskData) -> float:
    """Return the default: higher where the posterior of covariances has edges."""
    if data.n_tasks <= _FEW_TASKS:
        return 0.95
    return 0.8 if spec.feature_covariance_of(data).has_one_mode else 0.9


@without_collections()
def density_graph(assembled: AssembledModel, spec: ModelSpec, data: TaskData) -> DensityGraph | None:
    """Return what is sampled, or None if everything is fixed."""
    if not assembled.model.free_RVs:
        return None
    structure = spec.task_covariance
    one_mode = [structure.has_one_mode, spec.feature_covariance_of(data).has_one_mode]
    one_mode += [levels.has_one_mode for levels in spec.groupings.values()]
    return DensityGraph(
        assembled.model,
        has_one_mode=all(one_mode),
        has_modes=isinstance(structure, TaskMixture) and structure.has_centres,
    )
