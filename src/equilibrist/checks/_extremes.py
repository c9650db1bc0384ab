"""Extreme eigenvalues of symmetric operators that are only multiplied with, and of small matrices all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

ZERO = 1e-9  # eigenvalues below this, relative to the largest, are zero to rounding

Apply = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Extremes:
    """The ends of a symmetric operator's spectrum.

    Attributes:
        smallest, vector: the smallest eigenvalue found and its unit vector [n].
        residual: |H u - smallest u|; some eigenvalue is no further away.
        largest: the largest found.
        complete: all eigenvalues were found (dense); `values` are they.
        steps: products taken.
    """

    smallest: float
    vector: Tensor
    residual: float
    largest: float
    complete: bool
    steps: int
    values: Tensor | None = None

    @property
    def zero(self) -> float:
        """What is zero to rounding."""
        return ZERO * max(abs(self.smallest), abs(self.largest), 1e-300)

    @property
    def flat(self) -> int:
        """How many eigenvalues are zero; 0 where not all were found."""
        return 0 if self.values is None else int((self.values.abs() <= self.zero).sum())

    @property
    def finite(self) -> bool:
        return math.isfinite(self.smallest) and math.isfinite(self.residual)

    def converged(self, nothing: float) -> bool:
        """Whether the smallest eigenvalue is known: above -nothing for certain of what was seen, or to 5%."""
        if self.complete:
            return True
        sure = self.smallest - self.residual >= -nothing
        return sure or self.residual <= 0.05 * abs(self.smallest)


def finite(*vectors: Tensor) -> bool:
    """Whether every entry is."""
    return all(bool(torch.isfinite(v).all()) for v in vectors)


def dense(apply: Apply, n: int, device: Any = None) -> Tensor:
    """The symmetric matrix [n, n] of an operator, a product for each column; its symmetric part."""
    unit = torch.eye(n, dtype=torch.float64, device=device)
    if not n:
        return unit
    matrix = torch.stack([apply(row) for row in unit], dim=1)
    return (matrix + matrix.mT) / 2


def whole(matrix: Tensor, steps: int) -> Extremes:
    """All eigenvalues of a symmetric matrix."""
    if not bool(torch.isfinite(matrix).all()):
        nothing = matrix.new_zeros(len(matrix))
        return Extremes(float("nan"), nothing, float("nan"), float("nan"), True, steps)
    values, vectors = torch.linalg.eigh(matrix)
    u = vectors[:, 0]
    residual = float((matrix @ u - values[0] * u).norm())
    return Extremes(float(values[0]), u, residual, float(values[-1]), True, steps, values)


def lanczos(apply: Apply, start: Tensor, steps: int) -> Extremes:
    """Both ends of a symmetric operator's spectrum from `steps` products, by Lanczos' method with full
    reorthogonalisation (Golub and Van Loan 2013, section 10.3.1), from the vector `start` [n].

    Ritz values lie inside of the spectrum: the smallest found is an upper bound of the smallest there is.
    """
    n = len(start)
    basis, images = [start / start.norm()], []
    off: list[float] = []
    for _ in range(min(steps, n)):
        image = apply(basis[-1])
        images.append(image)
        rest = orthogonal(image, basis)
        beta = float(rest.norm())
        if not beta > 1e-12 * float(image.norm()) or len(basis) == n:
            break
        off.append(beta)
        basis.append(rest / beta)
    k = len(images)
    Q, H = torch.stack(basis[:k], dim=1), torch.stack(images, dim=1)
    small = Q.mT @ H
    if not bool(torch.isfinite(small).all()):
        nan = float("nan")
        return Extremes(nan, torch.zeros_like(start), nan, nan, False, k)
    values, vectors = torch.linalg.eigh((small + small.mT) / 2)
    u = Q @ vectors[:, 0]
    residual = float((H @ vectors[:, 0] - values[0] * u).norm())
    return Extremes(float(values[0]), u, residual, float(values[-1]), False, k)


def orthogonal(x: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """What is left of x beside an orthonormal basis; twice, for rounding."""
    for _ in range(2):
        for q in basis:
            x = x - (q @ x) * q
    return x
