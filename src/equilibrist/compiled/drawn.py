"""What a step draws: noted while it is traced, and handed to the compiled step afterwards.

A traced function takes tensors, so everything random has to be drawn before it is called. Which draws a solver asks
for does not depend on their values, hence one eager step tells it for all that follow.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.solvers.base import DrawSource, independent
from equilibrist.tree import Nested, Tree

Signature = tuple[tuple[object, ...], ...]


class Request(NamedTuple):
    """One thing that a step asks for: minibatch `number`, or noise `number` for tensors of these shapes."""

    kind: str  # "batch", "independent" or "noise"
    number: int
    shapes: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = ()


class DrawRecorder:
    """A source of draws that notes what it was asked for, in `answers`: request to (draw, noise's `like`)."""

    def __init__(self, draws: DrawSource) -> None:
        self._draws = draws
        self.answers: dict[Request, tuple[Tree, Nested]] = {}

    def batch(self, index: int = 0) -> Draw:
        """Minibatch `index` of the source."""
        return self._answer(Request("batch", index), {})

    def independent(self, index: int) -> Draw:
        """Minibatch `index` of the source, which must be a new one."""
        return self._answer(Request("independent", index), {})

    def noise(self, like: Nested, index: int = 0) -> Tree:
        """Noise of the source, shaped as `like`."""
        # Shapes alone are kept: `like` may be a step's intermediate result.
        blank = tree.map(lambda t: t.new_empty(()).expand(t.shape), like)
        return self._answer(Request("noise", index, _shapes(like)), blank)

    def _answer(self, request: Request, like: Nested) -> Tree:
        if request not in self.answers:
            self.answers[request] = draw(self._draws, request, like), like
        return dict(self.answers[request][0])


class Handed:
    """A source that hands out what was drawn before."""

    def __init__(self, answers: dict[Request, Tree]) -> None:
        self._answers = answers

    def batch(self, index: int = 0) -> Draw:
        """Minibatch `index`."""
        return dict(self._answers[Request("batch", index)])

    def independent(self, index: int) -> Draw:
        """Minibatch `index`, drawn for nothing else."""
        return dict(self._answers[Request("independent", index)])

    def noise(self, like: Nested, index: int = 0) -> Tree:
        """Noise shaped as `like`."""
        return dict(self._answers[Request("noise", index, _shapes(like))])


def draw(draws: DrawSource, request: Request, like: Nested) -> Tree:
    """What the source gives for this request."""
    if request.kind == "noise":
        return draws.noise(like, request.number)
    if request.kind == "independent":
        return independent(draws, request.number)
    return draws.batch(request.number)


def _shapes(like: Nested) -> tuple[tuple[tuple[str, ...], tuple[int, ...]], ...]:
    return tuple((path, tuple(t.shape)) for path, t in tree.items(like))


def signature(tensors: list[Tensor]) -> Signature:
    """What a compiled function relies on: shapes, strides, types and devices."""
    return tuple((t.shape, t.stride(), t.dtype, t.device) for t in tensors)
