"""Machine code that does not depend on what else a process has compiled; knows numba's insides.

numba loads all that it compiles into one engine, where functions that two pieces of code have both built in
(anything that is not inlined) are symbols of which the first one loaded serves both. They mean the same, but
are optimised within what they were compiled with, so that they round differently: draws of one seed were not
those of the next process, which found the code on disk, nor those of a process that had fitted another model
before. Code is therefore taken from disk, as it was compiled, into an engine of its own.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from bayes_mtl._typing import FloatArray

_NOTHING = -2  # numba's status of a function that returns None


def own_address(stored: Any, signature: Any, *, for_c: bool) -> int | None:
    """Load one function from numba's files into an engine of its own.

    Its symbol is read from the file as well: another process may have stored its own code under the same key
    since this one did, with other symbols.

    Parameters
    ----------
    stored : numba.core.caching.FunctionCache
        Where the dispatcher or the C function that was compiled is kept.
    signature : numba.core.typing.Signature
        The arguments that it was compiled for.
    for_c : bool
        Whether C calls the function, or code of numba.

    Returns
    -------
    int or None
        Its address; None if nothing is on disk.
    """
    from numba.core.registry import cpu_target

    if not hasattr(stored, "_cache_file"):
        return None
    key = stored._index_key(signature, cpu_target.target_context.codegen())
    found = stored._cache_file.load(key)
    if found is None:
        return None
    (_, kind, (machine_code, _)), description, environment, *_, others = found
    assert kind == "object"
    engine = _engine(machine_code)
    for each in (environment, *others):
        _set_environment(engine, each)
    name = description.llvm_cfunc_wrapper_name if for_c else description.llvm_func_name
    address = int(engine.get_function_address(name))
    assert address
    return address


def _set_environment(engine: Any, environment: Any) -> None:
    """Point code that calls Python to its objects, as numba does in its own engine."""
    if address := engine.get_global_value_address(environment.env_name):
        ctypes.c_void_p.from_address(address).value = id(environment)
        _ENVIRONMENTS.append(environment)


_ENVIRONMENTS: list[Any] = []  # keeps them: machine code holds addresses


@cache  # keeps it: machine code lives as long as its engine
def _engine(machine_code: bytes) -> Any:
    import llvmlite.binding as llvm

    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(machine_code))
    engine.finalize_object()
    return engine


@cache
def compiler_of_subroutines() -> Any:
    """Return a compiler for functions that are built into others and are never run by themselves.

    numba optimises a function and makes machine code of it, and does so again with every function that it is
    built into. What is only built in needs neither.
    """
    from numba.core.codegen import JITCodeLibrary
    from numba.core.compiler import Compiler

    class NoEnvironments:
        def set_env(self, env_name: str, env: Any) -> None:
            """Nothing: there is no machine code to hold the address."""

    class Subroutine(JITCodeLibrary):
        codegen = NoEnvironments()

        def _optimize_final_module(self) -> None:
            pass

        def _finalize_final_module(self) -> None:
            self._finalize_dynamic_globals()
            self._finalized = True

        def get_pointer_to_function(self, name: str) -> int:
            self._ensure_finalized()
            return 0

    class CompilerOfSubroutines(Compiler):
        def _compile_core(self) -> Any:
            self.state.library = Subroutine(self.state.targetctx.codegen(), self.state.func_id.func_qualname)
            return super()._compile_core()

    return CompilerOfSubroutines


def call(address: int, arrays: list[FloatArray]) -> None:
    """Call a compiled function of C-ordered arrays that returns nothing, by numba's calling convention.

    An array goes as (meminfo, parent, size, itemsize, data, *shape, *strides); before the arrays stand two
    places for a result and an error.
    """
    result, error = ctypes.c_void_p(), ctypes.c_void_p()
    arguments: list[Any] = [ctypes.byref(result), ctypes.byref(error)]
    for array in arrays:
        arguments += [None, None, ctypes.c_int64(array.size), ctypes.c_int64(array.itemsize)]
        arguments += [ctypes.c_void_p(array.ctypes.data)]
        arguments += [ctypes.c_int64(n) for n in (*array.shape, *array.strides)]
    status = ctypes.CFUNCTYPE(ctypes.c_int32)(address)(*arguments)
    if status not in (0, _NOTHING):
        raise RuntimeError(f"A compiled function failed with status {status}.")
