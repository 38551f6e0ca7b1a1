"""Answers about a fit, as labelled tables."""

from bayes_mtl.summaries.basis import basis
from bayes_mtl.summaries.clusters import clusters
from bayes_mtl.summaries.correlation import task_correlation
from bayes_mtl.summaries.summary import summary

__all__ = ["basis", "clusters", "summary", "task_correlation"]
