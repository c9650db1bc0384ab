"""Spectra against numpy, against autograd, and against what steps do."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from equilibrist import GAN, WGAN, JacobianOperator, Quadratic, RecipeError, Vanilla, VectorField
from equilibrist.core.exact import Exact
from equilibrist.core.game import Plain
from equilibrist.errors import GameError
from equilibrist.nn.spectral_norm import singular_vectors
from equilibrist.optimizers import SGD, Adam
from equilibrist.schedules import Cosine, Scheduled
from equilibrist.solvers import Alternating, Averaged, Consensus, Simultaneous
from equilibrist.spectra import eigenvalues, extremes, spectrum_at
from equilibrist.spectra.of_run import rule_step_sizes


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def quadratic(n=3, m=2, seed=0):
    A, B, C = numbers(seed, n, n), numbers(seed + 1, n, m), numbers(seed + 2, m, m)
    return Quadratic(A @ A.mT + torch.eye(n), B, C @ C.mT + 0.1 * torch.eye(m))


def operator(game, n=3, m=2):
    players = {"x": {"value": numbers(7, n)}, "y": {"value": numbers(8, m)}}
    return JacobianOperator(VectorField(game), players, {}, [{}])


def assert_same(found, expected, tolerance=1e-10):
    """The same multiset of complex numbers."""
    assert len(found) == len(expected)
    left = list(expected)
    for z in found:
        k = int(np.argmin(np.abs(np.array(left) - z)))
        assert abs(left.pop(k) - z) < tolerance


def test_quadratic_games_against_numpy():
    game = quadratic()
    J = game.jacobian().numpy()
    found = spectrum_at(operator(game), {"x": 0.1, "y": 0.1}, gamma=0.5)
    assert_same(found.jacobian.values, np.linalg.eigvals(J))
    assert found.consensus is not None
    assert_same(found.consensus.values, np.linalg.eigvals(J + 0.5 * J.T @ J))
    assert found.scaled is None
    assert (found.jacobian.residuals < 1e-12).all()
    assert found.zero_sum
    assert found.h == 0.1


def test_step_sizes_of_their_own():
    game = quadratic()
    H = np.diag([0.05] * 3 + [0.2] * 2)
    found = spectrum_at(operator(game), {"x": 0.05, "y": 0.2}, gamma=0.3)
    J = game.jacobian().numpy()
    assert found.h == 0.2
    assert found.scaled is not None
    assert found.consensus is not None
    assert_same(found.scaled.values * 0.2, np.linalg.eigvals(H @ J))
    assert_same(found.consensus.values * 0.2, np.linalg.eigvals(H @ (J + 0.3 * J.T @ J)))
    radius = np.abs(np.linalg.eigvals(np.eye(5) - H @ J)).max()
    assert found.stepped.radius(0.2) == pytest.approx(radius, abs=1e-12)


@pytest.mark.parametrize("rates", [None, {"x": 0.5, "y": 0.5}, {"x": 0.05, "y": 0.5}])
@pytest.mark.parametrize("gamma", [None, 0.3])
@pytest.mark.parametrize("dense", [None, 1])
def test_a_spectrum_as_plain_values(rates, gamma, dense):
    """Every number of every matrix again from numpy; without step sizes none that needs one."""
    game = quadratic()
    J = game.jacobian().numpy()
    op = operator(game)
    found = spectrum_at(op, rates, gamma=gamma, dense=dense, samples=7, notes=("said",))
    told = found.describe()
    h = None if rates is None else 0.5
    uneven = rates is not None and rates["x"] != rates["y"]
    H = np.diag([rates["x"] / h] * 3 + [1.0] * 2) if rates else np.eye(5)
    expected = {
        "jacobian": J,
        "scaled": H @ J if uneven else None,
        "consensus": None if gamma is None else H @ (J + gamma * J.T @ J),
    }
    for name, matrix in expected.items():
        if matrix is None:
            assert told[name] is None
            continue
        part, z = told[name], np.linalg.eigvals(matrix)
        assert_same([complex(*pair) for pair in part["eigenvalues"]], z, 1e-6)
        assert max(part["residuals"]) < 1e-6 * np.abs(z).max()
        assert part["complete"] == (dense is None)
        assert part["zero_to_rounding"] == 0
        assert part["h_max"] == pytest.approx((2 * z.real / np.abs(z) ** 2).min(), rel=1e-6)
        assert part["h_max_is"] == ("exact" if dense is None else "an upper bound")
        assert part["q"] == pytest.approx(np.abs(z.imag / z.real).max(), rel=1e-6)
        if h is None:
            assert part["contraction"] is None
            assert part["outside"] is None
        else:
            assert part["contraction"] == pytest.approx(np.abs(1 - h * z).max(), rel=1e-6)
            assert part["outside"] == (np.abs(1 - h * z) > 1).sum()
    if h:
        assert told["jacobian"]["outside"] > 0, "the test can tell"
    assert told["step_sizes"] == (rates or {})
    assert (told["h"], told["gamma"]) == (h, gamma)
    assert (told["parameters"], told["samples"], told["batches"]) == (5, 7, 1)
    point = np.concatenate([numbers(7, 3).numpy(), numbers(8, 2).numpy()])
    v = J @ point
    assert told["gradient_norms"] == pytest.approx(
        {"x": np.linalg.norm(v[:3]), "y": np.linalg.norm(v[3:])}
    )
    assert told["parameter_norms"] == pytest.approx(
        {"x": np.linalg.norm(point[:3]), "y": np.linalg.norm(point[3:])}
    )
    assert told["notes"][0] == "said"
    json.dumps(told, allow_nan=False)


def iterated(J, h, steps=4000):
    x = np.linspace(1, 2, len(J))
    for _ in range(steps):
        x = x - h * J @ x
        if not np.abs(x).max() < 1e6:
            return np.inf
    return np.abs(x).max()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_largest_stable_step_is_where_iterates_begin_to_grow(seed):
    game = quadratic(seed=10 * seed)
    J = game.jacobian().numpy()
    found = eigenvalues(game.jacobian())
    h = found.h_max
    assert iterated(J, 0.97 * h) < 1
    assert iterated(J, 1.03 * h) > 10
    assert found.outside(0.97 * h) == 0
    assert found.outside(1.03 * h) > 0
    assert found.radius(0.97 * h) < 1 < found.radius(1.03 * h)


def test_bilinear_and_singular_matrices():
    turning = eigenvalues(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    assert (turning.h_max, turning.q) == (0.0, float("inf"))
    assert turning.departure == pytest.approx(0, abs=1e-7)
    flat = eigenvalues(torch.diag(torch.tensor([0.0, 2.0])))
    # The direction in which nothing pulls does not count.
    assert flat.h_max == 1.0
    assert flat.outside(0.9) == 0
    assert len(flat.nonzero) == 1
    nothing = eigenvalues(torch.zeros(2, 2))
    assert nothing.h_max == float("inf")
    assert nothing.q == 0
    repelling = eigenvalues(torch.diag(torch.tensor([-1.0, 1.0])))
    assert repelling.h_max == 0
    # [[1, k], [0, 1]]: |J|_F^2 = 2 + k^2, sum |l|^2 = 2.
    bent = eigenvalues(torch.tensor([[1.0, 3.0], [0.0, 1.0]]))
    assert bent.departure == pytest.approx((9 / 11) ** 0.5)


def test_extremes_are_those_of_the_dense_matrix():
    game = quadratic(40, 30, seed=3)
    op = operator(game, 40, 30)
    dense = spectrum_at(op, {"x": 0.1, "y": 0.2}, gamma=1.0)
    few = spectrum_at(op, {"x": 0.1, "y": 0.2}, gamma=1.0, dense=10, k=4)
    assert not few.jacobian.complete
    assert dense.consensus is not None
    assert few.consensus is not None
    assert dense.scaled is not None
    assert few.scaled is not None
    pairs = [
        (getattr(dense, name), getattr(few, name)) for name in ("jacobian", "scaled", "consensus")
    ]
    for whole, part in pairs:
        z = whole.values
        gaps = np.abs(part.values[:, None] - z).min(axis=1)
        assert (gaps < 1e-6 * np.abs(z).max()).all()
        assert part.values.real.min() == pytest.approx(z.real.min(), abs=1e-5)
        assert part.values.real.max() == pytest.approx(z.real.max(), abs=1e-5)
        assert part.values.imag.max() == pytest.approx(z.imag.max(), abs=1e-5)
        assert len(part.values) < len(z)
        assert part.h_max >= whole.h_max - 1e-9


def test_what_did_not_converge_is_left_out():
    from scipy.sparse.linalg import aslinearoperator

    matrix = np.random.default_rng(0).standard_normal((200, 200))
    found = extremes(aslinearoperator(matrix), 8, 1e-10, products=60)
    assert found.missing
    z = np.linalg.eigvals(matrix)
    for value, residual in zip(found.values, found.residuals, strict=True):
        assert residual < 1e-4 * np.abs(z).max()
        assert np.abs(z - value).min() < 1e-3


def tiny(spectral_norm=False, formulation=None):
    torch.manual_seed(0)
    game = GAN(
        nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)),
        nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)),
        formulation or Vanilla(),
        latent=2,
        spectral_norm=spectral_norm,
    )
    start = game.init(0, dtype=torch.float64)
    draws = [{"real": numbers(20 + i, 8, 2), "latent": numbers(30 + i, 8, 2)} for i in range(2)]
    return game, start, draws


def by_hand(game, start, draws, losses):
    """J from `losses(players, draw)`, by differentiating twice, entry by entry."""
    flat = torch.cat([p.flatten() for part in start.players.values() for p in part.values()])
    cut = sum(p.numel() for p in start.players["generator"].values())

    def unflat(z):
        players, at = {}, 0
        for player, part in start.players.items():
            players[player] = {}
            for name, p in part.items():
                players[player][name] = z[at : at + p.numel()].reshape(p.shape)
                at += p.numel()
        return players

    total = 0
    for draw in draws:
        first = torch.autograd.functional.hessian(
            lambda z, d=draw: losses(unflat(z), d)["generator"], flat
        )
        second = torch.autograd.functional.hessian(
            lambda z, d=draw: losses(unflat(z), d)["critic"], flat
        )
        total = total + torch.cat([first[:cut], second[cut:]])
    return (total / len(draws)).numpy()


@pytest.mark.parametrize("formulation", [Vanilla(), Vanilla(saturating=True), WGAN()], ids=str)
def test_a_tiny_gan_against_autograd(formulation):
    game, start, draws = tiny(formulation=formulation)
    op = JacobianOperator(VectorField(Exact(game)), start.players, start.constants, draws)
    found = spectrum_at(op, {"generator": 0.1, "critic": 0.1}, gamma=2.0)
    J = by_hand(game, start, draws, lambda p, d: game.losses(p, start.constants, d))
    assert_same(found.jacobian.values, np.linalg.eigvals(J), 1e-8)
    assert found.consensus is not None
    assert_same(found.consensus.values, np.linalg.eigvals(J + 2 * J.T @ J), 1e-8)
    assert found.zero_sum == formulation.zero_sum
    # |v| is that of the mean over the draws.
    field = VectorField(game)
    parts = [field(start.players, start.constants, d).v["critic"] for d in draws]
    mean = torch.cat(
        [((a + b) / 2).flatten() for a, b in zip(*(p.values() for p in parts), strict=True)]
    )
    assert found.gradients["critic"] == pytest.approx(float(mean.norm()), rel=1e-12)


def test_spectral_norm_has_its_own_curvature():
    """Against sigma by torch's SVD, where the frozen power vectors are wrong."""
    game, start, draws = tiny(spectral_norm=True)
    build = {
        "generator": nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2)),
        "critic": nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)),
    }

    def losses(players, draw):
        w = dict(players["critic"])
        for name in ("0.weight", "2.weight"):
            w[name] = w[name] / torch.linalg.matrix_norm(w[name], 2)
        fake = torch.func.functional_call(build["generator"], players["generator"], draw["latent"])
        real, made = (
            torch.func.functional_call(build["critic"], w, x).flatten()
            for x in (draw["real"], fake)
        )
        soft = nn.functional.softplus
        return {
            "generator": soft(-made).mean(),
            "critic": soft(-real).mean() + soft(made).mean(),
        }

    J = by_hand(game, start, draws, losses)
    exact = JacobianOperator(VectorField(Exact(game)), start.players, start.constants, draws)
    assert np.abs(exact.dense().numpy() - J).max() < 1e-10
    frozen = JacobianOperator(VectorField(game, frozen=True), start.players, start.constants, draws)
    assert np.abs(frozen.dense().numpy() - J).max() > 1e-3


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 4)])
def test_singular_vectors_have_two_derivatives(shape):
    M = numbers(1, *shape)

    def sigma(m):
        u, v = singular_vectors(m)
        return u @ m @ v

    def reference(m):
        return torch.linalg.matrix_norm(m, 2)

    hessian = torch.autograd.functional.hessian
    assert torch.allclose(hessian(sigma, M), hessian(reference, M), atol=1e-12)
    assert float(sigma(M)) == pytest.approx(float(reference(M)), rel=1e-14)


def test_the_step_size_in_use():
    players = ("generator", "critic")
    plain = Simultaneous(SGD(0.1), {"critic": SGD(0.4)})
    assert rule_step_sizes(plain, players) == ({"generator": 0.1, "critic": 0.4}, ())
    rates, notes = rule_step_sizes(
        Averaged(Alternating(optimizer=Scheduled(Adam(2e-4), Cosine(10)))), players
    )
    assert rates == {"generator": 2e-4, "critic": 2e-4}
    said = " ".join(notes)
    for words in ("Adam preconditions", "plain gradient steps", "schedules", "is Alternating"):
        assert words in said
    assert "momentum of -0.3" in rule_step_sizes(Consensus(SGD(0.1, -0.3)), players)[1][0]

    class Odd:
        def init(self, params):
            return {}

        def update(self, grads, state, params):
            pass

    with pytest.raises(RecipeError, match="has no step size: give one with --lr"):
        rule_step_sizes(Simultaneous(Odd()), players)


@pytest.mark.parametrize(
    ("rates", "gamma"), [({"x": 0.0, "y": 0.1}, None), ({}, -1.0), ({}, float("nan"))]
)
def test_bad_numbers(rates, gamma):
    with pytest.raises(RecipeError, match="of a spectrum must be positive"):
        spectrum_at(operator(quadratic()), rates, gamma=gamma)


def test_a_pair_that_is_not_finite():
    class Broken(Plain):
        players = ("x", "y")

        def losses(self, players, constants, draw, only=None):
            x, y = players["x"]["value"].sum(), players["y"]["value"].sum()
            return {"x": x * y / 0.0, "y": x * y}

    with pytest.raises(GameError, match="gradients at this pair are not finite"):
        spectrum_at(operator(Broken()))
    with pytest.raises(GameError, match="not finite at this pair"):
        eigenvalues(torch.tensor([[float("nan")]]))


def test_the_page_shows_densities_and_the_abscissa():
    from equilibrist.play.spectrum_page import sentences, spectrum_html

    op = operator(quadratic(40, 30, seed=3), 40, 30)
    for dense, words in ((None, "all eigenvalues."), (10, "30 Lanczos steps.")):
        found = spectrum_at(op, {"x": 0.1, "y": 0.1}, dense=dense)
        text = spectrum_html(found, "a game", 3)
        assert text.count("Density of ") >= 3
        assert words in text
        said = " ".join(sentences(found))
        assert ("abscissa is at most" in said) == (dense is not None)
        facts = found.describe()["densities"]
        assert set(facts) == {"x", "y", "symmetric"}
        assert len(facts["x"]["at"]) + len(facts["x"]["density"]) <= 200
        # Positive definite blocks: no push grows.
        assert "no push was found to grow" in said
        assert facts["symmetric"]["lowest"][0] > 0
    S = op.dense().numpy()
    S = (S + S.T) / 2
    assert facts["symmetric"]["lowest"][0] == pytest.approx(np.linalg.eigvalsh(S)[0], abs=0.5)
    assert facts["symmetric"]["lowest"][0] >= np.linalg.eigvalsh(S)[0] - 1e-9
