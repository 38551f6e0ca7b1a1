"""What a model consists of, and what depends on what."""

from __future__ import annotations

from typing import Any

import pymc as pm
from pymc.model_graph import ModelGraph

from bayes_mtl.errors import Finding, SpecError
from bayes_mtl.plots._common import BLUE, GREY, FigureSize, axes

_WIDTH, _HEIGHT = 2.3, 1.25  # inches that a variable takes


def plot_model(model: pm.Model, *, ax: Any = None, figsize: FigureSize | None = None) -> Any:
    """Draw the variables of a model from hyperparameters to the outcome, with their priors and dims.

    Coordinates that only the sampler moves (offsets without dims) are left out; what is computed from them
    stands in their place.

    Parameters
    ----------
    model : pymc.Model
        From `build_model`, or your own. Of a model whose coefficients are integrated out, hyperparameters
        lead to the outcome directly; ``build_model(spec, data, marginal=False)`` shows the coefficients.
    ax : matplotlib Axes, optional
        Where to draw; default a new figure.
    figsize : (float, float), optional
        Inches of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    SpecError
        If this is not a model, or one without variables.

    Examples
    --------
    >>> mtl.plot_model(mtl.build_model(spec, data, marginal=False))  # doctest: +SKIP
    """
    if not isinstance(model, pm.Model):
        found = f"should be a pymc.Model, found {type(model).__name__}"
        raise SpecError(Finding("model", found, "Pass build_model(spec, data), or a model of your own"))
    parents = model_parents(model)
    if not parents:
        raise SpecError(
            Finding("model", "has no variables to draw", "Give vectors dims: only those are shown")
        )
    layers = _layers(parents)
    ax = axes(ax, _WIDTH * max(map(len, layers)), _HEIGHT * len(layers), figsize)
    place = {
        name: (i - (len(layer) - 1) / 2, -depth)
        for depth, layer in enumerate(layers)
        for i, name in enumerate(layer)
    }
    observed = {rv.name for rv in model.observed_RVs}
    for name, above in parents.items():
        for parent in above:
            (x, y), (from_x, from_y) = place[name], place[parent]
            arrow = {"arrowstyle": "-|>", "color": GREY, "shrinkA": 0, "shrinkB": 0}
            ax.annotate("", xy=(x, y + 0.26), xytext=(from_x, from_y - 0.2), arrowprops=arrow)
    for name, (x, y) in place.items():
        colour = "0.88" if name in observed else "white"
        box = {
            "boxstyle": "round,pad=0.4",
            "facecolor": colour,
            "edgecolor": BLUE if parents[name] else "0.4",
        }
        ax.text(x, y, _label(model, name), ha="center", va="center", fontsize=8, bbox=box, zorder=3)
    half = max(map(len, layers)) / 2
    ax.set_xlim(-half, half)
    ax.set_ylim(-len(layers) + 0.5, 0.5)
    ax.set_axis_off()
    return ax


def model_parents(model: pm.Model) -> dict[str, list[str]]:
    """Return, per variable that has dims, is a number or is observed, which others it depends on.

    What depends on a variable that is left out depends on what is reported of that instead. What another
    parent is computed from, or is reached only on the way through it, is not repeated.
    """
    direct = {str(k): {str(p) for p in above} for k, above in ModelGraph(model).make_compute_graph().items()}
    shown = [
        name
        for name, var in model.named_vars.items()
        if name in direct
        and var not in model.data_vars
        and (not var.ndim or name in model.named_vars_to_dims or var in model.observed_RVs)
    ]
    needed = set().union(*direct.values())
    reports = [d.name for d in model.deterministics if d.name in shown and d.name not in needed]

    def above(name: str, asked: str) -> set[str]:
        found: set[str] = set()
        for parent in direct[name]:
            if parent in shown:
                found.add(parent)
            elif parent in direct:
                instead = {r for r in reports if parent in direct[r]} if asked not in reports else set()
                found |= instead or above(parent, asked)
        return found

    found = {name: above(name, name) for name in shown}
    computed = {d.name for d in model.deterministics}

    def repeated(p: str, name: str) -> bool:
        between = [q for q in found[name] if p in found[q]]
        return any(q in computed or p not in direct[name] for q in between)

    return {name: [p for p in shown if p in of and not repeated(p, name)] for name, of in found.items()}


def _layers(parents: dict[str, list[str]]) -> list[list[str]]:
    """Return the variables from top to bottom, each just above the first that depends on it, lines short."""
    children = {name: [n for n, above in parents.items() if name in above] for name in parents}
    height: dict[str, int] = {}

    def find(name: str) -> int:
        if name not in height:
            height[name] = 1 + max((find(child) for child in children[name]), default=-1)
        return height[name]

    levels = [[n for n in parents if find(n) == i] for i in range(1 + max(map(find, parents), default=-1))]
    place: dict[str, float] = {}
    for level in levels:  # from the bottom: above the middle of what depends on it
        wanted = {n: sum(place[c] for c in children[n]) / max(1, len(children[n])) for n in level}
        level.sort(key=wanted.__getitem__)
        place |= {n: i - (len(level) - 1) / 2 for i, n in enumerate(level)}
    return levels[::-1]


def _label(model: pm.Model, name: str) -> str:
    var, dims = model.named_vars[name], model.named_vars_to_dims.get(name, ())
    law = ""
    if var in model.basic_RVs:
        op = var.owner.op
        law = f"\n~ {getattr(op, '_print_name', (type(op).__name__,))[0]}"
    lengths = [len(model.coords[d]) if model.coords.get(d) is not None else None for d in dims]
    size = " × ".join(d if n is None else f"{d} ({n})" for d, n in zip(dims, lengths, strict=True))
    return f"{name}{law}" + (f"\n{size}" if size else "")
