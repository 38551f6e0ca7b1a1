"""Tasks in a known number of unknown groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from scipy.special import softmax

from bayes_mtl._typing import FloatArray, Label, Tensor
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.structures._options import count_finding, positive_finding
from bayes_mtl.structures.base import Namer, TaskComponents, TaskMixture
from bayes_mtl.structures.known import label_findings, numbers_of_tasks, plain_matrix, values_of_tasks

# Of how far columns of gating sort tasks, in log odds for one standard deviation: from hardly to surely.
_GATING_SCALE = 3.0


@dataclass(frozen=True)
class Clusters(TaskMixture):
    """A mixture of `n` groups of tasks, whose labels are summed out.

        z_t ~ Categorical(w),      beta_t ~ N(m_{z_t}, Sigma),      m_k ~ N(beta_mean, diag(cluster_sd)^2)

    Sigma is how far tasks lie from the centre of their cluster; where it is small, tasks of a cluster share
    their coefficients. Labels of clusters are arbitrary: read which tasks are together (`clusters`).

    Parameters
    ----------
    n : int
        Number of clusters at most, default 3; some may stay empty.
    concentration : float
        w ~ Dirichlet(concentration, ..., concentration), default 1.
    rank : int
        Number of directions in which tasks of a cluster vary together (a mixture of factor analysers):
        Sigma becomes D (R + F_k F_k') D, with columns of F_k that shrink where they are not needed. Default
        0.
    gating : data frame, series, or mapping from task to number(s), optional
        What is known of tasks that may say which cluster they are in, in any units: its columns are
        standardised over the tasks of the data. Instead of w, task t then has the weights

            w_tk ~ w_k exp(u_k' g_t),      u_k ~ N(0, gating_sd^2 I),      gating_sd ~ HalfNormal(3)

        where gating_sd, near zero if it says nothing, is learned. Where few rows a task cannot tell which
        kind it is of, gating can. There may be more tasks than in the data.
    columns : sequence of str, optional
        Names of the columns of `gating`. `predict` reads them for new tasks that `gating` does not have.

    See Also
    --------
    Clusters.from_table : gating from columns of a table.

    References
    ----------
    Bakker & Heskes (2003), JMLR 4; Passos, Rai, Wainer & Daume (2012), ICML.

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> gated = mtl.Clusters(2, gating={"shop 1": 120.0, "shop 2": 95.0, "mall": 2400.0})
    >>> gated.gating[0]
    ('shop 1', (120.0,))
    """

    n: int = 3
    concentration: float = 1.0
    rank: int = 0
    gating: Any = None
    columns: Sequence[str] | None = None

    def __post_init__(self) -> None:
        findings = count_finding("Clusters", "n", self.n, 2)
        findings += positive_finding("Clusters", "concentration", self.concentration)
        findings += count_finding("Clusters", "rank", self.rank, 0)
        gating = self.gating
        if gating is not None:
            try:
                labels, numbers = numbers_of_tasks("Clusters", "gating", _from_pairs(gating))
            except SpecError as err:
                findings += err.findings
            else:
                gating = tuple(zip(labels, plain_matrix(numbers), strict=True))
                wrong = isinstance(self.columns, str) or len(self.columns or ()) != numbers.shape[1]
                if self.columns is not None and wrong:
                    found = f"`columns` should be a name for each of {numbers.shape[1]} columns of `gating`"
                    findings.append(Finding("Clusters", f"{found}, found {self.columns!r}"))
        elif self.columns is not None:
            findings.append(Finding("Clusters", "`columns` has no meaning without `gating`", "Remove it"))
        raise_if_any(findings, SpecError)
        object.__setattr__(self, "concentration", float(self.concentration))
        object.__setattr__(self, "gating", gating)
        object.__setattr__(self, "columns", None if self.columns is None else tuple(self.columns))

    @classmethod
    def from_table(
        cls,
        table: Any,
        *,
        task: str,
        columns: Sequence[str],
        n: int = 3,
        concentration: float = 1.0,
        rank: int = 0,
    ) -> Self:
        """Read `gating` from a table.

        Parameters
        ----------
        table : data frame
        task : str
            Column of tasks.
        columns : sequence of str
            Columns of numbers that do not change within a task. `predict` reads them for new tasks.
        n, concentration, rank
            See the class.

        Raises
        ------
        SpecError
            If a task has several values.

        Examples
        --------
        >>> import bayes_mtl as mtl
        >>> table = {"shop": ["a", "a", "b"], "area": [120.0, 120.0, 2400.0]}
        >>> mtl.Clusters.from_table(table, task="shop", columns=["area"], n=2).gating
        (('a', (120.0,)), ('b', (2400.0,)))
        """
        gating = values_of_tasks("Clusters", "columns", table, task, columns, "value")
        return cls(n, concentration, rank, gating=gating, columns=columns)

    def __str__(self) -> str:
        """Leave the values of `gating` out."""
        default = {f.name: f.default for f in fields(self)}
        options = {k: v for k, v in vars(self).items() if k not in ("gating", "columns") and v != default[k]}
        shown = ["n=" + str(self.n), *(f"{k}={v}" for k, v in options.items() if k != "n")]
        if self.gating is not None:
            shown.append("gating=" + (repr(list(self.columns)) if self.columns else "..."))
        return f"Clusters({', '.join(shown)})"

    @property
    def parameters(self) -> tuple[str, ...]:
        """How much gating says. Labels of clusters are arbitrary, so nothing of theirs."""
        return ("gating_sd",) if self.gating is not None else ()

    @property
    def has_directions(self) -> bool:
        """Whether `rank` asks for them."""
        return bool(self.rank)

    @property
    def task_columns(self) -> tuple[str, ...] | None:
        """`columns`."""
        return None if self.columns is None else tuple(self.columns)

    def with_tasks(self, places: Mapping[Label, Sequence[Any]]) -> Clusters:
        """Return the same with more tasks in `gating`."""
        return self if self.gating is None else replace(self, gating=dict(self.gating) | dict(places))

    def findings(self, tasks: Sequence[Label]) -> list[Finding]:
        """Say for which tasks `gating` has no values, and which of its columns is constant."""
        if self.gating is None:
            return []
        found = label_findings("Clusters", tasks, dict(self.gating))
        if not found and len(tasks) > 1:
            values = self._values(tasks)
            for j in np.flatnonzero(np.ptp(values, axis=0) == 0):
                name = repr(self.task_columns[j]) if self.task_columns else f"column {j + 1} of `gating`"
                hint = "Leave it out: it tells no two tasks apart"
                found.append(Finding("Clusters", f"has {name} with one value for all tasks", hint))
        return found

    def gates(self, tasks: Sequence[Label], known: Sequence[Label]) -> FloatArray:
        """Return g of tasks, standardised over the known ones, (n_tasks, n_columns)."""
        values = self._values(known)
        spread = values.std(axis=0)
        return np.asarray((self._values(tasks) - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0))

    def weights(
        self, weight: FloatArray, effect: FloatArray, tasks: Sequence[Label], known: Sequence[Label]
    ) -> FloatArray:
        """Return w_tk ~ w_k exp(u_k' g_t) of some tasks, from draws.

        Parameters
        ----------
        weight : (..., n_tasks or 1, n_clusters)
            w.
        effect : (..., n_columns, n_clusters)
            u.
        tasks, known : sequences of labels
            The tasks in question, and those that the model was fitted to.
        """
        with np.errstate(divide="ignore"):
            log_weight = np.log(weight) + self.gates(tasks, known) @ effect
        return np.asarray(softmax(log_weight, axis=-1))

    def component_names(self, tasks: Sequence[Label]) -> Sequence[Label]:
        """Number the clusters."""
        return range(self.n)

    def components(self, tasks: Sequence[Label], n_features: int, name: Namer) -> TaskComponents:
        """Register weights, and directions."""
        weight = pm.Dirichlet(
            name("cluster_weight"), np.full(self.n, self.concentration), dims=name("cluster")
        )
        log_weight: Tensor = pt.log(weight)[None, :]
        if self.gating is not None:
            g = self.gates(tasks, tasks)
            pm.modelcontext(None).add_coord(name("gate"), self._gate_names(g.shape[1]))
            dims = (name("cluster"), name("gate"))
            scale = pm.HalfNormal(name("gating_sd"), _GATING_SCALE)
            u = scale * pm.Normal(name("cluster_gating_part"), 0.0, 1.0, shape=(self.n, g.shape[1]))
            pm.Deterministic(name("cluster_gating"), u, dims=dims)
            log_weight = pt.special.log_softmax(log_weight + pt.dot(g, u.T), axis=1)
        factors = None
        if self.rank:
            scale = pm.HalfNormal(name("cluster_factor_scale_part"), 1.0, shape=(self.n, 1, self.rank))
            factors = pm.Normal(
                name("cluster_factor_offset"), 0.0, 1.0, shape=(self.n, n_features, self.rank)
            )
            factors = scale * factors
        return TaskComponents(log_weight, factors)

    def _gate_names(self, n: int) -> Sequence[Label]:
        return self.task_columns or range(n)

    def _values(self, tasks: Sequence[Label]) -> FloatArray:
        known = dict(self.gating)
        return np.array([known[task] for task in tasks], dtype=float)


def _from_pairs(gating: Any) -> Any:
    """Return (task, numbers) pairs, as which gating is kept, as a mapping, and tables as they are."""
    is_table = hasattr(gating, "index") and not isinstance(gating, str | list | tuple)
    if is_table or isinstance(gating, Mapping):
        return gating
    wanted = "a mapping from task to number(s), a series or a data frame"
    try:
        pairs = [(task, numbers) for task, numbers in gating]
        found = dict(pairs)
    except (TypeError, ValueError) as err:
        problem = f"`gating` should be {wanted}, found {gating!r:.60}"
        raise SpecError(Finding("Clusters", problem)) from err
    if len(found) < len(pairs):
        raise SpecError(Finding("Clusters", "has a label more than once"))
    return found
