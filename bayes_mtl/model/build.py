"""`build_model`: the one place that chooses between integrating coefficients out and sampling them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt

from bayes_mtl._typing import Tensor
from bayes_mtl.collector import without_collections
from bayes_mtl.data import PseudoRows, TaskData
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.kernels import (
    chained_coefficients,
    chained_gaussian,
    collapsed_gaussian,
    collapsed_rows,
    component_coefficients,
    component_evidence,
    gaussian_tasks,
    repeat,
    whitened_coefficients,
)
from bayes_mtl.model.coefficients import (
    CoefficientPrior,
    coefficient_prior,
)
from bayes_mtl.model.coords import FEATURE, ROW, TASK, own_model
from bayes_mtl.model.feature_scales import ScaledFeatures, scaled_features
from bayes_mtl.model.latent import latent_coefficients
from bayes_mtl.model.levels import (
    LEVEL_OFFSET,
    LevelEffects,
    LevelPilot,
    latent_levels,
    level_log_likelihood,
    level_priors,
    whitened_levels,
)
from bayes_mtl.model.mixture import MixturePrior, draw_deviations, latent_mixture, mixture_prior
from bayes_mtl.model.noise import SIGMA_OFFSET, TaskNoise, has_task_noise
from bayes_mtl.model.numbers import Numbers, constants, variables
from bayes_mtl.model.population import Population, population
from bayes_mtl.model.priors import default_priors, register
from bayes_mtl.spec import ModelSpec, inside_features
from bayes_mtl.structures import TaskMixture

Marginal = bool | Literal["auto"]
# Coordinates of sampled coefficients that look standard normal. They come last among the free variables.
WHITENED = ("common_offset", "task_offset", LEVEL_OFFSET)
# Up to this many coefficients are treated together where any two tasks are related: that costs their cube.
MAX_JOINT = 64
_MANY_COLUMNS = 40  # fewer are as quick by columns, for many tasks at a time, however few the rows


def is_collapsed(spec: ModelSpec, marginal: Marginal = "auto") -> bool:
    """Whether the coefficients are integrated out."""
    if not (isinstance(marginal, bool | np.bool_) or (isinstance(marginal, str) and marginal == "auto")):
        raise SpecError(Finding("marginal", f"should be True, False or 'auto', found {marginal!r}"))
    possible = spec.family.gaussian_coefficients
    if marginal != "auto" and marginal and not possible:
        name = type(spec.family).__name__
        raise SpecError(
            Finding("marginal", f"coefficients cannot be integrated out under {name}", "Use 'auto'")
        )
    return possible if marginal == "auto" else bool(marginal)


def is_chained(spec: ModelSpec, data: TaskData) -> bool:
    """Whether sampled coefficients depend on each other one task after the other (`kernels._chain`)."""
    structure = spec.task_covariance
    inside = inside_features(structure, spec.independent_features, data.features)
    return structure.triangular and data.n_tasks * len(inside) > MAX_JOINT


def build_model(spec: ModelSpec, data: TaskData, *, marginal: Marginal = "auto") -> pm.Model:
    """Compile a description and data to a plain `pm.Model`.

    Parameters
    ----------
    spec : ModelSpec
        The description.
    data : TaskData
        The data.
    marginal : {"auto", True, False}
        Whether to integrate the task coefficients out: exact, possible for Gaussian outcomes. "auto"
        does it where possible. The model then holds the hyperparameters alone; `fit` draws ``beta``
        afterwards, and `recover` draws it for draws of your own. (`fit` itself samples many related tasks,
        where that is faster.) In such a model an outcome depends on no coefficients of known tasks: what
        `pm.sample_posterior_predictive` draws from it are outcomes of *new* tasks with the same rows. For
        predictions of known tasks use False, or `predict`.

    Returns
    -------
    pm.Model
        With coords and dims; the observed variable is ``y`` with dims ``("row",)``. Hyperparameters:
        ``beta_mean`` (feature), ``beta_shared`` (shared_feature), ``task_feature_effects``
        (feature, task_feature), ``feature_sd`` (feature), ``feature_corr`` (feature, feature_bis),
        ``task_corr`` (task, task_bis), ``task_sd`` (task), ``sigma`` () or (task), as far as the
        description has them; ``beta`` (task, feature) if the coefficients are not integrated out.
        For a grouping ``item``: ``item_effects`` (item, item_feature), ``item_sd`` (item_feature),
        ``item_feature_corr``, ``item_corr`` (item, item_bis).

    Raises
    ------
    SpecError
        Lists everything that does not fit between the description and the data.

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> data = mtl.TaskData.from_arrays([[0.0], [1.0], [2.0], [4.0]], [1, 3, 2, 5], ["a", "a", "b", "b"])
    >>> model = mtl.build_model(mtl.ModelSpec(), data)
    >>> sorted(v.name for v in model.free_RVs)
    ['beta_mean', 'feature_corr_partial', 'feature_sd', 'sigma']
    """
    return assembled_model(spec, data, marginal=marginal).model


@dataclass(frozen=True)
class AssembledModel:
    """A model with the tensors that describe its coefficients given the hyperparameters.

    Attributes
    ----------
    model : pm.Model
    block : CoefficientPrior or MixturePrior
        Law of the deviations of the coefficients that vary by task.
    population : Population
        What they deviate from, and the shared slopes.
    sigma : TensorVariable or None
        Noise scale, shape (1,) or (n_tasks,); None where it is known or has no meaning.
    chained : bool
        Whether coefficients are sampled one task after the other.
    levels : LevelEffects or None
        Effects of the levels of groupings, if there are any.
    task_noise : TaskNoise or None
        Coordinates of the noise scales of tasks, where the sampler has some of their own.
    """

    model: pm.Model
    block: CoefficientPrior | MixturePrior
    population: Population
    sigma: Tensor | None
    chained: bool = False
    levels: LevelEffects | None = None
    task_noise: TaskNoise | None = None


def assembled_model(spec: ModelSpec, data: TaskData, *, marginal: Marginal = "auto") -> AssembledModel:
    """Return what `build_model` builds, with its tensors."""
    _check(spec, data)
    collapsed = is_collapsed(spec, marginal)
    options: dict[str, Any] = {"integrate": False, "numbers": constants, "pilot": None, "level_pilot": None}
    return _assemble(spec, data, collapsed=collapsed, **options)


def sampling_model(
    spec: ModelSpec,
    data: TaskData,
    *,
    collapsed: bool,
    rows: PseudoRows,
    levels: LevelPilot | None = None,
) -> AssembledModel:
    """Build the model that `fit` samples: the same posterior as `build_model`, in better coordinates.

    Population effects with normal priors are integrated out along with the coefficients. Where the
    coefficients are sampled, they and these effects are whitened.

    Parameters
    ----------
    collapsed : bool
        Whether to integrate the coefficients out (Gaussian outcomes).
    rows : PseudoRows
        Exact for Gaussian outcomes; otherwise any approximation of what the data say of each task.
    levels : LevelPilot, optional
        Where the data have groupings: any approximation of what the data say of the effects of levels. Its
        slope is exact for Gaussian outcomes.
    """
    _check(spec, data)
    options: dict[str, Any] = {"integrate": True, "numbers": variables, "pilot": rows, "level_pilot": levels}
    return _assemble(spec, data, collapsed=collapsed, **options)


def _check(spec: ModelSpec, data: TaskData) -> None:
    if not isinstance(spec, ModelSpec) or not isinstance(data, TaskData):
        found = f"found {type(spec).__name__} and {type(data).__name__}"
        raise SpecError(Finding("spec, data", f"should be a ModelSpec and a TaskData, {found}"))
    raise_if_any(spec.findings(data), SpecError)


@without_collections()
def _assemble(
    spec: ModelSpec,
    data: TaskData,
    *,
    collapsed: bool,
    integrate: bool,
    numbers: Numbers,
    pilot: PseudoRows | None,
    level_pilot: LevelPilot | None,
) -> AssembledModel:
    priors, scales = default_priors(spec, data)
    chained = pilot is not None and not collapsed and is_chained(spec, data)
    structure = spec.task_covariance
    by_task = None
    if integrate and has_task_noise(spec):
        by_task = TaskNoise.of(spec, data, priors["sigma"], priors["sigma_spread"])
    with own_model(data) as model:
        if isinstance(structure, TaskMixture):
            effects = population(data, priors, scales, integrate=False, numbers=numbers)
            mixture = _mixture(spec, structure, data, priors, numbers)
            sigma = _noise(spec, data, priors, numbers, by_task)
            if collapsed:
                _observe_collapsed_mixture(mixture, effects, sigma, data, numbers)
            elif pilot is not None:
                _observe_whitened_mixture(spec, mixture, effects, sigma, data, pilot, numbers)
            else:
                _observe_latent(spec, mixture, effects, sigma, data)
            return AssembledModel(model, mixture, effects, sigma, task_noise=by_task)
        sigma = _noise(spec, data, priors, numbers, by_task)
        scaled = scaled_features(spec, data, priors, sigma, numbers)
        effects = population(data, priors, scales, integrate=integrate, scaled=scaled, numbers=numbers)
        block = _deviations(spec, data, priors, scaled, numbers)
        by_level = level_priors(spec, data, priors, numbers)
        levels = None
        if by_level and level_pilot is None:
            slope = data.level_rows(by_task=False).slope if collapsed else np.zeros((0, 0, 0))
            levels = latent_levels(by_level, data, slope)
        elif level_pilot is not None:
            levels = whitened_levels(by_level, level_pilot, numbers)
        if collapsed:
            _observe_collapsed(block, effects, levels, sigma, data, numbers)
        elif pilot is not None:
            _observe_whitened(spec, block, effects, levels, sigma, data, pilot, numbers, chained=chained)
        else:
            _observe_latent(spec, block, effects, sigma, data, levels)
    return AssembledModel(model, block, effects, sigma, chained, levels, by_task)


def _deviations(
    spec: ModelSpec, data: TaskData, priors: Any, scaled: ScaledFeatures | None, numbers: Numbers
) -> CoefficientPrior:
    if not data.features:
        none = np.arange(0)
        return CoefficientPrior(pt.zeros(0), pt.eye(0), None, pt.zeros(data.n_tasks), none, varies=False)
    return coefficient_prior(
        task_covariance=spec.task_covariance,
        feature_covariance=spec.feature_covariance_of(data),
        outside=spec.outside(data.features),
        tasks=data.tasks,
        features=data.features,
        dims=(TASK, FEATURE),
        feature_sd=priors["feature_sd"] if scaled is None else scaled.feature_sd,
        feature_sd_scale=priors["feature_sd_scale"],
        task_sd=priors["task_sd"] if spec.task_sd else None,
        name=str,
        numbers=numbers,
    )


def _mixture(
    spec: ModelSpec, structure: TaskMixture, data: TaskData, priors: Any, numbers: Numbers
) -> MixturePrior:
    return mixture_prior(
        structure,
        spec.feature_covariance_of(data),
        tasks=data.tasks,
        features=data.features,
        dims=(TASK, FEATURE),
        feature_sd=priors["feature_sd"],
        cluster_sd=priors["cluster_sd"],
        mean=pm.modelcontext(None)["beta_mean"],
        name=str,
        numbers=numbers,
    )


def _noise(
    spec: ModelSpec, data: TaskData, priors: Any, numbers: Numbers, by_task: TaskNoise | None
) -> Tensor | None:
    """Return the noise scale, one or one per task, or None where it is known or has no meaning."""
    if not spec.family.has_noise or data.noise is not None:
        return None
    if not has_task_noise(spec):
        return register("sigma", priors["sigma"], numbers=numbers)[None]
    if by_task is not None:
        return by_task.register(numbers)
    mean = register("sigma_mean", priors["sigma"], numbers=numbers)
    spread = register("sigma_spread", priors["sigma_spread"], numbers=numbers)
    offset = pm.Normal(SIGMA_OFFSET, 0.0, 1.0, shape=(data.n_tasks,), dims=TASK)
    return pm.Deterministic("sigma", mean * pt.exp(spread * offset), dims=TASK)


def _observe_latent(
    spec: ModelSpec,
    block: CoefficientPrior | MixturePrior,
    effects: Population,
    sigma: Tensor | None,
    data: TaskData,
    levels: LevelEffects | None = None,
) -> None:
    """Register the coefficients, non-centered if their law is Gaussian, and y under any family."""
    mean = effects.mean(constants)
    n_features = data.n_features
    latent: Any = latent_mixture if isinstance(block, MixturePrior) else latent_coefficients
    parts = [latent(block, mean[:, :n_features], n_tasks=data.n_tasks, dims=(TASK, FEATURE), name=str)]
    if data.shared_features:
        slopes = mean[:, n_features:]
        parts.append(repeat(slopes, data.n_tasks))
    if not n_features:
        parts = parts[1:]
    if levels is not None:
        parts.append(repeat(levels.values[None, :], data.n_tasks))
    beta = parts[0] if len(parts) == 1 else pt.concatenate(parts, axis=1)
    spec.family.observe(beta, sigma, data, by_row=True)


def _observe_whitened(
    spec: ModelSpec,
    block: CoefficientPrior,
    effects: Population,
    levels: LevelEffects | None,
    sigma: Tensor | None,
    data: TaskData,
    rows: PseudoRows,
    numbers: Numbers,
    *,
    chained: bool,
) -> None:
    """Register coefficients in coordinates that look standard normal, and y under any family."""
    n_common = len(effects.column) + (0 if chained else block.n_common)
    n_own = block.n_features if chained else len(block.own)
    z_common = pm.Flat(WHITENED[0], shape=(n_common,))
    z = pm.Flat(WHITENED[1], shape=(data.n_tasks, n_own))
    sd, correlation, loadings, unique_sd, noise = _law(block, sigma)
    # With levels, the kernels know the coefficients plus the shift, since that is what the rows speak of.
    mean = effects.mean(numbers, rows.reference)
    shift = None if levels is None else levels.shift(numbers)
    mean = mean if shift is None else repeat(mean, data.n_tasks) + shift
    root, target = numbers("pseudo_rows", rows.root), numbers("pseudo_outcomes", rows.target)
    law, coordinates = [sd, correlation, loadings], [mean, effects.effect_scale, z_common, z]
    design = [effects.column, numbers("effects", effects.design)]
    if chained and spec.family.gaussian_coefficients:
        parameters = [*law, noise, *coordinates]
        others = [block.inside, *design]
        _observe_rows(chained_gaussian, parameters, [root, target], others, data, numbers, levels, noise)
        return
    if chained:
        value, beta, _ = chained_coefficients(*law, noise, *coordinates, root, target, block.inside, *design)
    else:
        value, beta, _ = whitened_coefficients(
            *law, unique_sd, noise, *coordinates, root, target, block.inside, block.own, *design
        )
    pm.Potential("coordinates", value)
    if spec.family.gaussian_coefficients:
        _observe_rows(gaussian_tasks, [beta, noise], [root, target], [], data, numbers, levels, noise)
        return
    beta = beta + numbers("reference", rows.reference)
    if levels is not None:
        beta = pt.concatenate([beta - shift, repeat(levels.values[None, :], data.n_tasks)], axis=1)
    spec.family.observe(beta, sigma, data)


def _observe_collapsed_mixture(
    mixture: MixturePrior, effects: Population, sigma: Tensor | None, data: TaskData, numbers: Numbers
) -> None:
    """Register y with its density, coefficients and labels summed out."""
    statistics, rows, n_tasks = data.statistics, data.pseudo_rows, data.n_tasks
    row_scale = 1.0 / np.sqrt(data.precision)
    noise = pt.ones(1) if sigma is None else sigma
    centre = mixture.padded_centre(rows.root.shape[0])
    mean = effects.mean(numbers, rows.reference)
    root, count = numbers("pseudo_rows", rows.root), numbers("counts", statistics.count)
    target, rest = numbers("pseudo_outcomes", rows.target), numbers("pseudo_rest", rows.rest)

    def logp(value: Tensor, log_weight: Tensor, *law: Tensor) -> Tensor:
        y, unexplained = target, rest
        if not np.array_equal(getattr(value, "data", ()), data.y):
            y, unexplained = _pseudo_outcomes(value, data, row_scale)
        evidence = component_evidence(*law[:4], root, y, unexplained, count)
        by_task = pt.logsumexp(log_weight + evidence, axis=1)
        return by_task.sum() + numbers("log_weight", statistics.log_weight)

    def simulate(
        log_weight: Tensor, centre: Tensor, cholesky: Tensor, sigma: Tensor, mean: Tensor, X: Tensor,
        task_index: Tensor, offset: Tensor, row_scale: Tensor, size: Any,
    ) -> Tensor:  # fmt: skip
        deviation = draw_deviations(log_weight, centre, cholesky, n_tasks)
        beta = pt.zeros(statistics.moment.shape) + mean + rows.reference + deviation
        eta = (X * beta[task_index]).sum(axis=-1) + offset
        scale = sigma if sigma.type.shape[0] == 1 else sigma[task_index]
        return pm.Normal.dist(eta, scale * row_scale)

    pm.CustomDist(
        "y",
        *(mixture.log_weight, centre, mixture.cholesky, noise, mean),
        *_rows_to_draw(data, row_scale),
        dist=simulate,
        logp=logp,
        signature="(w,k),(k,f),(l,p,p),(s),(m,f),(n,f),(n),(n),(n)->(n)",
        class_name="CollapsedMixture",
        observed=data.y,
        dims=ROW,
    )


def _observe_whitened_mixture(
    spec: ModelSpec,
    mixture: MixturePrior,
    effects: Population,
    sigma: Tensor | None,
    data: TaskData,
    rows: PseudoRows,
    numbers: Numbers,
) -> None:
    """Register coefficients in coordinates that look standard normal under each component, and y."""
    z = pm.Flat(WHITENED[1], shape=(data.n_tasks, data.n_features))
    noise = pt.ones(1) if sigma is None else sigma
    density, beta = component_coefficients(
        mixture.padded_centre(rows.root.shape[0]),
        mixture.cholesky,
        noise,
        effects.mean(numbers, rows.reference),
        z,
        numbers("pseudo_rows", rows.root),
        numbers("pseudo_outcomes", rows.target),
    )
    beta = beta + numbers("reference", rows.reference)
    spec.family.observe_components(mixture.log_weight + density, beta, sigma, data)


def _observe_rows(
    density: Callable[..., Tensor],
    parameters: list[Tensor],
    pseudo_rows: list[Tensor],
    others: list[Any],
    data: TaskData,
    numbers: Numbers,
    levels: LevelEffects | None = None,
    noise: Tensor | None = None,
) -> None:
    """Register y with a density of parameters, the pseudo-rows that say all of y, and others.

    With effects of levels, and the noise, their part of the density is added.
    """
    statistics = data.statistics
    pseudo_rows = [*pseudo_rows, numbers("pseudo_rest", _rest(data)), numbers("counts", statistics.count)]
    log_weight = numbers("log_weight", statistics.log_weight)
    index = pytensor.shared(data.task_index, borrow=True)  # says how many rows there are
    n_own = len(parameters)
    if levels is not None:
        parameters = [*parameters, levels.values, noise]

    def logp(value: Tensor, index: Tensor, *parameters: Tensor) -> Tensor:
        found = density(*parameters[:n_own], *pseudo_rows, *others) + log_weight
        if levels is None:
            return found
        gamma, noise = parameters[n_own:]
        return found + _of_levels(gamma, noise, data, numbers)

    axes = ",".join(f"({','.join(f'a{i}{k}' for k in range(p.ndim))})" for i, p in enumerate(parameters))
    pm.CustomDist("y", index, *parameters, logp=logp, signature=f"(n),{axes}->(n)", observed=data.y, dims=ROW)


def _rest(data: TaskData) -> Any:
    """Return the squares that no coefficient explains; with levels they are counted beside their effects."""
    return np.zeros(data.n_tasks) if data.groupings else data.pseudo_rows.rest


def _of_levels(gamma: Tensor, sigma: Tensor, data: TaskData, numbers: Numbers) -> Tensor:
    rows = data.level_rows(by_task=sigma.type.shape[0] != 1)
    return level_log_likelihood(gamma, sigma, rows, numbers)


def _law(block: CoefficientPrior, sigma: Tensor | None) -> tuple[Tensor, ...]:
    """Return what every kernel wants to know of the deviations."""
    return (*block.law.values(), pt.ones(1) if sigma is None else sigma)


def is_by_rows(rows: PseudoRows) -> bool:
    """Whether tasks have so few rows for their columns that the algebra of a task is that of its rows."""
    n_columns = rows.root.shape[1]
    return n_columns >= _MANY_COLUMNS and 4 * rows.used <= 3 * n_columns


def _observe_collapsed(
    block: CoefficientPrior,
    effects: Population,
    levels: LevelEffects | None,
    sigma: Tensor | None,
    data: TaskData,
    numbers: Numbers,
) -> None:
    """Register y with its marginal density, and with a way to draw it.

    Rows enter as shared variables: PyTensor looks through constants, which takes long if there are many.
    """
    statistics, rows = data.statistics, data.pseudo_rows
    row_scale = 1.0 / np.sqrt(data.precision)
    few = is_by_rows(rows)
    used = np.ascontiguousarray(np.moveaxis(rows.root[: rows.used], -1, 0)) if few else rows.root
    root, count = numbers("pseudo_rows", used), numbers("counts", statistics.count)
    target, rest = numbers("pseudo_outcomes", rows.target), numbers("pseudo_rest", _rest(data))
    design = numbers("effects", effects.design)
    law = [*_law(block, sigma), effects.mean(numbers, rows.reference), effects.effect_scale]
    gamma = pt.zeros(0) if levels is None else levels.values

    def logp(value: Tensor, *parameters: Tensor) -> Tensor:
        *law_, mean, effect_scale, gamma = parameters[: len(law) + 1]
        y, unexplained, beside = target, rest, numbers("log_weight", statistics.log_weight)
        if not np.array_equal(getattr(value, "data", ()), data.y):
            y, unexplained = _pseudo_outcomes(value - _of_rows(gamma, data), data, row_scale)
        elif levels is not None:
            mean = repeat(mean, data.n_tasks) + replace(levels, values=gamma).shift(numbers)
            beside = beside + _of_levels(gamma, law_[-1], data, numbers)
        others = [unexplained, count, block.inside, effects.column, design]
        if few:
            return collapsed_rows(*law_, mean, effect_scale, root, y[: rows.used].T, *others) + beside
        return collapsed_gaussian(*law_, mean, effect_scale, root, y, *others) + beside

    def simulate(
        sd: Tensor,
        correlation: Tensor,
        loadings: Tensor,
        unique_sd: Tensor,
        sigma: Tensor,
        mean: Tensor,
        effect_scale: Tensor,
        gamma: Tensor,
        X: Tensor,
        task_index: Tensor,
        offset: Tensor,
        row_scale: Tensor,
        size: Any,
    ) -> Tensor:
        inside, n_features, n_tasks = block.inside, data.n_features, data.n_tasks
        whitened = pm.Normal.dist(0.0, 1.0, shape=(n_tasks, n_features))
        whitened = whitened * pt.switch(np.isin(np.arange(n_features), inside), unique_sd[:, None], 1.0)
        factors = pm.Normal.dist(0.0, 1.0, shape=(loadings.shape[1], len(inside)))
        whitened = pt.inc_subtensor(whitened[:, inside], loadings @ factors)
        whitened = pt.set_subtensor(whitened[:, inside], whitened[:, inside] @ correlation.T)
        common = effect_scale * pm.Normal.dist(0.0, 1.0, shape=(len(effects.column),))
        beta = pt.zeros(data.statistics.moment.shape) + mean + rows.reference
        beta = pt.inc_subtensor(beta[:, :n_features], whitened * sd)
        beta = pt.inc_subtensor(beta[:, effects.column], (common[:, None] * effects.design).T)
        eta = (X * beta[task_index]).sum(axis=-1) + offset + _of_rows(gamma, data)
        scale = sigma if sigma.type.shape[0] == 1 else sigma[task_index]
        return pm.Normal.dist(eta, scale * row_scale)

    pm.CustomDist(
        "y",
        *law,
        gamma,
        *_rows_to_draw(data, row_scale),
        dist=simulate,
        logp=logp,
        signature="(p),(i,i),(t,k),(t),(s),(m,f),(e),(g),(n,c),(n),(n),(n)->(n)",
        class_name="CollapsedGaussian",
        observed=data.y,
        dims=ROW,
    )


def _rows_to_draw(data: TaskData, row_scale: Any) -> list[Tensor]:
    """Return what draws of the outcome need, as variables: PyTensor looks through constants."""
    found = (data.full_matrix, data.task_index, data.offset, row_scale)
    return [pytensor.shared(values, borrow=True) for values in found]


def _of_rows(gamma: Tensor, data: TaskData) -> Tensor:
    """Return what the effects of levels add to each row."""
    if not data.groupings:
        return pt.zeros(data.n_rows)
    return (gamma[data.levels.column] * data.levels.value).sum(axis=0)


def _pseudo_outcomes(value: Tensor, data: TaskData, row_scale: Any) -> tuple[Tensor, Tensor]:
    """Compress any outcome as `data.pseudo_rows` compresses the observed one, as a graph."""
    statistics, rows = data.statistics, data.pseudo_rows
    scaled = data.full_matrix / row_scale[:, None]
    residual = (value - data.offset - data.full_matrix @ rows.reference) / row_scale
    moment = pt.inc_subtensor(pt.zeros(statistics.moment.shape)[data.task_index], scaled * residual[:, None])
    square = pt.inc_subtensor(pt.zeros(statistics.square.shape)[data.task_index], residual**2)
    target = (rows.solve * moment.T[None, :, :]).sum(axis=1)
    return target, square - (target**2).sum(axis=0)
