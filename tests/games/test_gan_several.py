"""Several players of a kind, conditions and further terms together: by hand, in parts, in stacks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist import tree
from equilibrist.auxiliary import Reconstruction, Term
from equilibrist.core import draws as drawing
from equilibrist.core.draws import Stream
from equilibrist.core.field import VectorField
from equilibrist.data import ArraySource
from equilibrist.errors import GameError
from equilibrist.formulations import W2GAN, WGAN, Relativistic, Vanilla
from equilibrist.games import GAN
from equilibrist.networks import LinearGenerator, QuadraticCritic
from equilibrist.penalties import R1, R2, GradientPenalty

F64 = torch.float64


class Told(nn.Module):
    """Two layers on the input beside the one-hot code of its class."""

    def __init__(self, wide: int, out: int, classes: int = 3, norm: bool = False) -> None:
        super().__init__()
        self.classes = classes
        middle = [nn.BatchNorm1d(5, dtype=F64)] if norm else []
        self.body = nn.Sequential(
            nn.Linear(wide + classes, 5, dtype=F64),
            *middle,
            nn.Tanh(),
            nn.Linear(5, out, dtype=F64),
        )

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        # torch's one_hot fails where torch.func.grad runs inside of vmap.
        code = (c[:, None] == torch.arange(self.classes)).to(x.dtype)
        scores: Tensor = self.body(torch.cat([x, code], 1))
        return scores


class Picture(nn.Module):
    """Image to image: convolutions on the input beside the condition; latents are pictures too."""

    def __init__(self, channels: int, scores: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 1, 3, padding=1, dtype=F64)
        self.scores = scores

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        made: Tensor = torch.tanh(self.conv(torch.cat([x, c], 1)))
        return made.flatten(1).sum(1) if self.scores else made


def plain(a: int, b: int) -> nn.Module:
    return nn.Sequential(nn.Linear(a, 5, dtype=F64), nn.Tanh(), nn.Linear(5, b, dtype=F64))


def source(n: int = 40) -> ArraySource:
    x = torch.randn(n, 2, dtype=F64, generator=torch.Generator().manual_seed(1))
    return ArraySource(x, kind="points", labels=torch.arange(n) % 3, dtype=F64)


def conditional(formulation: Any = None, **more: Any) -> GAN:
    return GAN(
        more.pop("generator", lambda: Told(3, 2)),
        more.pop("critic", lambda: Told(2, 1)),
        formulation or WGAN(),
        latent=3,
        condition=3,
        **more,
    )


def rng(step: int = 0) -> Any:
    return drawing.generator(0, Stream.DATA, step)


def drift(head: Any, fake: Tensor, draw: Any) -> Tensor:
    return head(draw["real"]).square().mean()


# -- several of a kind ---------------------------------------------------------------------------


def test_spectral_norm_and_terms_reach_every_critic() -> None:
    torch.manual_seed(0)
    critics, generator = [plain(2, 1) for _ in range(3)], plain(3, 2)
    options: dict[str, Any] = {
        "latent": 3,
        "spectral_norm": True,
        "penalties": [R1(0.5)],
        "auxiliary": [Term("critic", drift, 0.1), Term("generator", lambda d, x, _: d(x).mean())],
    }
    many = GAN(generator, critics, Vanilla(), **options)
    assert len(many.normalised) == 6
    draw = many.draw(rng(), source(), 8, F64)
    players, constants = many.init()
    found, scale = many.losses(players, constants, draw), many.scale(players, constants, draw)
    v = VectorField(many)(players, constants, draw).v
    alone = [GAN(generator, critic, Vanilla(), **options) for critic in critics]
    ones = [one.losses(*one.init(), draw) for one in alone]
    for player in ("generator", "critic"):
        mean = sum(losses[player] for losses in ones) / 3
        torch.testing.assert_close(found[player], mean, rtol=1e-12, atol=1e-13)
    scales = [one.scale(*one.init(), draw) for one in alone]
    torch.testing.assert_close(scale, sum(scales) / 3)
    for index, one in enumerate(alone):
        own = VectorField(one)(*one.init(), draw).v["critic"]
        for name, gradient in own.items():
            torch.testing.assert_close(
                3 * v["critic"][f"critics.{index}.{name}"], gradient, rtol=1e-11, atol=1e-13
            )


def test_the_yardstick_is_that_of_all_critics() -> None:
    """Of WGAN it grows with the scores: the second critic's are a hundred times larger."""
    torch.manual_seed(0)
    small, generator = nn.Linear(2, 1, dtype=F64), plain(3, 2)
    large = nn.Linear(2, 1, dtype=F64)
    with torch.no_grad():
        large.weight.copy_(100 * small.weight)
        large.bias.copy_(100 * small.bias)
    both = GAN(generator, [small, large], WGAN(), latent=3)
    one = GAN(generator, small, WGAN(), latent=3)
    draw = one.draw(rng(), source(), 8, F64)
    torch.testing.assert_close(
        both.scale(*both.init(), draw), one.scale(*one.init(), draw) * 101 / 2
    )


def test_generators_with_batch_norm_are_not_separable() -> None:
    def build() -> nn.Module:
        return nn.Sequential(
            nn.Linear(3, 4, dtype=F64),
            nn.BatchNorm1d(4, dtype=F64),
            nn.Tanh(),
            nn.Linear(4, 2, dtype=F64),
        )

    game = GAN([build, build], plain(2, 1), WGAN(), latent=3)
    assert not game.separable
    assert game.samplewise
    players, constants = game.init(0)
    draw = game.draw(rng(), source(), 12, F64)
    before = tree.clone(constants)
    game.losses(players, constants, draw)
    assert all(
        torch.equal(a, b) for a, b in zip(*map(tree.leaves, (before, constants)), strict=True)
    )
    moved = game.refresh(players, constants, draw)["generator"]
    for index in range(2):  # each component sees the whole batch
        layer = nn.BatchNorm1d(4, dtype=F64)
        first = nn.functional.linear(
            draw["latent"][:, :-1],
            players["generator"][f"generators.{index}.0.weight"],
            players["generator"][f"generators.{index}.0.bias"],
        )
        layer(first)
        torch.testing.assert_close(moved[f"generators.{index}.1.running_mean"], layer.running_mean)
    with pytest.raises(GameError, match="in parts"):
        VectorField(game, parts=2)


def test_an_attribute_named_heads_is_no_ensemble() -> None:
    """As layers of attention have it."""

    class Attentive(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.body = 4, plain(2, 1)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.body(x)
            return scores

    game = GAN(plain(3, 2), Attentive(), WGAN(), latent=3)
    assert game.heads == 1
    assert VectorField(game)(*game.init(), game.draw(rng(), source(), 4, F64)).losses


# -- terms ---------------------------------------------------------------------------------------


def test_terms_under_only() -> None:
    """`only` takes the mover's terms and does not call the other's."""
    called: list[str] = []

    def term(player: str) -> Term:
        def function(critic: Any, fake: Tensor, draw: Any) -> Tensor:
            called.append(player)
            return critic(fake).square().mean()

        return Term(player, function, 2.0)

    game = conditional(Vanilla(), auxiliary=[term("generator"), term("critic")])
    bare = conditional(Vanilla())
    players, constants = game.init(3)
    draw = game.draw(rng(), source(), 9, F64)
    both = VectorField(game)(players, constants, draw)
    for player in ("generator", "critic"):
        called.clear()
        alone = VectorField(game)(players, constants, draw, only=player)
        assert called == [player]
        for name, gradient in alone.v[player].items():
            torch.testing.assert_close(gradient, both.v[player][name], rtol=1e-12, atol=1e-14)
        without = VectorField(bare)(players, constants, draw, only=player)
        assert tree.norm(tree.axpy(-1.0, without.v[player], alone.v[player])) > 1e-3


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda critic, fake, draw: critic(fake), ["gives shape [8]", "0-d tensor"]),
        (lambda critic, fake, draw: 0.5, ["gives float", "0-d tensor"]),
        (lambda critic, fake, draw: draw["label"].mean(), ["KeyError", "real, latent, condition"]),
        (lambda critic, fake: fake.mean(), ["TypeError", "with the critic, the generated samples"]),
    ],
)
def test_a_term_that_is_none_is_refused(function: Any, words: list[str]) -> None:
    with pytest.raises(GameError) as caught:
        conditional(auxiliary=[Term("critic", function, name="mine")])
    message = str(caught.value)
    assert "\n" not in message
    for word in ["Term(critic, mine", *words]:
        assert word in message


def test_a_table_that_is_too_small_for_the_classes_is_seen_at_once() -> None:
    class Table(nn.Module):
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.table, self.body = nn.Embedding(classes, 2, dtype=F64), plain(3, 2)

        def forward(self, z: Tensor, c: Tensor) -> Tensor:
            made: Tensor = self.body(z) + self.table(c)
            return made

    critic = Told(2, 1, 12)
    assert GAN(Table(12), critic, WGAN(), latent=3, condition=12)
    with pytest.raises(GameError, match=r"the generator fails on .* conditions"):
        GAN(Table(11), critic, WGAN(), latent=3, condition=12)


# -- images as conditions ------------------------------------------------------------------------


def test_pictures_to_pictures() -> None:
    torch.manual_seed(0)
    game = GAN(
        Picture(2),
        Picture(2, scores=True),
        Vanilla(),
        latent=(1, 4, 4),
        condition=(1, 4, 4),
        penalties=[R1(1.0)],
        auxiliary=[Reconstruction(10.0, 2)],
        spectral_norm=True,
    )
    assert game.separable
    x, c = torch.rand(2, 30, 1, 4, 4, dtype=F64)
    data = ArraySource(x, conditions=c, dtype=F64)
    draw = game.draw(rng(), data, 6, F64)
    players, constants = game.init()
    found = game.losses(players, constants, draw)
    fake = game.modules["generator"](draw["latent"], draw["condition"])
    scores = game.critic(players, constants, draw["condition"])
    expected = nn.functional.softplus(-scores(fake)).mean()
    expected = expected + 10 * (fake - draw["real"]).square().mean()
    torch.testing.assert_close(found["generator"], expected, rtol=1e-11, atol=1e-12)
    whole = VectorField(game)(players, constants, draw).v
    parts = VectorField(game, parts=3)(players, constants, draw).v
    torch.testing.assert_close(tree.flatten(parts), tree.flatten(whole), rtol=1e-11, atol=1e-13)


# -- in stacks and in parts ----------------------------------------------------------------------

GAMES: dict[str, Any] = {
    "gradient penalty": lambda: conditional(penalties=[GradientPenalty()]),
    "R1 and R2, paired": lambda: conditional(Relativistic(), penalties=[R1(0.5), R2(0.5)]),
    "spectral norm, terms": lambda: conditional(
        Vanilla(), spectral_norm=True, auxiliary=[Term("critic", drift, 0.3)]
    ),
    "several critics, penalty": lambda: conditional(
        critic=[lambda: Told(2, 1)] * 2, penalties=[GradientPenalty()]
    ),
    "several generators": lambda: conditional(generator=[lambda: Told(3, 2)] * 2),
}


@pytest.mark.parametrize("name", GAMES)
@pytest.mark.parametrize("only", [None, "generator", "critic"])
def test_stacked_conditional_games_equal_a_loop(name: str, only: Any) -> None:
    game = GAMES[name]()
    starts = [game.init(seed) for seed in range(3)]
    draws = [game.draw(rng(seed), source(), 6, F64) for seed in range(3)]
    alone = [
        VectorField(game)(*start, draw, only) for start, draw in zip(starts, draws, strict=True)
    ]
    players, constants = (tree.stack(part) for part in zip(*starts, strict=True))
    field = VectorField(game, stacked=3)
    together = field(players, constants, tree.stack(draws), only)
    for index, one in enumerate(alone):
        own = tree.member({"v": together.v, "losses": together.losses}, index)
        torch.testing.assert_close(
            tree.flatten(own["v"]), tree.flatten(one.v), rtol=1e-10, atol=1e-12
        )
        for player, loss in one.losses.items():
            torch.testing.assert_close(own["losses"][player], loss, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("name", GAMES)
def test_conditional_games_in_parts_equal_the_whole(name: str) -> None:
    game = GAMES[name]()
    assert game.separable
    players, constants = game.init(0)
    draw = game.draw(rng(), source(), 12, F64)
    whole, cut = VectorField(game), VectorField(game, parts=4)
    for only in (None, "generator", "critic"):
        a, b = whole(players, constants, draw, only), cut(players, constants, draw, only)
        torch.testing.assert_close(tree.flatten(b.v), tree.flatten(a.v), rtol=1e-11, atol=1e-13)
        for player, loss in a.losses.items():
            torch.testing.assert_close(b.losses[player], loss, rtol=1e-11, atol=1e-13)
    # Mixing up the conditions of the parts would show:
    shuffled = {**draw, "condition": draw["condition"].flip(0)}
    other = cut(players, constants, shuffled)
    assert not torch.allclose(
        tree.flatten(other.v), tree.flatten(whole(players, constants, draw).v)
    )


# -- mixed precision -----------------------------------------------------------------------------


def test_norms_and_transforms_stay_in_full_precision() -> None:
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 1))
    game = GAN(nn.Linear(3, 2), critic, WGAN(), latent=3, spectral_norm=True)
    players, constants = game.init()
    plain_ = game.critic(players, constants).params
    with torch.autocast("cpu", torch.bfloat16):
        seen = game.critic(players, constants).params
    for name, value in plain_.items():
        assert seen[name].dtype == torch.float32
        assert torch.equal(seen[name], value)
    game = GAN(LinearGenerator(2, 2), QuadraticCritic(2), W2GAN(), latent=2)
    players, constants = game.init()
    players["critic"]["A"] = 0.2 * torch.eye(2) + 0.01
    x = torch.randn(16, 2)
    exact = game.critic(players, constants).transform(x, 0.5)
    with torch.autocast("cpu", torch.bfloat16):
        under = game.critic(players, constants).transform(x, 0.5)
        rounded = game.modules["critic"](x, eta=0.5)
    assert torch.equal(under, exact)
    assert not torch.equal(rounded.float(), exact), "the comparison cannot fail"
