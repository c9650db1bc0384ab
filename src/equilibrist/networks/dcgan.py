"""The reference DCGAN of `levels` strided layers, whatever the image size.

After the CIFAR-10 networks in the code of Gulrajani et al. (Improved Training of Wasserstein GANs,
NeurIPS 2017, arXiv:1704.00028); `cifar10_dcgan` and `dcgan64` have the usual numbers of layers.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from equilibrist.networks._layers import (
    Device,
    GlorotLinear,
    Placement,
    SameConv2d,
    SameConvTranspose2d,
    batch_statistics,
    check_counts,
    check_shape,
)
from equilibrist.networks.conditional import (
    LabelEmbedding,
    label_vectors,
    projection_embedding,
    projection_score,
    with_labels,
)


class DCGANGenerator(nn.Module):
    """Latent vectors [B, latent] (and labels [B]) to images [B, channels, size, size] in (-1, 1).

    `image` is (channels, size). A linear layer makes size / 2^levels pixels along each side, 2^(levels - 1) dim
    channels wide; each of the `levels` transposed convolutions doubles the side and halves the width. See
    `CIFAR10Generator`, which has three of them, for the layers, batch norm, conditions and the initialisation.

    Raises `ValueError` for a size that is no multiple of 2^levels, and for counts below 1.
    """

    def __init__(
        self,
        levels: int,
        image: tuple[int, int],
        dim: int,
        latent: int,
        batch_norm: bool,
        conditions: int = 0,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        channels, size = image
        _check(self, dim=dim, latent=latent, channels=channels, conditions=conditions)
        self.dim, self.latent, self.channels = dim, latent, channels
        self.start = _start(self, size, levels)
        self.conditions = conditions
        self.embedding = LabelEmbedding(conditions, latent, **kind) if conditions else None
        widths = [dim << level for level in reversed(range(levels))]
        features = self.start**2 * widths[0]
        self.linear = GlorotLinear(latent * (2 if conditions else 1), features, **kind)
        self.deconvs = nn.ModuleList(
            SameConvTranspose2d(a, b, **kind) for a, b in pairwise([*widths, channels])
        )
        self.norms = nn.ModuleList(
            [batch_statistics(nn.BatchNorm1d, features, batch_norm, kind)]
            + [batch_statistics(nn.BatchNorm2d, width, batch_norm, kind) for width in widths[1:]]
        )

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent] (and [B]) -> [B, channels, size, size]."""
        check_shape(self, "latent vectors", z, (self.latent,))
        h = with_labels(self, self.embedding, z, y)
        h = torch.relu(self.norms[0](self.linear(h))).reshape(len(z), -1, self.start, self.start)
        for deconv, norm in zip(self.deconvs[:-1], self.norms[1:], strict=True):
            h = torch.relu(norm(deconv(h)))
        return torch.tanh(self.deconvs[-1](h))


class DCGANCritic(nn.Module):
    """Images [B, channels, size, size] (and labels [B]) to one value each, shape [B].

    `image` is (channels, size). The width is dim after the first of `levels` convolutions, doubled by each further
    one; they leave size / 2^levels pixels along each side. See `CIFAR10Critic`, which has three of them.

    Raises `ValueError` for a size that is no multiple of 2^levels, and for counts below 1.
    """

    def __init__(
        self,
        levels: int,
        image: tuple[int, int],
        dim: int,
        batch_norm: bool,
        conditions: int = 0,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        kind = Placement(device=device, dtype=dtype)
        channels, size = image
        _check(self, dim=dim, channels=channels, conditions=conditions)
        self.dim, self.channels, self.size = dim, channels, size
        self.conditions = conditions
        widths = [dim << level for level in range(levels)]
        self.convs = nn.ModuleList(
            SameConv2d(a, b, **kind) for a, b in pairwise([channels, *widths])
        )
        self.norms = nn.ModuleList(
            [nn.Identity()]
            + [batch_statistics(nn.BatchNorm2d, w, batch_norm, kind) for w in widths[1:]]
        )
        features = _start(self, size, levels) ** 2 * widths[-1]
        self.linear = GlorotLinear(features, 1, **kind)
        self.embedding = projection_embedding(conditions, features, **kind) if conditions else None

    def features(self, x: Tensor) -> Tensor:
        """[B, channels, size, size] -> what the last map reads."""
        check_shape(self, "images", x, (self.channels, self.size, self.size))
        h = x
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = leaky_relu(norm(conv(h)), 0.2)
        return h.flatten(1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, channels, size, size] (and [B]) -> [B]."""
        phi = self.features(x)
        return projection_score(self.linear, phi, label_vectors(self, self.embedding, y, len(phi)))


def _check(owner: nn.Module, *, conditions: int, **counts: int) -> None:
    check_counts(owner, **counts)
    if conditions < 0:
        raise ValueError(
            f"{type(owner).__name__}.conditions must be 0 (no labels) or the number of classes, "
            f"not {conditions}"
        )


def _start(owner: nn.Module, size: int, levels: int) -> int:
    """Pixels along a side where the image is smallest."""
    if levels < 1 or size < 1 or size % (1 << levels):
        raise ValueError(
            f"{type(owner).__name__} halves its images {levels} times: a size of {size} does not allow it"
        )
    return size >> levels
