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
    alike,
    as_evidence,
    below,
    constant,
    explained,
    median,
    share,
    within,
)
from equilibrist.diagnosis._explain import (
    AGAINST,
    MIXED,
    OTHER,
    OWN,
    SWAPPED_FAKE,
    SWAPPED_REAL,
    TERM,
    Explained,
)
from equilibrist.diagnosis._judge_penalties import judge_penalties
from equilibrist.diagnosis._recorder import Recorder
from equilibrist.diagnosis._seen import BEFORE, CRITIC
from equilibrist.findings import Finding

SMALL = 0.02  # coefficients below are none
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
            findings += _generator(recorder, role, steps, flipped)
        if len(steps) >= LEAST:
            findings += _stale(recorder, role, steps) + _scale(recorder, role, steps)
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
    for term, said in words.items():
        if not any(e.step.problem and term in e.step.problem.names for e in clear):
            continue  # the declared term has no gradient: its weight is zero
        where = f"term {term.removeprefix(TERM)} ({said}) of the {name}'s loss"
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
            kind = "constant-penalty" if said == "gradient penalty" else "missing-term"
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


# -- the generator ---------------------------------------------------------------------------------


def _generator(
    recorder: Recorder, role: str, steps: list[Explained], flipped: bool
) -> list[Finding]:
    side = recorder.sides[role]
    clear = [e for e in steps if e.residual < CLEAR]
    if len(clear) < LEAST:
        return []
    helps = share(
        clear, lambda e: e.get(OWN) < SMALL and (e.get(AGAINST) < -0.3 or e.get(OTHER) > 0.3)
    )
    # What is added up has one coefficient; another loss, not declared, may look like any number of these.
    told = any(constant(clear, part) for part in (AGAINST, OTHER) if median(clear, part))
    # Where scores are near zero the two are nearly one column, and a step is told as either.
    told |= bool(clear) and alike([e.get(OTHER) - e.get(AGAINST) for e in clear])
    if helps >= SHARE and told:
        if flipped or _shared_calls(recorder, clear):
            return []  # both players have the labels the other way round; or gradients are reversed on their way
        return [
            Finding(
                "wrong-sign",
                f"{side.name}'s loss",
                f"The {side.name} is trained to make its samples easier to tell: its gradient is the declared one the "
                f"other way (coefficient {min(median(clear, AGAINST), -median(clear, OTHER)):.2f} "
                "where 1 is declared).",
                evidence=as_evidence(clear, OWN, AGAINST, OTHER),
            )
        ]
    if flipped and helps < SHARE and share(clear, lambda e: e.get(OWN) > 0.3) >= SHARE:
        return [
            Finding(
                "wrong-sign",
                "labels",
                f"The critic is trained with all labels the other way round, the {side.name} is not: "
                "it learns what the "
                "critic calls generated.",
                evidence=as_evidence(clear, OWN, OTHER),
            )
        ]
    reverse = share(
        clear, lambda e: e.get(OTHER) < -0.1 and abs(e.get(OWN)) < SMALL + 0.1 * abs(e.get(OTHER))
    )
    if reverse >= SHARE:
        return [
            Finding(
                "wrong-loss",
                f"{side.name}'s loss",
                f"The {side.name} minimises minus the critic's loss (the saturating form) where another is declared.",
                level="warning",
                evidence=as_evidence(clear, OWN, OTHER),
                cure="declare the saturating form, as in Vanilla(saturating=True), or use the other one",
            )
        ]
    mixed = [e for e in clear if e.get(MIXED) > 0.3 * max(abs(e.get(OWN)), abs(e.get(OTHER)))]
    if len(mixed) >= SHARE * len(clear):
        # One backward pass through one call sends slopes that are of neither loss.
        text = (
            f"The loop's loss of the {side.name} is not the declared one: what it receives is "
            f"{median(mixed, OWN):.2f} times the "
            f"declared loss and {median(mixed, OTHER):.2f} times the critic's, from one backward pass."
        )
        evidence = as_evidence(mixed, OWN, AGAINST, OTHER)
        return [
            Finding("wrong-loss", f"{side.name}'s loss", text, sure="likely", evidence=evidence)
        ]
    leaking = [
        e for e in clear if e.residual < LEAKS and (e.get(OTHER) > 0.1 or e.get(AGAINST) < -0.1)
    ]
    if len(leaking) >= LEAST and len(leaking) >= SHARE * len(clear):
        amount = max(median(leaking, OTHER), -median(leaking, AGAINST))
        critic = recorder.sides[CRITIC].name
        return [
            Finding(
                "gradient-leak",
                side.name,
                f"The {side.name} receives the {critic}'s loss as well (coefficient {amount:.2f}), in "
                f"{len(leaking)} of "
                f"{len(steps)} steps: it is taught to be told apart.",
                evidence=as_evidence(leaking, OWN, AGAINST, OTHER),
            )
        ]
    return []


def _shared_calls(recorder: Recorder, steps: Sequence[Explained]) -> bool:
    """Whether the generator learns from the very calls that the critic's loss is made of, as it does where its gradient
    is reversed on the way (domain-adversarial training)."""
    critic = [e for e in explained(recorder, CRITIC) if e.kinds]
    used = {e.step.calls[i].place for e in critic for i in e.used if e.kinds[i] == FAKE}
    linked = [c.place for e in steps for c in e.step.calls if c.linked]
    return bool(linked) and all(place in used for place in linked)


# -- both ------------------------------------------------------------------------------------------


def _stale(recorder: Recorder, role: str, steps: list[Explained]) -> list[Finding]:
    side = recorder.sides[role]
    # Where nothing of the declared loss is received, an old gradient merely looks like an unknown new one.
    old = [
        e
        for e in steps
        if e.get(BEFORE) > 0.9 * _some(e) > 0.01 and e.residual < 0.05 and e.step.fresh
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


def _scale(recorder: Recorder, role: str, steps: list[Explained]) -> list[Finding]:
    side = recorder.sides[role]
    parts = (REAL, FAKE) if role == CRITIC else (OWN,)
    sizes = [max(abs(e.get(p)) for p in parts) for e in steps if e.residual < 0.05]
    if len(sizes) < LEAST:
        return []
    size = statistics.median(sizes)
    counts = {c.scores[0].numel() for e in steps for c in e.step.calls}
    if size < SCALE or any(abs(size / count - 1) < 0.01 for count in counts):
        return []  # a sum over the batch where a mean is declared is as large
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
