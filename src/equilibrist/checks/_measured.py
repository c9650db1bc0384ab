"""Measurements that come with the findings, largest effect first. Only findings prescribe."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from equilibrist.certificates import HOLDS
from equilibrist.checks._implications import measured_gain, reconcile
from equilibrist.checks._ladder import (
    gain_unit,
    moving,
    number_or_nan,
    parts_of,
    proximal_words,
    verdict_of,
)
from equilibrist.checks.certificate import Certificate, Verdict

By = dict[str, Certificate]


class Remark(NamedTuple):
    """A sentence or two, and the size of the effect they speak of, in tolerances."""

    effect: float
    text: str


def remarks_on(certificates: Sequence[Certificate], explained: bool = False) -> tuple[str, ...]:
    """What the certificates measured, largest effect first; empty where all is settled and nothing gains.

    Args:
        certificates: of the audit.
        explained: whether a finding says already what the gains may come from.
    """
    by = {c.claim: c for c in reconcile(certificates)}
    tests = by.get("self-tests")
    if tests is not None and tests.verdict is not Verdict.VERIFIED:
        return ("Correct what the self-tests name first: no verdict can be had until then.",)
    remarks = [
        *_critic(by),
        *_generator(by, explained),
        *_rest(by),
        *_minimax(by),
        *_left(by),
    ]
    ordered = sorted(remarks, key=lambda r: -r.effect)
    texts = [r.text for r in ordered] + _unassessed(certificates)
    return tuple(dict.fromkeys(texts))


def _effect(certificate: Certificate) -> float:
    """A gain in tolerances; 1 where it is unknown."""
    gain = number_or_nan(measured_gain(certificate)[0])
    tolerance = certificate.tolerance.value if certificate.tolerance else math.nan
    ratio = gain / tolerance if tolerance > 0 else math.nan
    return ratio if math.isfinite(ratio) else 1.0


def _gained(certificate: Certificate) -> str:
    gain = number_or_nan(measured_gain(certificate)[0])
    text = f"{gain:.3g} {gain_unit(certificate)}"
    effect = _effect(certificate)
    return f"{text}, {effect:.3g} times the tolerance" if effect >= 2 else text


def _critic(by: By) -> list[Remark]:
    critic = by.get("nash/critic")
    if critic is None or critic.verdict is not Verdict.REFUTED:
        return []
    text = f"The critic gains {_gained(critic)}, by moving alone: it does not answer best."
    return [Remark(_effect(critic), text)]


def _generator(by: By, explained: bool) -> list[Remark]:
    generator = by.get("nash/generator")
    if generator is None or generator.verdict is not Verdict.REFUTED:
        return []
    gained, proximal = _gained(generator), by.get("proximal")
    words = proximal_words(proximal)
    holds = proximal is not None and proximal.verdict in HOLDS
    if holds and words:
        text = (
            f"The generator gains {gained}, while the critic stands still; with a critic that may answer, the pair is "
            f"{words}."
        )
    elif holds and proximal is not None and proximal.evidence.get("infinite"):
        text = (
            f"The generator gains {gained}, against the frozen critic, by large moves: no small one gains more than "
            "the tolerance. Many GANs have no Nash equilibrium, so that this need not be a fault while the critic "
            'keeps answering; the check "profile" measures how fast it must.'
        )
    else:
        text = f"The generator gains {gained}, against the frozen critic."
        if not explained:
            text += (
                " Many GANs have no Nash equilibrium, so that this need not be a fault: its samples after the "
                'deviation show what the gain is worth, and the check "profile" whether it outlives the critic\'s '
                "answer."
            )
    return [Remark(_effect(generator), text)]


def _rest(by: By) -> list[Remark]:
    parts = parts_of(by, "stationary", Verdict.REFUTED)
    if not parts:
        return []
    who = " and the ".join(c.player or "" for c in parts)
    noisy = any(number_or_nan(c.evidence.get("signal_to_noise")) < 1 for c in parts)
    text = (
        f"The {who} {'is' if len(parts) == 1 else 'are'} not at rest. That fits training that was stopped early, and "
        "play that goes round for ever: an audit of a later checkpoint tells them apart."
    )
    if noisy:
        text += (
            " A minibatch's noise is larger than the motion: an average of the iterates or larger batches would "
            "show it more clearly."
        )
    return [Remark(max(_effect(c) for c in parts), text)]


def _minimax(by: By) -> list[Remark]:
    if verdict_of(by, "local-nash/critic") is Verdict.REFUTED and not moving(by):
        return [
            Remark(
                1.0,
                'The critic does not answer best even nearby: along the witness of "local-nash/critic" it gains at '
                "once. Until it answers, what the generator gains says little.",
            )
        ]
    if verdict_of(by, "local-minimax") is Verdict.REFUTED and not moving(by):
        return [
            Remark(
                1.0,
                "The pair is not even a local minimax point: the generator gains although the critic answers. Along "
                'the witness of "local-minimax" training has further to go.',
            )
        ]
    return []


def _left(by: By) -> list[Remark]:
    """An unstable direction."""
    if verdict_of(by, "stable") is not Verdict.REFUTED or moving(by):
        return []
    text = (
        'Gradient flow leaves this pair along the witness of the check "stable": training would not come to rest '
        "here, whatever the step size."
    )
    return [Remark(1.0, text)]


def _unassessed(certificates: Sequence[Certificate]) -> list[str]:
    claims = [c.claim for c in certificates if c.verdict is Verdict.UNASSESSED]
    if not claims:
        return []
    return [
        f"Not settled within this budget: {', '.join(claims)}. Their summaries name what is missing (more batches, "
        "more products, a tolerance)."
    ]
