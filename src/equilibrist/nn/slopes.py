"""Piecewise linear activations whose second derivative is known to be zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from equilibrist.nn.functional import MISSING, WRONG_THIRD, Arguments, Options

_depth: ContextVar[int] = ContextVar("slopes", default=0)


def active() -> bool:
    """Whether what is computed now will be differentiated twice."""
    return _depth.get() > 0


class Slopes(TorchFunctionMode):
    """ReLU and leaky ReLU as x times a slope that is read off a detached x.

    Values and derivatives of every order are the same, for their second derivative is zero: autograd
    knows this only when the slope has no graph. Otherwise the second pass of a gradient penalty or of a
    Jacobian product carries tensors of zeros back through every layer of the forward pass: a third of
    a penalty's time, a tenth of a consensus step's.

    Functions that torch cannot differentiate twice are written out (`_written`). So are those whose third
    derivative is wrong, where it is needed: in a penalty within a Jacobian, which is one of these in another, or
    with `thrice`.
    """

    def __init__(self, thrice: bool = False) -> None:
        super().__init__()
        self.thrice = thrice

    def __enter__(self) -> Slopes:
        self._outer = _depth.set(_depth.get() + 1 + self.thrice)
        self._written = {**MISSING, **(WRONG_THIRD if _depth.get() > 1 else {})}
        entered: Slopes = super().__enter__()  # type: ignore[no-untyped-call]
        return entered

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)  # type: ignore[no-untyped-call]
        _depth.reset(self._outer)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Arguments = (),
        kwargs: Options | None = None,
    ) -> object:
        kwargs = kwargs or {}
        if func in _RELU and len(args) == 1 and not kwargs.get("inplace"):
            x = args[0]
            return torch.ops.aten.threshold_backward(x, x.detach(), 0)
        if func is torch.nn.functional.leaky_relu and args and not _inplace(args, kwargs):
            x, slope = args[0], args[1] if len(args) > 1 else kwargs.get("negative_slope", 0.01)
            return torch.ops.aten.leaky_relu_backward(x, x.detach(), slope, False)
        func = self._written.get(func, func)
        return func(*args, **kwargs)


_RELU = (torch.relu, torch.nn.functional.relu, Tensor.relu)


def _inplace(args: Arguments, kwargs: Options) -> bool:
    return bool(kwargs.get("inplace") or (len(args) > 2 and args[2]))
