"""How tasks relate, and how coefficients relate: one file per structure."""

from bayes_mtl.structures._feature_default import default_feature_covariance
from bayes_mtl.structures.base import (
    Candidates,
    FeatureCovariance,
    FeatureLaw,
    FeatureScales,
    KnownTasks,
    Namer,
    TaskComponents,
    TaskCovariance,
    TaskLoadings,
    TaskMixture,
)
from bayes_mtl.structures.clusters import Clusters
from bayes_mtl.structures.complete_pooling import CompletePooling
from bayes_mtl.structures.diagonal import Diagonal
from bayes_mtl.structures.dirichlet_process import DirichletProcess
from bayes_mtl.structures.exchangeable import Exchangeable
from bayes_mtl.structures.graph import Graph
from bayes_mtl.structures.horseshoe import Horseshoe
from bayes_mtl.structures.kernel import Kernel
from bayes_mtl.structures.lkj import LKJ
from bayes_mtl.structures.low_rank import LowRank
from bayes_mtl.structures.no_pooling import NoPooling
from bayes_mtl.structures.orthogonal_groups import OrthogonalGroups
from bayes_mtl.structures.r2d2m2 import R2D2M2
from bayes_mtl.structures.sparse_basis import SparseBasis
from bayes_mtl.structures.sparse_precision import SparsePrecision
from bayes_mtl.structures.student_t import StudentT
from bayes_mtl.structures.tree import Tree

__all__ = [
    "LKJ",
    "R2D2M2",
    "Candidates",
    "Clusters",
    "CompletePooling",
    "Diagonal",
    "DirichletProcess",
    "Exchangeable",
    "FeatureCovariance",
    "FeatureLaw",
    "FeatureScales",
    "Graph",
    "Horseshoe",
    "Kernel",
    "KnownTasks",
    "LowRank",
    "Namer",
    "NoPooling",
    "OrthogonalGroups",
    "SparseBasis",
    "SparsePrecision",
    "StudentT",
    "TaskComponents",
    "TaskCovariance",
    "TaskLoadings",
    "TaskMixture",
    "Tree",
    "default_feature_covariance",
]
