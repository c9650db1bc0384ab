"""A module that is shown the same input twice within one evaluation computes its output once."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Memo:
    """Stands in for a module's `forward`: keeps outputs by their input, until `clear`.

    For modules that are functions of parameters and input alone, and only as long as the parameters are the same. A
    critic's loss and a generator's both score the generated samples: that is one pass, not two. While it is `resting`
    it computes every output anew.
    """

    def __init__(self, module: nn.Module) -> None:
        self._forward, self.resting = module.forward, False
        self._kept: dict[Any, tuple[Tensor, int, Tensor, int]] = {}
        module.forward = self

    def clear(self) -> None:
        """Forget everything: the parameters are others."""
        self._kept.clear()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if (
            self.resting
            or kwargs
            or len(args) != 1
            or not isinstance(args[0], Tensor)
            or _transformed()
        ):
            return self._forward(*args, **kwargs)
        (x,) = args
        key = _key(x)
        if (hit := self._kept.get(key)) is not None:
            shown, seen, made, version = hit
            if shown._version == seen and made._version == version:
                return made
        made = self._forward(x)
        if isinstance(made, Tensor):
            self._kept[key] = x, x._version, made, made._version
        return made


def _key(x: Tensor) -> Any:
    """What identifies an input: itself where it has a graph, else the values that it points to."""
    graph = torch.is_grad_enabled()
    if x.requires_grad and graph:
        return id(x)
    return x.data_ptr(), x.dtype, x.shape, x.stride(), graph


def _transformed() -> bool:
    return torch._C._are_functorch_transforms_active()
