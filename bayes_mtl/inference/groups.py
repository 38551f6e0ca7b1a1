"""What a fit holds: draws of all variables, from posterior and prior, and what the model conditions on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pymc as pm
import xarray as xr

from bayes_mtl._typing import FloatArray
from bayes_mtl.collector import without_collections
from bayes_mtl.data import PseudoRows, TaskData
from bayes_mtl.data.groupings import named
from bayes_mtl.data.labels import as_coordinate
from bayes_mtl.data.rows import in_table_order, row_coords
from bayes_mtl.inference import components
from bayes_mtl.inference.hyperdraws import REPORTED, Hyperdraws, MixtureDraws, evaluate, is_auxiliary
from bayes_mtl.inference.recover import Coefficients, from_coordinates, recover
from bayes_mtl.model import LEVEL_OFFSET, NOISE_OFFSETS, WHITENED, AssembledModel, CoefficientPrior
from bayes_mtl.model.coords import (
    CANDIDATE,
    CLUSTER,
    FEATURE,
    SHARED_FEATURE,
    TASK,
    TASK_FEATURE,
    dims_of,
    level_dims,
    model_coords,
)
from bayes_mtl.spec import ModelSpec

PRIOR_DRAWS = 1000
CHAIN, DRAW = "chain", "draw"


def constant_data(data: TaskData) -> xr.Dataset:
    """Return what the model conditions on, labelled, with rows in the order of the table."""

    def of_rows(values: npt.NDArray[Any], *dims: str) -> tuple[tuple[str, ...], npt.NDArray[Any]]:
        return ("row", *dims), in_table_order(data, values, axis=0)

    out = xr.Dataset(
        {
            "X": of_rows(data.X, "feature"),
            "task_index": of_rows(data.task_index),
            "row_position": of_rows(data.row),
            "weights": of_rows(data.weights),
            "offset": of_rows(data.offset),
        },
        coords={**row_coords(data), "task": as_coordinate(data.tasks), "feature": list(data.features)},
    )
    if data.shared_features:
        out["X_shared"] = of_rows(data.X_shared, "shared_feature")
        out = out.assign_coords(shared_feature=list(data.shared_features))
    if data.task_feature_names:
        out["task_features"] = (("task", "task_feature"), data.task_features)
        out = out.assign_coords(task_feature=list(data.task_feature_names))
    if data.noise is not None:
        out["noise"] = of_rows(data.noise)
    for grouping in data.groupings:
        level, feature = level_dims(grouping)
        out[named(grouping.name, "index")] = of_rows(grouping.index)
        out[f"X_{grouping.name}"] = of_rows(grouping.X, feature)
        out = out.assign_coords({level: as_coordinate(grouping.levels), feature: list(grouping.features)})
    return out


def coefficients(
    assembled: AssembledModel,
    hyper: Hyperdraws | MixtureDraws,
    raw: xr.Dataset,
    data: TaskData,
    spec: ModelSpec,
    rows: PseudoRows,
    rng: np.random.Generator,
    *,
    collapsed: bool,
) -> Coefficients:
    """Draw the coefficients that were integrated out, or compute them from their coordinates."""
    flat = {n: raw[n].to_numpy().reshape(len(hyper), *raw[n].shape[2:]) for n in WHITENED if n in raw}
    if isinstance(hyper, MixtureDraws):
        if collapsed:
            return components.draw_given_rows(hyper, data, rows, rng)
        return components.from_coordinates(hyper, data, spec.family, rows, flat[WHITENED[1]], rng)
    if collapsed:
        return recover(assembled, hyper, rows, rng)
    return from_coordinates(assembled, hyper, rows, *(flat[name] for name in WHITENED[:2]))


@without_collections()
def prior_draws(assembled: AssembledModel, data: TaskData, seed: int) -> xr.Dataset:
    """Draw hyperparameters and coefficients from the prior."""
    model = assembled.model
    free = [v for v in model.free_RVs if v.name not in (*WHITENED, *NOISE_OFFSETS)]
    noise = assembled.task_noise
    variables = {v.name: v for v in free} if noise is None else noise.with_median(model, free)
    found: dict[str, FloatArray] = {}
    if variables:
        draws = pm.draw(list(variables.values()), PRIOR_DRAWS, random_seed=seed, mode="FAST_COMPILE")
        found = dict(zip(variables, draws, strict=True))
    if noise is not None:
        found |= noise.draw_coordinates(found, PRIOR_DRAWS, np.random.default_rng(seed + 2))
        if noise.moves_median:
            del found["sigma_mean"]  # follows from its coordinate
    drawn = xr.Dataset(coords={CHAIN: np.arange(1), DRAW: np.arange(PRIOR_DRAWS)})
    for name, values in found.items():
        drawn[name] = ((CHAIN, DRAW, *dims_of(model, name, values.ndim - 1)), values[None])
    if assembled.levels is not None:
        z = np.random.default_rng(seed + 1).standard_normal((1, PRIOR_DRAWS, data.levels.size))
        drawn[LEVEL_OFFSET] = ((CHAIN, DRAW, f"{LEVEL_OFFSET}_dim"), z)
    prior, hyper = evaluate(assembled, drawn, data, given_data=False)
    own = prior_coefficients(assembled, hyper, data, np.random.default_rng(seed))
    return with_coefficients(prior, own, hyper, assembled, data)


def prior_coefficients(
    assembled: AssembledModel, hyper: Hyperdraws | MixtureDraws, data: TaskData, rng: np.random.Generator
) -> Coefficients:
    """Draw the coefficients given their law alone."""
    if isinstance(hyper, MixtureDraws):
        return components.draw_prior(hyper, data.n_tasks, rng)
    return recover(assembled, hyper, None, rng)


def with_coefficients(
    draws: xr.Dataset,
    found: Coefficients,
    hyper: Hyperdraws | MixtureDraws,
    assembled: AssembledModel,
    data: TaskData,
) -> xr.Dataset:
    """Add coefficients, and all that was integrated out with them.

    The result has every variable of `build_model`, the free ones too, so that PyMC's functions find each.
    """
    chains, length = draws.sizes[CHAIN], draws.sizes[DRAW]
    added = _of_the_population(found, hyper, assembled)
    added["beta"] = ((TASK, FEATURE), found.beta[..., : data.n_features])
    block, n_effects = assembled.block, len(assembled.population.column)
    if isinstance(block, CoefficientPrior) and block.has_factors:
        factors = found.alpha[:, n_effects:]
        factors = factors.reshape(len(factors), -1, len(block.inside))
        added["basis_offset"] = (("basis_offset_dim_0", "basis_offset_dim_1"), factors)
    if found.probability is not None:
        added["cluster_probability"] = ((TASK, CLUSTER), found.probability)
    used = 0
    for grouping in data.groupings:
        own = hyper.levels[:, used : used + grouping.n_effects]
        shape = (len(own), len(grouping.levels), len(grouping.features))
        added[named(grouping.name, "beta")] = (level_dims(grouping), own.reshape(shape))
        used += grouping.n_effects
    everything: dict[str, tuple[tuple[Any, ...], Any]] = {
        str(name): (values.dims, values.to_numpy()) for name, values in draws.items()
    }
    for name, (inner, values) in added.items():
        everything[name] = ((CHAIN, DRAW, *inner), values.reshape(chains, length, *values.shape[1:]))
    rest = sorted((n for n in everything if n not in REPORTED), key=is_auxiliary)
    order = [n for n in REPORTED if n in everything] + rest
    labels = {k: v for k, v in model_coords(data).items() if any(k in everything[n][0] for n in order)}
    coords: dict[str, Any] = {str(k): draws[k].to_numpy() for k in draws.coords} | labels
    return xr.Dataset({name: everything[name] for name in order}, coords=coords)


def _of_the_population(
    found: Coefficients, hyper: Hyperdraws | MixtureDraws, assembled: AssembledModel
) -> dict[str, tuple[tuple[str, ...], FloatArray]]:
    """Return effects that were integrated out, and what `build_model` makes them of."""
    dims = {
        "beta_mean": (FEATURE,),
        "beta_shared": (SHARED_FEATURE,),
        "task_feature_effects": (FEATURE, TASK_FEATURE),
        "beta_specific": (TASK, CANDIDATE),
    }
    effects, added = assembled.population, {}
    for name, part in effects.integrated.items():
        free, values = name, part.values(found.alpha)
        added[name] = (dims[name], values)
        if name in effects.learned:
            standard = found.alpha[:, : len(effects.column)] / hyper.effect_scale
            free, values = f"{name}_offset", part.values(standard)
            added[free] = (tuple(f"{free}_dim_{i}" for i in range(values.ndim - 1)), values)
        moves = part.position.ravel() >= 0
        if moves.any() and not moves.all():  # the others are constants
            free = f"{free}_normal_part"
            added[free] = ((f"{free}_dim_0",), values.reshape(len(values), -1)[:, moves])
    return added


def sample_stats(trace: xr.DataTree) -> xr.Dataset:
    """Return what the sampler says of its draws, by the names that ArviZ looks for."""
    stats = trace["sample_stats"].to_dataset()
    stats = stats.drop_vars([v for v in stats if stats[v].dtype == object])
    if "maxdepth_reached" in stats:
        stats = stats.rename({"maxdepth_reached": "reached_max_treedepth"})
    return stats
