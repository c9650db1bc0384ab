"""Lanczos densities, normality and consensus against dense matrices and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from spectra_networks import operator

from equilibrist import tree
from equilibrist.core.jacobian import HessianOperator
from equilibrist.spectra import (
    SpectralDensity,
    abscissa,
    arrays,
    exact_density,
    forecast,
    henrici,
    suggested,
)
from equilibrist.spectra.consensus import transposed
from equilibrist.spectra.density import block_diagonal, density, lanczos
from equilibrist.spectra.player_densities import exact_densities, lanczos_densities
from equilibrist.spectra.products import product_with, symmetric_part
from equilibrist.spectra.spectrum import described


def symmetric(n: int = 300, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(0, 0.3, n - 20), rng.uniform(2, 3, 20)])
    Q = np.linalg.qr(rng.standard_normal((n, n)))[0]
    return (Q * values) @ Q.T


def distance(a: SpectralDensity, b: SpectralDensity) -> float:
    """The largest difference of the distribution functions of two curves, on a common grid."""
    at = np.linspace(min(a.nodes.min(), b.nodes.min()), max(a.nodes.max(), b.nodes.max()), 400)
    width = 0.03 * (at[-1] - at[0])
    from scipy.special import ndtr

    both = [ndtr((at[:, None] - d.nodes) / width) @ d.weights for d in (a, b)]
    return float(np.abs(both[0] - both[1]).max())


def test_a_lanczos_density_is_the_dense_one() -> None:
    M = symmetric()
    whole = exact_density(M)
    found = density(lambda u: M @ u, 300, 40, 20, np.random.default_rng(1))
    assert found.weights.sum() == pytest.approx(1)
    assert distance(found, whole) < 0.02
    assert distance(exact_density(symmetric(seed=2) * 1.5), whole) > 0.05  # it can tell
    for power in (1, 2, 3):
        mean = np.trace(np.linalg.matrix_power(M, power)) / 300
        assert found.weights @ found.nodes**power == pytest.approx(mean, abs=0.15)
    assert found.highest.value == pytest.approx(whole.highest.value, abs=1e-8)
    assert found.lowest.value >= whole.lowest.value - 1e-12
    assert found.lowest.value - whole.lowest.value <= found.lowest.residual + 1e-12
    assert found.below(1.0) == pytest.approx(280 / 300, abs=0.03)


def test_one_probe_integrates_its_own_measure_exactly() -> None:
    """Gauss quadrature: v^T M^p v for p up to 2 steps - 1."""
    M = symmetric(60)
    v = np.random.default_rng(5).standard_normal(60)
    found = density(lambda u: M @ u, 60, 6, 1, np.random.default_rng(5))
    for power in range(12):
        expected = v @ np.linalg.matrix_power(M, power) @ v / (v @ v)
        assert found.weights @ found.nodes**power == pytest.approx(expected, rel=1e-9)
    beyond = v @ np.linalg.matrix_power(M, 12) @ v / (v @ v)
    assert found.weights @ found.nodes**12 != pytest.approx(beyond, rel=1e-9)


def test_ends_are_the_extreme_ritz_pairs_of_all_probes() -> None:
    """Value and residual |M x - l x| by Rayleigh-Ritz in the whole Krylov space of each probe."""
    M, rng = symmetric(60), np.random.default_rng(3)
    found = density(lambda u: M @ u, 60, 6, 3, np.random.default_rng(3))
    ends: dict[str, list[tuple[float, float]]] = {"lowest": [], "highest": []}
    for _ in range(3):
        columns = [rng.standard_normal(60)]
        for _ in range(5):
            columns.append(M @ columns[-1])
        U = np.linalg.qr(np.stack(columns, 1))[0]
        values, Y = np.linalg.eigh(U.T @ M @ U)
        for end, i in (("lowest", 0), ("highest", -1)):
            x = U @ Y[:, i]
            ends[end].append((values[i], float(np.linalg.norm(M @ x - values[i] * x))))
    for end, extreme in (("lowest", min), ("highest", max)):
        value, residual = extreme(ends[end])
        assert getattr(found, end).value == pytest.approx(value, rel=1e-8)
        assert getattr(found, end).residual == pytest.approx(residual, rel=1e-6)
        assert residual > 1e-3


def test_the_seed_decides() -> None:
    M = symmetric(80)
    once, again, other = (
        density(lambda u: M @ u, 80, 10, 2, np.random.default_rng(s)) for s in (7, 7, 8)
    )
    assert (once.nodes == again.nodes).all()
    assert (once.weights == again.weights).all()
    assert once.nodes != pytest.approx(other.nodes)


@pytest.mark.parametrize("probes", [1, 2])
def test_a_density_says_whether_it_is_exact(probes: int) -> None:
    M = symmetric(60)
    whole = described(exact_density(M))
    assert (whole["exact"], whole["probes"], whole["steps"]) == (True, 0, 0)
    assert whole["lowest"][0] == pytest.approx(np.linalg.eigvalsh(M)[0])
    found = density(lambda u: M @ u, 60, 7, probes, np.random.default_rng(0))
    part = described(found)
    assert (part["exact"], part["probes"], part["steps"]) == (False, probes, 7)
    assert part["highest"] == [found.highest.value, found.highest.residual]
    assert part["at"] == found.curve()["at"]


def test_curves_are_densities() -> None:
    curve = exact_density(symmetric()).curve()
    at, height = np.array(curve["at"]), np.array(curve["density"])
    assert len(at) + len(height) <= 200
    assert np.trapezoid(height, at) == pytest.approx(1, abs=0.01)
    point = exact_density(np.eye(3)).curve()
    assert all(np.isfinite(point["density"]))


@pytest.mark.parametrize("name", ["vanilla", "wgan", "spectral norm", "batch norm in both"])
def test_densities_of_networks(name: str) -> None:
    op = operator(name)
    J = op.dense().numpy()
    n = len(J)
    S = (J + J.T) / 2
    u = np.random.default_rng(0).standard_normal(n)
    assert symmetric_part(op)(u) == pytest.approx(S @ u, abs=1e-12 * np.abs(J).sum())
    for player in op.players:
        own = HessianOperator(op.field, op.players, op.constants, op.draws, player)
        block = J[op.block(player, player)]
        assert block == pytest.approx(block.T, abs=1e-10)
        w = u[: len(block)]
        assert product_with(own)(w) == pytest.approx(block @ w, abs=1e-10)
    whole = exact_densities(J, {p: tree.count(part) for p, part in op.players.items()})
    found = lanczos_densities(op, n, np.random.default_rng(0))
    for part in (*op.players, "symmetric"):
        assert found[part].highest.value == pytest.approx(whole[part].highest.value, abs=1e-8)
        assert found[part].lowest.value == pytest.approx(whole[part].lowest.value, abs=1e-8)
    assert found["symmetric"].lowest.value == pytest.approx(abscissa(J), abs=1e-8)
    # The eigenvalues' real parts lie between the ends of the symmetric part (Bendixson).
    assert np.linalg.eigvals(J).real.min() >= abscissa(J) - 1e-10


def test_densities_over_some_coordinates() -> None:
    op = operator("vanilla")
    J = op.dense().numpy()
    masks = {
        p: np.arange(op.block(p, p)[0].stop - op.block(p, p)[0].start) % 3 > 0 for p in op.players
    }
    keep = np.concatenate(list(masks.values()))
    found = lanczos_densities(op, len(J), np.random.default_rng(0), masks)
    S = ((J + J.T) / 2)[np.ix_(keep, keep)]
    assert found["symmetric"].lowest.value == pytest.approx(np.linalg.eigvalsh(S)[0], abs=1e-8)


def test_blocks_are_mixed_by_dimension() -> None:
    a, b = exact_density(np.diag([1.0, 2.0, 3.0])), exact_density(np.diag([-1.0]))
    found = block_diagonal([(3, a), (1, b)])
    assert found.below(0) == pytest.approx(0.25)
    assert (found.lowest.value, found.highest.value) == (-1.0, 3.0)


def test_departure_and_abscissa_in_closed_form() -> None:
    # [[a, k], [0, b]]: |M|_F^2 - |a|^2 - |b|^2 = k^2; lowest of S: (a + b)/2 - sqrt((a - b)^2 + k^2)/2.
    a, b, k = 1.0, 2.0, 10.0
    M = np.array([[a, k], [0, b]])
    assert henrici(M, np.array([a, b])) == pytest.approx(k / np.sqrt(a * a + b * b + k * k))
    assert abscissa(M) == pytest.approx((a + b) / 2 - np.hypot(a - b, k) / 2)
    turning = np.array([[0.0, 3.0], [-3.0, 0.0]])
    assert henrici(turning, np.linalg.eigvals(turning)) == pytest.approx(0, abs=1e-7)
    assert abscissa(turning) == 0
    assert henrici(np.zeros((2, 2)), np.zeros(2)) == 0


def test_consensus_on_the_bilinear_game() -> None:
    """l = +-i: l + gamma gives q = 1 / gamma and h_max = 2 gamma / (1 + gamma^2), best at gamma = 1."""
    M = np.array([[0.0, 1.0], [-1.0, 0.0]])
    values = np.linalg.eigvals(M)
    for matrix in (M, None):  # J is normal: the estimate from eigenvalues alone is exact
        for gamma in (0.1, 1.0, 3.0):
            found = forecast(gamma, values, 1e-9, matrix)
            assert found.q == pytest.approx(1 / gamma)
            assert found.h_max == pytest.approx(2 * gamma / (1 + gamma**2))
            assert found.exact == (matrix is not None)
        best, why = suggested(values, 1e-9, matrix)
        assert best is not None
        assert not why
        assert best.gamma == pytest.approx(1.0)
        assert best.h_max == pytest.approx(1.0)


def test_consensus_is_not_suggested_where_it_would_hold_a_saddle() -> None:
    values = np.array([-0.5 + 0j, 1 + 1j, 1 - 1j])
    best, why = suggested(values, 1e-6)
    assert best is None
    assert "negative real part" in why
    # Purely real spectra: nothing to gain.
    best, why = suggested(np.array([1 + 0j, 2 + 0j]), 1e-6)
    assert best is None
    assert "no gamma" in why
    best, why = suggested(np.zeros(3, complex), 1e-6)
    assert best is None
    assert "no eigenvalue" in why


def test_consensus_as_products() -> None:
    rng = np.random.default_rng(0)
    J, D, u = rng.standard_normal((6, 6)), rng.uniform(0.5, 1, 6), rng.standard_normal(6)
    product = transposed(lambda x: J @ x, lambda x: J.T @ x, 0.7, D)
    whole = np.diag(D) @ (J + 0.7 * J.T @ J)
    assert product(u) == pytest.approx(whole.T @ u)
    plain = transposed(lambda x: J @ x, lambda x: J.T @ x, 0.7)
    assert plain(u) == pytest.approx((J + 0.7 * J.T @ J).T @ u)


def test_lanczos_takes_as_many_steps_as_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MEMORY", 6 * 8 * 50.0)
    A = np.diag(np.linspace(1, 2, 50))
    start = np.random.default_rng(0).standard_normal(50)
    basis, T, _ = lanczos(lambda u: A @ u, start, 20)
    assert len(basis) == len(T) == 6
    monkeypatch.setattr(arrays, "MEMORY", 1.0)
    assert len(lanczos(lambda u: A @ u, start, 20)[0]) == 4
