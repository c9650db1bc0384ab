"""Random flips and shifts of a source of images."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from equilibrist.data._source import Kind, ShownSource, Source
from equilibrist.errors import DataError


class Augmented(ShownSource):
    """The images of `source`, each flipped and shifted at random whenever it is drawn.

    Args:
        source: a source of images.
        flip: mirror each image left to right with probability 1/2.
        crop: shift each image (after the flip) by whole pixels, down and across independently and
            uniformly on -crop..crop. What is uncovered is filled by reflection at the image's
            border, the border itself not repeated: as cutting a random window from the image
            padded by `crop` on every side (`torch.nn.functional.pad` with mode "reflect").

    The generator serves the rows first, then the flips, then the shifts: rows are those that the
    plain source draws. Conditions that are images go with their samples; classes stay.
    `all` and `take` give the images as they are, so that an audit or a score uses plain data.

    Attributes besides those of `Source`: `source`, `flip`, `crop`; `labels`, `classes` and
    `class_names` are those of the plain source (None where it has none).

    Raises:
        DataError: a source of points, a negative or fractional crop, one as large as the image, or
            conditions that are images of another size.
    """

    kind: Kind = "images"

    def __init__(self, source: Source, flip: bool = False, crop: int = 0) -> None:
        self.source, self.flip, self.crop = source, bool(flip), crop
        if source.kind != "images":
            raise DataError(f"{source.name}: {source.kind} cannot be flipped; give images")
        least = min(source.shape[1:])
        if not isinstance(crop, int) or not 0 <= crop < least:
            raise DataError(
                f"{source.name}: cannot shift by crop={crop} pixels; give a whole number from 0 "
                f"to {least - 1}"
            )

    @property
    def name(self) -> str:
        """The plain source's name, then what is done: "cifar10+flip+crop4"."""
        return f"{self.source.name}{'+flip' * self.flip}{f'+crop{self.crop}' * (self.crop > 0)}"

    @property
    def origin(self) -> str:
        """The plain source's origin, and what is done to its images."""
        what = ["flipped left to right with probability 1/2"] * self.flip
        what += [f"shifted by up to {self.crop} pixels, padded by reflection"] * (self.crop > 0)
        return f"{self.source.origin}; when drawn, {' and '.join(what) or 'left as they are'}"

    @property
    def sha256(self) -> str | None:
        """Checksum of the plain source's and of what is done; None where that source has none."""
        plain: str | None = getattr(self.source, "sha256", None)
        if plain is None or not (self.flip or self.crop):
            return plain
        text = f"{plain} flip={self.flip} crop={self.crop} reflect"
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return self.source.shape

    @property
    def size(self) -> int | None:
        """Number of plain images."""
        return self.source.size

    @property
    def value_range(self) -> tuple[float, float] | None:
        """As in the plain source: nothing leaves it."""
        return self.source.value_range

    @property
    def labels(self) -> torch.Tensor | None:
        """The plain source's."""
        return getattr(self.source, "labels", None)

    @property
    def classes(self) -> int | None:
        """The plain source's."""
        return getattr(self.source, "classes", None)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The plain source's."""
        return getattr(self.source, "class_names", None)

    def sample(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        """Draw [n, C, H, W]: the rows of the plain source, flipped and shifted."""
        return self._moved(rng, self.source.sample(rng, n))[0]

    def sample_pairs(self, rng: np.random.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw (x, y): x as `sample` does, y the conditions; images among them move with x."""
        pairs = getattr(self.source, "sample_pairs", None)  # isinstance(_, Paired) is slow
        if pairs is None:
            raise DataError(f"{self.source.name}: the samples have no conditions; use sample")
        x, y = pairs(rng, n)
        if y.ndim != 4 or not (self.flip or self.crop):
            return self._moved(rng, x)[0], y
        if y.shape[2:] != x.shape[2:]:
            raise DataError(
                f"{self.source.name}: conditions {list(y.shape[1:])} cannot be moved with images "
                f"{list(x.shape[1:])}; resize them, or draw without flip and crop"
            )
        x, y = self._moved(rng, x, y)
        return x, y

    def _moved(self, rng: np.random.Generator, *batches: torch.Tensor) -> list[torch.Tensor]:
        """The batches [n, C, H, W], image i of each moved alike."""
        n, _, height, width = batches[0].shape
        device = batches[0].device
        if not (self.flip or self.crop):
            return list(batches)

        def delivered(values: NDArray[np.int64]) -> torch.Tensor:
            return torch.from_numpy(values).to(device, non_blocking=True)

        rows = torch.arange(height, device=device).expand(n, height)
        columns = torch.arange(width, device=device).expand(n, width)
        # Where each pixel of the result comes from: first undo the shift, then the flip.
        flips = rng.integers(0, 2, size=(n, 1)) if self.flip else None
        if self.crop:
            shifts = rng.integers(-self.crop, self.crop + 1, size=(2, n, 1))
            down, across = delivered(shifts)
            rows = _reflected(rows - down, height)
            columns = _reflected(columns - across, width)
        if flips is not None:
            columns = torch.where(delivered(flips).bool(), width - 1 - columns, columns)
        index = (rows[:, :, None] * width + columns[:, None, :]).flatten(1)[:, None]
        return [
            batch.flatten(2).gather(2, index.expand(-1, batch.shape[1], -1)).view(batch.shape)
            for batch in batches
        ]

    def all(self) -> torch.Tensor:
        """Every plain image, neither flipped nor shifted."""
        return self.source.all()

    def take(self, index: torch.Tensor) -> torch.Tensor:
        """The plain images at `index`."""
        take = getattr(self.source, "take", None)
        images: torch.Tensor = self.source.all()[index] if take is None else take(index)
        return images

    def take_pairs(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The plain images at `index`, with their conditions."""
        pairs: tuple[torch.Tensor, torch.Tensor] = self.source.take_pairs(index)  # type: ignore[attr-defined]
        return pairs

    def split(self, fractions: Sequence[float], rng: np.random.Generator) -> tuple[Augmented, ...]:
        """Disjoint random parts of the plain source, each augmented as this one is."""
        return tuple(self._of(part) for part in self.source.split(fractions, rng))

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> Augmented:
        """The same elsewhere: the plain source's `to`."""
        return self._of(self.source.to(device, dtype))

    def _of(self, source: Source) -> Augmented:
        other = copy.copy(self)
        other.source = source
        return other


def _reflected(index: torch.Tensor, size: int) -> torch.Tensor:
    """Indices less than `size` outside of 0..size-1, brought back in by reflection at the ends."""
    return size - 1 - (size - 1 - index.abs()).abs()
