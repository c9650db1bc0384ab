"""What a tool answered for the zoo, counted."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from equilibrist.diagnosis import VOCABULARY
from equilibrist.display import Rows, Shown
from equilibrist.statistics import exact_interval
from equilibrist.zoo._case import HALVES

HEALTHY, NONE, FAILED = "healthy", "none", "failed"


@dataclass(frozen=True)
class CaseRecord:
    """What a tool answered for a case at a seed.

    Attributes:
        case, seed, fault, half: the trial; `fault` is "" of a healthy loop.
        found: the findings in the tool's order, each with its name and level.
        error: the tool's error in one line, where it failed.
        seconds: that it took.
        tool: the tool, and a digest of its code.
    """

    case: str
    seed: int
    fault: str
    half: str
    found: Sequence[dict[str, Any]]
    error: str
    seconds: float
    tool: str

    @property
    def first(self) -> str:
        """The first finding above a note: "none" where there is none, "failed" where the tool failed."""
        if self.error:
            return FAILED
        names = (finding["name"] for finding in self.found if finding.get("level") != "note")
        return next(names, NONE)

    @property
    def right(self) -> bool:
        """Whether the first finding is the fault, or a healthy loop has none."""
        return self.first == (self.fault or NONE)

    def describe(self) -> dict[str, Any]:
        """Plain values, as a line of the record's file holds them."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Rate:
    """How many of a number of cases were right at all their seeds, with the exact interval of Clopper and Pearson."""

    right: int
    cases: int
    low: float
    high: float

    def __str__(self) -> str:
        if not self.cases:
            return "no cases"
        share = self.right / self.cases
        return f"{self.right} of {self.cases} ({share:.1%}, {self.low:.1%} to {self.high:.1%})"


@dataclass(frozen=True, repr=False)
class Matrix(Shown):
    """How a tool did on the zoo.

    Attributes:
        records: one for each case and seed.
    """

    records: tuple[CaseRecord, ...]

    def table(self, half: str = "") -> dict[str, dict[str, int]]:
        """Counts of trials: {true cause, or "healthy": {first finding, "none" or "failed": count}}.

        Args:
            half: of it alone.

        Returns:
            Rows in the vocabulary's order.
        """
        counts: dict[str, Counter[str]] = {}
        for record in self._of(half):
            counts.setdefault(record.fault or HEALTHY, Counter())[record.first] += 1
        rows = [name for name in (*VOCABULARY, HEALTHY) if name in counts]
        return {name: dict(counts[name].most_common()) for name in rows}

    def rate(self, kind: str, half: str = "", confidence: float = 0.95) -> Rate:
        """How many cases are right at every seed: a case counts once, for its seeds are not independent.

        Args:
            kind: "faulty" (the cause is the first finding), "healthy" (no finding above a note), or a fault's name.
            half: of it alone.
            confidence: of the interval.

        Returns:
            The count with its interval.
        """
        by_case: dict[str, bool] = {}
        for record in self._of(half):
            if kind in (record.fault, "faulty" if record.fault else HEALTHY):
                by_case[record.case] = by_case.get(record.case, True) and record.right
        right, cases = sum(by_case.values()), len(by_case)
        return Rate(right, cases, *exact_interval(right, cases, confidence))

    @property
    def misses(self) -> tuple[CaseRecord, ...]:
        """The trials in which the tool was wrong."""
        return tuple(record for record in self.records if not record.right)

    def describe(self) -> dict[str, Any]:
        """Plain values: rates and tables of both halves, and the misses."""
        halves = {half or "all": half for half in ("", *HALVES)}
        return {
            "rates": {
                name: {
                    kind: dataclasses.asdict(self.rate(kind, half)) for kind in ("faulty", HEALTHY)
                }
                for name, half in halves.items()
            },
            "tables": {name: self.table(half) for name, half in halves.items()},
            "misses": [
                {
                    "case": r.case,
                    "seed": r.seed,
                    "fault": r.fault,
                    "first": r.first,
                    "error": r.error,
                }
                for r in self.misses
            ],
            "seconds": sum(record.seconds for record in self.records),
        }

    def markdown(self, half: str = "") -> str:
        """The table as Markdown: a row for each true cause, with what was named first and how often.

        Args:
            half: of it alone.

        Returns:
            Lines.
        """
        lines = ["| true cause | right | first finding |", "|---|---|---|"]
        for name, counts in self.table(half).items():
            wanted = NONE if name == HEALTHY else name
            others = ", ".join(f"{first} {count}" for first, count in counts.items())
            lines.append(
                f"| {name} | {counts.get(wanted, 0)} of {sum(counts.values())} | {others} |"
            )
        return "\n".join(lines)

    def _of(self, half: str) -> list[CaseRecord]:
        return [record for record in self.records if half in ("", record.half)]

    def _facts(self) -> tuple[str, Rows]:
        rows = []
        for half in HALVES:
            if self._of(half):
                rows.append((f"{half}: faults named first", str(self.rate("faulty", half))))
                rows.append((f"{half}: healthy loops let alone", str(self.rate(HEALTHY, half))))
        for name, counts in self.table().items():
            rows.append((name, ", ".join(f"{first} {count}" for first, count in counts.items())))
        seconds = sum(record.seconds for record in self.records)
        return f"{len(self.records)} trials, {seconds:.0f} s of computation", rows
