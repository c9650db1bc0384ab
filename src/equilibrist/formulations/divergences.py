"""f-divergences: the function f, its convex conjugate f*, and a map from free scores into dom f*.

Direction, once and for all: P is the data's law, Q the generator's, t = p/q, and the divergence is
the integral of q f(p/q). Farnia and Ozdaglar 2020 define d_f(P, Q) the other way round, as the
integral of p f(q/p); the symmetric divergences hide the difference, KL and reverse KL do not.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

from equilibrist.errors import GameError, did_you_mean

LOG2 = math.log(2)


class ConjugateDomain(NamedTuple):
    """dom f*: all u below `upper` (itself excluded), and the same in words."""

    upper: float
    words: str


EVERYWHERE = ConjugateDomain(math.inf, "all u")


class Divergence(ABC):
    """The integral of q f(p/q), f convex with f(1) = 0 (or f(1) = -log 4 for `VanillaDivergence`).

    Its variational form is the supremum over u(x) of E_P u(x) - E_Q f*(u(x)) (Nguyen, Wainwright
    and Jordan 2010), attained at u = f'(p/q). All methods work entry by entry, keep the shape and
    are differentiable twice or more inside the domain.

    Attributes: `name`; `direction`, what is measured in terms of P (data) and Q (generator);
    `domain` of the conjugate; `unit` of the value; `curvature`, f''(1): near P = Q the divergence
    is f''(1) times as large as KL.
    """

    name: ClassVar[str]
    direction: ClassVar[str]
    domain: ClassVar[ConjugateDomain] = EVERYWHERE
    unit: ClassVar[str] = "nats"
    curvature: ClassVar[float]

    @abstractmethod
    def f(self, t: Tensor) -> Tensor:
        """f at ratios t = p/q > 0."""

    @abstractmethod
    def derivative(self, t: Tensor) -> Tensor:
        """f'(t): the optimal u where p/q = t."""

    @abstractmethod
    def conjugate(self, u: Tensor) -> Tensor:
        """f*(u), the supremum over t > 0 of t u - f(t), for u in the domain (see `check`)."""

    def activation(self, score: Tensor) -> Tensor:
        """g: free scores to dom f*, increasing (a larger score is a larger p/q) and smooth.

        After Nowozin, Cseke and Tomioka 2016, table 2.
        """
        return score

    def real_score(self, score: Tensor) -> Tensor:
        """g(score): what the critic earns on a real sample."""
        return self.activation(score)

    def fake_score(self, score: Tensor) -> Tensor:
        """f*(g(score)), what it pays on a generated one, in a form without cancellation."""
        return self.conjugate(self.activation(score))

    def check(self, u: Tensor) -> None:
        """Raise `GameError` unless every u lies in dom f*. `activation` makes this needless."""
        outside = ~(u < self.domain.upper)
        if bool(outside.any()):
            worst = float(u.detach()[outside].max())
            raise GameError(
                f"the conjugate of {self.name} is infinite or undefined at u = {worst:g}: its domain "
                f"is {self.domain.words}; map free scores into it by activation(score)"
            )


@dataclass(frozen=True)
class KL(Divergence):
    """f(t) = t log t, f*(u) = e^(u-1): KL(P || Q), P the data's law."""

    name: ClassVar[str] = "KL"
    direction: ClassVar[str] = "KL(P || Q), P the data's law, Q the generator's"
    curvature: ClassVar[float] = 1.0

    def f(self, t: Tensor) -> Tensor:
        return torch.xlogy(t, t)

    def derivative(self, t: Tensor) -> Tensor:
        return t.log() + 1

    def conjugate(self, u: Tensor) -> Tensor:
        return (u - 1).exp()


@dataclass(frozen=True)
class ReverseKL(Divergence):
    """f(t) = -log t, f*(u) = -1 - log(-u), u < 0: KL(Q || P), P the data's law.

    g(s) = -e^(-s), so that f*(g(s)) = s - 1.
    """

    name: ClassVar[str] = "reverse KL"
    direction: ClassVar[str] = "KL(Q || P), P the data's law, Q the generator's"
    domain: ClassVar[ConjugateDomain] = ConjugateDomain(0.0, "u < 0")
    curvature: ClassVar[float] = 1.0

    def f(self, t: Tensor) -> Tensor:
        return -t.log()

    def derivative(self, t: Tensor) -> Tensor:
        return -1 / t

    def conjugate(self, u: Tensor) -> Tensor:
        return -1 - (-u).log()

    def activation(self, score: Tensor) -> Tensor:
        return -(-score).exp()

    def fake_score(self, score: Tensor) -> Tensor:
        return score - 1


@dataclass(frozen=True)
class JensenShannon(Divergence):
    """f(t) = t log t - (t+1) log((t+1)/2), f*(u) = -log(2 - e^u), u < log 2: **twice** JS(P, Q).

    g(s) = log 2 - softplus(-s), so that f*(g(s)) = softplus(s) - log 2.
    """

    name: ClassVar[str] = "Jensen-Shannon"
    direction: ClassVar[str] = "2 JS(P, Q), symmetric"
    domain: ClassVar[ConjugateDomain] = ConjugateDomain(LOG2, "u < log 2")
    curvature: ClassVar[float] = 0.5

    def f(self, t: Tensor) -> Tensor:
        return torch.xlogy(t, t) - (t + 1) * (torch.log1p(t) - LOG2)

    def derivative(self, t: Tensor) -> Tensor:
        return t.log() - torch.log1p(t) + LOG2

    def conjugate(self, u: Tensor) -> Tensor:
        return -(2 - u.exp()).log()

    def activation(self, score: Tensor) -> Tensor:
        return LOG2 - softplus(-score)

    def fake_score(self, score: Tensor) -> Tensor:
        return softplus(score) - LOG2


@dataclass(frozen=True)
class VanillaDivergence(Divergence):
    """f(t) = t log t - (t+1) log(t+1), f*(u) = -log(1 - e^u), u < 0: 2 JS(P, Q) - log 4.

    The value of the original GAN (Goodfellow et al. 2014): `FGAN("vanilla")` is `Vanilla`.
    g(s) = -softplus(-s) = log sigmoid(s), so that f*(g(s)) = softplus(s).
    """

    name: ClassVar[str] = "vanilla"
    direction: ClassVar[str] = "2 JS(P, Q) - log 4, symmetric"
    domain: ClassVar[ConjugateDomain] = ConjugateDomain(0.0, "u < 0")
    curvature: ClassVar[float] = 0.5

    def f(self, t: Tensor) -> Tensor:
        return torch.xlogy(t, t) - (t + 1) * torch.log1p(t)

    def derivative(self, t: Tensor) -> Tensor:
        return t.log() - torch.log1p(t)

    def conjugate(self, u: Tensor) -> Tensor:
        return -(-torch.expm1(u)).log()

    def activation(self, score: Tensor) -> Tensor:
        return -softplus(-score)

    def fake_score(self, score: Tensor) -> Tensor:
        return softplus(score)


@dataclass(frozen=True)
class Pearson(Divergence):
    """f(t) = (t-1)^2, f*(u) = u^2/4 + u for u >= -2 and -1 below: the integral of (p-q)^2 / q.

    Below u = -2 the supremum over t > 0 is approached at t = 0; the parabola alone would rise again.
    """

    name: ClassVar[str] = "Pearson"
    direction: ClassVar[str] = "the integral of (p - q)^2 / q, p the data's density"
    unit: ClassVar[str] = "divergence units"
    curvature: ClassVar[float] = 2.0

    def f(self, t: Tensor) -> Tensor:
        return (t - 1).square()

    def derivative(self, t: Tensor) -> Tensor:
        return 2 * (t - 1)

    def conjugate(self, u: Tensor) -> Tensor:
        return (u / 2 + 1).clamp_min(0).square() - 1


@dataclass(frozen=True)
class Neyman(Divergence):
    """f(t) = (1-t)^2 / t, f*(u) = 2 - 2 sqrt(1-u), u < 1: the integral of (p-q)^2 / p.

    g(s) = 1 - e^(-s), so that f*(g(s)) = 2 - 2 e^(-s/2).
    """

    name: ClassVar[str] = "Neyman"
    direction: ClassVar[str] = "the integral of (p - q)^2 / p, p the data's density"
    domain: ClassVar[ConjugateDomain] = ConjugateDomain(1.0, "u < 1")
    unit: ClassVar[str] = "divergence units"
    curvature: ClassVar[float] = 2.0

    def f(self, t: Tensor) -> Tensor:
        return (1 - t).square() / t

    def derivative(self, t: Tensor) -> Tensor:
        return 1 - 1 / t.square()

    def conjugate(self, u: Tensor) -> Tensor:
        return 2 - 2 * (1 - u).sqrt()

    def activation(self, score: Tensor) -> Tensor:
        return -torch.expm1(-score)

    def fake_score(self, score: Tensor) -> Tensor:
        return -2 * torch.expm1(-score / 2)


@dataclass(frozen=True)
class SquaredHellinger(Divergence):
    """f(t) = (sqrt t - 1)^2, f*(u) = u / (1-u), u < 1: the integral of (sqrt p - sqrt q)^2.

    No factor 1/2: it lies between 0 and 2. g(s) = 1 - e^(-s), so that f*(g(s)) = e^s - 1.
    """

    name: ClassVar[str] = "squared Hellinger"
    direction: ClassVar[str] = "the integral of (sqrt p - sqrt q)^2, symmetric"
    domain: ClassVar[ConjugateDomain] = ConjugateDomain(1.0, "u < 1")
    unit: ClassVar[str] = "divergence units"
    curvature: ClassVar[float] = 0.5

    def f(self, t: Tensor) -> Tensor:
        return (t.sqrt() - 1).square()

    def derivative(self, t: Tensor) -> Tensor:
        return 1 - t.rsqrt()

    def conjugate(self, u: Tensor) -> Tensor:
        return u / (1 - u)

    def activation(self, score: Tensor) -> Tensor:
        return -torch.expm1(-score)

    def fake_score(self, score: Tensor) -> Tensor:
        return torch.expm1(score)


@dataclass(frozen=True)
class Jeffreys(Divergence):
    """f(t) = (t-1) log t: KL(P || Q) + KL(Q || P).

    f*(u) = 1/w - 1 - log w with w = W(e^(1-u)), W Lambert's function: f'(t) = log t + 1 - 1/t = u
    says that 1/t + log(1/t) = 1 - u.
    """

    name: ClassVar[str] = "Jeffreys"
    direction: ClassVar[str] = "KL(P || Q) + KL(Q || P), symmetric"
    curvature: ClassVar[float] = 2.0

    def f(self, t: Tensor) -> Tensor:
        return (t - 1) * t.log()

    def derivative(self, t: Tensor) -> Tensor:
        return t.log() + 1 - 1 / t

    def conjugate(self, u: Tensor) -> Tensor:
        log_w = log_lambert_w_exp(1 - u)
        return torch.expm1(-log_w) - log_w


def log_lambert_w_exp(z: Tensor) -> Tensor:
    """log W(e^z), W the principal branch of Lambert's function: the root l of l + e^l = z.

    Found by Newton's method without a graph: h(l) = l + e^l - z is increasing and convex, and the
    start is never left of the root, so that the steps fall towards it. Two more steps, with a graph,
    carry the derivatives: a root that is held constant is right to order 0 in z, and each Newton step
    takes order k to 2k + 1, so derivatives up to the third are exact. Also under `torch.func`.
    """
    with torch.no_grad():
        held = z.detach()
        log_w = torch.where(held > 1, held.clamp_min(1).log(), held)
        for _ in range(5):
            log_w = _newton(log_w, held)
    return _newton(_newton(log_w.detach(), z), z)


def _newton(log_w: Tensor, z: Tensor) -> Tensor:
    w = log_w.exp()
    return log_w - (log_w + w - z) / (1 + w)


DIVERGENCES: dict[str, type[Divergence]] = {
    "kl": KL,
    "reverse_kl": ReverseKL,
    "jensen_shannon": JensenShannon,
    "vanilla": VanillaDivergence,
    "pearson": Pearson,
    "neyman": Neyman,
    "squared_hellinger": SquaredHellinger,
    "jeffreys": Jeffreys,
}


def divergence(name: str) -> Divergence:
    """The divergence of that name ("kl", "reverse_kl", ...); case, spaces and hyphens do not matter.

    Raises:
        GameError: there is none; the message names the closest.
    """
    key = name.strip().lower().replace("-", "_").replace(" ", "_")
    if key not in DIVERGENCES:
        hint = did_you_mean(key, DIVERGENCES)
        raise GameError(
            f"there is no divergence {name!r}{hint}: choose from {', '.join(DIVERGENCES)}"
        )
    return DIVERGENCES[key]()
