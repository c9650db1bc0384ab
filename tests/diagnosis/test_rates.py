"""Who writes a learning rate: one rule for both players is a fault, a schedule by hand or one player's rule is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ExponentialLR, LambdaLR, LRScheduler

from equilibrist.diagnosis import check_wiring
from equilibrist.diagnosis._judge_rates import ruled
from equilibrist.findings import Finding

ROUNDS = 120
BASE = {"critic": 1e-3, "generator": 3e-4}
Rule = Callable[[int, dict[str, float]], dict[str, float]]
WALK = np.random.default_rng(0).choice([1.5, 1 / 1.5], size=(2, ROUNDS))


def written(rule: Rule, shared: bool = False) -> list[Finding]:
    """What is said of rates that `rule` writes after each round's steps: the critic's, then the generator's."""
    rates, count = dict(BASE), 0
    seen: dict[str, dict[int, list[tuple[int, float]]]] = {
        name: {0 if shared else k: []} for k, name in enumerate(BASE)
    }
    for i in range(ROUNDS):
        for k, name in enumerate(BASE):
            count += k == 0 or not shared
            seen[name][0 if shared else k].append((count, rates[name]))
        rates = rule(i, rates)
    return ruled(seen, "critic")


def walk(i: int, rates: dict[str, float]) -> dict[str, float]:
    return {name: float(np.clip(rate * WALK[0, i], 5e-5, 4e-3)) for name, rate in rates.items()}


def same_walk(i: int, rates: dict[str, float]) -> dict[str, float]:
    return {name: rate * WALK[0, i] for name, rate in rates.items()}


def forced(i: int, rates: dict[str, float]) -> dict[str, float]:
    """The generator's low rate goes into both, every tenth round, and each is put back at another time."""
    if i % 10 == 4:
        return dict.fromkeys(rates, 1e-4)
    put_back = {9: "generator", 8: "critic"}.get(i % 10)
    return rates if put_back is None else rates | {put_back: BASE[put_back]}


@pytest.mark.parametrize(
    ("rule", "shared", "says"),
    [
        (same_walk, True, "whose optimiser it shares"),
        (walk, False, "by the generator's factor at the same moments"),
        (forced, False, "12 times both jump to 0.0001 at one moment"),
    ],
)
def test_one_rule_for_both_players_is_a_fault(rule: Rule, shared: bool, says: str) -> None:
    (found,) = written(rule, shared)
    assert (found.name, found.where, found.level) == (
        "rate-rewritten",
        "critic's learning rate",
        "fault",
    )
    assert says in found.text
    if rule is same_walk:  # counted by hand
        assert found.evidence["up"] == sum(WALK[0, : ROUNDS - 1] > 1)


def both(rate: Callable[[int], float]) -> Rule:
    """A schedule by hand, written into both players' groups."""
    return lambda i, _: {name: base * rate(i + 1) for name, base in BASE.items()}


SCHEDULES = {
    "linear decay": both(lambda i: 1 - i / 200),
    "steps": both(lambda i: 0.5 ** (i // 30)),
    "warm-up and cosine": both(lambda i: min(i / 6, 1) * (1 + math.cos(math.pi * i / ROUNDS)) / 2),
    "cosine with restarts": both(lambda i: 0.01 + (1 + math.cos(math.pi * (i % 12) / 12)) / 2),
    "triangles": both(lambda i: 0.1 + 0.9 * abs(1 - (i % 8) / 4)),
    "one is halved while the other is doubled": lambda i, r: {
        "critic": r["critic"] * WALK[0, i],
        "generator": r["generator"] / WALK[0, i],
    },
    "two rules": lambda i, r: {name: r[name] * WALK[k, i] for k, name in enumerate(BASE)},
    "nothing": lambda i, r: r,
}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_by_hand_and_rules_of_one_player_are_no_fault(name: str, shared: bool) -> None:
    found = written(SCHEDULES[name], shared)
    assert all(f.level == "note" for f in found), found
    assert bool(found) == ("one is" in name or "two" in name)  # rates that go up and down are noted


def scheduled(order: str) -> list[Finding]:
    """What is found of a critic whose rate a warm-up by hand and a scheduler of torch write, in this order."""
    torch.manual_seed(0)
    players = {"generator": nn.Linear(2, 2), "critic": nn.Linear(2, 1)}
    adam = {name: torch.optim.Adam(p.parameters(), 1e-3) for name, p in players.items()}
    rule = LambdaLR(adam["critic"], lambda epoch: 1.0)
    if "falls" in order:
        rule = ExponentialLR(adam["critic"], 0.99)

    def warm_up(i: int) -> None:
        for group in adam["critic"].param_groups:
            group["lr"] = 1e-3 * min(1.0, (i + 2) / 100)

    def step(i: int) -> None:
        fake = players["generator"](torch.randn(16, 2))
        critic = players["critic"]
        adam["critic"].zero_grad()
        (critic(fake.detach()).relu().mean() - critic(torch.ones(16, 2)).mean()).backward()
        adam["critic"].step()
        adam["generator"].zero_grad()
        (-critic(fake).mean()).backward()
        adam["generator"].step()
        for what in order.split():
            {"hand": lambda: warm_up(i), "rule": rule.step, "falls": rule.step}[what]()

    before = LRScheduler.step
    found = check_wiring(players, None, step=step).findings
    assert LRScheduler.step is before  # torch's own is put back
    return [f for f in found if f.name == "rate-rewritten" and f.level != "note"]


def test_a_rate_that_is_overwritten_before_it_acts() -> None:
    (found,) = scheduled("hand rule")
    assert found.where == "critic's learning rate"
    assert found.evidence == {"overwritten": 12, "written": 1e-3 * 13 / 100, "instead": 1e-3}


@pytest.mark.parametrize("order", ["rule", "rule hand", "hand falls", "hand"])
def test_a_rate_that_acts_is_no_fault(order: str) -> None:
    """The last one to write is heard; a rule that multiplies what it finds keeps what was written."""
    assert scheduled(order) == []
