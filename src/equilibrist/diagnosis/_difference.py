"""Where two runs of a loop part."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from equilibrist.certificates import Json
from equilibrist.diagnosis._rounds import Watched
from equilibrist.diagnosis._state import CARRIED, KINDS, State, relative_gap
from equilibrist.findings import Finding

Key = tuple[str, str]


@dataclass(frozen=True)
class Difference:
    """Where two runs part.

    Attributes:
        round: how many rounds were done.
        loaded: whether it is right after loading.
        kind: weight, buffer, average, moment, rate, schedule, scaler, mode or random.
        name: the tensor or number, with its owner.
        relative: |a - b| / max(|a|, |b|) in the Euclidean norm; None where one of them is missing.
        missing: whether one of them is.
    """

    round: int
    loaded: bool
    kind: str
    name: str
    relative: float | None
    missing: bool = False

    def describe(self) -> Json:
        """Plain values.

        Returns:
            A dictionary.
        """
        return dict(vars(self))

    def __str__(self) -> str:
        when = "right after loading" if self.loaded else f"after round {self.round}"
        how = "is missing" if self.missing else "differs"
        by = f" by {self.relative:.2g} of its size" if self.relative else ""
        return f"{when}, {self.name} {how}{by}"


def first_difference(
    saving: Watched, resumed: Watched, rounds: int, found: Iterable[Finding]
) -> Difference | None:
    """The first tensor or number that differs: right after loading where something was forgotten, or after a round."""
    named = {tuple(f.evidence["key"]) for f in found if "key" in f.evidence}
    for done in sorted(resumed.states):
        if done < rounds:
            continue
        a, b = saving.saved if done == rounds else saving.states[done], resumed.states[done]
        keys = differing(a, b, (*KINDS, "place", "value") if done == rounds else CARRIED)
        if done == rounds:
            keys = [key for key in keys if key in named]
        if keys:
            return _difference(a, b, keys[0], done, done == rounds)
    return None


def _difference(a: State, b: State, key: Key, done: int, loaded: bool) -> Difference:
    leaf = a.get(key) or b[key]
    both = key in a and key in b
    by = relative_gap(a[key], b[key]) if both else None
    return Difference(done, loaded, leaf.kind, leaf.name, by, not both)


def differing(a: State, b: State, kinds: Iterable[str] = KINDS) -> list[Key]:
    """Keys whose bits differ or that one state lacks, in the order of kinds."""
    wanted = tuple(kinds)
    keys = [key for key in {**a, **b} if (a.get(key) or b[key]).kind in wanted]
    keys = [key for key in keys if key not in a or key not in b or a[key].mark != b[key].mark]
    return sorted(keys, key=lambda key: wanted.index((a.get(key) or b[key]).kind))
