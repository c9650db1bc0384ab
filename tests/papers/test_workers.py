"""Places that run a sweep's commands: each tried with the real package where it is installed."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from equilibrist.errors import RecipeError, StoppedError
from equilibrist.papers import records, runner
from equilibrist.papers.catalogue import experiment_named
from equilibrist.papers.model import UnitRecord
from equilibrist.workers import INTERRUPTED, LOST, Here, Job, workers_on

PRINTS = "import os, sys; print('threads', os.environ['OMP_NUM_THREADS']); sys.exit(7)"
SLEEPS = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where Ray starts it, as in a shell's background
print("asleep", flush=True)
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("woken", flush=True)
    sys.exit(130)
"""


def ended(job: Job, seconds: float = 90.0) -> int:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        code = job.poll()
        if code is not None:
            return code
        time.sleep(0.05)
    raise AssertionError("the command does not end")


@pytest.mark.parametrize("place", ["local", "slurm", "ray"])
def test_commands_end_with_their_code_and_stop_when_asked(place: str, tmp_path: Path) -> None:
    options: dict[str, object] = {}
    if place == "slurm":
        pytest.importorskip("submitit")
        options = {"cluster": "local", "timeout_min": 2}
    if place == "ray":
        pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    workers = workers_on(place, tmp_path / "jobs", options)
    log = tmp_path / "deep" / "command.log"
    assert ended(workers.start([sys.executable, "-c", PRINTS], log)) == 7
    assert ended(workers.start([sys.executable, "-c", PRINTS], log)) == 7
    assert log.read_text().splitlines() == ["threads 1"] * 2
    job = workers.start([sys.executable, "-c", SLEEPS], log)
    while "asleep" not in log.read_text():
        assert job.poll() is None
        time.sleep(0.05)
    begun = time.monotonic()
    job.interrupt()
    assert ended(job, 30) == INTERRUPTED
    while "woken" not in log.read_text():  # it could save what it had
        assert time.monotonic() - begun < 30
        time.sleep(0.05)


def test_what_a_place_does_not_take_is_said_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--on moon: choose local, slurm or ray"):
        workers_on("moon", tmp_path, {})
    with pytest.raises(RecipeError, match="--on local takes no option 'address'"):
        workers_on("local", tmp_path, {"address": "auto"})
    pytest.importorskip("submitit")
    with pytest.raises(RecipeError, match="--on slurm: "):
        workers_on("slurm", tmp_path, {"cluster": "local", "no_such_parameter": 1})


class Ended:
    def __init__(self, code: int) -> None:
        self.code = code

    def poll(self) -> int:
        return self.code

    def interrupt(self) -> None:
        raise AssertionError("it has ended")


class Unreliable:
    """Loses every command `times` times before it writes the unit's record."""

    def __init__(self, folder: Path, times: int) -> None:
        self.folder, self.times, self.begun = folder, times, list[str]()

    def start(self, words: Sequence[str], log: Path) -> Job:
        key = words[list(words).index("--unit") + 1]
        self.begun.append(key)
        if self.begun.count(key) <= self.times:
            return Ended(LOST)
        records.write_record(self.folder, UnitRecord(key, "done", {}, {"cpu_seconds": 60.0}, ""))
        return Ended(0)


@pytest.mark.parametrize(("times", "whole"), [(0, True), (1, True), (2, False)])
def test_a_lost_worker_costs_one_unit_which_is_begun_once_more(
    times: int, whole: bool, tmp_path: Path
) -> None:
    experiment = experiment_named("hsieh-theory")
    folders = runner.Folders(tmp_path / "records", tmp_path / "runs")
    place = Unreliable(records.folder_of(folders.records, experiment, "tiny"), times)
    place.folder.mkdir(parents=True)
    wanted = [(experiment, unit) for unit in experiment.units("tiny")]
    said: list[str] = []
    found = runner.run_all(wanted, "tiny", folders, jobs=2, say=said.append, workers=place)
    assert found is whole
    keys = [unit.key for _, unit in wanted]
    assert sorted(place.begun) == sorted(keys * (1 + min(times, 1)))
    if whole:
        assert said[-1].startswith("100% of the planned work has ended; about 0 min to go")
        assert not runner.left(experiment, "tiny", folders)
    else:
        assert any("ended with code -1 and no record" in line for line in said)


def test_ctrl_c_waits_for_what_was_asked_to_stop(tmp_path: Path, monkeypatch: Any) -> None:
    asked: list[int] = []

    class Slow(Ended):
        def poll(self) -> int | None:  # type: ignore[override]
            return INTERRUPTED if asked else None

        def interrupt(self) -> None:
            asked.append(1)

    class Place:
        def start(self, words: Sequence[str], log: Path) -> Job:
            return Slow(0)

    def pressed(seconds: float) -> None:
        if not asked:
            raise KeyboardInterrupt

    monkeypatch.setattr(runner.time, "sleep", pressed)
    experiment = experiment_named("hsieh-theory")
    wanted = [(experiment, unit) for unit in experiment.units("tiny")]
    folders = runner.Folders(tmp_path / "records", tmp_path / "runs")
    with pytest.raises(StoppedError, match="the same command goes on"):
        runner.run_all(wanted, "tiny", folders, jobs=2, say=lambda line: None, workers=Place())
    assert len(asked) == 2


def test_this_machine_is_the_default() -> None:
    assert isinstance(workers_on("local", Path("nowhere"), {}), Here)
