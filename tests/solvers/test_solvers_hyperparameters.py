"""Bad hyperparameters, and batches that are not there: one clear line each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from equilibrist import tree
from equilibrist._draws import Draws
from equilibrist._errors import GameError
from equilibrist._field import VectorField
from equilibrist.formulations import WGAN
from equilibrist.games import GAN, bilinear
from equilibrist.interop import Play
from equilibrist.optimizers import SGD, Adam
from equilibrist.solvers import (
    Alternating,
    Averaged,
    Competitive,
    Consensus,
    Extragradient,
    FollowTheRidge,
    Implicit,
    Lookahead,
    Optimistic,
    Proximal,
    Simultaneous,
    SymplecticAdjustment,
    Unrolled,
)

F64 = torch.float64

BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "a negative step": (lambda: SGD(-0.1), r"SGD\.lr must lie in \[0.0"),
    "no number": (lambda: SGD(float("nan")), r"SGD\.lr"),
    "lambda 0": (lambda: Proximal(lam=0.0), r"Proximal\.lam must be positive, not 0"),
    "T = 0": (lambda: Proximal(steps=0), r"Proximal\.steps must be .* at least 1, not 0"),
    "half a step": (lambda: Proximal(steps=2.5), r"Proximal\.steps must be a whole number"),  # type: ignore[arg-type]
    "negative gamma": (lambda: Consensus(gamma=-1.0), r"Consensus\.gamma must not be negative"),
    "three batches": (lambda: Consensus(batches=3), r"Consensus\.batches must be 1 .* or 2, not 3"),
    "negative optimism": (lambda: Optimistic(strength=-1.0), r"Optimistic\.strength"),
    "endless lambda": (
        lambda: SymplecticAdjustment(strength=float("inf")),
        r"SymplecticAdjustment\.strength must be finite",
    ),
    "eta 0": (lambda: Competitive(eta=0.0), r"Competitive\.eta must be positive"),
    "no products": (lambda: Competitive(iterations=0), r"Competitive\.iterations"),
    "negative damping": (lambda: FollowTheRidge(damping=-1.0), r"FollowTheRidge\.damping"),
    "Adam inside of implicit": (lambda: Implicit(Adam()), "Implicit solves for plain SGD"),
    "momentum inside of implicit": (lambda: Implicit(SGD(0.1, 0.5)), "Implicit solves for plain"),
    "no Newton step": (lambda: Implicit(iterations=0), r"Implicit\.iterations"),
    "rate 0": (lambda: Unrolled(rate=0.0), r"Unrolled\.rate must be positive"),
    "unrolled backwards": (lambda: Unrolled(unroll=-1), r"Unrolled\.unroll"),
    "lookahead of a class": (lambda: Lookahead(Simultaneous), "Lookahead needs a solver"),  # type: ignore[arg-type]
    "period 0": (lambda: Lookahead(Simultaneous(), 0), r"Lookahead\.period"),
    "alpha 0": (
        lambda: Lookahead(Simultaneous(), 5, 0.0),
        r"Lookahead\.alpha must lie in \(0, 1\]",
    ),
    "decay 1": (lambda: Averaged(Simultaneous(), 1.0), r"Averaged\.decay must lie in \[0, 1\)"),
    "no critic step": (lambda: Alternating(0), r"Alternating\.critic_steps"),
    "a class for a rule": (lambda: Simultaneous(Adam), "Adam is no update rule"),  # type: ignore[arg-type]
    "a number for a rule": (lambda: Extragradient(0.1), "float is no update rule"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str) -> None:
    make, said = BAD[name]
    with pytest.raises(ValueError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 160


def test_the_bounds_themselves_are_allowed() -> None:
    for solver in (
        Proximal(1, 1e-9),
        Consensus(gamma=0.0),
        Optimistic(strength=0.0),
        Unrolled(unroll=0),
        Lookahead(Simultaneous(), 1, 1.0),
        Averaged(Simultaneous(), 0.0),
        SymplecticAdjustment(strength=-1.0),
        Simultaneous(SGD(0.0)),
    ):
        assert str(solver)


def origin() -> Any:
    return {p: {"value": torch.ones(1, dtype=F64)} for p in "xy"}


@pytest.mark.parametrize(
    ("solver", "said"),
    [
        (Alternating(), "leader names 'generator', but the players are x, y"),
        (FollowTheRidge(), "leader names 'generator'"),
        (Unrolled(leader="x"), "follower names 'critic'"),
        (FollowTheRidge(leader="x", follower="x"), "both 'x': name two players"),
        (Consensus(optimizers={"z": SGD()}), "optimizers names 'z', but the players are x, y"),
    ],
)
def test_players_that_do_not_exist(solver: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        solver.init(origin())


def test_proximal_needs_a_gan() -> None:
    players = {"generator": {"x": torch.ones(1)}, "critic": {"y": torch.ones(1)}}
    solver = Proximal()
    with pytest.raises(GameError, match="needs a GAN, not Quadratic"):
        solver.step(
            VectorField(bilinear()),
            players,
            {},
            solver.init(players),
            Draws(lambda rng: {}, 0, 0),
        )


def test_two_batches_of_a_game_that_draws_nothing() -> None:
    """A deterministic game has no noise: two minibatches are one."""
    found = []
    for batches in (1, 2):
        solver, players = Consensus(SGD(0.1), gamma=0.5, batches=batches), origin()
        draws = Draws(lambda rng: {}, 0, 0)
        taken = solver.step(VectorField(bilinear()), players, {}, solver.init(players), draws)
        found.append(tree.flatten(taken.players))
    assert torch.equal(*found)


def modules() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    g = nn.Sequential(nn.Linear(3, 4, dtype=F64), nn.Tanh(), nn.Linear(4, 2, dtype=F64))
    return g, nn.Sequential(nn.Linear(2, 4, dtype=F64), nn.Softplus(), nn.Linear(4, 1, dtype=F64))


@pytest.mark.parametrize(
    ("solver", "needed"),
    [
        (Consensus(SGD(0.01), gamma=0.1, batches=2), 2),
        (Extragradient(SGD(0.01), fresh=True), 2),
        (Proximal(2, optimizer=SGD(0.01), fresh=True), 3),
        (Averaged(Lookahead(Consensus(SGD(0.01), gamma=0.1, batches=2)), 0.9), 2),
    ],
)
def test_independent_batches_that_a_loop_does_not_give(solver: Any, needed: int) -> None:
    """The last batch again would be no independent one, and nobody would notice."""
    g, c = modules()
    play = Play(GAN(g, c, WGAN(), latent=3), g, c, solver)
    real = [torch.randn(6, 2, dtype=F64) for _ in range(needed)]
    before = [p.detach().clone() for m in (g, c) for p in m.parameters()]
    with pytest.raises(GameError, match=r"needs \d independent minibatches, the loop gave 1: call"):
        play.step(real[0])
    assert play.steps == 0
    unmoved = [p for m in (g, c) for p in m.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, unmoved, strict=True))
    play.step(*real)
    assert play.steps == 1
    after = [p for m in (g, c) for p in m.parameters()]
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_one_batch_serves_who_needs_one() -> None:
    for solver in (
        Consensus(SGD(0.01), gamma=0.1),
        Extragradient(SGD(0.01)),
        Proximal(2, optimizer=SGD(0.01)),
    ):
        g, c = modules()
        Play(GAN(g, c, WGAN(), latent=3), g, c, solver).step(torch.randn(6, 2, dtype=F64))
