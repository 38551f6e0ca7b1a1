"""Bayesian hierarchical multi-task learning on PyMC.

Many related regressions at once: each task has its own coefficients, all of them are drawn from
shared hyperpriors, and the posterior says how the tasks relate.
"""

from bayes_mtl import errors
from bayes_mtl.data import TaskData
from bayes_mtl.families import Bernoulli, Gaussian
from bayes_mtl.inference import diagnose, fit, load, save
from bayes_mtl.model import build_model, task_coefficients
from bayes_mtl.plots import plot_clusters, plot_coefficients, plot_prior_posterior, plot_task_correlation
from bayes_mtl.predict import predict
from bayes_mtl.prior import Prior
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import (
    LKJ,
    Clusters,
    CompletePooling,
    Diagonal,
    DirichletProcess,
    Exchangeable,
    Graph,
    Kernel,
    LowRank,
    NoPooling,
    OrthogonalGroups,
    SparseBasis,
    SparsePrecision,
    StudentT,
    Tree,
)
from bayes_mtl.summaries import clusters, summary, task_correlation

__version__ = "0.1.0"

__all__ = [
    "LKJ",
    "Bernoulli",
    "Clusters",
    "CompletePooling",
    "Diagonal",
    "DirichletProcess",
    "Exchangeable",
    "Gaussian",
    "Graph",
    "Kernel",
    "LowRank",
    "ModelSpec",
    "NoPooling",
    "OrthogonalGroups",
    "Prior",
    "SparseBasis",
    "SparsePrecision",
    "StudentT",
    "TaskData",
    "Tree",
    "build_model",
    "clusters",
    "diagnose",
    "errors",
    "fit",
    "load",
    "plot_clusters",
    "plot_coefficients",
    "plot_prior_posterior",
    "plot_task_correlation",
    "predict",
    "save",
    "summary",
    "task_coefficients",
    "task_correlation",
]
