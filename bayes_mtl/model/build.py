"""`build_model`: the one place that chooses between integrating coefficients out and sampling them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pymc as pm
import pytensor.tensor as pt

from bayes_mtl._typing import Tensor
from bayes_mtl.data import TaskData
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.kernels import collapsed_gaussian, product
from bayes_mtl.model.coefficients import CoefficientPrior, coefficient_prior, latent_coefficients
from bayes_mtl.model.coords import FEATURE, ROW, SHARED_FEATURE, TASK, TASK_FEATURE, model_coords
from bayes_mtl.model.priors import default_priors, register
from bayes_mtl.spec import ModelSpec

Marginal = bool | Literal["auto"]


def is_collapsed(spec: ModelSpec, marginal: Marginal = "auto") -> bool:
    """Whether the coefficients are integrated out."""
    if marginal not in (True, False, "auto"):
        raise SpecError(Finding("marginal", f"should be True, False or 'auto', found {marginal!r}"))
    possible = spec.family.gaussian_coefficients
    if marginal is True and not possible:
        name = type(spec.family).__name__
        raise SpecError(
            Finding("marginal", f"coefficients cannot be integrated out under {name}", "Use 'auto'")
        )
    return possible if marginal == "auto" else bool(marginal)


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
        afterwards.

    Returns
    -------
    pm.Model
        With coords and dims; the observed variable is ``y`` with dims ``("row",)``. Hyperparameters:
        ``beta_mean`` (feature), ``beta_shared`` (shared_feature), ``task_feature_effects``
        (feature, task_feature), ``feature_sd`` (feature), ``feature_corr`` (feature, feature_bis),
        ``task_corr`` (task, task_bis), ``task_sd`` (task), ``sigma`` () or (task), as far as the
        description has them; ``beta`` (task, feature) if the coefficients are not integrated out.

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
    return assemble(spec, data, marginal=marginal).model


@dataclass(frozen=True)
class AssembledModel:
    """A model with the tensors that describe its coefficients given the hyperparameters.

    Attributes
    ----------
    model : pm.Model
    block : CoefficientPrior
        Law of the coefficients that vary by task.
    shared : TensorVariable or None
        Slopes of the shared features.
    sigma : TensorVariable or None
        Noise scale per task; None where it is known or has no meaning.
    collapsed : bool
        Whether the coefficients are integrated out.
    """

    model: pm.Model
    block: CoefficientPrior
    shared: Tensor | None
    sigma: Tensor | None
    collapsed: bool


def assemble(spec: ModelSpec, data: TaskData, *, marginal: Marginal = "auto") -> AssembledModel:
    """Build the model, and keep hold of its parts for what `fit` does after sampling."""
    if not isinstance(spec, ModelSpec) or not isinstance(data, TaskData):
        found = f"found {type(spec).__name__} and {type(data).__name__}"
        raise SpecError(Finding("spec, data", f"should be a ModelSpec and a TaskData, {found}"))
    collapsed = is_collapsed(spec, marginal)
    raise_if_any(spec.findings(data), SpecError)
    priors, scales = default_priors(spec, data)
    with pm.Model(coords=model_coords(data)) as model:
        block, shared = _coefficients(spec, data, priors, scales)
        sigma = _noise(spec, data, priors)
        if collapsed:
            _observe_collapsed(block, shared, sigma, data)
        else:
            _observe_latent(spec, block, shared, sigma, data)
    return AssembledModel(model, block, shared, sigma, collapsed)


def _coefficients(
    spec: ModelSpec, data: TaskData, priors: Any, scales: Any
) -> tuple[CoefficientPrior, Tensor | None]:
    shared = None
    if data.shared_features:
        shared = register(
            "beta_shared", priors["beta_shared"], dims=SHARED_FEATURE, scale=scales["beta_shared"]
        )
    if not data.features:
        nothing = pt.zeros((data.n_tasks, 0))
        return CoefficientPrior(nothing, pt.eye(0), None, None, np.arange(0), varies=False), shared
    mean = register("beta_mean", priors["beta_mean"], dims=FEATURE, scale=scales["beta_mean"])[None, :]
    if data.task_feature_names:
        effects = register(
            "task_feature_effects",
            priors["task_feature_effects"],
            dims=(FEATURE, TASK_FEATURE),
            scale=scales["task_feature_effects"],
        )
        mean = mean + product(pt.as_tensor_variable(data.task_features), effects.T)
    block = coefficient_prior(
        mean if data.task_feature_names else repeat(mean, data.n_tasks),
        task_covariance=spec.task_covariance,
        feature_covariance=spec.feature_covariance,
        outside=spec.outside(data.features),
        tasks=data.tasks,
        features=data.features,
        dims=(TASK, FEATURE),
        feature_sd=priors["feature_sd"],
        task_sd=priors["task_sd"] if spec.task_sd else None,
        name=str,
    )
    return block, shared


def _noise(spec: ModelSpec, data: TaskData, priors: Any) -> Tensor | None:
    """Return the noise scale of each task, or None where it is known or has no meaning."""
    if not spec.family.has_noise or data.noise is not None:
        return None
    if not getattr(spec.family, "task_noise", False):
        return pt.broadcast_to(register("sigma", priors["sigma"]), (data.n_tasks,))
    mean = register("sigma_mean", priors["sigma"])
    spread = register("sigma_spread", priors["sigma_spread"])
    offset = pm.Normal("sigma_offset", 0.0, 1.0, shape=(data.n_tasks,))
    return pm.Deterministic("sigma", mean * pt.exp(spread * offset), dims=TASK)


def _observe_latent(
    spec: ModelSpec, block: CoefficientPrior, shared: Tensor | None, sigma: Tensor | None, data: TaskData
) -> None:
    beta = latent_coefficients(
        block, n_tasks=data.n_tasks, n_features=data.n_features, dims=(TASK, FEATURE), name=str
    )
    columns, coefficients = [], []
    if data.features:
        columns.append(pm.Data("X", data.X, dims=(ROW, FEATURE)))
        coefficients.append(beta)
    if shared is not None:
        columns.append(pm.Data("X_shared", data.X_shared, dims=(ROW, SHARED_FEATURE)))
        coefficients.append(repeat(shared[None, :], data.n_tasks))
    spec.family.observe(_beside(coefficients), _beside(columns), sigma, data)


def repeat(row: Tensor, n: int) -> Tensor:
    """Repeat a row n times, as a product: its gradient then needs no sum, which compiles slowly."""
    return product(np.ones((n, 1)), row)


def _beside(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else pt.concatenate(parts, axis=1)


def _observe_collapsed(
    block: CoefficientPrior, shared: Tensor | None, sigma: Tensor | None, data: TaskData
) -> None:
    """Register y with its marginal density, and with a way to draw it."""
    means = [block.mean]
    if shared is not None:
        means.append(repeat(shared[None, :], data.n_tasks))
    parameters = {
        "mean": pt.concatenate(means, axis=1) if len(means) > 1 else means[0],
        "cholesky": block.cholesky,
        "loadings": pt.zeros((data.n_tasks, 0)) if block.loadings is None else block.loadings,
        "unique_sd": pt.zeros(data.n_tasks) if block.unique_sd is None else block.unique_sd,
        "sigma": pt.ones(data.n_tasks) if sigma is None else sigma,
    }
    row_scale = np.sqrt(1.0 / data.weights) if data.noise is None else data.noise / np.sqrt(data.weights)

    def logp(value: Tensor, mean: Tensor, *rest: Tensor) -> Tensor:
        s = data.statistics
        moment, square = _outcome_statistics(value, data, row_scale)
        return (
            collapsed_gaussian(mean - s.reference, *rest, s.gram, moment, square, s.count, block.inside)
            + s.log_weight
        )

    def simulate(
        mean: Tensor, cholesky: Tensor, loadings: Tensor, unique_sd: Tensor, sigma: Tensor, size: Any
    ) -> Tensor:
        n_features, inside = data.n_features, block.inside
        is_inside = np.isin(np.arange(n_features), inside)
        unique = pm.Normal.dist(0.0, 1.0, shape=(data.n_tasks, n_features))
        whitened = unique * pt.switch(is_inside, unique_sd[:, None], 1.0)
        factors = pm.Normal.dist(0.0, 1.0, shape=(loadings.shape[1], len(inside)))
        whitened = pt.inc_subtensor(whitened[:, inside], loadings @ factors)
        deviation = whitened @ cholesky.T if block.varies else pt.zeros((data.n_tasks, n_features))
        beta = pt.inc_subtensor(mean[:, :n_features], deviation)
        eta = (data.full_matrix * beta[data.task_index]).sum(axis=-1) + data.offset
        return pm.Normal.dist(eta, sigma[data.task_index] * row_scale)

    pm.CustomDist(
        "y",
        *parameters.values(),
        dist=simulate,
        logp=logp,
        signature="(t,f),(p,p),(t,k),(t),(t)->(n)",
        class_name="CollapsedGaussian",
        observed=data.y,
        dims=ROW,
    )


def _outcome_statistics(value: Tensor, data: TaskData, row_scale: Any) -> tuple[Tensor, Tensor]:
    """Return X_t'W r and r'W r per task, as numbers for the observed outcome, else as a graph."""
    s = data.statistics
    constant = getattr(value, "data", None)
    if constant is not None and np.array_equal(constant, data.y):
        return pt.as_tensor_variable(s.moment), pt.as_tensor_variable(s.square)
    scaled = data.full_matrix / row_scale[:, None]
    residual = (value - data.offset - data.full_matrix @ s.reference) / row_scale
    moment = pt.inc_subtensor(pt.zeros(s.moment.shape)[data.task_index], scaled * residual[:, None])
    square = pt.inc_subtensor(pt.zeros(s.square.shape)[data.task_index], residual**2)
    return moment, square
