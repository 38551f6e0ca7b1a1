"""Exchangeable tasks: deviations are independent draws from one distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytensor.tensor as pt

from bayes_mtl._typing import Label
from bayes_mtl.structures.base import Namer, TaskCovariance, TaskLoadings


@dataclass(frozen=True)
class Exchangeable(TaskCovariance):
    """Partial pooling towards the population mean: delta = 1, no loadings, Omega = I.

    The classical hierarchical regression of Lindley & Smith (1972), and of mixed-model software.
    """

    @property
    def relates_tasks(self) -> bool:
        """No: deviations of tasks are independent."""
        return False

    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Return independent deviations."""
        return TaskLoadings(unique_sd=pt.ones(len(tasks)))
