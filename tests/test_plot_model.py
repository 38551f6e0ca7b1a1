"""The picture of a model shows what it consists of."""

import matplotlib.pyplot as plt
import numpy as np
import pymc as pm
import pytest

import bayes_mtl as mtl
from bayes_mtl.plots.model import model_parents


def data():
    rng = np.random.default_rng(0)
    task = np.repeat(list("abcdef"), 5)
    return mtl.TaskData.from_arrays(rng.normal(size=(30, 2)), rng.normal(size=30), task)


def test_hyperparameters_lead_to_the_outcome_through_the_coefficients():
    model = mtl.build_model(mtl.ModelSpec(task_covariance=mtl.LowRank(1)), data(), marginal=False)
    parents = model_parents(model)
    assert parents["y"] == ["sigma", "beta"]
    relation = {"task_corr", "task_loadings", "task_unique_sd"}
    assert set(parents["beta"]) == {"beta_mean", "feature_sd", "feature_corr", *relation}
    assert all(parents[name] == ["task_loadings_scale"] for name in relation)
    assert not [name for name in parents if name.endswith(("_offset", "_partial")) or name == "X"]


def test_without_coefficients_they_lead_there_directly():
    parents = model_parents(mtl.build_model(mtl.ModelSpec(), data()))
    assert set(parents.pop("y")) == {"beta_mean", "feature_sd", "feature_corr", "sigma"} == parents.keys()
    assert not any(parents.values())


def test_a_model_of_your_own():
    with pm.Model(coords={"task": list("ab"), "feature": ["x"]}) as model:
        scale = pm.HalfNormal("scale")
        beta = mtl.task_coefficients("beta", task_covariance=mtl.Exchangeable(), dims=("task", "feature"))
        pm.Normal("y", beta[[0, 1, 1], 0], scale, observed=[0.0, 1.0, 2.0])
    parents = model_parents(model)
    assert parents["y"] == ["scale", "beta"]
    assert any(name.endswith("feature_sd") for name in parents["beta"])


@pytest.mark.parametrize("structure", [mtl.Exchangeable(), mtl.Clusters(2), mtl.StudentT()], ids=str)
def test_every_variable_is_in_the_picture_once_and_above_what_depends_on_it(structure):
    model = mtl.build_model(mtl.ModelSpec(task_covariance=structure), data(), marginal=False)
    ax = mtl.plot_model(model)
    height = {text.get_text().split("\n")[0]: text.get_position()[1] for text in ax.texts if text.get_text()}
    parents = model_parents(model)
    assert height.keys() == parents.keys()
    assert all(height[p] > height[name] for name, above in parents.items() for p in above)
    assert any("task (6) × feature (3)" in text.get_text() for text in ax.texts)
    plt.close("all")


def test_what_is_not_a_model_is_refused():
    for odd, words in ((mtl.ModelSpec(), "found ModelSpec"), (pm.Model(), "no variables")):
        with pytest.raises(mtl.errors.SpecError, match=words):
            mtl.plot_model(odd)


def test_a_variable_that_reaches_another_on_two_ways_has_both_arrows():
    with pm.Model() as model:
        s = pm.HalfNormal("s")
        b = pm.Normal("b", 0.0, s)
        pm.Normal("y", b, s, observed=1.0)
    assert model_parents(model)["y"] == ["s", "b"]
