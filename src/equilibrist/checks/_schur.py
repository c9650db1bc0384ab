"""The leader's curvature after the follower's answer, S(lambda) = V_tt + V_tw (2 lambda M - V_ww)^-1 V_wt, of dense
blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_LARGER = 6  # sizes of tau that are tried, where c is not positive
FLAT = 1e-10  # modes of the follower below this, relative to the largest, are flat


@dataclass(frozen=True, eq=False)
class Critical:
    """The smallest eigenvalue of S(lambda) over a subspace, with its unit vector y and the answer z."""

    value: float
    y: Tensor
    z: Tensor


class ReducedSchur:
    """S(lambda) of small dense blocks: a = V_tt [k, k], g = V_wt [m, k], c = -V_ww [m, m], M [m, m] or None.

    Infinite diagonal entries of M stand for coordinates in which no answer is possible for any lambda > 0;
    at lambda = 0 they answer like the others.

    V^T (c + tau M) V = 1, V^T tau M V = diag(b) makes every lambda a sum: with h = V^T g,
    S(lambda) = a + sum_i h_i h_i^T / (1 - b_i + 2 lambda b_i / tau). Directions in which both c and M
    vanish (below `FLAT`, relative) are flat for every lambda. Along a flat direction that is coupled to the leader
    the follower's answer has no bound, so S is +infinite in the leader's coupled directions: they are left
    out of its smallest eigenvalue.
    """

    def __init__(self, a: Tensor, g: Tensor, c: Tensor, M: Tensor | None = None) -> None:
        self.a, self.k = a, len(a)
        if M is None:
            M = torch.zeros_like(c)
        able = torch.isfinite(M.diagonal())
        self.blocked = int((~able).sum())
        self._free = ReducedSchur(a, g, c, torch.zeros_like(c)) if self.blocked else self
        c, g, M = c[able][:, able], g[able], M[able][:, able]
        size_c, size_m = (float(t.abs().max()) if t.numel() else 0.0 for t in (c, M))
        self.tau = size_c / size_m if size_m > 0 and size_c > 0 else 1.0
        for _ in range(_LARGER):
            values, vectors = torch.linalg.eigh(c + self.tau * M)
            top = float(values.abs().max()) if len(values) else 0.0
            seen = (vectors * (M @ vectors)).sum(0) > FLAT**0.5 * size_m
            if not bool((seen & (values <= FLAT * top)).any()):
                break
            self.tau *= 10.0  # where c is negative a larger norm may hold it
        kept = values > FLAT * top
        # A sum that is not positive semi-definite: the follower gains by itself where the norm does not hold it.
        self.runaway = int((values < -FLAT * top).sum())
        self.flat = vectors[:, values.abs() <= FLAT * top].mT @ g
        white = vectors[:, kept] / values[kept].sqrt()
        self.b, turn = torch.linalg.eigh(white.mT @ (self.tau * M) @ white)
        self.V = white @ turn
        self.h = self.V.mT @ g
        self.able = able

    @property
    def admissible(self) -> float:
        """Above this lambda the follower's problem is strictly concave (flat directions aside); infinite where
        no lambda makes it so."""
        if self.runaway:
            return math.inf
        over = self.b[self.b > 1 + FLAT]
        return float((self.tau * (over - 1) / (2 * over)).max()) if len(over) else 0.0

    def at(self, lam: float) -> Critical:
        """The smallest eigenvalue of S(lambda); lambda = 0 and infinity are limits from inside of (0, inf),
        except that blocked coordinates answer at 0 (see `stackelberg`). +inf where every direction of the leader
        is answered without bound."""
        if math.isinf(lam):
            d = torch.where(self.b <= FLAT, 1 - self.b, torch.full_like(self.b, math.inf))
        else:
            d = 1 - self.b + 2 * lam / self.tau * self.b
        unbounded = d <= FLAT
        flat = torch.cat([self.flat, self.h[unbounded]])
        Z = _uncoupled(flat, self.h, self.k)
        d = torch.where(unbounded, torch.full_like(d, math.inf), d)
        S = self.a + (self.h.mT / d) @ self.h
        z = torch.zeros(len(self.able), dtype=self.a.dtype, device=self.a.device)
        if not Z.shape[1]:
            return Critical(math.inf, torch.zeros_like(self.a[0]), z)
        small = Z.mT @ ((S + S.mT) / 2) @ Z
        values, vectors = torch.linalg.eigh(small)
        y = Z @ vectors[:, 0]
        z[self.able] = self.V @ ((self.h @ y) / d)
        return Critical(float(values[0]), y, z)

    def stackelberg(self) -> Critical:
        """S(0) with every coordinate answering."""
        return self._free.at(0.0)

    def root(self, y: Tensor, cut: float, low: float) -> float:
        """The lambda > low at which y^T S(lambda) y = -cut |y|^2: a decreasing convex function; `low` where it
        lies below everywhere, infinity where it stays above."""
        from scipy.optimize import brentq

        need = -float(y @ self.a @ y) - cut * float(y @ y)
        if need <= 0:
            return math.inf
        weights = (self.h @ y).square()

        def answered(lam: float) -> float:
            d = 1 - self.b + 2 * lam / self.tau * self.b
            return float((weights / d.clamp_min(1e-300)).sum())

        unseen = self.b <= FLAT
        if float((weights[unseen] / (1 - self.b[unseen])).sum()) >= need:
            return math.inf
        start = max(low, 1e-14 * self.tau)
        if answered(start) <= need:
            return low
        stop = 2 * start
        while answered(stop) > need:
            start, stop = stop, 4 * stop
            if not stop < 1e300:
                return math.inf
        # 1 / answered is nearly linear in lambda.
        found = brentq(lambda x: 1 / answered(x) - 1 / need, start, stop, xtol=1e-300, rtol=1e-14)
        return float(found)

    def threshold(self, cut: float, zero: float) -> tuple[float, Critical]:
        """lambda*: the largest lambda at which the smallest eigenvalue of S is at least -cut - zero, and what is
        critical there (at infinity where lambda* is infinite, in the limit lambda -> 0 where it is 0).

        Upper bounds descend: a direction y gives the root of y^T S(lambda) y, and the next direction is
        that of the smallest eigenvalue of S at this root (Newton's method); it ends where no direction lies
        below.
        """
        found = self.at(math.inf)
        if found.value >= -cut - zero:
            return math.inf, found
        low = self.admissible
        if math.isinf(low):
            return 0.0, found
        lam = math.inf
        for _ in range(200):
            new = self.root(found.y, cut, low)
            if new <= low:
                least = self.at(low)
                return (low if least.value >= -cut - zero else 0.0), least
            if new >= lam * (1 - 1e-13):
                break
            lam = new
            found = self.at(lam)
            if found.value >= -cut - zero:
                break
        return lam, found


def _uncoupled(flat: Tensor, h: Tensor, k: int) -> Tensor:
    """An orthonormal basis [k, .] of the leader's directions that no flat direction of the follower answers."""
    whole = max((float(t.abs().max()) for t in (flat, h) if t.numel()), default=0.0)
    if not flat.numel() or float(flat.abs().max()) <= 1e-8 * max(whole, 1e-300):
        return torch.eye(k, dtype=h.dtype, device=h.device)
    _, sigma, right = torch.linalg.svd(flat, full_matrices=True)
    rank = int((sigma > 1e-8 * whole).sum())
    basis: Tensor = right[rank:].mT
    return basis


@dataclass(frozen=True, eq=False)
class Restricted:
    """The smallest eigenvalue of the restricted Schur complement.

    Attributes:
        value: over the leader's directions whose coupling lies in the range of the follower's Hessian; infinite
            where there is none.
        u, w: its unit direction [k], and the answer to it [m]; None where there is none.
        null: an orthonormal basis [m, .] of the follower's null space.
        room: how many directions of the leader are left.
    """

    value: float
    u: Tensor | None
    w: Tensor | None
    null: Tensor
    room: int


def restricted(a: Tensor, g: Tensor, c: Tensor, share: float) -> Restricted:
    """a + g^T c^+ g on {u : g u in range(c)}, for a = V_tt [k, k], g = V_wt [m, k] and c = -V_ww [m, m].

    Eigenvalues of c up to `share` of the largest modulus are null, negative ones included: there the follower gains
    more than second order, so that a direction of the leader coupled to them is no deviation (Chae, Kim and
    Kim 2023).
    """
    values, vectors = torch.linalg.eigh(c)
    top = float(values.abs().max()) if len(values) else 0.0
    kept = values > share * top
    null, h = vectors[:, ~kept], vectors[:, kept].mT @ g
    Z = _uncoupled(null.mT @ g, h, len(a))
    if not Z.shape[1]:
        return Restricted(math.inf, None, None, null, 0)
    S = a + (h.mT / values[kept]) @ h
    small, y = torch.linalg.eigh(Z.mT @ ((S + S.mT) / 2) @ Z)
    u = Z @ y[:, 0]
    w = vectors[:, kept] @ ((h @ u) / values[kept])
    return Restricted(float(small[0]), u, w, null, Z.shape[1])
