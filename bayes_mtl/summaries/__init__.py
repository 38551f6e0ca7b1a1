"""Answers about a fit, as labelled tables."""

from bayes_mtl.summaries.clusters import clusters
from bayes_mtl.summaries.correlation import task_correlation
from bayes_mtl.summaries.leave_out import leave_one_task_out
from bayes_mtl.summaries.pooling import pooling
from bayes_mtl.summaries.summary import summary
from bayes_mtl.summaries.transfer_gain import transfer_gain

__all__ = ["clusters", "leave_one_task_out", "pooling", "summary", "task_correlation", "transfer_gain"]
