"""Products with a game's Jacobian, traced once and compiled."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.compiled.trace import compile_graph, operations, traced
from equilibrist.core.jacobian import JacobianOperator
from equilibrist.errors import CompilationError
from equilibrist.tree import Tree

_Product = Callable[..., list[Tensor]]
_WHAT = "product"


class CompiledJacobian:
    """The products of a `JacobianOperator` as compiled functions: `J @ u` and `J.T @ u`, equal up to rounding.

    An eager product of small networks is mostly Python's time; of networks whose time is that of matrix products
    or convolutions little is gained. The first product in each direction traces (the second derivatives too),
    compiles and compares with an eager one, which takes some ten seconds to a minute: worth it for dense
    Jacobians and for hundreds of Krylov steps.

    Args:
        operator: of either direction. Its weights and draws are those at the time of each product.
        compiler: takes a graph and example arguments, and returns a function of those; TorchInductor if left out.

    Attributes:
        shape, dtype, device: as of the operator.
        seconds: what tracing and compiling took, of both directions together.
        operations: how many operations the last traced product has.

    Raises:
        CompilationError: at the first product, where it cannot be traced or compiled, or errs.

    Examples:
        >>> import torch
        >>> import equilibrist as eq
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> players = {"x": {"value": one}, "y": {"value": one}}
        >>> jacobian = eq.JacobianOperator(eq.VectorField(eq.bilinear()), players, {}, [{}])
        >>> compiled = eq.CompiledJacobian(jacobian, compiler=lambda graph, arguments: graph)  # no machine code
        >>> (compiled.T @ torch.tensor([1.0, 0.0], dtype=torch.float64)).tolist()  # v = (y, -x)
        [0.0, 1.0]
    """

    def __init__(
        self,
        operator: JacobianOperator,
        compiler: Callable[[torch.fx.GraphModule, list[Tensor]], _Product] | None = None,
    ) -> None:
        if operator.field.reduce is not None:
            raise CompilationError(
                "a product that averages over machines is not compiled: take eager products"
            )
        self.operator = operator
        self.shape, self.dtype, self.device = operator.shape, operator.dtype, operator.device
        self._compiler = compiler or partial(compile_graph, what=_WHAT)
        self._product: _Product | None = None
        self._flipped: CompiledJacobian | None = None
        self.seconds, self.operations = 0.0, 0

    @property
    def T(self) -> CompiledJacobian:  # noqa: N802
        """The transpose, which is compiled by itself."""
        if self._flipped is None:
            self._flipped = CompiledJacobian(self.operator.T, self._compiler)
            self._flipped._flipped = self
        return self._flipped

    def __matmul__(self, u: Tensor) -> Tensor:
        """The product with a vector [n], or with columns [n, k]."""
        if u.ndim == 2:
            return torch.stack([self @ column for column in u.T], dim=1)
        if u.shape != (self.shape[1],):
            raise ValueError(f"J has {self.shape[1]} columns, the vector has shape {list(u.shape)}")
        if self._product is None:
            self._product = self._prepared(u)
        with torch.no_grad():
            return self._product(u, *self._leaves())[0]

    def _held(self) -> list[Tree]:
        return [self.operator.players, self.operator.constants, *map(dict, self.operator.draws)]

    def _leaves(self) -> list[Tensor]:
        return [leaf for part in self._held() for leaf in tree.leaves(part)]

    def _prepared(self, u: Tensor) -> _Product:
        """Traced, compiled and compared with the eager product."""
        begun = time.monotonic()
        whole = self.operator

        def taken(direction: Tensor, *leaves: Tensor) -> list[Tensor]:
            rest = iter(leaves)
            players, constants, *draws = (
                tree.map(lambda _: next(rest), part) for part in self._held()
            )
            fresh = JacobianOperator(whole.field, players, constants, draws, whole.transposed)
            return [fresh @ direction]

        examples = [u.detach(), *self._leaves()]
        graph = traced(taken, examples, _WHAT)
        self.operations = operations(graph)
        product = self._compiler(graph, examples)
        with torch.no_grad():
            mine, theirs = product(*examples)[0], whole @ u.detach()
        apart = float((mine - theirs).norm() / theirs.norm().clamp_min(torch.finfo(u.dtype).tiny))
        if not apart <= torch.finfo(u.dtype).eps ** 0.5:
            raise CompilationError(
                f"the compiled product differs from the eager one (by {apart:.2g} of it): take eager products"
            )
        self.seconds += time.monotonic() - begun
        return product
