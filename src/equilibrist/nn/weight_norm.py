"""Weight normalisation with right derivatives of second order, in the place of torch's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equilibrist.nn.torch_hooks import is_norm_hook


class _WeightNorm(nn.Module):
    """W = g v / |v|, the norm over all dimensions but `dim` (-1: over all).

    torch's own kernel has a wrong second derivative (torch 2.13, CPU: its backward pass takes the norm for
    a constant); this one is written out.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, g: Tensor, v: Tensor) -> Tensor:
        return v * (g / torch.norm_except_dim(v, 2, self.dim))


class _WeightNormHook:
    """The same as torch's older form has it: a hook before the forward pass."""

    def __init__(self, name: str, norm: _WeightNorm) -> None:
        self.name, self.norm = name, norm

    def __call__(self, module: nn.Module, inputs: object) -> None:
        own = module._parameters
        vars(module)[self.name] = self.norm(own[f"{self.name}_g"], own[f"{self.name}_v"])


def replace_weight_norm(module: nn.Module) -> None:
    """Replace torch's weight norm, in both of its forms, by one whose derivatives are right."""
    for layer in list(module.modules()):
        for key, hook in list(layer._forward_pre_hooks.items()):
            if is_norm_hook(hook, "WeightNorm"):
                layer._forward_pre_hooks[key] = _WeightNormHook(hook.name, _WeightNorm(hook.dim))
        if isinstance(layer, nn.utils.parametrize.ParametrizationList):
            for index, part in enumerate(layer):
                if type(part).__name__ == "_WeightNorm":
                    layer[index] = _WeightNorm(part.dim)  # type: ignore[arg-type]
