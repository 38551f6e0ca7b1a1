"""One measurement in a process of its own: `python -m tests.benchmarks.worker JOB FOLDER`.

JOB is a JSON object with the function's name and arguments; the answer is written to FOLDER/result.json, and
FOLDER/compiled.json says when sampling begins. `compare` starts this.
"""

from __future__ import annotations

import ctypes
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

STARTED = time.time()

import numpy as np  # noqa: E402

from tests.benchmarks import machine  # noqa: E402
from tests.benchmarks.forms import OURS, Run, Settings, clocked_fit, run_form, run_ours  # noqa: E402
from tests.benchmarks.workloads import WORKLOADS, model_spec, simulate, task_data  # noqa: E402


def form(folder: Path, workload: str, size: int, form: str, settings: dict[str, int]) -> dict[str, Any]:
    """Fit one form of W1, W2 or W5."""
    description, options = WORKLOADS[workload], Settings(**settings)
    table = simulate(description, size, description.n_tasks, options.seed)
    run = run_form(form, description, table, options, _marker(folder))
    return _costs(run) | _quality(run.hyper) | {"rows": len(table.y)}


def rows(folder: Path, size: int, settings: dict[str, int]) -> dict[str, Any]:
    """W3: the pass over the rows, and a fit that should not depend on their number."""
    import bayes_mtl as mtl

    description, options = WORKLOADS["W3"], Settings(**settings)
    table = simulate(description, size // description.n_tasks, description.n_tasks, options.seed)
    started = time.perf_counter()
    data = task_data(table)
    reading = time.perf_counter() - started
    # A copy has nothing cached; the first call may compile.
    statistics = machine.best_time(lambda: replace(data).statistics, 4)
    run = clocked_fit(mtl.fit, data, model_spec(description), options, _marker(folder), log_likelihood=False)
    traffic = data.X.nbytes + data.y.nbytes
    more = {"rows": len(data.y), "reading": reading, "statistics": statistics}
    return _costs(run) | more | {"gigabytes_per_second": traffic / statistics / 1e9}


def tasks(folder: Path, size: int, settings: dict[str, int], full: bool) -> dict[str, Any]:
    """W4: the log density with its gradient; `full`: a whole fit instead, and its memory."""
    import bayes_mtl as mtl

    description, options = WORKLOADS["W4"], Settings(**settings)
    data = task_data(simulate(description, 40, size, options.seed))
    spec = model_spec(description)
    if not full:
        return gradient_seconds(spec, data, options.seed)
    # Without the clock: it keeps the warm-up, which would count as memory.
    before = _peak_gigabytes()
    started = time.perf_counter()
    tree = mtl.fit(
        data,
        spec,
        chains=options.chains,
        tune=options.tune,
        draws=options.draws,
        random_seed=options.seed,
        log_likelihood=False,
        progressbar=False,
    )
    return {
        "fit": time.perf_counter() - started,
        "sampling_with_compiling": float(tree.attrs["sampling_time"]),
        "peak": _peak_gigabytes(),
        "peak_before": before,
        "steps_per_draw": float(tree["sample_stats"]["n_steps"].mean()),
        "divergences": int(tree["sample_stats"]["diverging"].sum()),
    } | _quality({k: np.asarray(tree["posterior"][k]) for k in ("beta_mean", "feature_sd", "sigma")})


def gradient_seconds(spec: Any, data: Any, seed: int) -> dict[str, Any]:
    """Time the compiled function that the sampler calls, without the sampler."""
    from bayes_mtl.inference.density import compile_density
    from bayes_mtl.model import sampling_model

    density = compile_density(sampling_model(spec, data, collapsed=True, rows=data.pseudo_rows).model)
    code = density.machine_code
    assert code is not None
    function = code.log_density.ctypes  # of (dimension, x, gradient, value, data), pointers
    x = np.random.default_rng(seed).normal(0.0, 0.1, density.size)
    gradient, value = np.empty_like(x), np.zeros(1)
    types = list(function.argtypes)
    arrays = (x.ctypes.data, gradient.ctypes.data, value.ctypes.data, code.data.ctypes.data)
    arguments = [density.size, *(ctypes.cast(a, t) for a, t in zip(arrays, types[1:], strict=True))]
    if function(*arguments) != 0 or not np.isfinite(value[0]):
        raise RuntimeError("the log density cannot be evaluated where it is timed")
    calls = max(1, int(0.2 / machine.best_time(lambda: function(*arguments), 3)))

    def many() -> None:
        for _ in range(calls):
            function(*arguments)

    return {"gradient": machine.best_time(many, 7) / calls, "dimensions": density.size}


def kernel(folder: Path, size: int, seed: int) -> dict[str, Any]:
    """W6: the Bernoulli likelihood and its gradient against reading X once and one exponential per row."""
    description = replace(WORKLOADS["W6"], family="bernoulli")
    table = simulate(description, size // description.n_tasks, description.n_tasks, seed)
    beta = 0.3 * np.random.default_rng(seed).standard_normal((table.n_tasks, table.X.shape[1]))
    call = _bernoulli_call(table, beta)
    call()
    n = len(table.y)
    return {
        "rows": n,
        "kernel": machine.best_time(call, 15) / n * 1e9,
        "read": table.X.nbytes / machine.read_bandwidth(1) / n,
        "exp": machine.exp_nanoseconds(-np.abs((table.X * beta[table.task]).sum(axis=1))),
    }


def _bernoulli_call(table: Any, beta: np.ndarray) -> Callable[[], Any]:
    """Compile value and gradient of the fused operation; the one place that knows its arguments."""
    import pytensor
    import pytensor.tensor as pt

    from bayes_mtl.kernels import bernoulli_tasks

    starts = np.searchsorted(table.task, np.arange(table.n_tasks + 1)).astype(np.int64)
    columns = np.ascontiguousarray(table.X.T)
    arrays = (beta, table.y.astype(np.int8), columns, np.ones(1), np.zeros(1), starts)
    inputs = [pt.tensor(dtype=str(a.dtype), shape=(None,) * a.ndim) for a in arrays]
    value = bernoulli_tasks(*inputs)
    function = pytensor.function(inputs, [value, pytensor.grad(value, inputs[0])], mode="NUMBA")
    function.trust_input = True
    return lambda: function(*arrays)


def start_up(folder: Path, form: str, size: int, settings: dict[str, int], launched: float) -> dict[str, Any]:
    """From the start of the process to the first summary."""
    description, options = WORKLOADS["W1"], Settings(**settings)
    stamps = {"python and numpy": STARTED - launched}
    table = simulate(description, size, description.n_tasks, options.seed)
    before = time.time()
    stamps["imports of the driver, data"] = before - STARTED
    if form == OURS:
        import bayes_mtl as mtl

        imported = time.time()
        run = run_ours(description, table, options, _marker(folder), log_likelihood="auto")
    else:
        import arviz as az
        import pymc  # noqa: F401

        imported = time.time()
        run = run_form(form, description, table, options, _marker(folder))
    fitted = time.time()
    if form == OURS:
        str(mtl.summary(run.tree))
    else:
        str(az.summary(run.tree, var_names=["beta_mean", "feature_sd", "feature_corr", "sigma"]))
    finished = time.time()
    stamps |= {"imports": imported - before, "compiling": run.compiling, "sampling": run.sampling}
    stamps |= {"rest of the fit": fitted - imported - run.compiling - run.sampling}
    stamps |= {"summary": finished - fitted}
    return {"total": finished - launched, "phases": stamps}


def bandwidth(folder: Path) -> dict[str, Any]:
    """Memory read bandwidth of one thread and of as many threads as cores."""
    return {"one": machine.read_bandwidth(1), "all": machine.read_bandwidth(machine.cores())}


def _costs(run: Run) -> dict[str, Any]:
    names = ("compiling", "sampling", "rest", "leapfrog_steps", "steps_per_draw", "divergences")
    return {name: getattr(run, name) for name in names}


def _quality(hyper: dict[str, np.ndarray]) -> dict[str, Any]:
    """Least ESS, largest R-hat, and mean and Monte Carlo error of every hyperparameter."""
    import arviz as az
    import xarray as xr

    flat = np.concatenate([v.reshape(*v.shape[:2], -1) for _, v in sorted(hyper.items())], axis=2)
    draws = xr.Dataset({"x": (("chain", "draw", "number"), flat)})
    number = {
        "ess": az.ess(draws, method="bulk"),
        "r_hat": az.rhat(draws),
        "error": az.mcse(draws, method="mean"),
    }
    number = {key: found["x"].to_numpy() for key, found in number.items()}
    return {
        "ess": float(number["ess"].min()),
        "r_hat": float(number["r_hat"].max()),
        "means": flat.mean(axis=(0, 1)).tolist(),
        "errors": number["error"].tolist(),
    }


def _marker(folder: Path) -> Callable[[float], None]:
    def mark(seconds: float) -> None:
        (folder / "compiled.json").write_text(json.dumps({"compiling": seconds}))

    return mark


def _peak_gigabytes() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


JOBS = {job.__name__: job for job in (form, rows, tasks, kernel, start_up, bandwidth)}


def main() -> None:
    job, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    answer = JOBS[job.pop("job")](folder, **job)
    (folder / "result.json").write_text(json.dumps(answer))


if __name__ == "__main__":
    main()
