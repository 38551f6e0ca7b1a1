"""The PyTensor `Op` around a kernel function: Python evaluation, numba dispatch, pullback."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, ClassVar

import pytensor.tensor as pt
from pytensor.gradient import DisconnectedType
from pytensor.graph.basic import Apply
from pytensor.graph.op import Op

from bayes_mtl._typing import Tensor


class KernelOp(Op):
    """An `Op` whose whole mathematics is one function of arrays.

    A subclass sets `kernel` (arrays in, a tuple of arrays out), `helpers` (functions that `kernel`
    calls), `inputs` and `outputs` (the number of dimensions of each).
    """

    __props__: ClassVar[tuple[str, ...]] = ()
    kernel: ClassVar[Callable[..., tuple[Any, ...]]]
    version: ClassVar[int] = 1  # part of the on-disk cache key; raise it when the kernel changes
    integer_inputs: ClassVar[frozenset[int]] = frozenset()
    input_ndims: ClassVar[tuple[int, ...]]
    output_ndims: ClassVar[tuple[int, ...]]

    def make_node(self, *inputs: Tensor) -> Apply:
        _register_with_numba()
        if len(inputs) != len(self.input_ndims):
            raise TypeError(f"{self} takes {len(self.input_ndims)} inputs, found {len(inputs)}")
        tensors = [
            pt.as_tensor_variable(x, dtype="int64" if i in self.integer_inputs else "float64", ndim=ndim)
            for i, (x, ndim) in enumerate(zip(inputs, self.input_ndims, strict=True))
        ]
        return Apply(self, tensors, [pt.tensor(dtype="float64", shape=(None,) * n) for n in self.output_ndims])

    def perform(self, node: Apply, inputs: Sequence[Any], output_storage: Any) -> None:  # noqa: ARG002
        for cell, value in zip(output_storage, jitted(type(self).kernel)(*inputs), strict=True):
            cell[0] = value


class ValueAndGradient(KernelOp):
    """A kernel that returns a scalar and its derivatives by the first `len(outputs) - 1` inputs.

    The pullback multiplies the derivatives, which the same node has already computed, by the
    cotangent of the value: the gradient costs no second pass.
    """

    def pullback(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        value, *derivatives = cotangents
        if any(not isinstance(c.type, DisconnectedType) for c in derivatives):
            raise NotImplementedError(f"{self} has no second derivatives")
        found = [value * derivative for derivative in outputs[1:]]
        return found + [pt.zeros_like(x, dtype="float64") for x in inputs[len(found) :]]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        differentiable = len(node.outputs) - 1
        return [[i < differentiable] + [False] * differentiable for i in range(len(node.inputs))]


@cache
def jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a kernel for calls from Python. Kept on disk beside the source."""
    import numba

    return numba.njit(function, cache=True)


@cache
def _register_with_numba() -> None:
    """Tell PyTensor's numba backend about kernels (late: importing numba takes seconds)."""
    from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

    @register_funcify_default_op_cache_key(KernelOp)
    def funcify(op: KernelOp, **kwargs: Any) -> tuple[Callable[..., Any], int]:  # noqa: ARG001
        return numba_njit(type(op).kernel), type(op).version
