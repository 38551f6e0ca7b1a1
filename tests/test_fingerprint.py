"""A stored fit whose labels, formula or description are not those it was written with is recognised."""

from __future__ import annotations

import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl.errors import DataWarning, StorageError
from bayes_mtl.inference import fingerprint
from tests.test_rows import fitted, shuffled


def edited(path, change):
    """Change a file behind the back of `save`."""
    with xr.open_datatree(path, engine="h5netcdf") as tree:
        idata = tree.load()
    idata = change(idata)
    other = path.with_name("edited.nc")
    idata.to_netcdf(other, engine="h5netcdf")
    return other


def swapped(dim, *, groups):
    """Give the first two labels along a dim to each other, where the draws do not notice it."""

    def change(idata):
        for group in groups:
            found = idata[group].to_dataset()
            one, two, *rest = found[dim].to_numpy().tolist()
            idata[group] = xr.DataTree(found.assign_coords({dim: [two, one, *rest]}))
        return idata

    return change


def replaced(key, old, new):
    def change(idata):
        assert old in idata.attrs[key]
        idata.attrs[key] = idata.attrs[key].replace(old, new)
        return idata

    return change


def without_stamp(idata):
    del idata.attrs[fingerprint.KEY]
    return idata


def test_a_file_that_was_changed_is_refused(tmp_path):
    idata = fitted(mtl.TaskData.from_table(shuffled(), task="task", formula="y ~ x + z"))
    path = mtl.save(idata, tmp_path / "fit.nc")
    everywhere = [name for name, group in idata.children.items() if "task" in group.dims]
    for change, words in (
        (swapped("task", groups=everywhere), "the labels of 'task' changed"),
        (swapped("task", groups=["posterior"]), "the labels of 'task' changed"),
        (swapped("feature", groups=["posterior"]), "the labels of 'feature' changed"),
        (replaced("bayes_mtl_schema", '"x"', '"w"'), "the formula or columns changed"),
        (replaced("bayes_mtl_spec", "Exchangeable", "NoPooling"), "the description changed"),
    ):
        with pytest.raises(StorageError, match=f"does not mean here .*: {words}. Fit again"):
            mtl.load(edited(path, change))
    with pytest.warns(DataWarning, match="was not written by `save`"):
        again = mtl.load(edited(path, without_stamp))
    xr.testing.assert_identical(again["posterior"].to_dataset(), idata["posterior"].to_dataset())
