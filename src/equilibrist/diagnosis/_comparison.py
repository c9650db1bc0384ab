"""A resumed run beside the one that went on: what both are compared by."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from equilibrist.diagnosis._difference import Key, differing
from equilibrist.diagnosis._rounds import Watched
from equilibrist.diagnosis._state import State


class RunComparison:
    """A resumed run beside the one that went on.

    Args:
        plain: the run that was never saved.
        saving: the run that was saved and went on.
        resumed: the run that was made anew and loaded.
        rounds: rounds before saving.
        repeats: whether two runs from one seed are equal.
    """

    def __init__(
        self, plain: Watched, saving: Watched, resumed: Watched, rounds: int, repeats: bool
    ) -> None:
        self.plain, self.saving, self.resumed = plain, saving, resumed
        self.rounds, self.repeats = rounds, repeats
        self.saved, self.loaded = saving.saved, resumed.states[rounds]
        self.fresh, self.begun = resumed.states[0], saving.states[0]
        after = differing(saving.states[rounds + 1], resumed.states[rounds + 1])
        # What a loop sets in every round need not be saved.
        self.lasting = set(after) if repeats else None

    def keys(self, kinds: Iterable[str]) -> list[Key]:
        keys = differing(self.saved, self.loaded, kinds)
        return keys if self.lasting is None else [key for key in keys if key in self.lasting]

    def both(self, key: Key) -> bool:
        return key in self.saved and key in self.loaded

    def kind(self, key: Key) -> str:
        return (self.saved.get(key) or self.loaded[key]).kind

    def values(self, key: Key) -> str:
        def described(state: State) -> str:
            if key not in state:
                return "missing"
            value = state[key].value
            if isinstance(value, Tensor) and value.numel() == 1:
                value = value.item()
            return f"{value:.6g}" if isinstance(value, int | float) else "another"

        return f"{described(self.loaded)} after loading, {described(self.saved)} when saved"
