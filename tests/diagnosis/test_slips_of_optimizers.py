"""Slips around optimisers, each beside the practice that it looks like."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from equilibrist.diagnosis import Loop, check_wiring, diagnose

BATCH = 64
DATA = torch.randn(900, 2, generator=torch.Generator().manual_seed(1)) + 1


def mlp(first: int, last: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(first, 16), nn.LeakyReLU(0.2), nn.Linear(16, last))


def rows() -> Tensor:
    return DATA[torch.randint(600, (BATCH,))]


def names(found: Any) -> list[str]:
    return [f.name for f in found.findings if f.level != "note"]


@pytest.fixture
def pair() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {"generator": mlp(3, 2), "critic": mlp(2, 1)}


def losses(pair: dict[str, nn.Module]) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    g, d = pair.values()

    def of_critic() -> Tensor:
        fake = g(torch.randn(BATCH, 3)).detach()
        return softplus(-d(rows())).mean() + softplus(d(fake)).mean()

    def of_generator() -> Tensor:
        value: Tensor = softplus(-d(g(torch.randn(BATCH, 3)))).mean()
        return value

    return of_generator, of_critic


@pytest.mark.parametrize("late", [True, False])
def test_closures_that_all_step_the_last_optimizer(pair: dict[str, nn.Module], late: bool) -> None:
    """The critic's turn clears and steps the generator's optimiser: more than an optimiser that is never stepped."""
    g, d = pair.values()
    optimizers = {
        "critic": torch.optim.Adam(d.parameters()),
        "generator": torch.optim.Adam(g.parameters()),
    }
    of_generator, of_critic = losses(pair)

    def turn(name: str, loss: Tensor) -> None:
        which = optimizers["generator" if late else name]
        which.zero_grad()
        loss.backward()
        which.step()

    def step(i: int) -> None:
        turn("critic", of_critic())
        turn("generator", of_generator())

    found = check_wiring(pair, "vanilla", step=step)
    assert names(found) == (["wrong-optimizer"] if late else []), found


@pytest.mark.parametrize("sums", ["generator", "both"])
def test_a_sum_where_the_other_player_has_a_mean(pair: dict[str, nn.Module], sums: str) -> None:
    """As large as the batch: of both players a reduction, of one a scale that was not undone."""
    g, d = pair.values()
    of_g, of_d = (torch.optim.SGD(m.parameters(), 1e-4) for m in (g, d))
    of_generator, of_critic = losses(pair)

    def step(i: int) -> None:
        of_d.zero_grad()
        (of_critic() * (BATCH if sums == "both" else 1)).backward()
        of_d.step()
        of_g.zero_grad()
        (of_generator() * BATCH).backward()
        of_g.step()

    found = check_wiring(pair, "vanilla", step=step)
    assert names(found) == (["loss-scale"] if sums == "generator" else []), found


@pytest.mark.parametrize("maximize", [True, False])
def test_a_critic_that_goes_up_until_nothing_is_left(maximize: bool) -> None:
    """What its ascent leads to (a generator without a gradient) is not named first."""
    torch.manual_seed(0)
    wide = [nn.Linear(64, 64), nn.LeakyReLU(0.2)]
    g = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), *copy.deepcopy(wide), nn.Linear(64, 2))
    d = nn.Sequential(nn.Linear(2, 64), nn.LeakyReLU(0.2), *wide, nn.Linear(64, 1))
    of_g = torch.optim.Adam(g.parameters(), 1e-3, (0.0, 0.99))
    of_d = torch.optim.Adam(d.parameters(), 3e-3, (0.0, 0.99), maximize=maximize)

    def step(i: int) -> None:
        fake = g(torch.randn(100, 4))
        of_d.zero_grad()
        (softplus(-d(4 * rows())).mean() + softplus(d(4 * fake.detach())).mean()).backward()
        of_d.step()
        of_g.zero_grad()
        softplus(-d(4 * fake)).mean().backward()
        of_g.step()

    loop = Loop(step, {"generator": g, "critic": d}, "vanilla", real=DATA[600:])
    found = diagnose(loop, rounds=100, progress="none")
    assert (names(found)[:1] == ["wrong-sign"]) == maximize, found


def test_the_generator_first_with_samples_that_no_module_made(pair: dict[str, nn.Module]) -> None:
    """Minus the critic's term of the same samples is the generator's loss, whose gradient is cleared here."""
    g, d = pair.values()
    of_g, of_d = (torch.optim.Adam(m.parameters(), 1e-3) for m in (g, d))

    def step(i: int) -> None:
        hidden = g[0](torch.randn(BATCH, 3))  # type: ignore[index]
        fake = g[2](g[1](hidden))  # type: ignore[index]
        of_g.zero_grad()
        (-d(fake).mean()).backward()
        of_g.step()
        of_d.zero_grad()
        (relu(1 - d(rows())).mean() + relu(1 + d(fake.detach())).mean()).backward()
        of_d.step()

    found = check_wiring(pair, "hinge", step=step)
    assert names(found) == [], found


def test_steps_without_an_optimizer_are_not_counted(pair: dict[str, nn.Module]) -> None:
    """An update by hand may go far in the first rounds: how far a step goes is not known."""
    g, d = pair.values()
    of_generator, of_critic = losses(pair)

    def descend(module: nn.Module, loss: Tensor) -> None:
        parameters = list(module.parameters())
        for p, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.data -= 3e-3 * slope.sign()

    def step(i: int) -> None:
        descend(d, of_critic())
        descend(g, of_generator())

    found = diagnose(Loop(step, pair, "vanilla", real=DATA[600:]), rounds=40, progress="none")
    assert "step-too-large" not in names(found), found
