"""An interrupt stops soon, and what was sampled stays."""

import sys

import numpy as np
import pytest

import bayes_mtl as mtl
from bayes_mtl.errors import ConvergenceWarning
from bayes_mtl.summaries import refit

# Functions of the same name hide these modules.
fitting, compare = (sys.modules[f"bayes_mtl.{name}"] for name in ("inference.fit", "summaries.compare"))


# So few draws cannot be trusted, and are not.
pytestmark = pytest.mark.filterwarnings("ignore::bayes_mtl.errors.ConvergenceWarning")


def interrupted_once(monkeypatch, module, name, times=1):
    """Make a function of a module be interrupted the first times that it is called."""
    original, left = getattr(module, name), [times]

    def function(*args, **options):
        if left[0]:
            left[0] -= 1
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(module, name, function)


def quick(case, **options):
    return mtl.fit(
        case.data, case.spec, draws=150, tune=100, chains=2, random_seed=1, progressbar=False, **options
    )


@pytest.fixture(scope="module")
def whole(sleepstudy_case):
    return quick(sleepstudy_case)


@pytest.mark.parametrize(
    ("module", "name", "missing"),
    [
        (fitting, "coefficients", {"log_likelihood", "log_prior", "posterior_predictive"}),
        (fitting, "diagnose", {"log_likelihood", "log_prior", "posterior_predictive"}),
        (fitting.of_rows, "log_likelihood", {"log_likelihood", "log_prior", "posterior_predictive"}),
        (fitting, "log_prior", {"log_prior", "posterior_predictive"}),
        (fitting.of_rows, "posterior_predictive", {"posterior_predictive"}),
    ],
)
def test_an_interrupt_after_sampling_keeps_every_draw(
    module, name, missing, sleepstudy_case, whole, monkeypatch
):
    interrupted_once(monkeypatch, module, name)
    with pytest.warns(ConvergenceWarning, match=f"Interrupted after sampling.*{max(missing)}"):
        found = quick(sleepstudy_case)
    assert set(whole.children) - set(found.children) == missing
    for variable in whole["posterior"].data_vars:
        np.testing.assert_array_equal(found["posterior"][variable], whole["posterior"][variable])
    assert not found.attrs["complete"]
    assert mtl.summary(found).diagnosis.draws == 150


def test_a_second_interrupt_keeps_some_draws_and_a_third_one_is_obeyed(sleepstudy_case, whole, monkeypatch):
    interrupted_once(monkeypatch, fitting, "coefficients", times=2)
    with pytest.warns(ConvergenceWarning, match="100 of 150 draws of each chain are kept"):
        found = quick(sleepstudy_case)
    assert dict(found["posterior"].sizes)["draw"] == found["sample_stats"].sizes["draw"] == 100
    at = np.unique(np.linspace(0, 149, 100).astype(int))
    np.testing.assert_array_equal(found["posterior"]["sigma"], whole["posterior"]["sigma"][:, at])
    interrupted_once(monkeypatch, fitting, "coefficients", times=3)
    with pytest.raises(KeyboardInterrupt):
        quick(sleepstudy_case)


@pytest.mark.parametrize("name", ["prior_draws", "sampling_model", "density_graph"])
def test_an_interrupt_before_sampling_stops(name, sleepstudy_case, monkeypatch):
    interrupted_once(monkeypatch, fitting, name)
    with pytest.raises(KeyboardInterrupt):
        quick(sleepstudy_case)


def test_an_interrupted_refit_does_not_pass_for_a_whole_one(sleepstudy_case, monkeypatch):
    interrupted_once(monkeypatch, fitting, "diagnose")
    with pytest.raises(KeyboardInterrupt, match="in a refit"):
        refit.quick_fit(sleepstudy_case.data, sleepstudy_case.spec, draws=50, tune=50, random_seed=1)


def test_structures_that_were_fitted_before_an_interrupt_are_compared(sleepstudy_case, monkeypatch):
    data, structures = sleepstudy_case.data, (mtl.CompletePooling(), mtl.Exchangeable(), mtl.NoPooling())
    original, calls = compare.fit, []

    def fit(*args, **options):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args, **options)

    monkeypatch.setattr(compare, "fit", fit)
    with pytest.warns(ConvergenceWarning, match=r"Interrupted: not fitted are NoPooling\(\)"):
        table, fits = mtl.choose_structure(
            data, structures=structures, draws=150, tune=150, progressbar=False
        )
    assert set(fits) == set(table.index) == {"CompletePooling()", "Exchangeable()"}
