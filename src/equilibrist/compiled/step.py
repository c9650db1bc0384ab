"""A solver's step, traced once and compiled: losses, derivatives, update rules and projections as one function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from operator import is_
from typing import NamedTuple

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.compiled.drawn import DrawRecorder, Handed, Request, Signature, draw, signature
from equilibrist.compiled.trace import Counter, compile_graph, operations, traced
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.errors import CompilationError
from equilibrist.solvers.base import DrawSource, Solver, State, Step
from equilibrist.tree import Nested, Tree

# Relative error of a player's first two updates, in norm, beyond which the compiled step counts as another step.
# Rounding alone stays far below it: entries whose gradient is rounding itself (biases before batch norm) have little
# weight in the norm.
_AGREE = 0.05
_OTHERS = 4  # starts that differ in the last bits
_ROUNDING = 3.0  # times what a change of the last bits does to a tensor, that the compiled one may differ by
_MOST = 20_000  # operations of a step beyond which it is not compiled: a quarter of an hour
Compiler = Callable[[torch.fx.GraphModule, list[Tensor]], Callable[..., list[Tensor]]]


class _Program(NamedTuple):
    """A compiled function of (players, constants, state, draws), which overwrites the first three."""

    call: Callable[..., list[Tensor]]
    info: dict[str, list[str]]  # the measurements' names, in the order of the function's results


class CompiledStep:
    """`solver.step` on `field` as one compiled function: the same step up to rounding, without Python in it.

    The first call takes eager steps on copies and sees what they draw, traces the step with its derivatives
    (second ones too, for they are traced and not left to autograd), compiles it, takes two compiled steps on copies
    and compares. That takes seconds to a minute; later calls run the function alone. A run that is long enough to
    repay it chooses this by itself (`equilibrist.train`, `compile="auto"`).

    Players, constants and state are overwritten by every call, as a solver may do.

    Args:
        solver: the method.
        field: the field of the game, stacked or not.
        compiler: takes a graph and example arguments, and returns a function of those; TorchInductor if left out.

    Attributes:
        seconds: what tracing and compiling took, 0 before the first call.
        operations: how many operations the traced step has.

    Raises:
        CompilationError: on the first call, where the step reads a number from a tensor (a search that ends early,
            random numbers of a module's own), where no compiler works, or where compiled and eager steps differ.

    Examples:
        >>> import torch
        >>> import equilibrist as eq
        >>> solver, field = eq.Simultaneous(eq.SGD(0.1)), eq.VectorField(eq.bilinear())
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> players = {"x": {"value": 3 * one}, "y": {"value": 2 * one}}
        >>> step = eq.CompiledStep(solver, field, compiler=lambda graph, arguments: graph)  # no machine code
        >>> after = step(players, {}, solver.init(players), eq.Given({}))
        >>> round(float(after.players["x"]["value"]), 3)  # x - 0.1 y
        2.8
    """

    def __init__(
        self, solver: Solver, field: VectorField, compiler: Compiler | None = None
    ) -> None:
        if field.reduce is not None:
            raise CompilationError(
                "a step that averages over machines is not compiled: take eager steps"
            )
        self.solver, self.field = solver, field
        self._compiler = compiler or compile_graph
        self._programs: dict[
            tuple[Signature, Signature], _Program
        ] = {}  # by what is held and drawn
        self._requests: dict[Request, Nested] = {}  # what the step draws, and the shapes of noise
        self._leaves: list[Tensor] = []  # what the last call overwrote
        self._held: Signature = ()  # its signature
        self.seconds, self.operations = 0.0, 0

    def __call__(
        self, players: Players, constants: Constants, state: State, draws: DrawSource
    ) -> Step:
        """One step. Shapes that were not met before compile anew."""
        given = (players, constants, state)
        leaves = _leaves(given)
        if len(leaves) != len(self._leaves) or not all(map(is_, leaves, self._leaves)):
            self._leaves, self._held = leaves, signature(leaves)
        drawn = self._drawn(draws)
        key = self._held, signature(drawn)
        if key not in self._programs:
            program = self._prepared(given, draws)
            drawn = self._drawn(draws)
            key = self._held, signature(drawn)
            self._programs[key] = program
        program = self._programs[key]
        with torch.no_grad():
            values = program.call(*leaves, *drawn)
        return Step(players, constants, state, _info(program.info, values))

    def _prepared(self, given: tuple[Tree, Tree, Tree], draws: DrawSource) -> _Program:
        """Traced, compiled and compared with the eager step."""
        begun = time.monotonic()
        recorder = DrawRecorder(draws)
        count = Counter()
        with count:
            first = self._eager(_copies(given), recorder)
        if count.operations > _MOST:
            raise CompilationError(
                f"the step has {count.operations:,} operations, too many to be compiled: take eager steps"
            )
        answers = {request: answer for request, (answer, _) in recorder.answers.items()}
        like = (first.players, first.constants, first.state)
        _require_same_form(given, like)
        second = self._eager(_copies(like), Handed(answers))
        drawn = [leaf for answer in answers.values() for leaf in tree.leaves(answer)]
        size = len(_leaves(given))

        def whole(*arguments: Tensor) -> list[Tensor]:
            held, rest = list(arguments[:size]), iter(arguments[size:])
            handed = Handed({r: tree.map(lambda _: next(rest), a) for r, a in answers.items()})
            taken = self._eager(_fill(given, held), handed)
            for old, new in zip(
                held, _leaves((taken.players, taken.constants, taken.state)), strict=True
            ):
                if old is not new:
                    old.copy_(new)
            return [value for part in taken.info.values() for value in part.values()]

        examples = [*_leaves(_copies(given)), *drawn]
        graph = traced(whole, examples)
        self.operations = operations(graph)
        call = self._compiler(graph, examples)
        program = _Program(call, {kind: list(part) for kind, part in first.info.items()})
        mine = _copies(given)
        others = [_rounded_otherwise(given, seed) for seed in range(_OTHERS)]
        for eager in (first, second):
            with torch.no_grad():
                values = call(*_leaves(mine), *drawn)
            others = [self._copied(self._eager(other, Handed(answers))) for other in others]
            _require_agreement(given[0], eager.players, [o[0] for o in others], mine[0])
            _require_measurements(eager.info, _info(program.info, values))
        self._requests = {request: like for request, (_, like) in recorder.answers.items()}
        self.seconds = time.monotonic() - begun
        return program

    @staticmethod
    def _copied(taken: Step) -> tuple[Tree, Tree, Tree]:
        return _copies((taken.players, taken.constants, taken.state))

    def _drawn(self, draws: DrawSource) -> list[Tensor]:
        return [
            leaf
            for request, like in self._requests.items()
            for leaf in tree.leaves(draw(draws, request, like))
        ]

    def _eager(self, given: tuple[Tree, Tree, Tree], draws: DrawSource) -> Step:
        return self.solver.step(self.field, *given, draws)


def seconds_to_compile(
    solver: Solver, field: VectorField, given: tuple[Tree, Tree, Tree], draws: DrawSource
) -> float:
    """Roughly what a `CompiledStep` takes to be made, from the operations of an eager step on copies of players,
    constants and state: 15 s, and 35 ms an operation (measured on one slow core; networks of 4x16 to a DCGAN).

    Args:
        solver, field: as `CompiledStep` takes them.
        given: players, constants and state; left as they are.
        draws: of one step.

    Returns:
        Seconds.
    """
    count = Counter()
    with count:
        solver.step(field, *_copies(given), draws)
    return 15 + 0.035 * count.operations


def _info(names: dict[str, list[str]], values: Iterable[Tensor]) -> dict[str, dict[str, Tensor]]:
    rest = iter(values)
    return {kind: {name: next(rest) for name in part} for kind, part in names.items()}


def _leaves(given: tuple[Tree, Tree, Tree]) -> list[Tensor]:
    return [leaf for part in given for leaf in tree.leaves(part)]


def _copies(given: tuple[Tree, Tree, Tree]) -> tuple[Tree, Tree, Tree]:
    # Strides as they are, for which the function is compiled.
    players, constants, state = (tree.map(_copy, part) for part in given)
    return players, constants, state


def _copy(t: Tensor) -> Tensor:
    return torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device=t.device).copy_(
        t.detach()
    )


def _fill(given: tuple[Tree, Tree, Tree], values: list[Tensor]) -> tuple[Tree, Tree, Tree]:
    rest = iter(values)
    players, constants, state = (tree.map(lambda _: next(rest), part) for part in given)
    return players, constants, state


def _require_same_form(before: tuple[Tree, Tree, Tree], after: tuple[Tree, Tree, Tree]) -> None:
    """CompilationError where a step returns other tensors than it takes: it could not be called again."""
    for old, new in zip(before, after, strict=True):
        forms = [
            [(path, t.shape, t.dtype, t.device) for path, t in tree.items(part)]
            for part in (old, new)
        ]
        if forms[0] != forms[1]:
            changed = next(
                (a for a, b in zip(*forms, strict=False) if a != b),
                forms[0][-1] if forms[0] else ("",),
            )
            raise CompilationError(
                f"the step changes the form of {'.'.join(changed[0]) or 'its state'}, so that it cannot be "
                "compiled: take eager steps"
            )


def _rounded_otherwise(given: tuple[Tree, Tree, Tree], seed: int) -> tuple[Tree, Tree, Tree]:
    """Copies whose players are changed in their last bits, at random."""
    players, constants, state = _copies(given)
    rng = torch.Generator().manual_seed(seed)

    def changed(t: Tensor) -> Tensor:
        if not t.is_floating_point():
            return t
        noise = torch.rand(t.shape, generator=rng, dtype=torch.float64).to(t.device) - 0.5
        return t * (1 + 4 * torch.finfo(t.dtype).eps * noise).to(t.dtype)

    return tree.map(changed, players), constants, state


def _require_agreement(
    start: Players, eager: Players, others: Sequence[Players], compiled: Players
) -> None:
    """CompilationError where a player's update differs by more than rounding.

    A tensor may differ by as much as rounding moves it: Adam divides gradients by their size, so that biases before
    a batch norm, whose true gradients are zero, move by whole steps of random signs.

    Args:
        start: players before.
        eager: after eager steps.
        others: after eager steps from starts that differ in the last bits. Which signs turn is chance, and depends on
            the processor, so that there are several.
        compiled: after compiled steps.
    """
    for player in eager:
        leaves = [tree.leaves(players[player]) for players in (start, eager, compiled, *others)]
        moved, apart = 0.0, 0.0
        for old, want, got, *near in zip(*leaves, strict=True):
            moved += _squared_distance(want, old)
            rounding = _ROUNDING**2 * max(_squared_distance(one, want) for one in near)
            difference = _squared_distance(got, want)
            apart += difference if not difference <= rounding else 0.0
        if not apart <= _AGREE**2 * moved:
            raise CompilationError(
                f"the compiled step moves the {player} differently from the eager one (by "
                f"{(apart / moved) ** 0.5 if moved else apart**0.5:.2g} of its update): take eager steps"
            )


def _squared_distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).double().square().sum())


def _require_measurements(
    eager: dict[str, dict[str, Tensor]], compiled: dict[str, dict[str, Tensor]]
) -> None:
    """CompilationError where a loss or a gradient's norm differs by more than rounding."""
    for kind, part in eager.items():
        for name, want in part.items():
            if not torch.allclose(compiled[kind][name], want, _AGREE, 1e-5, equal_nan=True):
                raise CompilationError(
                    f"the compiled step measures another {kind} of the {name} than the eager one: take eager steps"
                )
