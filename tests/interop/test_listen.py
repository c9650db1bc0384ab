"""Listening to closed trainers: what is heard, and that nothing of the training changes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from listened import (
    REAL,
    Critic,
    Generator,
    Round,
    activated,
    detached,
    fooling,
    joined,
    no_grad,
    pair,
    penalised,
    penalised_apart,
    r1,
    same,
    state,
    step,
    train,
    weights,
)
from torch import Tensor, nn
from torch.nn.functional import softplus

from equilibrist.interop import Heard, listen

# -- the training ------------------------------------------------------------------------------------

SHOWN = [detached, no_grad, activated, joined, r1, penalised, penalised_apart]


@pytest.mark.parametrize("shown", SHOWN)
def test_training_ends_with_the_same_bits(shown: Round) -> None:
    bare = weights(*train(shown))
    after = state()

    def disturb(heard: Heard) -> None:
        torch.randn(3), np.random.rand(3), random.random()
        torch.set_grad_enabled(False)

    with listen(every=5, then=disturb) as heard:
        g, d = train(shown)
    assert same(bare, weights(g, d))
    for one, other in zip(after, state(), strict=True):
        assert np.array_equal(one, other) if isinstance(one, np.ndarray) else True
        assert torch.equal(one, other) if isinstance(one, Tensor) else True
    assert after[2] == random.getstate()
    assert torch.is_grad_enabled()
    assert heard.critic is d
    assert heard.generator is g


@pytest.mark.parametrize("shown", SHOWN)
@pytest.mark.parametrize("critic_steps", [1, 3])
def test_real_and_generated_are_told_apart(shown: Round, critic_steps: int) -> None:
    """Real rows lie around 5, generated ones around 0; points of a penalty are neither."""
    with listen(keep=100) as heard:
        train(shown, critic_steps=critic_steps)
    real, fake = heard.batches("real"), heard.batches("fake")
    assert len(real) == len(fake)
    assert 12 * critic_steps - critic_steps - 1 <= len(real) <= 12 * critic_steps
    assert all(float(batch.mean()) > 4 and len(batch) == 16 for batch in real)
    assert all(float(batch.mean()) < 3 for batch in fake)
    assert {len(batch) for batch in fake} == {8 if shown is joined else 16}
    assert not any(batch.requires_grad for batch in real + fake)


def test_a_batch_without_a_trace_is_found_again_in_the_generators_step() -> None:
    """Activated, detached, and shown again with its graph: generated first, whatever the default says."""
    g, d, adam_d, adam_g = pair()
    with listen() as heard:
        for _ in range(6):
            fake = torch.tanh(g(torch.randn(16, 2)))
            loss = softplus(d(fake.detach())).mean() + softplus(-d(REAL[:16])).mean()
            step(adam_d, loss)
            step(adam_g, softplus(-d(fake)).mean())
    assert all(float(batch.mean()) > 4 for batch in heard.batches("real"))
    assert all(float(batch.mean()) < 2 for batch in heard.batches("fake"))
    assert "place" in heard.summary()


def lost(first_fake: bool) -> None:
    """No trace of the generator is left in what the critic's own round is shown."""
    g, d, adam_d, adam_g = pair()
    for _ in range(6):
        with torch.no_grad():
            fake = torch.tanh(g(torch.randn(16, 2)))
        batches = [REAL[:16], fake]
        scores = [d(batch) for batch in (batches[::-1] if first_fake else batches)]
        loss = sum(score.mean() for score in scores)
        step(adam_d, loss)
        loss = softplus(-d(torch.tanh(g(torch.randn(16, 2))))).mean()
        step(adam_g, loss)


def by_mean(place: int, batch: Tensor) -> str:
    return "real" if float(batch.mean()) > 4 else "fake"


@pytest.mark.parametrize(
    ("first_fake", "told"),
    [
        (False, {}),
        (False, {"order": ("real", "fake")}),
        (True, {"order": ("fake", "real")}),
        (True, {"tell": by_mean}),
        (False, {"tell": lambda place, batch: batch.mean(1) > 2.5}),
    ],
)
def test_where_no_trace_is_left_order_and_tell_decide(
    first_fake: bool, told: dict[str, Any]
) -> None:
    with listen(**told) as heard:
        lost(first_fake)
    assert all(float(batch.mean()) > 4 for batch in heard.batches("real"))
    assert all(float(batch.mean()) < 2 for batch in heard.batches("fake"))
    assert sum(map(len, heard.batches("real"))) == sum(map(len, heard.batches("fake"))) >= 4 * 16


def test_the_default_order_is_said_and_can_be_wrong() -> None:
    """Generated rows first, and no trace: the rule takes them for real, and says that it went by order."""
    with listen() as heard:
        lost(first_fake=True)
    assert float(heard.batches("real")[0].mean()) < 2
    assert "(order)" in heard.summary()


# -- what is heard -------------------------------------------------------------------------------------


def test_players_steps_rates_and_bare_parameters() -> None:
    torch.manual_seed(0)
    g, d = Generator(), Critic()
    d.unused = nn.Linear(2, 2)
    frozen = nn.Linear(3, 3)
    adam_d = torch.optim.AdamW(d.parameters(), 1e-3)
    adam_g = torch.optim.SGD(g.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.StepLR(adam_g, 4, 0.1)
    with listen() as heard:
        for _ in range(9):
            for _ in range(2):
                step(adam_d, detached(g, d, REAL[:16]))
            loss = fooling(g, d)
            loss = loss + frozen(g(torch.randn(16, 2))).square().mean()
            step(adam_g, loss), schedule.step()
    assert heard.steps == {"Critic": 18, "Generator": 9}
    critic, generator = heard.players["Critic"], heard.players["Generator"]
    assert (critic.role, critic.optimizer, critic.module) == ("critic", "AdamW", d)
    assert critic.rates == ((1, (1e-3,)),)
    assert critic.without_gradient == ("unused.weight", "unused.bias")
    assert (generator.role, generator.without_gradient) == ("generator", ())
    assert [step for step, _ in generator.rates] == [1, 5, 9]
    assert generator.rates[-1][1] == pytest.approx((1e-4,))
    said = heard.summary()
    for part in ("18 steps of AdamW at 0.001", "0.01 to 0.0001", "unused.weight", "never stepped"):
        assert part in said
    assert "Linear" in said
    assert heard._repr_html_()


def test_memory_is_bounded() -> None:
    with listen(keep=3) as heard:
        train(rounds=40)
    assert len(heard.batches("real")) == len(heard.batches("fake")) == 3
    with listen(keep=100, megabytes=16 * 3 * 4 * 5 / 2**20) as heard:
        train(rounds=40)
    assert 2 <= len(heard.batches("real")) + len(heard.batches("fake")) <= 5


def test_batches_are_copies_of_the_last_rounds() -> None:
    shown: list[Tensor] = []

    class Spy(Critic):
        def forward(self, x: Tensor) -> Tensor:
            shown.append(x.detach().clone())
            made = super().forward(x)
            x.data.zero_()  # writes on its input
            return made

    g, d, adam_d, adam_g = pair(critic=Spy)
    with listen(keep=2) as heard:
        for index in range(8):
            fake = g(torch.randn(16, 2)).detach()
            loss = d(REAL[index : index + 16].clone()).mean() - d(fake).mean()
            step(adam_d, loss)
            step(adam_g, (-d(g(torch.randn(16, 2)).clone())).mean())
    for kept, index in zip(heard.batches("real"), (-6, -3), strict=True):
        assert torch.equal(kept, shown[index])
    for kept, index in zip(heard.batches("fake"), (-5, -2), strict=True):
        assert torch.equal(kept, shown[index])


def test_snapshots_are_copies_of_the_pair() -> None:
    with listen(every=(4, 9), keep=2) as heard:
        _, d = train()
    ((name, found),) = heard.snapshots.items()
    assert name == "Critic"
    assert list(found) == [4, 9]
    assert found[9].critic is not d
    again = [weights(*train(rounds=steps)) for steps in (4, 9)]
    for index, (snapshot, expected) in zip(
        (4, 9), zip(found.values(), again, strict=True), strict=True
    ):
        assert snapshot.generator is not None
        own = weights(snapshot.critic)
        assert snapshot.step == index
        assert all(torch.equal(a, b) for a, b in zip(own, expected[-len(own) :], strict=True))
        assert len(snapshot.real) == len(snapshot.fake) == 2
        assert "2 real" in repr(snapshot)


def test_no_graph_is_kept_alive() -> None:
    import gc
    import weakref

    nodes: list[Any] = []

    def shown(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
        fake = torch.tanh(g(torch.randn(len(real), 2)))
        nodes.append(weakref.ref(fake))
        return d(fake).mean() - d(real).mean()

    with listen():
        train(shown)
        gc.collect()
        assert not any(node() is not None for node in nodes[:-1])
