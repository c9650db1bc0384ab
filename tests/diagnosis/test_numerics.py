"""Batches of one, values that are not finite, steps that overshoot: planted, beside healthy twins."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from equilibrist.diagnosis.numerics import check_finite, check_single
from equilibrist.diagnosis.step_size import check_step_size


class Minibatch(nn.Module):
    """Appends the mean standard deviation over the batch, as critics do."""

    def __init__(self, unbiased: bool, eps: float = 0.0) -> None:
        super().__init__()
        self.unbiased, self.eps = unbiased, eps
        self.first, self.last = nn.Linear(4, 8), nn.Linear(9, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = softplus(self.first(x))  # of no unit that is dead on a whole batch
        spread = (h.var(dim=0, unbiased=self.unbiased) + self.eps).sqrt().mean()
        return self.last(torch.cat([h, spread.expand(len(h), 1)], dim=1))


def batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))


@pytest.mark.filterwarnings("ignore:var")
@pytest.mark.parametrize(
    ("module", "says"),
    [
        (Minibatch(unbiased=True), "Minibatch.forward, before last (Linear)"),
        (Minibatch(unbiased=False), "the gradient of its input is not"),
        (batch_norm(), "1 (BatchNorm1d) fails (Expected more than 1 value per channel"),
    ],
)
def test_a_batch_of_one_is_a_fault_where_one_occurs(module: nn.Module, says: str) -> None:
    x = torch.randn(8, 4)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    (found,) = check_single(module, x, rows=65, batch=8)
    assert (found.name, found.level) == ("batch-of-one", "fault")
    assert says in found.text
    assert "65 samples in batches of 8" in found.text
    assert [f.level for f in check_single(module, x, seen=True)] == ["fault"]
    for rest in ({}, {"rows": 65, "batch": 8, "drop_last": True}, {"rows": 64, "batch": 8}):
        assert [f.level for f in check_single(module, x, **rest)] == ["note"]
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())


@pytest.mark.parametrize(
    "module",
    [
        Minibatch(unbiased=False, eps=1e-8),
        nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 1)),
        nn.Sequential(nn.Unflatten(1, (1, 4)), nn.BatchNorm1d(1), nn.Flatten(), nn.Linear(4, 1)),
    ],
)
def test_modules_that_are_sound_on_one_sample(module: nn.Module) -> None:
    assert check_single(module, torch.randn(8, 4), rows=65, batch=8) == ()


def test_a_module_that_fails_on_every_batch_is_no_matter_of_one() -> None:
    assert check_single(nn.Linear(3, 1), torch.randn(8, 4), rows=65, batch=8) == ()


def loop(
    scaler: Any = None, spoil: Callable[[int, Tensor], Tensor] = lambda i, x: x
) -> tuple[Callable[[int], None], dict[str, nn.Module]]:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
    adam = torch.optim.Adam(net.parameters(), 1e-3)

    def step(i: int) -> None:
        loss = softplus(-net(spoil(i, torch.randn(16, 2)))).mean()
        adam.zero_grad()
        if scaler is None:
            loss.backward()
            adam.step()
            return
        scaler.scale(loss).backward()
        scaler.step(adam)
        scaler.update()

    return step, {"critic": net}


def test_the_first_value_that_is_not_finite_is_named() -> None:
    step, players = loop(spoil=lambda i, x: x / (i - 3) if i == 3 else x)
    (found,) = check_finite(step, players)
    assert (found.name, found.where) == ("not-finite", "critic")
    assert found.evidence == {"round": 3, "tensor": "0", "kind": "output"}
    assert "whose input is not either" in found.text
    step, players = loop()
    assert check_finite(step, players) == ()
    with torch.no_grad():
        next(players["critic"].parameters())[0, 0] = math.nan
    (found,) = check_finite(step, players)
    assert "0.weight of critic is not finite before the first round" in found.text

    def root(i: int, x: Tensor) -> Tensor:  # its slope at zero is infinite
        return x if i < 2 else x + 0 * (players["critic"][0].bias * 0).sqrt().sum()  # type: ignore[index]

    step, players = loop(spoil=root)
    (found,) = check_finite(step, players)
    assert (found.evidence["round"], found.evidence["kind"]) == (2, "gradient")


def test_a_loss_scaler_may_overflow() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, growth_interval=2)
    step, players = loop(scaler, lambda i, x: 1e3 * x)
    assert check_finite(step, players, rounds=6) == ()
    assert scaler.get_scale() < 2.0**127, "a step was left out"


def quadratic(rate: float) -> Any:
    """Gradient descent on w^2 / 2, curvature 1: a rate above 2 overshoots, by hand."""
    net = nn.Linear(1, 1, bias=False).double()
    sgd = torch.optim.SGD(net.parameters(), rate)

    def loss() -> Tensor:
        return net.weight.square().sum() / 2

    def step(i: int) -> None:
        with torch.no_grad():
            net.weight.fill_(1.0 + 0.1 * (i % 3))
        sgd.zero_grad()
        loss().backward()
        sgd.step()

    return check_step_size(step, {"critic": net}, {"critic": loss})


@pytest.mark.parametrize(
    ("rate", "part"), [(0.5, None), (1.6, None), (1.9, 0.5), (2.1, 0.5), (15.0, 0.1), (150.0, 0.01)]
)
def test_overshooting_is_that_of_a_parabola(rate: float, part: float | None) -> None:
    found = quadratic(rate)
    assert [f.evidence["part"] for f in found] == ([part] if part else [])
    if part:
        # Above a rate of 2 the loss rises; below, a step that is too long still lowers it.
        assert found[0].level == ("fault" if rate > 2 else "note")
        # (1 - rate)^2 w^2 / 2 - w^2 / 2, over the squares of 1, 1.1 and 1.2 in 7, 7 and 6 of 20 rounds
        mean = (7 * 1 + 7 * 1.21 + 6 * 1.44) / 20 / 2
        assert found[0].evidence["value"] == pytest.approx(((1 - rate) ** 2 - 1) * mean)
        assert found[0].evidence["part_change"] == pytest.approx(
            ((1 - part * rate) ** 2 - 1) * mean
        )


def test_noise_without_descent_is_no_large_step() -> None:
    net = nn.Linear(4, 1)
    sgd = torch.optim.SGD(net.parameters(), 0.1)
    x = torch.randn(500, 4)

    def step(i: int) -> None:
        sgd.zero_grad()
        (net(torch.randn(8, 4)) * torch.randn(8, 1)).mean().backward()
        sgd.step()

    losses = {"critic": lambda: net(x).square().mean()}
    assert check_step_size(step, {"critic": net}, losses) == ()
    before = [p.detach().clone() for p in net.parameters()]
    torch.manual_seed(1)
    step(0)
    after = [p.detach().clone() for p in net.parameters()]
    with torch.no_grad():
        for p, value in zip(net.parameters(), before, strict=True):
            p.copy_(value)
    torch.manual_seed(1)
    check_step_size(step, {"critic": net}, losses, rounds=1)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), after, strict=True))


@pytest.mark.parametrize(("momentum", "seen"), [(0.0, True), (0.9, False)])
def test_small_steps_along_the_gradient_alone_can_be_too_large(momentum: float, seen: bool) -> None:
    """Weights that do not matter make every step a small part of all: of momentum that says nothing."""
    net = nn.Linear(2, 1, bias=False).double()
    sgd = torch.optim.SGD(net.parameters(), 2.1, momentum=momentum)

    def loss() -> Tensor:
        return net.weight[0, 0].square() / 2

    def step(i: int) -> None:
        with torch.no_grad():
            net.weight.copy_(torch.tensor([[1.0 + 0.1 * (i % 3), 1000.0]]))
        sgd.zero_grad()
        loss().backward()
        sgd.step()

    found = check_step_size(step, {"critic": net}, {"critic": loss})
    assert [f.level for f in found] == (["fault"] if seen else [])
