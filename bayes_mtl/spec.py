"""`ModelSpec`: a frozen, serialisable description of a hierarchical multi-task model."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from math import isfinite
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import Any

import tomli_w

from bayes_mtl.data import TaskData
from bayes_mtl.data.dependence import is_constant
from bayes_mtl.data.groupings import named
from bayes_mtl.data.schema import INTERCEPT
from bayes_mtl.errors import Finding, SpecError, raise_if_any
from bayes_mtl.families import Family, Gaussian
from bayes_mtl.prior import Prior, as_prior
from bayes_mtl.structures import (
    CompletePooling,
    Exchangeable,
    FeatureCovariance,
    FeatureScales,
    NoPooling,
    StudentT,
    TaskCovariance,
    TaskMixture,
    default_feature_covariance,
)

PriorValue = Prior | float
# One for all; by feature; effects of task features also by feature and task feature.
PriorEntry = PriorValue | Mapping[str, "PriorValue | Mapping[str, PriorValue]"]

# name: (what it is for, must it be positive, is it one per feature)
PRIOR_NAMES: Mapping[str, tuple[str, bool, bool]] = MappingProxyType(
    {
        "beta_mean": ("population mean of each coefficient", False, True),
        "beta_shared": ("slope of each shared feature", False, True),
        "task_feature_effects": ("effect of each task feature on each coefficient", False, True),
        "feature_sd": ("how far each coefficient varies across tasks", True, True),
        "feature_sd_scale": (
            "what the priors of feature_sd inside the task covariance are multiplied by",
            True,
            False,
        ),
        "cluster_sd": ("how far the centres of clusters lie apart in each coefficient", True, True),
        "task_sd": ("relative scale of each task's deviation", True, False),
        "sigma": ("noise scale", True, False),
        "sigma_spread": ("how far log noise scales vary across tasks", True, False),
    }
)

_UNUSED = "would not be used"
_LEVEL_SD = ("how far each coefficient varies across levels", True, True)
_LEVEL_SD_SCALE = ("what the priors of these are multiplied by, for features that relate levels", True, False)
# Priors whose `sigma` is the scale of what they say.
_OF_SCALES = ("HalfNormal", "HalfStudentT")


@dataclass(frozen=True)
class ModelSpec:
    """What is assumed about how tasks relate; says nothing of any particular data.

    Parameters
    ----------
    family : str or Family
        ``"gaussian"``, ``"bernoulli"``, or for example ``Gaussian(task_noise=True)``.
    task_covariance : TaskCovariance
        How tasks co-vary. Default `Exchangeable()`.
    feature_covariance : FeatureCovariance, optional
        How the coefficients of one task co-vary: `LKJ`, `Diagonal` or `LowRank`. Default: ``LKJ(2.0)`` for
        up to three coefficients that vary by task (or by level), ``LowRank(2)`` from four on, where `LKJ`
        takes strong correlations for so unlikely that it makes intervals for new tasks too narrow (see
        there).
    priors : mapping
        Replaces default priors by name (`beta_mean`, `beta_shared`, `task_feature_effects`,
        `feature_sd`, `task_sd`, `sigma`, `sigma_spread`). A value is a `Prior`, a number (the
        hyperparameter is fixed), or a mapping from feature to either. In the units of the reported
        quantities. The defaults, weakly informative and scaled to the data, are listed in
        `bayes_mtl.model.priors.default_priors`.
    independent_features : sequence of str, optional
        Features that stand outside the task covariance: independent across tasks and of the other
        features, with a scale of their own. Default: the intercept, when the structure relates tasks
        and there is another feature, since an intercept and a slope do not relate across tasks in the
        same way. Pass ``()`` to take everything inside.
    groupings : mapping from str to TaskCovariance
        How the levels of each further grouping factor of the data co-vary (not mixtures). Default
        `Exchangeable()` for each. The effects of a grouping ``item`` have the feature covariance of the
        tasks, with parameters of their own; `priors` may name their scales, ``item_sd``, if `groupings`
        does.
    task_sd : bool
        Whether each task has a scale of its own, so that Cov(B) = diag(task_sd) Omega diag(task_sd)
        (x) Sigma. To identify the scale, fix `feature_sd` (for example at 1).
    feature_scales : FeatureScales, optional
        How large coefficients are, decided for all features together: `Horseshoe`, which says which features
        matter, or `R2D2M2`. Takes the place of the priors of `beta_mean` and `feature_sd` of all features
        but the intercept; shared features keep theirs. Default: priors that are independent.

    Raises
    ------
    SpecError
        Lists everything that is wrong.

    Examples
    --------
    >>> import bayes_mtl as mtl
    >>> sigma = mtl.Prior("HalfNormal", sigma=1)
    >>> spec = mtl.ModelSpec(task_covariance=mtl.LowRank(2), priors={"sigma": sigma})
    >>> mtl.ModelSpec.from_dict(spec.to_dict()) == spec
    True
    """

    family: Family = field(default_factory=Gaussian)
    task_covariance: TaskCovariance = field(default_factory=Exchangeable)
    feature_covariance: FeatureCovariance | None = None
    priors: Mapping[str, PriorEntry] = field(default_factory=dict)
    independent_features: tuple[str, ...] | None = None
    task_sd: bool = False
    feature_scales: FeatureScales | None = None
    groupings: Mapping[str, TaskCovariance] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.family, str):
            object.__setattr__(self, "family", Family.from_dict(self.family))
        findings = [
            Finding(name, f"should be a {kind.__name__}, found {value!r}", _instance_of(value))
            for name, kind, value in (
                ("family", Family, self.family),
                ("task_covariance", TaskCovariance, self.task_covariance),
                ("task_sd", bool, self.task_sd),
                ("priors", Mapping, self.priors),
                ("groupings", Mapping, self.groupings),
            )
            if not isinstance(value, kind)
        ]
        if not isinstance(covariance := self.feature_covariance, FeatureCovariance | None):
            found = f"should be a FeatureCovariance or None, found {covariance!r}"
            findings.append(Finding("feature_covariance", found, _instance_of(covariance)))
        if not isinstance(self.feature_scales, FeatureScales | None):
            found = f"should be a FeatureScales or None, found {self.feature_scales!r}"
            findings.append(Finding("feature_scales", found, "For example Horseshoe()"))
        given = self.independent_features
        if isinstance(given, str) or not isinstance(given, Iterable | None):
            findings.append(Finding("independent_features", f"should be a list of names, found {given!r}"))
        raise_if_any(findings, SpecError)
        raise_if_any(grouping_findings(self.groupings), SpecError)
        object.__setattr__(self, "priors", {name: in_our_words(p) for name, p in self.priors.items()})
        object.__setattr__(self, "groupings", MappingProxyType(dict(self.groupings)))
        if self.independent_features is not None:
            object.__setattr__(self, "independent_features", tuple(self.independent_features))
        scales = {named(name, "feature_sd"): _LEVEL_SD for name in self.groupings}
        scales |= {named(name, "feature_sd_scale"): _LEVEL_SD_SCALE for name in self.groupings}
        raise_if_any(prior_findings(self.priors, {**PRIOR_NAMES, **scales}), SpecError)
        frozen = {
            k: MappingProxyType(dict(v)) if isinstance(v, Mapping) else v for k, v in self.priors.items()
        }
        object.__setattr__(self, "priors", MappingProxyType(frozen))

    def __hash__(self) -> int:
        return hash(self.to_toml())

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).from_dict, (self.to_dict(),)

    def _repr_html_(self) -> str:
        """Return the options that say something as a table, for notebooks."""
        rows: list[tuple[str, Any]] = [
            ("family", self.family),
            ("task covariance", self.task_covariance),
        ]
        if self.feature_covariance is not None:
            rows.append(("feature covariance", self.feature_covariance))
        if self.independent_features is not None:
            rows.append(("independent features", ", ".join(self.independent_features) or "none"))
        if self.task_sd:
            rows.append(("task_sd", "a scale per task"))
        if self.feature_scales is not None:
            rows.append(("feature scales", self.feature_scales))
        rows += [(f"levels of {name}", structure) for name, structure in self.groupings.items()]
        for name, entry in self.priors.items():
            several = entry.items() if isinstance(entry, Mapping) else [("", entry)]
            rows += [(f"prior of {name}{f' of {f}' if f else ''}", value) for f, value in several]
        cells = (f"<tr><td>{escape(k)}</td><td><code>{escape(str(v))}</code></td></tr>" for k, v in rows)
        return f"<table>{''.join(cells)}</table>"

    def outside(self, features: Sequence[str]) -> tuple[str, ...]:
        """Return which of these features stand outside the task covariance."""
        return outside_features(self.task_covariance, self.independent_features, features)

    def candidates(self, data: TaskData) -> tuple[str, ...]:
        """Return the features that `feature_scales` are about: all that vary by task but the intercept."""
        return tuple(f for f in data.features if f != INTERCEPT) if self.feature_scales else ()

    def feature_covariance_of(self, data: TaskData) -> FeatureCovariance:
        """Return how the coefficients of one task co-vary: as described, or by the default for these data."""
        return self.feature_covariance or default_feature_covariance(
            max([len(data.features), *(len(g.features) for g in data.groupings)])
        )

    def levels_of(self, grouping: str) -> TaskCovariance:
        """Return how the levels of a grouping of the data co-vary."""
        return self.groupings.get(grouping, Exchangeable())

    def findings(self, data: TaskData) -> list[Finding]:
        """Everything that does not fit between this description and the data."""
        found = self.family.findings(data)
        varying, shared = data.features, data.shared_features
        known = {
            "beta_mean": varying,
            "beta_shared": shared,
            "feature_sd": varying,
            "cluster_sd": varying,
            "task_feature_effects": varying if data.task_feature_names else (),
            **{named(g.name, "feature_sd"): g.features for g in data.groupings},
        }
        unused = {
            "beta_shared": "there are no shared features" if not shared else "",
            "beta_mean": "every feature is shared" if not varying else "",
            "task_feature_effects": "" if data.task_feature_names else "there are no task features",
            "feature_sd": "nothing varies under CompletePooling" if self._pooled else "",
            "feature_sd_scale": self._no_common_scale(self.task_covariance, varying, self.feature_scales),
            "cluster_sd": "" if self._has_centres else "there are no clusters",
            "task_sd": "" if self.task_sd else "task_sd=False",
            "sigma": self._no_sigma(data),
            "sigma_spread": "" if getattr(self.family, "task_noise", False) else "the noise is not per task",
        }
        by_level = [g.name for g in data.groupings]
        for name in self.groupings:
            if name not in by_level:
                have = f"The data have: {', '.join(by_level)}" if by_level else "The data have none"
                found.append(Finding(f"grouping {name!r}", "is not a grouping of the data", have))
                unused[named(name, "feature_sd")] = "the data have no such grouping"
                unused[named(name, "feature_sd_scale")] = "the data have no such grouping"
        for grouping in data.groupings:
            where = f"grouping {grouping.name!r}"
            structure = self.levels_of(grouping.name)
            key = named(grouping.name, "feature_sd_scale")
            unused[key] = self._no_common_scale(structure, grouping.features)
            odd = structure.findings(grouping.levels)
            found += [replace(f, where=f"{where}, {f.where}") for f in odd]
            outside = outside_features(structure, self.independent_features, grouping.features)
            if structure.relates_tasks and set(outside) == set(grouping.features):
                problem = f"leaves no feature of the {where} inside the covariance of its levels"
                found.append(Finding("independent_features", problem, "Leave one inside"))
        if data.groupings and isinstance(self.task_covariance, TaskMixture):
            problem = (
                f"is a mixture of tasks ({self.task_covariance}), beside which groupings are not possible"
            )
            found.append(Finding("task_covariance", problem, "Use another, or data without groupings"))
        for name, entry in self.priors.items():
            if unused.get(name):
                found.append(Finding(f"prior {name!r}", f"{_UNUSED}: {unused[name]}", "Remove it"))
            elif isinstance(entry, Mapping):
                inner = [value for value in entry.values() if isinstance(value, Mapping)]
                for given, there in ((entry, known[name]), *((v, data.task_feature_names) for v in inner)):
                    for label in sorted(set(given) - set(there), key=str):
                        problem = f"names {label!r}, which is not among {list(there)}"
                        found.append(Finding(f"prior {name!r}", problem))
        for feature in self.independent_features or ():
            if feature not in varying:
                found.append(
                    Finding("independent_features", f"names {feature!r}, which is not among {list(varying)}")
                )
        if self.task_covariance.relates_tasks and varying and set(self.outside(varying)) == set(varying):
            found.append(
                Finding(
                    "independent_features", "leaves no feature inside the task covariance", "Leave one inside"
                )
            )
        found += self.task_covariance.findings(data.tasks)
        found += self._findings_of_one_class(data)
        found += self._findings_of_scales(data)
        blocks = {"feature_sd": (self.task_covariance, varying)}
        blocks |= {named(g.name, "feature_sd"): (self.levels_of(g.name), g.features) for g in data.groupings}
        for name, (structure, features) in blocks.items():
            slopes = scaled_together(structure, self.independent_features, features)
            found += common_scale_findings(self.priors, name, slopes)
        if self.task_sd and self._pooled:
            found.append(Finding("task_sd", "has nothing to scale under CompletePooling"))
        name = type(self.task_covariance).__name__
        if varying and set(self.independent_features or ()) >= set(varying):
            if self.task_sd:
                found.append(Finding("task_sd", "scales no feature: all are independent", "Leave one inside"))
            if isinstance(self.task_covariance, StudentT) and not self.task_covariance.relates_tasks:
                problem = f"leaves no feature for {name} to scale"
                found.append(Finding("independent_features", problem, "Leave one inside"))
        if self.task_sd and isinstance(self.task_covariance, StudentT):
            found.append(Finding("task_sd", f"is a scale per task, which {name} has", "Use one of the two"))
        if isinstance(self.task_covariance, TaskMixture):
            if self.task_sd:
                found.append(Finding("task_sd", f"has no meaning under {name}", "Leave it out"))
            if self.independent_features:
                found.append(Finding("independent_features", f"has no meaning under {name}", "Leave it out"))
        if not varying and data.task_feature_names:
            problem = "move coefficients that vary by task, and every feature is shared"
            found.append(Finding("task features", problem, "Share fewer features, or leave them out"))
        if not varying and not self._pooled:
            found.append(
                Finding(
                    "task_covariance", "has nothing to vary: every feature is shared", "Use CompletePooling()"
                )
            )
        return found

    def _no_common_scale(
        self, structure: TaskCovariance, features: Sequence[str], instead: FeatureScales | None = None
    ) -> str:
        slopes = scaled_together(structure, self.independent_features, features)
        return no_common_scale(structure, slopes) or (
            f"{type(instead).__name__} has one" if instead is not None else ""
        )

    def without_unused_priors(self, data: TaskData) -> ModelSpec:
        """Return the same without the priors that would not be used with these data."""
        unused = {f.where for f in self.findings(data) if f.problem.startswith(_UNUSED)}
        return replace(self, priors={k: v for k, v in self.priors.items() if f"prior {k!r}" not in unused})

    def _findings_of_one_class(self, data: TaskData) -> list[Finding]:
        """Say which tasks have one class only, where nothing is shared that tells them of the other."""
        shared = self.task_covariance.shares or data.shared_features or data.groupings
        alone = () if self.family.has_noise or shared else data.one_class
        if not alone or "feature_sd" in self.priors:
            return []
        some = ", ".join(map(repr, alone[:10])) + (", ..." if len(alone) > 10 else "")
        problem = (
            f"has one class only in {len(alone)} {'task' if len(alone) == 1 else 'tasks'} ({some}), which "
            f"{self.task_covariance} tells nothing of the other class"
        )
        hint = "Use a structure that shares, leave them out, or say by a prior of feature_sd what to believe"
        return [Finding(f"outcome {data.schema.outcome!r}", problem, hint)]

    def _findings_of_scales(self, data: TaskData) -> list[Finding]:
        if self.feature_scales is None:
            return []
        found, candidates = [], self.candidates(data)
        name, structure = type(self.feature_scales).__name__, type(self.task_covariance).__name__
        if not candidates:
            found.append(Finding("feature_scales", "is about features that vary by task, and there are none"))
        else:
            found += self.feature_scales.findings(len(candidates))
            still = [f for f in candidates if is_constant(data.X[:, data.features.index(f)])]
            problem = f"never changes, so that {name} has no standard deviation to scale its coefficient by"
            found += [Finding(f"feature {f!r}", problem, "Leave it out") for f in still]
        if isinstance(self.task_covariance, TaskMixture | CompletePooling | NoPooling):
            hint = "Use a structure under which tasks deviate from a common mean, such as Exchangeable()"
            found.append(Finding("feature_scales", f"has no meaning under {structure}", hint))
        if data.task_feature_names:
            what = f"says nothing of the effects of task features {list(data.task_feature_names)}"
            found.append(Finding("feature_scales", what, "Leave out the one or the other"))
        for prior in ("beta_mean", "feature_sd"):
            entry = self.priors.get(prior)
            asked = set(entry) if isinstance(entry, Mapping) else set(candidates if entry is not None else ())
            if unused := [f for f in candidates if f in asked]:
                what = f"would not be used for {unused}, whose scales are those of {name}"
                found.append(Finding(f"prior {prior!r}", what, f"Give it for {INTERCEPT!r} alone"))
        return found

    @property
    def _has_centres(self) -> bool:
        return isinstance(self.task_covariance, TaskMixture) and self.task_covariance.has_centres

    @property
    def _pooled(self) -> bool:
        return isinstance(self.task_covariance, CompletePooling)

    def _no_sigma(self, data: TaskData) -> str:
        if not self.family.has_noise:
            return f"{type(self.family).__name__} has no noise scale"
        return "the data bring a known noise" if data.noise is not None else ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, ready for JSON or TOML; `from_dict` reads them back."""
        plain: dict[str, Any] = {
            "family": self.family.to_dict(),
            "task_covariance": self.task_covariance.to_dict(),
        }
        if self.feature_covariance is not None:
            plain["feature_covariance"] = self.feature_covariance.to_dict()
        if self.task_sd:
            plain["task_sd"] = True
        if self.feature_scales is not None:
            plain["feature_scales"] = self.feature_scales.to_dict()
        if self.independent_features is not None:
            plain["independent_features"] = list(self.independent_features)
        if self.groupings:
            plain["groupings"] = {name: levels.to_dict() for name, levels in self.groupings.items()}
        if self.priors:
            plain["priors"] = {name: _plain(entry) for name, entry in self.priors.items()}
        return plain

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSpec:
        """Read what `to_dict` wrote (or a table of a TOML file)."""
        options = dict(values)
        known = (
            "family",
            "task_covariance",
            "feature_covariance",
            "priors",
            "independent_features",
            "task_sd",
            "feature_scales",
            "groupings",
        )
        if unknown := sorted(set(options) - set(known)):
            raise SpecError(Finding("ModelSpec", f"unknown options {unknown}", f"It has: {', '.join(known)}"))
        for name, kind in (
            ("family", Family),
            ("task_covariance", TaskCovariance),
            ("feature_covariance", FeatureCovariance),
            ("feature_scales", FeatureScales),
        ):
            if options.get(name) is not None:
                options[name] = kind.from_dict(options[name])
        if isinstance(options.get("groupings"), Mapping):
            found = options["groupings"].items()
            options["groupings"] = {name: TaskCovariance.from_dict(levels) for name, levels in found}
        if isinstance(options.get("priors"), Mapping):
            options["priors"] = {name: _from_plain(entry) for name, entry in options["priors"].items()}
        return cls(**options)

    def to_toml(self) -> str:
        """Return the description as TOML text."""
        return tomli_w.dumps(self.to_dict())

    @classmethod
    def from_toml(cls, path_or_text: str | Path) -> ModelSpec:
        """Read a TOML file, or TOML text; a ``[model]`` table is used if there is one."""
        is_text = isinstance(path_or_text, str) and (
            "\n" in path_or_text or ("=" in path_or_text and Path(path_or_text).suffix != ".toml")
        )
        text = str(path_or_text) if is_text else Path(path_or_text).read_text(encoding="utf-8")
        values = tomllib.loads(text)
        return cls.from_dict(values.get("model", values))


def grouping_findings(groupings: Mapping[str, Any]) -> list[Finding]:
    """Return what is wrong with the structures of groupings, whatever the data."""
    found = []
    for name, structure in groupings.items():
        where = f"grouping {name!r}"
        if not isinstance(structure, TaskCovariance):
            hint = "For example Exchangeable()"
            found.append(Finding(where, f"should be a TaskCovariance, found {structure!r}", hint))
        elif isinstance(structure, TaskMixture):
            kind = type(structure).__name__
            found.append(Finding(where, f"is a mixture ({kind})", "Mixtures are for tasks: use another"))
        elif isinstance(structure, CompletePooling):
            found.append(Finding(where, "is CompletePooling, so it has no effects", "Leave it out"))
    return found


def _instance_of(value: Any) -> str:
    """Say what to write instead of the name, or the class, of a structure."""
    name = value if isinstance(value, str) else getattr(value, "__name__", "")
    known = {c.__name__ for c in (*TaskCovariance.leaves(), *FeatureCovariance.leaves())}
    return f"Write mtl.{name}(...)" if name in known else ""


def outside_features(
    structure: TaskCovariance, asked: Sequence[str] | None, features: Sequence[str]
) -> tuple[str, ...]:
    """Return the features outside the task covariance: those asked for, or by default the intercept."""
    if asked is not None:
        return tuple(f for f in features if f in asked)
    if structure.relates_tasks and INTERCEPT in features and len(features) > 1:
        return (INTERCEPT,)
    return ()


def inside_features(
    structure: TaskCovariance, asked: Sequence[str] | None, features: Sequence[str]
) -> list[str]:
    """Return the features inside the task covariance."""
    outside = outside_features(structure, asked, features)
    return [f for f in features if f not in outside]


def scaled_together(
    structure: TaskCovariance, asked: Sequence[str] | None, features: Sequence[str]
) -> list[str]:
    """Return the features whose scales may have a common factor: the slopes inside the task covariance."""
    return [f for f in inside_features(structure, asked, features) if f != INTERCEPT]


def no_common_scale(structure: TaskCovariance, slopes: Collection[str]) -> str:
    """Return why the scales of features have no common factor, or nothing."""
    if isinstance(structure, TaskMixture | CompletePooling | NoPooling):
        return f"it has no meaning under {type(structure).__name__}"
    return "" if slopes else "no feature is inside the covariance, beside an intercept"


def common_scale_findings(priors: Mapping[str, Any], name: str, slopes: Collection[str]) -> list[Finding]:
    """Say which priors `name` of slopes inside the covariance the factor `{name}_scale` cannot scale."""
    entry = priors.get(name)
    if priors.get(f"{name}_scale", 1.0) == 1.0 or entry is None:
        return []
    given = entry if isinstance(entry, Mapping) else dict.fromkeys(slopes, entry)
    odd = {
        feature: value
        for feature, value in given.items()
        if feature in slopes and getattr(value, "distribution", None) not in _OF_SCALES
    }
    if not odd:
        return []
    problem = f"multiplies the `sigma` of a {' or '.join(_OF_SCALES)}, and {name} has {odd}"
    return [Finding(f"prior '{name}_scale'", problem, "Use one of these, or leave it out")]


def prior_findings(
    priors: Mapping[str, Any], known: Mapping[str, tuple[str, bool, bool]] = PRIOR_NAMES
) -> list[Finding]:
    """Return what is wrong with a mapping of priors, whatever the data."""
    found = []
    for name, entry in priors.items():
        if name not in known:
            choices = "; ".join(f"{k} ({what})" for k, (what, _, _) in known.items())
            if name.endswith(("_sd", "_sd_scale")):
                choices += ". Of a grouping: name it in ModelSpec(groupings=...)"
            found.append(Finding(f"prior {name!r}", "is not a parameter", f"Parameters: {choices}"))
            continue
        _, positive, per_feature = known[name]
        if isinstance(entry, Mapping) and not per_feature:
            found.append(Finding(f"prior {name!r}", "cannot be given per feature", "Give one prior"))
            continue
        for feature, value in _values(name, entry):
            where = f"prior {name!r}" + (f" of {feature!r}" if feature else "")
            if isinstance(value, list | tuple) or getattr(value, "ndim", 0) == 1:
                by_name = ", ".join(f"'feature {i + 1}': {v}" for i, v in enumerate(list(value)[:3]))
                hint = f"Name them: {{{by_name}{', ...' if len(value) > 3 else ''}}}"
                found.append(Finding(where, f"is a list of {len(value)}, without names of features", hint))
            elif isinstance(value, Prior):
                if positive and value.lower_bound < 0:
                    found.append(
                        Finding(
                            where, f"should live on positive numbers, found {value}", "For example HalfNormal"
                        )
                    )
            elif isinstance(value, bool) or not isinstance(value, Real) or not isfinite(float(value)):
                hint = "Variables of a model are for `task_coefficients`" if hasattr(value, "owner") else ""
                found.append(Finding(where, f"should be a Prior or a finite number, found {value!r}", hint))
            elif positive and not float(value) > 0:
                found.append(Finding(where, f"should be positive, found {value!r}"))
    return found


def in_our_words(entry: Any) -> Any:
    """Return an entry with distributions of PyMC as priors, where their numbers are known."""
    if isinstance(entry, Mapping):
        return {feature: in_our_words(value) for feature, value in entry.items()}
    if isinstance(entry, list | tuple):
        return [as_prior(value) for value in entry]
    return as_prior(entry)


def _values(name: str, entry: Any) -> Iterator[tuple[str, Any]]:
    """Yield each value of an entry with what it is for."""
    if not isinstance(entry, Mapping):
        yield "", entry
        return
    for feature, value in entry.items():
        if name == "task_feature_effects" and isinstance(value, Mapping):
            yield from ((f"{feature}, {of}", inner) for of, inner in value.items())
        else:
            yield feature, value


def _plain(entry: PriorEntry) -> Any:
    if isinstance(entry, Prior):
        return entry.to_dict()
    if isinstance(entry, Mapping):
        return {feature: _plain(value) for feature, value in entry.items()}
    return float(entry)


def _from_plain(entry: Any) -> PriorEntry:
    if not isinstance(entry, Mapping):
        return entry
    if isinstance(entry.get("distribution"), str):  # else a feature of that name
        return Prior.from_dict(entry)
    return {feature: _from_plain(value) for feature, value in entry.items()}  # type: ignore[misc]
