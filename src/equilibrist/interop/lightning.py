"""Lightning with manual optimisation: a callback that listens.

    listening = listening_callback(critic="critic", generator="generator")
    Trainer(callbacks=[listening]).fit(model, data)
    listening.heard.audit(...)

Lightning is imported when the callback is made. `with equilibrist.listen(): trainer.fit(...)` does the same without it.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from equilibrist.errors import GameError
from equilibrist.interop.listening import Heard, listen
from equilibrist.interop.watch import lightning_base


def listening_callback(
    critic: str | None = None, generator: str | None = None, **options: Any
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
    listen(**options)  # what is wrong with them is said now
    named = (critic, generator)

    class ListeningCallback(lightning_base("listening_callback")):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.heard: Heard | None = None
            self._open = False

        def on_train_start(self, trainer: Any, module: nn.Module) -> None:
            players = [_part(module, name) if name else None for name in named]
            self.heard = listen(*players, **options).__enter__()
            self._open = True

        def on_train_end(self, trainer: Any, module: nn.Module) -> None:
            self._end()

        def on_exception(self, trainer: Any, module: nn.Module, exception: BaseException) -> None:
            self._end()

        def _end(self) -> None:
            if self._open and self.heard is not None:
                self._open = False
                self.heard.__exit__(None)

    return ListeningCallback()


def _part(module: nn.Module, name: str) -> nn.Module:
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, nn.Module):
        there = ", ".join(child for child, _ in module.named_children())
        raise GameError(f"{type(module).__name__} has no module {name!r}: name one of {there}")
    return found
