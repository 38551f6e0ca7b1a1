"""One picture per file, drawn from a summary."""

from bayes_mtl.plots.basis import plot_basis
from bayes_mtl.plots.clusters import plot_clusters
from bayes_mtl.plots.task_correlation import plot_task_correlation

__all__ = ["plot_basis", "plot_clusters", "plot_task_correlation"]
