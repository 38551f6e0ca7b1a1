"""What a version of the package makes of one stored draw: its log density, term by term."""

from __future__ import annotations

import json

import numpy as np
import pytensor
import xarray as xr
from pymc.model.transform.conditioning import remove_value_transforms
from pytensor.compile.mode import Mode

from bayes_mtl.errors import FindingsError
from bayes_mtl.inference.attributes import data_of, spec_of
from bayes_mtl.model import build_model

KEY = "bayes_mtl_log_density"
_TOLERANCE = 1e-6  # relative to the size of a term: more than the rounding of another machine


def log_density(idata: xr.DataTree) -> dict[str, float]:
    """Return the log density of the first draw under the model that is described, by variable.

    Variables are those of `build_model` with the coefficients in it, and ``y``.
    """
    model = build_model(spec_of(idata), data_of(idata), marginal=False)
    # Where a sampler starts is no part of the density, and PyMC does not convert models that say so.
    model.rvs_to_initial_values = dict.fromkeys(model.rvs_to_initial_values)
    model = remove_value_transforms(model)
    draw = idata["posterior"].to_dataset().isel(chain=0, draw=0)
    terms = [term.sum() for term in model.logp(vars=model.basic_RVs, sum=False)]
    values = [model.rvs_to_values[rv] for rv in model.free_RVs]
    at = [draw[rv.name].to_numpy().astype(v.dtype) for rv, v in zip(model.free_RVs, values, strict=True)]
    # As the graph was written: for one draw nothing is worth compiling.
    mode = Mode(linker="py", optimizer=None)
    found = pytensor.function(values, terms, mode=mode, on_unused_input="ignore")(*at)
    return {rv.name: float(value) for rv, value in zip(model.basic_RVs, found, strict=True)}


def stamp(idata: xr.DataTree) -> dict[str, str]:
    """Return the attribute by which `differences` recognises a fit."""
    return {KEY: json.dumps(log_density(idata))}


def differences(idata: xr.DataTree) -> list[str]:
    """Return in words what the first draw's density was when it was stored, and is now, where they differ."""
    if KEY not in idata.attrs:
        return []
    then = json.loads(idata.attrs[KEY])
    try:
        now = log_density(idata)
    except (FindingsError, LookupError, ValueError, TypeError) as err:
        return [f"it cannot be evaluated any more ({err})"]
    out = []
    for name in dict.fromkeys([*then, *now]):
        before, after = then.get(name, np.nan), now.get(name, np.nan)
        if not np.isclose(before, after, rtol=_TOLERANCE, atol=_TOLERANCE):
            out.append(f"that of {name!r} was {before:.6g} and is {after:.6g}")
    return out
