"""Proximal training against Algorithm 1 written out with modules and torch.optim."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.draws import Draws
from equilibrist.core.field import VectorField
from equilibrist.data import eight_gaussians
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN, bilinear
from equilibrist.optimizers import SGD, Adam
from equilibrist.penalties import GradientPenalty
from equilibrist.projections import WeightClipping
from equilibrist.solvers import Alternating, Proximal

F64 = torch.float64


def pair() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(3)
    return (
        nn.Sequential(nn.Linear(3, 6, dtype=F64), nn.Tanh(), nn.Linear(6, 2, dtype=F64)),
        nn.Sequential(nn.Linear(2, 6, dtype=F64), nn.Softplus(), nn.Linear(6, 1, dtype=F64)),
    )


def draws_of(game: GAN, step: int, seed: int = 0) -> Draws:
    source = eight_gaussians().to(dtype=F64)
    return Draws(lambda rng: game.draw(rng, source, 8, F64), seed, step)


def slopes(critic: nn.Module, x: Tensor, graph: bool) -> Tensor:
    x = x.detach().requires_grad_()
    return torch.autograd.grad(critic(x).sum(), x, create_graph=graph)[0]


def algorithm1(
    steps: int, T: int, lam: float, fresh: bool, reset: bool, adam: bool
) -> tuple[nn.Module, nn.Module]:
    """theta and w after `steps` outer steps of a WGAN; lam as in equation 11."""
    g, c = pair()
    game = GAN(g, c, WGAN(), latent=3)

    def rule(params: Any) -> torch.optim.Optimizer:
        if adam:
            return torch.optim.Adam(params, 0.02, betas=(0.5, 0.9))
        return torch.optim.SGD(params, 0.05)

    outer, inner = rule(g.parameters()), rule(c.parameters())
    for step in range(steps):
        draws = draws_of(game, step)
        anchor = copy.deepcopy(c)
        if reset:
            inner = rule(c.parameters())
        for k in range(T):
            d = draws.batch(k if fresh else 0)
            moved = slopes(c, d["real"], True) - slopes(anchor, d["real"], False)
            loss = c(g(d["latent"]).detach()).mean() - c(d["real"]).mean()
            loss = loss + lam * moved.square().sum(1).mean()
            inner.zero_grad()
            loss.backward()
            inner.step()
        d = draws.batch(T if fresh else 0)
        outer.zero_grad()
        (-c(g(d["latent"])).mean()).backward()
        outer.step()
    return g, c


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("adam", [False, True])
def test_equals_algorithm_1(fresh: bool, reset: bool, adam: bool) -> None:
    game = GAN(*pair(), WGAN(), latent=3)
    rule = Adam(0.02, 0.5, 0.9) if adam else SGD(0.05)
    solver = Proximal(4, 0.7, rule, reset=reset, fresh=fresh)
    players, constants = game.init()
    state, field = solver.init(players), VectorField(game)
    for step in range(3):
        players, constants, state, _ = solver.step(
            field, players, constants, state, draws_of(game, step)
        )
    for name, module in zip(
        ("generator", "critic"), algorithm1(3, 4, 0.7, fresh, reset, adam), strict=True
    ):
        for key, value in module.named_parameters():
            torch.testing.assert_close(
                players[name][key], value.detach(), rtol=1e-10, atol=1e-12, msg=f"{name} {key}"
            )


def test_a_small_lambda_is_alternating_training_on_one_minibatch() -> None:
    """T critic steps and one generator step; a large lambda holds the critic's slopes."""
    moved = {}
    for lam in (1e-12, 1e3):
        game = GAN(*pair(), WGAN(), latent=3)
        players, constants = game.init()
        start = tree.clone(players)
        solver = Proximal(40, lam, SGD(1e-4))
        players, _, _, _ = solver.step(
            VectorField(game), players, constants, solver.init(players), draws_of(game, 0)
        )
        x = draws_of(game, 0).batch()["real"]
        before, after = (
            torch.func.functional_call(game.modules["critic"], p["critic"], x.requires_grad_())
            for p in (start, players)
        )
        a, b = (torch.autograd.grad(y.sum(), x)[0] for y in (before, after))
        moved[lam] = (a - b).norm().item()
    assert moved[1e3] < 0.9 * moved[1e-12]
    game = GAN(*pair(), WGAN(), latent=3)
    players, constants = game.init()
    free = Proximal(3, 1e-12, SGD(0.05))
    players, _, _, _ = free.step(
        VectorField(game), players, constants, free.init(players), draws_of(game, 0)
    )

    class Same:
        """The same minibatch every time."""

        def batch(self, index: int = 0) -> Any:
            return draws_of(game, 0).batch(0)

        def noise(self, like: Any, index: int = 0) -> Any:
            raise AssertionError("nothing here draws noise")

    others, constants = game.init()
    plain = Alternating(3, SGD(0.05))
    others, _, _, _ = plain.step(VectorField(game), others, constants, plain.init(others), Same())
    for a, b in zip(tree.leaves(players), tree.leaves(others), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_stacked_equals_alone_with_spectral_norm() -> None:
    """Power vectors move on at every inner step, and the anchor is the critic as it was seen."""
    game = GAN(*pair(), Vanilla(), latent=3, spectral_norm=True)
    solver = Proximal(3, 0.5, Adam(0.02))
    starts = []
    for seed in range(2):
        start = game.init()
        shifted = tree.map(lambda x, s=seed: x + 0.05 * s, start.players)
        starts.append((shifted, start.constants))
    players = tree.stack([s[0] for s in starts])
    constants = tree.stack([s[1] for s in starts])
    singles = []
    for seed, (p, c) in enumerate(starts):
        p = tree.clone(p)
        state = solver.init(p)
        for step in range(2):
            p, c, state, _ = solver.step(VectorField(game), p, c, state, draws_of(game, step, seed))
        singles.append((p, c))
    from equilibrist.core.draws import StackedDraws

    state, field = solver.init(players), VectorField(game, stacked=2)
    for step in range(2):
        draws = StackedDraws([draws_of(game, step, seed) for seed in range(2)])
        players, constants, state, _ = solver.step(field, players, constants, state, draws)
    for i, (p, c) in enumerate(singles):
        for a, b in zip(tree.leaves(tree.member(players, i)), tree.leaves(p), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)
        for a, b in zip(tree.leaves(tree.member(constants, i)), tree.leaves(c), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-12)


def test_feasible_sets_hold_inside() -> None:
    game = GAN(*pair(), WGAN(), latent=3, projections=[WeightClipping(0.1)])
    solver = Proximal(5, 0.1, SGD(1.0))
    players, constants = game.init()
    players, _, _, _ = solver.step(
        VectorField(game), players, constants, solver.init(players), draws_of(game, 0)
    )
    assert max(t.abs().max().item() for t in players["critic"].values()) <= 0.1


def test_penalties_stay_part_of_the_critics_loss() -> None:
    found = {}
    for weight in (0.0, 5.0):
        game = GAN(*pair(), WGAN(), latent=3, penalties=[GradientPenalty(weight)])
        solver = Proximal(2, 0.1, SGD(0.05))
        players, constants = game.init()
        _, _, _, info = solver.step(
            VectorField(game), players, constants, solver.init(players), draws_of(game, 0)
        )
        found[weight] = info["loss"]["critic"].item()
    assert found[5.0] > found[0.0] + 0.1


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: Proximal(0), ValueError, r"steps must be a whole number of at least 1, not 0"),
        (lambda: Proximal(20, 0.0), ValueError, "lam must be positive, not 0"),
        (lambda: Proximal(20, -1.0), ValueError, "lam must be positive"),
        (
            lambda: Proximal().step(VectorField(bilinear()), {}, {}, {}, None),  # type: ignore[arg-type]
            GameError,
            "needs a GAN, not Quadratic",
        ),
        (
            lambda: Proximal().step(
                VectorField(
                    GAN(
                        nn.Linear(3, 2),
                        nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)),
                        WGAN(),
                        latent=3,
                    )
                ),
                {},
                {},
                {},
                None,  # type: ignore[arg-type]
            ),
            GameError,
            "scores each sample by itself",
        ),
    ],
)
def test_refused(make: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said) as seen:
        make()
    assert "\n" not in str(seen.value)
