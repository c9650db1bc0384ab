"""GAN and the user's modules: copied, never touched, put back with the game's values, and moved on as torch would."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.core.draws import Stream, generator
from equilibrist.core.field import VectorField
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN, Normal
from equilibrist.optimizers import SGD
from equilibrist.penalties import GradientPenalty
from equilibrist.projections import WeightClipping
from equilibrist.solvers import Alternating, Simultaneous

F64 = torch.float64


def linear(inner: int, outer: int) -> nn.Linear:
    return nn.Linear(inner, outer, dtype=F64)


def norm(n: int, **options: Any) -> nn.Module:
    return nn.BatchNorm1d(n, dtype=F64, **options)


def plain(inner: int, outer: int) -> nn.Module:
    return nn.Sequential(linear(inner, 5), nn.Tanh(), linear(5, outer))


def normed(inner: int, outer: int, **options: Any) -> nn.Module:
    return nn.Sequential(
        linear(inner, 5),
        norm(5, **options),
        nn.Tanh(),
        linear(5, 4),
        norm(4, **options),
        nn.Tanh(),
        linear(4, outer),
    )


class TiedWeights(nn.Module):
    """Two layers, one weight."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.a, self.b, self.last = linear(inner, inner), linear(inner, inner), linear(inner, outer)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.b(torch.tanh(self.a(x)))))


class TwoPlaces(nn.Module):
    """One layer in two places."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.a = linear(inner, inner)
        self.body = nn.Sequential(self.a, nn.Tanh(), self.a, nn.Tanh(), linear(inner, outer))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Buffers(nn.Module):
    """A mask of integers, a flag, a constant that is not saved, and a buffer under two names."""

    def __init__(self, inner: int, outer: int, shared: bool = False) -> None:
        super().__init__()
        self.layer = linear(inner, outer)
        self.register_buffer("choice", torch.arange(inner).flip(0))
        self.register_buffer("mask", torch.arange(inner) != 0)
        self.register_buffer("scale", torch.linspace(1, 2, inner, dtype=F64), persistent=False)
        self.register_buffer("nothing", None)
        if shared:
            self.register_buffer("again", self.scale)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.scale + getattr(self, "again", 0)
        return self.layer(torch.where(self.mask, x[:, self.choice] * scale, x))


class Recurrent(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.cell, self.last = nn.GRU(1, 4, batch_first=True, dtype=F64), linear(4, outer)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.cell(x.unsqueeze(-1))[0][:, -1])


class Weighted(nn.Module):
    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.layer = nn.utils.parametrizations.weight_norm(linear(inner, outer))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


KINDS: dict[str, Any] = {
    "plain": plain,
    "batch norm": normed,
    "batch norm, cumulative": lambda i, o: normed(i, o, momentum=None),
    "batch norm, no statistics": lambda i, o: normed(i, o, track_running_stats=False),
    "batch norm, no gain": lambda i, o: normed(i, o, affine=False),
    "batch norm in eval mode": lambda i, o: warmed(normed(i, o)).eval(),
    "one layer in two places": TwoPlaces,
    "buffers": Buffers,
    "recurrent": Recurrent,
    "weight norm": Weighted,
    "tied weights": TiedWeights,
    "tied buffers": lambda i, o: Buffers(i, o, True),
}
KINDS = {
    name: pytest.param(
        build,
        id=name,
    )
    for name, build in KINDS.items()
}


def warmed(module: nn.Module) -> nn.Module:
    """Running statistics that are not those of a fresh layer."""
    with torch.no_grad():
        for k in range(3):
            module(
                torch.randn(
                    9, module[0].in_features, generator=torch.Generator().manual_seed(k), dtype=F64
                )
                + 2
            )
    return module


def batch(seed: int, n: int = 6) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return {
        "real": torch.randn(n, 3, generator=g, dtype=F64) + 1,
        "latent": torch.randn(n, 4, generator=g, dtype=F64),
        "mix": torch.rand(n, generator=g, dtype=F64),
    }


def pair(build: Any) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(11)
    return build(4, 3), build(3, 1)


def photograph(*modules: nn.Module) -> list[Any]:
    return [
        [
            (n, id(p), p._version, p.requires_grad, p.grad, p.detach().clone())
            for m in modules
            for n, p in m.named_parameters()
        ],
        [
            (n, id(b), b._version, b.requires_grad, None, b.clone())
            for m in modules
            for n, b in m.named_buffers()
        ],
        [
            (n, s.training, getattr(s, "track_running_stats", None), len(s._forward_hooks))
            for m in modules
            for n, s in m.named_modules()
        ],
    ]


def assert_same_photograph(a: list[Any], b: list[Any]) -> None:
    assert a[2] == b[2]
    for x, y in zip(a[0] + a[1], b[0] + b[1], strict=True):
        assert x[:5] == y[:5]
        assert torch.equal(x[5], y[5])


@pytest.mark.parametrize("build", list(KINDS.values()))
def test_users_modules_and_random_states_are_never_touched(build: Any) -> None:
    modules = pair(build)
    before = photograph(*modules)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    game = GAN(*modules, Vanilla(), latent=4)
    players, constants = game.init(5)
    field, solver = VectorField(game), Alternating(2, SGD(0.1))

    class Draws:
        def batch(self, index: int = 0) -> Any:
            return batch(index)

        def noise(self, like: Any, index: int = 0) -> Any:
            raise AssertionError

    state = solver.init(players)
    for _ in range(2):
        players, constants, state, _ = solver.step(field, players, constants, state, Draws())
    loaded = game.load(players, constants)
    for module in loaded.values():
        for p in module.parameters():
            p.data.zero_()
    game.describe()
    assert_same_photograph(before, photograph(*modules))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist()  # type: ignore[union-attr]
    start = game.init().players
    for module, player in zip(modules, game.players, strict=True):
        assert all(torch.equal(start[player][n], p) for n, p in module.named_parameters())


@pytest.mark.parametrize("build", list(KINDS.values()))
def test_the_game_computes_what_the_modules_compute(build: Any) -> None:
    g, c = pair(build)
    game = GAN(g, c, WGAN(), latent=4)
    players, constants = game.init()
    draw = batch(0)
    losses = game.losses(players, constants, draw)
    g, c = copy.deepcopy(g), copy.deepcopy(c)
    fake = g(draw["latent"])
    expected = c(draw["real"]).mean() - c(fake).mean()
    torch.testing.assert_close(losses["generator"], expected.detach(), rtol=1e-12, atol=1e-13)
    v = VectorField(game)(players, constants, draw).v
    for player, module, sign in (("generator", g, 1), ("critic", c, -1)):
        grads = torch.autograd.grad(sign * expected, list(module.parameters()), retain_graph=True)
        for (name, _), reference in zip(module.named_parameters(), grads, strict=True):
            torch.testing.assert_close(v[player][name], reference, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("build", list(KINDS.values()))
@pytest.mark.parametrize("spectral", [False, True])
def test_loaded_modules_compute_what_the_game_computes(build: Any, spectral: bool) -> None:
    if spectral and build in (Weighted, Recurrent):
        build = plain
    game = GAN(*pair(build), Vanilla(), latent=4, spectral_norm=spectral)
    players, constants = game.init()
    players = tree.map(
        lambda t: (
            t + 0.2 * torch.randn(t.shape, generator=torch.Generator().manual_seed(3), dtype=F64)
        ),
        players,
    )
    for k in range(3):
        constants = game.refresh(players, constants, batch(k))
    draw = batch(7)
    # A loaded critic has norms of exactly 1, as an audit holds them; power vectors lag behind.
    constants = game.refresh(players, constants, draw, exact=True)
    modules = game.load(players, constants)
    fake = game.generate(players, constants, draw["latent"])
    scores = game.critic(players, constants)(draw["real"])
    for _ in range(
        2
    ):  # also the second time: the modules keep no state that would change the answer
        torch.testing.assert_close(
            modules["generator"](draw["latent"]).detach(), fake, rtol=1e-12, atol=1e-13
        )
        torch.testing.assert_close(
            modules["critic"](draw["real"]).flatten().detach(), scores, rtol=1e-12, atol=1e-13
        )
    for player in game.players:
        for name, buffer in game.load(players, constants)[player].named_buffers():
            assert torch.equal(buffer, constants[player][name])
    for p in modules["critic"].parameters():
        p.data.zero_()
    assert torch.equal(game.critic(players, constants)(draw["real"]), scores), "memory is shared"


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_refresh_leaves_what_torchs_own_forward_passes_leave(momentum: float | None) -> None:
    """G(z), D(x), D(G(z)) in train mode, once for each refresh."""
    g, c = pair(lambda i, o: normed(i, o, momentum=momentum))
    game = GAN(g, c, Vanilla(), latent=4)
    players, constants = game.init()
    g, c = copy.deepcopy(g), copy.deepcopy(c)
    for k in range(4):
        draw = batch(k, 5 + k)
        before = tree.clone(constants)
        renewed = game.refresh(players, constants, draw)
        assert all(
            torch.equal(a, b)
            for a, b in zip(tree.leaves(before), tree.leaves(constants), strict=True)
        )
        constants = renewed
        fake = g(draw["latent"])
        c(draw["real"])
        c(fake)
        for player, module in (("generator", g), ("critic", c)):
            assert len(list(module.named_buffers())) == 6
            for name, buffer in module.named_buffers():
                torch.testing.assert_close(constants[player][name], buffer, rtol=1e-12, atol=1e-13)
                assert constants[player][name].dtype == buffer.dtype
    assert int(constants["critic"]["1.num_batches_tracked"]) == 8
    assert (
        game.refresh(players, constants, batch(9), exact=True)["critic"]["1.running_mean"]
        is constants["critic"]["1.running_mean"]
    )


def test_losses_do_not_move_running_statistics() -> None:
    game = GAN(*pair(normed), Vanilla(), latent=4)
    players, constants = game.init()
    before = [(t._version, t.clone()) for t in tree.leaves(constants)]
    VectorField(game)(players, constants, batch(0))
    VectorField(game).linearize(players, constants, batch(0))
    for t, (version, value) in zip(tree.leaves(constants), before, strict=True):
        assert t._version == version
        assert torch.equal(t, value)


def test_statistics_of_a_layer_in_eval_mode_stay() -> None:
    game = GAN(*pair(lambda i, o: warmed(normed(i, o)).eval()), Vanilla(), latent=4)
    players, constants = game.init()
    renewed = game.refresh(players, constants, batch(0))
    assert all(
        torch.equal(a, b) for a, b in zip(tree.leaves(renewed), tree.leaves(constants), strict=True)
    )


def test_stacked_refresh_of_statistics_and_vectors_equals_members() -> None:
    game = GAN(lambda: normed(4, 3), lambda: normed(3, 1), Vanilla(), latent=4, spectral_norm=True)
    starts, draws = [game.init(s) for s in range(3)], [batch(k) for k in range(3)]
    field = VectorField(game, stacked=3)
    for exact in (False, True):
        together = field.refresh(
            tree.stack([s.players for s in starts]),
            tree.stack([s.constants for s in starts]),
            tree.stack(draws),
            exact,
        )
        for i, (s, d) in enumerate(zip(starts, draws, strict=True)):
            alone = game.refresh(s.players, s.constants, d, exact)
            for (path, x), (_, y) in zip(
                tree.items(tree.member(together, i)), tree.items(alone), strict=True
            ):
                torch.testing.assert_close(
                    x, y, rtol=1e-10, atol=1e-10, msg=lambda m, p=path: f"{p}: {m}"
                )


def test_seeds_build_afresh_and_modules_keep_their_weights() -> None:
    module = plain(3, 1)
    game = GAN(lambda: plain(4, 3), module, Vanilla(), latent=4)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    a, b, again, default = game.init(1), game.init(2), game.init(1), game.init()
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(tree.flatten(a.players), tree.flatten(again.players))
    assert not torch.equal(
        tree.flatten(a.players["generator"]), tree.flatten(b.players["generator"])
    )
    assert not torch.equal(
        tree.flatten(a.players["generator"]), tree.flatten(default.players["generator"])
    )
    for start in (a, b, default):
        assert torch.equal(
            tree.flatten(start.players["critic"]), tree.flatten(dict(module.named_parameters()))
        )
    both = GAN(lambda: plain(4, 4), lambda: plain(4, 1), Vanilla(), latent=4).init(3).players
    assert not torch.equal(both["generator"]["0.weight"], both["critic"]["0.weight"]), (
        "players share their seed"
    )


def test_init_takes_a_dtype() -> None:
    game = GAN(
        *pair(normed), WGAN(), latent=4, spectral_norm=True, projections=[WeightClipping(0.3)]
    )
    players, constants = game.init(dtype=torch.float32)
    assert {t.dtype for t in tree.leaves(players)} == {torch.float32}
    assert {t.dtype for t in tree.leaves(constants)} == {torch.float32, torch.int64}
    draw = {k: t.float() for k, t in batch(0).items()}
    assert all(
        t.dtype == torch.float32 for t in tree.leaves(VectorField(game)(players, constants, draw).v)
    )


def test_power_vectors_are_exact_at_the_projected_start() -> None:
    game = GAN(
        *pair(plain), WGAN(), latent=4, spectral_norm=True, projections=[WeightClipping(0.1)]
    )
    players, constants = game.init()
    W = players["critic"]["0.weight"]
    u, v = (constants["critic"][f"spectral_norm/0.weight/{k}"] for k in "uv")
    assert float(u @ W @ v) == pytest.approx(float(torch.linalg.svdvals(W)[0]), rel=1e-12)
    assert float(W.abs().max()) <= 0.1


def test_draws_hold_what_the_game_needs() -> None:
    class Ones:
        def sample(self, rng: Any, n: int) -> Tensor:
            return torch.ones(n, 3, dtype=F64)

    bare = GAN(*pair(plain), WGAN(), latent=4)
    paid = GAN(*pair(plain), WGAN(), latent=Normal(4), penalties=[GradientPenalty()])
    assert bare.zero_sum
    assert not paid.zero_sum
    rng = lambda: generator(0, Stream.DATA)  # noqa: E731
    draw = paid.draw(rng(), Ones(), 5, F64)
    assert {k: tuple(t.shape) for k, t in draw.items()} == {
        "real": (5, 3),
        "latent": (5, 4),
        "mix": (5,),
    }
    assert draw["latent"].dtype == draw["mix"].dtype == F64
    assert set(bare.draw(rng(), Ones(), 5)) == {"real", "latent"}
    paid.losses(*paid.init(), draw)


def test_describe_is_plain() -> None:
    import json

    game = GAN(*pair(plain), WGAN(), latent=4, spectral_norm=True, projections=[WeightClipping()])
    text = json.loads(json.dumps(game.describe()))
    assert text["players"]["generator"]["parameters"] == 4 * 5 + 5 + 5 * 3 + 3
    assert text["spectral_norm"] is True
    assert text["zero_sum"] is True


def test_vanilla_simultaneous_and_zero_sum_wgan_move_both() -> None:
    game = GAN(*pair(plain), WGAN(), latent=4)
    players, constants = game.init()
    start, solver = tree.clone(players), Simultaneous(SGD(0.1))

    class Draws:
        batch = staticmethod(lambda index=0: batch(index))

    moved = solver.step(
        VectorField(game), players, constants, solver.init(players), Draws()
    ).players
    for player in game.players:
        assert tree.norm(tree.axpy(-1.0, start[player], moved[player])) > 1e-3


# -- found wanting ---------------------------------------------------------------------------------------


def test_a_game_does_not_change_when_the_users_module_does() -> None:
    g, c = pair(plain)
    game = GAN(g, c, Vanilla(), latent=4)
    before = tree.flatten(game.init().players)
    with torch.no_grad():
        c[0].weight.zero_()
    assert torch.equal(tree.flatten(game.init().players), before)


def test_loaded_modules_run_in_the_mode_that_was_handed_over() -> None:
    g, c = pair(normed)
    game = GAN(g, c, Vanilla(), latent=4)
    players, constants = game.init()
    g.eval()
    draw = batch(0)
    torch.testing.assert_close(
        game.load(players, constants)["generator"](draw["latent"]).detach(),
        game.generate(players, constants, draw["latent"]),
        rtol=1e-12,
        atol=1e-13,
    )


def test_frozen_parameters_stay() -> None:
    g, c = pair(plain)
    c[0].requires_grad_(False)
    game = GAN(g, c, Vanilla(), latent=4)
    players, constants = game.init()
    v = VectorField(game)(players, constants, batch(0)).v
    assert "0.weight" not in v["critic"] or float(v["critic"]["0.weight"].abs().max()) == 0


def test_real_samples_are_drawn_in_the_asked_dtype() -> None:
    class Doubles:
        def sample(self, rng: Any, n: int) -> Tensor:
            return torch.ones(n, 3, dtype=F64)

    game = GAN(nn.Linear(4, 3), nn.Linear(3, 1), Vanilla(), latent=4)
    game.losses(*game.init(), game.draw(generator(0, Stream.DATA), Doubles(), 5, torch.float32))
