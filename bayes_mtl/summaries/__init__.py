"""Answers about a fit, as labelled tables."""

from bayes_mtl.summaries.basis import basis
from bayes_mtl.summaries.clusters import clusters
from bayes_mtl.summaries.compare import choose_structure, compare
from bayes_mtl.summaries.conflict import gradient_conflict
from bayes_mtl.summaries.correlation import task_correlation
from bayes_mtl.summaries.features import feature_selection
from bayes_mtl.summaries.leave_out import leave_one_task_out
from bayes_mtl.summaries.pooling import pooling
from bayes_mtl.summaries.refit import sampling_wrapper
from bayes_mtl.summaries.summary import summary
from bayes_mtl.summaries.task_fit import task_fit
from bayes_mtl.summaries.transfer_gain import transfer_gain

__all__ = [
    "basis",
    "choose_structure",
    "clusters",
    "compare",
    "feature_selection",
    "gradient_conflict",
    "leave_one_task_out",
    "pooling",
    "sampling_wrapper",
    "summary",
    "task_correlation",
    "task_fit",
    "transfer_gain",
]
