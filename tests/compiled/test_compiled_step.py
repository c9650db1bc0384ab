"""Compiled steps against eager ones: as graphs for every solver, as machine code for a few."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import equilibrist as eq
from equilibrist import contract, tree
from equilibrist.compiled import seconds_to_compile
from equilibrist.core.draws import Batches, StackedDraws
from equilibrist.solvers import Solver

F64 = torch.float64
# Those that solve a linear system take thousands of operations on a GAN.
SOLVES = {"competitive", "follow the ridge", "follow the ridge, damped", "implicit"}


def as_graph(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Callable[..., Any]:
    """Instead of a compiler: the graph itself."""
    return graph


@pytest.mark.parametrize("name", contract.SOLVERS)
def test_the_graph_is_the_step(name: str) -> None:
    """Every solver, to rounding, on a GAN of modules."""
    game = "quadratic, monotone" if name in SOLVES else "sampled vanilla GAN"
    (cell,) = contract.cells({name: contract.SOLVERS[name]}, {game: contract.GAMES[game]})
    contract.require(contract.check_solver(cell.subject, cell.arena, only=["traced"]))


def mlp(sizes: list[int], *more: nn.Module) -> nn.Module:
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b), nn.Tanh()]
    return nn.Sequential(*layers[:-1], *more)


class Training:
    """One GAN, eager or compiled."""

    def __init__(self, solver: Solver, members: int = 0, **options: Any) -> None:
        generator = options.pop("generator", lambda: mlp([3, 8, 2]))
        critic = options.pop("critic", lambda: mlp([2, 8, 1]))
        formulation = options.pop("formulation", eq.Vanilla())
        field = {k: options.pop(k) for k in ("parts", "autocast") if k in options}
        self.dtype = options.pop("dtype", F64)
        game = eq.GAN(generator, critic, formulation, latent=3, **options)
        data = eq.ArraySource(
            torch.randn(64, 2, generator=torch.Generator().manual_seed(1)), kind="points"
        )
        seeds = range(max(1, members))
        self.batches = [
            Batches(lambda r, n: game.draw(r, data, n, self.dtype), 8, s) for s in seeds
        ]
        starts = [game.init(s, dtype=self.dtype) for s in seeds]
        whole = [tree.stack([s[i] for s in starts]) if members else starts[0][i] for i in (0, 1)]
        self.solver, self.field = solver, eq.VectorField(game, stacked=members or None, **field)
        self.held = (*whole, solver.init(whole[0]))
        self.members = members

    def draws(self, step: int) -> Any:
        drawn = [b.at(step) for b in self.batches]
        return StackedDraws(drawn) if self.members else drawn[0]

    def compare(self, compiler: Any = as_graph, steps: int = 3) -> tuple[float, eq.CompiledStep]:
        """The largest difference after some steps of both kinds."""
        compiled = eq.CompiledStep(self.solver, self.field, compiler)
        mine, theirs = (tuple(tree.clone(part) for part in self.held) for _ in range(2))
        for k in range(steps):
            a = compiled(*mine, self.draws(k))
            b = self.solver.step(self.field, *theirs, self.draws(k))
            mine, theirs = (a[0], a[1], a[2]), (b[0], b[1], b[2])
            assert [*a.info] == [*b.info]
            assert a.info["loss"].keys() == b.info["loss"].keys()
        pairs = zip(
            [x for part in (*mine, a.info) for x in tree.leaves(part)],
            [x for part in (*theirs, b.info) for x in tree.leaves(part)],
            strict=True,
        )
        return max(float((x.double() - y.double()).abs().max()) for x, y in pairs), compiled


ADAM = eq.Alternating(2, eq.Adam(1e-2))


@pytest.mark.parametrize(
    ("solver", "options"),
    [
        pytest.param(ADAM, {"penalties": [eq.GradientPenalty()]}, id="gradient penalty"),
        pytest.param(ADAM, {"members": 3}, id="stacked"),
        pytest.param(ADAM, {"parts": 2}, id="accumulated"),
        pytest.param(ADAM, {"formulation": eq.WGAN(), "projections": [eq.WeightClipping(0.1)]}, id="clipped"),
        pytest.param(
            ADAM,
            {"critic": lambda: mlp([2, 8, 1], nn.Identity()), "penalties": [eq.R1(1.0), eq.R2(1.0)]},
            id="R1, R2",
        ),
        pytest.param(
            eq.Averaged(eq.Alternating(1, eq.Clipped(eq.Scheduled(eq.Adam(1e-2), eq.Cosine(9)), 1.0))),
            {},
            id="schedule, clipping, average",
        ),
        pytest.param(eq.MirrorGAN(eq.SGLD(1e-3), inner=2), {}, id="noise on weights"),
        pytest.param(eq.Proximal(2), {}, id="proximal"),
    ],
)  # fmt: skip
def test_options_are_traced_too(solver: Solver, options: dict[str, Any]) -> None:
    apart, compiled = Training(solver, **options).compare()
    assert apart < 1e-12
    assert compiled.operations > 50
    assert compiled.seconds > 0


def test_power_vectors_move_on() -> None:
    """Spectral norm's vectors are constants that a step renews."""
    training = Training(ADAM, spectral_norm=True)
    before = tree.clone(training.held[1])
    assert tree.leaves(before)
    assert training.compare()[0] < 1e-12


@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler: g++ is not installed")
def test_machine_code_takes_the_same_steps() -> None:
    """TorchInductor on consensus: losses, a second derivative, Adam."""
    training = Training(eq.Consensus(eq.Adam(1e-2)), dtype=torch.float32)
    apart, _ = training.compare(None, steps=4)
    assert apart < 1e-5


def test_another_batch_compiles_anew() -> None:
    training = Training(ADAM)
    seen = []

    def counting(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        seen.append(graph)
        return graph

    step = eq.CompiledStep(training.solver, training.field, counting)
    held = tuple(tree.clone(part) for part in training.held)
    for rows in (8, 8, 4, 8, 4):  # the last batch of an epoch is smaller, each time
        batch = {k: v[:rows] for k, v in training.draws(0).batch(0).items()}
        step(*held, eq.Given(batch))
    assert len(seen) == 2
    moved = tuple(tree.map(lambda t: t.float(), part) for part in held)
    step(*moved, eq.Given({k: v.float() for k, v in batch.items()}))
    assert len(seen) == 3


def test_tensors_that_are_replaced_in_their_dictionary_are_seen() -> None:
    training = Training(ADAM)
    step = eq.CompiledStep(training.solver, training.field, as_graph)
    mine, theirs = (tuple(tree.clone(part) for part in training.held) for _ in range(2))
    for k in range(2):
        step(*mine, training.draws(k))
        training.solver.step(training.field, *theirs, training.draws(k))
        for held in (mine, theirs):
            part = held[0]["critic"]
            part.update({name: 0.5 * t for name, t in part.items()})
    for a, b in zip(tree.leaves(mine[0]), tree.leaves(theirs[0]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_measurements_that_are_wrong_are_caught() -> None:
    def doubling(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        return lambda *arguments: [2 * value for value in graph(*arguments)]

    with pytest.raises(eq.CompilationError, match="measures another loss of the"):
        Training(ADAM).compare(doubling)


def test_a_compiler_that_errs_is_caught() -> None:
    """The first steps are compared: a lost update is no rounding."""

    def losing(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        def call(*arguments: Tensor) -> Any:
            before = arguments[0].clone()  # the generator's first weight
            found = graph(*arguments)
            arguments[0].copy_(before)
            return found

        return call

    training = Training(ADAM)
    with pytest.raises(eq.CompilationError, match="moves the generator differently"):
        training.compare(losing)


def rounding(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Callable[..., Any]:
    """A compiler whose function rounds otherwise: it starts from weights that differ in the last bits."""
    rng = torch.Generator().manual_seed(1)

    def call(*arguments: Tensor) -> Any:
        for held in arguments[:12]:
            if held.is_floating_point():
                held.mul_(1 + torch.finfo(held.dtype).eps * torch.randn(held.shape, generator=rng))
        return graph(*arguments)

    return call


def normed() -> Training:
    """Batch norm after a layer with biases, whose gradients are rounding, which Adam divides by its size."""

    def generator() -> nn.Module:
        wide = (nn.Linear(3, 64), nn.BatchNorm1d(64, track_running_stats=False), nn.ReLU())
        return nn.Sequential(*wide, nn.Linear(64, 2))

    return Training(ADAM, generator=generator, dtype=torch.float32)


def test_gradients_that_are_rounding_do_not_refuse_a_step() -> None:
    normed().compare(rounding, steps=1)


def test_a_lost_update_beside_them_is_caught() -> None:
    def losing(graph: torch.fx.GraphModule, examples: list[Tensor]) -> Any:
        rounded = rounding(graph, examples)

        def call(*arguments: Tensor) -> Any:
            before = arguments[0].clone()
            found = rounded(*arguments)
            arguments[0].copy_(before)
            return found

        return call

    with pytest.raises(eq.CompilationError, match="moves the generator differently"):
        normed().compare(losing, steps=1)


def test_nothing_is_overwritten_by_a_refusal() -> None:
    training = Training(eq.Competitive())
    held = tuple(tree.clone(part) for part in training.held)
    step = eq.CompiledStep(training.solver, training.field, as_graph)
    with pytest.raises(eq.CompilationError, match="cannot be traced"):
        step(*held, training.draws(0))
    for part, was in zip(held, training.held, strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(tree.leaves(part), tree.leaves(was), strict=True)
        )


def test_random_numbers_of_a_module_are_refused() -> None:
    training = Training(ADAM, critic=lambda: mlp([2, 8, 1], nn.Dropout(0.5)))
    with pytest.raises(eq.CompilationError):
        training.compare()


def test_a_state_that_grows_is_refused() -> None:
    class Growing(eq.Simultaneous):
        def step(self, field: Any, players: Any, constants: Any, state: Any, draws: Any) -> Any:
            taken = super().step(field, players, constants, state, draws)
            return taken._replace(state={**taken.state, "more": torch.zeros(1)})

    with pytest.raises(eq.CompilationError, match="changes the form of"):
        Training(Growing()).compare()


def test_machines_are_refused() -> None:
    training = Training(ADAM)
    field = eq.VectorField(training.field.game, reduce=lambda tensors: tensors)
    with pytest.raises(eq.CompilationError, match="over machines"):
        eq.CompiledStep(ADAM, field)


def test_a_longer_step_takes_longer_to_compile() -> None:
    one, many = Training(eq.Alternating(1)), Training(eq.Alternating(9))
    times = [seconds_to_compile(t.solver, t.field, t.held, t.draws(0)) for t in (one, many)]
    assert 15 < times[0] < times[1]
