"""What the machine is, and what its memory and its exponential function cost."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("bayes_mtl", "pymc", "pytensor", "nutpie", "arviz", "numpy", "numba", "pystan", "httpstan")


def describe() -> str:
    """Return processor, memory, load and versions, one per line."""
    load = os.getloadavg()[0]
    busy = " (others are using this machine: times are too long)" if load > 0.5 else ""
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return "\n".join(
        [
            f"- processor: {_processor()}, {cores()} cores",
            f"- memory: {gib:.0f} GiB",
            f"- load average before the start: {load:.2f}{busy}",
            f"- {platform.system()}, Python {platform.python_version()}, "
            + ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        ]
    )


def cores() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def best_time(call: Callable[[], Any], repeats: int = 5) -> float:
    """Return the seconds of the fastest of several calls."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def read_bandwidth(threads: int, gigabytes: float = 1.0) -> float:
    """Return GB/s of summing an array much larger than the caches, best of several passes."""
    import numba

    values = np.ones(int(gigabytes * 1e9 / 8))
    parallel, single = _sums()
    if threads > 1:
        numba.set_num_threads(threads)
    total = parallel if threads > 1 else single
    total(values)
    return values.nbytes / best_time(lambda: total(values), 7) / 1e9


def exp_nanoseconds(values: np.ndarray) -> float:
    """Return what one exponential costs in a plain compiled loop over these values."""
    import numba

    @numba.njit
    def loop(x, out):
        for i in range(len(x)):
            out[i] = np.exp(x[i])

    out = np.empty_like(values)
    loop(values, out)
    return best_time(lambda: loop(values, out), 20) / len(values) * 1e9


@cache
def _sums() -> tuple[Callable[..., float], Callable[..., float]]:
    import numba

    def total(x):
        s = 0.0
        for i in numba.prange(len(x)):
            s += x[i]
        return s

    # fastmath: otherwise the additions wait for each other, and the processor is measured instead.
    return numba.njit(total, parallel=True, fastmath=True), numba.njit(total, fastmath=True)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
