"""Where the processes of a sweep run: on this machine, under SLURM, or on a Ray cluster.

A sweep hands over commands and learns how they ended; what they did lies in files, which all machines share. So a
worker that is lost costs the command that it ran, and results do not depend on where a command ran.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

from equilibrist.errors import RecipeError, RequirementError

if TYPE_CHECKING:
    import submitit

LOST = -1  # the exit code of a command whose worker is gone
INTERRUPTED = 130
LOOK = 0.5  # seconds between two looks at a command


class Job(Protocol):
    """A command on its way."""

    def poll(self) -> int | None:
        """Its exit code, `LOST` where its worker is gone; None while it runs."""

    def interrupt(self) -> None:
        """Ask it to stop; it saves what it has and ends soon."""


class Workers(Protocol):
    """A place that runs commands."""

    def start(self, words: Sequence[str], log: Path) -> Job:
        """Begin a command with one thread; what it prints is added to the file `log`.

        It is asked to stop by SIGINT, which commands begin with ignored in some places: it has to set its handler.
        """


def carry_out(words: Sequence[str], log: str, stop: str) -> int:
    """Run a command to its end, wherever this process is. It is asked to stop once a file says so, or where this
    process is terminated.

    Args:
        words: the command.
        log: a file, to which what the command prints is added.
        stop: the file; removed at the end.

    Returns:
        Its exit code; `INTERRUPTED` where it was to stop before it began.
    """
    wish = Path(stop)
    try:
        if wish.exists():
            return INTERRUPTED
        child = _begun(words, Path(log))
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, lambda *_: child.send_signal(signal.SIGINT))
        asked = False
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                return child.wait(LOOK)
            if not asked and wish.exists():
                child.send_signal(signal.SIGINT)
                asked = True
    finally:
        wish.unlink(missing_ok=True)


class _Asked:
    """A job elsewhere, which a file on the shared disk asks to stop."""

    def __init__(self, stop: Path) -> None:
        self.stop, self.asked = stop, False

    def interrupt(self) -> None:
        """See `Job`."""
        self.asked = True
        self.stop.parent.mkdir(parents=True, exist_ok=True)
        self.stop.touch()

    def lost(self) -> int:
        """The code of a job that has not said how it ended."""
        self.stop.unlink(missing_ok=True)
        return INTERRUPTED if self.asked else LOST


def _stop_beside(log: Path) -> Path:
    """A file for one job's stop."""
    return log.resolve().parent / f".{log.name}.{uuid.uuid4().hex}.stop"


def _begun(words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as out, _heard(signal.SIGINT):
        return subprocess.Popen(
            list(words),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C reaches the sweep, which then asks its commands to stop
        )


@contextlib.contextmanager
def _heard(number: signal.Signals) -> Iterator[None]:
    """A signal is not blocked for processes that begin meanwhile: Ray's workers block SIGINT."""
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


class Here:
    """Processes of this machine."""

    def start(self, words: Sequence[str], log: Path) -> Job:
        """See `Workers`."""
        return _Process(_begun(words, log))


class _Process:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def poll(self) -> int | None:
        return self.process.poll()

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)


class Slurm:
    """Jobs of SLURM, by submitit; its logs and pickles lie in `folder`.

    Args:
        folder: on a disk that all machines share.
        cluster: None finds SLURM; "local" runs jobs as processes of this machine.
        parameters: of submitit's executor: timeout_min, cpus_per_task, mem_gb, slurm_partition, ...

    Raises:
        RequirementError: submitit is not installed, or no SLURM was found.
        RecipeError: a parameter that submitit does not know.
    """

    def __init__(
        self,
        folder: Path,
        cluster: str | None = None,
        parameters: Mapping[str, object] | None = None,
    ) -> None:
        try:
            import submitit
        except ImportError:
            raise RequirementError(
                "--on slurm needs submitit: pip install 'equilibrist[slurm]'"
            ) from None
        try:
            self.executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            if cluster is None and self.executor.cluster == "local":
                raise RequirementError(
                    "--on slurm: this machine has no srun: log in where SLURM is"
                )
            given = {"timeout_min": 60, "cpus_per_task": 1, **(parameters or {})}
            self.executor.update_parameters(**given)
        except (NameError, TypeError, ValueError, AssertionError) as error:
            raise RecipeError(f"--on slurm: {str(error).splitlines()[0]}") from None

    def start(self, words: Sequence[str], log: Path) -> Job:
        """See `Workers`."""
        stop = _stop_beside(log)
        job = self.executor.submit(carry_out, list(words), str(log.resolve()), str(stop))
        return _SlurmJob(job, stop)


class _SlurmJob(_Asked):
    def __init__(self, job: submitit.Job[int], stop: Path) -> None:
        super().__init__(stop)
        self.job = job

    def poll(self) -> int | None:
        if not self.job.done():
            return None
        try:
            return int(self.job.result())
        except Exception:  # of any kind: submitit wraps what happened to the job
            return self.lost()

    def interrupt(self) -> None:
        super().interrupt()
        if self.job.state == "PENDING":
            self.job.cancel()


class Ray:
    """Tasks of a Ray cluster, a core each.

    Args:
        address: of a cluster ("auto" finds the one that this machine belongs to); None begins one on this machine.

    Raises:
        RequirementError: Ray is not installed, or no cluster answers there.
    """

    def __init__(self, address: str | None = None) -> None:
        try:
            import ray
        except ImportError:
            raise RequirementError("--on ray needs Ray: pip install 'equilibrist[ray]'") from None
        try:
            if not ray.is_initialized():
                ray.init(address=address, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise RequirementError(f"--on ray: {str(error).splitlines()[0]}") from None
        self._ray: ModuleType = ray
        self._run = self._ray.remote(num_cpus=1, max_retries=0)(carry_out)

    def start(self, words: Sequence[str], log: Path) -> Job:
        """See `Workers`."""
        stop = _stop_beside(log)
        task = self._run.remote(list(words), str(log.resolve()), str(stop))
        return _RayTask(self._ray, task, stop)


class _RayTask(_Asked):
    def __init__(self, ray: ModuleType, task: object, stop: Path) -> None:
        super().__init__(stop)
        self.ray, self.task = ray, task

    def poll(self) -> int | None:
        ready, _ = self.ray.wait([self.task], timeout=0)
        if not ready:
            return None
        try:
            return int(self.ray.get(self.task))
        except Exception:  # a worker that died
            return self.lost()


def workers_on(place: str, folder: Path, options: Mapping[str, object]) -> Workers:
    """The workers of this name: "local", "slurm" or "ray".

    Args:
        place: the name.
        folder: for what the place itself writes; on a disk that all machines share.
        options: of the place: submitit's parameters and cluster, Ray's address.

    Raises:
        RecipeError: another name, or options that the place does not take.
        RequirementError: what it needs is not there.
    """
    given = dict(options)
    if place == "slurm":
        cluster = given.pop("cluster", None)
        return Slurm(folder, None if cluster is None else str(cluster), given)
    if place == "ray":
        address = given.pop("address", None)
        made: Workers = Ray(None if address is None else str(address))
    elif place == "local":
        made = Here()
    else:
        raise RecipeError(f"--on {place}: choose local, slurm or ray")
    if given:
        raise RecipeError(f"--on {place} takes no option {next(iter(given))!r}")
    return made
