"""The ordered list: causes before what they explain, nothing said of players while wiring is wrong."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from equilibrist.diagnosis import VOCABULARY, Finding, Loop, diagnose, ordered
from equilibrist.errors import GameError, RecipeError


def loop(fault: str = "") -> Loop:
    """A small GAN in the plane; `fault` switches one thing."""
    torch.manual_seed(0)
    generator = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    critic = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1))
    adam_g = torch.optim.Adam(generator.parameters(), 1e-3)
    adam_c = torch.optim.Adam(critic.parameters(), 4e-3)
    data = torch.randn(1200, 2, generator=torch.Generator().manual_seed(1)) + 1
    pool = torch.zeros(0, 2)

    def step(i: int) -> None:
        nonlocal pool
        x, fake = data[torch.randint(800, (32,))], generator(torch.randn(32, 2))
        shown = fake.detach()
        if fault == "pool":  # nearly all of what the critic is shown was made earlier
            old = pool[torch.randperm(len(pool))[:32]] if len(pool) >= 1024 else shown
            pool = torch.cat([pool, shown])[-1024:]
            shown = torch.where(torch.rand(32, 1) < 0.97, old, shown)
        adam_c.zero_grad()
        (softplus(-critic(x)).mean() + softplus(critic(shown)).mean()).backward()
        adam_c.step()
        if fault == "asleep":
            return
        adam_g.zero_grad()
        loss = softplus(-critic(fake)).mean()
        if fault == "nan" and i == 9:
            loss = loss * float("nan")
        loss.backward()
        adam_g.step()

    def sample(n: int) -> Tensor:
        return generator(torch.randn(n, 2)).detach()

    players = {"generator": generator, "critic": critic}
    return Loop(step, players, "vanilla", real=data[800:], train=data[:800], sample=sample)


def test_a_healthy_loop_has_no_fault() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    found = diagnose(loop(), 60, progress="none")
    assert found.ok, found
    assert found.first is None
    # 20 rounds more measure the size of steps at the end.
    assert found.steps == {"generator": 60, "critic": 60}
    assert found.rounds == 80
    assert repr(found).startswith("No fault found in 80 rounds.")
    assert found.critic is not None
    assert len(found.outcome.looks) > 4
    assert not torch.equal(before, torch.get_rng_state())  # the loop's own draws, nothing put back


def test_samples_of_a_pool_are_not_taken_for_altered_ones() -> None:
    """The check of the last rounds has not seen them made."""
    result = diagnose(loop("pool"), rounds=80, progress="none")
    assert result.late is not None
    assert any(f.name == "augmentation-mismatch" for f in result.late.findings)
    assert not any(f.name == "augmentation-mismatch" for f in result.findings), result


def test_a_generator_that_never_steps_is_told_after_a_while() -> None:
    found = diagnose(loop("asleep"), 50, progress="none")
    assert found.first is not None
    assert (found.first.name, found.first.where) == ("never-stepped", "generator")
    assert "the critic's state" in found.skipped  # nobody is told of the critic while this is so
    assert found.critic is None


def test_a_run_ends_at_its_first_value_that_is_not_finite() -> None:
    found = diagnose(loop("nan"), 60, progress="none")
    assert found.first is not None
    assert (found.first.name, found.rounds) == ("not-finite", 10)


def test_causes_come_before_what_they_explain() -> None:
    kinds = [
        Finding("lagging", "critic", "It lags.", "fault", "likely"),
        Finding("range-mismatch", "samples", "They differ.", "fault", "certain"),
        Finding("wrong-sign", "critic", "Its sign is wrong.", "warning", "certain"),
        Finding("gradient-leak", "critic", "It leaks.", "fault", "certain"),
    ]
    assert [f.name for f in ordered(kinds)] == [
        "gradient-leak",
        "range-mismatch",
        "lagging",
        "wrong-sign",
    ]
    assert all(f.cure == VOCABULARY[f.name].cure for f in kinds)
    with pytest.raises(ValueError, match="did you mean lagging"):
        Finding("laging", "critic", "")


def test_arguments_are_looked_at() -> None:
    with pytest.raises(RecipeError, match="rounds=0"):
        diagnose(loop(), 0)
    three = dataclasses.replace(
        loop(), players={"a": nn.Linear(1, 1), "b": nn.Linear(1, 1), "c": nn.Linear(1, 1)}
    )
    with pytest.raises(GameError, match="a generator and a critic"):
        diagnose(three, 5)
