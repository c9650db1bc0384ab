"""Listening to closed trainers: what is heard, and that nothing of the training changes."""

from __future__ import annotations

import copy
import io
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import equilibrist
from equilibrist.errors import GameError, RecipeError
from equilibrist.interop import Heard, listen

REAL = (
    torch.randn(512, 3, generator=torch.Generator().manual_seed(1)) + 5
)  # generated rows lie near 0


class Generator(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z)


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(3, 8), nn.LeakyReLU(0.2), nn.Dropout(0.3), nn.Linear(8, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


Round = Callable[[nn.Module, nn.Module, Tensor], Tensor]


def detached(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    return softplus(-d(real)).mean() + softplus(d(g(torch.randn(len(real), 2)).detach())).mean()


def no_grad(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    with torch.no_grad():
        fake = g(torch.randn(len(real), 2))
    return softplus(d(fake)).mean() + softplus(-d(real)).mean()


def activated(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    """What is shown is not the generator's output, but has its graph (CTGAN)."""
    fake = torch.tanh(g(torch.randn(len(real), 2)))
    return softplus(d(fake)).mean() + softplus(-d(real)).mean()


def joined(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    with torch.no_grad():
        fake = g(torch.randn(len(real) // 2, 2))
    scores = d(torch.cat([real, fake]))
    return softplus(-scores[: len(real)]).mean() + softplus(scores[len(real) :]).mean()


def r1(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    """The real batch requires a gradient."""
    real = real.clone().requires_grad_()
    scores = d(real)
    slope = torch.autograd.grad(scores.sum(), real, create_graph=True)[0]
    fake = g(torch.randn(len(real), 2)).detach()
    return softplus(-scores).mean() + softplus(d(fake)).mean() + slope.square().sum(1).mean()


def penalised(g: nn.Module, d: nn.Module, real: Tensor, graph: bool = True) -> Tensor:
    fake = g(torch.randn(len(real), 2))
    fake = torch.tanh(fake) if graph else fake.detach()
    loss = d(fake).mean() - d(real).mean()
    mixed = real + torch.rand(len(real), 1) * (fake - real)
    if not graph:
        mixed.requires_grad_()
    slope = torch.autograd.grad(d(mixed).sum(), mixed, create_graph=True)[0]
    return loss + 10 * (slope.norm(dim=1) - 1).square().mean()


def penalised_apart(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
    return penalised(g, d, real, graph=False)


def train(
    shown: Round = detached, rounds: int = 12, critic_steps: int = 1, seed: int = 0
) -> tuple[nn.Module, nn.Module]:
    """A closed trainer: it returns the generator, and (for the tests alone) the critic."""
    torch.manual_seed(seed), np.random.seed(seed), random.seed(seed)
    g, d = Generator(), Critic()
    adam_d = torch.optim.Adam(d.parameters(), 1e-3)
    adam_g = torch.optim.Adam(g.parameters(), 1e-3)
    for _ in range(rounds):
        for _ in range(critic_steps):
            real = REAL[torch.randint(len(REAL), (16,))]
            adam_d.zero_grad(), shown(g, d, real).backward(), adam_d.step()
        fake = g(torch.randn(16, 2))
        loss = softplus(-d(torch.tanh(fake) if shown in (activated, penalised) else fake)).mean()
        adam_g.zero_grad(), loss.backward(), adam_g.step()
    return g, d


def state() -> list[Any]:
    return [torch.get_rng_state(), np.random.get_state()[1], random.getstate()]  # type: ignore[index]


def weights(*modules: nn.Module) -> list[Tensor]:
    return [value for module in modules for value in module.state_dict().values()]


def hooks() -> int:
    from torch.nn.modules import module
    from torch.optim import optimizer

    return sum(
        len(table)
        for table in (
            module._global_forward_hooks,
            module._global_forward_pre_hooks,
            optimizer._global_optimizer_pre_hooks,
            optimizer._global_optimizer_post_hooks,
        )
    )


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    assert hooks() == 0
    yield
    assert hooks() == 0


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
    assert all(torch.equal(a, b) for a, b in zip(bare, weights(g, d), strict=True))
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
    torch.manual_seed(0)
    g, d = Generator(), Critic()
    adam_d = torch.optim.Adam(d.parameters(), 1e-3)
    adam_g = torch.optim.Adam(g.parameters(), 1e-3)
    with listen() as heard:
        for _ in range(6):
            fake = torch.tanh(g(torch.randn(16, 2)))
            loss = softplus(d(fake.detach())).mean() + softplus(-d(REAL[:16])).mean()
            adam_d.zero_grad(), loss.backward(), adam_d.step()
            adam_g.zero_grad(), softplus(-d(fake)).mean().backward(), adam_g.step()
    assert all(float(batch.mean()) > 4 for batch in heard.batches("real"))
    assert all(float(batch.mean()) < 2 for batch in heard.batches("fake"))
    assert "place" in heard.summary()


def lost(first_fake: bool) -> None:
    """No trace of the generator is left in what the critic's own round is shown."""
    torch.manual_seed(0)
    g, d = Generator(), Critic()
    adam_d = torch.optim.Adam(d.parameters(), 1e-3)
    adam_g = torch.optim.Adam(g.parameters(), 1e-3)
    for _ in range(6):
        with torch.no_grad():
            fake = torch.tanh(g(torch.randn(16, 2)))
        batches = [REAL[:16], fake]
        scores = [d(batch) for batch in (batches[::-1] if first_fake else batches)]
        loss = sum(score.mean() for score in scores)
        adam_d.zero_grad(), loss.backward(), adam_d.step()
        loss = softplus(-d(torch.tanh(g(torch.randn(16, 2))))).mean()
        adam_g.zero_grad(), loss.backward(), adam_g.step()


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
                adam_d.zero_grad(), detached(g, d, REAL[:16]).backward(), adam_d.step()
            loss = softplus(-d(g(torch.randn(16, 2)))).mean()
            loss = loss + frozen(g(torch.randn(16, 2))).square().mean()
            adam_g.zero_grad(), loss.backward(), adam_g.step(), schedule.step()
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

    torch.manual_seed(0)
    g, d = Generator(), Spy()
    adam_d = torch.optim.Adam(d.parameters(), 1e-3)
    adam_g = torch.optim.Adam(g.parameters(), 1e-3)
    with listen(keep=2) as heard:
        for index in range(8):
            fake = g(torch.randn(16, 2)).detach()
            loss = d(REAL[index : index + 16].clone()).mean() - d(fake).mean()
            adam_d.zero_grad(), loss.backward(), adam_d.step()
            adam_g.zero_grad(), (-d(g(torch.randn(16, 2)).clone())).mean().backward(), adam_g.step()
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
    for step, (snapshot, expected) in zip(
        (4, 9), zip(found.values(), again, strict=True), strict=True
    ):
        assert snapshot.generator is not None
        own = weights(snapshot.critic)
        assert snapshot.step == step
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


# -- surroundings --------------------------------------------------------------------------------------


def test_hooks_are_removed_after_an_exception() -> None:
    g, d = Generator(), Critic()

    def fails() -> None:
        adam = torch.optim.Adam(d.parameters())
        for _ in range(3):
            adam.zero_grad(), detached(g, d, REAL[:16]).backward(), adam.step()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), listen() as heard:
        fails()
    assert heard.steps == {"Critic": 3}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in [*g.modules(), *d.modules()])
    train()
    assert heard.steps == {"Critic": 3}, "deaf after its end"


def test_blocks_may_be_nested_and_follow_each_other() -> None:
    with listen() as outer:
        train(rounds=5)
        with listen() as inner:
            _, d = train(rounds=7)
    assert inner.steps == {"Critic": 7, "Generator": 7}
    assert inner.critic is d
    assert outer.steps == {"Critic": 5, "Generator": 5, "Critic 2": 7, "Generator 2": 7}
    assert [player.role for player in outer.players.values()] == ["critic", "generator"] * 2
    assert outer.players["Critic 2"].module is d
    with pytest.raises(GameError, match="several critics were heard, Critic, Critic 2"):
        _ = outer.critic
    assert len(outer.batches("fake", critic="Critic 2")) > 3
    with pytest.raises(GameError, match="did you mean Critic"):
        outer.batches("fake", critic="Critik")


def test_another_thread_is_not_heard() -> None:
    with listen() as heard:
        other = threading.Thread(target=train)
        other.start()
        other.join()
        train(rounds=4)
    assert heard.steps == {"Critic": 4, "Generator": 4}


def test_optimisers_and_modules_from_before_the_block() -> None:
    torch.manual_seed(0)
    g, d, other = Generator(), Critic(), nn.Linear(3, 3)
    adam_d = torch.optim.Adam(d.parameters(), 1e-3)
    adam_g = torch.optim.Adam(g.parameters(), 1e-3)
    with listen() as heard:
        for _ in range(5):
            other(REAL[:4])
            adam_d.zero_grad(), detached(g, d, REAL[:16]).backward(), adam_d.step()
            adam_g.zero_grad(), softplus(-d(g(torch.randn(16, 2)))).mean().backward(), adam_g.step()
    assert heard.critic is d
    assert heard.generator is g
    assert all(batch.shape == (16, 3) for batch in heard.batches("real")), "nothing of `other`"
    assert set(heard.players) == {"Critic", "Generator"}


def test_a_module_around_both_players_is_no_player() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.g, self.d = Generator(), Critic()

        def forward(self, z: Tensor) -> Tensor:
            return self.g(z)

    torch.manual_seed(0)
    both = Both()
    adam_d = torch.optim.Adam(both.d.parameters(), 1e-3)
    adam_g = torch.optim.Adam(both.g.parameters(), 1e-3)
    with listen() as heard:
        for _ in range(5):
            adam_d.zero_grad(), detached(both, both.d, REAL[:16]).backward(), adam_d.step()
            loss = softplus(-both.d(both(torch.randn(16, 2)))).mean()
            adam_g.zero_grad(), loss.backward(), adam_g.step()
    assert heard.critic is both.d
    assert heard.generator is both.g


def test_several_critics_and_a_cycle_of_generators() -> None:
    """Two translators that feed each other, and a critic for each."""
    torch.manual_seed(0)
    there, back = nn.Linear(3, 3), nn.Linear(3, 3)
    here, yonder = Critic(), Critic()
    adam_g = torch.optim.Adam([*there.parameters(), *back.parameters()], 1e-3)
    adam_d = torch.optim.Adam([*here.parameters(), *yonder.parameters()], 1e-3)
    with listen() as heard:
        for _ in range(6):
            a, b = there(REAL[:16]), back(REAL[16:32] - 5)
            loss = (back(a) - REAL[:16]).square().mean() - yonder(a).mean() - here(b).mean()
            adam_g.zero_grad(), loss.backward(), adam_g.step()
            loss = yonder(a.detach()).mean() - yonder(REAL[16:32] - 5).mean()
            loss = loss + here(b.detach()).mean() - here(REAL[:16]).mean()
            adam_d.zero_grad(), loss.backward(), adam_d.step()
    roles = {name: player.role for name, player in heard.players.items()}
    assert sorted(roles.values()) == ["critic", "critic", "generator", "generator"]
    for name, player in heard.players.items():
        if player.role == "critic":
            assert len(heard.batches("fake", name)) == len(heard.batches("real", name)) > 2
    own = next(name for name, player in heard.players.items() if player.module is here)
    assert all(float(batch.mean()) > 4 for batch in heard.batches("real", own))


def test_both_players_step_after_both_losses() -> None:
    torch.manual_seed(0)
    g, d = Generator(), Critic()
    adam_d = torch.optim.Adam(d.parameters(), 1e-3)
    adam_g = torch.optim.Adam(g.parameters(), 1e-3)
    with listen() as heard:
        for _ in range(6):
            fake = g(torch.randn(16, 2))
            loss_d = d(fake.detach()).mean() - d(REAL[:16]).mean()
            adam_d.zero_grad(), adam_g.zero_grad()
            loss_d.backward()
            adam_g.step(), adam_d.step()
            softplus(-d(fake.clone())).mean().backward()
    assert heard.critic is d
    assert all(float(batch.mean()) > 4 for batch in heard.batches("real"))
    assert all(float(batch.mean()) < 3 for batch in heard.batches("fake"))
    assert len(heard.batches("real")) >= 4


def test_an_optimiser_around_another_steps_once() -> None:
    class Around(torch.optim.Optimizer):
        def __init__(self, inner: torch.optim.Optimizer) -> None:
            self.inner = inner
            super().__init__(inner.param_groups, inner.defaults)

        def step(self, closure: Any = None) -> None:
            self.inner.step()

    torch.manual_seed(0)
    g, d = Generator(), Critic()
    adam = Around(torch.optim.Adam(d.parameters(), 1e-3))
    with listen() as heard:
        for _ in range(4):
            adam.zero_grad(), detached(g, d, REAL[:16]).backward(), adam.step()
    assert heard.steps == {"Critic": 4}


def test_a_critic_without_a_generator_is_named() -> None:
    """Nothing that an optimiser steps feeds it: imitation learning, a simulator."""

    def loop() -> nn.Module:
        torch.manual_seed(0)
        d, policy = Critic(), nn.Linear(3, 1)
        adam = torch.optim.Adam(d.parameters(), 1e-3)
        other = torch.optim.Adam(policy.parameters(), 1e-3)
        for _ in range(4):
            with torch.no_grad():
                d(torch.full((100, 3), 9.0))  # rewards: nobody learns from these calls
            other.zero_grad(), policy(REAL[:16]).mean().backward(), other.step()
            batch = torch.cat([REAL[:16], torch.randn(16, 3)])
            adam.zero_grad(), d(batch).mean().backward(), adam.step()
        return d

    with listen() as heard:
        loop()
    with pytest.raises(
        GameError, match=r"no critic was heard among .*Linear \(4 steps\).*name its class"
    ):
        _ = heard.critic
    with listen("Critic", tell=lambda place, batch: torch.arange(len(batch)) < 16) as heard:
        d = loop()
    assert heard.critic is d
    assert all(torch.equal(batch, REAL[:16]) for batch in heard.batches("real"))
    assert all(float(batch.mean()) < 2 for batch in heard.batches("fake"))
    with pytest.raises(GameError, match="no generator was heard"):
        _ = heard.generator
    with listen("Critic") as heard:
        loop()
    assert heard.batches("real") == []
    assert "calls of unknown kind" in heard.summary()


def test_names_decide_against_the_guess() -> None:
    torch.manual_seed(0)
    features, domain = nn.Linear(3, 3), Critic()
    adam = torch.optim.Adam([*features.parameters(), *domain.parameters()], 1e-3)
    with listen(critic=domain, order=("real", "fake")) as heard:
        for _ in range(4):
            loss = domain(features(REAL[:16])).mean() - domain(features(REAL[16:32] - 5)).mean()
            adam.zero_grad(), loss.backward(), adam.step()
    assert heard.critic is domain
    assert len(heard.batches("real")) == len(heard.batches("fake")) > 1


def test_copies_and_pickles_of_a_module_hear_nothing() -> None:
    torch.manual_seed(0)
    g, d = nn.Linear(2, 3), nn.Linear(3, 1)
    adam_d = torch.optim.Adam(d.parameters(), 1e-3)
    adam_g = torch.optim.Adam(g.parameters(), 1e-3)
    file = io.BytesIO()
    with listen() as heard:
        for _ in range(5):
            adam_d.zero_grad(), detached(g, d, REAL[:16]).backward(), adam_d.step()
            average = copy.deepcopy(g)
            average(torch.randn(4, 2)), copy.deepcopy(d)(REAL[:4])
            adam_g.zero_grad(), softplus(-d(g(torch.randn(16, 2)))).mean().backward(), adam_g.step()
        torch.save(d, file)
    file.seek(0)
    assert b"equilibrist" not in file.getvalue()
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(REAL), d(REAL))
    assert heard.critic is d
    assert all(len(batch) == 16 for batch in heard.batches("real") + heard.batches("fake"))


def test_a_wrapped_critic_is_unwrapped() -> None:
    torch.manual_seed(0)
    g, d = Generator(), Critic()
    wrapped = torch.nn.DataParallel(d)
    adam_d = torch.optim.Adam(wrapped.parameters(), 1e-3)
    adam_g = torch.optim.Adam(g.parameters(), 1e-3)
    with listen("Critic") as heard:
        for _ in range(5):
            adam_d.zero_grad(), detached(g, wrapped, REAL[:16]).backward(), adam_d.step()
            loss = softplus(-wrapped(g(torch.randn(16, 2)))).mean()
            adam_g.zero_grad(), loss.backward(), adam_g.step()
    assert heard.critic is d
    assert heard.generator is g
    assert heard.steps == {"Critic": 5, "Generator": 5}


def test_conditions_are_kept_beside_the_samples() -> None:
    class Conditional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(4, 1)

        def forward(self, x: Tensor, *, label: Tensor) -> Tensor:
            return self.score(torch.cat([x, label], 1))

    torch.manual_seed(0)
    g, d = Generator(), Conditional()
    adam_d = torch.optim.Adam(d.parameters(), 1e-3)
    adam_g = torch.optim.Adam(g.parameters(), 1e-3)
    label = torch.arange(16.0)[:, None]
    with listen() as heard:
        for _ in range(4):
            fake = g(torch.randn(16, 2))
            loss = d(fake.detach(), label=label).mean() - d(REAL[:16], label=label).mean()
            adam_d.zero_grad(), loss.backward(), adam_d.step()
            adam_g.zero_grad(), (-d(fake, label=label)).mean().backward(), adam_g.step()
    for kind in ("real", "fake"):
        for x, beside in heard.batches(kind):
            assert x.shape == (16, 3)
            assert torch.equal(beside, label)


def test_packed_samples() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = nn.Linear(12, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.score(x.view(-1, 12))

    torch.manual_seed(0)
    g, d = Generator(), Packed()
    adam_d = torch.optim.Adam(d.parameters(), 1e-3)
    adam_g = torch.optim.Adam(g.parameters(), 1e-3)
    with listen() as heard:
        for _ in range(4):
            adam_d.zero_grad(), detached(g, d, REAL[:16]).backward(), adam_d.step()
            adam_g.zero_grad(), softplus(-d(g(torch.randn(16, 2)))).mean().backward(), adam_g.step()
    assert heard.critic is d
    assert heard.pack() == 4


def test_a_fault_of_the_listeners_does_not_stop_the_training() -> None:
    bare = weights(*train())
    with (
        pytest.warns(UserWarning, match="listening stopped early, the training went on: GameError"),
        listen(tell=lambda place, *batch: "reel") as heard,
    ):
        found = train()
    assert all(torch.equal(a, b) for a, b in zip(bare, weights(*found), strict=True))
    assert "listening stopped early" in heard.summary()


def test_a_users_own_error_on_the_way_is_raised() -> None:
    def fails(heard: Heard) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"), listen(every=3, then=fails):
        train()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"critic": 3}, "named by a class's name or a module"),
        ({"order": ("real", "false")}, "must be 'real', 'fake' or 'skip'"),
        ({"order": ()}, "must be 'real'"),
        ({"keep": 0}, "both must be positive"),
        ({"megabytes": 0}, "both must be positive"),
        ({"every": -1}, "cannot be negative"),
        ({"every": (3, -1)}, "cannot be negative"),
        ({"then": print}, "give those too"),
    ],
)
def test_what_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        listen(**options)


def test_nothing_heard() -> None:
    with equilibrist.listen() as heard:
        pass
    assert "no optimiser stepped" in repr(heard)
    with pytest.raises(GameError, match="no critic was heard among no stepped modules"):
        _ = heard.critic
    with pytest.raises(GameError, match="no critic"):
        heard.batches("real")
    with pytest.raises(RecipeError, match="'real' or 'fake'"):
        heard.batches("reel")


def test_a_long_training_is_heard_now_and_then() -> None:
    """Steps are counted all along; between the rounds that are heard, no hook is on any module."""
    on: list[int] = []
    shown: list[Tensor] = []

    def watched(g: nn.Module, d: nn.Module, real: Tensor) -> Tensor:
        on.append(len(d._forward_pre_hooks))
        shown.append(real)
        return detached(g, d, real)

    bare = weights(*train(watched, rounds=250))
    on.clear(), shown.clear()
    with listen(keep=5, every=(200,)) as heard:
        found = train(watched, rounds=250)
    assert all(torch.equal(a, b) for a, b in zip(bare, weights(*found), strict=True))
    assert heard.steps == {"Critic": 250, "Generator": 250}
    assert heard.players["Critic"].role == "critic"
    early, late = on[2:60], on[80:190]
    assert all(early)
    assert 5 < sum(late) < 10, "one in sixteen"
    kept = heard.snapshots["Critic"][200].real
    assert all(torch.equal(a, b) for a, b in zip(kept, shown[195:200], strict=True))
    assert all(
        any(torch.equal(batch, one) for one in shown[170:]) for batch in heard.batches("real")
    )


def test_a_second_pair_wakes_the_listener() -> None:
    with listen() as heard:
        train(rounds=120)
        train(rounds=20)
    assert heard.steps == {"Critic": 120, "Generator": 120, "Critic 2": 20, "Generator 2": 20}
    assert len(heard.batches("fake", "Critic 2")) > 10
