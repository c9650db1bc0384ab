"""Lightning with manual optimisation: a callback that listens, and a fit that goes on one batch at a time.

    listening = listening_callback(critic="critic", generator="generator")
    Trainer(callbacks=[listening]).fit(model, data)
    listening.heard.audit(...)

Lightning is imported when the callback is made. `with equilibrist.listen(): trainer.fit(...)` does the same without it.
"""

from __future__ import annotations

import threading
from typing import Any, Unpack

from torch import nn

from equilibrist.errors import GameError
from equilibrist.interop._lightning_types import LightningTrainer, lightning_base
from equilibrist.interop.listening import Heard, ListenOptions, listen


def listening_callback(
    critic: str | None = None, generator: str | None = None, **options: Unpack[ListenOptions]
) -> Any:
    """A Lightning callback that listens while a model is fitted.

    Args:
        critic, generator: the players' attributes of the LightningModule, as in "critic" for `self.critic` or
            "nets.d"; without them they are found as `listen` finds them.
        options: those of `listen` (every, then, keep, order, ...).

    Returns:
        The callback, for `Trainer(callbacks=[...])`; its attribute `heard` is what was heard, None before `fit`.

    Raises:
        RequirementError: neither `lightning` nor `pytorch_lightning` is installed.
        RecipeError: an option that is none.
    """
    listen(**options)  # wrong options are refused here, not in the middle of a fit
    named = (critic, generator)

    class ListeningCallback(lightning_base("listening_callback")):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.heard: Heard | None = None
            self._open = False

        def on_train_start(self, trainer: object, module: nn.Module) -> None:
            players = [_part(module, name) if name else None for name in named]
            self.heard = listen(*players, **options).__enter__()
            self._open = True

        def on_train_end(self, trainer: object, module: nn.Module) -> None:
            self._end()

        def on_exception(
            self, trainer: object, module: nn.Module, exception: BaseException
        ) -> None:
            self._end()

        def _end(self) -> None:
            if self._open and self.heard is not None:
                self._open = False
                self.heard.__exit__(None)

    return ListeningCallback()


class _Pace:
    """Lets a thread go on one step at a time: it waits between `go` and `done`."""

    def __init__(self) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self.stopped = False
        self.fault: BaseException | None = None

    def wait(self) -> None:
        """In the thread: says that a step is done, and waits for the next."""
        self._done.release()
        self._go.acquire()

    def end(self, fault: BaseException | None) -> None:
        """In the thread: says that there is no further step."""
        self.fault, self.stopped = fault, True
        self._done.release()

    def until(self) -> None:
        """Outside: waits for the thread, and raises what it raised."""
        self._done.acquire()
        if self.fault is not None:
            raise self.fault

    def release(self) -> None:
        """Outside: lets the thread go on."""
        self._go.release()


class Stepwise:
    """A fit that is run one batch at a time: a loop with `step`, `save` and `load`, as checks of a loop take it.

        def make():
            return Stepwise(L.Trainer(max_epochs=50), GAN(), loader)

        print(equilibrist.check_resume(make))

    The trainer fits in a thread of its own, which waits after every batch. A checkpoint is one of the trainer's own,
    saved after a batch and loaded by `fit(ckpt_path=...)`.

    Args:
        trainer: a `Trainer` that has not fitted, with steps enough.
        model: the LightningModule.
        *arguments: what else `fit` takes: loaders, or a LightningDataModule.

    Attributes:
        trainer, model: as given.

    Raises:
        RequirementError: neither `lightning` nor `pytorch_lightning` is installed.
    """

    def __init__(self, trainer: LightningTrainer, model: nn.Module, *arguments: object) -> None:
        self.trainer, self.model, self._arguments = trainer, model, arguments
        self._pace = pace = _Pace()
        self._thread: threading.Thread | None = None

        class Paced(lightning_base("Stepwise")):  # type: ignore[misc]
            def on_train_start(self, *_: object) -> None:
                pace.wait()

            def on_train_batch_end(self, trainer: LightningTrainer, *_: object) -> None:
                if not trainer.should_stop:
                    pace.wait()

        trainer.callbacks.append(Paced())

    @property
    def players(self) -> dict[str, nn.Module]:
        """The modules, by their names in the model."""
        return dict(self.model.named_children())

    def step(self, i: int) -> None:
        """Runs a batch.

        Raises:
            GameError: the trainer has come to its end.
        """
        if self._thread is None:
            self._begin(None)
        self._pace.release()
        self._pace.until()
        if self._pace.stopped:
            raise GameError(f"the trainer ends before batch {i}: give it more epochs or steps")

    def save(self, path: str) -> None:
        """Saves a checkpoint of the trainer's own."""
        self.trainer.save_checkpoint(path)

    def load(self, path: str) -> None:
        """Begins to fit from a checkpoint, and waits before the first batch."""
        self._begin(path)

    def _begin(self, path: str | None) -> None:
        trainer, model, arguments, pace = self.trainer, self.model, self._arguments, self._pace

        def fit() -> None:
            fault = None
            try:
                trainer.fit(model, *arguments, ckpt_path=path)
            except BaseException as error:  # it is raised where the next step is asked for
                fault = error
            pace.end(fault)

        self._thread = threading.Thread(target=fit, daemon=True)
        self._thread.start()
        pace.until()

    def __del__(self) -> None:
        if getattr(self, "_thread", None) is not None:
            self.trainer.should_stop = True  # or the thread would wait for ever
            self._pace.release()


def _part(module: nn.Module, name: str) -> nn.Module:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, nn.Module):
        there = ", ".join(child for child, _ in module.named_children())
        raise GameError(f"{type(module).__name__} has no module {name!r}: name one of {there}")
    return found
