"""Fully connected networks, and the pair for mixtures of Gaussians in the plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from equilibrist.networks._layers import Device, GlorotLinear, Placement, check_shape


class MLP(nn.Module):
    """Affine maps between the given sizes with an activation between them: [B, first] -> [B, last].

    `sizes` lists the widths from input to output, at least two; nothing follows the last map.
    `activation` makes one activation module (`nn.ReLU`, `nn.Tanh`, a lambda). Parameters:
    sum of (sizes[i] + 1) sizes[i + 1]. Initialisation is that of `nn.Linear`: weights and biases
    uniform on +-1 / sqrt(inputs); or, with `glorot`, weights uniform of variance 2 / (in + out) and
    biases 0.

    Examples:
        >>> import torch
        >>> from equilibrist.networks import MLP
        >>> MLP([2, 16, 1])(torch.zeros(5, 2)).shape
        torch.Size([5, 1])
    """

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        glorot: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if len(sizes) < 2:
            raise ValueError(f"MLP expects at least two sizes (input, output), got {list(sizes)}")
        if any(size < 1 for size in sizes):
            raise ValueError(f"MLP expects sizes of at least 1, got {list(sizes)}")
        self.sizes = tuple(sizes)
        linear = GlorotLinear if glorot else nn.Linear
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip(self.sizes[:-1], self.sizes[1:], strict=True):
            layers += [linear(fan_in, fan_out, device=device, dtype=dtype), activation()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """[B, first size] -> [B, last size]."""
        check_shape(self, "input", x, self.sizes[:1])
        return cast(Tensor, self.layers(x))


class MixtureGenerator(MLP):
    """Latent vectors [B, latent] to points [B, 2]: `depth` hidden ReLU layers of `width` units.

    The defaults are the networks of Mescheder, Nowozin and Geiger (The Numerics of GANs, NeurIPS
    2017, arXiv:1705.10461) for the circle of 8 Gaussians, with 1,122 parameters. Initialisation:
    `nn.Linear`'s; with `glorot=True` that of the authors' published notebook (slim's default), whose
    weights are larger by sqrt(3) between layers of equal width and whose biases start at 0.
    """

    def __init__(
        self,
        latent: int = 16,
        width: int = 16,
        depth: int = 4,
        *,
        glorot: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kind = Placement(device=device, dtype=dtype)
        super().__init__([latent, *_hidden(width, depth), 2], glorot=glorot, **kind)


class MixtureCritic(MLP):
    """Points [B, 2] to one logit (or critic's value) each, shape [B].

    `depth` hidden ReLU layers of `width` units; 881 parameters by default. Source and
    initialisation as for `MixtureGenerator`.
    """

    def __init__(
        self,
        width: int = 16,
        depth: int = 4,
        *,
        glorot: bool = False,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        kind = Placement(device=device, dtype=dtype)
        super().__init__([2, *_hidden(width, depth), 1], glorot=glorot, **kind)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 2] -> [B]."""
        return super().forward(x).squeeze(1)


def _hidden(width: int, depth: int) -> list[int]:
    if depth < 0:
        raise ValueError(f"depth must not be negative, got {depth}")
    return [width] * depth
