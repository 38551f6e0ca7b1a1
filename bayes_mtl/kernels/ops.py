"""The PyTensor `Op`s around the kernels: Python evaluation, numba and JAX dispatch, pullback."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
import pytensor.tensor as pt
from pytensor.compile import optdb
from pytensor.gradient import DisconnectedType, disconnected_type
from pytensor.graph.basic import Apply
from pytensor.graph.fg import FunctionGraph
from pytensor.graph.op import Op
from pytensor.graph.replace import clone_replace
from pytensor.graph.rewriting.basic import GraphRewriter

from bayes_mtl._typing import Tensor
from bayes_mtl.kernels.compile import MachineCode, Signature, caller, fingerprint, machine_code


class KernelOp(Op):
    """An `Op` whose whole mathematics is one function of arrays, inputs first, that writes its outputs.

    `kernel` is "module:function" inside this package. It is imported when it is first needed, since
    importing numba takes longer than describing a model.
    """

    __props__: ClassVar[tuple[str, ...]] = ()
    kernel: ClassVar[str]
    large: ClassVar[bool] = False  # takes longer to compile than another process to start
    signature: str

    def make_node(self, *inputs: Tensor) -> Apply:
        """Check and convert the inputs; give the outputs their static shapes."""
        _register_with_numba()
        sign = Signature(self.signature)
        tensors = []
        for x, (kind, sizes) in zip(inputs, sign.inputs, strict=True):
            tensor = pt.as_tensor_variable(x)
            if tensor.ndim != len(sizes):
                raise TypeError(f"{self}: expected {len(sizes)} dimensions, found {tensor.ndim} in {tensor}")
            wanted = {"": "float64", "int": "int64", "any": tensor.dtype}[kind]
            tensors.append(tensor if tensor.dtype == wanted else tensor.astype(wanted))
        known = sign.sizes([t.type.shape for t in tensors])
        shapes = [tuple(int(s) if s.isdigit() else known[s] for s in sizes) for sizes in sign.outputs]
        return Apply(self, tensors, [pt.tensor(dtype="float64", shape=shape) for shape in shapes])

    def machine_code(self, node: Apply) -> MachineCode:
        """Compile the kernel for the dtypes of this node."""
        return machine_code(self.kernel, self.signature, tuple(x.dtype for x in node.inputs))

    def evaluate(self, *inputs: Any) -> list[Any]:
        """Evaluate for arrays, without a graph."""
        arrays = [np.asarray(x) for x in inputs]
        return machine_code(self.kernel, self.signature, tuple(str(x.dtype) for x in arrays))(*arrays)

    def perform(self, node: Apply, inputs: Sequence[Any], output_storage: Any) -> None:
        """Evaluate from Python."""
        for cell, value in zip(output_storage, self.machine_code(node)(*inputs), strict=True):
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


class Reversible(KernelOp):
    """A kernel whose pullback to its first inputs is another kernel, of inputs and cotangents."""

    reverse: ClassVar[type[KernelOp]]

    def pullback(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """Delegate to the reverse kernel."""
        given = [
            out.zeros_like() if isinstance(c.type, DisconnectedType) else c
            for out, c in zip(outputs, cotangents, strict=True)
        ]
        found = self.reverse()(*inputs, *given)
        return found + [disconnected_type() for _ in inputs[len(found) :]]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Everything depends on the parameters and coordinates; the rest are data."""
        differentiable = len(Signature(self.reverse.signature).outputs)
        return [[i < differentiable] * len(node.outputs) for i in range(len(node.inputs))]


class CollapsedGaussian(ValueAndGradient):
    """Marginal log density of Gaussian outcomes with the coefficients integrated out."""

    kernel = "_collapsed_gaussian:kernel"
    large = True
    signature = (
        "(p),(i,i),(t,k),(t),(s),(m,f),(c),(f,f,t),(f,t),(t),(t),int(i),int(c),(c,t)"
        "->(),(p),(i,i),(t,k),(t),(s),(m,f),(c)"
    )


class CollapsedRows(ValueAndGradient):
    """`CollapsedGaussian` for tasks with fewer rows than columns."""

    kernel = "_collapsed_rows:kernel"
    large = True
    signature = (
        "(p),(i,i),(t,k),(t),(s),(m,f),(c),(t,r,f),(t,r),(t),(t),int(i),int(c),(c,t)"
        "->(),(p),(i,i),(t,k),(t),(s),(m,f),(c)"
    )


class WhitenedCoefficientsPullback(KernelOp):
    """The reverse sweep of `WhitenedCoefficients`."""

    kernel = "_whitening:reverse"
    large = True
    signature = (
        "(p),(i,i),(t,k),(t),(s),(m,f),(c),(a),(t,u),(f,f,t),(f,t),int(i),int(u),int(c),(c,t),(),(t,f),(a)"
        "->(p),(i,i),(t,k),(t),(s),(m,f),(c),(a),(t,u)"
    )


class WhitenedCoefficients(Reversible):
    """Coefficients from coordinates that look standard normal, and the log density of the coordinates."""

    kernel = "_whitening:forward"
    large = True
    reverse = WhitenedCoefficientsPullback
    signature = (
        "(p),(i,i),(t,k),(t),(s),(m,f),(c),(a),(t,u),(f,f,t),(f,t),int(i),int(u),int(c),(c,t)->(),(t,f),(a)"
    )


class JointEffectsPullback(KernelOp):
    """The reverse sweep of `JointEffects`."""

    kernel = "_joint_whitening:reverse"
    large = True
    signature = "(c),(c,c),(c),(c,c),(c),(),(c)->(c),(c,c),(c)"


class JointEffects(Reversible):
    """As `WhitenedCoefficients`, for one vector of effects that are all related to each other."""

    kernel = "_joint_whitening:forward"
    large = True
    reverse = JointEffectsPullback
    signature = "(c),(c,c),(c),(c,c),(c)->(),(c)"


class ChainedCoefficientsPullback(KernelOp):
    """The reverse sweep of `ChainedCoefficients`."""

    kernel = "_chain:reverse"
    large = True
    signature = (
        "(p),(i,i),(t,t),(s),(m,f),(c),(c),(t,p),(f,f,t),(f,t),int(i),int(c),(c,t),(),(t,f),(c)"
        "->(p),(i,i),(t,t),(s),(m,f),(c),(c),(t,p)"
    )


class ChainedCoefficients(Reversible):
    """As `WhitenedCoefficients`, for tasks that depend on each other one after the other."""

    kernel = "_chain:forward"
    large = True
    reverse = ChainedCoefficientsPullback
    signature = "(p),(i,i),(t,t),(s),(m,f),(c),(c),(t,p),(f,f,t),(f,t),int(i),int(c),(c,t)->(),(t,f),(c)"


class ChainedGaussian(ValueAndGradient):
    """`ChainedCoefficients` under Gaussian outcomes: the sum of both log densities, in one pass."""

    kernel = "_chain:gaussian"
    large = True
    signature = (
        "(p),(i,i),(t,t),(s),(m,f),(c),(c),(t,p),(f,f,t),(f,t),(t),(t),int(i),int(c),(c,t)"
        "->(),(p),(i,i),(t,t),(s),(m,f),(c),(c),(t,p)"
    )


class GaussianTasks(ValueAndGradient):
    """Log-likelihood of Gaussian outcomes with coefficients that differ by task, from pseudo-rows."""

    kernel = "_gaussian_tasks:kernel"
    signature = "(t,f),(s),(f,f,t),(f,t),(t),(t)->(),(t,f),(s)"


class BernoulliTasks(ValueAndGradient):
    """Log-likelihood of binary outcomes with coefficients that differ by task."""

    kernel = "_task_glm:bernoulli"
    large = True
    signature = "(t,f),any(n),any(f,n),(w),(o),int(b)->(),(t,f)"


class ComponentEvidencePullback(KernelOp):
    """The reverse sweep of `ComponentEvidence`."""

    kernel = "_components:evidence_reverse"
    large = True
    signature = "(k,f),(l,p,p),(s),(m,f),(f,f,t),(f,t),(t),(t),(t,k)->(k,f),(l,p,p),(s),(m,f)"


class ComponentEvidence(Reversible):
    """Log density of the Gaussian outcomes of each task under each component, coefficients integrated out."""

    kernel = "_components:evidence"
    large = True
    reverse = ComponentEvidencePullback
    signature = "(k,f),(l,p,p),(s),(m,f),(f,f,t),(f,t),(t),(t)->(t,k)"


class ComponentCoefficientsPullback(KernelOp):
    """The reverse sweep of `ComponentCoefficients`."""

    kernel = "_components:coefficients_reverse"
    large = True
    signature = "(k,f),(l,p,p),(s),(m,f),(t,p),(f,f,t),(f,t),(t,k),(k,t,f)->(k,f),(l,p,p),(s),(m,f),(t,p)"


class ComponentCoefficients(Reversible):
    """Coefficients of each task under each component, and the log density of their coordinates under it."""

    kernel = "_components:coefficients"
    large = True
    reverse = ComponentCoefficientsPullback
    signature = "(k,f),(l,p,p),(s),(m,f),(t,p),(f,f,t),(f,t)->(t,k),(k,t,f)"


class BernoulliComponents(KernelOp):
    """Log-likelihood of the binary outcomes of each task under each component, and its derivative."""

    kernel = "_task_glm:bernoulli_components"
    large = True
    signature = "(k,t,f),any(n),any(f,n),(w),(o),int(b)->(t,k),(k,t,f)"

    def pullback(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """Scale the derivatives."""
        value, derivative = cotangents
        if not isinstance(derivative.type, DisconnectedType):
            raise NotImplementedError(f"{self} has no second derivatives")
        return [value.T[:, :, None] * outputs[1], *(disconnected_type() for _ in inputs[1:])]

    def connection_pattern(self, node: Apply) -> list[list[bool]]:
        """Both outputs depend on the coefficients."""
        return [[i == 0] * 2 for i in range(len(node.inputs))]


class CholeskyFromPartials(KernelOp):
    """Cholesky factor of the n x n correlation matrix with the given partial correlations."""

    __props__ = ("n",)
    kernel = "_lkj:forward"

    def __init__(self, n: int):
        self.n = n
        self.signature = f"(r)->({n},{n})"

    def pullback(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """Delegate to the reverse kernel."""
        return [CholeskyFromPartialsPullback()(inputs[0], outputs[0], cotangents[0])]


class CholeskyFromPartialsPullback(KernelOp):
    """The reverse sweep of `CholeskyFromPartials`."""

    kernel = "_lkj:reverse"
    signature = "(r),(n,n),(n,n)->(r)"

    def pullback(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """Differentiate a plain graph of the map twice: a sampler needs no second derivatives."""
        partials, factor, cotangent = inputs
        r, c = partials.clone(), cotangent.clone()
        slope = pt.grad((_plain_cholesky(r, int(factor.type.shape[0])) * c).sum(), r)
        found = pt.grad((slope * cotangents[0]).sum(), [r, c], disconnected_inputs="ignore")
        by_partials, by_cotangent = clone_replace(found, {r: partials, c: cotangent})
        return [by_partials, factor.zeros_like(), by_cotangent]  # the factor follows from the partials


def _plain_cholesky(partials: Tensor, n: int) -> Tensor:
    """Return L_ij = r_ij prod_{m<j} sqrt(1 - r_im^2), as in `_lkj`, with r_ii = 1."""
    r = pt.set_subtensor(pt.zeros((n, n))[np.tril_indices(n, -1)], partials)
    remaining = pt.cumprod(pt.sqrt(1.0 - r**2), axis=1)
    return (r + np.eye(n)) * pt.concatenate([pt.ones((n, 1)), remaining[:, :-1]], axis=1)


class Product(KernelOp):
    """Matrix product; numba takes half a minute to compile its first BLAS call."""

    kernel = "_product:forward"
    signature = "(i,j),(j,k)->(i,k)"

    def pullback(
        self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], cotangents: Sequence[Tensor]
    ) -> list[Tensor]:
        """Return g b' and a' g."""
        (a, b), (g,) = inputs, cotangents
        return [product(g, b.T), product(a.T, g)]


product = Product()
_collapsed_gaussian = CollapsedGaussian()
_bernoulli_tasks = BernoulliTasks()


def repeat(rows: Tensor, n: int) -> Tensor:
    """Repeat a single row n times, as a product: its gradient then needs no sum, which compiles slowly."""
    return product(np.ones((n, 1)), rows) if rows.type.shape[0] == 1 and n > 1 else rows


def cholesky_from_partials(partials: Tensor, n: int) -> Tensor:
    """Cholesky factor of the correlation matrix with these n (n - 1) / 2 partial correlations."""
    return CholeskyFromPartials(n)(partials)


def collapsed_gaussian(*inputs: Tensor) -> Tensor:
    """Log density of the data given the hyperparameters; see `kernels._collapsed_gaussian.kernel`."""
    return _collapsed_gaussian(*inputs)[0]


def collapsed_rows(*inputs: Tensor) -> Tensor:
    """Log density of the data, by rows; see `kernels._collapsed_rows.kernel`."""
    return CollapsedRows()(*inputs)[0]


def whitened_coefficients(*inputs: Tensor) -> list[Tensor]:
    """Log density of the coordinates, coefficients and common variables; see `kernels._whitening.forward`."""
    return WhitenedCoefficients()(*inputs)


def joint_effects(*inputs: Tensor) -> list[Tensor]:
    """Log density of the coordinates, and effects; see `kernels._joint_whitening.forward`."""
    return JointEffects()(*inputs)


def chained_coefficients(*inputs: Tensor) -> list[Tensor]:
    """Log density of the coordinates, coefficients and common variables; see `kernels._chain.forward`."""
    return ChainedCoefficients()(*inputs)


def chained_gaussian(*inputs: Tensor) -> Tensor:
    """Log density of coordinates and Gaussian outcomes together; see `kernels._chain.gaussian`."""
    return ChainedGaussian()(*inputs)[0]


def chain(*inputs: Any) -> list[Any]:
    """Evaluate `chained_coefficients` for arrays."""
    return ChainedCoefficients().evaluate(*inputs)


def gaussian_tasks(*inputs: Tensor) -> Tensor:
    """Log-likelihood given the coefficients; see `kernels._gaussian_tasks.kernel`."""
    return GaussianTasks()(*inputs)[0]


def bernoulli_tasks(*inputs: Tensor) -> Tensor:
    """Log-likelihood given the coefficients; see `kernels._task_glm.bernoulli`."""
    return _bernoulli_tasks(*inputs)[0]


def component_evidence(*inputs: Tensor) -> Tensor:
    """Log density of each task under each component; see `kernels._components.evidence`."""
    return ComponentEvidence()(*inputs)


def component_coefficients(*inputs: Tensor) -> list[Tensor]:
    """Log density of coordinates, and coefficients; see `kernels._components.coefficients`."""
    return ComponentCoefficients()(*inputs)


def evaluate_components(*inputs: Any) -> list[Any]:
    """Evaluate `component_coefficients` for arrays."""
    return ComponentCoefficients().evaluate(*inputs)


def evaluate_evidence(*inputs: Any) -> Any:
    """Evaluate `component_evidence` for arrays."""
    return ComponentEvidence().evaluate(*inputs)[0]


def bernoulli_components(*inputs: Tensor) -> Tensor:
    """Log-likelihood of each task under each component; see `kernels._task_glm.bernoulli_components`."""
    return BernoulliComponents()(*inputs)[0]


@cache
def _register_with_numba() -> None:
    from pytensor.link.numba.dispatch.basic import numba_njit, register_funcify_default_op_cache_key

    @register_funcify_default_op_cache_key(KernelOp)
    def funcify(op: KernelOp, node: Apply, **kwargs: Any) -> tuple[Any, int]:
        return numba_njit(caller(op.machine_code(node))), fingerprint()


class _RegisterWithJax(GraphRewriter):
    """Changes nothing: the first thing that is sure to run when, and only when, JAX compiles a graph."""

    def apply(self, fgraph: FunctionGraph) -> None:
        """Import what registers the kernels, and JAX with it, which takes a second that others save."""
        from bayes_mtl.kernels import _jax  # noqa: F401


optdb.register("bayes_mtl_register_with_jax", _RegisterWithJax(), "jax", position=0)
