"""Feasible sets. A projection maps one player's parameters to the nearest feasible ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from equilibrist.errors import GameError, did_you_mean
from equilibrist.optimizers import Coupled, Optimizer, Params
from equilibrist.schedules import update
from equilibrist.tree import Tree


class Projection(Protocol):
    """Maps the parameters of `player` into its feasible set, the nearest feasible ones.

    A set that limits every entry by itself says so by an attribute `coordinatewise = True`: rules such as Adam
    then keep their step sizes entry by entry. Under any other set they take one for each tensor (`step`).
    """

    @property
    def player(self) -> str: ...

    def __call__(self, params: dict[str, Tensor]) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class WeightClipping:
    """w <- min(max(w, -limit), limit), entry by entry (Arjovsky et al. 2017, Algorithm 1).

    Clips every parameter of `player`, scales of batch norm included, as the original does.

    Args:
        limit: the largest absolute value.
        player: whose parameters.

    Examples:
        >>> import torch
        >>> from equilibrist import WeightClipping
        >>> WeightClipping(0.5)({"w": torch.tensor([0.2, -3.0])})["w"].tolist()
        [0.20000000298023224, -0.5]
    """

    limit: float = 0.01
    player: str = "critic"
    coordinatewise: ClassVar[bool] = True  # a box: each coordinate is projected by itself

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"WeightClipping.limit must be positive, not {self.limit}")

    def __call__(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.clamp(-self.limit, self.limit) for name, value in params.items()}


# The projections below subtract what exceeds the limit: feasible values come back as they are, bit for
# bit, without a branch that a GPU would have to wait for.


@dataclass(frozen=True)
class SpectralBall:
    """sigma_max(W) <= limit for the matrix `name` [n, m] of `player`: singular values are cut off there.

    The nearest such matrix in the Frobenius norm. The generator's set in Farnia and Ozdaglar 2020,
    Theorem 1, with limit 1.

    Args:
        player: whose parameter.
        name: the matrix's.
        limit: of the singular values.

    Raises:
        ValueError: a limit that is not positive. GameError, when applied: no such matrix.
    """

    player: str
    name: str
    limit: float = 1.0

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"SpectralBall.limit must be positive, not {self.limit}")

    def __call__(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        matrix = _named(self, params)
        if matrix.ndim != 2:
            raise GameError(
                f"SpectralBall needs a matrix, but the {self.player}'s {self.name} has shape "
                f"{list(matrix.shape)}: name a parameter with two dimensions"
            )
        left, sigma, right = torch.linalg.svd(matrix, full_matrices=False)
        excess = (sigma - self.limit).clamp_min(0)
        return {**params, self.name: matrix - (left * excess) @ right}


@dataclass(frozen=True)
class NormBall:
    """|u| <= limit for the parameter `name` of `player`, in the Euclidean norm of all its entries.

    The set of the generator's shift in Farnia and Ozdaglar 2020, Theorem 1.

    Args:
        player: whose parameter.
        name: the parameter's.
        limit: of the norm.

    Raises:
        ValueError: a limit that is not positive. GameError, when applied: no such parameter.

    Examples:
        >>> import torch
        >>> from equilibrist import NormBall
        >>> ball = NormBall("generator", "u", 1.0)
        >>> [round(x, 4) for x in ball({"u": torch.tensor([3.0, 4.0])})["u"].tolist()]
        [0.6, 0.8]
    """

    player: str
    name: str
    limit: float

    def __post_init__(self) -> None:
        if not self.limit > 0:
            raise ValueError(f"NormBall.limit must be positive, not {self.limit}")

    def __call__(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        value = _named(self, params)
        norm = value.square().sum().sqrt()
        return {**params, self.name: value * (self.limit / norm.clamp_min(self.limit))}


@dataclass(frozen=True)
class EigenvalueCap:
    """sym(A) <= ceiling I for the square matrix `name` of `player`: eigenvalues of the symmetric part
    are cut off there, the antisymmetric part stays. The nearest such matrix in the Frobenius norm.

    With a ceiling below eta a quadratic critic x^T A x + b^T x has a finite transform
    (`QuadraticCritic`, `W2GAN`).

    Raises:
        ValueError: a ceiling that is not finite. GameError, when applied: no such matrix.
    """

    player: str
    name: str
    ceiling: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.ceiling):
            raise ValueError(f"EigenvalueCap.ceiling must be finite, not {self.ceiling}")

    def __call__(self, params: dict[str, Tensor]) -> dict[str, Tensor]:
        matrix = _named(self, params)
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
            raise GameError(
                f"EigenvalueCap needs a square matrix, but the {self.player}'s {self.name} has shape "
                f"{list(matrix.shape)}: name a parameter of shape [d, d]"
            )
        values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
        excess = (values - self.ceiling).clamp_min(0)
        return {**params, self.name: matrix - (vectors * excess) @ vectors.mT}


def coupled_by(sets: Sequence[Projection]) -> Coupled:
    """The parameters whose entries these sets of one player couple (`schedules.update`): none of a box; all
    at once under a set of one's own, unless it says `coordinatewise = True`.

    Args:
        sets: the feasible sets of one player.

    Returns:
        A function from parameters to names, or names; None: all parameters at once.
    """
    joint = [one for one in sets if not getattr(one, "coordinatewise", False)]
    if all(isinstance(one, SpectralBall | NormBall | EigenvalueCap) for one in joint):
        return tuple(dict.fromkeys(one.name for one in joint))  # type: ignore[attr-defined]
    return None


def step(
    rule: Optimizer,
    grads: Params,
    state: Tree,
    params: Params,
    sets: Sequence[Projection],
    members: int | None = None,
) -> Params:
    """One update of a rule along `grads`, then the sets in turn: a step at which only stationary points rest.

    A loop of one's own
    that calls `rule.update` and a projection one after the other goes astray where the rule divides by a
    preconditioner and the set is no box.

    Args:
        rule: the update rule.
        grads: the direction, by parameter.
        state: the rule's state; overwritten.
        params: the parameters; overwritten.
        sets: the player's feasible sets.
        members: how many players are stacked.

    Returns:
        The feasible parameters.
    """
    with torch.no_grad():
        update(rule, grads, state, params, members, coupled_by(sets))
        for one in sets:
            params = torch.func.vmap(one)(params) if members else one(params)
    return params


def _named(
    projection: SpectralBall | NormBall | EigenvalueCap, params: dict[str, Tensor]
) -> Tensor:
    if projection.name not in params:
        raise GameError(
            f"{type(projection).__name__} finds no parameter {projection.name!r} of the "
            f"{projection.player}{did_you_mean(projection.name, params)}: name one of {', '.join(params)}"
        )
    return params[projection.name]
