"""What the audit of a critic alone shows besides its numbers: the columns and rows that give generated samples away."""

from equilibrist.report._html import table
from equilibrist.report._record import CertificateRecord, Json, RunRecord, as_number
from equilibrist.report.formatting import format_number


def betrayed(record: RunRecord) -> str:
    """Tables of the columns that tell by themselves and of the rows that the best critic is surest of."""
    certificate = _find(record, "indistinguishable")
    if certificate is None:
        return ""
    columns = [
        (str(c.get("name")), _per_cent(c.get("effect"), 0.5), _number(c.get("p")))
        for c in _rows(certificate, "columns")
    ]
    rows = [(str(r.get("row")), _number(r.get("score"))) for r in _rows(certificate, "rows")]
    parts = []
    if columns:
        parts.append(table(("Column", "Pairs that it orders", "p, corrected"), columns, (1, 2)))
    if rows:
        parts.append(table(("Generated row", "Score"), rows, (1,)))
    return "\n".join(parts)


def overlooked(record: RunRecord) -> str:
    """A table of what the parts of the input tell beyond the score, and how much the score depends on them."""
    certificate = _find(record, "not-blind")
    if certificate is None:
        return ""
    rows = [
        (
            str(p.get("name")),
            _per_cent(p.get("tells_beyond_score"), 0.5),
            _number(p.get("p")),
            _number(p.get("depends")),
        )
        for p in _rows(certificate, "parts")[:12]
    ]
    head = (
        "Part",
        "Pairs of one score that it orders",
        "p, corrected",
        "Score's change without it",
    )
    return table(head, rows, (1, 2, 3)) if rows else ""


def _find(record: RunRecord, claim: str) -> CertificateRecord | None:
    return record.audit.find(claim) if record.audit is not None else None


def _rows(certificate: CertificateRecord, name: str) -> list[Json]:
    found = certificate.evidence.get(name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _number(value: object) -> str:
    found = as_number(value)
    return format_number(found) if found is not None else "not measured"


def _per_cent(value: object, above: float) -> str:
    found = as_number(value)
    return f"{100 * (above + found):.1f}%" if found is not None else "not measured"
