"""Bad hyperparameters, and batches that are not there: one clear line each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from equilibrist import tree
from equilibrist.core.draws import Draws
from equilibrist.core.field import VectorField
from equilibrist.data import eight_gaussians
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN
from equilibrist.games import GAN, Quadratic, bilinear
from equilibrist.interop import Play
from equilibrist.langevin import SGLD
from equilibrist.optimizers import SGD, Adam
from equilibrist.per_member import PerMember
from equilibrist.schedules import Clipped, Cosine, Piecewise, Scheduled
from equilibrist.solvers import (
    Alternating,
    AnchoredExtragradient,
    Averaged,
    Competitive,
    Consensus,
    Extragradient,
    FollowTheRidge,
    Implicit,
    Lookahead,
    MirrorGAN,
    MirrorProxGAN,
    Optimistic,
    PastExtragradient,
    Proximal,
    Simultaneous,
    SymplecticAdjustment,
    Unrolled,
)
from equilibrist.solvers.named import NAMES, options, solver_from_text

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
        r"SymplecticAdjustment\.strength must be a finite number, not inf",
    ),
    "eta 0": (lambda: Competitive(eta=0.0), r"Competitive\.eta must be positive"),
    "no products": (lambda: Competitive(iterations=0), r"Competitive\.iterations"),
    "negative damping": (lambda: FollowTheRidge(damping=-1.0), r"FollowTheRidge\.damping"),
    "Adam inside of implicit": (lambda: Implicit(Adam()), "Implicit solves for plain SGD"),
    "momentum inside of implicit": (lambda: Implicit(SGD(0.1, 0.5)), "Implicit solves for plain"),
    "Adam beside an anchor": (
        lambda: AnchoredExtragradient(Adam()),
        r"AnchoredExtragradient needs steps in proportion to the gradient, not Adam\(",
    ),
    "clipped Adam beside an anchor": (
        lambda: AnchoredExtragradient(optimizers={"x": Clipped(Adam())}),
        r"not Adam\(",
    ),
    "momentum beside an anchor": (
        lambda: AnchoredExtragradient(SGD(0.1, 0.5)),
        r"take SGD\(step size\) without momentum",
    ),
    "a look-ahead that falls short": (
        lambda: Extragradient(explore=0.5),
        r"Extragradient\.explore must be a number of at least 1, or a schedule .* not 0\.5",
    ),
    "a class for a schedule": (
        lambda: Extragradient(explore=Cosine),  # type: ignore[arg-type]
        r"Extragradient\.explore must be",
    ),
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
    "a mean": (
        lambda: Averaged(Simultaneous(), kind="mean"),  # type: ignore[arg-type]
        r"Averaged\.kind must be one of exponential, uniform, tail, not 'mean'",
    ),
    "an endless kind": (lambda: Averaged(Simultaneous(), kind=["tail"]), r"Averaged\.kind must"),  # type: ignore[arg-type]
    "a tail of nothing": (
        lambda: Averaged(Simultaneous(), kind="tail"),
        r"Averaged\.start is needed for kind='tail'",
    ),
    "a tail from before": (
        lambda: Averaged(Simultaneous(), kind="tail", start=-1),
        r"Averaged\.start must be a whole number",
    ),
    "a start of all": (
        lambda: Averaged(Simultaneous(), kind="uniform", start=5),
        r"Averaged\.start=5 belongs to kind='tail'",
    ),
    "a decay of all": (
        lambda: Averaged(Simultaneous(), 0.9, kind="uniform"),
        r"Averaged\.decay=0\.9 belongs to kind='exponential'",
    ),
    "no critic step": (lambda: Alternating(0), r"Alternating\.critic_steps"),
    "a class for a rule": (lambda: Simultaneous(Adam), "Adam is no update rule"),  # type: ignore[arg-type]
    "a number for a rule": (lambda: Extragradient(0.1), "float is no update rule"),  # type: ignore[arg-type]
}


# Every numeric field, and what its class needs beside it.
NUMERIC: dict[str, Callable[[Any], Any]] = {
    "Alternating.critic_steps": lambda v: Alternating(v),
    "AnchoredExtragradient.restart": lambda v: AnchoredExtragradient(restart=v),
    "Averaged.decay": lambda v: Averaged(Simultaneous(), v),
    "Averaged.start": lambda v: Averaged(Simultaneous(), kind="tail", start=v),
    "Clipped.limit": lambda v: Clipped(SGD(), v),
    "Competitive.eta": lambda v: Competitive(eta=v),
    "Competitive.iterations": lambda v: Competitive(iterations=v),
    "Competitive.tolerance": lambda v: Competitive(tolerance=v),
    "Consensus.batches": lambda v: Consensus(batches=v),
    "Consensus.gamma": lambda v: Consensus(gamma=v),
    "Consensus.gamma by member": lambda v: Consensus(gamma=(1.0, v)),
    "Cosine": lambda v: Cosine(v),
    "Cosine end": lambda v: Cosine(5, v),
    "Extragradient.explore": lambda v: Extragradient(explore=v),
    "FollowTheRidge.damping": lambda v: FollowTheRidge(damping=v),
    "FollowTheRidge.iterations": lambda v: FollowTheRidge(iterations=v),
    "Implicit.iterations": lambda v: Implicit(iterations=v),
    "Lookahead.alpha": lambda v: Lookahead(Simultaneous(), 5, v),
    "Lookahead.period": lambda v: Lookahead(Simultaneous(), v),
    "MirrorGAN.beta": lambda v: MirrorGAN(beta=v),
    "MirrorGAN.growth": lambda v: MirrorGAN(growth=v),
    "MirrorGAN.inner": lambda v: MirrorGAN(inner=v),
    "MirrorProxGAN.beta": lambda v: MirrorProxGAN(beta=v),
    "MirrorProxGAN.growth": lambda v: MirrorProxGAN(growth=v),
    "MirrorProxGAN.inner": lambda v: MirrorProxGAN(inner=v),
    "SGLD.lr": lambda v: SGLD(v),
    "SGLD.noise": lambda v: SGLD(1.0, v),
    "Optimistic.strength": lambda v: Optimistic(strength=v),
    "PerMember.factors": lambda v: PerMember(SGD(), (1.0, v)),
    "Piecewise": lambda v: Piecewise(((0, 1.0), (1, v))),
    "Piecewise times": lambda v: Piecewise(((0, 1.0), (v, 1.0))),
    "Proximal.lam": lambda v: Proximal(lam=v),
    "Proximal.lam by member": lambda v: Proximal(lam=(v, 1.0)),
    "Proximal.steps": lambda v: Proximal(steps=v),
    "SymplecticAdjustment.strength": lambda v: SymplecticAdjustment(strength=v),
    "SymplecticAdjustment.strength by member": lambda v: SymplecticAdjustment(strength=(v, v)),
    "Unrolled.rate": lambda v: Unrolled(rate=v),
    "Unrolled.unroll": lambda v: Unrolled(unroll=v),
}
NO_NUMBERS = ["1", None, float("nan"), float("inf"), True, [1], 1j, torch.ones(2), {}]


@pytest.mark.parametrize("name", NUMERIC)
@pytest.mark.parametrize("value", NO_NUMBERS, ids=lambda v: repr(v).replace(" ", ""))
def test_no_number(name: str, value: Any) -> None:
    if name == "Competitive.eta" and value is None:
        assert Competitive(SGD(0.25), eta=None) == Competitive(SGD(0.25))  # that of its rule
        return
    with pytest.raises(ValueError, match=rf"^{name.split()[0]}\b") as caught:
        NUMERIC[name](value)
    assert "\n" not in str(caught.value)
    NUMERIC[name](0 if name == "Averaged.decay" else 1)  # a number is none of these


def test_every_numeric_field_is_in_the_list() -> None:
    """A solver's new hyperparameter gets its row."""
    for name, solver in NAMES.items():
        for key, kind in options(name).items():
            if key != "noise" and (kind in (int, float) or kind == float | None):  # SGLD's own
                assert f"{solver.__name__}.{key}" in NUMERIC


@pytest.mark.parametrize(
    "solver",
    [Consensus(SGD(0.1), gamma=1), SymplecticAdjustment(SGD(0.1), strength=1), Optimistic(SGD(0.1), strength=2)],
    ids=lambda s: type(s).__name__,
)  # fmt: skip
def test_whole_numbers_are_numbers(solver: Any) -> None:
    """gamma = 1 is gamma = 1.0."""
    key = "gamma" if isinstance(solver, Consensus) else "strength"
    found = []
    for one in (solver, dataclasses.replace(solver, **{key: float(getattr(solver, key))})):
        players = origin()
        draws = Draws(lambda rng: {}, 0, 0)
        taken = one.step(VectorField(bilinear()), players, {}, one.init(players), draws)
        found.append(tree.flatten(taken.players))
    assert torch.equal(*found)


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
        Extragradient(explore=1),
        AnchoredExtragradient(Scheduled(Clipped(SGD(0.1)), Cosine(5)), restart=1),
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


def test_proximal_needs_one_critic() -> None:
    g, c = modules()
    many = GAN(g, [c, modules()[1]], WGAN(), latent=3)
    players, constants = many.init()
    solver = Proximal()
    draws = Draws(lambda rng: many.draw(rng, eight_gaussians().to(dtype=F64), 8, F64), 0, 0)
    with pytest.raises(
        GameError, match="proximal training needs one critic that scores each sample"
    ):
        solver.step(VectorField(many), players, constants, solver.init(players), draws)


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


@pytest.mark.parametrize("name", NAMES)
def test_a_name_makes_its_solver_around_the_rules_of_the_recipe(name: str) -> None:
    own = Alternating(optimizer=SGD(0.125))
    made = solver_from_text(name, own)
    assert type(made) is NAMES[name]
    if name == "lookahead":
        assert made.solver == own
    else:
        assert "lr=0.125" in repr(made)


def test_consensus_says_how_many_minibatches_it_takes() -> None:
    assert "two independent minibatches" not in str(Consensus(gamma=10.0))
    assert "two independent minibatches" in str(Consensus(gamma=10.0, batches=2))


@pytest.mark.parametrize(("sizes", "large"), [((250, 250), False), ((251, 250), True)])
def test_implicit_steps_are_for_small_games(sizes: tuple[int, int], large: bool) -> None:
    n, m = sizes
    eye = [torch.eye(k, dtype=torch.float64) for k in sizes]
    game = Quadratic(eye[0], torch.zeros(n, m, dtype=torch.float64), eye[1])
    players = {
        p: {"value": torch.ones(k, dtype=torch.float64)} for p, k in zip("xy", sizes, strict=True)
    }
    solver = Implicit(SGD(0.5), iterations=1)

    def step() -> Any:
        return solver.step(
            VectorField(game), players, {}, solver.init(players), Draws(lambda rng: {}, 0, 0)
        )

    if large:
        with pytest.raises(
            GameError, match="dense Jacobian of 501 parameters: it is for games of at most 500"
        ):
            step()
    else:
        # v = x: x <- x - 0.5 x', so that x' = x / 1.5.
        for value in tree.leaves(step().players):
            torch.testing.assert_close(value, torch.full_like(value, 1 / 1.5))


MAPS: dict[str, Callable[[Any], Any]] = {
    "alternating": lambda rule: Alternating(1, rule, leader="x", follower="y"),
    "alternating, one": lambda rule: Alternating(1, SGD(0.1), {"y": rule}, "x", "y"),
    "competitive": Competitive,
    "consensus": Consensus,
    "extragradient": Extragradient,
    "extragradient, exploring": lambda rule: Extragradient(rule, explore=2.0),
    "optimistic": Optimistic,
    "past extragradient": PastExtragradient,
    "ridge": lambda rule: FollowTheRidge(rule, leader="x", follower="y"),
    "simultaneous, none plain": lambda rule: Simultaneous(rule, {"y": type(rule)(rule.lr)}),
    "simultaneous, one": lambda rule: Simultaneous(SGD(0.1), {"x": rule}),
    "simultaneous, the other": lambda rule: Simultaneous(SGD(0.1), {"y": rule}),
    "simultaneous, each its own": lambda rule: Simultaneous(SGD(0.1, -0.2), {"y": rule}),
    "symplectic": SymplecticAdjustment,
    "unrolled": lambda rule: Unrolled(rule, leader="x", follower="y"),
}


@pytest.mark.parametrize("rule", [Adam(0.1), SGD(0.1, 0.5), SGD(0.1, -0.5)], ids=str)
@pytest.mark.parametrize("name", MAPS)
def test_a_linear_map_is_of_plain_gradient_steps(name: str, rule: Any) -> None:
    J, sizes = torch.tensor([[1.0, 2.0], [-2.0, 0.5]], dtype=F64), {"x": 1, "y": 1}
    plain = SGD(0.1, -0.2) if name.endswith("its own") else SGD(0.1)
    assert MAPS[name](plain).linear_map(J, sizes).isfinite().all()
    with pytest.raises(ValueError, match=r"^linear_map is that of"):
        MAPS[name](rule).linear_map(J, sizes)
