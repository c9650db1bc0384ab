"""Continuous games whose mixed equilibria are known: cosine on the circle, squared distance."""

from __future__ import annotations

import math

import torch
from scipy.special import i0e, i1e
from torch import Tensor

from equilibrist.mixed.domains import Box, Circle, Grid
from equilibrist.mixed.measures import Density, Measure, Particles
from equilibrist.mixed.payoff import PayoffGame, Reply

# -- cos(x - y) on the circle -----------------------------------------------------------------------------


def circle_game() -> PayoffGame:
    """f(x, y) = cos(x - y) on two circles: value 0.

    f(nu, mu) = m(nu) . m(mu), with m the first Fourier coefficients (`circle_moment`). So a measure is optimal iff m
    vanishes, and the gap is |m(nu)| + |m(mu)|: x answers opposite to m(mu), y along m(nu).

    Returns:
        The game.
    """

    def payoff(x: Tensor, y: Tensor) -> Tensor:
        return torch.cos(x - y).squeeze(-1)

    def best_x(mu: Measure) -> Reply:
        m = -circle_moment(mu)
        return Reply(Circle().nearest(torch.atan2(m[1], m[0])[None]), -float(m.norm()), True)

    def best_y(nu: Measure) -> Reply:
        m = circle_moment(nu)
        return Reply(Circle().nearest(torch.atan2(m[1], m[0])[None]), float(m.norm()), True)

    return PayoffGame(payoff, Circle(), Circle(), best_x, best_y, 0.0)


def circle_moment(measure: Measure) -> Tensor:
    """m = (E cos, E sin) [2] of a measure on angles."""
    return measure.mean(torch.cat([measure.points.cos(), measure.points.sin()], 1))


def von_mises(theta: Tensor, grid: Grid) -> Density:
    """The von Mises law with density proportional to exp(theta . (cos, sin)), theta [2], on a grid of the circle.

    Args:
        theta: direction and concentration, [2].
        grid: of the circle.

    Returns:
        The density.
    """
    return Density(grid, grid.nodes[:, 0].cos() * theta[0] + grid.nodes[:, 0].sin() * theta[1])


def von_mises_moment(theta: Tensor) -> Tensor:
    """m(theta) = I_1(|theta|) / I_0(|theta|) theta / |theta| [2], `circle_moment` of the von Mises law; 0 at 0."""
    length = float(theta.norm())
    return theta * (float(i1e(length) / i0e(length)) / length if length else 0.5)


def von_mises_step(theta_nu: Tensor, theta_mu: Tensor, step: float) -> tuple[Tensor, Tensor]:
    """One step of mirror descent on `circle_game`, exactly: von Mises laws stay von Mises,

    theta_nu <- theta_nu - eta m(theta_mu),   theta_mu <- theta_mu + eta m(theta_nu).

    Args:
        theta_nu, theta_mu: parameters of both laws, [2].
        step: eta.

    Returns:
        The two parameters after the step.
    """
    return (
        theta_nu - step * von_mises_moment(theta_mu),
        theta_mu + step * von_mises_moment(theta_nu),
    )


# -- (x - y)^2 on [0, 1] ----------------------------------------------------------------------------------


def squared_distance_game() -> PayoffGame:
    """f(x, y) = (x - y)^2 on [0, 1]: value 1/4, at nu = delta_{1/2}, mu = (delta_0 + delta_1) / 2.

    f(x, mu) = (x - E y)^2 + Var y: x answers E y, y the end that is farther from E x.

    Returns:
        The game.
    """

    def payoff(x: Tensor, y: Tensor) -> Tensor:
        return (x - y).square().squeeze(-1)

    def best_x(mu: Measure) -> Reply:
        mean = mu.mean(mu.points)
        return Reply(mean, float(mu.mean((mu.points - mean).square()).sum()), True)

    def best_y(nu: Measure) -> Reply:
        mean = nu.mean(nu.points)
        end = (mean < 0.5).to(mean.dtype)
        return Reply(end, float(nu.mean((nu.points - end).square()).sum()), True)

    return PayoffGame(payoff, Box(), Box(), best_x, best_y, 0.25)


def squared_distance_equilibrium() -> tuple[Particles, Particles]:
    """(delta_{1/2}, (delta_0 + delta_1) / 2), the equilibrium of `squared_distance_game`.

    Returns:
        The equilibrium (nu, mu).
    """
    return (
        Particles(torch.tensor([[0.5]], dtype=torch.float64)),
        Particles(torch.tensor([[0.0], [1.0]], dtype=torch.float64)),
    )


def squared_distance_entropic(grid: Grid, temperature: float) -> tuple[Density, Density]:
    """The equilibrium with entropy of temperature tau: nu prop. to e^{-(x - 1/2)^2 / tau}, mu to e^{(y - 1/2)^2 / tau}.

    Each is the other's smoothed best response since both means are 1/2; there is no other, the payoff with entropy
    being strictly convex in nu and strictly concave in mu.

    Args:
        grid: of [0, 1], on which the laws lie.
        temperature: tau.

    Returns:
        The equilibrium (nu, mu).

    Raises:
        ValueError: a temperature that is not positive.
    """
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"squared_distance_entropic: temperature must be positive, not {temperature!r}"
        )
    square = (grid.nodes[:, 0] - 0.5).square() / temperature
    return Density(grid, -square), Density(grid, square)
