"""Draws cut into equal parts, whose gradients are averaged: one after the other, or by several processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.game import Game, Wrapped
from equilibrist.errors import GameError
from equilibrist.tree import Tree


class Collective(Protocol):
    """The processes that evaluate a draw together (`equilibrist.distributed.Ranks`)."""

    def own(self, parts: int) -> range:
        """Which of so many parts this process evaluates."""

    def mean(self, rows: Sequence[Sequence[Tensor]], parts: int) -> list[Tensor]:
        """The means over all parts; `rows` has this process's, in order."""


def require_separable(game: Game, many: bool, per_part: bool = False) -> None:
    """GameError for a game whose losses are no means over samples: it cannot be averaged in parts, or over machines.

    With `per_part`, losses of a game that depend on whole batches may be averaged, each part a batch of its own. Not
    those that a solver makes of them in another way (the mean of unrolled losses is not the unrolled mean), nor where
    random numbers are drawn within.
    """
    if game.separable or (per_part and _depends_on_batches(game)):
        return
    how, instead = (
        ("over machines", "train it on one machine") if many else ("in parts", "take whole batches")
    )
    why = getattr(game, "why_not_separable", "") or "its losses are not means over samples"
    name = type(game).__name__
    if name.startswith("_"):  # an inner problem of a solver's own
        raise GameError(f"this solver's steps cannot be averaged {how}: {why}; {instead}")
    raise GameError(
        f"{name} cannot be averaged {how}: {why}; {instead}, or replace "
        "what mixes the samples of a batch (batch norm by layer or group norm)"
    )


def _depends_on_batches(game: Game) -> bool:
    """Whether that is why losses are no means over samples, of the game itself and not of what wraps it."""
    while isinstance(game, Wrapped):
        if "separable" in vars(type(game)):
            return False
        game = game.game
    return not getattr(game, "noise", ())


def cut(draw: Draw, parts: int, dim: int = 0) -> list[Draw]:
    """The parts of a draw whose samples lie along `dim`; entries without that dimension are in all of them.

    Raises:
        GameError: samples that are no multiple of `parts`.
    """
    sizes = {t.shape[dim] for t in draw.values() if t.ndim > dim}
    if any(size % parts for size in sizes):
        raise GameError(
            f"a batch of {min(sizes)} cannot be cut into {parts} equal parts: take a multiple"
        )
    pieces = {k: t.chunk(parts, dim) if t.ndim > dim else (t,) * parts for k, t in draw.items()}
    return [{k: piece[i] for k, piece in pieces.items()} for i in range(parts)]


def mean_of(trees: Sequence[Tree]) -> Tree:
    """The mean of trees of one structure, added in their order, so that whoever adds them gets the same bits."""
    return tree.map(lambda *leaves: mean_in_order(leaves), trees[0], *trees[1:])


def mean_in_order(tensors: Sequence[Tensor]) -> Tensor:
    """((a + b) + c + ...) / count."""
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total / len(tensors)
