"""The continuous games' stated equilibria, gaps and best responses against independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from equilibrist.errors import GameError
from equilibrist.games import GaussianW2GAN
from equilibrist.mixed.domains import Box, Circle, Projected
from equilibrist.mixed.flows import Langevin
from equilibrist.mixed.measures import Density, Particles
from equilibrist.mixed.truths import (
    circle_game,
    circle_moment,
    squared_distance_entropic,
    squared_distance_equilibrium,
    squared_distance_game,
    von_mises,
    von_mises_moment,
    von_mises_step,
)
from equilibrist.mixed.w2gan import Critics, Generators, MixedW2Gaussian
from equilibrist.theory import W2Gaussian

D = torch.float64


def _tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


# -- the circle -------------------------------------------------------------------------------------------


def test_circle_gap_is_the_sum_of_the_moments_as_brute_force_finds_it() -> None:
    rng = np.random.default_rng(0)
    game = circle_game()
    nu = Particles(
        torch.from_numpy(rng.uniform(0, 7, (5, 1))), torch.from_numpy(rng.normal(size=5))
    )
    mu = von_mises(_tensor(0.7, -1.1), Circle().grid(64))
    gap = game.gap(nu, mu)
    assert gap.exact
    fine = 2 * math.pi * np.arange(200_000) / 200_000
    x, y = nu.points[:, 0].numpy(), mu.points[:, 0].numpy()
    against_nu = nu.masses.numpy() @ np.cos(x[:, None] - fine)
    against_mu = mu.masses.numpy() @ np.cos(fine[None] - y[:, None])
    value = nu.masses.numpy() @ np.cos(x[:, None] - y) @ mu.masses.numpy()
    assert gap.value == pytest.approx(value, abs=1e-13)
    assert gap.y == pytest.approx(against_nu.max() - value, abs=1e-9)
    assert gap.x == pytest.approx(value - against_mu.min(), abs=1e-9)
    moments = float(circle_moment(nu).norm() + circle_moment(mu).norm())
    assert gap.total == pytest.approx(moments, abs=1e-13)
    assert gap.epsilon == max(gap.x, gap.y) < gap.total


def test_circle_best_responses_reach_what_they_say() -> None:
    game = circle_game()
    nu = Particles(_tensor(0.3, 2.0)[:, None], _tensor(0.2, 0.0))
    for reply, costs in (
        (game.best_y(nu), game.against_nu),
        (game.best_x(nu), game.against_mu),
    ):
        assert float(costs(reply.point[None], nu)) == pytest.approx(reply.value, abs=1e-14)
        assert 0 <= float(reply.point) < 2 * math.pi


def test_any_measure_without_first_coefficients_is_optimal_on_the_circle() -> None:
    game = circle_game()
    pair = Particles(_tensor(0.4, 0.4 + math.pi)[:, None])
    three = Particles(_tensor(0, 2 * math.pi / 3, 4 * math.pi / 3)[:, None])
    assert game.gap(pair, three).total < 1e-15
    assert game.gap(pair, Particles(_tensor(0.0)[:, None])).total == pytest.approx(1)
    assert game.optimal_value == 0


def test_von_mises_moment_is_that_of_the_density() -> None:
    for theta in (_tensor(0.0, 0.0), _tensor(1e-8, 0.0), _tensor(-2.0, 3.0)):
        weight = [
            quad(
                lambda a, f=f, theta=theta: (
                    f(a) * math.exp(theta[0] * math.cos(a) + theta[1] * math.sin(a))
                ),
                0,
                2 * math.pi,
                epsabs=1e-13,
            )[0]
            for f in (lambda a: 1.0, math.cos, math.sin)
        ]
        expected = np.array(weight[1:]) / weight[0]
        assert von_mises_moment(theta).numpy() == pytest.approx(expected, abs=1e-12)
        assert circle_moment(von_mises(theta, Circle().grid(64))).numpy() == pytest.approx(
            expected, abs=1e-12
        )
    assert torch.isfinite(von_mises_moment(_tensor(2000.0, 0.0))).all()


def test_von_mises_step_has_the_signs_of_a_minimiser_and_a_maximiser() -> None:
    nu, mu = von_mises_step(_tensor(0.0, 0.0), _tensor(2.0, 0.0), 0.5)
    assert nu[0] < 0  # x flees from mu's side
    assert mu.equal(_tensor(2.0, 0.0))
    nu, mu = von_mises_step(_tensor(2.0, 0.0), _tensor(0.0, 0.0), 0.5)
    assert mu[0] > 0  # y follows nu


# -- squared distance -------------------------------------------------------------------------------------


def test_squared_distance_equilibrium_and_its_neighbours() -> None:
    game = squared_distance_game()
    nu, mu = squared_distance_equilibrium()
    gap = game.gap(nu, mu)
    assert gap.exact
    assert gap.total == pytest.approx(0, abs=1e-15)
    assert gap.value == game.optimal_value == 0.25
    for a, p in ((0.6, 0.5), (0.5, 0.3), (0.2, 0.9)):
        off = game.gap(
            Particles(_tensor(a)[:, None]), Particles(mu.points, _tensor(1 - p, p).log())
        )
        # max_y (a - y)^2 - Var mu
        assert off.total == pytest.approx(max(a, 1 - a) ** 2 - p * (1 - p), abs=1e-14)
        assert off.x >= 0
        assert off.y >= 0
        assert off.total > 1e-3


def test_squared_distance_best_responses_match_a_search() -> None:
    game = squared_distance_game()
    law = Particles(_tensor(0.1, 0.35, 0.9)[:, None], _tensor(0.0, 0.5, -0.3))
    for exact, role in ((game.best_x(law), "x"), (game.best_y(law), "y")):
        found = game.search(role, law)
        assert found.value == pytest.approx(exact.value, abs=1e-12)
        assert float(found.point) == pytest.approx(float(exact.point), abs=1e-6)
        assert exact.exact
        assert not found.exact


@pytest.mark.parametrize("tau", [0.03, 0.2, 1.0])
def test_entropic_squared_distance_is_its_own_smoothed_best_response(tau: float) -> None:
    """The claim nu ~ e^{-(x-1/2)^2/tau}, mu ~ e^{(y-1/2)^2/tau} by adaptive quadrature, without the library's grids."""

    def nu(x: float) -> float:
        return math.exp(-((x - 0.5) ** 2) / tau)

    def mu(y: float) -> float:
        return math.exp(((y - 0.5) ** 2 - 0.25) / tau)

    def against(law, at: float) -> float:
        mass = quad(law, 0, 1, epsabs=1e-14, epsrel=1e-13)[0]
        return quad(lambda z: (at - z) ** 2 * law(z), 0, 1, epsabs=1e-14, epsrel=1e-13)[0] / mass

    for at in (0.0, 0.2, 0.7, 1.0):
        # log nu + f(., mu) / tau and log mu - f(nu, .) / tau are constant.
        x = math.log(nu(at)) + against(mu, at) / tau
        y = math.log(mu(at)) - against(nu, at) / tau
        assert x == pytest.approx(math.log(nu(0.5)) + against(mu, 0.5) / tau, abs=1e-10)
        assert y == pytest.approx(math.log(mu(0.5)) - against(nu, 0.5) / tau, abs=1e-10)
    mass = quad(nu, 0, 1, epsabs=1e-14)[0]
    found = squared_distance_entropic(Box().grid(60), tau)
    at = int(torch.argmin((found[0].points[:, 0] - 0.3).abs()))
    x = float(found[0].points[at, 0])
    assert float(found[0].log_density[at].exp()) == pytest.approx(nu(x) / mass, rel=1e-12)
    game = squared_distance_game()
    assert abs(game.entropic_gap(*found, tau)) < 1e-12
    assert game.entropic_gap(found[0], Density.uniform(found[1].grid), tau) > 1e-4 * min(tau, 1)


def test_entropic_squared_distance_wants_a_temperature() -> None:
    with pytest.raises(ValueError, match="temperature must be positive"):
        squared_distance_entropic(Box().grid(4), 0.0)


# -- the Gaussian W2GAN -----------------------------------------------------------------------------------

SETTINGS = [
    (1, 2.0, 0.5, 1.0),
    (1, 1.2, 0.7, 0.5),
    (2, 2.0, 0.5, 1.0),
    (3, 1.5, 0.3, 1.7),
    (4, 1.1, 1.0, 0.2),
]
SLACK = [(1, 1.2, 0.5, 1.0), (2, 1.3, 0.5, 3.0), (3, 1.05, 0.9, 1.0)]  # s^2 d <= d + t^2


def _random_generators(game: MixedW2Gaussian, rng: np.random.Generator, k: int) -> Generators:
    W = rng.normal(size=(k, game.d, game.d))
    W /= np.linalg.norm(W, 2, axis=(1, 2), keepdims=True) / rng.uniform(0.3, 1, (k, 1, 1))
    u = rng.normal(size=(k, game.d))
    u *= game.t * rng.uniform(0, 1, (k, 1)) / np.linalg.norm(u, axis=1, keepdims=True)
    return Generators(*map(torch.from_numpy, (W, u, rng.dirichlet(np.ones(k)))))


def _random_critics(game: MixedW2Gaussian, rng: np.random.Generator, k: int) -> Critics:
    A = rng.normal(size=(k, game.d, game.d))
    A = (A + A.transpose(0, 2, 1)) / 2
    top = np.linalg.eigvalsh(A)[:, -1]
    A -= (top - game.eta * rng.uniform(-0.5, 0.7, k))[:, None, None] * np.eye(game.d)
    b = rng.normal(size=(k, game.d))
    return Critics(*map(torch.from_numpy, (A, b, rng.dirichlet(np.ones(k)))))


@pytest.mark.parametrize("setting", SETTINGS)
def test_payoffs_are_those_of_the_closed_forms_and_of_the_game(setting) -> None:
    game, rng = MixedW2Gaussian(*setting), np.random.default_rng(1)
    d, s, eta, t = setting
    nu, mu = _random_generators(game, rng, 4), _random_critics(game, rng, 3)
    table = game.payoffs(nu, mu)
    theory, trained = W2Gaussian(d, s, eta, t), GaussianW2GAN(s, d, eta, t)
    for k in range(4):
        for j in range(3):
            assert float(table[k, j]) == pytest.approx(
                theory.value(nu.W[k], nu.u[k], mu.A[j], mu.b[j]), rel=1e-12, abs=1e-12
            )
            players = {
                "generator": {"W": nu.W[k], "u": nu.u[k]},
                "critic": {"A": mu.A[j], "b": mu.b[j]},
            }
            assert float(table[k, j]) == pytest.approx(
                float(trained.losses(players, {}, {})["generator"]), rel=1e-12, abs=1e-12
            )


def test_payoff_is_the_expectation_of_the_critic_less_its_c_transform() -> None:
    """d = 1: D^c(x) = max_x' D(x') - eta (x - x')^2 on a fine grid, expectations by Gauss-Hermite."""
    s, eta = 1.7, 0.6
    game = MixedW2Gaussian(1, s, eta, 1.0)
    w, u, a, b = 0.8, 0.4, 0.25, -0.3
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    fine = np.linspace(-60, 60, 240_001)

    def critic(x):
        return a * x**2 + b * x

    def transform(x: float) -> float:
        return float((critic(fine) - eta * (x - fine) ** 2).max())

    expected = weights @ critic(s * nodes) - weights @ [transform(w * z + u) for z in nodes]
    nu = Generators(_tensor(w)[None, None], _tensor(u)[None], _tensor(1.0))
    mu = Critics(_tensor(a)[None, None], _tensor(b)[None], _tensor(1.0))
    assert game.value(nu, mu) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("setting", SETTINGS[1:4])
def test_best_critic_against_a_mixture_is_a_stationary_maximum(setting) -> None:
    game, rng = MixedW2Gaussian(*setting), np.random.default_rng(2)
    nu = _random_generators(game, rng, 5)
    best = game.best_critic(nu)
    A, b = best.matrix[None].requires_grad_(), best.vector[None].requires_grad_()
    value = nu.weights @ game.payoffs(nu, Critics(A, b, _tensor(1.0)))[:, 0]
    assert value.item() == pytest.approx(best.value, rel=1e-12)
    for gradient in torch.autograd.grad(value, [A, b]):
        assert gradient.abs().max() < 1e-11
    others = _random_critics(game, rng, 2000)
    # Near ones too: concave, so a better one would show nearby.
    near = Critics(
        best.matrix + 1e-3 * (others.A - others.A.mean(0)),
        best.vector + 1e-3 * others.b,
        others.weights,
    )
    for tried in (others, near):
        assert float((nu.weights @ game.payoffs(nu, tried)).max()) < best.value
        # and no mixture of critics does better than its best member
        assert game.value(nu, tried) < best.value


def test_best_critic_of_a_pure_generator_is_the_known_one() -> None:
    game, theory = MixedW2Gaussian(3, 1.8, 0.5, 1.0), W2Gaussian(3, 1.8, 0.5, 1.0)
    nu = _random_generators(game, np.random.default_rng(3), 1)
    best = game.best_critic(nu)
    A, b = theory.best_critic(nu.W[0], nu.u[0])
    assert best.matrix.numpy() == pytest.approx(A, abs=1e-12)
    assert best.vector.numpy() == pytest.approx(b, abs=1e-12)
    assert best.value == pytest.approx(theory.max_value(nu.W[0], nu.u[0]), rel=1e-12)


def test_supremum_where_no_critic_attains_it() -> None:
    game, theory = MixedW2Gaussian(2, 1.8, 0.5, 1.0), W2Gaussian(2, 1.8, 0.5, 1.0)
    W = torch.diag(_tensor(1.0, 0.0))
    nu = Generators(W[None], torch.zeros(1, 2, dtype=D), _tensor(1.0))
    best = game.best_critic(nu)
    assert best.value == pytest.approx(theory.max_value(W, nu.u[0]))
    with pytest.raises(GameError, match="below eta I"):
        game.value(nu, Critics(best.matrix[None], best.vector[None], _tensor(1.0)))


def _descended(game: MixedW2Gaussian, mu: Critics, W: torch.Tensor, u: torch.Tensor) -> float:
    """V(., mu) after 300 projected gradient steps."""
    for _ in range(300):
        W, u = W.requires_grad_(), u.requires_grad_()
        cost = (game.payoffs(Generators(W[None], u[None], _tensor(1.0)), mu) @ mu.weights)[0]
        gradient = torch.autograd.grad(cost, [W, u])
        left, sigma, right = torch.linalg.svd(W.detach() - 0.3 * gradient[0])
        W = (left * sigma.clamp(max=1)) @ right
        u = u.detach() - 0.3 * gradient[1]
        u = u * (game.t / u.norm().clamp(min=game.t))
    return float(cost.detach())


@pytest.mark.parametrize("setting", [(1, 2.0, 0.5, 1.0), (2, 1.5, 0.5, 1.0), (3, 1.5, 0.3, 1.7)])
def test_best_generator_against_a_mixture_of_critics_beats_every_other(setting) -> None:
    game, rng = MixedW2Gaussian(*setting), np.random.default_rng(4)
    for k in (1, 3):
        mu = _random_critics(game, rng, k)
        best = game.best_generator(mu)
        pure = Generators(best.matrix[None], best.vector[None], _tensor(1.0))
        assert game.value(pure, mu) == pytest.approx(best.value, rel=1e-12)
        game.gap(pure, mu)  # feasible
        tried = _random_generators(game, rng, 4000)
        assert float((game.payoffs(tried, mu) @ mu.weights).min()) >= best.value - 1e-12
        if k == 3:  # descent from the best of these, projected, ends where the closed form is
            start = (game.payoffs(tried, mu) @ mu.weights).argmin()
            cost = _descended(game, mu, tried.W[start].clone(), tried.u[start].clone())
            assert cost == pytest.approx(best.value, abs=1e-5)
        if k == 1:
            theory = W2Gaussian(*setting).best_generator(mu.A[0], mu.b[0])
            assert best.value == pytest.approx(theory.value, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("setting", SETTINGS + SLACK)
def test_mixed_equilibrium_has_no_gap_and_the_max_min_value(setting) -> None:
    game, theory = MixedW2Gaussian(*setting), W2Gaussian(*setting)
    d, s, eta, t = setting
    assert game.binding is (setting in SETTINGS)
    for profile in (game.equilibrium(), game.equilibrium(nodes=5)):
        gap = game.gap(*profile)
        assert gap.exact
        assert abs(gap.x) < 1e-12
        assert abs(gap.y) < 1e-12
        assert gap.value == pytest.approx(game.optimal_value, abs=1e-12)
    assert game.optimal_value == pytest.approx(theory.max_min_value, abs=1e-13)
    if game.binding:
        stated = eta * (s * math.sqrt(d) - math.sqrt(d + t**2)) ** 2
        assert game.optimal_value == pytest.approx(stated) != 0
        # below the pure min-max value, above 0: mixing pays the generator
        assert 0 < game.optimal_value < theory.optimal_value
        assert game.radius == t
    else:
        assert game.optimal_value == 0
        assert game.radius <= t


def test_points_on_the_axes_have_the_moments_of_the_sphere() -> None:
    game = MixedW2Gaussian(3, 2.0, 0.5, 1.4)
    for nu in (game.equilibrium()[0], game.equilibrium(nodes=6)[0]):
        m, K = game.moments(nu)
        assert m.abs().max() < 1e-14
        assert (K - (1 + 1.4**2 / 3) * torch.eye(3, dtype=D)).abs().max() < 1e-14
        assert nu.u.norm(dim=1).numpy() == pytest.approx(1.4)
    assert len(game.equilibrium()[0].u) == 6


@pytest.mark.parametrize("setting", SETTINGS + SLACK)
def test_gap_of_the_pure_pair_is_the_gain_of_the_shift(setting) -> None:
    game = MixedW2Gaussian(*setting)
    _, s, eta, t = setting
    gap = game.gap(*game.pure())
    assert abs(gap.y) < 1e-12
    assert gap.x == pytest.approx(eta * (s - 1) * t**2, rel=1e-10)
    assert gap.epsilon == gap.x


def test_perturbed_profiles_have_a_gap() -> None:
    game = MixedW2Gaussian(2, 2.0, 0.5, 1.0)
    nu, mu = game.equilibrium()
    half = _tensor(0.5, 0.5)
    one_axis = Generators(nu.W[:2], torch.stack([nu.u[0], -nu.u[0]]), half)
    shorter = Generators(nu.W, 0.9 * nu.u, nu.weights)
    uneven = Generators(nu.W, nu.u, _tensor(0.4, 0.3, 0.2, 0.1))
    shrunk = Generators(0.95 * nu.W, nu.u, nu.weights)
    for other in (one_axis, shorter, uneven, shrunk):
        gap = game.gap(other, mu)
        assert gap.y > 1e-4
        assert gap.total > 1e-4
    for critic in (
        Critics(mu.A + 0.05 * torch.eye(2, dtype=D), mu.b, mu.weights),
        Critics(mu.A, mu.b + 0.1, mu.weights),
    ):
        gap = game.gap(nu, critic)
        assert gap.y > 1e-4
        assert gap.total > 1e-4
    # A mixture of critics around mu*: the same mean, and worse, since V is strictly concave in (A, b).
    spread = 0.1 * torch.eye(2, dtype=D)
    mixed = Critics(torch.cat([mu.A - spread, mu.A + spread]), torch.zeros(2, 2, dtype=D), half)
    assert game.gap(nu, mixed).y > 1e-4


def test_quadratic_critics_see_only_moments_and_others_see_more() -> None:
    """Two mixtures with one value against every quadratic critic: the equilibrium's law is not unique."""
    game = MixedW2Gaussian(2, 2.0, 0.5, 1.0)
    axes, sphere = game.equilibrium()[0], game.equilibrium(nodes=7)[0]
    critics = _random_critics(game, np.random.default_rng(5), 20)
    one = axes.weights @ game.payoffs(axes, critics)
    other = sphere.weights @ game.payoffs(sphere, critics)
    assert (one - other).abs().max() < 1e-12
    fourth = [float(nu.weights @ nu.u[:, 0] ** 4) for nu in (axes, sphere)]
    assert fourth == pytest.approx([1 / 2, 3 / 8])


def _played(game: MixedW2Gaussian, generators: int, critics: int) -> tuple[float, float]:
    """(gap, value) after gradient descent-ascent of particles from a random start."""
    played, rng = game.game(), np.random.default_rng(0)
    start = (
        Particles(played.x_domain.sample(generators, rng)),
        Particles(played.y_domain.sample(critics, rng)),
    )
    trace = Langevin(0.05, 0.0).run(played, 500, start=start, record=[500])
    assert trace.exact
    return float(trace.gap_last[0]), played.value(*trace.last)


def test_one_generator_ends_at_the_pure_pair_and_a_mixture_at_the_equilibrium() -> None:
    game = MixedW2Gaussian(2, 2.0, 0.5, 1.0)
    gap, value = _played(game, 1, 1)
    assert gap == pytest.approx(0.5, abs=1e-3)  # eta (s - 1) t^2
    assert value == pytest.approx(W2Gaussian(2, 2.0, 0.5, 1.0).optimal_value, abs=1e-6)
    gap, value = _played(game, 24, 2)
    assert 0 <= gap < 2e-3
    assert value == pytest.approx(game.optimal_value, abs=1e-3)


def test_the_game_of_particles_has_the_payoffs_and_the_gaps_of_the_mixtures() -> None:
    mixed, rng = MixedW2Gaussian(2, 1.6, 0.5, 0.8), np.random.default_rng(6)
    game = mixed.game()
    x = game.x_domain.sample(5, rng)
    y = game.y_domain.sample(3, rng)
    nu = Generators(
        x[:, :4].reshape(5, 2, 2), x[:, 4:], torch.from_numpy(rng.dirichlet(np.ones(5)))
    )
    mu = Critics(y[:, :4].reshape(3, 2, 2), y[:, 4:], torch.from_numpy(rng.dirichlet(np.ones(3))))
    one = mixed.gap(nu, mu)  # so the samples are feasible
    other = game.gap(Particles(x, nu.weights.log()), Particles(y, mu.weights.log()))
    assert other.exact
    assert other.value == pytest.approx(one.value, rel=1e-12)
    assert other.x == pytest.approx(one.x, rel=1e-12)
    highest = float(torch.linalg.eigvalsh(mixed.best_critic(nu).matrix)[-1])
    assert highest < 0.5 * (1 - 0.1 / 1.6)  # the ceiling leaves room, so
    assert other.y == pytest.approx(one.y, rel=1e-12)
    wild = 10 * torch.from_numpy(rng.normal(size=(4, 6)))
    near = game.x_domain.nearest(wild)
    mixed.gap(
        Generators(near[:, :4].reshape(4, 2, 2), near[:, 4:], torch.full((4,), 0.25, dtype=D)), mu
    )
    assert game.x_domain.nearest(near).numpy() == pytest.approx(near.numpy())
    assert game.x_domain.nearest(x).numpy() == pytest.approx(x.numpy())
    top = torch.linalg.eigvalsh(game.y_domain.nearest(wild)[:, :4].reshape(4, 2, 2))[:, -1]
    assert top.max() <= 0.5 * (1 - 0.1 / 1.6) + 1e-12


def test_best_critic_below_a_ceiling() -> None:
    mixed, rng = MixedW2Gaussian(2, 2.0, 0.5, 1.0), np.random.default_rng(7)
    W = torch.diag(_tensor(0.9, 0.05))
    nu = Generators(W[None], _tensor(0.3, -0.2)[None], _tensor(1.0))
    free, cut = mixed.best_critic(nu), mixed.best_critic(nu, ceiling=0.4)
    assert cut.value < free.value
    assert torch.linalg.eigvalsh(cut.matrix).max() <= 0.4 + 1e-14
    at = Critics(cut.matrix[None], cut.vector[None], _tensor(1.0))
    assert mixed.value(nu, at) == pytest.approx(cut.value, rel=1e-12)
    for _ in range(500):
        change = 0.02 * torch.from_numpy(rng.normal(size=(2, 2)))
        values, vectors = torch.linalg.eigh(cut.matrix + change + change.mT)
        A = (vectors * values.clamp(max=0.4)) @ vectors.mT
        b = cut.vector + 0.02 * torch.from_numpy(rng.normal(size=2))
        assert mixed.value(nu, Critics(A[None], b[None], _tensor(1.0))) <= cut.value


def test_mixed_w2_refuses_what_does_not_fit() -> None:
    for bad, match in (
        ({"s": 0.7}, "s must be above 1"),
        ({"s": 1.0}, "s must be above 1"),
        ({"d": 0}, "d must be a whole number"),
        ({"eta": 0.0}, "eta must be positive"),
        ({"t": -1.0}, "t must not be negative"),
    ):
        with pytest.raises(ValueError, match=match):
            MixedW2Gaussian(**bad)
    game = MixedW2Gaussian(2, 2.0, 0.5, 1.0)
    nu, mu = game.equilibrium()
    with pytest.raises(GameError, match="sum to 1"):
        game.value(nu._replace(weights=2 * nu.weights), mu)
    with pytest.raises(GameError, match="not be negative"):
        game.value(nu._replace(weights=_tensor(1.5, -0.5, 0, 0)), mu)
    with pytest.raises(GameError, match="need matrices"):
        game.value(nu._replace(u=nu.u[:, :1]), mu)
    with pytest.raises(GameError, match="at most t = 1"):
        game.gap(nu._replace(u=1.1 * nu.u), mu)
    with pytest.raises(GameError, match=r"sigma_max\(W\) = 1.1"):
        game.gap(nu._replace(W=1.1 * nu.W), mu)
    for ceiling in (0.5, 0.1):
        with pytest.raises(ValueError, match="ceiling must lie in"):
            game.game(ceiling)
    with pytest.raises(GameError, match="no quadrature rule"):
        game.game().x_domain.grid(3)
    with pytest.raises(ValueError, match="dim must be at least 1"):
        Projected(0, torch.abs)
    with pytest.raises(GameError, match="below eta I"):
        game.gap(nu, mu._replace(A=0.5 * torch.eye(2, dtype=D)[None]))
