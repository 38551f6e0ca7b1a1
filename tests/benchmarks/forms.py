"""The same model five ways: this package, PyMC by hand and Stan by hand, centered and not.

Every form has the priors of `workloads.model_spec`. The hand-written ones are what a competent user writes.
"""

from __future__ import annotations

import re
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.benchmarks.workloads import (
    BETA_MEAN_SD,
    LKJ_ETA,
    N_FEATURES,
    Table,
    Workload,
    model_spec,
    task_data,
)

OURS = "bayes_mtl"
FORMS = (OURS, "pymc centered", "pymc non-centered", "stan centered", "stan non-centered")
OnCompiled = Callable[[float], None]
TARGET_ACCEPT = 0.8  # of the hand-written forms; this package keeps its default


@dataclass(frozen=True)
class Settings:
    """How much to sample."""

    chains: int = 2
    tune: int = 1000
    draws: int = 1000
    seed: int = 1


@dataclass
class Run:
    """Draws of the hyperparameters, arrays with axes (chain, draw, ...), and what they cost.

    `rest` is what the call took beyond compiling and sampling (for this package: prior draws, coefficients,
    diagnostics); `leapfrog_steps` includes the warm-up.
    """

    hyper: dict[str, np.ndarray]
    compiling: float
    sampling: float
    rest: float
    leapfrog_steps: int
    steps_per_draw: float
    divergences: int
    tree: Any = field(default=None, repr=False)


def ignore(seconds: float) -> None:
    """Do nothing when sampling begins."""


def run_form(
    form: str,
    workload: Workload,
    table: Table,
    settings: Settings,
    on_compiled: OnCompiled = ignore,
) -> Run:
    """Fit one form; `on_compiled` is called when sampling begins."""
    if form == OURS:
        return run_ours(workload, table, settings, on_compiled)
    language, _, parametrisation = form.partition(" ")
    run = {"pymc": run_pymc, "stan": run_stan}[language]
    return run(workload, table, settings, on_compiled, parametrisation == "centered")


# This package -----------------------------------------------------------------------------------------------


def run_ours(
    workload: Workload,
    table: Table,
    settings: Settings,
    on_compiled: OnCompiled,
    **options: Any,
) -> Run:
    """Call `fit`, with the same amount of sampling and otherwise its defaults."""
    import bayes_mtl as mtl

    data, spec = task_data(table), model_spec(workload)
    options = {"log_likelihood": False} | options  # the hand-written forms store none
    return clocked_fit(mtl.fit, data, spec, settings, on_compiled, **options)


def clocked_fit(
    fit: Callable[..., Any],
    data: Any,
    spec: Any,
    settings: Settings,
    on_compiled: OnCompiled = ignore,
    **options: Any,
) -> Run:
    """Call `fit` and divide its time into compiling, sampling and the rest."""
    with nutpie_clock(on_compiled) as clock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few draws warn; the table shows R-hat and divergences
        started = time.perf_counter()
        tree = fit(
            data,
            spec,
            chains=settings.chains,
            tune=settings.tune,
            draws=settings.draws,
            random_seed=settings.seed,
            progressbar=False,
            **options,
        )
        elapsed = time.perf_counter() - started
    return clock.run(hyperparameters(tree["posterior"]), elapsed, tree)


@dataclass
class Clock:
    """What compiling took, and everything from then to the end of sampling, and the traces."""

    compiling: float = 0.0
    sampling: float = 0.0
    ready: float = 0.0
    traces: list[Any] = field(default_factory=list)

    def run(self, hyper: dict[str, np.ndarray], elapsed: float, tree: Any = None) -> Run:
        """Put the costs beside the draws."""
        if not self.traces:
            raise RuntimeError("nutpie.sample was not called: this clock does not know the sampling time")
        stats = self.traces[-1]["sample_stats"]
        groups = ("warmup_sample_stats", "sample_stats")
        return Run(
            hyper=hyper,
            compiling=self.compiling,
            sampling=self.sampling,
            rest=elapsed - self.compiling - self.sampling,
            leapfrog_steps=sum(int(t[g]["n_steps"].sum()) for t in self.traces for g in groups),
            steps_per_draw=float(stats["n_steps"].mean()),
            divergences=int(stats["diverging"].sum()),
            tree=tree,
        )


@contextmanager
def nutpie_clock(on_compiled: OnCompiled = ignore) -> Any:
    """Time compiling and sampling inside the block, and make nutpie keep the warm-up's leapfrog steps."""
    import nutpie

    ours = sys.modules.get("bayes_mtl.inference.fit")  # compiles by itself
    clock = Clock()
    compile_model, sample = nutpie.compile_pymc_model, nutpie.sample
    compile_density = getattr(ours, "compile_density", None)

    def timed(compile_anything: Callable[..., Any]) -> Callable[..., Any]:
        def timed_compile(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            compiled = compile_anything(*args, **kwargs)
            clock.compiling += time.perf_counter() - started
            on_compiled(clock.compiling)
            clock.ready = time.perf_counter()
            return compiled

        return timed_compile

    def timed_sample(*args: Any, **kwargs: Any) -> Any:
        trace = sample(*args, **(kwargs | {"save_warmup": True}))
        clock.sampling += time.perf_counter() - clock.ready
        clock.traces.append(trace)
        return trace

    nutpie.compile_pymc_model, nutpie.sample = timed(compile_model), timed_sample
    if ours is not None:
        ours.compile_density = timed(ours.compile_density)
    try:
        yield clock
    finally:
        nutpie.compile_pymc_model, nutpie.sample = compile_model, sample
        if ours is not None:
            ours.compile_density = compile_density


def hyperparameters(posterior: Any) -> dict[str, np.ndarray]:
    """Return the hyperparameters, each free number of a correlation matrix once."""
    names = ("beta_mean", "feature_sd", "feature_corr", "task_corr", "sigma")
    found = {name: np.asarray(posterior[name]) for name in names if name in posterior}
    return {name: below_diagonal(v) if name.endswith("_corr") else v for name, v in found.items()}


def below_diagonal(matrices: np.ndarray) -> np.ndarray:
    """Return the entries below the diagonal along one axis."""
    rows, columns = np.tril_indices(matrices.shape[-1], -1)
    return matrices[..., rows, columns]


# PyMC -------------------------------------------------------------------------------------------------------


def pymc_model(workload: Workload, table: Table, *, centered: bool) -> Any:
    """Write the model in PyMC."""
    import pymc as pm
    import pytensor.tensor as pt

    T, P = table.n_tasks, N_FEATURES
    with pm.Model() as model:
        X, task, y = pm.Data("X", table.X), pm.Data("task", table.task), pm.Data("y_observed", table.y)
        mu = pm.Normal("beta_mean", 0.0, BETA_MEAN_SD, shape=P)
        chol, corr, sd = pm.LKJCholeskyCov("chol", eta=LKJ_ETA, n=P, sd_dist=pm.HalfNormal.dist(1.0, shape=P))
        pm.Deterministic("feature_sd", sd)
        pm.Deterministic("feature_corr", corr)
        if workload.relation == "dense":
            task_chol = pm.LKJCorr("task_chol", n=T, eta=LKJ_ETA)
            pm.Deterministic("task_corr", task_chol @ task_chol.T)
        if centered and workload.relation == "dense":
            means = pt.ones((T, 1)) * mu
            beta = pm.MatrixNormal("beta", mu=means, rowchol=task_chol, colchol=chol, shape=(T, P))
        elif centered:
            beta = pm.MvNormal("beta", mu, chol=chol, shape=(T, P))
        else:
            z = pm.Normal("z", 0.0, 1.0, shape=(T, P))
            whitened = task_chol @ z if workload.relation == "dense" else z
            beta = pm.Deterministic("beta", mu + whitened @ chol.T)
        eta = (X * beta[task]).sum(-1)
        if workload.family == "bernoulli":
            pm.Bernoulli("y", logit_p=eta, observed=y)
        else:
            pm.Normal("y", eta, pm.HalfNormal("sigma", 1.0), observed=y)
    return model


def run_pymc(
    workload: Workload,
    table: Table,
    settings: Settings,
    on_compiled: OnCompiled,
    centered: bool,
) -> Run:
    """Sample it with nutpie, as `pm.sample` does, but with compilation apart."""
    import nutpie

    model = pymc_model(workload, table, centered=centered)
    with nutpie_clock(on_compiled) as clock:
        started = time.perf_counter()
        tree = nutpie.sample(
            nutpie.compile_pymc_model(model),
            draws=settings.draws,
            tune=settings.tune,
            chains=settings.chains,
            cores=settings.chains,
            seed=settings.seed,
            target_accept=TARGET_ACCEPT,
            progress_bar=False,
        )
        elapsed = time.perf_counter() - started
    return clock.run(hyperparameters(tree["posterior"]), elapsed, tree)


# Stan -------------------------------------------------------------------------------------------------------


def stan_program(workload: Workload, *, centered: bool) -> str:
    """Write the model in Stan."""
    dense, binary = workload.relation == "dense", workload.family == "bernoulli"
    outcome = "array[N] int<lower=0, upper=1> y;" if binary else "vector[N] y;"
    noise = "" if binary else "real<lower=0> sigma;"
    task_chol = "cholesky_factor_corr[T] K;" if dense else ""
    if not centered:
        coefficients = "matrix[T, P] z;"
        whitened = "K * z" if dense else "z"
        transformed = f"matrix[T, P] beta = rep_matrix(mu, T) + {whitened} * diag_pre_multiply(sd, L)';"
        prior = "to_vector(z) ~ std_normal();"
    elif dense:
        coefficients, transformed = "matrix[T, P] beta;", ""
        prior = """
          to_vector(mdivide_left_tri_low(
            diag_pre_multiply(sd, L), mdivide_left_tri_low(K, beta - rep_matrix(mu, T))')) ~ std_normal();
          target += -P * sum(log(diagonal(K))) - T * (sum(log(sd)) + sum(log(diagonal(L))));"""
    else:
        coefficients, transformed = "array[T] row_vector[P] b;", ""
        prior = """
          matrix[T, P] beta;
          for (t in 1:T) beta[t] = b[t];
          b ~ multi_normal_cholesky(mu, diag_pre_multiply(sd, L));"""
    likelihood = (
        "y ~ bernoulli_logit(rows_dot_product(X, beta[task]));"
        if binary
        else "sigma ~ std_normal(); y ~ normal(rows_dot_product(X, beta[task]), sigma);"
    )
    return f"""
      data {{
        int<lower=1> N; int<lower=1> T; int<lower=1> P;
        matrix[N, P] X; array[N] int<lower=1, upper=T> task; {outcome}
      }}
      parameters {{
        row_vector[P] mu; vector<lower=0>[P] sd; cholesky_factor_corr[P] L; {noise} {task_chol}
        {coefficients}
      }}
      transformed parameters {{ {transformed} }}
      model {{
        {prior}
        mu ~ normal(0, {BETA_MEAN_SD}); sd ~ std_normal(); L ~ lkj_corr_cholesky({LKJ_ETA});
        {f"K ~ lkj_corr_cholesky({LKJ_ETA});" if dense else ""}
        {likelihood}
      }}
      generated quantities {{
        matrix[P, P] feature_corr = multiply_lower_tri_self_transpose(L);
        {"matrix[T, T] task_corr = multiply_lower_tri_self_transpose(K);" if dense else ""}
      }}"""


def run_stan(
    workload: Workload,
    table: Table,
    settings: Settings,
    on_compiled: OnCompiled,
    centered: bool,
) -> Run:
    """Sample it with PyStan; the sampling time is Stan's own clock, of the slower chain."""
    import stan
    from httpstan.cache import model_directory

    columns = {"N": len(table.y), "T": table.n_tasks, "P": N_FEATURES}
    columns |= {"X": table.X.tolist(), "task": (table.task + 1).tolist(), "y": table.y.tolist()}
    started = time.perf_counter()
    program = stan_program(workload, centered=centered)
    posterior = stan.build(program, data=columns, random_seed=settings.seed)
    compiling = time.perf_counter() - started
    # PyStan would return the draws, and the times, of an earlier run with the same seed.
    shutil.rmtree(model_directory(posterior.model_name) / "fits", ignore_errors=True)
    on_compiled(compiling)
    fit = posterior.sample(
        num_chains=settings.chains,
        num_warmup=settings.tune,
        num_samples=settings.draws,
        delta=TARGET_ACCEPT,
        save_warmup=True,
    )
    elapsed = time.perf_counter() - started

    def chains(name: str) -> np.ndarray:
        values = fit[name].reshape(*fit[name].shape[:-1], -1, settings.chains)
        return np.moveaxis(values, (-1, -2), (0, 1))

    names = {"beta_mean": "mu", "feature_sd": "sd", "sigma": "sigma"}
    names |= {"feature_corr": "feature_corr", "task_corr": "task_corr"}
    draws = {k: chains(v)[:, settings.tune :] for k, v in names.items() if v in fit.param_names}
    if "sigma" in draws:
        draws["sigma"] = draws["sigma"][..., 0]
    steps = chains("n_leapfrog__")
    sampling = max(map(stan_seconds, fit.stan_outputs))
    return Run(
        hyper=hyperparameters(draws),
        compiling=compiling,
        sampling=sampling,
        rest=elapsed - compiling - sampling,
        leapfrog_steps=int(steps.sum()),
        steps_per_draw=float(steps[:, settings.tune :].mean()),
        divergences=int(chains("divergent__")[:, settings.tune :].sum()),
    )


def stan_seconds(output: bytes) -> float:
    """Return what Stan says that warm-up and sampling of one chain took."""
    found = re.search(rb"([\d.eE+-]+) seconds \(Total\)", output)
    if found is None:
        raise RuntimeError("Stan did not say how long it sampled")
    return float(found[1])
