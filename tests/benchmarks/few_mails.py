"""Does it help to know something of users who have marked a few mails only?

    python -m tests.benchmarks.few_mails [--mails 6] [--simulations 7]

Simulates readers of two kinds (`bayes_mtl.recipes.simulate.per_user_spam`) with a noisy hint of their kind,
fits the recipe `few_mails` with and without the hint, and `Exchangeable`. Prints the mean over simulations of
the log density of new mails, and of the truth of who is of one kind with whom.
"""

from __future__ import annotations

import argparse
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.special import expit

import bayes_mtl as mtl
from bayes_mtl.recipes import load_recipe
from bayes_mtl.recipes.simulate import per_user_spam

NEW_MAILS = 200
SETTINGS = {"draws": 500, "tune": 500, "chains": 2, "target_accept": 0.95, "progressbar": False}


def main() -> None:
    """Print a line per structure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mails", type=int, default=6)
    parser.add_argument("--simulations", type=int, default=7)
    options = parser.parse_args()
    warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)
    _, spec = load_recipe("few_mails").load()
    scores: dict[str, list[tuple[float, float]]] = {}
    for seed in range(1, options.simulations + 1):
        truth = per_user_spam(n_users=24, n_mails=options.mails, contact_sd=0.2, seed=seed)
        words = list(truth.coefficients.columns[1:])
        data = mtl.TaskData.from_table(truth.table, task="user", outcome="spam", features=words)
        hint = mtl.Clusters.from_table(truth.table, task="user", columns=["russian_contacts"], n=2)
        structures = {
            "Clusters(2, gating)": hint,
            "Clusters(2)": mtl.Clusters(2),
            "Exchangeable": mtl.Exchangeable(),
        }
        for name, structure in structures.items():
            idata = mtl.fit(
                data,
                replace(spec, task_covariance=structure),
                random_seed=seed,
                log_likelihood=False,
                **SETTINGS,
            )
            scores.setdefault(name, []).append(
                (new_mails(idata, truth.coefficients), of_kinds(idata, truth.groups))
            )
    print("| structure | log density of a new mail | of a pair's being of one kind or not |")
    print("| --- | --- | --- |")
    for name, found in scores.items():
        mails, kinds = np.mean(found, axis=0)
        print(f"| {name} | {mails:.3f} | {kinds:.2f} |")


def new_mails(idata, coefficients: pd.DataFrame) -> float:
    """Return the expected log density of mails whose probabilities are known."""
    rng = np.random.default_rng(0)
    user = np.repeat(coefficients.index.to_numpy(), NEW_MAILS)
    words = pd.DataFrame(
        (rng.random((len(user), coefficients.shape[1] - 1)) < 0.35).astype(int),
        columns=coefficients.columns[1:],
    )
    weights = coefficients.loc[user].to_numpy()
    true = expit(weights[:, 0] + (words.to_numpy() * weights[:, 1:]).sum(axis=1))
    drawn = mtl.predict(idata, words.assign(user=user))["predictions"]["y"]
    p = drawn.mean(("chain", "draw")).to_numpy()
    return float((true * np.log(p) + (1 - true) * np.log1p(-p)).mean())


def of_kinds(idata, groups: pd.Series) -> float:
    """Return the mean log probability of what is true of every pair of users."""
    if "cluster_probability" not in idata["posterior"]:
        return float("nan")
    found = mtl.clusters(idata)["co_clustering"]
    kind = groups.loc[found["task"].to_numpy()].to_numpy()
    pairs = np.triu_indices(len(kind), 1)
    together = found.to_numpy()[pairs]
    return float(np.log(np.where(np.equal.outer(kind, kind)[pairs], together, 1 - together)).mean())


if __name__ == "__main__":
    main()
