"""The claims in words: what each says, what it means, its numbers.

Plain text only; escaping is the page's business.
"""

from equilibrist.certificates import Words
from equilibrist.report._meanings import meaning_of
from equilibrist.report._record import CertificateRecord, Verdict, as_number
from equilibrist.report.formatting import (
    as_label,
    format_count,
    format_estimate,
    format_number,
    format_value,
    with_unit,
)

# The words of audit.json and of the printed audit, as they are read aloud.
BADGES = {
    Verdict.VERIFIED: "verified",
    Verdict.REFUTED: "refuted",
    Verdict.NOT_REFUTED: "not refuted",
    Verdict.UNASSESSED: "unassessed",
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
        "A counterexample was found and measured. Where it is a set of weights, or a direction to "
        "move them in, it is kept with the run as a witness, so that anyone can replay it."
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


def side(certificate: CertificateRecord) -> str:
    """The player that a certificate is about, from its field or from its claim's name."""
    return certificate.player or certificate.claim.partition("/")[2]


def other(player: str) -> str:
    """The player that rests while `player` moves."""
    return {"generator": "critic", "critic": "generator"}.get(player, "other player")


def _known(certificate: CertificateRecord) -> Words | None:
    """The claim's own words, or those of a claim that is known here."""
    return certificate.about or meaning_of(certificate.kind, certificate.claim.partition("/")[2])


def claim_title(certificate: CertificateRecord) -> str:
    """The claim as a sentence that can be true or false."""
    kind, player = certificate.claim.partition("/")[0], side(certificate)
    if kind == "nash" and player:
        return f"With the {other(player)} frozen, the {player} cannot lower its own loss"
    if kind == "nash":
        return "The pair is a Nash equilibrium: neither player can gain alone"
    if kind == "stationary":
        return f"The {player} is at rest" if player else "Both players are at rest"
    known = _known(certificate)
    return _filled(known.sentence, player) if known else as_label(certificate.claim)


def claim_short(certificate: CertificateRecord) -> str:
    """The claim in a few words, for the overview."""
    kind, player = certificate.claim.partition("/")[0], side(certificate)
    if kind == "nash":
        return f"{as_label(player)} cannot gain alone" if player else "Nash equilibrium"
    if kind == "stationary":
        return f"{as_label(player)}'s gradient at rest" if player else "Both gradients at rest"
    known = _known(certificate)
    return _filled(known.short, player) if known else as_label(certificate.claim)


def claim_meaning(certificate: CertificateRecord) -> str:
    """What the claim means, for a reader who has never met it."""
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
    known = _known(certificate)
    return _filled(known.meaning, player) if known else ""


def claim_question(certificate: CertificateRecord) -> str:
    """The claim as a question, "" where its title says enough."""
    known = _known(certificate)
    return _filled(known.question, side(certificate)) if known else ""


def _filled(text: str, player: str) -> str:
    return text.replace("{player}", player).replace("{other}", other(player))


def gain_words(certificate: CertificateRecord) -> tuple[str, str]:
    """The gain with its unit, and its interval in brackets."""
    value, low, high = format_estimate(certificate.number("gain"), certificate.interval)
    gain = with_unit(value, certificate.unit)
    if certificate.interval is None:
        return gain, ""
    return gain, f"({interval_name(certificate)} {low} to {high})"


def interval_name(certificate: CertificateRecord) -> str:
    """ "95% interval", by the recorded confidence."""
    confidence = certificate.number("confidence")
    if confidence is None or not 0 < confidence < 1:
        return "interval"
    return f"{100 * confidence:.4g}% interval"


def budget_words(certificate: CertificateRecord) -> str:
    """How hard a search looked: starts, steps, gradients."""
    budget = certificate.evidence.get("budget")
    if not isinstance(budget, dict):
        return ""
    starts, steps = budget.get("starts"), budget.get("steps")
    gradients = budget.get("gradients")
    parts = []
    if isinstance(starts, int):
        parts.append(f"{format_count(starts)} start{'' if starts == 1 else 's'}")
    if isinstance(steps, int):
        parts.append(
            f"{format_count(steps)} steps each" if starts != 1 else f"{format_count(steps)} steps"
        )
    text = " of ".join(parts) if len(parts) < 2 else f"{parts[0]}, {parts[1]}"
    if isinstance(gradients, int):
        text += (
            f" ({format_count(gradients)} gradients)"
            if text
            else f"{format_count(gradients)} gradients"
        )
    return text


# Evidence that the page shows elsewhere: as a large number, a chart, a table or a picture.
_SHOWN = {
    "": {"curves", "samples", "chosen", "interval", "gain", "residual", "unit", "confidence"},
    "stable": {"eigenvalues", "residuals", "densities", "extremes", "steps", "consensus", "plain"},
    "self-tests": {"tests"},
    "local-nash": {"gain_interval"},
    "local-minimax": {"gain_interval"},
    "proximal": {"lambda_star", "infinite", "lambda_star_strict"},
    "lambda-search": {"trials", "losses"},
    "profile": {
        "lambda",
        "r",
        "raw",
        "low",
        "high",
        "slack_within_reach",
        "definition_1",
        "trials",
    },
    "generator-vs-prox": {"fall"},
    "path-angle": {"where", "cosine"},
    "duality-gap": {"gap", "critic", "generator"},
    "proximal-duality-gap": {"gap", "critic", "generator"},
    "not-saturated": {"share"},
    "informative": {"share"},
    "not-smothered": {"missing"},
    "not-lagging": {"missing"},
    "not-memorising": {"excess"},
    "not-blind": {"depends", "parts"},
    "indistinguishable": {"excess", "columns", "rows"},
}
_VERDICTS = {verdict.value for verdict in Verdict}
# What a key does not say by itself.
_LABELS = {
    "abscissa": "Smallest eigenvalue of J's symmetric part",
    "abscissa_is": "That number is",
    "answer_residual": "Residual of the critic's answer",
    "complete": "All eigenvalues were found",
    "condition": "Condition number of the eigenvalue",
    "confirmed": "Smallest real part on unseen samples",
    "critic_gain": "What the critic's worst small move promises",
    "critic_gain_interval": "Its interval",
    "critic_residual": "Residual of the critic's answer",
    "critic_smallest": "Smallest curvature of the critic's loss",
    "curvature": "Smallest curvature, on unseen samples",
    "curvature_interval": "Its interval",
    "curvature_of_tolerance": "Curvature that promises the tolerance",
    "departure": "Departure of J from normality",
    "departure_interval": "Departure of J from normality, estimated",
    "first_order": "What the gradients still promise, to first order",
    "first_order_gain": "What the gradient still promises, to first order",
    "follower_smallest": "Smallest curvature of the follower's loss",
    "follower_verdict": "That the follower answers best",
    "generator_residual": "Residual of the generator's direction",
    "h_max": "Largest stable step of plain gradients",
    "h_max_is": "That number is",
    "lambda_star_definition_1": "λ*, the critic's slack added (Definition 1)",
    "lambda_star_at_tolerance": "λ* at the tolerance",
    "lambda_star_noise": "Noise of λ*, to first order",
    "largest": "Largest eigenvalue of the player's Hessian",
    "minibatches": "Minibatches",
    "missing": "Not found",
    "move": "Length of a small move",
    "nash_curvature": "Smallest curvature, the critic frozen (Nash)",
    "nash_gain": "r(∞), the gain against a frozen critic",
    "no_consensus": "Why there is no forecast for consensus",
    "parameters": "Free parameters",
    "q": "Rotation q",
    "q_is": "That number is",
    "schur_smallest": "Smallest curvature after the answer",
    "slack": "The critic's slack",
    "slack_interval": "Its interval",
    "smallest": "Smallest eigenvalue of the player's Hessian",
    "stackelberg_curvature": "Smallest curvature, the critic answering (Stackelberg)",
    "stackelberg_regret_less_slack": "r(0), the gain against a critic that answers freely",
    "threshold": "Curvature that counts as negative",
    "turning": "Eigenvalues off the real axis",
    "vanishing_curvature": "Smallest curvature as λ vanishes",
    "zero": "Eigenvalues that count as zero",
}
_MANY = 12  # numbers beyond this are for machines


def evidence_rows(certificate: CertificateRecord) -> list[tuple[str, str]]:
    """The recorded numbers that the page does not show elsewhere, as (label, words)."""
    shown = _SHOWN[""] | _SHOWN.get(certificate.kind, set())
    rows = []
    for key, value in certificate.evidence.items():
        if key in shown or (value is None and certificate.kind in _SHOWN):
            continue
        if key == "budget" and budget_words(certificate):
            rows.append(("Search", budget_words(certificate)))
            rest = {k: v for k, v in value.items() if k not in ("starts", "steps", "gradients")}
            rows += [(as_label(f"search {k}"), format_value(v)) for k, v in rest.items()]
            continue
        as_float = as_number(value)
        unit = certificate.unit if key in ("loss_before", "loss_after", "noise_floor") else ""
        words = (
            with_unit(format_number(as_float, 4), unit)
            if as_float is not None
            else format_value(value)
        )
        if key == "departure_interval" and isinstance(value, list):
            words = " to ".join(format_number(as_number(end), 2) for end in value)
        if isinstance(value, str) and value in _VERDICTS:
            words = BADGES[Verdict(value)]
        if _size(value) > _MANY:
            words = f"{format_count(_size(value))} numbers, in audit.json"
        named = _LABELS.get(key) if certificate.kind in _SHOWN else None
        rows.append((named or as_label(key), words))
    if certificate.kind == "self-tests":
        rows += _tests(certificate)
    return rows


def _size(value: object) -> int:
    """How many single values a recorded one holds."""
    if isinstance(value, list):
        return sum(map(_size, value))
    return sum(map(_size, value.values())) if isinstance(value, dict) else 1


def _tests(certificate: CertificateRecord) -> list[tuple[str, str]]:
    tests = certificate.evidence.get("tests")
    rows = []
    for name, test in tests.items() if isinstance(tests, dict) else ():
        if isinstance(test, dict):
            off = as_number(test.get("off"))
            result = "passed" if test.get("passed") is True else "failed"
            rows.append(
                (
                    as_label(str(name)),
                    result if not off else f"{result}, off by {format_number(off)}",
                )
            )
    return rows
