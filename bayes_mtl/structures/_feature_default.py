"""Which covariance of features is the default."""

from __future__ import annotations

from bayes_mtl.structures.base import FeatureCovariance
from bayes_mtl.structures.lkj import LKJ
from bayes_mtl.structures.low_rank import LowRank

_FEW = 3


def default_feature_covariance(n_features: int) -> FeatureCovariance:
    """Return the default for so many coefficients of a task: `LKJ` for few, `LowRank` for four or more.

    `LKJ` beside independent scales shrinks a direction in which many coefficients move together (see there).
    Which of the coefficients are inside the task covariance does not matter, so that descriptions that
    differ in how tasks relate differ in nothing else.
    """
    return LKJ() if n_features <= _FEW else LowRank(2)
