"""Simulation-based calibration of structures.

    python -m tests.calibration [--structure NAME ...] [--family NAME ...] [--replications 200] [--seed 0]

Prints, per structure and family, the smallest p-value of uniform ranks over all quantities, times their
number. Exits with 1 if one is below 0.01.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.calibration.sbc import FAMILIES, FEATURE_SCALES, STRUCTURES, calibrate


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.calibration")
    known = [*STRUCTURES, *FEATURE_SCALES]
    parser.add_argument("--structure", action="append", choices=known)
    parser.add_argument("--family", action="append", choices=FAMILIES)
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    wrong = 0
    print("| structure | family | quantities | least p, adjusted | of | seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    for structure in options.structure or known:
        for family in options.family or FAMILIES:
            started = time.perf_counter()
            found = calibrate(structure, family, options.replications, options.seed).p_values()
            name, least = min(found.items(), key=lambda item: item[1])
            adjusted = min(1.0, least * len(found))
            wrong += adjusted < 0.01
            seconds = time.perf_counter() - started
            line = f"| {structure} | {family} | {len(found)} | {adjusted:.3f} | {name} | {seconds:.0f} |"
            print(line, flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
