"""How much the data narrowed a prior, and how that is said."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bayes_mtl._typing import FloatArray

LEAST_PRIOR_SD = 0.02  # of a correlation: below, its prior says what it is
_MOST_WIDENED = 10.0


def contraction(posterior_sd: npt.ArrayLike, prior_sd: npt.ArrayLike, least: float = 0.0) -> FloatArray:
    """Return 1 - var(posterior) / var(prior), NaN where the prior has no spread that could shrink.

    A prior with a standard deviation of `least` at most, or of a tenth of the posterior's, is a statement of
    what the value is; the ratio then compares with the accuracy of that statement and means nothing.
    """
    after, before = np.asarray(posterior_sd, dtype=float), np.asarray(prior_sd, dtype=float)
    usable = (before > least) & (after <= _MOST_WIDENED * before)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(usable, 1.0 - (after / before) ** 2, np.nan)


def contraction_in_words(value: float) -> str:
    """Return a contraction as every table, sentence and picture shows it."""
    if not np.isfinite(value):
        return "no prior spread"
    percent = round(100 * float(value))
    return f"{percent}%" if percent >= 0 else f"{percent}% (wider)"


def prior_in_words(prior_mean: float, prior_sd: float) -> str:
    """Return mean and standard deviation of a prior."""
    return f"{prior_mean:z.2f} ± {prior_sd:z.2f}"
