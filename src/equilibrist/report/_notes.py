"""How to read the report, reproduce the run and cite it."""

import shlex
from collections.abc import Iterator

from equilibrist.certificates import Json
from equilibrist.files.reading import dig
from equilibrist.report._claims import BADGES, TONES, VERDICT_MEANINGS
from equilibrist.report._commands import audit_command, run_command
from equilibrist.report._html import badge, escape, fact_list, fold, linked
from equilibrist.report._record import RunRecord, common_scope
from equilibrist.report.formatting import as_label, format_setting, format_value

CAUTIONS = (
    (
        "“Not refuted” is no proof",
        "A gain found is a lower bound: the true best response may gain more. A gain not found "
        "may still exist where the search did not look: further away, behind a worse stretch, or "
        "below the tolerance. More starts, more steps or another optimiser can still overturn it.",
    ),
    (
        "“Not a Nash equilibrium” is no failure",
        "Trained GANs that make good samples commonly fail this check, and there are GAN games "
        "that have no Nash equilibrium at all. It says that one player could still gain if the "
        "other stood still, which never happens while both train.",
    ),
    (
        "A gain is not better samples",
        "A lower loss against a frozen critic can mean that the generator found what this critic "
        "does not see. Compare the pictures before and after: the loss falls, and the samples may "
        "well get worse.",
    ),
    (
        "No verdict judges quality",
        "An equilibrium can miss modes, and a pair far from one can make beautiful pictures. "
        "Use these verdicts beside quality figures, not in their place.",
    ),
)

UNIT_WORDS = {
    "nats": "A nat is the unit of a loss built from natural logarithms (1 nat is 1.44 bits). "
    "Telling real from fake by a fair coin costs 0.69 nats a picture.",
}


def reading(record: RunRecord) -> str:
    """What the verdicts mean, and what they do not say."""
    meanings = "".join(
        f"<div>{badge(TONES[verdict], BADGES[verdict])}<p>{escape(text)}</p></div>"
        for verdict, text in VERDICT_MEANINGS.items()
    )
    # Of a critic alone: the caution about searches, not those about equilibria and samples.
    shown = CAUTIONS[:1] if record.is_critic else CAUTIONS
    cautions = "".join(f"<div><h4>{escape(a)}</h4><p>{escape(b)}</p></div>" for a, b in shown)
    certificates = record.audit.certificates if record.audit else []
    units = [
        UNIT_WORDS[unit]
        for unit in UNIT_WORDS
        if any(c.unit.split(" ")[0] == unit for c in certificates)
    ]
    note = "".join(f'<p class="note">{escape(text)}</p>' for text in units)
    return (
        '<p class="lead">Four verdicts are possible, and none of them is a mark.</p>'
        f'<div class="meanings">{meanings}</div>'
        f'<h3 class="gap">What they do not say</h3><div class="meanings gap">{cautions}</div>{note}'
    )


def _flat(value: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested objects as rows of label and text, values exactly as recorded."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            yield from _flat(item, f"{name}: ")
        else:
            yield as_label(name), format_setting(item)


def _unsaid(settings: Json, command: str) -> Json:
    """The settings that the command above does not hold."""
    held = shlex.split(command)
    return {k: v for k, v in settings.items() if f"{k}={format_setting(v)}" not in held}


def _typed(session: Json) -> Json:
    """The session with its command as it was typed in a shell."""
    command = session.get("command")
    if isinstance(command, list) and command:
        return {**session, "command": shlex.join(map(str, command))}
    return session


def reproduce(record: RunRecord) -> str:
    """Commands, versions and settings."""
    parts = []
    command, again = run_command(record), audit_command(record, settings=True)
    if record.is_critic:
        parts.append(f"<p>This audits the critic again:</p><pre>{escape(again)}</pre>")
    elif record.is_pair:
        parts.append(f"<p>This audits the pair again:</p><pre>{escape(again)}</pre>")
    elif command is None:
        why = "Without recipe.json the exact command is unknown."
        if record.recipe is not None:
            why = "A Python program made this run. Its sessions are below."
        parts.append(f"<p>{why} This audits it:</p><pre>{escape(audit_command(record))}</pre>")
    else:
        parts.append(
            "<p>Every setting, written out. The first command resumes the run; with another --dir it trains "
            f"afresh.</p><pre>{escape(command)}\n{escape(again)}</pre>"
        )
    origin = dig(record.recipe, "origin") or {}
    if origin.get("kind") == "file":
        rows = [
            ("Recipe file", format_value(origin.get("path"))),
            ("SHA-256", format_value(origin.get("sha256"))),
        ]
        parts.append(f'<div class="gap">{fact_list(rows, "facts tight")}</div>')
    parts += _sessions(record)
    audit = record.audit
    if audit is not None:
        rows = [] if record.is_pair else [("Checkpoint", audit.checkpoint or "not recorded")]
        rows += [("Its SHA-256", audit.sha256)] if audit.sha256 else []
        rows += [(as_label(f"{k} in"), format_setting(v)) for k, v in audit.dtype.items()]
        rows += [(as_label(k), format_value(v)) for k, v in common_scope(audit).items()]
        rows += list(_flat(_unsaid(audit.settings, again if command else "")))
        parts.append(f'<h3 class="gap">The audit</h3>{fact_list(rows, "facts tight")}')
    return "\n".join(parts)


def _sessions(record: RunRecord) -> list[str]:
    if not record.sessions:
        return ['<p class="gap">Versions and machine were not recorded.</p>']
    *earlier, last = record.sessions
    title = "The machine" if not earlier else "The machine (last session)"
    parts = [f'<h3 class="gap">{title}</h3>{fact_list(_flat(_typed(last)), "facts tight")}']
    for position, session in enumerate(earlier, start=1):
        body = fact_list(_flat(_typed(session)), "facts tight")
        parts.append(fold(f"Session {position} of {len(record.sessions)}", body))
    return parts


def cite(record: RunRecord) -> str:
    """The work that the recipe builds on."""
    references = (record.recipe or {}).get("references") or []
    if not references:
        return "<p>The recipe names no references.</p>"
    parts = ['<p class="lead">If you use this run, please cite the work that it builds on.</p>']
    for reference in references:
        text = linked(str(reference.get("text") or ""))
        bibtex = reference.get("bibtex")
        shown = fold("BibTeX", f"<pre>{escape(bibtex)}</pre>") if bibtex else ""
        parts.append(f'<div class="reference"><p>{text}</p>{shown}</div>')
    return "".join(parts)
