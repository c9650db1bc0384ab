"""A run of mirror steps on matrix games: its weights, averages and buffers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from equilibrist.core.draws import Stream, generator, normal
from equilibrist.mixed.matrix import MatrixGame, strategy

Start = tuple[Tensor, Tensor]


class MatrixPlay:
    """The state of a run and its buffers, [n] and [m] for one game, [games, 1, n] and [games, 1, m] for several.

    Weights live as logarithms, up to a constant, whose largest is kept at 0; `point` alone leaves that domain.
    One game is multiplied as matrix times vector, M^T x by the transposed view of M: a copy is no faster on the CPU
    (benchmarks/mirror_prox.py), as both products then share M's part of the cache, and doubles the memory. Several
    games are rows times matrices.
    """

    def __init__(
        self,
        games: Sequence[MatrixGame],
        etas: list[float],
        noise: float,
        seed: int,
        evaluations: int,
        start: Start,
    ) -> None:
        first = games[0].payoff
        self.games, self.evaluations, self.seed = len(games), evaluations, seed
        self.n, self.m = first.shape
        self.payoff = first[None] if self.games == 1 else torch.stack([g.payoff for g in games])
        eta = torch.tensor(etas, dtype=first.dtype, device=first.device)[:, None, None]
        low, high = self.payoff.amin((1, 2), keepdim=True), self.payoff.amax((1, 2), keepdim=True)
        # The step and the sign belong to the matrix; a constant taken from all payoffs changes no iterate.
        scaled = (self.payoff - (low + (high - low) / 2)).mul_(eta)
        self.size = float((eta * (high - low + 40 * noise)).max())
        self.logs = -(start[0].amin(-1) + start[1].amin(-1)).double()
        self.one = self.games == 1
        shapes = [(k,) if self.one else (self.games, 1, k) for k in (self.n, self.m)]
        self.log_x, self.log_y = (
            p.reshape(shape).clone() for p, shape in zip(start, shapes, strict=True)
        )
        self.matrix = scaled[0] if self.one else scaled
        self.x, self.half_x, self.sum_x, self.zero_x = (
            self.log_x.new_zeros(shapes[0]) for _ in range(4)
        )
        self.y, self.half_y, self.sum_y, self.zero_y = (
            self.log_y.new_zeros(shapes[1]) for _ in range(4)
        )
        self.total_x = torch.zeros_like(self.sum_x, dtype=torch.float64)
        self.total_y = torch.zeros_like(self.sum_y, dtype=torch.float64)
        self.top_x, self.top_y = (
            self.log_x.amax(-1, keepdim=True),
            self.log_y.amax(-1, keepdim=True),
        )
        self.base = self.log_x, self.log_y
        # Noise of a block of evaluations, at most 2^15 numbers; the block of an evaluation depends on the shape alone.
        self.scale = noise * eta if noise else None
        self.block = max(1, 2**15 // ((self.n + self.m) * evaluations)) * evaluations
        self.held, self.noise_x, self.noise_y = -1, self.zero_x, self.zero_y

    def check(self, steps: int) -> None:
        """Raise ValueError where the logarithms of the weights could overflow."""
        if not self.size * steps < torch.finfo(self.log_x.dtype).max / 8:
            raise ValueError(
                f"steps of eta R = {self.size:.1e} overflow within {steps} iterations: take a smaller eta"
            )

    def point(self, log_x: Tensor, log_y: Tensor) -> None:
        """x and y from their log-weights."""
        torch.softmax(log_x, -1, out=self.x)
        torch.softmax(log_y, -1, out=self.y)

    def push(
        self, x: Tensor, y: Tensor, from_x: Tensor | None, from_y: Tensor | None, evaluation: int
    ) -> None:
        """x <- from_x - eta (M y + e_x), y <- from_y + eta (M^T x + e_y), at the point; from None: 0."""
        M = self.matrix
        if from_x is None or from_y is None:
            from_x, from_y = self.zero_x, self.zero_y
        if self.one:
            torch.addmv(from_x, M, self.y, alpha=-1, out=x)
            torch.addmv(from_y, M.mT, self.x, out=y)
        else:
            torch.baddbmm(from_x, self.y, M.mT, alpha=-1, out=x)
            torch.baddbmm(from_y, self.x, M, out=y)
        if self.scale is not None:
            number, row = divmod(evaluation, self.block)
            if number != self.held:
                self._draw(number)
            x.sub_(self.noise_x[row])
            y.add_(self.noise_y[row])

    def settle(self) -> None:
        """Bring the largest log-weights to 0, so that those that matter keep their digits."""
        torch.amax(self.log_x, -1, keepdim=True, out=self.top_x)
        torch.amax(self.log_y, -1, keepdim=True, out=self.top_y)
        self.log_x.sub_(self.top_x)
        self.log_y.sub_(self.top_y)

    def sum(self) -> None:
        """Count the point into the averages."""
        self.sum_x.add_(self.x)
        self.sum_y.add_(self.y)

    def fold(self) -> None:
        """Move the sums to float64: short ones keep their digits in float32 too."""
        for total, part in ((self.total_x, self.sum_x), (self.total_y, self.sum_y)):
            total.add_(part)
            part.zero_()

    def look(self) -> tuple[Tensor, ...]:
        """Gap of averages and of the point [games], the averages and the point [games, n or m]."""
        totals = [s.reshape(self.games, -1) for s in (self.total_x, self.total_y)]
        average = [(s / s.sum(-1, keepdim=True)).to(self.payoff) for s in totals]
        final = [p.reshape(self.games, -1).clone() for p in (self.x, self.y)]
        return self._gap(average), self._gap(final), *average, *final

    def _gap(self, pair: list[Tensor]) -> Tensor:
        columns, rows = pair[0][:, None] @ self.payoff, pair[1][:, None] @ self.payoff.mT
        return columns.amax((1, 2)) - rows.amin((1, 2))

    def _draw(self, number: int) -> None:
        assert self.scale is not None
        like = self.log_x
        drawn = torch.stack(
            [
                normal(
                    generator(self.seed, Stream.NOISE, number, index=k),
                    (self.block, 1, self.n + self.m),
                    like.dtype,
                    like.device,
                )
                for k in range(self.games)
            ],
            1,
        ).mul_(self.scale)
        if self.one:
            drawn = drawn[:, 0, 0]
        self.noise_x, self.noise_y = drawn.split([self.n, self.m], -1)
        self.held = number


def logits(start: Start | None, games: Sequence[MatrixGame]) -> Start:
    """Logarithms [games, n] and [games, m] of the start."""
    found, like = [], games[0].payoff
    for name, k, size in (("x", 0, games[0].n), ("y", 1, games[0].m)):
        if start is None:
            found.append(like.new_full((len(games), size), -math.log(size)))
            continue
        p = strategy(f"start {name}", start[k], size).to(like)
        if p.shape not in ((size,), (len(games), size)):
            raise ValueError(
                f"start {name} must have shape [{size}] or [{len(games)}, {size}], not {list(p.shape)}"
            )
        found.append(p.clamp(min=0).expand(len(games), size).log())
    return found[0], found[1]
