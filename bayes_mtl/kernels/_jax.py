"""The kernels as functions of JAX arrays; importing this module tells PyTensor of them.

The equations are those of the numba kernels. Tasks come first here, since that is how JAX batches linear
algebra, and derivatives are JAX's own. A function must not branch on numbers: whatever comes out of inputs
that the kernels refuse is computed, then replaced. Integers (positions, starts) may be traced, so they
index, but make no shapes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.linalg import solve_triangular
from pytensor.graph.basic import Apply
from pytensor.link.jax.dispatch import jax_funcify

from bayes_mtl.kernels import ops
from bayes_mtl.kernels.compile import Signature

_HALF_LOG_2PI = float(0.5 * np.log(2.0 * np.pi))


def collapsed_gaussian(
    sd: Array,
    correlation: Array,
    loadings: Array,
    unique_sd: Array,
    sigma: Array,
    mean: Array,
    effect_scale: Array,
    root: Array,
    target: Array,
    rest: Array,
    count: Array,
    inside: Array,
    column: Array,
    design: Array,
) -> Array:
    """Return the log density of `_collapsed_gaussian.kernel`; not finite, or NaN, where that refuses."""
    n_rows, n_columns = root.shape[:2]
    L = _feature_cholesky(sd, correlation, inside)
    R, s, means = _by_task(root, sigma, mean)
    RLS = (R[:, :, : len(sd)] @ L) * _own_scale(unique_sd, inside, jnp.arange(len(sd)))[:, None, :]
    K = _cholesky(s[:, None, None] ** 2 * jnp.eye(n_rows) + RLS @ _transposed(RLS))
    left = target.T - jnp.einsum("tfg,tg->tf", R, means)
    V = _solve(K, jnp.concatenate([R, left[:, :, None]], axis=2))
    V, v = V[:, :, :-1], V[:, :, -1]
    logp = -jnp.sum((count - n_rows) * jnp.log(s) + count * _HALF_LOG_2PI) - _log_det(K)
    logp -= 0.5 * (jnp.sum(v**2) + jnp.sum(rest / s**2))
    Z = _design(L, loadings, inside, column, effect_scale[:, None] * design, n_columns)
    VZ = V @ Z
    U = _cholesky(jnp.eye(Z.shape[2]) + jnp.einsum("tfi,tfj->ij", VZ, VZ))
    h = _solve(U, jnp.einsum("tfi,tf->i", VZ, v)[:, None])
    logp += 0.5 * jnp.sum(h**2) - _log_det(U)
    return _unless_refused(logp, sigma, sd, correlation, loadings, unique_sd, mean, effect_scale)


def collapsed_rows(*inputs: Array) -> Array:
    """Return the log density of `_collapsed_rows.kernel`, whose pseudo-rows have the task first."""
    arguments = list(inputs)
    arguments[7], arguments[8] = jnp.moveaxis(inputs[7], 0, -1), inputs[8].T
    return collapsed_gaussian(*arguments)


def whitened_coefficients(
    sd: Array,
    correlation: Array,
    loadings: Array,
    unique_sd: Array,
    sigma: Array,
    mean: Array,
    effect_scale: Array,
    z_common: Array,
    z: Array,
    root: Array,
    target: Array,
    inside: Array,
    own: Array,
    column: Array,
    design: Array,
) -> tuple[Array, Array, Array]:
    """Return what `_whitening.forward` writes; the value is not finite, or NaN, where that refuses."""
    n_columns, _, n_tasks = root.shape
    n_own, size = z.shape[1], len(z_common)
    L = _feature_cholesky(sd, correlation, inside)
    R, s, means = _by_task(root, sigma, mean)
    left = target.T - jnp.einsum("tfg,tg->tf", R, means)
    rows = jnp.concatenate([R, left[:, :, None]], axis=2) / s[:, None, None]
    S = _own_scale(unique_sd, inside, own)
    M = (rows[:, :, : len(sd)] @ L[:, own]) * S[:, None, :]
    K = _cholesky(jnp.eye(n_own) + _transposed(M) @ M)
    Y = _solve(K, _transposed(M) @ rows)
    G = _transposed(rows[:, :, :-1]) @ rows - _transposed(Y[:, :, :-1]) @ Y
    Z = _design(L, loadings, inside, column, effect_scale[:, None] * design, n_columns)
    U = _cholesky(jnp.eye(size) + jnp.einsum("tfi,tfj->ij", Z, G[:, :, :-1] @ Z))
    h = jnp.einsum("tfi,tf->i", Z, G[:, :, -1])
    shifted = _solve(U, h[:, None])[:, 0] + z_common
    alpha = _solve_transposed(U, shifted[:, None])[:, 0]
    phi = Z @ alpha
    w = Y[:, :, -1] - jnp.einsum("tuf,tf->tu", Y[:, :, :-1], phi) + z
    eps = _solve_transposed(K, w[:, :, None])[:, :, 0]
    deviation = (S * eps) @ L[:, own].T
    beta = (means + phi).at[:, : len(sd)].add(deviation)
    value = -(size + n_tasks * n_own) * _HALF_LOG_2PI - _log_det(U) - _log_det(K)
    value -= 0.5 * (jnp.sum(alpha**2) + jnp.sum(eps**2))
    law = (sd, correlation, loadings, unique_sd, mean, effect_scale)
    value = _unless_refused(value, sigma, *law, z_common, z)
    return value, beta, alpha


def joint_effects(
    sd: Array, correlation: Array, z: Array, information: Array, moment: Array
) -> tuple[Array, Array]:
    """Return what `_joint_whitening.forward` writes."""
    L = sd[:, None] * jnp.tril(correlation)
    K = _cholesky(jnp.eye(len(sd)) + L.T @ information @ L)
    eps = _solve_transposed(K, _solve(K, (L.T @ moment)[:, None]) + z[:, None])[:, 0]
    return -len(sd) * _HALF_LOG_2PI - _log_det(K) - 0.5 * jnp.sum(eps**2), L @ eps


def _refuse_joint(*inputs: Array) -> tuple[Array, Array]:
    value, gamma = joint_effects(*inputs)
    accepted = jnp.isfinite(value)
    return jnp.where(accepted, value, -jnp.inf), jnp.where(accepted, gamma, 0.0)


def _pull_back_joint(*arguments: Array) -> tuple[Array, ...]:
    accepted = jnp.isfinite(joint_effects(*arguments[:5])[0])
    return tuple(jnp.where(accepted, g, 0.0) for g in _pull_back(joint_effects, 3, 2)(*arguments))


def chained_coefficients(
    sd: Array,
    correlation: Array,
    loadings: Array,
    sigma: Array,
    mean: Array,
    effect_scale: Array,
    z_common: Array,
    z: Array,
    root: Array,
    target: Array,
    inside: Array,
    column: Array,
    design: Array,
) -> tuple[Array, Array, Array]:
    """Return what `_chain.forward` writes; the value is not finite, or NaN, where that refuses."""
    n_columns, _, n_tasks = root.shape
    n_varying, n_common, n_inside = len(sd), len(z_common), len(inside)
    L = _feature_cholesky(sd, correlation, inside)
    R, s, means = _by_task(root, sigma, mean)
    left = target.T - jnp.einsum("tfg,tg->tf", R, means)
    rows = jnp.concatenate([R, left[:, :, None]], axis=2) / s[:, None, None]
    S = _own_scale(jnp.diagonal(loadings), inside, jnp.arange(n_varying))
    M = (rows[:, :, :n_varying] @ L) * S[:, None, :]
    W = jnp.eye(n_varying) + _transposed(M) @ M
    Y = _solve(_cholesky(W), _transposed(M) @ rows)
    G = _transposed(rows[:, :, :-1]) @ rows - _transposed(Y[:, :, :-1]) @ Y
    design = effect_scale[:, None] * design
    D = jnp.einsum("ct,cf->tfc", design, jax.nn.one_hot(column, n_columns, dtype=design.dtype))
    U = _cholesky(jnp.eye(n_common) + jnp.einsum("tfi,tfj->ij", D, G[:, :, :-1] @ D))
    h = jnp.einsum("tfi,tf->i", D, G[:, :, -1])
    shifted = _solve(U, h[:, None])[:, 0] + z_common
    alpha = _solve_transposed(U, shifted[:, None])[:, 0]
    base = D @ alpha
    inner = jnp.zeros((n_columns, n_inside)).at[:n_varying].set(L[:, inside])
    G_inside = jnp.einsum("fx,tfg,gy->txy", inner, G[:, :, :-1], inner)
    rho = (G[:, :, -1] - jnp.einsum("tfg,tg->tf", G[:, :, :-1], base)) @ inner
    after = jnp.tril(loadings, -1).T
    gained = jnp.einsum("st,txy->sxy", after**2, G_inside)
    K = _cholesky(W.at[:, inside[:, None], inside[None, :]].add(gained))
    MR = _transposed(M) @ rows[:, :, :-1]
    q = jnp.einsum("tif,tf->ti", _transposed(M), rows[:, :, -1]) - jnp.einsum("tif,tf->ti", MR, base)

    def step(state: tuple[Array, Array], task: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        rho, w = state
        at, weight, q_s, K_s, MRL, z_s = task
        right = (q_s - MRL @ w[at]).at[inside].add(weight @ rho)
        e = _solve_transposed(K_s, (_solve(K_s, right[:, None])[:, 0] + z_s)[:, None])[:, 0]
        rho = rho - weight[:, None] * (G_inside @ e[inside])
        return (rho, w + weight[:, None] * e[inside]), e

    tasks = (jnp.arange(n_tasks), after, q, K, MR @ inner, z)
    (_, w), e = jax.lax.scan(step, (rho, jnp.zeros((n_tasks, n_inside))), tasks)
    beta = (means + base + w @ inner.T).at[:, :n_varying].add((S * e) @ L.T)
    value = -(n_common + n_tasks * n_varying) * _HALF_LOG_2PI - _log_det(U) - _log_det(K)
    value -= 0.5 * (jnp.sum(alpha**2) + jnp.sum(e**2))
    law = (sd, correlation, jnp.tril(loadings), mean, effect_scale)
    value = _unless_refused(value, sigma, *law, z_common, z)
    return value, beta, alpha


def gaussian_tasks(beta: Array, sigma: Array, root: Array, target: Array, rest: Array, count: Array) -> Array:
    """Return the log-likelihood of `_gaussian_tasks.kernel`; not finite, or NaN, where that refuses."""
    s = jnp.broadcast_to(sigma, count.shape)
    left = target - jnp.einsum("fgt,tg->ft", root, beta)
    square = jnp.sum(left**2, axis=0) + rest
    logp = -jnp.sum(count * (jnp.log(s) + _HALF_LOG_2PI) + 0.5 * square / s**2)
    return _unless_refused(logp, sigma, beta)


def chained_gaussian(*inputs: Array) -> Array:
    """Return the log density of `_chain.gaussian`; not finite, or NaN, where that refuses."""
    pseudo_rows, sigma = inputs[8:12], inputs[3]
    value, beta, _ = chained_coefficients(*inputs[:10], *inputs[12:])
    return value + gaussian_tasks(beta, sigma, *pseudo_rows)


def bernoulli_tasks(beta: Array, y: Array, X: Array, weights: Array, offset: Array, starts: Array) -> Array:
    """Return the log-likelihood of `_task_glm.bernoulli`; not finite, or NaN, where that refuses."""
    # The last task that starts at this row or before it: tasks without rows start where the next one does.
    task = jnp.searchsorted(starts, jnp.arange(X.shape[1]), side="right") - 1
    eta = jnp.sum(X.astype(beta.dtype) * beta[task].T, axis=0) + offset
    # abs() and maximum() have no derivative at 0, where a chain may start: choose between two lines.
    positive = eta >= 0.0
    linear = jnp.where(positive, y - 1.0, y) * eta
    return jnp.sum(weights * (linear - jnp.log1p(jnp.exp(jnp.where(positive, -eta, eta)))))


def bernoulli_components(
    beta: Array, y: Array, X: Array, weights: Array, offset: Array, starts: Array
) -> tuple[Array, Array]:
    """Return what `_task_glm.bernoulli_components` writes."""
    n_tasks = beta.shape[1]
    task = jnp.searchsorted(starts, jnp.arange(X.shape[1]), side="right") - 1

    def one(b: Array) -> Array:
        eta = jnp.sum(X.astype(b.dtype) * b[task].T, axis=0) + offset
        positive = eta >= 0.0
        linear = jnp.where(positive, y - 1.0, y) * eta
        each = weights * (linear - jnp.log1p(jnp.exp(jnp.where(positive, -eta, eta))))
        return jnp.zeros(n_tasks).at[task].add(each)

    value = jax.vmap(one)(beta)
    gradient = jax.grad(lambda b: jnp.sum(jax.vmap(one)(b)))(beta)
    accepted = jnp.isfinite(value)
    return jnp.where(accepted, value, -jnp.inf).T, jnp.where(accepted[..., None], gradient, 0.0)


def component_evidence(
    centre: Array,
    cholesky: Array,
    sigma: Array,
    mean: Array,
    root: Array,
    target: Array,
    rest: Array,
    count: Array,
) -> Array:
    """Return what `_components.evidence` writes."""
    e, K, shifted, s = _component_information(centre, cholesky, sigma, mean, root, target)
    square = jnp.sum(e**2, axis=-1) + rest / s**2
    log_det = jnp.sum(jnp.log(jnp.diagonal(K, axis1=-2, axis2=-1)), axis=-1)
    value = (
        -count * (jnp.log(s) + _HALF_LOG_2PI) - 0.5 * square + 0.5 * jnp.sum(shifted**2, axis=-1) - log_det
    )
    return _accepted(value, centre, cholesky, sigma, mean).T


def component_coefficients(
    centre: Array, cholesky: Array, sigma: Array, mean: Array, z: Array, root: Array, target: Array
) -> tuple[Array, Array]:
    """Return what `_components.coefficients` writes."""
    _, K, shifted, _ = _component_information(centre, cholesky, sigma, mean, root, target)
    e = _solve_transposed(K, (shifted + z)[..., None])[..., 0]
    log_det = jnp.sum(jnp.log(jnp.diagonal(K, axis1=-2, axis2=-1)), axis=-1)
    density = -z.shape[1] * _HALF_LOG_2PI - 0.5 * jnp.sum(e**2, axis=-1) - log_det
    density = _accepted(density, centre, cholesky, sigma, mean)
    moved = jnp.broadcast_to(mean + centre[:, None, :], (len(centre), len(z), mean.shape[1]))
    deviation = jnp.where(jnp.isfinite(density)[..., None], e, 0.0) @ _transposed(jnp.tril(cholesky))
    return density.T, moved.at[..., : z.shape[1]].add(deviation)


def _component_information(
    centre: Array, cholesky: Array, sigma: Array, mean: Array, root: Array, target: Array
) -> tuple[Array, Array, Array, Array]:
    """Return residuals, K and y' by component and task, and the noise scale of each task."""
    R, s, by_task = _by_task(root, sigma, mean)
    R = R / s[:, None, None]
    e = target.T / s[:, None] - jnp.einsum("tfg,ktg->ktf", R, by_task[None] + centre[:, None, :])
    L = jnp.broadcast_to(jnp.tril(cholesky), (len(centre), *cholesky.shape[1:]))
    M = jnp.einsum("tfp,kpi->ktfi", R[..., : L.shape[1]], L)
    K = _cholesky(jnp.einsum("ktfi,ktfj->ktij", M, M) + jnp.eye(L.shape[1]))
    return e, K, _solve(K, jnp.einsum("ktfi,ktf->kti", M, e)[..., None])[..., 0], s


def _accepted(value: Array, centre: Array, cholesky: Array, sigma: Array, mean: Array) -> Array:
    """Return values (K, T), -inf where they are not finite or a parameter is not."""
    usable = jnp.isfinite(centre.sum(axis=1) + jnp.sum(jnp.tril(cholesky), axis=(1, 2)))
    usable &= jnp.isfinite(sigma.sum() + mean.sum()) & (jnp.min(sigma) > 0.0)
    return jnp.where(usable[:, None] & jnp.isfinite(value), value, -jnp.inf)


def cholesky_from_partials(partials: Array, n: int) -> Array:
    """Return the factor that `_lkj.forward` writes."""
    r = jnp.zeros((n, n)).at[np.tril_indices(n, -1)].set(partials)
    square = (1.0 - r) * (1.0 + r)
    # The square root has no derivative at 0: it must not see 0 even where its result is not used.
    root = jnp.where(square > 0.0, jnp.sqrt(jnp.where(square > 0.0, square, 1.0)), 0.0)
    remaining = jnp.cumprod(jnp.concatenate([jnp.ones((n, 1)), root[:, :-1]], axis=1), axis=1)
    return r * remaining + jnp.diag(jnp.diag(remaining))


def _feature_cholesky(sd: Array, correlation: Array, inside: Array) -> Array:
    C = jnp.eye(len(sd)).at[inside[:, None], inside[None, :]].set(jnp.tril(correlation))
    return sd[:, None] * C


def _by_task(root: Array, sigma: Array, mean: Array) -> tuple[Array, Array, Array]:
    """Return R (T, R, F), s (T,) and the means (T, F) of each task."""
    _, n_columns, n_tasks = root.shape
    s = jnp.broadcast_to(sigma, (n_tasks,))
    return jnp.moveaxis(root, 2, 0), s, jnp.broadcast_to(mean, (n_tasks, n_columns))


def _own_scale(unique_sd: Array, inside: Array, own: Array) -> Array:
    """Return S (T, U): `unique_sd` inside the task covariance, 1 outside of it."""
    is_inside = jnp.any(own[:, None] == inside[None, :], axis=1)
    return jnp.where(is_inside[None, :], unique_sd[:, None], 1.0)


def _design(L: Array, loadings: Array, inside: Array, column: Array, design: Array, n_columns: int) -> Array:
    """Return Z (T, F, A); what one unit of each common variable does; see `_population`."""
    n_tasks, n_factors = loadings.shape
    common = jax.nn.one_hot(column, n_columns, dtype=design.dtype)
    common = jnp.einsum("ct,cf->tfc", design, common)
    factors = jnp.einsum("tk,px->tpkx", loadings, L[:, inside])
    factors = factors.reshape(n_tasks, len(L), n_factors * len(inside))
    factors = jnp.pad(factors, ((0, 0), (0, n_columns - len(L)), (0, 0)))
    return jnp.concatenate([common, factors], axis=2)


def _unless_refused(value: Array, sigma: Array, *parameters: Array) -> Array:
    """Return `value`, or -inf if a parameter is not finite or a scale not positive."""
    total = sum((jnp.sum(p) for p in parameters), jnp.sum(sigma))  # finite only if all terms are
    return jnp.where(jnp.isfinite(total) & (jnp.min(sigma) > 0.0), value, -jnp.inf)


# Linear algebra of no rows: LAPACK need not know what that is.


def _cholesky(a: Array) -> Array:
    return jnp.linalg.cholesky(a) if a.size else a


def _solve(factor: Array, b: Array) -> Array:
    return solve_triangular(factor, b, lower=True) if b.size else b


def _solve_transposed(factor: Array, b: Array) -> Array:
    return solve_triangular(factor, b, lower=True, trans=1) if b.size else b


def _log_det(factor: Array) -> Array:
    return jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)))


def _transposed(a: Array) -> Array:
    return jnp.swapaxes(a, -1, -2)


def _value_and_gradient(function: Callable[..., Array], n: int) -> Callable[..., tuple[Array, ...]]:
    """Return a function of the value, and its derivatives by the first `n` inputs."""
    differentiated = jax.value_and_grad(function, argnums=tuple(range(n)))

    def evaluate(*inputs: Array) -> tuple[Array, ...]:
        value, gradient = differentiated(*inputs)
        accepted = jnp.isfinite(value)
        return jnp.where(accepted, value, -jnp.inf), *(jnp.where(accepted, g, 0.0) for g in gradient)

    return evaluate


def _coefficients(function: Callable[..., Any], mean: int) -> Callable[..., tuple[Array, Array, Array]]:
    """Return a function that refuses as the kernel does; input number `mean` are the means."""

    def evaluate(*inputs: Array) -> tuple[Array, Array, Array]:
        value, beta, alpha = function(*inputs)
        accepted = jnp.isfinite(value)
        return (
            jnp.where(accepted, value, -jnp.inf),
            jnp.where(accepted, beta, jnp.broadcast_to(inputs[mean], beta.shape)),
            jnp.where(accepted, alpha, 0.0),
        )

    return evaluate


def _reverse(function: Callable[..., Any], n: int) -> Callable[..., tuple[Array, ...]]:
    """Return the reverse sweep to the first `n` inputs; the last three arguments are cotangents."""

    def evaluate(*arguments: Array) -> tuple[Array, ...]:
        parameters, data, cotangents = arguments[:n], arguments[n:-3], arguments[-3:]
        (value, _, _), pull_back = jax.vjp(lambda *p: function(*p, *data), *parameters)
        accepted = jnp.isfinite(value)
        return tuple(jnp.where(accepted, g, 0.0) for g in pull_back(cotangents))

    return evaluate


def _pull_back(function: Callable[..., Any], n: int, n_out: int) -> Callable[..., tuple[Array, ...]]:
    """Return the reverse sweep to the first `n` inputs; the last `n_out` arguments are cotangents."""

    def evaluate(*arguments: Array) -> tuple[Array, ...]:
        parameters, data, cotangents = arguments[:n], arguments[n:-n_out], arguments[-n_out:]
        _, pull_back = jax.vjp(lambda *p: function(*p, *data), *parameters)
        return tuple(pull_back(cotangents if n_out > 1 else cotangents[0]))

    return evaluate


def _lkj_pullback(partials: Array, factor: Array, cotangent: Array) -> Array:
    _, pull_back = jax.vjp(lambda p: cholesky_from_partials(p, len(factor)), partials)
    return pull_back(cotangent)[0]


_FUNCTIONS: dict[type[ops.KernelOp], Callable[..., Any]] = {
    ops.CollapsedGaussian: _value_and_gradient(collapsed_gaussian, 7),
    ops.CollapsedRows: _value_and_gradient(collapsed_rows, 7),
    ops.WhitenedCoefficients: _coefficients(whitened_coefficients, 5),
    ops.WhitenedCoefficientsPullback: _reverse(whitened_coefficients, 9),
    ops.JointEffects: _refuse_joint,
    ops.JointEffectsPullback: _pull_back_joint,
    ops.ChainedCoefficients: _coefficients(chained_coefficients, 4),
    ops.ChainedCoefficientsPullback: _reverse(chained_coefficients, 8),
    ops.ChainedGaussian: _value_and_gradient(chained_gaussian, 8),
    ops.ComponentEvidence: component_evidence,
    ops.ComponentEvidencePullback: _pull_back(component_evidence, 4, 1),
    ops.ComponentCoefficients: component_coefficients,
    ops.ComponentCoefficientsPullback: _pull_back(component_coefficients, 5, 2),
    ops.BernoulliComponents: bernoulli_components,
    ops.GaussianTasks: _value_and_gradient(gaussian_tasks, 2),
    ops.BernoulliTasks: _value_and_gradient(bernoulli_tasks, 1),
    ops.CholeskyFromPartialsPullback: _lkj_pullback,
    ops.Product: jnp.matmul,
}


@jax_funcify.register(ops.KernelOp)
def funcify(op: ops.KernelOp, node: Apply, **kwargs: Any) -> Callable[..., Any]:
    """Return the function of an `Op`; it checks sizes, which JAX would stretch to fit instead."""
    if isinstance(op, ops.CholeskyFromPartials):
        function: Callable[..., Any] = partial(cholesky_from_partials, n=op.n)
    else:
        function = _FUNCTIONS[type(op)]
    signature = Signature(op.signature)

    def evaluate(*inputs: Any) -> Any:
        arrays = [jnp.asarray(x) for x in inputs]  # PyTensor hands scalars over as Python numbers
        signature.sizes([a.shape for a in arrays])
        return function(*arrays)

    return evaluate
