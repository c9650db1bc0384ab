"""The one loop: steps, measurements, records and resumption of one run, or of many as one stack."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Draw, Draws, StackedDraws
from equilibrist.core.game import Constants, Players
from equilibrist.errors import GameError, RecipeError, RecordError, warn_user
from equilibrist.progress import showing
from equilibrist.run import checkpoint, environment
from equilibrist.run.guarded_field import GuardedField
from equilibrist.run.member import Member
from equilibrist.run.recipe import Recipe
from equilibrist.run.requirements import affordable, fits, overgrown
from equilibrist.run.stepping import Compile, Standing, choose_stepping
from equilibrist.run.stopping import StopRequest
from equilibrist.run.team import Lead
from equilibrist.run.trained import Run, newest_or_start, require_own

Measurements = list[dict[str, Tensor]]  # a dictionary a step, by "kind/player"


class Session:
    """Training from one step to another.

    One member is trained by itself. The parameters, moments and minibatches of several are stacked along a
    leading dimension, and one `step` of the solver moves them all; counters in the solver's state are shared.

    Args:
        recipe: with a solver whose parameters may have a value for each member.
        members: the seeds, each with its record.
        device: of training.
        compile: whether the steps are compiled (`choose_stepping`).
        lead: of the processes that train together.

    Attributes:
        step: how many steps were done.
        seconds: of training, all members together, without scores, sample sheets and checkpoints.
        diverged: seed to the step at which its losses, gradients or weights ceased to be finite, or at which
            its weights were found to have grown more than a thousandfold.
    """

    def __init__(
        self,
        recipe: Recipe,
        members: Sequence[Member],
        device: torch.device,
        compile: Compile = "off",
        lead: Lead | None = None,
    ) -> None:
        self.recipe, self.members, self.device = recipe, members, device
        self.compile, self.lead = compile, lead or Lead()
        self.stacked = len(members) if len(members) > 1 else None
        affordable(recipe, device, len(members))
        self.batches = [member.batches(device) for member in members]
        self.field = GuardedField(
            recipe.game,
            stacked=self.stacked,
            autocast=torch.bfloat16 if recipe.mixed_precision else None,
            **self.lead.options(recipe),
        )
        starts = [member.start(device) for member in members]
        self.players: Players = self._join([start.players for start in starts])
        self.constants: Constants = self._join([start.constants for start in starts])
        try:
            self.state = recipe.solver.init(self.players)
            # What a single run's state looks like: counters are shared, all else has a member's row.
            self._alone = recipe.solver.init(starts[0].players) if self.stacked else self.state
        except ValueError as error:  # it names a player who does not play
            raise RecipeError(str(error)) from error
        self.step, self.seconds = 0, 0.0
        self.diverged: dict[int, int] = {}
        self._saved: int | None = None  # the step of the newest checkpoints
        self._window: Measurements = []  # since the last row of metrics
        self._checked = 0  # how many of them were seen to be finite

    # -- stacks -----------------------------------------------------------------------------------

    def _join(self, trees: Sequence[tree.Tree]) -> tree.Tree:
        return tree.stack(trees) if self.stacked else trees[0]

    def _part(self, whole: tree.Tree, i: int) -> tree.Tree:
        return tree.member(whole, i) if self.stacked else whole

    def _state_of(self, i: int) -> tree.Tree:
        """Member i's state as a single run has it."""
        return tree.map(lambda t, one: t if t.ndim == one.ndim else t[i], self.state, self._alone)

    def _used_weights(self, i: int) -> tuple[Players, Constants]:
        """Member i as it is used: averaged where there are averages."""
        players = {**self._part(self.players, i), **self._state_of(i).get("average", {})}
        return players, self._part(self.constants, i)

    def _live(self) -> list[tuple[int, Member]]:
        """Index and member of those that have not diverged."""
        return [(i, m) for i, m in enumerate(self.members) if m.seed not in self.diverged]

    def _draws(self, step: int) -> Draws | StackedDraws:
        draws = [batches.at(step) for batches in self.batches]
        return StackedDraws(draws) if self.stacked else draws[0]

    # -- beginning and end --------------------------------------------------------------------------

    def restore(self, ended: dict[int, int], progress: str = "none") -> None:
        """Go on from the newest step at which every member has a sound checkpoint, or begin.

        `ended`: seed to step of members that have diverged in earlier sessions and are left as they are.
        """
        found = self._newest(ended)
        step = -1 if found is None else found[0]
        for member in self.members:
            member.record.require_checkpoints(step)
        if found is None:
            self._require_fit()
        else:
            self.step = self._saved = step
            self.diverged = {seed: at for seed, at in ended.items() if at <= step}
            self._arrange(found[1])
        if step > self.recipe.steps:
            raise RecordError(
                f"{self.members[0].record.directory} is at step {step} already, past "
                f"steps={self.recipe.steps}: ask for more steps, or choose another --dir"
            )
        self.seconds = max(member.record.rewind(step) for member in self.members)
        here = Standing(self.players, self.constants, self.state, self._draws, self.step)
        last, mode = self.members[0].record.last_session(), self.compile
        self._stepping = choose_stepping(mode, self.recipe, self.field, here, last, progress)
        self._register()
        for member in self.members:
            if self.stacked:  # some members wrote further checkpoints, others did not
                checkpoint.drop_after(member.record.checkpoints, step)
            member.prune()
        if found is None:
            self._sheets()
            self._score()  # also where a score shows that it does not fit the data

    def _newest(self, ended: dict[int, int]) -> tuple[int, dict[int, checkpoint.Found]] | None:
        """(step, what every member's checkpoint there holds); a diverged member needs none from then on."""
        folders = [member.record.checkpoints for member in self.members]
        if not self.stacked:
            found = checkpoint.newest(folders[0])
            return None if found is None else (int(found[2]["step"]), {0: found})
        steps = [{step for step, _ in checkpoint.existing(folder)} for folder in folders]
        for step in sorted(set.union(*steps), reverse=True):
            needed = [i for i, m in enumerate(self.members) if ended.get(m.seed, step + 1) > step]
            if not needed or not all(step in steps[i] for i in needed):
                continue
            paths = {i: checkpoint.path_of(folders[i], step) for i in needed}
            try:
                return step, {
                    i: (path, *checkpoint.read_checkpoint(path)) for i, path in paths.items()
                }
            except RecordError as error:
                warn_user(f"{error}; all members fall back with it")
        if any(steps):
            warn_user(f"the members in {self._root} share no checkpoint: all begin again")
        return None

    @property
    def _root(self) -> Path:
        """The folder that a warning names."""
        directory = self.members[0].record.directory
        return directory.parent if self.stacked else directory

    def _arrange(self, held: dict[int, checkpoint.Found]) -> None:
        """Take over what the checkpoints hold. Initial weights stand where a member has diverged."""
        parts, windows = [], {}
        for i, member in enumerate(self.members):
            start = member.start(self.device)
            like = {"players": start.players, "constants": start.constants, "state": self._alone}
            if i in held:
                path, flat, meta, digest = held[i]
                require_own(path, flat, meta, member.seed, like)
                like = checkpoint.fit(flat, like, path)
                member.resume(path.name, digest)
                windows[i] = flat.get("window", torch.empty(0, 0)).to(self.device)
                names = meta["window"]
            parts.append(like)
        self.players = self._join([part["players"] for part in parts])
        self.constants = self._join([part["constants"] for part in parts])
        whole = parts[min(held)]["state"]
        self.state = tree.map(
            lambda t, one, *all_: one if t.ndim == one.ndim else torch.stack(all_),
            self.state,
            whole,
            *[part["state"] for part in parts],
        )
        blank = torch.zeros_like(windows[min(held)])
        rows = self._stack([windows.get(i, blank) for i in range(len(self.members))], dim=2)
        self._window = [dict(zip(names, row, strict=True)) for row in rows]
        self._checked = len(self._window)

    def _stack(self, tensors: list[Tensor], dim: int) -> Tensor:
        return torch.stack(tensors, dim) if self.stacked else tensors[0]

    def _register(self) -> None:
        """Add this session to the members' records; a warning where its bits will be others'."""
        entry = environment.environment(self.device, self.step) | self.lead.entry()
        entry["steps"] = self._stepping.entry
        if self.stacked:
            entry["members"] = self.stacked
        for member in self.members:
            sessions = member.record.session(entry)
        if changed := environment.changes(sessions[0], entry, stacked=bool(self.stacked)):
            warn_user(
                f"resuming {self._root} in a different environment ({changed}): the continuation will not "
                "be bit-identical to an uninterrupted run"
            )

    def _require_fit(self) -> None:
        """The data against the game; GameError where the losses cannot be evaluated for all members at once."""
        first: Draw = self.batches[0].batch(0, 0)
        fits(self.recipe, self._part(self.players, 0), self._part(self.constants, 0), first)
        if not self.stacked:
            return
        draw = self._draws(self.step).batch(0)
        try:
            constants = self.field.refresh(self.players, self.constants, draw)
            self.field(self.players, constants, draw)
        except RuntimeError as error:
            raise GameError(
                f"the game's losses cannot be stacked ({str(error).splitlines()[0]}): train its seeds one "
                "by one (`equilibrist run --seed`)"
            ) from error

    def runs(self, interrupted: bool = False) -> list[Run]:
        """The members as single runs; those that met a non-finite number at their newest checkpoints."""
        return [self._run(i, member, interrupted) for i, member in enumerate(self.members)]

    def _run(self, i: int, member: Member, interrupted: bool) -> Run:
        if member.seed in self.diverged and not member.overgrown:
            return newest_or_start(member.record, member.recipe, member.seed, self.device)
        return Run(
            member.record.directory,
            member.recipe,
            member.data,
            tree.clone(self._part(self.players, i)),
            tree.clone(self._part(self.constants, i)),
            self.step,
            member.seed,
            member.checkpoint,
            member.sha256,
            interrupted,
            tree.clone(self._state_of(i).get("average", {})),
            member.overgrown,
        )

    # -- the loop ---------------------------------------------------------------------------------

    def train(self, stop: StopRequest, title: str, progress: str) -> None:
        """Step until the end, until asked to stop, or until every member has diverged."""
        recipe = self.recipe
        kinds = ("log", "sample", "checkpoint", "score")
        log_every, sheet_every, save_every, score_every = (recipe.every(what) for what in kinds)
        if self.step < recipe.steps:
            self._status("running")
        with (
            environment.deterministic(self.device),
            showing(progress, title, recipe.steps, self.step) as bar,
        ):
            self.lead.begin(self.step, self.players, self.constants, self.state)
            begun = time.monotonic()
            while self.step < recipe.steps and not stop and self._live():
                self._advance()
                end = self.step == recipe.steps
                last = end or bool(stop)
                if last or any(
                    self.step % every == 0
                    for every in (log_every, sheet_every, save_every, score_every)
                ):
                    self._mark_diverged(weights=last or self.step % save_every == 0)
                    self.seconds += time.monotonic() - begun  # the device was waited for just now
                    if end or self.step % log_every == 0:
                        bar.update(self.step, self._log())
                    if end or self.step % sheet_every == 0:
                        self._sheets()
                    if end or self.step % score_every == 0:
                        self._score()
                    if last or self.step % save_every == 0:
                        self._save()
                    begun = time.monotonic()
            self.lead.end()
            if self._saved != self.step:
                self._save()  # asked to stop between steps, or before the first
        self._conclude()

    def _advance(self) -> None:
        """One step of the solver."""
        self.lead.step()
        self.players, self.constants, self.state, info = self._stepping.take(
            self.players, self.constants, self.state, self._draws(self.step)
        )
        self.step += 1
        self._window.append(
            {f"{kind}/{p}": value for kind, part in info.items() for p, value in part.items()}
        )

    def _measured(self, rows: Measurements) -> Tensor:
        """Measurements as one table [steps, names, members]."""
        table = torch.stack([value for row in rows for value in row.values()])
        return table.reshape(len(rows), -1, len(self.members))

    def _mark_diverged(self, weights: bool) -> None:
        """End the records of members that met a non-finite number since the last look, in their losses and
        gradients or (`weights`) in their parameters. Their slices go on, unread: no operation mixes members.

        The device is waited for only here.
        """
        fresh = self._window[self._checked :]
        self._checked = len(self._window)
        bad: dict[int, tuple[int, str, str]] = {}  # index to (step, player, quantity)
        if weights:  # an update may overflow a finite gradient
            for player, part in self.players.items():
                for leaf in tree.leaves(part):
                    sound = torch.isfinite(leaf).reshape(len(self.members), -1).all(1)
                    for i in (~sound).nonzero().flatten().tolist():
                        bad.setdefault(i, (self.step, player, "parameter"))
        if fresh:
            infinite = (~torch.isfinite(self._measured(fresh))).cpu()
            names = list(fresh[0])
            for i in infinite.flatten(0, 1).any(0).nonzero().flatten().tolist():
                row, column = infinite[:, :, i].nonzero()[0].tolist()
                kind, player = names[column].split("/", 1)
                quantity = {"grad_norm": "gradient"}.get(kind, kind)
                bad[i] = (self.step - len(fresh) + row + 1, player, quantity)
        for i, member in self._live():
            if i in bad:
                self.diverged[member.seed] = bad[i][0]
                member.fail(*bad[i])

    def _log(self) -> dict[str, float]:
        """A row of every live member's metrics: means over the steps since the row before.

        Returns: the losses, averaged over live members.
        """
        names = list(self._window[0])
        means = self._measured(self._window).double().mean(0).cpu()  # [names, members]
        self._window, self._checked = [], 0
        live = self._live()
        for i, member in live:
            member.log(self.step, self.seconds, dict(zip(names, means[:, i].tolist(), strict=True)))
        shown = means[:, [i for i, _ in live]].mean(1).tolist()
        return {
            name.partition("/")[2]: value
            for name, value in zip(names, shown, strict=True)
            if name.startswith("loss/")
        }

    def _sheets(self) -> None:
        for i, member in self._live():
            member.sheet(self.step, *self._used_weights(i))

    def _score(self) -> None:
        for i, member in self._live() if self.recipe.scores else ():
            member.score(self.step, *self._used_weights(i))

    def _save(self) -> None:
        """A checkpoint of every live member, as if it had been trained by itself."""
        names = list(self._window[0]) if self._window else []
        table = self._measured(self._window) if names else None
        for i, member in self._live():
            values: tree.Tree = {
                "players": self._part(self.players, i),
                "constants": self._part(self.constants, i),
                "state": self._state_of(i),
            }
            if table is not None:
                values["window"] = table[:, :, i]
            member.write_checkpoint(self.step, values, names)
        self._saved = self.step
        # After all have been written: a process killed between them leaves a step that all share.
        for _, member in self._live():
            member.announce_checkpoint(self.step)

    def _status(self, state: str) -> None:
        for _, member in self._live():
            member.record.status(state, self.step)

    def _conclude(self) -> None:
        """The states in which the session ends; weights that have grown more than a thousandfold count as diverged."""
        if self.step < self.recipe.steps:
            self._status("interrupted")
            return
        for i, member in self._live():
            real = self.batches[i].batch(0, 0)["real"]
            start = member.start(self.device).players
            if why := overgrown(self._part(self.players, i), start, real):
                member.overgrown = why
                self.diverged[member.seed] = self.step
                member.record.status("diverged", self.step, why)
                warn_user(f"{member.record.directory}: {why}")
        self._status("finished")
