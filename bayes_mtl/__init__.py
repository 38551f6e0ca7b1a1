"""Bayesian hierarchical multi-task learning on PyMC.

Many related regressions at once: each task has its own coefficients, all of them are drawn from
shared hyperpriors, and the posterior says how the tasks relate.
"""

from bayes_mtl import errors
from bayes_mtl.data import TaskData
from bayes_mtl.families import Bernoulli, Gaussian
from bayes_mtl.inference import diagnose, fit, load, save
from bayes_mtl.inference.own_draws import recover
from bayes_mtl.model import ScaledBy, build_model, task_coefficients
from bayes_mtl.plots import (
    plot_basis,
    plot_clusters,
    plot_coefficients,
    plot_correlation_update,
    plot_feature_selection,
    plot_model,
    plot_pooling,
    plot_prior_posterior,
    plot_task_correlation,
    plot_task_fit,
    plot_task_network,
    plot_task_tree,
    plot_transfer_gain,
)
from bayes_mtl.predict import predict
from bayes_mtl.prior import Prior
from bayes_mtl.report import report
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import (
    LKJ,
    R2D2M2,
    Clusters,
    CompletePooling,
    Diagonal,
    DirichletProcess,
    Exchangeable,
    Graph,
    Horseshoe,
    Kernel,
    LowRank,
    NoPooling,
    OrthogonalGroups,
    SparseBasis,
    SparsePrecision,
    StudentT,
    Tree,
)
from bayes_mtl.summaries import (
    basis,
    choose_structure,
    clusters,
    compare,
    feature_selection,
    gradient_conflict,
    leave_one_task_out,
    pooling,
    sampling_wrapper,
    summary,
    task_correlation,
    task_fit,
    transfer_gain,
)

__version__ = "0.1.0"

__all__ = [
    "LKJ",
    "R2D2M2",
    "Bernoulli",
    "Clusters",
    "CompletePooling",
    "Diagonal",
    "DirichletProcess",
    "Exchangeable",
    "Gaussian",
    "Graph",
    "Horseshoe",
    "Kernel",
    "LowRank",
    "ModelSpec",
    "NoPooling",
    "OrthogonalGroups",
    "Prior",
    "ScaledBy",
    "SparseBasis",
    "SparsePrecision",
    "StudentT",
    "TaskData",
    "Tree",
    "basis",
    "build_model",
    "choose_structure",
    "clusters",
    "compare",
    "diagnose",
    "errors",
    "feature_selection",
    "fit",
    "gradient_conflict",
    "leave_one_task_out",
    "load",
    "plot_basis",
    "plot_clusters",
    "plot_coefficients",
    "plot_correlation_update",
    "plot_feature_selection",
    "plot_model",
    "plot_pooling",
    "plot_prior_posterior",
    "plot_task_correlation",
    "plot_task_fit",
    "plot_task_network",
    "plot_task_tree",
    "plot_transfer_gain",
    "pooling",
    "predict",
    "recover",
    "report",
    "sampling_wrapper",
    "save",
    "summary",
    "task_coefficients",
    "task_correlation",
    "task_fit",
    "transfer_gain",
]
