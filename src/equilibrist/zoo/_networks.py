"""Small networks of the kinds that people train against each other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def mlp(
    entries: int, out: int, width: int = 64, depth: int = 2, slope: float = 0.0, end: str = ""
) -> nn.Sequential:
    """`depth` hidden layers; `slope` of a leaky ReLU; `end`: "sigmoid", "tanh" or nothing."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(entries, width), nn.LeakyReLU(slope) if slope else nn.ReLU()]
        entries = width
    layers.append(nn.Linear(width, out))
    if end:
        layers.append({"sigmoid": nn.Sigmoid(), "tanh": nn.Tanh()}[end])
    return nn.Sequential(*layers)


def normed_mlp(latent: int, out: int, width: int = 128, end: bool = True) -> nn.Sequential:
    """Two hidden layers with batch norm, and a sigmoid at the end."""
    layers: list[nn.Module] = []
    for entries in (latent, width):
        layers += [nn.Linear(entries, width), nn.BatchNorm1d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, out), nn.Sigmoid() if end else nn.Identity())


def critic_mlp(entries: int, width: int = 64, depth: int = 2, end: str = "") -> nn.Sequential:
    return mlp(entries, 1, width, depth, 0.2, end)


class ConvGenerator(nn.Module):
    """16 numbers to an image of 8x8 pixels in (0, 1) or (-1, 1), with or without batch norm."""

    def __init__(self, latent: int = 16, norm: bool = True, end: str = "sigmoid") -> None:
        super().__init__()
        self.start = nn.Linear(latent, 32 * 2 * 2)
        self.body = nn.Sequential(
            nn.BatchNorm2d(32) if norm else nn.Identity(),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, 2, 1),
            nn.BatchNorm2d(16) if norm else nn.Identity(),
            nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 4, 2, 1),
            nn.Tanh() if end == "tanh" else nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> Tensor:
        image: Tensor = self.body(self.start(z).view(-1, 32, 2, 2))
        return image


def conv_critic(spectral: bool = False, end: str = "") -> nn.Sequential:
    """An image of 8x8 pixels to one score."""
    layers: list[nn.Module] = [
        nn.Conv2d(1, 16, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(16, 32, 4, 2, 1),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.Linear(32 * 2 * 2, 1),
    ]
    if spectral:
        layers = [spectral_norm(x) if list(x.parameters()) else x for x in layers]
    if end:
        layers.append(nn.Sigmoid())
    return nn.Sequential(*layers)


def patch_critic() -> nn.Sequential:
    """An image of 8x8 pixels to a map of 2x2 scores."""
    return nn.Sequential(
        spectral_norm(nn.Conv2d(1, 16, 4, 2, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(16, 32, 4, 2, 1)),
        nn.LeakyReLU(0.2),
        spectral_norm(nn.Conv2d(32, 1, 1)),
    )


class FeatureCritic(nn.Module):
    """A score, and the features that led to it."""

    def __init__(self, entries: int, width: int = 64) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(entries, width), nn.LeakyReLU(0.2), nn.Linear(width, width), nn.LeakyReLU(0.2)
        )
        self.head = nn.Linear(width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x)
        return self.head(features), features


class ScalesCritic(nn.Module):
    """Two critics at two resolutions: a list of two scores."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = conv_critic(spectral=True)
        self.coarse = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), critic_mlp(16))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.fine(x), self.coarse(x)]


class LabelledGenerator(nn.Module):
    """(noise, label) to a flat image."""

    def __init__(self, latent: int = 16, out: int = 64, classes: int = 10) -> None:
        super().__init__()
        self.label = nn.Embedding(classes, 8)
        self.body = normed_mlp(latent + 8, out)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        image: Tensor = self.body(torch.cat([z, self.label(y)], 1))
        return image


class LabelledCritic(nn.Module):
    """(flat image, label) to a score: the label's embedding times the features (projection)."""

    def __init__(self, entries: int = 64, width: int = 128, classes: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(entries, width), nn.LeakyReLU(0.2))
        self.body.extend([nn.Linear(width, width), nn.LeakyReLU(0.2)])
        self.head = nn.Linear(width, 1)
        self.label = nn.Embedding(classes, width)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        features = self.body(x)
        score: Tensor = self.head(features) + (features * self.label(y)).mean(1, keepdim=True)
        return score
