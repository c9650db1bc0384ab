"""Findings from what the generator received."""

from __future__ import annotations

from collections.abc import Sequence

from equilibrist.diagnosis._calls import FAKE
from equilibrist.diagnosis._coefficients import (
    CLEAR,
    LEAST,
    SHARE,
    SMALL,
    alike,
    as_evidence,
    constant,
    explained,
    median,
    share,
)
from equilibrist.diagnosis._explain import AGAINST, MIXED, OTHER, OWN, Explained
from equilibrist.diagnosis._recorder import Recorder
from equilibrist.diagnosis._seen import CRITIC
from equilibrist.findings import Finding

LEAKS = 0.05  # residuals above leave open whether it is the other player's loss


def judge_generator(
    recorder: Recorder, role: str, steps: list[Explained], flipped: bool
) -> list[Finding]:
    """The finding about a generator's gradients, or nothing.

    Args:
        recorder: what was seen.
        role: the generator's.
        steps: its steps, explained.
        flipped: whether the critic is trained with all labels the other way round.
    """
    name, critic = recorder.sides[role].name, recorder.sides[CRITIC].name
    clear = [e for e in steps if e.residual < CLEAR]
    if len(clear) < LEAST:
        return []
    if _helps_the_critic(clear):
        # Both players may have the labels the other way round; or gradients are reversed on their way.
        meant = flipped or _shared_calls(recorder, clear)
        return [] if meant else [_turned(name, clear)]
    found = _learns_the_other_label(name, clear) if flipped else None
    found = found or _saturating(name, clear) or _mixed(name, clear)
    # An encoder's own loss may call its samples generated, at calls that are no part of the critic's loss.
    other = _used_by_the_critic(recorder)
    shared = [e for e in clear if any(e.step.calls[i].place in other for i in e.used)]
    found = found or _taught(name, critic, shared, len(clear))
    return [found] if found else []


def _helps_the_critic(clear: list[Explained]) -> bool:
    """Whether a generator is trained to be told apart."""
    helps = share(
        clear, lambda e: e.get(OWN) < SMALL and (e.get(AGAINST) < -0.3 or e.get(OTHER) > 0.3)
    )
    # What is added up has one coefficient; another loss, not declared, may look like any number of these. Where scores
    # are near zero the two are nearly one column, and a step is told as either.
    parts = [part for part in (AGAINST, OTHER) if median(clear, part)]
    one = any(constant(clear, part) for part in parts)
    return helps >= SHARE and (one or alike([e.get(OTHER) - e.get(AGAINST) for e in clear]))


def _turned(name: str, clear: list[Explained]) -> Finding:
    text = (
        f"The {name} is trained to make its samples easier to tell: its gradient is the declared one the "
        f"other way (coefficient {min(median(clear, AGAINST), -median(clear, OTHER)):.2f} where 1 is declared)."
    )
    evidence = as_evidence(clear, OWN, AGAINST, OTHER)
    return Finding("wrong-sign", f"{name}'s loss", text, evidence=evidence)


def _learns_the_other_label(name: str, clear: list[Explained]) -> Finding | None:
    """A generator that goes with the labels, beside a critic whose labels are the other way round."""
    if share(clear, lambda e: e.get(OWN) > 0.3) < SHARE:
        return None
    text = (
        f"The critic is trained with all labels the other way round, the {name} is not: it learns what the critic "
        "calls generated."
    )
    return Finding("wrong-sign", "labels", text, evidence=as_evidence(clear, OWN, OTHER))


def _saturating(name: str, clear: list[Explained]) -> Finding | None:
    """A generator that minimises minus the critic's loss."""
    reverse = share(
        clear, lambda e: e.get(OTHER) < -0.1 and abs(e.get(OWN)) < SMALL + 0.1 * abs(e.get(OTHER))
    )
    if reverse < SHARE:
        return None
    return Finding(
        "wrong-loss",
        f"{name}'s loss",
        f"The {name} minimises minus the critic's loss (the saturating form) where another is declared.",
        level="warning",
        evidence=as_evidence(clear, OWN, OTHER),
        cure="declare the saturating form, as in Vanilla(saturating=True), or use the other one",
    )


def _mixed(name: str, clear: list[Explained]) -> Finding | None:
    """A loss that is neither the declared one nor the critic's: one backward pass sends slopes of both."""
    mixed = [e for e in clear if e.get(MIXED) > 0.3 * max(abs(e.get(OWN)), abs(e.get(OTHER)))]
    if len(mixed) < SHARE * len(clear):
        return None
    text = (
        f"The loop's loss of the {name} is not the declared one: what it receives is {median(mixed, OWN):.2f} times "
        f"the declared loss and {median(mixed, OTHER):.2f} times the critic's, from one backward pass."
    )
    evidence = as_evidence(mixed, OWN, AGAINST, OTHER)
    return Finding("wrong-loss", f"{name}'s loss", text, sure="likely", evidence=evidence)


def _taught(name: str, critic: str, shared: list[Explained], steps: int) -> Finding | None:
    """A generator that receives the critic's loss as well, in most of so many steps."""
    leaking = [
        e for e in shared if e.residual < LEAKS and (e.get(OTHER) > 0.1 or e.get(AGAINST) < -0.1)
    ]
    if len(leaking) < LEAST or len(leaking) < SHARE * steps:
        return None
    amount = max(median(leaking, OTHER), -median(leaking, AGAINST))
    text = (
        f"The {name} receives the {critic}'s loss as well (coefficient {amount:.2f}), in "
        f"{len(leaking)} of {steps} steps: it is taught to be told apart."
    )
    evidence = as_evidence(leaking, OWN, AGAINST, OTHER)
    return Finding("gradient-leak", name, text, evidence=evidence)


def _shared_calls(recorder: Recorder, steps: Sequence[Explained]) -> bool:
    """Whether the generator learns from the very calls that the critic's loss is made of, as it does where its gradient
    is reversed on the way (domain-adversarial training)."""
    used = _used_by_the_critic(recorder)
    linked = [c.place for e in steps for c in e.step.calls if c.linked]
    return bool(linked) and all(place in used for place in linked)


def _used_by_the_critic(recorder: Recorder) -> set[int]:
    """Calls on generated samples that the critic's own steps are made of."""
    critic = [e for e in explained(recorder, CRITIC) if e.kinds]
    return {e.step.calls[i].place for e in critic for i in e.used if e.kinds[i] == FAKE}
