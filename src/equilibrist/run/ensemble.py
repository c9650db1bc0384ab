"""Many seeds of one recipe as one stacked computation, by the solver's very own step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist._draws import Batches, StackedDraws
from equilibrist._errors import RecipeError
from equilibrist._field import VectorField
from equilibrist._game import Constants, Players
from equilibrist.run import checkpoint, environment, samples
from equilibrist.run.loop import (
    Interrupts,
    Run,
    _belongs,
    _deterministic,
    _draw,
    _fits,
    _manifest,
    device_of,
)
from equilibrist.run.progress import showing
from equilibrist.run.recipe import Recipe
from equilibrist.run.record import Record


@dataclass(frozen=True)
class Ensemble:
    """What `ensemble` returns.

    Attributes:
        runs: one `Run` a seed, in order; each has a run directory of its own (DIR/seed_S), which
            `load`, audits and reports take like any other.
        diverged: seed to the step at which its losses or gradients ceased to be finite. Such a
            member is held at its last finite weights; the others go on untouched.
        seconds: of training, all members together.
        interrupted: the ensemble was asked to stop before its last step.
    """

    runs: tuple[Run, ...]
    diverged: dict[int, int]
    seconds: float
    interrupted: bool = False


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
    """Train `recipe` from every seed at once, each in DIR/seed_S, or go on where they stopped together.

    The members' parameters, moments and minibatches are stacked along a leading dimension and one
    `step` moves them all (`VectorField(..., stacked=S)`), with the results of single runs up to
    rounding: the same seeds draw the same weights and minibatches. Small networks train several times
    faster per seed than one by one; networks bound by arithmetic gain little.

    Raises:
        RecipeError: no seed, or the same seed twice. What `train` raises for directories and data.
    """
    seeds = tuple(int(seed) for seed in seeds)
    if not seeds or len(set(seeds)) != len(seeds):
        raise RecipeError(f"seeds={list(seeds)}: give each seed once, and at least one")
    place = device_of(device)
    root = Path(directory)
    records = [Record(root / f"seed_{seed}") for seed in seeds]
    with ExitStack() as held, Interrupts() as interrupts:
        for record in records:
            held.enter_context(record.lock())
        for seed, record in zip(seeds, records, strict=True):
            record.create(_manifest(recipe, name, settings, origin, seed, place))
        stack = _Stack(recipe, records, seeds, place)
        try:
            stack.restore()
            title = f"{recipe.title or name}, {len(seeds)} seeds"
            with _deterministic(place), showing(progress, title, recipe.steps, stack.step) as bar:
                stack.play(interrupts, bar)
        finally:
            for record in records:
                record.close()
        stopped = interrupts.asked is not None and stack.step < recipe.steps
        return Ensemble(stack.runs(stopped), stack.diverged, stack.seconds, stopped)


class _Stack:
    """State of one session of an ensemble."""

    def __init__(
        self,
        recipe: Recipe,
        records: Sequence[Record],
        seeds: tuple[int, ...],
        device: torch.device,
    ) -> None:
        self.recipe, self.records, self.seeds, self.device = recipe, records, seeds, device
        self.data = recipe.data.to(device, recipe.dtype)
        make = partial(_draw, recipe.game, self.data, recipe.dtype, device)
        self.batches = [Batches(make, recipe.batch, seed) for seed in seeds]
        self.field = VectorField(
            recipe.game,
            stacked=len(seeds),
            parts=recipe.accumulate,
            autocast=torch.bfloat16 if recipe.mixed_precision else None,
        )
        starts = [recipe.game.init(s, device=device, dtype=recipe.dtype) for s in seeds]
        self.players: Players = tree.stack([start.players for start in starts])
        self.constants: Constants = tree.stack([start.constants for start in starts])
        self.state = recipe.solver.init(self.players)
        self.alone = recipe.solver.init(starts[0].players)  # what a single run's state looks like
        self.good = self._everything(copy=True)
        self.step, self.seconds = 0, 0.0
        self.diverged: dict[int, int] = {}
        self.window: list[dict[str, Tensor]] = []
        self.digests = [""] * len(seeds)

    def restore(self) -> None:
        """Take up the newest step at which every member has a sound checkpoint, or begin."""
        entry = environment.environment(self.device, 0)
        found = [checkpoint.newest(record.checkpoints) for record in self.records]
        steps = {int(f[2]["step"]) for f in found if f is not None}
        together = len(steps) == 1 and all(f is not None for f in found)
        if not together:
            _fits(
                self.recipe,
                *(tree.member(t, 0) for t in (self.players, self.constants)),
                self.batches[0].batch(0, 0),
            )
        for record in self.records:
            record.session({**entry, "members": len(self.seeds)})
            if not together:
                record.rewind(-1)
        if not together:
            self._sheets()
            if self.recipe.scores:
                self._score()
            return
        members = []
        for seed, one in zip(self.seeds, found, strict=True):
            assert one is not None
            path, flat, meta, _ = one
            like = {
                **tree.member({"players": self.players, "constants": self.constants}, 0),
                "state": self.alone,
            }
            _belongs(path, flat, meta, seed, like)
            members.append(checkpoint.fit(flat, like, path))
            if meta.get("diverged") is not None:
                self.diverged[seed] = int(meta["diverged"])
        self.players = tree.stack([m["players"] for m in members])
        self.constants = tree.stack([m["constants"] for m in members])
        self.state = _stacked([m["state"] for m in members], self.state)
        self.step = steps.pop()
        self.seconds = max(record.rewind(self.step) for record in self.records)
        self.good = self._everything(copy=True)

    def play(self, interrupts: Interrupts, bar: Any) -> None:
        """Steps until the end or until asked to stop."""
        recipe = self.recipe
        kinds = ("log", "sample", "checkpoint", "score")
        log, sheet, save, judge = (recipe.every(what) for what in kinds)
        for record in self.records:
            record.status("running", self.step)
        begun = time.monotonic() - self.seconds
        while self.step < recipe.steps and interrupts.asked is None:
            draws = StackedDraws([batches.at(self.step) for batches in self.batches])
            self.players, self.constants, self.state, info = recipe.solver.step(
                self.field, self.players, self.constants, self.state, draws
            )
            self.step += 1
            self.window.append(
                {f"{kind}/{p}": value for kind, part in info.items() for p, value in part.items()}
            )
            last = self.step == recipe.steps or interrupts.asked is not None
            if last or any(self.step % every == 0 for every in (log, sheet, save, judge)):
                self.seconds = time.monotonic() - begun
                self._part_the_diverged()
                if self.step % log == 0 or last:
                    bar.update(self.step, self._log())
                if self.step % sheet == 0 or self.step == recipe.steps:
                    self._sheets()
                if recipe.scores and (self.step % judge == 0 or self.step == recipe.steps):
                    self._score()
                if self.step % save == 0 or last:
                    self._save()
        for seed, record in zip(self.seeds, self.records, strict=True):
            if seed in self.diverged:
                message = f"step {self.diverged[seed]}: a loss, gradient or parameter is not finite"
                record.status("diverged", self.diverged[seed], message)
            else:
                finished = self.step == recipe.steps
                record.status("finished" if finished else "interrupted", self.step)

    def runs(self, interrupted: bool) -> tuple[Run, ...]:
        """The members as single runs."""
        found = []
        for i, (seed, record) in enumerate(zip(self.seeds, self.records, strict=True)):
            name = checkpoint.path_of(record.checkpoints, self.step).name
            found.append(
                Run(
                    record.directory,
                    self.recipe,
                    self.data,
                    tree.clone(tree.member(self.players, i)),
                    tree.clone(tree.member(self.constants, i)),
                    self.step,
                    seed,
                    name,
                    self.digests[i],
                    interrupted,
                    tree.clone(self._member_state(i).get("average", {})),
                )
            )
        return tuple(found)

    # -- records ----------------------------------------------------------------------------------

    def _part_the_diverged(self) -> None:
        """Mark members that met a non-finite number, and put them back to their last finite weights: their
        own slices stay harmless, and no decomposition meets a NaN that would stop the others."""
        fine = torch.ones(len(self.seeds), dtype=torch.bool, device=self.device)
        first: dict[int, int] = {}
        for back, row in enumerate(reversed(self.window)):
            bad = ~torch.stack([torch.isfinite(v) for v in row.values()]).all(0)
            for i in bad.nonzero().flatten().tolist():
                first[i] = self.step - back
            fine &= ~bad
        for leaf in tree.leaves(self.players):
            finite = torch.isfinite(leaf).flatten(1).all(1)
            for i in (~finite & fine).nonzero().flatten().tolist():
                first.setdefault(i, self.step)
            fine &= finite
        for i in first:
            self.diverged.setdefault(self.seeds[i], first[i])
        for i, seed in enumerate(self.seeds):
            if seed in self.diverged:
                fine[i] = False
        if bool(fine.all()):
            self.good = self._everything(copy=True)
            return

        def mended(now: Tensor, good: Tensor) -> Tensor:
            if now.ndim == 0 or len(now) != len(self.seeds):
                return now
            return torch.where(fine.reshape(-1, *[1] * (now.ndim - 1)), now, good)

        whole = tree.map(mended, self._everything(), self.good)
        self.players, self.constants, self.state = (
            whole[k] for k in ("players", "constants", "state")
        )
        self.good = self._everything(copy=True)

    def _everything(self, copy: bool = False) -> tree.Tree:
        whole = {"players": self.players, "constants": self.constants, "state": self.state}
        return tree.clone(whole) if copy else whole

    def _member_state(self, i: int) -> tree.Tree:
        """Member i's state as a single run has it; counters are shared by all."""
        return tree.map(lambda t, one: t if t.ndim == one.ndim else t[i], self.state, self.alone)

    def _log(self) -> dict[str, float]:
        if not self.window:
            return {}
        names = list(self.window[0])
        table = torch.stack([torch.stack([row[n] for n in names]) for row in self.window]).double()
        means = table.mean(0).cpu()  # [names, members]
        shown = {}
        for i, (seed, record) in enumerate(zip(self.seeds, self.records, strict=True)):
            row: dict[str, Any] = {"step": self.step, "seconds": round(self.seconds, 3)}
            for n, value in zip(names, means[:, i].tolist(), strict=True):
                kind, player = n.split("/", 1)
                row.setdefault(kind, {})[player] = value
            if seed not in self.diverged or self.diverged[seed] >= self.step - len(self.window):
                record.log(row)
                shown = row.get("loss", {})
        self.window = []
        return dict(shown)

    def _pair(self, i: int) -> tuple[Players, Constants]:
        players = {**tree.member(self.players, i), **self._member_state(i).get("average", {})}
        return players, tree.member(self.constants, i)

    def _sheets(self) -> None:
        n = samples.SHEET[self.data.kind]
        for i, (seed, record) in enumerate(zip(self.seeds, self.records, strict=True)):
            if self.step == 0:
                real = self.data.sample(samples.real_generator(seed), n)
                samples.write_sheet(record.samples / "real", real, self.data)
            players, constants = self._pair(i)
            sheet = samples.generate(
                self.recipe.game,
                players,
                constants,
                n,
                seed,
                batch=self.recipe.batch,
                data=self.data,
            )
            samples.write_sheet(record.samples / f"step_{self.step:08d}", sheet, self.data)

    def _score(self) -> None:
        for i, (seed, record) in enumerate(zip(self.seeds, self.records, strict=True)):
            if seed in self.diverged:
                continue
            players, constants = self._pair(i)
            for row in samples.scored(
                self.recipe.game,
                self.recipe.scores,
                self.data,
                players,
                constants,
                seed,
                self.recipe.batch,
            ):
                record.score({"step": self.step, **row})

    def _save(self) -> None:
        for i, (seed, record) in enumerate(zip(self.seeds, self.records, strict=True)):
            values: dict[str, Any] = {
                "players": tree.member(self.players, i),
                "constants": tree.member(self.constants, i),
                "state": self._member_state(i),
            }
            meta: dict[str, Any] = {"step": self.step, "seed": seed, "window": []}
            if seed in self.diverged:
                meta["diverged"] = self.diverged[seed]
            record.settle()
            path = checkpoint.path_of(record.checkpoints, self.step)
            self.digests[i] = checkpoint.write(path, values, meta)
            checkpoint.prune(record.checkpoints, self.recipe.keep)


def _stacked(members: list[tree.Tree], like: tree.Tree) -> tree.Tree:
    """Members' states stacked as `like` is: shared counters once."""
    return tree.map(
        lambda t, *ones: ones[0].clone() if t.ndim == ones[0].ndim else torch.stack(ones),
        like,
        *members,
    )
