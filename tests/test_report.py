"""The page is complete, stands alone, and looks right in a browser."""

import re
import shutil
import subprocess
import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import bayes_mtl as mtl
from bayes_mtl.report.words import data_in_code, model_equations

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
# Prints the widths of what sticks out, and the number of pictures that did not load.
PROBE = """<script>
addEventListener('load', () => {
  const outside = e => !e.closest('.table') && e.getBoundingClientRect().right > innerWidth + 1;
  const wide = [...document.querySelectorAll('body *')].filter(outside).map(e => e.tagName);
  const scroll = document.documentElement.scrollWidth > innerWidth;
  const broken = [...document.images].filter(i => !i.complete || !i.naturalWidth).length;
  document.title = `wide=${wide} scroll=${scroll} broken=${broken}`;
});
</script>"""


@pytest.fixture(scope="module")
def crossed_fit():
    """Tasks, one unlike the others, crossed with items that are related; and an idle feature."""
    rng = np.random.default_rng(0)
    task, item = (a.ravel() for a in np.meshgrid(np.arange(8), np.tile(np.arange(4), 5)))
    X, side = rng.standard_normal((len(task), 2)), np.array([1.5, 1.0, -1.0, -1.5])
    slope = np.array([1.0] * 7 + [-3.0])
    y = slope[task] * X[:, 0] + side[item] * (1.0 + X[:, 1]) + 0.5 * rng.standard_normal(len(task))
    frame = pd.DataFrame(
        {"task": task, "item": np.array(list("abcd"))[item], "y": y, "x": X[:, 0], "z": X[:, 1]}
    )
    groupings = {"item": ["Intercept", "z"]}
    data = mtl.TaskData.from_table(frame, task="task", outcome="y", features=["x", "z"], groupings=groupings)
    spec = mtl.ModelSpec(task_covariance=mtl.StudentT(), groupings={"item": mtl.LKJ()})
    return mtl.fit(data, spec, draws=2000, target_accept=0.95, random_seed=1, progressbar=False)


@pytest.fixture(scope="module")
def pages(request, sleepstudy_fit, binary_fit, related_fit, tmp_path_factory):
    fits = {"sleep": sleepstudy_fit, "binary": binary_fit[0], "related": related_fit[0]}
    if request.config.getoption("--runslow"):
        fits["crossed"] = request.getfixturevalue("crossed_fit")
    folder = tmp_path_factory.mktemp("report")
    plt.close("all")  # what other tests have left open
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mtl.errors.ConvergenceWarning)  # refits are short
        return {
            name: mtl.report(idata, folder / f"{name}.html", question="Who is <alike>?", max_refits=0)
            for name, idata in fits.items()
        }


def test_pages_stand_alone(pages):
    for path in pages.values():
        text = path.read_text(encoding="utf-8")
        assert path.stat().st_size < 5e6
        assert not re.search(r'(src|href)="(?!data:|#)', text)
        assert "Who is &lt;alike&gt;?" in text
        assert not plt.get_fignums()


def test_pages_say_what_was_found(pages, sleepstudy_fit, related_fit):
    sleep = pages["sleep"].read_text(encoding="utf-8")
    assert "180 rows of 18 tasks" in sleep
    assert "No problems found" in sleep
    assert "Which tasks" not in sleep
    assert "two more fits" in pages["binary"].read_text(encoding="utf-8")
    relations = mtl.task_correlation(related_fit[0])
    surest = relations.isel(pair=int(np.argmax(np.abs(relations["p_positive"].to_numpy() - 0.5))))
    assert f"{float(surest['mean']):.2f}" in pages["related"].read_text(encoding="utf-8")


@pytest.mark.slow
def test_page_of_crossed_factors(pages, crossed_fit):
    text = pages["crossed"].read_text(encoding="utf-8")
    assert "effects by item" in text
    assert "Intercept, z (4 levels)" in text
    assert "zᵢ′v[item(i)]" in text
    assert "<h2>What is added by each item</h2>" in text
    assert "<h3>How the levels of item relate</h3>" in text
    assert "<h3>Is a task unlike the others?</h3>" in text
    assert "which are taken as known here" in text
    assert "7: Try StudentT" not in text  # it is one already
    effect = float(crossed_fit["posterior"]["item_effects"].sel(item="a", item_feature="z").mean())
    assert f"{effect:.2f}" in text


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("width", [420, 1200])
def test_nothing_sticks_out_and_no_picture_is_broken(pages, width, tmp_path):
    for name, path in pages.items():
        copy = tmp_path / f"{name}{width}.html"
        copy.write_text(
            path.read_text(encoding="utf-8").replace("</head>", PROBE + "</head>"), encoding="utf-8"
        )
        flags = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking"
        done = subprocess.run(
            [
                *(CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
                *(f"--window-size={width},900", "--virtual-time-budget=5000", copy.as_uri()),
            ],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        title = re.search(r"<title>(.*?)</title>", done.stdout)
        assert title is not None, done.stdout[:500] + done.stderr[-500:]
        assert title.group(1) == "wide= scroll=false broken=0", name


def test_what_does_not_belong_is_refused_before_anything_is_computed(sleepstudy_fit, related_fit, tmp_path):
    audit = xr.Dataset({"verdict": ("task", ["fine"]), "n_rows": ("task", [3])}, {"task": [1]})
    for options, words in (
        ({"gain": audit}, "other tasks or rows"),
        ({"gain": mtl.pooling(sleepstudy_fit)}, "should be what transfer_gain returned"),
        ({"kind": "friends"}, "`?kind`?: should be one of structural"),
    ):
        with pytest.raises(mtl.errors.SpecError, match=words):
            mtl.report(sleepstudy_fit, tmp_path / "x.html", **options)
    with pytest.raises(mtl.errors.SpecError, match="folder that is not there"):
        mtl.report(sleepstudy_fit, tmp_path / "none" / "x.html")
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    ("structure", "options", "there", "not_there"),
    [
        (mtl.Exchangeable(), {}, "u_t ~ Normal(0, Σ)", "λ_t"),
        (mtl.StudentT(mtl.LKJ()), {}, "u_t / √λ_t,   Cov(u_t, u_s) = Ω_ts Σ", "×"),
        (mtl.LKJ(), {"task_sd": True}, "u_t × τ_t", "λ_t"),
        (mtl.NoPooling(), {}, "nothing is learned from other tasks", "R diag"),
        (mtl.Clusters(2), {}, "∑ₖ πₖ Normal(μ + mₖ, Σ)", "π_tk"),
        (mtl.Clusters(2, rank=1), {}, "Σₖ = D (R + FₖFₖ′) D", "π_tk"),
        (mtl.Clusters(2, gating={"a": 0.0, "b": 1.0}), {}, "π_tk ∝ πₖ exp(uₖ′g_t)", "Fₖ"),
        (mtl.OrthogonalGroups({"a": "p", "b": "q"}), {}, "task t of group g", "mₖ"),
        (mtl.Exchangeable(), {"feature_scales": mtl.R2D2M2()}, "R2D2M2, decided for all", "c times"),
        (mtl.LKJ(), {"priors": {"feature_sd_scale": 2.0}}, "c = 2 is common to x0", "learned"),
    ],
    ids=str,
)
def test_equations_are_those_of_the_model(structure, options, there, not_there):
    data = mtl.TaskData.from_arrays(np.arange(8.0)[:, None] ** 2, np.arange(8.0), list("aaaabbbb"))
    spec = mtl.ModelSpec(task_covariance=structure, **options)
    assert spec.findings(data) == []
    text = "\n".join(model_equations(spec, data))
    assert there in text
    assert not_there not in text


@pytest.mark.parametrize(
    "options",
    [
        {"task": "g", "outcome": "y", "features": ["x", "c"], "task_features": ["z"], "center": True},
        {"task": "g", "formula": "np.log(w) ~ 0 + x + c", "shared_features": ["c"], "weights": "w"},
        {"task": "g", "outcome": "a b", "features": ["x"], "groupings": {"it": ["Intercept", "x"]}},
        {"outcomes": ["y", "w"], "features": ["x", "c"], "offset": "x2", "noise": "w2"},
        {"task": "g", "outcome": "y", "features": ["x"], "intercept": False, "center": ["x"]},
        {"task": "g", "outcome": "same", "features": ["x"]},
    ],
    ids=str,
)
def test_the_call_that_reads_the_data_can_be_repeated(options):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.standard_normal((12, 6)), columns=["x", "x2", "y", "w", "w2", "a b"])
    table = (table - table.mean()) / table.std()  # outcomes on scales too unlike are warned of
    table[["w", "w2"]] = np.exp(0.5 * table[["w", "w2"]])
    table = table.assign(g=list("aabb") * 3, z=[1.0, 1, 2, 2] * 3, it=list("ccd") * 4, c=list("uuvvvv") * 2)
    table["same"] = (table.g == "a") & (table.x > 0)
    data = mtl.TaskData.from_table(table, **options)
    found = {"mtl": mtl, "table": table}
    exec(data_in_code(data), found)
    again = found["data"]
    assert again.schema == data.schema
    np.testing.assert_array_equal(again.full_matrix, data.full_matrix)
    np.testing.assert_array_equal(again.y, data.y)


def test_command_writes_the_page(sleepstudy_fit, tmp_path, capsys):
    from bayes_mtl.cli import main

    mtl.save(sleepstudy_fit, tmp_path / "fit.nc")
    assert main(["report", str(tmp_path / "fit.nc"), "--question", "Who sleeps badly?"]) == 0
    assert "Who sleeps badly?" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_data_and_description_show_themselves_in_notebooks(sleepstudy_case):
    assert "18 tasks" in sleepstudy_case.data._repr_html_()
    assert "LKJ(eta=2.0)" in sleepstudy_case.spec._repr_html_()
