"""Two machines played by two threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw, Draws
from equilibrist.core.field import Reduce

T = TypeVar("T")


class Joined:
    """The draws of several machines as one batch: what a single machine would see."""

    def __init__(self, *parts: Draws) -> None:
        self.parts = parts

    def batch(self, index: int = 0) -> Draw:
        """All rows of minibatch `index`."""
        return tree.map(lambda *x: torch.cat(x), *(part.batch(index) for part in self.parts))

    def noise(self, like: tree.Nested, index: int = 0) -> tree.Tree:
        """The same on every machine."""
        return self.parts[0].noise(like, index)


def on_two_ranks(play: Callable[[int, Reduce], T]) -> list[T]:
    """[play(0, reduce), play(1, reduce)] at the same time; `reduce` averages over the two.

    Raises:
        The first error of a thread.
    """
    barrier = threading.Barrier(2, timeout=60)
    offered: list[list[Tensor]] = [[], []]
    results: dict[int, T] = {}
    errors: list[BaseException] = []

    def reduce_of(rank: int) -> Reduce:
        def reduce(tensors: list[Tensor]) -> list[Tensor]:
            offered[rank] = tensors
            barrier.wait()
            mean = [(a + b) / 2 for a, b in zip(*offered, strict=True)]
            barrier.wait()  # no thread writes again before both have read
            return mean

        return reduce

    def run_rank(rank: int) -> None:
        try:
            results[rank] = play(rank, reduce_of(rank))
        except BaseException as error:
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=run_rank, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        broken = [e for e in errors if not isinstance(e, threading.BrokenBarrierError)]
        raise (broken or errors)[0]
    return [results[rank] for rank in range(2)]
