# A marimo notebook: `marimo edit examples/who_is_hurt.py`, or run it as a script.
# Needs `pip install 'bayes_mtl[examples]'`.
import marimo

app = marimo.App(width="medium")


@app.cell
def _():
    import os

    import marimo as mo
    import matplotlib as mpl
    import numpy as np

    import bayes_mtl as mtl

    if not os.environ.get("DISPLAY"):
        mpl.use("Agg")  # no screen: draw into a file
    # Fewer draws for a quick look at whether everything works; do not read anything from them.
    draws = int(os.environ.get("BAYES_MTL_EXAMPLE_DRAWS", "1000"))
    out = os.environ.get("BAYES_MTL_EXAMPLE_OUT", ".")
    return draws, mo, mtl, np, out


@app.cell
def _(mo):
    mo.md("""
    # Who is hurt by learning together?

    Ten clinics give a drug at several doses. In nine of them patients respond alike; the last mixed up its
    labels, so that everything works the other way round. Does learning together notice?
    """)
    return


@app.cell
def _(mtl, np):
    rng = np.random.default_rng(7)
    beta = np.array([0.5, 1.0, -0.8, 0.6]) + 0.1 * rng.normal(size=(10, 4))
    beta[9] *= -1
    clinic = np.repeat(np.arange(10), 50)
    X = rng.normal(size=(500, 3))
    y = beta[clinic, 0] + (X * beta[clinic, 1:]).sum(axis=1) + rng.normal(size=500)
    data = mtl.TaskData.from_arrays(
        X, y, [f"clinic {t}" for t in clinic], feature_names=["dose", "age", "weight"]
    )
    data
    return (data,)


@app.cell
def _(data, draws, mtl):
    spec = mtl.ModelSpec(feature_covariance=mtl.Diagonal())
    idata = mtl.fit(data, spec, draws=draws, tune=max(draws, 200), chains=2, random_seed=1, progressbar=False)
    spec
    return (idata,)


@app.cell
def _(idata, mtl):
    gain = mtl.transfer_gain(idata)
    mtl.plot_transfer_gain(gain)
    return (gain,)


@app.cell
def _(gain, mo):
    verdicts = gain["verdict"].to_series()
    print(verdicts.to_string())
    mo.md(gain.attrs["remedy"])
    return


@app.cell
def _(mo):
    mo.md("""
    The last clinic needs no help: with fifty rows of its own it is hardly pulled away from them. It is the
    others who pay, because the clinic makes the population look wide, and so they cannot lean on each other
    as they could. `StudentT` lets one clinic stand apart:
    """)
    return


@app.cell
def _(data, draws, idata, mtl, out):
    robust = mtl.fit(
        data,
        mtl.ModelSpec(task_covariance=mtl.StudentT(mtl.Exchangeable()), feature_covariance=mtl.Diagonal()),
        draws=draws,
        tune=max(draws, 200),
        chains=2,
        random_seed=1,
        progressbar=False,
    )
    table = mtl.compare({"one population": idata, "with outliers": robust})
    print(table.attrs["words"])
    print(mtl.report(robust, f"{out}/clinics.html", question="Which clinics respond alike?"))
    robust["posterior"]["task_reliability"].mean(("chain", "draw")).to_series()
    return


if __name__ == "__main__":
    app.run()
