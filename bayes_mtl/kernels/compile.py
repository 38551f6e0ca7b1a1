"""How a kernel becomes machine code: compiled once per machine, called by its address from anywhere.

numba builds whatever a function calls into the function itself, and optimises all of it again in every
process that compiles a new caller. A kernel is therefore compiled by itself, to a C function that numba
keeps on disk; a graph that uses it holds only its name.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

# A reduction may be reordered; NaN and infinity keep their meaning, since kernels check for them. (They
# check by abs(x) < inf: numba's isfinite is x - x == 0, which reordering breaks.)
FASTMATH = {"reassoc", "contract", "arcp", "nsz"}


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


@dataclass(frozen=True)
class MachineCode:
    """A compiled kernel: the name under which graphs find it, and a way to call it from Python."""

    symbol: str
    signature: Signature
    function: Any
    external: Any

    def __call__(self, *inputs: Any) -> list[Any]:
        """Evaluate; inputs must have the dtypes that were compiled for."""
        arrays = [np.asarray(x, order="C") for x in inputs]
        sizes = self.signature.sizes([a.shape for a in arrays])
        shapes = [
            [int(s) if s.isdigit() else sizes[s] for s in letters] for letters in self.signature.outputs
        ]
        outputs = [np.empty(shape) for shape in shapes]
        at = [ctypes.c_void_p(a.ctypes.data) for a in [*arrays, *outputs]]
        self.function.ctypes(*at, *(sizes[letter] for letter in self.signature.letters))
        return outputs


def load(kernel: str) -> Callable[..., Any]:
    """Import a function by its "module:function" name within this package."""
    module, function = kernel.split(":")
    return getattr(import_module(f"bayes_mtl.kernels.{module}"), function)


@cache
def machine_code(kernel: str, signature: str, dtypes: tuple[str, ...]) -> MachineCode:
    """Compile a kernel, or find what an earlier process compiled."""
    import llvmlite.binding
    import numba
    from numba import types
    from pytensor import config
    from pytensor.link.numba.cache import compile_numba_function_src

    sign = Signature(signature)
    names = [f"x{i}" for i in range(len(sign.inputs))]
    outputs = [f"y{i}" for i in range(len(sign.outputs))]
    kinds = [*dtypes, *["float64"] * len(outputs)]
    lines = [f"def entry({', '.join([*names, *outputs, *map(_size, sign.letters)])}):"]
    all_sizes = [sizes for _, sizes in sign.inputs] + sign.outputs
    for name, sizes, kind in zip([*names, *outputs], all_sizes, kinds, strict=True):
        shape = ", ".join(map(_size, sizes)) or "1"  # a scalar output is written as an array of one
        lines.append(f"    {name}a = carray({name}, ({shape},), dtype={kind})")
    lines.append(f"    kernel({', '.join(f'{name}a' for name in [*names, *outputs])})")
    version = crc32("".join([*lines, *dtypes, signature, f"{fingerprint()}"]).encode())
    symbol = f"bayes_mtl{kernel.replace(':', '_')}_{version:08x}"
    environment = {
        "__name__": __name__,
        "carray": numba.carray,
        "kernel": numba.njit(fastmath=FASTMATH, no_cpython_wrapper=True, no_cfunc_wrapper=True)(load(kernel)),
        **{kind: getattr(np, kind) for kind in kinds},
    }
    entry = compile_numba_function_src("\n".join(lines), "entry", environment, cache_key=symbol)
    arguments = [types.voidptr] * len(all_sizes) + [types.intp] * len(sign.letters)
    prototype = types.void(*arguments)
    function = numba.cfunc(prototype, cache=config.numba__cache)(entry)
    llvmlite.binding.add_symbol(symbol, function.address)
    return MachineCode(symbol, sign, function, types.ExternalFunction(symbol, prototype))


def caller(code: MachineCode) -> Callable[..., Any]:
    """Return a function in the numba subset that calls the machine code on arrays."""
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
        lines.append(f"    {name}c = ascontiguousarray({name})" if sizes else f"    {name}c = {name}")
    for i, sizes in enumerate(sign.outputs):
        lines.append(f"    y{i} = empty(({''.join(_size(s) + ', ' for s in sizes)}))")
    pointers = [f"{name}c.ctypes" for name in names] + [f"y{i}.ctypes" for i in range(len(sign.outputs))]
    lines.append(f"    external({', '.join([*pointers, *map(_size, sign.letters)])})")
    lines.append(f"    return {', '.join(f'y{i}' for i in range(len(sign.outputs)))}")
    environment = {
        "__name__": __name__,
        "external": code.external,
        "empty": np.empty,
        "ascontiguousarray": np.ascontiguousarray,
    }
    return compile_numba_function_src("\n".join(lines), "call", environment)


def _size(letter: str) -> str:
    return letter if letter.isdigit() else f"n_{letter}"


@cache
def fingerprint() -> int:
    """Return a number that changes with the kernels: machine code of an older version must not be reused."""
    files = sorted(f for f in Path(__file__).parent.glob("_[a-z]*.py") if f.name != "_jax.py")
    return crc32(b"".join(f.read_bytes() for f in [*files, Path(__file__)]))
