"""Compiled models, kept for the life of the process: other data of the same shape need no new compilation."""

from __future__ import annotations

import sys
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pymc as pm
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.traversal import io_toposort

from bayes_mtl.model import AssembledModel

_KEPT = 8


@dataclass(frozen=True)
class _Entry:
    compiled: Any
    variables: dict[str, SharedVariable]


_cache: OrderedDict[Hashable, _Entry] = OrderedDict()


def compile_model(assembled: AssembledModel, *, backend: str, progress: bool) -> Any:
    """Compile the log density for nutpie, or feed the numbers of this model to one like it.

    Two models are alike if their graphs are, apart from the values of variables.
    """
    import nutpie  # loads slowly

    model = assembled.model
    structure, variables = _structure(model)
    key = (backend, structure)
    if key not in _cache:
        options = {"gradient_backend": "jax"} if backend == "jax" else {}
        with _note("Compiling the model", enabled=progress):
            names = [v.name for v in model.free_RVs]
            compiled = nutpie.compile_pymc_model(model, backend=backend, var_names=names, **options)
        if backend == "jax":  # holds its numbers as constants
            return compiled
        _cache[key] = _Entry(compiled, variables)
        if len(_cache) > _KEPT:
            _cache.popitem(last=False)
    _cache.move_to_end(key)
    entry = _cache[key]
    values = {name: variable.get_value() for name, variable in variables.items()}
    for name, variable in entry.variables.items():  # starting points are computed from these
        variable.set_value(values[name])
    used = {variable.name for variable in entry.compiled.shared_var_keys}
    return entry.compiled.with_data(**{name: value for name, value in values.items() if name in used})


def _structure(model: pm.Model) -> tuple[Hashable, dict[str, SharedVariable]]:
    """Return what is compiled, apart from the values of variables; and the variables by name."""
    logp = model.logp()
    position: dict[Variable, Hashable] = {}
    variables: dict[str, SharedVariable] = {}

    def reference(variable: Variable) -> Hashable:
        if variable in position:
            return position[variable]
        if isinstance(variable, Constant):
            return ("constant", variable.type, getattr(variable.data, "tobytes", variable.data.__repr__)())
        if isinstance(variable, SharedVariable):
            variables[variable.name] = variable
        return (type(variable).__name__, variable.name, variable.type)

    steps = []
    for step, node in enumerate(io_toposort([], [logp])):
        steps.append((node.op, *map(reference, node.inputs)))
        position.update({out: (step, i) for i, out in enumerate(node.outputs)})
    return (tuple(v.name for v in model.value_vars), tuple(steps)), variables


@contextmanager
def _note(text: str, *, enabled: bool) -> Iterator[None]:
    """Tell the reader what takes long, and how long it took."""
    started = time.perf_counter()
    if enabled:
        print(f"{text} ...", end=" ", file=sys.stderr, flush=True)
    yield
    if enabled:
        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
