"""Steps that overshoot: a player's own step raises the loss that a part of it lowers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from equilibrist.certificates import Json
from equilibrist.diagnosis._intervals import Ratio, share_of
from equilibrist.diagnosis._untouched import untouched
from equilibrist.diagnosis.findings import Finding

PARTS = (1.0, 0.5, 0.1, 0.01)  # of a step
LEAST = 8  # steps of a player
SMALL = 0.1  # of the loss: rises below it are an optimiser's usual swing about a minimum
JUMP, LARGE, JUMPS = (
    0.25,
    0.1,
    2,
)  # of the loss, of the weights' norm, steps: single ones that are far too large


def check_step_size(
    step: Callable[[int], Any],
    players: Mapping[str, nn.Module],
    losses: Mapping[str, Callable[[], Tensor]],
    *,
    rounds: int = 20,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Whether a player's own steps raise its own loss although a part of the same step lowers it.

    Of every step of a player's optimiser, the change of its own loss at the weights w is taken four times: for the
    whole step d, and for d/2, d/10 and d/100, at the same batch, with everything else held. Along d a smooth loss
    changes by -a s + b s^2: it falls for small s where a > 0, and rises for the whole step where b > a, which for
    gradient descent is a rate above 2 over the curvature. Look at a loop's first rounds, where it has not yet driven
    itself to where nothing moves. A step that is no descent at all (a <= 0: momentum,
    minibatches, a loss that is not the loop's) rises at every s and is no sign of its size.

    Args:
        step: step(i) runs round i.
        players: the modules that are trained, by name.
        losses: for a player's name, a function that returns its loss at the weights as they are, on the batch of
            the round or on one large batch. It is called with the same random state each time.
        rounds: rounds that are run.
        confidence: of the intervals over rounds.
        seed: of the random states in which losses are taken; they and all buffers are put back.

    Returns:
        Findings "step-too-large", one for a player at most.
    """
    measured = _Steps(players, losses, seed)
    for i in range(rounds):
        with measured.of_round(i):
            step(i)
    return tuple(
        found
        for name, seen in measured.seen.items()
        for found in _overshoots(name, seen, confidence)
    )


@dataclass(frozen=True)
class _Tried:
    """A step: the loss before it, its changes for PARTS of it, and its size relative to the weights' norm."""

    start: float
    changes: tuple[float, ...]
    size: float

    @property
    def rise(self) -> float:
        """The change for the whole step; infinite where the loss is no number after it."""
        whole = self.changes[0]
        return whole if math.isfinite(whole) else math.inf

    def overshoots(self, scale: float, much: float) -> bool:
        """Whether the whole step raises the loss by `much` of it, and a part of the step lowers it."""
        enough = self.rise > much * max(scale, abs(self.start))
        return enough and any(change < 0 for change in self.changes[1:])


class _Steps:
    """Takes the losses around every step of an optimiser on one player."""

    def __init__(
        self,
        players: Mapping[str, nn.Module],
        losses: Mapping[str, Callable[[], Tensor]],
        seed: int,
    ) -> None:
        self.players, self.losses, self.seed = players, losses, seed
        self.seen: dict[str, list[_Tried]] = {name: [] for name in losses}
        self._held: dict[int, list[Tensor]] = {}
        self._round, self._inside = 0, False

    @contextmanager
    def of_round(self, i: int) -> Iterator[None]:
        """Looks on while a round is run."""
        self._round = i
        handles = [
            register_optimizer_step_pre_hook(self._before),
            register_optimizer_step_post_hook(self._after),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._held[id(optimizer)] = [p.detach().clone() for p in _weights(optimizer)]

    def _after(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        old = self._held.pop(id(optimizer), None)
        if old is None or self._inside:
            return
        own = _weights(optimizer)
        ids = {id(p) for p in own}
        names = [n for n in self.losses if {id(p) for p in self.players[n].parameters()} & ids]
        if len(names) != 1:  # both players at once: neither's step is its own
            return
        new = [p.detach().clone() for p in own]
        self._inside = True
        try:
            _put(own, old, new, 0.0)
            start = self._value(names[0])
            changes = []
            for part in PARTS:
                _put(own, old, new, part)
                changes.append(self._value(names[0]) - start)
        finally:
            _put(own, new, new, 1.0)
            self._inside = False
        self.seen[names[0]].append(_Tried(start, tuple(changes), _apart(old, new)))

    def _value(self, name: str) -> float:
        with (
            untouched(self.seed, self._round),
            torch.enable_grad(),
        ):  # penalties differentiate
            return float(self.losses[name]().detach())


def _put(weights: list[Tensor], old: list[Tensor], new: list[Tensor], part: float) -> None:
    """Puts weights a part of the way from old to new; at the ends bit for bit."""
    with torch.no_grad():
        for p, a, b in zip(weights, old, new, strict=True):
            ends = {0.0: a, 1.0: b}
            p.copy_(ends[part] if part in ends else torch.lerp(a.double(), b.double(), part))


def _apart(old: list[Tensor], new: list[Tensor]) -> float:
    moved = sum(float((a - b).double().square().sum()) for a, b in zip(old, new, strict=True))
    whole = sum(float(a.double().square().sum()) for a in old)
    return math.sqrt(moved / whole) if whole > 0 else math.inf


def _overshoots(name: str, seen: list[_Tried], confidence: float) -> list[Finding]:
    """The finding, by either of two signs.

    Most steps raise the loss that a part of them lowers. Or single steps move the weights by a tenth of their norm and
    more, and raise the loss by much: an adaptive optimiser's first ones do, after which the weights are so large that
    later steps do not. Steps are counted: where training diverges, the sizes of the changes have no mean.
    """
    seen = [one for one in seen if math.isfinite(one.start)]
    if not seen:
        return []
    scale = sorted(abs(one.start) for one in seen)[len(seen) // 2]
    over = [one for one in seen if one.overshoots(scale, JUMP) and not one.size < LARGE]
    share = share_of(len(over) / len(seen), len(seen), confidence)
    if len(over) < JUMPS:
        over = [one for one in seen if one.overshoots(scale, SMALL)]
        share = share_of(len(over) / len(seen), len(seen), confidence)
        if len(seen) < LEAST or share.low <= 0.5:
            return []
    return [_finding(name, seen, over, share, confidence)]


def _finding(
    name: str, seen: list[_Tried], over: list[_Tried], share: Ratio, confidence: float
) -> Finding:
    part = _part(over)
    place = PARTS.index(part)
    rises = sorted(one.rise for one in over)[len(over) // 2]
    falls = sorted(one.changes[place] for one in over)[len(over) // 2]
    size = sorted(one.size for one in over)[len(over) // 2]
    text = (
        f"In {len(over)} of {len(seen)} steps of the {name}, the whole step raises its own loss on the same batch (by "
        f"{rises:.2g}, the median), and {part:g} of the same step lowers it (by {-falls:.2g}); such a step moves the "
        f"weights by {size:.2g} of their norm."
    )
    evidence: Json = {
        "value": share.value,
        "interval": [share.low, share.high],
        "rise": rises,
        "part": part,
        "part_change": falls,
        "relative_size": size,
        "confidence": confidence,
    }
    cure = f"lower the {name}'s learning rate, to {part:g} of it first"
    return Finding("step-too-large", name, text, "fault", "likely", evidence, cure)


def _part(over: list[_Tried]) -> float:
    """The largest part of a step that lowers the loss in most of them."""
    for place, part in list(enumerate(PARTS))[1:]:
        if sum(one.changes[place] < 0 for one in over) > len(over) / 2:
            return part
    return PARTS[-1]


def _weights(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
