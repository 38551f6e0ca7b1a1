"""Kernels are compiled beside the graphs that call them, in other processes, or in this one if that fails."""

import os
import subprocess
import sys

import pytest

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
