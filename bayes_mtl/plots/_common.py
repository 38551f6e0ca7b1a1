"""What the pictures share: colours that colour-blind people can tell apart, and axes that stay readable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from bayes_mtl._typing import FloatArray

# Okabe & Ito (2008).
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "0.45"
MAX_ROWS = 60  # labelled rows that a page has room for
LABELS_UP_TO = 80  # labels along one side of a picture


def axes(ax: Any, width: float, height: float) -> Any:
    """Return the given axes, or those of a new figure."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(width, height), layout="constrained")[1]


def square_axes(ax: Any, n: int) -> Any:
    """Return the given axes, or new ones for a square picture of n tasks with a colour bar."""
    side = float(np.clip(0.17 * n + 2.2, 4.8, 13.0))
    return axes(ax, side + 1.2, side)


def label_size(n: int, most: float = 9.0) -> float:
    """Return the size of the type of n labels side by side."""
    return float(np.clip(380.0 / max(n, 1), 5.0, most))


def label_square(ax: Any, labels: Sequence[Any], axis_label: str) -> None:
    """Label both sides of a square picture, and take away what is not read."""
    shown = [str(v) for v in labels] if len(labels) <= LABELS_UP_TO else []
    size = label_size(len(labels))
    ax.set_xticks(range(len(shown)), shown, rotation=90, fontsize=size)
    ax.set_yticks(range(len(shown)), shown, fontsize=size)
    ax.set_xlabel(axis_label, fontsize=9)
    frame(ax)


def frame(ax: Any) -> None:
    """Draw a faint frame around tiles."""
    ax.tick_params(length=0)
    ax.spines[:].set_color("0.85")


def colour_bar(ax: Any, picture: Any, label: str, **options: Any) -> None:
    """Say what the colours mean."""
    bar = ax.figure.colorbar(picture, ax=ax, shrink=0.6, pad=0.02, **options)
    bar.set_label(label)
    bar.outline.set_visible(False)


def before_and_after(ax: Any, before: FloatArray, after: FloatArray, bins: FloatArray) -> None:
    """Draw draws before and after the data, as densities of all draws, also of those outside of the bins."""
    for draws, style in (
        (before, {"color": "0.8", "label": "before the data"}),
        (after, {"color": "#1f4e79", "alpha": 0.75, "label": "after"}),
    ):
        weight = 1.0 / (len(draws) * (bins[1] - bins[0]))
        ax.hist(draws, bins, weights=np.full(len(draws), weight), **style)
    ax.set_yticks([])
    ax.spines[["top", "right", "left"]].set_visible(False)


def rows_height(n: int) -> float:
    """Return inches for n labelled rows."""
    return float(np.clip(0.24 * n + 1.4, 2.6, 15.0))


def label_rows(ax: Any, labels: Iterable[Any]) -> None:
    """Label rows 0, 1, ... from the top."""
    labels = list(labels)
    ax.set_yticks(range(len(labels)), [str(v) for v in labels], fontsize=label_size(len(labels)))
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def bare(ax: Any) -> None:
    """Leave only the axes that are read."""
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
