"""Coefficients for draws of a marginal model that somebody else's sampler made."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.arguments import generator
from bayes_mtl.data import TaskData
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.inference import components
from bayes_mtl.inference.groups import CHAIN, DRAW, with_coefficients
from bayes_mtl.inference.hyperdraws import MixtureDraws, evaluate
from bayes_mtl.inference.recover import recover as given_rows
from bayes_mtl.model import assembled_model
from bayes_mtl.spec import ModelSpec


def recover(
    draws: xr.DataTree | xr.Dataset,
    data: TaskData,
    spec: ModelSpec | None = None,
    *,
    random_seed: int | np.random.Generator | None = None,
) -> xr.Dataset:
    """Draw the coefficients that `build_model` integrates out, given draws of its hyperparameters.

    They follow their exact law given the hyperparameters and the data, one draw for each.

    Parameters
    ----------
    draws : DataTree or Dataset
        What `pm.sample` (or another sampler) returned of ``build_model(spec, data)``, or its posterior: draws
        of its free variables, with dims ``chain`` and ``draw``.
    data : TaskData
        The data of that model.
    spec : ModelSpec, optional
        Its description; default ``ModelSpec()``.
    random_seed : int or Generator, optional
        For draws that can be repeated.

    Returns
    -------
    Dataset
        What `fit` has in ``posterior``: ``beta``, the hyperparameters that were given, and what follows from
        them.

    Raises
    ------
    SpecError
        If the family does not let coefficients be integrated out (they are in the model then), or the draws
        are not of this model.

    Examples
    --------
    >>> with mtl.build_model(spec, data):                                              # doctest: +SKIP
    ...     idata = pm.sample()
    >>> beta = mtl.recover(idata, data, spec)["beta"]                                  # doctest: +SKIP
    """
    rng = generator(random_seed)
    spec = ModelSpec() if spec is None else spec
    assembled = assembled_model(spec, data)
    model = assembled.model
    if not spec.family.gaussian_coefficients:
        found = f"does not let coefficients be integrated out under {type(spec.family).__name__}"
        raise SpecError(Finding("spec", found, "They are in the model: read `beta` in its draws"))
    posterior = _posterior(draws)
    free = [str(v.name) for v in model.free_RVs]
    findings = []
    if missing := [name for name in free if name not in posterior]:
        hint = "Pass what was drawn from build_model(spec, data), with the same description and data"
        findings.append(Finding("draws", f"lack {missing}, which the marginal model has", hint))
    shapes = {v.name: tuple(v.type.shape) for v in model.free_RVs}
    for name in free:
        if name in posterior and (shape := _inner(posterior[name]).shape[2:]) != shapes[name]:
            problem = f"have {name!r} of shape {shape}, and the model has {shapes[name]}"
            findings.append(Finding("draws", problem, "Pass the data that were drawn from"))
    for dim, labels in model.coords.items():
        there = posterior.coords.get(dim)
        if there is None or labels is None or dim == "row":
            continue
        if [str(x) for x in there.to_numpy().tolist()] != [str(x) for x in labels]:
            problem = f"have other labels of {dim!r} than the data"
            findings.append(Finding("draws", problem, "Pass the data that were drawn from"))
    raise_if_any(findings, SpecError)
    own = xr.Dataset(
        {name: _inner(posterior[name]).variable for name in free},
        coords={dim: posterior[dim].to_numpy() for dim in (CHAIN, DRAW)},
    )
    reported, hyper = evaluate(assembled, own, data)
    if isinstance(hyper, MixtureDraws):
        found_ = components.draw_given_rows(hyper, data, data.pseudo_rows, rng)
    else:
        found_ = given_rows(assembled, hyper, data.pseudo_rows, rng)
    return with_coefficients(reported, found_, hyper, assembled, data)


def _posterior(draws: Any) -> xr.Dataset:
    if isinstance(draws, xr.DataTree):
        draws = draws["posterior"].to_dataset() if "posterior" in draws.children else draws.to_dataset()
    if not isinstance(draws, xr.Dataset) or not {CHAIN, DRAW} <= set(draws.dims):
        kind = type(draws).__name__
        hint = "Pass what pm.sample returned, or its posterior"
        raise SpecError(Finding("draws", f"should have dims 'chain' and 'draw', found {kind}", hint))
    return draws


def _inner(values: xr.DataArray) -> xr.DataArray:
    return values.transpose(CHAIN, DRAW, ...)
