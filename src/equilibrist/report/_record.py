"""What a report may use from a run directory, as plain values. Nothing here reads or judges."""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from equilibrist.certificates import STATES, Json, Rung, Statement, Tolerance, Verdict, as_number
from equilibrist.files.reading import dig
from equilibrist.findings import Finding

__all__ = [
    "AuditRecord",
    "CertificateRecord",
    "Curve",
    "Json",
    "RunRecord",
    "Rung",
    "Sample",
    "Series",
    "Status",
    "Tolerance",
    "Verdict",
    "as_number",
    "common_scope",
    "numbers",
]

AUDIT_FILE = "audit/audit.json"  # as a report names it
PAIR = "pair"  # the origin of a record that is no run's but the audit of a user's own pair


@dataclass(frozen=True)
class Sample:
    """One picture (`png`, with its size in pixels) or one cloud of points (`points`, [n, 2])."""

    name: str
    step: int | None
    png: bytes | None = None
    width: int = 0
    height: int = 0
    points: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Series:
    """One logged number over training; values may be infinite or NaN."""

    steps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One start of a search: the gain found so far at each optimisation step."""

    start: int
    steps: NDArray[np.float64]
    gain: NDArray[np.float64]
    perturbation: float | None = None
    optimizer: str = ""


@dataclass(frozen=True)
class CertificateRecord(Statement):
    """A statement as recorded, whose witness is the name of a file, with the searches and samples behind it."""

    witness: str | None = field(default=None, repr=False, compare=False)
    curves: list[Curve] = field(default_factory=list)
    samples: dict[str, Sample] = field(default_factory=dict)

    @property
    def limit(self) -> float | None:
        """The tolerance; None where none is known."""
        value = math.nan if self.tolerance is None else self.tolerance.value
        return None if math.isnan(value) else value

    @property
    def chosen(self) -> tuple[int, float | None] | None:
        """The start that was chosen and the optimisation step at which it was taken."""
        chosen = self.evidence.get("chosen")
        if not isinstance(chosen, dict) or not isinstance(chosen.get("start"), int):
            return None
        return chosen["start"], as_number(chosen.get("step"))


@dataclass(frozen=True)
class AuditRecord:
    """The audit of one checkpoint. `ladder` has the lowest rung first, `work` gradients and seconds by check.

    `facts` are sentences on losses, separation and samples, `notes` on what does not fit together. Audits of
    earlier versions have no place, findings, advice, ladder, facts, notes or work.
    """

    step: int | None
    seconds: float | None
    checkpoint: str | None
    sha256: str | None
    settings: Json
    dtype: Json
    certificates: list[CertificateRecord]
    place: str = ""
    findings: list[Finding] = field(default_factory=list)
    advice: list[str] = field(default_factory=list)
    ladder: list[Rung] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    work: dict[str, Json] = field(default_factory=dict)

    def find(self, claim: str) -> CertificateRecord | None:
        """The certificate of a claim, None where the audit says nothing of it."""
        return next((c for c in self.certificates if c.claim == claim), None)


@dataclass(frozen=True)
class Status:
    """How training last stood: `state` is running, interrupted, diverged or finished."""

    state: str
    step: int | None
    message: str


@dataclass(frozen=True)
class RunRecord:
    """Everything that a report may use from one run directory. `damaged` names the files that were left
    out because they could not be read."""

    name: str
    recipe: Json | None
    sessions: list[Json]
    series: dict[str, dict[str, Series]]
    samples: list[Sample]
    real: Sample | None
    audit: AuditRecord | None
    status: Status | None
    last_step: int | None
    seconds: float | None
    notes: list[str]
    damaged: list[str]
    scores: list[Json] = field(default_factory=list)
    mean: Sample | None = None
    where: str = ""  # the folder as it was named, for commands
    guard: list[Json] = field(default_factory=list)  # what a guard against divergence has changed

    def text(self, *path: str) -> str | None:
        """A text of the recipe, found along `path`; None where it is absent or empty."""
        value = dig(self.recipe, *path)
        return value if isinstance(value, str) and value else None

    def integer(self, *path: str) -> int | None:
        """A whole number of the recipe, found along `path`; None where it is absent."""
        value = dig(self.recipe, *path)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    @property
    def origin(self) -> str | None:
        """Where the recipe came from: builtin, file, python or pair."""
        return self.text("origin", "kind")

    @property
    def is_pair(self) -> bool:
        """Whether this is the audit of a user's own pair, with no run around it."""
        return self.origin == PAIR

    @property
    def is_critic(self) -> bool:
        """Whether this is the audit of a critic alone."""
        return self.audit is not None and any(self.audit.find(claim) for claim in STATES)

    @property
    def diverged(self) -> bool:
        """Whether training met numbers that are not finite and did not recover."""
        by_status = self.status is not None and self.status.state == "diverged"
        return by_status or self.first_broken is not None

    @property
    def first_broken(self) -> tuple[str, str, int] | None:
        """(quantity, player, step) from which on a loss or norm never again was a finite number.

        None where the last logged values are finite: one bad step that training survived shows
        in the chart but is no divergence.
        """
        found: list[tuple[str, str, int]] = []
        for quantity in ("loss", "grad_norm"):
            for player, series in self.series.get(quantity, {}).items():
                bad = ~np.isfinite(series.values)
                if bad.size and bad[-1]:
                    sound = np.flatnonzero(~bad)
                    first = int(sound[-1]) + 1 if sound.size else 0
                    found.append((quantity, player, int(series.steps[first])))
        return min(found, key=lambda item: item[2], default=None)


def common_scope(audit: AuditRecord) -> Json:
    """What several claims have in common of their scope and no other contradicts: shown once, with the settings."""
    found: dict[str, list[object]] = {}
    for certificate in audit.certificates:
        for key, value in certificate.scope.items():
            found.setdefault(key, []).append(value)
    return {k: v[0] for k, v in found.items() if len(v) > 1 and all(x == v[0] for x in v)}


def numbers(value: object) -> NDArray[np.float64] | None:
    """An array from a JSON list of numbers, NaN where an entry is none; None where it is no list."""
    if not isinstance(value, list):
        return None
    found = [as_number(item) for item in value]
    return np.array([math.nan if item is None else item for item in found], dtype=float)
