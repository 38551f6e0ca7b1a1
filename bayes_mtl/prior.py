"""`Prior`: a named distribution with numbers, that survives a trip through TOML and JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal

from bayes_mtl.errors import Finding, SpecError, raise_if_any

Support = Literal["real", "positive", "bounded"]


@dataclass(frozen=True)
class _Distribution:
    support: Support
    real: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        return self.real + self.positive


# Univariate priors that make sense for a hyperparameter, with PyMC's parameter names.
DISTRIBUTIONS: Mapping[str, _Distribution] = MappingProxyType(
    {
        "Normal": _Distribution("real", ("mu",), ("sigma",)),
        "StudentT": _Distribution("real", ("mu",), ("nu", "sigma")),
        "Cauchy": _Distribution("real", ("alpha",), ("beta",)),
        "Laplace": _Distribution("real", ("mu",), ("b",)),
        "Logistic": _Distribution("real", ("mu",), ("s",)),
        "HalfNormal": _Distribution("positive", (), ("sigma",)),
        "HalfStudentT": _Distribution("positive", (), ("nu", "sigma")),
        "HalfCauchy": _Distribution("positive", (), ("beta",)),
        "Exponential": _Distribution("positive", (), ("lam",)),
        "Gamma": _Distribution("positive", (), ("alpha", "beta")),
        "InverseGamma": _Distribution("positive", (), ("alpha", "beta")),
        "LogNormal": _Distribution("positive", ("mu",), ("sigma",)),
        "Weibull": _Distribution("positive", (), ("alpha", "beta")),
        "Uniform": _Distribution("bounded", ("lower", "upper")),
    }
)


@dataclass(frozen=True, init=False)
class Prior:
    """A univariate prior distribution, by PyMC's name and parameter names.

    Numbers are in the units of the quantity as it is reported (outcome units per feature unit for a
    coefficient), whatever scaling goes on inside.

    Parameters
    ----------
    distribution : str
        One of Normal, StudentT, Cauchy, Laplace, Logistic, HalfNormal, HalfStudentT, HalfCauchy,
        Exponential, Gamma, InverseGamma, LogNormal, Weibull, Uniform.
    **params : float
        The distribution's parameters, named as in PyMC. All must be given.

    Raises
    ------
    SpecError
        If the distribution is not known, or a parameter is missing, unknown or out of range.

    Examples
    --------
    >>> from bayes_mtl import Prior
    >>> Prior("Normal", mu=0, sigma=10)
    Prior("Normal", mu=0.0, sigma=10.0)
    >>> Prior.from_dict(Prior("HalfNormal", sigma=1).to_dict()) == Prior("HalfNormal", sigma=1)
    True
    """

    distribution: str
    params: tuple[tuple[str, float], ...]

    def __init__(self, distribution: str, **params: float):
        raise_if_any(_findings(distribution, params), SpecError)
        order = DISTRIBUTIONS[distribution].parameters
        object.__setattr__(self, "distribution", distribution)
        object.__setattr__(self, "params", tuple((name, float(params[name])) for name in order))

    def __repr__(self) -> str:
        numbers = "".join(f", {name}={value!r}" for name, value in self.params)
        return f'Prior("{self.distribution}"{numbers})'

    @property
    def support(self) -> Support:
        """Where the distribution lives: the real line, the positive half line, or an interval."""
        return DISTRIBUTIONS[self.distribution].support

    @property
    def lower_bound(self) -> float:
        """The least value that can be drawn."""
        if self.support == "real":
            return -float("inf")
        return 0.0 if self.support == "positive" else dict(self.params)["lower"]

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary; `from_dict` reads it back."""
        return {"distribution": self.distribution, **dict(self.params)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Prior:
        """Build a prior from what `to_dict` returned (or from a TOML table)."""
        params = dict(values)
        return cls(params.pop("distribution", ""), **params)


def _findings(distribution: str, params: Mapping[str, Any]) -> list[Finding]:
    if distribution not in DISTRIBUTIONS:
        known = ", ".join(DISTRIBUTIONS)
        return [Finding(f"Prior({distribution!r})", "unknown distribution", f"Known ones: {known}")]
    known_params = DISTRIBUTIONS[distribution]
    where = f'Prior("{distribution}")'
    signature = ", ".join(known_params.parameters)
    found = [
        Finding(where, f"parameter `{name}` is missing", f"It takes: {signature}")
        for name in known_params.parameters
        if name not in params
    ]
    for name, value in params.items():
        if name not in known_params.parameters:
            found.append(Finding(where, f"unknown parameter `{name}`", f"It takes: {signature}"))
        elif isinstance(value, bool) or not isinstance(value, Real) or not isfinite(float(value)):
            found.append(Finding(where, f"`{name}` should be a finite number, found {value!r}"))
        elif name in known_params.positive and not float(value) > 0:
            found.append(Finding(where, f"`{name}` should be positive, found {value!r}"))
    if distribution == "Uniform" and not found and not params["lower"] < params["upper"]:
        found.append(Finding(where, f"`lower` should be below `upper`, found {dict(params)}"))
    return found
