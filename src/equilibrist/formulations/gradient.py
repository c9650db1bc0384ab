"""Gradients of a critic's scores by its input: what penalties and transport costs are made of."""

from __future__ import annotations

import torch
from torch import Tensor

from equilibrist.formulations._base import Critic
from equilibrist.nn.functional import grad
from equilibrist.nn.slopes import Slopes


def input_gradient(critic: Critic, x: Tensor) -> Tensor:
    """grad_x D(x_i) for each sample i, shape of `x`; differentiable, and right under vmap.

    Needs a critic that scores each sample by itself: batch norm would mix their gradients. Where
    gradients are recorded, it is differentiable by the critic's parameters and by whatever `x` was made
    of. ReLU and leaky ReLU are taken as multiplications by their slopes (see `Slopes`).

    Args:
        critic: scores samples, each by itself.
        x: samples [batch, ...].

    Returns:
        The gradients, in the shape of `x`.

    Examples:
        >>> import torch
        >>> from equilibrist.penalties import input_gradient
        >>> input_gradient(lambda x: x.square().sum(1), torch.tensor([[1.0, 2.0]])).tolist()
        [[2.0, 4.0]]
    """
    if torch._C._are_functorch_transforms_active():
        with Slopes():
            total = torch.func.grad(lambda points: critic(points).sum())
            gradient: Tensor = total(x)
        return gradient
    # Outside of torch.func's transforms plain autograd does the same with less overhead.
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad(), Slopes():
        points = x if x.requires_grad and differentiable else x.detach().requires_grad_()
        scores = critic(points).sum()
        if not scores.requires_grad:  # a critic that is constant
            return torch.zeros_like(x)
        record = differentiable and (points is x or _depends_beyond(scores, points))
        (plain,) = grad(scores, points, create_graph=record, materialize_grads=True)
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
