"""Piecewise linear activations whose second derivative is known to be zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_active: ContextVar[bool] = ContextVar("slopes", default=False)


def active() -> bool:
    """Whether what is computed now will be differentiated twice."""
    return _active.get()


class Slopes(TorchFunctionMode):
    """ReLU and leaky ReLU as x times a slope that is read off a detached x.

    Values and derivatives of every order are the same, for their second derivative is zero: autograd
    knows this only when the slope has no graph. Otherwise the second pass of a gradient penalty or of a
    Jacobian product carries tensors of zeros back through every layer of the forward pass: a third of
    a penalty's time, a tenth of a consensus step's.
    """

    def __enter__(self) -> Slopes:
        self._outer = _active.set(True)
        entered: Slopes = super().__enter__()  # type: ignore[no-untyped-call]
        return entered

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        _active.reset(self._outer)

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
