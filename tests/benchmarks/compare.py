"""This package beside PyMC and Stan by hand, on this machine, in one run.

    python -m tests.benchmarks.compare                        # W1 to W6, hours
    python -m tests.benchmarks.compare --workload W1 --rows 400
    python -m tests.benchmarks.compare --start-up             # process start to summary, cold and warm
    python -m tests.benchmarks.compare --quick                # does everything run? the numbers mean nothing

Prints markdown. Every form and every size runs in a process of its own. Stan needs `pystan` and a compiler;
without `pystan` its forms are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import machine
from tests.benchmarks.forms import FORMS, OURS
from tests.benchmarks.workloads import WORKLOADS, Workload

Result = dict[str, Any]


class Bench:
    """The options, and the way to run a job in a process."""

    def __init__(self, options: argparse.Namespace):
        self.limit: float = options.limit
        self.quick: bool = options.quick
        self.rows: list[int] = options.rows
        self.forms: list[str] = options.form or list(FORMS)
        draws = options.draws or (300 if options.quick else 1000)
        self.settings = {"chains": 2, "tune": draws, "draws": draws, "seed": options.seed}

    def sizes(self, workload: Workload) -> Sequence[int]:
        """Return the sizes that were asked for; a smoke run takes the smallest."""
        return self.rows or (workload.sizes[:1] if self.quick else workload.sizes)

    def run(self, job: str, *, environment: dict[str, str] | None = None, **arguments: Any) -> Result:
        """Return the job's answer, or ``over`` (it hit the limit) or ``failed`` (it broke)."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            text = json.dumps({"job": job, **arguments})
            command = [sys.executable, "-m", "tests.benchmarks.worker", text, name]
            with (folder / "log").open("w") as log:
                process = subprocess.Popen(
                    command,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                )
                try:
                    over = self._wait(process, folder / "compiled.json")
                finally:
                    _end(process)
            compiled = folder / "compiled.json"
            if over:
                return {"over": over, **(json.loads(compiled.read_text()) if compiled.exists() else {})}
            if process.returncode or not (folder / "result.json").exists():
                print((folder / "log").read_text()[-3000:], file=sys.stderr, flush=True)
                return {"failed": process.returncode}
            return json.loads((folder / "result.json").read_text())

    def _wait(self, process: subprocess.Popen[bytes], compiled: Path) -> float:
        """Wait for the end: `limit` seconds for compiling, and as many again for sampling."""
        for until_compiled in (True, False):
            deadline = time.monotonic() + self.limit
            while time.monotonic() < deadline:
                if until_compiled and compiled.exists():
                    break
                try:
                    process.wait(timeout=0.2)
                except subprocess.TimeoutExpired:
                    continue
                return 0.0
            else:
                return self.limit
        return self.limit


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process, and the chains that it may have started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def compare_forms(bench: Bench, key: str) -> None:
    """W1, W2, W5: effective draws per second, form by form."""
    workload = WORKLOADS[key]
    for size in bench.sizes(workload):
        print(f"\n### {size} {workload.unit}\n")
        results = {}
        table = Table(
            "form",
            "min ESS",
            "ESS/s",
            "ESS/gradient",
            "steps/draw",
            "divergences",
            "max R-hat",
            "compile s",
            "sampling s",
            "rest s",
            "means, MCSE",
        )
        for form in bench.forms:
            if form.startswith("stan") and importlib.util.find_spec("stan") is None:
                table.row(form, "not measured: pystan is not installed")
                continue
            found = bench.run("form", workload=key, size=size, form=form, settings=bench.settings)
            results[form] = found
            table.row(form, *_form_cells(found, results.get(OURS), bench))
        _verdict(workload, size, results, bench)


def _form_cells(found: Result, ours: Result | None, bench: Bench) -> list[str]:
    if "failed" in found:
        return ["failed"]
    if "over" in found:
        compiling = f"{found['compiling']:.0f}" if "compiling" in found else f"over {found['over']:.0f}"
        if "compiling" not in found:
            return ["-", "-", "-", "-", "-", "-", compiling, "-", "-", "-"]
        speed = f"< {_speed(found, bench):.3g}"
        return ["-", speed, "-", "-", "-", "-", compiling, f"over {found['over']:.0f}", "-", "-"]
    return [
        f"{found['ess']:.0f}",
        f"{_speed(found, bench):.3g}",
        f"{found['ess'] / found['leapfrog_steps']:.2g}",
        f"{found['steps_per_draw']:.0f}",
        f"{found['divergences']}",
        f"{found['r_hat']:.3f}",
        f"{found['compiling']:.0f}",
        f"{found['sampling']:.1f}",
        f"{found['rest']:.1f}",
        "-" if ours is None or ours is found or "means" not in ours else _disagreement(found, ours),
    ]


def _speed(found: Result, bench: Bench) -> float:
    """Return least ESS per second of sampling; after the limit, all draws over the limit bound it."""
    if "over" in found:
        return bench.settings["chains"] * bench.settings["draws"] / found["over"]
    return found["ess"] / found["sampling"]


def _disagreement(a: Result, b: Result) -> str:
    """Return typical and largest difference of posterior means in units of its Monte Carlo error."""
    numbers = zip(a["means"], b["means"], a["errors"], b["errors"], strict=True)
    z = [abs(x - y) / (e**2 + f**2) ** 0.5 for x, y, e, f in numbers]
    return f"{(sum(v * v for v in z) / len(z)) ** 0.5:.1f}, {max(z):.1f}"


def _verdict(workload: Workload, size: int, results: dict[str, Result], bench: Bench) -> None:
    ours = results.get(OURS, {"failed": 1})
    rivals = {f: r for f, r in results.items() if f in workload.rivals and "failed" not in r}
    rivals = {f: r for f, r in rivals.items() if "over" not in r or "compiling" in r}
    if "sampling" not in ours or not rivals:
        print("\nNo ratio: one side was not measured to the end.")
        return
    best = max(rivals, key=lambda f: _speed(rivals[f], bench))
    ratio = _speed(ours, bench) / _speed(rivals[best], bench)
    more = "more than " if "over" in rivals[best] else ""
    bar = dict(workload.bars).get(size)
    aim = f" (bar: {bar:g})" if bar else ""
    among = "" if len(workload.rivals) == 4 else " among the Stan forms"
    print(
        f"\n{ours['rows']} rows. {OURS} / best other form{among} ({best}): **{more}{ratio:.1f}**{aim}; ",
        end="",
    )
    print(f"{ours['divergences']} divergences.")


def compare_rows(bench: Bench) -> None:
    """W3: the rows are read once, and then do not matter."""
    bandwidth = bench.run("bandwidth")
    print(f"\nMemory read bandwidth: {bandwidth['one']:.1f} GB/s by one thread, ", end="")
    print(f"{bandwidth['all']:.1f} GB/s by {machine.cores()}.\n")
    table = Table(
        "rows",
        "from_arrays s",
        "statistics s",
        "GB/s of X and y",
        "of bandwidth",
        "compile s",
        "sampling s",
        "steps/draw",
        "us/step",
        "rest s",
    )
    sampling, per_step = {}, {}
    sizes = bench.rows or (WORKLOADS["W3"].sizes[:2] if bench.quick else WORKLOADS["W3"].sizes)
    for size in sizes:
        found = bench.run("rows", size=size, settings=bench.settings)
        if "sampling" not in found:
            table.row(str(size), "failed" if "failed" in found else f"over {bench.limit:.0f} s")
            continue
        sampling[size] = found["sampling"]
        # Chains run at the same time, each on a core of its own.
        per_step[size] = found["sampling"] / (found["leapfrog_steps"] / bench.settings["chains"]) * 1e6
        table.row(
            f"{found['rows']}",
            f"{found['reading']:.2f}",
            f"{found['statistics']:.4f}",
            f"{found['gigabytes_per_second']:.2f}",
            f"{found['gigabytes_per_second'] / bandwidth['all']:.2f}",
            f"{found['compiling']:.0f}",
            f"{found['sampling']:.2f}",
            f"{found['steps_per_draw']:.0f}",
            f"{per_step[size]:.0f}",
            f"{found['rest']:.1f}",
        )
    if len(sampling) > 1:
        first, last = min(sampling), max(sampling)
        longer, slower = sampling[last] / sampling[first], per_step[last] / per_step[first]
        print(f"\n{last / first:.0f} times the rows: sampling takes **{longer:.2f}** times as long, ", end="")
        print(f"a leapfrog step {slower:.2f} times.")


def compare_tasks(bench: Bench) -> None:
    """W4: what a gradient costs per task, and a whole fit of many tasks."""
    print("\nIntercepts are independent of the factors, as by default.\n")
    table = Table("tasks", "dimensions", "gradient us", "us per task")
    sizes = bench.rows or (WORKLOADS["W4"].sizes[:2] if bench.quick else WORKLOADS["W4"].sizes)
    for size in sizes:
        found = bench.run("tasks", size=size, settings=bench.settings, full=False)
        if "gradient" not in found:
            table.row(str(size), "failed" if "failed" in found else f"over {bench.limit:.0f} s")
            continue
        micro = found["gradient"] * 1e6
        table.row(str(size), str(found["dimensions"]), f"{micro:.0f}", f"{micro / size:.3f}")
    size = sizes[0] if bench.quick else max(sizes)
    found = bench.run("tasks", size=size, settings=bench.settings, full=True)
    if "fit" not in found:
        print(f"\nFit of {size} tasks: ", "failed" if "failed" in found else f"over {bench.limit:.0f} s")
        return
    print(
        f"\nFit of {size} tasks, 2 chains x {bench.settings['draws']} draws: **{found['fit']:.0f} s**, "
        f"of which {found['sampling_with_compiling']:.0f} s\ncompiling and sampling; peak memory "
        f"**{found['peak']:.2f} GiB** ({found['peak_before']:.2f} before `fit`);\n"
        f"{found['steps_per_draw']:.0f} steps a draw, {found['divergences']} divergences, "
        f"least ESS {found['ess']:.0f}, largest R-hat {found['r_hat']:.3f} of means and scales."
    )


def compare_kernel(bench: Bench) -> None:
    """W6: the Bernoulli likelihood against what it cannot do without."""
    table = Table("rows", "kernel ns/row", "one read of X ns/row", "one exp ns/row", "ratio")
    for size in bench.sizes(WORKLOADS["W6"]):
        found = bench.run("kernel", size=size, seed=bench.settings["seed"])
        if "kernel" not in found:
            table.row(str(size), "failed")
            continue
        least = found["read"] + found["exp"]
        table.row(
            str(found["rows"]),
            f"{found['kernel']:.2f}",
            f"{found['read']:.2f}",
            f"{found['exp']:.2f}",
            f"**{found['kernel'] / least:.2f}**",
        )


def compare_start_up(bench: Bench) -> None:
    """Wall time from the start of a process to the first summary, with empty caches and full ones."""
    size = 20 if bench.quick else 400
    print(f"\n## Start-up: W1, {size} rows a task, process start to summary\n")
    table = None
    for form in (OURS, "pymc centered"):
        with tempfile.TemporaryDirectory() as cache:
            flags = os.environ.get("PYTENSOR_FLAGS", "")
            environment = {
                "PYTENSOR_FLAGS": ",".join(filter(None, [flags, f"base_compiledir={cache}/pytensor"])),
                "NUMBA_CACHE_DIR": f"{cache}/numba",
            }
            for state in ("cold", "warm"):
                launched = time.time()
                found = bench.run(
                    "start_up",
                    environment=environment,
                    form=form,
                    size=size,
                    settings=bench.settings,
                    launched=launched,
                )
                if "total" not in found:
                    print(
                        f"{form}, {state}: ", "failed" if "failed" in found else f"over {bench.limit:.0f} s"
                    )
                    continue
                if table is None:
                    table = Table("form", "caches", "total s", *found["phases"])
                table.row(
                    form, state, f"**{found['total']:.1f}**", *(f"{s:.1f}" for s in found["phases"].values())
                )


class Table:
    """A markdown table that grows on the screen."""

    def __init__(self, *columns: str):
        self.width = len(columns)
        self.row(*columns)
        self.row(*["---"] * self.width)

    def row(self, *cells: str) -> None:
        """Print one row; missing cells are empty."""
        filled = [*cells, *[""] * (self.width - len(cells))]
        print("| " + " | ".join(filled) + " |", flush=True)


NOTES = """\
min ESS: least bulk ESS over beta_mean, feature_sd, feature_corr, sigma and task_corr, as far as the model
has them; ESS/s: per second of sampling, warm-up included, compiling not; ESS/gradient: per leapfrog step of
all chains, warm-up included; steps/draw, divergences: of kept draws; compile: with whatever caches there
are (0 for Stan: built before); rest: what the call took beyond (prior draws, coefficients and diagnostics
here; data transfer for Stan, whose sampling time is its own clock); means: root mean square (about 1 if the
forms agree) and largest difference of posterior means from ours, in Monte Carlo standard errors. Hand-
written forms aim at an acceptance of 0.8, ours at its default. "over N": stopped after N seconds of
sampling; then "< x" is kept draws / N, a generous bound of its ESS/s.
"""


def main(arguments: Iterable[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--workload", action="append", choices=list(WORKLOADS), help="repeatable; default: all"
    )
    parser.add_argument(
        "--rows",
        type=int,
        nargs="+",
        default=[],
        help="sizes of one workload: rows a task (W1, W2, W5), rows in total (W3, W6), tasks (W4)",
    )
    parser.add_argument("--form", action="append", choices=FORMS, help="repeatable; default: all")
    parser.add_argument(
        "--start-up", action="store_true", help="process start to summary; alone unless --workload"
    )
    parser.add_argument("--quick", action="store_true", help="smallest sizes and few draws")
    parser.add_argument("--draws", type=int, help="draws and warm-up draws per chain; default 1000")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--limit", type=float, default=900.0, help="seconds of compiling, and of sampling, per form"
    )
    options = parser.parse_args(arguments)
    chosen = options.workload or ([] if options.start_up else list(WORKLOADS))
    if options.rows and len(chosen) != 1:
        parser.error("--rows needs one --workload")
    bench = Bench(options)
    size = f"2 chains x ({bench.settings['tune']} warm-up + {bench.settings['draws']} draws)"
    print(f"# Comparison, {size}, seed {options.seed}\n\n{machine.describe()}", flush=True)
    if any(key in ("W1", "W2", "W5") for key in chosen):
        print(f"\n{NOTES}")
    others = {"W3": compare_rows, "W4": compare_tasks, "W6": compare_kernel}
    for key in chosen:
        print(f"\n## {key}: {WORKLOADS[key].title}", flush=True)
        if key in others:
            others[key](bench)
        else:
            compare_forms(bench, key)
    if options.start_up:
        compare_start_up(bench)


if __name__ == "__main__":
    main()
