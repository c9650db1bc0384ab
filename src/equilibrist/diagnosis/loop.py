"""A training loop, as a diagnosis takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from equilibrist.formulations import Formulation

Held = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]
Loss = Formulation | str | Callable[..., Any]


@dataclass
class Loop:
    """Somebody's training loop: one function that runs a round, its modules, and what they are meant to play.

    Attributes:
        step: step(i) runs round i: all steps of all players.
        players: the modules that are trained, {"generator": G, "critic": D}, as the loop holds them; a list of
            modules is one player.
        loss: what the critic and the generator minimise: a formulation or its name.
        penalties: what the critic pays besides.
        real: real samples that training does not see.
        train: real samples that it does see.
        sample: sample(n) makes n generated samples as they are meant to be compared with `real`.
        average: an averaged generator, where there is one.
        save, load: save() returns everything that a resumption needs, load(saved) takes it.
    """

    step: Callable[[int], Any]
    players: Mapping[str, Held]
    loss: Loss
    penalties: Sequence[Any] = ()
    real: Tensor | None = None
    train: Tensor | None = None
    sample: Callable[[int], Tensor] | None = None
    average: nn.Module | None = None
    save: Callable[[], Any] | None = None
    load: Callable[[Any], None] | None = None


def modules_of(held: Held) -> list[nn.Module]:
    """A player's modules."""
    if isinstance(held, nn.Module):
        return [held]
    return list(held.values() if isinstance(held, Mapping) else held)
