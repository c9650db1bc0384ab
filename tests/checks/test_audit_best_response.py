"""Nash by exact best responses: the analytic games' verdicts, both ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equilibrist import tree
from equilibrist.checks import Audit, Verdict, audit_game
from equilibrist.games import GaussianW2GAN, GaussianWGAN, Quadratic, bilinear, false_attractor

F64 = torch.float64


def audited(game: Any, players: Any) -> Audit:
    return audit_game(game, players, checks=["nash"], progress="none")


@pytest.mark.parametrize("d", [1, 3])
@pytest.mark.parametrize("eta", [0.5, 2.0])
@pytest.mark.parametrize("s", [0.4, 0.9, 1.1, 3.0])
def test_the_w2gan_is_nash_below_one_and_refuted_above_with_the_known_gain(
    s: float, eta: float, d: int
) -> None:
    game = GaussianW2GAN(s, d, eta, t=0.7)
    found = audited(game, game.points()[0].players)
    if s < 1:
        assert found["nash"].verdict is Verdict.VERIFIED
    else:
        assert found["nash"].verdict is Verdict.REFUTED
        assert found["nash/critic"].verdict is Verdict.VERIFIED
        shift = found["nash/generator"]
        assert shift.evidence["gain"] == pytest.approx(eta * (s - 1) * 0.7**2, rel=1e-9)
        assert float(shift.witness["generator"]["u"].norm()) == pytest.approx(0.7, rel=1e-12)


@pytest.mark.parametrize(("s", "verdict"), [(0.5, Verdict.VERIFIED), (2.0, Verdict.REFUTED)])
def test_the_one_dimensional_wgan(s: float, verdict: Verdict) -> None:
    game = GaussianWGAN(s, t=1.0)
    found = audited(game, game.points()[0].players)
    assert found["nash"].verdict is verdict
    if s > 1:
        gain = float(game.shift_gain(torch.tensor(1.0, dtype=F64)))
        assert found["nash/generator"].evidence["gain"] == pytest.approx(gain, rel=1e-9)


def test_the_responses_are_the_least_over_random_feasible_choices() -> None:
    generator = torch.Generator().manual_seed(0)

    def shaken(players: Any, size: float) -> Any:
        return tree.map(
            lambda t: t + size * torch.randn(t.shape, generator=generator, dtype=F64), players
        )

    for game in (
        GaussianW2GAN(2.0, 2),
        GaussianW2GAN(0.5, 2),
        GaussianWGAN(2.0),
        GaussianWGAN(0.5),
    ):
        for _ in range(20):
            here = game.project(shaken(game.points()[0].players, 0.05))
            for player in game.players:
                answer = game.best_response(player, here)
                if answer is None or not answer.best:
                    continue
                best = float(game.losses({**here, player: answer.params}, {}, {})[player])
                assert best <= float(game.losses(here, {}, {})[player]) + 1e-12
                for size in (1e-3, 0.1, 1.0):
                    other = game.project(
                        {**here, player: shaken({player: answer.params}, size)[player]}
                    )
                    assert best <= float(game.losses(other, {}, {})[player]) + 1e-12


def test_quadratic_games() -> None:
    unit = torch.ones(1, 1, dtype=F64)
    assert audited(bilinear(2), bilinear(2).points()[0].players)["nash"].verdict is Verdict.VERIFIED
    attractor = false_attractor()
    found = audited(attractor, attractor.points()[0].players)
    assert found["nash/x"].verdict is Verdict.VERIFIED
    assert found["nash/y"].verdict is Verdict.REFUTED
    assert "without bound" in found["nash/y"].summary
    # x^2 + y - y^2 / 2 ... away from its saddle: y gains exactly 1/2.
    game = Quadratic(2 * unit, 0 * unit, unit, c=-torch.ones(1, dtype=F64))
    players = {"x": {"value": torch.zeros(1, dtype=F64)}, "y": {"value": torch.zeros(1, dtype=F64)}}
    found = audited(game, players)
    assert found["nash/x"].verdict is Verdict.VERIFIED
    assert found["nash/y"].evidence["gain"] == pytest.approx(0.5, abs=1e-12)


def test_a_pair_outside_its_feasible_set_is_not_judged() -> None:
    game = GaussianW2GAN(2.0, 2)
    players = game.points()[0].players
    outside = {
        **players,
        "generator": {**players["generator"], "u": torch.full((2,), 5.0, dtype=F64)},
    }
    found = audited(game, outside)
    assert found["nash/generator"].verdict is Verdict.UNASSESSED
    assert "outside" in found["nash/generator"].summary
