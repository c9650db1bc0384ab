"""Consensus optimisation (Mescheder, Nowozin and Geiger 2017)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from equilibrist import tree
from equilibrist.core.field import Linearization, VectorField
from equilibrist.core.game import Players
from equilibrist.solvers._linear_solve import broadcast_weight
from equilibrist.solvers._members import (
    Weight,
    describe,
    member_weights,
    single_value,
    weight_values,
)
from equilibrist.solvers.base import Directed, DrawSource, Place, Sizes, identity_like, independent
from equilibrist.validation import not_negative


@dataclass(frozen=True)
class Consensus(Directed):
    """x <- P(x - rule(v + gamma J^T v)), the gradient of gamma/2 |v|^2 added to the players' own.

    Args:
        optimizer, optimizers: update rules; they precondition the sum v + gamma J^T v (the paper's is
            `TFRMSProp(1e-4)`).
        gamma: weight of the regulariser (the paper: 10 on toy data, 0.1 and 10 on images); in an ensemble
            also a tuple, one a member.
        batches: 1 takes v and J^T v on one minibatch, as the paper does. E |v_B|^2 is |v|^2 plus the
            trace of the gradients' covariance over B, so that regulariser also pulls towards points with
            less noise. 2 is free of that bias: (J_1^T v_2 + J_2^T v_1) / 2 on two independent
            minibatches, v the mean of theirs, at twice the cost.

    Mescheder et al. 2017, equation 9 and Algorithm 2, with the sign of own losses. Losses and gradient
    norms are those at the iterate before the step (of the first minibatch). Consensus does not tell minima from other
    stationary points: a large gamma also attracts to saddle points.

    Raises:
        ValueError: a gamma that is negative or no number, batches that are neither 1 nor 2.
    """

    gamma: Weight = 10.0
    batches: int = 1
    per_member: ClassVar = ("gamma",)

    def __post_init__(self) -> None:
        super().__post_init__()
        for gamma in weight_values(self.gamma):
            not_negative(self, gamma=gamma)
        if type(self.batches) is not int or self.batches not in (1, 2):
            raise ValueError(
                f"Consensus.batches must be 1 (biased, cheaper) or 2, not {self.batches!r}"
            )

    def _options(self) -> str:
        two = ", two independent minibatches" if self.batches == 2 else ""
        return f"gamma {describe(self.gamma)}{two}; "

    def direction(
        self, field: VectorField, place: Place, draws: DrawSource
    ) -> tuple[Players, Linearization]:
        first = field.linearize(*place)
        if self.batches == 1:
            v, slope = first.v, first.pullback(first.v)
        else:
            second = field.linearize(*place._replace(draw=independent(draws, 1)))
            v = _mean(first.v, second.v)
            slope = _mean(first.pullback(second.v), second.pullback(first.v))
        gamma = member_weights(self.gamma, v, field.stacked)
        if isinstance(gamma, Tensor):
            return tree.map(lambda a, b: b + broadcast_weight(gamma, a) * a, slope, v), first
        return tree.axpy(gamma, slope, v), first

    def linear_map(self, jacobian: Tensor, sizes: Sizes) -> Tensor:
        """I - H (J + gamma J^T J)."""
        unit = identity_like(jacobian)
        rates = self.step_sizes(jacobian, sizes)[:, None]
        return unit - rates * (jacobian + single_value(self.gamma) * jacobian.mT @ jacobian)


def _mean(a: Players, b: Players) -> Players:
    return tree.map(lambda x, y: (x + y) / 2, a, b)
