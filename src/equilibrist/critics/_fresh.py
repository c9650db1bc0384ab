"""An untrained critic of the same class: a copy of the module whose parameters are drawn again."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import parametrize

from equilibrist.errors import GameError
from equilibrist.nn.noise import GLOBAL, seeded
from equilibrist.nn.torch_hooks import is_norm_hook
from equilibrist.nn.wrapped import copied


def fresh_critic(
    module: nn.Module, make: Callable[[], nn.Module] | None, seed: int
) -> tuple[nn.Module, list[str]]:
    """A critic of the class that has not been trained.

    Args:
        module: the trained critic, which is left alone.
        make: makes an untrained critic; None to draw the parameters of a copy again.
        seed: of the draws.

    Returns:
        The critic, and the names of parameters without a rule, which kept their trained values.

    Raises:
        GameError: what `make` returns is no module.
    """
    with seeded(seed, GLOBAL):
        if make is not None:
            made = make()
            if not isinstance(made, nn.Module):
                raise GameError(
                    f"fresh() returns {type(made).__name__}: it must return an nn.Module"
                )
            like = next(module.parameters())
            return made.to(like.device, like.dtype).train(module.training), []
        made = copied(module, "critic")
        return made, _redrawn(made)


@torch.no_grad()
def _redrawn(module: nn.Module) -> list[str]:
    """Draw parameters again by each layer's own rule, and matrices without a rule as linear layers draw theirs."""
    before = {name: p.clone() for name, p in module.named_parameters()}
    ruled: set[str] = set()
    for path, layer in module.named_modules():
        if parametrize.is_parametrized(layer):
            ruled |= _of_parametrised(path, layer)
            continue
        reset = getattr(layer, "reset_parameters", None) or getattr(
            layer, "_reset_parameters", None
        )
        if callable(reset):
            reset()
            own = layer.named_parameters(prefix=path, recurse=hasattr(layer, "_reset_parameters"))
            ruled |= {name for name, _ in own}
        _of_hooks(layer)
    kept = []
    for name, p in module.named_parameters():
        if name in ruled or not torch.equal(p, before[name]):
            continue
        if p.ndim < 2:
            kept.append(name)
        else:
            nn.init.kaiming_uniform_(p, a=math.sqrt(5))
    return kept


def _of_parametrised(path: str, layer: nn.Module) -> set[str]:
    """A layer whose weights are computed (weight norm, spectral norm): drawn again through what computes them."""
    parametrizations = layer.parametrizations
    assert isinstance(parametrizations, nn.ModuleDict)
    for name in list(parametrizations):
        drawn = torch.empty_like(getattr(layer, name))
        if drawn.ndim > 1:
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5))
        else:
            drawn.uniform_(-1, 1)
        try:
            setattr(layer, name, drawn)
        except (NotImplementedError, RuntimeError):  # no way back from weights to parameters
            for p in parametrizations[name].parameters():
                if p.ndim > 1:
                    nn.init.kaiming_uniform_(p, a=math.sqrt(5))
    bias = layer._parameters.get("bias")
    if bias is not None:
        bias.zero_()
    return {name for name, _ in layer.named_parameters(prefix=path)}


def _of_hooks(layer: nn.Module) -> None:
    """torch's older weight norm: the magnitude is that of the newly drawn direction."""
    for hook in layer._forward_pre_hooks.values():
        if is_norm_hook(hook, "WeightNorm"):
            name, dim = hook.name, hook.dim
            v, g = layer._parameters[f"{name}_v"], layer._parameters[f"{name}_g"]
            assert v is not None
            assert g is not None
            nn.init.kaiming_uniform_(v, a=math.sqrt(5))
            g.copy_(torch.norm_except_dim(v, 2, dim))
