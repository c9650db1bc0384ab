"""What an audit returns: certificates by claim, the facts beside them, and what it took."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from equilibrist.checks import facts
from equilibrist.checks._advice import advice
from equilibrist.checks._ladder import ladder, place
from equilibrist.checks._save import witness_file, write_folder
from equilibrist.checks._settings import Settings
from equilibrist.checks.certificate import Certificate
from equilibrist.data import Source
from equilibrist.display import shortened, table
from equilibrist.errors import UnknownClaimError, did_you_mean
from equilibrist.files.atomic import finite
from equilibrist.run import samples

FORMAT = 1
MOST_ADVICE, LINE = 2, 110  # in a first print: sentences of advice; characters of a summary


def _first(summary: str) -> str:
    """The first sentence of a summary, on part of a line."""
    sentence = re.split(r"(?<=[a-z)\]])[.;:] ", summary, maxsplit=1)[0]
    return shortened(sentence.rstrip("."), LINE)


@dataclass(frozen=True, repr=False)
class Audit(Mapping[str, Certificate]):
    """Certificates by claim, a mapping: `audit["nash"]`, `"nash" in audit`, `for claim in audit`.

    Attributes:
        certificates: the values, in order.
        settings: the budget and the tolerances.
        seconds: what the audit took.
        about: the pair and where it came from, plain values.
        facts: what a practitioner looks at before any verdict; None where losses are exact.
        notes: what does not fit together (data and generator, say), one sentence each.
        names: the players' own names, where they have others than "generator" and "critic".
        sheets, precision, work: sheets of samples; the precision of the searches; gradients and seconds by check.
    """

    certificates: tuple[Certificate, ...]
    settings: Settings
    seconds: float
    about: dict[str, Any] = field(default_factory=dict)
    sheets: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    names: Mapping[str, str] = field(default_factory=dict)
    precision: str = "float32"
    work: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: facts.Facts | None = None
    notes: tuple[str, ...] = ()

    def __getitem__(self, claim: str) -> Certificate:
        for certificate in self.certificates:
            if certificate.claim == claim:
                return certificate
        known = [c.claim for c in self.certificates]
        hint = did_you_mean(claim, known)
        raise UnknownClaimError(
            f"this audit says nothing of {claim!r}{hint}; its claims are {', '.join(known)}"
        )

    def __iter__(self) -> Iterator[str]:
        return (c.claim for c in self.certificates)

    def __len__(self) -> int:
        return len(self.certificates)

    @property
    def place(self) -> str:
        """Where the pair stands, in a few sentences: signs of a fault first."""
        return self.named(place(self.certificates, self.facts))

    @property
    def advice(self) -> tuple[str, ...]:
        """What was measured and which causes fit it, largest effect first."""
        return tuple(self.named(line) for line in advice(self.certificates, self.facts))

    def named(self, text: str) -> str:
        """A text with the players' own names, where they have other ones than "generator" and "critic"."""
        if not self.names:
            return text
        return re.sub(r"\b(generator|critic)\b", lambda m: self.names.get(m[0], m[0]), text)

    @property
    def details(self) -> str:
        """Everything in plain text: where the pair stands, the facts, every certificate's whole summary, the advice."""
        rows = [f"{c.claim:22} {c.verdict.value:12} {c.summary}" for c in self.certificates]
        return self._told(rows, [line for line in self.advice if line not in self.place])

    def __str__(self) -> str:
        """What fits a screen: of claims about each player that about the pair alone, a line each; `details` has all."""
        shown = [
            c
            for c in self.certificates
            if "/" not in c.claim or c.claim.partition("/")[0] not in self
        ]
        width = max((len(c.claim) for c in shown), default=0)
        rows = [f"{c.claim:{width}}  {c.verdict.value:12} {_first(c.summary)}" for c in shown]
        more = [line for line in self.advice if line not in self.place]
        told = self._told(rows, more[:MOST_ADVICE])
        left = len(self.certificates) - len(shown)
        if not shown:
            return told
        more_of = f"{left} more certificates and whole summaries" if left else "Whole summaries"
        return f'{told}\n\n{more_of}: print(audit.details); one of them: audit["{shown[-1].claim}"].summary'

    def _told(self, rows: list[str], advice: list[str]) -> str:
        plain = [self.named(" ".join(self.facts.sentences))] if self.facts is not None else []
        notes = [f"Note: {note}." for note in self.notes]
        remarks = [f"- {line}" for line in advice]
        reported = [self.place, *plain, *notes, "", *rows]
        return "\n".join([*reported, *([""] if remarks else []), *remarks])

    def __repr__(self) -> str:
        by_verdict: dict[str, list[str]] = {}
        for c in self.certificates:
            by_verdict.setdefault(c.verdict.value, []).append(c.claim)
        lines = [f"  {verdict}: {', '.join(claims)}" for verdict, claims in by_verdict.items()]
        lines += [f"  note: {shortened(note)}" for note in self.notes]
        return "\n".join([f"Audit of {len(self)} claims in {self.seconds:.3g} s", *lines])

    def _repr_html_(self) -> str:
        rows = [("note", "", note) for note in self.notes]
        if self.facts is not None:
            rows += [("fact", "", sentence) for sentence in self.facts.sentences]
        rows += [(c.claim, c.verdict.value, shortened(c.summary, 300)) for c in self.values()]
        rows += [("advice", "", line) for line in self.advice if line not in self.place]
        return table(f"Audit: {self.place}", rows)

    def to_json(self) -> dict[str, Any]:
        """Plain values, as in audit.json (docs/design.md)."""
        value: dict[str, Any] = finite(
            {
                "format": FORMAT,
                **self.about,
                "seconds": round(self.seconds, 2),
                "work": self.work,
                "dtype": {"search": self.precision, "score": "float64"},
                "settings": self.settings.describe(),
                "notes": list(self.notes),
                "place": self.place,
                "facts": self.facts.to_json() if self.facts is not None else None,
                "advice": list(self.advice),
                "ladder": [
                    {
                        "claim": rung.claim,
                        "name": rung.name,
                        "meaning": self.named(rung.meaning),
                        "words": self.named(rung.words),
                        "verdict": rung.verdict.value if rung.verdict else None,
                    }
                    for rung in ladder(self.certificates)
                ],
                "certificates": [c.to_row(witness_file(c)) for c in self.certificates],
            }
        )
        return value

    def save(
        self,
        directory: Path,
        data: Source,
        witnesses: dict[str, dict[str, torch.Tensor]] | None = None,
    ) -> None:
        """Write audit.json, the witnesses and the sheets into the folder `directory`, whole or not at all.

        Files of others in that folder stay; RecordError where one of them is in the way.

        `witnesses` are plain state_dicts by claim, as `replayable` makes them: they load into the
        modules that `export` fills. Without them the players' own parameters are written.
        """
        write_folder(
            directory,
            self.to_json(),
            self.certificates,
            witnesses or {},
            self.sheets,
            lambda sheet: samples.sheet(sheet, data),
        )
