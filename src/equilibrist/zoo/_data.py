"""The zoo's data: what ships with dependencies, or is computed."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor


@functools.cache
def digit_images(low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    """1,797 digits [N, 1, 8, 8] between `low` and `high`, in a fixed random order, and their labels."""
    from equilibrist.data import digits as source

    data = source((low, high))
    order = torch.from_numpy(np.random.default_rng(0).permutation(data.size))
    x, y = data.take_pairs(order)
    return x.float(), y


def ring(n: int = 4000, modes: int = 8, sd: float = 0.05, radius: float = 1.0) -> Tensor:
    """Gaussians on a circle [n, 2]."""
    rng = np.random.default_rng(1)
    angle = 2 * math.pi * rng.integers(modes, size=n) / modes
    points = radius * np.stack([np.cos(angle), np.sin(angle)], 1) + sd * rng.normal(size=(n, 2))
    return torch.from_numpy(points).float()


def gait(n: int = 4000, noise: float = 0.01) -> Tensor:
    """A cycle of motion [n, 8]: sines and cosines of four multiples of a phase, measured with noise."""
    rng = np.random.default_rng(2)
    phase = 2 * math.pi * rng.random((n, 1)) * np.arange(1, 5)
    motion = np.concatenate([np.sin(phase), np.cos(phase)], 1) + noise * rng.normal(size=(n, 8))
    return torch.from_numpy(motion).float()


def columns(n: int = 4000) -> Tensor:
    """Five standardised columns of numbers [n, 5]: heavy tails, two that depend on each other, two groups."""
    rng = np.random.default_rng(3)
    group = rng.integers(2, size=n)
    income = np.exp(0.5 * rng.normal(size=n))
    spent = 0.6 * income + 0.1 * rng.normal(size=n)
    age = rng.gamma(4.0, size=n) + 2 * group
    height = np.where(group == 1, 1.5, -1.5) + 0.5 * rng.normal(size=n)
    columns = np.stack([income, spent, age, height, rng.normal(size=n)], 1)
    return torch.from_numpy((columns - columns.mean(0)) / columns.std(0)).float()
