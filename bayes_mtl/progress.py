"""A progress bar for work that turns out to be long, in a terminal or a notebook."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import Any

PATIENCE = 2.0  # seconds without a bar

_bar: ContextVar[Any] = ContextVar("bayes_mtl_bar", default=None)
_hidden: ContextVar[bool] = ContextVar("bayes_mtl_bar_hidden", default=False)


@contextmanager
def progress(what: str, total: int, *, show: bool = True) -> Iterator[Callable[[], None]]:
    """Give a function to call after each of `total` steps; after two seconds a bar shows how many are done.

    Inside the block of another `progress` a line is added to its bar, and nothing is shown if that one
    shows nothing.

    Parameters
    ----------
    what : str
        Description of the work.
    total : int
        Number of steps.
    show : bool
        Whether there is a bar at all.

    Yields
    ------
    callable
        Call it after each step.
    """
    started, done = time.monotonic(), 0
    bar, line, begun = _bar.get(), None, False
    hidden = _hidden.set(_hidden.get() or not show)
    outer = _bar.set(bar)

    def step() -> None:
        nonlocal bar, line, begun, done
        done += 1
        if line is None and not _hidden.get() and time.monotonic() - started > PATIENCE:
            if bar is None:
                bar = _new_bar()
                if bar is None:
                    _hidden.set(True)
                    return
                bar.start()
                begun = True
                _bar.set(bar)
            line = bar.add_task(what, total=total)
        if line is not None:
            bar.update(line, completed=done)

    try:
        yield step
    finally:
        if line is not None:
            bar.remove_task(line)
        if begun:
            bar.stop()
        _bar.reset(outer)
        _hidden.reset(hidden)


def _new_bar() -> Any:
    """Return a bar that leaves nothing behind, or None where nobody would see it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (console.is_terminal or (console.is_jupyter and find_spec("ipywidgets") is not None)):
        return None
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True)
