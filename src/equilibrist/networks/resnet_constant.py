"""The residual pair with a constant number of filters, for faces at 64x64 pixels.

Mescheder, Nowozin and Geiger (The Numerics of GANs, NeurIPS 2017, arXiv:1705.10461) train DCGANs
without batch norm on CelebA by consensus optimisation, all layers equally wide and residual layers
added. The slides on that paper state no more. What follows is the form of the authors' published
code (LMescheder/TheNumericsOfGANs: its model `resnet_cf` and a CelebA script that uses it): filters
and latent dimension, 5x5 strided layers, one 3x3-3x3 residual layer after each with its branch
multiplied by 0.1, activations before each layer, LeakyReLU 0.2, tanh, Glorot's uniform weights
(slim's default). Not in that code; chosen: sizes other than 64 start at 4x4 pixels too, with as
many levels as they need.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from equilibrist.networks._layers import (
    Device,
    GlorotLinear,
    Placement,
    SameConv2d,
    SameConvTranspose2d,
    check_counts,
    check_shape,
    doublings,
    scaled_uniform_,
)


class ResidualLayer(nn.Module):
    """h + 0.1 conv2(a(conv1(a(h)))), a = LeakyReLU 0.2: [B, dim, n, n] to the same.

    3x3 convolutions of stride 1 with bias and `middle` channels between them. Initialisation:
    weights of variance 2 / (9 in + 9 out), uniform; biases 0.
    """

    def __init__(
        self, dim: int, middle: int, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        self.conv1 = _glorot(SameConv2d(dim, middle, 3, 1, **kind))
        self.conv2 = _glorot(SameConv2d(middle, dim, 3, 1, **kind))

    def forward(self, h: Tensor) -> Tensor:
        """[B, dim, n, n] -> [B, dim, n, n]."""
        inner = self.conv1(leaky_relu(h, 0.2))
        branch: Tensor = self.conv2(leaky_relu(inner, 0.2))
        return h + 0.1 * branch


class ResNetConstantGenerator(nn.Module):
    """Latent vectors [B, latent] to images [B, channels, size, size] with pixels in (-1, 1).

    | layer                                                  | output shape           |
    |--------------------------------------------------------|------------------------|
    | linear                                                 | dim x 4 x 4            |
    | log2(size / 4) - 1 times:                              |                        |
    | LeakyReLU, transposed conv, residual layer (dim // 2)  | dim x 8 x 8, ...       |
    | LeakyReLU, transposed conv, tanh                       | channels x size x size |

    Transposed convolutions are 5x5, stride 2, SAME, with bias. `size` is a power of two, at least 8.
    The defaults are the published script's: 2,208,067 parameters.

    Initialisation: weights uniform of variance 2 / (k^2 in + k^2 out) in kernels of size k (1 in the
    linear layer), biases 0.
    """

    def __init__(
        self,
        size: int = 64,
        dim: int = 128,
        latent: int = 256,
        channels: int = 3,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        levels = doublings(self, size)
        check_counts(self, 2, dim=dim)
        self.size, self.dim, self.latent, self.channels = size, dim, latent, channels
        self.linear = GlorotLinear(latent, 16 * dim, **kind)
        widths = [dim] * (levels - 1) + [channels]
        self.deconvs = nn.ModuleList(_glorot(SameConvTranspose2d(dim, w, **kind)) for w in widths)
        self.residuals = nn.ModuleList(
            ResidualLayer(dim, dim // 2, **kind) for _ in range(levels - 1)
        )

    def forward(self, z: Tensor) -> Tensor:
        """[B, latent] -> [B, channels, size, size]."""
        check_shape(self, "latent vectors", z, (self.latent,))
        h = self.linear(z).reshape(-1, self.dim, 4, 4)
        for deconv, residual in zip(self.deconvs[:-1], self.residuals, strict=True):
            h = residual(deconv(leaky_relu(h, 0.2)))
        return torch.tanh(self.deconvs[-1](leaky_relu(h, 0.2)))


class ResNetConstantCritic(nn.Module):
    """Images [B, channels, size, size] to one logit (or critic's value) each, shape [B].

    | layer                                                  | output shape                |
    |--------------------------------------------------------|-----------------------------|
    | conv, residual layer (dim)                             | dim x size / 2 x size / 2   |
    | log2(size / 4) - 1 times:                              |                             |
    | LeakyReLU, conv, residual layer (dim // 2)             | dim x size / 4 x size / 4   |
    | LeakyReLU, linear                                      | 1                           |

    In brackets: the channels inside the residual layer, which the published code leaves at dim in
    the first one. Convolutions are 5x5, stride 2, SAME, with bias. `size` is a power of two, at
    least 8. 1,979,073 parameters by default. Initialisation as in the generator.
    """

    def __init__(
        self,
        size: int = 64,
        dim: int = 128,
        channels: int = 3,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        levels = doublings(self, size)
        check_counts(self, 2, dim=dim)
        self.size, self.dim, self.channels = size, dim, channels
        widths = [channels] + [dim] * (levels - 1)
        self.convs = nn.ModuleList(_glorot(SameConv2d(w, dim, **kind)) for w in widths)
        middles = [dim] + [dim // 2] * (levels - 1)
        self.residuals = nn.ModuleList(ResidualLayer(dim, middle, **kind) for middle in middles)
        self.linear = GlorotLinear(16 * dim, 1, **kind)

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, size, size] -> [B]."""
        check_shape(self, "images", x, (self.channels, self.size, self.size))
        h = self.residuals[0](self.convs[0](x))
        for conv, residual in zip(self.convs[1:], self.residuals[1:], strict=True):
            h = residual(conv(leaky_relu(h, 0.2)))
        value: Tensor = self.linear(leaky_relu(h, 0.2).flatten(1))
        return value.squeeze(1)


def _glorot(layer: SameConv2d | SameConvTranspose2d) -> nn.Module:
    weight = layer.weight
    scaled_uniform_(
        weight, (2 / ((weight.shape[0] + weight.shape[1]) * weight[0, 0].numel())) ** 0.5
    )
    return layer
