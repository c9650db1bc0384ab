"""When a wiring check compares fewer steps, and that it stops doing so where something is not as before."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from equilibrist.diagnosis import check_wiring
from equilibrist.diagnosis._routine import EVERY, FIRST, WHOLE, Routine


def noted(routine: Routine, player: str, times: int = 1, **how: Any) -> None:
    """`times` steps of a player are explained."""
    given = {"residual": 0.0, "plain": 0.0, "calls": 2, "asked": 0, "linked": False, **how}
    calls = [
        SimpleNamespace(linked=given["linked"] and k == 1, asked=k < given["asked"])
        for k in range(given["calls"])
    ]
    step: Any = SimpleNamespace(player=player, calls=calls)
    found: Any = SimpleNamespace(residual=given["residual"], plain=given["plain"], used={0, 1})
    for _ in range(times):
        routine.note(step, found)


def steady(**critic: Any) -> Routine:
    routine = Routine()
    noted(routine, "critic", FIRST, **critic)
    noted(routine, "generator", FIRST, linked=True)
    return routine


def test_only_steps_of_both_players_that_were_alike_make_a_routine() -> None:
    routine = Routine()
    noted(routine, "critic", FIRST)
    noted(routine, "generator", FIRST - 1, linked=True)
    assert not routine.steady
    noted(routine, "generator", linked=True)
    assert routine.steady
    assert routine.apart
    assert not steady(linked=True).apart  # the critic's own loss goes through the generator


@pytest.mark.parametrize(
    "how",
    [
        {"residual": 0.3, "plain": 0.3},  # not explained
        {"plain": 0.3},  # by another player's loss only
        {"asked": 1},  # with a penalty that is not always paid
        {"calls": 3},
    ],
)
def test_one_other_step_ends_it(how: Any) -> None:
    routine = steady()
    noted(routine, "critic", **how)
    assert not routine.steady
    noted(routine, "critic", 5)
    assert not routine.steady


def test_rounds_that_rest() -> None:
    routine = steady()
    rested = []
    for i in range(1, 13):
        routine.rounds = i
        rested.append(routine.resting)
    assert rested == [i > WHOLE and i % EVERY != 0 for i in range(1, 13)]
    assert not any(rested[:WHOLE])
    assert 4 <= rested.count(False) <= 8


@pytest.mark.parametrize("begins", [None, 7])
def test_a_fault_that_begins_later_is_seen_all_the_same(begins: int | None) -> None:
    """From round 7 on the critic's gradients are not cleared of the generator's."""
    torch.manual_seed(0)
    g, d = (
        nn.Sequential(nn.Linear(a, 16), nn.Tanh(), nn.Linear(16, b)) for a, b in ((4, 2), (2, 1))
    )
    opt_g, opt_d = (torch.optim.Adam(m.parameters(), 1e-3) for m in (g, d))

    def step(i: int) -> None:
        x, fake = torch.randn(64, 2), g(torch.randn(64, 4))
        if begins is None or i < begins:
            opt_d.zero_grad()
        (softplus(-d(x)).mean() + softplus(d(fake.detach())).mean()).backward()
        opt_d.step()
        if begins is not None and i >= begins:
            opt_d.zero_grad()
        opt_g.zero_grad()
        softplus(-d(fake)).mean().backward()
        opt_g.step()

    check = check_wiring({"generator": g, "critic": d}, "vanilla", rounds=20)
    check.run(step)
    compared = sum(s.problem is not None and bool(s.problem.names) for s in check._recorder.steps)
    assert (compared < 30) == (begins is None)
    named = [f.name for f in check.findings if f.level != "note"]
    assert named == ([] if begins is None else ["gradient-leak"])
