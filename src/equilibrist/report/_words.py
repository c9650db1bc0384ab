"""All sentences about a run: the headline, the badges, what each claim means, numbers in words.

Plain text only; escaping is the page's business.
"""

import json
import math
import shlex
from dataclasses import dataclass
from typing import Any

from ._load import Audit, Certificate, Record, Tolerance, Verdict, as_number

BADGES = {
    Verdict.VERIFIED: "shown to hold",
    Verdict.REFUTED: "shown not to hold",
    Verdict.NOT_REFUTED: "searched, nothing found",
    Verdict.UNASSESSED: "cannot tell",
}
# A shape beside the colour, for readers who cannot tell the colours apart.
MARKS = {
    Verdict.VERIFIED: "✓",
    Verdict.REFUTED: "✕",
    Verdict.NOT_REFUTED: "○",
    Verdict.UNASSESSED: "?",
}
TONES = {
    Verdict.VERIFIED: "verified",
    Verdict.REFUTED: "refuted",
    Verdict.NOT_REFUTED: "open",
    Verdict.UNASSESSED: "unknown",
}
VERDICT_MEANINGS = {
    Verdict.VERIFIED: (
        "A computation that leaves no case out, or that bounds what it leaves out, confirms the "
        "claim within the stated scope, tolerance and confidence."
    ),
    Verdict.REFUTED: (
        "A counterexample was found and measured. Where it is a set of weights, it is kept with "
        "the run as a witness, so that anyone can replay it."
    ),
    Verdict.NOT_REFUTED: (
        "A search looked for a counterexample and came back with none. That is evidence, not "
        "proof: it is worth as much as the search was thorough."
    ),
    Verdict.UNASSESSED: (
        "The measurement was too noisy for the tolerance, or a number was not finite. Neither "
        "answer would be honest."
    ),
}


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


# --- numbers ----------------------------------------------------------------------------------

_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def number(value: float | None, digits: int = 3) -> str:
    """A number for reading: three digits, thousands separated, powers of ten spelled out."""
    if value is None:
        return "not recorded"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    size = abs(value)
    if size == 0:
        text = "0"
    elif size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        power = "10" + str(int(exponent)).translate(_SUPERSCRIPT)
        text = power if mantissa == "1" else f"{mantissa} \N{MULTIPLICATION SIGN} {power}"
    elif size >= 10 ** (digits - 1):
        text = f"{size:,.0f}"
    else:
        text = f"{size:.{digits}g}"
    return f"\N{MINUS SIGN}{text}" if value < 0 else text


def count(value: int) -> str:
    """A whole number with its thousands separated."""
    return f"{value:,}"


def fixed(value: float, decimals: int) -> str:
    """A number with so many decimals, and a real minus sign."""
    text = f"{abs(value):,.{decimals}f}"
    return f"\N{MINUS SIGN}{text}" if value < 0 and float(text.replace(",", "")) != 0 else text


def estimate(value: float | None, interval: tuple[float, float] | None) -> tuple[str, str, str]:
    """(value, low, high) in words, to as many digits as the interval's half-width justifies."""
    if value is None or interval is None or not all(map(math.isfinite, (value, *interval))):
        low, high = interval if interval else (None, None)
        return number(value), number(low), number(high)
    half = abs(interval[1] - interval[0]) / 2
    if half == 0 or half < 1e-6 or max(map(abs, (value, *interval))) >= 1e6:
        return number(value), number(interval[0]), number(interval[1])
    decimals = -math.floor(math.log10(half))
    if half * 10**decimals < 3:  # a half-width of 0.12 must not be rounded to 0.1
        decimals += 1
    decimals = max(decimals, 0)
    ends = [abs(end) for end in interval if end]
    if ends and min(ends) < 0.5 * 10**-decimals:  # an end that is not zero must not read as zero
        decimals += 1
    # Four digits are enough for anybody, however narrow the interval.
    decimals = min(decimals, max(0, 3 - math.floor(math.log10(max(map(abs, (value, *interval)))))))
    return fixed(value, decimals), fixed(interval[0], decimals), fixed(interval[1], decimals)


def with_unit(text: str, unit: str) -> str:
    """The number's words followed by its unit, if it has one."""
    return f"{text} {unit}" if unit else text


def tolerance_words(tolerance: Tolerance | None) -> str:
    """The tolerance with its unit."""
    if tolerance is None or tolerance.value is None:
        return "not recorded"
    return with_unit(number(tolerance.value), tolerance.unit)


def duration(seconds: float | None) -> str:
    """A time span in the unit that suits it."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "not recorded"
    if seconds < 90:
        return f"{number(seconds, 2)} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def exact(value: Any) -> str:
    """A setting exactly as it was, not rounded."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def plain(value: Any) -> str:
    """Any recorded value on one line, for a table."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return count(value)
    if isinstance(value, float):
        return number(value, 4)
    if isinstance(value, list):
        return ", ".join(plain(item) for item in value) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {plain(item)}" for key, item in value.items()) or "none"
    return str(value)


def label(name: str) -> str:
    """A key of a record as a label."""
    text = name.replace("_", " ").replace("/", ": ").strip() or name
    return text[:1].upper() + text[1:]


# --- commands ---------------------------------------------------------------------------------


def run_command(record: Record) -> str | None:
    """The command that makes or resumes this run, with every setting.

    None without a recipe, and for a run that a Python program made: no command knows its recipe.
    """
    recipe = record.recipe
    if recipe is None or not record.text("recipe"):
        return None
    if _origin(record) == "python" or record.text("origin", "solver"):
        return None  # the latter is a member of a comparison, which `equilibrist compare` makes
    words = ["equilibrist", "run", recipe["recipe"], "--dir", record.name]
    words += _set(recipe.get("settings") or {})
    for key in ("seed", "device"):
        if recipe.get(key) is not None:
            words += [f"--{key}", exact(recipe[key])]
    # A resumed run is bit-identical only with the same number of threads.
    threads = record.sessions[0].get("threads") if record.sessions else None
    if isinstance(threads, int):
        words += ["--threads", str(threads)]
    return shlex.join(words)


def audit_command(record: Record, settings: bool = False) -> str:
    """The command that audits this run; with `settings`, exactly as its audit was made."""
    words = ["equilibrist", "audit", record.name]
    if _origin(record) in ("file", "python"):  # such code runs only where the user names it
        known = record.text("recipe") if _origin(record) == "file" else None
        words += ["--recipe", known or "FILE:FUNCTION"]
    if settings and record.audit is not None:
        if record.audit.step is not None:
            words += ["--step", str(record.audit.step)]
        simple = {k: v for k, v in record.audit.settings.items() if not isinstance(v, dict | list)}
        words += _set(simple)
    return shlex.join(words)


def _origin(record: Record) -> str | None:
    return record.text("origin", "kind")


def _set(settings: dict[str, Any]) -> list[str]:
    return [word for k, v in settings.items() for word in ("--set", f"{k}={exact(v)}")]


# --- claims -----------------------------------------------------------------------------------


def side(certificate: Certificate) -> str:
    """The player that a certificate is about, from its field or from its claim's name."""
    return certificate.player or certificate.claim.partition("/")[2]


def other(player: str) -> str:
    """The player that rests while `player` moves."""
    return {"generator": "critic", "critic": "generator"}.get(player, "other player")


def claim_title(certificate: Certificate) -> str:
    """The claim as a sentence that can be true or false."""
    kind, player = certificate.claim.partition("/")[0], side(certificate)
    if kind == "nash" and player:
        return f"With the {other(player)} frozen, the {player} cannot lower its own loss"
    if kind == "nash":
        return "The pair is a Nash equilibrium: neither player can gain alone"
    if kind == "stationary":
        return f"The {player} has come to rest" if player else "Both players have come to rest"
    return label(certificate.claim)


def claim_short(certificate: Certificate) -> str:
    """The claim in a few words, for the overview."""
    kind, player = certificate.claim.partition("/")[0], side(certificate)
    if kind == "nash":
        return f"{label(player)} cannot gain alone" if player else "Nash equilibrium"
    if kind == "stationary":
        return f"{label(player)}'s gradient at rest" if player else "Both gradients at rest"
    return label(certificate.claim)


def claim_meaning(certificate: Certificate) -> str:
    """What the claim means, for somebody who has never met it."""
    kind, player = certificate.claim.partition("/")[0], side(certificate)
    if kind == "nash" and player:
        return (
            f"The check copies the trained pair, freezes the {other(player)}, and trains the "
            f"{player} alone on its own loss, from several slightly disturbed starts. At a Nash "
            "equilibrium that leads nowhere. The gain is how far the loss fell, measured on data "
            "that the search did not see."
        )
    if kind == "nash":
        return (
            "At a Nash equilibrium no player can do better by changing only its own parameters "
            "while the other stays put. The claim falls as soon as one player's side falls."
        )
    if kind == "stationary":
        return (
            "A player is at rest when its gradient is zero up to sampling noise: no small step "
            "lowers its loss to first order. A resting pair need not be an equilibrium. It may "
            "sit on a saddle."
        )
    return ""


def gain_words(certificate: Certificate) -> tuple[str, str]:
    """The gain with its unit, and its interval in brackets."""
    value, low, high = estimate(certificate.number("gain"), certificate.interval)
    gain = with_unit(value, certificate.unit)
    if certificate.interval is None:
        return gain, ""
    return gain, f"({interval_name(certificate)} {low} to {high})"


def interval_name(certificate: Certificate) -> str:
    """ "95% interval", by the recorded confidence."""
    confidence = certificate.number("confidence")
    if confidence is None or not 0 < confidence < 1:
        return "interval"
    return f"{100 * confidence:g}% interval"


def budget_words(certificate: Certificate) -> str:
    """How hard a search looked: starts, steps, gradients."""
    budget = certificate.evidence.get("budget")
    if not isinstance(budget, dict):
        return ""
    starts, steps = budget.get("starts"), budget.get("steps")
    gradients = budget.get("gradients")
    parts = []
    if isinstance(starts, int):
        parts.append(f"{count(starts)} start{'' if starts == 1 else 's'}")
    if isinstance(steps, int):
        parts.append(f"{count(steps)} steps each" if starts != 1 else f"{count(steps)} steps")
    text = " of ".join(parts) if len(parts) < 2 else f"{parts[0]}, {parts[1]}"
    if isinstance(gradients, int):
        text += f" ({count(gradients)} gradients)" if text else f"{count(gradients)} gradients"
    return text


# --- the headline -----------------------------------------------------------------------------


def headline(record: Record) -> Headline:
    """The verdict on the whole run, in words."""
    if record.diverged:
        return _diverged(record)
    if record.audit is None or not record.audit.certificates:
        return _not_audited(record)
    return _audited(record, record.audit)


def _diverged(record: Record) -> Headline:
    broken, status = record.first_broken, record.status
    detail = ["Trust nothing that was recorded from then on."]
    if broken is not None:
        quantity, player, step = broken
        what = {"loss": "loss", "grad_norm": "gradient norm"}[quantity]
        whose = f"the {player}'s {what}" if player else f"the {what}"
        text = f"Training broke down: {whose} is no finite number from step {count(step)} on"
    else:
        when = "" if status is None or status.step is None else f" at step {count(status.step)}"
        text = f"Training broke down{when}: a loss or gradient was no longer a finite number"
    if status is not None and status.message:
        detail.insert(0, f"{status.message[:1].upper()}{status.message[1:]}.")
    if record.audit is not None and record.audit.step is not None:
        detail.append(f"The audit below is of step {count(record.audit.step)}.")
    return Headline("refuted", "diverged", text, detail=tuple(detail))


def _not_audited(record: Record) -> Headline:
    state = progress(record)
    return Headline(
        "none",
        "not audited",
        f"{state}; whether this is an equilibrium has not been looked at",
        detail=("The audit is one command away: see below.",),
    )


def progress(record: Record) -> str:
    """How far training came, as the beginning of a sentence."""
    steps, last = record.integer("steps"), record.last_step
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
    run, audit = run_command(record), audit_command(record)
    parts: list[Missing] = []
    steps, last = record.integer("steps"), record.last_step
    if record.recipe is None:
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
    if not record.series:
        parts.append(Missing(f"No losses were logged.{again}", run))
    if not record.samples:
        parts.append(Missing(f"No samples were saved.{again}", run))
    if record.audit is None or not record.audit.certificates:
        parts.append(
            Missing("The run has not been audited: no claim about equilibria is made.", audit)
        )
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
    if not record.sessions:
        parts.append(Missing("Versions and machine were not recorded (no environment.json)."))
    return parts


CAUTIONS = (
    (
        "“Searched, nothing found” is no proof",
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


def evidence_rows(certificate: Certificate) -> list[tuple[str, str]]:
    """The recorded numbers that the page does not show elsewhere, as (label, words)."""
    shown = {"curves", "samples", "chosen", "interval", "gain", "residual", "unit", "confidence"}
    rows = []
    for key, value in certificate.evidence.items():
        if key in shown:
            continue
        if key == "budget" and budget_words(certificate):
            rows.append(("Search", budget_words(certificate)))
            rest = {k: v for k, v in value.items() if k not in ("starts", "steps", "gradients")}
            rows += [(label(f"search {k}"), plain(v)) for k, v in rest.items()]
            continue
        as_float = as_number(value)
        unit = certificate.unit if key in ("loss_before", "loss_after", "noise_floor") else ""
        words = with_unit(number(as_float, 4), unit) if as_float is not None else plain(value)
        rows.append((label(key), words))
    return rows
