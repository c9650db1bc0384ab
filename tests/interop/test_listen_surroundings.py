"""What surrounds listening: exceptions, other blocks, threads, wrappers, optimisers and modules of all kinds."""

from __future__ import annotations

import copy
import io
import threading
from typing import Any

import pytest
import torch
from listened import (
    REAL,
    Critic,
    Generator,
    detached,
    fooling,
    pair,
    same,
    step,
    train,
    weights,
)
from torch import Tensor, nn
from torch.nn.functional import softplus

import equilibrist
from equilibrist.errors import GameError, RecipeError
from equilibrist.interop import Heard, listen

# -- surroundings --------------------------------------------------------------------------------------


def test_hooks_are_removed_after_an_exception() -> None:
    g, d = Generator(), Critic()

    def fails() -> None:
        adam = torch.optim.Adam(d.parameters())
        for _ in range(3):
            step(adam, detached(g, d, REAL[:16]))
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
            step(adam_d, detached(g, d, REAL[:16]))
            step(adam_g, fooling(g, d))
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
            step(adam_d, detached(both, both.d, REAL[:16]))
            loss = softplus(-both.d(both(torch.randn(16, 2)))).mean()
            step(adam_g, loss)
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
            step(adam_g, loss)
            loss = yonder(a.detach()).mean() - yonder(REAL[16:32] - 5).mean()
            loss = loss + here(b.detach()).mean() - here(REAL[:16]).mean()
            step(adam_d, loss)
    roles = {name: player.role for name, player in heard.players.items()}
    assert sorted(roles.values()) == ["critic", "critic", "generator", "generator"]
    for name, player in heard.players.items():
        if player.role == "critic":
            assert len(heard.batches("fake", name)) == len(heard.batches("real", name)) > 2
    own = next(name for name, player in heard.players.items() if player.module is here)
    assert all(float(batch.mean()) > 4 for batch in heard.batches("real", own))


def test_both_players_step_after_both_losses() -> None:
    g, d, adam_d, adam_g = pair()
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
            step(adam, detached(g, d, REAL[:16]))
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
            step(other, policy(REAL[:16]).mean())
            batch = torch.cat([REAL[:16], torch.randn(16, 3)])
            step(adam, d(batch).mean())
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
            step(adam, loss)
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
            step(adam_d, detached(g, d, REAL[:16]))
            average = copy.deepcopy(g)
            average(torch.randn(4, 2)), copy.deepcopy(d)(REAL[:4])
            step(adam_g, fooling(g, d))
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
            step(adam_d, detached(g, wrapped, REAL[:16]))
            loss = softplus(-wrapped(g(torch.randn(16, 2)))).mean()
            step(adam_g, loss)
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

    g, d, adam_d, adam_g = pair(critic=Conditional)
    label = torch.arange(16.0)[:, None]
    with listen() as heard:
        for _ in range(4):
            fake = g(torch.randn(16, 2))
            loss = d(fake.detach(), label=label).mean() - d(REAL[:16], label=label).mean()
            step(adam_d, loss)
            step(adam_g, (-d(fake, label=label)).mean())
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

    g, d, adam_d, adam_g = pair(critic=Packed)
    with listen() as heard:
        for _ in range(4):
            step(adam_d, detached(g, d, REAL[:16]))
            step(adam_g, fooling(g, d))
    assert heard.critic is d
    assert heard.pack() == 4


def test_a_fault_of_the_listeners_does_not_stop_the_training() -> None:
    bare = weights(*train())
    with (
        pytest.warns(UserWarning, match="listening stopped early, the training went on: GameError"),
        listen(tell=lambda place, *batch: "reel") as heard,
    ):
        found = train()
    assert same(bare, weights(*found))
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
    assert same(bare, weights(*found))
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


@pytest.mark.filterwarnings("ignore:Using `torch.compile", "ignore:The .grad attribute")
def test_compiled_modules_are_heard_from_outside() -> None:
    """Their own hooks would be compiled with them; torch says that global ones fire twice."""

    def loop() -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        torch._dynamo.reset()
        own = nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))
        g, d = (torch.compile(module, backend="eager") for module in own)
        adam_d, adam_g = (torch.optim.Adam(m.parameters(), 1e-3) for m in own[::-1])
        for _ in range(5):
            step(adam_d, detached(g, d, REAL[:16]))
            step(adam_g, fooling(g, d))
        return own

    bare = weights(*loop())
    with listen() as heard:
        own = loop()
    assert same(bare, weights(*own))
    assert heard.generator is own[0]
    assert heard.critic is own[1]
    assert len(heard.batches("real")) == len(heard.batches("fake")) >= 3


@pytest.mark.filterwarnings("ignore:The .grad attribute")
def test_modules_compiled_in_place_are_counted_when_they_are_named() -> None:
    torch._dynamo.reset()
    critic = nn.Linear(3, 1)
    critic.compile(backend="eager")
    adam = torch.optim.Adam(critic.parameters(), 1e-3)

    def steps() -> None:
        for _ in range(3):
            step(adam, critic(REAL[:16]).mean())

    with listen() as heard:
        steps()
    assert "module.compile() hides the calls" in repr(heard)
    with listen(critic) as heard:
        steps()
    assert heard.critic is critic
    assert heard.steps == {"Linear": 3}
