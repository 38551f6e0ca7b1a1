"""What pictures share: figures, colours that colour-blind people can tell apart, axes that stay readable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl._typing import FloatArray, IntArray
from bayes_mtl.data.frames import as_names
from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.inference.hyperdraws import evenly_spaced

# Okabe & Ito (2008).
BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "0.45"
MAX_ROWS = 60  # labelled rows that a page has room for
LABELS_UP_TO = 80  # labels along one side of a picture
LABELS_OF_MORE = 40
_LONGEST = 26  # characters of a label
_FAR = 5.0  # robust standard deviations

FigureSize = tuple[float, float]
_off_screen: ContextVar[bool] = ContextVar("bayes_mtl_off_screen", default=False)


@contextmanager
def off_screen() -> Iterator[None]:
    """Make figures that pyplot knows nothing of: no window, no backend chosen, nothing to close."""
    token = _off_screen.set(True)
    try:
        yield
    finally:
        _off_screen.reset(token)


def panels(
    ax: Any,
    rows: int,
    columns: int,
    default: FigureSize,
    figsize: FigureSize | None,
    needed: int | None = None,
    **options: Any,
) -> Any:
    """Return the given axes, or those of a new figure, as a flat array of `rows` x `columns`.

    Parameters
    ----------
    ax : Axes, sequence of Axes or None
    rows, columns : int
    default : (float, float)
        Inches of a new figure, if `figsize` is None.
    needed : int, optional
        Number of axes at least; default all.
    **options
        Of ``Figure.subplots``.
    """
    size = _inches(default if figsize is None else figsize)
    if ax is not None:
        from matplotlib.axes import Axes

        given = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
        if odd := [a for a in given if not isinstance(a, Axes)]:
            hint = "Pass what plt.subplots() returned"
            raise SpecError(Finding("ax", f"should be axes of matplotlib, found {odd[0]!r}", hint))
        if len(given) < (needed := rows * columns if needed is None else needed):
            raise SpecError(Finding("ax", f"should be {needed} axes, found {len(given)}"))
        return given
    if _off_screen.get():
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
    else:
        import matplotlib.pyplot as plt

        figure = plt.figure(figsize=size, layout="constrained")
    return figure.subplots(rows, columns, squeeze=False, **options).ravel()


def _inches(figsize: Any) -> FigureSize:
    try:
        width, height = map(float, figsize)
    except (TypeError, ValueError):
        width = height = np.nan
    if isinstance(figsize, str) or not (0 < width < np.inf and 0 < height < np.inf):
        raise SpecError(Finding("figsize", f"should be width and height in inches, found {figsize!r}"))
    return width, height


def table_of(
    found: xr.DataTree | xr.Dataset, summary: str, summarise: Callable[[Any], xr.Dataset], *needed: str
) -> xr.Dataset:
    """Return a summary as it was given, or that of a fit.

    Parameters
    ----------
    found : DataTree or Dataset
    summary : str
        The function that makes the summary, for the message.
    summarise : callable
        Makes it of a fit.
    *needed : str
        What the summary has.
    """
    if not isinstance(found, xr.Dataset):
        return summarise(found)
    if absent := [name for name in needed if name not in found]:
        hint = f"Pass what `fit` or `{summary}` returned"
        raise SpecError(Finding("plot", f"cannot be of a Dataset without {', '.join(absent)}", hint))
    return found


def name_list(argument: str, given: Any) -> list[str]:
    """Return names as a list, or say that these are none."""
    names = as_names(given)
    if not isinstance(names, list):
        raise SpecError(Finding(argument, f"should be a list of names, found {given!r}"))
    return names


def axes(ax: Any, width: float, height: float, figsize: FigureSize | None = None) -> Any:
    """Return the given axes, or those of a new figure."""
    return panels(ax, 1, 1, (width, height), figsize)[0]


def square_axes(ax: Any, n: int, figsize: FigureSize | None = None) -> Any:
    """Return the given axes, or new ones for a square picture of n tasks with a colour bar."""
    side = float(np.clip(0.17 * n + 2.2, 4.8, 13.0))
    return axes(ax, side + 1.2, side, figsize)


def name(label: Any) -> str:
    """Return a label; of a long one its beginning and its end."""
    text = str(label)
    return text if len(text) <= _LONGEST or "…" in text else f"{text[: _LONGEST - 11]}…{text[-10:]}"


def label_size(n: int, most: float = 9.0) -> float:
    """Return the size of the type of n labels side by side."""
    return float(np.clip(380.0 / max(n, 1), 5.0, most))


def ticks(set_ticks: Any, labels: Sequence[Any] | np.ndarray, *, most: float = 9.0, **options: Any) -> str:
    """Name positions 0, 1, ... of an axis: all up to 80, of more 40 that are evenly spaced.

    Returns
    -------
    str
        A note that says so, empty if all are named.
    """
    n = len(labels)
    at = evenly_spaced(n, LABELS_OF_MORE) if n > LABELS_UP_TO else np.arange(n)
    set_ticks(at, [name(labels[i]) for i in at], fontsize=label_size(len(at), most), **options)
    return f", {len(at)} evenly spaced ones named" if len(at) < n else ""


def label_square(ax: Any, labels: Sequence[Any], axis_label: str) -> None:
    """Label both sides of a square picture, and take away what is not read."""
    ticks(ax.set_xticks, labels, rotation=90)
    note = ticks(ax.set_yticks, labels)
    ax.set_xlabel(axis_label.removesuffix(")") + note + ")" if note else axis_label, fontsize=9)
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


def at_most(order: IntArray, first: int = 0) -> IntArray:
    """Keep as many rows as a page has room for: the first ones, and of the others evenly spaced ones."""
    rest = order[first:]
    return np.concatenate([order[:first], rest[evenly_spaced(len(rest), MAX_ROWS - first)]])


def row_axes(ax: Any, labels: Sequence[Any] | np.ndarray, figsize: FigureSize | None) -> tuple[Any, IntArray]:
    """Return axes with a labelled row for each of these, from the top, and the places of the rows."""
    ax = axes(ax, 6.4, rows_height(len(labels)), figsize)
    label_rows(ax, labels)
    bare(ax)
    return ax, np.arange(len(labels))


def title_rows(ax: Any, title: str, note: str, size: float = 11.0) -> None:
    """Put a title over such axes, and a note under it."""
    ax.set_title(title, loc="left", fontsize=size, pad=20)
    style = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": 8, "color": GREY}
    ax.annotate(note, (0, 1), xytext=(0, 6), **style)


def rows_height(n: int) -> float:
    """Return inches for n labelled rows."""
    return float(np.clip(0.24 * n + 1.4, 2.6, 15.0))


def label_rows(ax: Any, labels: Iterable[Any]) -> None:
    """Label rows 0, 1, ... from the top."""
    labels = list(labels)
    ticks(ax.set_yticks, labels)
    ax.set_ylim(len(labels) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)


def limits(values: FloatArray, *always: float) -> tuple[float, float]:
    """Return limits of an axis that one outlier does not stretch: 5 robust standard deviations at most.

    The robust standard deviation is 1.48 times the median distance from the median.

    Parameters
    ----------
    values : array
    *always : float
        What has to be inside anyway.
    """
    finite = values[np.isfinite(values)]
    if not len(finite):
        return -1.0, 1.0
    middle = float(np.median(finite))
    reach = _FAR * 1.4826 * float(np.median(np.abs(finite - middle))) or np.inf
    inside = [max(finite.min(), middle - reach), min(finite.max(), middle + reach), *always]
    low, high = float(min(inside)), float(max(inside))
    margin = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - margin, high + margin


def beyond(
    ax: Any, values: FloatArray, at: FloatArray | IntArray, low: float, high: float, *, colour: str
) -> None:
    """Mark points beyond the limits of the horizontal axis by triangles at its edge."""
    for outside, edge, marker in ((values < low, low, "<"), (values > high, high, ">")):
        if not outside.any():  # no artist: an empty one that is not clipped would be laid out at the origin
            continue
        points = np.full(int(outside.sum()), edge)
        ax.plot(points, at[outside], marker, color=colour, markersize=6, clip_on=False, zorder=4)
    ax.set_xlim(low, high)


def bare(ax: Any) -> None:
    """Leave only the axes that are read."""
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x", color="0.92", linewidth=0.8)
    ax.set_axisbelow(True)
