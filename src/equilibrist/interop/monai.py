"""MONAI's adversarial trainers (`AdversarialTrainer`, `GanTrainer`): a handler that listens.

    listening = Listening(every=500)
    AdversarialTrainer(..., train_handlers=[listening]).run()
    listening.heard.audit(...)

Ignite is imported when a handler is attached. `with equilibrist.listen(): trainer.run()` does the same without it.
"""

from __future__ import annotations

from typing import Any, Unpack

from equilibrist.errors import GameError
from equilibrist.interop.listening import Heard, ListenOptions, listen


class Listening:
    """A handler for `train_handlers`: listens while the trainer runs, with the trainer's own networks named.

    Args:
        options: those of `listen` (every, then, keep, order, ...).

    Attributes:
        heard: what was heard of the run, the last one where there were several; None before the first.
    """

    def __init__(self, **options: Unpack[ListenOptions]) -> None:
        self._options = options
        self.heard: Heard | None = None
        self._open = False
        listen(**options)  # wrong options are refused here, not in the middle of a run

    def attach(self, engine: Any) -> None:
        """Registers the handler's events, as every handler of MONAI does."""
        from ignite.engine import Events

        engine.add_event_handler(Events.STARTED, self._begin)
        engine.add_event_handler(Events.COMPLETED, self._end)
        engine.add_event_handler(Events.TERMINATE, self._end)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._fail)

    def _begin(self, engine: Any) -> None:
        self._end(engine)
        networks = {"critic": "d_network", "generator": "g_network"}
        found = {}
        for role, name in networks.items():
            held = getattr(engine.state, name, None)
            found[role] = getattr(engine, name, None) if held is None else held
            if found[role] is None:
                raise GameError(
                    f"{type(engine).__name__} has no {name}: attach to an AdversarialTrainer or a GanTrainer"
                )
        self.heard = listen(found["critic"], found["generator"], **self._options).__enter__()
        self._open = True

    def _end(self, engine: object) -> None:
        if self._open and self.heard is not None:
            self._open = False
            self.heard.__exit__(None)

    def _fail(self, engine: object, error: BaseException) -> None:
        self._end(engine)
        raise error  # Ignite leaves this to the handler of the event
