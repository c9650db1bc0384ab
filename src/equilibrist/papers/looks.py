"""What looks at samples: the scores that the experiments use, by data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from equilibrist.certificates import Json
from equilibrist.errors import DataError
from equilibrist.scores import ClassScore, FeatureNetwork, Frechet, Score

LENET, RESNET = "mnist_lenet.npz", "cifar10_resnet56.npz"


class LeNet(nn.Module):
    """Convolutions 1-16-32 of 5x5 with pooling, then 800-128-96-10, for 32x32 images in [-1, 1]; `features`
    stops at 96. The layout of a published classifier of MNIST (GAN-optimization-landscape, 99.4% of test digits)."""

    def __init__(self, features: bool) -> None:
        super().__init__()
        self.features = features
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 5), nn.Conv2d(16, 32, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(800, 128), nn.Linear(128, 96), nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.conv1(x).relu(), 2)
        x = functional.max_pool2d(self.conv2(x).relu(), 2).flatten(1)
        x = self.fc2(self.fc1(x).relu()).relu()
        out: Tensor = x if self.features else self.fc3(x)
        return out


class _Block(nn.Module):
    """Two 3x3 convolutions around a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.extra, self.stride = (after - before) // 2, stride

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.extra or self.stride > 1:
            x = functional.pad(
                x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.extra, self.extra)
            )
        shorter: Tensor = (out + x).relu()
        return shorter


class ResNet56(nn.Module):
    """ResNet-56 for 32x32 images in [0, 1], which it normalises by ImageNet's moments; `features` are the 64
    averages before the last layer. The layout of a published classifier (pytorch_resnet_cifar10, 93.4%)."""

    def __init__(self, features: bool) -> None:
        super().__init__()
        self.features = features
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        widths = (16, 16, 32, 64)
        layers = [
            nn.Sequential(
                *(
                    _Block(before if i == 0 else after, after, stride if i == 0 else 1)
                    for i in range(9)
                )
            )
            for before, after, stride in zip(widths, widths[1:], (1, 2, 2), strict=False)
        ]
        self.layer1, self.layer2, self.layer3 = layers
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        mean = torch.tensor([0.485, 0.456, 0.406], dtype=x.dtype, device=x.device)
        std = torch.tensor([0.229, 0.224, 0.225], dtype=x.dtype, device=x.device)
        x = (x - mean[:, None, None]) / std[:, None, None]
        x = self.bn1(self.conv1(x)).relu()
        x = self.layer3(self.layer2(self.layer1(x))).mean((2, 3))
        out: Tensor = x if self.features else self.linear(x)
        return out


def looks(data: str, weights: Path | None, samples: int = 2048) -> tuple[Score, ...]:
    """The scores for a data set: pixels always, a classifier where its weights are there.

    Args:
        data: "digits", "mnist" or "cifar10".
        weights: a folder with the classifiers' weights, or None.
        samples: how many samples of each kind.
    """
    found: list[Score] = [Frechet(samples=samples)]
    make: Callable[[bool], nn.Module]
    shape: Json
    if weights is None or data == "digits":
        return tuple(found)
    if data == "mnist":
        path, shape = weights / LENET, {"size": 32, "value_range": (-1.0, 1.0)}
        name, make = "mnist-lenet", LeNet
    else:
        path, shape = weights / RESNET, {"value_range": (0.0, 1.0)}
        name, make = "cifar10-resnet56", ResNet56
    features, classes = (
        FeatureNetwork(_filled(make(part), path), f"{name}{suffix}", **shape)
        for part, suffix in ((True, "-features"), (False, ""))
    )
    return (*found, Frechet(features, samples), ClassScore(classes, samples))


def _filled(module: nn.Module, path: Path) -> nn.Module:
    """The module with the weights of an .npz file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            values = {key: torch.from_numpy(file[key]) for key in file.files}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): name the folder with --weights"
        ) from None
    wanted = module.state_dict()
    missing = [k for k in wanted if k not in values and not k.endswith("num_batches_tracked")]
    if missing:
        raise DataError(f"{path} lacks {missing[0]}: it belongs to another network")
    module.load_state_dict({k: values.get(k, wanted[k]) for k in wanted})
    return module
