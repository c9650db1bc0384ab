"""A module's forward pass as a pure function of its parameters and buffers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from equilibrist._errors import GameError

_Norm = nn.modules.batchnorm._NormBase


class PureModule:
    """`module` without its tensors: `pure(params, buffers, x)` puts them in place for one call.

    Layers that keep running statistics while training (batch norm) use batch statistics and leave
    the running ones alone; `statistics` moves those on. The user's module is copied, never touched.

    torch.func.functional_call does the same at ten times the overhead; small networks feel it.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        for path, parameter in module.named_parameters():
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise GameError(
                    f"the {name}'s parameter {path} has no shape yet (a lazy layer): run the module "
                    "once on a batch before you build the game"
                )
        self.name = name
        self._module = copy.deepcopy(module).to("meta")
        self._recurrent = any(hasattr(m, "_flat_weights") for m in self._module.modules())
        self._tracking = [
            m
            for m in self._module.modules()
            if isinstance(m, _Norm) and m.training and m.track_running_stats
        ]
        for layer in self._tracking:
            layer.track_running_stats = False
        modules = dict(self._module.named_modules())
        # Tied parameters appear under several names and are addressed by the first.
        names = {id(p): path for path, p in self._module.named_parameters()}
        self._parameters = [
            (owner._parameters, key, names[id(p)])
            for owner in modules.values()
            for key, p in owner._parameters.items()
            if p is not None
        ]
        self._buffers = [
            (owner._buffers, key, f"{path}.{key}" if path else key)
            for path, owner in modules.items()
            for key, b in owner._buffers.items()
            if b is not None
        ]

    @property
    def keeps_statistics(self) -> bool:
        """Whether some layer keeps running statistics."""
        return bool(self._tracking)

    def __call__(
        self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], *args: Any
    ) -> Any:
        if self._recurrent:  # their forward reads a private list that only functional_call renews
            return torch.func.functional_call(self._module, (dict(params), dict(buffers)), args)
        with self._holding(params, buffers):
            return self._module(*args)

    def statistics(
        self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], *args: Any
    ) -> dict[str, Tensor]:
        """`buffers` after one forward pass in which running statistics are moved on."""
        renewed = {key: b.clone() for key, b in buffers.items()}
        for layer in self._tracking:
            layer.track_running_stats = True
        try:
            with torch.no_grad():
                self(params, renewed, *args)
        finally:
            for layer in self._tracking:
                layer.track_running_stats = False
        return renewed

    @contextmanager
    def _holding(
        self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> Iterator[None]:
        before: list[tuple[dict[str, Any], str, Any]] = []
        for owner, key, name in self._parameters:
            before.append((owner, key, owner[key]))
            owner[key] = params[name]
        for owner, key, name in self._buffers:
            before.append((owner, key, owner[key]))
            owner[key] = buffers[name]
        try:
            yield
        finally:
            for owner, key, value in before:
                owner[key] = value

    def check(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], *args: Any) -> Any:
        """Run once and raise `GameError` naming the first layer that draws random numbers or writes
        a buffer; else return the output."""
        held = {key: b.clone() for key, b in buffers.items()}
        found: list[tuple[str, str]] = []
        before: dict[int, tuple[Tensor, list[tuple[str, Tensor, int]]]] = {}

        def enter(module: nn.Module, _: Any) -> None:
            # A version counts in-place writes, also those that happen to write the same value.
            own = [(k, b, b._version) for k, b in module._buffers.items() if b is not None]
            before[id(module)] = (_random_state(), own)

        def leave(path: str, module: nn.Module) -> None:
            state, own = before.pop(id(module))
            kind = type(module).__name__
            where = f"{self.name}{'.' + path if path else ''} ({kind})"
            if found:
                return
            if not torch.equal(state, _random_state()):
                mend = (
                    "call .eval() on it, or leave it out"
                    if "Dropout" in kind
                    else "draw the noise as part of the latent"
                )
                found.append((f"{where} draws random numbers in its forward pass", mend))
            for key, value, version in own:
                if module._buffers[key] is not value or value._version != version:
                    if key in ("_u", "_v", "weight_u", "weight_v"):
                        mend = "take torch's spectral norm off and pass spectral_norm=True to GAN"
                    else:
                        mend = "freeze it with .eval(), or compute the new value outside the forward pass"
                    found.append(
                        (f"{where} overwrites its buffer {key!r} in its forward pass", mend)
                    )

        handles = []
        for path, module in self._module.named_modules():
            handles.append(module.register_forward_pre_hook(enter))
            handles.append(module.register_forward_hook(lambda m, a, o, path=path: leave(path, m)))
        state = torch.get_rng_state()
        try:
            with torch.no_grad():
                output = self(params, held, *args)
                if not found:
                    again = self(params, {k: b.clone() for k, b in buffers.items()}, *args)
        finally:
            torch.set_rng_state(state)
            for handle in handles:
                handle.remove()
        if found:
            problem, mend = found[0]
            raise GameError(f"{problem}, so its loss is not a function of its parameters: {mend}")
        if isinstance(output, Tensor) and not torch.equal(output, again):
            raise GameError(
                f"the {self.name} gives two answers to the same input, so its loss is not a function "
                "of its parameters: look for state kept between calls or for random numbers"
            )
        return output


def _random_state() -> Tensor:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cat([torch.get_rng_state(), torch.cuda.get_rng_state()])
    return torch.get_rng_state()
