"""What every structure must satisfy, as functions: a new structure is right when these pass.

Densities are evaluated without compilation to machine code. Points are dictionaries from the names of
a model's value variables (the unconstrained ones) to arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
import pymc as pm
import pytensor
import pytensor.tensor as pt
from pytensor.compile.mode import Mode
from pytensor.graph.traversal import ancestors
from scipy.stats import multivariate_normal, norm

import bayes_mtl as mtl
from bayes_mtl.model import sampling_model
from bayes_mtl.structures import TaskCovariance

MODE = Mode(
    linker="py", optimizer=None
)  # the graph as it was written: nothing to compile, nothing to rewrite
# What other hyperparameters are drawn from: the data say of it what they say of those.
HYPERPRIORS = ("nu_part_log__", "concentration_log__", "feature_sd_scale_log__")
REPORTED = (
    "beta",
    "beta_mean",
    "beta_shared",
    "task_feature_effects",
    "feature_sd",
    "feature_sd_scale",
    "feature_corr",
    "feature_loadings",
    "task_corr",
    "task_loadings",
    "task_unique_sd",
    "task_sd",
    "task_reliability",
    "feature_relevance",
    "feature_share",
    "feature_shrinkage",
    "beta_specific",
    "r2",
    "variance_share",
    "sigma",
    "sigma_mean",
    "sigma_spread",
    "rho",
    "lengthscale",
    "level_share",
    "nu",
)


class Evaluator:
    """A model at points: log density, gradient, data term, reported values; each compiled when asked for."""

    def __init__(self, model: pm.Model):
        self.model = model
        self.names = [v.name for v in model.value_vars]
        self.start = {k: np.asarray(v, dtype=float) for k, v in model.initial_point().items()}
        self._terms = dict(zip(model.basic_RVs, model.logp(vars=model.basic_RVs, sum=False), strict=True))
        potentials = [t.sum() for t in model.replace_rvs_by_values(model.potentials)]
        self._logp = pt.add(*[t.sum() for t in self._terms.values()], *potentials)
        self.reported = [name for name in REPORTED if name in model.named_vars]
        self._functions: dict[Hashable, Any] = {}

    def _call(self, key: Hashable, outputs: Callable[[], list[Any]], point: dict[str, Any]) -> list[Any]:
        """Evaluate outputs; they are compiled when they are first asked for."""
        if key not in self._functions:
            options = {"mode": MODE, "on_unused_input": "ignore"}
            self._functions[key] = pytensor.function(self.model.value_vars, outputs(), **options)
        return self._functions[key](*(np.asarray(point[name], dtype=float) for name in self.names))

    def logp(self, point: dict[str, Any]) -> float:
        return float(self._call("logp", lambda: [self._logp], point)[0])

    def data_term(self, point: dict[str, Any]) -> float:
        return float(self._call("data term", lambda: [self._terms[self.model["y"]].sum()], point)[0])

    def values(self, point: dict[str, Any]) -> dict[str, np.ndarray]:
        def outputs() -> list[Any]:
            return self.model.replace_rvs_by_values([self.model[name] for name in self.reported])

        return dict(zip(self.reported, self._call("values", outputs, point), strict=True))

    def gradient(self, point: dict[str, Any], names: list[str] | None = None) -> dict[str, np.ndarray]:
        names = self.names if names is None else names

        def outputs() -> list[Any]:
            by_name = {v.name: v for v in self.model.value_vars}
            return pytensor.grad(self._logp, [by_name[name] for name in names])

        return dict(zip(names, self._call(("gradient", *names), outputs, point), strict=True))

    def random_point(self, rng: np.random.Generator, size: float = 0.5) -> dict[str, np.ndarray]:
        """Return the start, moved at random."""
        return {k: np.array(v + size * rng.standard_normal(v.shape)) for k, v in self.start.items()}


def assert_close(found: float, expected: float, tolerance: float = 1e-8) -> None:
    """Equal to `tolerance`, relative to the size of the number where that exceeds one."""
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def assert_task_covariance_is_a_correlation(structure: TaskCovariance, n_tasks: int, seed: int = 0) -> None:
    """Omega = Lambda Lambda' + diag(delta^2) is PSD with unit diagonal whatever the free variables."""
    with pm.Model() as model:
        law = structure.task_loadings([f"t{i}" for i in range(n_tasks)], str)
        corr = pt.zeros((n_tasks, n_tasks))
        if law.loadings is not None:
            corr = corr + law.loadings @ law.loadings.T
        if law.unique_sd is not None:
            corr = corr + pt.diag(law.unique_sd**2)
    free = model.value_vars
    values = model.replace_rvs_by_values([corr])
    function = pytensor.function(free, values, mode=MODE, on_unused_input="ignore")
    rng = np.random.default_rng(seed)
    start = model.initial_point()
    for size in (0.1, 1.0, 3.0, 10.0):
        draw = function(*(start[v.name] + size * rng.standard_normal(np.shape(start[v.name])) for v in free))[
            0
        ]
        assert draw.shape == (n_tasks, n_tasks)
        np.testing.assert_allclose(np.diag(draw), 1.0, rtol=0, atol=1e-12)
        np.testing.assert_allclose(draw, draw.T, rtol=0, atol=1e-15)
        assert np.linalg.eigvalsh(draw).min() > -1e-12


def assert_every_free_variable_is_an_ancestor_of_the_data(model: pm.Model) -> None:
    """No hyperparameter is left that the likelihood does not read."""
    reached = set(ancestors(model.observed_RVs))
    unreached = [v.name for v in model.free_RVs if v not in reached]
    assert not unreached, f"not connected to the data: {unreached}"


def assert_every_element_moves_the_data_term(
    evaluator: Evaluator, point: dict[str, Any], *, except_for: tuple[str, ...] = HYPERPRIORS
) -> None:
    """The likelihood not only mentions each element of each free variable: it changes with it."""
    before = evaluator.data_term(point)
    for name, value in point.items():
        if name in except_for:
            continue
        for index in np.ndindex(value.shape):
            moved = value.copy()
            moved[index] += 0.5
            after = evaluator.data_term({**point, name: moved})
            assert abs(after - before) > 1e-9, f"{name}{list(index)} does not move the likelihood"


def assert_finite_at_the_start(evaluator: Evaluator) -> None:
    """A sampler can begin."""
    assert np.isfinite(evaluator.logp(evaluator.start))
    for name, gradient in evaluator.gradient(evaluator.start).items():
        assert np.isfinite(gradient).all(), name


def assert_gradient_is_the_slope(
    evaluator: Evaluator, point: dict[str, Any], rng: np.random.Generator
) -> None:
    """The gradient agrees with central differences (extrapolated to fourth order) in a random direction."""
    direction = {k: rng.standard_normal(np.shape(v)) for k, v in point.items()}
    length = np.sqrt(sum(np.sum(d**2) for d in direction.values()))
    direction = {k: d / length for k, d in direction.items()}

    def slope(h: float) -> float:
        ahead = evaluator.logp({k: v + h * direction[k] for k, v in point.items()})
        behind = evaluator.logp({k: v - h * direction[k] for k, v in point.items()})
        return (ahead - behind) / (2 * h)

    numeric = (4 * slope(5e-4) - slope(1e-3)) / 3
    gradient = evaluator.gradient(point)
    exact = float(sum(np.sum(gradient[k] * direction[k]) for k in point))
    size = np.sqrt(sum(np.sum(g**2) for g in gradient.values()))
    np.testing.assert_allclose(numeric, exact, rtol=0, atol=1e-7 * max(1.0, size))


def task_scale(values: dict[str, np.ndarray], n_tasks: int) -> np.ndarray:
    """How far each task may deviate."""
    return values.get("task_sd", np.ones(n_tasks)) / np.sqrt(values.get("task_reliability", np.ones(n_tasks)))


def dense_log_density(spec: mtl.ModelSpec, data: mtl.TaskData, values: dict[str, np.ndarray]) -> float:
    """log p(y | hyperparameters) of all rows at once, from what the model reports and nothing else."""
    T, P = data.n_tasks, data.n_features
    inside = np.array([f not in spec.outside(data.features) for f in data.features], dtype=bool)
    both = np.outer(inside, inside).astype(float)
    neither = np.outer(~inside, ~inside).astype(float)
    sd = values.get("feature_sd", np.zeros(P))
    Sigma = np.outer(sd, sd) * values.get("feature_corr", np.eye(P))
    scale = task_scale(values, T)
    Omega = np.outer(scale, scale) * values.get("task_corr", np.eye(T))
    # Cov(beta_tp, beta_sq), axes t, p, s, q.
    cov = np.einsum("ts,pq->tpsq", Omega, both * Sigma) + np.einsum("ts,pq->tpsq", np.eye(T), neither * Sigma)
    mean = np.broadcast_to(values.get("beta_mean", np.zeros(P)), (T, P))
    if "task_feature_effects" in values:
        mean = mean + data.task_features @ values["task_feature_effects"].T
    if "beta_specific" in values:
        candidate = np.isin(data.features, spec.candidates(data))
        mean = mean + values["beta_specific"] @ np.eye(P)[candidate]
    task = data.task_index
    eta = (data.X * mean[task]).sum(axis=1) + data.offset
    if "beta_shared" in values:
        eta = eta + data.X_shared @ values["beta_shared"]
    cov_eta = np.einsum("np,npmq,mq->nm", data.X, cov[task][:, :, task], data.X)
    noise = np.broadcast_to(values["sigma"], (T,))[task] if data.noise is None else data.noise
    return float(multivariate_normal(eta, cov_eta + np.diag(noise**2 / data.weights)).logpdf(data.y))


def integrated_log_density(latent: Evaluator, point: dict[str, Any], offsets: list[str]) -> float:
    """Integrate the `offsets` out of a log density that is quadratic in them, exactly.

    Its gradient g is linear in them, so that column i of the precision is g(0) - g(e_i).
    """
    shapes = {name: latent.start[name].shape for name in offsets}
    size = sum(int(np.prod(s)) for s in shapes.values())

    def at(z: np.ndarray) -> dict[str, Any]:
        full, used = dict(point), 0
        for name, shape in shapes.items():
            n = int(np.prod(shape))
            full[name] = z[used : used + n].reshape(shape)
            used += n
        return full

    middle = latent.logp(at(np.zeros(size)))
    if not size:
        return middle

    def slope(z: np.ndarray) -> np.ndarray:
        return np.concatenate([np.ravel(g) for g in latent.gradient(at(z), offsets).values()])

    gradient = slope(np.zeros(size))
    precision = np.array([gradient - slope(e) for e in np.eye(size)])
    # The value is the one whose gradient this is.
    z = np.cos(np.arange(size))
    assert_close(latent.logp(at(z)), middle + gradient @ z - z @ precision @ z / 2, 1e-9)
    assert np.linalg.eigvalsh(precision).min() > 0
    _, log_det = np.linalg.slogdet(precision)
    return (
        middle
        + 0.5 * gradient @ np.linalg.solve(precision, gradient)
        + 0.5 * (size * np.log(2 * np.pi) - log_det)
    )


def assert_collapsed_equals_latent(collapsed: Evaluator, latent: Evaluator, point: dict[str, Any]) -> None:
    """Integrating the coefficients out of the latent model gives the collapsed one, priors and all."""
    offsets = [name for name in latent.names if name not in collapsed.names]
    assert set(offsets) <= {"beta_offset__", "basis_offset"}
    assert_close(collapsed.logp(point), integrated_log_density(latent, point, offsets))


def with_natural_noise(evaluator: Evaluator, point: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """Replace the sampler's coordinates of noise scales of tasks by those of `build_model`.

    log sigma_mean = a + b z and log sigma_t = a_t + b_t z_t given the spread, where sigma_spread k_t is
    log sigma_t - log sigma_mean. The second part is log d(log sigma_mean, k) / dz, of b prod(b_t / spread).
    """
    if "log_sigma_offset" not in point:
        return point, 0.0
    rest = {k: v for k, v in point.items() if k not in ("log_sigma_mean_offset", "log_sigma_offset")}
    here, log_jacobian = evaluator.values(point), 0.0
    log_mean, spread = np.log(here["sigma_mean"]), here["sigma_spread"]
    moved = evaluator.values({**point, "log_sigma_offset": point["log_sigma_offset"] + 1.0})
    log_jacobian += float(np.log(np.log(moved["sigma"] / here["sigma"]) / spread).sum())
    if "log_sigma_mean_offset" in point:
        moved = evaluator.values({**point, "log_sigma_mean_offset": point["log_sigma_mean_offset"] + 1.0})
        log_jacobian += float(np.log(np.log(moved["sigma_mean"]) - log_mean))
        rest["sigma_mean_log__"] = log_mean
    return rest | {"sigma_offset": (np.log(here["sigma"]) - log_mean) / spread}, log_jacobian


def assert_sampling_models_are_the_latent_one(
    spec: mtl.ModelSpec, data: mtl.TaskData, latent: Evaluator, rng: np.random.Generator
) -> None:
    """What `fit` samples is the same posterior: with the population integrated out, and whitened."""
    collapsed = Evaluator(sampling_model(spec, data, collapsed=True, rows=data.pseudo_rows).model)
    whitened = Evaluator(sampling_model(spec, data, collapsed=False, rows=data.pseudo_rows).model)
    point = collapsed.random_point(rng)
    natural, log_jacobian = with_natural_noise(collapsed, point)
    integrated = [name for name in latent.names if name not in natural]
    population = ("beta_mean", "beta_shared", "task_feature_effects", "beta_specific")
    assert all(n.startswith(population) for n in integrated if n not in ("beta_offset__", "basis_offset"))
    expected = integrated_log_density(latent, natural, integrated) + log_jacobian
    assert_close(collapsed.logp(point), expected, 1e-7)
    # Whitened with what the rows say exactly, the coefficients are standard normal.
    z = {name: rng.standard_normal(v.shape) for name, v in whitened.start.items() if name not in point}
    assert set(z) == {"common_offset", "task_offset"}
    standard = sum(norm.logpdf(v).sum() for v in z.values())
    assert_close(whitened.logp(point | z), collapsed.logp(point) + standard, 1e-7)


def assert_latent_law_is_the_reported_one(
    spec: mtl.ModelSpec, data: mtl.TaskData, latent: Evaluator, rng: np.random.Generator
) -> None:
    """Given the hyperparameters, beta is an affine map of standard normals with the reported covariance."""
    point = latent.random_point(rng)
    offsets = [n for n in latent.names if n in ("beta_offset__", "basis_offset")]
    zero = {**point, **{n: np.zeros_like(point[n]) for n in offsets}}
    at_zero = latent.values(zero)
    columns = []
    for name in offsets:
        for index in np.ndindex(point[name].shape):
            unit = np.zeros_like(point[name])
            unit[index] = 1.0
            columns.append((latent.values({**zero, name: unit})["beta"] - at_zero["beta"]).ravel())
    T, P = data.n_tasks, data.n_features
    found = np.array(columns).T @ np.array(columns) if columns else np.zeros((T * P, T * P))
    inside = np.array([f not in spec.outside(data.features) for f in data.features], dtype=float)
    sd = at_zero.get("feature_sd", np.zeros(P))
    Sigma = np.outer(sd, sd) * at_zero.get("feature_corr", np.eye(P))
    scale = task_scale(at_zero, T)
    Omega = np.outer(scale, scale) * at_zero.get("task_corr", np.eye(T))
    expected = np.kron(Omega, np.outer(inside, inside) * Sigma) + np.kron(
        np.eye(T), np.outer(1 - inside, 1 - inside) * Sigma
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-10 * max(1.0, np.abs(expected).max()))


def partials_of(corr: np.ndarray) -> np.ndarray:
    """Return the partial correlations r_ij | 0..j-1 of a correlation matrix, row by row."""
    n = len(corr)
    out = []
    for i in range(1, n):
        for j in range(i):
            at = [i, j, *range(j)]
            precision = np.linalg.inv(corr[np.ix_(at, at)])
            out.append(-precision[0, 1] / np.sqrt(precision[0, 0] * precision[1, 1]))
    return np.array(out)


def assert_labels_do_not_matter(
    spec: mtl.ModelSpec,
    data: mtl.TaskData,
    renamed: mtl.ModelSpec,
    relabelled: mtl.TaskData,
    order: np.ndarray,
    rng: np.random.Generator,
) -> None:
    """Renaming tasks, and their parameters along, leaves the log density what it was.

    `order[i]` is the position in `data` of task i of `relabelled`. The number of tasks must differ from
    every other size in the model. The prior of a free correlation matrix is a density of partial
    correlations, or of what each task has from those before it. These are not the same ones after renaming:
    there the data term is compared.
    """
    one, two = Evaluator(mtl.build_model(spec, data)), Evaluator(mtl.build_model(renamed, relabelled))
    point = one.random_point(rng)
    moved = {k: v[order] if v.shape[:1] == (data.n_tasks,) else v for k, v in point.items()}
    if "task_corr_partial_logodds__" in point:
        corr = one.values(point)["task_corr"]
        half = (1 + partials_of(corr[np.ix_(order, order)])) / 2
        moved["task_corr_partial_logodds__"] = np.log(half) - np.log1p(-half)
    elif "task_precision_offset" in point:
        corr = one.values(point)["task_corr"]
        C = np.linalg.inv(np.linalg.cholesky(corr[np.ix_(order, order)]))
        below = (C / np.diag(C))[np.tril_indices(len(corr), -1)]
        local = np.exp(point["task_precision_scale_log__"] + point["task_precision_local_log__"])
        moved["task_precision_offset"] = below * np.sqrt(1 + (local / 2) ** 2) / local
    else:
        assert_close(two.logp(moved), one.logp(point))
    assert_close(two.data_term(moved), one.data_term(point))
