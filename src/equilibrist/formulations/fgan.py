"""The f-GAN (Nowozin, Cseke and Tomioka 2016)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from equilibrist.errors import GameError
from equilibrist.formulations._base import Critic, ScoreFormulation
from equilibrist.formulations.divergences import Divergence, divergence


@dataclass(frozen=True, init=False)
class FGAN(ScoreFormulation):
    """V(G, D) = E g(D(x)) - E f*(g(D(G(z)))), D a free score, g = `divergence.activation`.

    Farnia and Ozdaglar 2020, equation 7. The maximum over D is the integral of q f(p/q), p the data's
    density and q the generator's, at g(D) = f'(p/q). The critic's loss is -V. The generator's is V
    (`saturating=True`: zero-sum), or -E g(D(G(z))) (`saturating=False`: not zero-sum; Nowozin et al.
    2016, section 3.2).

    Args:
        divergence: an object of `equilibrist.formulations.divergences`, or its name: "kl",
            "reverse_kl", "jensen_shannon", "vanilla", "pearson", "neyman", "squared_hellinger",
            "jeffreys".
        saturating: whether the generator minimises V itself.

    Raises:
        GameError: an unknown divergence.

    Examples:
        >>> import torch
        >>> from equilibrist import FGAN
        >>> loss = FGAN("kl")
        >>> ones = torch.ones(4)
        >>> float(loss.critic_loss(ones, ones))  # p = q: D* = f'(1) = 1 and KL(P, Q) = 0
        0.0
    """

    divergence: Divergence
    saturating: bool

    # Written out, for a field cannot be given as a name and read as an object.
    def __init__(self, divergence: Divergence | str, saturating: bool = True) -> None:
        object.__setattr__(self, "divergence", _found(divergence))
        object.__setattr__(self, "saturating", saturating)

    def __str__(self) -> str:
        kind = "" if self.saturating else ", non-saturating"
        return f"f-GAN, {self.divergence.name} divergence{kind}"

    @property
    def zero_sum(self) -> bool:  # type: ignore[override]
        return self.saturating

    @property
    def formula(self) -> str:  # type: ignore[override]
        own = "V" if self.saturating else "-E g(D(G(z))), the non-saturating loss"
        return (
            f"V = E g(D(x)) - E f*(g(D(G(z)))) with max over D = {self.divergence.direction}; "
            f"the critic maximises V, the generator minimises {own}"
        )

    @property
    def unit(self) -> str:  # type: ignore[override]
        return self.divergence.unit

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.divergence.fake_score(fake).mean() - self.divergence.real_score(real).mean()

    def generator_loss(self, fake: Tensor) -> Tensor:
        if self.saturating:
            return -self.divergence.fake_score(fake).mean()
        return -self.divergence.real_score(fake).mean()

    def real_term(self, real: Tensor) -> Tensor | None:
        return self.divergence.real_score(real).mean() if self.saturating else None

    def scale(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """One nat where the value is in nats, else f''(1): what one nat of KL is, to leading order, in the
        units of this divergence, so that a tolerance calls the same small shift of Q nothing."""
        nats = self.divergence.unit == "nats"
        return real.new_full((), 1.0 if nats else self.divergence.curvature)


def _found(given: object) -> Divergence:
    if isinstance(given, str):
        return divergence(given)
    if not isinstance(given, Divergence):
        shown = given.__name__ if isinstance(given, type) else type(given).__name__
        raise GameError(
            f"divergence={shown} is no divergence object: write FGAN('kl') or FGAN(KL())"
        )
    return given
