"""`task_coefficients`: the hierarchical block inside anybody's PyMC model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pymc as pm
import pytensor.tensor as pt
from pytensor.graph.basic import Variable
from pytensor.graph.traversal import ancestors

from bayes_mtl._typing import Tensor
from bayes_mtl.arguments import truth_findings
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.model.block_scales import ScaledBy, scale_findings, scaled_block
from bayes_mtl.model.coefficients import coefficient_prior
from bayes_mtl.model.coords import CANDIDATE, CLUSTER, FACTOR, FEATURE_FACTOR, bis
from bayes_mtl.model.latent import latent_coefficients
from bayes_mtl.model.mixture import latent_mixture, mixture_prior
from bayes_mtl.model.priors import TASK_SD, WIDE, common_scale, register
from bayes_mtl.prior import Prior
from bayes_mtl.spec import (
    PRIOR_NAMES,
    PriorValue,
    common_scale_findings,
    in_our_words,
    no_common_scale,
    outside_features,
    prior_findings,
    scaled_together,
)
from bayes_mtl.structures import (
    CompletePooling,
    Exchangeable,
    FeatureCovariance,
    FeatureScales,
    NoPooling,
    StudentT,
    TaskCovariance,
    TaskMixture,
    default_feature_covariance,
)

# That structures name.
_DIMS = (FACTOR, FEATURE_FACTOR, CLUSTER, CANDIDATE, "gate", "level", "direction", "term")
_DEFAULTS = {"beta_mean": Prior("Normal", mu=0, sigma=2.5), "feature_sd": Prior("HalfNormal", sigma=1)}
_VARIABLES = ("beta_mean", "feature_sd", "task_sd")  # which may be variables of the model
_LIKE_INTERCEPTS = ("intercept", "const", "constant", "one", "ones", "1", "bias")
_MANY_TASKS = 100  # from here on, factors as variables save more than their coordinates cost


def task_coefficients(
    name: str,
    *,
    task_covariance: TaskCovariance | None = None,
    feature_covariance: FeatureCovariance | None = None,
    dims: tuple[str, str] = ("task", "feature"),
    mean: Any = None,
    priors: Mapping[str, Any] | None = None,
    independent_features: Sequence[str] | None = None,
    task_sd: bool = False,
    centered: bool | Literal["auto"] = "auto",
    feature_scales: FeatureScales | None = None,
    scaled_by: ScaledBy | None = None,
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
        Default: ``LKJ(2.0)`` for up to three features, ``LowRank(2)`` from four on.
    dims : tuple of two str
        Dims of tasks and of features. Both must have coordinates in the model; the second axes
        ``{dim}_bis`` are added.
    mean : tensor or array, optional
        Population mean, broadcast to (task, feature). Default: ``{name}_mean`` with prior Normal(0, 2.5);
        under `NoPooling` it is fixed at 0.
    priors : mapping, optional
        `beta_mean`, `feature_sd` (default HalfNormal(c), fixed at 10 under `NoPooling`), `feature_sd_scale`
        (c, of slopes; default HalfNormal(1) if there are five or more with default priors, else 1),
        `cluster_sd` (default 1) and `task_sd`, as in `ModelSpec`. Beside `Prior` and numbers, distributions
        of PyMC (``pm.HalfNormal.dist(1)``) and priors of ``pymc_extras``; arrays and lists are in the order
        of the features. `beta_mean`, `feature_sd` and `task_sd` may also be variables of the model.
    independent_features, task_sd
        As in `ModelSpec`.
    centered : {"auto", True, False}
        Whether a sampler moves the coefficients themselves, which is fast where a task has many rows, or
        standard normals that they are made of, which is where it has few. The model is the same. "auto":
        decided when the model is compiled; centered if there are ten values or more of the outcomes that
        depend on the block for each coefficient of a task (a hundred of a discrete outcome). Mixtures are
        always centered.
    feature_scales : FeatureScales, optional
        As in `ModelSpec`, for all features but `Intercept`; needs `scaled_by`.
    scaled_by : ScaledBy, optional
        What these scales are relative to, which your rows and likelihood say: noise, features, rows per task.

    Returns
    -------
    TensorVariable
        The coefficients, shape (n_tasks, n_features).

    Raises
    ------
    SpecError
        If a dim has no coordinates, a prior is wrong, or it is not clear whether a feature is an intercept
        (which is called `Intercept`, and stands outside the task covariance by default).

    Examples
    --------
    >>> import pymc as pm, bayes_mtl as mtl
    >>> with pm.Model(coords={"clinic": ["a", "b", "c"], "feature": ["Intercept", "dose"]}) as model:
    ...     beta = mtl.task_coefficients("beta", dims=("clinic", "feature"))
    >>> model.named_vars_to_dims["beta"]
    ('clinic', 'feature')
    """
    task_covariance = task_covariance or Exchangeable()
    model = _current_model()
    mixed = isinstance(task_covariance, TaskMixture)
    names = ("beta_mean", "feature_sd", *(("cluster_sd",) if mixed else ("feature_sd_scale", "task_sd")))
    usable = {k: PRIOR_NAMES[k] for k in names}
    if len(dims) != 2:
        raise SpecError(Finding("dims", f"should be two, of tasks and of features, found {dims!r}"))
    labels = model.coords.get(dims[1]) or ()
    feature_covariance = feature_covariance or default_feature_covariance(len(labels))
    priors, variables, findings = _read_priors(priors or {}, [str(f) for f in labels], mixed=mixed)
    findings += prior_findings(priors, usable)
    findings += truth_findings("task_sd", task_sd)
    if not (isinstance(centered, bool) or (isinstance(centered, str) and centered == "auto")):
        findings.append(Finding("centered", f"should be True, False or 'auto', found {centered!r}"))
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
    if task_covariance.relates_tasks and independent_features is None:
        findings += _is_it_an_intercept(features)
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
    if mean is not None and ("beta_mean" in priors or "beta_mean" in variables):
        findings.append(Finding("prior 'beta_mean'", "would not be used: `mean` is given"))
    if mixed and (task_sd or independent_features):
        odd = "task_sd" if task_sd else "independent_features"
        findings.append(Finding(odd, f"has no meaning under {structure}", "Leave it out"))
    if task_sd is False and ("task_sd" in priors or "task_sd" in variables):
        findings.append(Finding("prior 'task_sd'", "would not be used: task_sd=False"))
    findings += scale_findings(
        feature_scales, scaled_by, task_covariance, features, {**priors, **variables}, mean
    )
    raise_if_any(findings, SpecError)
    for dim, labels in zip(dims, (tasks, features), strict=True):
        if bis(dim) not in model.coords:
            model.add_coord(bis(dim), labels)

    def namer(key: str) -> str:
        if key in _DIMS and model.prefix:  # variables get the prefix of a submodel from PyMC, dims do not
            return f"{model.prefix}::{name}_{key}"
        return name + key.removeprefix("beta") if key.startswith("beta") else f"{name}_{key}"

    def per_feature(key: str, default: PriorValue) -> list[Any]:
        entry = priors.get(key, default)
        return [entry.get(f, default) if isinstance(entry, Mapping) else entry for f in features]

    if feature_scales is not None:
        assert scaled_by is not None
        own = {key: per_feature(key, default) for key, default in _DEFAULTS.items()}
        centre, sd = scaled_block(feature_scales, scaled_by, own, tasks, features, dims, namer)
        variables |= {"beta_mean": centre, "feature_sd": sd}
    alone = isinstance(task_covariance, NoPooling)
    mean = variables.get("beta_mean", mean)
    if mean is None:
        centre = 0.0 if alone else _DEFAULTS["beta_mean"]
        mean = register(namer("beta_mean"), per_feature("beta_mean", centre), dims=dims[1])
    mean = pt.broadcast_to(pt.as_tensor_variable(mean), (len(tasks), len(features)))
    of_sd = variables.get("feature_sd", priors.get("feature_sd", {}))
    scale: Any = per_feature("feature_sd", WIDE if alone else _DEFAULTS["feature_sd"])
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
    if "feature_sd" in variables:
        scale = pt.broadcast_to(variables["feature_sd"], (len(features),))
    own_scale = variables.get("task_sd", priors.get("task_sd", TASK_SD))
    if "task_sd" in variables:
        own_scale = pt.broadcast_to(own_scale, (len(tasks),))
    block = coefficient_prior(
        task_covariance=task_covariance,
        feature_covariance=feature_covariance,
        outside=outside,
        tasks=tasks,
        features=features,
        dims=dims,
        feature_sd=scale,
        feature_sd_scale=priors.get("feature_sd_scale", common_scale(task_covariance, slopes, of_sd)),
        task_sd=own_scale if task_sd else None,
        name=namer,
    )
    few = centered is False or len(tasks) > _MANY_TASKS
    return latent_coefficients(
        block, mean, n_tasks=len(tasks), dims=dims, name=namer, centered=centered, factors=few
    )


def _read_priors(
    given: Mapping[str, Any], features: Sequence[str], *, mixed: bool
) -> tuple[dict[str, Any], dict[str, Tensor], list[Finding]]:
    """Divide what is given into priors by the name of the feature, and variables of the model."""
    priors: dict[str, Any] = {}
    variables: dict[str, Tensor] = {}
    findings = []
    for name, entry in given.items():
        entry = in_our_words(list(entry) if isinstance(entry, np.ndarray) and entry.ndim else entry)
        if isinstance(entry, list):
            by_name = ", ".join(f"{f!r}: {v}" for f, v in zip(features, entry, strict=False))
            if len(entry) != len(features):
                problem = f"has {len(entry)} values for {len(features)} features: {{{by_name}, ...}}"
                hint = "Give one per feature, in their order, or a mapping by name"
                findings.append(Finding(f"prior {name!r}", problem, hint))
                continue
            entry = dict(zip(features, entry, strict=True))
        if not isinstance(entry, Variable):
            priors[name] = entry
        elif name not in _VARIABLES or mixed:
            problem = f"cannot be a variable of the model{' under a mixture' if mixed else ''}"
            findings.append(Finding(f"prior {name!r}", problem, "Give a Prior, or a distribution of PyMC"))
        elif not _is_of_the_model(entry):
            problem = f"depends on variables that are not in the model ({entry})"
            hint = "Register it (pm.HalfNormal('scale', ...)), or give it numbers"
            findings.append(Finding(f"prior {name!r}", problem, hint))
        else:
            variables[name] = entry
    return priors, variables, findings


def _current_model() -> pm.Model:
    """Return the model in whose context this is, or say that there is none."""
    try:
        return pm.modelcontext(None)
    except TypeError as err:
        hint = "Write: with pm.Model(coords=...): beta = task_coefficients(...)"
        raise SpecError(
            Finding("task_coefficients", "is a part of a model, and there is none around it", hint)
        ) from err


def _is_of_the_model(variable: Tensor) -> bool:
    """Whether all that is random in a variable is registered in the current model."""
    known = set(pm.modelcontext(None).root.basic_RVs)
    random = [v for v in ancestors([variable], blockers=known) if v not in known and v.owner is not None]
    return not any(hasattr(v.owner.op, "dist_params") for v in random)


def _is_it_an_intercept(features: Sequence[str]) -> list[Finding]:
    """Ask about a feature that looks like an intercept, if none bears its name."""
    odd = [f for f in features if str(f).strip("()").lower() in _LIKE_INTERCEPTS]
    if INTERCEPT in features or not odd:
        return []
    problem = f"is not given, and {odd[0]!r} may be an intercept, which is not called {INTERCEPT!r}"
    hint = f"Pass independent_features=[{odd[0]!r}] to keep it outside the task covariance, or [] for inside"
    return [Finding("independent_features", problem, hint)]
