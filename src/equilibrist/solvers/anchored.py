"""Extragradient steps that are pulled back towards where they began."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from equilibrist import tree
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.optimizers import SGD
from equilibrist.schedules import base
from equilibrist.solvers.base import DrawSource, Rules, State, Step, measured
from equilibrist.validation import at_least


@dataclass(frozen=True)
class AnchoredExtragradient(Rules):
    """w = x + (z - x) / (k + 2), y = P(w - h v(x)), then x <- P(w - h v(y)): extragradient with an anchor z.

    The anchor is the point where training began, and k = 0, 1, ... counts the steps since then: the extra anchored
    gradient with a constant step size, EAG-C, of Yoon and Ryu 2021 (arXiv:2102.07922, section 2). Where v is monotone
    and R-Lipschitz, with h = 1 / (8 R) and no constraints, the last iterate has

        |v(x_k)|^2 <= 260 R^2 |x_0 - x*|^2 / (k + 1)^2,

    an order in k that no method of gradients betters; extragradient alone has 1 / k. Nothing of it is known where v is
    not monotone: a long pull towards the start may then do harm, and `restart` ends it.

    Losses and gradient norms are those at x. Two gradients a step, on one minibatch. State: the rules', the anchor, and
    the number of steps.

    Args:
        optimizer, optimizers: SGD without momentum, within schedules and clipping if need be. A rule that divides
            by the gradient's size, such as Adam, has no h: as v vanishes, its steps outgrow 1 / (8 R).
        restart: steps after which the anchor is moved to the current iterate and k starts again; 0: never. Where
            also |v(x)| >= m |x - x*|, restarts after 17 R / m steps converge linearly, by the bound.

    Raises:
        ValueError: another rule, or a restart that is negative or no whole number.

    Examples:
        >>> import torch
        >>> from equilibrist import SGD, AnchoredExtragradient, bilinear, iterate
        >>> start = {player: {"value": torch.ones(1)} for player in ("x", "y")}
        >>> found = iterate(bilinear(), AnchoredExtragradient(SGD(0.125)), start, steps=400)
        >>> bool(found.last.players["x"]["value"].abs() < 0.05)
        True
    """

    restart: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 0, restart=self.restart)
        for rule in (self.optimizer, *self.optimizers.values()):
            inner = base(rule)
            if not isinstance(inner, SGD) or inner.momentum:
                raise ValueError(
                    f"AnchoredExtragradient needs steps in proportion to the gradient, not {inner}: take "
                    "SGD(step size) without momentum"
                )

    def _options(self) -> str:
        return f"anchor moved every {self.restart} steps; " if self.restart else ""

    def init(self, players: Players) -> State:
        device = tree.leaves(players)[0].device
        return {
            "rules": super().init(players),
            "anchor": tree.clone(players),
            "count": torch.zeros((), dtype=torch.int64, device=device),
        }

    def step(
        self,
        field: VectorField,
        players: Players,
        constants: Constants,
        state: State,
        draws: DrawSource,
    ) -> Step:
        draw, rules, anchor, k = draws.batch(0), state["rules"], state["anchor"], state["count"]
        constants = field.refresh(players, constants, draw)
        v, losses = field(players, constants, draw)
        info = measured(field, v, losses)
        with torch.no_grad():
            if self.restart:
                # No branch on a tensor: a GPU would have to wait for it.
                k = k % self.restart
                anchor = tree.map(lambda x, z: torch.where(k == 0, x, z), players, anchor)
            share = torch.reciprocal((k + 2).double())
            pulled = tree.map(lambda x, z: torch.lerp(x, z, share.to(x.dtype)), players, anchor)
        ahead = self.move(field, v, tree.clone(rules), tree.clone(pulled))
        constants = field.refresh(ahead, constants, draw)
        v, _ = field(ahead, constants, draw)
        players = self.move(field, v, rules, pulled)
        state = {"rules": rules, "anchor": anchor, "count": state["count"] + 1}
        return Step(players, constants, state, info)
