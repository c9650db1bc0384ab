"""A trained pair: what a run directory holds at one of its steps."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.data.absent import is_absent
from equilibrist.display import Rows, Shown
from equilibrist.errors import RecipeError, RecordError
from equilibrist.run import checkpoint, code, samples
from equilibrist.run.environment import device_of
from equilibrist.run.manifest import identity
from equilibrist.run.recipe import Recipe
from equilibrist.run.record import Record


@dataclass(repr=False)
class Run(Shown):
    """A run at one step: what `train` and `load` return and what an audit reads.

    Attributes:
        directory: the run directory.
        recipe: what was trained; its data lie on the run's device.
        players, constants: the pair at `step`.
        seed: the run's seed.
        checkpoint, sha256: file name and checksum of the checkpoint it was read from.
        interrupted: the run was asked to stop before its last step.
        diverged: what is wrong with weights that have grown beyond all proportion, in words.
        average: averages by player, where the solver keeps any (`solvers.Averaged`).
    """

    directory: Path
    recipe: Recipe = field(repr=False)
    data: Source = field(repr=False)
    players: Players = field(repr=False)
    constants: Constants = field(repr=False)
    step: int
    seed: int
    checkpoint: str
    sha256: str
    interrupted: bool = False
    average: Players = field(default_factory=dict, repr=False)
    diverged: str = ""

    def _facts(self) -> tuple[str, Rows]:
        stopped = ", interrupted" if self.interrupted else ""
        rows = [
            ("step", f"{self.step:,} of {self.recipe.steps:,}{stopped}"),
            ("seed", str(self.seed)),
            ("checkpoint", self.checkpoint),
            ("game", str(self.recipe.game.formulation)),
        ]
        return f"Run {self.directory}", rows

    def pair(self, iterate: str = "auto") -> Players:
        """The players as they are used: "average" (averaged where there are averages), "last", or "auto":
        the average where there is one.

        Raises RecipeError for another word, and for "average" where there is none.
        """
        if iterate not in ("auto", "average", "last"):
            raise RecipeError(f"iterate={iterate!r}: choose 'auto', 'average' or 'last'")
        if iterate == "average" and not self.average:
            raise RecipeError(
                "this run keeps no averages: train it with Averaged(solver), or ask for 'last'"
            )
        return self.players if iterate == "last" else {**self.players, **self.average}

    def samples(self, n: int, index: int = 0, iterate: str = "auto") -> Tensor:
        """n generated samples, the same for the same (seed, index)."""
        return samples.generate(
            self.recipe.game,
            self.pair(iterate),
            self.constants,
            n,
            self.seed,
            index,
            batch=self.recipe.seen_together,
            data=self.data,
        )


def load(
    directory: Path | str, recipe: Recipe, *, device: str = "auto", step: int | None = None
) -> Run:
    """The pair that `directory` holds, at its newest sound checkpoint or at `step`.

    The data of `recipe` must be those that it was trained on, unless they were not read (`data.unread`).
    """
    record = Record(Path(directory))
    seed = int(record.manifest()["seed"])
    # Names and shapes alone would let another loss, or other data, be audited under this run's name.
    wanted = identity(recipe)
    if is_absent(recipe.data):  # nothing was read that could be compared
        wanted["description"]["data"] = record.manifest()["description"].get("data")
    record.require_same(wanted, "dtype", "description")
    record.warn_of_other_code({"code": code.sources(recipe)})
    if step is None:
        found = checkpoint.newest(record.checkpoints)
    else:
        path = checkpoint.path_of(record.checkpoints, step)
        found = (path, *checkpoint.read_checkpoint(path))
    if found is None:
        raise RecordError(f"{directory} holds no checkpoint yet: train it with `equilibrist run`")
    path, flat, meta, digest = found
    place = device_of(device)
    start = recipe.game.init(seed, device=place, dtype=recipe.dtype)
    like = {"players": start.players, "constants": start.constants}
    require_own(path, flat, meta, seed, like)
    values = checkpoint.fit(flat, like, path)
    state = recipe.solver.init(start.players)
    average = {}
    if "average" in state:
        kept = {"state": {"average": state["average"]}}
        average = checkpoint.fit(flat, kept, path)["state"]["average"]
    return Run(
        Path(directory),
        recipe,
        recipe.data.to(place, recipe.dtype),
        values["players"],
        values["constants"],
        int(meta["step"]),
        seed,
        path.name,
        digest,
        average=average,
    )


def newest_or_start(record: Record, recipe: Recipe, seed: int, device: torch.device) -> Run:
    """The run that a record holds at its newest checkpoint, or else at its initial weights."""
    if checkpoint.existing(record.checkpoints):
        return load(record.directory, recipe, device=str(device))
    players, constants = recipe.game.init(seed, device=device, dtype=recipe.dtype)
    data = recipe.data.to(device, recipe.dtype)
    return Run(record.directory, recipe, data, players, constants, 0, seed, "", "")


def require_own(
    path: Path, flat: dict[str, Tensor], meta: Json, seed: int, like: tree.Tree
) -> None:
    """RecordError for a checkpoint of another seed, or with tensors that the recipe does not have."""
    if meta.get("seed") != seed:
        raise RecordError(
            f"{path} is of seed {meta.get('seed')}, not {seed}: it belongs to another run"
        )
    wanted = {"/".join(key) for key, _ in tree.items(like)}
    for key in flat:
        if key.partition("/")[0] in like and key not in wanted:
            raise RecordError(
                f"{path} holds {key}, which the recipe does not have: it belongs to another recipe"
            )
