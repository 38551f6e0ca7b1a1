"""Complete pooling: all tasks have the same coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from bayes_mtl.structures.base import Namer, TaskCovariance, TaskLoadings


@dataclass(frozen=True)
class CompletePooling(TaskCovariance):
    """One coefficient vector for all tasks: Lambda and delta are zero.

    The first of the two honest baselines. Task features still shift the coefficients.
    """

    relates_tasks: ClassVar[bool] = False

    def task_loadings(self, n_tasks: int, name: Namer) -> TaskLoadings:
        """Return no deviations at all."""
        return TaskLoadings()
