"""The steps that enclose lambda*, on scripted searches: which lambdas are tried, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from equilibrist.checks._decide import Interval
from equilibrist.checks.certificate import Verdict
from equilibrist.checks.context import Meter, SpentError
from equilibrist.checks.proximal import _bracket
from equilibrist.checks.proximal._bracket import Bracket, bracket_within

REFUTED, NOT_REFUTED, UNASSESSED = Verdict.REFUTED, Verdict.NOT_REFUTED, Verdict.UNASSESSED
BENCH: Any = SimpleNamespace(
    settings=SimpleNamespace(prox_lambdas=(0.1, 1.0, 10.0), prox_trials=6, prox_width=0.03)
)
PROX: Any = SimpleNamespace(trained={"generator": {}, "critic": {}})


def tried(lam: float, verdict: Verdict, deviation: Any = None, failed: str = "") -> Any:
    return SimpleNamespace(
        lam=lam,
        verdict=verdict,
        deviation=deviation,
        failed=failed,
        gain=Interval(0.0, -1.0, 1.0),
    )


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[float]]:
    """Sets what searches answer, by lambda, and at which lambda their deviations begin to gain; returns the lambdas
    that are searched."""

    def given(answer: Callable[[float], Any], starts: Callable[[Any, float], float | None]) -> Any:
        seen: list[float] = []

        def trial(context: Any, prox: Any, lam: float, *rest: Any) -> Any:
            seen.append(lam)
            return answer(lam)

        monkeypatch.setattr(_bracket, "trial", trial)
        monkeypatch.setattr(_bracket, "hints", lambda *_: [])
        monkeypatch.setattr(
            _bracket, "begins", lambda b, p, deviation, t, top, *_: starts(deviation, top)
        )
        return seen

    return given


def least(found: Bracket) -> tuple[Any, float | None]:
    return _bracket._least(BENCH, PROX, found, 1e-3)


def test_it_goes_on_until_no_deviation_begins_at_a_lesser_lambda(script: Any) -> None:
    begin = {"first": 8.0, "second": 4.0, "third": None}
    after = {8.0: "second", 4.0: "third"}
    seen = script(lambda lam: tried(lam, REFUTED, after[lam]), lambda d, top: begin[d])
    found = Bracket(best=tried(10.0, REFUTED, "first"))
    assert least(found) == ("second", 4.0)
    assert seen == [8.0, 4.0]
    assert len(found.trials) == 2


def test_it_ends_where_a_search_finds_nothing(script: Any) -> None:
    seen = script(lambda lam: tried(lam, NOT_REFUTED), lambda d, top: 8.0)
    assert least(Bracket(best=tried(10.0, REFUTED, "first"))) == ("first", 8.0)
    assert seen == [8.0]


def test_it_ends_where_the_lambda_has_settled_to_the_width(script: Any) -> None:
    begin = {"first": 8.0, "second": 8.0 / 1.02}
    seen = script(lambda lam: tried(lam, REFUTED, "second"), lambda d, top: begin[d])
    assert least(Bracket(best=tried(10.0, REFUTED, "first"))) == ("second", 8.0 / 1.02)
    assert seen == [8.0]


def test_it_ends_at_the_least_lambda_and_after_so_many_trials(script: Any) -> None:
    halve = lambda d, top: min(top, 12.8) / 2  # noqa: E731
    seen = script(lambda lam: tried(lam, REFUTED, "next"), halve)
    found = Bracket(best=tried(10.0, REFUTED, "first"), trials=[tried(math.inf, REFUTED)] * 4)
    _, lam = least(found)
    assert seen == [5.0, 2.5]  # with the four before: six
    assert lam == 1.25
    seen = script(lambda lam: tried(lam, REFUTED, "next"), lambda d, top: 0.1)
    assert least(Bracket(best=tried(10.0, REFUTED, "first")))[1] == 0.1
    assert seen == []


@pytest.mark.parametrize(
    ("answers", "searched", "low"),
    [
        ({math.inf: (NOT_REFUTED, "")}, [math.inf], math.inf),
        # Noise stays as it is at a smaller lambda, but the limit itself may be what fails.
        ({math.inf: (UNASSESSED, ""), 10.0: (UNASSESSED, "")}, [math.inf, 10.0], 0.0),
        ({math.inf: (UNASSESSED, ""), 10.0: (NOT_REFUTED, "")}, [math.inf, 10.0], 10.0),
        # A search that failed is tried at the next.
        (
            {
                math.inf: (UNASSESSED, ""),
                10.0: (UNASSESSED, "lost"),
                1.0: (UNASSESSED, "lost"),
                0.1: (NOT_REFUTED, ""),
            },
            [math.inf, 10.0, 1.0, 0.1],
            0.1,
        ),
    ],
)
def test_where_it_begins(
    answers: dict[float, tuple[Verdict, str]], searched: list[float], low: float, script: Any
) -> None:
    seen = script(
        lambda lam: tried(lam, answers[lam][0], failed=answers[lam][1]), lambda d, top: None
    )
    found = _bracket.bracket_sampled(BENCH, PROX, 1e-3)
    assert seen == searched
    assert found.low == low
    assert found.best is None
    assert math.isinf(found.high)


def test_gradients_that_are_spent_leave_the_upper_end_that_was_found(script: Any) -> None:
    meter = Meter(lambda gradients: None, 100.0)

    def answer(lam: float) -> Any:
        meter(60.0)
        return tried(lam, UNASSESSED if lam == math.inf else REFUTED, "first")

    script(answer, lambda d, top: 8.0)
    found, cut = bracket_within(BENCH, PROX, 1e-3, meter)
    assert cut
    assert (found.low, found.high) == (0.0, math.inf)  # spent before anything refuted
    assert math.isinf(meter.most)  # what follows may still be paid

    meter = Meter(lambda gradients: None, 150.0)
    script(answer, lambda d, top: 8.0)
    found, cut = bracket_within(BENCH, PROX, 1e-3, meter)
    assert cut
    assert (found.low, found.high) == (0.0, 10.0)
    script(lambda lam: tried(lam, NOT_REFUTED), lambda d, top: None)
    found, cut = bracket_within(BENCH, PROX, 1e-3, Meter(lambda gradients: None))
    assert not cut
    with pytest.raises(SpentError):
        Meter(lambda gradients: None, 1.0)(1.5)


@pytest.mark.parametrize("truth", [0.37, 1.0, 7.7])
def test_bisection_encloses_where_it_begins_to_hold(truth: float) -> None:
    seen: list[tuple[float, bool]] = []

    def holds(lam: float) -> bool:
        seen.append((lam, lam >= truth))
        return lam >= truth

    _bracket._narrowed(holds, 0.1, 100.0, 0.03)
    least = min(lam for lam, held in seen if held)
    most = max(lam for lam, held in seen if not held)
    assert most < truth <= least
    assert least <= most * 1.03
    assert len(seen) <= 10  # log2(log(1000) / log(1.03))


@pytest.mark.parametrize("power", [1.0, 2.0, 0.5])
def test_regula_falsi_ends_above_the_crossing_within_half_the_width(power: float) -> None:
    calls = []

    def gain(lam: float) -> float:
        calls.append(lam)
        return lam**power - 1.0

    found = _bracket._between(gain, (0.01, gain(0.01)), (30.0, gain(30.0)), 0.5, 0.03)
    truth = 1.5 ** (1 / power)
    assert truth <= found <= truth * 1.03
    assert len(calls) <= 22
