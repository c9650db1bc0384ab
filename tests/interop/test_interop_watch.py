"""Audits in the middle of somebody else's loop: they find what is there and leave no trace."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy

from equilibrist.checks import CHECKS, Settings, audit_game
from equilibrist.data import digits
from equilibrist.errors import DataError, GameError, RecipeError
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN
from equilibrist.interop import Watch, source_of
from equilibrist.projections import WeightClipping


def pair(norm: bool = True) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(8)] if norm else []
    return (
        nn.Sequential(nn.Linear(3, 8), *middle, nn.ReLU(), nn.Linear(8, 2)),
        nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1)),
    )


REAL = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))


def script(watch_every: int) -> tuple[list[torch.Tensor], Any]:
    """A plain loop that knows nothing of the library, with a watch put into it."""
    generator, critic = pair()
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(REAL), batch_size=50, shuffle=True
    )
    watch = Watch(
        generator, critic, Vanilla(), loader, latent=3, every=watch_every, gradients=240, batch=32
    )
    og = torch.optim.Adam(generator.parameters(), 1e-3)
    oc = torch.optim.Adam(critic.parameters(), 1e-3)
    step = 0
    for _ in range(2):
        for (real,) in loader:
            step += 1
            fake = generator(torch.randn(len(real), 3))
            loss = nn.functional.softplus(-critic(real)).mean()
            loss = loss + nn.functional.softplus(critic(fake.detach())).mean()
            oc.zero_grad()
            loss.backward()
            oc.step()
            og.zero_grad()
            nn.functional.softplus(-critic(fake)).mean().backward()
            og.step()
            watch(step)
    everything = [t.clone() for m in (generator, critic) for t in m.state_dict().values()]
    everything += [p.grad.clone() for m in (generator, critic) for p in m.parameters()]
    everything += [
        t.clone()
        for o in (og, oc)
        for s in o.state_dict()["state"].values()
        for t in s.values()
        if isinstance(t, torch.Tensor)
    ]
    return everything, watch


def test_the_watched_loop_ends_with_the_same_bits() -> None:
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    watched, watch = script(4)
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    bare, other = script(10**9)
    assert len(watch.audits) == 4
    assert not other.audits
    assert all(torch.equal(a, b) for a, b in zip(watched, bare, strict=True))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()
    assert states[2] == np.random.get_state()[1].tolist()


def test_a_watch_sees_the_weights_of_now() -> None:
    """The audit is that of a game built afresh from the trained modules."""
    generator, critic = pair(norm=False)
    watch = Watch(generator, critic, WGAN(), REAL, latent=3, gradients=240, batch=32)
    first = watch.audit(0)
    with torch.no_grad():
        for p in critic.parameters():
            p.mul_(3.0)
    for p in critic.parameters():  # as loops do while the generator moves
        p.requires_grad_(False)
    second = watch.audit(1)
    fresh = GAN(*pair(norm=False), WGAN(), latent=3)
    with torch.no_grad():
        for a, b in zip(fresh.modules["critic"].parameters(), critic.parameters(), strict=True):
            a.copy_(b)
    players, constants = fresh.init()
    expected = audit_game(
        fresh,
        players,
        constants,
        watch.data,
        watch.settings,
        checks=watch.checks,
        progress="none",
        generator_batch=32,
    )
    assert second["nash/critic"].evidence["gain"] == expected["nash/critic"].evidence["gain"]
    assert first["nash/critic"].evidence["gain"] != second["nash/critic"].evidence["gain"]


def test_feasible_sets_reach_the_audit() -> None:
    generator, critic = pair(norm=False)
    with torch.no_grad():
        for p in critic.parameters():
            p.clamp_(-0.05, 0.05)
    watch = Watch(
        generator, critic, WGAN(), REAL, latent=3, gradients=200, projections=[WeightClipping(0.05)]
    )
    found = watch.audit()
    witness = found["nash/critic"].witness
    assert witness is None or all(
        float(t.abs().max()) <= 0.05 + 1e-7 for t in witness["critic"].values()
    )


def test_a_critic_that_ends_with_a_sigmoid() -> None:
    """The losses are binary cross entropy on its probabilities."""
    generator, critic = pair(norm=False)
    critic = nn.Sequential(*critic, nn.Sigmoid())
    game = GAN(generator, critic, Vanilla(probabilities=True), latent=3)
    players, constants = game.init()
    z = torch.randn(40, 3)
    losses = game.losses(players, constants, {"real": REAL[:40], "latent": z})
    p, q = critic(REAL[:40]), critic(generator(z))
    expected = binary_cross_entropy(p, torch.ones_like(p)) + binary_cross_entropy(
        q, torch.zeros_like(q)
    )
    torch.testing.assert_close(losses["critic"], expected)
    torch.testing.assert_close(losses["generator"], binary_cross_entropy(q, torch.ones_like(q)))


@pytest.mark.parametrize("gradients", [240, 600])
def test_the_budget_is_kept(gradients: int) -> None:
    generator, critic = pair(norm=False)
    found = Watch(generator, critic, REAL, Vanilla(), latent=3, gradients=gradients).audit()
    spent = sum(part["gradients"] for part in found.work.values())
    assert 0.5 * gradients <= spent <= 1.1 * gradients


def test_a_budget_that_is_too_small_is_refused_before_any_training() -> None:
    with pytest.raises(RecipeError, match=r"give at least [0-9]+, or fewer checks"):
        Watch(*pair(norm=False), REAL, Vanilla(), latent=3, gradients=60, checks=CHECKS)


def test_sources_of_what_loops_hold() -> None:
    images = torch.rand(30, 1, 4, 4) * 2 - 1
    labels = torch.arange(30) % 3
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, labels), batch_size=8
    )
    source = source_of(loader, limit=20)
    assert (source.kind, source.size, source.value_range) == ("images", 20, (-1.0, 1.0))
    assert torch.equal(source.all(), images[:20])
    assert torch.equal(source.labels, labels[:20])
    assert source_of(images.clamp_min(0)).value_range == (0.0, 1.0)
    assert source_of(REAL).kind == "points"
    assert source_of(digits()).name == "digits"
    assert torch.equal(source_of(list(REAL)).all(), REAL)
    assert torch.equal(source_of([row.numpy() for row in REAL]).all(), REAL)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: source_of(7), DataError, "type int cannot be read"),
        (lambda: source_of([]), DataError, "hold no batch"),
        (lambda: source_of([("a", 1)]), DataError, "holds str where samples"),
        (lambda: source_of(torch.zeros(0, 2)), DataError, "are no samples"),
        (
            lambda: source_of([REAL[0], REAL[0, :1]]),
            DataError,
            "list of 2 vectors of several lengths",
        ),
        (
            lambda: source_of([torch.zeros(3, 8, 8)] * 5),
            DataError,
            "torch.stack makes one of images",
        ),
        (lambda: source_of(torch.full((4, 2), float("nan"))), DataError, "NaN"),
        (lambda: Settings.within(10), RecipeError, "too small for an audit"),
        (
            lambda: Watch(*pair(), Vanilla(), REAL, latent=4),
            GameError,
            "the generator fails on latents",
        ),
    ],
)
def test_refused(make: Any, error: Any, said: str) -> None:
    with pytest.raises(error, match=said) as seen:
        make()
    assert "\n" not in str(seen.value)
