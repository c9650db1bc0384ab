"""Domains, measures, payoffs and the mirror steps on grids, against closed forms."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad

from equilibrist.errors import GameError
from equilibrist.mixed import payoff as payoff_module
from equilibrist.mixed.domains import Box, Circle, Space, Sphere
from equilibrist.mixed.flows import GridDescent, GridProx
from equilibrist.mixed.measures import Density, DensityAverage, Particles, Reservoir
from equilibrist.mixed.payoff import PayoffGame, opponents, smoothness
from equilibrist.mixed.truths import (
    circle_game,
    circle_moment,
    squared_distance_entropic,
    squared_distance_game,
    von_mises,
    von_mises_moment,
    von_mises_step,
)

D = torch.float64


def _tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# -- domains ----------------------------------------------------------------------------------------------


def test_box_rule_integrates_polynomials() -> None:
    nodes, weights = Box((-1.0, 0.0), (2.0, 0.5)).grid(4)
    assert nodes.shape == (16, 2)
    assert float(weights.sum()) == pytest.approx(1.5)
    found = float(weights @ (nodes[:, 0] ** 7 * nodes[:, 1] ** 6))
    assert found == pytest.approx((2**8 - 1) / 8 * 0.5**7 / 7, rel=1e-13)


def test_circle_rule_is_exact_below_its_size_and_not_at_it() -> None:
    nodes, weights = Circle().grid(9)
    for k in range(1, 9):
        assert abs(float(weights @ torch.cos(k * nodes[:, 0]))) < 1e-14
    assert float(weights @ torch.cos(9 * nodes[:, 0])) == pytest.approx(2 * math.pi)


@pytest.mark.parametrize("dim", [1, 2, 3, 4, 5])
def test_sphere_rule_has_the_area_and_the_moments(dim: int) -> None:
    r = 1.3
    nodes, weights = Sphere(dim, r).grid(6)
    area = 2 * math.pi ** (dim / 2) / math.gamma(dim / 2) * r ** (dim - 1)
    assert float(weights.sum()) == pytest.approx(area, rel=1e-13)
    assert nodes.norm(dim=1).numpy() == pytest.approx(r)
    assert (weights @ nodes).abs().max() < 1e-12
    second = torch.einsum("n,ni,nj->ij", weights, nodes, nodes) / area
    assert (second - r**2 / dim * torch.eye(dim, dtype=D)).abs().max() < 1e-13
    fourth = (weights @ nodes**4 / area).numpy()
    assert fourth == pytest.approx(3 * r**4 / (dim * (dim + 2)))


def test_space_rule_is_a_truncation_to_the_cube() -> None:
    nodes, weights = Space(2, reach=9.0).grid(60)
    law = torch.exp(-nodes.square().sum(1) / 2) / (2 * math.pi)
    assert float(weights @ law) == pytest.approx(1, abs=1e-9)
    near = Space(1, reach=1.0).grid(30)
    inside = float(near.weights @ torch.exp(-(near.nodes[:, 0] ** 2) / 2)) / math.sqrt(2 * math.pi)
    assert inside == pytest.approx(math.erf(1 / math.sqrt(2)), rel=1e-12)


def test_moves_reflect_as_often_as_it_takes_or_project() -> None:
    points, step = (
        _tensor(0.9, 0.9, 0.1, 0.5, 0.5)[:, None],
        _tensor(0.3, 1.3, -0.4, 7.25, 0.1)[:, None],
    )
    reflected = Box().move(points, step)[:, 0]
    assert reflected.numpy() == pytest.approx([0.8, 0.2, 0.3, 0.25, 0.6])
    projected = Box(boundary="project").move(points, step)[:, 0]
    assert projected.numpy() == pytest.approx([1, 1, 0, 1, 0.6])
    shifted = Box((2.0,), (4.0,)).move(
        _tensor(3.5)[:, None], _tensor(0.25)[:, None], _tensor(0.75)[:, None]
    )
    assert float(shifted) == pytest.approx(3.5)
    assert Box().move(_tensor(0.2)[:, None], _tensor(-0.2 - 1e-18)[:, None]).min() >= 0


def test_reflected_noise_keeps_the_uniform_law_and_projected_does_not() -> None:
    start = Box((0.0, 0.0), (1.0, 2.0)).sample(40_000, _rng())
    noise = 0.7 * torch.from_numpy(_rng(1).normal(size=start.shape))
    moved = Box((0.0, 0.0), (1.0, 2.0)).move(start, torch.zeros_like(start), noise)
    share = np.histogram(moved[:, 1], bins=10, range=(0, 2))[0] / 40_000
    assert np.abs(share - 0.1).max() < 0.006  # 4 standard deviations
    stuck = Box((0.0, 0.0), (1.0, 2.0), "project").move(start, torch.zeros_like(start), noise)
    assert float((stuck[:, 1] == 0).double().mean()) > 0.1


def test_sphere_moves_are_tangent_and_return() -> None:
    sphere = Sphere(3, 2.0)
    points = sphere.sample(50, _rng())
    assert sphere.move(points, 5 * points).numpy() == pytest.approx(points.numpy())
    direction = 1e-5 * torch.from_numpy(_rng(2).normal(size=(50, 3)))
    moved = sphere.move(points, direction)
    assert moved.norm(dim=1).numpy() == pytest.approx(2.0)
    tangent = direction - (direction * points).sum(1, keepdim=True) * points / 4
    assert (moved - points - tangent).abs().max() < 1e-9
    two = Sphere(1, 0.7).sample(20, _rng())
    assert two.min() < 0 < two.max()
    assert two.abs().numpy() == pytest.approx(0.7)
    assert Sphere(1, 0.7).move(two, torch.ones_like(two)).numpy() == pytest.approx(two.numpy())


def test_circle_wraps() -> None:
    moved = Circle().move(_tensor(0.1, 6.2, 0.0)[:, None], _tensor(-0.2, 0.2, -1e-18)[:, None])
    assert moved[:, 0].numpy() == pytest.approx([2 * math.pi - 0.1, 6.4 - 2 * math.pi, 0.0])
    assert (moved < 2 * math.pi).all()


@pytest.mark.parametrize(
    "domain", [Box((-1.0, 2.0), (0.0, 5.0)), Circle(), Sphere(3, 2.0), Space(2, scale=0.3)]
)
def test_samples_have_the_moments_of_the_law(domain) -> None:
    points = domain.sample(20_000, _rng())
    assert points.shape == (20_000, domain.dim)
    assert points.dtype == D
    assert domain.nearest(points).sub(points).abs().max() < 1e-14
    if isinstance(domain, Space):
        assert points.std(0).numpy() == pytest.approx(0.3, rel=0.03)
        return
    uniform = Density.uniform(domain.grid(12))
    for power in (1, 2):
        expected = uniform.mean(uniform.points**power)
        if isinstance(domain, Circle):
            expected = _tensor(math.pi, 4 * math.pi**2 / 3)[power - 1 : power]
        spread = (points**power).std(0) / math.sqrt(20_000)
        assert ((points**power).mean(0) - expected).abs().div(spread).max() < 4.5
    assert domain.sample(3, _rng(7)).equal(domain.sample(3, _rng(7)))


def test_domains_refuse_what_is_no_set() -> None:
    for make, match in (
        (lambda: Box((0.0,), (0.0,)), "must lie below"),
        (lambda: Box((0.0,), (math.inf,)), "must lie below"),
        (lambda: Box((0.0, 1.0), (1.0,)), "same number"),
        (lambda: Box((), ()), "at least 1"),
        (lambda: Box(boundary="absorb"), "reflect"),
        (lambda: Sphere(0), "at least 1"),
        (lambda: Sphere(2, -1.0), "radius must be positive"),
        (lambda: Space(0), "at least 1"),
        (lambda: Space(1, reach=0.0), "reach must be positive"),
        (lambda: Box().grid(0), "at least 1"),
        (lambda: Box((0.0,) * 9, (1.0,) * 9).grid(9), "more than"),
    ):
        with pytest.raises(ValueError, match=match):
            make()
    with pytest.raises(GameError, match="centre"):
        Sphere(2).nearest(torch.zeros(1, 2, dtype=D))


# -- measures ---------------------------------------------------------------------------------------------


def test_density_normalises_and_integrates() -> None:
    grid = Space(1, reach=12.0).grid(80)
    normal = Density(grid, 17.0 - (grid.nodes[:, 0] - 1) ** 2 / (2 * 0.49))
    assert float(normal.masses.sum()) == pytest.approx(1)
    assert float(normal.mean(lambda x: x[:, 0])) == pytest.approx(1, rel=1e-12)
    assert float(normal.mean((grid.nodes - 1).square())) == pytest.approx(0.49, rel=1e-10)
    assert normal.entropy() == pytest.approx(0.5 * math.log(2 * math.pi * math.e * 0.49), rel=1e-10)
    other = Density(grid, -(grid.nodes[:, 0] ** 2) / 2)
    expected = 0.5 * (0.49 + 1 - 1 - math.log(0.49))  # KL(N(1, 0.49) || N(0, 1))
    assert normal.divergence(other) == pytest.approx(expected, rel=1e-9)
    assert Density.uniform(Box((0.0,), (3.0,)).grid(5)).entropy() == pytest.approx(math.log(3))


def test_density_with_empty_nodes() -> None:
    grid = Box().grid(4)
    half = Density(grid, _tensor(0, 0, -math.inf, -math.inf))
    assert half.entropy() == pytest.approx(math.log(0.5))
    assert half.divergence(Density.uniform(grid)) == pytest.approx(math.log(2))
    assert half.divergence(half) == 0
    assert (half.sample(200, _rng()) < 0.5).all()


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_tilted_is_the_minimiser_it_names(temperature: float) -> None:
    grid = Box().grid(12)
    rng = _rng()
    rho = Density(grid, torch.from_numpy(rng.normal(size=12)))
    h = torch.from_numpy(rng.normal(size=12))

    def objective(law: Density) -> float:
        cost = float(law.mean(h)) - temperature * law.entropy()
        return 0.7 * cost + law.divergence(rho)

    best = rho.tilted(h, 0.7, temperature)
    for _ in range(20):
        change = 1e-3 * torch.from_numpy(rng.normal(size=12))
        assert objective(Density(grid, best.log_density + change)) > objective(best)
    if temperature == 0:
        assert best.masses.numpy() == pytest.approx(
            (rho.masses * (-0.7 * h).exp() / (rho.masses * (-0.7 * h).exp()).sum()).numpy()
        )


def test_particles_weights_and_effective_size() -> None:
    points = torch.arange(4, dtype=D)[:, None]
    assert Particles(points).effective_size == pytest.approx(4)
    one = Particles(points, _tensor(-math.inf, 3.0, -math.inf, -math.inf))
    assert one.effective_size == pytest.approx(1)
    assert float(one.mean(points)) == 1
    tilted = Particles(points).reweighted(points[:, 0], 0.5)
    expected = np.exp(-0.5 * np.arange(4))
    assert tilted.masses.numpy() == pytest.approx(expected / expected.sum())
    assert tilted.effective_size == pytest.approx(expected.sum() ** 2 / (expected**2).sum())
    far = Particles(points, _tensor(-1e5, -1e5 + 1, -2e5, -1e5))  # no underflow
    assert float(far.masses.sum()) == pytest.approx(1)


def test_systematic_resampling_rounds_each_share() -> None:
    weights = torch.from_numpy(_rng().dirichlet(np.full(20, 0.5)))
    cloud = Particles(torch.arange(20, dtype=D)[:, None], weights.log())
    for seed in range(20):
        again = cloud.resampled(_rng(seed), 50)
        assert again.effective_size == pytest.approx(50)
        counts = np.bincount(again.points[:, 0].long(), minlength=20)
        assert (np.abs(counts - 50 * weights.numpy()) < 1).all()
    assert len(cloud.resampled(_rng()).points) == 20
    mean = np.mean([cloud.resampled(_rng(s), 7).points.mean().item() for s in range(2000)])
    assert mean == pytest.approx(float(cloud.mean(cloud.points)), abs=0.05)


def test_sampling_is_in_proportion_to_weight() -> None:
    cloud = Particles(torch.arange(4, dtype=D)[:, None], _tensor(0.1, 0.0, 0.6, 0.3).log())
    counts = np.bincount(cloud.sample(20_000, _rng())[:, 0].long(), minlength=4) / 20_000
    assert np.abs(counts - [0.1, 0, 0.6, 0.3]).max() < 0.014
    assert counts[1] == 0


def test_density_average_is_the_mean_of_the_masses() -> None:
    grid = Box().grid(6)
    laws = [Density(grid, torch.from_numpy(_rng(s).normal(size=6))) for s in range(5)]
    mean = DensityAverage()
    for law in laws:
        mean.add(law)
    expected = torch.stack([law.masses for law in laws]).mean(0)
    assert (mean.value.masses - expected).abs().max() < 1e-15


def test_reservoir_holds_every_time_alike() -> None:
    held = Reservoir(20_000)
    for t in range(8):
        # Weights of a quarter and three quarters on 2 t and 2 t + 1.
        held.add(Particles(_tensor(2 * t, 2 * t + 1)[:, None], _tensor(0.25, 0.75).log()), _rng(t))
    counts = np.bincount(held.value.points[:, 0].long(), minlength=16) / 20_000
    assert np.abs(counts - np.tile([0.25, 0.75], 8) / 8).max() < 4.5 * math.sqrt(0.09 / 20_000)
    before = held.value
    held.add(Particles(_tensor(99.0)[:, None]), _rng(9))
    assert before.points.max() < 16  # a value is not overwritten later
    with pytest.raises(ValueError, match="at least 1"):
        Reservoir(0)


def test_measures_refuse_what_is_no_law() -> None:
    grid = Box().grid(3)
    points = torch.zeros(3, 1, dtype=D)
    for make, match in (
        (lambda: Density(grid, torch.zeros(2, dtype=D)), "one number per node"),
        (lambda: Density(grid, torch.full((3,), -math.inf, dtype=D)), "mass is -inf"),
        (lambda: Density(grid, _tensor(0, math.nan, 0)), "mass is nan"),
        (lambda: Density(grid, _tensor(0, math.inf, 0)), "mass is inf"),
        (lambda: Particles(torch.zeros(3, dtype=D)), r"shape \[N, d\]"),
        (lambda: Particles(torch.zeros(0, 1, dtype=D)), r"shape \[N, d\]"),
        (lambda: Particles(points / 0), "finite"),
        (lambda: Particles(points, torch.zeros(2, dtype=D)), "one per point"),
        (lambda: Particles(points, torch.full((3,), -math.inf, dtype=D)), "total weight is -inf"),
        (lambda: Particles(points).mean(torch.zeros(2, dtype=D)), "one per point"),
    ):
        with pytest.raises(GameError, match=match):
            make()


# -- payoffs ----------------------------------------------------------------------------------------------


def _bumpy() -> PayoffGame:
    """A payoff without symmetry, x in the plane and y on a segment."""

    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.sin(3 * x[..., 0] + y[..., 0]) * x[..., 1] + (x[..., 0] - y[..., 0]) ** 2 / 3

    return PayoffGame(f, Box((-1.0, -1.0), (1.0, 1.0)), Box((-2.0,), (2.0,)))


def test_payoffs_and_gradients_against_a_loop_and_closed_forms(monkeypatch) -> None:
    game = _bumpy()
    nu = Particles(game.x_domain.sample(7, _rng()), torch.from_numpy(_rng(1).normal(size=7)))
    mu = Density(game.y_domain.grid(5), torch.from_numpy(_rng(2).normal(size=5)))
    table = np.array(
        [
            [math.sin(3 * x[0] + y) * x[1] + (x[0] - y) ** 2 / 3 for y in mu.points[:, 0].tolist()]
            for x in nu.points.tolist()
        ]
    )
    p, q = nu.masses.numpy(), mu.masses.numpy()
    grad_x = np.array(
        [
            [
                sum(
                    w * (3 * math.cos(3 * a + y) * b + 2 * (a - y) / 3)
                    for w, y in zip(q, mu.points[:, 0].tolist(), strict=True)
                ),
                sum(
                    w * math.sin(3 * a + y)
                    for w, y in zip(q, mu.points[:, 0].tolist(), strict=True)
                ),
            ]
            for a, b in nu.points.tolist()
        ]
    )
    for pairs in (2**17, 10, 1):  # blocks of rows change nothing
        monkeypatch.setattr(payoff_module, "PAIRS", pairs)
        assert game.matrix(nu.points, mu.points).numpy() == pytest.approx(table)
        assert game.against_mu(nu.points, mu).numpy() == pytest.approx(table @ q)
        assert game.against_nu(mu.points, nu).numpy() == pytest.approx(p @ table)
        assert game.value(nu, mu) == pytest.approx(p @ table @ q)
        assert game.gradient("x", nu.points, mu).numpy() == pytest.approx(grad_x)
        up, down = (game.against_nu(mu.points + h, nu) for h in (1e-6, -1e-6))
        assert game.gradient("y", mu.points, nu)[:, 0].numpy() == pytest.approx(
            ((up - down) / 2e-6).numpy(), rel=1e-7
        )


def test_random_opponents_are_unbiased() -> None:
    game = _bumpy()
    nu = Particles(game.x_domain.sample(3, _rng()))
    mu = Particles(game.y_domain.sample(6, _rng(3)), torch.from_numpy(_rng(1).normal(size=6)))
    faced = opponents(mu, 3, 20_000, _rng(5))
    assert faced.shape == (3, 20_000, 1)
    assert game.against_mu(nu.points, mu, faced).numpy() == pytest.approx(
        game.against_mu(nu.points, mu).numpy(), abs=0.03
    )
    assert game.gradient("x", nu.points, mu, faced).numpy() == pytest.approx(
        game.gradient("x", nu.points, mu).numpy(), abs=0.06
    )
    own = faced[:, :1]
    assert game.against_mu(nu.points, mu, own).numpy() == pytest.approx(
        game.payoff(nu.points, own[:, 0]).numpy()
    )


def test_a_payoff_that_ignores_a_player_has_no_gradient_there() -> None:
    game = PayoffGame(lambda x, y: x[..., 0] ** 2, Box(), Box())
    nu, mu = (Particles(Box().sample(4, _rng(s))) for s in (0, 1))
    assert not game.gradient("y", mu.points, nu).any()
    assert game.gradient("x", nu.points, mu).numpy() == pytest.approx(2 * nu.points.numpy())
    assert game.against_nu(mu.points, nu).numpy() == pytest.approx(float(nu.points.square().mean()))


def test_payoffs_of_a_wrong_shape_are_refused() -> None:
    kept = PayoffGame(lambda x, y: (x - y).square(), Box(), Box())
    law = Particles(Box().sample(4, _rng()))
    with pytest.raises(GameError, match="reduce the last dimension"):
        kept.matrix(law.points, law.points)
    with pytest.raises(GameError, match="reduce the last dimension"):
        kept.against_mu(law.points, law)
    with pytest.raises(GameError, match="give k opponents to each"):
        circle_game().against_mu(law.points, law, torch.zeros(3, 2, 1, dtype=D))


def test_search_finds_the_best_of_many_hills_and_gaps_are_lower_bounds() -> None:
    def f(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (torch.sin(9 * y) + y + 0 * x).squeeze(-1) + (x[..., 0] - 0.3).square()

    game = PayoffGame(f, Box(), Box((0.0,), (3.0,)))
    law = Particles(_tensor(0.8)[:, None])
    found = game.search("y", law)
    fine = torch.linspace(0, 3, 3_000_001, dtype=D)
    best = float((torch.sin(9 * fine) + fine).max()) + 0.25
    assert found.value == pytest.approx(best, abs=1e-10)
    assert game.search("x", law).value == pytest.approx(math.sin(7.2) + 0.8, abs=1e-12)
    coarse = game.gap(law, law, nodes=2, rounds=0)
    fine_gap = game.gap(law, law)
    assert 0 <= coarse.total < fine_gap.total
    assert fine_gap.y == pytest.approx(best - float(f(_tensor(0.8), _tensor(0.8))), abs=1e-9)
    assert not fine_gap.exact
    # What it plays itself is a candidate: a part is never negative.
    assert game.gap(law, Particles(found.point[None]), nodes=2, rounds=0).y >= 0


def test_search_works_on_a_sphere() -> None:
    a = _tensor(0.3, -0.5, 0.8)
    game = PayoffGame(lambda x, y: (y * a).sum(-1) + 0 * x[..., 0], Box(), Sphere(3, 2.0))
    found = game.search("y", Particles(_tensor(0.5)[:, None]), nodes=6)
    assert found.value == pytest.approx(2 * float(a.norm()), abs=1e-10)
    assert found.point.numpy() == pytest.approx((2 * a / a.norm()).numpy(), abs=1e-5)


def test_search_agrees_with_exact_best_responses_on_the_circle() -> None:
    exact = circle_game()
    searched = PayoffGame(exact.payoff, exact.x_domain, exact.y_domain)
    nu, mu = (von_mises(_tensor(*t), Circle().grid(32)) for t in ((0.5, 1.0), (-2.0, 0.1)))
    one, other = exact.gap(nu, mu), searched.gap(nu, mu, nodes=16)
    assert other.x == pytest.approx(one.x, abs=1e-11)
    assert other.y == pytest.approx(one.y, abs=1e-11)


def test_entropic_gap_against_adaptive_quadrature() -> None:
    game, tau, grid = squared_distance_game(), 0.4, Box().grid(30)
    nu = Density(grid, grid.nodes[:, 0])
    mu = Density.uniform(grid)
    # E_mu (x - y)^2 = (x - 1/2)^2 + 1/12; E_nu (x - y)^2 = (y - m)^2 + v with nu ~ e^x.
    m = 1 / (math.e - 1)
    second = (math.e - 2) / (math.e - 1)
    v = second - m**2
    free = math.log(quad(lambda x: math.exp(-((x - 0.5) ** 2 + 1 / 12) / tau), 0, 1)[0])
    free += math.log(quad(lambda y: math.exp(((y - m) ** 2 + v) / tau), 0, 1)[0])
    entropy = math.log(math.e - 1) - m
    assert game.entropic_gap(nu, mu, tau) == pytest.approx(tau * (free - entropy), rel=1e-11)


def test_smoothness_is_a_quarter_of_the_largest_second_difference() -> None:
    M = _rng().normal(size=(5, 6))
    largest = max(
        abs(M[i, j] - M[k, j] - M[i, h] + M[k, h])
        for i, k in itertools.product(range(5), repeat=2)
        for j, h in itertools.product(range(6), repeat=2)
    )
    found = smoothness(torch.from_numpy(M))
    assert found == pytest.approx(largest / 4)
    assert found <= (M.max() - M.min()) / 2
    # What one player alone decides does not count.
    assert smoothness(torch.from_numpy(M + 100 * np.arange(6))) == pytest.approx(found)
    nodes = Circle().grid(64).nodes
    assert smoothness(circle_game().matrix(nodes, nodes)) == pytest.approx(1)


# -- mirror steps on grids --------------------------------------------------------------------------------

START = (_tensor(1.5, -0.3), _tensor(0.2, 0.9))


def _von_mises_start(n: int = 64) -> tuple[Density, Density]:
    grid = Circle().grid(n)
    return von_mises(START[0], grid), von_mises(START[1], grid)


def test_descent_on_the_circle_follows_the_von_mises_recursion() -> None:
    nu, mu = START
    moments = []
    for _ in range(150):
        moments.append(von_mises_moment(nu))
        nu, mu = von_mises_step(nu, mu, 0.2)
    trace = GridDescent(0.2).run(circle_game(), 150, start=_von_mises_start(), record=[150])
    for theta, law in zip((nu, mu), trace.last, strict=True):
        expected = von_mises(theta, law.grid)
        assert (law.log_density - expected.log_density).abs().max() < 1e-10
        assert (circle_moment(law) - von_mises_moment(theta)).abs().max() < 1e-10
    # The average of the first 150 iterates, the start included.
    assert (circle_moment(trace.average[0]) - torch.stack(moments).mean(0)).abs().max() < 1e-10
    assert float(trace.gap_last[-1]) == pytest.approx(
        float(von_mises_moment(nu).norm() + von_mises_moment(mu).norm()), abs=1e-10
    )


def test_players_move_at_once() -> None:
    """With alternation mu would answer the new nu, and the recursion would differ at once."""
    trace = GridDescent(0.2).run(circle_game(), 1, start=_von_mises_start())
    mu = START[1] + 0.2 * von_mises_moment(START[0])
    assert (
        trace.last[1].log_density - von_mises(mu, Circle().grid(64)).log_density
    ).abs().max() < 1e-13
    assert trace.times.tolist() == [1]
    assert (trace.average[0].masses - _von_mises_start()[0].masses).abs().max() < 1e-15


@pytest.mark.parametrize("tau", [0.0, 0.2])
def test_prox_steps_and_averages_against_numpy(tau: float) -> None:
    """Two steps by hand, on plain probabilities; the average is that of the half-steps."""
    game, grid, eta = squared_distance_game(), Box().grid(9), 0.8
    M, w = game.matrix(grid.nodes, grid.nodes).numpy(), grid.weights.numpy()

    def tilted(p: np.ndarray, h: np.ndarray) -> np.ndarray:
        density = (p / w * np.exp(-eta * h)) ** (1 / (1 + eta * tau))
        return w * density / (w * density).sum()

    start = [Density(grid, k * grid.nodes[:, 0]) for k in (2, -1)]
    p, q = (law.masses.numpy() for law in start)
    halves = []
    for _ in range(2):
        a, b = tilted(p, M @ q), tilted(q, -(p @ M))
        p, q = tilted(p, M @ b), tilted(q, -(a @ M))
        halves.append((a, b))
    trace = GridProx(eta, tau).run(game, 2, start=(start[0], start[1]), record=())
    for last, average, expected, mean in zip(
        trace.last, trace.average, (p, q), np.mean(halves, 0), strict=True
    ):
        assert last.masses.numpy() == pytest.approx(expected, abs=1e-14)
        assert average.masses.numpy() == pytest.approx(mean, abs=1e-14)


def test_last_iterate_circles_the_average_converges_and_prox_faster() -> None:
    times = [50, 200, 800]
    game = circle_game()
    descent = GridDescent(0.1).run(game, 800, start=_von_mises_start(), record=times)
    prox = GridProx(1.0).run(game, 800, start=_von_mises_start(), record=times)
    assert descent.gap_last.min() > 1.0  # never approaches 0; it even grows
    assert descent.gap_last[-1] > descent.gap_last[0]
    assert descent.gap_average[-1] < 0.06 < 0.3 < descent.gap_average[0]
    slope = np.polyfit(np.log(times), np.log(prox.gap_average.numpy()), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)
    assert (prox.gap_average < descent.gap_average / 4).all()
    assert descent.exact


def test_prox_average_keeps_its_bound() -> None:
    game, start = squared_distance_game(), Density.uniform(Box().grid(32))
    times = [1, 4, 16, 64, 256]
    eta = 1 / smoothness(game.matrix(start.points, start.points))
    trace = GridProx(eta).run(game, 256, start=(start, start), record=times)
    logs = 2 * -math.log(float(start.masses.min()))
    nodes = game.matrix(start.points, start.points)
    assert trace.gap_average[-1] < trace.gap_average[0] / 10
    over_nodes = (trace.average[0].masses @ nodes).max() - (nodes @ trace.average[1].masses).min()
    assert over_nodes <= logs / (eta * 256)
    assert nodes.max() - nodes.min() > logs / (eta * 256)  # the bound says something


@pytest.mark.parametrize("tau", [0.1, 0.5])
@pytest.mark.parametrize("kind", [GridDescent, GridProx])
def test_entropic_equilibrium_of_the_squared_distance(kind, tau: float) -> None:
    game, grid = squared_distance_game(), Box().grid(40)
    bound = smoothness(game.matrix(grid.nodes, grid.nodes))
    eta = tau / bound**2 if kind is GridDescent else 1 / bound
    # The start is off the symmetric family, or means would be right from the first step on.
    start = Density(grid, 3 * grid.nodes[:, 0]), Density(grid, -2 * grid.nodes[:, 0])
    steps = math.ceil(30 / math.log1p(eta * tau))
    trace = kind(eta, tau).run(game, steps, start=start, record=2)
    for found, (sign, law) in zip(trace.last, ((-1, 0), (1, 1)), strict=True):
        z = quad(lambda x, s=sign: math.exp(s * (x - 0.5) ** 2 / tau), 0, 1, epsabs=1e-14)[0]
        expected = sign * (grid.nodes[:, 0] - 0.5) ** 2 / tau - math.log(z)
        assert (found.log_density - expected).abs().max() < 1e-10
        assert found.divergence(squared_distance_entropic(grid, tau)[law]) < 1e-14
    assert trace.gap_entropic is not None
    assert trace.gap_entropic[0] > 1e-3
    assert abs(trace.gap_entropic[-1]) < 1e-13
    assert trace.gap_last[-1] > 0.01  # the entropic equilibrium is none of the game itself


@pytest.mark.parametrize(
    ("kind", "tau"), [(GridDescent, 0.5), (GridDescent, 0.05), (GridProx, 0.05), (GridProx, 0.002)]
)
def test_each_step_contracts_by_the_stated_factor(kind, tau: float) -> None:
    game = squared_distance_game()
    grid = Box().grid(30)
    bound = smoothness(game.matrix(grid.nodes, grid.nodes))
    eta = tau / bound**2 if kind is GridDescent else 1 / bound
    truth = squared_distance_entropic(grid, tau)
    pair = Density(grid, 3 * grid.nodes[:, 0]), Density(grid, 2 * grid.nodes[:, 0])
    distance = sum(a.divergence(b) for a, b in zip(truth, pair, strict=True))
    for _ in range(20):
        pair = kind(eta, tau).run(game, 1, start=pair, record=()).last
        after = sum(a.divergence(b) for a, b in zip(truth, pair, strict=True))
        assert after <= distance / (1 + eta * tau) + 1e-12
        distance = after


def test_descent_beyond_its_bound_need_not_settle_where_prox_does() -> None:
    tau, game = 0.02, circle_game()  # L = 1: descent may take tau, prox 1
    start = _von_mises_start()
    wild = GridDescent(1.0, tau).run(game, 600, start=start, record=[600])
    calm = GridProx(1.0, tau).run(game, 600, start=start, record=[600])
    slow = GridDescent(0.02, tau).run(game, 600, start=start, record=[1, 600])
    assert wild.gap_entropic[-1] > 0.5
    assert calm.gap_entropic[-1] < 1e-10
    assert slow.gap_entropic[-1] < slow.gap_entropic[0]


def test_runs_from_the_uniform_start_and_without_records() -> None:
    game = squared_distance_game()
    trace = GridProx(1.0).run(game, 100, nodes=20, record=())
    assert trace.times.shape == trace.gap_last.shape == (0,)
    assert trace.last[0].masses.shape == (20,)
    assert game.gap(*trace.average).total < 0.06
    assert GridProx(1.0).run(game, 100, nodes=20).times[-1] == 100


def test_mirror_steps_refuse_what_does_not_fit() -> None:
    for make, match in (
        (lambda: GridDescent(0.0), "eta must be positive"),
        (lambda: GridProx(0.1, -1.0), "temperature must not be negative"),
        (lambda: GridDescent().run(circle_game(), 0), "at least one step"),
        (lambda: GridDescent().run(circle_game(), 5, record=[9]), "within 1 to 5"),
    ):
        with pytest.raises(ValueError, match=match):
            make()
