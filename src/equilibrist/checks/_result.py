"""What an audit returns: certificates by claim, plain facts, and what it took."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from equilibrist.checks import facts
from equilibrist.checks._findings import Training, pair_findings
from equilibrist.checks._ladder import ladder, place
from equilibrist.checks._measured import remarks_on
from equilibrist.checks._save import witness_file, write_folder
from equilibrist.checks._settings import Settings
from equilibrist.checks.certificate import Certificate, Json
from equilibrist.data import Source
from equilibrist.display import notebook_table, shortened
from equilibrist.errors import UnknownClaimError, did_you_mean
from equilibrist.files.atomic import json_ready
from equilibrist.findings import Finding, as_recorded, foremost
from equilibrist.run import samples

FORMAT = 1
MOST, LINE = 2, 110  # in a first print: remarks on what was measured; characters of a summary


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
        training: of a run: what is known of its training; None where another loop trained the pair.
        names: the players' own names, where they have others than "generator" and "critic".
        sheets, precision, work: sheets of samples; the precision of the searches; gradients and seconds by check.
    """

    certificates: tuple[Certificate, ...]
    settings: Settings
    seconds: float
    about: Json = field(default_factory=dict)
    sheets: dict[str, torch.Tensor] = field(default_factory=dict, repr=False)
    names: Mapping[str, str] = field(default_factory=dict)
    precision: str = "float32"
    work: dict[str, dict[str, float]] = field(default_factory=dict)
    facts: facts.Facts | None = None
    notes: tuple[str, ...] = ()
    training: Training | None = None

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
    def findings(self) -> tuple[Finding, ...]:
        """What is wrong, or worth knowing, by name: what to act on first in front."""
        found = pair_findings(self.certificates, self.facts, self.training)
        return tuple(map(self._renamed, found)) if self.names else found

    @property
    def first(self) -> Finding | None:
        """What to act on first; None where nothing above a note was found."""
        return foremost(self.findings)

    @property
    def place(self) -> str:
        """Where the pair stands, in a few sentences: the finding to act on first in front."""
        return self.named(place(self.certificates, self.first))

    @property
    def measured(self) -> tuple[str, ...]:
        """Measurements that come with the findings, largest effect first."""
        remarks = remarks_on(self.certificates, self.first is not None)
        return tuple(self.named(line) for line in remarks)

    @property
    def advice(self) -> tuple[str, ...]:
        """The findings with what to change first, in their order; then what was measured."""
        return (*(finding.advice for finding in self.findings), *self.measured)

    def named(self, text: str) -> str:
        """A text with the players' own names, where they have other ones than "generator" and "critic"."""
        if not self.names:
            return text
        return re.sub(r"\b(generator|critic)\b", lambda m: self.names.get(m[0], m[0]), text)

    def _renamed(self, finding: Finding) -> Finding:
        where, text, cure = map(self.named, (finding.where, finding.text, finding.cure))
        return replace(finding, where=where, text=text, cure=cure)

    @property
    def details(self) -> str:
        """Everything in plain text: where the pair stands, findings, facts, every certificate's whole summary, and what
        was measured."""
        rows = [f"{c.claim:22} {c.verdict.value:12} {c.summary}" for c in self.certificates]
        return self._written(rows, list(self.measured))

    def __str__(self) -> str:
        """What fits a screen: of claims about each player that about the pair alone, a line each; `details` has all."""
        shown = [
            c
            for c in self.certificates
            if "/" not in c.claim or c.claim.partition("/")[0] not in self
        ]
        width = max((len(c.claim) for c in shown), default=0)
        rows = [f"{c.claim:{width}}  {c.verdict.value:12} {_first(c.summary)}" for c in shown]
        text = self._written(rows, list(self.measured[:MOST]))
        left = len(self.certificates) - len(shown)
        if not shown:
            return text
        more_of = f"{left} more certificates and whole summaries" if left else "Whole summaries"
        return f'{text}\n\n{more_of}: print(audit.details); one of them: audit["{shown[-1].claim}"].summary'

    def _listed(self) -> list[tuple[str, str]]:
        """A row for each finding: what it is called, and what is left to say of it after `place`."""
        place = self.place
        return [
            (f.label, f"Change first: {f.cure}." if f.text in place else f.advice)
            for f in self.findings
        ]

    def _written(self, rows: list[str], measured: list[str]) -> str:
        plain = [self.named(" ".join(self.facts.sentences))] if self.facts is not None else []
        notes = [f"Note: {note}." for note in self.notes]
        remarks = [f"- {line}" for line in measured]
        found = [f"{label}. {rest}" for label, rest in self._listed()]
        reported = [self.place, *found, *plain, *notes, "", *rows]
        return "\n".join([*reported, *([""] if remarks else []), *remarks])

    def __repr__(self) -> str:
        by_verdict: dict[str, list[str]] = {}
        for c in self.certificates:
            by_verdict.setdefault(c.verdict.value, []).append(c.claim)
        lines = [f"  {verdict}: {', '.join(claims)}" for verdict, claims in by_verdict.items()]
        lines += [f"  note: {shortened(note)}" for note in self.notes]
        return "\n".join([f"Audit of {len(self)} claims in {self.seconds:.3g} s", *lines])

    def _repr_html_(self) -> str:
        rows = [(label, "", rest) for label, rest in self._listed()]
        rows += [("note", "", note) for note in self.notes]
        if self.facts is not None:
            rows += [("fact", "", sentence) for sentence in self.facts.sentences]
        rows += [(c.claim, c.verdict.value, shortened(c.summary, 300)) for c in self.values()]
        rows += [("measured", "", line) for line in self.measured]
        return notebook_table(f"Audit: {self.place}", rows)

    def to_json(self) -> Json:
        """Plain values, as in audit.json (docs/design.md)."""
        value: Json = json_ready(
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
                "findings": as_recorded(self.findings),
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
