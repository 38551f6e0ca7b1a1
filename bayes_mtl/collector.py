"""Graphs without the collector of cycles, which would look through them a thousand times and find nothing."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Let Python's collector rest while graphs are built or compiled: it takes a fifth of that time.

    What a graph leaves behind is collected afterwards. Also a decorator.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
