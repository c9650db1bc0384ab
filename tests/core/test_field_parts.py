"""Accumulation in parts and mixed precision: the same field, in less memory or fewer digits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from equilibrist import tree
from equilibrist.core.draws import Stream, generator
from equilibrist.core.field import VectorField
from equilibrist.core.game import Plain
from equilibrist.data import eight_gaussians
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN
from equilibrist.penalties import GradientPenalty

F64 = torch.float64


def game(dtype: torch.dtype = F64, norm: bool = False, **kwargs: Any) -> GAN:
    def g() -> nn.Module:
        middle = [nn.BatchNorm1d(8, dtype=dtype)] if norm else []
        return nn.Sequential(
            nn.Linear(3, 8, dtype=dtype), *middle, nn.Tanh(), nn.Linear(8, 2, dtype=dtype)
        )

    def c() -> nn.Module:
        return nn.Sequential(
            nn.Linear(2, 8, dtype=dtype), nn.Softplus(), nn.Linear(8, 1, dtype=dtype)
        )

    return GAN(g, c, kwargs.pop("formulation", WGAN()), latent=3, **kwargs)


def draw(g: GAN, n: int = 12, step: int = 0, dtype: torch.dtype = F64) -> Any:
    return g.draw(generator(0, Stream.DATA, step), eight_gaussians().to(dtype=dtype), n, dtype)


@pytest.mark.parametrize("penalties", [(), (GradientPenalty(),)], ids=["plain", "penalty"])
@pytest.mark.parametrize("parts", [2, 3, 12])
def test_parts_give_the_same_field_and_products(parts: int, penalties: Any) -> None:
    g = game(penalties=penalties)
    players, constants = g.init(0)
    batch = draw(g)
    whole, cut = VectorField(g), VectorField(g, parts=parts)
    for only in (None, "critic", "generator"):
        a, b = whole(players, constants, batch, only), cut(players, constants, batch, only)
        for x, y in zip(tree.leaves(a.v), tree.leaves(b.v), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)
        for p in a.losses:
            torch.testing.assert_close(a.losses[p], b.losses[p], rtol=1e-12, atol=1e-14)
    u = tree.map(torch.ones_like, players)
    for x, y in zip(
        tree.leaves(whole.vjp(players, constants, u, batch)),
        tree.leaves(cut.vjp(players, constants, u, batch)),
        strict=True,
    ):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-13)
    for x, y in zip(
        tree.leaves(whole.jvp(players, constants, u, batch)),
        tree.leaves(cut.jvp(players, constants, u, batch)),
        strict=True,
    ):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("parts", [0, -1, 1.5, True])
def test_what_is_no_number_of_parts_is_refused(parts: Any) -> None:
    with pytest.raises(GameError, match=r"parts=.*whole number of at least 1"):
        VectorField(game(), parts=parts)


@pytest.mark.parametrize("stacked", [False, True])
def test_each_part_holds_its_share_of_the_samples(stacked: bool) -> None:
    """Accumulation is for memory: a part that held the whole batch would give the same gradients."""
    g = game()
    batch = draw(g) if not stacked else tree.stack([draw(g, step=s) for s in range(2)])
    batch = {**batch, "weight": torch.ones((2,) if stacked else (), dtype=F64)}
    pieces = VectorField(g, parts=3, **({"stacked": 2} if stacked else {}))._cut(batch)
    dim = 1 if stacked else 0
    assert len(pieces) == 3
    for name in ("real", "latent"):
        assert all(piece[name].shape[dim] == 4 for piece in pieces)
        assert torch.equal(torch.cat([piece[name] for piece in pieces], dim), batch[name])
    assert all(torch.equal(piece["weight"], batch["weight"]) for piece in pieces)


def test_parts_of_stacked_players() -> None:
    g = game()
    starts = [g.init(s) for s in range(2)]
    stacked = [tree.stack([s[i] for s in starts]) for i in range(2)]
    batches = tree.stack([draw(g, step=s) for s in range(2)])
    found = VectorField(g, stacked=2, parts=3)(*stacked, batches)
    for i, s in enumerate(starts):
        alone = VectorField(g)(s.players, s.constants, draw(g, step=i))
        for x, y in zip(tree.leaves(tree.member(found.v, i)), tree.leaves(alone.v), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-14)


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(GameError, match="cannot be averaged in parts"):
        VectorField(game(norm=True), parts=2)
    g = game()
    with pytest.raises(GameError, match="12 cannot be cut into 5"):
        VectorField(g, parts=5)(*g.init(0), draw(g))


@pytest.mark.parametrize("formulation", [WGAN(), Vanilla()])
def test_mixed_precision_is_close_and_keeps_types(formulation: Any) -> None:
    g = game(torch.float32, formulation=formulation, penalties=[GradientPenalty()])
    players, constants = g.init(0)
    batch = draw(g, 64, dtype=torch.float32)
    full, mixed = VectorField(g), VectorField(g, autocast=torch.bfloat16)
    a, b = full(players, constants, batch), mixed(players, constants, batch)
    assert {t.dtype for t in tree.leaves(b.v)} == {torch.float32}
    assert {t.dtype for t in b.losses.values()} == {torch.float32}
    x, y = tree.flatten(a.v), tree.flatten(b.v)
    error = float((x - y).norm() / x.norm())
    assert 1e-5 < error < 0.05, "bfloat16 has eight bits: neither exact nor far off"


class Twice(Plain):
    """One weight, multiplied with 1 and with 2^-10 in matrix products of their own."""

    players, zero_sum, separable = ("x", "y"), False, True

    def losses(self, players: Any, constants: Any, draw: Any, only: Any = None) -> Any:
        w = players["x"]["w"]
        products = [torch.full((1, 1), factor) @ w for factor in (1.0, 2.0**-10)]
        return {"x": sum(p.float().sum() for p in products), "y": players["y"]["w"].sum()}


def test_under_mixed_precision_gradients_of_shared_weights_add_up_in_full() -> None:
    """In bfloat16 1 + 2^-10 is 1: weights are cast anew for every product, so that the sum is the parameter's."""
    players = {p: {"w": torch.ones(1, 1)} for p in ("x", "y")}
    field = VectorField(Twice(), autocast=torch.bfloat16)
    found = field(players, {"x": {}, "y": {}}, {}).v["x"]["w"]
    assert found.item() == 1 + 2.0**-10


def test_penalties_stay_in_full_precision() -> None:
    """At the same generated samples the penalty is the same number."""
    g = game(torch.float32, penalties=[GradientPenalty(1e4)])
    players, constants = g.init(0)
    batch = draw(g, 64, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = g.losses(players, constants, batch)["critic"]
        fake = g.generate(players, constants, batch["latent"]).float()
    critic = g.critic(players, constants)
    alone = GradientPenalty(1e4)(critic, batch["real"], fake, batch["mix"])
    rest = critic(fake).mean() - critic(batch["real"]).mean()
    torch.testing.assert_close(inside, alone + rest, rtol=1e-5, atol=2e-2)
