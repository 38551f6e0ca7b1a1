"""No public function changes what belongs to the whole session."""

import gc
import os
import warnings

import matplotlib as mpl
import numba
import numpy as np
import pandas as pd
import pytest

import bayes_mtl as mtl
from bayes_mtl.collector import without_collections


def session():
    """Return what a function must leave as it is."""
    kind, keys, *others = np.random.get_state()  # noqa: NPY002
    return {
        "backend": mpl.get_backend(auto_select=False),
        "rcParams": {k: mpl.rcParams._get(k) for k in mpl.rcParams},
        "filters": list(warnings.filters),
        "numpy's seed": (kind, keys.tolist(), others),
        "numpy's errors": np.geterr(),
        "numba's threads": numba.get_num_threads(),
        "environment": dict(os.environ),
        "collector": (gc.isenabled(), gc.get_threshold()),
    }


def new_rows(idata):
    data = idata["constant_data"]
    columns = {str(f): data["X"].sel(feature=f).to_numpy()[:3] for f in data["feature"].to_numpy()[1:]}
    return pd.DataFrame(columns).assign(Subject=data["task"].to_numpy()[data["task_index"].to_numpy()[:3]])


CALLS = {
    "summary": lambda fit, _: mtl.summary(fit),
    "task_correlation": lambda fit, _: mtl.task_correlation(fit, "coefficients"),
    "pooling": lambda fit, _: mtl.pooling(fit),
    "transfer_gain": lambda fit, _: mtl.transfer_gain(fit),
    "leave_one_task_out": lambda fit, _: mtl.leave_one_task_out(fit),
    "gradient_conflict": lambda fit, _: mtl.gradient_conflict(fit),
    "compare": lambda fit, _: mtl.compare({"a": fit, "b": fit}),
    "predict": lambda fit, _: mtl.predict(fit, new_rows(fit)),
    "report": lambda fit, folder: mtl.report(fit, folder / "report.html"),
    "save": lambda fit, folder: mtl.load(mtl.save(fit, folder / "fit.nc")),
    "plot_task_correlation": lambda fit, _: mtl.plot_task_correlation(fit, "coefficients"),
    "plot_task_tree": lambda fit, _: mtl.plot_task_tree(fit, "coefficients"),
    "plot_task_network": lambda fit, _: mtl.plot_task_network(fit, "coefficients"),
    "plot_correlation_update": lambda fit, _: mtl.plot_correlation_update(
        fit, *fit["posterior"]["task"].to_numpy()[:2].tolist(), "coefficients"
    ),
    "plot_coefficients": lambda fit, _: mtl.plot_coefficients(fit),
    "plot_prior_posterior": lambda fit, _: mtl.plot_prior_posterior(fit, ["sigma"]),
    "plot_pooling": lambda fit, _: mtl.plot_pooling(fit),
    "task_fit": lambda fit, _: mtl.task_fit(fit),
    "plot_task_fit": lambda fit, _: mtl.plot_task_fit(fit),
    "plot_transfer_gain": lambda fit, _: mtl.plot_transfer_gain(fit),
}


@pytest.fixture(scope="module")
def few_draws(sleepstudy_fit):
    return sleepstudy_fit.isel(draw=slice(None, None, 20), missing_dims="ignore")


@pytest.fixture
def other_backend():
    """A backend that nothing here would choose."""
    import matplotlib.pyplot as plt

    before = mpl.get_backend()
    plt.close("all")
    mpl.use("svg")
    yield "svg"
    plt.close("all")
    mpl.use(before)


@pytest.mark.parametrize("function", CALLS)
def test_the_session_stays_as_it_was(function, few_draws, tmp_path, other_backend):
    before = session()
    CALLS[function](few_draws, tmp_path)
    after = session()
    assert after["backend"] == other_backend
    assert [key for key in before if before[key] != after[key]] == []


def test_a_fit_leaves_the_session_as_it_was(sleepstudy_case, other_backend):
    before = session()
    with pytest.warns(mtl.errors.ConvergenceWarning):
        mtl.fit(
            sleepstudy_case.data, sleepstudy_case.spec, draws=20, tune=50, chains=2, random_seed=1,
            progressbar=False,
        )  # fmt: skip
    after = session()
    assert [key for key in before if before[key] != after[key]] == []


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_as_it_was_even_after_an_error(enabled):
    @without_collections()
    @without_collections()
    def fail():
        raise ZeroDivisionError(gc.isenabled())

    (gc.enable if enabled else gc.disable)()
    try:
        with pytest.raises(ZeroDivisionError, match="False"):
            fail()
        assert gc.isenabled() == enabled
    finally:
        gc.enable()


def test_a_report_needs_no_pyplot_figures(few_draws, tmp_path):
    import matplotlib.pyplot as plt

    plt.close("all")
    mine = plt.figure()
    mtl.report(few_draws, tmp_path / "report.html")
    assert plt.get_fignums() == [mine.number]
    plt.close(mine)
