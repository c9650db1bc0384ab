"""Training in run directories: one seed, or many as one stacked computation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from equilibrist.certificates import Json
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.distributed import Ranks
from equilibrist.errors import RecipeError, RecordError
from equilibrist.games import Mixture
from equilibrist.per_member import member_of
from equilibrist.run import checkpoint
from equilibrist.run.environment import device_of
from equilibrist.run.guard import Guard, go_back, require_guard, slowed
from equilibrist.run.manifest import Provenance
from equilibrist.run.member import Member
from equilibrist.run.reading import read_json
from equilibrist.run.recipe import Recipe
from equilibrist.run.record import Record
from equilibrist.run.requirements import require_seed
from equilibrist.run.session import Session
from equilibrist.run.stepping import Compile, compile_mode
from equilibrist.run.stopping import StopRequest
from equilibrist.run.team import Lead, follow_lead
from equilibrist.run.trained import Run, newest_or_start


@dataclass(frozen=True)
class Ensemble:
    """What `ensemble` returns.

    Attributes:
        runs: one `Run` a seed, in order; each has a run directory of its own (DIR/seed_S), which
            `load`, `train`, audits and reports take like any other. That of a diverged member is at its last
            checkpoint, or at its initial weights where there is none.
        diverged: seed to the step at which its losses, gradients or weights ceased to be finite. Such
            a member's record ends there, as that of a single run does; the others go on untouched.
        seconds: of training, all members together, without scores, sample sheets and checkpoints.
        interrupted: the ensemble was asked to stop before its last step.
    """

    runs: tuple[Run, ...]
    diverged: dict[int, int]
    seconds: float
    interrupted: bool = False


# More parameters than other functions: users give the last ones by name, and each has a default.
@usual_errors
def train(
    recipe: Recipe,
    directory: Path | str,
    *,
    name: str = "python",
    settings: Json | None = None,
    origin: Json | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: str = "auto",
    tensorboard: bool = False,
    compile: Compile = "auto",
    ranks: Ranks | None = None,
    guard: Guard | bool = False,
) -> Run:
    """Train `recipe` in `directory` up to its last step, or go on where that directory stopped.

    A resumed run is bit-identical to an uninterrupted one on the same machine, thread count and torch build. A
    directory in which no step was ever done takes any recipe. A run whose weights have grown beyond all proportion at
    its end warns, has the state "diverged" and says why in `Run.diverged`. In metrics.jsonl `seconds` are those of
    training, without scores, sample sheets and checkpoints.

    Args:
        recipe: what to train.
        directory: the run directory; made where there is none.
        name, settings, origin: what the record says of where the recipe comes from.
        seed: of the weights, minibatches and noise.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        progress: "auto", "bar", "lines" or "none".
        tensorboard: whether metrics are written for TensorBoard, too.
        compile: whether the whole step is one compiled function: "on", "off", or "auto", for long runs on the CPU
            where measurements say that it repays; equal up to rounding, recorded, and resumed as it began.
        ranks: the processes that train together (`equilibrist.distributed.process_group`), each of which calls `train`;
            rank 0 alone writes. With `recipe.accumulate` parts, a multiple of their number, bits do not depend on it.
        guard: where training diverges, go back to the last good state and take half of the step sizes, at most five
            times, on record (guard.json); `Guard(factor, times)` says otherwise.

    Returns:
        The run at its last step, or at the step at which it was asked to stop; the same on every process.

    Raises:
        RecordError: the directory holds something else, is damaged, in use, or has lost checkpoints.
        RecipeError: a seed that is no whole number, or a minibatch beyond the machine's memory.
        GameError: the data do not fit the networks. NonFiniteError: a loss or gradient is infinite or undefined.
        UnwritableError: the disk is full. RankLostError: another process is gone.
        CompilationError: compile="on", and the step cannot be compiled.
    """
    seed = require_seed(seed)
    watch = require_guard(guard, 1 if ranks is None else ranks.size)
    lead = Lead(ranks)
    compile = lead.compile_mode(compile)
    if ranks is not None and ranks.rank:
        return follow_lead(recipe, Path(directory), seed, device_of(device), ranks)
    given = Provenance(name, settings, origin)
    job = _Job.of(recipe, [recipe], {seed: Path(directory)}, given, device, compile)
    with lead, job.held(), StopRequest() as stop:
        session = job.play_guarded(watch, stop, recipe.title or name, progress, tensorboard, lead)
    if failure := session.members[0].failure:
        raise failure
    return session.runs(bool(stop) and session.step < recipe.steps)[0]


# More parameters than other functions: users give the last ones by name, and each has a default.
@usual_errors
def ensemble(
    recipe: Recipe,
    directory: Path | str,
    seeds: Sequence[int] = tuple(range(8)),
    *,
    name: str = "python",
    settings: Json | None = None,
    origin: Json | None = None,
    device: str = "auto",
    progress: str = "auto",
    compile: Compile = "auto",
) -> Ensemble:
    """Train `recipe` from every seed at once, each in DIR/seed_S, or go on where they stopped.

    The members' parameters, moments and minibatches are stacked along a leading dimension and one
    `step` moves them all (`VectorField(..., stacked=S)`), with the results of single runs up to
    rounding: the same seeds draw the same weights and minibatches. Small networks train several times
    faster per seed than one by one; networks bound by arithmetic gain little. Step sizes that differ
    among members are `PerMember(rule, factors)`, and the weights of Consensus, SymplecticAdjustment and
    Proximal may be tuples, one number a seed: each member's record is that of the single run with its own.

    Members go on from the newest step at which all have a sound checkpoint; the same members, resumed,
    end with the same bits as uninterrupted. Members that have been trained to the end are left as
    they are: seeds may be added to a finished ensemble. In metrics.jsonl `seconds` are those of all members of
    the stack, training alone. A single member is trained as by `train`, with the same bits.

    Args:
        recipe: what to train.
        directory: the folder of the members' run directories.
        seeds: of the members, each once.
        name, settings, origin, device, progress, compile: as in `train`.

    Returns:
        The members' runs, and what became of them.

    Raises:
        RecipeError: no seed, or the same seed twice. GameError: losses that cannot be stacked. What
        `train` raises for directories and data.
    """
    given = Provenance(name, settings, origin)
    with StopRequest() as stop:
        return train_members(recipe, directory, seeds, stop, given, device, progress, compile)


def train_members(
    recipe: Recipe,
    directory: Path | str,
    seeds: Sequence[int],
    stop: StopRequest,
    given: Provenance,
    device: str,
    progress: str,
    compile: Compile = "off",
) -> Ensemble:
    """`ensemble`, for a caller that trains several and must not lose a stop request between them."""
    seeds = tuple(require_seed(seed) for seed in seeds)
    if not seeds or len(set(seeds)) != len(seeds):
        raise RecipeError(f"seeds={list(seeds)}: give each seed once, and at least one")
    title = recipe.title or given.name
    own = [
        dataclasses.replace(recipe, solver=member_of(recipe.solver, i, len(seeds)))
        for i in range(len(seeds))
    ]
    folders = {seed: Path(directory) / f"seed_{seed}" for seed in seeds}
    job = _Job.of(recipe, own, folders, given, device, compile)
    if _fills_the_stack(recipe):
        return _one_by_one(job, stop, title, progress)
    with job.held():
        rest = _unfinished(recipe, job.records)
        ended = job.ended()
        session = None
        if any(seeds[i] not in ended for i in rest):
            several = f"{title}, {len(rest)} seeds" if len(rest) > 1 else title
            session = job.play(rest, stop, several, progress, ended)
        else:  # nobody is left who could go on
            job.renew([], recipe.steps)
    stopped = session is not None and bool(stop) and session.step < recipe.steps
    live = dict(zip(rest, session.runs(stopped), strict=True)) if session else {}
    runs = tuple(live[i] if i in live else job.held_run(i) for i in range(len(seeds)))
    return Ensemble(runs, job.ended(), _seconds(job.records, session), stopped)


def _fills_the_stack(recipe: Recipe) -> bool:
    """Whether paired particles take the one leading dimension that there is."""
    solver: Any = recipe.solver
    while hasattr(solver, "solver"):
        solver = solver.solver
    return isinstance(recipe.game, Mixture) and getattr(solver, "pairing", "all") != "all"


def _one_by_one(job: _Job, stop: StopRequest, title: str, progress: str) -> Ensemble:
    """The same records, a seed after the other."""
    runs: list[Run] = []
    seconds, stopped = 0.0, False
    with job.held():
        for i, seed in enumerate(job.seeds):
            session = job.play([i], stop, f"{title}, seed {seed}", progress)
            stopped = bool(stop) and (session.step < job.recipe.steps or i + 1 < len(job.seeds))
            runs += session.runs(stopped)
            seconds += session.seconds
            if stopped:
                break
    return Ensemble(tuple(runs), job.ended(), seconds, stopped)


@dataclass(frozen=True)
class _Job:
    """Seeds to train, each with a recipe of its own (step sizes may differ), a record and a manifest."""

    recipe: Recipe
    own: list[Recipe]
    seeds: list[int]
    records: list[Record]
    manifests: list[Json]
    device: torch.device
    compile: Compile

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        own: list[Recipe],
        folders: dict[int, Path],
        given: Provenance,
        device: str,
        compile: Compile,
    ) -> _Job:
        """The job of training every seed in its folder."""
        seeds, place = list(folders), device_of(device)
        records = [Record(folder) for folder in folders.values()]
        manifests = [given.manifest(one, s, place) for one, s in zip(own, seeds, strict=True)]
        return cls(recipe, own, seeds, records, manifests, place, compile_mode(compile))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Every record locked, and begun where there was none."""
        with ExitStack() as locks:
            for record in self.records:
                locks.enter_context(record.lock())
            for record, manifest in zip(self.records, self.manifests, strict=True):
                record.create(manifest)
            yield

    def play(
        self,
        which: list[int],
        stop: StopRequest,
        title: str,
        progress: str,
        ended: dict[int, int] | None = None,
        tensorboard: bool = False,
        lead: Lead | None = None,
    ) -> Session:
        """Train these members together, from where they are, until they end or are asked to stop."""
        session = None
        recipe = self.recipe
        if len(which) == 1:
            recipe = slowed(self.own[which[0]], self.records[which[0]])
        with ExitStack() as opened:
            try:
                data = recipe.data.to(self.device, recipe.dtype)
                members = [
                    Member(self.own[i], self.records[i], self.seeds[i], data, tensorboard)
                    for i in which
                ]
                for member in members:
                    opened.callback(member.close)
                session = Session(recipe, members, self.device, self.compile, lead)
                session.restore(ended or {}, progress)
                self.renew(which, session.step)
                session.train(stop, title, progress)
            except BaseException:
                if session is None or session.step == 0:
                    for record in self.records:  # a corrected recipe would be refused otherwise
                        record.forget_untrained()
                raise
        return session

    def play_guarded(
        self,
        guard: Guard | None,
        stop: StopRequest,
        title: str,
        progress: str,
        tensorboard: bool,
        lead: Lead,
    ) -> Session:
        """Train the only member, again from its last good state where it diverges and the guard allows it."""
        while True:
            session = self.play([0], stop, title, progress, tensorboard=tensorboard, lead=lead)
            (member,) = session.members
            fine = member.failure is None and not member.overgrown
            if fine or stop or guard is None:
                return session
            if not go_back(guard, self.recipe, member, self.device):
                return session

    def renew(self, which: list[int], step: int) -> None:
        """The manifests as they are now; a warning where other code goes on with these members."""
        for i, (record, manifest) in enumerate(zip(self.records, self.manifests, strict=True)):
            if step and i in which:
                record.warn_of_other_code(manifest, step)
            record.update(manifest, step)

    def ended(self) -> dict[int, int]:
        """Seed to step of the members that have diverged, by their records."""
        ends = {seed: _end(record) for seed, record in zip(self.seeds, self.records, strict=True)}
        return {seed: step for seed, step in ends.items() if step is not None}

    def held_run(self, i: int) -> Run:
        """The run that a member's record holds."""
        return newest_or_start(self.records[i], self.own[i], self.seeds[i], self.device)


def _unfinished(recipe: Recipe, records: Sequence[Record]) -> list[int]:
    """Which members are to be trained: those without a sound checkpoint at the last step, and all that
    were being trained together with one of them, for a smaller stack would have other bits.

    The others are done. Where the process died before their states said so, they say so now.
    """
    lacking, unsaid = [], []
    for i, record in enumerate(records):
        newest = max((step for step, _ in checkpoint.existing(record.checkpoints)), default=-1)
        if newest > recipe.steps:
            raise RecordError(
                f"{record.directory} is at step {newest} already, past steps={recipe.steps}: "
                "ask for more steps, or choose another --dir"
            )
        try:
            if newest < recipe.steps:
                raise RecordError("not there yet")
            checkpoint.read_checkpoint(checkpoint.path_of(record.checkpoints, newest))
        except RecordError:
            lacking.append(i)
            continue
        if record.state() not in ("finished", "diverged"):
            unsaid.append(i)
    stacks = {_stack_of(records[i]) for i in lacking}
    behind = [i for i in unsaid if _stack_of(records[i]) in stacks]
    for i in set(unsaid) - set(behind):
        records[i].checkpoint = checkpoint.path_of(records[i].checkpoints, recipe.steps).name
        records[i].status("finished", recipe.steps)
    return sorted(lacking + behind)


def _stack_of(record: Record) -> tuple[object, ...]:
    """What the members of one stack have in common in their last sessions."""
    last = record.last_session() or {}
    return last.get("started"), last.get("members"), last.get("from_step")


def _seconds(records: Sequence[Record], session: Session | None) -> float:
    """Seconds of training of all members: of those that were trained together, once."""
    clocks: dict[str, float] = {}
    for record in records:
        together = read_json(record.directory / "environment.json")[0]["started"]
        rows = record.rows()
        now = rows[-1]["seconds"] if rows else 0.0
        if session is not None and any(record is m.record for m in session.members):
            now = max(now, session.seconds)
        clocks[together] = max(now, clocks.get(together, 0.0))
    return sum(clocks.values())


def _end(record: Record) -> int | None:
    """The step at which a member has diverged, by its status."""
    path = record.directory / "status.json"
    status = read_json(path) if path.exists() else {}
    if not isinstance(status, dict) or status.get("state") != "diverged":
        return None
    return int(status["step"])
