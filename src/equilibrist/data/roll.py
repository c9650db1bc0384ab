"""The Swiss roll in the plane, with its density."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint

from equilibrist.data._law import Law
from equilibrist.data._source import check_count
from equilibrist.errors import DataError

_START, _END = 1.5 * math.pi, 4.5 * math.pi
_NODES = 10  # Gauss-Legendre nodes in each panel, two standard deviations long
_PANELS = 80  # at least, for the curve bends however wide the noise
_CHUNK = 2**22  # distances that are held at once


class SwissRoll(Law):
    """X = (T (cos T, sin T) + noise E) / scale, T uniform on [3 pi/2, 9 pi/2], E ~ N(0, I_2).

    So the density is the mean over T of N(x; c(T), sigma^2 I), with the curve c(t) = t (cos t,
    sin t) / scale and sigma = noise / scale. As T, not the length along the curve, is uniform, the
    outer winding is thinner than the inner one.

    Args:
        noise: standard deviation along each axis before scaling.
        scale: what curve and noise are divided by.
        name, origin: as in `Source`.
        dtype: torch.float32 or torch.float64; the noise is drawn in it.

    Attributes besides those of `Source`: `noise`, `scale`, `sigma`.

    Raises:
        DataError: a noise or scale that is not a positive number.
    """

    shape: tuple[int, ...] = (2,)

    def __init__(
        self,
        noise: float = 0.25,
        scale: float = 7.5,
        *,
        name: str = "swiss-roll",
        origin: str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        for what, value in (("noise", noise), ("scale", scale)):
            if not (math.isfinite(value) and value > 0):
                raise DataError(f"{name}: {what} is {value}; give a positive number")
        self.name = name
        self.noise, self.scale = float(noise), float(scale)
        self.sigma = self.noise / self.scale
        self.origin = origin or (
            f"a Swiss roll in the plane, noise {noise:g}, divided by {scale:g}, drawn afresh "
            "(after Gulrajani et al., 2017)"
        )
        self._place(torch.device("cpu"), dtype)

    def sample(self, rng: np.random.Generator, n: int) -> torch.Tensor:
        """Draw [n, 2], rows independent."""
        check_count(self.name, n)
        centres = self._curve(_START + (_END - _START) * rng.random(n))
        drawn = self._normal(rng, n)
        points = drawn.numpy()
        points *= self.sigma
        points += centres.astype(self._draw_dtype)
        return self._delivered(drawn)

    def log_density(self, x: torch.Tensor) -> torch.Tensor:
        """log p(x) in nats: [..., 2] to [...], in the dtype of x and differentiable in it.

        By Gauss-Legendre quadrature along the curve, in panels of at most 2 sigma with 10
        nodes each: in float64 exact to about 1e-12 where p is not negligible.

        Raises:
            DataError: x of another shape or of integers.
        """
        self._check_points(x)
        nodes, weights = self._quadrature()
        centres = torch.from_numpy(nodes).to(x)
        logs = torch.from_numpy(np.log(weights)).to(x)
        scale = math.log(2 * math.pi * self.sigma**2)

        def part(points: torch.Tensor) -> torch.Tensor:
            distance = (points.unsqueeze(-2) - centres).square().sum(-1)
            return torch.logsumexp(distance / (-2 * self.sigma**2) + logs, -1) - scale

        chunks = x.reshape(-1, 2).split(max(1, _CHUNK // len(nodes)))
        run = part if not (x.requires_grad and len(chunks) > 1) else _recomputed(part)
        return torch.cat([run(chunk) for chunk in chunks]).reshape(x.shape[:-1])

    def _curve(self, t: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(t), np.sin(t)], axis=-1) * (t / self.scale)[..., None]

    def _quadrature(self) -> tuple[np.ndarray, np.ndarray]:
        """Nodes on the curve [m, 2] and their weights [m], whose sum is 1."""
        # The curve is nearly (t^2)/2 long, so that edges even in t^2 make panels of even length.
        panels = max(_PANELS, math.ceil((_END**2 - _START**2) / 2 / (2 * self.noise)))
        edges = np.sqrt(np.linspace(_START**2, _END**2, panels + 1))
        x, w = np.polynomial.legendre.leggauss(_NODES)
        half, middle = np.diff(edges)[:, None] / 2, (edges[1:] + edges[:-1])[:, None] / 2
        t, weights = middle + half * x, half * w
        return self._curve(t.ravel()), weights.ravel() / (_END - _START)


def _recomputed(
    part: Callable[[torch.Tensor], torch.Tensor],
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same function, of which autograd keeps the argument alone and computes the rest again."""

    def run(points: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = checkpoint(part, points, use_reentrant=False)
        return result

    return run


def swiss_roll(noise: float = 0.25, scale: float = 7.5) -> SwissRoll:
    """The Swiss roll of Gulrajani, Ahmed, Arjovsky, Dumoulin and Courville, "Improved Training of
    Wasserstein GANs", NeurIPS 2017: scikit-learn's roll without its width, noise 0.25, divided by
    7.5 (the numbers are those of the paper's code).

    Its law is in `SwissRoll`.

    Args:
        noise: standard deviation along each axis before scaling.
        scale: what curve and noise are divided by.

    Returns:
        The law, drawn afresh whenever it is asked.

    Raises:
        DataError: a noise or scale that is not positive.
    """
    return SwissRoll(noise, scale)
