"""The findings of a record: those of its audit, and what the record of training shows by itself."""

from equilibrist.findings import Finding, foremost, ordered
from equilibrist.report._html import escape
from equilibrist.report._record import RunRecord
from equilibrist.report.formatting import format_count


def record_findings(record: RunRecord) -> tuple[Finding, ...]:
    """All of them, what to act on first in front."""
    found = [*_recorded(record), *(record.audit.findings if record.audit else [])]
    unique = {
        (f.name, f.where): f for f in reversed(found)
    }  # the record's own stand for the audit's
    return ordered([f for f in found if unique[f.name, f.where] is f])


def broke_down(record: RunRecord) -> str:
    """In a sentence, from when on the numbers of a training that diverged were not finite."""
    broken, status = record.first_broken, record.status
    if broken is not None:
        quantity, player, step = broken
        what = {"loss": "loss", "grad_norm": "gradient norm"}[quantity]
        whose = f"the {player}'s {what}" if player else f"the {what}"
        return f"Training broke down: {whose} is no finite number from step {format_count(step)} on"
    when = "" if status is None or status.step is None else f" at step {format_count(status.step)}"
    return f"Training broke down{when}: a loss or gradient was no longer a finite number"


def _recorded(record: RunRecord) -> list[Finding]:
    found = []
    if record.diverged:
        where = (record.first_broken or ("", "", 0))[1] or "pair"
        found.append(Finding("not-finite", where, f"{broke_down(record)}."))
    for player, series in record.series.get("grad_norm", {}).items():
        logged = series.values.size
        if logged > 1 and not series.values.any():
            text = f"The {player}'s gradient was exactly 0 at every one of {format_count(logged)} logged steps."
            cure = "see that its loss depends on its weights: nothing on the way may be detached"
            found.append(
                Finding("no-gradient", player, text, evidence={"steps": logged}, cure=cure)
            )
    return found


def opening(record: RunRecord) -> str:
    """What to change first; "" where nothing above a note was found."""
    first = foremost(record_findings(record))
    if first is None:
        return ""
    cure = f"{first.cure[:1].upper()}{first.cure[1:]}."
    return f'<p class="told"><b>Change first</b> {escape(cure)}</p>'


def lists(record: RunRecord) -> str:
    """All findings, then what was measured, without what the headline says; "" where there is neither."""
    found, audit = record_findings(record), record.audit
    first = foremost(found)
    rows = [
        f"<li><b>{escape(f.label)}</b>{'' if f is first else f'. {escape(f.advice)}'}</li>"
        for f in found
    ]
    advised = {f.advice for f in found}
    lines = [x for x in audit.advice if x not in audit.place and x not in advised] if audit else []
    return _list("What was found", rows) + _list(
        "What was measured", [f"<li>{escape(text)}</li>" for text in lines]
    )


def _list(title: str, rows: list[str]) -> str:
    if not rows:
        return ""
    return f'<div class="advice"><h2>{escape(title)}</h2><ul>{"".join(rows)}</ul></div>'
