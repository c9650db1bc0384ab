"""Functions of torch written out, where torch's own derivatives are wrong or missing (2.13, CPU).

The kernels of batch, instance and layer norm have a right first and second derivative and a wrong third one: that
of their double backward pass. A gradient penalty makes the second derivative part of the loss, and the Jacobian
of such a game needs the third. Group and RMS norm are right.

Attention, `cdist`, `pdist` and hard sigmoid have no second derivative at all.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar, cast

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.nn.attention import SDPBackend, sdpa_kernel

from equilibrist.errors import GameError

P = ParamSpec("P")
T = TypeVar("T")
Replacements = dict[Callable[..., object], Callable[..., object]]  # by torch's own function
# Of a call of one of torch's functions, as function modes are given them.
Arguments = tuple[Any, ...]
Options = dict[str, Any]


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm`."""
    if training and running_mean is not None:
        with torch.no_grad():  # moves the running statistics on
            F.batch_norm(input.detach(), running_mean, running_var, None, None, True, momentum, eps)
    over = [0, *range(2, input.ndim)]
    if training or running_mean is None or running_var is None:
        found = _standardised(input, over, eps)
    else:
        found = (input - _channels(running_mean, input)) / (
            _channels(running_var, input) + eps
        ).sqrt()
    return _scaled_channels(found, weight, bias)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.instance_norm`."""
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    if running_mean is not None:
        with torch.no_grad():
            F.instance_norm(
                input.detach(), running_mean, running_var, None, None, True, momentum, eps
            )
    found = _standardised(input, list(range(2, input.ndim)), eps)
    return _scaled_channels(found, weight, bias)


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.layer_norm`."""
    over = list(range(-len(normalized_shape), 0))
    return _scaled(_standardised(input, over, eps), weight, bias)


def by_matrix_products(attention: Callable[P, T]) -> Callable[P, T]:
    """One of torch's functions of attention, by matrix products, whose derivatives torch knows."""

    @functools.wraps(attention)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        with sdpa_kernel(SDPBackend.MATH):
            return attention(*args, **kwargs)

    return called


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "") -> Tensor:
    """`torch.cdist` by differences; derivatives are zero where a distance is."""
    return _norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """`torch.nn.functional.pdist` by differences, in the same way."""
    rows, columns = torch.triu_indices(len(input), len(input), 1, device=input.device)
    return _norm(input[rows] - input[columns], p)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    found = (input + 3).clamp(0, 6) / 6
    return input.copy_(found) if inplace else found


def _norm(difference: Tensor, p: float) -> Tensor:
    zero = (difference == 0).all(-1, keepdim=True)
    # A norm has no derivative at zero, and its second one would be NaN.
    safe = torch.where(zero, 1.0, difference)
    return torch.where(zero.squeeze(-1), 0.0, torch.linalg.vector_norm(safe, p, -1))


def _standardised(x: Tensor, over: list[int], eps: float) -> Tensor:
    centred = x - x.mean(over, keepdim=True)
    return centred / (centred.square().mean(over, keepdim=True) + eps).sqrt()


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def _scaled_channels(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    return _scaled(x, *(None if t is None else _channels(t, x) for t in (weight, bias)))


def _channels(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (like.ndim - 2))


MISSING: Replacements = {
    F.scaled_dot_product_attention: by_matrix_products(F.scaled_dot_product_attention),
    F.multi_head_attention_forward: by_matrix_products(F.multi_head_attention_forward),
    torch.cdist: cdist,
    torch.pdist: pdist,
    F.pdist: pdist,
    F.hardsigmoid: hardsigmoid,
}
WRONG_THIRD: Replacements = {
    F.batch_norm: batch_norm,
    F.instance_norm: instance_norm,
    F.layer_norm: layer_norm,
}

# What cannot be written out in a line or two, by the name in torch's own error, and the cure.
_CURES = {
    "embedding_bag": "take nn.Embedding and a sum or mean over its second dimension",
    "scaled_dot_product": "call it under torch.nn.attention.sdpa_kernel(SDPBackend.MATH)",
    "dist_backward": "take torch.linalg.vector_norm of differences",
    "hardsigmoid": "take clamp(x / 6 + 0.5, 0, 1)",
    "out=...": "nn.CrossMapLRN2d has none, take nn.LocalResponseNorm",
}


def grad(*args: Any, **options: Any) -> tuple[Tensor, ...]:
    """`torch.autograd.grad`; a GameError with the cure where a layer has no derivative of that order."""
    try:
        return cast(tuple[Tensor, ...], torch.autograd.grad(*args, **options))
    except RuntimeError as error:
        first = str(error).splitlines()[0] if str(error) else ""
        absent = "derivative for" in first and "not implemented" in first
        if not absent and "don't support automatic differentiation" not in first:
            raise
        cure = next((cure for key, cure in _CURES.items() if key in first), "take another one")
        raise GameError(
            f"torch cannot differentiate a layer of this game twice ({first}): {cure}"
        ) from error


def in_transform() -> bool:
    """Whether a module is called within one of `torch.func`'s transforms, or compiled: its tensors hold no values."""
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
