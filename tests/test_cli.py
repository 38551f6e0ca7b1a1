import json
import os
import re
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl import cli
from bayes_mtl.cli import main
from bayes_mtl.errors import DataWarning
from bayes_mtl.recipes import Recipe, load_recipe
from bayes_mtl.report.answers import (
    data_added,
    most_probable_sign,
    relations_of,
    short_number,
    shorten,
    surest_pairs,
    what_data_added,
)
from bayes_mtl.report.by_structure import answers, pairs_of_tasks
from bayes_mtl.summaries.contraction import contraction

RECIPE = """
title = "Five sites"
question = "Do the sites respond alike?"

[data]
path = "not_there.csv"

[tasks]
task = "site"
formula = "y ~ x"

[model]
task_covariance = { name = "LowRank", rank = 1 }
independent_features = []

[fit]
draws = 2000
chains = 2

[relations]
kind = "coefficients"
"""

COMMAND = "import sys; from bayes_mtl.cli import main; sys.exit(main())"  # what the installed script does


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """One fit through the command line: the folder it was run in, and what it printed."""
    folder = tmp_path_factory.mktemp("cli")
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"site": np.repeat(["001", "002", "003", "north", "south"], 12)})
    table["x"] = rng.standard_normal(len(table))
    slope = np.repeat([1.0, 1.0, 1.0, -1.0, -1.0], 12)
    table["y"] = 5 * slope + slope * table["x"] + 0.5 * rng.standard_normal(len(table))
    table.to_csv(folder / "table.csv", index=False)
    (folder / "sites.toml").write_text(RECIPE, encoding="utf-8")
    where = {"--data": folder / "table.csv", "--out": folder / "deep" / "out"}
    sampling = {"--draws": 60, "--tune": 80, "--chains": 2, "--seed": 1}
    arguments = [str(part) for pair in (where | sampling).items() for part in pair]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, "fit", str(folder / "sites.toml"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "COLUMNS": "200"},
    )
    return folder, done


def test_fit_answers_in_order(tiny):
    _, done = tiny
    assert done.returncode == 0, done.stderr
    order = [
        "Five sites",
        "Do the sites respond alike?",
        "TaskData: 5 tasks ('site'), 60 rows",
        "beta_mean[Intercept]",
        "How the tasks relate",
        "median contraction",
        "across 2 coefficients only",
        "Positive correlations",
        "Negative correlations",
        "Can the draws be trusted?",
        "2 chains x 60 draws",
        "Written",
        "bayes-mtl predict",
    ]
    at = [done.stdout.find(text) for text in order]
    assert -1 not in at, order[at.index(-1)]
    assert at == sorted(at)


def test_only_our_own_warnings_are_shown(tiny):
    _, done = tiny
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert lines[0].startswith("Compiling the model")
    assert any(line.startswith("warning: the draws should not be trusted yet") for line in lines)
    assert "Warning" not in done.stderr
    assert "Traceback" not in done.stderr


def test_files_of_a_fit(tiny):
    out = tiny[0] / "deep" / "out"
    assert sorted(p.name for p in out.iterdir()) == [
        "fit.nc",
        "summary.csv",
        "task_coefficients.csv",
        "task_coefficients.png",
        "task_correlation.csv",
        "task_correlation.png",
    ]
    idata = mtl.load(out / "fit.nc")
    assert dict(idata["posterior"].sizes)["draw"] == 60
    expected = mtl.task_correlation(idata, kind="coefficients").to_dataframe()
    pairs = pd.read_csv(out / "task_correlation.csv", dtype={"task_a": str, "task_b": str})
    assert len(pairs) == 10
    np.testing.assert_allclose(pairs["mean"], expected["mean"])
    assert "beta_mean[Intercept]" in pd.read_csv(out / "summary.csv", index_col="parameter").index
    assert (out / "task_correlation.png").read_bytes().startswith(b"\x89PNG")


def test_the_tables_of_pairs_show_the_two_groups(tiny):
    idata = mtl.load(tiny[0] / "deep" / "out" / "fit.nc")
    relations = mtl.task_correlation(idata, kind="coefficients")
    negative = surest_pairs(relations, positive=False)
    assert set(negative["other task"]) == {"north", "south"}
    positive = surest_pairs(relations, positive=True, limit=3)
    assert len(positive) == 3
    assert {"001", "002", "003"} >= set(positive["task"]) - {"north"}


def test_predict_round_trip(tiny, tmp_path, capsys):
    fit = tiny[0] / "deep" / "out" / "fit.nc"
    rows = tmp_path / "rows.csv"
    rows.write_text("site,x\n001,0.5\nsouth,-1\n", encoding="utf-8")
    assert main(["predict", str(fit), str(rows), "--out", str(tmp_path / "p.csv")]) == 0
    assert "2 rows, expected outcome 'y'" in capsys.readouterr().out
    found = pd.read_csv(tmp_path / "p.csv", dtype={"task": str})
    new_rows = {"site": ["001", "south"], "x": [0.5, -1.0]}
    expected = mtl.predict(mtl.load(fit), new_rows)["predictions"]["y"].mean(("chain", "draw"))
    np.testing.assert_allclose(found["mean"], expected)
    assert found["task"].tolist() == ["001", "south"]
    assert (found["lower"] < found["mean"]).all()
    assert (found["mean"] < found["upper"]).all()

    assert main(["predict", str(fit), str(rows), "--kind", "response", "--seed", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "row,task,mean,sd,lower,upper"
    assert float(lines[1].split(",")[3]) > found["sd"][0]


def test_a_new_task_is_an_error_unless_asked_for(tiny, tmp_path, capsys):
    fit = tiny[0] / "deep" / "out" / "fit.nc"
    rows = tmp_path / "rows.csv"
    rows.write_text("site,x\nwest,0.5\n", encoding="utf-8")
    assert main(["predict", str(fit), str(rows)]) == 2
    assert "'west'" in capsys.readouterr().err
    assert main(["predict", str(fit), str(rows), "--new-tasks", "population", "--seed", "1"]) == 0
    assert ",west," in capsys.readouterr().out


def test_what_is_shown_where_there_are_no_relations(tiny, tmp_path, capsys):
    idata = mtl.load(tiny[0] / "deep" / "out" / "fit.nc")
    recipe = load_recipe("eight_schools")
    for covariance, reason in (
        (mtl.Exchangeable(), "learns no correlations"),
        (mtl.CompletePooling(), "same coef"),
    ):
        spec = mtl.ModelSpec(task_covariance=covariance)
        other = xr.DataTree.from_dict({"posterior": idata["posterior"].to_dataset()})
        other.attrs = {**idata.attrs, "bayes_mtl_spec": _json(spec)}
        relations, text = relations_of(other, recipe.relations)
        assert relations is None
        assert reason in text
        (answer,) = answers(other, recipe.relations)
        files = cli._show(answer, tmp_path)
        assert list(files) == ["task_coefficients.csv", "task_coefficients.png"]
        assert "north Intercept" in capsys.readouterr().out
        assert len(pd.read_csv(tmp_path / "task_coefficients.csv")) == 10
    # A kind that a model cannot have is a sentence, not a failure.
    spec = mtl.ModelSpec(task_covariance=mtl.LowRank(1))
    idata.attrs["bayes_mtl_spec"] = _json(spec)
    asked = Recipe.from_dict({**recipe.to_dict(), "relations": {"kind": "coefficients"}}, name="x")
    relations, text = relations_of(idata, asked.relations)
    assert relations is None
    assert "needs two features that vary" in text


def _json(spec):
    return json.dumps(spec.to_dict())


def test_what_the_data_added_depends_on_the_kind():
    values = {
        "contraction": ("pair", [0.02, np.nan, 0.04]),
        **{name: ("pair", [0.1, 0.1, 0.1]) for name in ("mean", "prior_mean", "prior_sd")},
    }
    for kind, replicates, words in (
        ("structural", 3, "stays uncertain however many rows"),
        ("coefficients", 2, "same (opposite) direction"),
        ("structural", 40, "across 40 coefficients."),
        ("functions", 200, "over 200 rows"),
    ):
        text = what_data_added(xr.Dataset(values, attrs={"kind": kind, "n_replicates": replicates}))
        assert "added next to nothing: the median contraction" in text
        assert "is 3%" in text
        assert "1 pairs have no contraction" in text
        assert words in text


def one_pair(prior, posterior, p_positive=0.6):
    """Return the summary of one pair, given means and standard deviations."""
    found = contraction(posterior[1], prior[1], least=0.02).item()
    names = ("prior_mean", "prior_sd", "mean", "sd", "contraction", "p_positive", "lower", "upper")
    values = (*prior, *posterior, found, p_positive, -0.9, 0.9)
    return xr.Dataset(
        {name: ("pair", [value]) for name, value in zip(names, values, strict=True)},
        coords={"task_a": ("pair", ["Ann"]), "task_b": ("pair", ["Bob"])},
        attrs={"kind": "functions", "n_replicates": 9, "ci_prob": 0.9},
    )


def test_words_follow_the_numbers_where_the_prior_moves():
    moved = one_pair((0.83, 0.10), (0.01, 0.104))
    assert data_added(moved) == "moved"
    assert "prior means is 0.83, of the posterior means 0.01" in what_data_added(moved)
    wider = what_data_added(one_pair((0.95, 0.10), (0.2, 0.227)))
    assert "-415% (wider)" in wider
    assert "Ann and Bob went from 0.95 ± 0.10 to 0.20 ± 0.23" in wider
    stated = what_data_added(one_pair((0.99, 0.001), (0.2, 0.2)))
    assert "no contraction to report" in stated
    assert "%" not in stated
    assert data_added(one_pair((0.1, 0.3), (0.12, 0.29))) == "nothing"


def test_of_signs_that_no_pair_has_none_is_the_most_probable():
    def words(p):
        return most_probable_sign(one_pair((0.9, 0.1), (0.9, 0.1), p_positive=p), positive=False)

    assert words(1.0) == "No correlation is negative with a probability of 90%."
    assert words(0.8).endswith("is that of Ann and Bob, with a probability of 20%.")


def test_a_sign_in_doubt_is_not_listed_as_sure():
    doubtful = one_pair((0.0, 0.5), (-0.14, 0.5), p_positive=0.4)
    assert surest_pairs(doubtful, positive=False).empty
    answer = pairs_of_tasks(doubtful)
    assert answer.tables == []
    assert "No correlation is negative with a probability of 90%" in answer.text[-1]
    assert "Ann and Bob, with a probability of 60%" in answer.text[-1]
    sure = one_pair((0.0, 0.5), (-0.6, 0.1), p_positive=0.002)
    assert surest_pairs(sure, positive=False)["contraction"].tolist() == ["96%"]


def test_long_parameters_are_shortened():
    table = pd.DataFrame(
        {"mean": range(8)}, index=[*(f"sigma[{i}]" for i in range(5)), "rho", "sd[a]", "sd[b]"]
    )
    shown, hidden = shorten(table, limit=2)
    assert list(shown.index) == ["sigma[0]", "sigma[1]", "rho", "sd[a]", "sd[b]"]
    assert hidden == {"sigma": 3}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1234.5, "1234"),
        (12.345, "12.3"),
        (-0.12345, "-0.123"),
        (1e-5, "1.00e-05"),
        (np.nan, "nan"),
    ],
)
def test_short_numbers(value, text):
    assert short_number(value) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "school"], "Did you mean schools?"),
        (["fit", "none.toml"], "there is no such file"),
        (["fit", "eight_schools", "--data", "none.csv"], "there is no such file"),
        (["fit", "eight_schools", "--draws", "0"], "draws: should be an integer of at least 1"),
        (["fit", "eight_schools", "--seed", "-1"], "random_seed"),
        (["predict", "none.nc", "none.csv"], "there is no such file"),
    ],
)
def test_what_is_wrong_is_said_with_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("bayes-mtl: error: ")
    assert message in err


def test_a_table_that_does_not_fit_the_recipe(tmp_path, capsys):
    (tmp_path / "table.csv").write_text("school,effect\nA,1\nB,2\n", encoding="utf-8")
    out = tmp_path / "out"
    code = main(["fit", "eight_schools", "--data", str(tmp_path / "table.csv"), "--out", str(out)])
    assert code == 2
    assert "'standard_error': is not in the table" in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_that_cannot_be_made_is_said_before_the_fit(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["fit", "eight_schools", "--out", str(tmp_path / "file")]) == 2
    assert "file" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["cook"], ["fit"], ["fit", "schools", "--draws", "many"]])
def test_a_wrong_option_is_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: bayes-mtl" in capsys.readouterr().err


def test_version_help_and_recipes(capsys):
    for argument, text in (("--version", mtl.__version__), ("--help", "predict")):
        with pytest.raises(SystemExit) as caught:
            main([argument])
        assert caught.value.code == 0
        assert text in capsys.readouterr().out
    assert main(["recipes"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"schools +Inner London schools", out)
    assert "per_user_spam" in out


def test_demo_fits_the_schools(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(cli, "fit_recipe", lambda recipe, folder: asked.append((recipe.name, folder)))
    assert main(["demo", "--out", str(tmp_path)]) == 0
    assert asked == [("schools", tmp_path)]


def test_an_interrupt_is_not_a_traceback(monkeypatch, capsys):
    def interrupted(recipe, folder):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "fit_recipe", interrupted)
    assert main(["demo"]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_data_warnings_are_sentences(monkeypatch, capsys):
    def warn(recipe, folder):
        warnings.warn("0 lies far outside", DataWarning, stacklevel=1)
        warnings.warn("deep inside a library", DeprecationWarning, stacklevel=1)

    monkeypatch.setattr(cli, "fit_recipe", warn)
    assert main(["demo"]) == 0
    assert capsys.readouterr().err == "warning: 0 lies far outside\n"
