"""Correlations of tasks in draws of other people's models: of coefficients, or of a correlation matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, Label
from bayes_mtl.arguments import task_positions
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.summaries.pair_draws import PairDraws, cosines


def pairs_of(
    draws: xr.DataArray,
    mean: xr.DataArray | FloatArray | float | None,
    scale: xr.DataArray | FloatArray | float | None,
    tasks: Sequence[Label] | None,
) -> tuple[PairDraws, Any, int]:
    """Return draws of the correlations, the labels of tasks, and across how many coefficients they are.

    Parameters
    ----------
    draws : DataArray
        Coefficients (chain, draw, task, feature), or correlations (chain, draw, task, task again).
    mean, scale : optional
        What coefficients deviate from, and how far, broadcast against `draws`. Default: average and
        standard deviation over tasks, in each draw.
    tasks : sequence of labels, optional
    """
    findings = []
    for name, value in (("mean", mean), ("scale", scale)):
        odd = value is not None and not isinstance(value, xr.DataArray | np.ndarray | float | int)
        if odd:
            findings.append(Finding(name, f"should be a DataArray, an array or a number, found {value!r}"))
    if not isinstance(draws, xr.DataArray) or draws.ndim != 4 or not {"chain", "draw"} <= set(draws.dims):
        found = f"{draws.dims}" if isinstance(draws, xr.DataArray) else type(draws).__name__
        hint = 'For example idata["posterior"]["beta"]'
        findings.append(
            Finding("draws", f"should have dims chain, draw, task and feature, found {found}", hint)
        )
    raise_if_any(findings, SpecError)
    task, feature = (str(d) for d in draws.dims if d not in ("chain", "draw"))
    draws = draws.transpose("chain", "draw", task, feature)
    labels = draws[task].to_numpy() if task in draws.coords else np.arange(draws.sizes[task])
    if len(labels) < 2:
        raise SpecError(Finding("draws", f"should have two tasks at least, found {len(labels)} on {task!r}"))
    at = None if tasks is None else task_positions(labels, tasks, least=2)
    labels = labels if at is None else labels[at]
    shape = (draws.sizes["chain"], draws.sizes["draw"])
    if feature == f"{task}_bis":
        matrices = draws.to_numpy().reshape(-1, draws.sizes[task], draws.sizes[task])
        if np.abs(np.diagonal(matrices, axis1=1, axis2=2) - 1.0).max() > 1e-6:
            raise SpecError(Finding("draws", "should be correlations: their diagonal is not 1"))
        matrices = matrices if at is None else matrices[:, at[:, None], at]
        return PairDraws(None, np.ascontiguousarray(matrices), shape), labels, 0
    if mean is None and len(draws[task]) < 3:
        problem = "is needed with two tasks, which lie on opposite sides of their average"
        raise SpecError(Finding("mean", problem, 'For example idata["posterior"]["beta_mean"]'))
    deviation = draws - (draws.mean(task) if mean is None else mean)
    size = np.sqrt((deviation**2).mean(task)) if scale is None else scale
    unit = (deviation / size).transpose("chain", "draw", task, feature)
    return cosines(unit.to_numpy(), at), labels, draws.sizes[feature]
