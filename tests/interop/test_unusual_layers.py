"""Conditions, several inputs, norms, pooling and resampling, in pairs that are audited whole."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from unusual_modules import (
    IMAGES,
    POINTS,
    PixelNorm,
    audited,
    critic,
    judge,
    painter,
    works,
)

from equilibrist.errors import GameError


class LabelledGenerator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.net = nn.Embedding(3, 2), nn.Linear(6, 2)

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        return torch.sigmoid(self.net(torch.cat([z, self.table(label)], 1)))


class ProjectionCritic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.table = nn.Linear(2, 8), nn.Linear(8, 1), nn.Embedding(3, 8)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        h = F.leaky_relu(self.body(x), 0.2)
        return self.head(h) + (h * self.table(label)).sum(1, keepdim=True)


def test_embeddings_of_labels() -> None:
    labels = torch.arange(len(POINTS)) % 3
    works(LabelledGenerator, ProjectionCritic, (POINTS, labels), condition=3)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.content, self.style = nn.Linear(3, 8), nn.Linear(2, 8)
        self.last = nn.Linear(8, 2)

    def forward(self, content: Tensor, style: Tensor) -> Tensor:
        return self.last(torch.tanh(self.content(content) + self.style(style)))


class OneLatent(nn.Module):
    """What a user writes for a generator of two inputs: one latent, cut in two."""

    def __init__(self) -> None:
        super().__init__()
        self.net = TwoInputs()

    def forward(self, z: Tensor) -> Tensor:
        return self.net(*z.split([3, 2], 1))


def test_two_inputs_are_one_latent_cut_in_two() -> None:
    with pytest.raises(GameError, match=r"generator fails on latents.*argument: 'style'"):
        audited(TwoInputs(), critic(), latent=5)
    works(OneLatent, critic, POINTS, latent=5)


class UNet(nn.Module):
    """From image to image: strides down, PixelShuffle up, a skip connection, noise beside the image."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.deep = nn.Conv2d(2, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
        self.up = nn.Sequential(nn.Conv2d(4, 16, 3, 1, 1), nn.PixelShuffle(2))
        self.last = nn.Sequential(nn.Conv2d(8, 4, 3, 1, 1), nn.PixelShuffle(2), nn.Tanh())

    def forward(self, z: Tensor, image: Tensor) -> Tensor:
        h = F.relu(self.down(torch.cat([image, z], 1)))
        return self.last(torch.cat([self.up(F.relu(self.deep(h))), h], 1))


class PairPatches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(2, 4, 4, 2, 1), nn.InstanceNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3)
        )

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        return self.net(torch.cat([image, x], 1))


def test_a_u_net_with_pixel_shuffle_against_patches_of_pairs() -> None:
    pairs = (2 * IMAGES - 1, 2 * IMAGES.flip(3) - 1)
    works(UNet, PairPatches, pairs, latent=(1, 8, 8), condition=(1, 8, 8))


# -- norms, pooling, resampling ------------------------------------------------------------------------------


class SpatialTransformer(nn.Module):
    """Samples its input on an affine grid that it chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Linear(64, 6)
        nn.init.normal_(self.where.weight, std=0.01)
        self.where.bias.data.copy_(torch.tensor([1.0, 0.02, 0.05, 0.01, 0.9, 0.03]))

    def forward(self, x: Tensor) -> Tensor:
        place = self.where(x.flatten(1)).unflatten(1, (2, 3))
        grid = F.affine_grid(place, list(x.shape), align_corners=False)
        return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


LAYERS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "group norm": (lambda: nn.GroupNorm(2, 4), 256),
    "instance norm": (lambda: nn.InstanceNorm2d(4, affine=True), 256),
    "pixel-wise norm": (PixelNorm, 256),
    "max pooling": (lambda: nn.MaxPool2d(2), 64),
    "adaptive average pooling": (lambda: nn.AdaptiveAvgPool2d(3), 36),
    "adaptive max pooling": (lambda: nn.AdaptiveMaxPool2d(3), 36),
    "fractional max pooling": (lambda: nn.FractionalMaxPool2d(2, 4), 64),
    "reflection padding": (lambda: nn.ReflectionPad2d(1), 400),
    "bicubic upsampling": (lambda: nn.Upsample(scale_factor=2, mode="bicubic"), 1024),
    "pixel unshuffle": (lambda: nn.PixelUnshuffle(2), 256),
}


@pytest.mark.parametrize("name", LAYERS)
def test_norms_pooling_and_resampling(name: str) -> None:
    build, features = LAYERS[name]
    layers = lambda: (nn.LeakyReLU(0.2), build())  # noqa: E731
    works(painter, lambda: judge(*layers(), features=features), IMAGES)


def test_sampling_on_a_learnt_grid() -> None:
    layers = (nn.Flatten(), nn.Linear(64, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    works(painter, lambda: nn.Sequential(SpatialTransformer(), *layers), IMAGES)
