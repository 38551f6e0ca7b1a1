"""The code in the documentation runs, with fewer draws."""

from __future__ import annotations

import re
import warnings
from functools import partial
from pathlib import Path

import pytest

import bayes_mtl as mtl

ROOT = Path(__file__).parents[1]


def blocks(path):
    return re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize(
    ("path", "count"),
    [
        ("docs/guide.md", None),
        pytest.param("docs/structures.md", None, marks=pytest.mark.slow),
        pytest.param("docs/features.md", None, marks=pytest.mark.slow),
        pytest.param("docs/relations.md", None, marks=pytest.mark.slow),
        pytest.param("README.md", 1, marks=pytest.mark.slow),
    ],
)
def test_code_runs(path, count, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mtl, "fit", partial(mtl.fit, draws=150, tune=300, chains=2, progressbar=False))
    namespace: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)
        for code in blocks(path)[:count]:
            exec(compile(code, path, "exec"), namespace)
    assert "idata" in namespace


def test_links_lead_somewhere():
    for page in (
        "README.md",
        "docs/guide.md",
        "docs/structures.md",
        "docs/features.md",
        "docs/relations.md",
        "docs/architecture.md",
        "docs/notation.md",
        "models/README.md",
    ):
        text = (ROOT / page).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            if not target.startswith("http"):
                assert ((ROOT / page).parent / target).exists(), f"{page}: {target}"


def test_promises_name_tests_that_are_there():
    promises = (ROOT / "docs" / "architecture.md").read_text().split("## What must never happen")[1]
    cells = [line.split("|")[2] for line in promises.split("\n## ")[0].splitlines() if "tests/" in line]
    assert len(cells) > 20
    for cell in cells:
        source = ""
        for named in re.findall(r"`([^`]+)`", cell):
            file, _, test = named.partition(": ")
            if file.startswith("tests/"):
                source = (ROOT / file).read_text()
            else:
                test = "" if file.startswith("--") else file
            assert f"def {test}" in source, named
