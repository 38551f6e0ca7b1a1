"""What the pictures share: colours that colour-blind people can tell apart, and axes that stay readable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

# Okabe & Ito (2008).
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "0.45"
MAX_ROWS = 60  # labelled rows that a page has room for


def axes(ax: Any, width: float, height: float) -> Any:
    """Return the given axes, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def rows_height(n: int) -> float:
    """Return inches for n labelled rows."""
    return float(np.clip(0.24 * n + 1.4, 2.6, 15.0))


def label_rows(ax: Any, labels: Iterable[Any]) -> None:
    """Label rows 0, 1, ... from the top."""
    labels = list(labels)
    size = float(np.clip(380.0 / max(len(labels), 1), 5.5, 9.5))
    ax.set_yticks(range(len(labels)), [str(v) for v in labels], fontsize=size)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def bare(ax: Any) -> None:
    """Leave only the axes that are read."""
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
