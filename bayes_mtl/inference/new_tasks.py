"""Draws of the coefficients of tasks, and of the effects of levels, that are not in the data.

With Sigma = L L' the covariance of the features, coefficients of a new task n are, per draw,

    beta_n = mean_n + L u_n

outside the task covariance u_n ~ N(0, I); inside it, u_n is drawn by the structure given the u_t of the known
tasks (`TaskCovariance.draw_new`), and scaled if tasks have scales of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pymc as pm
import pytensor.tensor as pt
import xarray as xr

from bayes_mtl._typing import FloatArray, Label, Tensor
from bayes_mtl.data.groupings import named
from bayes_mtl.errors import Finding, PredictionError, SpecError
from bayes_mtl.inference.attributes import coefficient_size, inside_of, spec_of
from bayes_mtl.inference.components import draw_labels
from bayes_mtl.inference.deviations import cluster_weights, deviations
from bayes_mtl.inference.hyperdraws import at_draws
from bayes_mtl.model.priors import TASK_SD, draw_prior
from bayes_mtl.structures import Horseshoe, KnownTasks, Namer, TaskCovariance, TaskMixture


def draw_new_tasks(
    idata: xr.DataTree, structure: TaskCovariance, new: Sequence[Label], rng: np.random.Generator
) -> FloatArray:
    """Draw how far coefficients of new tasks are from their means, (chain, draw, task, feature).

    Parameters
    ----------
    idata : DataTree
    structure : TaskCovariance
        That of the fit, which may know places of the new tasks.
    new : sequence of labels
    """
    posterior, spec = idata["posterior"].to_dataset(), spec_of(idata)
    if "feature_sd" not in posterior:  # tasks do not deviate
        sizes = posterior.sizes
        return np.zeros((sizes["chain"], sizes["draw"], len(new), sizes["feature"]))
    if isinstance(structure, TaskMixture):
        return _draw_from_mixture(posterior, structure, new, rng)
    scales: FloatArray | None = None
    if spec.task_sd:
        scales = posterior["task_sd"].transpose("chain", "draw", "task").to_numpy()[..., None]

    def known() -> FloatArray:
        found = deviations(idata, posterior)
        return found if scales is None else found / scales

    def own_scales(shape: tuple[int, ...]) -> FloatArray:
        prior = spec.priors.get("task_sd", TASK_SD)
        return draw_prior(prior, shape, rng) if spec.task_sd else np.ones(shape)  # type: ignore[arg-type]

    labels = posterior["task"].to_numpy().tolist()
    drawn = _draw(posterior, str, structure, labels, new, inside_of(idata), known, own_scales, rng)
    if "beta_specific" in posterior:
        drawn = drawn + _specific_parts(idata, posterior, len(new), rng)
    return drawn


def draw_new_levels(
    idata: xr.DataTree, grouping: str, new: Sequence[Label], rng: np.random.Generator
) -> FloatArray:
    """Draw effects of new levels of a grouping, (chain, draw, level, feature)."""
    posterior, name = idata["posterior"].to_dataset(), partial(named, grouping)
    inside, feature = inside_of(idata, grouping), name("feature")

    def known() -> FloatArray:
        unit = posterior[name("beta")] / posterior[name("feature_sd")]
        return unit.sel({feature: inside}).transpose("chain", "draw", grouping, feature).to_numpy()

    structure, labels = spec_of(idata).levels_of(grouping), posterior[grouping].to_numpy().tolist()
    return _draw(posterior, name, structure, labels, new, inside, known, np.ones, rng)


def draw_new_noise(posterior: xr.Dataset, n_new: int, rng: np.random.Generator) -> FloatArray | None:
    """Draw noise scales of new tasks, (chain, draw, task); None if all tasks have the same."""
    if "sigma" not in posterior or "task" not in posterior["sigma"].dims:
        return None
    middle, spread = (
        posterior[name].transpose("chain", "draw").to_numpy()[..., None]
        for name in ("sigma_mean", "sigma_spread")
    )
    return np.asarray(middle * np.exp(spread * rng.standard_normal((*middle.shape[:2], n_new))))


def _draw(
    posterior: xr.Dataset,
    name: Namer,
    structure: TaskCovariance,
    labels: list[Label],
    new: Sequence[Label],
    inside: list[str],
    known: Callable[[], FloatArray],
    own_scales: Callable[[tuple[int, ...]], FloatArray],
    rng: np.random.Generator,
) -> FloatArray:
    """Draw deviations of new tasks, or levels, by `name`.

    Parameters
    ----------
    known : callable
        Returns deviations of the known ones inside the covariance, in units of `feature_sd`.
    own_scales : callable
        From the shape (chain, draw, new task) to scales of new tasks.
    """
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    n_draws = chains * draws
    _check_one_task(structure, labels, new)
    features = [str(f) for f in posterior[name("feature")].to_numpy()]
    at = np.flatnonzero(np.isin(features, inside))

    def read(key: str, *dims: str) -> FloatArray:
        values = posterior[name(key)].transpose("chain", "draw", *map(name, dims), ...).to_numpy()
        return values.reshape(n_draws, *values.shape[2:])

    factor = np.broadcast_to(np.eye(len(features)), (n_draws, len(features), len(features)))
    if name("feature_corr") in posterior:
        factor = np.linalg.cholesky(read("feature_corr", "feature", "feature_bis"))
    # Features outside are independent of all others, so the block inside is the factor of theirs.
    block = factor[:, at[:, None], at]

    def white() -> FloatArray:
        D = known().reshape(n_draws, len(labels), len(at))
        return np.swapaxes(np.linalg.solve(block, np.swapaxes(D, -1, -2)), -1, -2)

    evaluate = partial(at_draws, draws=posterior)
    of_known = KnownTasks(labels, n_draws, len(at), name, read, evaluate, white)
    unit = rng.standard_normal((n_draws, len(new), len(features)))
    drawn = structure.draw_new(new, of_known, rng) @ np.swapaxes(block, -1, -2)
    unit[..., at] = drawn * own_scales((n_draws, len(new)))[..., None]
    unit = unit * read("feature_sd", "feature")[:, None, :]
    return np.asarray(unit.reshape(chains, draws, len(new), len(features)))


def _check_one_task(structure: TaskCovariance, labels: list[Label], new: Sequence[Label]) -> None:
    if len(labels) == 1 and "rho" in structure.parameters and any(map(structure.knows, new)):
        found = f"resemble a known task by `rho`, of which one task ({labels[0]!r}) says nothing"
        raise PredictionError(Finding("new tasks", found, "Fit more tasks, or rename these"))


def _specific_parts(
    idata: xr.DataTree, posterior: xr.Dataset, n_new: int, rng: np.random.Generator
) -> FloatArray:
    """Return what new tasks have of their own in features that others do not use."""
    scales = spec_of(idata).feature_scales
    assert isinstance(scales, Horseshoe)
    features = posterior["feature"].to_numpy()
    at = np.flatnonzero(np.isin(features, posterior["candidate_feature"].to_numpy()))
    size = coefficient_size(idata, scales.unit)[at]
    parts = np.zeros((*posterior["beta_specific_scale"].shape, n_new, len(features)))
    scale = posterior["beta_specific_scale"].transpose("chain", "draw").to_numpy()
    parts[..., at] = scales.draw_specific(scale, size, n_new, rng)
    return parts


def _draw_from_mixture(
    posterior: xr.Dataset, structure: TaskMixture, new: Sequence[Label], rng: np.random.Generator
) -> FloatArray:
    """Draw the component k of each new task, and its coefficients, m_k - mean + D (w C z + F_k a).

    With D C C'D = Sigma the covariance of the features, z and a standard normal; without directions w is 1.
    """
    known, features = posterior["task"].to_numpy().tolist(), posterior["feature"].to_numpy().tolist()
    sizes = (posterior.sizes["chain"], posterior.sizes["draw"], len(new))
    label = draw_labels(_weights_of_new(posterior, structure, new, known, sizes), rng)
    unit = rng.standard_normal((*sizes, len(features)))
    if "feature_corr" in posterior:
        corr = posterior["feature_corr"].transpose("chain", "draw", "feature", "feature_bis").to_numpy()
        unit = unit @ np.swapaxes(np.linalg.cholesky(corr), -1, -2)
    if structure.has_directions:

        def parts() -> list[Tensor]:
            pm.modelcontext(None).add_coord("cluster", structure.component_names(known))
            found = structure.components(known, len(features), str)
            assert found.factors is not None
            return [found.factors, pt.as_tensor_variable(1.0 if found.rest is None else found.rest)]

        factors, rest = (v.reshape(*sizes[:2], *v.shape[1:]) for v in at_draws(parts, posterior))
        own = np.take_along_axis(factors, label[..., None, None], axis=2)
        unit = rest[..., None, None] * unit
        unit = unit + (own @ rng.standard_normal((*sizes, factors.shape[-1], 1)))[..., 0]
    drawn = posterior["feature_sd"].transpose("chain", "draw", "feature").to_numpy()[:, :, None] * unit
    if "cluster_mean" in posterior:
        deviation = posterior["cluster_mean"] - posterior["beta_mean"]
        centre = deviation.transpose("chain", "draw", "cluster", "feature").to_numpy()
        drawn = drawn + np.take_along_axis(centre, label[..., None], axis=2)
    return np.asarray(drawn)


def _weights_of_new(
    posterior: xr.Dataset,
    structure: TaskMixture,
    new: Sequence[Label],
    known: Sequence[Label],
    sizes: tuple[int, ...],
) -> FloatArray:
    """Return the probability of each component for each new task, (chain, draw, task, component)."""
    try:
        member = structure.membership(new, known)
    except SpecError as err:
        raise PredictionError(err.findings) from err
    if member is not None:
        return np.broadcast_to(member, (*sizes, member.shape[1]))
    gating = dict(getattr(structure, "gating", None) or ())
    if "cluster_gating" in posterior and (missing := [task for task in new if task not in gating]):
        found = f"has no values for {missing[:5]}, which say where new tasks fall"
        hint = "Put them into `gating` when you fit, or describe it by Clusters.from_table"
        raise PredictionError(Finding("gating", found, hint))
    return cluster_weights(structure, posterior, new)
