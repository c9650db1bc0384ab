"""Spectral normalisation as an explicit reparametrisation (Miyato et al. 2018, equations 7 and 8).

A weight W of shape [out, ...] enters the network as W / sigma(W), sigma = u^T W v with W read as a
matrix [out, rest]. The singular vectors u, v are constants: nobody descends them. One power
iteration moves them on at each `refresh`; `exact=True` solves for them, so that both sigma and its
derivative u v^T are exact at the given weights.

The norm is that of the matrix [out, rest], as in the paper; the norm of the convolution itself can be
larger, up to the number of overlapping kernel positions. A transposed convolution's weight is read as
[in, rest], its first dimension (torch reads it the other way).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

_PREFIX = "spectral_norm/"


def normalised_names(module: nn.Module) -> tuple[str, ...]:
    """The parameters that are normalised: the weights of linear and convolutional layers, a tied one
    once, by its first name."""
    names = {id(p): name for name, p in module.named_parameters()}
    layers = nn.Linear | nn.Bilinear | nn.modules.conv._ConvNd
    found = [names.get(id(m.weight)) for m in module.modules() if isinstance(m, layers)]
    return tuple(dict.fromkeys(name for name in found if name is not None))


def power_vectors(params: Mapping[str, Tensor], names: tuple[str, ...]) -> dict[str, Tensor]:
    """Constants u and v of every normalised weight, exact at `params`."""
    vectors: dict[str, Tensor] = {}
    for name in names:
        u, v = top_singular_vectors(params[name].detach().flatten(1))
        vectors[f"{_PREFIX}{name}/u"], vectors[f"{_PREFIX}{name}/v"] = u, v
    return vectors


def refreshed(
    params: Mapping[str, Tensor],
    constants: Mapping[str, Tensor],
    names: tuple[str, ...],
    exact: bool,
) -> dict[str, Tensor]:
    """New power vectors: one power iteration from the old ones, or the exact ones."""
    if exact:
        return power_vectors(params, names)
    vectors: dict[str, Tensor] = {}
    with torch.no_grad():
        for name in names:
            weight = params[name].flatten(1)
            v = normalize(weight.mT @ constants[f"{_PREFIX}{name}/u"], dim=0)
            vectors[f"{_PREFIX}{name}/u"] = normalize(weight @ v, dim=0)
            vectors[f"{_PREFIX}{name}/v"] = v
    return vectors


def effective(
    params: Mapping[str, Tensor], constants: Mapping[str, Tensor], names: tuple[str, ...]
) -> dict[str, Tensor]:
    """Parameters as the network sees them: W / (u^T W v) for the normalised ones."""
    seen = dict(params)
    for name in names:
        weight = params[name]
        u, v = constants[f"{_PREFIX}{name}/u"], constants[f"{_PREFIX}{name}/v"]
        seen[name] = weight / torch.dot(u, torch.mv(weight.flatten(1), v))
    return seen


def is_power_vector(name: str) -> bool:
    """Whether a constant of this name belongs to spectral normalisation."""
    return name.startswith(_PREFIX)


def top_singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Unit u, v with u^T M v = sigma_max(M), by the eigenvectors of the smaller Gram matrix (float64)."""
    with torch.no_grad():
        m = matrix.double()
        if m.shape[0] <= m.shape[1]:
            u = torch.linalg.eigh(m @ m.mT).eigenvectors[..., -1]
            v = normalize(m.mT @ u, dim=0)
        else:
            v = torch.linalg.eigh(m.mT @ m).eigenvectors[..., -1]
            u = normalize(m @ v, dim=0)
        return u.to(matrix.dtype), v.to(matrix.dtype)


def singular_vectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Unit u, v with u^T M v = sigma_max(M), differentiable in M where sigma_max is simple.

    The vectors themselves come without a graph; one Newton step on (G - l I) u = 0, |u| = 1 (G the
    smaller Gram matrix), which changes no value, gives them their first derivative. (The derivative of
    an SVD divides by the differences of all singular values, and ties among the small ones make it NaN.)
    """
    return newton_step(matrix, *top_singular_vectors(matrix))


def newton_step(matrix: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """One Newton step from singular vectors [..., n] and [..., m] of a matrix [..., n, m]."""
    wide = matrix.shape[-2] <= matrix.shape[-1]
    m = matrix if wide else matrix.mT
    start = (left if wide else right).detach()
    gram = m @ m.mT
    value = (start.unsqueeze(-2) @ gram.detach() @ start.unsqueeze(-1)).squeeze(-1)
    size = start.shape[-1]
    shifted = gram - value.unsqueeze(-1) * torch.eye(size, dtype=m.dtype, device=m.device)
    corner = torch.zeros_like(value).unsqueeze(-1)
    bordered = torch.cat(
        [
            torch.cat([shifted.detach(), -start.unsqueeze(-1)], -1),
            torch.cat([start.unsqueeze(-2), corner], -1),
        ],
        -2,
    )
    # The matrix of a Newton step may be constant: its derivative is multiplied by a residual of zero.
    residual = torch.cat([(shifted @ start.unsqueeze(-1)).squeeze(-1), torch.zeros_like(value)], -1)
    # Where the largest singular values are equal there is no derivative, and the matrix has no inverse: no error
    # there, for one weight in a stack must not stop the others.
    step, _ = torch.linalg.solve_ex(bordered, residual.unsqueeze(-1))
    first = normalize(start - step.squeeze(-1)[..., :size], dim=-1)
    second = normalize((m.mT @ first.unsqueeze(-1)).squeeze(-1), dim=-1)
    return (first, second) if wide else (second, first)
