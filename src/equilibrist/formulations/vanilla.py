"""The original GAN (Goodfellow et al. 2014)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from equilibrist.formulations._base import Critic, ScoreFormulation


@dataclass(frozen=True)
class Vanilla(ScoreFormulation):
    """V(G, D) = E log s(D(x)) + E log(1 - s(D(G(z)))), s the sigmoid, D a free logit.

    Farnia and Ozdaglar 2020, equation 6. The critic's loss is -V. The generator's is V
    (`saturating=True`: zero-sum; value at the optimum -log 4, max over D = 2 JS - log 4), or
    -E log s(D(G(z))) (`saturating=False`, the usual choice: not zero-sum). Unit: nats.

    With `probabilities=True` the critic's own output is s(D), as of one that ends with a sigmoid:
    logarithms are then cut off at -100, as binary cross entropy is in torch. A free logit is the
    better choice, for a saturated sigmoid has no gradient left.

    Args:
        saturating: whether the generator minimises V itself.
        probabilities: whether the critic ends with a sigmoid.

    Examples:
        >>> import torch
        >>> from equilibrist import Vanilla
        >>> scores = torch.zeros(4)  # a critic that says nothing
        >>> round(float(Vanilla().critic_loss(scores, scores)), 4)  # 2 log 2
        1.3863
        >>> Vanilla(saturating=True).zero_sum
        True
    """

    saturating: bool = False
    probabilities: bool = False

    def __str__(self) -> str:
        return "vanilla GAN, " + ("saturating" if self.saturating else "non-saturating")

    @property
    def logits(self) -> bool:
        """Whether a score is a logit, which no sigmoid may have bounded."""
        return not self.probabilities

    @property
    def zero_sum(self) -> bool:  # type: ignore[override]
        return self.saturating

    @property
    def formula(self) -> str:  # type: ignore[override]
        value = "V = E log s(D(x)) + E log(1 - s(D(G(z))))"
        own = "V" if self.saturating else "-E log s(D(G(z))), the non-saturating loss"
        return f"{value}; the critic maximises V, the generator minimises {own}"

    @property
    def unit(self) -> str:  # type: ignore[override]
        return "nats"

    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        return self._surprise(real).mean() + self._surprise(fake, generated=True).mean()

    def generator_loss(self, fake: Tensor) -> Tensor:
        if self.saturating:
            return -self._surprise(fake, generated=True).mean()
        return self._surprise(fake).mean()

    def real_term(self, real: Tensor) -> Tensor | None:
        return -self._surprise(real).mean() if self.saturating else None

    def _surprise(self, score: Tensor, generated: bool = False) -> Tensor:
        """-log of the probability that the critic gives to "real", or to "generated"."""
        if self.probabilities:
            return -torch.log(1 - score if generated else score).clamp_min(-100.0)
        return softplus(score if generated else -score)

    def scale(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """One nat: log-likelihoods carry their own unit."""
        return torch.ones((), dtype=real.dtype, device=real.device)
