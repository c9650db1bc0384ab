"""Krylov searches against dense matrices that were found without a second derivative."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import ArpackNoConvergence, aslinearoperator, eigs
from spectra_networks import GAMES, by_differences, operator

from equilibrist.errors import GameError
from equilibrist.spectra import arrays, extremes
from equilibrist.spectra import krylov as krylov_module
from equilibrist.spectra.eigenvalues import eigenpairs
from equilibrist.spectra.krylov import ENDS, _extend, krylov, partner, refined
from equilibrist.spectra.products import product_with


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
    n, dense = len(J), op.dense().numpy()
    assert np.linalg.norm(dense - J, 2) < 1e-7 * norm
    found = krylov(product_with(op.T), n, k=3, products=max(30, (3 * n) // 4), tolerance=1e-8)
    assert found.converged["largest modulus"] >= 1
    left = J.T @ found.vectors - found.vectors * found.values
    assert np.linalg.norm(left, axis=0).max() < 1e-6 * norm
    assert (found.residuals < 1e-6 * norm).all()
    # The ends of J by differences are blurred: errors of 1e-9 move a defective zero (weights whose scale
    # does not matter) by their cube root. So the ends are held against the dense products, and zeros loosely.
    whole = np.linalg.eigvals(dense)
    for end, count in found.converged.items():
        if count:
            i, far = found.outermost(end), outermost(whole, end)
            assert i is not None
            near = (1e-6 if abs(far) > 1e-3 * norm else 2e-3) * norm
            assert np.abs(whole - found.values[i]).min() < near
            assert outermost(found.values, end) == pytest.approx(far, abs=near)
    # The forward product, which needs another graph or the game's structure, has the same ends.
    forward = krylov(product_with(op), n, k=1, products=n, tolerance=1e-8)
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


def test_a_basis_in_float32() -> None:
    """Half the memory; what it finds is as good as float32 is, and its own residuals say so."""
    M = normal_matrix(400, 0, (3 + 1j, -1 + 0.2j))
    found = krylov(
        lambda u: M @ u,
        400,
        k=1,
        tolerance=1e-5,
        products=300,
        room=14,
        rounding=3e-5,
        dtype=np.float32,
    )
    i = found.outermost("smallest real part")
    assert i is not None
    assert abs(found.values[i] - (-1 + 0.2j)) < 1e-4
    assert found.residuals[i] < 3e-4
    truth = M @ found.vectors[:, i] - found.vectors[:, i] * found.values[i]
    assert np.linalg.norm(truth) < found.residuals[i]
    assert found.vectors.dtype == np.complex128
    # The left vector's partner, from a basis of the same kind.
    row = eigenpairs(torch.from_numpy(M))[2]
    values = np.linalg.eigvals(M)
    left = row[:, int(np.argmin(eigenpairs(torch.from_numpy(M))[0].values.real))].conj()
    value = complex(values[np.argmin(values.real)])
    pair = partner(lambda u: M @ u, left, value.real + 1j * abs(value.imag), 200, 1e-3, np.float32)
    assert np.linalg.norm(M @ pair.vector - pair.value * pair.vector) < 5e-3


def test_complex_combinations_are_made_of_their_parts() -> None:
    rng = np.random.default_rng(0)
    basis, Y = (
        rng.standard_normal((50, 4)),
        rng.standard_normal((4, 3)) + 1j * rng.standard_normal((4, 3)),
    )
    np.testing.assert_allclose(arrays.combined(basis, Y), basis @ Y, atol=1e-12)
    np.testing.assert_allclose(arrays.combined(basis, Y[:, 0]), basis @ Y[:, 0], atol=1e-12)
    np.testing.assert_allclose(arrays.combined(basis, Y.real + 0j), basis @ Y.real, atol=1e-12)


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


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("products", [3, 20, 400])
@pytest.mark.parametrize("rounding", [1e-15, 1e-3])
def test_the_outermost_pair_of_the_first_end_is_kept_whether_it_has_converged_or_not(
    end: str, products: int, rounding: float
) -> None:
    """Its residual is that of its vector, with what products are rounded by on top."""
    M = normal_matrix(100, 4, (3 + 1j, -1 + 0.2j, 0.2 + 2.5j))
    others = [other for other in ENDS if other != end]
    found = krylov(
        lambda u: M @ u, 100, k=1, products=products, ends=(end, *others), rounding=rounding
    )
    pair = found.first
    assert pair is not None
    assert np.linalg.norm(pair.vector) == pytest.approx(1)
    truth = float(np.linalg.norm(M @ pair.vector - pair.value * pair.vector))
    assert pair.residual == pytest.approx(truth + rounding * found.size, rel=1e-6, abs=1e-12)
    assert pair.value.imag >= 0, "of a conjugate pair the upper"
    if products == 400:
        i = found.outermost(end)
        assert pair.value == found.values[i]
        assert pair.residual == pytest.approx(found.residuals[i])
        assert np.abs(pair.vector - found.vectors[:, i]).max() < 1e-12
    else:
        assert outermost(np.array([pair.value]), end) < outermost(np.linalg.eigvals(M), end) + 1e-9
        assert (products == 20) or not any(found.converged.values())


@pytest.mark.parametrize("k", [1, 3, 8])
def test_ritz_values_are_looked_at_as_the_space_grows_by_an_eighth(
    k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First at 4 k, then after an eighth more, at least four; and where the basis or the budget ends."""
    M, seen = np.random.default_rng(0).standard_normal((200, 200)), []
    real = krylov_module._ritz
    monkeypatch.setattr(krylov_module, "_ritz", lambda H, m: (seen.append(m), real(H, m))[1])
    krylov(lambda u: M @ u, 200, k=k, tolerance=0.0, products=101, rounding=0.0)
    expected = [4 * k]
    while expected[-1] + max(4, expected[-1] // 8) < 101:
        expected.append(expected[-1] + max(4, expected[-1] // 8))
    assert seen == [*expected, 101]


@pytest.mark.parametrize("products", [1, 2, 5])
@pytest.mark.parametrize("size", [1e200, np.inf, np.nan])
def test_a_matrix_that_overflows_is_refused(products: int, size: float) -> None:
    """Also where only a length does: entries of 1e200 have no sum of squares."""
    M = np.random.default_rng(0).standard_normal((6, 6))
    with pytest.raises(GameError, match="the Jacobian is not finite"), np.errstate(all="ignore"):
        krylov(lambda u: size * (M @ u), 6, k=1, products=products)


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
    sharp = refined(lambda u: M @ u, found.values[[i]], [found.vectors[:, i]])
    assert sharp.products == 2
    assert sharp.values[0] == pytest.approx(3 + 1j, abs=1e-9)
    truth = M @ sharp.vectors[:, 0] - sharp.values[0] * sharp.vectors[:, 0]
    assert np.linalg.norm(truth) == pytest.approx(sharp.residuals[0], rel=1e-6, abs=1e-12)
    # A vector that is none is told by its residual.
    wrong = refined(lambda u: M @ u, found.values[[i]], [np.ones(200, complex) / 200**0.5])
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


# -- right eigenvectors of left ones ----------------------------------------------------------------------


def clustered(n: int, rng: np.random.Generator) -> np.ndarray:
    """Far from normal, with real eigenvalues and pairs in clusters, of any size."""
    M = np.triu(rng.standard_normal((n, n)), 1) * rng.uniform(0.02, 0.6)
    values = rng.choice([-1.0, 0.3, 1.0, 1.1], n) + 0.05 * rng.standard_normal(n)
    M += np.diag(values)
    for i in range(0, n - 1, 4):
        M[i : i + 2, i : i + 2] = [[values[i], -0.2], [0.15, values[i]]]
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return Q @ M @ Q.T * 10.0 ** rng.uniform(-3, 3)


def krylov_space(M: np.ndarray, start: np.ndarray, m: int) -> np.ndarray:
    """An orthonormal basis [n, m] of start, M start, ..., M^(m - 1) start."""
    basis = start[:, None] / np.linalg.norm(start)
    for _ in range(m - 1):
        image = M @ basis[:, -1]
        grown = np.column_stack([basis, image / np.linalg.norm(image)])
        basis = np.linalg.qr(grown)[0]
    return basis


def test_a_partner_is_what_overlaps_among_the_ritz_values_nearby() -> None:
    """Of those within a quarter of the eigenvalue's modulus, the vector with the largest overlap with the left one;
    where none is that near, the nearest value. By the whole Krylov space, projected."""
    n, told, alone = 14, 0, 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        M = clustered(n, rng)
        values, left = np.linalg.eig(M.T)
        i = int(rng.integers(n))
        m = int(rng.integers(2, 12))
        # As of a search that has not converged: at the exact row no other Ritz vector overlaps with it.
        row = left[:, i] + 0.3 * rng.standard_normal(n)
        value = complex(values[i]) * (1 + 0.1 * rng.standard_normal())
        U = krylov_space(M, row.real + row.imag, m)
        ritz, Y = np.linalg.eig(U.T @ M @ U)
        overlaps, away = np.abs(row @ U @ Y), np.abs(ritz - value)
        near = np.flatnonzero(away <= 0.25 * abs(value))
        expected = near[np.argmax(overlaps[near])] if len(near) else np.argmin(away)
        told += bool(len(near)) and expected != np.argmin(away)
        alone += not len(near)
        found = partner(lambda u, M=M: M @ u, row, value, m, 0.0)
        assert found.products == m
        # Of a conjugate pair of which the value is real, either.
        close = min(abs(found.value - z) for z in (ritz[expected], ritz[expected].conjugate()))
        assert close < 1e-6 * np.linalg.norm(M, 2), seed
        if value.imag:
            assert abs(found.value - ritz[expected]) < 1e-6 * np.linalg.norm(M, 2), seed
        rest = M @ found.vector - found.value * found.vector
        assert np.linalg.norm(found.vector) == pytest.approx(1)
        assert np.linalg.norm(rest) == pytest.approx(
            found.residual, rel=1e-6, abs=1e-12 * np.linalg.norm(M, 2)
        )
    assert told >= 10, "the nearest one would not have done"
    assert alone >= 10
    assert told + alone < 110


def test_a_partner_stops_as_soon_as_its_residual_is_small() -> None:
    """Looked at after every fourth product, and at the end of the budget."""
    M = normal_matrix(60, 2, (3 + 1j,))
    row = np.linalg.eig(M.T)[1][:, np.argmax(np.abs(np.linalg.eigvals(M.T)))]
    blurred = row + 1e-3 * np.random.default_rng(0).standard_normal(60)
    value, residuals = complex(np.linalg.eigvals(M)[np.argmax(np.abs(np.linalg.eigvals(M)))]), {}
    for m in (4, 6, 8, 12):
        residuals[m] = partner(lambda u: M @ u, blurred, value, m, 0.0).residual
    for close, products in (
        (1.01 * residuals[4], 4),
        (0.99 * residuals[4], 8),
        (1.01 * residuals[8], 8),
        (0.99 * residuals[8], 12),
    ):
        assert partner(lambda u: M @ u, blurred, value, 12, close).products == products
    assert partner(lambda u: M @ u, blurred, value, 6, 0.99 * residuals[4]).products == 6


# -- where a space ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e6, 1e-6])
@pytest.mark.parametrize(("beyond", "gone"), [(1.1, False), (0.9, True)])
def test_a_direction_is_gone_where_rounding_has_made_it(
    scale: float, beyond: float, gone: bool
) -> None:
    """At 1e-14 sqrt(n) of the largest entry so far: 1e-13 here. Then the next one is new, and orthogonal."""
    n = 100
    V, H = np.zeros((3, n)), np.zeros((3, 2))
    V[0, 0] = 1.0
    image = np.zeros(n)
    image[:2] = scale * np.array([-2.0, 2e-13 * beyond])
    _extend(lambda u: image, V, H, 0, np.random.default_rng(0))
    assert H[0, 0] == -2 * scale
    assert np.linalg.norm(V[1]) == pytest.approx(1)
    assert V[1, 0] == pytest.approx(0, abs=1e-15)
    if gone:
        assert H[1, 0] == 0
        assert abs(V[1, 1]) < 0.5
    else:
        assert H[1, 0] == pytest.approx(2e-13 * beyond * scale)
        assert V[1, 1] == pytest.approx(1)
