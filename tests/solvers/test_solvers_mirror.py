"""Mirror-GAN and Mirror-Prox-GAN against their loops written out, and Langevin rules against theory."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN, Mixture
from equilibrist.langevin import SGLD, RMSPropSGLD
from equilibrist.optimizers import SGD, RMSProp
from equilibrist.penalties import GradientPenalty
from equilibrist.projections import WeightClipping
from equilibrist.schedules import Piecewise
from equilibrist.solvers import MirrorGAN, MirrorProxGAN

F64, COUNT, BATCH = torch.float64, 3, 12
RULE = SGLD(0.05, 0.1)


def g() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4, dtype=F64), nn.Tanh(), nn.Linear(4, 2, dtype=F64))


def d() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 4, dtype=F64), nn.Tanh(), nn.Linear(4, 1, dtype=F64))


GAMES: dict[str, Any] = {
    "vanilla": lambda: GAN(g, d, Vanilla(), latent=2),
    "clipped": lambda: GAN(g, d, WGAN(), latent=2, projections=[WeightClipping(0.3)]),
    "penalty": lambda: GAN(g, d, WGAN(), latent=2, penalties=[GradientPenalty(1.0)]),
}


class Known:
    """Minibatches and noise by index; remembers which were asked for."""

    def __init__(self, step: int = 0, extra: int = 0, size: int = BATCH) -> None:
        self.step, self.extra, self.size, self.asked = step, extra, size, []
        self.noises: list[tuple[str, int]] = []

    def _rng(self, kind: int, index: int) -> torch.Generator:
        return torch.Generator().manual_seed(10_000_000 * self.step + 1000 * kind + index % 999)

    def batch(self, index: int = 0) -> dict[str, Tensor]:
        self.asked.append(index)
        rng = self._rng(1, index)
        return {
            "real": torch.randn(self.size, 2, generator=rng, dtype=F64) + 1,
            "latent": torch.randn(self.size, 2 + self.extra, generator=rng, dtype=F64),
            "mix": torch.rand(self.size, generator=rng, dtype=F64),
        }

    def noise(self, like: Any, index: int = 0) -> Any:
        self.noises.append(("pairs" if "pairs" in like else "normals", index))
        rng = self._rng(2, index)
        return tree.map(lambda t: torch.randn(t.shape, generator=rng, dtype=F64), like)


def normal_numbers(draws: Known, players: Any, index: int) -> Any:
    """A player's noise is drawn in one piece and dealt out to its tensors in order."""
    flat = {p: {"all": torch.empty(tree.count(part), dtype=F64)} for p, part in players.items()}
    drawn = draws.noise(flat, index)
    return {p: tree.unflatten(drawn[p]["all"], part) for p, part in players.items()}


def langevin(
    game: Any, start: Any, against: Any, constants: Any, draws: Known, first: int, **options: Any
) -> Any:
    """One player's loop at a time, by autograd on the losses."""
    inner, beta, rule = options["inner"], options["beta"], options["rule"]
    ended = {}
    for player in game.players:
        x = {k: t.clone() for k, t in start[player].items()}
        bar = dict(x)
        for k in range(inner):
            leaves = {key: t.detach().requires_grad_() for key, t in x.items()}
            facing = {**against, player: leaves}
            loss = game.losses(facing, constants, draws.batch(first + k))[player]
            grads = torch.autograd.grad(loss, list(leaves.values()))
            normals = normal_numbers(draws, start, first + k)[player]
            x = {
                key: t - rule.lr * grad + math.sqrt(2 * rule.lr) * rule.noise * normals[key]
                for (key, t), grad in zip(x.items(), grads, strict=True)
            }
            x = game.project({**start, player: x})[player]
            bar = {key: (1 - beta) * bar[key] + beta * x[key] for key in x}
        ended[player] = {key: (1 - beta) * start[player][key] + beta * bar[key] for key in bar}
    return ended


def near(mine: Any, theirs: Any) -> None:
    for player, part in theirs.items():
        for key, value in part.items():
            torch.testing.assert_close(mine[player][key], value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", GAMES)
def test_mirror_gan_is_the_loop_written_out(name: str) -> None:
    game = GAMES[name]()
    players, constants = game.init(0)
    solver = MirrorGAN(RULE, inner=4, beta=0.7)
    state, x = solver.init(players), tree.clone(players)
    for step in range(3):
        draws = Known(step)
        players = langevin(
            game, players, players, constants, draws, 0, inner=4, beta=0.7, rule=RULE
        )
        taken = solver.step(VectorField(game), x, constants, state, Known(step))
        x, state = taken.players, taken.state
        near(x, players)


def test_a_frozen_critic_keeps_its_own_power_vectors() -> None:
    """With spectral norm: the opponent is normalised by vectors of its own weights, refreshed once an outer step, the
    chain by its own, refreshed at every inner one. The frozen critic's generator is then that critic's alone."""
    game = GAN(g, d, Vanilla(), latent=2, spectral_norm=True)
    players, constants = game.init(0)
    fast = MirrorGAN(SGLD(1e-3, 0.0), {"critic": SGLD(5.0, 0.0)}, inner=4, beta=1.0)
    draws = Known()
    taken = fast.step(VectorField(game), players, constants, fast.init(players), draws)
    held = game.refresh(players, constants, draws.batch(0))["critic"]
    x, fixed = players["generator"], {"generator": {}, "critic": held}
    for k in range(4):
        leaves = {key: t.detach().requires_grad_() for key, t in x.items()}
        facing = {"generator": leaves, "critic": players["critic"]}
        loss = game.losses(facing, fixed, draws.batch(k))["generator"]
        grads = torch.autograd.grad(loss, list(leaves.values()))
        x = {key: t - 1e-3 * grad for (key, t), grad in zip(x.items(), grads, strict=True)}
    near(taken.players, {"generator": x})
    moved = taken.constants["critic"]
    assert max(float((moved[k] - held[k]).abs().max()) for k in held) > 1e-3


def test_mirror_prox_is_the_sampler_twice() -> None:
    game = GAMES["vanilla"]()
    players, constants = game.init(0)
    options: dict[str, Any] = {"inner": 3, "beta": 0.9, "rule": RULE}
    half = langevin(game, players, players, constants, Known(), 0, **options)
    truth = langevin(game, players, half, constants, Known(), 3, **options)
    solver, draws = MirrorProxGAN(RULE, inner=3), Known()
    taken = solver.step(VectorField(game), players, constants, solver.init(players), draws)
    near(taken.players, truth)
    assert sorted(set(draws.asked)) == list(range(6)), "a fresh minibatch for every inner step"
    plain = langevin(game, players, players, constants, Known(), 3, **options)
    assert (tree.flatten(plain) - tree.flatten(truth)).norm() > 1e-4


@pytest.mark.parametrize("pairing", ["random", "mean", "all"])
@pytest.mark.parametrize("name", GAMES)
def test_one_inner_step_of_a_stack(name: str, pairing: Any) -> None:
    """Each particle's step along its own network's gradient, against whom the pairing gives it."""
    lone = GAMES[name]()
    game = Mixture(lone, COUNT)
    players, constants = game.init(0)
    rule, draws = SGLD(0.05, 0.0), Known(extra=1)
    solver = MirrorGAN(rule, inner=1, beta=1.0, pairing=pairing)
    drawn = draws.batch(0)
    keys = {"pairs": {"keys": torch.zeros(COUNT, dtype=F64)}}
    dealt = torch.argsort(draws.noise(keys, 2**20)["pairs"]["keys"]).tolist()
    share = BATCH // COUNT

    def gradient(player: str, i: int) -> Any:
        own = {k: t.detach().requires_grad_() for k, t in tree.member(players, i)[player].items()}
        (other,) = (p for p in game.players if p != player)
        facing = {player: own}
        if pairing == "all":
            stack = {
                k: torch.stack([*t[:i], own[k], *t[i + 1 :]]) for k, t in players[player].items()
            }
            loss = game.losses({**players, player: stack}, constants, drawn)[player] * COUNT
        else:
            if pairing == "mean":
                facing[other] = {k: t.mean(0) for k, t in players[other].items()}
            else:
                j = dealt[i] if player == "generator" else dealt.index(i)
                facing[other] = tree.member(players, j)[other]
            rows = {k: t[share * i : share * (i + 1)] for k, t in drawn.items()}
            rows["latent"] = rows["latent"][:, :-1]
            loss = lone.losses(facing, tree.member(constants, i), rows)[player]
        return torch.autograd.grad(loss, list(own.values()))

    truth = {
        player: {
            k: torch.stack([players[player][k][i] - 0.05 * grads[i][n] for i in range(COUNT)])
            for n, k in enumerate(players[player])
        }
        for player in game.players
        for grads in [[gradient(player, i) for i in range(COUNT)]]
    }
    truth = game.project(truth)
    taken = solver.step(VectorField(game), players, constants, solver.init(players), Known(extra=1))
    near(taken.players, truth)


@pytest.mark.parametrize("solver", [MirrorGAN, MirrorProxGAN])
def test_every_inner_step_deals_and_draws_noise_of_its_own(solver: Any) -> None:
    game = Mixture(GAMES["vanilla"](), COUNT)
    players, constants = game.init(0)
    made, draws = solver(RULE, inner=4), Known(extra=1)
    made.step(VectorField(game), players, constants, made.init(players), draws)
    steps = 8 if solver is MirrorProxGAN else 4
    for kind in ("pairs", "normals"):
        asked = [index for what, index in draws.noises if what == kind]
        assert len(asked) == len(set(asked)) == steps
    assert len({index for _, index in draws.noises}) == 2 * steps, "no index serves twice"


@pytest.mark.parametrize("pairing", ["random", "mean", "all"])
@pytest.mark.parametrize("size", [COUNT - 1, COUNT, COUNT + 1, 2 * COUNT - 1, 2 * COUNT])
def test_minibatches_that_can_be_shared_out_among_the_pairs(size: int, pairing: Any) -> None:
    """From one sample a pair on; what is proposed instead of another size is one that is taken."""
    game = Mixture(GAMES["vanilla"](), COUNT)
    players, constants = game.init(0)
    solver = MirrorGAN(RULE, inner=1, pairing=pairing)

    def step(size: int) -> Any:
        draws = Known(extra=1, size=size)
        return solver.step(VectorField(game), players, constants, solver.init(players), draws)

    if pairing != "all" and size % COUNT:
        with pytest.raises(GameError, match=f"a minibatch of {size} .* among {COUNT}") as caught:
            step(size)
        (proposed,) = re.findall(r"batch=(\d+)", str(caught.value))
        assert abs(int(proposed) - size) == 1, "the nearest"
        step(int(proposed))
    else:
        assert torch.isfinite(tree.flatten(step(size).players)).all()


def test_schedules_growth_and_conventions() -> None:
    game = GAMES["vanilla"]()
    players, constants = game.init(0)

    def moved(solver: Any, steps: int = 3) -> tuple[Any, list[int]]:
        x, state, asked = tree.clone(players), solver.init(players), []
        for step in range(steps):
            draws = Known(step)
            taken = solver.step(VectorField(game), x, constants, state, draws)
            x, state = taken.players, taken.state
            asked.append(len(draws.asked))
        return x, asked

    # K_t = floor(1.5^t 2) = 2, 3, 4.
    assert moved(MirrorGAN(RULE, inner=2, growth=1.5))[1] == [2, 3, 4]
    still = Piecewise(((0, 0.0), (1, 0.0)))
    frozen, _ = moved(MirrorGAN(RULE, inner=2, pace=still))
    near(frozen, players)
    cold, _ = moved(MirrorGAN(RULE, inner=2, heat=still))
    near(cold, moved(MirrorGAN(SGLD(0.05, 0.0), inner=2))[0])
    # The other convention is this one at half the step size.
    near(
        moved(MirrorGAN(SGLD(0.1, 0.1, "welling-teh"), inner=2))[0],
        moved(MirrorGAN(RULE, inner=2))[0],
    )
    warm, _ = moved(MirrorGAN(RULE, inner=2))
    assert (tree.flatten(warm) - tree.flatten(cold)).norm() > 1e-2
    assert MirrorGAN(SGLD(0.1, 0.1, "welling-teh")).rule("critic") == SGD(0.05)
    assert MirrorGAN(RMSPropSGLD(0.1, decay=0.8)).rule("critic") == RMSProp(0.1, 0.8, 1e-5)


@pytest.mark.parametrize("convention", ["langevin", "welling-teh"])
def test_stationary_variance_of_sgld(convention: Any) -> None:
    """On a x^2 / 2 the recursion's variance is eps^2 / (a (1 - h a / 2)), h = lr or lr / 2: temperature and bias."""
    a, rule = 2.0, SGLD(0.3, 0.7, convention)
    h = 0.3 if convention == "langevin" else 0.15
    x = {"x": torch.zeros(200_000, dtype=F64)}
    rng = torch.Generator().manual_seed(0)
    for _ in range(60):
        normals = {"x": torch.randn(200_000, generator=rng, dtype=F64)}
        rule.update({"x": a * x["x"]}, {}, x, normals)
    truth = 0.7**2 / (a * (1 - h * a / 2))
    error = 4 * math.sqrt(2 / 200_000) * truth
    assert abs(float(x["x"].var()) - truth) < error
    assert abs(0.7**2 / a - truth) > error, "the bias is visible"


def test_preconditioned_rule_is_rmsprop_without_noise_and_scales_noise_with_it() -> None:
    start = torch.tensor([1.0, -2.0, 3.0], dtype=F64)
    theirs = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.RMSprop([theirs], lr=0.01, alpha=0.9, eps=1e-5)
    rule, mine = RMSPropSGLD(0.01, 0.0, 0.9), {"x": start.clone()}
    state = rule.init(mine)
    for k in range(5):
        grad = torch.tensor([0.1, 10.0, -3.0], dtype=F64) * (k + 1)
        theirs.grad = grad.clone()
        optimizer.step()
        rule.update({"x": grad}, state, mine, {"x": torch.ones(3, dtype=F64)})
    torch.testing.assert_close(mine["x"], theirs.detach(), rtol=1e-12, atol=0)
    noisy = RMSPropSGLD(0.01, 0.5, 0.9)
    state, x = noisy.init(mine), {"x": torch.zeros(3, dtype=F64)}
    grad = torch.tensor([0.1, 10.0, -3.0], dtype=F64)
    noisy.update({"x": grad}, state, x, {"x": torch.ones(3, dtype=F64)})
    scale = 1 / (math.sqrt(0.1) * grad.abs() + 1e-5)
    truth = -0.01 * scale * grad + torch.sqrt(0.02 * scale) * 0.5
    torch.testing.assert_close(x["x"], truth, rtol=1e-12, atol=0)


def test_temperature_of_a_frozen_opponent() -> None:
    """A chain against a linear critic with an L2 pull, sampled by the solver: exp(-L / eps^2) has variance
    eps^2 / pull, up to the discretisation's factor."""

    class Pulled:
        players, zero_sum, separable = ("generator", "critic"), False, True

        def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
            x, y = players["generator"]["x"], players["critic"]["y"]
            return {"generator": (1.5 * x.square() / 2 + x * y).sum(), "critic": (y * 0.0).sum()}

        def refresh(self, players: Any, constants: Any, draw: Any, exact: bool = False) -> Any:
            return constants

        def project(self, players: Any) -> Any:
            return players

    n = 50_000
    players = {
        "generator": {"x": torch.zeros(n, dtype=F64)},
        "critic": {"y": torch.full((n,), 0.3, dtype=F64)},
    }
    solver = MirrorGAN(SGLD(0.1, 0.5), {"critic": SGLD(1e-12, 0.0)}, inner=80, beta=1.0)
    constants: Any = {"generator": {}, "critic": {}}
    x = solver.step(
        VectorField(Pulled()), players, constants, solver.init(players), Known()
    ).players["generator"]["x"]
    truth = 0.25 / (1.5 * (1 - 0.1 * 1.5 / 2))
    assert abs(float(x.var()) - truth) < 4 * math.sqrt(2 / n) * truth
    assert abs(float(x.mean()) + 0.3 / 1.5) < 4 * math.sqrt(truth / n)


BAD: list[tuple[Any, str]] = [
    (lambda: MirrorGAN(RULE, inner=0), r"MirrorGAN\.inner"),
    (lambda: MirrorGAN(RULE, beta=0.0), r"MirrorGAN\.beta"),
    (lambda: MirrorGAN(RULE, beta=1.5), r"MirrorGAN\.beta"),
    (lambda: MirrorGAN(RULE, growth=0.5), r"MirrorGAN\.growth"),
    (lambda: MirrorGAN(RULE, pairing="some"), r"MirrorGAN\.pairing"),  # type: ignore[arg-type]
    (lambda: MirrorGAN(RULE, pace=Piecewise), r"MirrorGAN\.pace"),  # type: ignore[arg-type]
    (lambda: MirrorGAN(SGLD), r"MirrorGAN\.sampler=SGLD"),  # type: ignore[arg-type]
    (lambda: MirrorProxGAN(torch.optim.Adam), r"MirrorProxGAN\.sampler=Adam"),  # type: ignore[arg-type]
    (lambda: SGLD(0.0), r"SGLD\.lr"),
    (lambda: SGLD(1e-3, -1.0), r"SGLD\.noise"),
    (lambda: SGLD(1e-3, 0.1, "other"), r"SGLD\.convention"),  # type: ignore[arg-type]
    (lambda: SGLD("1"), r"SGLD\.lr"),  # type: ignore[arg-type]
    (lambda: RMSPropSGLD(1e-3, 0.1, 1.0), r"RMSPropSGLD\.decay"),
    (lambda: RMSPropSGLD(1e-3, 0.1, eps=0.0), r"RMSPropSGLD\.eps"),
    (lambda: MirrorGAN(RULE, {"judge": RULE}).init({"generator": {"x": torch.ones(1)}}), "judge"),
]


@pytest.mark.parametrize(("make", "words"), BAD)
def test_bad_numbers(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        make()
    assert "\n" not in str(caught.value)


BOUNDS: list[tuple[Any, str, float, bool]] = [
    (MirrorGAN, "inner", 1, True),
    (MirrorGAN, "beta", 1, True),
    (MirrorGAN, "beta", 1 + 1e-9, False),
    (MirrorGAN, "beta", 1e-9, True),
    (MirrorGAN, "growth", 1, True),
    (MirrorGAN, "growth", 1 - 1e-9, False),
    (MirrorGAN, "growth", math.inf, False),
    (SGLD, "lr", 1e-300, True),
    (SGLD, "lr", math.inf, False),
    (SGLD, "noise", 0, True),
    (SGLD, "noise", -1e-9, False),
    (SGLD, "noise", math.inf, False),
    (RMSPropSGLD, "lr", 0, False),
    (RMSPropSGLD, "lr", math.inf, False),
    (RMSPropSGLD, "noise", 0, True),
    (RMSPropSGLD, "noise", -1e-9, False),
    (RMSPropSGLD, "noise", math.inf, False),
    (RMSPropSGLD, "decay", 0, True),
    (RMSPropSGLD, "decay", -1e-9, False),
    (RMSPropSGLD, "decay", 1 - 1e-9, True),
    (RMSPropSGLD, "eps", 1e-300, True),
    (RMSPropSGLD, "eps", math.inf, False),
]


@pytest.mark.parametrize(("kind", "name", "value", "taken"), BOUNDS)
def test_bounds_and_what_lies_just_beyond_them(
    kind: Any, name: str, value: float, taken: bool
) -> None:
    if taken:
        assert getattr(kind(**{name: value}), name) == value
        return
    for bad in (value, math.nan):
        with pytest.raises(ValueError, match=rf"^{kind.__name__}\.{name} must "):
            kind(**{name: bad})


@pytest.mark.parametrize("more", [{"growth": 1.5}, {"pace": Piecewise(((0, 1.0), (10, 0.5)))}])
def test_a_linear_map_is_of_one_step_size_and_one_number_of_inner_steps(
    more: dict[str, Any],
) -> None:
    jacobian = torch.tensor([[1.0, 2.0], [-2.0, 1.0]], dtype=F64)
    sizes = {"generator": 1, "critic": 1}
    still = SGLD(0.1, noise=0.0)
    assert MirrorGAN(sampler=still).linear_map(jacobian, sizes).shape == (2, 2)
    with pytest.raises(ValueError, match="one step size and one number of inner steps"):
        MirrorGAN(sampler=still, **more).linear_map(jacobian, sizes)


@pytest.mark.parametrize(
    "rule",
    [
        SGLD(0.1, 0.0, "welling-teh"),
        SGLD(0.1, 0.2),
        SGLD(0.1, 0.2, "welling-teh"),
        RMSPropSGLD(0.1, 0.0),
        RMSPropSGLD(0.1, 0.2),
        RMSPropSGLD(0.1, 0.0, convention="welling-teh"),
    ],
)
@pytest.mark.parametrize("solver", [MirrorGAN, MirrorProxGAN])
def test_a_linear_map_is_of_one_rule_only(solver: Any, rule: Any) -> None:
    """Whichever player has another one."""
    jacobian, still = torch.eye(2, dtype=F64), SGLD(0.1, 0.0)
    sizes = {"generator": 1, "critic": 1}
    for made in (solver(rule), *(solver(still, {player: rule}) for player in sizes)):
        with pytest.raises(ValueError, match=r"SGLD without noise, not of .*SGLD"):
            made.linear_map(jacobian, sizes)
