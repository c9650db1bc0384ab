"""Whether a loop's steps are explained one like the other: then fewer of them need be compared."""

from __future__ import annotations

from collections import Counter

from equilibrist.diagnosis._calls import GENERATOR
from equilibrist.diagnosis._explain import Explained
from equilibrist.diagnosis._fit import EXACT
from equilibrist.diagnosis._seen import CRITIC, PlayerStep

FIRST = 2  # steps of each player that tell what the others are like
WHOLE = 3  # rounds in which every step is compared; where all were alike,
EVERY = 3  # later one of so many


class Routine:
    """What the steps that were compared had in common.

    Attributes:
        puzzled: players a step of whom was not explained.
        rounds: that have begun.
    """

    def __init__(self) -> None:
        self.puzzled: set[str] = set()
        self.rounds = 0
        self._compared: Counter[str] = Counter()
        self._shapes: dict[str, tuple[int, int]] = {}
        self._alike = True
        self._shared = False

    def note(self, step: PlayerStep, found: Explained | None) -> None:
        """A step was compared."""
        if found is None:
            return
        if found.residual > EXACT:
            self.puzzled.add(step.player)
        # A penalty that is paid now and then is a call more; what the declared parts leave is another player's, say.
        shape = (sum(not c.linked for c in step.calls), sum(c.asked for c in step.calls))
        same = self._shapes.setdefault(step.player, shape) == shape
        self._alike = self._alike and same and found.plain < EXACT
        self._shared |= step.player == CRITIC and any(step.calls[i].linked for i in found.used)
        self._compared[step.player] += 1

    @property
    def steady(self) -> bool:
        """Whether each player's first steps were its declared loss, and all others that were compared like them."""
        seen = min(self._compared[CRITIC], self._compared[GENERATOR])
        return seen >= FIRST and self._alike and not self.puzzled

    @property
    def apart(self) -> bool:
        """Whether the critic's loss uses no samples with a way back to the generator."""
        return self.steady and not self._shared

    @property
    def resting(self) -> bool:
        """Whether this round's steps need not be compared."""
        return self.rounds > WHOLE and self.rounds % EVERY != 0 and self.steady
