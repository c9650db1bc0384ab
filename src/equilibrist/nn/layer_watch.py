"""What the layers of modules do while they run: buffers that they write, random numbers that they draw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

from equilibrist.nn import noise
from equilibrist.nn.noise import RandomStates


class LayerWatch:
    """Looks at every layer of modules while they run.

    Attributes:
        impure: what the first layer does that writes a buffer, and the way out; or None.
        noise, sources: the innermost layers that draw random numbers, and whose.
        between: whose random numbers are drawn outside of all layers, since `start`.
        unsound: layers whose output is not finite, the innermost first.
    """

    def __init__(self) -> None:
        self.impure: tuple[str, str] | None = None
        self.noise: list[str] = []
        self.sources: set[str] = set()
        self.between: set[str] = set()
        self.unsound: list[str] = []
        self._handles: list[RemovableHandle] = []
        self._outside: RandomStates | None = None
        self._before: dict[int, tuple[RandomStates, int, list[tuple[str, Tensor, int]]]] = {}

    @contextmanager
    def over(self, module: nn.Module, name: str) -> Iterator[None]:
        """Hooks on all layers, for as long as the context lasts."""
        self.begin(module, name)
        try:
            yield
        finally:
            self.end()

    def begin(self, module: nn.Module, name: str) -> None:
        """Put hooks on all layers of a module that is called `name`."""
        for path, layer in module.named_modules():
            where = f"{name}{'.' + path if path else ''} ({type(layer).__name__})"
            self._handles.append(layer.register_forward_pre_hook(self._enter, prepend=True))
            self._handles.append(
                layer.register_forward_hook(lambda m, a, o, where=where: self._leave(where, m, o))
            )

    def start(self, afresh: bool = False) -> None:
        """Note what is drawn outside of layers from now on, and (unless `afresh`) what was until now."""
        if not afresh:
            self._leave_outside()
        self._outside = noise.random_states()

    def end(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _leave_outside(self) -> None:
        if self._outside is not None:
            self.between.update(noise.drawn_since(self._outside))

    def _enter(self, layer: nn.Module, _: object) -> None:
        if not self._before:
            self._leave_outside()
        # A version counts in-place writes, also those that happen to write the same value.
        own = [(k, b, b._version) for k, b in layer._buffers.items() if b is not None]
        self._before[id(layer)] = (noise.random_states(), len(self.noise), own)

    def _leave(self, where: str, layer: nn.Module, made: object) -> None:
        state, noisy, own = self._before.pop(id(layer))
        # Within torch.func's transforms values cannot be asked for.
        if not torch._C._are_functorch_transforms_active() and not all(
            torch.isfinite(t).all() for t in tree_leaves(made) if isinstance(t, Tensor)
        ):
            self.unsound.append(where)
        drawn = noise.drawn_since(state)
        self.sources.update(drawn)
        if drawn and noisy == len(self.noise):  # no layer within it did
            self.noise.append(where)
        if not self._before and self._outside is not None:
            self._outside = noise.random_states()
        if self.impure:
            return
        for key, value, version in own:
            if layer._buffers[key] is not value or value._version != version:
                remedy = "freeze it with .eval(), or compute the new value outside the forward pass"
                self.impure = (f"{where} overwrites its buffer {key!r} in its forward pass", remedy)
                return
