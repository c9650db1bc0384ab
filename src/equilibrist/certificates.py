"""What an audit answers, as plain values: one model for the audit, for audit.json and for reports. No torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

Json = dict[str, Any]

_NOT_FINITE = {"nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"}


class Verdict(StrEnum):
    """What is known of a claim.

    VERIFIED: an exhaustive or bounded computation shows it. REFUTED: a witness shows the contrary.
    NOT_REFUTED: a search under the stated budget found nothing. UNASSESSED: cannot be told (noise
    above the tolerance, a non-finite value, a failed search).
    """

    VERIFIED = "VERIFIED"
    REFUTED = "REFUTED"
    NOT_REFUTED = "NOT_REFUTED"
    UNASSESSED = "UNASSESSED"


# A verdict on which a claim may rest.
HOLDS = frozenset({Verdict.VERIFIED, Verdict.NOT_REFUTED})


@dataclass(frozen=True)
class Tolerance:
    """How much is called nothing: a value, its unit, and where it comes from."""

    value: float
    unit: str
    why: str


@dataclass(frozen=True)
class Words:
    """A claim in words for readers who do not know it.

    Attributes:
        question: What the check asks.
        sentence: The claim, true or false.
        short: The claim in a few words.
        meaning: What it says, and what it does not.

    `{player}` and `{other}` stand for the player that the claim is about and the one that rests.
    """

    question: str
    sentence: str
    short: str
    meaning: str = ""


@dataclass(frozen=True)
class Chart:
    """Curves over one number: what a page draws for a claim, as data.

    Attributes:
        x: The places [n], rising.
        lines: Values [n] by name, at most six; None where there is none.
        x_label: What x is, with its unit.
        alt: The picture in a sentence, for those who do not see it.
        marks: Places of dashed vertical lines.
        log_x, log_y: Logarithmic scales; what is not positive is left out.
    """

    x: tuple[float, ...]
    lines: Mapping[str, tuple[float | None, ...]]
    x_label: str
    alt: str
    marks: tuple[float, ...] = ()
    log_x: bool = False
    log_y: bool = False

    def __post_init__(self) -> None:
        if not 1 <= len(self.lines) <= 6:
            raise ValueError(f"a chart has one to six lines, not {len(self.lines)}")
        for name, values in self.lines.items():
            if len(values) != len(self.x):
                raise ValueError(
                    f"the chart's line {name!r} has {len(values)} values at {len(self.x)} places"
                )

    def to_row(self) -> Json:
        """As audit.json has it."""
        return {
            "x": self.x,
            "lines": dict(self.lines),
            "x_label": self.x_label,
            "alt": self.alt,
            "marks": self.marks,
            "log_x": self.log_x,
            "log_y": self.log_y,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, object]) -> Chart:
        """The chart of an entry of audit.json.

        Raises:
            ValueError: An entry is missing or of the wrong kind.
        """
        places = tuple(map(as_number, entry(row, "x", list) or ()))
        marks = tuple(map(as_number, entry(row, "marks", list) or ()))
        if not places or None in places or None in marks:
            raise ValueError("a chart needs numbers as 'x' and 'marks'")
        lines = {}
        for name, values in (entry(row, "lines", dict) or {}).items():
            if not isinstance(values, list | tuple):
                raise ValueError(f"the chart's line {str(name)[:60]!r} should be a list")
            lines[str(name)] = tuple(map(as_number, values))
        return cls(
            tuple(x for x in places if x is not None),
            lines,
            entry(row, "x_label", str) or "",
            entry(row, "alt", str) or "",
            tuple(x for x in marks if x is not None),
            bool(row.get("log_x")),
            bool(row.get("log_y")),
        )


@dataclass(frozen=True)
class Statement:
    """A claim about where training landed, with what is known of it.

    Attributes:
        claim: Such as "stationary", "nash", or either of one player ("nash/critic").
        verdict: See `Verdict`.
        summary: One sentence for practitioners.
        evidence: Numbers, as plain values.
        tolerance: What the numbers were held against.
        scope: The game, iterate, precision and data that the claim is about.
        limits: What it does not say.
        references: Sources of the method.
        player: Whose claim it is; None for one of the pair.
        witness: What refutes a refuted claim: tensors in an audit, the name of a file in a record.
        witness_kind: "deviation" (a player's parameters) or "direction" (unit directions, by player).
        about: The claim in words, where pages do not know it: that of a check of your own.
        chart: Its picture.
    """

    claim: str
    verdict: Verdict
    summary: str
    evidence: Json = field(default_factory=dict)
    tolerance: Tolerance | None = None
    scope: Json = field(default_factory=dict)
    limits: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    player: str | None = None
    witness: Any = field(default=None, repr=False, compare=False)
    witness_kind: str | None = "deviation"
    about: Words | None = None
    chart: Chart | None = None

    @property
    def kind(self) -> str:
        """The claim's name without its player."""
        return self.claim.partition("/")[0]

    @property
    def unit(self) -> str:
        """The unit of the claim's numbers; "" where none is recorded."""
        unit = self.evidence.get("unit")
        if isinstance(unit, str) and unit:
            return unit
        return self.tolerance.unit if self.tolerance else ""

    @property
    def interval(self) -> tuple[float, float] | None:
        """The evidence's interval, where both ends are there."""
        return self.ends("interval")

    def number(self, name: str) -> float | None:
        """A number of the evidence; None where it is absent or no number."""
        return as_number(self.evidence.get(name))

    def ends(self, name: str) -> tuple[float, float] | None:
        """An interval of the evidence; None where an end is absent."""
        ends = self.evidence.get(name)
        if not isinstance(ends, list | tuple) or len(ends) != 2:
            return None
        low, high = as_number(ends[0]), as_number(ends[1])
        return None if low is None or high is None else (low, high)

    def to_row(self, witness: str | None = None) -> Json:
        """The statement as audit.json has it.

        Args:
            witness: The name of the file that holds the witness.
        """
        tolerance = self.tolerance
        more: Json = {}
        if self.about is not None:
            more["about"] = vars(self.about)
        if self.chart is not None:
            more["chart"] = self.chart.to_row()
        return {
            "claim": self.claim,
            "player": self.player,
            "summary": self.summary,
            "evidence": self.evidence,
            "scope": self.scope,
            "limits": self.limits,
            "references": self.references,
            "verdict": self.verdict.value,
            "tolerance": {"value": tolerance.value, "unit": tolerance.unit, "why": tolerance.why}
            if tolerance
            else None,
            "witness": witness,
            "witness_kind": self.witness_kind if witness else None,
            **more,
        }

    @classmethod
    def from_row(cls, row: Mapping[str, object], **more: Any) -> Self:
        """The statement of a row of audit.json.

        Args:
            row: The row, as `to_row` made it, or as a file from elsewhere has it.
            more: Fields that take the place of the row's.

        Raises:
            ValueError: An entry is missing or of the wrong kind; the message names it.
        """
        claim = entry(row, "claim", str)
        if not claim:
            raise ValueError("a certificate has no 'claim'")
        try:
            verdict = Verdict(str(row.get("verdict")))
        except ValueError:
            raise ValueError(
                f"'{claim[:60]}' has the verdict {repr(row.get('verdict'))[:60]}, which is none of "
                f"{', '.join(Verdict)}"
            ) from None
        tolerance = entry(row, "tolerance", dict)
        about, chart = entry(row, "about", dict), entry(row, "chart", dict)
        values: Json = {
            "claim": claim,
            "verdict": verdict,
            "summary": entry(row, "summary", str) or "",
            "evidence": entry(row, "evidence", dict) or {},
            "tolerance": _tolerance(tolerance) if tolerance is not None else None,
            "scope": entry(row, "scope", dict) or {},
            "limits": tuple(map(str, entry(row, "limits", list) or ())),
            "references": tuple(map(str, entry(row, "references", list) or ())),
            "player": entry(row, "player", str),
            "witness": entry(row, "witness", str),
            "witness_kind": entry(row, "witness_kind", str),
            "about": _words(about) if about is not None else None,
            "chart": Chart.from_row(chart) if chart is not None else None,
        }
        return cls(**values | more)


@dataclass(frozen=True)
class Rung:
    """One step of the ladder between motion and Nash.

    Attributes:
        claim: The claim that decides it.
        name, meaning: Its name, and what it means in a few words ("" where the name says it).
        verdict: What the audit concludes; None where nothing was asked.
        summary: The deciding claim's sentence.
    """

    claim: str
    name: str
    meaning: str = ""
    verdict: Verdict | None = None
    summary: str = ""

    @property
    def words(self) -> str:
        """Name and meaning in one."""
        return f"{self.name} ({self.meaning})" if self.meaning else self.name


# Lowest first: claim, name, meaning. Of stationary pairs: a local minimax point is Stackelberg's (lambda = 0), a Nash
# equilibrium the proximal one of infinite lambda (Farnia and Ozdaglar 2020, Proposition 3).
RUNGS = (
    Rung("stationary", "at rest"),
    Rung("stable", "locally stable", "gradient flow comes back to it"),
    Rung("local-minimax", "local minimax", "Stackelberg: the critic answers"),
    Rung("proximal", "proximal near the pair, up to lambda*"),
    Rung("local-nash", "local Nash", "the critic may not answer"),
    Rung("nash", "Nash"),
)

# What a critic alone may be found to be, by the claim that is refuted then; the most telling first.
STATES = {
    "not-saturated": "saturated",
    "not-smothered": "smothered",
    "not-lagging": "lagging",
    "not-blind": "blind",
    "not-memorising": "memorising",
    "informative": "uninformative",
}

_KINDS: dict[type, str] = {str: "a text", dict: "an object", list: "a list"}


def entry(row: Mapping[str, object], name: str, kind: type) -> Any:
    """An entry of a row, None where it is absent.

    Raises:
        ValueError: It is of another kind.
    """
    value = row.get(name)
    if value is not None and not isinstance(value, kind | tuple if kind is list else kind):
        raise ValueError(f"'{name}' should be {_KINDS[kind]}, not {repr(value)[:60]}")
    return value


def as_number(value: object) -> float | None:
    """A float from a JSON number or from a text such as "NaN" or "-inf"; else None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            return float(value)
        except OverflowError:  # a whole number beyond the largest float
            return math.inf if value > 0 else -math.inf
    if isinstance(value, str) and value.strip().lower() in _NOT_FINITE:
        return float(value)
    return None


def _tolerance(row: Mapping[str, object]) -> Tolerance:
    value = as_number(row.get("value"))
    known = math.nan if value is None else value
    return Tolerance(known, str(row.get("unit") or ""), str(row.get("why") or ""))


def _words(row: Mapping[str, object]) -> Words:
    return Words(
        *(entry(row, name, str) or "" for name in ("question", "sentence", "short", "meaning"))
    )
