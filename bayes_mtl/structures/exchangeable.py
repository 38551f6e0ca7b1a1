"""Exchangeable tasks: deviations are independent draws from one distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytensor.tensor as pt

from bayes_mtl.structures.base import Namer, TaskCovariance, TaskLoadings


@dataclass(frozen=True)
class Exchangeable(TaskCovariance):
    """Partial pooling towards the population mean: delta = 1, no loadings, Omega = I.

    The classical hierarchical regression of Lindley & Smith (1972), and of mixed-model software.
    """

    relates_tasks: ClassVar[bool] = False

    def task_loadings(self, n_tasks: int, name: Namer) -> TaskLoadings:
        """Return independent deviations."""
        return TaskLoadings(unique_sd=pt.ones(n_tasks))
