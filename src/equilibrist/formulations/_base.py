"""What a formulation is, and the common case: losses that are functions of the critic's scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor


class Critic(Protocol):
    """The critic at fixed parameters: samples [batch, ...] to scores [batch].

    `samplewise`: a score depends on its own sample only, so that real and generated samples may
    share one pass.
    """

    @property
    def samplewise(self) -> bool: ...

    def __call__(self, x: Tensor) -> Tensor: ...


class Formulation(Protocol):
    """Each player's own loss, to be minimised. `zero_sum`: they add up to zero exactly.

    With `only`, the entry of that player alone is needed, up to terms free of its parameters.
    `formula` states V or the losses in words for reports; `unit` names what a loss is measured in. An attribute
    `logits = True` says that a score is a logit, so that a critic that ends with a sigmoid is refused.
    """

    @property
    def zero_sum(self) -> bool: ...
    @property
    def formula(self) -> str: ...
    @property
    def unit(self) -> str: ...

    def losses(
        self, critic: Critic, real: Tensor, fake: Tensor, only: str | None = None
    ) -> dict[str, Tensor]: ...

    def scale(self, critic: Critic, real: Tensor, fake: Tensor) -> Tensor:
        """How large a difference of losses is large: the yardstick of an audit's tolerance."""
        ...


_LARGE = 3e6  # samples times parameters from which a wasted half costs more than a second pass


def both_scores(
    critic: Critic, real: Tensor, fake: Tensor, both_move: bool = False
) -> tuple[Tensor, Tensor]:
    """Scores on real and on generated samples: in one pass where the critic allows it.

    With `both_move` they will be differentiated for the generator too, which the generated half alone concerns:
    a joint pass carries zeros back for the real one (each player's own loss, products between the
    players), a tenth of a simultaneous or consensus step. Large critics then take two passes.
    """
    if critic.samplewise and not (both_move and _is_large(critic, real)):
        on_real, on_fake = critic(torch.cat([real, fake])).tensor_split([len(real)])
        return on_real, on_fake
    return critic(real), critic(fake)


def _is_large(critic: Critic, real: Tensor) -> bool:
    params: Mapping[str, Tensor] = getattr(critic, "params", {})
    return len(real) * sum(p.numel() for p in params.values()) > _LARGE


class ScoreFormulation(ABC):
    """Losses that depend on samples through the critic's scores: give three functions of scores.

    The generator's loss on generated scores, and the critic's loss on real and on generated scores;
    `real_term` is what the generator's loss holds of the real ones (free of its parameters).
    """

    zero_sum: bool
    formula: str
    unit: str

    @abstractmethod
    def critic_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """The critic's loss from its scores on real and on generated samples."""

    @abstractmethod
    def generator_loss(self, fake: Tensor) -> Tensor:
        """The generator's loss from the scores on its samples."""

    def real_term(self, real: Tensor) -> Tensor | None:
        """The generator's loss on the real scores, constant in its parameters; None if there is none."""
        return None

    def losses(
        self, critic: Critic, real: Tensor, fake: Tensor, only: str | None = None
    ) -> dict[str, Tensor]:
        if only == "generator":
            return {"generator": self.generator_loss(critic(fake))}
        on_real, on_fake = both_scores(critic, real, fake, both_move=only is None)
        losses = {"critic": self.critic_loss(on_real, on_fake)}
        if only is None:
            constant = self.real_term(on_real)
            own = self.generator_loss(on_fake)
            losses = {"generator": own if constant is None else own + constant, **losses}
        return losses
