"""A run that diverges goes back to its last good state and on from there with smaller steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from equilibrist.certificates import Json
from equilibrist.errors import RecipeError, RecordError, warn_user
from equilibrist.files.atomic import write_json
from equilibrist.files.reading import JSON_BYTES, parse_json, read_regular, reason
from equilibrist.per_member import smaller_steps
from equilibrist.run import checkpoint
from equilibrist.run.member import Member
from equilibrist.run.recipe import Recipe
from equilibrist.run.record import Record
from equilibrist.run.requirements import overgrown
from equilibrist.validation import is_number

_ENTRY = ("diverged", "back_to", "factor", "why")


@dataclass(frozen=True)
class Guard:
    """What is done about divergence: a loss, gradient or weight that is not finite, or weights that have grown more
    than a thousandfold at the end.

    The run goes back to its newest checkpoint and goes on with the step sizes of all rules times `factor`. Where it
    diverges again before its next checkpoint, that state was not good: it goes back to the one before (in the end to
    its initial weights). RUN/guard.json holds what was changed, when and why; a run that is resumed, with a guard or
    without, keeps the smaller steps.

    Args:
        factor: between 0 and 1; factors multiply.
        times: how often at most.

    Raises:
        ValueError: a factor or a number of times that is none.

    Examples:
        >>> from equilibrist.run import Guard
        >>> Guard(factor=0.25, times=2)
        Guard(factor=0.25, times=2)
    """

    factor: float = 0.5
    times: int = 5

    def __post_init__(self) -> None:
        if not is_number(self.factor) or not 0 < self.factor < 1:
            raise ValueError(f"Guard.factor must lie between 0 and 1, not {self.factor!r}")
        if not isinstance(self.times, int) or isinstance(self.times, bool) or self.times < 1:
            raise ValueError(f"Guard.times must be a whole number, 1 or larger, not {self.times!r}")


def slowed(recipe: Recipe, record: Record) -> Recipe:
    """The recipe with the step sizes that the guard has left the run."""
    entries = guarded(record)
    if not entries:
        return recipe
    solver = smaller_steps(recipe.solver, entries[-1]["factor"])
    return dataclasses.replace(recipe, solver=solver)


def guarded(record: Record) -> list[Json]:
    """What the guard has done in this run, in order: each with the steps at which the run had diverged and to which it
    went back, the factor of its step sizes from there on, and why.

    Raises:
        RecordError: guard.json cannot be read: without it the steps' sizes are not known.
    """
    path = record.guard_path
    try:
        entries = parse_json(read_regular(path, JSON_BYTES))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read ({reason(error)})") from None
    if not isinstance(entries, list) or not all(map(_sound, entries)):
        raise RecordError(
            f"{path} is damaged: the sizes of the run's steps are not known without it"
        )
    return entries


def _sound(entry: object) -> bool:
    if not isinstance(entry, dict) or not all(key in entry for key in _ENTRY):
        return False
    numbers = (entry["diverged"], entry["back_to"], entry["factor"])
    return all(map(is_number, numbers)) and 0 < entry["factor"] < 1


def go_back(guard: Guard, recipe: Recipe, member: Member, device: torch.device) -> bool:
    """Take a run that has diverged back to a good state, and note the smaller step; False where that was done as often
    as may be.

    Args:
        guard: what may be done.
        recipe: with its own step sizes.
        member: that has failed, or overgrown at the last step.
        device: of training.

    Raises:
        RecipeError: a solver without step sizes.
    """
    record, done = member.record, guarded(member.record)
    if len(done) >= guard.times:
        return False
    at, why = _fault(member, recipe)
    good = _good_steps(member, recipe, at, device)
    step = next(good, 0)
    if done and step == done[-1]["back_to"]:  # it has been tried from there
        step = next(good, 0)
    factor = guard.factor * (done[-1]["factor"] if done else 1.0)
    smaller_steps(recipe.solver, factor)  # before anything is changed
    path = checkpoint.path_of(record.checkpoints, step)
    there = path.exists()
    # In this order: a process killed in between diverges again, and comes to the same.
    record.checkpoint = path.name if there else None
    record.rewind(step if there else -1)
    record.status("running", step)
    checkpoint.drop_after(record.checkpoints, step if there else -1)
    entry = {"diverged": at, "back_to": step, "factor": factor, "why": why}
    write_json(record.guard_path, [*done, entry])
    warn_user(
        f"{record.directory}: {why}; going back to step {step}, and on from there with {factor:g} of the step sizes"
    )
    return True


def _fault(member: Member, recipe: Recipe) -> tuple[int, str]:
    """At which step the run was seen to have diverged, and how."""
    if member.failure is not None:
        error = member.failure
        return error.step, f"step {error.step}: the {error.player}'s {error.quantity} is not finite"
    return recipe.steps, member.overgrown.split(": ")[0]


def _good_steps(member: Member, recipe: Recipe, before: int, device: torch.device) -> Iterator[int]:
    """The steps of checkpoints, newest first, that can be read and whose weights are those of a sensible pair."""
    start = recipe.game.init(member.seed, dtype=recipe.dtype).players
    real = member.batches(device).batch(0, 0)["real"]
    for step, path in reversed(checkpoint.existing(member.record.checkpoints)):
        if step >= before:
            continue
        try:
            flat, _, _ = checkpoint.read_checkpoint(path)
        except RecordError:
            continue
        held = {p: {k: flat[f"players/{p}/{k}"] for k in part} for p, part in start.items()}
        if not overgrown(held, start, real):
            yield step


def require_guard(value: object, ranks: int) -> Guard | None:
    """The guard that is meant by True, False, None or a `Guard`; RecipeError for anything else, or with several
    processes."""
    if value is None or value is False:
        return None
    if ranks > 1:
        raise RecipeError("a guard is for a run of one process: leave guard out, or train with one")
    if value is True:
        return Guard()
    if not isinstance(value, Guard):
        raise RecipeError(f"guard={value!r}: give True, False or Guard(factor=0.5, times=5)")
    return value
