"""The vector field against dense derivatives written without it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear, logsigmoid

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Plain
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN, Quadratic
from equilibrist.penalties import GradientPenalty

F64 = torch.float64


def rand(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


# -- quadratic ---------------------------------------------------------------------------------------


def quadratic(n: int = 3, m: int = 2) -> Quadratic:
    return Quadratic(
        rand(n, n, seed=1), rand(n, m, seed=2), rand(m, m, seed=3), rand(n, seed=4), rand(m, seed=5)
    )


def at(n: int = 3, m: int = 2, seed: int = 6) -> dict[str, dict[str, Tensor]]:
    return {"x": {"value": rand(n, seed=seed)}, "y": {"value": rand(m, seed=seed + 1)}}


def dense(game: Quadratic) -> tuple[Tensor, Tensor]:
    """J and the constant of v = J x + r, from the definition of f."""
    top = torch.cat([game.A, game.B], 1)
    bottom = torch.cat([-game.B.T, game.C], 1)
    return torch.cat([top, bottom]), torch.cat([game.a, game.c])


def test_quadratic_field_and_products() -> None:
    game, here, u = quadratic(), at(), at(seed=20)
    J, r = dense(game)
    x, w = tree.flatten(here), tree.flatten(u)
    field = VectorField(game)
    result = field(here, {}, {})
    line = field.linearize(here, {}, {})
    for v in (result.v, line.v):
        torch.testing.assert_close(tree.flatten(v), J @ x + r, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(tree.flatten(line.pullback(u)), J.T @ w, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(
        tree.flatten(field.vjp(here, {}, u, {})), J.T @ w, rtol=1e-13, atol=1e-13
    )
    torch.testing.assert_close(
        tree.flatten(field.jvp(here, {}, u, {})), J @ w, rtol=1e-13, atol=1e-13
    )
    assert (J @ w - J.T @ w).norm() > 1, (
        "J and its transpose must differ for the test to tell them apart"
    )
    xs, ys = here["x"]["value"], here["y"]["value"]
    f = xs @ game.A @ xs / 2 + xs @ game.B @ ys - ys @ game.C @ ys / 2 + game.a @ xs - game.c @ ys
    torch.testing.assert_close(result.losses["x"], f, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(result.losses["y"], -f, rtol=1e-13, atol=1e-13)


def test_pullback_can_be_used_again() -> None:
    line = VectorField(quadratic()).linearize(at(), {}, {})
    first, second = line.pullback(at(seed=20)), line.pullback(at(seed=20))
    assert torch.equal(tree.flatten(first), tree.flatten(second))


# -- a small nonlinear GAN -----------------------------------------------------------------------------

SHAPES = {
    "generator": {"0.weight": (3, 2), "0.bias": (3,), "2.weight": (2, 3), "2.bias": (2,)},
    "critic": {"0.weight": (4, 2), "0.bias": (4,), "2.weight": (1, 4), "2.bias": (1,)},
}


def net(inner: int, outer: int, out: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(inner, outer, dtype=F64), nn.Tanh(), nn.Linear(outer, out, dtype=F64)
    )


def gan(kind: str) -> GAN:
    torch.manual_seed(3)
    options: dict[str, Any] = {
        "non-saturating": {"formulation": Vanilla()},
        "saturating": {"formulation": Vanilla(saturating=True)},
        "wgan": {"formulation": WGAN()},
        "penalty": {"formulation": WGAN(), "penalties": [GradientPenalty(3.0, 0.7)]},
        "normalised": {"formulation": Vanilla(), "spectral_norm": True},
    }[kind]
    return GAN(net(2, 3, 2), net(2, 4, 1), latent=2, **options)


KINDS = ["non-saturating", "saturating", "wgan", "penalty", "normalised"]
DRAW = {
    "real": rand(5, 2, seed=30) + 1,
    "latent": rand(5, 2, seed=31),
    "mix": torch.linspace(0, 1, 5, dtype=F64),
}


def by_hand(kind: str, players: Any, constants: Any) -> dict[str, Tensor]:
    """The two losses in plain tensor code; the penalty's input gradient of the two-layer critic in closed form."""
    g, d = players["generator"], dict(players["critic"])
    if kind == "normalised":
        for name in ("0.weight", "2.weight"):
            u, v = (constants["critic"][f"spectral_norm/{name}/{k}"] for k in "uv")
            d[name] = d[name] / (u[:, None] * d[name] * v[None, :]).sum()

    def critic(x: Tensor) -> Tensor:
        return linear(
            torch.tanh(linear(x, d["0.weight"], d["0.bias"])), d["2.weight"], d["2.bias"]
        )[:, 0]

    fake = linear(
        torch.tanh(linear(DRAW["latent"], g["0.weight"], g["0.bias"])), g["2.weight"], g["2.bias"]
    )
    real = DRAW["real"]
    if kind in ("wgan", "penalty"):
        value = critic(real).mean() - critic(fake).mean()
        losses = {"generator": value, "critic": -value}
        if kind == "penalty":
            mix = DRAW["mix"][:, None]
            between = mix * real + (1 - mix) * fake
            slope = 1 - torch.tanh(linear(between, d["0.weight"], d["0.bias"])) ** 2
            gradient = (slope * d["2.weight"]) @ d["0.weight"]
            losses["critic"] = -value + 3 * ((gradient**2).sum(1).sqrt() - 0.7).square().mean()
        return losses
    value = logsigmoid(critic(real)).mean() + logsigmoid(-critic(fake)).mean()
    own = value if kind == "saturating" else -logsigmoid(critic(fake)).mean()
    return {"generator": own, "critic": -value}


def flat_field(
    kind: str, x: Tensor, like: Any, constants: Any, create_graph: bool = False
) -> Tensor:
    """v at the flat vector x, by one separate backward pass for each player."""
    x = x if x.requires_grad else x.detach().requires_grad_()
    players = tree.unflatten(x, like)
    losses = by_hand(kind, players, constants)
    parts = []
    for player in ("generator", "critic"):
        parts += [
            g.reshape(-1)
            for g in torch.autograd.grad(
                losses[player],
                list(players[player].values()),
                create_graph=create_graph,
                retain_graph=True,
            )
        ]
    return torch.cat(parts)


@pytest.mark.parametrize("kind", KINDS)
def test_gan_field_and_products_equal_the_dense_jacobian(kind: str) -> None:
    game = gan(kind)
    players, constants = game.init()
    assert {
        p: {k: tuple(t.shape) for k, t in part.items()} for p, part in players.items()
    } == SHAPES
    # By hand, power vectors are constants: the frozen form. The exact one is in test_jacobian.py.
    field, x = VectorField(game, frozen=True), tree.flatten(players)
    v = field(players, constants, DRAW)
    torch.testing.assert_close(
        tree.flatten(v.v), flat_field(kind, x, players, constants), rtol=1e-12, atol=1e-13
    )
    for player, loss in by_hand(kind, players, constants).items():
        torch.testing.assert_close(v.losses[player], loss, rtol=1e-12, atol=1e-13)
    J = torch.autograd.functional.jacobian(
        lambda y: flat_field(kind, y, players, constants, True), x
    )
    step = 1e-5
    differences = torch.stack(
        [
            (
                flat_field(kind, x + step * e, players, constants)
                - flat_field(kind, x - step * e, players, constants)
            )
            / (2 * step)
            for e in torch.eye(len(x), dtype=F64)
        ],
        dim=1,
    )
    torch.testing.assert_close(J, differences, rtol=1e-6, atol=1e-8)
    assert (J - J.T).norm() > 1e-2
    line = field.linearize(players, constants, DRAW)
    torch.testing.assert_close(tree.flatten(line.v), tree.flatten(v.v), rtol=1e-12, atol=1e-13)
    for seed in range(3):
        u = rand(len(x), seed=seed)
        tangent = tree.unflatten(u, players)
        torch.testing.assert_close(
            tree.flatten(line.pullback(tangent)), J.T @ u, rtol=1e-11, atol=1e-12
        )
        torch.testing.assert_close(
            tree.flatten(field.jvp(players, constants, tangent, DRAW)),
            J @ u,
            rtol=1e-11,
            atol=1e-12,
        )


@pytest.mark.parametrize("kind", KINDS)
def test_only_gives_the_gradient_of_the_full_evaluation(kind: str) -> None:
    game = gan(kind)
    players, constants = game.init()
    field = VectorField(game)
    full = field(players, constants, DRAW)
    for player in game.players:
        part = field(players, constants, DRAW, only=player)
        assert list(part.v) == [player]
        for name, g in part.v[player].items():
            torch.testing.assert_close(g, full.v[player][name], rtol=1e-12, atol=1e-14)
        assert player in part.losses
        # "Up to terms that do not depend on its parameters": differences of losses are the same.
        moved = {**players, player: tree.scale(1.1, players[player])}
        there, whole = (
            field(moved, constants, DRAW, only=o).losses[player] for o in (player, None)
        )
        torch.testing.assert_close(
            there - part.losses[player], whole - full.losses[player], rtol=1e-10, atol=1e-13
        )
    critic = field(players, constants, DRAW, only="critic").losses["critic"]
    torch.testing.assert_close(critic, full.losses["critic"], rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("kind", ["saturating", "wgan"])
def test_one_backward_pass_of_a_zero_sum_game_equals_two(kind: str) -> None:
    game = gan(kind)
    players, constants = game.init()
    assert game.zero_sum
    once = VectorField(game)
    v, line = once(players, constants, DRAW).v, once.linearize(players, constants, DRAW)
    u = tree.unflatten(rand(tree.count(players), seed=9), players)
    pulled, pushed = line.pullback(u), once.jvp(players, constants, u, DRAW)
    game.zero_sum = False
    twice = VectorField(game)
    assert_same(v, twice(players, constants, DRAW).v)
    assert_same(pulled, twice.vjp(players, constants, u, DRAW))
    assert_same(pushed, twice.jvp(players, constants, u, DRAW))


def assert_same(a: Any, b: Any) -> None:
    for (path, x), (_, y) in zip(tree.items(a), tree.items(b), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-13, msg=lambda m, p=path: f"{p}: {m}")


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_callers_tensors_stay_as_they_are(kind: str, flag: bool) -> None:
    game = gan(kind)
    players, constants = game.init()
    draw = tree.clone(DRAW)
    tensors = [*tree.leaves(players), *tree.leaves(constants), *tree.leaves(draw)]
    for t in tensors:
        t.requires_grad_(flag)
    values, versions = [t.detach().clone() for t in tensors], [t._version for t in tensors]
    field = VectorField(game)
    results = [field(players, constants, draw, only=o) for o in (None, "generator", "critic")]
    line = field.linearize(players, constants, draw)
    results += [
        line[:2],
        (line.pullback(line.v), {}),
        (field.jvp(players, constants, line.v, draw), {}),
    ]
    renewed = field.refresh(players, constants, draw)
    for result in results:
        for leaf in [*tree.leaves(result[0]), *tree.leaves(result[1])]:
            assert not leaf.requires_grad, "a result carries a graph"
    for t, value, version in zip(tensors, values, versions, strict=True):
        assert t.requires_grad is flag
        assert t.grad is None
        assert t._version == version
        assert torch.equal(t, value)
    assert tree.leaves(renewed) == [] or all(not r.requires_grad for r in tree.leaves(renewed))


def test_field_works_under_no_grad() -> None:
    game = gan("wgan")
    players, constants = game.init()
    expected = VectorField(game)(players, constants, DRAW).v
    with torch.no_grad():
        assert_same(VectorField(game)(players, constants, DRAW).v, expected)


def test_norms_single_and_stacked() -> None:
    game = quadratic()
    here = [at(seed=s) for s in (0, 7)]
    alone = [VectorField(game).norms(h) for h in here]
    together = VectorField(game, stacked=2).norms(tree.stack(here))
    for i, n in enumerate(alone):
        for player in game.players:
            torch.testing.assert_close(
                n[player], here[i][player]["value"].norm(), rtol=1e-13, atol=0
            )
            torch.testing.assert_close(together[player][i], n[player], rtol=1e-13, atol=0)


def test_stacked_products_equal_members() -> None:
    game = gan("penalty")
    starts = [game.init() for _ in range(2)]
    players = [tree.map(lambda t, i=i: t + 0.1 * i, s.players) for i, s in enumerate(starts)]
    draws = [DRAW, {**DRAW, "real": DRAW["real"] * 2}]
    u = tree.unflatten(rand(tree.count(players[0]), seed=9), players[0])
    field = VectorField(game, stacked=2)
    args = tree.stack(players), tree.stack([s.constants for s in starts])
    line = field.linearize(*args, tree.stack(draws))
    pulled = line.pullback(tree.stack([u, u]))
    pushed = field.jvp(*args, tree.stack([u, u]), tree.stack(draws))
    assert line.losses["critic"].shape == (2,)
    for i in range(2):
        one = VectorField(game)
        assert_same(tree.member(pulled, i), one.vjp(players[i], starts[i].constants, u, draws[i]))
        assert_same(tree.member(pushed, i), one.jvp(players[i], starts[i].constants, u, draws[i]))
        assert_same(tree.member(line.v, i), one(players[i], starts[i].constants, draws[i]).v)


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_of_the_product(kind: str) -> None:
    """Players that u leaves out count as zero, and `only` gives that player's part."""
    game = gan(kind)
    players, constants = game.init()
    u = tree.unflatten(rand(tree.count(players), seed=9), players)
    line = VectorField(game).linearize(players, constants, DRAW)
    for mover in players:
        other = next(player for player in players if player != mover)
        filled = {mover: u[mover], other: tree.zeros_like(u[other])}
        whole = line.pullback(filled)
        assert_same(line.pullback({mover: u[mover]}), whole)
        for only in players:
            assert_same(line.pullback({mover: u[mover]}, only=only), {only: whole[only]})
    assert tree.norm(line.pullback({"critic": u["critic"]}, only="generator")) > 0


def test_reduce_sees_linear_quantities_only() -> None:
    """With reduce = doubling, every linear product doubles."""
    game, here, u = quadratic(), at(), at(seed=20)
    double = VectorField(game, reduce=lambda ts: [2 * t for t in ts])
    single = VectorField(game)
    assert_same(double(here, {}, {}).v, tree.scale(2, single(here, {}, {}).v))
    torch.testing.assert_close(
        double(here, {}, {}).losses["x"], 2 * single(here, {}, {}).losses["x"]
    )
    assert_same(double.vjp(here, {}, u, {}), tree.scale(2, single.vjp(here, {}, u, {})))
    assert_same(double.jvp(here, {}, u, {}), tree.scale(2, single.jvp(here, {}, u, {})))


# -- games that strain it ------------------------------------------------------------------------------


class Summed(Plain):
    """f = sum exp(x + y): the gradients by x and y are one and the same tensor inside autograd."""

    players = ("x", "y")
    zero_sum = True

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        f = torch.exp(players["x"]["value"] + players["y"]["value"]).sum()
        return {"x": f, "y": -f}


class Line(Summed):
    """f = sum (x + y): the gradients are expanded views of one number."""

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        f = (players["x"]["value"] + players["y"]["value"]).sum()
        return {"x": f, "y": -f}


class TwoBiases(Summed):
    """The second player has two parameters that enter as a sum."""

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        y = players["y"]
        f = (players["x"]["value"] * torch.tanh(y["a"] + y["b"])).sum()
        return {"x": f, "y": -f}


_ALIAS = "autograd may return one tensor for two parameters, and _negated negates in place"


def _two_passes(game: Any, here: Any) -> Any:
    slow = type(game)()
    slow.zero_sum = False
    return VectorField(slow)(here, {}, {}).v


@pytest.mark.parametrize("game", [Summed(), Line()], ids=lambda g: type(g).__name__)
def test_gradients_that_share_memory(game: Any) -> None:
    here = {"x": {"value": rand(3, seed=1)}, "y": {"value": rand(3, seed=2)}}
    expected = _two_passes(game, here)
    v = VectorField(game)(here, {}, {}).v
    assert_same(v, expected)
    assert_same(VectorField(game).linearize(here, {}, {}).v, v)


def test_two_parameters_of_the_second_player_that_share_their_gradient() -> None:
    here = {"x": {"value": rand(3, seed=1)}, "y": {"a": rand(3, seed=2), "b": rand(3, seed=3)}}
    assert_same(VectorField(TwoBiases())(here, {}, {}).v, _two_passes(TwoBiases(), here))


def test_a_zero_sum_critic_with_two_equal_biases() -> None:
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 4, dtype=F64), nn.Linear(4, 1, dtype=F64)
            self.left, self.right = (nn.Parameter(torch.randn(4, 2, dtype=F64)) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.tanh(linear(x, self.left + self.right, self.first.bias)))

    torch.manual_seed(0)
    game = GAN(net(2, 3, 2), Biased(), WGAN(), latent=2)
    players, constants = game.init()
    v = VectorField(game)(players, constants, DRAW).v
    assert_same(
        {"critic": v["critic"]}, VectorField(game)(players, constants, DRAW, only="critic").v
    )


class Independent(Plain):
    """x's loss ignores y and the other way round; one parameter is not used at all."""

    players = ("x", "y")

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        return {"x": (players["x"]["value"] ** 3).sum(), "y": players["y"]["value"].new_zeros(())}


def test_losses_without_a_graph_and_unused_parameters() -> None:
    here = {
        "x": {"idle": rand(2, seed=2), "value": rand(3, seed=1)},
        "y": {"value": rand(3, seed=2)},
    }
    u = {"x": {"idle": rand(2, seed=5), "value": rand(3, seed=4)}, "y": {"value": rand(3, seed=6)}}
    field = VectorField(Independent())
    x = here["x"]["value"]
    zero = {"value": torch.zeros(3, dtype=F64)}
    idle = torch.zeros(2, dtype=F64)
    expected = {"x": {"idle": idle, "value": 3 * x**2}, "y": zero}
    product = {"x": {"idle": idle, "value": 6 * x * u["x"]["value"]}, "y": zero}
    assert_same(field(here, {}, {}).v, expected)
    assert_same(field.vjp(here, {}, u, {}), product)
    assert_same(field.jvp(here, {}, u, {}), product)


def test_a_linear_game_has_a_zero_jacobian() -> None:
    class Tilted(Plain):
        players = ("x",)

        def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
            return {"x": 2 * players["x"]["value"].sum()}

    here = {"x": {"value": rand(3, seed=1)}}
    field = VectorField(Tilted())
    assert_same(field(here, {}, {}).v, {"x": {"value": torch.full((3,), 2.0, dtype=F64)}})
    zero = {"x": {"value": torch.zeros(3, dtype=F64)}}
    assert_same(field.vjp(here, {}, here, {}), zero)
    assert_same(field.jvp(here, {}, here, {}), zero)


def test_averaging_needs_a_separable_game() -> None:
    class Mixed(Independent):
        separable = False

    with pytest.raises(GameError, match="cannot be averaged over machines") as caught:
        VectorField(Mixed(), reduce=lambda ts: ts)
    assert "\n" not in str(caught.value)


class Reversed(Independent):
    """The player whose loss has no graph comes first."""

    players = ("y", "x")


def test_a_loss_without_a_graph_that_comes_first() -> None:
    here = {"y": {"value": rand(2, seed=2)}, "x": {"value": rand(3, seed=1)}}
    u = {"y": {"value": rand(2, seed=6)}, "x": {"value": rand(3, seed=4)}}
    expected = {
        "y": {"value": torch.zeros(2, dtype=F64)},
        "x": {"value": 6 * here["x"]["value"] * u["x"]["value"]},
    }
    assert_same(VectorField(Reversed()).jvp(here, {}, u, {}), expected)
    assert_same(VectorField(Reversed()).vjp(here, {}, u, {}), expected)


def _products(order: str, direction: str) -> None:
    game, here, u = quadratic(2, 2), at(2, 2), at(2, 2, seed=20)
    J, w = game.jacobian(), tree.flatten(u)
    players, tangent = {p: here[p] for p in order}, {p: u[p] for p in direction}
    field = VectorField(game)
    pushed, pulled = field.jvp(players, {}, tangent, {}), field.vjp(players, {}, tangent, {})
    for result, expected in ((pulled, J.T @ w), (pushed, J @ w)):
        got = torch.cat([result["x"]["value"], result["y"]["value"]])
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)


def test_products_in_the_games_order() -> None:
    _products("xy", "xy")


@pytest.mark.parametrize(("order", "direction"), [("yx", "yx"), ("xy", "yx"), ("yx", "xy")])
def test_products_for_players_in_another_order(order: str, direction: str) -> None:
    _products(order, direction)


class Counting(Plain):
    """A game whose members are computed one by one, and whose constant follows the draw."""

    players, one_by_one = ("x", "y"), True

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        x, y = players["x"]["value"], players["y"]["value"]
        return {"x": (x * y).sum(), "y": -(x * y).sum()}

    def refresh(self, players: Any, constants: Any, draw: Any, exact: bool = False) -> Any:
        return {"x": {"mean": constants["x"]["mean"] + draw["at"].mean()}, "y": {}}


@pytest.mark.parametrize("members", [0, 2])
def test_constants_of_a_game_that_is_computed_one_by_one(members: int) -> None:
    game, players = Counting(), at(2, 2)
    constants: Any = {"x": {"mean": torch.tensor([1.0, 10.0], dtype=F64)}, "y": {}}
    draw = {"at": torch.tensor([3.0, 5.0], dtype=F64)}
    if not members:
        found = VectorField(game).refresh(players, constants, draw)
        assert found["x"]["mean"].tolist() == [5.0, 14.0]
        return
    stacked = [tree.stack([t, tree.map(lambda v: 2 * v, t)]) for t in (players, constants, draw)]
    found = VectorField(game, stacked=members).refresh(*stacked)
    assert found["x"]["mean"].tolist() == [[5.0, 14.0], [10.0, 28.0]]
