"""Pictures, one per file, each drawn from a summary."""

from bayes_mtl.plots.basis import plot_basis
from bayes_mtl.plots.clusters import plot_clusters
from bayes_mtl.plots.coefficients import plot_coefficients
from bayes_mtl.plots.correlation_update import plot_correlation_update
from bayes_mtl.plots.features import plot_feature_selection
from bayes_mtl.plots.model import plot_model
from bayes_mtl.plots.pooling import plot_pooling
from bayes_mtl.plots.prior_posterior import plot_prior_posterior
from bayes_mtl.plots.task_correlation import plot_task_correlation
from bayes_mtl.plots.task_fit import plot_task_fit
from bayes_mtl.plots.task_network import plot_task_network
from bayes_mtl.plots.task_tree import plot_task_tree
from bayes_mtl.plots.transfer_gain import plot_transfer_gain

__all__ = [
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
]
