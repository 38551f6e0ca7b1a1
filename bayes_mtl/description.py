"""Parts of a description: frozen dataclasses that survive a trip through a dictionary."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Self

from bayes_mtl.errors import Finding, SpecError


class Described:
    """Mixin for frozen dataclasses: a name, its options, and back."""

    def to_dict(self) -> dict[str, Any]:
        """Return the class name and the options as plain values."""
        options = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        plain = {k: v.to_dict() if isinstance(v, Described) else v for k, v in options.items()}
        return {"name": type(self).__name__, **{k: v for k, v in plain.items() if v is not None}}

    @classmethod
    def leaves(cls) -> Iterable[type[Any]]:
        """Yield the classes that can be described."""
        for sub in cls.__subclasses__():
            if dataclasses.is_dataclass(sub):
                yield sub
            yield from sub.leaves()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | str) -> Self:
        """Build any known subclass from its name and options."""
        options = {"name": values} if isinstance(values, str) else dict(values)
        name = str(options.pop("name", ""))
        known = {c.__name__.lower(): c for c in cls.leaves()}
        chosen = known.get(name.lower())
        if chosen is None:
            choices = ", ".join(sorted(c.__name__ for c in known.values()))
            raise SpecError(Finding(f"{cls.__name__} {name!r}", "is not known", f"Choose one of: {choices}"))
        allowed = [f.name for f in dataclasses.fields(chosen)]
        if unknown := sorted(set(options) - set(allowed)):
            hint = f"It has: {', '.join(allowed)}" if allowed else "It has none"
            raise SpecError(Finding(chosen.__name__, f"unknown options {unknown}", hint))
        if missing := sorted(_required(chosen) - set(options)):
            raise SpecError(
                Finding(chosen.__name__, f"needs {', '.join(missing)}", "Give it beside the name")
            )
        return chosen(**options)


def _required(chosen: type[Any]) -> set[str]:
    """Return the options that have no default."""
    parameters = inspect.signature(chosen).parameters.values()
    return {p.name for p in parameters if p.default is p.empty}
