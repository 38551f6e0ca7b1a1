"""Fused mathematics: one PyTensor node each, value and gradient from one pass over the numbers.

A graph of small nodes costs minutes of compilation (numba compiles one function per node) and a
memory round trip per node. A kernel here is one function in the numba subset of Python; it knows
arrays, and nothing of models.
"""

from bayes_mtl.kernels._numba import own_address
from bayes_mtl.kernels.compile import in_parallel
from bayes_mtl.kernels.ops import (
    KernelOp,
    bernoulli_components,
    bernoulli_tasks,
    chain,
    chained_coefficients,
    chained_gaussian,
    cholesky_from_partials,
    collapsed_gaussian,
    collapsed_rows,
    component_coefficients,
    component_evidence,
    evaluate_components,
    evaluate_evidence,
    gaussian_tasks,
    joint_effects,
    product,
    repeat,
    whitened_coefficients,
)

__all__ = [
    "KernelOp",
    "bernoulli_components",
    "bernoulli_tasks",
    "chain",
    "chained_coefficients",
    "chained_gaussian",
    "cholesky_from_partials",
    "collapsed_gaussian",
    "collapsed_rows",
    "component_coefficients",
    "component_evidence",
    "evaluate_components",
    "evaluate_evidence",
    "gaussian_tasks",
    "in_parallel",
    "joint_effects",
    "own_address",
    "product",
    "repeat",
    "whitened_coefficients",
]
