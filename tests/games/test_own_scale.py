"""What is at stake in losses of one's own: held against the named formulations' scales."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, relu, softplus

from equilibrist import GAN, AdversarialGame, GradientPenalty
from equilibrist.checks import audit_game
from equilibrist.data import source_of
from equilibrist.formulations import LeastSquares
from equilibrist.games._own_scale import chance

F64 = torch.float64
X = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)).double()


def halved(scores: Tensor, target: float) -> Tensor:
    return (scores - target).square().mean() / 2


# The critic's loss of scores on real and generated samples, the generator's, and what is named so.
NAMED: dict[str, tuple[Any, Any, Any]] = {
    "vanilla": (
        lambda r, f: softplus(-r).mean() + softplus(f).mean(),
        lambda f: softplus(-f).mean(),
        "vanilla",
    ),
    "hinge": (lambda r, f: relu(1 - r).mean() + relu(1 + f).mean(), lambda f: -f.mean(), "hinge"),
    "least squares": (
        lambda r, f: halved(r, 1.0) + halved(f, 0.0),
        lambda f: halved(f, 1.0),
        LeastSquares(1.0, 0.0, 1.0),
    ),
    "least squares, 1, -1, 0": (
        lambda r, f: halved(r, 1.0) + halved(f, -1.0),
        lambda f: halved(f, 0.0),
        LeastSquares(1.0, -1.0, 0.0),
    ),
    "wgan-gp": (lambda r, f: f.mean() - r.mean(), lambda f: -f.mean(), "wgan"),
}


def losses_of(name: str) -> Any:
    of_critic, of_generator, _ = NAMED[name]

    def losses(m: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        fake = m.generator(z)
        critic = of_critic(m.critic(x), m.critic(fake.detach()))
        if name == "wgan-gp":
            between = torch.lerp(fake.detach(), x, torch.rand(len(x), 1).to(x)).requires_grad_()
            (slope,) = torch.autograd.grad(m.critic(between).sum(), between, create_graph=True)
            critic = critic + 10 * (slope.norm(dim=1) - 1).square().mean()
        return {"critic": critic, "generator": of_generator(m.critic(fake))}

    return losses


class Pair:
    """A generator whose samples lie `apart` from the data's mean, and a critic that was trained against it."""

    def __init__(self, losses: Any, apart: float, steps: int, end: Any = nn.Identity) -> None:
        torch.manual_seed(1)
        self.generator = nn.Linear(2, 2).double()
        with torch.no_grad():
            self.generator.weight.copy_(0.9 * torch.eye(2))
            self.generator.bias.fill_(apart)
        self.critic = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1), end()).double()
        adam = torch.optim.Adam(self.critic.parameters(), 2e-2)
        for _ in range(steps):
            x = X[torch.randint(len(X), (64,))]
            adam.zero_grad()
            losses(self, x, torch.randn(64, 2).double())["critic"].backward()
            adam.step()

    def game(self, losses: Any) -> AdversarialGame:
        return AdversarialGame(
            {"generator": self.generator, "critic": self.critic}, losses, X, latent=2
        )


def bank(game: Any, source: Any) -> list[dict[str, Tensor]]:
    rng = np.random.default_rng(0)
    return [game.draw(rng, source, 64, F64) for _ in range(8)]


@pytest.mark.parametrize(("apart", "steps"), [(0.3, 150), (6.0, 300)], ids=["healthy", "saturated"])
@pytest.mark.parametrize("name", NAMED)
def test_within_three_times_the_named_scale(name: str, apart: float, steps: int) -> None:
    losses = losses_of(name)
    pair = Pair(losses, apart, steps)
    own, start = pair.game(losses), pair.game(losses).init(dtype=F64)
    penalties = [GradientPenalty(10.0)] if name == "wgan-gp" else []
    named = GAN(pair.generator, pair.critic, NAMED[name][2], latent=2, penalties=penalties)
    scale = named.yardstick(*named.init(dtype=F64), bank(named, source_of(X)), "critic")
    draws = bank(own, own.data)
    for player in own.players:
        assert 1 / 3 < own.yardstick(*start, draws, player) / scale < 3, player
    value = abs(float(own.losses(*start, draws[0])["critic"].detach()))
    if apart > 1 and name != "wgan-gp":
        assert value < 0.02 * scale, "a share of the loss itself would be nothing"


def test_the_numbers_where_nothing_is_told_apart() -> None:
    """log 4 and log 2; scores at which log(1 + e^s) + log(1 + e^-s) = 2 log 4: s = 2.63, and log(1 + e^2.63) = 2.70."""
    losses = losses_of("vanilla")
    game = Pair(losses, 6.0, 300).game(losses)
    found = chance(game, *game.init(dtype=F64), bank(game, game.data)[0])
    assert found is not None
    assert found.losses == pytest.approx({"critic": np.log(4), "generator": np.log(2)})
    far = np.arccosh(7.0)  # 2 + 2 cosh s = 16
    assert found.reach is not None
    assert found.reach["generator"] == pytest.approx(np.log1p(np.exp(far)) - np.log(2), rel=0.02)
    assert not any(m._forward_hooks for m in game._pure["critic"].module.modules())


def test_probabilities_are_not_left() -> None:
    def losses(m: Any, x: Tensor, z: Tensor) -> dict[str, Tensor]:
        real, fake = m.critic(x), m.critic(m.generator(z))
        one, zero = torch.ones_like(real), torch.zeros_like(real)
        critic = binary_cross_entropy(real, one) + binary_cross_entropy(fake.detach(), zero)
        return {"critic": critic, "generator": binary_cross_entropy(fake, one)}

    game = Pair(losses, 3.0, 100, nn.Sigmoid).game(losses)
    found = chance(game, *game.init(dtype=F64), bank(game, game.data)[0])
    assert found is not None
    assert found.losses["critic"] == pytest.approx(np.log(4), rel=1e-3)


def test_a_saturated_critic_is_held_to_a_gain_that_matters() -> None:
    """Its loss of 1e-3 would have made any gain something: it answers best, to what anybody would call nothing."""
    losses = losses_of("vanilla")
    game = Pair(losses, 6.0, 300).game(losses)
    found = audit_game(
        game, *game.init(), game.data, gradients=300, checks=["nash"], progress="none"
    )["nash/critic"]
    assert found.verdict.value == "NOT_REFUTED"
    assert found.tolerance.value == pytest.approx(0.02 * np.log(4))
    assert "at stake in the critic's loss" in found.tolerance.why


def test_noise_above_the_tolerance_names_the_batches_that_would_do() -> None:
    losses = losses_of("vanilla")
    game = Pair(losses, 0.05, 400).game(losses)

    def rests(group_batches: int) -> Any:
        settings = {"batch": 8, "groups": 4, "group_batches": group_batches, "absolute": 0.004}
        found = audit_game(
            game,
            *game.init(),
            game.data,
            settings=settings,
            checks=["stationary"],
            progress="none",
        )
        return found["stationary/critic"]

    hidden = rests(1)
    assert hidden.verdict.value == "UNASSESSED"
    named = re.search(r"group_batches=(\d+) in the settings", hidden.summary)
    assert named is not None
    assert rests(int(named[1])).verdict.value == "NOT_REFUTED"
