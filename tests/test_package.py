"""What importing costs, and what is public."""

from __future__ import annotations

import subprocess
import sys

import bayes_mtl as mtl


def test_import_is_light():
    """Slow libraries are loaded where they are used."""
    code = "import sys, bayes_mtl; print([m for m in ('numba', 'nutpie', 'arviz_stats', 'matplotlib', 'h5netcdf') if m in sys.modules])"  # fmt: skip  # noqa: E501
    found = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


def test_public_names_exist_and_are_documented():
    for name in mtl.__all__:
        assert getattr(mtl, name).__doc__, name
