"""A finding with its evidence, and what a list of findings is ordered by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from equilibrist.certificates import Json, as_number, entry
from equilibrist.errors import did_you_mean
from equilibrist.findings._kind import GROUPS, Kind
from equilibrist.findings._loop import LOOP
from equilibrist.findings._player import PLAYER

LEVELS = ("fault", "warning", "note")
FORMAT = 1  # of findings in a file
SURE = ("certain", "likely", "possible")
VOCABULARY: dict[str, Kind] = LOOP | PLAYER


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or worth knowing.

    Attributes:
        name: of VOCABULARY.
        where: the player, or the part of it.
        text: the fact in one sentence, with its numbers.
        level: "fault" (act on it), "warning" (it hurts where it was not meant), or "note".
        sure: "certain" (observed), "likely" (all evidence fits, and no other named cause does), or "possible".
        evidence: plain numbers; `interval` is (low, high) of `value` at `confidence` where there is one.
        cure: what to change first; the vocabulary's where it is empty.
    """

    name: str
    where: str
    text: str
    level: str = "fault"
    sure: str = "certain"
    evidence: Json = field(default_factory=dict)
    cure: str = ""

    def __post_init__(self) -> None:
        if self.name not in VOCABULARY:
            raise ValueError(
                f"{self.name!r} is no name of a finding{did_you_mean(self.name, VOCABULARY)}"
            )
        if self.level not in LEVELS or self.sure not in SURE:
            raise ValueError(
                f"level={self.level!r}, sure={self.sure!r}: they must be one of {LEVELS} and of {SURE}"
            )
        if not self.cure:
            object.__setattr__(self, "cure", VOCABULARY[self.name].cure)

    @property
    def kind(self) -> Kind:
        """Its word in the vocabulary."""
        return VOCABULARY[self.name]

    def describe(self) -> Json:
        """Plain values, as a JSON file holds them."""
        return {
            "name": self.name,
            "where": self.where,
            "level": self.level,
            "sure": self.sure,
            "text": self.text,
            "evidence": self.evidence,
            "cure": self.cure,
        }

    @classmethod
    def from_row(cls, row: Json) -> Finding:
        """The finding of a row as `describe` made it.

        Raises:
            ValueError: an entry is missing or of the wrong kind, or the name is none of this version's.
        """
        words = {
            k: entry(row, k, str) or "" for k in ("name", "where", "text", "level", "sure", "cure")
        }
        return cls(**words, evidence=entry(row, "evidence", dict) or {})

    @property
    def advice(self) -> str:
        """What is wrong, and what to change first."""
        return f"{self.text} Change first: {self.cure}."

    @property
    def label(self) -> str:
        """Level, name, place, how sure, and the interval of the number that it rests on, in a few words."""
        value, ends = self.evidence.get("value"), self.evidence.get("interval")
        between = ""
        if isinstance(value, int | float) and isinstance(ends, list | tuple) and len(ends) == 2:
            low, high = (as_number(end) for end in ends)
            level = as_number(self.evidence.get("confidence"))
            if low is not None and high is not None and level is not None:
                between = f": {value:.3g}, {100 * level:.3g}% interval {low:.3g} to {high:.3g}"
        return f"{self.level}: {self.name} ({self.where}, {self.sure}{between})"

    def __str__(self) -> str:
        return f"{self.level}: {self.name} ({self.where}). {self.text}"


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings, first what to act on first: by level, then causes before what they explain, then by how sure.

    Returns:
        The same findings.
    """
    return tuple(
        sorted(
            findings,
            key=lambda f: (
                LEVELS.index(f.level),
                GROUPS.index(f.kind.group),
                SURE.index(f.sure),
            ),
        )
    )


def as_recorded(findings: Iterable[Finding]) -> Json:
    """Findings as a JSON file holds them, with the number of this format."""
    return {"format": FORMAT, "list": [f.describe() for f in findings]}


def from_recorded(value: Json) -> tuple[list[Finding], list[str]]:
    """The findings that `as_recorded` wrote, and what cannot be read of them, a clause each.

    Args:
        value: what a file holds; {} where it is of a version without findings.
    """
    written = value.get("format", FORMAT)
    if written != FORMAT:
        return [], [f"its findings are in format {str(written)[:20]}, this version reads {FORMAT}"]
    rows, found, left_out = value.get("list") or [], [], []
    for row in rows if isinstance(rows, list) else [rows]:
        try:
            found.append(Finding.from_row(row))
        except (ValueError, AttributeError) as error:
            left_out.append(f"a finding cannot be read ({' '.join(str(error).split())[:100]})")
    return found, left_out


def foremost(findings: Iterable[Finding]) -> Finding | None:
    """The first finding above a note; None where there is none."""
    return next((f for f in findings if f.level != "note"), None)


def is_cause(finding: Finding) -> bool:
    """Whether it explains what a player's state may be."""
    return finding.level == "fault" and finding.kind.group in ("wiring", "data", "numerics")


def with_causes(findings: Sequence[Finding]) -> list[Finding]:
    """Findings about players as notes where a fault of wiring, data or numbers explains them, and values that are not
    finite where steps were too large.

    Returns:
        The same findings, in their order.
    """
    large = any(f.name == "step-too-large" for f in findings)
    found = [
        _because(f, "step-too-large") if large and f.name == "not-finite" else f for f in findings
    ]
    cause = next(filter(is_cause, found), None)
    return [
        _because(f, cause.name)
        if cause is not None and f.kind.group == "player" and f.level != "note"
        else f
        for f in found
    ]


def _because(finding: Finding, cause: str) -> Finding:
    text = f"{finding.text.rstrip('.')} (explained by {cause})."
    return replace(finding, level="note", text=text, cure=f"mend {cause}, which explains it")


def weighed(findings: Iterable[Finding], own_loop: bool) -> list[Finding]:
    """Findings of an audit, with what is known of the loop that trained the pair.

    Args:
        findings: what was found.
        own_loop: whether this library's own loop trained it, which is wired as the game says. Of another loop an audit
            knows nothing: a player that seems weak may never have been stepped.

    Returns:
        The same findings: of an unknown loop those about a player are "likely" at most and have the wiring checked
        first; of our own their evidence says that it is excluded, and what speaks for it is "possible" at most unless
        it was observed.
    """
    return [_weighed(f, own_loop) for f in findings]


def _weighed(finding: Finding, own_loop: bool) -> Finding:
    group = finding.kind.group
    if group == "wiring" and own_loop and finding.sure != "certain":
        cure = "equilibrist's own loop trained this pair: look at the losses that the game was given, and at the rates"
        return replace(finding, sure="possible", cure=cure)
    if group != "player":
        return finding
    if own_loop:
        evidence = {**finding.evidence, "wiring": "excluded: equilibrist's own loop trained it"}
        cure = f"{finding.cure} (the wiring is excluded: equilibrist's own loop trained this pair)"
        return replace(finding, evidence=evidence, cure=cure)
    return replace(
        finding,
        sure="likely" if finding.sure == "certain" else finding.sure,
        evidence={**finding.evidence, "wiring": "not checked"},
        cure=f"check the wiring (equilibrist.check_wiring); where it is sound: {finding.cure}",
    )


def numbers_of(evidence: Json) -> Json:
    """The plain numbers and short lists of a certificate's evidence."""
    return {
        name: value
        for name, value in evidence.items()
        if isinstance(value, int | float | str | bool)
        or (isinstance(value, list | tuple) and len(value) <= 4)
    }
