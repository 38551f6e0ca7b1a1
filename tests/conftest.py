"""Options of the test run, and the fixtures that all tests have."""

import gc
import os

# Each of the processes that share the cores computes on one: before NumPy is loaded, which reads it once.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

# Graphs are built and rewritten a sixth faster if their nodes do not remember the line that made them.
os.environ["PYTENSOR_FLAGS"] = f"traceback__limit=0,{os.environ.get('PYTENSOR_FLAGS', '')}".rstrip(",")

settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=int(os.environ.get("HYPOTHESIS_MAX_EXAMPLES", "40")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("shifted", settings.get_profile("repeatable"), derandomize=False)
settings.load_profile("repeatable")

pytest_plugins = ["tests.fits"]


def pytest_addoption(parser):
    parser.addoption("--runslow", action="store_true", default=False, help="also run the tests marked slow")
    parser.addoption(
        "--seed-shift",
        type=int,
        default=0,
        metavar="N",
        help="shift every seed of data, draws and hypothesis: a test that passes by the luck of one seed "
        "fails for another N",
    )


@pytest.hookimpl(tryfirst=True)  # before hypothesis reads its own option
def pytest_configure(config):
    shift = config.getoption("--seed-shift")
    if shift:
        settings.load_profile("shifted")
        config.option.hypothesis_seed = str(shift)
        np.random.default_rng = _shifted(np.random.default_rng, shift)
        np.random.SeedSequence = _shifted_sequence(np.random.SeedSequence, shift)


def _shifted(default_rng, shift):
    """Return a `default_rng` of other streams; the tests and the package make their random numbers by it."""
    return lambda seed=None: default_rng(_other(seed, shift))


def _shifted_sequence(sequence, shift):
    """Return a `SeedSequence` of other streams; PyMC makes its random numbers by it."""

    class Shifted(sequence):
        def __init__(self, entropy=None, **options):
            super().__init__(_other(entropy, shift), **options)

    return Shifted


def _other(seed, shift):
    integer = isinstance(seed, int | np.integer) and not isinstance(seed, bool) and seed >= 0
    return [int(seed), shift] if integer else seed


@pytest.fixture(autouse=True, scope="module")
def _little_to_collect():
    """Look once per file for what can be collected, and never again at what stays."""
    gc.set_threshold(100_000, 50, 50)
    yield
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config, items):
    if config.getoption("--runslow"):
        return
    skip = pytest.mark.skip(reason="a long check: run it with --runslow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)
