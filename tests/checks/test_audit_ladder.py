"""The ladder's words, and what is said of the measurements: what each verdict changes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from equilibrist.certificates import RUNGS
from equilibrist.checks._findings import pair_findings
from equilibrist.checks._ladder import ladder, place
from equilibrist.checks._measured import remarks_on
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict

V, R, N, U = Verdict.VERIFIED, Verdict.REFUTED, Verdict.NOT_REFUTED, Verdict.UNASSESSED
NATS = Tolerance(0.02, "nats", "set")


def made(claim: str, verdict: Verdict, player: str | None = None, **evidence: Any) -> Certificate:
    return Certificate(claim, verdict, f"{claim} said.", evidence, NATS, player=player)


def test_every_rung_is_there_lowest_first_and_knows_what_was_not_asked() -> None:
    found = ladder([made("nash", R), made("stationary", V)])
    assert [rung.claim for rung in found] == [rung.claim for rung in RUNGS]
    assert found[0].verdict is V
    assert found[-1].verdict is R
    assert found[1].verdict is None


@pytest.mark.parametrize(
    ("certificates", "has", "has_not"),
    [
        ([made("nash", V)], "A Nash equilibrium.", "not at rest"),
        ([made("nash", N)], "as far as the searches reach", "Not a Nash"),
        ([made("stationary", R)], "not at rest", "Nash"),
        ([made("nash", R), made("local-nash", N)], "no small move", "local Nash equilibrium"),
        ([made("nash", R), made("local-nash", V)], "a local Nash equilibrium", "small move"),
        (
            [made("local-nash", R), made("proximal", N, lambda_star=[1.0, 1.001], infinite=False)],
            "up to lambda* = 1",
            "Stackelberg at best",
        ),
        ([made("local-nash", R), made("proximal", R)], "Stackelberg at best", "up to lambda*"),
        (
            [made("local-nash", R), made("local-minimax", V)],
            "where the critic answers",
            "not minimax",
        ),
        ([made("local-minimax", R)], "not minimax", "answers at once"),
        (
            [made("local-nash/critic", R), made("local-minimax", R), made("proximal", R)],
            "the critic does not answer best",
            "Stackelberg at best",
        ),
        ([made("stable", R)], "gradient flow leaves it", "comes back"),
        ([made("stable", V)], "comes back", "leaves"),
        ([made("stable", N, q=math.inf)], "circles it", "comes back"),
        ([made("stable", U, q=math.inf)], "imultaneous steps of any size leave it", "circles"),
        ([made("self-tests", U), made("nash", V)], "No verdict can be had", "A Nash equilibrium"),
        ([], "No check was asked for", "Nash"),
    ],
)
def test_the_place(certificates: list[Certificate], has: str, has_not: str) -> None:
    said = place(certificates)
    assert has in said
    assert has_not not in said


@pytest.mark.parametrize(
    ("certificates", "has"),
    [
        ([made("self-tests", U)], "Correct what the self-tests name"),
        ([made("stable", R, q=50.0)], "Gradient flow leaves"),
        (
            [made("nash/critic", R, "critic", gain=0.3)],
            "The critic gains 0.3 nats, 15 times the tolerance, by moving alone",
        ),
        (
            [
                made("nash/generator", R, "generator", gain=0.3),
                made("proximal", N, lambda_star=[2.0, 2.0], infinite=False),
            ],
            "up to lambda* = 2",
        ),
        (
            [
                made("nash/generator", R, "generator", gain=0.3),
                made("proximal", N, lambda_star=[float("inf"), float("inf")], infinite=True),
            ],
            "by large moves",
        ),
        (
            [made("stationary/critic", R, "critic", signal_to_noise=3.0)],
            "The critic is not at rest.",
        ),
        (
            [made("stationary/critic", R, "critic", signal_to_noise=0.1)],
            "average of the iterates",
        ),
        ([made("local-minimax", R)], "not even a local minimax point"),
        (
            [made("local-minimax", R), made("local-nash/critic", R)],
            "does not answer best even nearby",
        ),
        ([made("stable", U)], "Not settled within this budget: stable"),
    ],
)
def test_what_was_measured(certificates: list[Certificate], has: str) -> None:
    assert any(has in line for line in remarks_on(certificates))


def test_nothing_is_said_where_nothing_speaks_for_a_change() -> None:
    fine = [
        made("stationary", V),
        made("stable", V, q=0.5, steps={"h": 0.1, "h_max": 1.0}),
        made("nash", V),
    ]
    for none in (fine, [], [made("stable", N, steps=None, q=None)]):
        assert remarks_on(none) == ()
        assert pair_findings(none) == ()


def test_measurements_are_ordered_by_the_size_of_the_effect() -> None:
    lines = remarks_on(
        [
            made("nash/generator", R, "generator", gain=0.1),
            made("nash/critic", R, "critic", gain=7.0),
            made("stationary/generator", R, "generator", measured={"gain": 0.05}),
        ]
    )
    assert [line.split()[1] for line in lines] == ["critic", "generator", "generator"]


def test_only_a_pair_that_nothing_places_is_said_not_to_be_placed() -> None:
    assert "do not place the pair" in place([made("stationary", U)])
    assert "do not place the pair" not in place([made("nash", N)])


def test_a_nash_claim_states_its_tolerance_and_what_was_found_below_it() -> None:
    near = [
        made("nash/generator", N, "generator", gain=0.015),
        made("nash/critic", N, "critic", gain=0.0),
        made("nash", N),
    ]
    said = place(near)
    assert (
        "more than the tolerance (0.02 nats) by deviating alone, though the generator gains 0.015"
        in said
    )
    assert "though" not in place([near[1], near[2]])
    left = place([*near, made("local-nash", N), made("stable", R)])
    assert "gradient flow leaves it, though small moves gain less than the tolerance" in left


def test_a_pair_that_the_flow_leaves_is_not_told_to_damp_its_rotation() -> None:
    """Consensus would hold the players where their own losses leave."""
    found = [made("stable", R, q=math.inf, rotation="total")]
    assert "gradient flow leaves it" in place(found)
    (line,) = remarks_on(found)
    assert line.startswith("Gradient flow leaves")
    assert pair_findings(found) == ()


def test_nothing_is_prescribed_from_one_verdict() -> None:
    """A critic that gains may need more steps, smaller steps, or any step at all."""
    certificates = [made("nash/critic", R, "critic", gain=7.2, interval=[7.0, 7.4])]
    (line,) = remarks_on(certificates)
    assert line.endswith("by moving alone: it does not answer best.")
    assert pair_findings(certificates) == ()


def test_the_place_names_the_largest_move_that_was_measured() -> None:
    parts = [
        made("stationary/generator", R, "generator", measured={"gain": 0.125}),
        made("stationary/critic", R, "critic", measured={"gain": 0.5}),
        made("stationary", R),
    ]
    assert "a small move of the critic alone gains 0.5 nats" in place(parts)
    unmeasured = [made("stationary/critic", R, "critic"), made("stationary", R)]
    assert "small move" not in place(unmeasured)
