"""A word of the vocabulary."""

from __future__ import annotations

from dataclasses import dataclass

GROUPS = ("wiring", "data", "numerics", "average", "resume", "audit", "player")


@dataclass(frozen=True)
class Kind:
    """A word of the vocabulary.

    Attributes:
        group: of GROUPS; findings of an earlier group explain those of later ones.
        symptom: what its user sees.
        cause: what is wrong.
        cure: what to change first.
        known: what shows it.
        source: where it is described.
    """

    group: str
    symptom: str
    cause: str
    cure: str
    known: str
    source: str = ""
