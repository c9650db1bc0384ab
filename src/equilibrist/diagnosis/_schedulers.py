"""Schedulers of torch in somebody's loop: which hold an optimiser, and rates that they overwrite before they act."""

from __future__ import annotations

import contextlib
import gc
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

SAME = 1e-6  # relative: rates that are one


@dataclass(frozen=True)
class Overwritten:
    """A rate that was written after a step of an optimiser and replaced by its scheduler before the next."""

    scheduler: str
    written: float
    instead: float


class Schedulers:
    """Watches torch's schedulers step. While it does, `LRScheduler.step` is wrapped; `remove` puts it back.

    Args:
        listening: whether what happens now is part of the loop.

    Attributes:
        count: by identity of an optimiser, how many rates were overwritten before they acted.
        last: the last of them.
    """

    def __init__(self, listening: Callable[[], bool]) -> None:
        self.count: Counter[int] = Counter()
        self.last: dict[int, Overwritten] = {}
        self._held: dict[int, list[object]] = {}
        self._used: dict[int, list[float]] = {}
        self._before = before = LRScheduler.step

        def step(scheduler: LRScheduler, *args: Any, **kwargs: Any) -> None:
            found = _rates(scheduler.optimizer) if listening() else None
            before(scheduler, *args, **kwargs)
            if found is not None:
                with contextlib.suppress(Exception):  # no fault of ours reaches the loop
                    self._note(scheduler, found)

        LRScheduler.step = step  # type: ignore[method-assign, assignment]

    def remove(self) -> None:
        """Puts torch's own method back."""
        LRScheduler.step = self._before  # type: ignore[method-assign]

    def at_step(self, optimizer: Optimizer) -> tuple[int, bool]:
        """How many schedulers hold an optimiser that steps now, and whether its rate is not the one they have set."""
        self._used[id(optimizer)] = now = _rates(optimizer)
        mine = self._of(optimizer)
        if len(mine) != 1 or isinstance(mine[0], ReduceLROnPlateau):
            return len(mine), False
        set_to = [float(lr) for lr in getattr(mine[0], "_last_lr", [])]
        return 1, len(set_to) == len(now) and not _equal(set_to, now)

    def _of(self, optimizer: Optimizer) -> list[object]:
        if not hasattr(optimizer.step, "_wrapped_by_lr_sched"):
            return []
        key = id(optimizer)
        if key not in self._held:
            kinds = (LRScheduler, ReduceLROnPlateau)
            every = [t for t in gc.get_objects() if issubclass(type(t), kinds)]
            inner = {id(part) for t in every for part in getattr(t, "_schedulers", ())}
            self._held[key] = [
                t for t in every if id(getattr(t, "optimizer", None)) == key and id(t) not in inner
            ]
        return self._held[key]

    def _note(self, scheduler: LRScheduler, found: list[float]) -> None:
        """A scheduler has stepped, and found these rates."""
        key, after = id(scheduler.optimizer), _rates(scheduler.optimizer)
        used = self._used.get(key)
        # What a step has used has acted; of several schedulers one writes what the next one finds.
        if used is None or len(used) != len(found) or len(self._of(scheduler.optimizer)) != 1:
            return
        for old, written, new in zip(used, found, after, strict=True):
            # A rule that multiplies the rate it finds keeps what was written.
            if min(old, written, new) > 0 and not _equal([old], [written]):
                moved = abs(math.log(new / written))
                if moved > abs(math.log(new / old)):
                    self.count[key] += 1
                    self.last[key] = Overwritten(type(scheduler).__name__, written, new)
                    return


def _rates(optimizer: Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]


def _equal(one: list[float], other: list[float]) -> bool:
    return all(abs(a - b) <= SAME * max(abs(a), abs(b)) for a, b in zip(one, other, strict=True))
