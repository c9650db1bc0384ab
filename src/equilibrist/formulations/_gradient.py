"""Gradients of a critic's scores by its input: what penalties and transport costs are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from equilibrist.formulations._base import Critic


def input_gradient(critic: Critic, x: Tensor) -> Tensor:
    """grad_x D(x_i) for each sample i, shape of `x`; differentiable, and right under vmap.

    Needs a critic that scores each sample by itself: batch norm would mix their gradients. Where
    gradients are recorded, it is differentiable by the critic's parameters and by whatever `x` was made
    of. ReLU and leaky ReLU are taken as multiplications by their slopes (see `_Slopes`).
    """
    if torch._C._are_functorch_transforms_active():
        with _Slopes():
            total = torch.func.grad(lambda points: critic(points).sum())
            gradient: Tensor = total(x)
        return gradient
    # Outside vmap and its kin plain autograd does the same with less overhead.
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad(), _Slopes():
        points = x if x.requires_grad and differentiable else x.detach().requires_grad_()
        scores = critic(points).sum()
        if not scores.requires_grad:  # a critic that is constant
            return torch.zeros_like(x)
        record = differentiable and (points is x or _depends_beyond(scores, points))
        (plain,) = torch.autograd.grad(scores, points, create_graph=record, materialize_grads=True)
    return plain


def _depends_beyond(value: Tensor, points: Tensor) -> bool:
    """Whether `value` has a graph to any leaf but `points`: our own leaf must not make a penalty look as
    if it could be differentiated. The parameters of the last layer are found after a few nodes."""
    pending, seen = [value.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable") and node.variable is not points:
            return True
        pending += [following for following, _ in node.next_functions]
    return False


class _Slopes(TorchFunctionMode):
    """ReLU and leaky ReLU as x times a slope that is read off a detached x.

    Values and derivatives of every order are the same, for their second derivative is zero: autograd
    knows this only when the slope has no graph. Otherwise the second pass of a gradient penalty
    carries a tensor of zeros back through every layer of the critic's forward pass, a third of its time.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _RELU and len(args) == 1 and not kwargs.get("inplace"):
            x = args[0]
            return torch.ops.aten.threshold_backward(x, x.detach(), 0)
        if func is torch.nn.functional.leaky_relu and args and not _inplace(args, kwargs):
            x, slope = args[0], args[1] if len(args) > 1 else kwargs.get("negative_slope", 0.01)
            return torch.ops.aten.leaky_relu_backward(x, x.detach(), slope, False)
        return func(*args, **kwargs)


_RELU = (torch.relu, torch.nn.functional.relu, Tensor.relu)


def _inplace(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    return bool(kwargs.get("inplace") or (len(args) > 2 and args[2]))
