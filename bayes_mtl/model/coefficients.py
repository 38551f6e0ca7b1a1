"""The Gaussian law of task coefficients, latent or waiting to be integrated out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import IntArray, Tensor
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.kernels import product, repeat
from bayes_mtl.model.coords import FACTOR, bis
from bayes_mtl.model.feature_correlation import embed, feature_correlation
from bayes_mtl.model.latent import Noncentered, register_coefficients
from bayes_mtl.model.mixture import latent_mixture, mixture_prior
from bayes_mtl.model.numbers import Numbers, constants
from bayes_mtl.model.priors import TASK_SD, WIDE, common_scale, register
from bayes_mtl.prior import Prior
from bayes_mtl.spec import (
    PRIOR_NAMES,
    PriorEntry,
    PriorValue,
    common_scale_findings,
    no_common_scale,
    outside_features,
    prior_findings,
    scaled_together,
)
from bayes_mtl.structures import (
    LKJ,
    CompletePooling,
    Exchangeable,
    FeatureCovariance,
    Namer,
    NoPooling,
    StudentT,
    TaskCovariance,
    TaskMixture,
)


@dataclass(frozen=True)
class CoefficientPrior:
    """Law of the deviations L u_t of the coefficients from their means, given the hyperparameters.

    L = diag(sd) C is the Cholesky factor of Sigma. Inside the task covariance
    u_t = sum_k loadings_tk f_k + unique_sd_t e_t; outside u_t = e_t.

    Attributes
    ----------
    sd : (n_features,)
    correlation : (n_inside, n_inside)
        Cholesky factor of the correlation of the features inside the task covariance. The others are
        independent.
    loadings : (n_tasks, n_factors) or None
    unique_sd : (n_tasks,) or None
    inside : ndarray of int
        Positions of the features inside the task covariance.
    varies : bool
        False if beta equals its mean (complete pooling).
    """

    sd: Tensor
    correlation: Tensor
    loadings: Tensor | None
    unique_sd: Tensor | None
    inside: IntArray
    varies: bool

    @property
    def n_features(self) -> int:
        """Number of features."""
        return int(self.sd.type.shape[0])

    @property
    def n_tasks(self) -> int:
        """Number of tasks, where tasks deviate."""
        part: Tensor = self.unique_sd if self.unique_sd is not None else self.loadings
        return int(part.type.shape[0])

    @property
    def has_factors(self) -> bool:
        """Whether the entries of a few factors are variables beside the coefficients."""
        if not self.varies or self.loadings is None or self.unique_sd is None:
            return False
        return int(self.loadings.type.shape[1]) < self.n_tasks

    @property
    def law(self) -> dict[str, Tensor]:
        """What says all of the coefficients but their means."""
        return {
            "sd": self.sd,
            "correlation": self.correlation,
            "loadings": pt.zeros((self.n_tasks, 0)) if self.loadings is None else self.loadings,
            "unique_sd": pt.zeros(self.n_tasks) if self.unique_sd is None else self.unique_sd,
        }

    @property
    def own(self) -> IntArray:
        """Positions of the features in which tasks deviate on their own."""
        everything = np.arange(self.n_features)
        alone = self.varies and self.unique_sd is not None
        return everything if alone else np.setdiff1d(everything, self.inside)

    @property
    def n_common(self) -> int:
        """Number of entries of the factors f_k."""
        return 0 if self.loadings is None else int(self.loadings.type.shape[1]) * len(self.inside)


def coefficient_prior(
    *,
    task_covariance: TaskCovariance,
    feature_covariance: FeatureCovariance,
    outside: Sequence[str],
    tasks: Sequence[Any],
    features: Sequence[str],
    dims: tuple[str, str],
    feature_sd: Any,
    task_sd: Any,
    name: Namer,
    feature_sd_scale: Any = 1.0,
    numbers: Numbers = constants,
) -> CoefficientPrior:
    """Register the hyperparameters of a coefficient block in the current model.

    Parameters
    ----------
    feature_sd : list of Prior or float, or (n_features,)
        One per feature; a tensor is registered already.
    task_sd : Prior, float or None
        One for all tasks; None: no scale per task.
    name : Namer
        From the names of the notation to the names in this model.
    feature_sd_scale : Prior or float
        What the priors of `feature_sd` of slopes inside the task covariance are multiplied by.
    numbers : callable
        How the parameters of the priors enter the graph.
    """
    n_tasks, n_features = len(tasks), len(features)
    task_dim, feature_dim = dims
    if isinstance(task_covariance, CompletePooling):
        everything = np.arange(n_features)
        return CoefficientPrior(
            pt.ones(n_features), pt.eye(n_features), None, pt.zeros(n_tasks), everything, varies=False
        )

    inside = np.array([i for i, f in enumerate(features) if f not in outside], dtype=np.int64)
    sd = feature_sd
    if isinstance(feature_sd, list):
        factor = None
        together = [i for i in inside if features[i] != INTERCEPT]
        if feature_sd_scale != 1.0 and together:
            common = feature_sd_scale
            if isinstance(common, Prior):
                common = register(name("feature_sd_scale"), common, shape=(), numbers=numbers)
            factor = pt.set_subtensor(pt.ones(n_features)[np.array(together)], common)
        sd = register(name("feature_sd"), feature_sd, dims=feature_dim, factor=factor, numbers=numbers)
    independent = isinstance(task_covariance, NoPooling) or not len(inside)
    correlation = pt.eye(len(inside))
    if not independent:
        correlation = feature_correlation(feature_covariance, inside, n_features, feature_dim, name)

    law = task_covariance.task_loadings(tasks, name)
    if task_covariance.relates_tasks:
        corr = pt.zeros((n_tasks, n_tasks)) if law.loadings is None else law.loadings @ law.loadings.T
        if law.unique_sd is not None:
            corr = corr + pt.diag(law.unique_sd**2)
        pm.Deterministic(name("task_corr"), corr, dims=(task_dim, bis(task_dim)))
        if law.loadings is not None:
            factor_dim = name(FACTOR)
            if factor_dim not in pm.modelcontext(None).coords:
                pm.modelcontext(None).add_coord(factor_dim, range(law.loadings.type.shape[1]))
            pm.Deterministic(name("task_loadings"), law.loadings, dims=(task_dim, factor_dim))
        if law.unique_sd is not None:
            pm.Deterministic(name("task_unique_sd"), law.unique_sd, dims=task_dim)
    scale = None
    if law.reliability is not None:
        scale = pm.Deterministic(name("task_reliability"), law.reliability, dims=task_dim) ** -0.5
    if task_sd is not None:
        own = register(name("task_sd"), task_sd, dims=task_dim, shape=(n_tasks,))
        scale = own if scale is None else scale * own
    loadings, unique_sd = law.loadings, law.unique_sd
    if scale is not None:
        loadings = None if loadings is None else scale[:, None] * loadings
        unique_sd = None if unique_sd is None else scale * unique_sd
    return CoefficientPrior(sd, correlation, loadings, unique_sd, inside, varies=True)


def latent_coefficients(
    prior: CoefficientPrior,
    mean: Tensor,
    *,
    n_tasks: int,
    dims: tuple[str, str],
    name: Namer,
    centered: bool = False,
    factors: bool = True,
) -> Tensor:
    """Register the coefficients themselves.

    Parameters
    ----------
    mean : (n_tasks, n_features) or (1, n_features)
    centered : bool
        Whether a sampler moves the coefficients, or standard normals that they are an affine map of.
    factors : bool
        Whether the entries f_k of a few latent factors may be variables of their own, which saves a Cholesky
        factor of Omega.
    """
    mean = repeat(mean, n_tasks)
    if not prior.varies:
        return pm.Deterministic(name("beta"), mean, dims=dims)
    inside, n_features = prior.inside, prior.n_features
    loadings: Tensor = prior.loadings
    tasks: Tensor = prior.unique_sd
    correlation = prior.correlation
    if len(inside) < n_features:
        correlation = embed(correlation, inside, n_features)
    L = prior.sd[:, None] * correlation
    if loadings is not None and tasks is None:
        tasks = loadings  # square and lower triangular
    elif factors and prior.has_factors:
        f = pm.Normal(name("basis_offset"), 0.0, 1.0, shape=(loadings.type.shape[1], len(inside)))
        if len(inside) < n_features:
            f = product(f, pt.as_tensor_variable(np.eye(n_features)[inside]))
        mean = mean + product(product(loadings, f), L.T)
    elif loadings is not None:
        tasks = pt.linalg.cholesky(product(loadings, loadings.T) + pt.diag(tasks**2))
    transform = None if centered else Noncentered(inside)
    return register_coefficients(name("beta"), mean, L, tasks, inside, dims=dims, transform=transform)


def task_coefficients(
    name: str,
    *,
    task_covariance: TaskCovariance | None = None,
    feature_covariance: FeatureCovariance | None = None,
    dims: tuple[str, str] = ("task", "feature"),
    mean: Any = None,
    priors: Mapping[str, PriorEntry] | None = None,
    independent_features: Sequence[str] | None = None,
    task_sd: bool = False,
) -> Tensor:
    """Add hierarchical task coefficients to the current PyMC model, for use under any likelihood.

    Registers the coefficients under `name` and their hyperparameters under ``{name}_mean``,
    ``{name}_feature_sd``, ``{name}_feature_corr``, ``{name}_task_corr``, ... with dims.

    Parameters
    ----------
    name : str
        Name of the coefficients.
    task_covariance : TaskCovariance, optional
        Default `Exchangeable()`.
    feature_covariance : FeatureCovariance, optional
        Default ``LKJ(2.0)``.
    dims : tuple of two str
        Dims of tasks and of features. Both must have coordinates in the model; the second axes
        ``{dim}_bis`` are added.
    mean : tensor or array, optional
        Population mean, broadcast to (task, feature). Default: ``{name}_mean`` with prior Normal(0, 2.5);
        under `NoPooling` it is fixed at 0.
    priors : mapping, optional
        `beta_mean`, `feature_sd` (default HalfNormal(c), fixed at 10 under `NoPooling`), `feature_sd_scale`
        (c, of slopes; default HalfNormal(1) if there are five or more with default priors, else 1),
        `cluster_sd` (default 1) and `task_sd`, as in `ModelSpec`.
    independent_features, task_sd
        As in `ModelSpec`.

    Returns
    -------
    TensorVariable
        The coefficients, shape (n_tasks, n_features).

    Raises
    ------
    SpecError
        If a dim has no coordinates, or a prior is wrong.

    Examples
    --------
    >>> import pymc as pm, bayes_mtl as mtl
    >>> with pm.Model(coords={"clinic": ["a", "b", "c"], "feature": ["Intercept", "dose"]}) as model:
    ...     beta = mtl.task_coefficients("beta", dims=("clinic", "feature"))
    >>> model.named_vars_to_dims["beta"]
    ('clinic', 'feature')
    """
    task_covariance = task_covariance or Exchangeable()
    feature_covariance = feature_covariance or LKJ()
    priors = dict(priors or {})
    model = pm.modelcontext(None)
    mixed = isinstance(task_covariance, TaskMixture)
    names = ("beta_mean", "feature_sd", *(("cluster_sd",) if mixed else ("feature_sd_scale", "task_sd")))
    usable = {k: PRIOR_NAMES[k] for k in names}
    if len(dims) != 2:
        raise SpecError(Finding("dims", f"should be two, of tasks and of features, found {dims!r}"))
    findings = prior_findings(priors, usable)
    structure = type(task_covariance).__name__
    for argument, given, kind in (
        ("task_covariance", task_covariance, TaskCovariance),
        ("feature_covariance", feature_covariance, FeatureCovariance),
    ):
        if not isinstance(given, kind):
            findings.append(Finding(argument, f"should be a {kind.__name__}, found {given!r}"))
    if isinstance(task_covariance, CompletePooling):
        if "feature_sd" in priors:
            found = f"would not be used: nothing varies under {structure}"
            findings.append(Finding("prior 'feature_sd'", found))
        if task_sd:
            findings.append(Finding("task_sd", f"has nothing to scale under {structure}"))
    if task_sd and isinstance(task_covariance, StudentT):
        findings.append(
            Finding("task_sd", f"is a scale per task, which {structure} has", "Use one of the two")
        )
    for dim in dims:
        if model.coords.get(dim) is None:
            findings.append(
                Finding(
                    f"dims {dims!r}",
                    f"{dim!r} has no coordinates in the model",
                    "Pass them as pm.Model(coords=...)",
                )
            )
    raise_if_any(findings, SpecError)
    tasks, features = (list(model.coords[dim]) for dim in dims)
    for entry_name, entry in priors.items():
        if isinstance(entry, Mapping) and (unknown := sorted(set(entry) - set(features))):
            findings.append(
                Finding(f"prior {entry_name!r}", f"names {unknown}, which are not among {features}")
            )
    for feature in independent_features or ():
        if feature not in features:
            findings.append(
                Finding("independent_features", f"names {feature!r}, which is not among {features}")
            )
    outside = outside_features(task_covariance, independent_features, features)
    if task_covariance.relates_tasks and set(outside) == set(features):
        findings.append(
            Finding(
                "independent_features", "leaves no feature inside the task covariance", "Leave one inside"
            )
        )
    findings += task_covariance.findings(tasks)
    slopes = scaled_together(task_covariance, independent_features, features)
    if "feature_sd_scale" in priors and (reason := no_common_scale(task_covariance, slopes)):
        findings.append(Finding("prior 'feature_sd_scale'", f"would not be used: {reason}"))
    findings += common_scale_findings(priors, "feature_sd", slopes)
    if mean is not None and "beta_mean" in priors:
        findings.append(Finding("prior 'beta_mean'", "would not be used: `mean` is given"))
    if mixed and (task_sd or independent_features):
        odd = "task_sd" if task_sd else "independent_features"
        findings.append(Finding(odd, f"has no meaning under {structure}", "Leave it out"))
    if task_sd is False and "task_sd" in priors:
        findings.append(Finding("prior 'task_sd'", "would not be used: task_sd=False"))
    raise_if_any(findings, SpecError)
    for dim, labels in zip(dims, (tasks, features), strict=True):
        if bis(dim) not in model.coords:
            model.add_coord(bis(dim), labels)

    def namer(key: str) -> str:
        return name + key.removeprefix("beta") if key.startswith("beta") else f"{name}_{key}"

    def per_feature(key: str, default: PriorValue) -> list[Any]:
        entry = priors.get(key, default)
        return [entry.get(f, default) if isinstance(entry, Mapping) else entry for f in features]

    alone = isinstance(task_covariance, NoPooling)
    if mean is None:
        centre = 0.0 if alone else Prior("Normal", mu=0, sigma=2.5)
        mean = register(namer("beta_mean"), per_feature("beta_mean", centre), dims=dims[1])
    mean = pt.broadcast_to(pt.as_tensor_variable(mean), (len(tasks), len(features)))
    of_sd = priors.get("feature_sd", {})
    scale = per_feature("feature_sd", WIDE if alone else Prior("HalfNormal", sigma=1))
    if isinstance(task_covariance, TaskMixture):
        mixture = mixture_prior(
            task_covariance,
            feature_covariance,
            tasks=tasks,
            features=features,
            dims=dims,
            feature_sd=scale,
            cluster_sd=per_feature("cluster_sd", 1.0),
            mean=None,
            name=namer,
        )
        return latent_mixture(mixture, mean, n_tasks=len(tasks), dims=dims, name=namer)
    block = coefficient_prior(
        task_covariance=task_covariance,
        feature_covariance=feature_covariance,
        outside=outside,
        tasks=tasks,
        features=features,
        dims=dims,
        feature_sd=scale,
        feature_sd_scale=priors.get("feature_sd_scale", common_scale(task_covariance, slopes, of_sd)),
        task_sd=priors.get("task_sd", TASK_SD) if task_sd else None,
        name=namer,
    )
    return latent_coefficients(block, mean, n_tasks=len(tasks), dims=dims, name=namer)
