"""What the generator has lately made, by which its samples are known again where the critic is called on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from equilibrist.diagnosis._calls import FAKE, REAL
from equilibrist.diagnosis._seen import fingerprints, last_function
from equilibrist.interop.origin import block_of, storage, tensors_of

KEPT = 6  # outputs


class Generated:
    """The generator's last outputs.

    Attributes:
        rows: fingerprints of all samples so far.
        end: the function of torch that makes its samples.
    """

    def __init__(self) -> None:
        self.rows: set[int] = set()
        self.end = ""
        self._kept: list[tuple[int, Tensor]] = []

    def add(self, output: object) -> None:
        """The generator has returned this."""
        every = list(tensors_of(output))[:2]
        found = [t.detach() for t in every]
        if every and every[0].grad_fn is not None:
            self.end = last_function(every[0])
        self._kept = (self._kept + [(storage(t), t) for t in found])[-KEPT:]
        if found and found[0].ndim:
            self.rows.update(fingerprints(found[0]))

    def forget(self) -> None:
        """Lets go of the tensors."""
        self._kept.clear()

    def kind(self, samples: Tensor) -> tuple[str, slice | None]:
        """FAKE where memory or values are those of an output, and the rows where not all are; else ""."""
        where = storage(samples)
        if where and any(where == held for held, _ in self._kept):
            return FAKE, None
        for _, made in reversed(self._kept):
            block = block_of(samples.detach(), made)
            if block is not None:
                whole = block.stop - block.start == len(samples)
                return FAKE, None if whole else block
        return "", None

    def within(self, samples: Tensor) -> bool:
        """Whether an output lies beside other columns or channels, as where a critic is shown conditions with it."""
        return any(_beside(samples.detach(), made) for _, made in reversed(self._kept))

    def like(self, shape: torch.Size) -> Tensor | None:
        """The last output of this shape."""
        return next((t for _, t in reversed(self._kept) if t.shape == shape), None)


def _beside(samples: Tensor, made: Tensor) -> bool:
    """Whether `made` is a block of the columns (dimension 1) of `samples`."""
    if samples.ndim != made.ndim or made.ndim < 2 or not made.numel():
        return False
    here, wanted = list(samples.shape), list(made.shape)
    room = here[1] - wanted[1]
    if room < 1 or [here[0], *here[2:]] != [wanted[0], *wanted[2:]] or samples.dtype != made.dtype:
        return False
    first = samples[0].flatten(1)[:, 0] if samples.ndim > 2 else samples[0]
    start = made[0].flatten()[0]
    places = (first[: room + 1] == start).nonzero().flatten().tolist()
    return any(torch.equal(samples.narrow(1, k, wanted[1]), made) for k in places)


def split_by_kind(
    kind: str, rows: slice | None, heads: Sequence[Tensor], samples: Tensor
) -> Iterator[tuple[str, Tensor | None]]:
    """A batch as its real and its generated rows, where `rows` are generated: (kind, which rows); else as one."""
    if rows is None or any(len(h) != len(samples) for h in heads):
        yield kind, None
        return
    fakes = torch.zeros(len(samples), dtype=torch.bool, device=samples.device)
    fakes[rows] = True
    yield REAL, ~fakes
    yield FAKE, fakes
