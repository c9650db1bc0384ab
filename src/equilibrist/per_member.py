"""Hyperparameters that differ among the members of an ensemble."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from equilibrist.errors import RecipeError
from equilibrist.optimizers import Optimizer, Params, metric
from equilibrist.schedules import WrappedRule, part_way
from equilibrist.tree import Tree
from equilibrist.validation import is_number

S = TypeVar("S")


@dataclass(frozen=True)
class PerMember(WrappedRule):
    """The rule's own step times the member's factor: x_s <- x_s + factors[s] (rule(x_s) - x_s).

    For rules whose step is proportional to their step size (all of `equilibrist.optimizers`) member s is
    trained with step size lr * factors[s]. Around or inside of `Scheduled`; inside of `Clipped`.

    Args:
        rule: the update rule.
        factors: one a member, in the order of the ensemble's seeds.

    Raises:
        ValueError: no factor, one that is not positive. RecipeError, when used: a run that is no
        ensemble, or one with another number of members.
    """

    factors: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        sound = isinstance(self.factors, tuple) and self.factors
        if not sound or not all(is_number(f) and 0 < f < math.inf for f in self.factors):
            raise ValueError(
                f"PerMember.factors must be a tuple of positive numbers, not {self.factors!r}"
            )

    def init(self, params: Params) -> Tree:
        return self.rule.init(params)  # the state of a single run, which has the rule alone

    def metric(self, state: Tree) -> Params | None:
        """The inner rule's."""
        return metric(self.rule, state)

    def update(
        self, grads: Params, state: Tree, params: Params, members: int | None = None
    ) -> None:
        if members != len(self.factors):
            who = "a run by itself" if members is None else f"an ensemble of {members}"
            raise RecipeError(
                f"PerMember has {len(self.factors)} factors, but this is {who}: give one factor a seed"
            )

        def factor(x: Tensor) -> Tensor:
            own = torch.tensor(self.factors, dtype=x.dtype).to(x.device)
            return own.reshape(-1, *[1] * (x.ndim - 1))

        part_way(factor, self.rule, grads, state, params, members)


def member_of(value: Any, index: int, members: int) -> Any:
    """A solver (or a rule) as member `index` of an ensemble has it: what a single run needs to equal it.

    Besides `PerMember` these are the tuples of Consensus.gamma, SymplecticAdjustment.strength and
    Proximal.lam (a class names its own in `per_member`).

    Raises:
        RecipeError: there are not as many numbers as members.
    """
    if isinstance(value, PerMember):
        if len(value.factors) != members:
            raise RecipeError(
                f"PerMember has {len(value.factors)} factors for {members} seeds: give one factor a seed"
            )
        return _scaled(member_of(value.rule, index, members), value.factors[index])
    if isinstance(value, dict):
        return {k: member_of(part, index, members) for k, part in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        own = {k: member_of(part, index, members) for k, part in parts.items()}
        for key in getattr(value, "per_member", ()):
            if isinstance(parts[key], tuple):
                if len(parts[key]) != members:
                    raise RecipeError(
                        f"{type(value).__name__}.{key} has {len(parts[key])} numbers for {members} seeds: "
                        "give one a seed"
                    )
                own[key] = parts[key][index]
        if any(own[k] is not part and own[k] != part for k, part in parts.items()):
            return dataclasses.replace(value, **own)
    return value


def _scaled(rule: Optimizer, factor: float) -> Optimizer:
    """The rule with its step size times `factor`."""
    if isinstance(rule, WrappedRule):
        return dataclasses.replace(rule, rule=_scaled(rule.rule, factor))
    if not hasattr(rule, "lr"):
        raise RecipeError(f"PerMember: {rule} has no step size lr that could be scaled")
    return dataclasses.replace(rule, lr=rule.lr * factor)  # type: ignore[type-var]


def smaller_steps(solver: S, factor: float) -> S:
    """The solver with the step sizes of all its rules times `factor`; its state stays the same.

    Raises:
        RecipeError: none of its parts has a step size.
    """
    made = cast(S, _rescaled(solver, factor))
    if made is solver:
        raise RecipeError(f"{type(solver).__name__} has no update rules whose lr could be scaled")
    return made


def _rescaled(value: object, factor: float) -> object:
    """The value itself where there is nothing to scale in it."""
    if hasattr(value, "update") and hasattr(value, "init"):
        return _scaled(cast(Optimizer, value), factor)
    if isinstance(value, dict):
        parts = {key: _rescaled(part, factor) for key, part in value.items()}
        return parts if any(parts[key] is not part for key, part in value.items()) else value
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    parts = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
    own = {key: _rescaled(part, factor) for key, part in parts.items()}
    if isinstance(eta := parts.get("eta"), float):  # the step of competitive gradient descent
        own["eta"] = eta * factor
    changed = {key: own[key] for key, part in parts.items() if own[key] is not part}
    return dataclasses.replace(value, **changed) if changed else value
