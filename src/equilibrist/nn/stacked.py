"""Affine maps and activations for all members of a stack at once, inside of vmapped losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.nn import slopes

_functorch: Any = getattr(torch._C, "_functorch", None)
_aten: Any = torch.ops.aten
try:
    from torch._functorch import vmap as _vmap
    from torch._functorch.pyfunctorch import temporarily_pop_interpreter_stack
except ImportError:
    # Private to torch: without it stacks take vmap's own way, slower and no different.
    temporarily_pop_interpreter_stack = _vmap = None  # type: ignore[assignment]
_WANTED = (
    "peek_interpreter_stack",
    "_unwrap_batched",
    "_add_batch_dim",
    "_remove_batch_dim",
    "TransformType",
)
_ABLE = (
    temporarily_pop_interpreter_stack is not None
    and all(hasattr(_functorch, name) for name in _WANTED)
    and all(hasattr(_vmap, n) for n in ("lazy_load_decompositions", "vmap_increment_nesting"))
)


class _Layer(NamedTuple):
    """y = act(b + x W^T)."""

    affine: nn.Linear
    act: nn.Module | None


class Chain(nn.Sequential):
    """A Sequential of `nn.Linear` layers with at most one activation after each.

    Directly below a vmap it unwraps the members' tensors and multiplies in batches: x [S, B, in],
    W [S, out, in], b [S, out]. That saves vmap's cost by operation, a pass over memory for every bias and
    every activation, and half of the memory. Everywhere else it is the Sequential that it was.
    """

    layers: tuple[_Layer, ...]

    def forward(self, input: Tensor) -> Tensor:
        """[B, in] -> [B, out]."""
        plainly: Callable[[Tensor], Tensor] = super().forward
        top = _functorch.peek_interpreter_stack()
        if top is None or top.key() != _functorch.TransformType.Vmap or top.level() > 1:
            return plainly(input)
        x, values = _members(input), [_members(t) for t in self._tensors()]
        if x is None or x.ndim != 3 or any(v is None for v in values):
            return plainly(input)
        weights = cast(list[Tensor], values)
        with temporarily_pop_interpreter_stack():
            # Derivatives of the second order need a graph of every operation.
            if slopes.active() or torch.is_autocast_enabled(x.device.type):
                out = self._recorded(x, weights)
            else:
                out = _Stacked.apply(x, self.layers, *weights)  # type: ignore[no-untyped-call]
        return cast(Tensor, _functorch._add_batch_dim(out, 0, 1))

    def _tensors(self) -> list[Tensor]:
        found = []
        for layer in self.layers:
            found.append(layer.affine.weight)
            if layer.affine.bias is not None:
                found.append(layer.affine.bias)
        return found

    def _recorded(self, x: Tensor, weights: list[Tensor]) -> Tensor:
        remaining = iter(weights)
        for affine, act in self.layers:
            x = _affine(x, next(remaining), None if affine.bias is None else next(remaining))
            x = x if act is None else act(x)
        return x


def fuse_linear_chains(module: nn.Module) -> None:
    """Make a `Chain` of every Sequential in `module` that is one; everything else stays as it is."""
    if not _ABLE:
        return
    for sequential in list(module.modules()):
        if type(sequential) is nn.Sequential and (layers := _parsed(sequential)):
            sequential.__class__ = Chain
            cast(Chain, sequential).layers = layers


def raise_trim_threshold() -> None:
    """Let this process keep the memory that one step frees for the next.

    glibc returns the free end of its heap once it is longer than twice the largest block freed so far (64 MiB
    at most), so that every step of a stack asks for the same pages anew: a tenth of its time. A block of
    nearly 32 MiB, given back untouched, settles that; elsewhere it does nothing.
    """
    torch.empty(2**25 - 2**14, dtype=torch.uint8)


def vmap_members(
    fn: Callable[..., dict[str, Tensor]], size: int
) -> Callable[..., dict[str, Tensor]]:
    """`fn` of trees of tensors [size, ...], member by member: values [size].

    `torch.func.vmap` without its walk through nested dictionaries, twice a call in Python: a sixth of a small
    stack's step. Where torch's private functions are not those of today it is that vmap.
    """
    if not _ABLE:
        return torch.func.vmap(fn)

    def mapped(*trees: tree.Tree) -> dict[str, Tensor]:
        _vmap.lazy_load_decompositions()  # type: ignore[attr-defined]
        with _vmap.vmap_increment_nesting(size, "error") as level:
            inside = [tree.map(lambda t: _functorch._add_batch_dim(t, 0, level), t) for t in trees]
            found = fn(*inside)
            return {k: _functorch._remove_batch_dim(v, level, size, 0) for k, v in found.items()}

    return mapped


class _Stacked(torch.autograd.Function):
    """The chain with a backward pass by hand: activations act in place, and what they need of the forward
    pass is their output, which the next layer keeps anyway."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layers: tuple[_Layer, ...], *weights: Tensor) -> Tensor:
        kept, remaining = [x], iter(weights)
        for affine, act in layers:
            matrix = next(remaining)
            x = _affine(x, matrix, None if affine.bias is None else next(remaining))
            if act is not None:
                _act_(x, act)
            kept += [matrix, x]
        last = layers[-1].act is not None  # the output itself is needed only to undo an activation
        ctx.save_for_backward(*(kept if last else kept[:-1]))
        ctx.layers = layers
        return x

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph: the activations' own curvature would be lost
            raise RuntimeError(
                "stacked layers keep no graph of their slopes: evaluate under Slopes()"
            )
        kept = list(ctx.saved_tensors)
        y = kept.pop() if ctx.layers[-1].act is not None else None
        needed = list(ctx.needs_input_grad)
        found: list[Tensor | None] = []
        for k, (affine, act) in reversed(list(enumerate(ctx.layers))):
            matrix, x = kept.pop(), kept.pop()
            if act is not None:
                # What autograd handed in is not ours to overwrite.
                slope = _undone(slope, cast(Tensor, y), act, own=k < len(ctx.layers) - 1)
            if affine.bias is not None:
                found.append(slope.sum(1) if needed.pop() else None)
            found.append(_outer(slope, x) if needed.pop() else None)
            if k or needed[0]:
                slope = _inner(slope, matrix)
            y = x
        return slope if needed[0] else None, None, *reversed(found)


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """b + x W^T [S, B, out]."""
    if bias is None:
        return torch.bmm(x, weight.mT)
    return torch.baddbmm(bias.unsqueeze(1), x, weight.mT)


def _outer(slope: Tensor, x: Tensor) -> Tensor:
    """slope^T x [S, out, in]. Kernels are up to seven times as slow where the last side is a thin one."""
    if slope.shape[2] > x.shape[2]:
        return torch.bmm(x.mT, slope).mT
    return torch.bmm(slope.mT, x)


def _inner(slope: Tensor, weight: Tensor) -> Tensor:
    """slope W [S, B, in]: kernels are made for wide sides."""
    if weight.shape[1] == 1:
        return slope * weight
    if weight.shape[2] < 8:
        weight = weight.mT.contiguous().mT
    return torch.bmm(slope, weight)


def _members(tensor: Tensor) -> Tensor | None:
    """[S, ...] of a tensor below one vmap; None for one that all members share."""
    value, dim = _functorch._unwrap_batched(tensor, 1)
    if dim is None:
        return None
    return cast(Tensor, value.movedim(dim, 0) if dim else value)


def _parsed(sequential: nn.Sequential) -> tuple[_Layer, ...]:
    """Its layers, or nothing where it is no chain."""
    layers: list[_Layer] = []
    for part in sequential:
        if part._forward_hooks or part._forward_pre_hooks:
            return ()
        if _is_affine(part):
            layers.append(_Layer(cast(nn.Linear, part), None))
        elif _is_known(part) and layers and layers[-1].act is None:
            layers[-1] = layers[-1]._replace(act=part)
        else:
            return ()
    return tuple(layers)


def _is_affine(part: nn.Module) -> bool:
    # A parametrized layer computes its weight anew at every reading.
    own = isinstance(part, nn.Linear) and type(part).forward is nn.Linear.forward
    return own and not hasattr(part, "parametrizations")


def _is_known(act: nn.Module) -> bool:
    # A leaky ReLU that folds the line cannot be undone from its output.
    return type(act) in _ACTIVATIONS and getattr(act, "negative_slope", 0) >= 0


def _act_(x: Tensor, act: nn.Module) -> None:
    """The activation, in place."""
    if isinstance(act, nn.LeakyReLU):
        torch.nn.functional.leaky_relu_(x, act.negative_slope)
    else:
        _ACTIVATIONS[type(act)][0](x)


def _undone(slope: Tensor, y: Tensor, act: nn.Module, own: bool) -> Tensor:
    """`slope` times the activation's derivative, from its output y; in place in an `own` slope."""
    kernel = _ACTIVATIONS[type(act)][1]
    options: tuple[float, ...] = (0,) if isinstance(act, nn.ReLU) else ()
    if isinstance(act, nn.LeakyReLU):
        options = (act.negative_slope, True)
    if own:
        return cast(Tensor, kernel.grad_input(slope, y, *options, grad_input=slope))
    return cast(Tensor, kernel(slope, y, *options))


# By class: the map in place, and the kernel of its derivative.
_ACTIVATIONS: dict[type[nn.Module], tuple[Any, Any]] = {
    nn.ReLU: (torch.relu_, _aten.threshold_backward),
    nn.LeakyReLU: (None, _aten.leaky_relu_backward),
    nn.Tanh: (torch.tanh_, _aten.tanh_backward),
    nn.Sigmoid: (torch.sigmoid_, _aten.sigmoid_backward),
}
