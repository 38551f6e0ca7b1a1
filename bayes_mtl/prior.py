"""`Prior`: a named distribution with numbers, that survives a trip through TOML and JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import exp, inf, isfinite, isnan, log
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from bayes_mtl.errors import Finding, SpecError, raise_if_any

Support = Literal["real", "positive", "bounded"]


@dataclass(frozen=True)
class _Distribution:
    support: Support
    real: tuple[str, ...] = ()
    positive: tuple[str, ...] = ()
    bounds: tuple[str, ...] = ()  # may be left out: infinite

    @property
    def parameters(self) -> tuple[str, ...]:
        return self.real + self.positive + self.bounds


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
        "Gumbel": _Distribution("real", ("mu",), ("beta",)),
        "SkewNormal": _Distribution("real", ("mu", "alpha"), ("sigma",)),
        "ChiSquared": _Distribution("positive", (), ("nu",)),
        "Pareto": _Distribution("positive", (), ("alpha", "m")),
        "Beta": _Distribution("positive", (), ("alpha", "beta")),
        "TruncatedNormal": _Distribution("bounded", ("mu",), ("sigma",), ("lower", "upper")),
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
        One of Normal, StudentT, Cauchy, Laplace, Logistic, Gumbel, SkewNormal, HalfNormal, HalfStudentT,
        HalfCauchy, Exponential, Gamma, InverseGamma, LogNormal, Weibull, ChiSquared, Pareto, Beta,
        Uniform, TruncatedNormal (whose `lower` or `upper` may be left out).
    **params : float
        The distribution's parameters, named as in PyMC. All others must be given.

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
        if distribution in DISTRIBUTIONS and DISTRIBUTIONS[distribution].bounds:
            params = {"lower": -inf, "upper": inf, **params}
        raise_if_any(_findings(distribution, params), SpecError)
        order = DISTRIBUTIONS[distribution].parameters
        object.__setattr__(self, "distribution", distribution)
        object.__setattr__(self, "params", tuple((name, float(params[name])) for name in order))

    def __repr__(self) -> str:
        numbers = "".join(f", {name}={value!r}" for name, value in self.params if abs(value) < inf)
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

    def frozen(self) -> Any:
        """Return SciPy's distribution, with densities, quantiles and moments."""
        from scipy import stats  # loads slowly

        p = dict(self.params)
        of: dict[str, Any] = {
            "Normal": lambda: stats.norm(p["mu"], p["sigma"]),
            "StudentT": lambda: stats.t(p["nu"], p["mu"], p["sigma"]),
            "Cauchy": lambda: stats.cauchy(p["alpha"], p["beta"]),
            "Laplace": lambda: stats.laplace(p["mu"], p["b"]),
            "Logistic": lambda: stats.logistic(p["mu"], p["s"]),
            "HalfNormal": lambda: stats.halfnorm(scale=p["sigma"]),
            "HalfStudentT": lambda: _half(stats.t(p["nu"], 0.0, p["sigma"])),
            "HalfCauchy": lambda: stats.halfcauchy(scale=p["beta"]),
            "Exponential": lambda: stats.expon(scale=1.0 / p["lam"]),
            "Gamma": lambda: stats.gamma(p["alpha"], scale=1.0 / p["beta"]),
            "InverseGamma": lambda: stats.invgamma(p["alpha"], scale=p["beta"]),
            "LogNormal": lambda: stats.lognorm(p["sigma"], scale=exp(p["mu"])),
            "Weibull": lambda: stats.weibull_min(p["alpha"], scale=p["beta"]),
            "Uniform": lambda: stats.uniform(p["lower"], p["upper"] - p["lower"]),
            "Gumbel": lambda: stats.gumbel_r(p["mu"], p["beta"]),
            "SkewNormal": lambda: stats.skewnorm(p["alpha"], p["mu"], p["sigma"]),
            "ChiSquared": lambda: stats.chi2(p["nu"]),
            "Pareto": lambda: stats.pareto(p["alpha"], scale=p["m"]),
            "Beta": lambda: stats.beta(p["alpha"], p["beta"]),
            "TruncatedNormal": lambda: stats.truncnorm(
                (p["lower"] - p["mu"]) / p["sigma"], (p["upper"] - p["mu"]) / p["sigma"], p["mu"], p["sigma"]
            ),
        }
        return of[self.distribution]()

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dictionary; `from_dict` reads it back."""
        return {"distribution": self.distribution, **dict(self.params)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Prior:
        """Build a prior from what `to_dict` returned (or from a TOML table)."""
        params = dict(values)
        return cls(params.pop("distribution", ""), **params)


class _half:  # noqa: N801 - stands for a frozen distribution of SciPy
    """The upper half of a distribution that is symmetric around zero."""

    def __init__(self, whole: Any):
        self.whole = whole

    def logpdf(self, x: Any) -> Any:
        """Log density of positive values."""
        return self.whole.logpdf(x) + log(2.0)

    def ppf(self, q: Any) -> Any:
        """Quantiles."""
        return self.whole.ppf((1.0 + q) / 2.0)

    def moment(self, order: int) -> Any:
        """Even moments, which both halves have in common."""
        return self.whole.moment(order)


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
        elif (
            isinstance(value, bool)
            or not isinstance(value, Real)
            or isnan(float(value))
            or (name not in known_params.bounds and not isfinite(float(value)))
        ):
            found.append(Finding(where, f"`{name}` should be a finite number, found {value!r}"))
        elif name in known_params.positive and not float(value) > 0:
            found.append(Finding(where, f"`{name}` should be positive, found {value!r}"))
    if distribution in ("Uniform", "TruncatedNormal") and not found and not params["lower"] < params["upper"]:
        found.append(Finding(where, f"`lower` should be below `upper`, found {dict(params)}"))
    return found


# How PyMC holds parameters, where not under their own names, by the class of its operator.
_OPERATORS: Mapping[str, tuple[str, Callable[..., dict[str, float]]]] = MappingProxyType(
    {
        "HalfNormalRV": ("HalfNormal", lambda _loc, sigma: {"sigma": sigma}),
        "ExponentialRV": ("Exponential", lambda scale: {"lam": _inverse(scale)}),
        "GammaRV": ("Gamma", lambda alpha, scale: {"alpha": alpha, "beta": _inverse(scale)}),
        "InvGammaRV": ("InverseGamma", lambda alpha, beta: {"alpha": alpha, "beta": beta}),
        "WeibullBetaRV": ("Weibull", lambda alpha, beta: {"alpha": alpha, "beta": beta}),
        "SkewNormalRV": ("SkewNormal", lambda mu, sigma, alpha: {"mu": mu, "sigma": sigma, "alpha": alpha}),
        "StudentTRV": ("StudentT", lambda nu, mu, sigma: {"nu": nu, "mu": mu, "sigma": sigma}),
        "TruncatedNormalRV": (
            "TruncatedNormal",
            lambda mu, sigma, lower, upper: {"mu": mu, "sigma": sigma, "lower": lower, "upper": upper},
        ),
    }
)


def as_prior(value: Any) -> Any:
    """Return a distribution of PyMC with known numbers as a `Prior`; everything else as it is.

    Takes ``pm.HalfNormal.dist(1)``, and the priors of ``pymc_extras.prior``. Of several numbers, a list.
    """
    if not isinstance(value, Prior) and hasattr(value, "create_variable") and hasattr(value, "parameters"):
        import pymc as pm  # loads slowly

        value = getattr(pm, str(value.distribution)).dist(**value.parameters)
    node = getattr(value, "owner", None)
    if node is None or not hasattr(node.op, "dist_params") or value.name is not None:
        return value  # a name: it is a variable of a model
    kind = type(node.op).__name__
    usual = kind.removesuffix("RV")
    name, read = _OPERATORS.get(kind, (usual, None))
    if name not in DISTRIBUTIONS:
        return value
    numbers = _constants(node.op.dist_params(node))
    if numbers is None:
        return value
    found = []
    for row in numbers:
        params = dict(zip(DISTRIBUTIONS[name].parameters, row, strict=False)) if read is None else read(*row)
        found.append(Prior(name, **params))
    return found[0] if value.type.ndim == 0 else found


def _constants(params: Any) -> list[list[float]] | None:
    """Return the numbers of each element, or None where they depend on something."""
    from pymc.pytensorf import constant_fold  # loads slowly

    try:
        arrays = constant_fold(params, raise_not_constant=True)
    except ValueError:  # PyMC's NotConstantValueError is one
        return None
    known = [np.asarray(a) for a in arrays]
    columns = np.broadcast_arrays(*[np.vectorize(_exact, otypes=[float])(a) for a in known])
    return [[float(c) for c in row] for row in zip(*(c.ravel() for c in columns), strict=True)]


def _exact(value: Any) -> float:
    """Return the decimal number that was written, where PyMC keeps it in single precision."""
    return float(f"{value:.7g}") if isinstance(value, np.float32) else float(value)


def _inverse(value: float) -> float:
    """Return 1 / value, as it was written before it was turned around in single precision."""
    rounded = float(f"{1.0 / value:.6g}")
    return rounded if abs(rounded * value - 1.0) < 1e-6 else 1.0 / value
