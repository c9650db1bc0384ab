"""The eigenvalues that decide whether a pair is stable: found, refined, and confirmed on other samples."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from equilibrist import tree
from equilibrist.checks._decide import Interval
from equilibrist.checks._second_order import Free
from equilibrist.checks.context import AuditContext, Tick, rows_in
from equilibrist.core.draws import Draw, Use
from equilibrist.core.game import Players
from equilibrist.core.jacobian import JacobianOperator
from equilibrist.core.memory import give_back
from equilibrist.spectra import krylov, normality
from equilibrist.spectra.arrays import Array, Mask, Vectors, columns
from equilibrist.spectra.density import SpectralDensity
from equilibrist.spectra.eigenvalues import Eigenvalues, eigenpairs
from equilibrist.spectra.player_densities import exact_densities, lanczos_densities
from equilibrist.spectra.products import product_with

TRANSPOSED, FORWARD, OWN = (
    2.1,
    2.7,
    1.1,
)  # gradients that a product with J^T, J, a player's Hessian costs
K = 4  # eigenvalues at each end
ROUNDING = 1e-8  # relative to the largest modulus: what is zero where losses are exact


@dataclass
class JacobianSpectrum:
    """The spectrum of J over the coordinates that may move, [n].

    Attributes:
        found: eigenvalues, complete or extremes.
        size: the largest modulus.
        value: the eigenvalue with the smallest real part, known up to `residual`: it is exact for a matrix that
            differs from J by no more (in the 2-norm). Not a number where nothing was found.
        row, column: its unit vectors with r^T J = l r^T and J c = l c; None where not found, or not asked for.
        matrix: J where it is dense.
        kept: what the search could keep in memory, in words, where that was less than usual.
    """

    found: Eigenvalues
    size: float
    value: complex
    residual: float
    row: Vectors | None
    column: Vectors | None
    densities: dict[str, SpectralDensity] = field(default_factory=dict)
    matrix: Array | None = None
    kept: str = ""

    @property
    def floor(self) -> float:
        """No real part of an eigenvalue lies below: the least that the symmetric part of J can have."""
        lowest = self.densities["symmetric"].lowest
        return lowest.value - lowest.residual

    @property
    def condition(self) -> float | None:
        """How far the eigenvalue moves, to first order, when J changes by one."""
        if self.row is None or self.column is None:
            return None
        overlap = abs(complex(self.row @ self.column))
        return 1 / overlap if overlap > 0 else float("inf")

    @property
    def error(self) -> float:
        """How far the eigenvalue may lie from `value`, to first order: its residual, and what rounding does to any
        matrix of this size, times its condition. Infinite where that is not known."""
        rounding = (
            float(np.finfo(np.float64).eps) * self.size * (0 if self.row is None else len(self.row))
        )
        known = self.condition
        return float("inf") if known is None else (self.residual + rounding) * known


def draws_of(context: AuditContext) -> list[Draw]:
    if not context.sampled:
        return [{}]
    return context.linear_draws()[: context.settings.spectrum_batches]


def lanczos_steps(context: AuditContext) -> int:
    """Of the densities: a quarter of a search where that is long enough for a picture, else a tenth."""
    products = context.settings.spectrum_products
    return max(2, products // (4 if products >= 40 else 10))


def probe_cost(context: AuditContext) -> float:
    """Gradients a random vector takes, per minibatch."""
    forward = TRANSPOSED if context.game.zero_sum else FORWARD
    return 2 * TRANSPOSED + 2 * forward


def search_cost(context: AuditContext) -> float:
    """Gradients that the search and the densities take, per minibatch."""
    whole = 0.0 if context.game.zero_sum else TRANSPOSED + FORWARD
    own = OWN * len(context.game.players)
    return TRANSPOSED * context.settings.spectrum_products + lanczos_steps(context) * (own + whole)


def probes_of(context: AuditContext) -> int:
    """Random vectors for the departure from normality, four products each: as many as a sixth of the search's cost
    affords, at most 8; 0 where that is fewer than 3, too few to estimate an error."""
    probes = min(8, int(search_cost(context) / 6 / probe_cost(context)))
    return probes if probes >= 3 else 0


def _rng(context: AuditContext, use: Use) -> np.random.Generator:
    return use.at().generator(context.seed)


def masks_of(context: AuditContext, moves: Free) -> dict[str, Mask]:
    """Which coordinates of each player may move."""
    return {p: moves.masks[p].cpu().numpy() for p in context.game.players}


def mask_of(context: AuditContext, moves: Free) -> Mask:
    """The same over all players."""
    return np.concatenate(list(masks_of(context, moves).values()))


# -- eigenvalues -------------------------------------------------------------------------------------


def seen_at(context: AuditContext, moves: Free, tick: Tick) -> JacobianSpectrum | None:
    masks, mask = masks_of(context, moves), mask_of(context, moves)
    n = int(mask.sum())
    if not n:
        return None
    draws = draws_of(context)
    exact = JacobianOperator(context.smooth(), *context.wide, draws)
    if n <= context.settings.spectrum_dense:
        return _dense(exact, masks, mask, tick)
    return _sparse(context, exact, masks, mask, tick)


def _dense(
    operator: JacobianOperator,
    masks: dict[str, Mask],
    mask: Mask,
    tick: Tick,
) -> JacobianSpectrum:
    whole = operator.dense().cpu()
    tick(TRANSPOSED * operator.shape[0] * len(operator.draws))
    kept = torch.from_numpy(mask)
    found, right, left = eigenpairs(whole[kept][:, kept])
    J = whole[kept][:, kept].numpy()
    sizes = {player: int(own.sum()) for player, own in masks.items()}
    densities = exact_densities(J, sizes)
    size = float(np.abs(found.values).max())
    index = int(np.argmin(found.values.real))
    row, column = left[:, index].conj(), right[:, index]
    value, residual = complex(found.values[index]), float(found.residuals[index])
    return JacobianSpectrum(found, size, value, residual, row, column, densities, J)


def _sparse(
    context: AuditContext,
    exact: JacobianOperator,
    masks: dict[str, Mask],
    mask: Mask,
    tick: Tick,
) -> JacobianSpectrum:
    settings, count = context.settings, len(exact.draws)
    give_back()  # what finding the free coordinates took
    quick, n = _quick(context, exact), int(mask.sum())
    close, size = _close(quick), _Size.of(n, quick)
    first = krylov.krylov(
        product_with(quick.T, mask=mask),
        n,
        k=size.k,
        rng=_rng(context, Use.EIGENVALUES),
        tolerance=close,
        products=settings.spectrum_products,
        ends=size.ends,
        room=size.room,
        rounding=size.rounding,
        dtype=size.dtype,
        first_alone=size.narrow,
    )
    tick(TRANSPOSED * first.products * count)
    found = krylov.without_vectors(first, size.k)
    densities = lanczos_densities(
        quick, lanczos_steps(context), _rng(context, Use.DENSITIES), masks
    )
    give_back()
    steps = densities["symmetric"].steps
    whole = 0.0 if context.game.zero_sum else TRANSPOSED + FORWARD
    tick(steps * count * (OWN * len(masks) + whole))
    if (probes := probes_of(context)) and not size.narrow:
        back, forth = (product_with(op, mask=mask) for op in (quick.T, quick))
        rng = _rng(context, Use.NORMALITY)
        bounds = normality.henrici_bounds(
            back, forth, n, probes, rng, first.values, first.vectors, settings.confidence
        )
        tick(probe_cost(context) * probes * count)
        found = replace(found, departure_bounds=bounds)
    # The eigenvalues that decide, in float64: the leftmost, and whichever converged at each end.
    assert first.first is not None
    ends = () if size.narrow else tuple(krylov.ENDS)
    decide = sorted({i for end in ends if (i := first.outermost(end)) is not None})
    sharp = krylov.refined(
        product_with(exact.T, mask=mask),
        np.concatenate([[first.first.value], first.values[decide]]),
        [first.first.vector, *first.vectors[:, decide].T],
    )
    tick(TRANSPOSED * sharp.products * count)
    largest = first.size
    del first  # its vector is as long as the pair
    give_back()
    found = _sharpened(found, sharp, decide, close * largest)
    row = krylov.Eigenpair(complex(sharp.values[0]), float(sharp.residuals[0]), sharp.vectors[:, 0])
    column, residual = _column(context, quick, row, masks, largest, tick)
    return JacobianSpectrum(
        found, largest, row.value, residual, row.vector, column, densities, kept=size.in_words(n)
    )


@dataclass(frozen=True)
class _Size:
    """What a search for eigenvalues keeps, by the memory that its basis may take."""

    k: int
    ends: tuple[str, ...]
    room: int | None
    rounding: float
    dtype: type
    narrow: bool

    @classmethod
    def of(cls, n: int, quick: JacobianOperator) -> _Size:
        """K values at every end; where the basis of that search does not fit in memory, the leftmost and the largest
        alone, from a basis in the products' precision."""
        single = quick.dtype != torch.float64
        rounding = 5e-6 if single else 1e-15
        if columns(n) >= 4 * K + 20:
            return cls(K, tuple(krylov.ENDS), None, rounding, np.float64, False)
        kind: type = np.float32 if single else np.float64
        ends = ("smallest real part", "largest modulus")
        # Sums of so many float32 numbers are wrong by more than the products.
        return cls(1, ends, max(12, columns(n, kind)), 6 * rounding, kind, True)

    def in_words(self, n: int) -> str:
        """What was kept of `n` coordinates, where it is less than usual."""
        if not self.narrow or self.room is None:
            return ""
        kind = np.dtype(self.dtype)
        size = self.room * n * kind.itemsize / 1e9
        return (
            f"{n:,} coordinates: the search kept {self.room} vectors in {kind.name} ({size:.2g} GB) and sought the "
            "leftmost and the largest eigenvalue alone"
        )


def _column(
    context: AuditContext,
    quick: JacobianOperator,
    row: krylov.Eigenpair,
    masks: dict[str, Mask],
    size: float,
    tick: Tick,
) -> tuple[Vectors | None, float]:
    """The right eigenvector of the leftmost eigenvalue, where it is found and may refute, and the residual of both
    eigenvectors."""
    mask = np.concatenate(list(masks.values()))
    if context.game.zero_sum:
        # J = K J^T K, K = 1 on the first player and -1 on the second: J^T r = l r gives J K r = l K r.
        column = row.vector.copy()
        column[int(next(iter(masks.values())).sum()) :] *= -1.0
        return column, row.residual
    if not row.value.real < -share_of(context) * size:
        return None, row.residual
    forward = product_with(quick, mask=mask)
    aim = max(0.02 * abs(row.value.real), _close(quick) * size)
    most = context.settings.spectrum_products
    kind = _Size.of(len(row.vector), quick).dtype
    pair = krylov.partner(forward, row.vector, row.value, most, aim, kind)
    tick(FORWARD * pair.products * len(quick.draws))
    if pair.residual <= 0.25 * abs(row.value):
        return pair.vector, max(row.residual, pair.residual)
    return None, row.residual


def _close(quick: JacobianOperator) -> float:
    """Where eigenpairs count as converged: products in float32 are wrong by some 1e-6 of the norm, and nothing
    converges further than that."""
    return 1e-6 if quick.dtype == torch.float64 else 1e-5


def share_of(context: AuditContext) -> float:
    return context.settings.spectrum_tolerance if context.sampled else ROUNDING


def _quick(context: AuditContext, exact: JacobianOperator) -> JacobianOperator:
    """J in the precision of the searches (on a GPU in float64: its float32 convolutions may be rounded to ten
    bits)."""
    dtype = context.dtype
    if dtype not in (torch.float32, torch.float64) or context.device.type != "cpu":
        dtype = torch.float64
    if dtype == torch.float64:
        return exact
    draws = [tree.to(draw, dtype=dtype) for draw in exact.draws]
    return JacobianOperator(context.smooth(), context.players, context.constants, draws)


def _sharpened(
    found: Eigenvalues, sharp: krylov.Ritz, decide: list[int], close: float
) -> Eigenvalues:
    """`found` with the refined values (`sharp`, after its first) in their places, without what was not confirmed in
    float64."""
    values, residuals = found.values.copy(), found.residuals.copy()
    good = np.ones(len(values), bool)
    for i, z, residual in zip(decide, sharp.values[1:], sharp.residuals[1:], strict=True):
        partner = int(np.argmin(np.abs(found.values - found.values[i].conjugate())))
        values[partner], values[i] = z.conjugate(), z
        residuals[[i, partner]], good[[i, partner]] = residual, residual <= close
    order = np.lexsort((values.imag, values.real))
    order = order[good[order]]
    sure = sharp.residuals[1:] <= close
    lost = {} if sure.all() else {"float64": f"{int((~sure).sum())} of {len(sure)} not confirmed"}
    return replace(
        found,
        values=values[order],
        residuals=residuals[order],
        missing={**found.missing, **lost},
        reached=found.reached if sure.all() else (),
    )


# -- confirmation on unseen samples --------------------------------------------------------------------


def confirmed(context: AuditContext, seen: JacobianSpectrum, moves: Free, tick: Tick) -> Interval:
    """Re r^T J_B c / r^T c over batches B of the score split."""
    assert seen.row is not None
    assert seen.column is not None
    mask = mask_of(context, moves)
    overlap = complex(seen.row @ seen.column)
    values, samples = [], 0
    for draw in context.bank("score"):
        operator = JacobianOperator(context.smooth(), *context.wide, [draw])
        backward = product_with(operator.T, mask=mask)
        image: Vectors = backward(np.ascontiguousarray(seen.row.real))
        if np.iscomplexobj(seen.row) and seen.row.imag.any():
            image = image + 1j * backward(np.ascontiguousarray(seen.row.imag))
        values.append((complex(image @ seen.column) / overlap).real)
        size = rows_in(draw)
        tick(3 * TRANSPOSED * size / context.settings.batch)
        samples += size
        # As many samples as eight minibatches hold.
        if samples >= 8 * context.settings.batch and len(values) >= 8:
            break
    return context.interval(torch.tensor(values, dtype=torch.float64))


def witness_of(context: AuditContext, seen: JacobianSpectrum, moves: Free) -> Players:
    """The real part of the eigenvector, a unit direction over all players; a conjugate pair's is turned to where
    the real part is longest."""
    assert seen.column is not None
    turn = np.angle(complex(seen.column @ seen.column)) / 2
    direction = (seen.column * np.exp(-1j * turn)).real
    direction /= np.linalg.norm(direction)
    mask = mask_of(context, moves)
    whole = np.zeros(len(mask))
    whole[mask] = direction * (1 if direction[np.argmax(np.abs(direction))] > 0 else -1)
    players, _ = context.wide
    ordered = {p: players[p] for p in context.game.players}
    return tree.unflatten(torch.from_numpy(whole), ordered)
