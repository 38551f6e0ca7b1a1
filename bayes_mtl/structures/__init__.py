"""How tasks relate, and how coefficients relate: one file per structure."""

from bayes_mtl.structures.base import FeatureCovariance, Namer, TaskCovariance, TaskLoadings
from bayes_mtl.structures.complete_pooling import CompletePooling
from bayes_mtl.structures.diagonal import Diagonal
from bayes_mtl.structures.exchangeable import Exchangeable
from bayes_mtl.structures.lkj import LKJ
from bayes_mtl.structures.low_rank import LowRank
from bayes_mtl.structures.no_pooling import NoPooling

__all__ = [
    "LKJ",
    "CompletePooling",
    "Diagonal",
    "Exchangeable",
    "FeatureCovariance",
    "LowRank",
    "Namer",
    "NoPooling",
    "TaskCovariance",
    "TaskLoadings",
]
