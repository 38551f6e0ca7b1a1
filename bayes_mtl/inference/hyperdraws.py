"""From draws of the free variables to everything that follows from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from pytensor.graph.replace import vectorize_graph

from bayes_mtl._typing import FloatArray, IntArray, Tensor
from bayes_mtl.collector import without_collections
from bayes_mtl.data import Grouping, TaskData
from bayes_mtl.data.groupings import named
from bayes_mtl.errors import StorageError
from bayes_mtl.model import NOISE_OFFSETS, SIGMA_OFFSET, WHITENED, AssembledModel, MixturePrior
from bayes_mtl.model.numbers import constants

CHUNK_BYTES = 256 * 2**20  # working memory of a computation over draws
# Task correlation matrices that take more (128 MiB) are computed from the loadings where they are needed.
MAX_TASK_CORR_ENTRIES = 2**24


@dataclass(frozen=True)
class Draws:
    """Draws of the coefficients' law; the first axis of every array is the draw.

    Attributes
    ----------
    sigma : (D, 1) or (D, T)
    mean : (D, 1, F) or (D, T, F)
        The part of the mean that is not integrated out, of varying and shared columns.
    effect_scale : (D, C)
        What of the size of the effects that are integrated out is a parameter.
    levels : (D, C)
        Effects of the levels of all groupings.
    """

    sigma: FloatArray
    mean: FloatArray
    effect_scale: FloatArray
    levels: FloatArray

    def __len__(self) -> int:
        return len(self.sigma)

    def chunks(self, size: int) -> Iterator[tuple[slice, Self]]:
        """Split into pieces of at most `size` draws."""
        for start in range(0, len(self), max(1, size)):
            at = slice(start, min(start + max(1, size), len(self)))
            yield at, type(self)(**{k: v[at] for k, v in vars(self).items()})


@dataclass(frozen=True)
class Hyperdraws(Draws):
    """Draws of a `CoefficientPrior`.

    Attributes
    ----------
    sd : (D, P)
    correlation : (D, I, I)
        Cholesky factor of the correlation of the features inside the task covariance.
    loadings : (D, T, K)
    unique_sd : (D, T)
    """

    sd: FloatArray
    correlation: FloatArray
    loadings: FloatArray
    unique_sd: FloatArray


@dataclass(frozen=True)
class MixtureDraws(Draws):
    """Draws of a `MixturePrior`.

    Attributes
    ----------
    log_weight : (D, 1, K) or (D, T, K)
    centre : (D, K, P)
    cholesky : (D, 1, P, P) or (D, K, P, P)
    """

    log_weight: FloatArray
    centre: FloatArray
    cholesky: FloatArray


@without_collections()
def evaluate(
    assembled: AssembledModel, draws: xr.Dataset, data: TaskData, *, given_data: bool = True
) -> tuple[xr.Dataset, Hyperdraws | MixtureDraws]:
    """Compute every reported hyperparameter, and the law of the coefficients, for every draw.

    Parameters
    ----------
    assembled : AssembledModel
    draws : Dataset
        Draws of the model's free variables, dims (chain, draw, ...).
    data : TaskData
    given_data : bool
        Whether coordinates of levels are those that the sampler moved; False: standard normals, for draws of
        the prior.

    Returns
    -------
    reported : Dataset
        Hyperparameters by the names and dims of the model, and the free variables that make them up.
    hyperdraws : Hyperdraws
        The same in the form that the algebra needs, chains one after the other.
    """
    model, block = assembled.model, assembled.block
    n_tasks = data.n_tasks
    law: dict[str, Tensor] = {
        **block.law,
        "sigma": pt.ones(1) if assembled.sigma is None else assembled.sigma,
        "mean": assembled.population.mean(constants),
        "effect_scale": assembled.population.effect_scale,
        "levels": pt.zeros(0),
    }
    if assembled.levels is not None:
        law["levels"] = assembled.levels.values if given_data else assembled.levels.from_prior
    # Without unique parts the loadings are the Cholesky factor of task_corr, and say nothing more.
    dense = "task_loadings" in model.named_vars and "task_unique_sd" not in model.named_vars
    skip = {"beta", "task_corr", *(("task_loadings",) if dense else ())}
    if "task_loadings" not in model.named_vars:
        skip.add("task_unique_sd")
    for grouping in data.groupings:
        skip |= _redundant_of_levels(model, grouping, draws.sizes["chain"] * draws.sizes["draw"])
    reported = {v.name: v for v in model.deterministics if v.name not in skip}
    reported = {n: v for n, v in reported.items() if n == SIGMA_OFFSET or not is_auxiliary(n)}

    inputs = [rv for rv in model.free_RVs if rv.name in draws]
    chains, length = draws.sizes["chain"], draws.sizes["draw"]
    n_draws = chains * length
    columns = [draws[rv.name].to_numpy().reshape(n_draws, *draws[rv.name].shape[2:]) for rv in inputs]
    stacks = for_every_draw(inputs, [*reported.values(), *law.values()], columns, n_draws)
    named = dict(zip([*reported, *(f"law:{k}" for k in law)], stacks, strict=True))
    kind: Any = MixtureDraws if isinstance(block, MixturePrior) else Hyperdraws
    hyper = kind(**{key: named[f"law:{key}"] for key in law})

    variables = {}
    for rv in model.free_RVs:
        if rv.name in draws and rv.name not in (*WHITENED, *NOISE_OFFSETS):
            variables[rv.name] = draws[rv.name]
    for name in reported:
        dims = ("chain", "draw", *(model.named_vars_to_dims.get(name) or ()))
        variables[name] = xr.DataArray(named[name].reshape(chains, length, *named[name].shape[1:]), dims=dims)
    small = n_draws * n_tasks**2 <= MAX_TASK_CORR_ENTRIES
    if isinstance(hyper, Hyperdraws) and "task_corr" in model.named_vars and (small or dense):
        scale = np.ones((n_draws, n_tasks))
        if "task_sd" in variables:
            scale = scale * variables["task_sd"].to_numpy().reshape(n_draws, -1)
        if "task_reliability" in variables:
            scale = scale / np.sqrt(variables["task_reliability"].to_numpy().reshape(n_draws, -1))
        corr = task_corr(hyper.loadings / scale[..., None], hyper.unique_sd / scale)
        variables["task_corr"] = xr.DataArray(
            corr.reshape(chains, length, n_tasks, n_tasks),
            dims=("chain", "draw", *model.named_vars_to_dims["task_corr"]),
        )
    labels = {
        dim: list(model.coords[dim]) for v in variables.values() for dim in v.dims if dim in model.coords
    }
    coords = {"chain": draws["chain"].to_numpy(), "draw": draws["draw"].to_numpy(), **labels}
    order = [n for n in REPORTED if n in variables] + [n for n in variables if n not in REPORTED]
    return xr.Dataset({n: variables[n].variable for n in order}, coords=coords), hyper


def _redundant_of_levels(model: pm.Model, grouping: Grouping, n_draws: int) -> set[str]:
    """Return what need not be reported of a grouping: factors that say nothing more, matrices too large."""
    corr, loadings, unique = (
        named(grouping.name, key) for key in ("task_corr", "task_loadings", "task_unique_sd")
    )
    skip = {corr} if n_draws * len(grouping.levels) ** 2 > MAX_TASK_CORR_ENTRIES else set()
    if unique not in model.named_vars:
        skip.add(loadings)
    if loadings not in model.named_vars:
        skip.add(unique)
    return skip


def for_every_draw(
    inputs: list[Tensor], outputs: list[Tensor], columns: list[FloatArray], n_draws: int
) -> list[FloatArray]:
    """Evaluate a graph for draws of its inputs, without compiling: few calls of many draws each."""
    many = [
        pt.tensor(dtype=str(c.dtype), shape=(None, *v.type.shape))
        for v, c in zip(inputs, columns, strict=True)
    ]
    batched = vectorize_graph(outputs, dict(zip(inputs, many, strict=True)))
    function = pytensor.function(many, batched, mode="FAST_COMPILE", on_unused_input="ignore")

    def call(at: slice) -> list[FloatArray]:
        size = len(range(*at.indices(n_draws)))
        found = zip(outputs, function(*(c[at] for c in columns)), strict=True)
        # What does not depend on the inputs comes once.
        return [v if v.ndim > o.ndim else np.broadcast_to(v, (size, *v.shape)) for o, v in found]

    first = call(slice(0, 1))
    stacks = [np.empty((n_draws, *value.shape[1:])) for value in first]
    step = max(1, CHUNK_BYTES // (4 * sum(value.nbytes for value in first)))
    for start in range(0, n_draws, step):
        at = slice(start, start + step)
        for stack, value in zip(stacks, call(at), strict=True):
            stack[at] = value
    return stacks


REPORTED = (
    "beta_mean",
    "beta_shared",
    "task_feature_effects",
    "feature_sd",
    "feature_sd_scale",
    "feature_corr",
    "feature_relevance",
    "feature_share",
    "feature_shrinkage",
    "r2",
    "variance_share",
    "beta_specific",
    "cluster_weight",
    "cluster_gating",
    "cluster_sd",
    "cluster_mean",
    "task_corr",
    "task_sd",
    "task_reliability",
    "sigma",
    "sigma_mean",
    "sigma_spread",
    "task_loadings",
    "task_unique_sd",
    "task_loadings_scale",
    "feature_loadings",
    "feature_loadings_scale",
)


def evenly_spaced(n: int, limit: int) -> IntArray:
    """Return all of n positions, or `limit` of them from the first to the last."""
    return np.unique(np.linspace(0, n - 1, min(n, limit)).astype(np.int64))


def thinned(draws: xr.Dataset, limit: int) -> xr.Dataset:
    """Return at most `limit` draws, evenly spaced over all chains, along ``draw`` alone."""
    length = draws.sizes["draw"]
    at = evenly_spaced(draws.sizes["chain"] * length, limit)
    chain, draw = (xr.DataArray(i, dims="sample") for i in np.divmod(at, length))
    some = draws.isel(chain=chain, draw=draw).drop_vars(["chain", "draw"], errors="ignore")
    return some.transpose(..., "sample").rename(sample="draw")


def at_draws(build: Callable[[], Sequence[Tensor]], draws: xr.Dataset) -> list[FloatArray]:
    """Return the values of tensors at stored draws, chains one after the other.

    Parameters
    ----------
    build : callable
        Registers variables in the current model and returns tensors that depend on them.
    draws : Dataset
        Draws of these variables.
    """
    n_draws = draws.sizes["chain"] * draws.sizes["draw"]
    with pm.Model(model=None) as model:  # whatever model the caller is in stays as it is
        outputs = list(build())
    if missing := [v.name for v in model.free_RVs if v.name not in draws]:
        raise StorageError(f"the fit does not hold {', '.join(missing)}, as older files did not: fit again")
    columns = [draws[v.name].transpose("chain", "draw", ...).to_numpy() for v in model.free_RVs]
    columns = [c.reshape(n_draws, *c.shape[2:]) for c in columns]
    return for_every_draw(model.free_RVs, outputs, columns, n_draws)


def task_corr(loadings: FloatArray, unique_sd: FloatArray) -> FloatArray:
    """Return Omega = Lambda Lambda' + diag(delta^2) for each draw."""
    corr = loadings @ np.swapaxes(loadings, -1, -2)
    at = np.arange(corr.shape[-1])
    corr[..., at, at] += unique_sd**2
    return corr


def is_auxiliary(name: str) -> bool:
    """Whether a variable is only a coordinate for the sampler, or a part of a parameter."""
    return name.endswith(("_offset", "_partial", "_part", "_local"))
