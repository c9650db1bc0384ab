"""What is used of Lightning, which is imported only when a callback is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import nn

from equilibrist.errors import RequirementError


class LightningLogger(Protocol):
    """A logger of a trainer."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Write numbers at a step."""


class LightningTrainer(Protocol):
    """A `Trainer`, under either of Lightning's names."""

    callbacks: list[Any]
    loggers: Sequence[LightningLogger]
    should_stop: bool
    is_global_zero: bool

    def fit(self, model: nn.Module, *arguments: object, ckpt_path: str | None = None) -> None:
        """Train the model."""

    def save_checkpoint(self, path: str) -> None:
        """Write a checkpoint."""


def lightning_base(wanted: str) -> type:
    """Lightning's Callback, under either of its names; RequirementError for what is `wanted` where neither is there."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            module = __import__(f"{name}.callbacks", fromlist=["Callback"])
        except ImportError:
            continue
        found: type = module.Callback
        return found
    raise RequirementError(
        f"{wanted} needs Lightning: pip install lightning (a plain loop needs only Watch)"
    )
