"""The PyTensor `Op`s around the kernels: Python evaluation, numba dispatch, pullback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from inspect import getsource
from typing import Any, ClassVar
from zlib import crc32

import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from bayes_mtl._typing import Tensor


class KernelOp(Op):
    """An `Op` whose whole mathematics is one function of arrays that returns a tuple of arrays.

    `kernel` is "module:function" inside this package. It is imported when it is first needed, since
    importing numba takes longer than describing a model.
    """

    __props__: ClassVar[tuple[str, ...]] = ()
    kernel: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]  # dtype and number of dimensions, as in "f8:2"
    outputs: ClassVar[tuple[str, ...]]

    def make_node(self, *inputs: Tensor) -> Apply:
        """Check and convert the inputs."""
        _register_with_numba()
        tensors = []
        for x, (dtype, ndim) in zip(inputs, map(_parse, self.inputs), strict=True):
            tensor = pt.as_tensor_variable(x)
            if tensor.ndim != ndim:
                raise TypeError(f"{self}: expected {ndim} dimensions, found {tensor.ndim} in {tensor}")
            tensors.append(tensor.astype(dtype))
        out = [pt.tensor(dtype=dtype, shape=(None,) * ndim) for dtype, ndim in map(_parse, self.outputs)]
        return Apply(self, tensors, out)

    def perform(self, node: Apply, inputs: Sequence[Any], output_storage: Any) -> None:
        """Evaluate from Python."""
        for cell, value in zip(output_storage, _jitted(self.kernel)(*inputs), strict=True):
            cell[0] = value


class ValueAndGradient(KernelOp):
    """A kernel that returns a scalar and its derivatives by the first `len(outputs) - 1` inputs.

    The pullback multiplies the derivatives, which the same node has already computed, by the
    cotangent of the value: the gradient costs no second pass.
    """

    def pullback(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """Scale the derivatives."""
        value, *derivatives = cotangents
        if any(not isinstance(c.type, DisconnectedType) for c in derivatives):
            raise NotImplementedError(f"{self} has no second derivatives")
        found = [value * derivative for derivative in outputs[1:]]
        return found + [disconnected_type() for _ in inputs[len(found) :]]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Value and derivatives depend on the first inputs; `pullback` refuses the latter aloud."""
        differentiable = len(node.outputs) - 1
        return [[i < differentiable] * len(node.outputs) for i in range(len(node.inputs))]


class CollapsedGaussian(ValueAndGradient):
    """Marginal log density of Gaussian outcomes with the coefficients integrated out."""

    kernel = "_collapsed_gaussian:kernel"
    inputs = ("f8:2", "f8:2", "f8:2", "f8:1", "f8:1", "f8:3", "f8:2", "f8:1", "f8:1", "i8:1")
    outputs = ("f8:0", "f8:2", "f8:2", "f8:2", "f8:1", "f8:1")


class BernoulliTasks(ValueAndGradient):
    """Log-likelihood of binary outcomes with coefficients that differ by task."""

    kernel = "_task_glm:bernoulli"
    inputs = ("f8:2", "f8:1", "f8:2", "f8:1", "f8:1", "i8:1")
    outputs = ("f8:0", "f8:2")


class CholeskyFromPartials(KernelOp):
    """Cholesky factor of the correlation matrix with the given partial correlations."""

    kernel = "_lkj:forward"
    inputs = ("f8:1",)
    outputs = ("f8:2",)

    def make_node(self, *inputs: Tensor) -> Apply:
        """Give the factor its static shape, n x n for n (n - 1) / 2 partial correlations."""
        node = super().make_node(*inputs)
        length = node.inputs[0].type.shape[0]
        if length is not None:
            n = round((1 + (1 + 8 * length) ** 0.5) / 2)
            node.outputs[0].type = pt.tensor(dtype="float64", shape=(n, n)).type
        return node

    def pullback(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """Delegate to the reverse kernel."""
        return [_cholesky_from_partials_pullback(inputs[0], outputs[0], cotangents[0])]


class CholeskyFromPartialsPullback(KernelOp):
    """The reverse sweep of `CholeskyFromPartials`."""

    kernel = "_lkj:reverse"
    inputs = ("f8:1", "f8:2", "f8:2")
    outputs = ("f8:1",)


class Product(KernelOp):
    """Matrix product."""

    kernel = "_product:forward"
    inputs = ("f8:2", "f8:2")
    outputs = ("f8:2",)

    def make_node(self, *inputs: Tensor) -> Apply:
        """Give the product its static shape."""
        node = super().make_node(*inputs)
        a, b = (x.type.shape for x in node.inputs)
        node.outputs[0].type = pt.tensor(dtype="float64", shape=(a[0], b[1])).type
        return node

    def pullback(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return g b' and a' g."""
        (a, b), (g,) = inputs, cotangents
        return [product(g, b.T), product(a.T, g)]


product = Product()
_cholesky_from_partials_pullback = CholeskyFromPartialsPullback()
cholesky_from_partials = CholeskyFromPartials()
_collapsed_gaussian = CollapsedGaussian()
_bernoulli_tasks = BernoulliTasks()


def collapsed_gaussian(*inputs: Tensor) -> Tensor:
    """Log density of the data given the hyperparameters; see `kernels._collapsed_gaussian.kernel`."""
    return _collapsed_gaussian(*inputs)[0]


def bernoulli_tasks(*inputs: Tensor) -> Tensor:
    """Log-likelihood given the coefficients; see `kernels._task_glm.bernoulli`."""
    return _bernoulli_tasks(*inputs)[0]


def _parse(signature: str) -> tuple[str, int]:
    dtype, ndim = signature.split(":")
    return {"f8": "float64", "i8": "int64"}[dtype], int(ndim)


def load(kernel: str) -> Callable[..., Any]:
    """Import a kernel function by its "module:function" name."""
    module, function = kernel.split(":")
    return getattr(import_module(f"bayes_mtl.kernels.{module}"), function)


@cache
def _jitted(kernel: str) -> Callable[..., Any]:
    import numba

    return numba.njit(load(kernel), cache=True)


@cache
def _register_with_numba() -> None:
    from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

    @register_funcify_default_op_cache_key(KernelOp)
    def funcify(op: KernelOp, **kwargs: Any) -> tuple[Callable[..., Any], int]:
        kernel = numba_njit(load(op.kernel))
        if len(op.outputs) > 1:
            return kernel, _fingerprint(op.kernel)

        @numba_njit
        def single(*inputs: Any) -> Any:
            return kernel(*inputs)[0]

        return single, _fingerprint(op.kernel)


def _fingerprint(kernel: str) -> int:
    """Return a number that changes with the code: machine code of an older version must not be reused.

    It becomes part of the key under which PyTensor keeps compiled functions between processes.
    """
    modules = (load(kernel).__module__, "bayes_mtl.kernels._small_linalg")
    return crc32("".join(name + getsource(import_module(name)) for name in modules).encode())
