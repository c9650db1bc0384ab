"""Minibatches that several processes evaluate together, played by threads: the bits of one process."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equilibrist as eq
from equilibrist import contract, tree
from equilibrist.core.draws import Batches
from equilibrist.core.parts import mean_in_order
from equilibrist.solvers import Solver

F64 = torch.float64
PARTS = 4
ALONE = threading.Lock()


class Threads:
    """What `equilibrist.distributed.Ranks` is to processes, for one of several threads."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, held: list[Any]) -> None:
        self.rank, self.size, self.barrier, self.held = rank, size, barrier, held

    def own(self, parts: int) -> range:
        count = parts // self.size
        return range(self.rank * count, (self.rank + 1) * count)

    def mean(self, rows: Sequence[Sequence[Tensor]], parts: int) -> list[Tensor]:
        self.held[self.rank] = [[t.clone() for t in row] for row in rows]
        self.barrier.wait()
        every = [row for held in self.held for row in held]
        found = [mean_in_order(column) for column in zip(*every, strict=True)]
        self.barrier.wait()  # nobody offers anew before all have read
        assert len(every) == parts
        return found


def network(*sizes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(sizes[0], 6), nn.Tanh(), nn.Linear(6, sizes[1]))


def trained(solver: Solver, game: eq.GAN, ranks: Threads | None = None, parts: int = PARTS) -> Any:
    """The players after three steps."""
    data = eq.ArraySource(
        torch.randn(64, 2, generator=torch.Generator().manual_seed(1)), kind="points"
    )
    batches = Batches(lambda rng, n: game.draw(rng, data, n, F64), 8, 0)
    field = eq.VectorField(game, parts=parts, ranks=ranks)
    with ALONE:  # torch's random state, which initial weights are drawn from, is the process's
        players, constants = game.init(0, dtype=F64)
    state = solver.init(players)
    for k in range(3):
        players, constants, state, _ = solver.step(field, players, constants, state, batches.at(k))
    return tree.flatten(players)


def by_threads(size: int, play: Callable[[Threads], Any]) -> list[Any]:
    barrier, held = threading.Barrier(size, timeout=120), [None] * size
    found: list[Any] = [None] * size

    def run(rank: int) -> None:
        try:
            found[rank] = play(Threads(rank, size, barrier, held))
        except BaseException as error:
            found[rank] = error
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in found:
        if isinstance(one, BaseException) and not isinstance(one, threading.BrokenBarrierError):
            raise one
    return found


def small(**options: Any) -> eq.GAN:
    return eq.GAN(
        lambda: network(2, 2),
        lambda: network(2, 1),
        options.pop("loss", eq.Vanilla()),
        latent=2,
        **options,
    )


GAMES = {
    "plain": small,
    "gradient penalty": lambda: small(loss=eq.WGAN(), penalties=[eq.GradientPenalty()]),
    "spectral norm, R1": lambda: small(spectral_norm=True, penalties=[eq.R1(1.0)]),
}


@pytest.mark.parametrize("name", contract.SOLVERS)
def test_every_solver_takes_the_same_steps_by_any_number(name: str) -> None:
    solver, game = contract.SOLVERS[name].make(1e-2, "generator", "critic"), small()
    if name == "unrolled":
        why = "this solver's steps cannot be averaged in parts: the mean of unrolled losses is not"
        with pytest.raises(eq.GameError, match=why):
            trained(solver, game)
        return
    alone = trained(solver, game)
    for size in (2, 4) if name != "implicit" else (2,):  # its inner solves take seconds
        found = by_threads(size, lambda ranks: trained(solver, copy.deepcopy(game), ranks))
        assert all(torch.equal(one, alone) for one in found), size
    whole = trained(solver, game, parts=1)
    torch.testing.assert_close(alone, whole, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", GAMES)
def test_penalties_and_second_derivatives_too(name: str) -> None:
    game = GAMES[name]()
    for solver in (eq.Consensus(eq.Adam(1e-2)), eq.Alternating(2, eq.Adam(1e-2))):
        alone = trained(solver, game)
        found = by_threads(2, lambda r, s=solver: trained(s, copy.deepcopy(game), r))  # type: ignore[misc]
        assert all(torch.equal(one, alone) for one in found)


def test_losses_of_whole_batches_are_refused() -> None:
    normed = eq.GAN(
        lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 2)),
        lambda: network(2, 1), eq.Vanilla(), latent=2,
    )  # fmt: skip
    ranks = Threads(0, 2, threading.Barrier(2), [None] * 2)
    with pytest.raises(eq.GameError, match="cannot be averaged over machines"):
        eq.VectorField(normed, parts=2, ranks=ranks)


def test_parts_that_do_not_divide_a_batch() -> None:
    with pytest.raises(eq.GameError, match="a batch of 8 cannot be cut into 3 equal parts"):
        trained(eq.Simultaneous(), small(), parts=3)
