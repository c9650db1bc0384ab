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
    or convolutions less is gained. The first product in each direction traces (the second derivatives too), compiles
    and compares with an eager one, which takes some ten seconds to a minute: worth it for dense Jacobians and for
    hundreds of Krylov steps. What does not depend on the vector (losses, first derivatives) is computed once for as
    long as the weights stay, and kept.

    Args:
        operator: of either direction. Its weights and draws are those at the time of each product.
        compiler: takes a graph and example arguments, and returns a function of those; TorchInductor if left out.

    Attributes:
        shape, dtype, device: as of the operator.
        seconds: what tracing and compiling took, of both directions together.
        operations: how many operations a product takes besides what is kept.

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
        self._before: torch.fx.GraphModule | None = None
        self._kept: list[Tensor] = []  # what the weights alone determine,
        self._of: list[tuple[int, int]] = []  # and the identities and versions of those weights
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
            self._prepare(u.detach())
        return self._taken(u.detach())

    def _taken(self, u: Tensor) -> Tensor:
        assert self._product is not None
        assert self._before is not None
        leaves = self._leaves()
        now = [(id(leaf), leaf._version) for leaf in leaves]
        with torch.no_grad():
            if now != self._of:
                self._kept, self._of = list(self._before(*leaves)), now
            return self._product(u, *self._kept)[0]

    def _held(self) -> list[Tree]:
        return [self.operator.players, self.operator.constants, *map(dict, self.operator.draws)]

    def _leaves(self) -> list[Tensor]:
        return [leaf for part in self._held() for leaf in tree.leaves(part)]

    def _prepare(self, u: Tensor) -> None:
        """Traces, compiles and compares with eager products."""
        begun = time.monotonic()
        whole = self.operator

        def taken(direction: Tensor, *leaves: Tensor) -> list[Tensor]:
            rest = iter(leaves)
            players, constants, *draws = (
                tree.map(lambda _: next(rest), part) for part in self._held()
            )
            fresh = JacobianOperator(whole.field, players, constants, draws, whole.transposed)
            return [fresh @ direction]

        leaves = self._leaves()
        graph = traced(taken, [u, *leaves], _WHAT)
        self._before, after = _split(graph)
        self.operations = operations(after)
        with torch.no_grad():
            kept = list(self._before(*leaves))
        self._product = self._compiler(after, [u, *kept])
        for vector in (
            u,
            u.flip(0),
        ):  # the second one finds what the first has overwritten of what is kept
            try:
                self._require_agreement(self._taken(vector), whole @ vector)
            except CompilationError:
                self._product = None
                raise
        self.seconds += time.monotonic() - begun

    def _require_agreement(self, mine: Tensor, theirs: Tensor) -> None:
        limits = torch.finfo(theirs.dtype)
        apart = float((mine - theirs).norm() / theirs.norm().clamp_min(limits.tiny))
        if not apart <= limits.eps**0.5:
            raise CompilationError(
                f"the compiled product differs from the eager one (by {apart:.2g} of it): take eager products"
            )


def _split(graph: torch.fx.GraphModule) -> tuple[torch.fx.GraphModule, torch.fx.GraphModule]:
    """What a graph computes without its first argument, as a function of the others; and the rest, as a function of
    the first argument and of what that returns."""
    nodes = list(graph.graph.nodes)
    moving = {nodes[0]}
    for node in nodes[1:]:
        if node.op == "output" or any(argument in moving for argument in node.all_input_nodes):
            moving.add(node)
    needed = {argument for node in moving for argument in node.all_input_nodes}
    kept = [node for node in nodes if node in needed and node not in moving]
    before, after = torch.fx.Graph(), torch.fx.Graph()
    seen: dict[torch.fx.Node, torch.fx.Node] = {}
    for node in nodes:
        if node not in moving:
            seen[node] = before.node_copy(node, seen.__getitem__)
    before.output(tuple(seen[node] for node in kept))
    held = {nodes[0]: after.node_copy(nodes[0])}
    held |= {node: after.placeholder(f"kept_{i}") for i, node in enumerate(kept)}
    for node in nodes[1:]:
        if node in moving:
            held[node] = after.node_copy(node, held.__getitem__)
    return torch.fx.GraphModule(graph, before), torch.fx.GraphModule(graph, after)
