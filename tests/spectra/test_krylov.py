"""Krylov searches against dense matrices that were found without a second derivative."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import ArpackNoConvergence, aslinearoperator, eigs
from spectra_networks import GAMES, by_differences, operator

from equilibrist.spectra import extremes
from equilibrist.spectra.eigenvalues import eigenpairs
from equilibrist.spectra.krylov import ENDS, krylov, refined
from equilibrist.spectra.spectrum import products_of


def outermost(values: np.ndarray, end: str) -> float:
    return float(ENDS[end](values).max())


def test_there_are_twenty_networks() -> None:
    assert len(GAMES) >= 20
    assert sum("batch norm" in name or "batch and" in name for name in GAMES) >= 3
    assert sum("spectral norm" in name for name in GAMES) >= 3


@pytest.mark.parametrize("name", GAMES)
def test_networks(name: str) -> None:
    """Residuals at most 1e-6 of the norm, on J by central differences; the ends are the dense ones'."""
    J = by_differences(name)
    norm = np.linalg.norm(J, 2)
    op = operator(name)
    n = len(J)
    assert np.linalg.norm(op.dense().numpy() - J, 2) < 1e-7 * norm
    found = krylov(products_of(op.T), n, k=3, products=max(30, (3 * n) // 4), tolerance=1e-8)
    assert found.converged["largest modulus"] >= 1
    left = J.T @ found.vectors - found.vectors * found.values
    assert np.linalg.norm(left, axis=0).max() < 1e-6 * norm
    assert (found.residuals < 1e-6 * norm).all()
    # The ends of J by differences are blurred: errors of 1e-9 move a defective zero (weights whose scale
    # does not matter) by their cube root. So the ends are held against the dense products, and zeros loosely.
    whole = np.linalg.eigvals(op.dense().numpy())
    for end, count in found.converged.items():
        if count:
            i, far = found.outermost(end), outermost(whole, end)
            assert i is not None
            near = (1e-6 if abs(far) > 1e-3 * norm else 2e-3) * norm
            assert np.abs(whole - found.values[i]).min() < near
            assert outermost(found.values, end) == pytest.approx(far, abs=near)
    # The forward product, which needs another graph or the game's structure, has the same ends.
    forward = krylov(products_of(op), n, k=1, products=n, tolerance=1e-8)
    i = forward.outermost("largest modulus")
    assert i is not None
    right = J @ forward.vectors[:, i] - forward.values[i] * forward.vectors[:, i]
    assert np.linalg.norm(right) < 1e-6 * norm


def normal_matrix(n: int, seed: int, outliers: tuple[complex, ...]) -> np.ndarray:
    """A real normal matrix: conjugate pairs in 2 x 2 blocks, a bulk within 0.5, turned."""
    rng = np.random.default_rng(seed)
    blocks = [np.array([[z.real, z.imag], [-z.imag, z.real]]) for z in outliers]
    bulk = np.diag(rng.uniform(-0.1, 0.5, n - 2 * len(blocks)))
    M = np.zeros((n, n))
    for i, block in enumerate(blocks):
        M[2 * i : 2 * i + 2, 2 * i : 2 * i + 2] = block
    M[2 * len(blocks) :, 2 * len(blocks) :] = bulk
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return Q @ M @ Q.T


def test_restarts_find_what_a_small_basis_cannot_hold() -> None:
    outliers = (3 + 1j, -1 + 0.2j, 0.2 + 2.5j, 2.5 + 0.1j)
    M = normal_matrix(400, 0, outliers)
    found = krylov(lambda u: M @ u, 400, k=2, tolerance=1e-10, products=600, room=14)
    assert found.products > 14
    for end, expected in (
        ("smallest real part", -1 + 0.2j),
        ("largest real part", 3 + 1j),
        ("largest imaginary part", 0.2 + 2.5j),
        ("largest modulus", 3 + 1j),
    ):
        i = found.outermost(end)
        assert i is not None, end
        assert found.values[i] == pytest.approx(expected, abs=1e-8)
    truth = M @ found.vectors - found.vectors * found.values
    assert np.linalg.norm(truth, axis=0).max() < 1e-8


@pytest.mark.parametrize(("end", "which"), list(zip(ENDS, ("SR", "LR", "LI", "LM"), strict=True)))
def test_against_arpack(end: str, which: str) -> None:
    rng = np.random.default_rng(3)
    M = rng.standard_normal((150, 150)) + 20 * np.diag(np.linspace(-1, 1, 150) ** 3)
    found = krylov(lambda u: M @ u, 150, k=3, tolerance=1e-9, products=4000, room=60)
    theirs = eigs(aslinearoperator(M), 3, which=which, v0=rng.standard_normal(150), tol=1e-10)[0]
    assert found.converged[end] >= 3
    assert outermost(found.values, end) == pytest.approx(outermost(theirs, end), rel=1e-7)


def test_an_unconverged_eigenvalue_is_never_reported() -> None:
    M = np.random.default_rng(0).standard_normal((300, 300))
    dense = np.linalg.eigvals(M)
    with pytest.raises(ArpackNoConvergence):
        eigs(aslinearoperator(M), 4, which="SR", maxiter=1, ncv=12)
    for budget in (1, 2, 5, 20, 60, 120):
        found = extremes(aslinearoperator(M), 8, 1e-9, products=budget)
        assert found.products == budget
        assert set(found.missing) == set(ENDS)
        assert f"within {budget} products" in found.missing["smallest real part"]
        for z in found.values:
            assert np.abs(dense - z).min() < 1e-6
    none = krylov(lambda u: M @ u, 300, k=2, products=10)
    assert all(none.outermost(end) is None for end in ENDS)
    assert len(none.values) == 0


@pytest.mark.parametrize("products", [3, 13, 14, 15, 20, 33])
def test_the_budget_is_kept_within_a_basis_that_was_restarted(products: int) -> None:
    M, calls = normal_matrix(400, 1, ()), []

    def product(u: np.ndarray) -> np.ndarray:
        calls.append(1)
        return M @ u

    found = krylov(product, 400, k=2, tolerance=1e-12, products=products, room=14)
    assert len(calls) == found.products == products


def test_a_space_that_ends_early() -> None:
    """A start vector that sees three directions: its values are exact, and the search goes on elsewhere."""
    M = np.diag([5.0, -3.0, 2.0, *([1.0] * 37)])
    start = np.zeros(40)
    start[:3] = 1.0
    found = krylov(lambda u: M @ u, 40, k=1, products=40, start=start)
    i, j = found.outermost("largest real part"), found.outermost("smallest real part")
    assert found.values[i] == pytest.approx(5.0)
    assert found.values[j] == pytest.approx(-3.0)
    nothing = krylov(lambda u: 0 * u, 5, k=1, products=5)
    assert np.abs(nothing.values).max() == 0
    one = krylov(lambda u: 2 * u, 1, k=1, products=5)
    assert one.values[0] == 2


def test_refinement_in_higher_precision() -> None:
    M = normal_matrix(200, 1, (3 + 1j, -1 + 0.2j))
    low = M.astype(np.float32)
    found = krylov(
        lambda u: (low @ u.astype(np.float32)).astype(np.float64),
        200,
        k=1,
        products=80,
        tolerance=1e-5,
        rounding=1e-6,
    )
    i = found.outermost("largest modulus")
    assert i is not None
    assert found.residuals[i] >= 1e-6 * found.size
    sharp = refined(lambda u: M @ u, found.values[[i]], found.vectors[:, [i]])
    assert sharp.products == 2
    assert sharp.values[0] == pytest.approx(3 + 1j, abs=1e-9)
    truth = M @ sharp.vectors[:, 0] - sharp.values[0] * sharp.vectors[:, 0]
    assert np.linalg.norm(truth) == pytest.approx(sharp.residuals[0], rel=1e-6, abs=1e-12)
    # A vector that is none is told by its residual.
    wrong = refined(lambda u: M @ u, found.values[[i]], np.ones((200, 1), complex) / 200**0.5)
    assert wrong.residuals[0] > 1e-2


def test_left_right_and_condition() -> None:
    M = torch.tensor([[1.0, 100.0], [0.0, 2.0]], dtype=torch.float64)
    found, right, left = eigenpairs(M)
    m = M.numpy()
    assert np.abs(m @ right - right * found.values).max() < 1e-12
    assert np.abs(left.conj().T @ m - found.values[:, None] * left.conj().T).max() < 1e-12
    # By hand: l = 1 has u = (1, 0) and y = (1, -100) / |.|.
    assert found.conditions is not None
    assert found.conditions[0] == pytest.approx(np.hypot(1, 100))
    straight = eigenpairs(torch.diag(torch.tensor([1.0, 3.0])))[0]
    assert straight.conditions == pytest.approx([1.0, 1.0])
