"""The verdicts as one ladder, from "still moving" to Nash, and the advice that follows from the evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equilibrist.checks.certificate import Certificate, Verdict


@dataclass(frozen=True)
class Rung:
    """One step of the ladder: a claim, the words for it, and what the audit says of it (None: not asked)."""

    claim: str
    words: str
    verdict: Verdict | None
    summary: str = ""


# Lowest first. Of stationary pairs: a local minimax point is Stackelberg's (lambda = 0), a Nash equilibrium the
# proximal one of infinite lambda (Farnia and Ozdaglar 2020, Proposition 3).
RUNGS = (
    ("stationary", "at rest"),
    ("stable", "locally stable: gradient flow comes back to it"),
    ("local-minimax", "local minimax (Stackelberg: the critic answers)"),
    ("proximal", "proximal near the pair, up to lambda*"),
    ("local-nash", "local Nash (the critic may not answer)"),
    ("nash", "Nash"),
)


_HOLDS = (Verdict.VERIFIED, Verdict.NOT_REFUTED)


def ladder(certificates: Sequence[Certificate]) -> tuple[Rung, ...]:
    """The rungs in order, with their verdicts."""
    by = {c.claim: c for c in certificates}
    return tuple(
        Rung(
            claim,
            words,
            by[claim].verdict if claim in by else None,
            by[claim].summary if claim in by else "",
        )
        for claim, words in RUNGS
    )


def place(certificates: Sequence[Certificate]) -> str:
    """Where the pair stands, in one to three sentences: at rest or not, Nash or not, and what holds nearby."""
    by = {c.claim: c for c in certificates}
    tests = by.get("self-tests")
    if tests is not None and tests.verdict is not Verdict.VERIFIED:
        return f"Nothing can be said of this pair yet: {tests.summary}"
    verdicts = {claim: by[claim].verdict for claim, _ in RUNGS if claim in by}
    if not verdicts and "epsilon-nash" in by:  # a mixed profile has one rung
        return by["epsilon-nash"].summary
    if not verdicts:
        return "No check was asked for that could place the pair."
    nash, local = verdicts.get("nash"), verdicts.get("local-nash")
    said = []
    moving = verdicts.get("stationary") is Verdict.REFUTED
    if moving:
        said.append("The pair is still moving, so it is no equilibrium of any kind yet.")
    if nash is Verdict.REFUTED:
        said.append("Not a Nash equilibrium: a player gains by deviating alone.")
    elif nash is Verdict.VERIFIED:
        return " ".join([*said, "A Nash equilibrium."])
    elif nash is Verdict.NOT_REFUTED and not moving:
        said.append(
            "As far as the searches reach, a Nash equilibrium: no player was found to gain."
        )
    near = []
    if local is Verdict.REFUTED:
        near.append("a small move of one player alone already gains")
    elif local is Verdict.VERIFIED:
        near.append("it is a local Nash equilibrium")
    elif local is Verdict.NOT_REFUTED and nash is not Verdict.NOT_REFUTED:
        near.append("no small move of one player alone was found to gain more than the tolerance")
    words = _proximal(by.get("proximal"))
    lagging = verdict_of(by, "local-nash/critic") is Verdict.REFUTED
    if words and local not in _HOLDS:
        near.append(f"it is {words}")
    elif lagging:
        near.append("the critic does not answer best, so it is neither minimax nor proximal")
    elif verdicts.get("proximal") is Verdict.REFUTED:
        near.append("it is proximal for no lambda: Stackelberg at best")
    if verdicts.get("local-minimax") is Verdict.REFUTED and not lagging:
        near.append("it is not minimax either")
    elif verdicts.get("local-minimax") in _HOLDS and local not in _HOLDS and not words:
        near.append(
            "it holds as a local minimax (Stackelberg) point, where the critic answers at once"
        )
    if verdicts.get("stable") is Verdict.REFUTED:
        near.append("gradient flow leaves it")
    elif verdicts.get("stable") in _HOLDS:
        near.append("gradient flow comes back to it")
    if near:
        text = "; ".join(near)
        said.append(f"Near it: {text}.")
    return " ".join(said) or "The checks that were made do not place the pair: see their summaries."


def _proximal(found: Certificate | None) -> str:
    if found is None or "lambda_star" not in found.evidence:
        return ""
    if found.evidence.get("infinite"):
        return ""  # a local Nash equilibrium, which says so itself
    low, high = found.evidence["lambda_star"]
    if not (isinstance(low, float | int) and low > 0):
        return ""
    several = isinstance(high, float | int) and high > 1.005 * low and math.isfinite(high)
    return f"lambda-proximal up to lambda* = {low:.3g}" + (f" to {high:.3g}" if several else "")


def advice(certificates: Sequence[Certificate]) -> tuple[str, ...]:
    """What to change, most urgent first; each sentence names the number that it follows from. Empty where
    nothing speaks for a change."""
    by = {c.claim: c for c in certificates}
    tests = by.get("self-tests")
    if tests is not None and tests.verdict is not Verdict.VERIFIED:
        return (
            "Mend what the self-tests name before anything else: no verdict can be had until then.",
        )
    said = [
        *_of_steps(by.get("stable")),
        *_of_players(by),
        *_of_rest(by),
        *_of_place(by),
        *_of_noise(certificates),
    ]
    return tuple(dict.fromkeys(said))


def _of_steps(stable: Certificate | None) -> list[str]:
    """From the spectrum: the step size, rotation, an unstable direction."""
    if stable is None:
        return []
    e, said = stable.evidence, []
    steps: Mapping[str, Any] = e.get("steps") or {}
    h, limit = _float(steps.get("h")), _float(steps.get("h_max", e.get("h_max")))
    if 0 < limit < h:
        said.append(
            f"The step size is too large for this spectrum: plain gradient steps of {h:.3g} leave the pair, steps "
            f"below {limit:.3g} would stay. Lower it, or damp the rotation (see below)."
        )
    q = _float(e.get("q"))
    if q > 2 and stable.verdict in _HOLDS:
        forecast = e.get("consensus") or {}
        gamma, after = forecast.get("gamma"), forecast.get("q")
        tried = (
            f"consensus with gamma about {gamma:.2g} would bring it to {after:.2g}"
            if _number(gamma) and _number(after)
            else "try consensus, extragradient or optimistic steps"
        )
        said.append(
            f"Rotation dominates: an eigenvalue turns {q:.3g} times as fast as it contracts, and simultaneous "
            f"steps must be tiny there; {tried}."
        )
    if stable.verdict is Verdict.REFUTED:
        said.append(
            'Gradient flow leaves this pair along the witness of the check "stable": it is not where training '
            "would come to rest. Train on, or begin elsewhere; a smaller step size will not help."
        )
    return said


def _of_players(by: Mapping[str, Certificate]) -> list[str]:
    """From the Nash search: a critic that lags behind, a generator that gains."""
    said = []
    critic, generator = by.get("nash/critic"), by.get("nash/generator")
    if critic is not None and critic.verdict is Verdict.REFUTED:
        gain = critic.evidence["gain"]
        unit = critic.tolerance.unit if critic.tolerance else ""
        said.append(
            f"The critic is under-trained: it gains {gain:.3g} {unit} by training on alone. Give it more steps a "
            "generator step (or a larger step size) before judging the generator."
        )
    if generator is not None and generator.verdict is Verdict.REFUTED:
        proximal = by.get("proximal")
        words = _proximal(proximal)
        gain = generator.evidence["gain"]
        unit = generator.tolerance.unit if generator.tolerance else ""
        held = proximal is not None and proximal.verdict in (Verdict.VERIFIED, Verdict.NOT_REFUTED)
        if held and words:
            said.append(
                f"The generator's gain of {gain:.3g} {unit} needs a critic that stands still; with one that may "
                f"answer, the pair is {words}. Keep the critic ahead of the generator (more critic steps, or proximal "
                "training)."
            )
        elif held and proximal is not None and proximal.evidence.get("infinite"):
            said.append(
                f"The generator gains {gain:.3g} {unit} against the frozen critic, by large moves: no small one gains "
                "more than the tolerance. That is no fault while the critic keeps answering (many GANs have no Nash "
                'equilibrium); the check "profile" says how fast it must.'
            )
        else:
            said.append(
                f"The generator gains {gain:.3g} {unit} against the frozen critic. That alone is no fault (many GANs "
                "have no Nash equilibrium): look at its samples after the deviation, and at the proximal profile."
            )
    return said


def _of_rest(by: Mapping[str, Certificate]) -> list[str]:
    parts = [by[f"stationary/{p}"] for p in ("generator", "critic") if f"stationary/{p}" in by]
    still = [c for c in parts if c.verdict is Verdict.REFUTED]
    if not still:
        return []
    ratios = [c.evidence.get("signal_to_noise") for c in still]
    noisy = any(isinstance(r, float) and r < 1 for r in ratios)
    who = " and the ".join(c.player or "" for c in still)
    moves = "moves" if len(still) == 1 else "move"
    text = f"The {who} still {moves}: train longer, with a decaying step size, and audit again"
    if noisy:
        text += "; a minibatch's noise is larger than the motion, so average the iterates or take larger batches"
    return [text + "."]


def _of_place(by: Mapping[str, Certificate]) -> list[str]:
    if verdict_of(by, "local-nash/critic") is Verdict.REFUTED:
        return [
            'The critic does not answer best even nearby: along the witness of "local-nash/critic" it gains at once. '
            "Until it does, what the generator gains says little."
        ]
    if verdict_of(by, "local-minimax") is Verdict.REFUTED:
        return [
            "The pair is not even a local minimax point: the generator gains although the critic answers. Along the "
            'witness of "local-minimax" training has further to go.'
        ]
    return []


def _of_noise(certificates: Sequence[Certificate]) -> list[str]:
    claims = [c.claim for c in certificates if c.verdict is Verdict.UNASSESSED]
    if not claims:
        return []
    return [
        f"Not told apart within this budget: {', '.join(claims)}. Their summaries name what is missing "
        "(more batches, more products, a tolerance)."
    ]


def verdict_of(by: Mapping[str, Certificate], claim: str) -> Verdict | None:
    """The claim's verdict, None where it was not asked for."""
    return by[claim].verdict if claim in by else None


def _float(value: Any) -> float:
    """The number, or NaN, which no comparison holds for."""
    return float(value) if _number(value) else math.nan


def _number(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and math.isfinite(value)
