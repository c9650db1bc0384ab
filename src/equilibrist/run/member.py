"""One seed of a session: its run directory, and all that is written there."""

from __future__ import annotations

from typing import Any

import torch

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.core.draws import Batches
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.errors import NonFiniteError, RecordError
from equilibrist.games import Mixture
from equilibrist.games.sampled import Start
from equilibrist.run import checkpoint, samples
from equilibrist.run.recipe import Recipe
from equilibrist.run.record import Record


class Member:
    """A seed's minibatches and its record.

    Args:
        recipe: with this seed's own solver.
        record: of its run directory.
        seed: of its weights, minibatches and noise.
        data: the recipe's, on the device of training.
        tensorboard: whether metrics are written for TensorBoard, too.

    Attributes:
        checkpoint, sha256: name and checksum of its newest checkpoint; empty before the first.
        failure: the error that ended its training, or None.
        overgrown: what is wrong with its last weights, in words; empty where nothing is.
    """

    def __init__(
        self, recipe: Recipe, record: Record, seed: int, data: Source, tensorboard: bool = False
    ) -> None:
        self.recipe, self.record, self.seed, self.data = recipe, record, seed, data
        self.checkpoint = self.sha256 = self.overgrown = ""
        self.failure: NonFiniteError | None = None
        self.writer = _writer(record) if tensorboard else None
        self._sound: set[str] = set()  # names of checkpoints that need not be read to know it

    def batches(self, device: torch.device) -> Batches:
        """The minibatches of this seed."""
        return minibatches(self.recipe, self.data, self.seed, device)

    def start(self, device: torch.device) -> Start:
        """The initial weights of this seed."""
        return self.recipe.game.init(self.seed, device=device, dtype=self.recipe.dtype)

    def resume(self, name: str, sha256: str) -> None:
        """Go on from a checkpoint that was read."""
        self.checkpoint, self.sha256, self.record.checkpoint = name, sha256, name
        self._sound.add(name)

    def log(self, step: int, seconds: float, means: dict[str, float]) -> None:
        """A row of metrics; `means` by "kind/player"."""
        row: Json = {"step": step, "seconds": round(seconds, 3)}
        for name, value in means.items():
            kind, player = name.split("/", 1)
            row.setdefault(kind, {})[player] = value
            if self.writer is not None:
                self.writer.add_scalar(name, value, step)
        self.record.log(row)

    def sheet(self, step: int, players: Players, constants: Constants) -> None:
        """A sheet of samples at this step; before the first step one of the data, too."""
        n, folder, game = samples.SHEET[self.data.kind], self.record.samples, self.recipe.game
        if game.lacks("samples"):
            return
        if step == 0:
            real = samples.real(game, players, constants, n, self.seed, self.data)
            samples.write_sheet(folder / "real", real, self.data)
        pairs = {f"step_{step:08d}": (game, players, constants)}
        if isinstance(game, Mixture):  # the other summary, of the newest step
            pairs["mean"] = (game.base, *game.mean(players, constants))
        for stem, pair in pairs.items():
            made = samples.generate(
                *pair, n, self.seed, batch=self.recipe.seen_together, data=self.data
            )
            samples.write_sheet(folder / stem, made, self.data)

    def score(self, step: int, players: Players, constants: Constants) -> None:
        """The recipe's scores at this step."""
        recipe = self.recipe
        for row in samples.score_rows(
            recipe.game,
            recipe.scores,
            self.data,
            players,
            constants,
            self.seed,
            recipe.seen_together,
        ):
            self.record.score({"step": step, **row})

    def write_checkpoint(self, step: int, values: tree.Tree, names: list[str]) -> None:
        """A checkpoint; `names` are those of the columns of the measurements in values["window"]."""
        path = checkpoint.path_of(self.record.checkpoints, step)
        self.record.fsync_metrics()
        meta = {"step": step, "seed": self.seed, "window": names}
        self.sha256 = checkpoint.write_checkpoint(path, values, meta)
        self.checkpoint = self.record.checkpoint = path.name
        self._sound.add(path.name)

    def announce_checkpoint(self, step: int) -> None:
        """Once the checkpoints of all members are written: what the status names has been there."""
        self.record.status("running", step)
        self.prune()

    def prune(self) -> None:
        """Delete all but the newest checkpoints, as many as the recipe keeps."""
        checkpoint.prune(self.record.checkpoints, self.recipe.keep, self._sound)

    def fail(self, step: int, player: str, quantity: str) -> None:
        """End this member's record at a number that is not finite."""
        kept = (
            f"the last good checkpoint is {self.checkpoint}"
            if self.checkpoint
            else "there is no checkpoint yet"
        )
        message = (
            f"step {step}: the {player}'s {quantity} is not finite; {kept} in {self.record.checkpoints}: "
            "try a smaller step size (--guard goes back and takes one) or another loss"
        )
        self.record.status("diverged", step, message)
        self.failure = NonFiniteError(
            message, step=step, player=player, quantity=quantity, checkpoint=self.checkpoint or None
        )

    def close(self) -> None:
        """Release the files that are held open."""
        self.record.close()
        if self.writer is not None:
            self.writer.close()


def minibatches(recipe: Recipe, data: Source, seed: int, device: torch.device) -> Batches:
    """The minibatches of a seed, the same in every process."""
    return Batches(
        lambda rng, n: recipe.game.draw(rng, data, n, recipe.dtype, device), recipe.batch, seed
    )


def _writer(record: Record) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RecordError(
            "--tensorboard needs TensorBoard: pip install 'equilibrist[tensorboard]'"
        ) from None
    return SummaryWriter(str(record.directory / "tensorboard"))
