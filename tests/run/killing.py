"""Kills a process that trains, starts it again until it ends, and compares what it leaves behind.

Shared by tests/run and by benchmarks/kill_campaign.py. Children come from a fork server that has
imported torch already, so that a kill costs milliseconds. SIGKILL leaves the page cache in place:
this shows what a dying process leaves, not what a dying machine does.
"""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from equilibrist.data import ArraySource, eight_gaussians
from equilibrist.files import atomic
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN
from equilibrist.optimizers import SGD, Adam, RMSProp
from equilibrist.penalties import GradientPenalty
from equilibrist.projections import WeightClipping
from equilibrist.run import Recipe, train
from equilibrist.run.record import Record
from equilibrist.schedules import Clipped, Cosine, Piecewise, Scheduled
from equilibrist.scores import Frechet, MixtureQuality, pixels
from equilibrist.solvers import Alternating, Averaged, Simultaneous

HERE = Path(__file__).resolve().parent

# -- what is trained ------------------------------------------------------------------------------


def perceptron(*sizes: int, norm: bool = False) -> nn.Module:
    """ReLU layers; with `norm`, batch norm with running statistics after each hidden one."""
    layers: list[nn.Module] = []
    for index, (a, b) in enumerate(itertools.pairwise(sizes)):
        layers.append(nn.Linear(a, b))
        if index < len(sizes) - 2:
            layers += [nn.BatchNorm1d(b), nn.ReLU()] if norm else [nn.ReLU()]
    return nn.Sequential(*layers)


def recipe(
    solver: Any,
    formulation: Any = None,
    *,
    data: Any = None,
    norm: bool = False,
    steps: int = 24,
    batch: int = 16,
    every: tuple[int, int, int] = (4, 8, 6),
    generator: Any = None,
    critic: Any = None,
    dtype: torch.dtype = torch.float32,
    keep: int = 3,
    audit: dict[str, Any] | None = None,
    further: dict[str, Any] | None = None,
    **game: Any,
) -> Recipe:
    """Two small perceptrons in the plane; `every` holds the steps between logs, sheets, checkpoints,
    `further` other arguments of the recipe."""
    return Recipe(
        game=GAN(
            generator or (lambda: perceptron(4, 12, 2, norm=norm)),
            critic or (lambda: perceptron(2, 12, 1, norm=norm)),
            formulation or Vanilla(),
            latent=4,
            **game,
        ),
        data=data or eight_gaussians(sigma=0.1),
        solver=solver,
        steps=steps,
        batch=batch,
        title="tiny",
        dtype=dtype,
        log_every=every[0],
        sample_every=every[1],
        checkpoint_every=every[2],
        keep=keep,
        audit=audit or {},
        **(further or {}),
    )


def images(n: int = 40, classes: int = 0) -> ArraySource:
    """Made-up 4x4 pictures, of so many classes in turn (0: unlabelled)."""
    pixels = np.random.default_rng(0).random((n, 1, 4, 4), dtype=np.float32)
    labels = np.arange(n) % classes if classes else None
    return ArraySource(pixels, name="made-up", origin="random pixels", labels=labels)


class Shown(nn.Module):
    """`body` on the input beside the one-hot code of its class, all flattened."""

    def __init__(self, body: nn.Module, classes: int) -> None:
        super().__init__()
        self.body, self.classes = body, classes

    def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        code = nn.functional.one_hot(label, self.classes).to(x.dtype)
        shown: torch.Tensor = self.body(torch.cat([x.flatten(1), code], 1))
        return shown


def conditional(solver: Any, *, norm: bool = False, **settings: Any) -> Recipe:
    """Pictures of three classes; both players are told which."""
    return recipe(
        solver,
        data=images(classes=3),
        generator=lambda: Shown(
            nn.Sequential(
                perceptron(4 + 3, 12, 16, norm=norm), nn.Sigmoid(), nn.Unflatten(1, (1, 4, 4))
            ),
            3,
        ),
        critic=lambda: Shown(perceptron(16 + 3, 12, 1), 3),
        condition=3,
        **settings,
    )


SCORED: dict[str, Any] = {"scores": (Frechet(pixels(4), samples=20),), "score_every": 5}

CONFIGURATIONS: dict[str, Callable[..., Recipe]] = {
    "plain": lambda **k: recipe(Simultaneous(SGD(0.05)), **k),
    "spectral norm, Adam": lambda **k: recipe(
        Alternating(2, Adam(1e-2, 0.5, 0.9)), spectral_norm=True, **k
    ),
    "momentum, batch norm": lambda **k: recipe(
        Alternating(1, SGD(0.02, momentum=0.7)), norm=True, **k
    ),
    "negative momentum": lambda **k: recipe(
        Simultaneous(SGD(0.02, momentum=-0.5)), Vanilla(saturating=True), **k
    ),
    "weight clipping, RMSProp": lambda **k: recipe(
        Alternating(2, RMSProp(1e-3)), WGAN(), projections=[WeightClipping(0.05)], **k
    ),
    "gradient penalty, Adam": lambda **k: recipe(
        Alternating(2, Adam(1e-3)), WGAN(), penalties=[GradientPenalty()], **k
    ),
    "float64": lambda **k: recipe(Alternating(1, Adam(1e-2)), dtype=torch.float64, **k),
    "images, spectral norm": lambda **k: recipe(
        Alternating(1, Adam(1e-2)),
        data=images(),
        spectral_norm=True,
        generator=lambda: nn.Sequential(
            nn.Linear(4, 16),
            nn.Unflatten(1, (1, 4, 4)),
            nn.Conv2d(1, 1, 3, padding=1),
            nn.Sigmoid(),
        ),
        critic=lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1), nn.LeakyReLU(), nn.Flatten(), nn.Linear(48, 1)
        ),
        **k,
    ),
    "averages, schedule, clipping, scores": lambda **k: recipe(
        Averaged(Alternating(2, Clipped(Scheduled(Adam(1e-2), Cosine(24, 0.1)), 0.5)), 0.9),
        further={"scores": (MixtureQuality(64, 32),), "score_every": 5},
        spectral_norm=True,
        **k,
    ),
    "conditions, mixed precision, accumulation": lambda **k: conditional(
        Averaged(Alternating(1, Clipped(Adam(1e-2))), 0.8, ("generator", "critic")),
        further={**SCORED, "accumulate": 4, "mixed_precision": True},
        spectral_norm=True,
        **k,
    ),
    "conditions, batch norm": lambda **k: conditional(
        Averaged(Simultaneous(Scheduled(RMSProp(1e-3), Piecewise(((5, 1.0), (20, 0.1)))))),
        further=SCORED,
        norm=True,
        **k,
    ),
    "several players": lambda **k: recipe(
        Alternating(1, Adam(1e-2)),
        generator=[lambda: perceptron(4, 12, 2)] * 2,
        critic=[lambda: perceptron(2, 12, 1)] * 2,
        spectral_norm=True,
        **k,
    ),
}

# -- what it leaves behind --------------------------------------------------------------------------


def picture(directory: Path) -> dict[str, bytes]:
    """Every file of a run by its relative name, byte by byte, less what differs between sessions:
    the seconds, the list of sessions, the lock."""
    found = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        name = str(path.relative_to(directory))
        if name in (".lock", "environment.json"):
            continue
        content = path.read_bytes()
        if name == "metrics.jsonl":
            rows = [json.loads(line) for line in content.decode().splitlines()]
            content = "".join(
                json.dumps({k: v for k, v in row.items() if k != "seconds"}) + "\n" for row in rows
            ).encode()
        found[name] = content
    return found


def differences(reference: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """What `other` lacks or holds otherwise than `reference`, and what it holds besides.

    Checkpoints besides the reference's are no difference: a run that is stopped saves where it is.
    """
    lines = [f"{name} is missing" for name in reference if name not in other]
    lines += [
        f"{name} differs"
        for name, content in reference.items()
        if other.get(name, content) != content
    ]
    spare = [name for name in other if name not in reference]
    return lines + [
        f"{name} is there besides" for name in spare if not name.startswith("checkpoints/step_")
    ]


def unsound(directory: Path) -> list[str]:
    """What must never be seen, at whatever moment the writer dies: a checkpoint that is not sound,
    or one whose rows of metrics are not all on the disk."""
    from equilibrist.errors import EquilibristError
    from equilibrist.run import checkpoint

    record = Record(directory)
    if not record.checkpoints.is_dir():
        return []
    try:
        logged = [row["step"] for row in record.rows()]
        lines = []
        for step, path in checkpoint.existing(record.checkpoints):
            _, meta, _ = checkpoint.read_checkpoint(path)
            if meta["step"] != step:
                lines.append(f"{path.name} holds step {meta['step']}")
            open_since = max((s for s in logged if s <= step), default=0)
            if step - open_since != _waiting(path):
                lines.append(f"{path.name}: metrics.jsonl lacks rows before it")
        return lines
    except EquilibristError as error:
        return [str(error)]


def _waiting(path: Path) -> int:
    """How many steps since the last row of metrics a checkpoint holds."""
    from equilibrist.run import checkpoint

    flat, _, _ = checkpoint.read_checkpoint(path)
    return len(flat["window"]) if "window" in flat else 0


# -- killing ----------------------------------------------------------------------------------------

PHASES = (
    "settled",  # after the metrics are flushed, before the checkpoint is begun
    "begun",  # the unfinished file exists and is empty
    "half",  # half of its bytes are written
    "written",  # all of them, not flushed
    "synced",  # flushed, not renamed
    "renamed",  # renamed, the folder not flushed, older ones not pruned
)


@dataclass(frozen=True)
class Sabotage:
    """The process kills itself in `phase` of the `count`-th writing of a file whose name holds `target`."""

    phase: str
    target: str = ".safetensors"
    count: int = 1

    def install(self) -> None:
        left = self.count
        current: list[str] = []

        def reached(phase: str) -> bool:
            return bool(current) and left == 0 and phase == self.phase

        def strike(phase: str) -> None:
            if reached(phase):
                os.kill(os.getpid(), signal.SIGKILL)

        class Files:
            """The module `tempfile`, watched."""

            def __getattr__(self, name: str) -> Any:
                return getattr(tempfile, name)

            @staticmethod
            def mkstemp(dir: Any = None, prefix: str = "", suffix: str = "") -> Any:
                nonlocal left
                current[:] = [prefix] if outer.target in prefix and outer.phase != "settled" else []
                if current:
                    left -= 1
                handle = tempfile.mkstemp(dir=dir, prefix=prefix, suffix=suffix)
                strike("begun")
                return handle

        class System:
            """The module `os`, watched."""

            def __getattr__(self, name: str) -> Any:
                return getattr(os, name)

            @staticmethod
            def fdopen(handle: int, mode: str) -> Any:
                file = os.fdopen(handle, mode)
                write = file.write

                class Watched:
                    def __enter__(self) -> Any:
                        return self

                    def __exit__(self, *_: object) -> None:
                        file.close()

                    def __getattr__(self, name: str) -> Any:
                        return getattr(file, name)

                    @staticmethod
                    def write(content: bytes) -> None:
                        if reached("half"):
                            write(content[: len(content) // 2])
                            file.flush()
                            strike("half")
                        write(content)
                        file.flush()
                        strike("written")

                return Watched()

            @staticmethod
            def fsync(handle: int) -> None:
                os.fsync(handle)
                strike("synced")

            @staticmethod
            def replace(source: Any, place: Any) -> None:
                os.replace(source, place)
                strike("renamed")

        outer = self
        atomic.tempfile, atomic.os = Files(), System()  # type: ignore[assignment]
        if self.phase == "settled":
            flush = Record.fsync_metrics

            def watched(record: Record) -> None:
                nonlocal left
                flush(record)
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            Record.fsync_metrics = watched  # type: ignore[method-assign]


def _child(
    name: str,
    directory: str,
    settings: dict[str, Any],
    sabotage: Sabotage | None,
    begun: Connection,
) -> None:
    os.chdir(Path(directory).parent)
    torch.set_num_threads(1)
    warnings.simplefilter("error")  # a resumed run that complains has lost something
    built = CONFIGURATIONS[name](**settings)
    if sabotage is not None:
        sabotage.install()
    begun.send(True)
    train(built, directory, progress="none", device="cpu")
    os._exit(0)


_context: Any = None


def context() -> Any:
    """The fork server: it imports torch and this module once."""
    global _context
    if _context is None:
        if str(HERE) not in sys.path:
            sys.path.insert(0, str(HERE))
        _context = multiprocessing.get_context("forkserver")
        _context.set_forkserver_preload(["torch", "equilibrist.run", "killing"])
    return _context


def session(
    name: str,
    directory: Path,
    settings: dict[str, Any] | None = None,
    *,
    delay: float = math.inf,
    sabotage: Sabotage | None = None,
) -> int | None:
    """One process that trains; killed `delay` seconds after it began. Returns its exit code: 0
    where it ended, -9 where it was killed."""
    return _timed(name, directory, settings, delay, sabotage)[0]


def _timed(
    name: str,
    directory: Path,
    settings: dict[str, Any] | None = None,
    delay: float = math.inf,
    sabotage: Sabotage | None = None,
) -> tuple[int | None, float]:
    """A session's exit code, and its seconds since it began: the start of the fork server, which
    the first session waits for, does not count."""
    told, tell = context().Pipe(duplex=False)
    process = context().Process(
        target=_child, args=(name, str(directory), settings or {}, sabotage, tell)
    )
    process.start()
    tell.close()
    try:
        told.recv()
    except EOFError:  # it died before it began
        process.join()
        return process.exitcode, 0.0
    finally:
        told.close()
    begun = time.monotonic()
    if delay < math.inf:
        time.sleep(delay)
        process.kill()
    process.join()
    return process.exitcode, time.monotonic() - begun


@dataclass
class Tally:
    """What happened to one or more runs."""

    kills: int = 0
    chosen: int = 0
    in_checkpoint: int = 0
    in_other: int = 0
    restarts: int = 0
    runs: int = 0
    problems: list[str] = field(default_factory=list)

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(getattr(self, k) + getattr(other, k) for k in self.__dataclass_fields__))


def torture(
    name: str,
    directory: Path,
    reference: dict[str, bytes],
    rng: random.Random,
    seconds: float,
    settings: dict[str, Any] | None = None,
    *,
    most: int = 12,
    phases: float = 0.35,
) -> Tally:
    """Train in `directory`, killed at random moments (a share `phases` of them at a chosen phase of a
    write) until `most` kills have landed or the run has ended; then let it end and compare.

    `seconds`: how long an undisturbed session lasts.
    """
    tally = Tally(runs=1)
    attempts, code = 0, None
    while tally.kills < most and attempts < 3 * most:
        attempts += 1
        sabotage, delay = None, math.inf
        if (
            attempts == 1 and rng.random() < 0.25
        ):  # the very beginning is too short to be hit by chance
            sabotage = Sabotage(rng.choice(PHASES[1:]), "recipe.json")
        elif rng.random() < phases:
            sabotage = Sabotage(
                rng.choice(PHASES),
                rng.choice((".safetensors", ".safetensors", ".npy", ".json")),
                rng.randint(1, 2),
            )
            if sabotage.phase == "settled":
                sabotage = Sabotage("settled", count=sabotage.count)
        else:
            delay = rng.uniform(0, seconds)
        code = session(name, directory, settings, delay=delay, sabotage=sabotage)
        if code == 0:
            break
        if code != -signal.SIGKILL:
            break
        tally.kills += 1
        tally.chosen += sabotage is not None
        in_checkpoint = any((directory / "checkpoints").glob(".*.part"))
        tally.in_checkpoint += in_checkpoint
        tally.in_other += not in_checkpoint and any(directory.rglob(".*.part"))
        tally.problems += [
            f"{name} after kill {tally.kills}: {line}" for line in unsound(directory)
        ]
    if code != 0:
        code = session(name, directory, settings)
        attempts += 1
    tally.restarts = attempts - 1
    if code != 0:
        tally.problems.append(f"{name}: the last session ended with {code}")
        return tally
    tally.problems += [f"{name}: {line}" for line in differences(reference, picture(directory))]
    return tally


def undisturbed(
    name: str, directory: Path, settings: dict[str, Any] | None = None
) -> tuple[dict[str, bytes], float]:
    """What a run leaves that nobody disturbs, and how long it takes."""
    code, seconds = _timed(name, directory, settings)
    assert code == 0, f"{name} ended with {code} though nobody killed it"
    return picture(directory), seconds


def campaign(
    kills: int,
    seed: int,
    folder: Path,
    names: tuple[str, ...],
    settings: dict[str, Any],
    say: Callable[[str], None] = print,
) -> dict[str, Tally]:
    """Runs of every configuration in turn until at least `kills` kills have landed."""
    rng = random.Random(seed)
    tallies = {name: Tally() for name in names}
    references = {}
    for index, name in enumerate(names):
        undisturbed(name, folder / f"warm-{index}", settings)
        references[name] = undisturbed(name, folder / f"reference-{index}", settings)
        say(f"{name}: undisturbed in {references[name][1]:.2f} s")
    played: Counter[str] = Counter()
    while (done := sum(t.kills for t in tallies.values())) < kills:
        name = min(names, key=lambda n: played[n])
        played[name] += 1
        directory = folder / "run"
        shutil.rmtree(directory, ignore_errors=True)
        tally = torture(name, directory, *_shuffled(references[name], rng), settings)
        tallies[name] += tally
        say(
            f"{done + tally.kills}/{kills} kills  {name}: {tally.kills} kills, "
            f"{tally.in_checkpoint} in a checkpoint, {len(tally.problems)} mismatches"
        )
        for problem in tally.problems:
            say(f"  {problem}")
    return tallies


def _shuffled(reference: tuple[dict[str, bytes], float], rng: random.Random) -> tuple[Any, ...]:
    held, seconds = reference
    return held, rng, seconds
