"""`Wrapped`: what a game made of another has of it, and what not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from equilibrist import GAN, WGAN, VectorField, WeightClipping
from equilibrist.checks.context import ValueGame
from equilibrist.core.exact import Exact
from equilibrist.core.game import Game, Wrapped, coupled_parameters
from equilibrist.games import Dirac, bilinear


class Halved(Wrapped):
    """Half of every loss."""

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        found = super().losses(players, constants, draw, only)
        return {player: loss / 2 for player, loss in found.items()}


def clipped() -> GAN:
    torch.manual_seed(0)
    critic = torch.nn.Linear(2, 1)
    return GAN(torch.nn.Linear(2, 2), critic, WGAN(), latent=2, projections=[WeightClipping(0.1)])


def test_a_wrapper_plays_the_wrapped_game_but_for_what_it_gives() -> None:
    game = Dirac("wgan", gamma=0.5)
    halved = Halved(game)
    assert isinstance(halved, Game)
    assert (halved.players, halved.zero_sum, halved.separable) == (
        game.players,
        game.zero_sum,
        game.separable,
    )
    here = game.points()[0].players
    moved = {p: {k: t + 0.3 for k, t in part.items()} for p, part in here.items()}
    whole, half = VectorField(game)(moved, {}, {}), VectorField(halved)(moved, {}, {})
    for player, loss in whole.losses.items():
        assert loss == 2 * half.losses[player] != 0


def test_claims_are_those_that_the_wrapped_game_makes_now() -> None:
    game = Dirac("wgan")
    halved = Halved(game)
    assert halved.zero_sum
    game.zero_sum = False
    assert not halved.zero_sum
    batch = clipped()
    batch.separable, batch.why_not_separable = False, "batch norm"
    assert (Halved(batch).separable, Halved(batch).why_not_separable) == (False, "batch norm")
    assert Halved(game).why_not_separable == ""


@pytest.mark.parametrize("made", [Halved, Exact, ValueGame])
def test_a_wrapper_claims_no_truth_and_no_form_of_the_wrapped_game(made: Any) -> None:
    game = bilinear()
    for name in ("leader", "linear", "points", "jacobian"):
        assert hasattr(game, name)
        assert not hasattr(made(game), name)


def test_what_a_wrapper_says_of_its_own_losses_is_not_passed_on() -> None:
    exact = Exact(clipped())
    assert exact.follows
    assert exact.thrice
    inner = Halved(exact)
    assert not hasattr(inner, "follows")
    assert not hasattr(inner, "thrice")


def test_feasible_sets_are_those_of_the_innermost_game() -> None:
    game, far = clipped(), {"generator": {}, "critic": {"weight": torch.ones(1, 2)}}
    twice = Exact(Halved(game))
    assert torch.equal(twice.project(far)["critic"]["weight"], torch.full((1, 2), 0.1))
    assert coupled_parameters(twice) == coupled_parameters(game)


def test_a_wrapper_with_a_projection_of_its_own_says_anew_what_it_couples() -> None:
    class Boxed(Halved):
        def project(self, players: Any) -> Any:
            return {p: {k: t.clamp(-1, 1) for k, t in v.items()} for p, v in players.items()}

    boxed = Boxed(bilinear())
    assert coupled_parameters(boxed) == dict.fromkeys(boxed.players)
    # Where every point is feasible a field projects nothing, behind wrappers too; but here.
    far = {p: {"value": torch.full((3, 1), 2.0)} for p in boxed.players}
    assert VectorField(boxed, stacked=3).project(far) is not far
    assert VectorField(Exact(Halved(bilinear())), stacked=3).project(far) is far
