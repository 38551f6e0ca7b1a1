"""Checks of arguments that public functions share, each said in one way."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayes_mtl._typing import IntArray, Label
from bayes_mtl.errors import Finding, FindingsError, SpecError, StorageError, raise_if_any


def generator(random_seed: Any, error: type[FindingsError] = SpecError) -> np.random.Generator:
    """Return the generator of random numbers that a seed stands for, or say that it is none."""
    try:
        return np.random.default_rng(random_seed)
    except (TypeError, ValueError) as err:
        problem = f"should be an integer (from 0 on) or a Generator, found {random_seed!r}"
        raise error(Finding("random_seed", problem)) from err


def whole_number(name: str, value: Any) -> int:
    """Return a whole number that is not negative, or say that it is none."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise SpecError(Finding(name, f"should be a whole number from 0 on, found {value!r}"))
    return int(value)


def truth(name: str, value: Any) -> bool:
    """Return a truth value, or say that it is none."""
    raise_if_any(truth_findings(name, value), SpecError)
    return bool(value)


def truth_findings(name: str, value: Any) -> list[Finding]:
    """Say that a value is no truth value, where there may be more to say."""
    if isinstance(value, bool | np.bool_):
        return []
    return [Finding(name, f"should be True or False, found {value!r}")]


def task_positions(
    known: Sequence[Label] | np.ndarray, tasks: Sequence[Label] | None, *, least: int = 1
) -> IntArray:
    """Return the positions of the tasks that were asked for, each once, or of all.

    Raises
    ------
    SpecError
        If these are no labels, one is not known, or there are fewer than `least`, which is one or two.
    """
    labels = np.asarray(known, dtype=object).tolist()
    if tasks is None:
        return np.arange(len(labels))
    if isinstance(tasks, str) or not isinstance(tasks, Sequence | np.ndarray | pd.Index | pd.Series):
        raise SpecError(Finding("tasks", f"should be a list of labels, found {tasks!r}"))
    asked = list(dict.fromkeys(t.item() if isinstance(t, np.generic) else t for t in tasks))
    place = {label: i for i, label in enumerate(labels)}
    findings = [Finding("tasks", f"{t!r} is not known") for t in asked if t not in place]
    if not findings and len(asked) < least:
        some = "two tasks" if least == 2 else "one task"
        findings = [Finding("tasks", f"should name {some} at least, found {len(asked)}")]
    if findings:
        raise SpecError(findings)
    return np.array([place[t] for t in asked])


def file_path(path: Any) -> Path:
    """Return a path, or say that it is none."""
    if not isinstance(path, str | os.PathLike):
        raise StorageError(f"path: should be text or a Path, found {type(path).__name__}")
    return Path(path)
