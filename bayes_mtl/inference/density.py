"""The log density of a model and its gradient as machine code, compiled as seldom as possible.

Numbers that come from data are variables of the graph, so a model of other data of the same shape has the
same code. Code is kept for the life of the process; numba keeps it on disk between processes.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, Literal
from zlib import crc32

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
import xarray as xr
from pymc.pytensorf import join_nonshared_inputs
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Constant, Variable
from pytensor.graph.replace import clone_replace
from pytensor.graph.rewriting.utils import rewrite_graph
from pytensor.graph.traversal import io_toposort

from bayes_mtl._typing import FloatArray
from bayes_mtl.collector import without_collections
from bayes_mtl.inference.coordinates import (
    Coordinates,
    ValueAndGradient,
    best_start,
    laplace_coordinates,
)
from bayes_mtl.kernels import KernelOp, in_parallel, own_address
from bayes_mtl.model import WHITENED
from bayes_mtl.model.coords import dims_of

Backend = Literal["numba", "jax"]

_KEPT = 16
# Up to this many hyperparameters have their coordinates chosen together: the map costs k^2 in every step.
_MAPPED = 100
_codes: OrderedDict[Hashable, Any] = OrderedDict()


class CFunction:
    """A C function at an address."""

    def __init__(self, address: int | None, compiled: Any):
        """Take the address, or where it is None that of numba's C function."""
        self.address = address or compiled.address
        self.ctypes = type(compiled.ctypes)(self.address)
        self._compiled = compiled  # lives as long as this


@dataclass(frozen=True)
class MachineCode:
    """C functions `log_density(size, x, gradient, value, data)` and `copy(size, size, x, out, data)`.

    They return 0, or another number where the density is not finite. `data` holds the addresses of `arrays`,
    the last two of which are those of the `Coordinates`.
    """

    log_density: Any
    copy: Any
    arrays: list[Any]

    @cached_property
    def data(self) -> Any:
        """Addresses of the arrays."""
        return np.array([a.ctypes.data for a in self.arrays], dtype=np.uintp)

    def bind(self, size: int) -> ValueAndGradient:
        """Return the density as a Python function, for one thread."""
        x, gradient, value = np.empty(size), np.empty(size), np.empty(1)
        arguments = [a.ctypes.data_as(ctypes.POINTER(ctypes.c_double)) for a in (x, gradient, value)]
        call, data = self.log_density.ctypes, ctypes.c_void_p(self.data.ctypes.data)

        def evaluate(position: FloatArray) -> tuple[float, FloatArray]:
            x[:] = position
            failed = call(size, *arguments, data)
            return -np.inf if failed else float(value[0]), gradient

        return evaluate


@dataclass(frozen=True)
class Density:
    """The log density of a model over the space in which the sampler moves.

    Attributes
    ----------
    model : pm.Model
    size : int
        Number of dimensions.
    coordinates : Coordinates
        From positions to the model's unconstrained parameters.
    at : callable
        Returns the same density in other coordinates.
    make : callable
        Returns a function from a position to value and gradient, for one thread.
    machine_code : MachineCode or None
        The same as a C function, and what it reads.
    origin : ndarray
        The unconstrained parameters at the centre of the prior.
    searched : int
        How many of the first dimensions a chain optimises before it starts: where there are several modes, it
        begins in the best of a few.
    """

    model: pm.Model
    size: int
    coordinates: Coordinates
    at: Callable[[Coordinates], Density]
    make: Callable[[], ValueAndGradient]
    origin: FloatArray
    machine_code: MachineCode | None = None
    searched: int = 0

    def in_laplace_coordinates(self) -> Density:
        """Return the same density with the hyperparameters centred and scaled at their mode."""
        k = len(self.coordinates.centre)
        plain = self.at(Coordinates.identity(k))
        return self.at(laplace_coordinates(plain.make(), self.origin, k))

    def start(self, seed: int) -> FloatArray:
        """Return a starting point: the centre, moved by up to one in each coordinate, or by two scales.

        Where there are several modes, it is near the best that is found from some such points.
        """
        if self.searched:
            return best_start(self.make(), self.origin, self.searched, seed)
        rng, k = np.random.default_rng(seed), len(self.coordinates.centre)
        moved = self.origin + rng.uniform(-1.0, 1.0, self.size)
        moved[:k] = rng.uniform(-2.0, 2.0, k)
        return moved

    def constrain(self, draws: FloatArray) -> xr.Dataset:
        """Turn positions, shape (chain, draw, size), into draws of the model's free variables."""
        found, used = {}, 0
        draws = self.coordinates.forward(draws)
        chains, length = draws.shape[:2]
        point = self.model.initial_point()
        for rv in self.model.free_RVs:
            variable = self.model.rvs_to_values[rv]
            shape = np.shape(point[variable.name])
            size = int(np.prod(shape))
            values = draws[..., used : used + size].reshape(chains * length, *shape)
            used += size
            transform = self.model.rvs_to_transforms[rv]
            if transform is not None:
                backward = transform.backward(pt.as_tensor_variable(values), *rv.owner.inputs)
                values = pytensor.function([], backward, mode="FAST_COMPILE")()
            dims = dims_of(self.model, rv.name, len(shape))
            found[rv.name] = (("chain", "draw", *dims), values.reshape(chains, length, *values.shape[1:]))
        return xr.Dataset(found, coords={"chain": np.arange(chains), "draw": np.arange(length)})


class DensityGraph:
    """The log density of a model as a graph.

    Attributes
    ----------
    model : pm.Model
    size : int
        Number of dimensions.
    mapped, searched : int
        How many of the first dimensions are mapped by `Coordinates`, and optimised before a chain starts.
    variables : list
        Numbers that may differ while the code is the same.
    structure : hashable
        What identifies the code.
    """

    def __init__(self, model: pm.Model, *, has_one_mode: bool = True, has_modes: bool = False):
        # The terms of the model's density repeat what they have in common. Said once, a kernel whose outputs
        # are used by several terms is also differentiated once.
        self.model, self._point = model, model.initial_point()
        self._logp = rewrite_graph(model.logp(), include=("canonicalize",))
        sizes = [(v.name, np.shape(self._point[v.name])) for v in model.value_vars]
        self.size = int(sum(np.prod(shape) for _, shape in sizes))
        names = [rv.name for rv in model.free_RVs]
        whitened = [name for name in names if name in WHITENED]
        assert names[len(names) - len(whitened) :] == whitened
        others = sum(np.prod(shape) for _, shape in sizes[: len(names) - len(whitened)])
        self.mapped = int(others) if others <= _MAPPED and has_one_mode else 0
        self.searched = int(others) if has_modes else 0
        structure, self.variables = _structure(self._logp, sizes)
        self.structure = (structure, self.mapped)

    @property
    def origin(self) -> FloatArray:
        """The unconstrained parameters at the centre of the prior."""
        return np.concatenate([np.ravel(self._point[v.name]) for v in self.model.value_vars]).astype(float)

    @cached_property
    def function(self) -> tuple[Variable, list[Variable]]:
        """Position, and value and gradient there."""
        (joined,), position = join_nonshared_inputs(self._point, [self._logp], self.model.value_vars)
        return position, [joined, pytensor.grad(joined, position)]

    def begin(self) -> None:
        """Start to compile the large kernels, in other processes, unless the code is there already."""
        if ("numba", self.structure) in _codes:
            return
        for node in io_toposort([], self.function[1]):
            if isinstance(node.op, KernelOp) and node.op.large:
                node.op.machine_code(node).begin()


@without_collections()
def compile_density(
    model: pm.Model | DensityGraph, *, backend: Backend = "numba", progress: bool = False
) -> Density:
    """Compile the log density of a model in its own coordinates, or find the code of one like it."""
    graph = model if isinstance(model, DensityGraph) else DensityGraph(model)
    key = (backend, graph.structure)
    if key not in _codes:
        with _note("Compiling the model", enabled=progress):
            if backend == "jax":
                _codes[key] = _function(graph, "JAX")
            else:
                graph.begin()
                with in_parallel():
                    _codes[key] = _machine_code(graph)
        if len(_codes) > _KEPT:
            _codes.popitem(last=False)
    _codes.move_to_end(key)
    code, numbers = _codes[key], [np.array(v.get_value(borrow=True), order="C") for v in graph.variables]

    def at(coordinates: Coordinates) -> Density:
        if backend == "jax":
            make = partial(_call_jax, code, numbers, coordinates)
            return Density(
                graph.model, graph.size, coordinates, at, make, graph.origin, searched=graph.searched
            )
        log_density, copy = code
        machine_code = MachineCode(log_density, copy, [*numbers, coordinates.centre, coordinates.scale])
        make = partial(machine_code.bind, graph.size)
        return Density(
            graph.model, graph.size, coordinates, at, make, graph.origin, machine_code, graph.searched
        )

    return at(Coordinates.identity(graph.mapped))


def nutpie_model(density: Density) -> Any:
    """Hand a density to nutpie; it reports one variable, ``position``."""
    code, size = density.machine_code, density.size
    if code is not None:
        try:
            from nutpie.compile_pymc import CompiledPyMCModel

            return CompiledPyMCModel(
                _n_dim=size,
                dims={},
                _coords={},
                _shapes={"position": (size,)},
                compiled_logp_func=code.log_density,
                compiled_expand_func=code.copy,
                initial_point_func=density.start,
                shared_data={str(i): array for i, array in enumerate(code.arrays)},
                shared_var_keys={},
                user_data=code.data,
                n_expanded=size,
                shape_info=(["position"], [slice(0, size)], [(size,)]),
                logp_func=None,
                expand_func=None,
                reparameterized_names=[],
            )
        except (ImportError, TypeError):  # not a documented interface: the one below is, but is slower
            pass
    from nutpie.compiled_pyfunc import from_pyfunc

    return from_pyfunc(
        ndim=size,
        make_logp_fn=density.make,
        make_expand_fn=lambda *_: lambda position: {"position": position.copy()},
        make_initial_point_fn=density.start,
        expanded_dtypes=[np.dtype("float64")],
        expanded_shapes=[(size,)],
        expanded_names=["position"],
    )


def _structure(logp: Variable, sizes: Sequence[Any]) -> tuple[Hashable, list[SharedVariable]]:
    """Return what is compiled, apart from the values of variables; and these variables in order."""
    place: dict[Variable, Hashable] = {}
    variables: dict[SharedVariable, None] = {}

    def reference(variable: Variable) -> Hashable:
        if variable in place:
            return place[variable]
        if isinstance(variable, Constant):
            return ("constant", variable.type, np.asarray(variable.data).tobytes())
        if isinstance(variable, SharedVariable):
            variables[variable] = None
            # Code is made for these sizes, which the type need not say.
            return ("variable", variable.name, variable.type, variable.get_value(borrow=True).shape)
        return (type(variable).__name__, variable.name, variable.type)

    steps = []
    for step, node in enumerate(io_toposort([], [logp])):
        steps.append((node.op, *map(reference, node.inputs)))
        place.update({out: (step, i) for i, out in enumerate(node.outputs)})
    return (tuple(sizes), tuple(steps)), list(variables)


def _function(graph: DensityGraph, mode: str) -> Any:
    """Compile to a function of the position, and of the variables as arguments."""
    arguments = [v.type(name=v.name) for v in graph.variables]
    position, outputs = graph.function
    outputs = clone_replace(outputs, dict(zip(graph.variables, arguments, strict=True)))
    return pm.pytensorf.compile(
        [position, *arguments], outputs, mode=mode, on_unused_input="ignore"
    ).vm.jit_fn


def _machine_code(graph: DensityGraph) -> tuple[Any, Any]:
    """Compile by numba to the C functions of `MachineCode`."""
    import numba
    from numba import types
    from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS

    whole, size, k = _function(graph, "NUMBA"), graph.size, graph.mapped
    # Built into the C function as it is written; compiled as a function first, it would be optimised twice.
    written = whole.py_func.__globals__.get("jitable_func", whole).py_func
    density = numba.njit(inline="always")(written)
    kinds = [(v.type.dtype, v.get_value(borrow=True).shape) for v in graph.variables]
    kinds += [("float64", (k,)), ("float64", (k, k))]
    names = [f"n{i}" for i in range(len(kinds))]
    lines = [
        "def log_density(size, x, gradient, value, data):",
        f"    addresses = carray(data, ({len(kinds)},), dtype=uintp)",
    ]
    for i, (name, (dtype, shape)) in enumerate(zip(names, kinds, strict=True)):
        lines.append(f"    {name} = carray(pointer(addresses[{i}]), {shape!r}, dtype={dtype})")
    *arguments, centre, scale = names
    lines += [
        f"    position = empty({size})",
        f"    for i in range({size}):",
        "        position[i] = x[i]",
        f"    for i in range({k}):",
        f"        theta = {centre}[i]",
        f"        for j in range({k}):",
        f"            theta += {scale}[i, j] * x[j]",
        "        position[i] = theta",
        f"    logp, slope = density({', '.join(['position', *arguments])})",
        "    value[0] = logp.item()",
        f"    for i in range({size}):",
        "        gradient[i] = slope[i]",
        "        if not abs(slope[i]) < inf:",
        "            return 3",
        f"    for i in range({k}):",
        "        pulled = 0.0",
        f"        for j in range({k}):",
        f"            pulled += {scale}[i, j] * slope[j]",
        "        gradient[i] = pulled",
        "    return 0 if abs(value[0]) < inf else 4",
    ]
    environment = {"carray": numba.carray, "density": density, "pointer": _pointer(), "inf": np.inf}
    environment["empty"] = np.empty
    environment |= {"uintp": np.uintp, **{dtype: getattr(np, dtype) for dtype, _ in kinds}}
    number, numbers, data = types.uint64, types.CPointer(types.double), types.voidptr
    log_density = _c_function(
        "\n".join(lines),
        environment,
        types.int64(number, numbers, numbers, numbers, data),
        CACHED_SRC_FUNCTIONS.get(whole.py_func),
    )
    copy = _c_function(
        "def copy(size, n, x, out, data):\n    for i in range(n):\n        out[i] = x[i]\n    return 0",
        {},
        types.int64(number, number, numbers, numbers, data),
        "",
    )
    return log_density, copy


def _c_function(source: str, environment: dict[str, Any], prototype: Any, key: str | None) -> Any:
    """Compile a C function; numba keeps it on disk if `key` says what its environment holds."""
    import numba
    from pytensor import config
    from pytensor.link.numba.cache import compile_numba_function_src

    keep = bool(config.numba__cache) and key is not None
    name = f"bayes_mtl_{key}_{crc32(source.encode()):08x}" if keep else None
    environment = {"__name__": __name__, **environment}
    function = compile_numba_function_src(source, source[4 : source.index("(")], environment, cache_key=name)
    compiled = numba.cfunc(prototype, cache=keep)(function)
    return CFunction(own_address(compiled._cache, compiled._sig, for_c=True), compiled)


@cache
def _pointer() -> Any:
    """Return a function in the numba subset that makes an address a pointer."""
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    @intrinsic
    def pointer(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], cgutils.voidptr_t)

        return types.voidptr(address), generate

    return pointer


def _call_jax(code: Any, numbers: list[Any], coordinates: Coordinates) -> ValueAndGradient:
    import jax

    data, k = [jax.device_put(n) for n in numbers], len(coordinates.centre)

    def evaluate(position: FloatArray) -> tuple[float, FloatArray]:
        value, slope = code(coordinates.forward(position), *data)
        gradient = np.array(slope)
        gradient[:k] = coordinates.scale @ gradient[:k]
        return float(value), gradient

    return evaluate


@contextmanager
def _note(text: str, *, enabled: bool) -> Iterator[None]:
    """Tell the reader what takes long, and how long it took."""
    started = time.perf_counter()
    if enabled:
        print(f"{text} ...", end=" ", file=sys.stderr, flush=True)
    yield
    if enabled:
        print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
