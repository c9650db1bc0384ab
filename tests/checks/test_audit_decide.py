"""One place turns numbers into verdicts; it is tested over every combination of its inputs."""

from __future__ import annotations

import itertools
import math

import pytest

from equilibrist.checks._decide import Interval, Reason, decide
from equilibrist.checks.certificate import Verdict

INF, NAN = float("inf"), float("nan")
VALUES = (-INF, -2.0, 0.0, 0.5, 1.0, 1.5, 3.0, INF, NAN)
EVERY = [
    (Interval(mean, low, high), tolerance, exhaustive, finished, noise)
    for mean, low, high in itertools.product(VALUES, repeat=3)
    for tolerance in (0.0, 1.0, NAN)
    for exhaustive in (False, True)
    for finished in (False, True)
    for noise in (None, 0.1, 2.0, NAN)
    if not (low > high or low > mean or mean > high)
]


def test_every_combination_obeys_the_laws_of_verdicts() -> None:
    for found, tolerance, exhaustive, finished, noise in EVERY:
        decision = decide(found, tolerance, exhaustive=exhaustive, finished=finished, noise=noise)
        verdict, case = decision.verdict, (found, tolerance, exhaustive, finished, noise)
        width = found.half_width if noise is None else noise
        finite = math.isfinite(found.mean) and not any(
            math.isnan(x) for x in (found.low, found.high, width, tolerance)
        )
        if not finite:
            assert verdict is Verdict.UNASSESSED, case
            continue
        assert (verdict is Verdict.REFUTED) == (found.low > tolerance), case
        if verdict is Verdict.VERIFIED:
            assert exhaustive, case
            assert found.high <= tolerance, case
        if verdict is Verdict.NOT_REFUTED:
            assert finished, case
            assert found.mean <= tolerance, case
        if verdict in (Verdict.VERIFIED, Verdict.NOT_REFUTED):
            assert width <= tolerance, case


@pytest.mark.parametrize(
    ("found", "options", "verdict", "reason"),
    [
        (Interval(2.0, 1.1, 2.9), {}, Verdict.REFUTED, Reason.ABOVE),
        (Interval(2.0, 1.0, 3.0), {}, Verdict.UNASSESSED, Reason.STRADDLES),
        (Interval(0.5, -0.6, 1.6), {}, Verdict.UNASSESSED, Reason.NOISE),
        (Interval(0.5, 0.0, 1.0), {}, Verdict.NOT_REFUTED, Reason.BELOW),
        (Interval(0.5, 0.0, 1.0), {"exhaustive": True}, Verdict.VERIFIED, Reason.BOUNDED),
        (Interval(0.5, 0.0, 1.2), {"exhaustive": True}, Verdict.NOT_REFUTED, Reason.BELOW),
        (Interval(0.5, 0.0, 1.0), {"finished": False}, Verdict.UNASSESSED, Reason.UNFINISHED),
        (Interval(2.0, 1.1, 2.9), {"finished": False}, Verdict.REFUTED, Reason.ABOVE),
        (Interval(0.5, 0.4, 0.6), {"noise": 1.1}, Verdict.UNASSESSED, Reason.NOISE),
        (Interval(0.0, -INF, INF), {}, Verdict.UNASSESSED, Reason.NOISE),
        (Interval(NAN, 2.0, 3.0), {}, Verdict.UNASSESSED, Reason.NOT_FINITE),
        (Interval(INF, 2.0, INF), {}, Verdict.UNASSESSED, Reason.NOT_FINITE),
    ],
)
def test_each_reason_has_its_case(
    found: Interval, options: dict, verdict: Verdict, reason: Reason
) -> None:
    decision = decide(found, 1.0, **options)
    assert (decision.verdict, decision.reason) == (verdict, reason)


def test_a_missing_tolerance_is_named() -> None:
    assert decide(Interval(0.0, 0.0, 0.0), NAN).reason is Reason.NO_TOLERANCE
