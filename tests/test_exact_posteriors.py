"""Fits agree with posteriors that are known by quadrature: means within 6 MCSE, sds within 5 %."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.exact import CASES, compare, fit

REFERENCES = json.loads((Path(__file__).parent / "data" / "exact_posteriors.json").read_text())
QUICK = {("sleepstudy-lkj2", False), ("mtrl2_diabetes_by_sex_n40-lkj1", True)}


def assert_agrees(case, idata, reference):
    table = compare(case, idata, reference)
    assert set(reference) == set(case.parameters)
    right = (table["error_in_mcse"].abs() < 6) & ((table["sd_ratio"] - 1).abs() < 0.05)
    assert right.all(), table[~right].to_string()


@pytest.mark.parametrize(
    ("name", "marginal"),
    [
        pytest.param(name, marginal, marks=() if (name, marginal) in QUICK else pytest.mark.slow)
        for name in CASES
        for marginal in (True, False)
    ],
)
def test_agrees_with_quadrature(name, marginal):
    case = CASES[name]()
    idata = fit(case, marginal=marginal, seed=1)
    assert_agrees(case, idata, REFERENCES[name])


def test_shared_fit_agrees_with_quadrature(sleepstudy_case, sleepstudy_fit):
    """The same model integrated out, on the fit that the other tests use."""
    assert_agrees(sleepstudy_case, sleepstudy_fit, REFERENCES["sleepstudy-lkj2"])
