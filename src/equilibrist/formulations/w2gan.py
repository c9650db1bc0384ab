"""The optimal-transport GAN with quadratic cost (W2GAN; Farnia and Ozdaglar 2020, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from equilibrist.errors import GameError
from equilibrist.formulations._base import Critic, both_scores
from equilibrist.formulations.gradient import input_gradient
from equilibrist.validation import positive


class Accuracy(NamedTuple):
    """How well the inner problem was solved, one number a sample [B].

    residual: |grad D(x') - 2 eta (x' - x)| at the point x' that was found.
    bound: what D^c(x) exceeds the value at x' by, at most, where the Hessian of D is at most
        `curvature` everywhere: residual^2 / (2 (2 eta - curvature)), the Polyak-Lojasiewicz inequality
        of an objective that is (2 eta - curvature)-strongly concave; infinite otherwise.
    doubling: how much twice the steps add to the value.
    """

    residual: Tensor
    bound: Tensor
    doubling: Tensor


@dataclass(frozen=True)
class W2GAN:
    """V(G, D) = E D(x) - E D^c(G(z)), D^c(x) = sup_x' D(x') - eta |x - x'|^2.

    Farnia and Ozdaglar 2020, equation 9, with cost eta |x - x'|^2 (their section 3.1 has eta = 1/2).
    The maximum over D is eta W_2(P, Q)^2. Zero-sum. Unit: that of the cost.

    A critic with `closed_transform` gives D^c itself (`QuadraticCritic`). For any other the supremum is
    sought from x' = x by `steps` ascent steps x' <- x' + step_size (grad D(x') - 2 eta (x' - x)), and its
    value at the x' found is differentiated with x' held fixed: exact gradients, by D's parameters and
    by x, where x' solves the inner problem (the envelope theorem), and an error of the order of the
    residual elsewhere. For a Hessian of D with eigenvalues h, each step shrinks the distance to the
    solution by |1 - step_size (2 eta - h)|. The default, 1 / (4 eta), converges for -6 eta < h < 2 eta, and
    halves the distance where D is affine (as ReLU networks are, piece by piece); h < 2 eta is what makes
    D^c finite and the solution unique. `accuracy` measures it.

    `second_order` is False: derivatives of the gradients (Jacobian products) miss the motion of x' with the
    players. `exact_second_order(critic)` is True where a closed transform makes them exact.

    Args:
        eta: the cost's factor.
        steps: ascent steps towards x', where there is no closed form.
        step_size: their size; None takes 1 / (4 eta).

    Raises:
        ValueError: eta, steps or step_size that are not positive and finite.
    """

    eta: float = 0.5
    steps: int = 20
    step_size: float | None = None

    zero_sum: ClassVar[bool] = True
    second_order: ClassVar[bool] = False
    unit: ClassVar[str] = "cost units"

    def __post_init__(self) -> None:
        positive(self, eta=self.eta)
        if not self.steps >= 1:
            raise ValueError(f"W2GAN.steps must be at least 1, not {self.steps}")
        if self.step_size is not None:
            positive(self, step_size=self.step_size)

    def __str__(self) -> str:
        return f"W2GAN, cost {self.eta:g} |x - x'|^2"

    @property
    def formula(self) -> str:
        return (
            f"V = E D(x) - E D^c(G(z)), D^c(x) = sup_x' D(x') - {self.eta:g} |x - x'|^2; "
            "the critic maximises V, the generator minimises V"
        )

    def losses(
        self, critic: Critic, real: Tensor, fake: Tensor, only: str | None = None
    ) -> dict[str, Tensor]:
        """Both players' losses on real [B, ...] and fake [B', ...] samples."""
        if only == "generator":
            return {"generator": -self.transform(critic, fake).mean()}
        if getattr(critic, "closed_transform", False):
            on_real, transformed = critic(real), self.transform(critic, fake)
        else:
            best = self.argument(critic, fake)
            on_real, on_best = both_scores(critic, real, best)
            transformed = on_best - self._cost(fake, best)
        value = on_real.mean() - transformed.mean()
        return {"critic": -value} if only else {"generator": value, "critic": -value}

    def transform(self, critic: Critic, x: Tensor) -> Tensor:
        """D^c(x) [B] for samples x [B, ...], by the critic's closed form or by search (from below)."""
        if getattr(critic, "closed_transform", False):
            return cast(Tensor, critic.transform(x, self.eta))  # type: ignore[attr-defined]
        best = self.argument(critic, x)
        return critic(best) - self._cost(x, best)

    def argument(self, critic: Critic, x: Tensor, steps: int | None = None) -> Tensor:
        """The x' that `steps` ascent steps find, shape of `x`, without a graph.

        Raises:
            GameError: a critic whose scores depend on the whole batch: D^c is of one sample.
        """
        if not getattr(critic, "samplewise", True):
            raise GameError(
                "W2GAN needs the gradient of each score by its own sample, but the critic's scores "
                "depend on the whole batch (batch norm?): use layer or group norm in the critic"
            )
        rate = 1 / (4 * self.eta) if self.step_size is None else self.step_size
        with torch.no_grad():
            x = x.detach()
            best = x
            for _ in range(self.steps if steps is None else steps):
                best = best + rate * (input_gradient(critic, best) - 2 * self.eta * (best - x))
        return best.detach()

    def accuracy(self, critic: Critic, x: Tensor, curvature: float = 0.0) -> Accuracy:
        """How well D^c(x) is known for samples x [B, ...] (see `Accuracy`); zeros for a closed form.

        `curvature` bounds the eigenvalues of D's Hessian from above: 0 for a concave D.
        """
        if getattr(critic, "closed_transform", False):
            zero = torch.zeros(len(x), dtype=x.dtype, device=x.device)
            return Accuracy(zero, zero, zero)
        with torch.no_grad():
            x = x.detach()
            best = self.argument(critic, x)
            again = self.argument(critic, x, 2 * self.steps)
            slope = input_gradient(critic, best) - 2 * self.eta * (best - x)
            residual = slope.flatten(1).norm(dim=1)
            strength = 2 * self.eta - curvature
            bound = residual.square() / (2 * strength) if strength > 0 else residual + float("inf")
            before, after = (critic(p) - self._cost(x, p) for p in (best, again))
        return Accuracy(residual, bound, after - before)

    def exact_second_order(self, critic: Critic) -> bool:
        """Whether derivatives of the gradients against this critic are exact: it has a closed form."""
        return bool(getattr(critic, "closed_transform", False))

    def scale(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """eta E |x - E x|^2 over real samples: the cost of moving all the data to their mean. Unlike
        the scores, it does not depend on what the critic has learnt."""
        return self._cost(real, real.mean(dim=0, keepdim=True)).mean()

    def _cost(self, x: Tensor, y: Tensor) -> Tensor:
        return self.eta * (x - y).flatten(1).square().sum(dim=1)
