"""Langevin rules of one player: from a gradient and normal noise to a change of parameters.

Each is frozen hyperparameters, as `optimizers` are; `update` is also given standard normal numbers of the
parameters' shapes, for the caller owns all randomness. They act entry by entry, so the same rule moves a stack of
particles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch

from equilibrist.optimizers import SGD, Coupled, Optimizer, Params, RMSProp, levelled
from equilibrist.tree import Tree
from equilibrist.validation import is_number, positive

Convention = Literal["langevin", "welling-teh"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)


class LangevinRule(Protocol):
    """A Langevin rule. `update` overwrites `params` and `state`; it is called without a graph.

    `pace` multiplies the step size and `heat` the noise: the factors of schedules. Where a feasible set couples
    parameters, `coupled` and `members` say which (`schedules.update`): their preconditioner is one number.
    """

    @property
    def cold(self) -> Optimizer:
        """The same rule without noise, as an update rule: what an audit searches with."""
        ...

    def init(self, params: Params) -> Tree: ...

    def update(
        self,
        grads: Params,
        state: Tree,
        params: Params,
        normals: Params,
        pace: float = 1.0,
        heat: float = 1.0,
        coupled: Coupled = (),
        members: int | None = None,
    ) -> None: ...


@dataclass(frozen=True)
class SGLD:
    """Stochastic gradient Langevin dynamics (Welling and Teh 2011), n ~ N(0, I):

        langevin      x <- x - lr g + sqrt(2 lr) noise n
        welling-teh   x <- x - (lr / 2) g + sqrt(lr) noise n

    Both sample exp(-L / noise^2) as lr -> 0, g the gradient of L: the temperature is noise^2. At the same lr
    the second is the first at lr / 2, with half its discretisation bias. noise = 0 is gradient descent.

    Raises:
        ValueError: a negative number, a step size of 0, another convention.
    """

    lr: float = 1e-3
    noise: float = 1e-2
    convention: Convention = "langevin"

    def __post_init__(self) -> None:
        _check(self, self.lr, self.noise, self.convention)

    @property
    def cold(self) -> Optimizer:
        """Gradient descent."""
        return SGD(_rate(self.lr, self.convention))

    def init(self, params: Params) -> Tree:
        return {}

    def update(
        self,
        grads: Params,
        state: Tree,
        params: Params,
        normals: Params,
        pace: float = 1.0,
        heat: float = 1.0,
        coupled: Coupled = (),
        members: int | None = None,
    ) -> None:
        rate = pace * _rate(self.lr, self.convention)
        x, names = list(params.values()), list(params)
        torch._foreach_add_(x, [grads[k] for k in names], alpha=-rate)
        if spread := math.sqrt(2 * rate) * heat * self.noise:
            torch._foreach_add_(x, [normals[k] for k in names], alpha=spread)


@dataclass(frozen=True)
class RMSPropSGLD:
    """SGLD preconditioned as RMSProp is (Li, Chen, Carlson and Carin 2016, without their Gamma term, as they run it):

        s <- decay s + (1 - decay) g^2,  P = 1 / (sqrt(s) + eps)
        x <- x - lr P g + sqrt(2 lr P) noise n        (welling-teh: lr / 2 in both places)

    entry by entry, s = 0 at first. P is scaled by the gradient's size, so `noise` is no temperature in units of
    the loss. The noise of a parameter whose gradient vanishes grows up to sqrt(2 lr / eps) noise.

    Raises:
        ValueError: a negative number, a step size or eps of 0, a decay outside of [0, 1), another convention.
    """

    lr: float = 1e-4
    noise: float = 1e-4
    decay: float = 0.99
    eps: float = 1e-5
    convention: Convention = "langevin"

    def __post_init__(self) -> None:
        _check(self, self.lr, self.noise, self.convention)
        if not is_number(self.decay) or not 0 <= self.decay < 1:
            raise ValueError(f"RMSPropSGLD.decay must lie in [0, 1), not {self.decay!r}")
        positive(self, eps=self.eps)

    @property
    def cold(self) -> Optimizer:
        """RMSProp."""
        return RMSProp(_rate(self.lr, self.convention), self.decay, self.eps)

    def init(self, params: Params) -> Tree:
        return {"square": {k: torch.zeros_like(p) for k, p in params.items()}}

    def update(
        self,
        grads: Params,
        state: Tree,
        params: Params,
        normals: Params,
        pace: float = 1.0,
        heat: float = 1.0,
        coupled: Coupled = (),
        members: int | None = None,
    ) -> None:
        rate = pace * _rate(self.lr, self.convention)
        x, names = list(params.values()), list(params)
        g, s = [grads[k] for k in names], [state["square"][k] for k in names]
        torch._foreach_mul_(s, self.decay)
        torch._foreach_addcmul_(s, g, g, value=1 - self.decay)
        scale = torch._foreach_sqrt(s)
        torch._foreach_add_(scale, self.eps)
        if coupled != ():
            level = levelled(dict(zip(names, scale, strict=True)), coupled, members)
            scale = [  # type: ignore[assignment]
                level[k].expand_as(d).clone() if k in level else d
                for k, d in zip(names, scale, strict=True)
            ]
        torch._foreach_addcdiv_(x, g, scale, value=-rate)
        if spread := math.sqrt(2 * rate) * heat * self.noise:
            torch._foreach_sqrt_(scale)
            torch._foreach_addcdiv_(x, [normals[k] for k in names], scale, value=spread)


def _rate(lr: float, convention: Convention) -> float:
    """The step size in the first convention."""
    return lr if convention == "langevin" else lr / 2


def _check(rule: object, lr: float, noise: float, convention: str) -> None:
    name = type(rule).__name__
    positive(rule, lr=lr)
    if not is_number(noise) or not 0 <= noise < math.inf:
        raise ValueError(f"{name}.noise must be finite and not negative, not {noise!r}")
    if convention not in CONVENTIONS:
        raise ValueError(
            f"{name}.convention must be 'langevin' or 'welling-teh', not {convention!r}"
        )
