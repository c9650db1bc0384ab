"""Small runs, and ways to stop one at a chosen step."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import killing
import pytest

from equilibrist.core.draws import Batches
from equilibrist.run import Run, train


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[int, Callable[[], None]]], None]:
    """Calls something within a step of training, by the number of the step."""

    def arrange(events: dict[int, Callable[[], None]]) -> None:
        real = Batches.at

        def at(batches: Any, step: int) -> Any:
            event = events.pop(step + 1, None)
            if event is not None:
                event()
            return real(batches, step)

        monkeypatch.setattr(Batches, "at", at)

    return arrange


@pytest.fixture
def stop_at(at_step: Any) -> Callable[..., None]:
    """Ctrl-C within the steps that are given."""

    def arrange(*steps: int, number: int = signal.SIGINT) -> None:
        at_step({step: lambda: signal.raise_signal(number) for step in steps})

    return arrange


@pytest.fixture
def go() -> Callable[..., Run]:
    """Trains one of the configurations of `killing`, silently, on the CPU."""

    def call(directory: Path, name: str = "plain", *, seed: int = 0, **settings: Any) -> Run:
        return train(
            killing.CONFIGURATIONS[name](**settings),
            directory,
            seed=seed,
            device="cpu",
            progress="none",
        )

    return call
