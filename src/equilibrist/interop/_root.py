"""A player's outermost module, with the hooks on it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equilibrist.interop._optimizers import Stepped
from equilibrist.interop._rounds import Rounds
from equilibrist.interop.origin import storage, tensors_of

OUTPUTS = 4  # of a player that are held until its next ones, to know them again

BEFORE, AFTER = "before", "after"

Name = str | nn.Module | None


@dataclass(eq=False)
class Root:
    """A player's outermost module.

    Attributes:
        module: the outermost, wrapper and all.
        heard: the one with the hooks.
        name: its class, with a number where several share it.
        stepped: the optimiser's record.
        steps: of this module.
        calls: of it, while its inputs are looked at.
        made: its outputs so far.
        met: its steps when the last newcomer appeared.
        wake_at: its steps after which its next round is heard; None where others decide.
        called: whether it was called since its last step.
        hooks, handles: its hooks, and those of them that are on.
        sources: the modules whose outputs reached it.
        plain: calls with inputs that came from no player.
        scores: whether its output has one entry for each sample, or pack or patch of one; None before any.
        pack: samples judged at once.
        rounds: what it was shown.
    """

    module: nn.Module
    heard: nn.Module
    name: str
    stepped: Stepped
    rounds: Rounds
    steps: int = 0
    calls: int = 0
    sources: set[Root] = field(default_factory=set)
    feeds: bool = False
    plain: int = 0
    scores: bool | None = None
    pack: int = 1
    own: set[int] = field(default_factory=set)
    held: list[tuple[int, Tensor]] = field(default_factory=list)
    met: int = 0
    wake_at: int | None = None
    called: bool = False
    made: int = 0
    hooks: dict[str, PlayerHook] = field(default_factory=dict)
    handles: dict[str, RemovableHandle] = field(default_factory=dict)

    def hook(self) -> None:
        """Puts its hooks on."""
        for when, hook in self.hooks.items():
            if when not in self.handles:
                place = (
                    self.heard.register_forward_pre_hook
                    if when == BEFORE
                    else self.heard.register_forward_hook
                )
                self.handles[when] = place(hook, with_kwargs=True)

    def unhook(self) -> None:
        """Takes its hooks off, and lets go of outputs."""
        for handle in self.handles.values():
            handle.remove()
        self.handles.clear()
        self.held = []

    def forget(self, when: str) -> None:
        """Needs one of its hooks no longer."""
        self.hooks.pop(when, None)
        if when in self.handles:
            self.handles.pop(when).remove()

    def hold(self, made: object) -> None:
        """Keeps the memory of an output from being used again before it has been met."""
        found = [t.detach() for t in tensors_of(made)][:OUTPUTS]
        self.held = (self.held + [(storage(t), t) for t in found])[-OUTPUTS:]

    def shape_of(self, inputs: tuple[Tensor, ...], made: object) -> None:
        """Notes whether an output is one of scores."""
        first = next(tensors_of(made), None)
        rows = next((len(t) for t in inputs if t.ndim), 0)
        if first is None or not rows:
            return
        scores = first.numel() if first.ndim < 2 or first[0].numel() == 1 else 0
        self.scores = 0 < scores <= rows and rows % scores == 0
        if self.scores:
            self.pack = rows // scores
        elif first.ndim == 4 and first.shape[1] == 1:
            self.scores = True  # a map of patches


class HookOwner(Protocol):
    """What a hook belongs to."""

    def hears(self) -> bool:
        """Whether what happens now is to be heard."""

    def fail(self, fault: Exception) -> None:
        """Takes a fault of the listener's own."""


class PlayerHook:
    """A hook on one of the user's modules. Copies and pickles of it hear nothing, and need nothing of this library.

    It hears one thread, and nothing while a module is compiled. It never disturbs a training: after a fault of its
    own the listener ignores all calls, and a warning names the fault at the end.
    """

    __slots__ = ("_call", "_listener", "_root")

    def __init__(self, listener: HookOwner, call: Callable[..., None], root: Root) -> None:
        self._listener, self._call, self._root = listener, call, root

    def __call__(
        self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object], *made: object
    ) -> None:
        # A module that is not the root's is a replica of DataParallel's.
        if not self._listener.hears() or module is not self._root.heard:
            return
        try:
            if len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
                inputs: tuple[Tensor, ...] = (args[0],)
            else:
                inputs = tuple(tensors_of((args, kwargs)))
            self._call(self._root, inputs, *made)
        except Exception as fault:
            self._listener.fail(fault)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return getattr, (contextlib.nullcontext(), "__exit__")
