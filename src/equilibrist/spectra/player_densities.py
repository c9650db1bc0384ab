"""Spectral densities of each player's own Hessian and of the Jacobian's symmetric part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from equilibrist import tree
from equilibrist.core.jacobian import HessianOperator, JacobianOperator
from equilibrist.spectra import density
from equilibrist.spectra.arrays import Array, Mask
from equilibrist.spectra.density import SpectralDensity
from equilibrist.spectra.products import product_with, symmetric_part

if TYPE_CHECKING:
    pass


def exact_densities(J: Array, sizes: Mapping[str, int]) -> dict[str, SpectralDensity]:
    """Of each player's diagonal block of a dense J, by its size, and of (J + J^T) / 2."""
    found, start = {}, 0
    for player, size in sizes.items():
        own = slice(start, start + size)
        start += size
        if size:
            found[player] = density.exact_density(J[own, own])
    return found | {"symmetric": density.exact_density(J)}


def lanczos_densities(
    operator: JacobianOperator,
    steps: int,
    rng: np.random.Generator,
    masks: Mapping[str, Mask] | None = None,
) -> dict[str, SpectralDensity]:
    """The same by stochastic Lanczos quadrature, `steps` products from one probe each; with `masks` (bool [n_p] of
    each player) on those coordinates alone.

    The symmetric part of a zero-sum game's J is block diagonal: it then needs no further products.
    """
    found: dict[str, tuple[int, SpectralDensity]] = {}
    masks = masks or {p: np.ones(tree.count(part), bool) for p, part in operator.players.items()}
    for player in operator.players:
        own = HessianOperator(
            operator.field, operator.players, operator.constants, operator.draws, player
        )
        product = product_with(own, masks[player])
        n = int(masks[player].sum())
        if n:
            found[player] = n, density.density(product, n, steps, 1, rng)
    densities = {player: part for player, (_, part) in found.items()}
    if operator.field.game.zero_sum:
        densities["symmetric"] = density.block_diagonal(list(found.values()))
    else:
        whole = np.concatenate([masks[player] for player in operator.players])
        product = symmetric_part(operator, whole)
        densities["symmetric"] = density.density(product, int(whole.sum()), steps, 1, rng)
    return densities
