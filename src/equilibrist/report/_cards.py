"""The verdicts, a card for each claim."""

from . import _charts as charts
from . import _words as words
from ._html import badge, e, facts, fold, linked
from ._measures import measure_of
from ._profile import scale_chart, trials_table
from ._record import Audit, Certificate, Record, Verdict, as_number
from ._spectrum import drawn

# Claims whose evidence is drawn in a section of its own.
_PICTURES = {
    "stable": ("spectrum", "The spectrum as a picture"),
    "profile": ("profile", "The profile as a picture"),
    "section-6.1": ("experiment", "Its curves and samples"),
    "duality-gap": ("gaps", "The gaps side by side"),
    "proximal-duality-gap": ("gaps", "The gaps side by side"),
}


def verdicts(record: Record) -> str:
    """The section's body: all verdicts in a list, then a card for each."""
    audit = record.audit
    if audit is None or not audit.certificates:
        command = e(words.audit_command(record))
        return (
            "<p>No audit has been made, so nothing can be said about equilibria. This makes one "
            f"and adds it to this report:</p><pre>{command}</pre>"
        )
    step = "an unknown step" if audit.step is None else f"step {words.count(audit.step)}"
    seconds = _seconds(audit)
    spent = f" It took {words.duration(seconds)}." if seconds is not None else ""
    lead = (
        f"The audit took the pair as it stood at {step} and tested one claim at a time.{spent} "
        "Each verdict comes with its numbers, its tolerance and its limits."
    )
    laddered = any(rung.verdict is not None for rung in audit.ladder)
    if laddered:
        lead += " Where there is a question, the claim below it is what the verdict is about."
    listed = _overview(audit) if laddered else ""
    cards = "\n".join(_card(certificate, i) for i, certificate in enumerate(audit.certificates))
    return f'<p class="lead">{e(lead)}</p>\n{listed}{cards}'


def _seconds(audit: Audit) -> float | None:
    """What the audit took in all: one that was interrupted and went on counts its last part only, its checks
    count whole."""
    checks = sum(as_number(row.get("seconds")) or 0.0 for row in audit.work.values())
    if audit.seconds is None:
        return checks or None
    return max(audit.seconds, checks)


def _overview(audit: Audit) -> str:
    """All verdicts in a list: the ladder at the top of the page holds the main ones only."""
    return f'<div class="overview-box">{overview(audit.certificates)}</div>'


def overview(certificates: list[Certificate]) -> str:
    """Every claim in a few words with its verdict, linked to its card."""
    rows = "".join(
        f'<li><a href="#claim-{position}"><span>{e(words.claim_short(certificate))}</span>'
        f'<span class="says {words.TONES[certificate.verdict]}">'
        f'<span aria-hidden="true">{words.MARKS[certificate.verdict]}</span> '
        f"{words.BADGES[certificate.verdict]}</span></a></li>"
        for position, certificate in enumerate(certificates)
    )
    return f'<ul class="overview" aria-label="All verdicts">{rows}</ul>' if rows else ""


def _card(certificate: Certificate, position: int) -> str:
    tone = words.TONES[certificate.verdict]
    question, title = words.claim_question(certificate), words.claim_title(certificate)
    told = f'<p class="claim-says"><b>Claim</b> {e(title)}</p>' if question else ""
    parts = [
        f'<header><div><span class="claim-id">Claim: {e(certificate.claim)}</span>'
        f"<h3>{e(question or title)}</h3>{told}</div>"
        f"{badge(tone, words.BADGES[certificate.verdict])}</header>"
    ]
    if certificate.summary:
        parts.append(f"<p>{e(certificate.summary)}</p>")
    parts.append(_measure(certificate, tone))
    if certificate.tolerance is not None:
        why = f": {certificate.tolerance.why}" if certificate.tolerance.why else ""
        text = f"{words.tolerance_words(certificate.tolerance)}{why}".rstrip(".") + "."
        parts.append(f'<p class="why"><b>Tolerance</b> {e(text)}</p>')
    if certificate.kind in _PICTURES and (certificate.kind != "stable" or drawn(certificate)):
        anchor, said = _PICTURES[certificate.kind]
        parts.append(f'<p class="why"><a href="#{anchor}">{said}</a></p>')
    meaning = words.claim_meaning(certificate)
    if meaning:
        parts.append(fold("What this claim means", f"<p>{e(meaning)}</p>"))
    rows = words.evidence_rows(certificate)
    if certificate.witness:
        rows.append((_witness(certificate), f"audit/{certificate.witness}"))
    rows += [(words.label(key), words.plain(value)) for key, value in certificate.scope.items()]
    items = [f"<li>{e(limit[:1].upper() + limit[1:])}</li>" for limit in certificate.limits]
    items += [f"<li>Source: {linked(text)}</li>" for text in certificate.references]
    if rows or items:
        notes = f"<ul>{''.join(items)}</ul>" if items else ""
        notes = trials_table(certificate) + notes
        parts.append(fold("Numbers, scope and limits", facts(rows, "facts tight") + notes))
    body = "\n".join(part for part in parts if part)
    return f'<article class="card {tone}" id="claim-{position}">\n{body}\n</article>'


def _witness(certificate: Certificate) -> str:
    if certificate.witness_kind == "direction":
        return "Witness (a direction, unit length)"
    return "Witness"


def _measure(certificate: Certificate, tone: str) -> str:
    """The claim's main number, large, beside its interval drawn against the tolerance."""
    found = measure_of(certificate)
    if found is None:
        return ""
    chart = ""
    if found.scale == "linear" and None not in (found.value, found.low, found.high):
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        limit = certificate.tolerance.value if certificate.tolerance else None
        alt = f"{found.name} {found.shown}, {found.between}; tolerance "
        alt += words.tolerance_words(certificate.tolerance)
        chart = charts.interval_chart(found.value, (found.low, found.high), limit, tone, alt)
    elif found.scale == "lambda" and found.low is not None and found.high is not None:
        alt = f"{found.name}: {found.shown}"
        # Where the claim is refuted for another reason, up to lambda* it holds all the same.
        colour = "open" if certificate.verdict is Verdict.REFUTED else tone
        chart = scale_chart(found.low, found.high, colour, alt)
    return (
        f'<div class="measure"><div><span class="name">{e(found.name)}</span>'
        f'<span class="value">{e(found.shown)}</span><span class="name">{e(found.between)}</span>'
        f"</div><div>{chart}</div></div>"
    )
