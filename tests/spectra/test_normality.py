"""Intervals for the departure from normality, by products only, against dense eigenvalues."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scipy import linalg

from equilibrist import JacobianOperator, Quadratic, VectorField
from equilibrist.play.spectrum_page import _departure
from equilibrist.report._claims import evidence_rows
from equilibrist.report._record import CertificateRecord, Verdict
from equilibrist.spectra import HenriciBounds, Spectrum, henrici, henrici_bounds, spectrum_at
from equilibrist.spectra.krylov import krylov

N, H = 60, 30


def symmetric(M: np.ndarray) -> np.ndarray:
    return (M + M.T) / 2


def turned(M: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    Q = np.linalg.qr(rng.standard_normal(M.shape))[0]
    return Q @ M @ Q.T


def gaussian(rng: np.random.Generator, n: int = H) -> np.ndarray:
    return rng.standard_normal((n, n)) / n**0.5


def low_rank(rng: np.random.Generator, sizes: list[float]) -> np.ndarray:
    left, right = (np.linalg.qr(rng.standard_normal((H, len(sizes))))[0] for _ in range(2))
    return (left * sizes) @ right.T


def rotations(rng: np.random.Generator) -> np.ndarray:
    a, b = np.diag(rng.uniform(0.5, 1.5, H)), np.diag(rng.standard_normal(H))
    return turned(np.block([[a, b], [-b, a]]), rng)


def triangular(rng: np.random.Generator) -> np.ndarray:
    upper = np.triu(rng.standard_normal((N, N)), 1) * 2 / N**0.5
    return turned(np.diag(rng.standard_normal(N)) + upper, rng)


def zero_sum(rng: np.random.Generator) -> np.ndarray:
    """A saddle's blocks: [[A, B], [-B^T, C]], C positive."""
    B, W = gaussian(rng), gaussian(rng)
    return np.block([[0.3 * symmetric(gaussian(rng)), B], [-B.T, W @ W.T]])


def dominated(rng: np.random.Generator) -> np.ndarray:
    """The same with a few directions that outweigh all others, as networks have."""
    B = low_rank(rng, [6.0, 3.0, 1.5]) + 0.1 * gaussian(rng)
    D = low_rank(rng, [6.0, 3.0, 1.5])
    return np.block([[0.05 * symmetric(gaussian(rng)), B], [-B.T, 0.3 * D @ D.T]])


def own_losses(rng: np.random.Generator) -> np.ndarray:
    """Off-diagonal blocks of their own: no game of one value."""
    W, B = gaussian(rng), gaussian(rng)
    return np.block([[W @ W.T, B], [-W, B @ B.T]])


def sheared(rng: np.random.Generator) -> np.ndarray:
    return np.block([[np.eye(H), 3 * gaussian(rng)], [0.1 * gaussian(rng), 2 * np.eye(H)]])


KINDS: dict[str, Callable[[np.random.Generator], np.ndarray]] = {
    "symmetric": lambda rng: symmetric(gaussian(rng, N)),
    "antisymmetric": lambda rng: (lambda M: M - M.T)(gaussian(rng, N)),
    "rotations": rotations,
    "gaussian": lambda rng: gaussian(rng, N),
    "triangular": triangular,
    "zero-sum": zero_sum,
    "dominated": dominated,
    "own losses": own_losses,
    "sheared": sheared,
}


def bounds(
    J: np.ndarray, seed: int, found: Any = (None, None), probes: int = 4, **options: Any
) -> HenriciBounds:
    rng = np.random.default_rng(seed)
    return henrici_bounds(
        lambda u: J @ u, lambda u: J.T @ u, len(J), probes, rng, *found, **options
    )


def outer(J: np.ndarray, k: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues, conjugates together."""
    values, vectors = linalg.eig(J)
    order = np.argsort(-np.abs(values), kind="stable")
    split = abs(values[order[k - 1]] - values[order[k]].conjugate()) < 1e-9
    keep = order[: k + int(split)]
    return values[keep], vectors[:, keep]


# -- the interval --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("probes", [3, 4])
def test_the_departure_lies_inside(kind: str, probes: int) -> None:
    """Of 150 matrices, without eigenpairs and with them."""
    inside = {False: 0, True: 0}
    misses = []
    for seed in range(150):
        J = KINDS[kind](np.random.default_rng(seed))
        true = henrici(J, np.linalg.eigvals(J))
        for some in inside:
            found = bounds(J, 1000 + seed, outer(J) if some else (None, None), probes)
            assert 0 <= found.low <= found.high <= 1
            miss = max(found.low - true, true - found.high)
            inside[some] += miss <= 1e-6
            misses.append(miss)
    assert inside[False] >= 142
    # Narrow ones, of heavy tails, miss by little.
    assert inside[True] >= (128 if kind == "dominated" else 142)
    assert max(misses) < 0.05


def test_the_inequalities_hold_exactly() -> None:
    """Which `henrici_bounds` estimates both sides of."""
    for seed in range(40):
        rng = np.random.default_rng(seed)
        for build in KINDS.values():
            J = build(rng)
            S, F2 = float((np.abs(np.linalg.eigvals(J)) ** 2).sum()), float((J**2).sum())
            C, square, trace = J.T @ J - J @ J.T, np.trace(J @ J), np.trace(J)
            assert (F2**2 - (C**2).sum() / 2) ** 0.5 + 1e-9 * F2 >= S
            assert max(square, 2 * trace**2 / N - square) - 1e-9 * F2 <= S


def test_many_probes_leave_what_the_inequalities_do() -> None:
    J = zero_sum(np.random.default_rng(0))
    F2, C = (J**2).sum(), J.T @ J - J @ J.T
    square, trace = np.trace(J @ J), np.trace(J)
    found = bounds(J, 1, probes=4000)
    assert found.products == 16000
    low = (1 - (1 - (C**2).sum() / (2 * F2**2)) ** 0.5) ** 0.5
    high = (1 - max(square, 2 * trace**2 / N - square) / F2) ** 0.5
    assert found.low == pytest.approx(low, rel=0.05)
    assert found.high == pytest.approx(high, rel=0.05)
    assert found.low < low
    assert found.high > high


def test_eigenpairs_narrow_it_and_all_of_them_close_it() -> None:
    J = own_losses(np.random.default_rng(3))
    true = henrici(J, np.linalg.eigvals(J))
    none, few, many = bounds(J, 0), bounds(J, 0, outer(J, 10)), bounds(J, 0, outer(J, 30))
    assert none.high - none.low > few.high - few.low > many.high - many.low
    whole = bounds(J, 0, linalg.eig(J))
    assert whole.low == pytest.approx(true, abs=1e-6)
    assert whole.high == pytest.approx(true, abs=1e-6)


def test_it_can_tell_normal_from_not() -> None:
    rng = np.random.default_rng(0)
    for normal in (KINDS["symmetric"](rng), KINDS["antisymmetric"](rng)):
        for found in (bounds(normal, 1), bounds(normal, 1, outer(normal))):
            assert found.low == 0
            assert found.high < 1e-6
    # With real and imaginary parts, sums of squares alone do not tell; the lower end does.
    spun = rotations(rng)
    assert bounds(spun, 1).low == 0
    assert bounds(spun, 1).high > 0.1
    assert bounds(spun, 1, linalg.eig(spun)).high < 1e-6
    # [[1, k], [0, 2]]: k / sqrt(k^2 + 5), though the eigenvalues are as those of a normal matrix.
    bent = np.array([[1.0, 3.0], [0.0, 2.0]])
    found = bounds(bent, 1, linalg.eig(bent))
    assert (found.low, found.high) == pytest.approx((3 / 14**0.5, 3 / 14**0.5))
    # One entry outweighs the rest, and eigenvalues do not show it.
    sheared_once = 0.02 * symmetric(gaussian(rng, N)) + np.eye(N, k=N - 1)
    true = henrici(sheared_once, np.linalg.eigvals(sheared_once))
    assert true > 0.9
    for seed in range(20):
        assert 0.8 < bounds(sheared_once, seed).low < true
    # Turned, random vectors see it worse, and say so.
    lows = [bounds(turned(sheared_once, rng), k, probes=8).low for k in range(40)]
    assert 0.2 < np.median(lows) < true


def test_both_ends_by_hand_where_one_probe_sees_nothing() -> None:
    """M = p p^T + p q^T for orthonormal p, q in R^4. One probe is at sqrt(2) (p + q), where |Y|^2 = 6, tr Y = 4,
    tr Y^2 = 4 and |Y^T Y - Y Y^T|^2 = 8; the other is orthogonal to both. Student's quantile is 1 at a confidence of
    one half, and of one probe alone the jackknife takes nothing to be lost."""
    p, q = np.array([1.0, 1.0, 0.0, 0.0]) / 2**0.5, np.array([0.0, 0.0, 1.0, 1.0]) / 2**0.5
    M = np.outer(p, p + q)

    class Given:
        signs = iter([np.ones(4), np.array([1.0, -1.0, 1.0, -1.0])])

        def integers(self, low: int, high: int, n: int) -> np.ndarray:
            return (next(self.signs) + 1) / 2

    rng: Any = Given()
    found = henrici_bounds(lambda u: M @ u, lambda u: M.T @ u, 4, 2, rng, confidence=0.5)
    # |C|^2 / (2 |Y|^4) is 2/9 of both, 1/9 and 0 of one: 2/9 - 1/18. The shares kept: 2/3; 2/3 and 1: 1/2.
    # The share that is left, 1; 1 and 0: 1/2.
    assert found.low == pytest.approx((0.5 * (1 - (1 - 1 / 6) ** 0.5)) ** 0.5)
    assert found.high == pytest.approx(0.5**0.5)


def test_a_jordan_block_is_not_called_normal() -> None:
    """Its departure is 1; eigenvalues that a search finds are those of a matrix within 1e-6, on a circle."""
    J = turned(np.eye(N, k=1), np.random.default_rng(0))
    assert bounds(J, 1).high > 0.99
    pairs = krylov(lambda u: J @ u, N, k=4, products=N)
    near = bounds(J, 1, (pairs.values, pairs.vectors))
    assert near.high > 0.9


def test_scale_and_orthogonal_changes_do_not_matter() -> None:
    rng = np.random.default_rng(5)
    J = own_losses(rng)
    assert bounds(7.0 * J, 2).low == pytest.approx(bounds(J, 2).low)
    assert bounds(-J, 2) == bounds(J, 2)
    signs = np.where(rng.random(N) < 0.5, -1.0, 1.0)
    other = bounds(J, 2, confidence=0.99)
    assert other.low < bounds(J, 2).low
    assert other.high > bounds(J, 2).high
    assert 0 < bounds(signs[:, None] * J * signs, 2).low < 1


def test_degenerate_matrices() -> None:
    nothing = bounds(np.zeros((4, 4)), 0)
    assert (nothing.low, nothing.high) == (0, 0)
    one = bounds(np.array([[3.0]]), 0)
    assert (one.low, one.high) == (0, 0)
    with pytest.raises(ValueError, match="at least 2"):
        bounds(np.eye(3), 0, probes=1)


# -- of a game's Jacobian ------------------------------------------------------------------------------


def game(turn: float) -> tuple[Quadratic, JacobianOperator]:
    rng = torch.Generator().manual_seed(0)
    A, B, C = (torch.randn(H, H, generator=rng, dtype=torch.float64) / H**0.5 for _ in range(3))
    made = Quadratic(A @ A.mT, turn * B, C @ C.mT)
    zero = {p: {"value": torch.zeros(H, dtype=torch.float64)} for p in "xy"}
    return made, JacobianOperator(VectorField(made), zero, {}, [{}])


def both(turn: float) -> tuple[Spectrum, Spectrum]:
    _, operator = game(turn)
    rates = {"x": 0.1, "y": 0.3}
    return spectrum_at(operator, rates, gamma=0.2), spectrum_at(
        operator, rates, gamma=0.2, dense=10, k=4
    )


@pytest.mark.parametrize("turn", [0.0, 0.3, 1.0])
def test_beyond_dense_the_interval_holds_the_dense_number(turn: float) -> None:
    whole, part = both(turn)
    for name in ("jacobian", "scaled", "consensus"):
        dense, sparse = getattr(whole, name), getattr(part, name)
        assert dense.departure_bounds is None
        assert sparse.departure is None
        found = sparse.departure_bounds
        assert found.low - 1e-6 <= dense.departure <= found.high + 1e-6
        assert found.high - found.low < 0.8
    described = part.describe()["jacobian"]
    assert part.jacobian.departure_bounds is not None
    assert described["departure_interval"] == [
        part.jacobian.departure_bounds.low,
        part.jacobian.departure_bounds.high,
    ]
    assert described["departure_from_normality"] is None
    assert whole.describe()["jacobian"]["departure_interval"] is None
    again = both(turn)[1]
    assert again.jacobian.departure_bounds == part.jacobian.departure_bounds


def test_the_page_says_that_it_is_estimated() -> None:
    whole, part = both(1.0)
    assert "estimated" not in _departure(whole.jacobian)
    said = _departure(part.jacobian)
    assert said.endswith(", estimated")
    found = part.jacobian.departure_bounds
    assert found is not None
    low, high = said.removesuffix(", estimated").split(" to ")
    assert float(low) == pytest.approx(found.low, abs=0.01)
    assert float(high) == pytest.approx(found.high, abs=0.01)


def test_the_report_says_it_in_words() -> None:
    def rows(**evidence: Any) -> dict[str, str]:
        found = CertificateRecord("stable", Verdict.NOT_REFUTED, "", evidence)
        return dict(evidence_rows(found))

    assert rows(departure=None, departure_interval=[0.1234, 0.5]) == {
        "Departure of J from normality, estimated": "0.12 to 0.5"
    }
    assert rows(departure=0.25, departure_interval=None) == {
        "Departure of J from normality": "0.25"
    }
