"""A fit in, a labelled table out: one question per file."""

from bayes_mtl.summaries.correlation import task_correlation
from bayes_mtl.summaries.summary import summary

__all__ = ["summary", "task_correlation"]
