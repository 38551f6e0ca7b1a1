"""A few of many features matter, the same ones for all tasks; single tasks may make exceptions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.structures._horseshoe import TAILS, draw_horseshoe, global_scale, local_scales
from bayes_mtl.structures._options import positive_finding
from bayes_mtl.structures.base import Candidates, FeatureLaw, FeatureScales, Namer


@dataclass(frozen=True)
class Horseshoe(FeatureScales):
    """Joint selection: a feature matters for all tasks or for none (row-sparse regularised horseshoe).

    One local scale per feature, for its population mean and its deviations alike:

        r_j = tau lambda_j'         lambda_j ~ HalfStudentT(3),    tau ~ HalfStudentT(3, scale tau_0)
        beta_mean_j ~ N(0, w_j u_j^2 r_j^2)    feature_sd_j^2 = (1 - w_j) u_j^2 r_j^2    w_j ~ Beta(1/2, 1/2)

    `feature_relevance` is r; `feature_share` is w, how much of what a feature does is the same in all
    tasks. A coefficient u_j moves the outcome by `unit` for one standard deviation of the feature, so that
    selection is the same in any units. With lambda_j'^2 = c^2 lambda_j^2 / (c^2 + tau^2 lambda_j^2), r_j is
    below the slab c. With n rows per task and noise sigma, tau_0 = a sigma / (unit sqrt(n)), where a is
    such that at tau = tau_0 the number of features that matter, sum_j (1 - kappa_j) with kappa_j = 1 / (1 +
    n r_j^2 unit^2 / sigma^2), is expected to be p_0.

    Parameters
    ----------
    expected_features : float, optional
        p_0, a guess: the data decide. Default: a quarter of the features.
    slab : float
        c, the size of the largest coefficients, in units of u_j. Default 2.
    task_specific : bool
        Whether single tasks may use a feature that others do not (a "dirty" model): coefficients become the
        above plus a sparse part `beta_specific`, Q_tj ~ N(0, u_j^2 tau_q^2 lambda_tj'^2), a horseshoe of its
        own, of which as many entries are expected to matter as features are. Default False.
    unit : float, optional
        Default: how far the outcome spreads within tasks; 1 for a logit.

    References
    ----------
    Piironen & Vehtari (2017), Electronic Journal of Statistics 11. One scale for all tasks: Archambeau, Guo &
    Zoeter (2011), NIPS. Dirty models: Jalali, Ravikumar, Sanghavi & Ruan (2010), NIPS.

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> scales = mtl.Horseshoe(expected_features=3)
    >>> spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal(), feature_scales=scales)
    >>> spec.feature_scales.to_dict()
    {'name': 'Horseshoe', 'expected_features': 3.0, 'slab': 2.0, 'task_specific': False}
    """

    expected_features: float | None = None
    slab: float = 2.0
    task_specific: bool = False
    unit: float | None = None

    def __post_init__(self) -> None:
        findings = positive_finding("Horseshoe", "slab", self.slab)
        for option in ("expected_features", "unit"):
            if getattr(self, option) is not None:
                findings += positive_finding("Horseshoe", option, getattr(self, option))
        if not isinstance(self.task_specific, bool):
            found = f"`task_specific` should be True or False, found {self.task_specific!r}"
            findings.append(Finding("Horseshoe", found))
        raise_if_any(findings, SpecError)
        for option in ("expected_features", "slab", "unit"):
            if getattr(self, option) is not None:
                object.__setattr__(self, option, float(getattr(self, option)))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Scales, and how much is the same in all tasks."""
        own = ("beta_specific_scale",) if self.task_specific else ()
        return ("feature_relevance_scale", "feature_relevance", "feature_share", *own)

    def findings(self, n_features: int) -> list[Finding]:
        """Fewer features are expected to matter than there are."""
        if self.expected_features is None or self.expected_features < n_features:
            return []
        found = f"`expected_features` should be below {n_features}, the number of features it is about"
        return [Finding("Horseshoe", f"{found}, found {self.expected_features:g}", "Lower it")]

    def law(self, candidates: Candidates, name: Namer) -> FeatureLaw:
        """Register the scales, and the sparse part."""
        n = candidates.n_features
        expected = 0.25 * n if self.expected_features is None else self.expected_features
        unit = candidates.unit if self.unit is None else self.unit
        detectable = candidates.noise / unit / pt.sqrt(candidates.rows_per_task)
        tau_0 = global_scale(expected / n) * detectable
        tau = pm.HalfStudentT(name("feature_relevance_scale"), nu=TAILS, sigma=tau_0)
        relevance = pm.Deterministic(
            name("feature_relevance"),
            local_scales(name("feature_relevance"), tau, (n,), self.slab),
            dims=candidates.dims[1],
        )
        share = pm.Beta(name("feature_share"), 0.5, 0.5, shape=n, dims=candidates.dims[1])
        size = unit * candidates.inverse_sd
        total, specific = size * relevance, None
        if self.task_specific:
            tau_0 = global_scale(expected / (n * candidates.n_tasks)) * detectable
            tau = pm.HalfStudentT(name("beta_specific_scale"), nu=TAILS, sigma=tau_0)
            sparse = local_scales(name("beta_specific"), tau, (candidates.n_tasks, n), self.slab)
            specific = size * sparse
        return FeatureLaw(total * pt.sqrt(share), total * pt.sqrt(1.0 - share), specific)

    def draw_specific(
        self, scale: FloatArray, size: FloatArray, n_tasks: int, rng: np.random.Generator
    ) -> FloatArray:
        """Draw the sparse part of tasks that are not in the data.

        Parameters
        ----------
        scale : (...,)
            Draws of `beta_specific_scale`.
        size : (n_features,)
            u.

        Returns
        -------
        (..., n_tasks, n_features)
        """
        shape = (*scale.shape, n_tasks, len(size))
        return np.asarray(size * draw_horseshoe(scale[..., None, None], shape, rng, self.slab))

    def at_noise(self, size: FloatArray, ratio: FloatArray) -> FloatArray:
        """Return sizes under another noise: tau is relative to it, the slab is not."""
        bounded = np.minimum(size / self.slab, 1.0 - 1e-12)
        local = ratio * size / np.sqrt(1.0 - bounded**2)
        return np.asarray(local / np.sqrt(1.0 + (local / self.slab) ** 2))
