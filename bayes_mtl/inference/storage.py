"""Fits on disk: netCDF or zarr with JSON attributes, no pickle."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from bayes_mtl.arguments import file_path
from bayes_mtl.errors import DataWarning, StorageError
from bayes_mtl.inference.attributes import FORMAT, FORMAT_KEY, spec_of
from bayes_mtl.inference.fingerprint import KEY, NAMES_KEY, differences, is_stamped, stamp
from bayes_mtl.inference.hyperdraws import task_corr
from bayes_mtl.inference.log_likelihood import log_likelihood, posterior_predictive

_PREDICTIVE, _SEED = "posterior_predictive", "posterior_predictive_seed"


def save(idata: xr.DataTree, path: str | Path) -> Path:
    """Write a fit to a netCDF (``.nc``) file or a zarr (``.zarr``) folder.

    Parameters
    ----------
    idata : DataTree
        What `fit` returned.
    path : str or Path
        Ends in ``.nc`` or ``.zarr``; overwritten if it exists.

    Returns
    -------
    Path

    Raises
    ------
    StorageError
        If `idata` is not a fit of this package, or the ending is not known.
    """
    spec_of(idata)
    path = file_path(path)
    if not path.parent.is_dir():
        raise StorageError(f"{path}: there is no folder {str(path.parent)!r}")
    slim = _without_derived(idata)
    if path.suffix == ".nc":
        packed = {f"/{name}": _compress(node) for name, node in slim.children.items()}
        # Beside the target first, so that a failure leaves an old file as it was.
        temporary = path.with_suffix(".nc.part")
        slim.to_netcdf(temporary, engine="h5netcdf", encoding=packed)
        temporary.replace(path)
    elif path.suffix == ".zarr":
        slim.to_zarr(path, mode="w", consolidated=False, zarr_format=3)
    else:
        raise StorageError(f"{path}: the name should end in .nc or .zarr, found {path.suffix!r}")
    return path


def load(path: str | Path) -> xr.DataTree:
    """Read a fit that `save` wrote.

    A file from somebody else can run no code: nothing is unpickled, and its formula, which is evaluated when
    new rows are predicted, may use arithmetic, known functions and methods that only compute. It can say what
    it likes of its model, and ask for much memory or time.

    Parameters
    ----------
    path : str or Path

    Returns
    -------
    DataTree
        In memory, with the same numbers.

    Raises
    ------
    StorageError
        If there is no such file, or it is not a fit of this package, or of another format; or if it does not
        mean what it did when it was written: the log density of one draw is stored, and computed again, and
        labels, formula and description are as they were.

    Warns
    -----
    DataWarning
        If `save` did not write it, so that nothing is stored by which that could be seen.
    """
    path = file_path(path)
    if not path.exists():
        raise StorageError(f"{path}: there is no such file")
    options: dict[str, Any] = (
        # Zarr's second format knows filters that unpickle.
        {"engine": "zarr", "consolidated": False, "zarr_format": 3}
        if path.suffix == ".zarr"
        else {"engine": "h5netcdf"}
    )
    try:
        # xarray adds a filter of warnings to those of the session.
        with warnings.catch_warnings(), xr.open_datatree(path, **options) as tree:
            idata = tree.load()
    except (OSError, ValueError, LookupError, RuntimeError) as err:
        raise StorageError(f"{path}: cannot be read as a fit ({err})") from err
    found = idata.attrs.get(FORMAT_KEY)
    if not isinstance(found, int | np.integer):
        raise StorageError(f"{path}: is not a fit of this package (no attribute {FORMAT_KEY!r})")
    if int(found) > FORMAT:
        raise StorageError(
            f"{path}: has format {found}, this version reads up to {FORMAT}. Update the package"
        )
    writer = f"bayes_mtl {idata.attrs.get('modeling_interface_version', '(unknown)')}"
    if int(found) < FORMAT:
        raise StorageError(
            f"{path}: has format {found}, which does not say what its default priors were; they may have "
            f"changed since (this version reads format {FORMAT}). Fit again, or read it with {writer}"
        )
    if not is_stamped(idata):
        warnings.warn(
            f"{path}: was not written by `save`, so that nothing in it shows whether it means here what it "
            f"meant to {writer}. Write fits with `save`.",
            DataWarning,
            stacklevel=2,
        )
    elif changed := differences(idata):
        raise StorageError(
            f"{path}: does not mean here what it meant to {writer}, which wrote it: {'; '.join(changed)}. "
            f"Fit again, or read it with that version"
        )
    for key in (KEY, NAMES_KEY):
        idata.attrs.pop(key, None)
    return _with_derived(idata)


def _without_derived(idata: xr.DataTree) -> xr.DataTree:
    """Drop the large groups of numbers that follow from smaller ones; `load` computes them anew.

    They are the task correlations of a factor model, the pointwise log-likelihood, and draws of the outcome.
    """
    children = {}
    for name, node in idata.children.items():
        dataset = node.to_dataset()
        if "task_loadings" in dataset and "task_corr" in dataset:
            dataset = dataset.drop_vars("task_corr").assign_attrs(task_corr_dropped=1)
        children[name] = dataset
    dropped = {"log_likelihood_dropped": int(children.pop("log_likelihood", None) is not None)}
    if _SEED in idata.attrs:
        dropped[f"{_PREDICTIVE}_dropped"] = int(children.pop(_PREDICTIVE, None) is not None)
    tree = xr.DataTree.from_dict(children)
    tree.attrs = {**idata.attrs, **dropped, **stamp(idata)}
    return tree


def _with_derived(idata: xr.DataTree) -> xr.DataTree:
    for name, node in list(idata.children.items()):
        if node.attrs.get("task_corr_dropped"):
            dataset = node.to_dataset()
            del dataset.attrs["task_corr_dropped"]
            values = task_corr(dataset["task_loadings"].to_numpy(), dataset["task_unique_sd"].to_numpy())
            corr = xr.DataArray(
                values,
                dims=("chain", "draw", "task", "task_bis"),
                coords={"task_bis": dataset["task"].to_numpy()},
            )
            idata[str(name)] = xr.DataTree(dataset.assign(task_corr=corr))
    if idata.attrs.pop("log_likelihood_dropped", 0):
        idata["log_likelihood"] = xr.DataTree(log_likelihood(idata))
    if idata.attrs.pop(f"{_PREDICTIVE}_dropped", 0):
        idata[_PREDICTIVE] = xr.DataTree(posterior_predictive(idata, int(idata.attrs[_SEED])))
    return idata


def _compress(node: xr.DataTree) -> Mapping[str, Mapping[str, Any]]:
    return {
        str(name): {"zlib": True, "complevel": 1}
        for name, values in node.data_vars.items()
        if values.dtype.kind == "f" and values.ndim
    }
