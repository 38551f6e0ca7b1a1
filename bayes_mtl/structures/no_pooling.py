"""No pooling: each task on its own."""

from __future__ import annotations

from dataclasses import dataclass

from bayes_mtl.structures.exchangeable import Exchangeable


@dataclass(frozen=True)
class NoPooling(Exchangeable):
    """Independent coefficients with one fixed wide prior: the second honest baseline.

    Unless `priors` say otherwise, `beta_mean` is fixed at the centre of the default prior and
    `feature_sd` at ten times the scale of the data, so that nothing is learned across tasks. The
    feature covariance plays no role: coefficients are independent.
    """

    @property
    def shares(self) -> bool:
        """No."""
        return False
