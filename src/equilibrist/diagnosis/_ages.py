"""How old the generated samples are that a critic is trained on: a pool may hold those of a generator of long ago."""

from __future__ import annotations

from statistics import median

from torch import Tensor

from equilibrist.diagnosis._seen import fingerprints

KEPT = 8  # rows of each call of the generator
MOST = 100_000  # rows that are remembered
OLD = 20  # rounds
ENOUGH = 24  # rows that were recognised


class Ages:
    """Rows that the generator made, and the rounds after which the critic is trained on them."""

    def __init__(self) -> None:
        self._made: dict[int, int] = {}
        self._ages: list[int] = []
        self.listening = False

    def made(self, i: int, samples: Tensor) -> None:
        """The generator makes samples in round i."""
        if samples.ndim and samples.is_floating_point() and len(self._made) < MOST:
            self._made |= dict.fromkeys(fingerprints(samples, KEPT), i)

    def shown(self, i: int, samples: Tensor) -> None:
        """The critic is given samples in round i; those with a graph are for the generator's step."""
        if self.listening and samples.ndim and samples.is_floating_point():
            known = (self._made.get(row) for row in fingerprints(samples))
            self._ages += [i - made for made in known if made is not None]

    @property
    def known(self) -> bool:
        """Whether samples that the generator made are shown to the critic bit for bit, whenever they were made."""
        return len(self._ages) >= ENOUGH

    @property
    def old(self) -> float | None:
        """The median age of generated samples in rounds, where the critic is trained on old ones only; else None."""
        if not self.known or min(self._ages) < OLD:
            return None
        return float(median(self._ages))
