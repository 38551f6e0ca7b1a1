"""Answers about a fit, as labelled tables."""

from bayes_mtl.summaries.clusters import clusters
from bayes_mtl.summaries.correlation import task_correlation
from bayes_mtl.summaries.features import feature_selection
from bayes_mtl.summaries.summary import summary

__all__ = ["clusters", "feature_selection", "summary", "task_correlation"]
