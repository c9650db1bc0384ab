"""The verdicts: a row for each claim, which opens to its numbers, its pictures, its limits."""

from collections.abc import Callable

from equilibrist.report import charts
from equilibrist.report._claims import (
    BADGES,
    MARKS,
    TONES,
    claim_meaning,
    claim_question,
    claim_short,
    claim_title,
    evidence_rows,
)
from equilibrist.report._commands import audit_command
from equilibrist.report._critic import betrayed, overlooked
from equilibrist.report._experiment import experiment_section, gaps_section
from equilibrist.report._html import badge, escape, fact_list, fold, linked
from equilibrist.report._ladder import highest
from equilibrist.report._lambda_axis import scale_chart
from equilibrist.report._measures import measure_of, small_words
from equilibrist.report._profile import profile_section, trials_table
from equilibrist.report._profile_offer import offer
from equilibrist.report._record import (
    AuditRecord,
    CertificateRecord,
    Json,
    RunRecord,
    Verdict,
    as_number,
    common_scope,
)
from equilibrist.report._search import search_section
from equilibrist.report._spectrum import spectrum_section
from equilibrist.report.formatting import as_label, format_duration, format_tolerance, format_value
from equilibrist.report.lines import chart_picture

# What is drawn of a claim besides its interval.
_PICTURES: dict[str, tuple[str, Callable[[RunRecord], str]]] = {
    "stable": ("spectrum", spectrum_section),
    "profile": ("profile", profile_section),
    "generator-vs-prox": ("experiment", experiment_section),
    "not-blind": ("parts", overlooked),
    "indistinguishable": ("telling", betrayed),
    "duality-gap": ("gaps", gaps_section),
    "proximal-duality-gap": (
        "gaps",
        lambda record: "" if _has(record, "duality-gap") else gaps_section(record),
    ),
}


def _has(record: RunRecord, claim: str) -> bool:
    return record.audit is not None and record.audit.find(claim) is not None


def verdicts(record: RunRecord) -> str:
    """The section's body: the ladder, Nash at the top, then the claims beside it; each row opens."""
    audit = record.audit
    if audit is None or not audit.certificates:
        command = escape(audit_command(record))
        return (
            "<p>No audit has been made, so nothing can be said about equilibria. This makes one "
            f"and adds it to this report:</p><pre>{command}</pre>"
        )
    common = common_scope(audit)
    rows, reported = _rungs(record, audit, common)
    rest = [c for c in audit.certificates if c.claim not in reported]
    beside = "".join(_row(record, c, common, []) for c in rest)
    parts = [f'<p class="lead">{escape(_lead(record, audit))}</p>']
    if rows:
        label = "The ladder from motion, below, to Nash, at the top"
        parts.append(f'<ul class="ladder" aria-label="{label}">{rows}</ul>')
    if beside:
        kind = "ladder beside" if rows else "ladder beside alone"
        parts.append(f'<ul class="{kind}" aria-label="Claims beside the ladder">{beside}</ul>')
    return "\n".join([*parts, offer(record)])


def _lead(record: RunRecord, audit: AuditRecord) -> str:
    seconds = _seconds(audit)
    spent = f" in {format_duration(seconds)}" if seconds is not None else ""
    what = "critic" if record.is_critic else "pair"
    return (
        f"The audit tested the {what}{spent}, one claim at a time. Each row opens to its evidence."
    )


def _rungs(record: RunRecord, audit: AuditRecord, common: Json) -> tuple[str, set[str]]:
    """The ladder's rows, and the claims that they hold."""
    if all(rung.verdict is None for rung in audit.ladder):
        return "", set()
    here, reported, rows = highest(audit), set[str](), []
    for rung in reversed(audit.ladder):
        whole = audit.find(rung.claim)
        parts = [c for c in audit.certificates if c.claim.startswith(f"{rung.claim}/")]
        name, more = (rung.name[:1].upper() + rung.name[1:], rung.meaning)
        place = rung.claim == here
        if whole is None:
            rows.append(_unopened(rung.verdict, name, more, place))
            reported |= {c.claim for c in parts}
            rows += [_row(record, c, common, []) for c in parts]
            continue
        reported |= {rung.claim, *(c.claim for c in parts)}
        number = small_words(whole)
        rest = "; ".join(part for part in (more, number) if part)
        line = _line(rung.verdict, name, rest, place)
        rows.append(_row(record, whole, common, parts, line))
    return "".join(rows), reported


def _seconds(audit: AuditRecord) -> float | None:
    """What the audit took in all: one that was interrupted and went on counts its last part only, its checks
    count whole."""
    checks = sum(as_number(row.get("seconds")) or 0.0 for row in audit.work.values())
    if audit.seconds is None:
        return checks or None
    return max(audit.seconds, checks)


def _line(verdict: Verdict | None, name: str, more: str, here: bool) -> tuple[str, str]:
    """(class, HTML) of a row before it is opened."""
    tone, mark, says = ("none", "\N{EN DASH}", "not asked")
    if verdict is not None:
        tone, mark, says = TONES[verdict], MARKS[verdict], BADGES[verdict]
    small = f' <span class="small">{escape(more)}</span>' if more else ""
    place = '<span class="small place">the pair stands here</span>' if here else ""
    line = (
        f'<span class="mark" aria-hidden="true">{mark}</span>'
        f'<span class="rung"><b>{escape(name)}</b>{small}</span>{place}<span class="says">{escape(says)}</span>'
    )
    return f"{tone}{' here' if here else ''}", line


def _unopened(verdict: Verdict | None, name: str, more: str, here: bool) -> str:
    tone, line = _line(verdict, name, more, here)
    return f'<li class="{tone}"><div class="line">{line}</div></li>'


def _row(
    record: RunRecord,
    certificate: CertificateRecord,
    common: Json,
    parts: list[CertificateRecord],
    shown: tuple[str, str] | None = None,
) -> str:
    """A claim's row (`shown`, where the ladder has one) with what it opens to: the claim itself, then the same of
    each player."""
    short, small = claim_short(certificate), small_words(certificate)
    tone, line = shown or _line(certificate.verdict, short, small, False)
    body = _body(record, certificate, common, reported=bool(parts))
    body += "".join(_part(record, c, common) for c in parts)
    return (
        f'<li class="{tone}"><details id="{_anchor(record, certificate)}">'
        f'<summary class="line">{line}</summary><div class="opened">{body}</div></details></li>'
    )


def _part(record: RunRecord, certificate: CertificateRecord, common: Json) -> str:
    tone = TONES[certificate.verdict]
    head = (
        f"<header><h3>{escape(claim_short(certificate))}</h3>"
        f"{badge(tone, BADGES[certificate.verdict])}</header>"
    )
    anchor = _anchor(record, certificate)
    return f'<article class="part {tone}" id="{anchor}">{head}{_body(record, certificate, common)}</article>'


def _anchor(record: RunRecord, certificate: CertificateRecord) -> str:
    assert record.audit is not None
    return f"claim-{record.audit.certificates.index(certificate)}"


def _body(
    record: RunRecord, certificate: CertificateRecord, common: Json, reported: bool = False
) -> str:
    """What is known of one claim; `reported`: its players' parts follow and hold the numbers."""
    title = claim_question(certificate) or claim_title(certificate)
    parts = [f'<p class="claim-says">{escape(title)} <code>{escape(certificate.claim)}</code></p>']
    if certificate.summary:
        parts.append(f"<p>{escape(certificate.summary)}</p>")
    parts.append(_measure(certificate, TONES[certificate.verdict]))
    if certificate.kind != "generator-vs-prox":
        parts.append(search_section(certificate, record))
    if certificate.kind in _PICTURES:
        name, draw = _PICTURES[certificate.kind]
        if picture := draw(record):
            parts.append(f'<section id="{name}" class="drawn">{picture}</section>')
    if certificate.chart is not None and (picture := chart_picture(certificate.chart)):
        parts.append(f'<section class="drawn">{picture}</section>')
    if meaning := claim_meaning(certificate):
        parts.append(f'<p class="note">{escape(meaning)}</p>')
    rows = [] if reported else evidence_rows(certificate)
    if certificate.tolerance is not None and not reported:
        why = f": {certificate.tolerance.why}" if certificate.tolerance.why else ""
        rows.insert(0, ("Tolerance", f"{format_tolerance(certificate.tolerance)}{why}"))
    if certificate.witness:
        kept = f"audit/{certificate.witness}" if not record.is_pair else certificate.witness
        rows.append((_witness(certificate), kept))
    rows += [
        (as_label(key), format_value(value))
        for key, value in certificate.scope.items()
        if key not in common
    ]
    items = [f"<li>{escape(limit[:1].upper() + limit[1:])}</li>" for limit in certificate.limits]
    items += [f"<li>Source: {linked(text)}</li>" for text in certificate.references]
    if not reported and (rows or items):
        notes = f"<ul>{''.join(items)}</ul>" if items else ""
        notes = trials_table(certificate) + notes
        parts.append(fold("Numbers, scope and limits", fact_list(rows, "facts tight") + notes))
    return "\n".join(part for part in parts if part)


def _witness(certificate: CertificateRecord) -> str:
    if certificate.witness_kind == "direction":
        return "Witness (a direction, unit length)"
    return "Witness"


def _measure(certificate: CertificateRecord, tone: str) -> str:
    """The claim's main number, large, beside its interval drawn against the tolerance."""
    found = measure_of(certificate)
    if found is None:
        return ""
    chart = ""
    if found.scale == "linear" and None not in (found.value, found.low, found.high):
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        limit = certificate.limit
        alt = f"{found.name} {found.shown}, {found.between}; tolerance "
        alt += format_tolerance(certificate.tolerance)
        chart = charts.interval_chart(found.value, (found.low, found.high), limit, tone, alt)
    elif found.scale == "lambda" and found.low is not None and found.high is not None:
        alt = f"{found.name}: {found.shown}"
        # Where the claim is refuted for another reason, up to lambda* it holds all the same.
        colour = "open" if certificate.verdict is Verdict.REFUTED else tone
        chart = scale_chart(found.low, found.high, colour, alt)
    return (
        f'<div class="measure"><div><span class="name">{escape(found.name)}</span>'
        f'<span class="value">{escape(found.shown)}</span><span class="name">{escape(found.between)}</span>'
        f"</div><div>{chart}</div></div>"
    )
