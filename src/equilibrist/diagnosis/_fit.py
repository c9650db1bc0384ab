"""A received gradient as a sum of declared ones: coefficients, residual, and parts that cannot be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

EXACT = 1e-4  # residual of what is explained but for rounding
SAME = 1e-7  # of 1 - |cosine|: columns that are one
SMALL = 1e-12


@dataclass
class Fit:
    """received = sum of coefficients * columns + residual.

    Attributes:
        coefficients: by column.
        residual: |rest| / |received|.
        rank: of the columns that were used.
        merged: by column, those that are the same up to a factor and were left out for it.
    """

    coefficients: dict[str, float]
    residual: float
    rank: int = 0
    merged: dict[str, list[str]] = field(default_factory=dict)


class Problem:
    """Inner products of a received gradient with all columns, from which any selection is fitted at once."""

    def __init__(self, received: Tensor, columns: Mapping[str, Tensor]) -> None:
        self.size = float(received.double().norm())
        sizes = {name: float(column.norm()) for name, column in columns.items()}
        self.names = [name for name, size in sizes.items() if SMALL < size < float("inf")]
        if self.names:
            stacked = torch.stack([columns[name] for name in self.names]).double()
            norms = stacked.norm(dim=1)
            unit = stacked / norms[:, None]
            self._norms = norms.numpy()
            # Small from here on, where NumPy is several times as quick as tensors.
            self._gram = (unit @ unit.T).numpy()
            self._with = (unit @ (received.double() / max(self.size, SMALL))).numpy()
        self._unit = {name: i for i, name in enumerate(self.names)}

    def cosine(self, one: str, other: str) -> float:
        """Of two columns."""
        return float(self._gram[self._unit[one], self._unit[other]])

    def share(self, name: str) -> float:
        """|column| / |received|; 0 of a column that is none."""
        if name not in self._unit:
            return 0.0
        return float(self._norms[self._unit[name]]) / max(self.size, SMALL)

    def ratio(self, one: str, other: str) -> float:
        """c where one = c * other; 0 where they are two columns."""
        cosine = self.cosine(one, other)
        if 1 - abs(cosine) > SAME:
            return 0.0
        size = float(self._norms[self._unit[one]] / self._norms[self._unit[other]])
        return size if cosine > 0 else -size

    def fit(self, chosen: Sequence[str]) -> Fit:
        """Least squares on these columns, the first of those that are the same."""
        kept: list[str] = []
        merged: dict[str, list[str]] = {}
        for name in chosen:
            if name not in self._unit or name in kept:
                continue
            twin = next((k for k in kept if 1 - abs(self.cosine(k, name)) < SAME), None)
            if twin is None:
                kept.append(name)
            else:
                merged.setdefault(twin, []).append(name)
        if not kept or self.size <= SMALL:
            return Fit({}, 1.0 if self.size > SMALL else 0.0)
        at = [self._unit[name] for name in kept]
        gram, right = self._gram[np.ix_(at, at)], self._with[at]
        found, _, rank, _ = np.linalg.lstsq(gram, right)
        rest = 1 - 2 * float(found @ right) + float(found @ gram @ found)
        scaled = found * self.size / self._norms[at]
        return Fit(
            dict(zip(kept, map(float, scaled), strict=True)),
            max(rest, 0.0) ** 0.5,
            int(rank),
            merged,
        )

    def widened(
        self, base: Sequence[str], extras: Sequence[str], most: int = 3
    ) -> tuple[Fit, list[str]]:
        """The fit on `base`, and on those extras besides that explain most of what it leaves, one after the other.

        An extra is taken if it removes three tenths of the residual or more, and makes what is left exact or less
        than half of what the base left.
        """
        taken: list[str] = []
        first = best = self.fit(base)
        while best.residual > EXACT and len(taken) < most:
            trials = [
                (self.fit([*base, *taken, name]), name)
                for name in extras
                if name not in taken and name in self._unit
            ]
            if not trials:
                break
            fit, name = min(trials, key=lambda trial: trial[0].residual)
            if fit.residual > 0.7 * best.residual:
                break
            best, taken = fit, [*taken, name]
        if taken and best.residual > max(EXACT, 0.5 * first.residual):
            return first, []
        return best, taken
