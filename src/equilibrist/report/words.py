"""All sentences about a run: the headline, what is missing, commands. Numbers and claims have files of their own.

Plain text only; escaping is the page's business.
"""

import re
from dataclasses import dataclass, replace
from typing import Any

from equilibrist.certificates import STATES
from equilibrist.files.reading import dig, quoted
from equilibrist.findings import foremost
from equilibrist.report._claims import (
    BADGES,
    MARKS,
    TONES,
    VERDICT_MEANINGS,
    budget_words,
    claim_meaning,
    claim_question,
    claim_short,
    claim_title,
    evidence_rows,
    gain_words,
    interval_name,
    other,
    side,
)
from equilibrist.report._findings import broke_down, record_findings
from equilibrist.report._numbers import (
    count,
    duration,
    estimate,
    exact,
    fixed,
    label,
    number,
    plain,
    tolerance_words,
    with_unit,
)
from equilibrist.report._record import PAIR, Audit, Certificate, Record, Verdict

__all__ = [
    "BADGES",
    "CAUTIONS",
    "MARKS",
    "TONES",
    "UNIT_WORDS",
    "VERDICT_MEANINGS",
    "Headline",
    "Missing",
    "audit_command",
    "budget_words",
    "claim_meaning",
    "claim_question",
    "claim_short",
    "claim_title",
    "count",
    "duration",
    "estimate",
    "evidence_rows",
    "exact",
    "fixed",
    "gain_words",
    "headline",
    "interval_name",
    "is_critic",
    "is_pair",
    "label",
    "missing",
    "number",
    "other",
    "plain",
    "progress",
    "run_command",
    "side",
    "tolerance_words",
    "with_unit",
]


@dataclass(frozen=True)
class Headline:
    """The verdict on the whole run: one sentence, with a badge, and what to know beside it."""

    tone: str
    badge: str
    text: str
    aside: str = ""
    detail: tuple[str, ...] = ()


@dataclass(frozen=True)
class Missing:
    """Something that this run does not have yet, and the command that makes it."""

    what: str
    command: str | None = None


_AUDIT = "audit/audit.json"


# --- commands ---------------------------------------------------------------------------------


def is_pair(record: Record) -> bool:
    """Whether this is the audit of a user's own pair, with no run around it."""
    return _origin(record) == PAIR


def is_critic(record: Record) -> bool:
    """Whether this is the audit of a critic alone."""
    return record.audit is not None and any(record.audit.find(claim) for claim in STATES)


def run_command(record: Record) -> str | None:
    """The command that makes or resumes this run, with every setting.

    None without a recipe, and for a run that a Python program made: no command knows its recipe.
    """
    recipe = record.recipe
    if recipe is None or not record.text("recipe"):
        return None
    if _origin(record) == "python" or record.text("origin", "solver"):
        return None  # the latter is a member of a comparison, which `equilibrist compare` makes
    words = ["equilibrist", "run", recipe["recipe"], "--dir", record.where or record.name]
    words += _set(recipe.get("settings") or {})
    for key in ("seed", "device"):
        if recipe.get(key) is not None:
            words += [f"--{key}", exact(recipe[key])]
    # A resumed run is bit-identical only with the same number of threads.
    threads = record.sessions[0].get("threads") if record.sessions else None
    if isinstance(threads, int):
        words += ["--threads", str(threads)]
    return " ".join(map(quoted, words))


# What an audit runs unasked (`equilibrist.checks.CHECKS`, which would import torch).
DEFAULT_CHECKS = ("self-tests", "stationary", "stable", "local", "proximal", "nash")


def audit_command(
    record: Record, settings: bool = False, more: tuple[str, ...] | None = None
) -> str:
    """The command that audits this run; with `settings`, exactly as its audit was made; with `more`, its checks
    and these."""
    if is_pair(record):
        return _pair_command(record, more)
    words = ["equilibrist", "audit", record.where or record.name]
    if _origin(record) in ("file", "python"):  # such code runs only where the user names it
        known = record.text("recipe") if _origin(record) == "file" else None
        words += ["--recipe", known or "FILE:FUNCTION"]
    if settings and record.audit is not None:
        if record.audit.step is not None:
            words += ["--step", str(record.audit.step)]
        simple = {k: v for k, v in record.audit.settings.items() if not isinstance(v, dict | list)}
        words += _set(simple)
    done: tuple[str, ...] = ()
    if (
        record.audit is not None
    ):  # self-tests run always, and are listed where they were asked for or failed
        reported = record.audit.find("self-tests") is not None
        asked = [name for name in record.audit.work if name != "facts"]
        done = tuple(name for name in asked if reported or name != "self-tests")
    if more is not None:
        checks = (*(done or DEFAULT_CHECKS), *(name for name in more if name not in done))
    else:
        checks = done if settings else ()
    if {"self-tests", *checks} not in ({"self-tests"}, set(DEFAULT_CHECKS)):
        words += [word for name in checks for word in ("--check", name)]
    return " ".join(map(quoted, words))


def _pair_command(record: Record, more: tuple[str, ...] | None) -> str:
    """The command as it was typed, for the audit of a user's own pair; of one that Python made, what to write."""
    typed = dig(record.sessions[0] if record.sessions else None, "command")
    done = [name for name in (record.audit.work if record.audit else ()) if name != "facts"]
    checks = (*(name for name in done if name not in more), *more) if more else ()
    if isinstance(typed, list) and typed[1:2] == ["audit"]:
        words = ["equilibrist", *map(str, typed[1:])]
        while checks and "--check" in words[:-1]:
            at = words.index("--check")
            del words[at : at + 2]
    else:
        where = record.where or record.name
        words = ["equilibrist", "audit", "FILE.py:FUNCTION", "--out", where]
    return " ".join(map(quoted, [*words, *(word for name in checks for word in ("--check", name))]))


def _origin(record: Record) -> str | None:
    return record.text("origin", "kind")


def _set(settings: dict[str, Any]) -> list[str]:
    return [word for k, v in settings.items() for word in ("--set", f"{k}={exact(v)}")]


# --- the headline -----------------------------------------------------------------------------


def headline(record: Record) -> Headline:
    """The verdict on the whole run, in words."""
    if record.diverged:
        return _diverged(record)
    audit, first = record.audit, foremost(record_findings(record))
    if audit is None or not audit.certificates:
        head = _not_audited(record)
    else:
        head = _audited(record, audit)
    if first is None:
        return head
    # What a finding opens with comes before where the pair stands.
    stands = audit.place if audit is not None and audit.place else f"{head.text}. {head.aside}"
    stands = stands.replace(first.text, "", 1).strip()
    badge = first.name.replace("-", " ")
    return replace(
        head, tone=_TONE[first.level], badge=badge, text=first.text.rstrip("."), aside=stands
    )


_TONE = {"fault": "refuted", "warning": "unknown"}


def _diverged(record: Record) -> Headline:
    status, detail = record.status, ["Trust nothing that was recorded from then on."]
    if status is not None and status.message:
        detail.insert(0, f"{status.message[:1].upper()}{status.message[1:]}.")
    if record.audit is not None and record.audit.step is not None:
        detail.append(f"The audit below is of step {count(record.audit.step)}.")
    return Headline("refuted", "diverged", broke_down(record), detail=tuple(detail))


def _not_audited(record: Record) -> Headline:
    state = progress(record)
    if _AUDIT in record.damaged:
        return Headline(
            "none",
            "not readable",
            f"{state}; the audit of it is damaged and cannot be read",
            detail=("An audit is one command away: see below.",),
        )
    return Headline(
        "none",
        "not audited",
        f"{state}; whether this is an equilibrium has not been looked at",
        detail=("The audit is one command away: see below.",),
    )


def progress(record: Record) -> str:
    """How far training came, as the beginning of a sentence."""
    steps, last = record.integer("steps"), record.last_step
    if is_critic(record):
        return "A critic of your own"
    if is_pair(record):
        return "A pair of your own"
    if last is None:
        return "No step is recorded"
    if steps is not None and last < steps:
        running = record.status is not None and record.status.state == "running"
        stopped = "was under way" if running else "stopped"
        return f"Training {stopped} at step {count(last)} of {count(steps)}"
    return f"Trained for {count(last)} steps"


def _audited(record: Record, audit: Audit) -> Headline:
    detail = []
    if audit.step is not None:
        detail.append(f"Audited at step {count(audit.step)}.")
        if record.last_step is not None and record.last_step > audit.step:
            detail.append(
                f"Training went on to step {count(record.last_step)}: audit again to judge that."
            )
    steps = record.integer("steps")
    if steps is not None and record.last_step is not None and record.last_step < steps:
        detail.append(f"{progress(record)}.")
    if audit.place:
        return _placed(audit, tuple(detail))
    if any(
        c.claim.partition("/")[0] == "stationary" and c.verdict is Verdict.REFUTED
        for c in audit.certificates
    ):
        detail.append("Training was still moving then: a longer run may land elsewhere.")
    nash = [c for c in audit.certificates if c.claim.partition("/")[0] == "nash"]
    if not nash:
        first = audit.certificates[0]
        return Headline(
            TONES[first.verdict],
            BADGES[first.verdict],
            f"{claim_title(first)}: {BADGES[first.verdict]}",
            detail=(*detail, "Whether the pair is a Nash equilibrium was not checked."),
        )
    return _nash(nash, tuple(detail))


_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_STANDS = {
    "nash": "no way out found",
    "local-nash": "local Nash",
    "proximal": "proximal",
    "local-minimax": "local minimax",
    "stable": "stable",
}


def _placed(audit: Audit, detail: tuple[str, ...]) -> Headline:
    """The headline that the audit's own sentence about the pair's place gives."""
    first, *rest = _SENTENCE.split(audit.place.strip(), maxsplit=1)
    tone, caption = _standing(audit)
    return Headline(tone, caption, first.rstrip("."), " ".join(rest), detail)


def _standing(audit: Audit) -> tuple[str, str]:
    """(tone, badge) of the pair's place."""
    tests = audit.find("self-tests")
    if tests is not None and tests.verdict is not Verdict.VERIFIED:
        return "unknown", "cannot be audited"
    verdicts = {rung.claim: rung.verdict for rung in audit.ladder}
    verdicts |= {c.claim: c.verdict for c in audit.certificates}
    if any(claim in verdicts for claim in STATES):
        found = [state for c, state in STATES.items() if verdicts.get(c) is Verdict.REFUTED]
        return ("refuted", " and ".join(found[:2])) if found else ("open", "no fault found")
    if verdicts.get("stationary") is Verdict.REFUTED:
        return "refuted", "still moving"
    if verdicts.get("nash") is Verdict.REFUTED:
        return "refuted", "not a Nash equilibrium"
    if verdicts.get("nash") is Verdict.VERIFIED:
        return "verified", "Nash equilibrium"
    for claim, caption in _STANDS.items():
        if (verdict := verdicts.get(claim)) in (Verdict.VERIFIED, Verdict.NOT_REFUTED):
            return TONES[verdict], caption
    if any(verdicts.get(claim) is Verdict.REFUTED for claim in _STANDS):
        return "refuted", "not an equilibrium"
    return "unknown", "undecided"


def _nash(nash: list[Certificate], detail: tuple[str, ...]) -> Headline:
    sides = [c for c in nash if side(c)]
    whole = next((c for c in nash if not side(c)), None)
    refuted = [c for c in sides if c.verdict is Verdict.REFUTED]
    searched = [c for c in sides if c.verdict in (Verdict.NOT_REFUTED, Verdict.VERIFIED)]
    unknown = [c for c in [*sides, *nash] if c.verdict is Verdict.UNASSESSED]
    verified = [c for c in nash if c.verdict is Verdict.VERIFIED]
    if refuted:
        first = max(refuted, key=lambda c: c.number("gain") or 0.0)
        gain, aside = gain_words(first)
        also = [
            f"The {side(c)} alone can gain as well: {' '.join(gain_words(c))}."
            for c in refuted
            if c is not first
        ]
        return Headline(
            "refuted",
            "not an equilibrium",
            f"Not a Nash equilibrium: with the {other(side(first))} frozen, the {side(first)} "
            f"alone lowers its loss by {gain}",
            aside,
            (*also, *detail),
        )
    if whole is not None and whole.verdict is Verdict.REFUTED:
        text = f"Not a Nash equilibrium: {whole.summary or 'one player can gain alone'}"
        return Headline("refuted", "not an equilibrium", text.rstrip("."), detail=detail)
    if (whole is not None and whole in verified) or {"generator", "critic"} <= {
        side(c) for c in verified
    }:
        return Headline(
            "verified",
            "equilibrium",
            f"A Nash equilibrium: neither player alone can lower its loss by more than "
            f"{tolerance_words(verified[0].tolerance)}",
            detail=("Shown by a computation, within the scope stated below.", *detail),
        )
    if unknown:
        text = unknown[0].summary or "the measurement cannot tell"
        return Headline("unknown", "undecided", f"Undecided: {text}".rstrip("."), detail=detail)
    if len(searched) == 1 and whole is None:
        player = side(searched[0])
        return Headline(
            "open",
            "half an answer",
            f"The {player} alone found no gain above {tolerance_words(searched[0].tolerance)}; "
            f"the {other(player)} was not searched",
            detail=detail,
        )
    best = max(searched or nash, key=lambda c: (c.tolerance and c.tolerance.value) or 0.0)
    budgets = {budget_words(c) for c in searched} - {""}
    looked = (f"Searched: {'; '.join(sorted(budgets))}.",) if budgets else ()
    return Headline(
        "open",
        "nothing found",
        "No way out found: searching alone, neither player lowered its loss by more than "
        f"{tolerance_words(best.tolerance)}",
        detail=(
            "A search that finds nothing is evidence for an equilibrium, not a proof.",
            *looked,
            *detail,
        ),
    )


# --- what is missing --------------------------------------------------------------------------


def missing(record: Record) -> list[Missing]:
    """The parts of a finished, audited run that are not there, in the order to make them."""
    if is_pair(record):
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
                f"{progress(record)}. "
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
            if _AUDIT in record.damaged
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
                f"The audit is of step {count(record.audit.step)}, older than the newest step "
                f"{count(record.last_step)}.",
                audit,
            )
        )
    if not record.sessions and "environment.json" not in record.damaged:
        parts.append(Missing("Versions and machine were not recorded (no environment.json)."))
    return parts


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
