"""What an experiment of a paper is: its claims, the units of work that test them, and what became of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from equilibrist.certificates import Json
from equilibrist.run.recipe import Reference

Size = Literal["tiny", "small", "paper"]
SIZES: tuple[Size, ...] = get_args(Size)
Word = Literal["holds", "holds in part", "does not hold", "undecided", "not tried"]
WORDS: tuple[Word, ...] = get_args(Word)
Measures = Json  # plain values


@dataclass(frozen=True)
class Workspace:
    """Where a unit works.

    Attributes:
        runs: its own folder for run directories and checkpoints, which are not committed.
        pictures: the folder of its record, for small pictures.
        stem: what the names of its pictures begin with.
        device: of training, as `--device` takes it.
        weights: the folder of classifiers' weights, or None.
        others: the folders of other units of the same experiment and size, by key.
    """

    runs: Path
    pictures: Path
    stem: str
    device: str = "cpu"
    weights: Path | None = None
    others: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Unit:
    """A piece of work with a record of its own.

    Attributes:
        key: the record's file name.
        text: what is done, for people.
        minutes: planned, of one CPU core.
        work: does it, and returns what was measured. It may be interrupted and called again.
        needs: keys of units whose runs it goes on with.
    """

    key: str
    text: str
    minutes: float
    work: Callable[[Workspace], Measures] = field(repr=False)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnitRecord:
    """What is known of a unit that ended.

    Attributes:
        unit: its key.
        state: "done", "diverged" (a number became infinite: `measures` holds what was seen until then) or
            "failed" (an error; `message` names it).
        measures: what the unit measured.
        about: commit, machine, versions, seconds and more.
    """

    unit: str
    state: str
    measures: Measures
    about: Json
    message: str = ""


Records = Mapping[str, UnitRecord]  # by unit


@dataclass(frozen=True)
class ClaimOutcome:
    """What became of a claim: one word, and the reason with its numbers."""

    word: Word
    why: str


@dataclass(frozen=True)
class Claim:
    """One claim of a paper.

    Attributes:
        place: where it stands ("Table 1, WGAN-WC", "Theorem 1").
        text: what it says, in our words.
        rule: what decides, written down before the runs.
        judge: from the records of one size to the outcome.
    """

    place: str
    text: str
    rule: str
    judge: Callable[[Records], ClaimOutcome] = field(repr=False)


@dataclass(frozen=True)
class Experiment:
    """Claims that the same runs decide.

    Attributes:
        key: as the command takes it.
        title: for people.
        paper: the source.
        claims: in the paper's order.
        units: the work at each size; a size without units is not offered.
        differs: by size, how it differs from the paper.
        table: lines of Markdown about the records of one size: tables, pictures.
    """

    key: str
    title: str
    paper: Reference
    claims: tuple[Claim, ...]
    units: Callable[[Size], tuple[Unit, ...]] = field(repr=False)
    differs: Mapping[Size, str] = field(default_factory=dict)
    table: Callable[[Records, Path], list[str]] | None = field(default=None, repr=False)

    def outcomes(self, records: Records, size: Size) -> list[ClaimOutcome]:
        """The outcome of every claim at a size; "not tried" where no record is."""
        if not records:
            planned = sum(unit.minutes for unit in self.units(size))
            why = (
                f"no run at this size yet (planned: {planned / 60:.1f} h of one core)"
                if planned
                else "not offered at this size"
            )
            return [ClaimOutcome("not tried", why) for _ in self.claims]
        return [claim.judge(records) for claim in self.claims]
