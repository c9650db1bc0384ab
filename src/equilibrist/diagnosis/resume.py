"""The resume check: does a loop that is saved and loaded go on as if nothing had happened?"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from equilibrist.certificates import Json
from equilibrist.diagnosis._causes import forgotten
from equilibrist.diagnosis._difference import Difference, differing, first_difference
from equilibrist.diagnosis._rounds import Watched, call, required
from equilibrist.diagnosis._state import CARRIED, State
from equilibrist.diagnosis.loop import Loop
from equilibrist.display import Rows, Shown
from equilibrist.errors import RecipeError
from equilibrist.findings import Finding, ordered
from equilibrist.nn.noise import GLOBAL, derived, seeded

LONG = 60  # rounds after loading, where a number that is measured on the way was not restored


@dataclass(frozen=True, repr=False)
class ResumeCheck(Shown):
    """What `check_resume` found.

    Attributes:
        exact: whether the resumed run is the uninterrupted one, bit for bit.
        repeats: whether two uninterrupted runs from one seed are one another, bit for bit.
        first: the first difference between the resumed run and the other, None where there is none.
        findings: what was forgotten, first what to act on first.
        rounds, more: how many rounds were run before and after saving.
        compared: how many tensors and numbers were compared after every round.
        unseen: what did not change before saving, so that nothing can be said of its restoration.
        seed_matters: whether the run is only resumed where a script starts from the seed that it started from before.
    """

    exact: bool
    repeats: bool
    first: Difference | None
    findings: tuple[Finding, ...]
    rounds: int
    more: int
    compared: int
    unseen: tuple[str, ...] = ()
    seed_matters: bool = False

    def __bool__(self) -> bool:
        return self.exact

    @property
    def summary(self) -> str:
        """The answer in a sentence or two."""
        if not self.repeats:
            (own,) = (f for f in self.findings if f.name == "not-repeatable")
            rest = [f for f in self.findings if f.name != "not-repeatable" and f.level != "note"]
            return " ".join([own.text, *(f.text for f in rest[:1])])
        if self.exact:
            seed = ", from the seed that the script began with" if self.seed_matters else ""
            disturbs = any(f.name == "save-disturbs" and f.level != "note" for f in self.findings)
            but = ", but saving changes the run that it saves" if disturbs else ""
            return (
                f"Resumes bit for bit{seed}{but}: {self.compared} tensors and numbers are equal after each of "
                f"{self.more} rounds that follow on {self.rounds}."
            )
        assert self.first is not None
        return f"Does not resume: {self.first}."

    def describe(self) -> Json:
        """Plain values, as a JSON file holds them.

        Returns:
            A dictionary.
        """
        return {
            "exact": self.exact,
            "repeats": self.repeats,
            "first": self.first.describe() if self.first else None,
            "findings": [f.describe() for f in self.findings],
            "rounds": self.rounds,
            "more": self.more,
            "compared": self.compared,
            "unseen": list(self.unseen),
            "seed_matters": self.seed_matters,
        }

    def _facts(self) -> tuple[str, Rows]:
        rows = [(f.level, f"{f.name}: {f.text}") for f in self.findings]
        rows += [("first", f.cure) for f in self.findings[:1] if f.level != "note"]
        if self.unseen:
            rows.append(
                ("not seen", f"{', '.join(self.unseen)}: unchanged in {self.rounds} rounds")
            )
        return self.summary, rows


def check_resume(
    make: Callable[[], object], *, rounds: int = 5, more: int = 5, seed: int = 0
) -> ResumeCheck:
    """Whether a training that is saved and loaded goes on as if nothing had happened, and what was forgotten.

    Three runs are compared to the bit: one of `rounds + more` rounds, one that is saved after `rounds` and goes on,
    and one that is made anew, loads what was saved and goes on. Compared are weights, buffers, averages, the
    optimisers' moments and rates, schedules and loss scales, wherever the loop's functions refer to them; when the
    resumed run is another one, what differs right after loading tells what was forgotten.

        def make():
            trainer = Trainer(config)  # as your script begins
            return trainer.train_step, trainer.save, trainer.load

        print(equilibrist.check_resume(make))

    Args:
        make: begins a training: it returns a fresh `Loop`, or any object or dictionary with `step`, `save` and `load`,
            or these three functions. `step(i)` runs round i. `save()` returns what a resumption needs, or writes it
            where it takes a path: `save(path)`; `load` takes what `save` returned, or the path. Every run
            calls it with the same global random state.
        rounds: rounds before saving. Schedules and averages should have changed by then.
        more: rounds after it; 60 where these are equal although a measured number of the loop's own was not restored.
        seed: of the global random states. They are put back at the end.

    Returns:
        The check: true where the run resumes bit for bit.

    Raises:
        RecipeError: `make` gives no loop with step, save and load; nothing can be saved, or loaded again.
    """
    _require(make, rounds, more)
    ready = torch.cuda.is_available() and torch.cuda.is_initialized()
    plain = _plain(make, seed, rounds, more)
    if torch.cuda.is_available() and not ready:  # its random state was not seeded then
        plain = _plain(make, seed, rounds, more)
    with tempfile.TemporaryDirectory() as folder:
        saving, saved = _saving(make, seed, rounds, more, Path(folder) / "saved")
        resumed = _resumed(make, seed, rounds, more, saved)
        exact = _equal(resumed, plain, rounds, more) or _equal(resumed, saving, rounds, more)
        other = exact and not _equal(
            _resumed(make, derived(seed, 1), rounds, more, saved), resumed, rounds, more
        )
    if exact and more < LONG and _numbers_differ(saving, resumed, rounds):
        return check_resume(make, rounds=rounds, more=LONG, seed=seed)
    found = forgotten(plain, saving, resumed, rounds, exact)
    repeats = not any(f.name == "not-repeatable" for f in found)
    exact = exact and repeats
    first = None if exact else first_difference(saving, resumed, rounds, found)
    return ResumeCheck(
        exact,
        repeats,
        first,
        ordered(found),
        rounds,
        more,
        sum(leaf.kind in CARRIED for leaf in saving.states[rounds].values()),
        _unseen(saving, rounds),
        other,
    )


def _require(make: object, rounds: int, more: int) -> None:
    for name, value in (("rounds", rounds), ("more", more)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RecipeError(f"{name}={value!r}: it must be a whole number of at least 1")
    if not callable(make):
        raise RecipeError(
            "check_resume needs a function that begins a training anew: it returns step, save and load"
        )


def _loop(make: Callable[[], object]) -> Loop:
    made = make()
    if isinstance(made, tuple) and len(made) == 3:
        made = dict(zip(("step", "save", "load"), made, strict=True))

    def get(key: str) -> Any:
        return made.get(key) if isinstance(made, Mapping) else getattr(made, key, None)

    for key in ("step", "save", "load"):
        if not callable(get(key)):
            raise RecipeError(
                f"make() returns {type(made).__name__} without a function {key}: it must return step, save and load, "
                "or an object that has them"
            )
    players, average = get("players"), get("average")
    return Loop(
        step=get("step"),
        players=players if isinstance(players, Mapping) else {},
        loss="",
        average=average if isinstance(average, torch.nn.Module) else None,
        save=get("save"),
        load=get("load"),
    )


def _begin(make: Callable[[], object]) -> Watched:
    loop = _loop(make)
    return Watched(loop, "average" if loop.average is not None else None)


def _plain(make: Callable[[], object], seed: int, rounds: int, more: int) -> Watched:
    """A run that is never saved."""
    with seeded(seed, GLOBAL):
        run = _begin(make)
        run.look(0)
        for i in range(rounds + more):
            run.round(i, keep=i == rounds - 1)
    return run


def _saving(
    make: Callable[[], object], seed: int, rounds: int, more: int, path: Path
) -> tuple[Watched, Callable[[], object]]:
    """A run that is saved and goes on, and what gives its saved state again and again."""
    with seeded(seed, GLOBAL):
        run = _begin(make)
        run.look(0, keep=True)
        for i in range(rounds):
            run.round(i, keep=i == rounds - 1)
        saved = _save(run.loop, path)
        run.saved = run.states[rounds]
        run.look(rounds)
        for i in range(rounds, rounds + more):
            run.round(i, closely=i == rounds, keep=i == rounds)
    return run, saved


def _resumed(
    make: Callable[[], Any], seed: int, rounds: int, more: int, saved: Callable[[], Any]
) -> Watched:
    """A run that is made anew, loads and goes on."""
    with seeded(seed, GLOBAL):
        run = _begin(make)
        run.look(0, keep=True)
        with _named("load"):
            call(run.loop.load, saved())
        run.look(rounds, keep=True)
        for i in range(rounds, rounds + more):
            run.round(i, closely=i == rounds, keep=i == rounds)
    return run


def _save(loop: Any, path: Path) -> Callable[[], Any]:
    with _named("save"):
        if required(loop.save):
            loop.save(str(path))
            return lambda: str(path)
        saved = loop.save()
    if saved is None:
        raise RecipeError("save() returns nothing: it must return what load takes, or take a path")
    # Through bytes, as through a file: what is loaded shares no memory with the run that was saved.
    buffer = io.BytesIO()
    try:
        torch.save(saved, buffer)
    except Exception:  # of whatever it holds: functions, open files
        kept = copy.deepcopy(saved)
        return lambda: copy.deepcopy(kept)
    return lambda: torch.load(io.BytesIO(buffer.getvalue()), weights_only=False)


@contextlib.contextmanager
def _named(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of the user's function
        message = (str(error).splitlines() or [""])[0][:200]
        raise RecipeError(
            f"{what} fails on a run of this loop: {type(error).__name__}: {message}"
        ) from error


def _numbers_differ(saving: Watched, resumed: Watched, rounds: int) -> bool:
    """Whether the loop keeps a measured number that loading did not bring back: what it decides by it comes later."""
    loaded = resumed.states[rounds]
    kept = (key for key in differing(saving.saved, loaded, ["value"]) if key in loaded)
    return any(
        isinstance(saving.saved[key].value, float) and not key[0].rpartition(".")[2].isdigit()
        for key in kept
        if key in saving.saved
    )


def _equal(a: Watched, b: Watched, rounds: int, more: int) -> bool:
    return all(
        _carried(a.states[i]) == _carried(b.states[i]) for i in range(rounds + 1, rounds + more + 1)
    )


def _carried(state: State) -> dict[tuple[str, str], object]:
    return {key: leaf.mark for key, leaf in state.items() if leaf.kind in CARRIED}


def _unseen(run: Watched, rounds: int) -> tuple[str, ...]:
    """Schedules and averages that were the same at the start and when the run was saved."""
    begin, end = run.states[0], run.states[rounds]
    owners = {leaf.owner: False for leaf in end.values() if leaf.kind in ("schedule", "average")}
    for key, leaf in end.items():
        if leaf.owner in owners:
            owners[leaf.owner] |= key not in begin or begin[key].mark != leaf.mark
    return tuple(owner for owner, moved in owners.items() if not moved)
