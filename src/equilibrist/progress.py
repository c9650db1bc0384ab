"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol


class Progress(Protocol):
    """Told about progress; `finish` closes it."""

    def update(self, step: int, values: dict[str, float]) -> None: ...

    def finish(self) -> None: ...


class Silent:
    """Says nothing."""

    def update(self, step: int, values: dict[str, float]) -> None: ...

    def finish(self) -> None: ...


class Lines:
    """A line every tenth of the way, and at least every `seconds`."""

    def __init__(self, title: str, steps: int, start: int, seconds: float = 15.0) -> None:
        self.title, self.steps, self.start, self.seconds = title, steps, start, seconds
        self.begun = self.last = time.monotonic()
        self.tenth = 10 * start // max(steps, 1)

    def update(self, step: int, values: dict[str, float]) -> None:
        now, tenth = time.monotonic(), 10 * step // max(self.steps, 1)
        if tenth == self.tenth and now - self.last < self.seconds:
            return
        self.tenth, self.last = tenth, now
        rate = (step - self.start) / max(now - self.begun, 1e-9)
        left = (self.steps - step) / rate if rate else 0.0
        print(
            f"{self.title} {step}/{self.steps}  {_values(values)}  {rate:.1f} steps/s  {left:.0f} s left",
            file=sys.stderr,
            flush=True,
        )

    def finish(self) -> None: ...


class Bar:
    """A live bar with rate, values and time left."""

    def __init__(self, title: str, steps: int, start: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Live

        self._live = Live(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=Console(stderr=True),
        )
        self._task = self._live.add_task(title, total=steps, completed=start, rate="", values="")
        self._begun, self._start = time.monotonic(), start
        self._live.start()

    def update(self, step: int, values: dict[str, float]) -> None:
        rate = (step - self._start) / max(time.monotonic() - self._begun, 1e-9)
        self._live.update(
            self._task, completed=step, rate=f"{rate:.1f} steps/s", values=_values(values)
        )

    def finish(self) -> None:
        self._live.stop()


def progress_of(kind: str, title: str, steps: int, start: int = 0) -> Progress:
    """`kind`: "auto" (a bar on a terminal, else lines), "bar", "lines" or "none"."""
    if kind == "auto":
        kind = "bar" if sys.stderr.isatty() else "lines"
    if kind == "none":
        return Silent()
    return Bar(title, steps, start) if kind == "bar" else Lines(title, steps, start)


class showing:  # noqa: N801 (reads as a statement: with showing(...) as bar)
    """A context that closes its progress whatever happens."""

    def __init__(self, kind: str, title: str, steps: int, start: int = 0) -> None:
        self._shown = progress_of(kind, title, steps, start)

    def __enter__(self) -> Progress:
        return self._shown

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._shown.finish()


def _values(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
