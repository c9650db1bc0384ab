"""Stacked layers: the members' own losses and gradients, taken in batches where that is allowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from equilibrist import tree
from equilibrist.core.draws import Batches, Draws, StackedDraws, Stream, generator
from equilibrist.core.field import VectorField
from equilibrist.data import eight_gaussians
from equilibrist.formulations import WGAN, Hinge, Vanilla
from equilibrist.formulations._base import both_scores
from equilibrist.games import GAN
from equilibrist.networks import MixtureCritic, MixtureGenerator
from equilibrist.nn import slopes, stacked
from equilibrist.nn.pure import PureModule
from equilibrist.nn.slopes import Slopes
from equilibrist.nn.stacked import Chain
from equilibrist.penalties import R1, GradientPenalty

F64 = torch.float64
MEMBERS = 3
Act = Callable[[], nn.Module]
ACTIVATIONS: dict[str, Act] = {
    "relu": nn.ReLU,
    "relu in place": lambda: nn.ReLU(inplace=True),
    "leaky": lambda: nn.LeakyReLU(0.2),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}
SINGLE = {"rtol": 1e-12, "atol": 1e-14}


def game(act: Act, formulation: Any = None, dtype: torch.dtype = F64, **options: Any) -> GAN:
    kind = {"dtype": dtype}

    def g() -> nn.Module:  # no bias, wide and thin layers, an activation at the end
        middle = [nn.Linear(8, 9, bias=False, **kind), act()]
        return nn.Sequential(
            nn.Linear(3, 8, **kind), act(), *middle, nn.Linear(9, 2, **kind), nn.Tanh()
        )

    def c() -> nn.Module:  # two affine maps in a row, one output
        return nn.Sequential(
            nn.Linear(2, 16, **kind), act(), nn.Linear(16, 8, **kind), nn.Linear(8, 1, **kind)
        )

    return GAN(g, c, formulation or Vanilla(), latent=3, **options)


def members(g: GAN, dtype: torch.dtype = F64) -> tuple[list[Any], list[Any], Any, Any, Any]:
    starts = [g.init(seed) for seed in range(MEMBERS)]
    data = eight_gaussians().to(dtype=dtype)
    draws = [g.draw(generator(s, Stream.DATA), data, 12, dtype) for s in range(MEMBERS)]
    players, constants = (tree.stack([start[i] for start in starts]) for i in (0, 1))
    return starts, draws, players, constants, tree.stack(draws)


def same(a: Any, b: Any, **tolerance: float) -> None:
    for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True):
        torch.testing.assert_close(x, y, **(tolerance or SINGLE))


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often layers ran in batches with the backward pass by hand."""
    calls = [0]
    plain = stacked._Stacked.forward

    def forward(*args: Any) -> Any:
        calls[0] += 1
        return plain(*args)

    monkeypatch.setattr(stacked._Stacked, "forward", staticmethod(forward))
    return calls


@pytest.mark.parametrize("act", list(ACTIVATIONS))
def test_members_are_single_runs(act: str, monkeypatch: pytest.MonkeyPatch) -> None:
    g = game(ACTIVATIONS[act])
    starts, draws, players, constants, draw = members(g)
    calls = counted(monkeypatch)
    for only in (None, "critic", "generator"):
        before = calls[0]
        v, losses = VectorField(g, stacked=MEMBERS)(players, constants, draw, only)
        assert calls[0] == before + 2  # both networks
        for i, (start, one) in enumerate(zip(starts, draws, strict=True)):
            alone = VectorField(g)(*start, one, only)
            same(tree.member(v, i), alone.v)
            same(tree.member(losses, i), alone.losses)
    assert calls[0] == 6  # single runs took none


@pytest.mark.parametrize("act", list(ACTIVATIONS))
def test_jacobian_products_of_members_are_those_of_single_runs(
    act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = game(ACTIVATIONS[act])
    starts, draws, players, constants, draw = members(g)
    calls = counted(monkeypatch)
    field = VectorField(g, stacked=MEMBERS)
    together = field.linearize(players, constants, draw)
    pulled = together.pullback(together.v)
    pushed = field.jvp(players, constants, together.v, draw)
    assert calls[0] == 0  # a graph of every operation is needed
    for i, (start, one) in enumerate(zip(starts, draws, strict=True)):
        alone = VectorField(g).linearize(*start, one)
        same(tree.member(pulled, i), alone.pullback(alone.v), rtol=1e-11, atol=1e-14)
        other = VectorField(g).jvp(*start, alone.v, one)
        same(tree.member(pushed, i), other, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("penalty", [GradientPenalty(), R1(1.0)], ids=["gradient", "r1"])
def test_penalties_differentiate_inside_of_the_stack(penalty: Any) -> None:
    g = game(nn.ReLU, WGAN(), penalties=[penalty])
    starts, draws, players, constants, draw = members(g)
    v, _ = VectorField(g, stacked=MEMBERS)(players, constants, draw)
    for i, (start, one) in enumerate(zip(starts, draws, strict=True)):
        same(tree.member(v, i), VectorField(g)(*start, one).v, rtol=1e-11, atol=1e-13)


def test_spectral_norm_and_frozen_layers_are_stacked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def critic() -> nn.Module:
        made = nn.Sequential(nn.Linear(2, 6, dtype=F64), nn.ReLU(), nn.Linear(6, 1, dtype=F64))
        made[0].bias.requires_grad_(False)
        return made

    def made() -> nn.Module:
        return nn.Sequential(nn.Linear(3, 2, dtype=F64), nn.Tanh())

    g = GAN(made, critic, Hinge(), latent=3, spectral_norm=True)
    starts, draws, players, constants, draw = members(g)
    calls = counted(monkeypatch)
    v, _ = VectorField(g, stacked=MEMBERS)(players, constants, draw)
    assert calls[0] == 2
    assert "0.bias" not in v["critic"]
    for i, (start, one) in enumerate(zip(starts, draws, strict=True)):
        same(tree.member(v, i), VectorField(g)(*start, one).v)


def test_under_autocast_members_are_single_runs() -> None:
    g = game(nn.ReLU, dtype=torch.float32)
    starts, draws, players, constants, draw = members(g, torch.float32)
    v, _ = VectorField(g, stacked=MEMBERS, autocast=torch.bfloat16)(players, constants, draw)
    assert all(leaf.dtype == torch.float32 for leaf in tree.leaves(v))
    full = VectorField(g, stacked=MEMBERS)(players, constants, draw).v
    assert not torch.equal(tree.flatten(v), tree.flatten(full))
    for i, (start, one) in enumerate(zip(starts, draws, strict=True)):
        alone = VectorField(g, autocast=torch.bfloat16)(*start, one)
        same(tree.member(v, i), alone.v, rtol=0.1, atol=2e-2)


def test_one_member_of_infinite_weights_leaves_the_others_alone() -> None:
    g = game(nn.ReLU)
    _, _, players, constants, draw = members(g)
    sound, _ = VectorField(g, stacked=MEMBERS)(players, constants, draw)
    players["critic"]["0.weight"][1] = float("inf")
    v, _ = VectorField(g, stacked=MEMBERS)(players, constants, draw)
    for i in (0, 2):
        same(tree.member(v, i), tree.member(sound, i), rtol=0, atol=0)
    assert not torch.isfinite(tree.flatten(tree.member(v, 1))).all()


def chains(module: nn.Module) -> int:
    return sum(type(m) is Chain for m in PureModule(module, "critic")._module.modules())


def hooked() -> nn.Module:
    made = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    made[0].register_forward_hook(lambda *_: None)
    return made


def weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)), nn.ReLU())


class Doubled(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("made", "count"),
    [
        (MixtureCritic, 1),
        (MixtureGenerator, 1),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU()), 1),
        (lambda: nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Softplus(), nn.Linear(2, 1)), 1),
        (lambda: nn.Sequential(nn.ReLU(), nn.Linear(2, 1)), 0),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Tanh()), 0),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.GELU()), 0),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.LeakyReLU(-0.5)), 0),
        (lambda: nn.Sequential(Doubled(2, 2), nn.ReLU()), 0),
        (lambda: nn.Sequential(), 0),
        (hooked, 0),
        (weight_normed, 0),
    ],
)
def test_what_is_a_chain(made: Callable[[], nn.Module], count: int) -> None:
    module = made()
    before = [type(m) for m in module.modules()]
    assert chains(module) == count
    assert [type(m) for m in module.modules()] == before  # the user's own is not touched


def chain(*layers: nn.Module) -> tuple[PureModule, dict[str, Tensor]]:
    module = nn.Sequential(*layers)
    return PureModule(module, "critic"), {k: p.detach() for k, p in module.named_parameters()}


def test_elsewhere_a_chain_is_a_sequential(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other transforms than one vmap, inputs that members share, and more dimensions."""
    torch.manual_seed(0)
    pure, p = chain(nn.Linear(2, 4, dtype=F64), nn.Tanh(), nn.Linear(4, 1, dtype=F64))
    calls = counted(monkeypatch)
    x = torch.randn(MEMBERS, 5, 2, dtype=F64)
    alone = torch.stack([pure(p, {}, one) for one in x])
    stacked = {k: t.expand(MEMBERS, *t.shape).clone() for k, t in p.items()}

    def run(q: dict[str, Tensor], points: Tensor) -> Tensor:
        out: Tensor = pure(q, {}, points)
        return out

    torch.testing.assert_close(vmap(run)(stacked, x), alone, **SINGLE)
    assert calls[0] == 1
    rest = {
        "weights shared": lambda: vmap(run, (None, 0))(p, x),
        "samples shared": lambda: vmap(run, (0, None))(stacked, x[0]),
        "one sample": lambda: vmap(run)(stacked, x[:, 0]),
        "two levels": lambda: vmap(lambda q, y: vmap(lambda z: run(q, z[None])[0])(y))(stacked, x),
        "gradient inside": lambda: vmap(grad(lambda q, y: run(q, y).sum()))(stacked, x)["0.bias"],
        "gradient outside": lambda: grad(lambda y: vmap(run)(stacked, y).sum())(x),
    }
    for call in rest.values():
        call()
    assert calls[0] == 1
    torch.testing.assert_close(rest["weights shared"](), alone, **SINGLE)
    torch.testing.assert_close(rest["two levels"](), alone, **SINGLE)
    own = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(vmap(run)(stacked, own).sum(), own)
    torch.testing.assert_close(rest["gradient outside"](), expected, **SINGLE)
    assert calls[0] == 2


def test_members_along_another_dimension() -> None:
    torch.manual_seed(0)
    pure, p = chain(nn.Linear(2, 4, dtype=F64), nn.ReLU())
    x = torch.randn(5, MEMBERS, 2, dtype=F64)
    stacked = {k: t.expand(MEMBERS, *t.shape).clone() for k, t in p.items()}
    out = vmap(lambda q, y: pure(q, {}, y), (0, 1))(stacked, x)
    torch.testing.assert_close(out, pure(p, {}, x).transpose(0, 1), **SINGLE)


def test_what_autograd_hands_in_is_not_overwritten() -> None:
    torch.manual_seed(0)
    pure, p = chain(nn.Linear(2, 4, dtype=F64), nn.ReLU(), nn.Linear(4, 3, dtype=F64), nn.Tanh())
    stacked = {k: t.expand(MEMBERS, *t.shape).clone().requires_grad_() for k, t in p.items()}
    x = torch.randn(MEMBERS, 5, 2, dtype=F64)
    out = vmap(lambda q, y: pure(q, {}, y))(stacked, x)
    slope = torch.randn_like(out)
    before = slope.clone()
    first = torch.autograd.grad(out, list(stacked.values()), slope, retain_graph=True)
    again = torch.autograd.grad(out, list(stacked.values()), slope)
    assert torch.equal(slope, before)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_a_second_derivative_is_refused_unless_announced() -> None:
    pure, p = chain(nn.Linear(2, 4, dtype=F64), nn.Tanh())
    stacked = {k: t.expand(MEMBERS, *t.shape).clone().requires_grad_() for k, t in p.items()}
    x = torch.ones(MEMBERS, 5, 2, dtype=F64)

    def second() -> Any:
        total = vmap(lambda q, y: pure(q, {}, y))(stacked, x).sum()
        (slope,) = torch.autograd.grad(total, stacked["0.bias"], create_graph=True)
        return torch.autograd.grad(slope.square().sum(), stacked["0.weight"])

    with pytest.raises(RuntimeError, match="under Slopes"):
        second()
    with Slopes():
        second()


def test_slopes_say_that_they_are_active() -> None:
    assert not slopes.active()
    with Slopes():
        with Slopes():
            assert slopes.active()
        assert slopes.active()
    assert not slopes.active()


@pytest.mark.parametrize("batch", [8, 2**14], ids=["blocks of steps", "step by step"])
def test_stacked_draws_are_the_members_own(batch: int) -> None:
    """In any order, across the blocks that small batches are drawn in, when a member leaves."""
    g = game(nn.ReLU, WGAN(), penalties=[GradientPenalty()])
    data = eight_gaussians()
    every = [Batches(lambda rng, n: g.draw(rng, data, n), batch, s) for s in (5, 1, 2)]
    fresh = [Batches(lambda rng, n: g.draw(rng, data, n), batch, s) for s in (5, 1, 2)]
    assert (every[0].steps > 1) == (batch == 8)
    visits = [(0, 0), (0, 1), (1, 0), (15, 1), (16, 1), (3, 0)]
    for who in ([0, 1, 2], [0, 2], [2, 0]):
        for step, index in visits:
            found = StackedDraws([every[i].at(step) for i in who]).batch(index)
            for place, i in enumerate(who):
                alone = fresh[i].at(step).batch(index)
                assert list(found) == list(alone)
                assert all(torch.equal(found[k][place], alone[k]) for k in alone)
    found["real"] = torch.zeros(1)  # what a solver does to its draw stays its own
    assert StackedDraws([every[i].at(3) for i in (2, 0)]).batch(0)["real"].shape != (1,)


def test_members_at_different_steps_are_stacked_one_by_one() -> None:
    g = game(nn.ReLU)
    data = eight_gaussians()
    every = [Batches(lambda rng, n: g.draw(rng, data, n), 8, s) for s in range(2)]
    rows: list[Draws] = [every[0].at(3), every[1].at(4)]
    found = StackedDraws(rows).batch(0)
    for i, row in enumerate(rows):
        same(tree.member(found, i), row.batch(0), rtol=0, atol=0)


class Counting:
    """A critic x -> w . x of `size` parameters that counts its passes."""

    samplewise = True

    def __init__(self, size: int) -> None:
        self.params, self.passes = {"w": torch.ones(size)}, 0

    def __call__(self, x: Tensor) -> Tensor:
        self.passes += 1
        return x.sum(1) * self.params["w"][0]


@pytest.mark.parametrize(
    ("size", "both", "passes"), [(10, True, 1), (10**6, True, 2), (10**6, False, 1)]
)
def test_large_critics_take_two_passes_where_both_players_move(
    size: int, both: bool, passes: int
) -> None:
    critic, real, fake = Counting(size), torch.rand(10, 2), torch.rand(10, 2)
    on_real, on_fake = both_scores(critic, real, fake, both_move=both)
    assert critic.passes == passes
    assert torch.equal(on_real, real.sum(1))
    assert torch.equal(on_fake, fake.sum(1))


@pytest.mark.parametrize(
    ("formulation", "only", "passes"),
    [
        (Vanilla(), None, 2),
        (Vanilla(), "critic", 1),
        (Vanilla(saturating=True), None, 2),
        (WGAN(), None, 2),
        (WGAN(), "critic", 1),
    ],
)
def test_single_movers_keep_one_pass(formulation: Any, only: str | None, passes: int) -> None:
    critic = Counting(10**6)
    formulation.losses(critic, torch.rand(10, 2), torch.rand(10, 2), only)
    assert critic.passes == passes


@pytest.mark.parametrize("members_", [None, MEMBERS])
def test_a_game_that_overrides_project_is_projected(members_: int | None) -> None:
    """A GAN without projections is feasible everywhere, but a class of one's own may say otherwise."""

    class Walled(GAN):
        def project(self, players: Any) -> Any:
            return tree.map(lambda t: t.clamp(-0.1, 0.1), players)

    made = game(nn.ReLU)
    walled = Walled(made.modules["generator"], made.modules["critic"], Vanilla(), latent=3)
    players = tree.map(torch.ones_like, members(made)[2] if members_ else made.init(0).players)
    assert (
        max(map(torch.max, tree.leaves(VectorField(walled, stacked=members_).project(players))))
        <= 0.1
    )
    same(VectorField(made, stacked=members_).project(players), players, rtol=0, atol=0)
