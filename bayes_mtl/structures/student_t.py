"""Tasks some of which are unlike the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import FloatArray, Label
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.structures._options import positive_finding
from bayes_mtl.structures.base import KnownTasks, Namer, TaskCovariance, TaskLoadings, TaskMixture
from bayes_mtl.structures.complete_pooling import CompletePooling
from bayes_mtl.structures.exchangeable import Exchangeable
from bayes_mtl.structures.no_pooling import NoPooling


@dataclass(frozen=True)
class StudentT(TaskCovariance):
    """Robust sharing, around any structure: deviations of tasks are multivariate t, not normal.

        reliability_t ~ Gamma(nu / 2, nu / 2)

    and the deviation of task t is one of the inner structure divided by its root. A task that is unlike the
    others gets a small reliability: it is shrunk less, and pulls the others less. `task_reliability` near 1
    says that a task is like the others.

    Parameters
    ----------
    inner : TaskCovariance
        How tasks relate, default `Exchangeable()`.
    nu : float or "learned"
        Degrees of freedom, default 4. "learned": nu - 1 ~ Gamma(2, 0.1).

    References
    ----------
    Yu, Tresp & Yu (2007), ICML.

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> mtl.StudentT(mtl.LowRank(2)).to_dict()
    {'name': 'StudentT', 'inner': {'name': 'LowRank', 'rank': 2}, 'nu': 4.0}
    """

    inner: TaskCovariance = field(default_factory=Exchangeable)
    nu: float | Literal["learned"] = 4.0

    def __post_init__(self) -> None:
        if isinstance(self.inner, str | Mapping):
            object.__setattr__(self, "inner", TaskCovariance.from_dict(self.inner))
        learned = self.nu == "learned"
        findings = [] if learned else positive_finding("StudentT", "nu", self.nu)
        if not isinstance(self.inner, TaskCovariance) or isinstance(
            self.inner, CompletePooling | NoPooling | StudentT | TaskMixture
        ):
            found = f"`inner` should be a structure under which tasks deviate, found {self.inner!r}"
            findings.append(Finding("StudentT", found, "For example Exchangeable()"))
        raise_if_any(findings, SpecError)
        if not learned:
            object.__setattr__(self, "nu", float(self.nu))

    @property
    def relates_tasks(self) -> bool:
        """As the inner structure."""
        return self.inner.relates_tasks

    @property
    def triangular(self) -> bool:
        """As the inner structure."""
        return self.inner.triangular

    @property
    def has_one_mode(self) -> bool:
        """As the inner structure."""
        return self.inner.has_one_mode

    @property
    def parameters(self) -> tuple[str, ...]:
        """Those of the inner structure, and how reliable each task is."""
        return (*self.inner.parameters, "nu", "task_reliability")

    @property
    def task_columns(self) -> tuple[str, ...] | None:
        """As the inner structure."""
        return self.inner.task_columns

    def knows(self, task: Label) -> bool:
        """As the inner structure."""
        return self.inner.knows(task)

    def with_tasks(self, places: Mapping[Label, Sequence[Any]]) -> StudentT:
        """Return the same around the inner structure with more tasks."""
        return replace(self, inner=self.inner.with_tasks(places))

    def findings(self, tasks: Sequence[Label]) -> list[Finding]:
        """As the inner structure."""
        return self.inner.findings(tasks)

    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Register the reliabilities."""
        inner = self.inner.task_loadings(tasks, name)
        if self.nu == "learned":
            nu = pm.Deterministic(name("nu"), 1.0 + pm.Gamma(name("nu_part"), 2.0, 0.1))
        else:
            nu = pt.as_tensor_variable(self.nu)
        reliability = pm.Gamma(name("task_reliability_part"), nu / 2.0, nu / 2.0, shape=len(tasks))
        return replace(inner, reliability=reliability)

    def draw_new(self, new: Sequence[Label], known: KnownTasks, rng: np.random.Generator) -> FloatArray:
        """Draw reliabilities from their law given nu, around the inner structure's law of new tasks."""

        def inner_deviations() -> FloatArray:
            return known.deviations() * np.sqrt(known.read("task_reliability"))[..., None]

        inner = self.inner.draw_new(new, replace(known, deviations=inner_deviations), rng)
        half = known.read("nu")[:, None] / 2.0 if self.nu == "learned" else self.nu / 2.0
        reliability = rng.gamma(half, size=inner.shape[:2]) / half
        return np.asarray(inner / np.sqrt(reliability)[..., None])
