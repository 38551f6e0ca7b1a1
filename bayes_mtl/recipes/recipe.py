"""`Recipe`: a question, a table and a model in one TOML file."""

from __future__ import annotations

import inspect
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import tomli_w

from bayes_mtl.data import TaskData
from bayes_mtl.errors import BayesMTLError, Finding, FindingsError, raise_if_any
from bayes_mtl.recipes.errors import RecipeError
from bayes_mtl.recipes.sources import DataSource, FileData, source_from_dict
from bayes_mtl.spec import ModelSpec
from bayes_mtl.structures import (
    Clusters,
    CompletePooling,
    Exchangeable,
    Kernel,
    NoPooling,
    TaskCovariance,
    TaskMixture,
    Tree,
)
from bayes_mtl.summaries.correlation import Kind

_TEXT, _LIST, _FLAG, _COUNT, _NUMBER = "a text", "a list of texts", "true or false", "an integer", "a number"
_LISTS = "a table of lists of texts"

# Keyword options of TaskData.from_table.
TASK_OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "task": (_TEXT,),
        "formula": (_TEXT,),
        "outcome": (_TEXT,),
        "outcomes": (_LIST,),
        "features": (_LIST,),
        "shared_features": (_LIST,),
        "task_features": (_LIST,),
        "groupings": (_LIST, _LISTS),
        "weights": (_TEXT,),
        "offset": (_TEXT,),
        "noise": (_TEXT,),
        "intercept": (_FLAG,),
        "center": (_FLAG, _LIST),
        "missing": (_TEXT,),
        "allow_one_class": (_FLAG,),
        "strict": (_FLAG,),
    }
)
# Keyword options of fit.
FIT_OPTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "draws": (_COUNT,),
        "tune": (_COUNT,),
        "chains": (_COUNT,),
        "random_seed": (_COUNT,),
        "target_accept": (_NUMBER,),
    }
)
# Structures that can be read from columns of the recipe's table.
_TABLE_STRUCTURES: Mapping[str, Any] = MappingProxyType(
    {"tree": Tree, "kernel": Kernel, "clusters": Clusters}
)
_OF_STRUCTURE = ("feature_sd", "feature_sd_scale", "cluster_sd", "task_sd")  # priors that say how tasks vary
_FROM_DATA = ("table", "task")  # arguments of `from_table` that the recipe's data give
_SECTIONS = ("title", "question", "data", "tasks", "model", "fit", "relations")


@dataclass(frozen=True)
class Recipe:
    """Everything that a fit needs, as data.

    Attributes
    ----------
    name : str
        Short name: of the file, without its ending.
    title, question : str
        What it is, and what is asked.
    source : DataSource
        Where the table comes from.
    tasks : mapping
        Options of `TaskData.from_table`.
    spec : ModelSpec
        The model. If its structure is read from the table, `spec` has a stand-in; `load` returns the whole.
    fit : mapping
        Options of `bayes_mtl.fit`: draws, tune, chains, random_seed, target_accept.
    relations : {"structural", "partial", "coefficients", "functions"} or None
        Which correlation of tasks to show; None: the one that belongs to the structure, if any.
    from_table : mapping
        For a structure that is read from the table: its `name`, and options of its `from_table`.
    """

    name: str
    title: str
    question: str
    source: DataSource
    tasks: Mapping[str, Any]
    spec: ModelSpec = field(default_factory=ModelSpec)
    fit: Mapping[str, Any] = field(default_factory=dict)
    relations: Kind | None = None
    from_table: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("tasks", "fit", "from_table"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def with_data(self, path: str | Path) -> Recipe:
        """Return the same recipe for the table in another file."""
        return replace(self, source=FileData(Path(path).resolve()))

    def with_fit(self, **options: Any) -> Recipe:
        """Return the same recipe with other options of the fit; those that are None stay."""
        return replace(self, fit={**self.fit, **{k: v for k, v in options.items() if v is not None}})

    def with_structure(self, structure: TaskCovariance | str) -> Recipe:
        """Return the same recipe with another structure, or one by name with its default options.

        Priors of how tasks vary were chosen for the old structure and are left out; so are relations.

        Raises
        ------
        RecipeError
            If there is no structure of that name, or it has options without a default.
        """
        if isinstance(structure, str):
            structure = _named_structure(structure)
        priors = {k: v for k, v in self.spec.priors.items() if k not in _OF_STRUCTURE}
        mixed = isinstance(structure, TaskMixture)
        outside = None if mixed else self.spec.independent_features
        # Without a common mean that tasks deviate from, there is nothing to scale together.
        baseline = isinstance(structure, CompletePooling | NoPooling)
        spec = replace(
            self.spec,
            task_covariance=structure,
            priors=priors,
            independent_features=outside,
            task_sd=False,
            feature_scales=None if baseline or mixed else self.spec.feature_scales,
        )
        return replace(self, spec=spec, relations=None, from_table={})

    def data(self) -> TaskData:
        """Load the table and check it."""
        return self.load()[0]

    def load(self) -> tuple[TaskData, ModelSpec]:
        """Load the table, check it, and complete the model with what it says of the tasks."""
        table = self.source.load()
        data = TaskData.from_table(table, **self.tasks)
        if not self.from_table:
            return data, self.spec
        options = dict(self.from_table)
        kind = _TABLE_STRUCTURES[options.pop("name").lower()]
        structure = kind.from_table(table, task=self.tasks.get("task"), **options)
        return data, replace(self.spec, task_covariance=structure)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values; `from_dict` reads them back."""
        plain: dict[str, Any] = {
            "title": self.title,
            "question": self.question,
            "data": self.source.to_dict(),
            "tasks": dict(self.tasks),
            "model": self.spec.to_dict(),
        }
        if self.from_table:
            options = dict(self.from_table)
            plain["model"]["task_covariance"] = {"name": options.pop("name"), "from_table": options}
        if self.fit:
            plain["fit"] = dict(self.fit)
        if self.relations:
            plain["relations"] = {"kind": self.relations}
        return plain

    def to_toml(self) -> str:
        """Return the recipe as the text of a TOML file."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, name: str, folder: str | Path = ".") -> Recipe:
        """Read what `to_dict` wrote, or a TOML file that has been parsed.

        Parameters
        ----------
        values : mapping
            `title`, `question`, `data`, `tasks`; optionally `model`, `fit`, `relations`.
        name : str
            Short name of the recipe.
        folder : str or Path
            What a relative path of the data is relative to.

        Returns
        -------
        Recipe

        Raises
        ------
        RecipeError
            Lists everything that is wrong.
        """
        found = [
            Finding(f"{key!r}", "is not a section of a recipe", f"Sections: {', '.join(_SECTIONS)}")
            for key in values
            if key not in _SECTIONS
        ]
        for key in ("title", "question"):
            if not isinstance(values.get(key), str) or not values[key].strip():
                found.append(Finding(key, f"should be a text, found {values.get(key)!r}"))
        for key in ("data", "tasks"):
            if key not in values:
                found.append(Finding(f"[{key}]", "is missing"))
        source = (
            _part(found, "", lambda: source_from_dict(values["data"], Path(folder)))
            if "data" in values
            else None
        )
        model, from_table = _split(found, values.get("model", {}))
        spec = _part(found, "[model] ", lambda: _model(model))
        tasks = _options(found, "tasks", values.get("tasks", {}), TASK_OPTIONS)
        fit = _options(found, "fit", values.get("fit", {}), FIT_OPTIONS)
        relations = _options(found, "relations", values.get("relations", {}), {"kind": (_TEXT,)})
        kind = relations.get("kind")
        if kind is not None and kind not in get_args(Kind):
            found.append(
                Finding("[relations] kind", f"is {kind!r}", f"Choose one of: {', '.join(get_args(Kind))}")
            )
        raise_if_any(found, RecipeError)
        assert source is not None
        assert spec is not None
        title, question = values["title"].strip(), values["question"].strip()
        return cls(name, title, question, source, tasks, spec, fit, kind, from_table)


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Read a recipe: one that ships with the package, by name, or any TOML file.

    Parameters
    ----------
    name_or_path : str or Path
        For example ``"schools"`` or ``"mine/schools.toml"``.

    Returns
    -------
    Recipe

    Raises
    ------
    RecipeError
        If there is no such recipe, or it is not valid.

    Examples
    --------
    >>> from bayes_mtl.recipes import load_recipe
    >>> load_recipe("eight_schools").tasks["task"]
    'school'
    """
    path = Path(name_or_path)
    if path.suffix != ".toml" and path.name == str(name_or_path):
        path = library() / f"{name_or_path}.toml"
        if not path.is_file():
            names = _names()
            close = get_close_matches(str(name_or_path), names, n=1)
            hint = f"Did you mean {close[0]}? " if close else ""
            hint += f"Recipes that ship: {', '.join(names)}. Or give the path of a TOML file"
            raise RecipeError(
                Finding(repr(str(name_or_path)), "is not a recipe that ships with the package", hint)
            )
    if not path.is_file():
        raise RecipeError(
            Finding(str(path), "there is no such file", f"Recipes that ship: {', '.join(_names())}")
        )
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as err:  # of TOML, and of text that is not UTF-8
        raise RecipeError(Finding(str(path), f"is not valid TOML ({err})")) from err
    try:
        return Recipe.from_dict(values, name=path.stem, folder=path.parent)
    except RecipeError as err:
        raise RecipeError(replace(f, where=f"{path.name}: {f.where}") for f in err.findings) from err


def list_recipes() -> list[Recipe]:
    """Return the recipes that ship with the package, by name.

    Examples
    --------
    >>> from bayes_mtl.recipes import list_recipes
    >>> [recipe.name for recipe in list_recipes()][:2]
    ['barley', 'cigarettes']
    """
    return [load_recipe(name) for name in _names()]


def library() -> Path:
    """Return the folder of the recipes that ship: in an installed package, or in a checkout."""
    installed = Path(__file__).parent / "library"
    return installed if installed.is_dir() else Path(__file__).parents[2] / "models"


def _names() -> list[str]:
    return sorted(path.stem for path in library().glob("*.toml"))


def _part(found: list[Finding], where: str, read: Any) -> Any:
    """Return what `read` returns; collect what it finds wrong."""
    try:
        return read()
    except FindingsError as err:
        found += [replace(f, where=f"{where}{f.where}") for f in err.findings]
    except (BayesMTLError, AttributeError, TypeError, ValueError) as err:
        found.append(Finding(where.strip() or "[data]", f"cannot be read ({err})"))
    return None


def _split(found: list[Finding], model: Any) -> tuple[Any, dict[str, Any]]:
    """Take a structure that is read from the table out of a ``[model]``, whose table is not there yet."""
    structure = model.get("task_covariance") if isinstance(model, Mapping) else None
    if not isinstance(structure, Mapping) or "from_table" not in structure:
        return model, {}
    where = "[model.task_covariance]"
    kind = _TABLE_STRUCTURES.get(str(structure.get("name")).lower())
    if kind is None:
        names = ", ".join(k.__name__ for k in _TABLE_STRUCTURES.values())
        found.append(
            Finding(f"{where} from_table", f"is for {names}, found {structure.get('name')!r}", "Remove it")
        )
        return {}, {}
    options = {n: p for n, p in inspect.signature(kind.from_table).parameters.items() if n not in _FROM_DATA}
    known = {n: (_LIST,) if "Sequence" in str(p.annotation) else (_TEXT, _NUMBER) for n, p in options.items()}
    given = _options(found, "model.task_covariance.from_table", structure["from_table"], known)
    found += [
        Finding(f"{where} from_table {n}", "is missing")
        for n, p in options.items()
        if p.default is p.empty and n not in given
    ]
    if odd := sorted(set(structure) - {"name", "from_table"}):
        found.append(Finding(where, f"has {', '.join(odd)} beside from_table", "Put it into from_table"))
    return {**model, "task_covariance": Exchangeable().to_dict()}, {"name": kind.__name__, **given}


def _named_structure(name: str) -> TaskCovariance:
    found: list[Finding] = []
    structure = _part(found, f"structure {name!r} ", lambda: TaskCovariance.from_dict(name))
    raise_if_any(found, RecipeError)
    assert isinstance(structure, TaskCovariance)
    return structure


def _model(values: Any) -> ModelSpec:
    if not isinstance(values, Mapping):
        raise TypeError(f"should be a table, found {values!r}")
    return ModelSpec.from_dict(values)


def _options(
    found: list[Finding], section: str, values: Any, known: Mapping[str, tuple[str, ...]]
) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        found.append(
            Finding(f"[{section}]", f"should be a table, found {values!r}", f"Keys: {', '.join(known)}")
        )
        return {}
    for key, value in values.items():
        if key not in known:
            found.append(Finding(f"[{section}]", f"{key!r} is not a key", f"Keys: {', '.join(known)}"))
        elif not any(_is(value, kind) for kind in known[key]):
            found.append(
                Finding(f"[{section}] {key}", f"should be {' or '.join(known[key])}, found {value!r}")
            )
    return dict(values)


def _is(value: Any, kind: str) -> bool:
    if kind == _LIST:
        return isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    if kind == _LISTS:
        return isinstance(value, Mapping) and all(_is(v, _LIST) for v in value.values())
    if kind == _FLAG:
        return isinstance(value, bool)
    if kind == _COUNT:
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == _NUMBER:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, str)
