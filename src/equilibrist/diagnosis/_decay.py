"""Weight decay that takes a player's weights away faster than training makes them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from equilibrist.diagnosis._seen import CRITIC, PlayerStep, Side
from equilibrist.findings import Finding

LEAST = 3
MUCH = 0.02  # of the weights at each step: half of them in 34


def decay_share(optimizer: torch.optim.Optimizer, groups: Sequence[Mapping[str, Any]]) -> float:
    """The share of the weights that weight decay takes at a step.

    lr * weight_decay where the decay is decoupled, lr * weight_decay / (1 - momentum) of SGD. Where it is a term of a
    gradient that is scaled afterwards, as in Adam, it has no share of its own: 0.

    Args:
        optimizer: of torch.
        groups: those of its parameter groups that hold the player's weights.

    Returns:
        The largest share of any group.
    """
    shares = [0.0]
    for group in groups:
        plain = isinstance(optimizer, torch.optim.SGD)
        if not (
            plain or isinstance(optimizer, torch.optim.AdamW) or group.get("decoupled_weight_decay")
        ):
            continue
        share = float(group.get("lr", 0.0)) * float(group.get("weight_decay", 0.0))
        shares.append(share / max(1 - float(group.get("momentum", 0.0)), 1e-3) if plain else share)
    return max(shares)


def judge_decay(sides: Mapping[str, Side], steps: Sequence[PlayerStep]) -> list[Finding]:
    """The findings "smothered" of a critic and "collapsed" of a generator that weight decay empties."""
    found = []
    for side in sides.values():
        shares = [s.decay for s in steps if s.player == side.role]
        share = statistics.median(shares) if len(shares) >= LEAST else 0.0
        if share < MUCH:
            continue
        text = (
            f"Weight decay takes {share:.0%} of the {side.name}'s weights at every step (weight_decay times the "
            "learning rate)."
        )
        cure = "lower the weight decay: 1e-4 over the learning rate is the usual size, at most"
        name = "smothered" if side.role == CRITIC else "collapsed"
        evidence = {"share": share, "steps": len(shares)}
        found.append(Finding(name, side.name, text, "fault", "certain", evidence, cure))
    return found
