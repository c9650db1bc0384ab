"""Hyperparameters that differ among the members of an ensemble: a tuple in place of a number."""

from __future__ import annotations

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.errors import RecipeError
from equilibrist.tree import Tree

Weight = float | tuple[float, ...]


def weight_values(weight: Weight) -> tuple[float, ...]:
    """The numbers of a weight, one or one a member; ValueError for an empty tuple."""
    if weight == ():
        raise ValueError("an empty tuple has no number for any member")
    return weight if isinstance(weight, tuple) else (weight,)


def describe(weight: Weight) -> str:
    """A weight for people."""
    return ", ".join(f"{w:g}" for w in weight_values(weight)) + (
        " by member" if isinstance(weight, tuple) else ""
    )


def single_value(weight: Weight) -> float:
    """The number of a single run; ValueError for a tuple."""
    if isinstance(weight, tuple):
        raise ValueError(f"one number is needed here, not one a member: {weight}")
    return weight


def member_weights(weight: Weight, like: Tree, stacked: int | None) -> Tensor | float:
    """The number, or a tensor [stacked]. RecipeError where their number is not that of the members."""
    if not isinstance(weight, tuple):
        return float(weight)
    if len(weight) != stacked:
        who = "a run by itself" if stacked is None else f"an ensemble of {stacked}"
        raise RecipeError(f"{weight} has one number a member of {len(weight)}, but this is {who}")
    anchor = tree.leaves(like)[0]
    return torch.tensor(weight, dtype=anchor.dtype).to(anchor.device)
