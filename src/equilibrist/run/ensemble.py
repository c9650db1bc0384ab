"""Many seeds of one recipe as one stacked computation, by the solver's very own step."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Batches, StackedDraws
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Game, Players
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.errors import GameError, NonFiniteError, RecipeError, RecordError
from equilibrist.games import Mixture
from equilibrist.per_member import member_of
from equilibrist.progress import showing
from equilibrist.run import checkpoint, environment, samples
from equilibrist.run.loop import (
    Interrupts,
    Run,
    _belongs,
    _deterministic,
    _manifest,
    device_of,
    draw_of,
    load,
    train,
)
from equilibrist.run.recipe import Recipe
from equilibrist.run.record import Record, read_json
from equilibrist.run.requirements import affordable, fits, overgrown, require_seed


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


@usual_errors
def ensemble(
    recipe: Recipe,
    directory: Path | str,
    seeds: Sequence[int] = tuple(range(8)),
    *,
    name: str = "python",
    settings: dict[str, Any] | None = None,
    origin: dict[str, Any] | None = None,
    device: str = "auto",
    progress: str = "auto",
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
    the stack, training alone.

    Raises:
        RecipeError: no seed, or the same seed twice. GameError: losses that cannot be stacked. What
        `train` raises for directories and data.
    """
    with Interrupts() as interrupts:
        return together(
            recipe,
            directory,
            seeds,
            interrupts,
            name=name,
            settings=settings,
            origin=origin,
            device=device,
            progress=progress,
        )


def together(
    recipe: Recipe,
    directory: Path | str,
    seeds: Sequence[int],
    interrupts: Interrupts,
    *,
    name: str,
    settings: dict[str, Any] | None,
    origin: dict[str, Any] | None,
    device: str,
    progress: str,
) -> Ensemble:
    """`ensemble`, for a caller that trains several and must not lose a wish to stop between them."""
    seeds = tuple(require_seed(seed) for seed in seeds)
    if not seeds or len(set(seeds)) != len(seeds):
        raise RecipeError(f"seeds={list(seeds)}: give each seed once, and at least one")
    place, root = device_of(device), Path(directory)
    solver: Any = recipe.solver
    while hasattr(solver, "solver"):
        solver = solver.solver
    if isinstance(recipe.game, Mixture) and getattr(solver, "pairing", "all") != "all":
        # Particles that are paired fill the one leading dimension that there is.
        return _one_by_one(
            recipe, root, seeds, interrupts, name=name, settings=settings, origin=origin,
            device=device, progress=progress,
        )  # fmt: skip
    records = [Record(root / f"seed_{seed}") for seed in seeds]
    own = [
        dataclasses.replace(recipe, solver=member_of(recipe.solver, i, len(seeds)))
        for i in range(len(seeds))
    ]
    manifests = [
        _manifest(one, name, settings, origin, s, place) for one, s in zip(own, seeds, strict=True)
    ]
    with ExitStack() as held:
        for record in records:
            held.enter_context(record.lock())
            held.callback(record.close)
        for record, manifest in zip(records, manifests, strict=True):
            record.create(manifest)
        rest = _unfinished(recipe, records)
        if all(_end(records[i]) for i in rest):  # nobody is left who could go on
            rest = []
        stack, stopped = None, False
        try:
            if rest:
                stack = _Stack(
                    recipe,
                    [own[i] for i in rest],
                    [records[i] for i in rest],
                    [seeds[i] for i in rest],
                    place,
                )
                stack.restore()
            step = stack.step if stack else recipe.steps
            for record, manifest in zip(records, manifests, strict=True):
                if step and stack and record in stack.records:
                    record.warn_of_other_code(manifest, step)
                record.update(manifest, step)
            if stack is not None:
                title = f"{recipe.title or name}, {len(rest)} seeds"
                with (
                    _deterministic(place),
                    showing(progress, title, recipe.steps, stack.step) as bar,
                ):
                    stack.play(interrupts, bar)
                stopped = interrupts.asked is not None and stack.step < recipe.steps
        except BaseException:
            if stack is None or stack.step == 0:
                for record in records:  # a corrected recipe would be refused otherwise
                    record.forget_untrained()
            raise
    live = dict(zip(rest, stack.runs(stopped), strict=True)) if stack is not None else {}
    ended = {s: at for s, record in zip(seeds, records, strict=True) if (at := _end(record))}
    runs = tuple(
        live[i] if i in live else _kept(records[i], own[i], seeds[i], place)
        for i in range(len(seeds))
    )
    diverged = {s: at for s, at in ended.items() if stack is None or s in stack.diverged}
    return Ensemble(runs, diverged, _seconds(records, stack), stopped)


def _one_by_one(
    recipe: Recipe, root: Path, seeds: Sequence[int], interrupts: Interrupts, **options: Any
) -> Ensemble:
    """The same records, a seed after the other."""
    runs, diverged, seconds, stopped = [], {}, 0.0, False
    for seed in seeds:
        folder = root / f"seed_{seed}"
        try:
            run = train(recipe, folder, seed=seed, **options)
        except NonFiniteError:
            ended = _end(Record(folder))
            diverged[seed] = ended if ended else 0
            run = load(folder, recipe, device=options["device"])
        runs.append(run)
        rows = Record(folder).rows()
        seconds += float(rows[-1]["seconds"]) if rows else 0.0
        stopped = run.interrupted or interrupts.asked is not None
        if stopped:
            break
    return Ensemble(tuple(runs), diverged, seconds, stopped)


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
            checkpoint.read(checkpoint.path_of(record.checkpoints, newest))
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


def _stack_of(record: Record) -> tuple[Any, ...]:
    """What the members of one stack have in common in their last sessions."""
    path = record.directory / "environment.json"
    last = read_json(path)[-1] if path.exists() else {}
    return last.get("started"), last.get("members"), last.get("from_step")


def _seconds(records: Sequence[Record], stack: _Stack | None) -> float:
    """Seconds of training of all members: of those that were trained together, once."""
    clocks: dict[str, float] = {}
    for record in records:
        together = read_json(record.directory / "environment.json")[0]["started"]
        rows = record.rows()
        now = rows[-1]["seconds"] if rows else 0.0
        if stack is not None and record in stack.records:
            now = max(now, stack.seconds)
        clocks[together] = max(now, clocks.get(together, 0.0))
    return sum(clocks.values())


class _Field(VectorField):
    """A stacked field in which one member's infinite weights do not stop the others: a decomposition
    inside of a projection raises on them."""

    def __init__(self, game: Game, *, guarded: bool, **options: Any) -> None:
        super().__init__(game, **options)
        self.guarded, self.options = guarded, options

    def of(self, game: Game) -> VectorField:
        return _Field(game, guarded=self.guarded, **self.options)

    def project(self, players: Players) -> Players:
        if not self.guarded:
            return super().project(players)
        sound = tree.map(lambda t: torch.where(torch.isfinite(t), t, 0.0), players)
        projected = super().project(sound)
        return tree.map(lambda p, t: torch.where(torch.isfinite(t), p, t), projected, players)


class _Stack:
    """State of one session of an ensemble."""

    def __init__(
        self,
        recipe: Recipe,
        own: Sequence[Recipe],
        records: Sequence[Record],
        seeds: Sequence[int],
        device: torch.device,
    ) -> None:
        self.recipe, self.own, self.records, self.seeds = recipe, own, records, seeds
        self.device, self.size = device, len(seeds)
        affordable(recipe, device, self.size)
        self.data = recipe.data.to(device, recipe.dtype)
        make = partial(draw_of, recipe.game, self.data, recipe.dtype, device)
        self.batches = [Batches(make, recipe.batch, seed) for seed in seeds]
        walls = recipe.game.projections
        self.field = _Field(
            recipe.game,
            guarded=any(not getattr(wall, "coordinatewise", False) for wall in walls),
            stacked=self.size,
            parts=recipe.accumulate,
            autocast=torch.bfloat16 if recipe.mixed_precision else None,
        )
        self.starts = [recipe.game.init(s, device=device, dtype=recipe.dtype) for s in seeds]
        self.players: Players = tree.stack([start.players for start in self.starts])
        self.constants: Constants = tree.stack([start.constants for start in self.starts])
        try:
            self.state = recipe.solver.init(self.players)
            # What a single run's state looks like: counters are shared, all else has a member's row.
            self.alone = recipe.solver.init(self.starts[0].players)
        except ValueError as error:  # it names a player who does not play
            raise RecipeError(str(error)) from error
        self.step, self.seconds = 0, 0.0
        self.diverged: dict[int, int] = {}
        self.window: list[dict[str, Tensor]] = []  # measurements since the last row of metrics
        self.checked = 0  # how many of them were looked at
        self.saved: int | None = None
        self.sound: list[set[str]] = [set() for _ in records]  # names of sound checkpoints

    # -- beginning and end --------------------------------------------------------------------------

    def restore(self) -> None:
        """Take up the newest step at which every member has a sound checkpoint, or begin."""
        entry = environment.environment(self.device, 0)
        ended = {s: at for s, r in zip(self.seeds, self.records, strict=True) if (at := _end(r))}
        found = self._newest(ended)
        for record in self.records:
            record.require_checkpoints(-1 if found is None else found[0])
        if found is None:
            draw = StackedDraws([batches.at(0) for batches in self.batches]).batch(0)
            first = self.starts[0]
            fits(self.recipe, first.players, first.constants, tree.member(draw, 0))
            self._stacks(draw)
            for record in self.records:
                record.rewind(-1)
                _drop(record, -1)
                record.session({**entry, "members": self.size})
            self._sheets()
            self._score()
            return
        self.step, held = found
        self.diverged = {seed: at for seed, at in ended.items() if at <= self.step}
        self._arrange(held)
        self.seconds = max(record.rewind(self.step) for record in self.records)
        for record in self.records:
            _drop(record, self.step)
            sessions = record.session({**entry, "from_step": self.step, "members": self.size})
        was, now = (
            {**environment.identity(e), "members": e.get("members")}
            for e in (sessions[0], sessions[-1])
        )
        if changed := [f"{k}: {was[k]}, now {now[k]}" for k in was if was[k] != now[k]]:
            warnings.warn(
                f"resuming {self.records[0].directory.parent} on other ground ({'; '.join(changed)}): "
                "the continuation will not be bit-identical to an uninterrupted run",
                stacklevel=2,
            )

    def _newest(self, ended: dict[int, int]) -> tuple[int, dict[int, Any]] | None:
        """(step, what every member's checkpoint there holds); a diverged member needs none from then on."""
        steps = [{step for step, _ in checkpoint.existing(r.checkpoints)} for r in self.records]
        for step in sorted(set.union(*steps), reverse=True):
            needed = [i for i, s in enumerate(self.seeds) if not (s in ended and ended[s] <= step)]
            if not needed or not all(step in steps[i] for i in needed):
                continue
            paths = {i: checkpoint.path_of(self.records[i].checkpoints, step) for i in needed}
            try:
                held = {i: (path, *checkpoint.read(path)[:2]) for i, path in paths.items()}
            except RecordError as error:
                warnings.warn(f"{error}; all members fall back with it", stacklevel=2)
                continue
            return step, held
        if any(steps):
            warnings.warn(
                f"the members in {self.records[0].directory.parent} share no checkpoint: all begin again",
                stacklevel=2,
            )
        return None

    def _arrange(self, held: dict[int, Any]) -> None:
        """Stack what the checkpoints hold. Initial weights stand where a member has diverged."""
        members, windows = [], []
        for i, seed in enumerate(self.seeds):
            start = {"players": self.starts[i].players, "constants": self.starts[i].constants}
            like = {**start, "state": self.alone}
            if i not in held:
                members.append(like)
                continue
            path, flat, meta = held[i]
            self.records[i].checkpoint = path.name
            self.sound[i].add(path.name)
            _belongs(path, flat, meta, seed, like)
            members.append(checkpoint.fit(flat, like, path))
            windows.append((i, meta["window"], flat.get("window", torch.empty(0, 0))))
        self.players = tree.stack([m["players"] for m in members])
        self.constants = tree.stack([m["constants"] for m in members])
        whole = members[min(held, default=0)]["state"]
        self.state = tree.map(
            lambda t, one, *all_: one.clone() if t.ndim == one.ndim else torch.stack(all_),
            self.state,
            whole,
            *[m["state"] for m in members],
        )
        for row in range(max((len(w) for *_, w in windows), default=0)):
            _, names, like_ = windows[0]
            values = torch.zeros(len(names), self.size, dtype=like_.dtype)
            for i, _, window in windows:
                values[:, i] = window[row]
            self.window.append(dict(zip(names, values.to(self.device), strict=True)))
        self.checked, self.saved = len(self.window), self.step

    def _stacks(self, draw: dict[str, Tensor]) -> None:
        """GameError where the losses cannot be evaluated for all members at once."""
        try:
            constants = self.field.refresh(self.players, self.constants, draw)
            self.field(self.players, constants, draw)
        except RuntimeError as error:
            raise GameError(
                f"the game's losses cannot be stacked ({str(error).splitlines()[0]}): train its seeds one "
                "by one (`equilibrist run --seed`)"
            ) from error

    def runs(self, interrupted: bool) -> tuple[Run, ...]:
        """The members as single runs."""
        return tuple(self._run(i, interrupted) for i in range(self.size))

    def _run(self, i: int, interrupted: bool) -> Run:
        seed, record = self.seeds[i], self.records[i]
        if seed in self.diverged:
            return _kept(record, self.own[i], seed, self.device)
        path = checkpoint.path_of(record.checkpoints, self.step)
        return Run(
            record.directory,
            self.own[i],
            self.data,
            tree.clone(tree.member(self.players, i)),
            tree.clone(tree.member(self.constants, i)),
            self.step,
            seed,
            path.name,
            checkpoint.read(path)[2],
            interrupted,
            tree.clone(self._state_of(i).get("average", {})),
        )

    # -- the loop ---------------------------------------------------------------------------------

    def play(self, interrupts: Interrupts, bar: Any) -> None:
        """Steps until the end, until asked to stop, or until every member has diverged."""
        recipe = self.recipe
        kinds = ("log", "sample", "checkpoint", "score")
        log, sheet, save, judge = (recipe.every(what) for what in kinds)
        for _, _, record in self._live():
            record.status("running", self.step)
        begun = time.monotonic()
        while self.step < recipe.steps and interrupts.asked is None and self._live():
            draws = StackedDraws([batches.at(self.step) for batches in self.batches])
            self.players, self.constants, self.state, info = recipe.solver.step(
                self.field, self.players, self.constants, self.state, draws
            )
            self.step += 1
            self.window.append(
                {f"{kind}/{p}": value for kind, part in info.items() for p, value in part.items()}
            )
            end = self.step == recipe.steps
            last = end or interrupts.asked is not None
            if last or any(self.step % every == 0 for every in (log, sheet, save, judge)):
                self._part_the_diverged(weights=last or self.step % save == 0)
                self.seconds += time.monotonic() - begun  # the device was waited for just now
                if self.step % log == 0 or end:
                    bar.update(self.step, self._log())
                if self.step % sheet == 0 or end:
                    self._sheets()
                if self.step % judge == 0 or end:
                    self._score()
                if self.step % save == 0 or last:
                    self._save()
                begun = time.monotonic()
        if self.saved != self.step:
            self._save()  # asked to stop between steps, or before the first
        finished = self.step == recipe.steps
        if finished:
            self._part_the_overgrown()
        for _, _, record in self._live():
            record.status("finished" if finished else "interrupted", self.step)

    def _part_the_overgrown(self) -> None:
        """Mark members whose weights have left all proportion, as a single run does at its end."""
        for i, seed, record in self._live():
            real = self.batches[i].batch(0, 0)["real"]
            why = overgrown(tree.member(self.players, i), self.starts[i].players, real)
            if why:
                self.diverged[seed] = self.step
                record.status("diverged", self.step, why)
                warnings.warn(f"{record.directory}: {why}", stacklevel=5)

    def _live(self) -> list[tuple[int, int, Record]]:
        """(index, seed, record) of the members that have not diverged."""
        every = enumerate(zip(self.seeds, self.records, strict=True))
        return [(i, seed, record) for i, (seed, record) in every if seed not in self.diverged]

    def _part_the_diverged(self, weights: bool) -> None:
        """Mark members that met a non-finite number since the last look, in their losses and gradients or
        (`weights`) in their parameters. Their slices go on, unread: no operation mixes members."""
        first = torch.full((self.size,), -1)
        if fresh := self.window[self.checked :]:
            table = torch.stack([torch.stack(list(row.values())) for row in fresh])
            bad = (~torch.isfinite(table)).any(1).cpu()  # [steps, members]
            first = torch.where(bad.any(0), bad.int().argmax(0), -1)
        self.checked = len(self.window)
        sound = torch.ones(self.size, dtype=torch.bool, device=self.device)
        if weights:  # an update may overflow a finite gradient
            for leaf in tree.leaves(self.players):
                sound &= torch.isfinite(leaf).flatten(1).all(1)
        for (i, seed, record), fine in zip(self._live(), self._of_live(sound), strict=True):
            at = self.step - len(fresh) + 1 + int(first[i]) if first[i] >= 0 else self.step
            if first[i] >= 0 or not fine:
                self.diverged[seed] = at
                what = "a loss or gradient" if first[i] >= 0 else "a parameter"
                kept = [path.name for _, path in checkpoint.existing(record.checkpoints)]
                good = (
                    f"the last good checkpoint is {kept[-1]}"
                    if kept
                    else "there is no checkpoint yet"
                )
                record.status(
                    "diverged",
                    at,
                    f"step {at}: {what} is not finite; {good} in {record.checkpoints}: "
                    "try a smaller step size or another loss",
                )

    def _of_live(self, values: Tensor) -> list[Any]:
        kept: list[Any] = values.tolist()
        return [kept[i] for i, _, _ in self._live()]

    def _state_of(self, i: int) -> tree.Tree:
        """Member i's state as a single run has it; counters are shared by all."""
        return tree.map(lambda t, one: t if t.ndim == one.ndim else t[i], self.state, self.alone)

    # -- records ----------------------------------------------------------------------------------

    def _log(self) -> dict[str, float]:
        """A row of every live member's metrics; returns the mean losses."""
        names = list(self.window[0])
        table = torch.stack([torch.stack([row[n] for n in names]) for row in self.window])
        means = table.double().mean(0).cpu()  # [names, members]
        self.window, self.checked = [], 0
        live = self._live()
        for i, _, record in live:
            row: dict[str, Any] = {"step": self.step, "seconds": round(self.seconds, 3)}
            for n, value in zip(names, means[:, i].tolist(), strict=True):
                kind, player = n.split("/", 1)
                row.setdefault(kind, {})[player] = value
            record.log(row)
        shown = means[:, [i for i, _, _ in live]].mean(1).tolist()
        return {
            n.partition("/")[2]: value
            for n, value in zip(names, shown, strict=True)
            if n.startswith("loss/")
        }

    def _pair(self, i: int) -> tuple[Players, Constants]:
        players = {**tree.member(self.players, i), **self._state_of(i).get("average", {})}
        return players, tree.member(self.constants, i)

    def _sheets(self) -> None:
        game, batch, n = self.recipe.game, self.recipe.batch, samples.SHEET[self.data.kind]
        for i, seed, record in self._live():
            if self.step == 0:
                real = self.data.sample(samples.real_generator(seed), n)
                samples.write_sheet(record.samples / "real", real, self.data)
            sheet = samples.generate(game, *self._pair(i), n, seed, batch=batch, data=self.data)
            samples.write_sheet(record.samples / f"step_{self.step:08d}", sheet, self.data)

    def _score(self) -> None:
        recipe = self.recipe
        if not recipe.scores:
            return
        for i, seed, record in self._live():
            players, constants = self._pair(i)
            for row in samples.scored(
                recipe.game, recipe.scores, self.data, players, constants, seed, recipe.batch
            ):
                record.score({"step": self.step, **row})

    def _save(self) -> None:
        """A checkpoint of every live member, as a single run writes it."""
        names = list(self.window[0]) if self.window else []
        for i, seed, record in self._live():
            values: dict[str, Any] = {
                "players": tree.member(self.players, i),
                "constants": tree.member(self.constants, i),
                "state": self._state_of(i),
            }
            if names:
                values["window"] = torch.stack(
                    [torch.stack([row[n][i] for n in names]) for row in self.window]
                )
            record.fsync_metrics()
            path = checkpoint.path_of(record.checkpoints, self.step)
            checkpoint.write(path, values, {"step": self.step, "seed": seed, "window": names})
            self.sound[i].add(path.name)
            record.checkpoint = path.name
        self.saved = self.step
        # After all have been written: a process killed between them leaves a step that all share.
        for i, _, record in self._live():
            record.status("running", self.step)
            checkpoint.prune(record.checkpoints, self.recipe.keep, self.sound[i])


def _kept(record: Record, recipe: Recipe, seed: int, device: torch.device) -> Run:
    """The run that a record holds, at its newest checkpoint or else at its initial weights."""
    if checkpoint.existing(record.checkpoints):
        return load(record.directory, recipe, device=str(device))
    players, constants = recipe.game.init(seed, device=device, dtype=recipe.dtype)
    data = recipe.data.to(device, recipe.dtype)
    return Run(record.directory, recipe, data, players, constants, 0, seed, "", "")


def _end(record: Record) -> int | None:
    """The step at which a member has diverged, by its status."""
    path = record.directory / "status.json"
    status = read_json(path) if path.exists() else {}
    if not isinstance(status, dict) or status.get("state") != "diverged":
        return None
    return int(status["step"])


def _drop(record: Record, step: int) -> None:
    """Forget checkpoints after `step`: some members wrote them, others did not."""
    for at, path in checkpoint.existing(record.checkpoints):
        if at > step:
            path.unlink(missing_ok=True)
