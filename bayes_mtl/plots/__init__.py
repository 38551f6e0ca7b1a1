"""One picture per file, drawn from a summary."""

from bayes_mtl.plots.clusters import plot_clusters
from bayes_mtl.plots.coefficients import plot_coefficients
from bayes_mtl.plots.prior_posterior import plot_prior_posterior
from bayes_mtl.plots.task_correlation import plot_task_correlation

__all__ = ["plot_clusters", "plot_coefficients", "plot_prior_posterior", "plot_task_correlation"]
