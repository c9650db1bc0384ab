"""Of an audit without a profile: the command that makes one, and what it takes."""

from equilibrist.report._commands import audit_command
from equilibrist.report._html import escape, fold
from equilibrist.report._profile import CLAIM
from equilibrist.report._record import Json, RunRecord, Verdict, as_number
from equilibrist.report.formatting import format_count, format_duration

# Work units of the searches (`equilibrist.checks.proximal._sampled`, which would import torch).
_POOL, _PENALISED, _PLAIN, _LEAD, _MEASURED = 64, 1.1, 0.6, 0.8, 2.5


def offer(record: RunRecord) -> str:
    """Of an audit without a profile: the command that makes one, and about what it takes. "" where it has one, or
    where the game has no lambda."""
    audit = record.audit
    if audit is None or not audit.ladder or audit.find(CLAIM):
        return ""
    tests, near = audit.find("self-tests"), audit.find("proximal")
    if tests is not None and tests.verdict is not Verdict.VERIFIED:
        return ""
    if near is not None and "lambda_star" not in near.evidence:
        return ""
    if audit.find("not-saturated") is not None:  # a critic alone has no generator that could move
        return ""
    command = audit_command(record, more=(CLAIM,))
    return fold(
        "What lies between Stackelberg and Nash was not measured",
        f"<p>{escape(_cost(record))}This audits again, with the profile:</p><pre>{escape(command)}</pre>",
    )


def _cost(record: RunRecord) -> str:
    assert record.audit is not None
    planned = planned_work(record.audit.settings)
    if planned is None:
        return ""
    pace = [
        (as_number(row.get("gradients")) or 0.0, as_number(row.get("seconds")) or 0.0)
        for row in record.audit.work.values()
    ]
    spent, seconds = sum(g for g, _ in pace), sum(s for _, s in pace)
    text = f"With this audit's settings it takes about {format_count(round(planned))} minibatch gradients"
    if spent > 0 and seconds > 0:
        text += f", some {format_duration(planned * seconds / spent)} at this audit's pace"
    return f"{text}. "


def planned_work(settings: Json) -> float | None:
    """The work that `equilibrist audit --check profile` announces for sampled losses, in minibatch gradients; None
    where the settings do not tell."""
    names = ["prox_starts", "prox_steps", "prox_track", "inner_steps", "look_batches", "batches"]
    values = [as_number(settings.get(name)) for name in names]
    grid = settings.get("prox_lambdas")
    if None in values or not isinstance(grid, list):
        return None
    starts, steps, track, inner, looked, batches = (v for v in values if v is not None)
    searches = starts + 1
    answer, look = 2 * inner * _PENALISED, looked * _MEASURED
    one = (
        2 * searches * steps * (track * _PENALISED + _LEAD)
        + searches * answer
        + 2 * (3 * searches + 2) * (answer + look)
        + 5 * (5 * answer + 3 * look)
        + 4 * batches * _MEASURED
    )
    return _POOL * _PLAIN + (len(grid) + 2) * one
