"""Update rules of one player: from a gradient to a change of parameters.

Each is frozen hyperparameters; `init(params)` gives its state (a tree of tensors) and
`update(grads, state, params)` overwrites params and state. They act entry by entry, so the same rule
serves stacked players. Adam, SGD and RMSProp run torch.optim's own kernels and equal it.

A rule that divides by a preconditioner has a method `metric(state)` that returns it. Where a feasible set
couples the entries of a tensor (a norm ball), such a step and the nearest feasible point do not mix: for
Adam, points that are not stationary would attract. `schedules.update` then divides the tensor by one number.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from equilibrist.tree import Tree

Params = dict[str, Tensor]
# Names of the parameters whose entries a feasible set couples, each parameter by itself; None: all of a
# player's parameters at once.
Coupled = tuple[str, ...] | None
_LARGEST = 3e38  # of float32
_BELOW_ONE = 1 - sys.float_info.epsilon
_unfused = ContextVar("unfused", default=False)


@contextmanager
def unfused() -> Iterator[None]:
    """Rules without torch's fused kernels, in plain tensor operations, which can be traced: the same step up to
    rounding.

    Returns:
        A context manager.
    """
    token = _unfused.set(True)
    try:
        yield
    finally:
        _unfused.reset(token)


class Optimizer(Protocol):
    """An update rule. `update` overwrites `params` and `state`; it is called without a graph."""

    def init(self, params: Params) -> Tree: ...

    def update(self, grads: Params, state: Tree, params: Params) -> None: ...


def metric(rule: object, state: Tree) -> Params | None:
    """What the rule's last update divided each gradient by, entry by entry: its preconditioner. None for a
    rule that divides by nothing (`SGD`, and rules of one's own without a method `metric`).

    Args:
        rule: an update rule.
        state: its state after an update.

    Returns:
        The preconditioner by parameter; None for a rule that divides by nothing.
    """
    own = getattr(rule, "metric", None)
    return None if own is None else own(state)


def levelled(metric: Params, coupled: Coupled, members: int | None = None) -> Params:
    """The metric with one number for every tensor that a feasible set couples: its root mean square (of a
    stack, each member's own); over all of them together where `coupled` is None.

    Args:
        metric: a preconditioner by parameter, as `metric` gives it.
        coupled: names of the parameters that a feasible set couples; None: all of them at once.
        members: how many players are stacked.

    Returns:
        The metric, constant over each of these.
    """
    names = list(metric) if coupled is None else [k for k in metric if k in coupled]
    lead = () if members is None else (members,)

    def mean(values: Tensor) -> Tensor:
        return values.square().mean(-1).sqrt()

    flat = {k: metric[k].reshape(*lead, -1) for k in names}
    together = mean(torch.cat(list(flat.values()), -1)) if coupled is None else None
    return {
        k: (mean(flat[k]) if together is None else together).reshape(
            *lead, *[1] * (metric[k].ndim - len(lead))
        )
        for k in names
    }


def _check(rule: Any, **bounds: tuple[float, float]) -> None:
    for field in fields(rule):
        value = getattr(rule, field.name)
        if not isinstance(value, float | int):
            raise ValueError(f"{type(rule).__name__}.{field.name} must be a number, not {value!r}")
        low, high = bounds.get(field.name, (0.0, _LARGEST))
        if not isinstance(value, bool) and not low <= value <= high:
            raise ValueError(
                f"{type(rule).__name__}.{field.name} must lie in [{low}, {high}], not {value}"
            )


def _zeros(params: Params) -> Params:
    return {k: torch.zeros_like(p) for k, p in params.items()}


def _counters(params: Params) -> Params:
    # One a parameter, on its device, in float32: the form that torch's fused kernels take.
    return {k: torch.zeros((), dtype=torch.float32, device=p.device) for k, p in params.items()}


def _lists(*parts: Params) -> list[list[Tensor]]:
    return [list(part.values()) for part in parts]


@dataclass(frozen=True)
class SGD:
    """x <- x - lr * b, b <- momentum * b + g (b = g at the first step); momentum = 0: x <- x - lr * g.

    torch.optim.SGD. A negative momentum is allowed: it damps rotation (Gidel et al. 2019).

    Args:
        lr: step size.
        momentum: share of the last step that is kept; negative ones are allowed.

    Examples:
        >>> import torch
        >>> from equilibrist import SGD
        >>> rule, x = SGD(0.1), {"w": torch.tensor([1.0])}
        >>> rule.update({"w": torch.tensor([2.0])}, rule.init(x), x)
        >>> round(float(x["w"]), 4)
        0.8
    """

    lr: float = 1e-2
    momentum: float = 0.0

    def __post_init__(self) -> None:
        _check(self, momentum=(-1.0, 1.0))

    def init(self, params: Params) -> Tree:
        # Starting at zero equals torch's "b = g at the first step".
        return {"momentum": _zeros(params)} if self.momentum else {}

    def update(self, grads: Params, state: Tree, params: Params) -> None:
        p, g = _lists(params, grads)
        buffers: list[Tensor | None] = (
            list(state["momentum"].values()) if self.momentum else [None] * len(p)
        )
        sgd(
            p,
            g,
            buffers,
            foreach=True,
            weight_decay=0.0,
            momentum=self.momentum,
            lr=self.lr,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )


@dataclass(frozen=True)
class Adam:
    """m, s: averages of g and g^2; x <- x - lr * (m / (1 - b1^t)) / (sqrt(s / (1 - b2^t)) + eps).

    Kingma and Ba 2015; torch.optim.Adam.

    Args:
        lr: step size.
        beta1, beta2: decay of the averages of g and of g^2.
        eps: added to the root.
    """

    lr: float = 1e-4
    beta1: float = 0.5
    beta2: float = 0.9
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check(self, beta1=(0.0, _BELOW_ONE), beta2=(0.0, _BELOW_ONE))

    def init(self, params: Params) -> Tree:
        for name, p in params.items():
            if not torch.ops.aten.is_non_overlapping_and_dense(p):
                raise ValueError(
                    f"{name} has gaps in memory, which a fused kernel would write to: clone it"
                )
        return {"mean": _zeros(params), "square": _zeros(params), "count": _counters(params)}

    def metric(self, state: Tree) -> Params:
        """sqrt(s / (1 - b2^t)) + eps."""
        count = state["count"]
        return {
            k: (s / (1 - self.beta2 ** count[k].to(s.dtype))).sqrt() + self.eps
            for k, s in state["square"].items()
        }

    def update(self, grads: Params, state: Tree, params: Params) -> None:
        p, g, mean, square, count = _lists(
            params, grads, state["mean"], state["square"], state["count"]
        )
        # The fused kernel walks through memory and ignores strides; autograd.grad and vmap may
        # return a transposed layout.
        g = [
            y if y.stride() == x.stride() else torch.empty_like(x).copy_(y)
            for x, y in zip(p, g, strict=True)
        ]
        if _unfused.get():
            self._plain(p, g, mean, square, count)
            return
        adam(
            p,
            g,
            mean,
            square,
            [],
            count,
            fused=True,
            amsgrad=False,
            beta1=float(self.beta1),
            beta2=float(self.beta2),
            lr=self.lr,
            weight_decay=0.0,
            eps=self.eps,
            maximize=False,
        )

    def _plain(
        self,
        p: list[Tensor],
        g: list[Tensor],
        mean: list[Tensor],
        square: list[Tensor],
        count: list[Tensor],
    ) -> None:
        """The update in plain operations."""
        for x, y, m, s, t in zip(p, g, mean, square, count, strict=True):
            t.add_(1)
            m.lerp_(y, 1 - self.beta1)
            s.mul_(self.beta2).addcmul_(y, y, value=1 - self.beta2)
            # As the fused kernel has it: 1 - b^t in float64.
            first, second = (1 - b ** t.double() for b in (self.beta1, self.beta2))
            root = s.sqrt() / second.sqrt().to(s.dtype) + self.eps
            x.sub_((self.lr / first).to(x.dtype) * m / root)


@dataclass(frozen=True)
class RMSProp:
    """s <- alpha s + (1 - alpha) g^2, from 0; x <- x - lr * g / (sqrt(s) + eps).  torch.optim.RMSprop.

    Args:
        lr: step size.
        alpha: decay of the average of g^2.
        eps: added to the root.
    """

    lr: float = 5e-5
    alpha: float = 0.99
    eps: float = 1e-8

    def __post_init__(self) -> None:
        _check(self, alpha=(0.0, 1.0))

    def init(self, params: Params) -> Tree:
        return {"square": _zeros(params), "count": _counters(params)}

    def metric(self, state: Tree) -> Params:
        """sqrt(s) + eps."""
        return {k: s.sqrt() + self.eps for k, s in state["square"].items()}

    def update(self, grads: Params, state: Tree, params: Params) -> None:
        p, g, square, count = _lists(params, grads, state["square"], state["count"])
        rmsprop(
            p,
            g,
            square,
            [],
            [],
            count,
            foreach=True,
            lr=self.lr,
            alpha=self.alpha,
            eps=self.eps,
            weight_decay=0.0,
            momentum=0.0,
            centered=False,
            maximize=False,
        )


@dataclass(frozen=True)
class TFRMSProp:
    """s <- decay s + (1 - decay) g^2, from **1**; x <- x - lr * g / sqrt(s + eps).

    The form of TensorFlow 1, in which most papers before 2019 ran: its first steps are smaller than
    torch's by a factor of about ten where |g| is small, for the accumulator starts at one.

    Args:
        lr: step size.
        decay: of the average of g^2.
        eps: added inside the root.
    """

    lr: float = 1e-4
    decay: float = 0.9
    eps: float = 1e-10

    def __post_init__(self) -> None:
        _check(self, decay=(0.0, 1.0))

    def init(self, params: Params) -> Tree:
        return {"square": {k: torch.ones_like(p) for k, p in params.items()}}

    def metric(self, state: Tree) -> Params:
        """sqrt(s + eps)."""
        return {k: (s + self.eps).sqrt() for k, s in state["square"].items()}

    def update(self, grads: Params, state: Tree, params: Params) -> None:
        p, g, square = _lists(params, grads, state["square"])
        torch._foreach_mul_(square, self.decay)
        torch._foreach_addcmul_(square, g, g, 1 - self.decay)
        root = torch._foreach_add(square, self.eps)
        torch._foreach_sqrt_(root)
        torch._foreach_addcdiv_(p, g, root, -self.lr)
