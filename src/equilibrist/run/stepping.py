"""How a session takes its steps: eagerly, or by one compiled function where that repays its compilation."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple, get_args

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.compiled import CompiledStep, seconds_to_compile
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.errors import CompilationError, RecipeError, warn_user
from equilibrist.files.reading import dig
from equilibrist.run.recipe import Recipe
from equilibrist.solvers.base import DrawSource, State, Step

Compile = Literal["auto", "on", "off"]
Take = Callable[[Players, Constants, State, DrawSource], Step]
_STEPS = 1000  # fewer are never compiled unasked: not even the time of a step is looked at
_SHARE = 0.05  # of the time of a run's eager steps, which compilation may take
_QUICKER = 0.9  # of the eager step's time, which a compiled one has to need at most
_LOOK = 0.25  # seconds of one timed block
_PAIRS = 4


class Standing(NamedTuple):
    """Where a session stands: what a step takes, and the draws of step k."""

    players: Players
    constants: Constants
    state: State
    draws: Callable[[int], DrawSource]
    step: int


@dataclass(frozen=True)
class Stepping:
    """How steps are taken, and what the record says of it."""

    take: Take
    entry: Json = field(default_factory=lambda: {"mode": "eager"})


def compile_mode(value: object) -> Compile:
    """`value`, which has to be "auto", "on" or "off". RecipeError for anything else."""
    modes: tuple[Compile, ...] = get_args(Compile)
    if value not in modes:
        raise RecipeError(f"compile={value!r}: choose from {', '.join(modes)}")
    return modes[modes.index(value)]


def choose_stepping(
    mode: Compile,
    recipe: Recipe,
    field: VectorField,
    place: Standing,
    before: object,
    progress: str,
) -> Stepping:
    """Eager or compiled steps.

    "on" compiles and "off" does not. "auto" goes on as the run began, so that its bits do not depend on when it was
    interrupted. At the beginning of a run on the CPU it measures an eager step; where compilation is expected to take
    a twentieth of the whole run or less it compiles, and keeps what it made if that is quicker by a tenth. (On other
    devices "auto" is eager.)

    Args:
        mode: "auto", "on" or "off".
        recipe, field: what is trained, and the game's field.
        place: where the session stands; nothing of it is overwritten.
        before: the environment that the session before this one noted, None at the beginning.
        progress: "none" says nothing.

    Returns:
        The way to take steps.

    Raises:
        CompilationError: mode "on", and the step cannot be compiled.
    """
    left = recipe.steps - place.step
    eager = Stepping(partial(recipe.solver.step, field))
    earlier = dig(before, "steps", "mode")
    if mode == "off" or (mode == "auto" and place.step and earlier != "compiled"):
        return eager
    wanted = mode == "on" or earlier == "compiled"
    device = next(iter(tree.leaves(place.players))).device.type
    if not wanted and (left < _STEPS or device != "cpu"):
        return eager
    draws = place.draws(place.step)
    expected = seconds_to_compile(recipe.solver, field, _copies(place), draws)
    if not wanted and _SHARE * left * _seconds(eager.take, place) < expected:
        return eager
    if progress != "none":
        note = "" if mode == "on" else "; --compile off goes without"
        words = f"Compiling the step, once: about {expected:.0f} s{note}"
        print(words, file=sys.stderr, flush=True)
    try:
        return _compiled(CompiledStep(recipe.solver, field), eager, place, measure=not wanted)
    except CompilationError as error:
        if mode == "on":
            raise
        if wanted:
            warn_user(f"{error}: its steps were compiled so far, and its bits will be others")
        return Stepping(eager.take, {"mode": "eager", "why": str(error)})


def _compiled(compiled: CompiledStep, eager: Stepping, place: Standing, measure: bool) -> Stepping:
    """The compiled step, made; eager steps where a measurement finds them hardly slower."""
    compiled(*_copies(place), place.draws(place.step))
    entry: Json = {"mode": "compiled", "seconds": round(compiled.seconds, 2)}
    if measure:
        ratio = _ratio(compiled, eager.take, place)
        if ratio > _QUICKER:
            why = f"a compiled step takes {ratio:.2f} of an eager one's time"
            return Stepping(eager.take, {"mode": "eager", "why": why})
        entry["ratio"] = round(ratio, 3)
    return Stepping(compiled, entry)


def _copies(place: Standing) -> tuple[Players, Constants, State]:
    players, constants, state = (
        tree.clone(part) for part in (place.players, place.constants, place.state)
    )
    return players, constants, state


def _seconds(take: Take, place: Standing) -> float:
    """Seconds of one step, on copies."""
    return _Clock(take, place).seconds(2 * _LOOK)


def _ratio(compiled: Take, eager: Take, place: Standing) -> float:
    """Compiled over eager: the median of interleaved blocks."""
    mine, theirs = _Clock(compiled, place), _Clock(eager, place)
    return statistics.median(mine.seconds(_LOOK) / theirs.seconds(_LOOK) for _ in range(_PAIRS))


class _Clock:
    """Steps on copies of a session's tensors."""

    def __init__(self, take: Take, place: Standing) -> None:
        self.take, self.place, self.at = take, place, place.step
        self.players, self.constants, self.state = _copies(place)
        self._one()  # the first is slower

    def seconds(self, atleast: float) -> float:
        """The mean of as many steps as fit in this time."""
        count, begun = 0, time.perf_counter()
        while (passed := time.perf_counter() - begun) < atleast or not count:
            self._one()
            count += 1
        return passed / count

    def _one(self) -> None:
        draws = self.place.draws(self.at)
        taken = self.take(self.players, self.constants, self.state, draws)
        self.players, self.constants, self.state, _ = taken
        self.at += 1
