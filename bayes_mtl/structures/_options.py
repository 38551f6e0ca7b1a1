"""Checks that structures share."""

from __future__ import annotations

from numbers import Real
from typing import Any

from bayes_mtl.errors import Finding


def count_finding(who: str, name: str, value: Any, least: int = 1) -> list[Finding]:
    """Say if an option is not an integer of at least `least`."""
    if not isinstance(value, bool) and isinstance(value, int) and value >= least:
        return []
    return [Finding(who, f"`{name}` should be an integer of at least {least}, found {value!r}")]


def positive_finding(who: str, name: str, value: Any, above: float = 0.0) -> list[Finding]:
    """Say if an option is not a finite number above `above`."""
    if not isinstance(value, bool) and isinstance(value, Real) and above < float(value) < float("inf"):
        return []
    return [Finding(who, f"`{name}` should be a number above {above:g}, found {value!r}")]
