"""The log prior density of the hyperparameters, for every draw."""

from __future__ import annotations

import xarray as xr
from pymc.model.transform.conditioning import remove_value_transforms

from bayes_mtl.data import TaskData
from bayes_mtl.data.groupings import named
from bayes_mtl.inference.hyperdraws import for_every_draw
from bayes_mtl.model import build_model
from bayes_mtl.spec import ModelSpec


def log_prior(spec: ModelSpec, data: TaskData, posterior: xr.Dataset) -> xr.Dataset:
    """Compute the log prior densities by which sensitivity to priors is judged.

    Those of the hyperparameters: the laws of the coefficients, of the effects of levels, and of what stands
    for single tasks (reliabilities, standard normal coordinates) given them are the model, not its prior.

    Parameters
    ----------
    spec : ModelSpec
    data : TaskData
    posterior : Dataset
        Draws of every free variable of `build_model`.

    Returns
    -------
    Dataset
        A variable for each hyperparameter, by its name, with its dims as far as its elements are independent.
    """
    model = remove_value_transforms(build_model(spec, data))
    coefficients = {"beta", *(named(grouping.name, "beta") for grouping in data.groupings)}
    chosen = [rv for rv in model.free_RVs if rv.name not in coefficients and not _of_single_tasks(rv.name)]
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    coords = {"chain": posterior["chain"], "draw": posterior["draw"]}
    if not chosen:
        return xr.Dataset(coords=coords)
    terms = model.logp(vars=chosen, sum=False)
    inputs = [model.rvs_to_values[rv] for rv in model.free_RVs]
    columns = [posterior[rv.name].transpose("chain", "draw", ...).to_numpy() for rv in model.free_RVs]
    columns = [c.reshape(chains * draws, *c.shape[2:]) for c in columns]
    out = {}
    for rv, values in zip(chosen, for_every_draw(inputs, terms, columns, chains * draws), strict=True):
        inner = [d for d in posterior[rv.name].dims if d not in ("chain", "draw")][: values.ndim - 1]
        out[rv.name] = (("chain", "draw", *inner), values.reshape(chains, draws, *values.shape[1:]))
    labels = {
        dim: posterior[dim].to_numpy()
        for dims, _ in out.values()
        for dim in dims[2:]
        if dim in posterior.coords
    }
    return xr.Dataset(out, coords={**coords, **labels})


def _of_single_tasks(name: str) -> bool:
    return name.endswith(("_offset", "_local", "task_reliability_part"))
