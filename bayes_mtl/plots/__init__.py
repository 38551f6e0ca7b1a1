"""One picture per file, drawn from a summary."""

from bayes_mtl.plots.task_correlation import plot_task_correlation

__all__ = ["plot_task_correlation"]
