"""The checks by name, in the order of the ladder that an audit climbs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from equilibrist.checks import deviation, stationarity
from equilibrist.checks._bench import Bench
from equilibrist.checks.certificate import Certificate

Show = Callable[[Any, Any], torch.Tensor]


class Tick(Protocol):
    """Told what has been spent since it was last told, in minibatch gradients."""

    def __call__(self, gradients: float = 1.0) -> None: ...


@dataclass
class Found:
    """What a check returns: certificates, sheets of samples by name, series for pictures (plain values)."""

    certificates: list[Certificate]
    sheets: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
        name: as `audit(..., checks=...)` has it.
        says: what it asks, in a line.
        work: about how many minibatch gradients it takes, for the progress bar and for announcing the
            cost; it may be wrong by a small factor.
        run: takes the bench, a `Tick` and, where samples can be shown, a function from (players,
            constants) to a sheet of samples.
        default: whether an audit runs it unasked.
    """

    name: str
    says: str
    work: Callable[[Bench], float]
    run: Callable[[Bench, Tick, Show | None], Found]
    default: bool = True


def _stationary(bench: Bench, tick: Tick, show: Show | None) -> Found:
    return Found(stationarity.stationarity(bench, tick))


def _nash(bench: Bench, tick: Tick, show: Show | None) -> Found:
    return Found(*deviation.nash(bench, tick, show))


REGISTRY: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            "stationary",
            "does either player still move?",
            lambda bench: bench.settings.groups * bench.settings.group_batches,
            _stationary,
        ),
        Check(
            "nash",
            "does either player gain by deviating alone?",
            lambda bench: 2 * bench.settings.starts * bench.settings.steps,
            _nash,
        ),
    )
}
CHECKS = tuple(name for name, check in REGISTRY.items() if check.default)
