"""A simulated recipe under several structures: how far are its coefficients from the truth?

python -m tests.benchmarks.zoo faces "LowRank(4)" "Exchangeable()"
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np

import bayes_mtl as mtl
from bayes_mtl.recipes import SIMULATIONS, load_recipe


def errors(name: str, structures: list[str]) -> None:
    """Print the root mean square error of posterior means, by group of tasks."""
    own = load_recipe(name)
    truth = SIMULATIONS[own.source.name](**own.source.parameters)
    recipes = [own, *(own.with_structure(eval(s, vars(mtl))) for s in structures)]
    for recipe in recipes:
        data, spec = recipe.load()
        idata = mtl.fit(data, spec, draws=300, tune=400, chains=2, random_seed=1, progressbar=False)
        beta = idata["posterior"]["beta"].mean(("chain", "draw")).to_pandas()
        square = (beta - truth.coefficients.loc[beta.index, beta.columns]) ** 2
        groups = square.mean(axis=1).groupby(truth.groups.loc[beta.index]).mean() ** 0.5
        by_group = ", ".join(f"{group} {error:.3f}" for group, error in groups.items())
        print(f"{type(spec.task_covariance).__name__}: {np.sqrt(square.to_numpy().mean()):.3f} ({by_group})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe")
    parser.add_argument("structures", nargs="*")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    errors(options.recipe, options.structures)
