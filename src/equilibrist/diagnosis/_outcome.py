"""How a game goes: how well the critic tells held-out samples apart on the way, and whether samples get nearer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from equilibrist.critics.judge import scores_of
from equilibrist.diagnosis._untouched import untouched
from equilibrist.diagnosis.averages import energy
from equilibrist.diagnosis.loop import Samples, first_of
from equilibrist.errors import GameError
from equilibrist.nn.wrapped import copied, unwrapped

ROWS = 256
NEAR = 0.15  # of the first distance: samples that are as good as those of sound loops
LEAST = 4  # looks, from which a mean is given


@dataclass
class GameLook:
    """One look at the game.

    Attributes:
        round: after so many rounds.
        order: share of pairs of a real and a generated held-out sample that the critic orders rightly; None where it
            could not be run.
        distance: energy distance between generated and held-out real samples, over their scale.
        variety: mean distance between two generated samples, over that between two real ones.
        moved: how far the generated samples' mean has gone since the look before, in the same unit.
    """

    round: int
    order: float | None
    distance: float
    variety: float = 1.0
    moved: float = 0.0


@dataclass
class Outcome:
    """Looks at a loop on its way.

    Attributes:
        looks: oldest first.
        fault: why there are none.
        last: the generated samples of the last look.
    """

    looks: list[GameLook] = field(default_factory=list)
    fault: str = ""
    last: Tensor | None = None
    _centre: Tensor | None = field(default=None, repr=False)

    def look(
        self,
        round: int,
        critic: nn.Module,
        real: Samples,
        sample: Callable[[int], Samples],
        seed: int,
    ) -> None:
        """Adds a look; random states, modules and buffers stay as they are."""
        if self.fault:
            return
        try:
            with untouched(seed, len(self.looks)), torch.no_grad():
                made = sample(2 * ROWS)
                self.last = first_of(made).detach()
                fake, shown = (
                    _rows(made, slice(ROWS)),
                    _rows(real, torch.randperm(len(first_of(real)))[:ROWS]),
                )
                order = _order(critic, shown, fake)
                x, y = (t[0].detach().double().flatten(1).cpu() for t in (shown, fake))
                scale = max(float(torch.pdist(x).mean()), 1e-12)
                centre = y.mean(0)
                moved = 0.0 if self._centre is None else float((centre - self._centre).norm())
                self._centre = centre
                seen = energy(x, y) / scale, float(torch.pdist(y).mean()) / scale, moved / scale
        except Exception as error_of_users:  # a user's own sample() may fail in any way
            self.fault = f"sample() failed: {type(error_of_users).__name__}: {error_of_users}"
            return
        self.looks.append(GameLook(round, order, *seen))

    @property
    def late(self) -> list[GameLook]:
        """Those of the second half of the run."""
        end = self.looks[-1].round if self.looks else 0
        return [look for look in self.looks if look.round >= end / 2]

    @property
    def order(self) -> float | None:
        """The mean share of pairs that the critic orders rightly, in the second half."""
        orders = [look.order for look in self.late if look.order is not None]
        return sum(orders) / len(orders) if orders else None

    @property
    def progress(self) -> float | None:
        """Distance at the end (mean of the last looks) over that at the start; below 1 samples got nearer."""
        if len(self.looks) < 3 or not self.looks[0].distance > 0:
            return None
        last = [look.distance for look in self.looks[-3:]]
        return sum(last) / len(last) / self.looks[0].distance

    @property
    def away(self) -> float | None:
        """Mean distance in the second half over that at the start."""
        if len(self.looks) < 3 or not self.looks[0].distance > 0:
            return None
        late = [look.distance for look in self.late]
        return sum(late) / len(late) / self.looks[0].distance

    @property
    def near(self) -> bool:
        """Whether samples of the second half are as near to the data as those of sound loops."""
        return self.away is not None and self.away < NEAR

    @property
    def variety(self) -> float | None:
        """Mean variety in the second half."""
        late = [look.variety for look in self.late]
        return sum(late) / len(late) if len(late) >= LEAST else None

    @property
    def path(self) -> float:
        """How far the mean of samples went in the second half, in their scale."""
        return sum(look.moved for look in self.late)

    @property
    def hops(self) -> float | None:
        """How far the mean of samples goes from look to look in the second half, over how far samples lie apart."""
        variety = self.variety
        if not variety:
            return None
        return sum(look.moved for look in self.late) / len(self.late) / variety


def _rows(samples: Samples, rows: Any) -> tuple[Tensor, ...]:
    whole = (samples,) if isinstance(samples, Tensor) else samples
    return tuple(t.detach()[rows] for t in whole)


def _order(critic: nn.Module, real: tuple[Tensor, ...], fake: tuple[Tensor, ...]) -> float | None:
    module = copied(unwrapped(critic), "critic")
    try:
        one, two = (_score(module, *x) for x in (real, fake))
    except (GameError, TypeError, RuntimeError):
        return None  # a critic that wants more than samples
    wins = (one[:, None] > two[None]).double() + 0.5 * (one[:, None] == two[None]).double()
    return float(wins.mean())


def _score(module: nn.Module, x: Tensor, *rest: Tensor) -> Tensor:
    heads = scores_of(module(x, *rest), len(x))
    return torch.stack([head.mean(1) for head in heads]).mean(0)
