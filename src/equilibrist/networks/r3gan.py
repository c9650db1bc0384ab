"""A small modern pair without normalisation layers, after R3GAN.

Huang, Gokaslan, Kuleshov and Tompkin, The GAN is dead; long live the GAN! A Modern GAN Baseline
(NeurIPS 2024, arXiv:2501.05441), and the authors' published code (brownvc/R3GAN). Taken from there:
the residual block, its initialisation, resampling by a fixed filter outside the blocks, the 4x4
bases at either end, labels as a vector beside z and as a scalar product in the critic, no output
activation. Different here: one width at all resolutions (theirs may vary), far smaller defaults
(their CIFAR-10 networks have width 768, groups of 16 channels and latent 64), one number type
instead of 16-bit inner layers, plain operations instead of CUDA extensions. The loss (relativistic
pairing with R1 and R2 penalties) is no part of the networks.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad

from equilibrist.networks._layers import Device, Placement, check_shape, doublings
from equilibrist.networks.conditional import LabelEmbedding, label_vectors, with_labels

SLOPE = 0.2
GAIN = (2 / (1 + SLOPE**2)) ** 0.5
"""Keeps the mean square of a LeakyReLU's output at that of its normal input."""


class R3Block(nn.Module):
    """h + project(a(grouped(a(expand(h))))), a = LeakyReLU 0.2: [B, width, n, n] to the same.

    `expand` is a 1x1 convolution to `expansion` width channels, `grouped` a 3x3 one in groups of
    `group` channels, `project` a 1x1 one back; the first two have biases. Initialisation (fix-up,
    Zhang, Dauphin and Ma, ICLR 2019, arXiv:1901.09321): `project` zero, so that the block begins as
    the identity; the others normal of standard deviation GAIN depth^(-1/4) / sqrt(fan in), `depth`
    the number of blocks in the network; biases 0.
    """

    def __init__(
        self,
        width: int,
        depth: int,
        expansion: int = 2,
        group: int = 16,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        inner = expansion * width
        if group < 1 or inner % group:
            raise ValueError(
                f"groups of {group} channels do not divide expansion * width = {inner}: choose a "
                f"divisor of {inner}"
            )
        gain = GAIN * depth**-0.25
        self.expand = _normal(nn.Conv2d(width, inner, 1, **kind), gain)
        groups = inner // group
        self.grouped = _normal(nn.Conv2d(inner, inner, 3, padding=1, groups=groups, **kind), gain)
        self.project = _normal(nn.Conv2d(inner, width, 1, bias=False, **kind), 0)

    def forward(self, h: Tensor) -> Tensor:
        """[B, width, n, n] -> [B, width, n, n]."""
        inner = leaky_relu(self.expand(h), SLOPE)
        inner = leaky_relu(self.grouped(inner), SLOPE)
        branch: Tensor = self.project(inner)
        return h + branch


class R3GANGenerator(nn.Module):
    """Latent vectors [B, latent] (and labels [B]) to images [B, channels, size, size].

    | layer                                                   | output shape           |
    |---------------------------------------------------------|------------------------|
    | linear, each output times its learned 4x4 picture       | width x 4 x 4          |
    | blocks                                                  | width x 4 x 4          |
    | `upsampled`, blocks: log2(size / 4) times               | width x 8 x 8, ...     |
    | conv 1x1                                                | channels x size x size |

    Pixels are not confined: nothing follows the last convolution. `size` is a power of two, at
    least 8; a resolution has `blocks` blocks (`R3Block`: `expansion`, `group`). With S = blocks
    (log2(size / 4) + 1) blocks, e = expansion and latent + latent inputs where there are labels:
    width (inputs + 16 + channels) + S (2 e width^2 + 9 e width group + 2 e width) parameters, and
    `conditions` latent for the labels' vectors. 285,888 by default.

    Initialisation: pictures N(0, 1); other weights outside the blocks normal of variance 1 / fan
    in, the labels' vectors of variance 1 / K. Blocks begin as identities, so images are at first
    linear in z.
    """

    # Many parameters, for the paper's sizes differ in each; all have defaults.
    def __init__(
        self,
        size: int = 32,
        width: int = 64,
        latent: int = 64,
        blocks: int = 2,
        expansion: int = 2,
        group: int = 16,
        channels: int = 3,
        conditions: int = 0,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        stages = doublings(self, size) + 1
        self.size, self.width, self.latent, self.channels = size, width, latent, channels
        self.conditions = conditions
        self.embedding = (
            LabelEmbedding(conditions, latent, conditions**-0.5, **kind) if conditions else None
        )
        inputs = 2 * latent if conditions else latent
        self.linear = _normal(nn.Linear(inputs, width, bias=False, **kind))
        self.basis = nn.Parameter(torch.empty(width, 4, 4, **kind))
        nn.init.normal_(self.basis)
        self.stages = _stages(stages, blocks, width, expansion, group, kind)
        self.conv = _normal(nn.Conv2d(width, channels, 1, bias=False, **kind))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent] (and [B]) -> [B, channels, size, size]."""
        check_shape(self, "latent vectors", z, (self.latent,))
        h = with_labels(self, self.embedding, z, y)
        h = self.stages[0](self.linear(h)[:, :, None, None] * self.basis)
        for stage in self.stages[1:]:
            h = stage(upsampled(h))
        return cast(Tensor, self.conv(h))


class R3GANCritic(nn.Module):
    """Images [B, channels, size, size] (and labels [B]) to one value each, shape [B].

    | layer                                                   | output shape           |
    |---------------------------------------------------------|------------------------|
    | conv 1x1                                                | width x size x size    |
    | blocks, `downsampled`: log2(size / 4) times             | width x size / 2, ...  |
    | blocks                                                  | width x 4 x 4          |
    | each channel's scalar product with a learned 4x4 picture| width                  |
    | linear                                                  | 1                      |

    With `conditions=K` the last linear map has `width` outputs and the score is their scalar
    product with the label's vector e_y. With S and e as in the generator: width (channels + 16 + 1)
    + S (2 e width^2 + 9 e width group + 2 e width) parameters; K classes add width (width - 1 + K).
    281,856 by default.

    Initialisation: as in the generator, the labels' vectors of variance 1 / (K width). Blocks
    begin as identities, so scores are at first linear in x. Not for spectral normalisation, which
    divides by the norm of `project`, zero at the start.
    """

    # Many parameters, for the paper's sizes differ in each; all have defaults.
    def __init__(
        self,
        size: int = 32,
        width: int = 64,
        blocks: int = 2,
        expansion: int = 2,
        group: int = 16,
        channels: int = 3,
        conditions: int = 0,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        stages = doublings(self, size) + 1
        self.size, self.width, self.channels = size, width, channels
        self.conditions = conditions
        self.conv = _normal(nn.Conv2d(channels, width, 1, bias=False, **kind))
        self.stages = _stages(stages, blocks, width, expansion, group, kind)
        self.basis = _normal(nn.Conv2d(width, width, 4, groups=width, bias=False, **kind))
        self.linear = _normal(nn.Linear(width, width if conditions else 1, bias=False, **kind))
        self.embedding = (
            LabelEmbedding(conditions, width, (conditions * width) ** -0.5, **kind)
            if conditions
            else None
        )

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, channels, size, size] (and [B]) -> [B]."""
        check_shape(self, "images", x, (self.channels, self.size, self.size))
        h = self.conv(x)
        for stage in self.stages[:-1]:
            h = downsampled(stage(h))
        h = self.basis(self.stages[-1](h)).flatten(1)
        value: Tensor = self.linear(h)
        vectors = label_vectors(self, self.embedding, y, len(x))
        return value.squeeze(1) if vectors is None else (value * vectors).sum(1)


def upsampled(h: Tensor) -> Tensor:
    """[B, C, n, n] -> [B, C, 2n, 2n]: bilinear interpolation, with zeros beyond the border.

    Along each axis out[2i] = (h[i-1] + 3 h[i]) / 4 and out[2i+1] = (3 h[i] + h[i+1]) / 4, that is,
    zeros between the pixels and then the filter (1, 3, 3, 1) / 4.
    """
    return _doubled(_doubled(h).mT).mT


def downsampled(h: Tensor) -> Tensor:
    """[B, C, 2n, 2n] -> [B, C, n, n]: a quarter of the adjoint of `upsampled`.

    Along each axis out[i] = (h[2i-1] + 3 h[2i] + 3 h[2i+1] + h[2i+2]) / 8, with zeros beyond the
    border: the filter (1, 3, 3, 1) / 8, then every second pixel.
    """
    return _halved(_halved(h).mT).mT


def _doubled(h: Tensor) -> Tensor:
    padded = pad(h, (1, 1))
    left, right = padded[..., :-2], padded[..., 2:]
    return torch.stack([left + 3 * h, 3 * h + right], -1).flatten(-2) / 4


def _halved(h: Tensor) -> Tensor:
    padded = pad(h, (1, 1))
    outer = padded[..., :-3:2] + padded[..., 3::2]
    return (outer + 3 * (h[..., ::2] + h[..., 1::2])) / 8


def _stages(
    stages: int, blocks: int, width: int, expansion: int, group: int, kind: Placement
) -> nn.ModuleList:
    if blocks < 1:
        raise ValueError(f"R3GAN needs at least 1 block for each resolution, not {blocks}")
    return nn.ModuleList(
        nn.Sequential(
            *(R3Block(width, stages * blocks, expansion, group, **kind) for _ in range(blocks))
        )
        for _ in range(stages)
    )


def _normal(layer: nn.Conv2d | nn.Linear, gain: float = 1) -> nn.Module:
    fan_in = layer.weight[0].numel()
    nn.init.normal_(layer.weight, std=gain * fan_in**-0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
