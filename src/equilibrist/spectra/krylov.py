"""Extreme eigenvalues of a matrix that is only multiplied with: one Krylov space for all four ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equilibrist.spectra.arrays import Array, Complex, Mask, Product, Vectors, columns, combined
from equilibrist.spectra.eigenvalues import Eigenvalues

# Own-loss sign: the smallest real part decides stability, imaginary parts rotation, the rest the step.
ENDS: dict[str, Callable[[Complex], Array]] = {
    "smallest real part": lambda z: -z.real,
    "largest real part": lambda z: z.real,
    "largest imaginary part": lambda z: np.abs(z.imag),
    "largest modulus": lambda z: np.abs(z),
}
REFERENCE = "Stewart 2002, A Krylov-Schur algorithm for large eigenproblems"


@dataclass(frozen=True)
class Eigenpair:
    """One approximate eigenpair: M v = value v up to a residual, for the unit vector v [n]; `products` spent on it."""

    value: complex
    residual: float
    vector: Vectors
    products: int = 0


@dataclass(frozen=True)
class Ritz:
    """Converged eigenpairs of a matrix [n, n].

    Attributes:
        values, residuals: [k], as in `Eigenvalues`, by real part.
        vectors: [n, k], unit eigenvectors; none of them (k = 0) where the first alone was asked for.
        size: the largest modulus of a Ritz value.
        converged: by end, how many of the outermost Ritz values converged, counted from the outside.
        products: matrix-vector products that were spent.
        first: the outermost Ritz pair at the first of the ends, converged or not (of a conjugate pair the upper).
    """

    values: Complex
    residuals: Array
    vectors: Vectors
    size: float
    converged: dict[str, int]
    products: int
    first: Eigenpair | None = None

    def outermost(self, end: str) -> int | None:
        """The index of the outermost eigenvalue at an end (of a conjugate pair the upper one), or None where
        the outermost Ritz value did not converge."""
        if not self.converged.get(end):
            return None
        return edge(self.values, end, self.size)


def edge(values: Complex, end: str, size: float) -> int:
    """The index of the outermost value at an end, of a conjugate pair the upper one; `size` the largest modulus."""
    score = ENDS[end](values)
    near = np.flatnonzero(score >= score.max() - 1e-12 * size)
    return int(near[np.argmax(values[near].imag)])


def krylov(  # a search has this many choices of its own
    product: Product,
    n: int,
    *,
    k: int = 8,
    tolerance: float = 1e-6,
    products: int = 1000,
    ends: Sequence[str] = tuple(ENDS),
    rng: np.random.Generator | None = None,
    start: Array | None = None,
    room: int | None = None,
    rounding: float = 1e-15,
    dtype: type = np.float64,
    first_alone: bool = False,
) -> Ritz:
    """The k outermost eigenvalues at each end of the spectrum, by Krylov-Schur.

    One orthonormal basis V (orthogonalised twice against all of itself), M V = V B + v b^T, serves all ends: a
    Ritz pair (l, V y) has residual |b^T y| without another product. A basis that is full is restarted with the
    Schur vectors of the outermost values at every end.

    Args:
        product: u -> M u on float64 vectors [n].
        tolerance: a pair has converged if its residual is at most this times the largest modulus.
        products: the budget; what has not converged then is left out, and counted in `converged`.
        rng: of the start vector (None: seed 0), unless there is a `start` [n].
        room: columns of the basis (None: what 1.5 GB hold).
        rounding: relative error of a product; residuals are reported with this times the largest modulus on top.
        dtype: of the basis: float32 halves it, for products of that precision. `first_alone`: no other eigenvector.
    """
    rng = rng or np.random.default_rng(0)
    m = max(1, min(n, products, room or max(4 * k + 20, columns(n))))
    V: Array = np.empty((m + 1, n), dtype)
    H = np.zeros((m + 1, m))
    begin = rng.standard_normal(n) if start is None else start
    V[0] = begin / np.linalg.norm(begin)
    kept, spent, look = 0, 0, min(m, 4 * k)
    while True:
        for j in range(kept, m):
            _extend(product, V, H, j, rng)
            spent += 1
            full = j + 1 == m or spent == products
            if j + 1 < look and not full:
                continue
            look = j + 1 + max(4, (j + 1) // 8)
            values, Y, residuals = _ritz(H, j + 1)
            size = float(np.abs(values).max())
            good = residuals <= tolerance * size
            converged = {end: _leading(ENDS[end](values), good, k) for end in ends}
            if full or all(count >= min(k, n) for count in converged.values()):
                break
        used = j + 1
        if spent >= products or used == n or min(converged.values()) >= min(k, n):
            break
        kept = _restart(V, H, used, values[_outermost(values, ends, k + k // 2 + 2, m // 2)])
        look = kept + max(10, (m - kept) // 2)
    outer = _outermost(values, ends, k, len(values))
    wanted = [int(i) for i in np.lexsort((values.imag, values.real)) if good[i] and i in outer]
    found = values, residuals + rounding * size, V[:used].T, Y
    first = _first(*found, edge(values, ends[0], size))
    return Ritz(*_chosen(*found, wanted, not first_alone), size, converged, spent, first)


def _first(values: Complex, residuals: Array, basis: Array, Y: Complex, which: int) -> Eigenpair:
    """One of the Ritz pairs."""
    (value,), (residual,), vector = _chosen(values, residuals, basis, Y, [which])
    return Eigenpair(complex(value), float(residual), vector[:, 0])


def _chosen(
    values: Complex,
    residuals: Array,
    basis: Array,
    Y: Complex,
    which: list[int],
    formed: bool = True,
) -> tuple[Complex, Array, Vectors]:
    """Values [k], residuals [k] and, where they are to be formed, vectors [n, k] of some of the Ritz pairs, Y their
    coordinates in the basis."""
    vectors = combined(basis, Y[:, which if formed else []])
    return values[which].astype(np.complex128), residuals[which], vectors


def partner(
    product: Product,
    row: Vectors,
    value: complex,
    products: int,
    close: float,
    dtype: type = np.float64,
) -> Eigenpair:
    """The right eigenvector that belongs to a left one, row^T M = value row^T, by Arnoldi's method started at it.

    Where an eigenvalue lies in a cluster, the Ritz value nearest to it may belong to a neighbour; the vector that is
    sought is the one that overlaps with `row`. Of the Ritz vectors with values within a quarter of |value|, that
    with the largest overlap |row^T v| is taken.

    Args:
        products: the budget, at least one.
        close: the residual at which to stop.
        dtype: of the basis, which ends the search where it is full.
    """
    n = len(row)
    # A turning pair needs both of its directions in the space.
    first = row.real + row.imag
    m = min(products, n, max(12, columns(n, dtype)))
    V: Array = np.empty((m + 1, n), dtype)
    H = np.zeros((m + 1, m))
    V[0] = first / np.linalg.norm(first)
    rng = np.random.default_rng(0)
    for j in range(m):
        _extend(product, V, H, j, rng)
        if (j + 1) % 4 and j + 1 < m:
            continue
        values, Y, residuals = _ritz(H, j + 1)
        seen = V[: j + 1] @ row.real.astype(dtype) + 1j * (V[: j + 1] @ row.imag.astype(dtype))
        overlaps = np.abs(seen @ Y)
        near = np.abs(values - value) <= 0.25 * abs(value)
        overlaps = np.where(near, overlaps, -1.0 - np.abs(values - value))
        best = int(np.argmax(overlaps))
        if residuals[best] <= close:
            break
    vector = combined(V[: j + 1].T, Y[:, best])
    return Eigenpair(complex(values[best]), float(residuals[best]), vector, j + 1)


def extremes(
    operator: Any, k: int = 8, tolerance: float = 1e-6, products: int = 1000
) -> Eigenvalues:
    """The k outermost eigenvalues at each end of a scipy LinearOperator, as `krylov` finds them.

    What did not converge within the budget is left out, and `missing` says so. The start vector is fixed, so
    the answer is.

    Args:
        operator: of scipy's `LinearOperator` kind, square.
        k: eigenvalues at each end.
        tolerance: of a residual, relative to the largest modulus.
        products: the budget.

    Returns:
        Those that converged.
    """
    n = operator.shape[0]
    k = max(1, min(k, n))
    found = krylov(operator.matvec, n, k=k, tolerance=tolerance, products=products)
    return without_vectors(found, k)


def without_vectors(found: Ritz, k: int) -> Eigenvalues:
    """What was found, without its vectors."""
    return Eigenvalues(
        found.values,
        found.residuals,
        False,
        found.size,
        None,
        {
            end: f"{count} of {k} converged within {found.products} products"
            for end, count in found.converged.items()
            if count < k
        },
        reached=tuple(end for end, count in found.converged.items() if count),
        products=found.products,
    )


def refined(product: Product, values: Complex, vectors: Sequence[Vectors]) -> Ritz:
    """Rayleigh-Ritz in the span of approximate eigenvectors, k times [n]: of each, the nearest Ritz value of
    `product`, with its residual.

    For pairs found with products of lower precision. One product for a real eigenvector, two for a pair.
    """
    from scipy.linalg import svd

    parts = [v.real for v in vectors] + [v.imag for v in vectors if np.iscomplexobj(v)]
    # Columns one after the other in memory, and in place: a large pair has no room for copies.
    span = np.empty((len(parts[0]), len(parts)), order="F")
    for j, part in enumerate(parts):
        span[:, j] = part
    U, sigma, _ = svd(span, full_matrices=False, overwrite_a=True)
    del span
    enough = sigma > 1e-6 * sigma[0]
    X = U if enough.all() else U[:, enough]
    del U
    W = np.stack([product(column) for column in X.T], axis=1)
    own, Y = np.linalg.eig(X.T @ W)
    nearest = [int(np.argmin(np.abs(own - z))) for z in values]
    U_, l = Y[:, nearest], own[nearest]  # noqa: E741
    residuals = np.linalg.norm(combined(W, U_) - combined(X, U_ * l), axis=0)
    size = float(np.abs(own).max())
    return Ritz(l.astype(np.complex128), residuals, combined(X, U_), size, {}, X.shape[1])


def _extend(product: Product, V: Array, H: Array, j: int, rng: np.random.Generator) -> None:
    """Column j of B, and basis vector j + 1."""
    w = np.array(product(V[j]), V.dtype)
    for _ in range(2):
        h = V[: j + 1] @ w
        w -= h @ V[: j + 1]  # in place: temporaries of a large pair's size are slow
        H[: j + 1, j] += h
    length = float(np.linalg.norm(w))
    n = len(w)
    if length > 1e-14 * n**0.5 * float(np.abs(H[: j + 1, : j + 1]).max()):
        H[j + 1, j] = length
        V[j + 1] = w / length
        return
    # The space is invariant: its eigenvalues are exact, and another direction begins the next one.
    H[j + 1, j] = 0.0
    w = rng.standard_normal(n).astype(V.dtype)
    if j + 1 < n:
        for _ in range(3):
            w = w - (V[: j + 1] @ w) @ V[: j + 1]
    V[j + 1] = w / np.linalg.norm(w)


def _ritz(H: Array, m: int) -> tuple[Complex, Complex, Array]:
    """Ritz values [m], unit eigenvectors [m, m] of B, residuals [m]."""
    if not np.isfinite(H[: m + 1, :m]).all():
        from equilibrist.errors import GameError

        raise GameError(
            "the Jacobian is not finite at this pair: look at the run's losses and gradients"
        )
    values, Y = np.linalg.eig(H[:m, :m])
    Y = Y / np.linalg.norm(Y, axis=0)
    return values.astype(np.complex128), Y, np.abs(H[m, :m] @ Y)


def _leading(score: Array, good: Mask, k: int) -> int:
    """How many of the k outermost are good, up to the first that is not."""
    order = np.argsort(-score, kind="stable")[:k]
    return int(np.cumprod(good[order]).sum())


def _outermost(values: Complex, ends: Sequence[str], k: int, most: int) -> list[int]:
    """Indices of the k outermost of every end in turn, conjugates together, at most about `most`."""
    orders = [np.argsort(-ENDS[end](values), kind="stable")[:k] for end in ends]
    chosen: list[int] = []
    for rank in range(min(k, len(values))):
        for order in orders:
            z = values[order[rank]]
            both = np.flatnonzero(np.abs(values - z.conjugate()) <= 1e-12 * abs(z))
            for i in (int(order[rank]), *map(int, both)):
                if i not in chosen and len(chosen) < most:
                    chosen.append(i)
    return chosen


def _restart(V: Array, H: Array, m: int, wanted: Complex) -> int:
    """Shrink M V = V B + v b^T to the invariant subspace of B that belongs to the wanted Ritz values; its
    dimension."""
    from scipy.linalg import schur

    B, b = H[:m, :m].copy(), H[m, :m].copy()
    near = 1e-9 * float(np.abs(wanted).max())

    def keep(x: float, y: float) -> bool:
        return bool((np.abs(complex(x, y) - wanted) <= near).any())

    T, Q, p = schur(B, output="real", sort=keep)
    V[:p] = Q[:, :p].T.astype(V.dtype) @ V[:m]
    V[p] = V[m]
    H[:] = 0.0
    H[:p, :p] = T[:p, :p]
    H[p, :p] = b @ Q[:, :p]
    return int(p)
