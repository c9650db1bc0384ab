"""Schedules and clipping: against torch's schedulers and clip_grad_norm_, and stacked against alone."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.optimizers import SGD, Adam, RMSProp, TFRMSProp
from equilibrist.per_member import PerMember
from equilibrist.schedules import Clipped, Cosine, Piecewise, Scheduled, WrappedRule, base, update

F64 = torch.float64
RULES = [
    (SGD(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    (SGD(0.1, 0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    (Adam(0.1), lambda p: torch.optim.Adam(p, 0.1, betas=(0.5, 0.9))),
    (RMSProp(0.1), lambda p: torch.optim.RMSprop(p, 0.1)),
]
WARM = Piecewise(((0, 0.25), (4, 1.0), (6, 1.0), (9, 0.1)))
SCHEDULES = [
    (WARM, lambda t: [0.25, 0.4375, 0.625, 0.8125, 1, 1, 1, 0.7, 0.4, 0.1, 0.1, 0.1, 0.1][t]),
    (Cosine(8, 0.2), lambda t: 0.2 + 0.8 * (1 + math.cos(math.pi * min(t / 8, 1))) / 2),
]


def start() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    return {
        "w": torch.randn(3, 2, generator=g, dtype=F64),
        "b": torch.randn(3, generator=g, dtype=F64),
    }


def gradient(params: Any) -> dict[str, Tensor]:
    """Of sum (x - 1)^2 / 2 + cos x: no two steps alike."""
    return {k: p - 1 - torch.sin(p) for k, p in params.items()}


@pytest.mark.parametrize(("rule", "optimizer"), RULES, ids=lambda r: str(r)[:20])
@pytest.mark.parametrize(("schedule", "factor"), SCHEDULES, ids=["piecewise", "cosine"])
def test_equals_torch_with_lambda_lr(rule: Any, optimizer: Any, schedule: Any, factor: Any) -> None:
    mine, theirs = start(), {k: torch.nn.Parameter(p) for k, p in start().items()}
    scheduled = Scheduled(rule, schedule)
    state = scheduled.init(mine)
    reference = optimizer(list(theirs.values()))
    clock = torch.optim.lr_scheduler.LambdaLR(reference, factor)
    for _ in range(12):
        scheduled.update(gradient(mine), state, mine)
        for k, p in theirs.items():
            p.grad = gradient({k: p.detach()})[k]
        reference.step()
        clock.step()
        for k in mine:
            torch.testing.assert_close(mine[k], theirs[k].detach(), rtol=1e-12, atol=1e-13)


def test_factor_one_is_the_rule_itself() -> None:
    a, b = start(), start()
    rule, scheduled = TFRMSProp(0.1), Scheduled(TFRMSProp(0.1), Piecewise(((0, 1.0), (1, 1.0))))
    sa, sb = rule.init(a), scheduled.init(b)
    for _ in range(5):
        rule.update(gradient(a), sa, a)
        scheduled.update(gradient(b), sb, b)
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("limit", [0.3, 100.0])
def test_clipping_equals_torch(limit: float) -> None:
    mine, theirs = start(), {k: torch.nn.Parameter(p) for k, p in start().items()}
    rule = Clipped(SGD(0.1, 0.9), limit)
    state = rule.init(mine)
    reference = torch.optim.SGD(theirs.values(), 0.1, momentum=0.9)
    for _ in range(6):
        rule.update(gradient(mine), state, mine)
        for k, p in theirs.items():
            p.grad = gradient({k: p.detach()})[k]
        torch.nn.utils.clip_grad_norm_(theirs.values(), limit)
        reference.step()
        for k in mine:  # torch adds 1e-6 to the norm
            torch.testing.assert_close(mine[k], theirs[k].detach(), rtol=1e-5, atol=1e-6)


def test_the_clipped_norm_is_the_limit() -> None:
    p = {"a": torch.zeros(2, dtype=F64), "b": torch.zeros(1, dtype=F64)}
    rule = Clipped(SGD(1.0), 0.5)
    rule.update(
        {"a": torch.tensor([3.0, 0.0], dtype=F64), "b": torch.tensor([-4.0], dtype=F64)},
        {"rule": {}},
        p,
    )
    assert torch.allclose(p["a"], torch.tensor([-0.3, 0], dtype=F64), atol=1e-15)
    assert float(p["b"]) == pytest.approx(0.4, abs=1e-15)


def test_a_zero_gradient_stays_zero_and_an_infinite_one_shows() -> None:
    p = {"a": torch.ones(2, dtype=F64)}
    Clipped(SGD(1.0), 0.5).update({"a": torch.zeros(2, dtype=F64)}, {"rule": {}}, p)
    assert torch.equal(p["a"], torch.ones(2, dtype=F64))
    bad = {"a": torch.tensor([1.0, float("inf")], dtype=F64)}
    Clipped(SGD(1.0), 0.5).update(bad, {"rule": {}}, p)
    assert not torch.isfinite(p["a"]).all()


@pytest.mark.parametrize(
    "rule",
    [
        Clipped(Adam(0.1), 0.3),
        Scheduled(Clipped(SGD(0.1, 0.5), 0.3), WARM),
        Clipped(Scheduled(Adam(0.1), WARM), 0.3),
    ],
)
def test_stacked_equals_each_member(rule: Any) -> None:
    """Each member is clipped by its own norm."""
    members = [start(), tree.scale(3.0, start()), tree.scale(0.01, start())]
    together = tree.stack(members)
    state = rule.init(together)
    for _ in range(4):
        update(rule, gradient(together), state, together, members=3)
    for i, alone in enumerate(members):
        own = rule.init(alone)
        for _ in range(4):
            update(rule, gradient(alone), own, alone)
        for k in alone:
            torch.testing.assert_close(together[k][i], alone[k], rtol=1e-13, atol=1e-14)


def test_base_is_the_innermost_rule() -> None:
    assert base(Scheduled(Clipped(Adam(0.1)), WARM)) == Adam(0.1)
    assert base(SGD()) == SGD()
    assert base(Clipped(PerMember(Scheduled(Adam(0.1), WARM), (1.0, 2.0)))) == Adam(0.1)


def test_factors_by_member_are_no_schedule() -> None:
    """What surrounds a rule has one base; neither of the two is the other."""
    rule = PerMember(SGD(0.1), (1.0, 2.0))
    assert isinstance(rule, WrappedRule)
    assert not isinstance(rule, Scheduled)
    assert [f.name for f in dataclasses.fields(rule)] == ["rule", "factors"]
    assert repr(rule) == "PerMember(rule=SGD(lr=0.1, momentum=0.0), factors=(1.0, 2.0))"
    p = {"a": torch.zeros(2, 3, dtype=F64)}
    update(rule, {"a": torch.ones(2, 3, dtype=F64)}, rule.init(p), p, members=2)
    assert torch.equal(p["a"][:, 0], torch.tensor([-0.1, -0.2], dtype=F64))
    # By itself the base is the rule that it surrounds.
    a, b = start(), start()
    sa, sb = WrappedRule(Adam(0.1)).init(a), Adam(0.1).init(b)
    for _ in range(3):
        WrappedRule(Adam(0.1)).update(gradient(a), sa, a)
        Adam(0.1).update(gradient(b), sb, b)
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Piecewise(((0, 1.0),)), "two points"),
        (lambda: Piecewise(((5, 1.0), (5, 0.0))), "growing t"),
        (lambda: Piecewise(((0, 1.0), (5, -0.1))), "not negative"),
        (lambda: Cosine(0), "steps >= 1"),
        (lambda: Cosine(5, 2.0), r"end in \[0, 1\]"),
        (lambda: Clipped(SGD(), 0.0), "positive"),
        (lambda: Clipped(SGD, 1.0), r"Clipped\.rule must be Adam"),
        (lambda: Scheduled(0.1, WARM), r"Scheduled\.rule must be Adam"),
        (lambda: PerMember(Adam, (1.0,)), r"PerMember\.rule must be Adam"),
        (lambda: Piecewise((0, 1)), "pairs of numbers"),
        (lambda: Piecewise(((0, 1), (1, "2"))), "pairs of numbers"),
    ],
)
def test_refused(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
