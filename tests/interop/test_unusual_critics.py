"""What critics return: a score with features, maps of patches, several scales; and in which shape latents come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from unusual_modules import (
    F64,
    IMAGES,
    POINTS,
    audited,
    generator,
    losses,
    painter,
    said,
)

import equilibrist as eq
from equilibrist.errors import GameError


class DcganGenerator(nn.Module):
    """Latents as images of one pixel, [N, z, 1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(4, 8, 4, 1, 0, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(True),
            nn.ConvTranspose2d(8, 1, 4, 2, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z)


def test_latents_with_the_shape_of_an_image() -> None:
    torch.manual_seed(0)
    dcgan = nn.Sequential(nn.Conv2d(1, 8, 4, 2, 1), nn.LeakyReLU(0.2, True), nn.Conv2d(8, 1, 4))
    found = audited(DcganGenerator(), dcgan, IMAGES, latent=(4, 1, 1))
    assert found.about["game"]["latent"] == "z ~ N(0, I) in 4 dimensions, shaped [4, 1, 1]"


class WithFeatures(nn.Module):
    """Returns a score and the features that it came of."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.form = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2)), form
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Any:
        features = self.body(x)
        return self.form(self.head(features), features)


@pytest.mark.parametrize(
    "form",
    [
        lambda score, features: (score, features),
        lambda score, features: {"features": features, "logits": score},
        lambda score, features: [features, score],
    ],
    ids=["tuple", "dictionary", "list of features"],
)
def test_a_score_with_features_is_the_score(form: Any) -> None:
    clean = audited(generator(), WithFeatures(lambda score, features: score))
    assert said(audited(generator(), WithFeatures(form))) == said(clean)


class Patches(nn.Module):
    """A patch critic: a map of logits [N, 1, h, w]."""

    def __init__(self, seed: int = 1) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3, 1, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


X, Z = IMAGES[:6].double(), torch.randn(6, 4, dtype=F64, generator=torch.Generator().manual_seed(2))


def test_the_loss_on_a_map_is_the_mean_over_its_patches() -> None:
    g, c = painter().double(), Patches().double()
    game = eq.GAN(g, c, eq.Hinge(), latent=4, penalties=[eq.R1(3.0)])
    ours = losses(game, X, Z)
    x = X.clone().requires_grad_()
    real, fake = c(x), c(g(Z))
    assert real.shape == (6, 1, 4, 4)
    (slope,) = torch.autograd.grad(real.sum(), x)  # of each sample's map, its sum
    penalty = 3.0 / 2 * slope.square().sum((1, 2, 3)).mean()
    by_hand = F.relu(1 - real).mean() + F.relu(1 + fake).mean() + penalty
    torch.testing.assert_close(ours["critic"], by_hand, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours["generator"], -fake.mean(), rtol=1e-12, atol=0)


class MeanOfPatches(Patches):
    def forward(self, x: Tensor) -> Tensor:
        return self.model(x).mean((1, 2, 3))


def test_a_map_is_not_its_mean() -> None:
    """The loss of the mean score is another one; the penalty of the mean is that of the sum over patches squared."""
    penalised = {"latent": 4, "penalties": [eq.R1(1.0)]}
    on_maps = eq.GAN(painter(), Patches(), eq.Vanilla(), **penalised)
    on_means = eq.GAN(painter(), MeanOfPatches(), eq.Vanilla(), **penalised)
    a, b = (losses(game, X, Z)["generator"] for game in (on_maps, on_means))
    assert float(b) < float(a) - 1e-6  # Jensen: softplus is convex
    draw = {"mix": torch.linspace(0, 1, 6, dtype=F64)}
    for one, squared in (
        (eq.R1(1.0), eq.R1(16.0**2)),
        (eq.GradientPenalty(1.0 / 16**2, target=16.0), eq.GradientPenalty(1.0)),
    ):
        maps = eq.GAN(painter(), Patches(), eq.WGAN(), latent=4, penalties=[one])
        means = eq.GAN(painter(), MeanOfPatches(), eq.WGAN(), latent=4, penalties=[squared])
        a, b = (losses(game, X, Z, **draw)["critic"] for game in (maps, means))
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_patch_critics_are_audited_and_trained(tmp_path: Path) -> None:
    found = audited(painter(), Patches(), IMAGES, formulation=eq.LeastSquares())
    scores = [MeanOfPatches()(x).detach() for x in (IMAGES, painter()(torch.randn(2000, 4)))]
    share = (scores[0][:, None] > scores[1]).double().mean()
    low, high = found.facts.separation[1:]
    assert low - 0.05 < float(share) < high + 0.05  # pairs are ordered by the mean over the map
    game = eq.GAN(painter(), Patches(), eq.Relativistic(), latent=4, penalties=[eq.R1(1.0)])
    solver = eq.Alternating(optimizer=eq.Adam(1e-3))
    recipe = eq.Recipe(game, eq.ArraySource(IMAGES), solver, steps=3, batch=16)
    assert eq.train(recipe, tmp_path / "run", progress="none").step == 3


class Scales(nn.Module):
    """A multi-scale critic: a map for the image and one for its half."""

    def __init__(self, form: Callable[[list[Tensor]], Any]) -> None:
        super().__init__()
        self.critics, self.form = nn.ModuleList([Patches(1), Patches(2)]), form
        self.down = nn.AvgPool2d(3, 2, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> Any:
        return self.form([self.critics[0](x), self.critics[1](self.down(x))])


def test_the_loss_on_several_scores_is_the_mean_of_theirs() -> None:
    g, c = painter().double(), Scales(list).double()
    ours = losses(eq.GAN(g, c, eq.LeastSquares(1, 0, 1), latent=4, penalties=[eq.R1(2.0)]), X, Z)
    theirs = []
    for k in (0, 1):
        x = X.clone().requires_grad_()
        real, fake = c(x)[k], c(g(Z))[k]
        (slope,) = torch.autograd.grad(real.sum(), x)
        loss = ((real - 1).square().mean() + fake.square().mean()) / 2
        theirs.append(loss + slope.square().sum((1, 2, 3)).mean())
    assert real.shape[2:] == (2, 2)  # maps of unequal size: every scale counts as much
    torch.testing.assert_close(ours["critic"], sum(theirs) / 2, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    "form",
    [
        lambda maps: {"fine": maps[0], "coarse": maps[1]},
        lambda maps: [[m.repeat(1, 3, 1, 1), m] for m in maps],
        lambda maps: [[m.repeat(1, 3, 1, 1), m.flatten(1)] for m in maps],
        lambda maps: (maps, "features"),
    ],
    ids=["dictionary", "lists of features", "maps in a row", "a list in a tuple"],
)
def test_the_forms_in_which_several_scores_come(form: Any) -> None:
    listed = eq.GAN(painter(), Scales(list), eq.Vanilla(), latent=4)
    other = eq.GAN(painter(), Scales(form), eq.Vanilla(), latent=4)
    assert other.heads == 2
    assert losses(other, X, Z) == losses(listed, X, Z)


def test_several_scores_are_audited_also_of_several_critics() -> None:
    found = audited(painter(), Scales(list), IMAGES)
    assert found["nash"].verdict in eq.Verdict
    game = eq.GAN(painter(), [Patches(1), Scales(list)], eq.Vanilla(), latent=4)
    assert game.heads == 3
    alone = [eq.GAN(painter(), c, eq.Vanilla(), latent=4) for c in (Patches(1), Scales(list))]
    one, two = (losses(g, X, Z)["critic"] for g in alone)
    torch.testing.assert_close(losses(game, X, Z)["critic"], (one + 2 * two) / 3)


class Dropping(nn.Module):
    def __init__(self, form: Callable[[Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.net, self.form = nn.Sequential(nn.Linear(2, 8), nn.Dropout(), nn.Linear(8, 1)), form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.net(x))


def test_all_scores_of_one_critic_see_the_same_noise() -> None:
    """As in a loop that calls it once: one score twice is that score."""
    found = []
    for form in (lambda score: score, lambda score: [score, score]):
        game = eq.GAN(generator(), Dropping(form), eq.Vanilla(), latent=4)
        source = eq.ArraySource(POINTS, kind="points")
        draw = game.draw(np.random.default_rng(0), source, 16)
        start = game.init()
        found.append(game.losses(start.players, start.constants, draw))
    torch.testing.assert_close(*found)


def test_a_sigmoid_at_the_end_of_a_map() -> None:
    ended = nn.Sequential(Patches(), nn.Sigmoid())
    with pytest.raises(GameError, match=r"within \[0, 1\].*Vanilla\(probabilities=True\)"):
        eq.GAN(painter(), ended, eq.Vanilla(), latent=4)
    bounded = eq.GAN(painter(), ended, eq.Vanilla(probabilities=True), latent=4)
    free = eq.GAN(painter(), Patches(), eq.Vanilla(), latent=4)
    torch.testing.assert_close(losses(bounded, X, Z), losses(free, X, Z))


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda s: torch.cat([s, s], 1), r"to shape \[8, 2\]: it must return one score"),
        (lambda s: {"a": s, "b": "x"}, r"to a dict of a: shape \[8, 1\], b: str: it must"),
        (lambda s: (), r"to a tuple of nothing: it must"),
        (lambda s: [s.expand(-1, 3)], r"to a list of shape \[8, 3\]"),
    ],
)
def test_what_holds_no_score_is_refused(form: Any, message: str) -> None:
    with pytest.raises(GameError, match=message) as caught:
        eq.GAN(generator(), WithFeatures(lambda s, f: form(s)), eq.Vanilla(), latent=4)
    assert "\n" not in str(caught.value)


def test_a_second_score_in_a_tuple_is_warned_of_and_a_transform_needs_one_score() -> None:
    with pytest.warns(UserWarning, match="return a list if the loss is a mean over both"):
        eq.GAN(generator(), WithFeatures(lambda s, f: (s, s + 1)), eq.Vanilla(), latent=4)
    with pytest.raises(GameError, match="return the mean over the map"):
        eq.GAN(painter(), Patches(), eq.formulations.W2GAN(), latent=4)
