"""Shape tests: one `step` serves a single run, a stack of seeds, and two machines, to 1e-12.

If a method cannot be written against Game, VectorField and draws so that all three agree, it is the
shape that must change.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from shape_solvers import Consensus, Langevin, Proximal
from torch import nn

from equilibrist import tree
from equilibrist.core.draws import Draws, StackedDraws, normal
from equilibrist.core.field import VectorField
from equilibrist.distributed import mean_over_ranks
from equilibrist.errors import GameError
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN
from equilibrist.optimizers import SGD, Adam
from equilibrist.penalties import GradientPenalty
from equilibrist.projections import WeightClipping
from equilibrist.solvers import Alternating, Simultaneous

F64 = torch.float64
BATCH, STEPS, MEMBERS = 6, 3, 3


def _generator(norm: bool = False) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 7, dtype=F64),
        *([nn.BatchNorm1d(7, dtype=F64)] if norm else []),
        nn.Tanh(),
        nn.Linear(7, 2, dtype=F64),
    )


def _critic(norm: bool = False) -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 7, dtype=F64),
        *([nn.BatchNorm1d(7, dtype=F64)] if norm else []),
        nn.Softplus(),
        nn.Linear(7, 1, dtype=F64),
    )


class _Ring:
    def sample(self, rng: Any, n: int) -> torch.Tensor:
        return torch.nn.functional.normalize(normal(rng, (n, 2), F64, None))


def game(kind: str) -> GAN:
    plain = partial(GAN, _generator, _critic, latent=3)
    return {
        "plain": lambda: plain(Vanilla()),
        "zero-sum": lambda: plain(WGAN()),
        "spectral norm": lambda: plain(Vanilla(), spectral_norm=True),
        "gradient penalty": lambda: plain(WGAN(), penalties=[GradientPenalty()]),
        "clipping": lambda: plain(WGAN(), projections=[WeightClipping(0.1)]),
        "batch norm": lambda: GAN(
            partial(_generator, True), partial(_critic, True), Vanilla(), latent=3
        ),
    }[kind]()


def draws_of(g: GAN, seed: int, step: int, rank: int = 0) -> Draws:
    make = partial(g.draw, source=_Ring(), batch=BATCH, dtype=F64)
    return Draws(lambda rng: make(rng), seed, step, rank)


class Joined:
    """The draws of two ranks as one batch: what a single machine would see."""

    def __init__(self, *parts: Draws) -> None:
        self.parts = parts

    def batch(self, index: int = 0) -> Any:
        return tree.map(lambda *x: torch.cat(x), *(p.batch(index) for p in self.parts))

    def noise(self, like: Any, index: int = 0) -> Any:
        return self.parts[0].noise(like, index)


CASES = {
    "consensus, one minibatch": ("plain", Consensus()),
    "consensus, two minibatches": ("plain", Consensus(batches=2)),
    "consensus, zero-sum": ("zero-sum", Consensus()),
    "consensus, spectral norm": ("spectral norm", Consensus()),
    "consensus, gradient penalty": ("gradient penalty", Consensus(h=0.005)),
    "proximal training": ("plain", Proximal()),
    "proximal training, spectral norm": ("spectral norm", Proximal()),
    "Langevin sampler": ("plain", Langevin()),
    "Langevin sampler, spectral norm": ("spectral norm", Langevin()),
    "simultaneous": ("plain", Simultaneous(SGD(0.05))),
    "simultaneous, zero-sum": ("zero-sum", Simultaneous(SGD(0.05))),
    "alternating, spectral norm": ("spectral norm", Alternating(2, Adam(1e-3))),
    "alternating, gradient penalty": ("gradient penalty", Alternating(2, SGD(0.05))),
    "alternating, clipping": ("clipping", Alternating(2, SGD(0.05))),
}
MIXING = {
    "alternating, batch norm": ("batch norm", Alternating(2, SGD(0.05))),
    "consensus, batch norm": ("batch norm", Consensus()),
    "Langevin sampler, batch norm": ("batch norm", Langevin()),
}


def play(field: VectorField, solver: Any, start: Any, draws: Any) -> tuple[Any, Any]:
    """STEPS steps from a copy of `start`; everything that changed."""
    players, constants = tree.clone(start.players), tree.clone(start.constants)
    state = solver.init(players)
    for step in range(STEPS):
        players, constants, state, info = solver.step(field, players, constants, state, draws(step))
    return {"players": players, "constants": constants, "state": state}, info["loss"]


def assert_close(a: Any, b: Any) -> None:
    for (path, x), (_, y) in zip(tree.items(a), tree.items(b), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12, msg=lambda m, p=path: f"{p}: {m}")


@pytest.mark.parametrize("name", [*CASES, *MIXING])
def test_stacked_equals_loop(name: str) -> None:
    kind, solver = {**CASES, **MIXING}[name]
    g = game(kind)
    starts = [g.init(seed) for seed in range(MEMBERS)]
    alone = [
        play(VectorField(g), solver, start, lambda k, s=s: draws_of(g, s, k))
        for s, start in enumerate(starts)
    ]
    stacked = type(starts[0])(*(tree.stack(part) for part in zip(*starts, strict=True)))
    together, loss = play(
        VectorField(g, stacked=MEMBERS),
        solver,
        stacked,
        lambda k: StackedDraws([draws_of(g, s, k) for s in range(MEMBERS)]),
    )
    for index, (values, own) in enumerate(alone):
        shared = tree.map(lambda t, i=index: t if t.ndim == 0 else t[i], together)
        assert_close({**values, "loss": own}, {**shared, "loss": tree.member(loss, index)})
    moved = tree.norm(tree.axpy(-1.0, starts[0].players, alone[0][0]["players"]))
    assert moved > 1e-3, "the solver moved nothing, so the comparison says nothing"


def _rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    results = {}
    for name, (kind, solver) in CASES.items():
        g = game(kind)
        values, loss = play(
            VectorField(g, reduce=mean_over_ranks),
            solver,
            g.init(0),
            lambda k, g=g: draws_of(g, 0, k, rank),
        )
        results[name] = {**values, "loss": loss}
    torch.save(results, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two_ranks() -> Any:
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (folder,), nprocs=2)
        yield [torch.load(Path(folder) / f"rank{r}.pt") for r in range(2)]


@pytest.mark.parametrize("name", CASES)
def test_two_machines_equal_one(name: str, two_ranks: Any) -> None:
    kind, solver = CASES[name]
    g = game(kind)
    values, loss = play(
        VectorField(g),
        solver,
        g.init(0),
        lambda k: Joined(draws_of(g, 0, k, 0), draws_of(g, 0, k, 1)),
    )
    for result in two_ranks:
        assert_close({**values, "loss": loss}, result[name])


def test_batch_norm_is_not_averaged() -> None:
    with pytest.raises(
        GameError, match=r"cannot be averaged over machines: .* differs by .*batch norm"
    ):
        VectorField(game("batch norm"), reduce=mean_over_ranks)
