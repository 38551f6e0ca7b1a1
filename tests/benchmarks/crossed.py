"""Crossed groupings, weak and strong data: steps for a draw, and effective draws for a gradient.

python -m tests.benchmarks.crossed
"""

from __future__ import annotations

import warnings

import arviz as az
import numpy as np

import bayes_mtl as mtl

# name: persons, items, answers of each person to each item, family, noise
CASES = {
    "binary, 60 x 12": (60, 12, 1, "bernoulli", 1.0),
    "binary, 316 x 24": (316, 24, 1, "bernoulli", 1.0),
    "Gaussian, 30 x 6, noise three times the effects": (30, 6, 1, "gaussian", 3.0),
    "Gaussian, 60 x 12, 20 answers, noise 0.3 of the effects": (60, 12, 20, "gaussian", 0.3),
    "Gaussian, 200 x 100": (200, 100, 1, "gaussian", 1.0),
}


def simulate(persons: int, items: int, answers: int, family: str, noise: float) -> mtl.TaskData:
    """Draw an effect of each person and of each item, with a standard deviation of one."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(persons), items * answers)
    item = np.tile(np.repeat(np.arange(items), answers), persons)
    eta = 0.3 + rng.standard_normal(persons)[person] + rng.standard_normal(items)[item]
    y = rng.binomial(1, 1 / (1 + np.exp(-eta))) if family == "bernoulli" else rng.normal(eta, noise)
    nothing = np.zeros((len(y), 0))
    return mtl.TaskData.from_arrays(nothing, y, person, groupings={"item": item})


def main() -> None:
    """Print a line for each case."""
    for name, (*sizes, family, noise) in CASES.items():
        data = simulate(*sizes, family, noise)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)
            spec = mtl.ModelSpec(family)
            fits = [mtl.fit(data, spec, chains=2, random_seed=1, progressbar=False) for _ in range(2)]
        idata = fits[1]  # the second needs no compilation
        ess = az.ess(idata["posterior"].to_dataset().drop_vars(["feature_corr", "item_feature_corr"]))
        least = min(float(values.min()) for values in ess.data_vars.values())
        stats = idata["sample_stats"]
        steps, divergences = float(stats["n_steps"].mean()), int(stats["diverging"].sum())
        print(
            f"{name}: {idata.attrs['sampling_time']:.1f} s, {steps:.1f} steps a draw, least ESS {least:.0f} "
            f"of 2000 draws, {least / (2000 * steps):.3f} a gradient, {divergences} divergences",
            flush=True,
        )


if __name__ == "__main__":
    main()
