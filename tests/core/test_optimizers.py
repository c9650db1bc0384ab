"""Update rules against torch.optim and against loops written out by hand."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.optimizers import SGD, Adam, RMSProp, TFRMSProp

F64 = torch.float64
X = torch.linspace(-1, 1, 40, dtype=F64).reshape(10, 4)


def start(seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    shapes = {"matrix": (5, 4), "filters": (3, 5, 2, 2), "bias": (5,), "gain": ()}
    return {k: torch.randn(s, generator=g, dtype=F64) for k, s in shapes.items()}


def loss(params: dict[str, Tensor]) -> Tensor:
    """A smooth bounded pull plus a weak well; gradients come back in other layouts than the parameters'."""
    x = X.to(params["matrix"].dtype)
    # A reshape of a transposed tensor copies: its gradient comes back as a transposed view.
    matrix = params["matrix"].mT.reshape(-1)
    filters = params["filters"].permute(3, 1, 2, 0).reshape(-1)
    tall = torch.tanh(matrix.reshape(4, 5) @ x[:5] + params["bias"].sum())
    turned = torch.tanh(filters * x[0, 0] + params["gain"])
    wells = sum((p**2).sum() / 10 for p in (matrix, filters, params["bias"], params["gain"]))
    return tall.sum() + (tall.mean() * turned).sum() + wells


def gradient(params: dict[str, Tensor]) -> dict[str, Tensor]:
    inputs = [p.detach().requires_grad_() for p in params.values()]
    value = loss(dict(zip(params, inputs, strict=True)))
    return dict(zip(params, torch.autograd.grad(value, inputs), strict=True))


def play(
    rule: Any, params: dict[str, Tensor], steps: int, grad: Callable[..., Any] = gradient
) -> Any:
    params = tree.clone(params)
    state = rule.init(params)
    for _ in range(steps):
        rule.update(grad(params), state, params)
    return params


def test_the_problem_has_gradients_in_other_layouts() -> None:
    here = start()
    assert any(g.stride() != here[k].stride() for k, g in gradient(here).items())


PAIRS = {
    "sgd": (SGD(0.01), lambda p: torch.optim.SGD(p, lr=0.01)),
    "momentum": (SGD(0.01, 0.9), lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9)),
    "adam": (Adam(1e-2, 0.5, 0.9), lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.5, 0.9))),
    "adam, defaults": (Adam(), lambda p: torch.optim.Adam(p, lr=1e-4, betas=(0.5, 0.9), eps=1e-8)),
    "adam, large eps": (
        Adam(1e-2, 0.9, 0.999, 0.1),
        lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.9, 0.999), eps=0.1),
    ),
    "adam, betas 0": (
        Adam(1e-3, 0.0, 0.0),
        lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.0, 0.0)),
    ),
    "adam, integer betas": (
        Adam(1e-3, 0, 0),
        lambda p: torch.optim.Adam(p, lr=1e-3, betas=(0.0, 0.0)),
    ),
    "rmsprop": (RMSProp(1e-2), lambda p: torch.optim.RMSprop(p, lr=1e-2)),
    "rmsprop, eps": (
        RMSProp(1e-2, 0.9, 1e-3),
        lambda p: torch.optim.RMSprop(p, lr=1e-2, alpha=0.9, eps=1e-3),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_torch(name: str, dtype: torch.dtype) -> None:
    rule, reference = PAIRS[name]
    here = {k: p.to(dtype) for k, p in start().items()}
    ours = play(rule, here, 50)
    theirs = {k: p.clone().requires_grad_() for k, p in here.items()}
    optimizer = reference(list(theirs.values()))
    for _ in range(50):
        optimizer.zero_grad()
        loss(theirs).backward()
        optimizer.step()
    tolerance = 1e-12 if dtype == F64 else 1e-4
    for key, p in theirs.items():
        torch.testing.assert_close(ours[key], p.detach(), rtol=tolerance, atol=tolerance)
        assert ours[key].dtype == dtype
        assert (ours[key] - here[key]).abs().max() > 1e-3


@pytest.mark.parametrize("momentum", [-0.3, 0.0, 0.7])
def test_momentum_by_hand(momentum: float) -> None:
    """torch.optim.SGD refuses a negative momentum; the recursion is two lines."""
    here, lr = start(), 0.02
    x, b = tree.clone(here), tree.zeros_like(here)
    for _ in range(50):
        b = tree.map(lambda b, g: momentum * b + g, b, gradient(x))
        x = tree.map(lambda x, b: x - lr * b, x, b)
    ours = play(SGD(lr, momentum), here, 50)
    assert tree.norm(tree.axpy(-1.0, x, ours)) < 1e-12


@pytest.mark.parametrize(("decay", "eps"), [(0.9, 1e-10), (0.5, 1e-2)])
def test_tf_rmsprop_by_hand(decay: float, eps: float) -> None:
    """TensorFlow 1: the accumulator starts at one, epsilon is inside the root."""
    here, lr = start(), 0.01
    x = {k: p.numpy().copy() for k, p in here.items()}
    square = {k: np.ones_like(p) for k, p in x.items()}
    for _ in range(50):
        grads = gradient({k: torch.from_numpy(np.array(p)) for k, p in x.items()})
        for k, g in grads.items():
            square[k] = decay * square[k] + (1 - decay) * g.numpy() ** 2
            x[k] = x[k] - lr * g.numpy() / np.sqrt(square[k] + eps)
    ours = play(TFRMSProp(lr, decay, eps), here, 50)
    for k, p in x.items():
        np.testing.assert_allclose(ours[k].numpy(), p, rtol=1e-12, atol=1e-12)


def test_first_step_of_tf_is_smaller_than_torchs() -> None:
    p = {"x": torch.zeros(1, dtype=F64)}
    g = {"x": torch.full((1,), 1e-3, dtype=F64)}
    moved = {}
    for rule in (TFRMSProp(1.0, 0.9), RMSProp(1.0, 0.9)):
        x = tree.clone(p)
        rule.update(g, rule.init(x), x)
        moved[type(rule)] = float(x["x"].abs())
    assert moved[TFRMSProp] == pytest.approx(1e-3 / math.sqrt(0.9), rel=1e-6)
    assert moved[RMSProp] == pytest.approx(1 / math.sqrt(0.1), rel=1e-4)


RULES = [
    SGD(0.01),
    SGD(0.01, -0.4),
    Adam(0.01),
    Adam(0.01, 0.0, 0.0),
    RMSProp(0.01),
    TFRMSProp(0.01),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_stacked_equals_members(rule: Any) -> None:
    members = [start(seed) for seed in range(3)]

    def stacked_gradient(params: dict[str, Tensor]) -> dict[str, Tensor]:
        inputs = [p.detach().requires_grad_() for p in params.values()]
        total = torch.func.vmap(loss)(dict(zip(params, inputs, strict=True))).sum()
        return dict(zip(params, torch.autograd.grad(total, inputs), strict=True))

    together = play(rule, tree.stack(members), 20, stacked_gradient)
    for index, here in enumerate(members):
        alone = play(rule, here, 20)
        for key in here:
            torch.testing.assert_close(together[key][index], alone[key], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_gradients_and_frozen_rules_stay_as_they_are(rule: Any) -> None:
    here = start()
    grads = gradient(here)
    kept = tree.clone(grads)
    rule.update(grads, rule.init(here), here)
    assert all(torch.equal(grads[k], kept[k]) for k in kept)
    with pytest.raises(dataclasses.FrozenInstanceError):
        rule.lr = 1.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_adam_with_both_betas_zero_is_normalised_sign(dtype: torch.dtype) -> None:
    p = {"x": torch.tensor([1.0, -2.0, 0.0], dtype=dtype)}
    state = Adam(0.1, 0.0, 0.0).init(p)
    for _ in range(3):
        Adam(0.1, 0.0, 0.0).update({"x": torch.tensor([3.0, -1e-3, 0.0], dtype=dtype)}, state, p)
    torch.testing.assert_close(
        p["x"], torch.tensor([0.7, -1.7, 0.0], dtype=dtype), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        (SGD, {"lr": -1.0}),
        (SGD, {"lr": math.nan}),
        (SGD, {"momentum": 1.5}),
        (SGD, {"momentum": -1.5}),
        (Adam, {"lr": -1e-4}),
        (Adam, {"beta1": -0.1}),
        (Adam, {"beta1": 1.1}),
        (Adam, {"beta2": math.nan}),
        (Adam, {"eps": -1e-8}),
        (RMSProp, {"alpha": 1.1}),
        (RMSProp, {"lr": -1}),
        (RMSProp, {"eps": -1.0}),
        (TFRMSProp, {"decay": -0.1}),
        (TFRMSProp, {"decay": 2}),
        (TFRMSProp, {"lr": math.nan}),
    ],
)
def test_bad_hyperparameters_are_refused(rule: Any, bad: dict[str, float]) -> None:
    with pytest.raises(ValueError) as caught:
        rule(**bad)
    message = str(caught.value)
    assert "\n" not in message
    assert f"{rule.__name__}.{next(iter(bad))}" in message


@pytest.mark.parametrize("bad", [{"beta1": 1.0}, {"beta2": 1.0}])
def test_adam_refuses_a_beta_of_one(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        Adam(**bad)


@pytest.mark.parametrize("rule", [SGD, Adam, RMSProp, TFRMSProp])
def test_an_infinite_step_is_refused(rule: Any) -> None:
    with pytest.raises(ValueError):
        rule(lr=math.inf)


def test_adam_refuses_a_view_with_gaps() -> None:
    with pytest.raises(ValueError, match="x has gaps in memory"):
        Adam(0.1).init({"x": torch.ones(3, 4, dtype=F64)[:, :2]})
