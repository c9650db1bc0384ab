"""A training loop, as a diagnosis takes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from equilibrist.formulations import Formulation

Held = nn.Module | Sequence[nn.Module] | Mapping[str, nn.Module]
Samples = Tensor | tuple[Tensor, Tensor]
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
        real: real samples that training does not see; (samples, conditions) where the critic is shown both.
        train: real samples that it does see, likewise.
        sample: sample(n) makes n generated samples as they are meant to be compared with `real`, likewise.
        average: an averaged generator, where there is one.
        save, load: save() returns everything that a resumption needs, load(saved) takes it.
    """

    step: Callable[[int], Any]
    players: Mapping[str, Held]
    loss: Loss
    penalties: Sequence[Any] = ()
    real: Samples | None = None
    train: Samples | None = None
    sample: Callable[[int], Samples] | None = None
    average: nn.Module | None = None
    save: Callable[[], Any] | None = None
    load: Callable[[Any], None] | None = None

    @property
    def held_out(self) -> Tensor | None:
        """`real` without conditions."""
        return None if self.real is None else first_of(self.real)

    @property
    def seen(self) -> Tensor | None:
        """`train` without conditions."""
        return None if self.train is None else first_of(self.train)


def first_of(samples: Samples) -> Tensor:
    """Samples without their conditions.

    Args:
        samples: samples, or (samples, conditions).

    Returns:
        The samples.
    """
    return samples if isinstance(samples, Tensor) else samples[0]


def modules_of(held: Held) -> list[nn.Module]:
    """The modules of a player.

    Args:
        held: a module, or several in a list or dictionary.

    Returns:
        They, in a list.
    """
    if isinstance(held, nn.Module):
        return [held]
    return list(held.values() if isinstance(held, Mapping) else held)
