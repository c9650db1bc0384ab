"""Slips that look like usual practice, each beside the practice that it looks like."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from equilibrist import GradientPenalty
from equilibrist.diagnosis import Loop, check_step_size, check_wiring, diagnose
from equilibrist.diagnosis._after import _terms
from equilibrist.diagnosis._epochs import Epochs
from equilibrist.diagnosis._outcome import GameLook, Outcome
from equilibrist.diagnosis._seen import Opposition
from equilibrist.diagnosis.averages import _judged
from equilibrist.diagnosis.wiring import Wiring
from equilibrist.statistics import estimate

BATCH = 32
DATA = torch.randn(900, 4, generator=torch.Generator().manual_seed(1)) + 1


def mlp(first: int, last: int, *end: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(first, 16), nn.LeakyReLU(0.2), nn.Linear(16, last), *end)


class Rounded(nn.Module):
    """Eight bits an entry, with the straight-through estimate or without."""

    def __init__(self, straight: bool) -> None:
        super().__init__()
        self.body, self.straight = mlp(4, 4), straight

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.body(z)
        rounded = (x * 255).round() / 255
        return x + (rounded - x).detach() if self.straight else rounded


def adam(module: nn.Module, rate: float = 1e-3) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), rate)


def alternating(
    g: nn.Module,
    d: nn.Module,
    critics_weight: Callable[[int], float] = lambda i: 1.0,
    before_critics_step: Callable[[], object] = lambda: None,
    before_generators_step: Callable[[], object] = lambda: None,
) -> Callable[[int], None]:
    adam_g, adam_d = adam(g), adam(d)

    def step(i: int) -> None:
        adam_d.zero_grad(), adam_g.zero_grad()
        x, fake = DATA[torch.randint(600, (BATCH,))], g(torch.randn(BATCH, 4))
        loss = softplus(-d(x)).mean() + softplus(d(fake.detach())).mean()
        (critics_weight(i) * loss).backward()
        before_critics_step()
        adam_d.step()
        softplus(-d(fake)).mean().backward()
        before_generators_step()
        adam_g.step()

    return step


def names(found: Any) -> list[tuple[str, str]]:
    return [(f.name, f.where) for f in found.findings if f.level != "note"]


@pytest.mark.parametrize("straight", [False, True])
def test_a_generator_whose_output_is_rounded_has_no_gradient(straight: bool) -> None:
    torch.manual_seed(0)
    g, d = Rounded(straight), mlp(4, 1)
    found = check_wiring({"generator": g, "critic": d}, "vanilla", step=alternating(g, d))
    assert names(found) == ([] if straight else [("no-gradient", "generator")]), found
    assert straight or "slope at its samples is not zero" in found.findings[0].text


@pytest.mark.parametrize("whose", ["other", "own", "both"])
def test_clipping_the_player_that_does_not_step(whose: str) -> None:
    torch.manual_seed(0)
    g, d = mlp(4, 4), mlp(4, 1)
    parts = {"other": [g], "own": [d], "both": [g, d]}[whose]

    def clip() -> None:
        for part in parts:
            nn.utils.clip_grad_norm_(part.parameters(), 0.5)

    step = alternating(
        g,
        d,
        before_critics_step=clip,
        before_generators_step=lambda: nn.utils.clip_grad_norm_(g.parameters(), 0.5),
    )
    found = check_wiring({"generator": g, "critic": d}, "vanilla", step=step)
    clipping = [at for at in names(found) if at[0] == "clipping"]
    assert clipping == ([("clipping", "critic")] if whose == "other" else []), found


@pytest.mark.parametrize("end", [nn.ReLU, nn.Softplus])
@pytest.mark.parametrize("shift", [0.0, 8.0])
def test_a_range_with_one_end(end: type[nn.Module], shift: float) -> None:
    """Data around 1 with a spread of 1 go below zero; those around 9 do not."""
    torch.manual_seed(0)
    g, d = mlp(4, 4, end()), mlp(4, 1)
    adam_g, adam_d = adam(g), adam(d)

    def step(i: int) -> None:
        x, fake = DATA[torch.randint(600, (BATCH,))] + shift, g(torch.randn(BATCH, 4))
        adam_d.zero_grad()
        (softplus(-d(x)).mean() + softplus(d(fake.detach())).mean()).backward()
        adam_d.step()
        adam_g.zero_grad()
        softplus(-d(fake)).mean().backward()
        adam_g.step()

    players = {"generator": g, "critic": d}
    found = check_wiring(players, "vanilla", step=step, real=DATA[600:] + shift)
    assert [n for n, _ in names(found)] == (["range-mismatch"] if not shift else []), found


@pytest.mark.parametrize("until", [30, 1_000])
def test_a_critic_that_opens_later_is_no_fault(until: int) -> None:
    torch.manual_seed(0)
    g, d = mlp(4, 4), mlp(4, 1)
    step = alternating(g, d, critics_weight=lambda i: float(i >= until))
    loop = Loop(step, {"generator": g, "critic": d}, "vanilla")
    result = diagnose(loop, rounds=80, progress="none")
    assert ("no-gradient", "critic") in names(result.early)
    expected = [] if until < 80 else [("no-gradient", "critic")]
    assert [at for at in names(result) if at[0] == "no-gradient"] == expected, result


@pytest.mark.parametrize("detached", [True, False])
def test_an_encoder_beside_the_generator_is_no_leak(detached: bool) -> None:
    """In a bidirectional GAN the generator's own loss takes the critic's loss of real samples the other way."""
    torch.manual_seed(0)
    both = nn.ModuleDict({"decode": mlp(2, 4), "encode": mlp(4, 2)})
    d = mlp(6, 1)
    adam_g, adam_d = adam(both), adam(d)

    def step(i: int) -> None:
        x, z = DATA[torch.randint(600, (BATCH,))], torch.randn(BATCH, 2)
        real = torch.cat([x, both["encode"](x)], 1)
        fake = torch.cat([both["decode"](z), z], 1)
        adam_g.zero_grad()
        shown = (real.detach(), fake.detach()) if detached else (real, fake)
        adam_d.zero_grad()
        loss = softplus(-d(shown[0])).mean() + softplus(d(shown[1])).mean()
        loss.backward(retain_graph=True)
        adam_d.step()
        if detached:
            adam_g.zero_grad()
        (softplus(d(real)).mean() + softplus(-d(fake)).mean()).backward()
        adam_g.step()

    found = check_wiring({"generator": both, "critic": d}, "vanilla", step=step)
    # What the critic's loss leaves in them, where it reaches them, cancels their own.
    assert ("gradient-leak" in [name for name, _ in names(found)]) != detached, found


def test_weight_decay_that_empties_the_critic_explains_its_gradient() -> None:
    torch.manual_seed(0)
    g, d = mlp(4, 4), mlp(4, 1)
    adam_g = adam(g)
    adam_d = torch.optim.AdamW(d.parameters(), 1e-3, weight_decay=900)

    def step(i: int) -> None:
        x, fake = DATA[torch.randint(600, (BATCH,))], g(torch.randn(BATCH, 4))
        adam_d.zero_grad()
        ((1 - d(x)).relu().mean() + (1 + d(fake.detach())).relu().mean()).backward()
        adam_d.step()
        adam_g.zero_grad()
        (-d(fake).mean()).backward()
        adam_g.step()

    for i in range(300):
        step(i)
    found: Wiring = check_wiring({"generator": g, "critic": d}, "hinge", step=step)
    assert names(found)[0] == ("smothered", "critic"), found
    assert ("no-gradient", "critic") not in names(found)


@pytest.mark.parametrize(
    ("ratio", "away", "level"),
    [(300.0, 0.9, "warning"), (300.0, 0.3, "note"), (8.0, 0.9, "")],
)
def test_a_term_without_effect(ratio: float, away: float, level: str) -> None:
    """An adversarial term that goes the other term's way, and is many times as large, of a generator that is given no
    row of the data."""
    rows = [Opposition(-ratio * 0.8, 0.8, ratio * (1 + 0.01 * k)) for k in range(10)]
    looks = [GameLook(k, 0.5, 1.0 if k == 0 else away) for k in range(10)]
    calls = [(torch.randn(8, 3),) for _ in range(9)]
    run: Any = SimpleNamespace(
        early=SimpleNamespace(oppositions=rows),
        spread=None,
        late=SimpleNamespace(oppositions=rows, real_given=None),
        outcome=Outcome(looks),
        given={"generator": calls, "critic": [(torch.randn(8, 3),) for _ in calls]},
        loop=SimpleNamespace(
            players={"generator": mlp(3, 3)}, held_out=torch.randn(99, 3), seen=torch.randn(99, 3)
        ),
        seed=0,
    )
    assert [f.level for f in _terms(run, "generator", "critic")] == ([level] if level else [])


@pytest.mark.parametrize(
    ("factor", "wide", "faults"), [(1.4, 1.0, 0), (1.7, 1.0, 1), (1.7, 5.0, 0)]
)
def test_averaged_statistics_lag_a_little(factor: float, wide: float, faults: int) -> None:
    """Or a lot, by what is next to nothing of the data's width."""
    gaps = estimate([0.01 * (factor - 1) * (1 + 0.01 * k) for k in range(10)])
    found = _judged([], ["1"], (gaps, 0.01 * factor, 0.01, wide), "average", 0.95)
    assert len(found) == faults


@pytest.mark.parametrize("used_up", [True, False])
def test_clipping_of_an_iterator_that_was_used_up(used_up: bool) -> None:
    torch.manual_seed(0)
    g, d = mlp(4, 4), mlp(4, 1)
    weights = d.parameters()
    if used_up:
        list(weights)

    def clip() -> None:
        given = weights if used_up else d.parameters()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns once
            nn.utils.clip_grad_norm_(given, 0.5)

    step = alternating(g, d, before_critics_step=clip)
    found = check_wiring({"generator": g, "critic": d}, "vanilla", step=step)
    assert [n for n, _ in names(found)] == (["clipping"] if used_up else []), found


def test_a_penalty_by_a_functional_transform_does_not_end_the_loop() -> None:
    """Within torch.func's transforms tensors hold no values that could be looked at."""
    torch.manual_seed(0)
    g, d = mlp(4, 4), mlp(4, 1)
    adam_g, adam_d = adam(g), adam(d)
    slope = torch.func.vmap(torch.func.grad(lambda p: d(p[None]).sum()))

    def step(i: int) -> None:
        x, fake = DATA[torch.randint(600, (BATCH,))], g(torch.randn(BATCH, 4))
        between = torch.lerp(x, fake.detach(), torch.rand(BATCH, 1))
        penalty = 2 * (slope(between).norm(dim=1) - 1).square().mean()
        adam_d.zero_grad()
        (d(fake.detach()).mean() - d(x).mean() + penalty).backward()
        adam_d.step()
        adam_g.zero_grad()
        (-d(fake).mean()).backward()
        adam_g.step()

    penalties = [GradientPenalty(2.0)]
    loop = Loop(step, {"generator": g, "critic": d}, "wgan", penalties, real=DATA[600:])
    result = diagnose(loop, rounds=30, progress="none")
    assert result.rounds >= 30
    assert names(result) == [], result


def test_what_a_measurement_raises_does_not_end_the_loop() -> None:
    """A loop that is a generator function is over once an exception has passed through it."""
    net = nn.Linear(2, 1)
    sgd = torch.optim.SGD(net.parameters(), 0.1)

    def rounds() -> Iterator[None]:
        while True:
            sgd.zero_grad()
            net(torch.randn(4, 2)).mean().backward()
            sgd.step()
            yield

    loop = rounds()

    def loss() -> Tensor:
        raise RuntimeError("of the loss alone")

    with pytest.raises(RuntimeError, match="of the loss alone"):
        check_step_size(lambda i: next(loop), {"critic": net}, {"critic": loss})
    next(loop)  # it goes on


def test_a_fault_of_ours_does_not_reach_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("ours")

    monkeypatch.setattr(Epochs, "meet", fails)
    torch.manual_seed(0)
    g, d = mlp(4, 4), mlp(4, 1)
    loop = Loop(alternating(g, d), {"generator": g, "critic": d}, "vanilla")
    result = diagnose(loop, rounds=30, progress="none")
    assert names(result) == [], result
    assert result.skipped["what networks were given"] == "RuntimeError: ours"
