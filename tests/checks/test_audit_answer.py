"""A move after an answer found on samples: what the answer fits of their noise is not the leader's gain."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_audit_calibration import C

from equilibrist.checks import Settings
from equilibrist.checks import _minimax as minimax
from equilibrist.checks._answer import Answered
from equilibrist.checks._decide import Interval, Reason
from equilibrist.checks.certificate import Tolerance, Verdict
from equilibrist.checks.context import AuditContext

SURE = Interval(3.0, 2.0, 4.0)


def planted(k: float, i: int) -> tuple[Any, float]:
    """The local minimax certificate of a sampled quadratic game whose leader gains k tolerances, and that gain."""
    rng = C.address(0, "local-minimax", k, i)
    made = C.leading(rng, holds=False)
    gain = -made.schur() * C.reach(len(made.alpha)) ** 2 / 2
    settings = Settings(batch=C.batch_of(rng), absolute=gain / k)
    bench = AuditContext(*C.begun(made.game()), made.law, settings, i)
    found = {c.claim: c for c in C.certificates("local", bench)}
    return found["local-minimax"], gain


@pytest.mark.parametrize(
    ("answered", "verdict", "reason"),
    [
        (Answered(SURE, 1.5, 0.0, 0.01, None), Verdict.REFUTED, Reason.ABOVE),
        (Answered(SURE, 1.0, 0.0, 0.01, None), Verdict.UNASSESSED, Reason.FITTED),
        (Answered(SURE, -50.0, 0.0, 0.01, None), Verdict.UNASSESSED, Reason.FITTED),
        (Answered(SURE, 1.5, 0.2, 0.01, None), Verdict.UNASSESSED, Reason.UNFINISHED),
        (Answered(SURE, math.nan, 0.0, 0.01, None), Verdict.UNASSESSED, Reason.NOT_FINITE),
        (
            Answered(Interval(1.5, 1.0, 2.0), 9.0, 0.0, 0.01, None),
            Verdict.UNASSESSED,
            Reason.STRADDLES,
        ),
        (
            Answered(Interval(0.5, 0.1, 0.9), 9.0, 0.0, 0.01, None),
            Verdict.NOT_REFUTED,
            Reason.BELOW,
        ),
    ],
)
def test_decisions(answered: Answered, verdict: Verdict, reason: Reason) -> None:
    """A gain counts where both samples have it, and an answer that had ended."""
    decision = answered.decision(1.0)
    assert (decision.verdict, decision.reason) == (verdict, reason)


def test_no_sentence_says_what_its_numbers_do_not() -> None:
    """Over random gains: of every printed sentence, what it says of interval, noise and samples holds."""
    rng = np.random.default_rng(0)
    made = C.weighted(rng, 1, 1, -0.5, 0.3, 1.0)
    bench: Any = AuditContext(*C.begun(made.game()), made.law, Settings(batch=16), 0)
    schur: Any = SimpleNamespace(
        limits=(), u=object(), value=-1.0, converged=True, verified=False, singular=False
    )
    first: Any = SimpleNamespace(gain=SURE)
    tolerance, seen = Tolerance(1.0, "value units", "given"), set()
    for _ in range(3000):
        mean, width = 2 * rng.standard_normal(), rng.exponential(0.7)
        gain = Interval(mean, mean - width, mean + width)
        found, rise = 2 * rng.standard_normal(), 0.3 * rng.exponential() * rng.integers(2)
        answered = Answered(gain, found, rise, 0.01, None)
        reason = answered.decision(1.0).reason
        seen.add(reason)
        for said in (
            minimax._judged(bench, schur, SURE, answered, tolerance),
            minimax._led_first(bench, first, answered, tolerance),
        ):
            words = said.summary
            assert (
                f"({gain.low:.3g} to {gain.high:.3g}; tolerance 1)" in words
                or "not at rest" in words
            )
            assert ("the interval holds it" in words) <= (gain.low <= 1.0 <= gain.high), words
            assert ("the noise is above" in words) <= (gain.half_width > 1.0), words
            assert ("still gaining" in words) <= (rise > 0), words
            shown = re.search(r"answer was found .* tolerance: (-?[\d.e+-]*\d)", words)
            assert (shown is not None) == (reason is Reason.FITTED), words
            if shown is not None:
                assert float(shown[1]) == pytest.approx(found, rel=0.01)
                assert found <= 1.0
            if said.verdict is Verdict.REFUTED:
                assert min(gain.low, found) > 1.0, words
    assert seen == {
        Reason.ABOVE,
        Reason.NOISE,
        Reason.STRADDLES,
        Reason.FITTED,
        Reason.UNFINISHED,
        Reason.BELOW,
    }


def test_noise_that_the_answer_fits_is_not_credited_to_the_move() -> None:
    """Gradient noise worth hundreds of tolerances: the measured gain is that of the Schur complement all the same."""
    found, gain = planted(3.0, 1)
    answered = found.evidence["answered"]
    assert answered["follower_alone"] > 100 * gain
    assert answered["gain_interval"][0] < gain < answered["gain_interval"][1]
    assert answered["gain_where_answered"] == pytest.approx(gain, rel=0.5)
    assert found.verdict is Verdict.REFUTED


def test_planted_gains_are_covered_and_refuted() -> None:
    """Twice the tolerance is refuted, and the intervals hold the truth."""
    covered = refuted = 0
    for i in range(6):
        found, gain = planted(2.0, i)
        refuted += found.verdict is Verdict.REFUTED
        low, high = found.evidence["answered"]["gain_interval"]
        covered += low < gain < high
    assert refuted >= 5
    assert covered >= 5
