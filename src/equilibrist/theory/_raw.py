"""The same numbers a second time, from the definitions alone: means over sample points, searches, quadrature.

Nothing here uses a closed form of `w2gan` or `wgan1d`. Means of quadratics under N(0, I_d) are exact on the
2 d points +-sqrt(d) e_i; c-transforms are solved point by point; maxima and minima are searched for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.integrate import quad
from scipy.linalg import eigh
from scipy.optimize import brentq, linprog, minimize
from scipy.stats import norm
from torch import Tensor

from equilibrist.theory._checks import Array

F64 = torch.float64


def tensors(*arrays: Array) -> list[Tensor]:
    """float64 tensors of them."""
    return [torch.tensor(x, dtype=F64) for x in arrays]


def points(d: int) -> Tensor:
    """2 d points [2 d, d] of equal weight, exact for polynomials of degree 3 under N(0, I_d)."""
    unit = math.sqrt(d) * torch.eye(d, dtype=F64)
    return torch.cat([unit, -unit])


def _scores(x: Tensor, A: Tensor, b: Tensor) -> Tensor:
    found: Tensor = ((x @ A) * x).sum(1) + x @ b
    return found


def gan_value(s: float, eta: float, W: Tensor, u: Tensor, A: Tensor, b: Tensor) -> Tensor:
    """E D(x) - E D^c(W z + u), D^c(x) = sup_x' D(x') - eta |x - x'|^2 by solving for x' at every point."""
    z = points(len(u))
    fake = z @ W.T + u
    S = A + A.T
    unit = torch.eye(len(u), dtype=F64)
    best = torch.linalg.solve(2 * eta * unit - S, (2 * eta * fake + b).T).T
    answered = _scores(best, A, b) - eta * (fake - best).square().sum(1)
    found: Tensor = _scores(s * z, A, b).mean() - answered.mean()
    return found


def distance(s: float, A: Tensor, b: Tensor) -> Tensor:
    """E_P |grad D|^2."""
    x = s * points(len(b))
    return (x @ (A + A.T) + b).square().sum(1).mean()


def v_prox(
    s: float, eta: float, W: Array, u: Array, A: Array, b: Array, lam: float
) -> tuple[float, Array, Array]:
    """(V_prox, A~, b~) by BFGS over A~ = eta I - L L^T and b~; lam = 0 gives the maximum over D."""
    d = len(u)
    rows, columns = np.tril_indices(d)
    held = [torch.tensor(x, dtype=F64) for x in (W, u, A, b)]

    def critic(w: Tensor) -> tuple[Tensor, Tensor]:
        L = torch.zeros(d, d, dtype=F64).index_put(
            (torch.tensor(rows), torch.tensor(columns)), w[: len(rows)]
        )
        return eta * torch.eye(d, dtype=F64) - L @ L.T, w[len(rows) :]

    def loss(w: Array) -> tuple[float, Array]:
        at = torch.tensor(w, dtype=F64, requires_grad=True)
        A_, b_ = critic(at)
        found = -gan_value(s, eta, held[0], held[1], A_, b_)
        if lam:
            found = found + lam * distance(s, A_ - held[2], b_ - held[3])
        (grad,) = torch.autograd.grad(found, at)
        return float(found.detach()), grad.numpy()

    start = np.concatenate([np.linalg.cholesky(eta * np.eye(d) - A)[rows, columns], b])
    done = minimize(loss, start, jac=True, method="BFGS", options={"gtol": 1e-11, "maxiter": 2000})
    A_, b_ = critic(torch.tensor(done.x, dtype=F64))
    return -float(done.fun), A_.numpy(), b_.numpy()


Draw = tuple[Array, Array]


def feasible_draw(W: Array, u: Array, s: float, t: float) -> Draw:
    """The nearest generator of the setting: sigma_max(W) <= 1 (s >= 1) or sigma_min(W) >= 1, |u| <= t."""
    left, sigma, right = np.linalg.svd(W)
    sigma = np.maximum(sigma, 1.0) if s < 1 else np.minimum(sigma, 1.0)
    return (left * sigma) @ right, u * min(1.0, t / max(float(np.linalg.norm(u)), 1e-300))


def least(
    of: Callable[[Array, Array], tuple[float, Array, Array]],
    d: int,
    s: float,
    t: float,
    starts: int = 3,
    steps: int = 200,
    seed: int = 0,
) -> float:
    """The least value that projected gradient descent finds over feasible generators; `of` gives value and slopes."""
    rng = np.random.default_rng(seed)
    found = math.inf
    for k in range(starts):
        W, u = feasible_draw(
            np.eye(d) if k == 0 else rng.standard_normal((d, d)),
            rng.standard_normal(d) * t / 2,
            s,
            t,
        )
        here, by_w, by_u = of(W, u)
        size = 0.5
        for _ in range(steps):
            size *= 3
            while size > 1e-10:
                W_, u_ = feasible_draw(W - size * by_w, u - size * by_u, s, t)
                there = of(W_, u_)
                moved = float(((W_ - W) ** 2).sum() + ((u_ - u) ** 2).sum())
                if there[0] <= here - 0.25 * moved / size:
                    break
                size /= 3
            else:
                break
            gained = here - there[0]
            W, u, (here, by_w, by_u) = W_, u_, there
            if gained <= 1e-14 * (1 + abs(here)):
                break
        found = min(found, here)
    return found


def least_value(s: float, eta: float, t: float, A: Array, b: Array, starts: int = 4) -> float:
    """min over feasible G of V(G, D), by search."""
    A_, b_ = torch.tensor(A, dtype=F64), torch.tensor(b, dtype=F64)

    def of(W: Array, u: Array) -> tuple[float, Array, Array]:
        at = [torch.tensor(x, dtype=F64, requires_grad=True) for x in (W, u)]
        found = gan_value(s, eta, at[0], at[1], A_, b_)
        by = torch.autograd.grad(found, at)
        return float(found.detach()), by[0].numpy(), by[1].numpy()

    return least(of, len(b), s, t, starts)


def least_v_prox(
    s: float, eta: float, t: float, A: Array, b: Array, lam: float, starts: int = 2
) -> float:
    """min over feasible G of V_prox(G, D), by search; slopes by the envelope formula."""

    def of(W: Array, u: Array) -> tuple[float, Array, Array]:
        best, A_, b_ = v_prox(s, eta, W, u, A, b, lam)
        at = [torch.tensor(x, dtype=F64, requires_grad=True) for x in (W, u)]
        found = gan_value(s, eta, at[0], at[1], torch.tensor(A_), torch.tensor(b_))
        by = torch.autograd.grad(found, at)
        return best, by[0].numpy(), by[1].numpy()

    return least(of, len(b), s, t, starts, 60)


def shift_blocks(
    s: float, eta: float, d: int, A: Array, b: Array
) -> tuple[Array, Array, Array, Array]:
    """(V_uu, V_uw, V_ww, M) at W = I, u = 0: w = (A's entries, b), M = E[(d_w grad_x D)^T (d_w grad_x D)]."""
    n = d + d * d + d

    def of(x: Tensor) -> Tensor:
        u, A_, b_ = x[:d], x[d : d + d * d].reshape(d, d), x[d + d * d :]
        return gan_value(s, eta, torch.eye(d, dtype=F64), u, A_, b_)

    def size(w: Tensor) -> Tensor:
        return distance(s, w[: d * d].reshape(d, d), w[d * d :])

    x = torch.cat([torch.zeros(d, dtype=F64), torch.tensor(A).reshape(-1), torch.tensor(b)])
    H = torch.autograd.functional.hessian(of, x).numpy()
    M = torch.autograd.functional.hessian(size, torch.zeros(n - d, dtype=F64)).numpy() / 2
    return H[:d, :d], H[:d, d:], H[d:, d:], M


def lambda_star(s: float, eta: float, d: int, A: Array, b: Array) -> float:
    """The largest lambda at which V_uu + V_uw (2 lambda M - V_ww)^+ V_wu is positive semi-definite (inf: always)."""
    uu, uw, ww, M = shift_blocks(s, eta, d, A, b)

    def lowest(lam: float) -> float:
        # Antisymmetric parts of A change nothing: the pseudo-inverse leaves them out.
        answered = uw @ np.linalg.pinv(2 * lam * M - ww, rcond=1e-11, hermitian=True) @ uw.T
        return float(eigh(uu + answered, eigvals_only=True)[0])

    if np.linalg.eigvalsh(uu)[0] >= 0:
        return math.inf
    return math.exp(
        float(brentq(lambda k: lowest(math.exp(k)), math.log(1e-6 / eta), math.log(1e6 / eta)))
    )


def modulus(r: float, k: float) -> float:
    """E |r z + k| by quadrature."""
    if r == 0:
        return abs(k)
    at = -k / r
    parts = [(-40.0, at), (at, 40.0)] if abs(at) < 40 else [(-40.0, 40.0)]
    return float(
        sum(
            quad(lambda z: abs(r * z + k) * norm.pdf(z), *ends, epsabs=1e-13, limit=200)[0]
            for ends in parts
        )
    )


def transport(s: float, w: float, u: float) -> float:
    """W_1 of N(0, s^2) and N(u, w^2), by quadrature of |F_P - F_Q|."""
    reach = 10 * max(s, abs(w)) + abs(u)
    knots = sorted({0.0, u, u * s / (s - w) if s != w else 0.0})
    return float(
        quad(
            lambda x: abs(norm.cdf(x / s) - norm.cdf((x - u) / w)),
            -reach,
            reach,
            points=[k for k in knots if abs(k) < reach],
            epsabs=1e-12,
            limit=400,
        )[0]
    )


def max_min_wgan(s: float, t: float, cells: int = 400, shifts: int = 41) -> float:
    """max over 1-Lipschitz D of min over feasible (w, u) of V, as a linear programme in the slopes of D.

    Slopes are constant on cells, generators on a grid: V = sum of slope times the integral of F_Q - F_P.
    """
    reach = 7 * s + t
    edges = np.linspace(-reach, reach, cells + 1)

    def mass(w: float, u: float) -> Array:
        def upto(x: Array, r: float, k: float) -> Array:  # the integral of Phi((x - k) / r)
            z = (x - k) / r
            return np.asarray((x - k) * norm.cdf(z) + r * norm.pdf(z))

        mine, theirs = upto(edges, w, u), upto(edges, s, 0.0)
        return np.asarray(np.diff(mine - theirs))

    grid = [(w, u) for w in (0.1, 0.4, 0.7, 0.9, 1.0) for u in np.linspace(-t, t, shifts)]
    rows = np.array([mass(w, float(u)) for w, u in grid])
    # Maximise v subject to rows g >= v, |g| <= 1.
    cost = np.append(np.zeros(cells), -1.0)
    constraint = np.hstack([-rows, np.ones((len(rows), 1))])
    bounds = [(-1.0, 1.0)] * cells + [(None, None)]
    done = linprog(cost, A_ub=constraint, b_ub=np.zeros(len(rows)), bounds=bounds, method="highs")
    return -float(np.asarray(done.fun))
