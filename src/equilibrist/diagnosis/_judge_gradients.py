"""Findings from what the optimisers received: signs, missing terms, leaks, scales, another loss."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from equilibrist.diagnosis._calls import FAKE, REAL
from equilibrist.diagnosis._coefficients import (
    CLEAR,
    LEAST,
    SHARE,
    SMALL,
    as_evidence,
    below,
    constant,
    explained,
    median,
    share,
    within,
)
from equilibrist.diagnosis._explain import (
    MIXED,
    OTHER,
    OWN,
    SWAPPED_FAKE,
    SWAPPED_REAL,
    TERM,
    Explained,
)
from equilibrist.diagnosis._judge_generator import judge_generator
from equilibrist.diagnosis._judge_penalties import judge_penalties
from equilibrist.diagnosis._recorder import Recorder
from equilibrist.diagnosis._seen import BEFORE, CRITIC
from equilibrist.findings import Finding

LEAKS = 0.05  # residuals above leave open whether it is the other player's loss
SCALE = 64.0  # a factor on all parts from which it is a loss scale


def judge_gradients(recorder: Recorder) -> tuple[list[Finding], dict[str, list[Explained]]]:
    """Findings from the fits, and the fits by player."""
    by = {role: explained(recorder, role) for role in recorder.sides}
    findings: list[Finding] = []
    if recorder.declared is not None:
        for role, steps in by.items():
            if len(steps) >= LEAST:
                findings += _own(recorder, role, steps) + _stale(recorder, role, steps)
        return findings, by
    critic = by.get(CRITIC, [])
    flipped = _flipped(critic)
    if len(critic) >= LEAST:
        findings += _critic(recorder, critic, flipped)
    for role, steps in by.items():
        if role != CRITIC and len(steps) >= LEAST:
            findings += judge_generator(recorder, role, steps, flipped)
        if len(steps) >= LEAST:
            findings += _stale(recorder, role, steps) + _scale(recorder, role, by)
    return findings, by


def _flipped(critic: Sequence[Explained]) -> bool:
    """Whether the critic is trained with all labels the other way round."""
    return (
        len(critic) >= LEAST
        and share(
            critic,
            lambda e: (
                (
                    min(e.get(SWAPPED_REAL), e.get(SWAPPED_FAKE)) > 0.5
                    and max(abs(e.get(REAL)), abs(e.get(FAKE))) < 0.3
                )
                or (max(e.get(REAL), e.get(FAKE)) < -0.3)
            ),
        )
        >= SHARE
    )


# -- losses of one's own ---------------------------------------------------------------------------


def _own(recorder: Recorder, role: str, steps: list[Explained]) -> list[Finding]:
    name, words = recorder.sides[role].name, recorder.words.get(role, {})
    clear = [e for e in steps if e.residual < CLEAR]
    if len(clear) < LEAST:
        return []
    largest = max(abs(median(clear, term)) for term in words) if words else 0.0
    found = []
    for term, description in words.items():
        if not any(e.step.problem and term in e.step.problem.names for e in clear):
            continue  # the declared term has no gradient: its weight is zero
        where = f"term {term.removeprefix(TERM)} ({description}) of the {name}'s loss"
        evidence = as_evidence(clear, *words)
        if share(clear, below(term, -0.3 * largest)) >= SHARE and largest > SMALL:
            text = (
                f"The {where} enters with the opposite sign (coefficient {median(clear, term):.2f} "
                "where 1 is declared)."
            )
            found.append(Finding("wrong-sign", where, text, evidence=evidence))
        elif (
            len(words) > 1
            and largest > SMALL
            and share(clear, within(term, SMALL * largest)) >= SHARE
        ):
            text = (
                f"The {where} contributes nothing to what its optimiser receives (coefficient "
                f"{median(clear, term):.3f} where "
                f"1 is declared), in {len(clear)} steps."
            )
            kind = "constant-penalty" if description == "gradient penalty" else "missing-term"
            found.append(Finding(kind, where, text, evidence=evidence))
    return found + _leak(recorder, role, clear)


# -- the critic ------------------------------------------------------------------------------------


def _critic(recorder: Recorder, steps: list[Explained], flipped: bool) -> list[Finding]:
    name = recorder.sides[CRITIC].name
    found = [] if flipped else _signs(name, steps)
    clear = [e for e in steps if e.residual < CLEAR]
    if len(clear) >= LEAST:
        if not found and not flipped:
            found += _missing(recorder, name, clear)
        found += _leak(recorder, CRITIC, clear)
    return found + judge_penalties(recorder, name, steps)


def _signs(name: str, steps: list[Explained]) -> list[Finding]:
    found = []
    for part, swapped, other, words in (
        (REAL, SWAPPED_REAL, FAKE, "real"),
        (FAKE, SWAPPED_FAKE, REAL, "generated"),
    ):

        def turned(e: Explained, part: str = part, other: str = other) -> bool:
            return e.get(part) < -0.3 and e.get(other) > -SMALL

        def relabelled(e: Explained, part: str = part, swapped: str = swapped) -> bool:
            return e.get(swapped) > 0.05 and abs(e.get(part)) < 0.4 * e.get(swapped)

        wrong = [e for e in steps if turned(e) or relabelled(e)]
        if len(wrong) < LEAST or len(wrong) < SHARE * len(steps):
            continue
        by_label = sum(map(relabelled, wrong)) > len(wrong) / 2
        what = (
            f"the label of the other kind (coefficient {median(wrong, swapped):.2f}, its own label "
            f"{median(wrong, part):.2f})"
            if by_label
            else f"the opposite sign (coefficient {median(wrong, part):.2f} where 1 is declared)"
        )
        found.append(
            Finding(
                "wrong-sign",
                f"{name}, {words} term",
                f"The {words} part of the {name}'s gradient enters with {what}, in {len(wrong)} of {len(steps)} steps.",
                evidence=as_evidence(wrong, REAL, FAKE, swapped),
            )
        )
    return found


def _missing(recorder: Recorder, name: str, steps: list[Explained]) -> list[Finding]:
    found = []
    kinds = {REAL: "real", FAKE: "generated"}
    largest = max(abs(median(steps, REAL)), abs(median(steps, FAKE)))
    for part, words in kinds.items():
        swapped = SWAPPED_REAL if part == REAL else SWAPPED_FAKE
        if any(e.tangled for e in steps) or largest < SMALL:
            continue
        # A hinge has no slope beyond its margin: nothing is missing from a step whose declared term is zero.
        sloped = [e for e in steps if part not in e.kinds or _sloped(e, part)]
        if len(sloped) < LEAST:
            continue
        present = [e for e in sloped if part in e.kinds]
        gone = share(sloped, within(part, SMALL * largest, swapped))
        if gone < SHARE or median(sloped, OTHER) > SMALL:
            continue
        seen = bool(present) or _quiet(recorder, part)
        if seen:
            found.append(
                Finding(
                    "missing-term",
                    f"{name}, {words} term",
                    f"The {words} samples contribute nothing to the {name}'s gradient (coefficient "
                    f"{median(steps, part):.2f} where 1 is declared), in {round(gone * len(steps))} of {len(steps)} "
                    f"steps: the critic is called on them {'with' if present else 'without'} gradients.",
                    evidence=as_evidence(steps, REAL, FAKE),
                )
            )
    return found


def _sloped(e: Explained, part: str) -> bool:
    """Whether the declared term of some call of that kind has a gradient."""
    names = e.step.problem.names if e.step.problem is not None else []
    return any(
        role == part and place >= 0 and e.kinds[place] == part and name in names
        for name, (place, role) in e.step.columns.items()
    )


def _quiet(recorder: Recorder, part: str) -> bool:
    """Whether the critic was called on samples of that kind without gradients, about once a step."""
    count = sum(
        (kind == FAKE) == (part == FAKE) if (kind := (FAKE if f else REAL)) else False
        for _, _, f in recorder.quiet
    )
    return count >= LEAST


def _leak(recorder: Recorder, role: str, steps: list[Explained]) -> list[Finding]:
    side = recorder.sides[role]
    leaking = [e for e in steps if abs(e.get(OTHER)) > 0.1 and e.residual < LEAKS]
    if len(leaking) < LEAST or len(leaking) < 0.3 * len(steps) or not constant(leaking, OTHER):
        return []
    only = all(
        max(abs(v) for part, v in e.totals.items() if part != OTHER) < SMALL for e in leaking
    )
    shared = any(e.step.shared for e in leaking)
    other = next((s.name for r, s in recorder.sides.items() if r != role), "other player")
    text = (
        f"The {side.name} receives the {other}'s loss{' and nothing else' if only else ' as well'} (coefficient "
        f"{median(leaking, OTHER):.2f}), in {len(leaking)} of {len(steps)} steps."
    )
    evidence = as_evidence(leaking, *((REAL, FAKE) if role == CRITIC else (OWN,)), OTHER)
    sure = "likely" if any(e.inferred for e in leaking) else "certain"
    found = [Finding("gradient-leak", side.name, text, sure=sure, evidence=evidence)]
    if shared:
        found.insert(
            0,
            Finding(
                "shared-optimizer",
                f"{side.name} and {other}",
                f"One optimiser ({leaking[0].step.kind}) holds both players, so that the {side.name} is stepped on the "
                f"{other}'s loss too.",
                evidence=evidence,
            ),
        )
    return found


# -- both ------------------------------------------------------------------------------------------


def _stale(recorder: Recorder, role: str, steps: list[Explained]) -> list[Finding]:
    side = recorder.sides[role]
    # Where nothing of the declared loss is received, an old gradient merely looks like an unknown new one.
    old = [
        e
        for e in steps
        if e.get(BEFORE) > 0.9 * _some(e) > 0.01
        and e.residual < 0.05
        and e.step.fresh
        and not e.step.cleared  # a gradient much like the one before is no old one
    ]
    later = [e for e in steps if e.step.problem is not None and BEFORE in e.step.columns]
    if len(old) < LEAST or len(old) < 0.6 * len(later):
        return []
    return [
        Finding(
            "stale-gradients",
            side.name,
            f"The {side.name}'s gradients are never cleared: in {len(old)} of {len(later)} steps what "
            "it receives is the new "
            f"gradient plus all earlier ones (coefficient {median(old, BEFORE):.2f}).",
            evidence=as_evidence(old, BEFORE),
        )
    ]


def _some(e: Explained) -> float:
    """The largest coefficient of what is not old."""
    return max((abs(v) for part, v in e.totals.items() if part not in (BEFORE, MIXED)), default=0.0)


def _factor(role: str, steps: Sequence[Explained]) -> float:
    """The factor on all declared parts of a player's loss; 0 where too few steps tell it."""
    parts = (REAL, FAKE) if role == CRITIC else (OWN,)
    sizes = [max(abs(e.get(p)) for p in parts) for e in steps if e.residual < 0.05]
    return statistics.median(sizes) if len(sizes) >= LEAST else 0.0


def _scale(recorder: Recorder, role: str, by: dict[str, list[Explained]]) -> list[Finding]:
    side, steps = recorder.sides[role], by[role]
    parts = (REAL, FAKE) if role == CRITIC else (OWN,)
    size = _factor(role, steps)
    counts = {c.scores[0].numel() for e in steps for c in e.step.calls}
    mean = any(abs(_factor(other, by[other]) - 1) < 0.01 for other in by if other != role)
    if size < SCALE or (not mean and any(abs(size / count - 1) < 0.01 for count in counts)):
        return []  # a sum over the batch where a mean is declared is as large, of both players' losses
    power = math.log2(size)
    exact = abs(power - round(power)) < 0.02
    return [
        Finding(
            "loss-scale",
            side.name,
            f"The {side.name} receives {size:,.0f} times the declared gradient"
            + (f" (2^{round(power)})" if exact else "")
            + ": a loss scale is not undone before its optimiser steps.",
            sure="certain" if exact else "likely",
            evidence={**as_evidence(steps, *parts), "factor": size},
        )
    ]
