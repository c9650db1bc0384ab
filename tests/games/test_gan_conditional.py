"""Conditions, several players of a kind, further terms: the losses by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot, softplus

from equilibrist.auxiliary import Reconstruction, Term
from equilibrist.core import draws as drawing
from equilibrist.core.draws import Stream
from equilibrist.data import ArraySource
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN
from equilibrist.penalties import GradientPenalty

F64 = torch.float64


class Conditioned(nn.Module):
    """A map of (x, c): labels as one-hot codes, anything else as it is."""

    def __init__(self, wide: int, out: int, classes: int = 0) -> None:
        super().__init__()
        self.layer, self.classes = nn.Linear(wide, out, dtype=F64), classes

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        c = one_hot(c, self.classes).to(x.dtype) if self.classes else c
        return self.layer(torch.tanh(torch.cat([x, c], 1)))


class Labelled:
    """x near its label."""

    name, classes = "labelled", 3

    def sample_pairs(self, rng: Any, n: int) -> tuple[Tensor, Tensor]:
        label = torch.from_numpy(rng.integers(0, 3, size=n))
        return label[:, None] + 0.1 * drawing.normal(rng, (n, 2), F64, None), label

    def sample(self, rng: Any, n: int) -> Tensor:
        return self.sample_pairs(rng, n)[0]


def conditional(**kwargs: Any) -> GAN:
    torch.manual_seed(0)
    return GAN(
        Conditioned(3 + 3, 2, 3),
        Conditioned(2 + 3, 1, 3),
        kwargs.pop("formulation", WGAN()),
        latent=3,
        condition=3,
        **kwargs,
    )


def rng(step: int = 0) -> Any:
    return drawing.generator(0, Stream.DATA, step)


@pytest.mark.parametrize("formulation", [WGAN(), Vanilla()])
def test_real_and_generated_share_their_conditions(formulation: Any) -> None:
    g = conditional(formulation=formulation, penalties=[GradientPenalty(2.0)])
    players, constants = g.init()
    draw = g.draw(rng(), Labelled(), 9, F64)
    assert set(draw) == {"real", "condition", "latent", "mix"}
    assert draw["condition"].dtype == torch.int64
    found = g.losses(players, constants, draw)
    generator, critic = g.modules["generator"], g.modules["critic"]
    fake = generator(draw["latent"], draw["condition"])
    on_real = critic(draw["real"], draw["condition"]).flatten()
    on_fake = critic(fake, draw["condition"]).flatten()
    mixed = torch.lerp(fake, draw["real"], draw["mix"][:, None]).detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(mixed, draw["condition"]).sum(), mixed)
    penalty = 2 * (slope.norm(dim=1) - 1).square().mean()
    if isinstance(formulation, WGAN):
        expected = on_fake.mean() - on_real.mean() + penalty
    else:
        expected = softplus(-on_real).mean() + softplus(on_fake).mean() + penalty
    torch.testing.assert_close(found["critic"], expected, rtol=1e-12, atol=1e-13)
    assert g.separable
    assert g.samplewise


def test_conditions_of_any_shape_and_reconstruction() -> None:
    """Image to image, flattened: c has the shape of x, and the generator pays for being far from x."""
    torch.manual_seed(0)
    g = GAN(
        Conditioned(1 + 4, 4),
        Conditioned(4 + 4, 1),
        WGAN(),
        latent=1,
        condition=(4,),
        auxiliary=[Reconstruction(10.0)],
    )
    assert not g.zero_sum
    x, c = torch.rand(20, 4, dtype=F64), torch.rand(20, 4, dtype=F64)
    source = ArraySource(x, kind="points", conditions=c, dtype=F64)
    draw = g.draw(rng(), source, 7, F64)
    rows = [int((x == row).all(1).nonzero()) for row in draw["real"]]
    assert torch.equal(draw["condition"], c[rows]), "conditions follow their samples"
    players, constants = g.init()
    found = g.losses(players, constants, draw)
    fake = g.modules["generator"](draw["latent"], draw["condition"])
    own = -g.modules["critic"](fake, draw["condition"]).mean()
    real_term = g.modules["critic"](draw["real"], draw["condition"]).mean()
    expected = own + real_term + 10 * (fake - draw["real"]).abs().mean()
    torch.testing.assert_close(found["generator"], expected, rtol=1e-12, atol=1e-13)
    assert torch.equal(found["critic"], g.losses(players, constants, draw, "critic")["critic"])


def test_terms_reach_the_named_player_only() -> None:
    torch.manual_seed(0)
    plain = [nn.Linear(3, 2, dtype=F64), nn.Linear(2, 1, dtype=F64)]
    draw = {"real": torch.rand(5, 2, dtype=F64), "latent": torch.rand(5, 3, dtype=F64)}
    bare = GAN(*plain, Vanilla(), latent=3)
    drift = Term(
        "critic", lambda critic, fake, draw: critic(draw["real"]).square().mean(), 0.5, "drift"
    )
    more = GAN(*plain, Vanilla(), latent=3, auxiliary=[drift])
    players, constants = bare.init()
    a, b = bare.losses(players, constants, draw), more.losses(players, constants, draw)
    assert torch.equal(a["generator"], b["generator"])
    paid = 0.5 * plain[1](draw["real"]).square().mean()
    torch.testing.assert_close(b["critic"], a["critic"] + paid, rtol=1e-13, atol=0)
    assert "drift" in more.describe()["auxiliary"][0]


def test_several_critics_are_averaged_and_penalised_each() -> None:
    torch.manual_seed(0)
    critics = [
        nn.Sequential(nn.Linear(2, 5, dtype=F64), nn.Tanh(), nn.Linear(5, 1, dtype=F64))
        for _ in range(3)
    ]
    generator = nn.Linear(3, 2, dtype=F64)
    many = GAN(generator, critics, WGAN(), latent=3, penalties=[GradientPenalty()])
    assert many.heads == 3
    draw = many.draw(rng(), Labelled(), 8, F64)
    players, constants = many.init()
    found = many.losses(players, constants, draw)
    alone = []
    for critic in critics:
        one = GAN(generator, critic, WGAN(), latent=3, penalties=[GradientPenalty()])
        alone.append(one.losses(*one.init(), draw))
    for player in ("generator", "critic"):
        mean = sum(losses[player] for losses in alone) / 3
        torch.testing.assert_close(found[player], mean, rtol=1e-12, atol=1e-13)


def test_several_generators_are_a_mixture() -> None:
    torch.manual_seed(0)
    parts = [nn.Linear(3, 2, dtype=F64), nn.Linear(3, 2, dtype=F64)]
    game = GAN(parts, nn.Linear(2, 1, dtype=F64), WGAN(), latent=3)
    draw = game.draw(rng(), Labelled(), 50, F64)
    assert draw["latent"].shape == (50, 4)
    players, constants = game.init()
    fake = game.generate(players, constants, draw["latent"])
    first = (draw["latent"][:, -1] < 0)[:, None]
    z = draw["latent"][:, :-1]
    torch.testing.assert_close(
        fake, torch.where(first, parts[0](z), parts[1](z)), rtol=1e-13, atol=0
    )
    assert game.separable


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: conditional().draw(rng(), object(), 4, F64), "has no conditions"),
        (
            lambda: GAN(nn.Linear(3, 2), nn.Linear(2, 1), WGAN(), latent=3, condition=3),
            "and conditions",
        ),
        (
            lambda: GAN(nn.Linear(3, 2), nn.Linear(2, 1), WGAN(), latent=3, condition=0),
            "condition=0",
        ),
        (
            lambda: GAN(nn.Linear(3, 2), nn.Linear(2, 1), WGAN(), latent=3, condition=True),
            "condition=True",
        ),
        (lambda: GAN([nn.Linear(3, 2)], nn.Linear(2, 1), WGAN(), latent=3), "list of 1"),
        (
            lambda: GAN([nn.Linear(3, 2)] * 2, nn.Linear(2, 1), WGAN(), latent=(3, 1)),
            "latent as a dimension",
        ),
        (
            lambda: GAN(
                nn.Linear(3, 2), nn.Linear(2, 1), WGAN(), latent=3, auxiliary=[Reconstruction]
            ),
            "auxiliary holds Reconstruction",
        ),
        (
            lambda: GAN(
                nn.Linear(3, 2),
                nn.Linear(2, 1),
                WGAN(),
                latent=3,
                auxiliary=[Reconstruction(player="d")],
            ),
            "names no player",
        ),
    ],
)
def test_refused(make: Any, said: str) -> None:
    with pytest.raises(GameError, match=said) as seen:
        make()
    assert "\n" not in str(seen.value)


def test_reconstruction_refuses() -> None:
    with pytest.raises(ValueError, match="1 or 2"):
        Reconstruction(1.0, 3)
    with pytest.raises(ValueError, match="not negative"):
        Reconstruction(-1.0)
