"""Complete pooling: all tasks have the same coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bayes_mtl._typing import Label
from bayes_mtl.structures.base import Namer, TaskCovariance, TaskLoadings


@dataclass(frozen=True)
class CompletePooling(TaskCovariance):
    """One coefficient vector for all tasks: Lambda and delta are zero.

    The first of the two honest baselines. Task features still shift the coefficients.
    """

    @property
    def relates_tasks(self) -> bool:
        """No: there are no deviations."""
        return False

    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Return no deviations at all."""
        return TaskLoadings()
