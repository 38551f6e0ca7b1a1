"""Kernels are compiled beside the graphs that call them, in other processes, or in this one if that fails."""

import ctypes
import gc
import importlib.util
import os
import subprocess
import sys
from threading import Thread

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

from bayes_mtl.kernels import product
from bayes_mtl.kernels._numba import own_address
from bayes_mtl.kernels.compile import MachineCode

BESIDE = """
import subprocess, sys
import numpy as np, pytensor, pytensor.tensor as pt
from bayes_mtl.kernels import in_parallel, product
from bayes_mtl.kernels.compile import MachineCode
from pytensor.link.numba.cache import NUMBA_CACHE_PATH

started = []
start = subprocess.Popen
subprocess.Popen = lambda *a, **k: started.append(start(*a, **k)) or started[-1]
a, b = pt.matrix(), pt.matrix()
out = product(a, b)
code = out.owner.op.machine_code(out.owner)
{setting}
with in_parallel():
    code.begin()
    call = pytensor.function([a, b], out, mode="NUMBA")
print(len(started), started[0].returncode if started else None)
assert any(NUMBA_CACHE_PATH.glob(f"*{{code.symbol}}*.nbi"))
x, y = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
np.testing.assert_array_equal(call(x, y), x @ y)
code.begin()  # nothing to do any more
print(len(started))
"""


@pytest.mark.parametrize(
    ("setting", "found"),
    [
        ("", "1 0\n1"),
        ("sys.executable = '/nowhere'", "0 None\n0"),
        ("sys.executable = '/bin/false'", "1 1\n1"),
    ],
    ids=["beside", "no Python to start", "fails"],
)
def test_a_kernel_is_compiled_whatever_becomes_of_the_other_process(setting, found, tmp_path):
    environment = os.environ | {"PYTENSOR_FLAGS": f"base_compiledir={tmp_path}"}
    program = [sys.executable, "-c", BESIDE.format(setting=setting)]
    run = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == found, run.stderr


def test_what_another_process_compiles_is_waited_for():
    matrices = ("float64", "float64")
    first, second = (MachineCode("_product:forward", "(n,m),(m,k)->(n,k)", matrices) for _ in range(2))
    with first._alone():
        waiting = Thread(target=second.ready)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive()
    waiting.join(60.0)
    x, y = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(second(x, y)[0], x @ y)


def test_code_that_is_linked_after_a_kernel_s_description_is_gone_calls_the_kernel():
    matrices = ("float64", "float64")
    for _ in range(2):
        MachineCode("_product:forward", "(n,m),(m,k)->(n,k)", matrices).ready()
    gc.collect()
    reused = [ctypes.c_void_p(1) for _ in range(10_000)]  # crashes whoever reads an address there
    a, b = pt.matrix(), pt.matrix()
    x, y = np.arange(6.0).reshape(2, 3), np.arange(12.0).reshape(3, 4)
    np.testing.assert_array_equal(pytensor.function([a, b], product(a, b), mode="NUMBA")(x, y), x @ y)
    del reused


CALLS_PYTHON = """
import math
import numba

@numba.njit
def factorial(x):
    with numba.objmode(out="float64"):
        out = float(math.factorial(int(x)))
    return out

@numba.cfunc("float64(float64)", cache=True)
def twice(x):
    return 2.0 * factorial(x)
"""


def test_code_from_disk_finds_the_objects_of_the_python_that_it_calls(tmp_path, monkeypatch):
    """As PyTensor's Cholesky decomposition does, on its first call."""
    compiled = calls_python(tmp_path, monkeypatch).twice
    address = own_address(compiled._cache, compiled._sig, for_c=True)
    assert address != compiled.address
    assert ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(address)(5.0) == 240.0


def test_code_that_another_process_has_stored_since_is_found_under_its_own_name(tmp_path, monkeypatch):
    first = calls_python(tmp_path, monkeypatch).twice
    for stored in (tmp_path / "__pycache__").glob("*.nb?"):
        stored.unlink()
    second = calls_python(tmp_path, monkeypatch).twice
    assert first._wrapper_name != second._wrapper_name
    address = own_address(first._cache, first._sig, for_c=True)
    assert ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(address)(5.0) == 240.0


def calls_python(folder, monkeypatch):
    path = folder / "calls_python.py"
    path.write_text(CALLS_PYTHON)
    os.utime(path, (0, 0))  # the same file whenever it is written: numba reads only code of a file as it is
    specification = importlib.util.spec_from_file_location("calls_python", path)
    module = importlib.util.module_from_spec(specification)
    monkeypatch.setitem(sys.modules, "calls_python", module)
    specification.loader.exec_module(module)
    return module
