"""Writes the report beside the run: a page for people, the same facts as JSON for machines."""

import contextlib
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from equilibrist.certificates import Json
from equilibrist.errors import RecordError
from equilibrist.files.owned import publish
from equilibrist.report._claims import BADGES
from equilibrist.report._commands import audit_command, run_command
from equilibrist.report._findings import record_findings
from equilibrist.report._headline import headline
from equilibrist.report._load import load_record
from equilibrist.report._missing import missing
from equilibrist.report._page import report_page
from equilibrist.report._pair import is_pair, load_pair
from equilibrist.report._record import CertificateRecord, RunRecord, Series


def write_report(run_directory: Path) -> Path:
    """Reports on a run, from its directory alone, or on the audit of a pair of your own, from its folder.

    Writes `RUN/report.html`, one self-contained page that loads nothing, and `RUN/report.json`,
    the same facts for machines. A run that was stopped, that broke down or that was not audited
    gets a report too, which says what is missing and which command makes it. The same run
    directory always gives the same bytes. Files are replaced atomically, and only those that an
    earlier report wrote and nobody has changed since.

    Args:
        run_directory: the folder of one run (`docs/formats.md` has its format), or the `out` of an
            `audit_pair`. Commands on the page name it as it is named here.

    A file that is damaged or written in another format is left out, and the page says so.

    Returns:
        The path of the page.

    Raises:
        RecordError: the folder is no run, or a file of the user's has the name of one of the
            report's.
    """
    run_directory = Path(run_directory)
    record = load_pair(run_directory) if is_pair(run_directory) else load_record(run_directory)
    text, body = _composed(replace(record, where=str(run_directory)))
    # A lone surrogate in a name cannot be written as UTF-8: it becomes a question mark.
    html = text.encode("utf-8", "replace")
    publish(run_directory, {"report.json": body.encode("utf-8"), "report.html": html})
    return run_directory / "report.html"


_PARTS: dict[str, Json] = {
    "audit/audit.json": {"audit": None},
    "scores.jsonl": {"scores": []},
    "environment.json": {"sessions": []},
    "recipe.json": {"recipe": None},
    "metrics.jsonl": {"series": {}, "seconds": None},
    "samples": {"samples": [], "real": None, "mean": None},
}


def _composed(record: RunRecord) -> tuple[str, str]:
    """The page and its facts. Where an entry deep in one file is of another kind than any page was made
    for, that file is left out and the rest is shown."""
    try:
        return _written(record)
    except Exception:
        for name, without in _PARTS.items():
            note = f"{name}: an entry is of the wrong kind. It is left out."
            lighter = replace(
                record,
                **without,
                damaged=[*record.damaged, name],
                notes=[*record.notes, note],
            )
            with contextlib.suppress(Exception):
                return _written(lighter)
        raise RecordError(f"{record.name}: entries of its files are of the wrong kind") from None


def _written(record: RunRecord) -> tuple[str, str]:
    with np.errstate(all="ignore"):
        return report_page(record), json.dumps(
            report_facts(record), indent=1, allow_nan=False
        ) + "\n"


def report_facts(record: RunRecord) -> Json:
    """The report's content as JSON values; numbers that are not finite become texts."""
    head, audit = headline(record), record.audit
    content = {
        "format": 1,
        "run": record.name,
        "headline": {
            "verdict": head.badge,
            "text": head.text,
            "interval": head.aside,
            "detail": list(head.detail),
        },
        "findings": [f.describe() for f in record_findings(record)],
        "missing": [{"what": m.what, "command": m.command} for m in missing(record)],
        "notes": record.notes,
        "recipe": record.recipe,
        "status": None if record.status is None else record.status.state,
        "last_step": record.last_step,
        "seconds": record.seconds,
        "metrics": {
            quantity: {player: _series_facts(series) for player, series in players.items()}
            for quantity, players in record.series.items()
        },
        "scores": record.scores,
        "samples": [{"file": f"samples/{s.name}", "step": s.step} for s in record.samples],
        "real": None if record.real is None else f"samples/{record.real.name}",
        "audit": None
        if audit is None
        else {
            "step": audit.step,
            "seconds": audit.seconds,
            "checkpoint": audit.checkpoint,
            "sha256": audit.sha256,
            "settings": audit.settings,
            "dtype": audit.dtype,
            "place": audit.place or None,
            "facts": audit.facts,
            "notes": audit.notes,
            "advice": audit.advice,
            "ladder": [
                {"claim": r.claim, "words": r.words, "verdict": r.verdict and r.verdict.value}
                for r in audit.ladder
            ],
            "work": audit.work,
            "certificates": [_certificate_facts(c) for c in audit.certificates],
        },
        "commands": {
            "run": run_command(record),
            "audit": audit_command(record, settings=True),
        },
        "sessions": record.sessions,
    }
    cleaned: Json = _clean(content)
    return cleaned


def _series_facts(series: Series) -> Json:
    sound = series.values[np.isfinite(series.values)]
    return {
        "count": int(series.values.size),
        "not_finite": int(series.values.size - sound.size),
        "first": float(series.values[0]),
        "last": float(series.values[-1]),
        "smallest": float(sound.min()) if sound.size else None,
        "largest": float(sound.max()) if sound.size else None,
    }


def _certificate_facts(certificate: CertificateRecord) -> Json:
    row = replace(certificate, evidence=_evidence(certificate)).to_row(certificate.witness)
    return row | {"meaning": BADGES[certificate.verdict]}


def _evidence(certificate: CertificateRecord) -> Json:
    # The curves of searches are long, and in audit.json; those of other claims are what the claim is about.
    long = {"curves"} if certificate.curves else set()
    return {k: v for k, v in certificate.evidence.items() if k not in long}


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _clean(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
