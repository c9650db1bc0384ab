"""Hooks on torch's gradient clipping."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from equilibrist.diagnosis._seen import Side


class ClippingListener(Protocol):
    """What is notified of a call."""

    sides: dict[str, Side]

    def clipped(self, params: Sequence[Tensor], limit: float, norm: float) -> None:
        """Clipping was called."""


class ClippingHook:
    """Notices calls of torch's clip_grad_norm_ and clip_grad_value_, however the loop has imported them.

    Nothing is noticed where torch has no such inner names.
    """

    NORM, VALUE = "_clip_grads_with_norm_", "_group_tensors_by_device_and_dtype"

    def __init__(self, recorder: ClippingListener) -> None:
        self._home: object = torch.nn.utils.clip_grad
        self._before = {
            name: getattr(self._home, name)
            for name in (self.NORM, self.VALUE)
            if hasattr(self._home, name)
        }
        inside = [False]  # clipping by norm groups tensors as well

        def by_norm(parameters: Any, max_norm: float, total_norm: Tensor, *a: Any, **k: Any) -> Any:
            params = [parameters] if isinstance(parameters, Tensor) else list(parameters)
            with contextlib.suppress(Exception):
                recorder.clipped(params, float(max_norm), float(total_norm))
            inside[0] = True
            try:
                return self._before[self.NORM](params, max_norm, total_norm, *a, **k)
            finally:
                inside[0] = False

        def by_value(tensors: Any, *a: Any, **k: Any) -> Any:
            if not inside[0]:
                with contextlib.suppress(Exception):
                    grads = {id(t) for part in tensors for t in part}
                    sides = recorder.sides.values()
                    params = [p for s in sides for p in s.params if id(p.grad) in grads]
                    if params:
                        recorder.clipped(params, 0.0, 0.0)
            return self._before[self.VALUE](tensors, *a, **k)

        for name, hook in ((self.NORM, by_norm), (self.VALUE, by_value)):
            if name in self._before:
                setattr(self._home, name, hook)

    def remove(self) -> None:
        """Puts torch's own back."""
        for name, before in self._before.items():
            setattr(self._home, name, before)
