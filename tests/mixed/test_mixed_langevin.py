"""Particles: stationary laws of Langevin moves, Monte Carlo errors, weights and moves together."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from equilibrist.core.draws import Stream, generator
from equilibrist.mixed.averaged import AveragedLangevin
from equilibrist.mixed.domains import Box, Circle, Space, Sphere
from equilibrist.mixed.flows import GridDescent, Langevin, Reweighting, WassersteinFisherRao
from equilibrist.mixed.measures import Density, Particles
from equilibrist.mixed.payoff import PayoffGame
from equilibrist.mixed.truths import (
    circle_game,
    circle_moment,
    squared_distance_entropic,
    squared_distance_game,
    von_mises_moment,
    von_mises_step,
)

D = torch.float64


def _tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=D)


def _slope(sizes: list[int], errors: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


# -- stationary laws --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("convention", "divisor"), [("gamma", 2), ("welling-teh", 4)])
def test_quadratic_has_the_discretised_variance_of_its_temperature(convention, divisor) -> None:
    a, eps, gamma, n = 1.5, 0.7, 0.5, 40_000
    game = PayoffGame(lambda x, y: a / 2 * (x.square() - y.square()).squeeze(-1), Space(), Space())
    flow = Langevin(gamma, eps, convention)
    assert flow.temperature == pytest.approx(eps**2)
    trace = flow.run(game, 40, particles=n, pairing=1, record=(), keep=1)
    expected = eps**2 / (a * (1 - a * gamma / divisor))
    for law in trace.last:  # x descends a x^2 / 2, y ascends -a y^2 / 2: the same law
        variance = float(law.points.var())
        assert variance == pytest.approx(expected, rel=4 * math.sqrt(2 / n))
        assert abs(float(law.points.mean())) < 4 * math.sqrt(expected / n)
        # So the measured temperature is eps^2, and differs from the law without discretisation.
        assert variance * a * (1 - a * gamma / divisor) == pytest.approx(eps**2, rel=0.03)
        assert variance > 1.1 * eps**2 / a


def test_conventions_are_one_method_at_half_the_step() -> None:
    game = circle_game()
    one = Langevin(0.1, 0.3, "welling-teh").run(game, 5, particles=20, seed=3, record=())
    other = Langevin(0.05, 0.3).run(game, 5, particles=20, seed=3, record=())
    for a, b in zip(one.last, other.last, strict=True):
        assert a.points.numpy() == pytest.approx(b.points.numpy(), abs=1e-12)


def test_box_has_the_truncated_law_by_reflection_and_an_atom_by_projection() -> None:
    """h(x) = x on [0, 1] at temperature 0.2: the exponential law with rate 5, cut off at 1."""
    rate, gamma = 5.0, 0.01
    mean = 1 / rate - 1 / math.expm1(rate)
    laws = {}
    for boundary in ("reflect", "project"):
        box = Box(boundary=boundary)
        game = PayoffGame(lambda x, y: x.squeeze(-1) + 0 * y.squeeze(-1), box, box)
        flow = Langevin(gamma, math.sqrt(1 / rate))
        laws[boundary] = flow.run(game, 120, particles=8000, pairing=1, record=(), keep=1).last
    x, y = (law.points[:, 0].numpy() for law in laws["reflect"])
    assert x.mean() == pytest.approx(mean, abs=0.013)  # bias of order gamma, and 4 x 0.002
    edges = np.linspace(0, 1, 6)
    expected = np.diff(-np.expm1(-rate * edges)) / -math.expm1(-rate)
    assert np.histogram(x, edges)[0] / 8000 == pytest.approx(expected, abs=0.035)
    assert np.histogram(y, edges)[0] / 8000 == pytest.approx(0.2, abs=0.018)  # no drift: uniform
    assert not (x == 0).any()
    stuck = laws["project"][0].points[:, 0].numpy()
    assert (stuck == 0).mean() > 0.1
    assert abs(stuck.mean() - mean) > 0.02


def test_sphere_has_the_von_mises_fisher_law() -> None:
    kappa = 2.0
    game = PayoffGame(lambda x, y: -kappa * x[..., 0] + 0 * y[..., 0], Sphere(3), Sphere(3))
    trace = Langevin(0.02, 1.0).run(game, 120, particles=4000, pairing=1, record=(), keep=1)
    x, y = (law.points for law in trace.last)
    assert x.norm(dim=1).numpy() == pytest.approx(1.0)
    assert float(x[:, 0].mean()) == pytest.approx(1 / math.tanh(kappa) - 1 / kappa, abs=0.035)
    assert x[:, 1:].mean(0).abs().max() < 0.04
    assert y.mean(0).abs().max() < 0.04  # Brownian motion: uniform


# -- Monte Carlo errors -----------------------------------------------------------------------------------

THETA = (_tensor(1.5, -0.3), _tensor(0.2, 0.9))


def _von_mises_particles(n: int, seed: int) -> tuple[Particles, Particles]:
    rng = generator(seed, Stream.INIT, index=n)
    laws = []
    for theta in THETA:
        angle = math.atan2(theta[1], theta[0])
        laws.append(Particles(torch.from_numpy(rng.vonmises(angle, float(theta.norm()), (n, 1)))))
    return laws[0], laws[1]


def test_weights_follow_the_von_mises_recursion_within_root_n() -> None:
    eta, steps, seeds = 0.3, 8, 12
    nu, mu = THETA
    for _ in range(steps):
        nu, mu = von_mises_step(nu, mu, eta)
    truth = torch.cat([von_mises_moment(nu), von_mises_moment(mu)])
    sizes, errors = [40, 160, 640], []
    for n in sizes:
        found = []
        for seed in range(seeds):
            start = _von_mises_particles(n, seed)
            last = Reweighting(eta).run(circle_game(), steps, start=start, record=(), keep=1).last
            found.append(torch.cat([circle_moment(law) for law in last]) - truth)
        errors.append(float(torch.stack(found).square().mean().sqrt()))
    assert _slope(sizes, errors) == pytest.approx(-0.5, abs=0.15)
    assert errors[-1] < 3 / math.sqrt(sizes[-1])


def test_langevin_meets_the_entropic_equilibrium_within_root_n() -> None:
    tau, gamma, seeds = 0.5, 0.004, 5
    game = squared_distance_game()

    def statistics(law: Density | Particles) -> torch.Tensor:
        return law.mean(lambda x: torch.cat([x, (x - 0.5).square()], 1))

    truth = torch.cat([statistics(law) for law in squared_distance_entropic(Box().grid(40), tau)])
    sizes, errors = [50, 200, 800, 3200], []
    for n in sizes:
        flow = Langevin(gamma, math.sqrt(tau))
        found = torch.stack(
            [
                torch.cat(
                    [
                        statistics(law)
                        for law in flow.run(
                            game, 140, particles=n, pairing=1, seed=seed, record=(), keep=1
                        ).last
                    ]
                )
                for seed in range(seeds)
            ]
        )
        errors.append(float((found - truth).square().mean().sqrt()))
    assert _slope(sizes, errors) == pytest.approx(-0.5, abs=0.15)
    assert errors[-1] < 0.01
    # nu is drawn to the middle and mu to the ends: a uniform law has 1/12.
    spread = found.mean(0)[[1, 3]]
    assert spread[0] < 1 / 12 - 0.004
    assert spread[1] > 1 / 12 + 0.004


def test_weights_on_a_grid_are_mirror_descent() -> None:
    """Particles at the nodes, weighted by the quadrature: the same numbers as the density's."""
    game, grid = squared_distance_game(), Box().grid(16)
    cloud = Particles(grid.nodes, grid.weights.log())
    one = Reweighting(0.4).run(game, 30, start=(cloud, cloud), record=[30])
    other = GridDescent(0.4).run(game, 30, nodes=16, record=[30])
    for a, b in zip(one.last, other.last, strict=True):
        assert a.masses.numpy() == pytest.approx(b.masses.numpy(), abs=1e-13)
    assert one.gap_last.numpy() == pytest.approx(other.gap_last.numpy(), abs=1e-13)


def test_reservoir_of_a_run_has_the_average_of_its_iterates() -> None:
    game, grid = circle_game(), Circle().grid(32)
    cloud = [Particles(grid.nodes, (grid.nodes - k).cos()[:, 0]) for k in (0, 1)]
    run = Reweighting(0.5).run(game, 40, start=(cloud[0], cloud[1]), record=(), keep=20_000)
    densities = Density(grid, (grid.nodes).cos()[:, 0]), Density(grid, (grid.nodes - 1).cos()[:, 0])
    exact = GridDescent(0.5).run(game, 40, start=densities, record=())
    for a, b in zip(run.average, exact.average, strict=True):
        assert (circle_moment(a) - circle_moment(b)).abs().max() < 4.5 / math.sqrt(20_000)
        assert len(a.points) == 20_000
    assert (circle_moment(run.last[0]) - circle_moment(run.average[0])).norm() > 0.1


# -- against the opponent's past --------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.0, 1.0, 2.5])
def test_averaged_gradients_are_taken_where_the_particle_is_now(power) -> None:
    """One particle each and no noise, all past opponents kept in a list; those of `run` are a sample of them."""
    gamma, steps, keep = 0.4, 12, 40_000
    start = Particles(_tensor(0.3)[:, None]), Particles(_tensor(1.4)[:, None])
    x, y = [0.3], [1.4]
    for _ in range(steps):
        b = np.arange(1.0, len(x) + 1) ** power
        b /= b.sum()
        new = x[-1] + gamma * b @ np.sin(x[-1] - np.array(y))  # d/dx cos(x - y) = -sin(x - y)
        y.append(y[-1] + gamma * b @ np.sin(np.array(x) - y[-1]))
        x.append(new)
    flow = AveragedLangevin(gamma, 0.0, power=power)
    trace = flow.run(circle_game(), steps, start=start, record=(), keep=keep)
    for law, path in zip(trace.last, (x, y), strict=True):
        turned = float(law.points) - path[-1]
        assert math.remainder(turned, 2 * math.pi) == pytest.approx(0, abs=0.02)
    # The past is not the present, and its gradients at the particle are not those along its path.
    plain = Langevin(gamma, 0.0).run(circle_game(), steps, start=start, record=()).last
    assert abs(math.remainder(float(plain[0].points) - x[-1], 2 * math.pi)) > 0.1
    along = 0.3
    for t in range(1, steps + 1):
        b = np.arange(1.0, t + 1) ** power
        along += gamma * (b / b.sum()) @ np.sin(np.array(x[:t]) - np.array(y[:t]))
    assert abs(along - x[-1]) > 0.1


@pytest.mark.parametrize("power", [0.0, 2.0])
def test_averaged_gradients_settle_where_langevin_goes_round_in_growing_circles(power) -> None:
    """f = a x^2 / 2 + b x y - a y^2 / 2 with noise: means follow a linear recursion, each against the other's average,
    and a cloud's variance is that of its own quadratic."""
    a, b, gamma, eps, n, seeds, steps = 1.0, 2.0, 0.6, 0.4, 200, 40, 40
    game = PayoffGame(
        lambda x, y: (a / 2 * x.square() + b * x * y - a / 2 * y.square()).squeeze(-1),
        Space(),
        Space(),
    )
    start = (Particles(torch.ones(n, 1, dtype=D)), Particles(torch.ones(n, 1, dtype=D)))

    def recursion(averaged: bool) -> np.ndarray:
        z, total, weight = np.ones(2), np.zeros(2), 0.0
        for t in range(1, steps + 1):
            total, weight = total + t**power * z, weight + t**power
            x, y = total / weight if averaged else z
            z = (1 - a * gamma) * z + gamma * b * np.array([-y, x])
        return z

    flow = AveragedLangevin(gamma, eps, power=power)
    last = [flow.run(game, steps, start=start, seed=s, record=()).last for s in range(seeds)]
    found = np.array([[float(law.points.mean()) for law in pair] for pair in last])
    error = found.std(0, ddof=1) / math.sqrt(seeds)
    assert (np.abs(found.mean(0) - recursion(True)) < 4.5 * error).all()
    assert (error < 0.05).all()
    assert np.linalg.norm(recursion(False)) > 1000
    variance = np.mean([[float(law.points.var()) for law in pair] for pair in last])
    expected = eps**2 / (a * (1 - a * gamma / 2))
    assert variance == pytest.approx(expected, rel=4 * math.sqrt(2 / (2 * n * seeds)))


def test_averaged_gradients_meet_the_entropic_equilibrium() -> None:
    """(x - y)^2 on [0, 1] with entropy: the play and its average, whose own start is forgotten like 1 / t^3."""
    tau, n = 0.5, 3200
    flow = AveragedLangevin(0.004, math.sqrt(tau), power=2.0)
    trace = flow.run(squared_distance_game(), 300, particles=n, pairing=1, record=())
    for pair in (trace.last, trace.average):
        for law, truth in zip(pair, squared_distance_entropic(Box().grid(40), tau), strict=True):
            assert len(law.points) == n
            mean, spread = law.mean(law.points), law.mean((law.points - 0.5).square())
            true = truth.mean((truth.points - 0.5).square())
            assert abs(float(mean) - 0.5) < 4.5 * math.sqrt(float(true) / n)
            # The fourth moment on [0, 1] is at most a quarter of the second; 0.001 for the step's bias.
            assert abs(float(spread - true)) < 4.5 * math.sqrt(float(true) / 4 / n) + 0.001
            assert abs(float(true) - 1 / 12) > 0.007  # a uniform law would not do


# -- weights and moves ------------------------------------------------------------------------------------


def test_weights_and_moves_together_reach_what_neither_does_alone() -> None:
    """(x - y)^2 from supports without 1/2 and without the ends: weights alone cannot leave them, moves alone carry
    all of mu to one end; together they find delta_{1/2} against both ends."""
    plain = squared_distance_game()
    box = Box(boundary="project")
    game = PayoffGame(plain.payoff, box, box, plain.best_x, plain.best_y, 0.25)
    rng = np.random.default_rng(0)
    start = (
        Particles(torch.from_numpy(rng.uniform(0.1, 0.3, (60, 1)))),
        Particles(torch.from_numpy(rng.uniform(0.3, 0.7, (60, 1)))),
    )
    gaps = {}
    for flow in (
        Reweighting(0.2),
        Langevin(0.02, 0.0),
        WassersteinFisherRao(0.02, eta=0.2),
        WassersteinFisherRao(0.02, eta=0.2, resample=0.0),
    ):
        trace = flow.run(game, 500, start=start, record=[500])
        gaps[flow] = float(trace.gap_last[-1]), float(trace.gap_average[-1])
        assert trace.exact
    weights, moves, both, unresampled = gaps.values()
    assert min(weights) > 0.3
    assert min(moves) > 0.2
    assert both[0] < 1e-3
    assert unresampled[0] < 1e-3
    assert both[1] < 0.1


def test_resampling_equalises_weights_when_few_are_left() -> None:
    game, start = circle_game(), _von_mises_particles(50, 0)
    kept = WassersteinFisherRao(0.01, eta=8.0, resample=0.0).run(game, 1, start=start, record=())
    again = WassersteinFisherRao(0.01, eta=8.0, resample=0.9).run(game, 1, start=start, record=())
    assert kept.last[0].effective_size < 45
    assert again.last[0].effective_size == pytest.approx(50)
    assert len(torch.unique(again.last[0].points)) < 50
    assert len(torch.unique(kept.last[0].points)) == 50


def test_fisher_rao_without_moves_is_reweighting_and_without_weights_is_langevin() -> None:
    game, start = circle_game(), _von_mises_particles(30, 1)
    both = WassersteinFisherRao(1e-12, eta=0.3, resample=0.0).run(game, 6, start=start, record=())
    weights = Reweighting(0.3).run(game, 6, start=start, record=())
    moved = WassersteinFisherRao(0.1, eta=1e-12, resample=0.0).run(game, 6, start=start, record=())
    gradient = Langevin(0.1, 0.0).run(game, 6, start=start, record=())
    for a, b in zip(both.last + moved.last, weights.last + gradient.last, strict=True):
        assert a.masses.numpy() == pytest.approx(b.masses.numpy(), abs=1e-10)
        assert a.points.cos().numpy() == pytest.approx(b.points.cos().numpy(), abs=1e-9)


def test_gradient_moves_have_the_signs_of_a_minimiser_and_a_maximiser() -> None:
    start = Particles(_tensor(0.4)[:, None]), Particles(_tensor(0.7)[:, None])
    last = Langevin(0.1, 0.0).run(squared_distance_game(), 1, start=start, record=()).last
    # d/dx (x - y)^2 = -0.6, d/dy = 0.6, both taken at the start
    assert float(last[0].points) == pytest.approx(0.46)
    assert float(last[1].points) == pytest.approx(0.76)


def test_runs_are_addressed_by_their_seed() -> None:
    game = squared_distance_game()

    def run(seed: int, **more):
        return Langevin(0.05, 0.5).run(game, 10, particles=15, seed=seed, record=[10], **more)

    one, same, other = run(1), run(1), run(2)
    assert one.last[0].points.equal(same.last[0].points)
    assert one.average[1].points.equal(same.average[1].points)
    assert one.gap_average.equal(same.gap_average)
    assert not one.last[0].points.equal(other.last[0].points)
    assert not one.last[0].points.equal(one.last[1].points)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    run(3, pairing=2)
    assert torch.get_rng_state().equal(before)  # nothing is drawn from torch's own generator


def test_particle_methods_refuse_what_does_not_fit() -> None:
    game = circle_game()
    for make, match in (
        (lambda: Reweighting(0.0), "eta must be positive"),
        (lambda: Langevin(-0.1), "gamma must be positive"),
        (lambda: Langevin(0.1, -1.0), "noise must not be negative"),
        (lambda: Langevin(0.1, 0.1, "half"), "welling-teh"),
        (lambda: AveragedLangevin(power=-1.0), "power must not be negative"),
        (lambda: WassersteinFisherRao(eta=0.0), "eta must be positive"),
        (lambda: WassersteinFisherRao(convention="half"), "WassersteinFisherRao.convention"),
        (lambda: WassersteinFisherRao(resample=1.5), "between 0 and 1"),
        (lambda: Langevin().run(game, 0), "at least one step"),
        (lambda: Langevin().run(game, 3, pairing=0), "at least 1 opponent"),
    ):
        with pytest.raises(ValueError, match=match):
            make()
