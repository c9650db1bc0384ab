from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def scrambled() -> Callable[[nn.Module], nn.Module]:
    """Give every parameter random values, so that biases and scales take part in a test."""

    def scramble(module: nn.Module) -> nn.Module:
        for p in module.parameters():
            nn.init.normal_(p, std=p[0].numel() ** -0.5 if p.ndim > 1 else 0.5)
        return module

    return scramble
