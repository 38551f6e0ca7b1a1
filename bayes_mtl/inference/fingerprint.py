"""By what a stored fit is recognised: the log density of one draw, its labels and its description.

The density, term by term, says what a version of the package makes of a draw. Tasks that are alike to the
model could change their names without changing it, and so could features and the formula that makes them, so
that these are written down too.
"""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np
import pytensor
import xarray as xr
from pymc.model.transform.conditioning import remove_value_transforms
from pytensor.compile.mode import Mode

from bayes_mtl.errors import FindingsError
from bayes_mtl.inference.attributes import DESCRIPTION, data_of, spec_of
from bayes_mtl.model import build_model

KEY, NAMES_KEY = "bayes_mtl_log_density", "bayes_mtl_names"
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


def names(idata: xr.DataTree) -> dict[str, str]:
    """Return a digest of the labels along each dim but rows, and one of each part of the description."""
    labels: dict[str, list[object]] = {}
    for group in idata.children.values():
        for dim, coordinate in group.to_dataset().indexes.items():
            if dim not in ("chain", "draw", "row"):
                labels.setdefault(f"the labels of {str(dim)!r}", []).append(coordinate.tolist())
    parts = {what: idata.attrs.get(key, "") for key, what in DESCRIPTION.items()}
    texts = {**{what: json.dumps(found, default=str) for what, found in sorted(labels.items())}, **parts}
    return {what: sha256(text.encode()).hexdigest()[:16] for what, text in texts.items()}


def stamp(idata: xr.DataTree) -> dict[str, str]:
    """Return the attributes by which `differences` recognises a fit."""
    return {KEY: json.dumps(log_density(idata)), NAMES_KEY: json.dumps(names(idata))}


def is_stamped(idata: xr.DataTree) -> bool:
    """Whether there is anything to recognise a fit by."""
    return KEY in idata.attrs and NAMES_KEY in idata.attrs


def differences(idata: xr.DataTree) -> list[str]:
    """Return in words what has changed since a fit was stored."""
    then, now = json.loads(idata.attrs[NAMES_KEY]), names(idata)
    changed = [what for what in dict.fromkeys([*then, *now]) if then.get(what) != now.get(what)]
    return [f"{' and '.join(changed)} changed"] if changed else _other_densities(idata)


def _other_densities(idata: xr.DataTree) -> list[str]:
    """Return in words which terms of the first draw's density were others when it was stored."""
    then = json.loads(idata.attrs[KEY])
    try:
        now = log_density(idata)
    except (FindingsError, LookupError, ValueError, TypeError) as err:
        return [f"the log density of its first draw cannot be evaluated any more ({err})"]
    out = []
    for name in dict.fromkeys([*then, *now]):
        before, after = then.get(name, np.nan), now.get(name, np.nan)
        if not np.isclose(before, after, rtol=_TOLERANCE, atol=_TOLERANCE):
            out.append(f"that of {name!r} was {before:.6g} and is {after:.6g}")
    return [f"of the log density of its first draw, {'; '.join(out)}"] if out else []
