"""The check "stable" against games whose eigenvalues are known, and against dense matrices."""

from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from audit_games import F64, Gaussian, Shift, Unit, audited, boxed
from torch import Tensor, nn

from equilibrist import GAN, JacobianOperator, Quadratic, RecipeError, Vanilla, Verdict, tree
from equilibrist.checks import CHECKS, Settings, _eigen, audit_game, spectrum
from equilibrist.checks._decide import Interval
from equilibrist.checks._eigen import ROUNDING, probe_cost, probes_of
from equilibrist.checks.certificate import Certificate
from equilibrist.checks.context import AuditContext
from equilibrist.checks.context_exact import ExactContext
from equilibrist.checks.spectrum import planned_gradients, stable
from equilibrist.files.atomic import json_ready
from equilibrist.games import Dirac, GaussianW2GAN, three_nash
from equilibrist.penalties import R1
from equilibrist.spectra import arrays


def exact(game: Any, players: Any, **settings: Any) -> Certificate:
    plain = Settings(tolerance=1e-6, groups=3, group_batches=1, linear_batches=1, **settings)
    (found,) = stable(ExactContext(game, players, plain))
    json.dumps(json_ready(found.evidence))
    return found


def quadratic(A: Any, B: Any, C: Any) -> tuple[Quadratic, Any]:
    game = Quadratic(*(torch.tensor(m, dtype=F64) for m in (A, B, C)))
    n, m = game.B.shape
    return game, {
        "x": {"value": torch.zeros(n, dtype=F64)},
        "y": {"value": torch.zeros(m, dtype=F64)},
    }


# -- exact games ---------------------------------------------------------------------------------------


def test_it_is_asked_by_default() -> None:
    assert "stable" in CHECKS
    game = Dirac(gamma=1.0)
    found = audit_game(game, game.points()[0].players, checks=["stable"], progress="none")
    assert found["stable"].verdict is Verdict.VERIFIED


@pytest.mark.parametrize("loss", ["vanilla", "non-saturating", "wgan"])
def test_dirac_turns_without_a_penalty(loss: Any) -> None:
    game = Dirac(loss)
    found = exact(game, game.points()[0].players)
    slope = 1.0 if loss == "wgan" else 0.5
    assert found.verdict is Verdict.UNASSESSED
    assert "imaginary axis" in found.summary
    assert found.evidence["extremes"]["largest imaginary part"]["value"] == pytest.approx(
        [0, slope]
    )
    assert found.evidence["h_max"] == 0
    assert found.evidence["q"] == math.inf
    assert found.evidence["rotation"] == "total"
    # l + gamma |l|^2: the best gamma is 1 / |l|, with h_max = 1 / |l|.
    best = found.evidence["consensus"]
    assert best["gamma"] == pytest.approx(1 / slope)
    assert best["h_max"] == pytest.approx(1 / slope)
    assert best["how"] == "exact"


@pytest.mark.parametrize("gamma", [0.3, 1.0, 4.0])
def test_dirac_with_a_penalty(gamma: float) -> None:
    """gamma/2 +- sqrt(gamma^2/4 - 1/4)."""
    game = Dirac(gamma=gamma)
    found = exact(game, game.points()[0].players, step_sizes={"generator": 0.1, "critic": 0.1})
    root = complex(gamma**2 / 4 - 0.25) ** 0.5
    values = np.array([gamma / 2 + root, gamma / 2 - root])
    assert found.verdict is Verdict.VERIFIED
    assert found.evidence["extremes"]["smallest real part"]["value"][0] == pytest.approx(
        values.real.min(), rel=1e-6
    )
    assert found.evidence["h_max"] == pytest.approx(
        float((2 * values.real / abs(values) ** 2).min()), rel=1e-6
    )
    assert found.evidence["steps"]["contraction"] == pytest.approx(
        float(abs(1 - 0.1 * values).max()), rel=1e-6
    )
    # S = [[0, 0], [0, gamma]] for equal and opposite couplings.
    assert found.evidence["abscissa"]["value"] == pytest.approx(0, abs=1e-9)


def test_every_stationary_point_of_a_planar_game() -> None:
    game = three_nash()
    kinds = set()
    for point in game.points():
        found = exact(game, point.players)
        eigenvalues = np.linalg.eigvals(game.jacobian(point.players).numpy())
        assert (found.verdict is Verdict.VERIFIED) == point.attracts == (eigenvalues.real > 0).all()
        assert (found.verdict is Verdict.REFUTED) == (eigenvalues.real < 0).any()
        kinds.add(point.kind)
        if found.verdict is Verdict.REFUTED:
            assert found.witness is not None
            assert found.witness_kind == "direction"
            u = tree.flatten(found.witness).numpy()
            assert np.linalg.norm(u) == pytest.approx(1)
            # The direction grows under x' = -J x, in the plane of its conjugate at least.
            J, value = game.jacobian(point.players).numpy(), eigenvalues.real.min()
            if not np.iscomplex(eigenvalues).any():
                assert J @ u == pytest.approx(value * u, abs=1e-8)
            assert found.evidence["confirmed"]["value"] == pytest.approx(value, rel=1e-8)
    assert {"local nash", "non-nash attractor", "saddle of the dynamics"} <= kinds


def test_a_pair_that_is_not_at_rest_is_not_verified() -> None:
    game, players = quadratic([[1.0]], [[0.5]], [[2.0]])
    assert exact(game, players).verdict is Verdict.VERIFIED
    moved = {**players, "x": {"value": torch.ones(1, dtype=F64)}}
    found = exact(game, moved)
    assert found.verdict is Verdict.UNASSESSED
    assert "gradients are not zero" in found.summary
    assert any("at rest only" in limit for limit in found.limits)


def test_zero_eigenvalues_do_not_count() -> None:
    flat, players = quadratic([[1.0, 0.0], [0.0, 0.0]], [[1.0], [0.0]], [[1.0]])
    found = exact(flat, players)
    assert found.verdict is Verdict.VERIFIED
    assert found.evidence["zero"] == 1
    assert any("nothing pulls" in limit for limit in found.limits)
    nothing, players = quadratic([[0.0]], [[0.0]], [[0.0]])
    assert exact(nothing, players).verdict is Verdict.UNASSESSED
    # A negative one that is no rounding error counts.
    small, players = quadratic([[1.0, 0.0], [0.0, -1e-5]], [[0.0], [0.0]], [[1.0]])
    assert exact(small, players).verdict is Verdict.REFUTED


def test_numbers_of_a_quadratic_game() -> None:
    g = torch.Generator().manual_seed(0)
    A, B, C = (torch.randn(*s, generator=g, dtype=F64) for s in ((4, 4), (4, 3), (3, 3)))
    game = Quadratic(A @ A.mT + torch.eye(4), B, C @ C.mT + torch.eye(3))
    players = {
        "x": {"value": torch.zeros(4, dtype=F64)},
        "y": {"value": torch.zeros(3, dtype=F64)},
    }
    found = exact(game, players, step_sizes={"x": 0.01, "y": 0.05})
    J = game.jacobian().numpy()
    z = np.linalg.eigvals(J)
    e = found.evidence
    assert found.verdict is Verdict.VERIFIED
    assert e["q"] == pytest.approx(float(np.abs(z.imag / z.real).max()))
    assert e["h_max"] == pytest.approx(float((2 * z.real / np.abs(z) ** 2).min()))
    lost = np.linalg.norm(J) ** 2 - (np.abs(z) ** 2).sum()
    assert e["departure"] == pytest.approx(math.sqrt(lost) / np.linalg.norm(J), rel=1e-6)
    assert e["abscissa"]["value"] == pytest.approx(np.linalg.eigvalsh((J + J.T) / 2)[0])
    # Steps of their own: eigenvalues of H J.
    H = np.diag([0.01] * 4 + [0.05] * 3)
    radius = np.abs(np.linalg.eigvals(np.eye(7) - H @ J)).max()
    assert e["steps"]["contraction"] == pytest.approx(radius)
    assert e["steps"]["h"] == 0.05
    # The forecast of consensus, by hand.
    best = e["consensus"]
    if best is not None:
        m = np.linalg.eigvals(J + best["gamma"] * J.T @ J)
        assert best["h_max"] == pytest.approx(float((2 * m.real / np.abs(m) ** 2).min()))
    assert set(e["densities"]) == {"x", "y", "symmetric"}
    for curve in e["densities"].values():
        assert len(curve["at"]) + len(curve["density"]) <= 200


def test_what_the_feasible_set_holds_is_left_out() -> None:
    """Theorem 1's optimum: W is held whole, and the shift u is what leaves."""
    game = GaussianW2GAN(dim=2, s=2.0, t=1.0)
    found = exact(game, game.points()[0].players)
    assert any("left out as a whole" in limit for limit in found.limits)
    assert found.evidence["parameters"] < tree.count(game.points()[0].players)
    # A box: theta in [-1, 1], pushed outward by V = -w u at w = 1, is held; w, which has no slope left, is free.
    clipped = boxed([1.0], [1.0])
    held = audited(clipped, Gaussian(1), checks=["stable"], batch=8)["stable"]
    assert held.verdict is Verdict.UNASSESSED


def krylov_pair(values: list[float], turn: float = 0.0) -> tuple[Quadratic, Any]:
    """A quadratic game of 60 + 60 parameters whose A has these eigenvalues beside a bulk in [0.5, 1]."""
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    bulk = rng.uniform(0.5, 1.0, 60)
    bulk[: len(values)] = values
    return quadratic((Q * bulk) @ Q.T, turn * rng.standard_normal((60, 60)) / 60, np.eye(60))


def test_krylov_verdicts_on_an_exact_game() -> None:
    game, players = krylov_pair([-0.7, 3.0])
    found = exact(game, players, spectrum_dense=10)
    assert found.verdict is Verdict.REFUTED
    assert not found.evidence["complete"]
    assert found.evidence["extremes"]["smallest real part"]["value"][0] == pytest.approx(-0.7)
    assert found.evidence["condition"] == pytest.approx(1.0, abs=1e-6)
    assert found.witness is not None
    u, J = tree.flatten(found.witness).numpy(), game.jacobian().numpy()
    assert pytest.approx(-0.7 * u, abs=1e-4) == J @ u
    # Extremes cannot verify.
    game, players = krylov_pair([0.2, 3.0])
    fine = exact(game, players, spectrum_dense=10)
    assert fine.verdict is Verdict.NOT_REFUTED
    assert fine.evidence["extremes"]["smallest real part"]["value"][0] == pytest.approx(0.2)
    assert exact(game, players).verdict is Verdict.VERIFIED


def test_a_basis_that_does_not_fit_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a pair too large for the usual search the leftmost eigenvalue is found all the same, from restarts of a small
    basis; nothing is said of the ends that were not looked at."""
    monkeypatch.setattr(arrays, "MEMORY", 20 * 8 * 120.0)
    game, players = krylov_pair([-0.7, 3.0])
    found = exact(game, players, spectrum_dense=10)
    assert found.verdict is Verdict.REFUTED
    assert found.evidence["extremes"]["smallest real part"]["value"][0] == pytest.approx(-0.7)
    assert found.evidence["extremes"]["largest imaginary part"] is None
    assert any("the search kept 20 vectors in float64" in limit for limit in found.limits)
    game, players = krylov_pair([0.2, 3.0])
    assert exact(game, players, spectrum_dense=10).verdict is Verdict.NOT_REFUTED


@pytest.mark.parametrize(("n", "k", "dtype", "room"), [
    (5_000_000, 4, np.float64, None), (6_000_000, 1, np.float32, 62), (30_000_000, 1, np.float32, 12),
])  # fmt: skip
def test_what_a_search_of_many_parameters_keeps(
    n: int, k: int, dtype: type, room: int | None
) -> None:
    """No more than 1.5 GB, in the precision of the products."""
    size = _eigen._Size.of(n, SimpleNamespace(dtype=torch.float32))  # type: ignore[arg-type]
    assert (size.k, size.dtype, size.room) == (k, dtype, room)
    assert n * np.dtype(dtype).itemsize * (room or 36) <= 1.5e9
    exactly = _eigen._Size.of(n, SimpleNamespace(dtype=F64))  # type: ignore[arg-type]
    assert exactly.dtype is np.float64


def test_not_converged_is_said() -> None:
    """Eigenvalues of real part 1/4 in a long row up the imaginary axis, and a symmetric part that reaches -1/2."""
    unit = np.eye(150)
    game, players = quadratic(-0.5 * unit, np.diag(np.linspace(1, 20, 150)), unit)
    found = exact(game, players, spectrum_dense=10, spectrum_products=10)
    assert found.verdict is Verdict.UNASSESSED
    assert "did not converge within 10 products" in found.summary
    assert found.evidence["extremes"]["smallest real part"] is None
    assert found.evidence["missing"]["smallest real part"] == "0 of 4 converged within 10 products"
    assert found.evidence["leftmost"]["residual"] > found.tolerance.value  # type: ignore[union-attr]
    assert found.evidence["consensus"] is None
    assert exact(game, players).verdict is Verdict.VERIFIED


def test_the_symmetric_part_encloses_what_did_not_converge() -> None:
    """Every real part is at least the smallest eigenvalue of (J + J^T) / 2, here 1."""
    unit = np.eye(150)
    game, players = quadratic(unit, np.diag(np.linspace(1, 20, 150)), unit)
    found = exact(game, players, spectrum_dense=10, spectrum_products=10)
    assert found.evidence["extremes"]["smallest real part"] is None
    assert found.verdict is Verdict.NOT_REFUTED
    assert "none lies below 1" in found.summary


def test_a_cluster_that_is_negative_as_a_whole_refutes_before_it_is_told_apart() -> None:
    """60 eigenvalues in [-1, -0.8]: ten products know none of them to 1%, and all to be negative."""
    rng = np.random.default_rng(0)
    game, players = quadratic(np.diag(rng.uniform(-1, -0.8, 60)), np.zeros((60, 60)), np.eye(60))
    found = exact(game, players, spectrum_dense=10, spectrum_products=10)
    assert found.evidence["extremes"]["smallest real part"] is None
    assert found.verdict is Verdict.REFUTED
    low, mean, high = found.evidence["leaving"]
    assert 0 < low < mean < high
    assert low <= -game.A.diagonal().min() <= high
    assert found.witness is not None
    u = tree.flatten(found.witness).numpy()
    assert u @ game.jacobian().numpy() @ u < -0.8


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [
        ((-0.7, -0.9, -0.5), Verdict.REFUTED),
        ((-0.7, -2.0, 0.6), Verdict.UNASSESSED),  # the mean is negative, the interval is not
        ((-0.7, -1.4, -0.0001), Verdict.UNASSESSED),
        ((0.1, 0.0999, 0.1001), Verdict.NOT_REFUTED),  # found on few samples, not there on others
        ((math.nan,) * 3, Verdict.UNASSESSED),
    ],
)
def test_the_end_of_the_interval_refutes_and_not_its_mean(
    interval: tuple[float, float, float], verdict: Verdict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spectrum, "confirmed", lambda *_: Interval(*interval))
    game, players = krylov_pair([-0.7, 3.0])
    plain = Settings(
        tolerance=1e-6, groups=3, group_batches=1, linear_batches=1, spectrum_tolerance=1e-3
    )
    monkeypatch.setattr("equilibrist.checks.spectrum.share_of", lambda context: 1e-3)
    (found,) = stable(ExactContext(game, players, plain))
    assert found.tolerance is not None
    assert found.tolerance.value == pytest.approx(3e-3)
    assert found.verdict is verdict


def test_an_eigenvalue_is_confirmed_on_the_score_split_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    critic = nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    game = GAN(Shift([0.0]), critic, Vanilla(saturating=True), latent=1)
    read: list[str] = []
    bank = AuditContext.bank

    def reading(self: AuditContext, part: str) -> Any:
        read.append(part)
        return bank(self, part)

    start = game.init()
    b = AuditContext(game, start.players, start.constants, Gaussian(1), Settings(batch=16), 0)
    b.tolerance()  # the yardstick is the selection split's
    monkeypatch.setattr(AuditContext, "bank", reading)
    monkeypatch.setattr(AuditContext, "scale", lambda self, player="": 1.0)
    (found,) = stable(b)
    assert found.evidence["confirmed"] is not None
    assert set(read) == {"score"}


@pytest.mark.parametrize("dense", [10, 1000])
def test_pure_rotation_is_total_and_not_silent(dense: int) -> None:
    """J = [[0, B], [-B^T, 0]]: neither stable nor unstable; the fact survives JSON, where infinity does not."""
    game, players = quadratic(
        np.zeros((20, 20)), np.diag(np.linspace(1, 3, 20)), np.zeros((20, 20))
    )
    found = exact(game, players, spectrum_dense=dense)
    assert found.evidence["rotation"] == "total"
    assert found.evidence["q"] == math.inf
    assert found.evidence["h_max"] == 0
    assert json.loads(json.dumps(json_ready(found.evidence)))["rotation"] == "total"
    assert "of any size leave it" in found.summary
    assert found.verdict is (Verdict.UNASSESSED if dense == 1000 else Verdict.NOT_REFUTED)
    still, players = krylov_pair([0.2, 3.0])
    assert exact(still, players).evidence["rotation"] == "none"
    turning, players = krylov_pair([0.2, 3.0], turn=30.0)
    assert exact(turning, players).evidence["rotation"] == "partial"


@pytest.mark.parametrize(("turn", "rotation"), [(0.7, "partial"), (30.0, "total")])
def test_what_hardly_moves_is_no_rotation(turn: float, rotation: str) -> None:
    """Eigenvalues a +- ib with a within the tolerance of the imaginary axis: b must be clear of zero to say "turns"."""
    within = 3 * ROUNDING
    game, players = quadratic(
        np.diag([3.0, 0.8 * within]), np.diag([0.0, turn * within]), np.diag([3.0, 0.8 * within])
    )
    assert exact(game, players).evidence["rotation"] == rotation


@pytest.mark.parametrize("seed", range(4))
def test_small_networks_are_answered_by_few_products(seed: int) -> None:
    """Networks of some thousand parameters, by no more products than a budget of 600 gradients pays for."""
    torch.manual_seed(seed)
    generator = nn.Sequential(nn.Linear(2, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh())
    critic = nn.Sequential(nn.Linear(2, 40), nn.LeakyReLU(), nn.Linear(40, 40), nn.Tanh())
    game = GAN(
        nn.Sequential(generator, nn.Linear(40, 2)).double(),
        nn.Sequential(critic, nn.Linear(40, 1)).double(),
        Vanilla(saturating=bool(seed % 2)),
        latent=2,
    )
    settings = {"batch": 64, "spectrum_dense": 30, "spectrum_products": 24, "spectrum_batches": 1}
    found = audited(game, Gaussian(2), checks=["stable"], **settings)["stable"]
    assert found.verdict is not Verdict.UNASSESSED, found.summary


class Sheared:
    """v = (x - 100 y, y), as two losses: J = [[1, k], [0, b]] is far from normal."""

    players = ("x", "y")
    zero_sum = False
    separable = True

    def __init__(self, k: float, b: float = 2.0) -> None:
        self.k, self.b = k, b

    def losses(self, players: Any, constants: Any, draw: Any, only: str | None = None) -> Any:
        x, y = players["x"]["value"], players["y"]["value"]
        return {
            "x": (x * x / 2 + self.k * x * y).sum(),
            "y": (self.b * y * y / 2).sum() + 0.0 * x.sum(),
        }

    def refresh(self, players: Any, constants: Any, draw: Any, exact: bool = False) -> Any:
        return constants

    def project(self, players: Any) -> Any:
        return players


def test_departure_from_normality_is_told() -> None:
    zero = {p: {"value": torch.zeros(1, dtype=F64)} for p in "xy"}
    found = exact(Sheared(100.0), zero)
    assert found.verdict is Verdict.VERIFIED
    assert found.evidence["departure"] == pytest.approx(100 / math.sqrt(1e4 + 5), rel=1e-9)
    # Eigenvalues say 1 and 2; and yet |x| grows at first.
    assert found.evidence["abscissa"]["value"] == pytest.approx(1.5 - math.hypot(1, 100) / 2)
    assert found.evidence["condition"] == pytest.approx(math.hypot(1, 100), rel=1e-6)
    # The right eigenvector is not the left one: the witness must be the right one.
    away = exact(Sheared(3.0, -1.0), zero)
    assert away.verdict is Verdict.REFUTED
    assert away.witness is not None
    u = tree.flatten(away.witness).numpy()
    assert np.array([[1, 3.0], [0, -1.0]]) @ u == pytest.approx(-u)


class Wide(Sheared):
    """v = (x + k S y, b y) of 60 + 60 parameters, S = diag(3, 2, 1, 0, ...) and noise: few directions shear."""

    def __init__(self, k: float, n: int = 60) -> None:
        rng = np.random.default_rng(0)
        S = np.diag([3.0, 2.0, 1.0] + [0.0] * (n - 3)) + 0.03 * rng.standard_normal((n, n))
        P, Q = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
        A = (P * rng.uniform(0.05, 0.2, n)) @ P.T
        self.A, self.S = torch.from_numpy(A), torch.from_numpy(k * P @ S @ Q.T)
        self.C = torch.from_numpy((Q * rng.uniform(0.05, 0.2, n)) @ Q.T)

    def losses(self, players: Any, constants: Any, draw: Any, only: str | None = None) -> Any:
        x, y = players["x"]["value"], players["y"]["value"]
        return {"x": x @ self.A @ x / 2 + x @ self.S @ y, "y": y @ self.C @ y / 2}


def test_the_departure_is_an_interval_where_not_all_eigenvalues_are_found() -> None:
    zero = {p: {"value": torch.zeros(60, dtype=F64)} for p in "xy"}
    sheared = Wide(1.0), zero
    for (game, players), far in (
        (krylov_pair([0.2, 3.0]), False),
        (krylov_pair([0.2, 3.0], turn=30.0), False),
        (sheared, True),
    ):
        whole = exact(game, players).evidence
        certificate = exact(game, players, spectrum_dense=10)
        part = certificate.evidence
        assert whole["departure_interval"] is None
        assert part["departure"] is None
        low, high = part["departure_interval"]
        assert low - 1e-6 <= whole["departure"] <= high + 1e-6
        assert (low > 0.3) == far
        probes = 3 if game.zero_sum else 4
        assert any(f"{probes} random vectors" in limit for limit in certificate.limits)
        assert not any("not known: the search" in limit for limit in certificate.limits)
    # J symmetric: both ends say so.
    normal = exact(*krylov_pair([0.2, 3.0]), spectrum_dense=10).evidence["departure_interval"]
    assert normal[0] == 0
    assert normal[1] < 1e-6


def test_a_small_search_leaves_the_departure_unknown() -> None:
    game, players = krylov_pair([0.2, 3.0])
    for products, probes in ((120, 6), (60, 3), (40, 0)):
        found = exact(game, players, spectrum_dense=10, spectrum_products=products)
        assert (found.evidence["departure_interval"] is None) == (probes == 0)
        said = f"{probes} random vectors" if probes else "departure from normality is not known"
        assert any(said in limit for limit in found.limits)


class Nilpotent(Sheared):
    """J = [[0, B], [C, 0]] with B C a turned Jordan block at 0: every eigenvalue of J is 0."""

    def __init__(self, n: int) -> None:
        rng = np.random.default_rng(0)
        Q, R = (np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2))
        self.B = torch.from_numpy(Q)
        self.C = torch.from_numpy(Q.T @ R @ np.eye(n, k=1) @ R.T)

    def losses(self, players: Any, constants: Any, draw: Any, only: str | None = None) -> Any:
        x, y = players["x"]["value"], players["y"]["value"]
        return {"x": x @ self.B @ y, "y": y @ self.C @ x}


def test_an_ill_conditioned_eigenvalue_does_not_refute() -> None:
    """Rounding alone scatters the eigenvalues of a Jordan block of size 24, far left and right of 0."""
    zero = {p: {"value": torch.zeros(12, dtype=F64)} for p in "xy"}
    found = exact(Nilpotent(12), zero)
    assert found.evidence["extremes"]["smallest real part"]["value"][0] < -0.05
    assert found.verdict is Verdict.UNASSESSED
    assert "ill-conditioned" in found.summary


# -- sampled games -------------------------------------------------------------------------------------


class Bowl(nn.Module):
    """D(x) = a . x - curvature |x|^2 / 2 with a the only parameters."""

    def __init__(self, a: list[float], curvature: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=F64))
        self.curvature = curvature

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.a - self.curvature * x.square().sum(1) / 2


def bowl(curvature: float, weight: float = 2.0) -> GAN:
    """V = E D(x) - E D(z + u) at u = a = 0 with R1: J = [[curvature, -1], [1, weight]] on each axis, for any
    draw (z enters linearly)."""
    return GAN(
        Shift([0.0, 0.0]), Bowl([0.0, 0.0], curvature), Unit(), latent=2, penalties=[R1(weight)]
    )


@pytest.mark.parametrize("dense", [100, 0])
def test_a_sampled_pair_whose_eigenvalues_are_known(dense: int) -> None:
    for curvature in (0.5, -1.0):
        J = np.array([[curvature, -1.0], [1.0, 2.0]])
        z = np.linalg.eigvals(J)
        found = audited(
            bowl(curvature), Gaussian(2), checks=["stable"], batch=16, spectrum_dense=dense
        )["stable"]
        value = found.evidence["extremes"]["smallest real part"]["value"]
        assert value[0] == pytest.approx(z.real.min(), abs=1e-7)
        if z.real.min() < 0:
            assert found.verdict is Verdict.REFUTED
            assert found.evidence["confirmed"]["value"] == pytest.approx(z.real.min(), abs=1e-7)
            assert found.witness is not None
            u = tree.flatten(found.witness).numpy()
            assert np.kron(J, np.eye(2)) @ u == pytest.approx(z.real.min() * u, abs=1e-6)
        else:
            # Nothing found on samples verifies.
            assert found.verdict is Verdict.NOT_REFUTED
            assert found.witness is None


class Noisy(nn.Module):
    """D(x) = sum_i a_i x_i^2 / 2: its curvature in the generator's shift is -a_i, whatever the sample, its own
    derivative a sample's."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.zeros(dim, dtype=F64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x) @ self.a + 0.0 * self.a.sum()


class Scaled(nn.Module):
    """G(z) = u * z."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.ones(dim, dtype=F64))

    def forward(self, z: Tensor) -> Tensor:
        return self.u * z


def test_noise_does_not_refute() -> None:
    """At a = 0 J = [[0, B], [-B^T, 0]] in expectation over draws: every real part is 0."""
    game = GAN(Scaled(3), Noisy(3), Vanilla(saturating=True), latent=3)
    verdicts = [
        audited(game, Gaussian(3), checks=["stable"], batch=8, seed=seed)["stable"].verdict
        for seed in range(6)
    ]
    assert Verdict.REFUTED not in verdicts
    assert Verdict.VERIFIED not in verdicts


def small(**options: Any) -> GAN:
    return GAN(
        lambda: nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 2)),
        lambda: nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 1)),
        Vanilla(),
        latent=2,
        **options,
    )


@pytest.mark.parametrize("options", [{}, {"spectral_norm": True}], ids=["plain", "spectral norm"])
def test_krylov_in_float32_finds_what_the_dense_matrix_has(options: Any) -> None:
    game = small(**options)
    start = game.init(0, dtype=torch.float32)
    assert tree.leaves(start.players)[0].dtype == torch.float32
    data = Gaussian(2, dtype=torch.float32)

    def found(**settings: Any) -> Certificate:
        return audit_game(
            game,
            start.players,
            start.constants,
            data,
            Settings(batch=16, **settings),
            checks=["stable"],
            progress="none",
        )["stable"]

    whole, part = found(), found(spectrum_dense=0)
    assert whole.evidence["complete"]
    assert not part.evidence["complete"]
    size = whole.evidence["extremes"]["largest modulus"]["value"][0]
    for end, reached in part.evidence["extremes"].items():
        if reached is not None:
            expected = whole.evidence["extremes"][end]["value"]
            assert reached["value"] == pytest.approx(expected, abs=1e-5 * abs(size))
            assert reached["residual"] < 1e-6 * abs(size)
    assert part.evidence["extremes"]["largest modulus"] is not None
    assert whole.evidence["abscissa"]["value"] == pytest.approx(
        part.evidence["abscissa"]["value"], abs=1e-4
    )
    assert part.verdict in (whole.verdict, Verdict.UNASSESSED)


def test_the_same_audit_twice_and_nothing_left_behind() -> None:
    game = small()
    start = game.init(0)
    before = {k: v.clone() for k, v in start.players["critic"].items()}
    torch.manual_seed(3)
    state = torch.get_rng_state()
    settings = Settings(batch=8, spectrum_dense=0, spectrum_products=60)
    once, again, other = (
        stable(AuditContext(game, start.players, start.constants, Gaussian(2), settings, seed))[0]
        for seed in (0, 0, 1)
    )
    assert json.dumps(json_ready(once.evidence)) == json.dumps(json_ready(again.evidence))
    assert once.summary == again.summary
    assert once.evidence["eigenvalues"] != other.evidence["eigenvalues"]
    assert once.evidence["departure_interval"] not in (None, other.evidence["departure_interval"])
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[k], v) for k, v in start.players["critic"].items())
    assert all(not v.requires_grad for v in start.players["critic"].values())


@pytest.mark.parametrize("saturating", [True, False])
def test_the_interval_takes_a_seventh_of_the_check(saturating: bool) -> None:
    game = GAN(
        lambda: nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 2)),
        lambda: nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 1)),
        Vanilla(saturating=saturating),
        latent=2,
    )
    start = game.init(0)
    settings = Settings(batch=8, spectrum_dense=0)
    here = AuditContext(game, start.players, start.constants, Gaussian(2), settings, 0)
    spent: list[float] = []
    stable(here, spent.append)
    own = probe_cost(here) * probes_of(here) * 2
    assert sum(abs(s - own) < 1e-9 for s in spent) == 1
    assert 0 < own < 0.15 * sum(spent)
    assert own < 0.15 * planned_gradients(here)


def test_planned_work_is_about_what_is_spent() -> None:
    for settings in (
        Settings(batch=8),
        Settings(batch=8, spectrum_dense=0, spectrum_products=20),
        Settings(batch=8, spectrum_dense=0),
    ):
        game = small()
        start = game.init(0)
        here = AuditContext(game, start.players, start.constants, Gaussian(2), settings, 0)
        spent: list[float] = []
        stable(here, spent.append)
        assert sum(spent) / 3 < planned_gradients(here) < 3 * sum(spent)


@pytest.mark.parametrize("dense", [100, 0])
def test_a_pair_that_is_not_finite(dense: int) -> None:
    game = small()
    start = game.init(0)
    broken = tree.map(lambda t: torch.full_like(t, torch.nan), start.players)
    settings = Settings(batch=8, spectrum_dense=dense)
    (found,) = stable(AuditContext(game, broken, start.constants, Gaussian(2), settings, 0))
    assert found.verdict is Verdict.UNASSESSED
    assert "not finite" in found.summary


@pytest.mark.parametrize(
    "wrong",
    [
        {"spectrum_dense": -1},
        {"spectrum_products": 3},
        {"spectrum_batches": 0},
        {"spectrum_tolerance": 0.9},
        {"step_sizes": {"generator": 0.0}},
        {"step_sizes": {"critic": float("nan")}},
    ],
)
def test_settings_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="audit setting"):
        Settings(**wrong)


def test_the_operator_is_that_of_the_bench() -> None:
    """The evidence is of the mean over the first minibatches of the part to optimise."""
    game = small()
    start = game.init(0)
    here = AuditContext(game, start.players, start.constants, Gaussian(2), Settings(batch=8), 0)
    (found,) = stable(here)
    draws = here.linear_draws()[:2]
    J = JacobianOperator(here.smooth(), *here.wide, draws).dense().numpy()
    z = np.linalg.eigvals(J)
    assert found.evidence["extremes"]["largest real part"]["value"][0] == pytest.approx(
        z.real.max()
    )
    assert found.evidence["minibatches"] == 2
