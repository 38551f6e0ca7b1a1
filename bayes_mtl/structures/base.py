"""What a structure is: loadings of tasks on latent coefficient vectors, and what is left to each task.

beta_t = mean_t + r_t^-1/2 (sum_k Lambda_tk f_k + e_t),    f_k ~ N(0, Sigma),   e_t ~ N(0, delta_t^2 Sigma)
=>  Cov(vec B) = diag(r)^-1/2 Omega diag(r)^-1/2 (x) Sigma,     Omega = Lambda Lambda' + diag(delta^2)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayes_mtl._typing import FloatArray, Label, Tensor
from bayes_mtl.description import Described
from bayes_mtl.errors import Finding

Namer = Callable[[str], str]  # from the name in the notation ("task_corr") to the name in the model


@dataclass(frozen=True)
class TaskLoadings:
    """The tensors of a task structure. None means that the part is not there.

    Attributes
    ----------
    loadings : (n_tasks, n_factors) or None
        Lambda.
    unique_sd : (n_tasks,) or None
        delta.
    reliability : (n_tasks,) or None
        r, small where a task deviates more than others. None means one.
    """

    loadings: Tensor | None = None
    unique_sd: Tensor | None = None
    reliability: Tensor | None = None


@dataclass(frozen=True)
class KnownTasks:
    """Posterior draws of the tasks that were fitted, which the law of new tasks conditions on.

    The first axis of every array is the draw.

    Attributes
    ----------
    labels : sequence of labels
    n_draws, n_features : int
        Features are those inside the task covariance.
    name : Namer
        From names in the notation to names in the fit.
    read : callable
        From the name of a variable, in the notation, to its draws.
    evaluate : callable
        From a function that registers variables and returns tensors, to the values of these tensors at the
        draws of the variables.
    deviations : callable
        Returns the deviations of the known tasks from their means (draw, task, feature), in units in which
        features are independent and have variance one (L^-1 (beta_t - mean_t) for Sigma = L L').
    """

    labels: Sequence[Label]
    n_draws: int
    n_features: int
    name: Namer
    read: Callable[[str], FloatArray]
    evaluate: Callable[[Callable[[], Sequence[Tensor]]], Sequence[FloatArray]]
    deviations: Callable[[], FloatArray]

    def standard_normal(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw deviations of `n` tasks that are independent of each other, (draw, n, feature)."""
        return rng.standard_normal((self.n_draws, n, self.n_features))


class TaskCovariance(Described, ABC):
    """How the coefficient vectors of tasks co-vary: Omega, a correlation matrix of tasks."""

    @property
    def shares(self) -> bool:
        """Whether tasks learn anything from each other."""
        return True

    @property
    def relates_tasks(self) -> bool:
        """Whether Omega has entries off the diagonal to be learned."""
        return True

    @property
    def triangular(self) -> bool:
        """Whether loadings are square and lower triangular, without unique parts: factor t is task t's."""
        return False

    @property
    def has_one_mode(self) -> bool:
        """Whether one mode of the posterior says how wide it is: not if rotations or labels are arbitrary."""
        return True

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of this structure's variables that are worth reading."""
        return ()

    def findings(self, tasks: Sequence[Label]) -> list[Finding]:
        """Everything that does not fit between this structure and the tasks of the data."""
        return []

    @property
    def task_columns(self) -> tuple[str, ...] | None:
        """Columns of a table that say where a new task is among the known ones, if it was read from one."""
        return None

    def knows(self, task: Label) -> bool:
        """Whether this structure says how a task relates to others before there are any of its data."""
        return False

    def with_tasks(self, places: Mapping[Label, Sequence[Any]]) -> TaskCovariance:
        """Return this structure with more tasks, given the values of their `task_columns`."""
        return self

    def draw_new(self, new: Sequence[Label], known: KnownTasks, rng: np.random.Generator) -> FloatArray:
        """Draw deviations of new tasks from their joint law given the known tasks, once per draw.

        Parameters
        ----------
        new : sequence of labels
        known : KnownTasks
        rng : Generator

        Returns
        -------
        (draw, new task, feature)
            In the units of `known.deviations`. Default: independent of the known tasks, which is right where
            nothing but the hyperparameters relates tasks, or where the structure does not say how a new task
            relates to the others.
        """
        return known.standard_normal(len(new), rng)

    @abstractmethod
    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Register this structure's variables in the current model and return its tensors.

        Parameters
        ----------
        tasks : sequence of labels
            In the order of the rows of the tensors.
        name : callable
            From names in the notation to names in the model.
        """


class FeatureCovariance(Described, ABC):
    """How the coefficients of one task co-vary: the correlation in Sigma = diag(sd) R diag(sd)."""

    @property
    def has_one_mode(self) -> bool:
        """Whether one mode of the posterior says how wide it is: not if rotations are arbitrary."""
        return True

    @abstractmethod
    def correlation_cholesky(self, n_features: int, name: Namer) -> Tensor | None:
        """Register variables in the current model; return the Cholesky factor of R (None: identity)."""

    def feature_loadings(self, n_features: int, name: Namer) -> TaskLoadings | None:
        """Register variables of a factor model R = Lambda Lambda' + diag(delta^2); None if it is not one.

        If it is, `correlation_cholesky` is not asked. `loadings` are (n_features, n_factors), `unique_sd` is
        (n_features,); a dim "feature_factor", by `name`, has to be added.
        """
        return None


@dataclass(frozen=True)
class Candidates:
    """What the scales of features may depend on; features are those that may matter or not.

    Attributes
    ----------
    inverse_sd : (n_features,)
        One over the standard deviation of each feature over all rows.
    unit : ()
        Size of the outcome: its standard deviation, 1 for a logit.
    noise : ()
        Noise scale, or what takes its place.
    rows_per_task : ()
    n_tasks : int
    dims : tuple of two str
        Dims of tasks and of these features.
    """

    inverse_sd: Tensor
    unit: Tensor
    noise: Tensor
    rows_per_task: Tensor
    n_tasks: int
    dims: tuple[str, str]

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.inverse_sd.type.shape[0])


@dataclass(frozen=True)
class FeatureLaw:
    """How large the coefficients of features are, given the hyperparameters.

    Attributes
    ----------
    mean_sd : (n_features,)
        Standard deviation of `beta_mean`, whose mean is zero.
    feature_sd : (n_features,)
    specific_sd : (n_tasks, n_features) or None
        Standard deviation of a part that is added to the coefficients of single tasks, `beta_specific`.
    """

    mean_sd: Tensor
    feature_sd: Tensor
    specific_sd: Tensor | None = None


class FeatureScales(Described, ABC):
    """How large coefficients are, feature by feature, decided for all features together."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the variables that are worth reading."""
        return ()

    def findings(self, n_features: int) -> list[Finding]:
        """Everything that does not fit this number of features."""
        return []

    @abstractmethod
    def at_noise(self, size: FloatArray, ratio: FloatArray) -> FloatArray:
        """Return sizes of coefficients, in their units, as they would be with `ratio` times the noise."""

    @abstractmethod
    def law(self, candidates: Candidates, name: Namer) -> FeatureLaw:
        """Register variables in the current model and return the scales."""


@dataclass(frozen=True)
class TaskComponents:
    """The tensors of a mixture of tasks, in units of the scales of the features.

    Attributes
    ----------
    log_weight : (1, n_components) or (n_tasks, n_components)
        Log probability of each component, for all tasks or for each.
    factors : (n_components, n_features, rank) or None
        F_k, for tasks of component k that vary by D (w^2 R + F_k F_k') D instead of Sigma = D R D.
    rest : scalar or None
        w, by default 1.
    """

    log_weight: Tensor
    factors: Tensor | None = None
    rest: Tensor | None = None


class TaskMixture(TaskCovariance):
    """Tasks each belong to one of several components; given the components they are independent."""

    @property
    def relates_tasks(self) -> bool:
        """No: what relates tasks is the component that they are in."""
        return False

    @property
    def has_one_mode(self) -> bool:
        """No: labels of components are arbitrary."""
        return False

    @property
    def has_centres(self) -> bool:
        """Whether components differ in where their tasks lie."""
        return True

    @property
    def has_directions(self) -> bool:
        """Whether components differ in how their tasks vary (`TaskComponents.factors`)."""
        return not self.has_centres

    def membership(self, new: Sequence[Label], known: Sequence[Label]) -> FloatArray | None:
        """Return in which component new tasks surely are, (n_new, n_components); None if that is learned.

        Raises
        ------
        SpecError
            If a new task is in no component of the known tasks.
        """
        return None

    @abstractmethod
    def component_names(self, tasks: Sequence[Label]) -> Sequence[Label]:
        """Return a label for each component."""

    @abstractmethod
    def components(self, tasks: Sequence[Label], n_features: int, name: Namer) -> TaskComponents:
        """Register this structure's variables in the current model and return its tensors."""

    def task_loadings(self, tasks: Sequence[Label], name: Namer) -> TaskLoadings:
        """Not for mixtures: the covariance of their tasks has no loadings."""
        raise NotImplementedError(f"{type(self).__name__} is a mixture of tasks: see `components`")
