"""The relativistic pairing GAN (Jolicoeur-Martineau 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import softplus

from equilibrist.errors import GameError
from equilibrist.formulations._base import Critic, both_scores


@dataclass(frozen=True)
class Relativistic:
    """V(G, D) = E log s(D(x_i) - D(G(z_i))), s the sigmoid: real and generated samples in pairs.

    Jolicoeur-Martineau 2019; R3GAN (Huang et al. 2024, who call it RpGAN) joins it with `R1` and
    `R2`. The critic's loss is -V = E softplus(-(D(x) - D(G(z)))). The generator's is
    E softplus(-(D(G(z)) - D(x))) (`saturating=False`: not zero-sum), or V (`saturating=True`:
    zero-sum). At the best critic, log p/q up to a constant, V = JS(PxQ, QxP) - log 2 for independent
    pairs. D + const is the same critic. Unit: nats.

    The i-th real sample meets the i-th generated one: both batches must have one size.

    Args:
        saturating: whether the generator minimises V itself.
    """

    saturating: bool = False
    logits: ClassVar[bool] = True

    def __str__(self) -> str:
        kind = "saturating" if self.saturating else "non-saturating"
        return f"relativistic pairing GAN, {kind}"

    @property
    def zero_sum(self) -> bool:
        return self.saturating

    @property
    def formula(self) -> str:
        own = "V" if self.saturating else "-E log s(D(G(z)) - D(x)), the non-saturating loss"
        return f"V = E log s(D(x) - D(G(z))); the critic maximises V, the generator minimises {own}"

    @property
    def unit(self) -> str:
        return "nats"

    def losses(
        self, critic: Critic, real: Tensor, fake: Tensor, only: str | None = None
    ) -> dict[str, Tensor]:
        """Both players' losses on paired samples real [B, ...] and fake [B, ...].

        Raises:
            GameError: batches of different sizes.
        """
        if len(real) != len(fake):
            raise GameError(
                f"Relativistic pairs each real sample with a generated one, but there are {len(real)} and "
                f"{len(fake)}: draw as many of one as of the other"
            )
        if only == "generator":
            # In passes of their own: nothing on the way to the real scores moves, so they need no graph.
            lead = critic(real) - critic(fake)
            return {"generator": self._generator(lead)}
        on_real, on_fake = both_scores(critic, real, fake)
        lead = on_real - on_fake
        losses = {"critic": softplus(-lead).mean()}
        return losses if only else {"generator": self._generator(lead), **losses}

    def _generator(self, lead: Tensor) -> Tensor:
        return -softplus(-lead).mean() if self.saturating else softplus(lead).mean()

    def scale(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """One nat: log-likelihoods carry their own unit."""
        return torch.ones((), dtype=real.dtype, device=real.device)
