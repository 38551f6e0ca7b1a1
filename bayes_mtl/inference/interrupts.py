"""What an interrupt (Ctrl-C) after sampling does: stop soon, and lose no draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import xarray as xr

from bayes_mtl.errors import ConvergenceWarning
from bayes_mtl.inference.hyperdraws import evenly_spaced

FEW_DRAWS = 100  # per chain


def recovered(
    trace: xr.DataTree, recover: Callable[[xr.Dataset], xr.Dataset]
) -> tuple[xr.DataTree, xr.Dataset, bool]:
    """Recover what was integrated out, for all draws.

    Draws without coefficients are of no use, and recovering them takes seconds where sampling took minutes.
    So after an interrupt the recovery is done all the same; a second one keeps some draws only.

    Returns
    -------
    trace : DataTree
        The draws that are kept.
    posterior : Dataset
    interrupted : bool
    """
    try:
        return trace, recover(trace["posterior"].to_dataset()), False
    except KeyboardInterrupt:
        _say("Interrupted: computing the coefficients of all draws; interrupt again to keep some draws only.")
    try:
        return trace, recover(trace["posterior"].to_dataset()), True
    except KeyboardInterrupt:
        length = trace["posterior"].sizes["draw"]
        _say(f"Interrupted again: {min(FEW_DRAWS, length)} of {length} draws of each chain are kept.")
    at = evenly_spaced(length, FEW_DRAWS)
    few = xr.DataTree.from_dict(
        {name: node.to_dataset().isel(draw=at) for name, node in trace.children.items()}
    )
    return few, recover(few["posterior"].to_dataset()), True


def as_far_as_there_is_time(
    steps: Iterable[tuple[str, Callable[[], None]]], *, interrupted: bool = False
) -> bool:
    """Take steps that a fit can do without; after an interrupt the others are left out, and named.

    Returns
    -------
    bool
        Whether all were taken.
    """
    steps = list(steps)
    left_out = list(steps) if interrupted else []
    if not interrupted:
        for i, (_, step) in enumerate(steps):
            try:
                step()
            except KeyboardInterrupt:
                left_out = steps[i:]
                break
    if left_out:
        names = ", ".join(name for name, _ in left_out)
        _say(f"Interrupted after sampling: the fit has its draws, but not its {names}.")
    return not (left_out or interrupted)


def _say(words: str) -> None:
    warnings.warn(words, ConvergenceWarning, stacklevel=4)
