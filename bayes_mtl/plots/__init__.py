"""One picture per file, drawn from a summary."""

from bayes_mtl.plots.clusters import plot_clusters
from bayes_mtl.plots.features import plot_feature_selection
from bayes_mtl.plots.task_correlation import plot_task_correlation

__all__ = ["plot_clusters", "plot_feature_selection", "plot_task_correlation"]
