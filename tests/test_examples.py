"""Every example runs from its first cell to its last."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, folder):
    settings = {"BAYES_MTL_EXAMPLE_DRAWS": "30", "BAYES_MTL_EXAMPLE_OUT": str(folder), "MPLBACKEND": "Agg"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | settings,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_schools(tmp_path):
    out = run("schools.py", tmp_path)
    assert "TaskData: 65 tasks ('school'), 4059 rows" in out
    assert "Median contraction" in out
    assert "school 1000:" in out
    assert (tmp_path / "schools_task_correlation.png").stat().st_size > 10_000


@pytest.mark.slow
def test_own_likelihood(tmp_path):
    out = run("own_likelihood.py", tmp_path)
    assert out.count("clinic_") == 12
    assert "slopes differ between clinics with sd" in out


@pytest.mark.slow
def test_which_structure(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("BAYES_MTL_EXAMPLE_DRAWS", "30")
    book = nbformat.read(EXAMPLES / "which_structure.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in book.cells)
    nbclient.NotebookClient(book, timeout=500, resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    shown = [output.data for output in outputs if "data" in output]
    assert "<table" in shown[0]["text/html"]
    assert sum("image/png" in found for found in shown) == 2
    assert "predict" in "".join(output.text for output in outputs if output.get("name") == "stdout")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.*")), ids=lambda path: path.name)
def test_every_example_is_run_here(path):
    text = Path(__file__).read_text(encoding="utf-8")
    assert f'run("{path.name}"' in text or f'EXAMPLES / "{path.name}"' in text


@pytest.mark.slow
def test_who_is_hurt(tmp_path):
    pytest.importorskip("marimo")
    out = run("who_is_hurt.py", tmp_path)
    assert "contradicts the others" in out
    assert "predicts rows of known tasks best" in out
    assert "Which clinics respond alike?" in (tmp_path / "clinics.html").read_text(encoding="utf-8")
