"""GANs on a bank of rows: losses, derivatives and audits are those of exactly these rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import equilibrist as eq
from equilibrist import GAN, FiniteGAN, Verdict, draw_of_rows, tree
from equilibrist.checks import audit_game
from equilibrist.errors import GameError
from equilibrist.solvers import Simultaneous, iterate
from equilibrist.spectra import jacobian

F64 = torch.float64


class Shift(nn.Module):
    """z + t."""

    def __init__(self) -> None:
        super().__init__()
        self.t = nn.Parameter(torch.zeros(2, dtype=F64))

    def forward(self, z: Tensor) -> Tensor:
        return z + self.t


class Slope(nn.Module):
    """w . x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.w


def rows(n: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return (
        1 + torch.randn(n, 2, generator=g, dtype=F64),
        torch.randn(n, 2, generator=g, dtype=F64),
    )


def shifted() -> GAN:
    """V = w . (mean x - mean z - t), the critic pays 2 |w|^2 besides: v = (-w, 4 w + t + mean z - mean x)."""
    return GAN(Shift(), Slope(), eq.WGAN(), latent=2, penalties=[eq.R1(4.0)])


def at(t: Tensor, w: Tensor) -> Any:
    return {"generator": {"t": t}, "critic": {"w": w}}


def test_field_and_jacobian_in_closed_form() -> None:
    x, z = rows()
    game = FiniteGAN(shifted(), x, z)
    gap, t, w = (
        x.mean(0) - z.mean(0),
        torch.tensor([0.3, -1.0], dtype=F64),
        torch.ones(2, dtype=F64),
    )
    losses = game.losses(at(t, w), {}, {})
    assert float(losses["generator"]) == pytest.approx(float(w @ (gap - t)), rel=1e-12)
    assert float(losses["critic"]) == pytest.approx(float(-w @ (gap - t) + 2 * w @ w), rel=1e-12)
    eye, zero = torch.eye(2, dtype=F64), torch.zeros(2, 2, dtype=F64)
    J = torch.cat([torch.cat([zero, -eye], 1), torch.cat([eye, 4 * eye], 1)])
    torch.testing.assert_close(jacobian(game, at(t, w)).matrix, J, rtol=1e-12, atol=1e-12)
    found = iterate(game, Simultaneous(eq.SGD(0.3)), at(t, w), 400)
    torch.testing.assert_close(found.last.players["generator"]["t"], gap, rtol=1e-9, atol=1e-9)


def test_an_audit_is_about_these_rows_alone() -> None:
    """The bank's own equilibrium is VERIFIED, and that of another bank of the same law is refuted."""
    x, z = rows()
    game, zero = FiniteGAN(shifted(), x, z), torch.zeros(2, dtype=F64)
    rung = ["stationary", "stable", "local", "nash"]

    def audited(t: Tensor, seed: int = 0) -> Any:
        settings = {"steps": 20, "starts": 1}
        return audit_game(
            game, at(t, zero), settings=settings, checks=rung, seed=seed, progress="none"
        )

    gap = x.mean(0) - z.mean(0)
    found = audited(gap)
    for claim in ("stationary", "stable", "local-nash/critic"):
        assert found[claim].verdict is Verdict.VERIFIED, str(found[claim])
    assert found["nash"].verdict is Verdict.NOT_REFUTED
    assert "exactly these 6 samples and 6 latents" in found["nash"].scope["data"]
    assert "exactly these 6 samples" in found["stationary/critic"].scope["data"]
    assert found["nash"].scope["penalties"] == "part of the critic's own loss"

    other = rows(seed=1)
    found, again = (audited(other[0].mean(0) - other[1].mean(0), seed) for seed in (0, 5))
    assert found["stationary"].verdict is Verdict.REFUTED
    low, high = found["nash/critic"].evidence["interval"]
    # -w . d + 2 |w|^2 is least at w = d / 4, by |d|^2 / 8.
    d = gap - (other[0].mean(0) - other[1].mean(0))
    assert low == high == pytest.approx(float(d @ d) / 8, rel=1e-2)
    residual = found["stationary/critic"].evidence["residual"]
    assert residual == again["stationary/critic"].evidence["residual"]


def test_an_audit_may_be_asked_for_lambda() -> None:
    """M of a critic of samples, against slopes differentiated one by one."""
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
    game = GAN(nn.Linear(2, 2), critic, eq.WGAN(), latent=2)
    x, z = rows()
    finite = FiniteGAN(game, x, z)
    players = tree.to(game.init().players, dtype=F64)
    names = list(players["critic"])

    def slope(*weights: Tensor) -> Tensor:
        W, b, v, _ = weights
        return torch.stack([(v[0] * (1 - torch.tanh(W @ one + b) ** 2)) @ W for one in x])

    assert names == ["0.weight", "0.bias", "2.weight", "2.bias"]
    parts = torch.autograd.functional.jacobian(slope, tuple(players["critic"].values()))
    G = torch.cat([part.reshape(len(x), 2, -1) for part in parts], -1)
    M = torch.einsum("bdi,bdj->ij", G, G) / len(x)
    torch.testing.assert_close(finite.sobolev(players), M, rtol=1e-10, atol=1e-12)
    found = audit_game(finite, players, checks=["proximal"], progress="none")
    assert "no critic of samples" not in found["proximal"].summary


@pytest.mark.parametrize("kind", ["batch norm", "two critics"])
def test_lambda_has_no_meaning_without_slopes_of_ones_own(kind: str) -> None:
    def critic() -> nn.Module:
        return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1))

    plain = [nn.Linear(2, 1), nn.Linear(2, 1)]
    game = GAN(nn.Linear(2, 2), critic() if kind == "batch norm" else plain, eq.WGAN(), latent=2)
    assert not hasattr(FiniteGAN(game, *rows()), "sobolev")


def test_everything_that_a_gan_can_have() -> None:
    """Conditions, a penalty between samples, exact spectral norm, a projection: the GAN's own losses on the rows."""

    class Shown(nn.Module):
        def __init__(self, d: int) -> None:
            super().__init__()
            self.table, self.last = nn.Embedding(3, 4), nn.Linear(4, d)
            self.first = nn.Linear(2, 4)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            out: Tensor = self.last(torch.tanh(self.first(x) + self.table(y)))
            return out

    torch.manual_seed(0)
    game = GAN(
        Shown(2),
        Shown(1),
        eq.WGAN(),
        latent=2,
        condition=3,
        penalties=[eq.GradientPenalty()],
        spectral_norm=("first.weight",),
        projections=[eq.WeightClipping(0.2)],
    )
    x, z = rows()
    bank = {
        "condition": torch.tensor([0, 1, 2, 0, 1, 2], dtype=torch.int32),
        "mix": torch.linspace(0, 1, 6),
    }
    finite = FiniteGAN(game, x, z, **bank)
    players, constants = (tree.to(part, dtype=F64) for part in game.init())
    players = tree.map(lambda t: t + 0.1, players)
    constants = game.refresh(players, constants, {}, exact=True)
    draw = {
        "real": x,
        "latent": z,
        "condition": bank["condition"].long(),
        "mix": bank["mix"].double(),
    }
    expected = game.losses(players, constants, draw)
    for player, loss in finite.losses(players, {}, {}).items():
        assert float(loss) == pytest.approx(float(expected[player]), rel=1e-10)
    torch.testing.assert_close(finite.project(players), game.project(players))
    narrow = finite.losses(tree.to(players, dtype=torch.float32), {}, {})
    assert narrow["critic"].dtype == torch.float32


def test_a_mixture_whose_weights_are_normalised() -> None:
    """Norms of each particle are exact and follow its weights: singular vectors solved for, and central differences."""
    torch.manual_seed(0)
    base = GAN(
        lambda: nn.Linear(3, 2),
        lambda: nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)),
        eq.Vanilla(),
        latent=3,
        spectral_norm=True,
    )
    mixture = eq.Mixture(base, 2)
    x = rows()[0]
    z = torch.randn(6, 4, dtype=F64)
    players, constants = mixture.init(0, dtype=F64)
    finite = FiniteGAN(mixture, x, z)

    def losses(at: Any) -> dict[str, Tensor]:
        fixed = mixture.refresh(at, constants, {}, exact=True)
        return mixture.losses(at, fixed, {"real": x, "latent": z})

    for player, loss in finite.losses(players, {}, {}).items():
        assert float(loss) == pytest.approx(float(losses(players)[player]), rel=1e-12)
    J, h = jacobian(mixture, players, constants, {"real": x, "latent": z}), 1e-4
    flat = tree.flatten(players)
    u = torch.zeros_like(flat)
    u[J.spans["critic"]] = torch.sin(torch.arange(len(u), dtype=F64))[J.spans["critic"]]
    with torch.no_grad():
        at = [
            float(losses(tree.unflatten(flat + k * h * u, players))["critic"]) for k in (-1, 0, 1)
        ]
    assert float(u @ J.matrix @ u) == pytest.approx((at[0] - 2 * at[1] + at[2]) / h**2, rel=1e-5)


def test_wrong_rows() -> None:
    game, (x, z) = shifted(), rows()
    labelled = GAN(nn.Bilinear(2, 1, 2), nn.Bilinear(2, 1, 1), eq.WGAN(), latent=2, condition=(1,))
    mixing = GAN(
        nn.Linear(2, 2), nn.Linear(2, 1), eq.WGAN(), latent=2, penalties=[eq.GradientPenalty()]
    )
    ones = torch.ones(6)
    cases: list[tuple[GAN, Any, Any, dict[str, Any], str]] = [
        (game, x, z[:5], {}, "latent must be a tensor with one row for each sample"),
        (game, x, None, {}, "latent must be a tensor"),
        (game, np.zeros((6, 2)), z, {}, "real must be a tensor"),
        (game, x[:0], z[:0], {}, "real must be a tensor with one row"),
        (game, x.long(), z, {}, "must be floats: scale them as in training"),
        (game, x / 0, z, {}, "real holds numbers that are not finite"),
        (game, x, z[:, :1], {}, r"latents of shape \[6, 1\] do not fit the game: give \[B, 2\]"),
        (game, x, z, {"condition": ones}, "the game has no use for condition: leave it out"),
        (game, x, z, {"mix": ones}, "the game has no use for mix: leave it out"),
        (labelled, x, z, {}, "condition must be a tensor"),
        (mixing, x, z, {}, "mix must be a tensor"),
        (mixing, x, z, {"mix": ones[:2]}, "mix must be a tensor with one row for each sample"),
    ]
    for owner, samples, latents, more, words in cases:
        with pytest.raises(GameError, match=f"draw_of_rows: .*{words}"):
            draw_of_rows(owner, samples, latents, **more)
