"""How far a matrix is from normal: eigenvalues alone then say little of what a few steps do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equilibrist.spectra.arrays import Array, Complex, Product, Vectors

NOTHING = 1e-4  # what a lower end must exceed: eigenpairs found are no more accurate

REFERENCES = (
    "Henrici 1962 (departure from normality)",
    "Kress, de Vries and Wegmann 1974 (its lower bound)",
    "Trefethen and Embree 2005, section 17 (numerical abscissa)",
)


def henrici(matrix: Array, values: Array | Complex) -> float:
    """sqrt(|M|_F^2 - sum |l|^2) / |M|_F for a matrix [n, n] and its eigenvalues [n]: 0 iff M is normal,
    below 1 (Henrici 1962).

    Args:
        matrix: [n, n].
        values: its eigenvalues [n].

    Returns:
        The departure from normality, in [0, 1).
    """
    size = float(np.linalg.norm(matrix))
    lost = max(size**2 - float((np.abs(values) ** 2).sum()), 0.0) ** 0.5
    return lost / size if size > 0 else 0.0


def abscissa(matrix: Array) -> float:
    """The smallest eigenvalue of (M + M^T) / 2 for a matrix [n, n].

    In the sign of own losses: |x| grows at first under x' = -M x from some start iff this is negative,
    at the rate of minus this number, whatever the eigenvalues are. At most the smallest real part of
    an eigenvalue, and equal to it for a normal matrix.

    Args:
        matrix: [n, n].

    Returns:
        The eigenvalue.

    Examples:
        >>> import numpy as np
        >>> from equilibrist.spectra import abscissa
        >>> abscissa(np.array([[1.0, 8.0], [0.0, 1.0]]))  # eigenvalues 1 and 1, and yet |x| grows at first
        -3.0
    """
    return float(np.linalg.eigvalsh((matrix + matrix.T) / 2)[0])


@dataclass(frozen=True)
class HenriciBounds:
    """An estimated interval for the departure from normality of a matrix that is only multiplied with.

    Attributes:
        low, high: both in [0, 1].
        probes, products: random vectors, and matrix-vector products that were spent.
    """

    low: float
    high: float
    probes: int
    products: int


def henrici_bounds(
    product: Product,
    transposed: Product,
    n: int,
    probes: int,
    rng: np.random.Generator,
    values: Complex | None = None,
    vectors: Vectors | None = None,
    confidence: float = 0.95,
) -> HenriciBounds:
    """Where sqrt(1 - sum |l|^2 / |M|_F^2) lies, from four products with each random vector.

    An invariant subspace of eigenpairs found, with orthonormal basis Q, splits M into [[T, X], [0, Y]]: T is
    known without a product, and with f the eigenvalues of T

        departure^2 |M|_F^2 = (|T|^2 - sum |f|^2) + |X|^2 + (|Y|^2 - sum |y|^2).

    Of Y's m eigenvalues y = a + i b only sums are known, which bound sum |y|^2 = sum a^2 + sum b^2:

        from below by max(tr Y^2, 2 (tr Y)^2 / m - tr Y^2), as tr Y^2 = sum a^2 - sum b^2, (tr Y)^2 <= m sum a^2;
        from above by sqrt(|Y|^4 - |Y^T Y - Y Y^T|^2 / 2) (Kress, de Vries and Wegmann 1974).

    |X|^2, |Y|^2, tr Y, tr Y^2 and the commutator's norm are means over Rademacher vectors (Hutchinson 1990).
    Each ratio that makes up an end is widened by its jackknife standard error over the probes times Student's
    two-sided quantile. Both ends are estimates, and lie apart even where those sums are known exactly: the lower
    end falls as m^(-1/2) where what is lost is spread over many directions. Least sure is a matrix that one entry
    dominates (in some orthonormal basis) which no eigenvector found contains.

    Args:
        product, transposed: u -> M u, u -> M^T u on float64 vectors [n].
        probes: at least two.
        values, vectors: eigenvalues [k] found and unit right eigenvectors [n, k] of M, which narrow the interval.
            They count as exact: it is then that of a matrix as near M as their residuals.

    Returns:
        The interval, and what it cost.

    Raises:
        ValueError: fewer than two probes.
    """
    from scipy.special import stdtrit

    if probes < 2:
        raise ValueError(f"probes={probes} of an interval: a jackknife needs at least 2")
    Q, T, found = _invariant(n, values, vectors)
    sums = _probe_sums(product, transposed, Q, probes, rng)
    known = n - len(found), float((T**2).sum()), float((np.abs(found) ** 2).sum())
    left_out = [np.delete(sums, i, axis=0).mean(axis=0) for i in range(probes)]
    ratios = np.array([_ratios(mean, *known) for mean in left_out])
    errors = np.sqrt((probes - 1) * ratios.var(axis=0))
    reach = float(stdtrit(probes - 1, 0.5 + confidence / 2)) * errors
    # All four are widened towards the outside, where they are smaller.
    lost, left, share, kept = np.clip(_ratios(sums.mean(axis=0), *known) - reach, 0.0, 1.0)
    low = min(1.0, float(lost + left * (1 - np.sqrt(1 - share)))) ** 0.5
    high = float(1 - kept) ** 0.5
    low = low if low > NOTHING else 0.0
    # Noise may put them in the wrong order where they nearly meet.
    return HenriciBounds(min(low, high), max(low, high), probes, 4 * probes)


def _probe_sums(
    product: Product, transposed: Product, Q: Array, probes: int, rng: np.random.Generator
) -> Array:
    """[probes, 5]: what each Rademacher vector says of |X|^2, |Y|^2, tr Y^2, tr Y and |Y^T Y - Y Y^T|^2."""

    def outside(u: Array) -> Array:
        beyond: Array = u - Q @ (Q.T @ u)
        return beyond

    sums = np.empty((probes, 5))
    for i in range(probes):
        w = outside(np.asarray(rng.integers(0, 2, len(Q)) * 2.0 - 1.0, np.float64))
        image, back = product(w), outside(transposed(w))
        inner = outside(image)
        across = Q.T @ image
        swapped = outside(transposed(inner)) - outside(product(back))
        sums[i] = (
            across @ across,
            (inner @ inner + back @ back) / 2,
            back @ inner,
            w @ (inner + back) / 2,
            swapped @ swapped,
        )
    return sums


def _ratios(mean: Array, m: int, whole: float, own: float) -> Array:
    """The four ratios that make up both ends, from the means over probes, |T|^2 (`whole`) and sum |f|^2 (`own`)."""
    X2, Y2, square, trace, commutator = mean
    F2 = whole + X2 + Y2
    if not F2 > 0:
        return np.array([0.0, 0.0, 0.0, 1.0])
    rest = max(square, 2 * trace**2 / m - square) if m else 0.0
    share = commutator / (2 * Y2**2) if Y2 > 0 else 0.0
    return np.array([(whole - own + X2) / F2, Y2 / F2, share, (own + rest) / F2])


def _invariant(
    n: int, values: Complex | None, vectors: Vectors | None, apart: float = 1e-2
) -> tuple[Array, Array, Complex]:
    """(Q [n, k], T [k, k], its eigenvalues [k]): M Q = Q T on the span of real eigenvectors and of real and
    imaginary parts of the others, largest modulus first.

    Those that nearly lie in the span of the others are left out: T would magnify their residuals by 1 / `apart`.
    """
    # Columns C of the span, and M C.
    Q: Array = np.zeros((n, 0))
    columns = images = Q
    kept: list[complex] = []
    if values is None or vectors is None:
        values, vectors = np.zeros(0, np.complex128), np.zeros((n, 0), np.complex128)
    for i in np.argsort(-np.abs(values), kind="stable"):
        z, v = complex(values[i]), vectors[:, i]
        if z.imag < 0:
            continue
        # Turned to where the real part is longest: the parts are then orthogonal.
        v = v * np.exp(-0.5j * np.angle(complex(v @ v)))
        parts = np.stack([v.real, v.imag], axis=1) if z.imag else v.real[:, None]
        new = parts - Q @ (Q.T @ parts)
        new, beyond = np.linalg.qr(new - Q @ (Q.T @ new))
        if float(np.linalg.svd(beyond, compute_uv=False)[-1]) < apart:
            continue
        block = np.array([[z.real, z.imag], [-z.imag, z.real]] if z.imag else [[z.real]])
        Q = np.concatenate([Q, new], axis=1)
        columns = np.concatenate([columns, parts], axis=1)
        images = np.concatenate([images, parts @ block], axis=1)
        kept += [z, z.conjugate()] if z.imag else [z]
    if not kept:
        return Q, np.zeros((0, 0)), np.zeros(0, np.complex128)
    # M C = M Q R = Q T R.
    R: Array = Q.T @ columns
    T = np.asarray(np.linalg.solve(R.T, (Q.T @ images).T).T, np.float64)
    return Q, T, np.array(kept)
