"""Right under the headline: the ladder from motion to Nash, the verdict of each rung, and what to change."""

import re

from . import _words as words
from ._html import e
from ._measures import small_words
from ._record import Audit, Record, Verdict

_SPLIT = re.compile(r"^([^:(]+?)\s*[:(]\s*(.+?)\)?$")
_HOLDS = (Verdict.VERIFIED, Verdict.NOT_REFUTED)
UNASKED = ("none", "\N{EN DASH}", "not asked")


def ladder(record: Record) -> str:
    """The rungs, Nash at the top, each with a mark, its verdict and a link to its card; "" where no rung was asked
    about."""
    audit = record.audit
    if audit is None or all(rung.verdict is None for rung in audit.ladder):
        return ""
    claims = {c.claim: i for i, c in enumerate(audit.certificates)}
    here = highest(audit)
    rows = []
    for rung in reversed(audit.ladder):
        tone, mark, says = UNASKED
        if rung.verdict is not None:
            tone, mark = words.TONES[rung.verdict], words.MARKS[rung.verdict]
            says = words.BADGES[rung.verdict]
        split = _SPLIT.match(rung.words)
        name, more = split.groups() if split else (rung.words, "")
        name = name[:1].upper() + name[1:]
        number = ""
        if rung.claim in claims:
            number = small_words(audit.certificates[claims[rung.claim]])
        rest = "; ".join(part for part in (more, number) if part)
        body = (
            f'<span class="mark" aria-hidden="true">{mark}</span>'
            f'<span class="rung"><b>{e(name)}</b>'
            + (f' <span class="small">{e(rest)}</span>' if rest else "")
            + "</span>"
            + (
                '<span class="small place">the pair stands here</span>'
                if rung.claim == here
                else ""
            )
            + f'<span class="says">{e(says)}</span>'
        )
        if rung.claim in claims:
            body = f'<a href="#claim-{claims[rung.claim]}">{body}</a>'
        else:
            body = f"<div>{body}</div>"
        stands = " here" if rung.claim == here else ""
        rows.append(f'<li class="{tone}{stands}">{body}</li>')
    label = "The ladder from motion, below, to Nash, at the top"
    return f'<ul class="ladder" aria-label="{label}">{"".join(rows)}</ul>'


def highest(audit: Audit) -> str | None:
    """The highest rung that holds or that nothing speaks against; None where the pair still moves, where the
    self-tests failed, or where no rung holds."""
    tests = audit.find("self-tests")
    if tests is not None and tests.verdict is not Verdict.VERIFIED:
        return None
    verdicts = {rung.claim: rung.verdict for rung in audit.ladder}
    if verdicts.get("stationary") is Verdict.REFUTED:
        return None
    for rung in reversed(audit.ladder):
        if rung.verdict in _HOLDS:
            return rung.claim
    return None


def advice(record: Record) -> str:
    """What to change, most urgent first; "" where nothing speaks for a change."""
    audit = record.audit
    if audit is None or not audit.advice:
        return ""
    rows = "".join(f"<li>{e(text)}</li>" for text in audit.advice)
    return f'<div class="advice"><h2>What to change</h2><ul>{rows}</ul></div>'
