"""Means, intervals and paired differences against SciPy; which figures count where."""

import math

import numpy as np
import pytest
import scipy.stats

from equilibrist import statistics
from equilibrist.compare._collect import MemberFigures, comparison_facts


def estimate(values, confidence):
    return statistics.estimate(values, confidence).to_json()


def paired(values, base, confidence):
    return statistics.paired(values, base, confidence).to_json()


VALUES = [1.0, 2.5, -0.5, 4.0, 3.25]
OTHER = [0.5, 2.0, 1.0, 2.0, 5.0]


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_interval_is_students(confidence):
    found = estimate(VALUES, confidence)
    truth = scipy.stats.t.interval(confidence, 4, np.mean(VALUES), scipy.stats.sem(VALUES))
    assert found["mean"] == pytest.approx(np.mean(VALUES))
    assert found["interval"] == pytest.approx(list(truth), rel=1e-12)
    assert found["n"] == 5


def test_what_is_missing_is_left_out():
    assert estimate([1.0, None, math.nan, 3.0], 0.95) == estimate([1.0, 3.0], 0.95)
    assert estimate([2.0], 0.95) == {"mean": 2.0, "interval": None, "n": 1}
    assert estimate([None], 0.95) == {"mean": None, "interval": None, "n": 0}


def test_paired_differences():
    a, b = dict(enumerate(VALUES)), dict(enumerate(OTHER))
    found = paired(a, b, 0.95)
    truth = scipy.stats.ttest_rel(VALUES, OTHER).confidence_interval(0.95)
    assert found["interval"] == pytest.approx([truth.low, truth.high], rel=1e-12)
    assert found["mean"] == pytest.approx(np.mean(VALUES) - np.mean(OTHER))
    # Only seeds that both have; the order of the seeds says nothing.
    a, b = {0: 1.0, 1: 2.0, 2: None, 4: 9.0}, {2: 5.0, 1: 1.5, 0: 1.0, 3: 0.0}
    assert paired(a, b, 0.95) == estimate([0.0, 0.5], 0.95)


def test_paired_is_sharper_than_unpaired():
    """What seeds share cancels: a constant shift has no spread."""
    found = paired({s: v + 1 for s, v in enumerate(VALUES)}, dict(enumerate(VALUES)), 0.95)
    assert found["interval"] == pytest.approx([1.0, 1.0])


def member(values, per_step, diverged=None, rows=(10, 20, 30, 40)):
    """Scores every 20 steps from 0; a clock of so many seconds a step."""
    figures = {"s / f": dict(zip((0, 20, 40), values, strict=False))}
    figures["loss / critic"] = {step: float(step) for step in rows}
    return MemberFigures(figures, [(s, s * per_step) for s in rows], diverged, 2)


ABOUT = {
    "loss / critic": {"kind": "loss"},
    "s / f": {"kind": "score"},
}


def test_equal_iterations_and_equal_compute():
    """Solver b is half as fast: at the seconds that a takes for 40 steps, b is at 20."""
    members = {
        "a": {0: member([0.0, 1.0, 2.0], 0.1), 1: member([0.0, 2.0, 4.0], 0.1)},
        "b": {0: member([0.0, 5.0, 6.0], 0.2), 1: member([0.0, 7.0, 8.0], 0.2)},
    }
    limit, figures = comparison_facts(members, ABOUT, 40, 0.95)
    assert limit == pytest.approx(4.0)
    score, loss = figures
    assert (score["key"], loss["key"]) == ("s / f", "loss / critic")
    here, there = score["iterations"], score["compute"]
    assert (here["a"]["mean"], here["b"]["mean"]) == (3.0, 7.0)
    assert here["b"]["difference"] == estimate([4.0, 4.0], 0.95)
    assert here["a"]["difference"] is None
    assert (there["a"]["mean"], there["b"]["mean"]) == (3.0, 6.0)
    assert (there["a"]["steps"], there["b"]["steps"]) == ([40, 40], [20, 20])
    assert there["b"]["difference"]["mean"] == 3.0
    assert loss["compute"]["b"]["mean"] == 20.0
    curve = score["curves"]["b"]
    assert curve["steps"] == [0, 20, 40]
    assert curve["seconds"] == pytest.approx([0.0, 4.0, 8.0])
    assert curve["mean"] == [0.0, 6.0, 7.0]


def test_a_score_between_rows_is_as_late_as_the_next_row():
    one = member([0.0, 1.0, 2.0], 1.0, rows=(15, 25, 40))
    assert one.seconds(0) == 0
    assert one.seconds(20) == 25
    assert one.seconds(41) == math.inf


def test_diverged_members_are_in_no_mean():
    members = {
        "a": {0: member([0.0, 1.0, 2.0], 0.1), 1: member([0.0, 100.0], 0.1, 25, (10, 20))},
        "b": {0: member([0.0, 5.0], 0.001, 21, (10, 20)), 1: member([0.0, 7.0], 0.2, 21, (10, 20))},
    }
    limit, figures = comparison_facts(members, ABOUT, 40, 0.95)
    # Nor do they set the clock, however early they broke down.
    assert limit == pytest.approx(4.0)
    score = figures[0]
    assert score["iterations"]["a"] | {"values": 0} == {
        "mean": 2.0, "interval": None, "n": 1, "steps": [40, 40], "difference": None, "values": 0
    }  # fmt: skip
    assert score["iterations"]["a"]["values"] == {"0": 2.0, "1": None}
    assert score["iterations"]["b"]["n"] == 0
    assert score["compute"]["b"]["difference"]["n"] == 0
    # Curves show them up to where they broke down.
    assert score["curves"]["a"]["n"] == [2, 2, 1]


def test_all_diverged():
    members = {"a": {0: member([0.0], 0.1, 5, ())}}
    limit, figures = comparison_facts(members, ABOUT, 40, 0.95)
    assert limit is None
    assert figures[0]["compute"]["a"]["n"] == 0
