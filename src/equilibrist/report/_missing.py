"""What a run does not have yet, and the commands that make it."""

from dataclasses import dataclass

from equilibrist.report._commands import audit_command, run_command
from equilibrist.report._headline import training_progress
from equilibrist.report._record import AUDIT_FILE, RunRecord
from equilibrist.report.formatting import format_count


@dataclass(frozen=True)
class Missing:
    """Something that this run does not have yet, and the command that makes it."""

    what: str
    command: str | None = None


def missing(record: RunRecord) -> list[Missing]:
    """The parts of a finished, audited run that are not there, in the order to make them."""
    if record.is_pair:
        return []
    run, audit = run_command(record), audit_command(record)
    parts: list[Missing] = []
    steps, last = record.integer("steps"), record.last_step
    if record.recipe is None and "recipe.json" not in record.damaged:
        parts.append(
            Missing(
                "There is no recipe.json: what was trained, and how to train it again, is unknown.",
                "equilibrist run RECIPE",
            )
        )
    again = "" if run else " It was made by a Python program: run that again."
    if record.diverged:
        parts.append(
            Missing(
                "A finished training. Resuming would only carry on with numbers that are not "
                "finite: change a setting (smaller steps are the usual first try) and train into "
                "a new folder."
            )
        )
    elif last is not None and steps is not None and last < steps:
        parts.append(
            Missing(
                f"{training_progress(record)}. "
                + ("The same command resumes it." if run else f"Resume it.{again}"),
                run,
            )
        )
    if not record.series and "metrics.jsonl" not in record.damaged:
        parts.append(Missing(f"No losses were logged.{again}", run))
    if not record.samples:
        parts.append(Missing(f"No samples were saved.{again}", run))
    if record.audit is None or not record.audit.certificates:
        why = (
            "The audit cannot be read"
            if AUDIT_FILE in record.damaged
            else "The run has not been audited"
        )
        parts.append(Missing(f"{why}: no claim about equilibria is made.", audit))
    elif (
        record.audit.step is not None
        and record.last_step is not None
        and record.last_step > record.audit.step
    ):
        parts.append(
            Missing(
                f"The audit is of step {format_count(record.audit.step)}, older than the newest step "
                f"{format_count(record.last_step)}.",
                audit,
            )
        )
    if not record.sessions and "environment.json" not in record.damaged:
        parts.append(Missing("Versions and machine were not recorded (no environment.json)."))
    return parts
