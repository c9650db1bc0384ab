"""The one loop: steps, records, checkpoints, resumption, non-finite values, interruption."""

from __future__ import annotations

import signal
import threading
import time
import warnings
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.draws import Batches, Draw
from equilibrist.core.field import VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.data import Source
from equilibrist.data.absent import is_absent
from equilibrist.display import Rows, Shown
from equilibrist.errors import NonFiniteError, RecipeError, RecordError
from equilibrist.games import GAN, Mixture
from equilibrist.games.gan import Start
from equilibrist.progress import Progress, showing
from equilibrist.run import checkpoint, code, environment, samples
from equilibrist.run.recipe import Recipe
from equilibrist.run.record import FORMAT, Record
from equilibrist.run.requirements import affordable, fits, overgrown, require_seed


@dataclass(repr=False)
class Run(Shown):
    """A run at one step: what `run` returns and what an audit reads.

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
            batch=self.recipe.batch,
            data=self.data,
        )


class Interrupts:
    """Turns the first Ctrl-C or SIGTERM into a wish to stop; a second one stops at once."""

    def __init__(self) -> None:
        self.asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked is not None:
            raise KeyboardInterrupt
        self.asked = number


def device_of(name: str) -> torch.device:
    """ "auto" is the first CUDA device where there is one, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps", "xpu"):
            raise RuntimeError("it does not compute")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(
            f"--device {name} cannot be used ({str(error).splitlines()[0]}): try 'auto' or 'cpu'"
        ) from None
    return device


@usual_errors
def train(
    recipe: Recipe,
    directory: Path | str,
    *,
    name: str = "python",
    settings: dict[str, Any] | None = None,
    origin: dict[str, Any] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: str = "auto",
    tensorboard: bool = False,
) -> Run:
    """Train `recipe` in `directory` up to its last step, or go on where that directory stopped.

    A resumed run is bit-identical to an uninterrupted one on the same machine, thread count and
    torch build. A directory in which no step was ever done takes any recipe.

    A run whose weights have grown beyond all proportion at its end warns, has the state "diverged" and
    says why in `Run.diverged`: its losses may be finite all the same.

    Raises:
        RecordError: the directory holds something else, is damaged, is in use, or has lost its
            checkpoints.
        RecipeError: a seed that is no whole number, or a minibatch beyond the machine's memory.
        GameError: the data do not fit the networks.
        NonFiniteError: a loss or gradient became infinite or undefined.
        UnwritableError: the disk is full.
    """
    record = Record(Path(directory))
    seed, place = require_seed(seed), device_of(device)
    manifest = _manifest(recipe, name, settings, origin, seed, place)
    with record.lock(), Interrupts() as interrupts:
        record.create(manifest)
        loop = None
        try:
            loop = _begun(recipe, record, seed, place, tensorboard)
            if loop.step:
                record.warn_of_other_code(manifest, loop.step)
            record.update(manifest, loop.step)
            with (
                _deterministic(place),
                showing(progress, recipe.title or name, recipe.steps, loop.step) as bar,
            ):
                loop.play(interrupts, bar)
        except BaseException as error:
            if not isinstance(error, NonFiniteError) and (loop is None or loop.step == 0):
                record.forget_untrained()  # a corrected recipe would be refused otherwise
            raise
        finally:
            if loop is not None:
                loop.close()
        return loop.result(interrupted=interrupts.asked is not None and loop.step < recipe.steps)


def _begun(
    recipe: Recipe, record: Record, seed: int, place: torch.device, tensorboard: bool
) -> _Loop:
    """A session at the newest checkpoint or at the beginning, ready to play."""
    loop = _Loop(recipe, record, seed, place, tensorboard)
    try:
        loop.restore()
    except BaseException:
        loop.close()
        raise
    return loop


def load(
    directory: Path | str, recipe: Recipe, *, device: str = "auto", step: int | None = None
) -> Run:
    """The pair that `directory` holds, at its newest sound checkpoint or at `step`.

    The data of `recipe` must be those that it was trained on, unless they were not read (`data.unread`).
    """
    record = Record(Path(directory))
    seed = int(record.manifest()["seed"])
    # Names and shapes alone would let another loss, or other data, be audited under this run's name.
    identity = _identity(recipe)
    if is_absent(recipe.data):  # nothing was read that could be compared
        identity["description"]["data"] = record.manifest()["description"].get("data")
    record.require_same(identity, "dtype", "description")
    record.warn_of_other_code({"code": code.sources(recipe)})
    if step is None:
        found = checkpoint.newest(record.checkpoints)
    else:
        path = checkpoint.path_of(record.checkpoints, step)
        found = (path, *checkpoint.read(path))
    if found is None:
        raise RecordError(f"{directory} holds no checkpoint yet: train it with `equilibrist run`")
    path, flat, meta, digest = found
    place = device_of(device)
    start = recipe.game.init(seed, device=place, dtype=recipe.dtype)
    like = {"players": start.players, "constants": start.constants}
    _belongs(path, flat, meta, seed, like)
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


def _belongs(
    path: Path, flat: dict[str, Tensor], meta: dict[str, Any], seed: int, like: dict[str, Any]
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


class _Loop:
    """State of one session of training."""

    def __init__(
        self, recipe: Recipe, record: Record, seed: int, device: torch.device, tensorboard: bool
    ) -> None:
        self.recipe, self.record, self.seed, self.device = recipe, record, seed, device
        affordable(recipe, device)
        self.data = recipe.data.to(device, recipe.dtype)
        make = partial(draw_of, recipe.game, self.data, recipe.dtype, device)
        self.batches = Batches(make, recipe.batch, seed)
        self.field = VectorField(
            recipe.game,
            parts=recipe.accumulate,
            autocast=torch.bfloat16 if recipe.mixed_precision else None,
        )
        self.players, self.constants = recipe.game.init(seed, device=device, dtype=recipe.dtype)
        try:
            self.state = recipe.solver.init(self.players)
        except ValueError as error:  # it names a player who does not play
            raise RecipeError(str(error)) from error
        self.step, self.seconds, self.digest = 0, 0.0, ""
        self.saved: str | None = None
        self.sound: set[str] = set()  # names of checkpoints that are known to be so
        self.diverged = ""
        self.window: list[dict[str, Tensor]] = []  # measurements since the last row of metrics
        self.checked = 0  # how many of them were seen to be finite
        self.writer = _writer(record.directory) if tensorboard else None

    # -- beginning and end --------------------------------------------------------------------------

    def restore(self) -> None:
        """Take up the newest sound checkpoint, or begin."""
        found = checkpoint.newest(self.record.checkpoints)
        entry = environment.environment(self.device, 0)
        self.record.require_checkpoints(-1 if found is None else int(found[2]["step"]))
        if found is None:
            fits(self.recipe, self.players, self.constants, self.batches.batch(0, 0))
            self.record.rewind(-1)
            self.record.session(entry)
            self._sheet("real")
            self._sheet(self.step)
            self._score()  # also where a score shows that it does not fit the data
            return
        path, flat, meta, self.digest = found
        like = {"players": self.players, "constants": self.constants, "state": self.state}
        _belongs(path, flat, meta, self.seed, like)
        values = checkpoint.fit(flat, like, path)
        self.players, self.constants, self.state = (values[k] for k in like)
        self.step, self.saved = int(meta["step"]), path.name
        self.record.checkpoint = path.name
        self.sound.add(path.name)
        if self.step > self.recipe.steps:
            raise RecordError(
                f"{self.record.directory} is at step {self.step} already, past steps={self.recipe.steps}: "
                "ask for more steps, or choose another --dir"
            )
        checkpoint.prune(self.record.checkpoints, self.recipe.keep, self.sound)
        names = meta["window"]
        self.window = [
            dict(zip(names, row, strict=True)) for row in flat.get("window", torch.empty(0, 0))
        ]
        self.checked = len(self.window)
        self.seconds = self.record.rewind(self.step)
        sessions = self.record.session({**entry, "from_step": self.step})
        was, now = environment.identity(sessions[0]), environment.identity(entry)
        if changed := [f"{k}: {was[k]}, now {now[k]}" for k in was if was[k] != now[k]]:
            warnings.warn(
                f"resuming {self.record.directory} on other ground ({'; '.join(changed)}): "
                "the continuation will not be bit-identical to an uninterrupted run",
                stacklevel=2,
            )

    def result(self, interrupted: bool) -> Run:
        return Run(
            self.record.directory,
            self.recipe,
            self.data,
            self.players,
            self.constants,
            self.step,
            self.seed,
            self.saved or "",
            self.digest,
            interrupted,
            self.state.get("average", {}),
            self.diverged,
        )

    def close(self) -> None:
        self.record.close()
        if self.writer is not None:
            self.writer.close()

    # -- the loop ---------------------------------------------------------------------------------

    def play(self, interrupts: Interrupts, bar: Progress) -> None:
        """Steps until the end or until asked to stop."""
        recipe, solver, field = self.recipe, self.recipe.solver, self.field
        kinds = ("log", "sample", "checkpoint", "score")
        log, sheet, save, judge = (recipe.every(what) for what in kinds)
        if self.step < recipe.steps:
            self.record.status("running", self.step)
        begun = time.monotonic() - self.seconds
        while self.step < recipe.steps and interrupts.asked is None:
            self.players, self.constants, self.state, info = solver.step(
                field, self.players, self.constants, self.state, self.batches.at(self.step)
            )
            self.step += 1
            self.window.append(
                {
                    f"{kind}/{player}": value
                    for kind, part in info.items()
                    for player, value in part.items()
                }
            )
            last = self.step == recipe.steps or interrupts.asked is not None
            logs = self.step % log == 0 or self.step == recipe.steps
            if logs or last or any(self.step % every == 0 for every in (sheet, save, judge)):
                self._require_finite()
                self.seconds = time.monotonic() - begun
                if logs:
                    bar.update(self.step, self._log())
                if self.step % sheet == 0 or self.step == recipe.steps:
                    self._sheet(self.step)
                if recipe.scores and (self.step % judge == 0 or self.step == recipe.steps):
                    self._score()
                if self.step % save == 0 or last:
                    self._save()
        if self.saved != checkpoint.path_of(self.record.checkpoints, self.step).name:
            self._save()  # asked to stop between steps, or before the first
        self._conclude()

    def _conclude(self) -> None:
        """The state in which the session ends; a pair that is none any more is called so."""
        if self.step < self.recipe.steps:
            self.record.status("interrupted", self.step)
            return
        start = self.recipe.game.init(self.seed, device=self.device, dtype=self.recipe.dtype)
        real = self.batches.batch(0, 0)["real"]
        self.diverged = overgrown(self.players, start.players, real)
        self.record.status("diverged" if self.diverged else "finished", self.step, self.diverged)
        if self.diverged:
            warnings.warn(f"{self.record.directory}: {self.diverged}", stacklevel=5)

    def _require_finite(self) -> None:
        """Look at the measurements taken since the last look; the device is waited for only here."""
        fresh = self.window[self.checked :]
        if fresh:
            names = list(fresh[0])
            table = torch.stack([row[n] for row in fresh for n in names]).reshape(len(fresh), -1)
            bad = (~torch.isfinite(table)).nonzero()
            if len(bad):
                row, column = bad[0].tolist()
                self._stop(self.step - len(fresh) + row + 1, *names[column].split("/", 1))
        self.checked = len(self.window)

    def _stop(self, step: int, kind: str, player: str) -> None:
        quantity = {"loss": "loss", "grad_norm": "gradient"}.get(kind, kind)
        kept = (
            f"the last good checkpoint is {self.saved}"
            if self.saved
            else "there is no checkpoint yet"
        )
        message = (
            f"step {step}: the {player}'s {quantity} is not finite; {kept} in {self.record.checkpoints}: "
            "try a smaller step size or another loss"
        )
        self.record.status("diverged", step, message)
        raise NonFiniteError(
            message, step=step, player=player, quantity=quantity, checkpoint=self.saved
        )

    def _log(self) -> dict[str, float]:
        """A row of metrics: means over the steps since the row before. Returns the losses."""
        names = list(self.window[0])
        table = torch.stack([row[n].double() for row in self.window for n in names])
        means = dict(zip(names, table.reshape(-1, len(names)).mean(0).tolist(), strict=True))
        row: dict[str, Any] = {"step": self.step, "seconds": round(self.seconds, 3)}
        for name, value in means.items():
            kind, player = name.split("/", 1)
            row.setdefault(kind, {})[player] = value
            if self.writer is not None:
                self.writer.add_scalar(name, value, self.step)
        self.record.log(row)
        self.window, self.checked = [], 0
        return dict(row.get("loss", {}))

    def _sheet(self, at: int | str) -> None:
        """A sheet of samples of the generator at this step, or of the data."""
        n = samples.SHEET[self.data.kind]
        if at == "real":
            rng = samples.real_generator(self.seed)
            sheet, stem = self.data.sample(rng, n), "real"
        else:
            sheet = self._generate(n)
            stem = f"step_{self.step:08d}"
        samples.write_sheet(self.record.samples / stem, sheet, self.data)
        game = self.recipe.game
        if isinstance(game, Mixture) and at != "real":  # the other summary, of the newest step
            mean = game.mean(self._shown(), self.constants)
            sheet = self._generate(n, game.base, mean)
            samples.write_sheet(self.record.samples / "mean", sheet, self.data)

    def _shown(self) -> Players:
        """The players as they are used: averaged where there are averages."""
        return {**self.players, **self.state.get("average", {})}

    def _generate(self, n: int, game: GAN | None = None, pair: Start | None = None) -> Tensor:
        players, constants = pair or (self._shown(), self.constants)
        return samples.generate(
            game or self.recipe.game,
            players,
            constants,
            n,
            self.seed,
            batch=self.recipe.batch,
            data=self.data,
        )

    def _score(self) -> None:
        recipe = self.recipe
        for row in samples.scored(
            recipe.game,
            recipe.scores,
            self.data,
            self._shown(),
            self.constants,
            self.seed,
            recipe.batch,
        ):
            self.record.score({"step": self.step, **row})

    def _save(self) -> None:
        self._require_finite()
        for player, part in self.players.items():  # an update may overflow a finite gradient
            if not all(torch.isfinite(value).all() for value in part.values()):
                self._stop(self.step, "parameter", player)
        path = checkpoint.path_of(self.record.checkpoints, self.step)
        values: dict[str, Any] = {
            "players": self.players,
            "constants": self.constants,
            "state": self.state,
        }
        names = list(self.window[0]) if self.window else []
        if names:
            values["window"] = torch.stack(
                [torch.stack([row[n] for n in names]) for row in self.window]
            )
        self.record.fsync_metrics()
        self.digest = checkpoint.write(
            path, values, {"step": self.step, "seed": self.seed, "window": names}
        )
        self.saved = self.record.checkpoint = path.name
        # After the checkpoint: what the status names has been there.
        self.record.status("running", self.step)
        self.sound.add(path.name)
        checkpoint.prune(self.record.checkpoints, self.recipe.keep, self.sound)


def _identity(recipe: Recipe) -> dict[str, Any]:
    return {
        "dtype": str(recipe.dtype).removeprefix("torch."),
        "description": recipe.describe(),
    }


def _manifest(
    recipe: Recipe,
    name: str,
    settings: dict[str, Any] | None,
    origin: dict[str, Any] | None,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "recipe": name,
        "settings": settings or {},
        "seed": seed,
        "steps": recipe.steps,
        "device": str(device),
        **_identity(recipe),
        "title": recipe.title,
        "summary": recipe.summary,
        "origin": origin or {"kind": "python"},
        **({"code": known} if (known := code.sources(recipe)) else {}),
        "references": [{"text": r.text, "bibtex": r.bibtex} for r in recipe.references],
    }


def draw_of(
    game: GAN,
    data: Source,
    dtype: torch.dtype,
    device: torch.device,
    rng: np.random.Generator,
    batch: int,
) -> Draw:
    return game.draw(rng, data, batch, dtype, device)


class _deterministic:  # noqa: N801 (reads as a statement)
    """cuDNN's deterministic kernels while a run goes on: resumption is bit-identical on a GPU too."""

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def __enter__(self) -> None:
        backend = torch.backends.cudnn
        self.before = (backend.deterministic, backend.benchmark)
        if self.cuda:
            backend.deterministic, backend.benchmark = True, False

    def __exit__(self, *_: object) -> None:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = self.before


def _writer(directory: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RecordError(
            "--tensorboard needs TensorBoard: pip install 'equilibrist[tensorboard]'"
        ) from None
    return SummaryWriter(str(directory / "tensorboard"))
