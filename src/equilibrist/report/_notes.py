"""How to read the report, reproduce the run and cite it."""

import shlex
from collections.abc import Iterator
from typing import Any

from equilibrist.files.reading import dig
from equilibrist.report import words
from equilibrist.report._html import badge, e, facts, fold, linked
from equilibrist.report._record import Record, common_scope


def reading(record: Record) -> str:
    """What the verdicts mean, and what they do not say."""
    meanings = "".join(
        f"<div>{badge(words.TONES[verdict], words.BADGES[verdict])}<p>{e(text)}</p></div>"
        for verdict, text in words.VERDICT_MEANINGS.items()
    )
    # Of a critic alone: what is said of searches, not what is said of equilibria and samples.
    shown = words.CAUTIONS[:1] if words.is_critic(record) else words.CAUTIONS
    cautions = "".join(f"<div><h4>{e(a)}</h4><p>{e(b)}</p></div>" for a, b in shown)
    certificates = record.audit.certificates if record.audit else []
    units = [
        words.UNIT_WORDS[unit]
        for unit in words.UNIT_WORDS
        if any(c.unit.split(" ")[0] == unit for c in certificates)
    ]
    note = "".join(f'<p class="note">{e(text)}</p>' for text in units)
    return (
        '<p class="lead">Four verdicts are possible, and none of them is a mark.</p>'
        f'<div class="meanings">{meanings}</div>'
        f'<h3 class="gap">What they do not say</h3><div class="meanings gap">{cautions}</div>{note}'
    )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested objects as rows of label and text, values exactly as recorded."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            yield from _flat(item, f"{name}: ")
        else:
            yield words.label(name), words.exact(item)


def _unsaid(settings: dict[str, Any], command: str) -> dict[str, Any]:
    """The settings that the command above does not hold."""
    held = shlex.split(command)
    return {k: v for k, v in settings.items() if f"{k}={words.exact(v)}" not in held}


def _typed(session: dict[str, Any]) -> dict[str, Any]:
    """The session with its command as it was typed in a shell."""
    command = session.get("command")
    if isinstance(command, list) and command:
        return {**session, "command": shlex.join(map(str, command))}
    return session


def reproduce(record: Record) -> str:
    """Commands, versions and settings."""
    parts = []
    command, again = words.run_command(record), words.audit_command(record, settings=True)
    if words.is_critic(record):
        parts.append(f"<p>This audits the critic again:</p><pre>{e(again)}</pre>")
    elif words.is_pair(record):
        parts.append(f"<p>This audits the pair again:</p><pre>{e(again)}</pre>")
    elif command is None:
        why = "Without recipe.json the exact command is unknown."
        if record.recipe is not None:
            why = "A Python program made this run. Its sessions are below."
        parts.append(f"<p>{why} This audits it:</p><pre>{e(words.audit_command(record))}</pre>")
    else:
        parts.append(
            "<p>Every setting, written out. The first command resumes the run; with another --dir it trains "
            f"afresh.</p><pre>{e(command)}\n{e(again)}</pre>"
        )
    origin = dig(record.recipe, "origin") or {}
    if origin.get("kind") == "file":
        rows = [
            ("Recipe file", words.plain(origin.get("path"))),
            ("SHA-256", words.plain(origin.get("sha256"))),
        ]
        parts.append(f'<div class="gap">{facts(rows, "facts tight")}</div>')
    parts += _sessions(record)
    audit = record.audit
    if audit is not None:
        rows = [] if words.is_pair(record) else [("Checkpoint", audit.checkpoint or "not recorded")]
        rows += [("Its SHA-256", audit.sha256)] if audit.sha256 else []
        rows += [(words.label(f"{k} in"), words.exact(v)) for k, v in audit.dtype.items()]
        rows += [(words.label(k), words.plain(v)) for k, v in common_scope(audit).items()]
        rows += list(_flat(_unsaid(audit.settings, again if command else "")))
        parts.append(f'<h3 class="gap">The audit</h3>{facts(rows, "facts tight")}')
    return "\n".join(parts)


def _sessions(record: Record) -> list[str]:
    if not record.sessions:
        return ['<p class="gap">Versions and machine were not recorded.</p>']
    *earlier, last = record.sessions
    title = "The machine" if not earlier else "The machine (last session)"
    parts = [f'<h3 class="gap">{title}</h3>{facts(_flat(_typed(last)), "facts tight")}']
    for position, session in enumerate(earlier, start=1):
        body = facts(_flat(_typed(session)), "facts tight")
        parts.append(fold(f"Session {position} of {len(record.sessions)}", body))
    return parts


def cite(record: Record) -> str:
    """The work that the recipe builds on."""
    references = (record.recipe or {}).get("references") or []
    if not references:
        return "<p>The recipe names no references.</p>"
    parts = ['<p class="lead">If you use this run, please cite the work that it builds on.</p>']
    for reference in references:
        text = linked(str(reference.get("text") or ""))
        bibtex = reference.get("bibtex")
        shown = fold("BibTeX", f"<pre>{e(bibtex)}</pre>") if bibtex else ""
        parts.append(f'<div class="reference"><p>{text}</p>{shown}</div>')
    return "".join(parts)
