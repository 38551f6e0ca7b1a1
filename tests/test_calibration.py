"""A small part of `python -m tests.calibration`: true values rank uniformly among posterior draws."""

import pytest

from tests.calibration.sbc import calibrate


@pytest.mark.parametrize("structure", ["Tree"])
@pytest.mark.slow
def test_ranks_are_uniform(structure):
    found = calibrate(structure, "gaussian", replications=40, seed=1).p_values(bins=5)
    assert len(found) > 8
    assert min(found.values()) * len(found) > 1e-6, found
