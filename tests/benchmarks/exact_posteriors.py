"""Compare fits with exact posteriors, integrated out and not.

    python -m tests.benchmarks.exact_posteriors [--radon FILE] [--references FILE] [--seed N] [NAME ...]

``--radon`` is posteriordb's radon_mn data (keys county_idx, floor_measure, log_uppm, log_radon);
``--references`` a file {name: {"params": {parameter: {"mean", "sd"}}}} that holds the radon models too.
"""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path

import pandas as pd

from tests.exact import CASES, compare, fit, radon_cases

STORED = Path(__file__).parents[1] / "data" / "exact_posteriors.json"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--radon")
    parser.add_argument("--references")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    references = json.loads(STORED.read_text())
    cases = dict(CASES)
    if options.references:
        for name, entry in json.loads(Path(options.references).read_text()).items():
            if name.startswith(("radon_all", "radon_mod")):
                continue
            references.setdefault(name.rpartition("-")[2] if "-radon_" in name else name, entry["params"])
    if options.radon:
        raw = json.loads(Path(options.radon).read_text())
        table = pd.DataFrame(
            {
                "county": raw["county_idx"],
                "floor": raw["floor_measure"],
                "log_uppm": raw["log_uppm"],
                "log_radon": raw["log_radon"],
            }
        )
        cases |= radon_cases(table)
    failed = []
    for name, build in cases.items():
        if options.names and name not in options.names:
            continue
        case = build()
        for marginal in (True, False):
            with warnings.catch_warnings():
                warnings.simplefilter("default")
                idata = fit(case, marginal=marginal, seed=options.seed)
            table = compare(case, idata, references[name])
            worst_mean, worst_sd = table["error_in_mcse"].abs().max(), (table["sd_ratio"] - 1).abs().max()
            right = (table["error_in_mcse"].abs() < 4) & ((table["sd_ratio"] - 1).abs() < 0.05)
            ok = bool(right.all())
            failed += [] if ok else [(name, marginal)]
            how = "integrated out" if marginal else "sampled"
            print(f"{'ok  ' if ok else 'FAIL'} {name:34s} {how:15s} {len(table):4d} numbers:", end=" ")
            print(f"worst mean {worst_mean:.2f} MCSE, worst sd {100 * worst_sd:.1f} %,", end=" ")
            print(f"least ESS {table['ess'].min():.0f}", flush=True)
            if not ok:
                print(table[~right].to_string())
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
