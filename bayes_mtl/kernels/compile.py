"""How a kernel becomes machine code: compiled once per machine, called by its address from anywhere.

numba builds whatever a function calls into the function itself, and optimises all of it again in every
process that compiles a new caller. A kernel is therefore compiled by itself and kept on disk; a graph that
uses it holds only the name of a cell where the function's address will be. So a graph and its kernels can be
compiled at the same time: large kernels in processes of their own.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any
from zlib import crc32

import numpy as np

from bayes_mtl.kernels._numba import call, compiler_of_subroutines, own_address

# A reduction may be reordered; NaN and infinity keep their meaning, since kernels check for them. (They
# check by abs(x) < inf: numba's isfinite is x - x == 0, which reordering breaks.)
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


def subroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that kernels call, and nothing else; it makes no arrays and returns none."""
    return _callable_by_kernels(function, counts_references=False)


def allocating_subroutine(function: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a function that kernels call, and nothing else; it makes arrays."""
    return _callable_by_kernels(function, counts_references=True)


def _callable_by_kernels(function: Callable[..., Any], *, counts_references: bool) -> Callable[..., Any]:
    """Make known to numba a function that needs no way in from Python.

    Where numba counts references, taking a row of an array costs as much as adding up a row of ten.
    """
    from numba.extending import register_jitable

    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": counts_references}
    return register_jitable(pipeline_class=compiler_of_subroutines(), **options)(function)


@dataclass(frozen=True)
class Signature:
    """Shapes and dtypes of a kernel's arrays, parsed from "(t,f),int(t)->(),(t,f)".

    Letters are sizes, the same letter the same size; digits are fixed sizes. "int" asks for int64 and
    "any" takes the array as it is; all others are float64. Every letter occurs among the inputs.
    """

    text: str

    @cached_property
    def _parsed(self) -> tuple[list[tuple[str, tuple[str, ...]]], ...]:
        sides = []
        for side in self.text.split("->"):
            found = []
            for part in side.replace(" ", "").rstrip(")").split("),"):
                kind, _, letters = part.partition("(")
                found.append((kind, tuple(s for s in letters.split(",") if s)))
            sides.append(found)
        return tuple(sides)

    @property
    def inputs(self) -> list[tuple[str, tuple[str, ...]]]:
        """Kind ("", "int" or "any") and sizes of each input."""
        return self._parsed[0]

    @property
    def outputs(self) -> list[tuple[str, ...]]:
        """Sizes of each output; all are float64."""
        return [sizes for _, sizes in self._parsed[1]]

    @property
    def letters(self) -> list[str]:
        """All sizes that vary, in order of appearance."""
        return list(dict.fromkeys(s for _, sizes in self.inputs for s in sizes if not s.isdigit()))

    def sizes(self, shapes: Sequence[Sequence[Any]]) -> dict[str, Any]:
        """Return the size behind each letter; sizes of None are not known.

        Raises
        ------
        ValueError
            If two inputs disagree.
        """
        known: dict[str, Any] = {}
        for (_, letters), shape in zip(self.inputs, shapes, strict=True):
            for letter, size in zip(letters, shape, strict=True):
                expected = int(letter) if letter.isdigit() else known.get(letter)
                if size is not None and expected is not None and size != expected:
                    raise ValueError(f"inputs {self.text} with shapes {list(shapes)}: sizes {letter} differ")
                if expected is None:
                    known[letter] = size
        return known


class MachineCode:
    """A kernel to be compiled, for arguments of given dtypes.

    Attributes
    ----------
    symbol : str
        Name of the cell that holds the function's address as soon as `ready` has returned.
    signature : Signature
    """

    def __init__(self, kernel: str, signature: str, dtypes: tuple[str, ...]):
        self.kernel, self.signature, self.dtypes = kernel, Signature(signature), dtypes
        version = crc32("".join([kernel, *dtypes, f"{fingerprint()}"]).encode())
        self.symbol = f"bayes_mtl{kernel.replace(':', '_')}_{version:08x}"
        self._cell = _cell(self.symbol)
        self._function: Any = None
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self, *inputs: Any) -> list[Any]:
        """Evaluate; inputs must have the dtypes that were compiled for."""
        self.ready()
        arrays = [np.require(x, requirements=["C", "A", "W"]) for x in inputs]
        sizes = self.signature.sizes([a.shape for a in arrays])
        shapes = [
            [int(s) if s.isdigit() else sizes[s] for s in letters] for letters in self.signature.outputs
        ]
        outputs = [np.empty(shape) for shape in shapes]
        call(self._cell.value or 0, [a if a.ndim else a[None] for a in (*arrays, *outputs)])
        return outputs

    @property
    def types(self) -> list[Any]:
        """The kernel's arguments; scalars are arrays of one."""
        from numba import from_dtype, types

        sizes = [sizes for _, sizes in self.signature.inputs] + self.signature.outputs
        kinds = [*self.dtypes, *["float64"] * len(self.signature.outputs)]
        return [
            types.Array(from_dtype(np.dtype(kind)), max(1, len(s)), "C")
            for kind, s in zip(kinds, sizes, strict=True)
        ]

    def begin(self) -> None:
        """Start to compile in another process, if nobody has compiled this before."""
        from pytensor import config
        from pytensor.link.numba.cache import NUMBA_CACHE_PATH

        if self._function or self._process or not (config.numba__cache and sys.executable):
            return
        if any(NUMBA_CACHE_PATH.glob(f"*{self.symbol}*.nbi")):
            return
        program = f"from bayes_mtl.kernels.compile import machine_code as m; m{self._arguments!r}.ready()"
        flags = os.environ.get("PYTENSOR_FLAGS", "")
        folder = f"base_compiledir={config.base_compiledir}"
        environment = {
            **os.environ,
            "PYTENSOR_FLAGS": f"{flags},{folder}" if flags else folder,
            "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path),
        }
        nowhere = subprocess.DEVNULL
        with contextlib.suppress(OSError):  # then `ready` does it all
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                env=environment,
                stdin=nowhere,
                stdout=nowhere,
                stderr=nowhere,
            )

    def ready(self) -> None:
        """Compile, or load what an earlier process or the other one compiled."""
        if self._function:
            return
        if self._process:
            self._process.wait()
            self._process = None
        with self._alone():
            self._function = self._compile()
        (compiled,) = self._function.overloads.values()
        own = own_address(self._function._cache, compiled.signature, for_c=False)
        name = compiled.fndesc.llvm_func_name
        self._cell.value = own or compiled.library.get_pointer_to_function(name)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let other processes that need the same kernel wait, and then read it."""
        from filelock import FileLock
        from pytensor import config
        from pytensor.link.numba.cache import NUMBA_CACHE_PATH

        with contextlib.ExitStack() as held:
            if config.numba__cache:
                # A folder without locks, or that may not be written to: each compiles by itself.
                with contextlib.suppress(OSError, NotImplementedError):
                    held.enter_context(FileLock(NUMBA_CACHE_PATH / f"{self.symbol}.lock"))
            yield

    @property
    def _arguments(self) -> tuple[Any, ...]:
        return self.kernel, self.signature.text, self.dtypes

    def _compile(self) -> Any:
        import numba
        from pytensor import config
        from pytensor.link.numba.cache import CACHED_SRC_FUNCTIONS

        source = load(self.kernel)
        # A function object of its own, since the key under which it is kept is that of a function.
        function = FunctionType(source.__code__, source.__globals__, source.__name__)
        CACHED_SRC_FUNCTIONS[function] = self.symbol
        options = {"fastmath": FASTMATH, "error_model": "numpy", "cache": config.numba__cache}
        no_way_in = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # it is called by its address
        return numba.njit(numba.void(*self.types), **options, **no_way_in)(function)


_cells: dict[str, ctypes.c_void_p] = {}  # keeps them: whatever is linked from now on holds their addresses


def _cell(symbol: str) -> ctypes.c_void_p:
    """Return the one place, known to the linker by this name, where a kernel's address will be."""
    import llvmlite.binding

    cell = _cells.setdefault(symbol, ctypes.c_void_p(None))
    llvmlite.binding.add_symbol(symbol, ctypes.addressof(cell))
    return cell


def load(kernel: str) -> Callable[..., Any]:
    """Import a function by its "module:function" name within this package."""
    module, function = kernel.split(":")
    return getattr(import_module(f"bayes_mtl.kernels.{module}"), function)


machine_code = cache(MachineCode)

_waiting: ContextVar[list[MachineCode] | None] = ContextVar("waiting", default=None)


@contextlib.contextmanager
def in_parallel() -> Iterator[None]:
    """Let graphs be compiled before the kernels that they call; all are ready at the end."""
    called: list[MachineCode] = []
    token = _waiting.set(called)
    try:
        yield
    finally:
        _waiting.reset(token)
    for code in called:
        code.ready()


def caller(code: MachineCode) -> Callable[..., Any]:
    """Return a function in the numba subset that calls the machine code on arrays."""
    waiting = _waiting.get()
    if waiting is None:
        code.ready()
    else:
        waiting.append(code)
    from pytensor.link.numba.cache import compile_numba_function_src

    sign = code.signature
    names = [f"x{i}" for i in range(len(sign.inputs))]
    lines = [f"def call({', '.join(names)}):"]
    wrong, known = [], set()
    for name, (_, sizes) in zip(names, sign.inputs, strict=True):
        for axis, size in enumerate(sizes):
            if size.isdigit() or size in known:
                wrong.append(f"{name}.shape[{axis}] != {_size(size)}")
            else:
                lines.append(f"    {_size(size)} = {name}.shape[{axis}]")
                known.add(size)
    if wrong:
        lines += [f"    if {' or '.join(wrong)}:", "        raise ValueError('sizes do not fit together')"]
    for name, (_, sizes) in zip(names, sign.inputs, strict=True):
        lines.append(
            f"    {name}c = ascontiguousarray({name})" if sizes else f"    {name}c = full(1, {name}.item())"
        )
    outputs = [f"y{i}" for i in range(len(sign.outputs))]
    for name, sizes in zip(outputs, sign.outputs, strict=True):
        lines.append(f"    {name} = empty(({''.join(_size(s) + ', ' for s in sizes or ('1',))}))")
    lines.append(f"    external({', '.join([*(f'{name}c' for name in names), *outputs])})")
    found = [
        name if sizes else f"asarray({name}[0])" for name, sizes in zip(outputs, sign.outputs, strict=True)
    ]
    lines.append(f"    return {', '.join(found)}")
    environment = {
        "__name__": __name__,
        "external": _external(code.symbol, code.types),
        **{name: getattr(np, name) for name in ("ascontiguousarray", "asarray", "empty", "full")},
    }
    return compile_numba_function_src("\n".join(lines), "call", environment)


def _external(symbol: str, arguments: list[Any]) -> Any:
    """Return a function in the numba subset that calls the kernel whose address is in a cell."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        pointer = context.call_conv.get_function_type(types.none, arguments).as_pointer()
        cell = builder.module.globals.get(symbol) or ir.GlobalVariable(builder.module, pointer, symbol)
        function = builder.load(cell)
        status, _ = context.call_conv.call_function(builder, function, types.none, arguments, values)
        with builder.if_then(status.is_error, likely=False):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    # numba wants every argument of an intrinsic to have a name.
    names = ", ".join(f"a{i}" for i in range(len(arguments)))
    found: dict[str, Any] = {"void": types.void, "generate": generate}
    exec(f"def external(typing_context, {names}): return void({names}), generate", found)
    return intrinsic(found["external"])


def _size(letter: str) -> str:
    return letter if letter.isdigit() else f"n_{letter}"


@cache
def fingerprint() -> int:
    """Return a number that changes with the kernels: machine code of an older version must not be reused."""
    files = sorted(f for f in Path(__file__).parent.glob("_[a-z]*.py") if f.name != "_jax.py")
    return crc32(b"".join(f.read_bytes() for f in [*files, Path(__file__)]))
