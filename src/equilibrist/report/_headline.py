"""The headline of a report: the verdict on the whole run in one sentence."""

import re
from dataclasses import dataclass, replace

from equilibrist.certificates import STATES
from equilibrist.findings import foremost
from equilibrist.report._claims import (
    BADGES,
    TONES,
    budget_words,
    claim_title,
    gain_words,
    other,
    side,
)
from equilibrist.report._findings import broke_down, record_findings
from equilibrist.report._record import (
    AUDIT_FILE,
    AuditRecord,
    CertificateRecord,
    RunRecord,
    Verdict,
)
from equilibrist.report.formatting import format_count, format_tolerance


@dataclass(frozen=True)
class Headline:
    """The verdict on the whole run: one sentence, with a badge, and what to know beside it."""

    tone: str
    badge: str
    text: str
    aside: str = ""
    detail: tuple[str, ...] = ()


def headline(record: RunRecord) -> Headline:
    """The verdict on the whole run, in words."""
    if record.diverged:
        return _diverged(record)
    audit, first = record.audit, foremost(record_findings(record))
    if audit is None or not audit.certificates:
        head = _not_audited(record)
    else:
        head = _audited(record, audit)
    if first is None:
        return head
    # What a finding opens with comes before where the pair stands.
    stands = audit.place if audit is not None and audit.place else f"{head.text}. {head.aside}"
    stands = stands.replace(first.text, "", 1).strip()
    badge = first.name.replace("-", " ")
    return replace(
        head, tone=_TONE[first.level], badge=badge, text=first.text.rstrip("."), aside=stands
    )


_TONE = {"fault": "refuted", "warning": "unknown"}


def _diverged(record: RunRecord) -> Headline:
    status, detail = record.status, ["Trust nothing that was recorded from then on."]
    if status is not None and status.message:
        detail.insert(0, f"{status.message[:1].upper()}{status.message[1:]}.")
    if record.audit is not None and record.audit.step is not None:
        detail.append(f"The audit below is of step {format_count(record.audit.step)}.")
    return Headline("refuted", "diverged", broke_down(record), detail=tuple(detail))


def _not_audited(record: RunRecord) -> Headline:
    state = training_progress(record)
    if AUDIT_FILE in record.damaged:
        return Headline(
            "none",
            "not readable",
            f"{state}; the audit of it is damaged and cannot be read",
            detail=("An audit is one command away: see below.",),
        )
    return Headline(
        "none",
        "not audited",
        f"{state}; whether this is an equilibrium has not been looked at",
        detail=("The audit is one command away: see below.",),
    )


def training_progress(record: RunRecord) -> str:
    """How far training came, as the beginning of a sentence."""
    steps, last = record.integer("steps"), record.last_step
    if record.is_critic:
        return "A critic of your own"
    if record.is_pair:
        return "A pair of your own"
    if last is None:
        return "No step is recorded"
    if steps is not None and last < steps:
        running = record.status is not None and record.status.state == "running"
        stopped = "was under way" if running else "stopped"
        return f"Training {stopped} at step {format_count(last)} of {format_count(steps)}"
    return f"Trained for {format_count(last)} steps"


def _audited(record: RunRecord, audit: AuditRecord) -> Headline:
    detail = []
    if audit.step is not None:
        detail.append(f"Audited at step {format_count(audit.step)}.")
        if record.last_step is not None and record.last_step > audit.step:
            detail.append(
                f"Training went on to step {format_count(record.last_step)}: audit again to judge that."
            )
    steps = record.integer("steps")
    if steps is not None and record.last_step is not None and record.last_step < steps:
        detail.append(f"{training_progress(record)}.")
    if audit.place:
        return _placed(audit, tuple(detail))
    if any(
        c.claim.partition("/")[0] == "stationary" and c.verdict is Verdict.REFUTED
        for c in audit.certificates
    ):
        detail.append("Training was still moving then: a longer run may land elsewhere.")
    nash = [c for c in audit.certificates if c.claim.partition("/")[0] == "nash"]
    if not nash:
        first = audit.certificates[0]
        return Headline(
            TONES[first.verdict],
            BADGES[first.verdict],
            f"{claim_title(first)}: {BADGES[first.verdict]}",
            detail=(*detail, "Whether the pair is a Nash equilibrium was not checked."),
        )
    return _nash(nash, tuple(detail))


_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_STANDS = {
    "nash": "no way out found",
    "local-nash": "local Nash",
    "proximal": "proximal",
    "local-minimax": "local minimax",
    "stable": "stable",
}


def _placed(audit: AuditRecord, detail: tuple[str, ...]) -> Headline:
    """The headline that the audit's own sentence about the pair's place gives."""
    first, *rest = _SENTENCE.split(audit.place.strip(), maxsplit=1)
    tone, badge = _standing(audit)
    return Headline(tone, badge, first.rstrip("."), " ".join(rest), detail)


def _standing(audit: AuditRecord) -> tuple[str, str]:
    """(tone, badge) of the pair's place."""
    tests = audit.find("self-tests")
    if tests is not None and tests.verdict is not Verdict.VERIFIED:
        return "unknown", "cannot be audited"
    verdicts = {rung.claim: rung.verdict for rung in audit.ladder}
    verdicts |= {c.claim: c.verdict for c in audit.certificates}
    if any(claim in verdicts for claim in STATES):
        found = [state for c, state in STATES.items() if verdicts.get(c) is Verdict.REFUTED]
        return ("refuted", " and ".join(found[:2])) if found else ("open", "no fault found")
    if verdicts.get("stationary") is Verdict.REFUTED:
        return "refuted", "still moving"
    if verdicts.get("nash") is Verdict.REFUTED:
        return "refuted", "not a Nash equilibrium"
    if verdicts.get("nash") is Verdict.VERIFIED:
        return "verified", "Nash equilibrium"
    for claim, badge in _STANDS.items():
        if (verdict := verdicts.get(claim)) in (Verdict.VERIFIED, Verdict.NOT_REFUTED):
            return TONES[verdict], badge
    if any(verdicts.get(claim) is Verdict.REFUTED for claim in _STANDS):
        return "refuted", "not an equilibrium"
    return "unknown", "undecided"


def _nash(nash: list[CertificateRecord], detail: tuple[str, ...]) -> Headline:
    """The headline of an audit without a sentence of its own, from its certificates of the Nash check."""
    sides = [c for c in nash if side(c)]
    whole = next((c for c in nash if not side(c)), None)
    refuted = [c for c in sides if c.verdict is Verdict.REFUTED]
    searched = [c for c in sides if c.verdict in (Verdict.NOT_REFUTED, Verdict.VERIFIED)]
    unknown = [c for c in [*sides, *nash] if c.verdict is Verdict.UNASSESSED]
    verified = [c for c in nash if c.verdict is Verdict.VERIFIED]
    if refuted:
        return _refuted(refuted, detail)
    if whole is not None and whole.verdict is Verdict.REFUTED:
        text = f"Not a Nash equilibrium: {whole.summary or 'one player can gain alone'}"
        return Headline("refuted", "not an equilibrium", text.rstrip("."), detail=detail)
    if (whole is not None and whole in verified) or {"generator", "critic"} <= {
        side(c) for c in verified
    }:
        return Headline(
            "verified",
            "equilibrium",
            f"A Nash equilibrium: neither player alone can lower its loss by more than "
            f"{format_tolerance(verified[0].tolerance)}",
            detail=("Shown by a computation, within the scope stated below.", *detail),
        )
    if unknown:
        text = unknown[0].summary or "the measurement cannot tell"
        return Headline("unknown", "undecided", f"Undecided: {text}".rstrip("."), detail=detail)
    if len(searched) == 1 and whole is None:
        player = side(searched[0])
        return Headline(
            "open",
            "half an answer",
            f"The {player} alone found no gain above {format_tolerance(searched[0].tolerance)}; "
            f"the {other(player)} was not searched",
            detail=detail,
        )
    best = max(searched or nash, key=lambda c: (c.tolerance and c.tolerance.value) or 0.0)
    budgets = {budget_words(c) for c in searched} - {""}
    looked = (f"Searched: {'; '.join(sorted(budgets))}.",) if budgets else ()
    return Headline(
        "open",
        "nothing found",
        "No way out found: searching alone, neither player lowered its loss by more than "
        f"{format_tolerance(best.tolerance)}",
        detail=(
            "A search that finds nothing is evidence for an equilibrium, not a proof.",
            *looked,
            *detail,
        ),
    )


def _refuted(refuted: list[CertificateRecord], detail: tuple[str, ...]) -> Headline:
    """The headline where at least one player gains alone: of the one that gains most."""
    first = max(refuted, key=lambda c: c.number("gain") or 0.0)
    gain, aside = gain_words(first)
    also = [
        f"The {side(c)} alone can gain as well: {' '.join(gain_words(c))}."
        for c in refuted
        if c is not first
    ]
    return Headline(
        "refuted",
        "not an equilibrium",
        f"Not a Nash equilibrium: with the {other(side(first))} frozen, the {side(first)} "
        f"alone lowers its loss by {gain}",
        aside,
        (*also, *detail),
    )
