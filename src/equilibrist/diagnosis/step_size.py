"""Steps that overshoot: past what lowers a player's own loss on the same batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from scipy import stats
from torch import Tensor, nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from equilibrist.certificates import Json
from equilibrist.diagnosis._seen import weights_of
from equilibrist.diagnosis._untouched import untouched
from equilibrist.findings import Finding
from equilibrist.statistics import Estimate, estimate

TINY = 0.02  # of the weights' norm: steps below are not what is too large
LOST = 0.25  # of what half of a plain gradient step gains: small steps that keep less overshoot
PARTS = (1.0, 0.5, 0.1, 0.01)  # of a step


def check_step_size(
    step: Callable[[int], object],
    players: Mapping[str, nn.Module],
    losses: Mapping[str, Callable[[], Tensor]],
    *,
    rounds: int = 20,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Whether a player's own steps go too far: past what lowers its own loss on the same batch.

    Of every step of a player's optimiser, the change of its own loss at the weights w is taken four times: for the
    whole step d, and for d/2, d/10 and d/100, at the same batch, with everything else held. Along d a smooth loss
    changes by -a s + b s^2: it falls for small s where a > 0. The whole step gains less than half of what half of it
    gains where b > 0.86 a, which for gradient descent is a rate above 1.7 over the curvature (at 2, b = a, it
    diverges).
    A step that is no descent at all (a <= 0: momentum,
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
    found = []
    for name, rows in measured.changes.items():
        rows = [row for row in rows if all(map(math.isfinite, row))]
        if len(rows) >= 5:
            found += _overshoots(name, rows, measured.sizes[name], confidence, measured.plain[name])
    return tuple(found)


class _Steps:
    """What steps do to their player's own loss.

    Attributes:
        changes: by player, for every step the change of its loss after each of `PARTS`, and the loss before.
        sizes: by player, how far every step moves the weights, relative to their norm.
        plain: by player, whether all of its steps are along minus its gradient (SGD without momentum).
    """

    def __init__(
        self,
        players: Mapping[str, nn.Module],
        losses: Mapping[str, Callable[[], Tensor]],
        seed: int,
    ) -> None:
        self.changes: dict[str, list[list[float]]] = {name: [] for name in losses}
        self.sizes: dict[str, list[float]] = {name: [] for name in losses}
        self.plain: dict[str, bool] = dict.fromkeys(losses, True)
        self._losses, self._seed = losses, seed
        self._owners = {id(p): name for name in losses for p in players[name].parameters()}
        self._held: dict[int, list[Tensor]] = {}
        self._inside, self._round = False, 0
        self._fault: Exception | None = None

    @contextmanager
    def of_round(self, i: int) -> Iterator[None]:
        """Takes the losses around every step of round i.

        Raises:
            Exception: what a loss raised, once the round is over: it does not reach the loop.
        """
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
        if self._fault is not None:
            raise self._fault

    def _before(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self._held[id(optimizer)] = [p.detach().clone() for p in weights_of(optimizer)]

    def _after(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        old = self._held.pop(id(optimizer), None)
        if old is None or self._inside or self._fault is not None:
            return
        try:
            self._measure(optimizer, old)
        except Exception as fault:
            self._fault = fault

    def _measure(self, optimizer: torch.optim.Optimizer, old: list[Tensor]) -> None:
        own = weights_of(optimizer)
        stepped = {self._owners[id(p)] for p in own if id(p) in self._owners}
        if len(stepped) != 1:  # both players at once: neither's step is its own
            return
        (name,) = stepped
        new = [p.detach().clone() for p in own]
        self._inside = True
        try:
            _put(own, old)
            start = self._loss(name)
            row = []
            for part in PARTS:
                _put(own, [_between(a, b, part) for a, b in zip(old, new, strict=True)])
                row.append(self._loss(name) - start)
        finally:
            _put(own, new)
            self._inside = False
        self.changes[name].append([*row, start])
        self.plain[name] &= _along_the_gradient(optimizer)
        whole = _norm(old)
        moved = _norm([a.double() - b.double() for a, b in zip(old, new, strict=True)])
        self.sizes[name].append(moved / whole if whole > 0 else math.inf)

    def _loss(self, name: str) -> float:
        with untouched(self._seed, self._round), torch.enable_grad():  # penalties differentiate
            return float(self._losses[name]().detach())


def _along_the_gradient(optimizer: torch.optim.Optimizer) -> bool:
    groups = optimizer.param_groups
    return isinstance(optimizer, torch.optim.SGD) and not any(g["momentum"] for g in groups)


def _between(old: Tensor, new: Tensor, part: float) -> Tensor:
    return torch.lerp(old.double(), new.double(), part).to(old)


def _norm(tensors: list[Tensor]) -> float:
    return math.sqrt(sum(float(t.double().square().sum()) for t in tensors))


def _put(weights: list[Tensor], values: list[Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip(weights, values, strict=True):
            p.copy_(value)


def _overshoots(
    name: str, rows: list[list[float]], sizes: list[float], confidence: float, plain: bool
) -> list[Finding]:
    """The finding, where the whole step raises the loss and a part of it lowers it, round after round."""
    changes = {part: [row[k] for row in rows] for k, part in enumerate(PARTS)}
    whole = estimate(changes[1.0], confidence)
    # Along a parabola that falls by a s and rises by b s^2, the whole step gains less than half of what half of it does
    # for b > 0.86 a, which for gradient descent is a rate above 1.7 over the curvature; it raises the loss for b > a.
    wasted = [one - two / 2 for one, two in zip(changes[1.0], changes[0.5], strict=True)]
    p = float(stats.wilcoxon(wasted, alternative="greater").pvalue) if any(wasted) else 1.0
    if p > (1 - confidence) / 2 or sum(wasted) <= 0:
        return []
    below = [part for part in PARTS[1:] if _below(estimate(changes[part], confidence))]
    if not below:
        return []
    lowered = estimate(changes[below[0]], confidence)
    share = sum(w > 0 for w in wasted) / len(wasted)
    if share < 0.6:  # a few large jumps are no rule
        return []
    scale = sorted(sizes)[len(sizes) // 2]
    # Momentum goes past the minimum of a batch in small steps too; a gradient alone only where its step is too large.
    if scale < TINY and not (plain and whole.mean > LOST * estimate(changes[0.5], confidence).mean):
        return []
    text = (
        f"The {name}'s steps overshoot: they change its own loss by {whole} on the same batch, where "
        f"{below[0]:g} of the "
        f"same steps changes it by {lowered} ({share:.0%} of {len(rows)} steps go too far); a step "
        "moves the weights by "
        f"{scale:.2g} of their norm."
    )
    evidence: Json = {
        "value": whole.mean,
        "interval": [whole.low, whole.high],
        "part": below[0],
        "part_change": lowered.mean,
        "part_interval": [lowered.low, lowered.high],
        "share": share,
        "p": p,
        "relative_size": scale,
        "confidence": confidence,
    }
    cure = f"lower the {name}'s learning rate, to {below[0]:g} of it first"
    # Steps that still lower the loss are wasteful, and many a sound loop's.
    level, sure = ("note", "possible") if _below(whole) else ("fault", "likely")
    return [Finding("step-too-large", name, text, level, sure, evidence, cure)]


def _below(found: Estimate) -> bool:
    return found.high is not None and found.high < 0
