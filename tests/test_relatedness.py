"""What each structure says of its tasks, what it refuses, and that it finds what is there."""

import numpy as np
import pandas as pd
import pymc as pm
import pytensor
import pytensor.tensor as pt
import pytest
from scipy.linalg import hadamard

import bayes_mtl as mtl
from bayes_mtl.structures import TaskCovariance
from tests import contracts
from tests.fits import exact_rows
from tests.test_mixtures import MIXTURES
from tests.test_structures import STRUCTURES

# Chains are short.
pytestmark = pytest.mark.filterwarnings("ignore::bayes_mtl.errors.ConvergenceWarning")
TASKS = ["a", "b", "c", "d"]


def few_rows(tasks):
    """Return data with one row for each letter."""
    x = np.arange(float(len(tasks)))
    return mtl.TaskData.from_arrays(x[:, None], x**2, list(tasks))


def omega(structure, tasks=TASKS, **values):
    """Return Omega with the structure's free variables at the given values (the others at their start)."""
    with pm.Model() as model:
        law = structure.task_loadings(tasks, str)
        corr = pt.zeros((len(tasks), len(tasks)))
        if law.loadings is not None:
            corr = corr + law.loadings @ law.loadings.T
        if law.unique_sd is not None:
            corr = corr + pt.diag(law.unique_sd**2)
    given = [model[name] for name in values]
    function = pytensor.function(given, corr, mode=contracts.MODE, on_unused_input="ignore")
    return function(*values.values())


@pytest.mark.parametrize("name", [*STRUCTURES, *MIXTURES])
def test_descriptions_survive_a_trip(name):
    structure = (STRUCTURES | MIXTURES)[name]
    assert TaskCovariance.from_dict(structure.to_dict()) == structure
    spec = mtl.ModelSpec(task_covariance=structure)
    assert mtl.ModelSpec.from_toml(spec.to_toml()) == spec
    assert len({spec, mtl.ModelSpec.from_dict(spec.to_dict())}) == 1


class TestKernel:
    def test_of_a_matrix(self):
        K = pd.DataFrame(4 * np.eye(5) + 1.0, index=list("xdcba"), columns=list("xdcba"))
        K.loc["a", "b"] = K.loc["b", "a"] = 2.0
        expected = np.full((4, 4), 0.2) + 0.8 * np.eye(4)
        expected[0, 1] = expected[1, 0] = 0.4
        for rho in (0.0, 0.3, 1.0):
            found = omega(mtl.Kernel(K), rho=rho)
            np.testing.assert_allclose(found, rho * expected + (1 - rho) * np.eye(4), atol=1e-5)
        same = mtl.Kernel(K.to_numpy(), tasks=list("xdcba"))
        np.testing.assert_array_equal(omega(same, rho=0.5), omega(mtl.Kernel(K), rho=0.5))

    @pytest.mark.parametrize(
        ("shape", "at_one"),
        [
            ("exponential", np.exp(-1)),
            ("matern32", (1 + np.sqrt(3)) * np.exp(-np.sqrt(3))),
            ("matern52", (1 + np.sqrt(5) + 5 / 3) * np.exp(-np.sqrt(5))),
            ("gaussian", np.exp(-0.5)),
        ],
    )
    def test_of_positions(self, shape, at_one):
        positions = {"a": (0.0, 0.0), "b": (3.0, 4.0), "c": (0.0, 0.0), "d": (50.0, 0.0)}
        structure = mtl.Kernel(positions=positions, shape=shape)
        found = omega(structure, rho=1.0, lengthscale=5.0)
        assert found[0, 1] == pytest.approx(at_one, abs=1e-5)
        assert found[0, 2] == pytest.approx(1.0, abs=1e-5)
        assert found[0, 3] < 0.02
        fixed = mtl.Kernel(positions=pd.DataFrame(positions).T, shape=shape, lengthscale=5.0)
        np.testing.assert_allclose(omega(fixed, rho=1.0), found, atol=1e-12)
        assert fixed.parameters == ("rho",)
        assert structure.parameters == ("rho", "lengthscale")

    def test_what_it_refuses(self):
        eye = np.eye(2)
        for make, words in (
            (lambda: mtl.Kernel(), "either `matrix` or `positions`"),
            (lambda: mtl.Kernel(eye), "needs `tasks`"),
            (lambda: mtl.Kernel(eye, tasks=["a", "a"]), "more than once"),
            (lambda: mtl.Kernel(eye, tasks=["a"]), "one row per label"),
            (lambda: mtl.Kernel([[1.0, 2.0], [2.0, 1.0]], tasks=["a", "b"]), "eigenvalue -1"),
            (lambda: mtl.Kernel([[1.0, 0.1], [0.2, 1.0]], tasks=["a", "b"]), "0.1 and 0.2 for 'a', 'b'"),
            (lambda: mtl.Kernel([[0.0, 0.0], [0.0, 1.0]], tasks=["a", "b"]), "positive diagonal"),
            (lambda: mtl.Kernel([[1.0, np.nan], [np.nan, 1.0]], tasks=["a", "b"]), "finite"),
            (lambda: mtl.Kernel([["x", 1], [1, "y"]], tasks=["a", "b"]), "numbers only"),
            (lambda: mtl.Kernel(eye, tasks=["a", "b"], lengthscale=1.0), "no meaning with `matrix`"),
            (lambda: mtl.Kernel(positions={"a": 0.0, "b": 1.0}, shape="round"), "exponential, matern32"),
            (lambda: mtl.Kernel(positions={"a": 0.0, "b": 1.0}, lengthscale=-1), "positive number"),
            (lambda: mtl.Kernel(positions={"a": 0.0, "b": np.inf}), "finite"),
            (lambda: mtl.Kernel(positions={"a": 0.0, "b": 0.0}), "at one place"),
            (lambda: mtl.Kernel(positions=[0.0, 1.0]), "needs `tasks`"),
            (lambda: mtl.Kernel(positions={"a": 0.0, "b": 1.0}, columns=["x", "y"]), "each of 1 coordinates"),
            (lambda: mtl.Kernel(eye, tasks=["a", "b"], columns=["x"]), "no meaning with `matrix`"),
            (lambda: mtl.Kernel(positions=[0.0, 1.0], tasks=["a"]), "2 positions for 1 labels"),
        ):
            with pytest.raises(mtl.errors.SpecError, match=words):
                make()

    def test_from_a_table(self):
        frame = pd.DataFrame({"task": list("abab"), "x": [0.0, 1.0, 0.0, 1.0], "y": [2.0, 0.0, 2.0, 0.0]})
        found = mtl.Kernel.from_table(frame, task="task", columns=["x", "y"], lengthscale=2.0)
        given = {"positions": {"a": (0.0, 2.0), "b": (1.0, 0.0)}, "columns": ("x", "y"), "lengthscale": 2.0}
        assert found == mtl.Kernel(**given)
        assert TaskCovariance.from_dict(found.to_dict()) == found
        with pytest.raises(mtl.errors.SpecError, match="task 'b' in more than one place"):
            mtl.Kernel.from_table(frame.assign(x=[0.0, 1.0, 0.0, 2.0]), task="task", columns=["x"])

    def test_unknown_tasks_are_named_before_anything_is_built(self):
        data = few_rows("aabbcc")
        spec = mtl.ModelSpec(task_covariance=mtl.Kernel(positions={"a": 0, "b": 1, "z": 2}))
        with pytest.raises(mtl.errors.SpecError, match="does not know 1 of the tasks: 'c'"):
            mtl.build_model(spec, data)
        with (
            pm.Model(coords={"task": ["a", "c"], "feature": ["x"]}),
            pytest.raises(mtl.errors.SpecError, match="'c'"),
        ):
            mtl.task_coefficients("beta", task_covariance=spec.task_covariance)


class TestGraph:
    LINE = mtl.Graph({"a": ["b"], "b": ["c"], "d": []})

    def test_neighbours_are_alike(self):
        assert np.allclose(omega(self.LINE, rho=0.0), np.eye(4), atol=1e-5)
        half, all_of_it = omega(self.LINE, rho=0.5), omega(self.LINE, rho=1.0)
        assert half[0, 1] > half[0, 2] > 0.0
        np.testing.assert_allclose(all_of_it[:3, :3], 1.0, atol=1e-5)
        np.testing.assert_allclose(all_of_it[3], [0, 0, 0, 1], atol=1e-12)
        # The precision of Leroux's prior, scaled.
        precision = 0.5 * np.array([[1, -1, 0], [-1, 2, -1], [0, -1, 1]]) + 0.5 * np.eye(3)
        covariance = np.linalg.inv(precision)
        sd = np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(half[:3, :3], covariance / np.outer(sd, sd), atol=1e-5)

    def test_weights_and_labels(self):
        weights = pd.DataFrame(0.0, index=TASKS, columns=TASKS)
        weights.loc["a", "b"] = weights.loc["b", "a"] = weights.loc["b", "c"] = weights.loc["c", "b"] = 1.0
        np.testing.assert_allclose(omega(mtl.Graph(weights), rho=0.7), omega(self.LINE, rho=0.7))

    def test_what_it_refuses(self):
        for make, words in (
            (lambda: mtl.Graph(np.eye(2), tasks=["a", "b"]), "no neighbours at all"),
            (lambda: mtl.Graph([[0.0, -1.0], [-1.0, 0.0]], tasks=["a", "b"]), "negative, found -1"),
            (lambda: mtl.Graph({"a": "b"}), "list of its neighbours"),
        ):
            with pytest.raises(mtl.errors.SpecError, match=words):
                make()


class TestTree:
    TABLE = pd.DataFrame({"task": list("abcd"), "region": [1, 1, 1, 2], "town": [1, 1, 2, 1]})

    def test_shares_of_levels(self):
        tree = mtl.Tree.from_table(self.TABLE, task="task", levels=["region", "town"])
        found = omega(tree, level_share=np.array([0.5, 0.2, 0.3]))
        expected = np.eye(4)
        expected[0, 1] = expected[1, 0] = 0.7
        expected[:2, 2] = expected[2, :2] = 0.5
        np.testing.assert_allclose(found, expected, atol=1e-12)
        assert tree.levels == ("region", "town")
        assert TaskCovariance.from_dict(tree.to_dict()) == tree
        more = tree.with_tasks({"e": (1, 9), "f": (2, 1)})
        assert more.knows("e")
        assert not more.knows("region=1")
        np.testing.assert_allclose(
            omega(more, list("aedf"), level_share=np.array([0.5, 0.2, 0.3]))[[0, 2], [1, 3]], [0.5, 0.7]
        )

    def test_branches_of_unequal_length(self):
        tree = mtl.Tree({"a": "g", "b": "g", "g": "top", "c": "top", "d": "other"})
        found = omega(tree, level_share=np.array([0.5, 0.2, 0.3]))
        assert found[0, 1] == pytest.approx(0.7)
        assert found[0, 2] == pytest.approx(0.5)
        np.testing.assert_allclose(np.diag(found), 1.0)

    def test_what_it_refuses(self):
        for make, words in (
            (lambda: mtl.Tree({}), "map tasks and groups"),
            (lambda: mtl.Tree([("a", "g"), ("a", "h")]), "more than one parent for 'a'"),
            (lambda: mtl.Tree({"a": "b", "b": "a"}), "cycle"),
            (lambda: mtl.Tree({"a": "g"}, levels=["x", "y"]), "has 1 levels of groups, found 2 names"),
            (lambda: mtl.Tree({"a": "g"}, levels=["own"]), "none be 'own'"),
            (lambda: mtl.Tree({"a": "g", "g": None}), "missing parent"),
            (lambda: mtl.Tree({"a": b"group"}), "text or numbers"),
        ):
            with pytest.raises(mtl.errors.SpecError, match=words):
                make()
        crossed = pd.concat([self.TABLE, self.TABLE.assign(town=3)])
        with pytest.raises(mtl.errors.SpecError, match="task 'a' in more than one group"):
            mtl.Tree.from_table(crossed, task="task", levels=["region", "town"])
        with pytest.raises(mtl.errors.SpecError, match="'county'"):
            mtl.Tree.from_table(self.TABLE, task="task", levels=["county"])
        with pytest.raises(mtl.errors.SpecError, match="missing groups"):
            mtl.Tree.from_table(self.TABLE.assign(town=[1, None, 2, 1]), task="task", levels=["town"])
        data = few_rows("aagg")
        with pytest.raises(mtl.errors.SpecError, match="as groups of others"):
            mtl.build_model(mtl.ModelSpec(task_covariance=mtl.Tree({"a": "g", "g": "top"})), data)


def test_options_are_checked():
    for make, words in (
        (lambda: mtl.SparseBasis(0), "`n_basis` should be an integer of at least 1"),
        (lambda: mtl.SparseBasis(2, overlap=1), "`overlap` should be True or False, found 1"),
        (lambda: mtl.SparsePrecision(0), "`scale` should be a number above 0"),
        (lambda: mtl.StudentT(nu=0), "`nu`"),
        (lambda: mtl.StudentT(mtl.NoPooling()), "should be a structure under which tasks deviate"),
        (lambda: mtl.StudentT(mtl.Clusters(2)), "should be a structure under which tasks deviate"),
    ):
        with pytest.raises(mtl.errors.SpecError, match=words):
            make()
    data = few_rows("aabb")
    with pytest.raises(mtl.errors.SpecError, match="Use one of the two"):
        mtl.build_model(mtl.ModelSpec(task_covariance=mtl.StudentT(), task_sd=True), data)


# What they find.


def simulate(corr, n_rows=30, n_features=16):
    """Return data of tasks whose slopes have exactly these correlations across tasks, and the slopes."""
    white = hadamard(n_features)[1 : len(corr) + 1]
    beta = np.linalg.cholesky(np.asarray(corr) + 1e-9 * np.eye(len(corr))) @ white
    return described(np.column_stack([0.5 * np.ones(len(beta)), beta]), n_rows), beta


def described(beta, n_rows):
    """Return rows that say exactly this of the coefficients, the first of which are intercepts."""
    X, y, task = exact_rows(beta, n_rows)
    return mtl.TaskData.from_arrays(X, y, [f"t{i}" for i in task])


def fit(data, structure, draws=400, **options):
    spec = mtl.ModelSpec(task_covariance=structure, feature_covariance=mtl.Diagonal(), **options)
    return mtl.fit(data, spec, draws=draws, tune=400, chains=2, random_seed=1, progressbar=False)


@pytest.mark.slow
def test_relatedness_is_believed_where_it_is_there():
    near = np.exp(-np.abs(np.subtract.outer(np.arange(10), np.arange(10))) / 3.0)
    positions = {f"t{i}": float(i) for i in range(10)}
    structure = mtl.Kernel(positions=positions, shape="exponential", lengthscale=3.0)
    related = fit(simulate(near)[0], structure)["posterior"]["rho"]
    unrelated = fit(simulate(np.eye(10))[0], structure)["posterior"]["rho"]
    assert related.mean() > 0.7
    assert unrelated.mean() < 0.4


@pytest.mark.slow
def test_shares_of_levels_are_found():
    groups = np.repeat(np.arange(6), 4)
    tree = mtl.Tree({f"t{i}": f"g{g}" for i, g in enumerate(groups)})
    # Of each slope, seven tenths of the variance are between groups, and the rest in each of them.
    between, within = hadamard(8)[1:7, 1:7], hadamard(4)[1:]
    beta = np.sqrt(0.7) * between[groups] + np.sqrt(0.3) * np.tile(within[[0, 1, 2, 0, 1, 2]].T, (6, 1))
    share = fit(described(np.column_stack([np.full(24, 0.5), beta]), 20), tree)
    share = share["posterior"]["level_share"].sel(level="level 1")
    assert abs(float(share.mean()) - 0.7) < 2.0 * float(share.std())
    assert 0.5 < float(share.mean()) < 0.9


@pytest.mark.slow
def test_few_partial_correlations_are_found():
    precision = np.eye(4)
    precision[0, 1] = precision[1, 0] = -0.85
    covariance = np.linalg.inv(precision)
    sd = np.sqrt(np.diag(covariance))
    data, _ = simulate(covariance / np.outer(sd, sd), n_rows=60)
    idata = fit(data, mtl.SparsePrecision(), priors={"beta_mean": 0.0})
    found = mtl.task_correlation(idata, "partial").to_dataframe()
    found = found.set_index(["task_a", "task_b"])["mean"]
    assert found["t0", "t1"] > 0.5
    assert found.drop([("t0", "t1")]).abs().max() < 0.4


@pytest.mark.slow
def test_overlapping_groups_are_found():
    """Tasks 0-3 use one basis task, 6-9 another, 4 and 5 both."""
    weights = np.array([[1.0, 0.0]] * 4 + [[0.7, 0.7]] * 2 + [[0.0, 1.0]] * 4)
    corr = 0.95 * weights @ weights.T
    np.fill_diagonal(corr, 1.0)
    data, beta = simulate(corr, n_rows=40)
    # Deviations are from a known mean: an estimated one takes what all tasks have in common.
    idata = fit(data, mtl.SparseBasis(3), priors={"beta_mean": 0.0})
    found = mtl.task_correlation(idata)["mean"].to_numpy()
    unit = beta / np.linalg.norm(beta, axis=1, keepdims=True)
    realised = (unit @ unit.T)[np.triu_indices(10, k=1)]
    np.testing.assert_allclose(found, realised, atol=0.35)
    assert np.corrcoef(found, realised)[0, 1] > 0.95


@pytest.mark.slow
def test_disjoint_groups_are_found():
    """Tasks 0-4 are multiples of one basis task, with either sign, 5-9 of another: each loads on one."""
    group, sign = np.repeat([0, 1], 5), np.array([1, 1, -1, 1, -1] * 2)
    same = group[:, None] == group
    corr = np.where(same, 0.9, 0.0) * np.outer(sign, sign)
    np.fill_diagonal(corr, 1.0)
    data, _ = simulate(corr, n_rows=40)
    idata = fit(data, mtl.SparseBasis(2, overlap=False), draws=600, priors={"beta_mean": 0.0})
    found = mtl.basis(idata)
    overlap, off = found["overlap"].to_numpy(), ~np.eye(10, dtype=bool)
    assert overlap[same & off].min() > 0.9
    assert overlap[~same].max() < 0.2
    assert found["overlap_contraction"].to_numpy()[off].min() > 0.5
    assert found["belongs"].max("factor").min() > 0.95
    assert found.attrs["r_hat"] < 1.05
    loading = found["loading"].to_numpy()[np.arange(10), found["belongs"].argmax("factor")]
    for g in (0, 1):  # the sign is that of the group but for one sign of all
        assert abs((np.sign(loading) * sign)[group == g].sum()) == 5
    assert np.abs(loading).min() > 0.7


@pytest.mark.slow
def test_an_outlier_is_left_alone():
    """It is shrunk less, and pulls the others less, than under exchangeable tasks."""
    signs = hadamard(16)[:12]
    beta = 1.0 + 0.2 * signs[:, 1:6]
    beta[0] = [0.5, -6.0, 7.0, -5.0, 6.0]
    # Least squares are off by one standard error each.
    data = mtl.TaskData.from_arrays(*exact_rows(beta + signs[:, 6:11] / np.sqrt(8), 8))
    fits = [fit(data, structure) for structure in (mtl.StudentT(), mtl.Exchangeable())]
    robust, plain = (idata["posterior"] for idata in fits)
    reliability = robust["task_reliability"].mean(("chain", "draw")).to_numpy()
    assert reliability[0] < 0.3
    assert reliability[1:].min() > 0.6

    def error(posterior, tasks):
        mean = posterior["beta"].mean(("chain", "draw")).to_numpy()[:, 1:]
        return np.sqrt(((mean - beta[:, 1:])[tasks] ** 2).mean())

    assert error(robust, slice(1, None)) < error(plain, slice(1, None))
    new = pd.DataFrame({"x0": [1.0] * 3, "x1": 0.0, "x2": 0.0, "x3": 0.0, "task": [90, 91, 91]})
    drawn = mtl.predict(fits[0], new, new_tasks="population", random_seed=1)["predictions"]["y"].to_numpy()
    assert not np.allclose(drawn[..., 0], drawn[..., 1])
    np.testing.assert_array_equal(drawn[..., 1], drawn[..., 2])
