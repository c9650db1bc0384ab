"""Where self-tests evaluate the losses, and what one of them returns."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from equilibrist.checks.context import AuditContext
from equilibrist.core.draws import Draw
from equilibrist.core.field import Evaluation, VectorField
from equilibrist.core.game import Constants, Players


@dataclass(frozen=True)
class EvaluationPoint:
    """Where the tests are made: the pair in float64, its field, one draw."""

    context: AuditContext
    field: VectorField
    players: Players
    constants: Constants
    draw: Draw

    def evaluated(self, players: Players | None = None) -> Evaluation:
        """v and the losses at these players, by default the pair's."""
        return self.field(self.players if players is None else players, self.constants, self.draw)

    def forward(self, w: Players) -> Players:
        """J w."""
        return self.field.jvp(self.players, self.constants, w, self.draw)

    def state(self) -> dict[str, tuple[bytes, int]]:
        """A digest of every weight and buffer, with the count of writes to it, and of torch's random state."""
        named = {
            f"the {player}'s {name}": (_digest(t), t._version)
            for group in (self.players, self.constants)
            for player, part in group.items()
            for name, t in part.items()
        }
        return {**named, "torch's random state": (_digest(torch.get_rng_state()), 0)}


@dataclass(frozen=True)
class SelfTestResult:
    """What one test saw: passed or not, how far off, and for a failure what that means."""

    name: str
    passed: bool
    off: float
    means: str = ""


def _digest(tensor: Tensor) -> bytes:
    """Of its bits (not a copy, which would take as much memory as the pair)."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return hashlib.blake2b(flat.view(torch.uint8).numpy().data, digest_size=16).digest()
