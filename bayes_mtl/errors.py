"""Errors by stage: the data, the description, the question asked of a fit."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, and what to do about it.

    Attributes
    ----------
    where : str
        The column, parameter, task or row concerned.
    problem : str
        The rule that is broken and the value that was found.
    remedy : str
        What the reader can do.
    """

    where: str
    problem: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.problem}."
        return f"{text} {self.remedy}." if self.remedy else text


class BayesMTLError(Exception):
    """Base of all errors that this package raises on purpose."""


class FindingsError(BayesMTLError, ValueError):
    """An error that lists everything that is wrong, not only the first thing.

    Attributes
    ----------
    findings : tuple of Finding
    """

    headline = "Found {n} problem{s}"

    def __init__(self, findings: Finding | Iterable[Finding]):
        self.findings = (findings,) if isinstance(findings, Finding) else tuple(findings)
        n = len(self.findings)
        head = self.headline.format(n=n, s="" if n == 1 else "s")
        super().__init__("\n".join([head + ":", *(f"  {i}. {f}" for i, f in enumerate(self.findings, 1))]))


class DataError(FindingsError):
    """The table cannot be used as it is."""

    headline = "The data have {n} problem{s}"


class SpecError(FindingsError):
    """The description of the model is not valid, or does not fit the data."""

    headline = "The model description has {n} problem{s}"


class PredictionError(FindingsError):
    """The new rows do not fit the fitted model."""

    headline = "The new rows have {n} problem{s}"


class StorageError(BayesMTLError):
    """A file is not a fit that this package wrote, or cannot be read."""


class DataWarning(UserWarning):
    """The data can be used, but something about them deserves a look."""


class ConvergenceWarning(UserWarning):
    """The sampler's draws should not be trusted yet; the message says why and what to do."""


def raise_if_any(findings: Iterable[Finding], error: type[FindingsError]) -> None:
    """Raise one error that holds all findings, if there are any."""
    if found := tuple(findings):
        raise error(found)
