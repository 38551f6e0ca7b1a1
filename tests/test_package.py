"""What importing costs, and what is public."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import bayes_mtl as mtl

ROOT = Path(__file__).parents[1]


def test_import_is_light():
    """Slow libraries are loaded where they are used."""
    code = "import sys, bayes_mtl; print([m for m in ('numba', 'nutpie', 'arviz_stats', 'matplotlib', 'h5netcdf') if m in sys.modules])"  # fmt: skip  # noqa: E501
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_public_names_exist_and_are_documented():
    for name in mtl.__all__:
        assert getattr(mtl, name).__doc__, name


@pytest.mark.parametrize("room", ["report", "plots", "summaries", "inference/row_correlation.py"])
def test_no_number_is_written_as_minus_zero(room):
    """`f"{-0.001:.2f}"` is "-0.00"; with `z` it is "0.00"."""
    assert (f"{-0.001:.2f}", f"{-0.001:z.2f}", f"{-0.001:+z.2f}") == ("-0.00", "0.00", "+0.00")
    place = ROOT / "bayes_mtl" / room
    for file in place.glob("*.py") if place.is_dir() else [place]:
        assert not re.findall(r":\+?\.\d[fg]\}", file.read_text()), file
