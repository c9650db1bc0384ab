"""The epsilon-Nash check of mixed profiles: verified, refuted, not refuted."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch

from equilibrist.checks import Verdict, audit_game, audit_mixed
from equilibrist.errors import GameError
from equilibrist.games import GaussianW2GAN
from equilibrist.mixed.domains import Box
from equilibrist.mixed.matrix import MatrixGame
from equilibrist.mixed.measures import Particles
from equilibrist.mixed.payoff import NashGap, PayoffGame
from equilibrist.mixed.w2gan import MixedW2Gaussian

F64 = torch.float64


def tens(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=F64)


def test_matrix_games() -> None:
    pennies = MatrixGame.matching_pennies()
    half = tens(0.5, 0.5)
    assert audit_mixed(pennies, half, half)["epsilon-nash"].verdict is Verdict.VERIFIED
    # At (0.6, 0.4) against (1/2, 1/2) x gains nothing, and y, who answers, gains 0.2.
    found = audit_mixed(pennies, tens(0.6, 0.4), half, epsilon=0.1)
    assert found["epsilon-nash/x"].verdict is Verdict.VERIFIED
    assert found["epsilon-nash/y"].verdict is Verdict.REFUTED
    assert found["epsilon-nash/y"].evidence["gain"] == pytest.approx(0.2, abs=1e-12)
    assert found["epsilon-nash"].verdict is Verdict.REFUTED
    assert found["epsilon-nash"].evidence["epsilon"] == pytest.approx(0.2, abs=1e-12)
    at_most = audit_mixed(pennies, tens(0.6, 0.4), half, epsilon=0.21)["epsilon-nash"]
    assert at_most.verdict is Verdict.VERIFIED
    solved = MatrixGame.random(30, 20, seed=3)
    best = solved.solve()
    assert audit_mixed(solved, best.x, best.y, 1e-8)["epsilon-nash"].verdict is Verdict.VERIFIED


@pytest.mark.parametrize(
    ("d", "s", "eta", "t"), [(1, 2.0, 0.5, 1.0), (2, 1.5, 1.0, 0.5), (5, 3.0, 0.3, 2.0)]
)
def test_gaussian_w2gan_has_no_pure_equilibrium_and_this_mixed_one(
    d: int, s: float, eta: float, t: float
) -> None:
    """Nash is refuted for the distance-minimising pair, by two roads, and epsilon-Nash verified for the mixture."""
    mixed = MixedW2Gaussian(d, s, eta, t)
    nu, mu = mixed.pure()
    refuted = audit_mixed(mixed, nu, mu, epsilon=1e-6)
    assert refuted["epsilon-nash"].verdict is Verdict.REFUTED
    assert refuted["epsilon-nash/x"].evidence["gain"] == pytest.approx(eta * (s - 1) * t**2)
    game = GaussianW2GAN(s, d, eta, t)
    point = game.points()[0]
    pure = audit_game(game, point.players, checks=("nash",))["nash"]
    assert pure.verdict is Verdict.REFUTED
    for nodes in (None, 24):
        verified = audit_mixed(mixed, *mixed.equilibrium(nodes), epsilon=1e-9)
        assert verified["epsilon-nash"].verdict is Verdict.VERIFIED
        assert verified["epsilon-nash"].evidence["value"] == pytest.approx(mixed.optimal_value)


def test_a_search_refutes_and_never_verifies() -> None:
    square = PayoffGame(lambda x, y: (x - y).square().sum(-1), Box([0.0], [1.0]), Box([0.0], [1.0]))
    middle = Particles(tens(0.5)[:, None], tens(0.0))
    ends = Particles(tens(0.0, 1.0)[:, None], tens(math.log(0.5), math.log(0.5)))
    assert audit_mixed(square, middle, ends)["epsilon-nash"].verdict is Verdict.NOT_REFUTED
    aside = Particles(tens(0.25)[:, None], tens(0.0))
    found = audit_mixed(square, aside, ends, 1e-3)
    assert found["epsilon-nash"].verdict is Verdict.REFUTED
    assert found["epsilon-nash/x"].evidence["gain"] == pytest.approx(0.0625, abs=1e-9)


class Claimed:
    def __init__(self, gap: NashGap) -> None:
        self.found = gap

    def gap(self, nu: Any, mu: Any) -> NashGap:
        return self.found


@pytest.mark.parametrize(
    ("gap", "verdict"),
    [
        (NashGap(1.0, math.nan, 0.0, True, True), Verdict.UNASSESSED),
        (NashGap(1.0, -0.5, 0.0, True, True), Verdict.UNASSESSED),  # a best response that is worse
        (NashGap(1.0, -1e-15, 0.0, True, True), Verdict.VERIFIED),
        (NashGap(1.0, 0.0, 0.0, True, False), Verdict.NOT_REFUTED),
        (NashGap(1.0, 0.0, 2e-6, True, False), Verdict.REFUTED),
    ],
)
def test_verdicts(gap: NashGap, verdict: Verdict) -> None:
    found = audit_mixed(Claimed(gap), None, None)
    assert found["epsilon-nash"].verdict is verdict
    assert "\n" not in found["epsilon-nash"].summary
    assert found.to_json()["certificates"][-1]["claim"] == "epsilon-nash"
    # What a player does not gain is not written as a negative gain.
    for part in found:
        gains = re.findall(
            r"gains (?:\w+ more than )?(-?[\d.]+(?:e[-+]?\d+)?)", found[part].summary
        )
        assert all(float(gain) >= 0 for gain in gains), found[part].summary


@pytest.mark.parametrize("epsilon", [0, -1.0, math.inf, math.nan, True, "1"])
def test_epsilon_must_be_positive(epsilon: Any) -> None:
    with pytest.raises(GameError, match="epsilon"):
        audit_mixed(MatrixGame.matching_pennies(), tens(0.5, 0.5), tens(0.5, 0.5), epsilon)


def test_one_profile_at_a_time() -> None:
    half = tens(0.5, 0.5)
    with pytest.raises(GameError, match="one profile at a time"):
        audit_mixed(MatrixGame.matching_pennies(), half[None], half)
    for stack in (half[None], torch.tensor(0.5, dtype=F64)):
        for profile in ((stack, half), (half, stack)):
            with pytest.raises(GameError, match="one profile at a time"):
                audit_mixed(MatrixGame.matching_pennies(), *profile)
