"""The players of the analytic game: an affine generator and a quadratic critic."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from equilibrist.networks._layers import Device, check_counts, check_shape


class LinearGenerator(nn.Module):
    """G(z) = W z + u: [B, dim_in] -> [B, dim_out], parameters W [dim_out, dim_in] and u [dim_out].

    The generator of Farnia and Ozdaglar 2020, Theorem 1. W starts uniform on +-1 / sqrt(dim_in), u at 0.

    Args:
        dim_in, dim_out: sizes of z and of a sample.
        device, dtype: of the parameters.
    """

    def __init__(
        self, dim_in: int, dim_out: int, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        check_counts(self, dim_in=dim_in, dim_out=dim_out)
        self.W = nn.Parameter(torch.empty(dim_out, dim_in, device=device, dtype=dtype))
        self.u = nn.Parameter(torch.zeros(dim_out, device=device, dtype=dtype))
        bound = dim_in**-0.5
        nn.init.uniform_(self.W, -bound, bound)

    def forward(self, z: Tensor) -> Tensor:
        """[B, dim_in] -> [B, dim_out]."""
        check_shape(self, "input", z, self.W.shape[1:])
        return z @ self.W.mT + self.u


class QuadraticCritic(nn.Module):
    """D(x) = x^T A x + b^T x: [B, dim] -> [B], parameters A [dim, dim] and b [dim], both starting at 0.

    Only the symmetric part of A matters. The critic of Farnia and Ozdaglar 2020, section 3.1, for the
    cost eta |x - x'|^2; its transform sup_x' D(x') - eta |x - x'|^2 is
    1/4 (b + 2 eta x)^T (eta I - A)^{-1} (b + 2 eta x) - eta |x|^2 where sym(A) < eta I, else +inf
    (keep it below by the projection `EigenvalueCap("critic", "A", ceiling)`, ceiling < eta).

    Args:
        dim: size of a sample.
        device, dtype: of the parameters.
    """

    closed_transform: ClassVar[bool] = True

    def __init__(
        self, dim: int, *, device: Device = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        check_counts(self, dim=dim)
        self.A = nn.Parameter(torch.zeros(dim, dim, device=device, dtype=dtype))
        self.b = nn.Parameter(torch.zeros(dim, device=device, dtype=dtype))

    def forward(self, x: Tensor, eta: float | None = None) -> Tensor:
        """D(x), or with `eta` the transform D^c(x): [B, dim] -> [B]."""
        check_shape(self, "input", x, self.b.shape)
        if eta is None:
            return ((x @ self.A) * x).sum(dim=1) + x @ self.b
        gap = eta * torch.eye(len(self.b), dtype=x.dtype, device=x.device)
        gap = gap - (self.A + self.A.mT) / 2
        # No exception where the gap is not positive definite: a GPU would have to wait for it.
        factor, failed = torch.linalg.cholesky_ex(gap)
        half = torch.linalg.solve_triangular(factor, (self.b + 2 * eta * x).mT, upper=False)
        value = half.square().sum(dim=0) / 4 - eta * x.square().sum(dim=1)
        return torch.where(failed == 0, value, float("inf"))
