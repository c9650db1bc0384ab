"""Runs units of work, each in a process of its own: one that dies takes no other with it."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from equilibrist.certificates import Json
from equilibrist.errors import (
    EquilibristError,
    NonFiniteError,
    RecipeError,
    RecordError,
    StoppedError,
    did_you_mean,
)
from equilibrist.files.atomic import try_lock
from equilibrist.papers import records
from equilibrist.papers.model import Experiment, Size, Unit, UnitRecord, Workspace
from equilibrist.run.environment import environment
from equilibrist.workers import INTERRUPTED, Here, Job, Workers

Say = Callable[[str], None]
POLL = 0.2  # seconds between two looks at the processes


@dataclass(frozen=True)
class Folders:
    """Where things lie.

    Attributes:
        records: records and small pictures; meant to be committed.
        runs: run directories and checkpoints; as large as they get.
        weights: classifiers' weights, or None.
    """

    records: Path
    runs: Path
    weights: Path | None = None


def unit_named(experiment: Experiment, size: Size, key: str) -> Unit:
    """The unit of this name; RecipeError where there is none."""
    units = {unit.key: unit for unit in experiment.units(size)}
    if key not in units:
        raise RecipeError(
            f"{experiment.key} has no unit {key!r} at size {size}{did_you_mean(key, list(units))}"
        )
    return units[key]


def left(experiment: Experiment, size: Size, folders: Folders, again: bool = False) -> list[Unit]:
    """Units without a record, in order; with `again` those that failed, too."""
    held = records.read_records(folders.records, experiment, size)
    return [
        unit
        for unit in experiment.units(size)
        if unit.key not in held or (again and held[unit.key].state == "failed")
    ]


def run_unit(
    experiment: Experiment, size: Size, unit: Unit, folders: Folders, device: str
) -> UnitRecord:
    """Do one unit here and now, and write its record.

    An error becomes a record of state "failed". Ctrl-C leaves no record: the same unit goes on later.
    """
    own = folders.runs / experiment.key / size
    target = records.folder_of(folders.records, experiment, size)
    target.mkdir(parents=True, exist_ok=True)
    place = Workspace(
        own / unit.key,
        target,
        unit.key,
        device,
        folders.weights,
        {needed: own / needed for needed in unit.needs},
    )
    entry = environment(torch.device("cpu" if device == "auto" else device), 0)
    with _alone(place.runs):
        return _worked(unit, place, entry)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Held while a process works on a unit; a second one is refused, whichever command began it."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        if try_lock(handle) is False:
            raise RecordError(f"another process works on {folder.name}: wait for it")
        yield
    finally:
        os.close(handle)


def _worked(unit: Unit, place: Workspace, entry: Json) -> UnitRecord:
    """The record of a unit, once it ended."""
    begun, cpu = time.monotonic(), time.process_time()
    spent = _clock(place.runs)
    state, message, measures = "done", "", {}
    try:
        measures = unit.work(place)
        if any(seed.get("diverged") is not None for seed in measures.get("seeds", {}).values()):
            state = "diverged"
    except (KeyboardInterrupt, StoppedError):
        spent.add(time.process_time() - cpu, time.monotonic() - begun)
        raise StoppedError("interrupted: the same command goes on") from None
    except NonFiniteError as error:
        state, message = "diverged", str(error)
    except Exception as error:  # whatever goes wrong with one unit is no reason to lose the others
        state, message = "failed", f"{type(error).__name__}: {error}"[:2000]
        if not isinstance(error, EquilibristError) and os.environ.get("EQUILIBRIST_TRACEBACK"):
            raise
    spent.add(time.process_time() - cpu, time.monotonic() - begun)
    about = {
        "text": unit.text,
        "planned_minutes": unit.minutes,
        "cpu_seconds": round(spent.cpu, 1),
        "seconds": round(spent.wall, 1),
        "sessions": spent.sessions,
        "commit": (entry["git"] or {}).get("commit"),
        "versions": entry["versions"],
        "machine": {k: entry["machine"][k] for k in ("processor", "cores", "device")},
        "threads": entry["threads"],
        "python": platform.python_version(),
        "started": entry["started"],
    }
    record = UnitRecord(unit.key, state, measures, about, message)
    records.write_record(place.pictures, record)
    return record


class _clock:  # noqa: N801 (a small account)
    """Seconds that a unit took in all its sessions, kept beside its runs."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "clock.txt"
        folder.mkdir(parents=True, exist_ok=True)
        held = self.path.read_text().split() if self.path.exists() else ["0", "0", "0"]
        self.cpu, self.wall, self.sessions = float(held[0]), float(held[1]), int(held[2])

    def add(self, cpu: float, wall: float) -> None:
        """A session's seconds."""
        self.cpu, self.wall, self.sessions = self.cpu + cpu, self.wall + wall, self.sessions + 1
        self.path.write_text(f"{self.cpu} {self.wall} {self.sessions}\n")


@dataclass
class _Running:
    process: Job
    experiment: Experiment
    unit: Unit
    begun: float
    stopped: bool = False

    def stop(self, due: bool) -> None:
        """Ask it to stop, once, where it is due."""
        if due and not self.stopped:
            self.process.interrupt()
            self.stopped = True

    def again(self, code: int, over: bool, lost: set[str]) -> bool:
        """Whether a unit that ended without a record is begun anew: stopped for its length, or lost the first time."""
        if self.stopped or code == INTERRUPTED:
            return self.stopped and not over
        name = f"{self.experiment.key} {self.unit.key}"
        first = name not in lost
        lost.add(name)
        return first


# More parameters than other functions: the command's options, given by name.
def run_all(
    wanted: Sequence[tuple[Experiment, Unit]],
    size: Size,
    folders: Folders,
    *,
    jobs: int = 1,
    hours: float | None = None,
    unit_hours: float = 1.0,
    device: str = "cpu",
    say: Say = print,
    workers: Workers | None = None,
) -> bool:
    """Run units in processes of one thread each, `jobs` at a time; whether all of them ended.

    A unit whose process ends without a record (killed, or on a machine that is gone) is begun once more.

    Args:
        wanted: in order of worth. A unit waits for those that it needs; where one of them has no record, it is
            left out.
        hours: stop after so long; what is unfinished goes on with the next call.
        unit_hours: a unit that takes longer than this is interrupted, and taken up again after the others.
        say: gets a line when a unit begins or ends.
        workers: where the processes run; None: on this machine.
    """
    queue, lacking = list(wanted), False
    running: list[_Running] = []
    place, lost, pace = workers or Here(), set[str](), _Pace(wanted)
    end = None if hours is None else time.monotonic() + 3600 * hours
    try:
        while queue or running:
            while queue and len(running) < jobs and (end is None or time.monotonic() < end):
                busy = [(r.experiment.key, r.unit.key) for r in running]
                found = _next(queue, busy, size, folders)
                if found is None:
                    break
                queue.remove(found)
                running.append(_start(place, *found, size, folders, device))
                name, minutes = f"{found[0].key} {size} {found[1].key}", found[1].minutes
                say(f"{name}: begun ({minutes:.0f} min planned)")
            if not running:
                break
            time.sleep(POLL)
            over = end is not None and time.monotonic() > end
            for one in list(running):
                code = one.process.poll()
                if code is None:
                    one.stop(over or time.monotonic() - one.begun > 3600 * unit_hours)
                    continue
                running.remove(one)
                if _report(one, code, size, folders, say):
                    say(pace.after(one.unit))
                elif one.again(code, over, lost):
                    queue.append((one.experiment, one.unit))
                else:
                    lacking = True
    except KeyboardInterrupt:
        _stop_all(running)
        raise StoppedError("interrupted: the same command goes on") from None
    return not lacking and not queue


def _stop_all(running: Sequence[_Running]) -> None:
    for one in running:
        one.process.interrupt()
    while any(one.process.poll() is None for one in running):
        time.sleep(POLL)


class _Pace:
    """How much of what was planned has ended, and how long the rest takes at that pace."""

    def __init__(self, wanted: Sequence[tuple[Experiment, Unit]]) -> None:
        self.planned, self.ended = sum(unit.minutes for _, unit in wanted), 0.0
        self.begun = time.monotonic()

    def after(self, unit: Unit) -> str:
        """The words once a unit has ended."""
        self.ended += unit.minutes
        share = self.ended / self.planned if self.planned else 1.0
        minutes = (time.monotonic() - self.begun) / 60
        rest = minutes * (1 / share - 1) if share else 0.0
        words = f"{rest:.0f} min" if rest < 90 else f"{rest / 60:.1f} h"
        return f"{share:.0%} of the planned work has ended; about {words} to go"


def _next(
    queue: Iterable[tuple[Experiment, Unit]],
    busy: Iterable[tuple[str, str]],
    size: Size,
    folders: Folders,
) -> tuple[Experiment, Unit] | None:
    """The first unit whose needs are met."""
    for experiment, unit in queue:
        held = records.folder_of(folders.records, experiment, size)
        met = all((held / f"{needed}.json").exists() for needed in unit.needs)
        if met and not any((experiment.key, needed) in busy for needed in unit.needs):
            return experiment, unit
    return None


def _start(
    place: Workers, experiment: Experiment, unit: Unit, size: Size, folders: Folders, device: str
) -> _Running:
    words = [
        sys.executable, "-m", "equilibrist", "papers", "run", experiment.key,
        "--size", size, "--unit", unit.key, "--device", device,
        "--records", str(folders.records.resolve()), "--runs", str(folders.runs.resolve()),
    ]  # fmt: skip
    if folders.weights is not None:
        words += ["--weights", str(folders.weights.resolve())]
    log = folders.runs / experiment.key / size / f"{unit.key}.log"
    process = place.start(words, log)
    return _Running(process, experiment, unit, time.monotonic())


def _report(one: _Running, code: int, size: Size, folders: Folders, say: Say) -> bool:
    """Say how a unit ended; whether it has a record."""
    name = f"{one.experiment.key} {size} {one.unit.key}"
    path = records.folder_of(folders.records, one.experiment, size) / f"{one.unit.key}.json"
    if path.exists():
        record = records.read_record(path)
        took = float(record.about.get("cpu_seconds", 0.0))
        say(f"{name}: {record.state}, {took / 60:.1f} min of CPU {record.message}".rstrip())
        return True
    if one.stopped or code == INTERRUPTED:
        say(f"{name}: interrupted, goes on later")
    else:
        log = folders.runs / one.experiment.key / size / f"{one.unit.key}.log"
        say(f"{name}: its process ended with code {code} and no record; see {log}")
    return False
