"""Wrappers around modules (DataParallel, torch.compile), and copies of modules without them."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from equilibrist.errors import GameError

_WRAPPERS = {
    "DataParallel": "module",
    "DistributedDataParallel": "module",
    "OptimizedModule": "_orig_mod",
}
Copies = dict[int, object]  # what `deepcopy` has copied, by the original's identity
_OWN = ("_parameters", "_buffers", "_modules")


def unwrapped(module: nn.Module) -> nn.Module:
    """The module inside of DataParallel, DistributedDataParallel and torch.compile."""
    while (name := _WRAPPERS.get(type(module).__name__)) is not None:
        module = module._modules[name]  # type: ignore[assignment]
    return module


class Through(nn.Module):
    """Stands in a copy for a wrapper within a module: calls what was wrapped, by the wrapper's own name for it, so
    that a state_dict fits both.

    Args:
        name: of the wrapped module within the wrapper.
        inner: a copy of the wrapped module.
        training: the wrapper's mode.
    """

    def __init__(self, name: str, inner: nn.Module, training: bool) -> None:
        super().__init__()
        self._name, self.training = name, training
        self.add_module(name, inner)

    def __getattr__(self, key: str) -> Any:  # as nn.Module has it
        try:
            return super().__getattr__(key)
        except AttributeError:  # torch.compile's wrapper hands on what it does not have
            inner = vars(self).get("_modules", {}).get(vars(self).get("_name"))
            if inner is None:
                raise
            return getattr(inner, key)

    def forward(self, *args: object, **kwargs: object) -> object:
        """What the wrapped module gives."""
        return self.get_submodule(self._name)(*args, **kwargs)


def copied(module: nn.Module, name: str) -> nn.Module:
    """A deep copy in plain Python, or GameError where torch cannot make one.

    Wrappers within are left out. Tensors with a graph that layers keep as plain attributes (the weight that a hook
    of torch's older weight_norm computed last) are copied by value: torch refuses them, and they are computed anew.
    """
    _refuse_script(module, name)
    layers = list(module.modules())
    kept: Copies = {
        id(value): value.detach().clone()
        for layer in layers
        for value in vars(layer).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        for layer in reversed(layers):  # what lies within first
            if (key := _WRAPPERS.get(type(layer).__name__)) is not None:
                inner = copy.deepcopy(layer._modules[key], kept)
                assert inner is not None
                kept[id(layer)] = Through(key, inner, layer.training)
        made = copy.deepcopy(module, kept)
    except Exception as error:  # of whatever the module holds
        why = (str(error) or type(error).__name__).splitlines()[0]
        remedy = "what it keeps between calls beside parameters and buffers must be taken off"
        if "FSDP" in why or any(hasattr(p, "full_tensor") for p in module.parameters()):
            remedy = (
                "load its full state_dict (rank 0 gathers it) into a module that is not sharded"
            )
        raise GameError(f"the {name} cannot be copied ({why}): {remedy}") from error
    for layer in layers:
        _uncompile(layer, kept)
    return made


def _refuse_script(module: nn.Module, name: str) -> None:
    for path, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            where = f"'s {path}" if path else ""
            raise GameError(
                f"the {name}{where} is compiled by torch.jit, which keeps its weights out of reach: pass the module "
                "that it was made from (its state_dict fits)"
            )


def _uncompile(layer: nn.Module, copies: Copies) -> None:
    """Methods that were compiled one by one (`self.forward = torch.compile(self.forward)`, or a decorator) run in
    plain Python on the copy: compiled ones are bound to the original, or know no second derivative."""
    own = copies.get(id(layer))
    if not isinstance(own, nn.Module):
        return
    for key, value in list(vars(layer).items()):
        method = getattr(value, "_torchdynamo_orig_callable", None)
        if isinstance(method, MethodType) and id(method.__self__) in copies:
            setattr(own, key, MethodType(method.__func__, copies[id(method.__self__)]))
    plain = getattr(type(layer).forward, "_torchdynamo_orig_callable", None)
    if plain is not None and "forward" not in vars(own):
        own.forward = MethodType(plain, own)


@contextmanager
def uncompiled() -> Iterator[None]:
    """Functions that torch.compile made run in plain Python in here: compiled ones know no second derivative."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and importing it takes seconds
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


class Attributes:
    """Tensors that a module's layers keep as plain attributes (or in lists and dictionaries there): constants that
    neither `.to` nor a state_dict reaches, and that must follow the precision and the device of the weights.

    Args:
        held: (where a layer keeps its attributes, the attribute's name, its value).
    """

    def __init__(self, held: list[tuple[dict[str, object], str, object]]) -> None:
        self._held = held
        self._moved: dict[tuple[torch.dtype, torch.device], list[object]] = {}

    @classmethod
    def of(cls, module: nn.Module) -> Attributes | None:
        """Those of a module; None where it has none."""
        held = [
            (vars(layer), key, value)
            for layer in module.modules()
            for key, value in vars(layer).items()
            if key not in _OWN and any(map(_is_constant, tree_leaves(value)))
        ]
        return cls(held) if held else None

    @contextmanager
    def like(self, x: Tensor) -> Iterator[None]:
        """In here they have the precision of x and lie where it does."""
        where = (x.dtype, x.device)
        if where not in self._moved:
            with torch.inference_mode(False):  # they are kept for later evaluations
                self._moved[where] = [
                    tree_map(lambda t: _as(t, x) if _is_constant(t) else t, value)
                    for _, _, value in self._held
                ]
        for (owner, key, _), value in zip(self._held, self._moved[where], strict=True):
            owner[key] = value
        try:
            yield
        finally:
            for owner, key, value in self._held:
                owner[key] = value


def in_full_precision(module: nn.Module) -> tuple[str, ...]:
    """Tensors of `module` with less than float32 become float32, in place; their precisions, each once."""
    found: dict[str, None] = {}

    def full(t: Tensor) -> Tensor:
        if t.is_floating_point() and t.dtype.itemsize < 4:
            found[str(t.dtype).removeprefix("torch.")] = None
            return t.float()
        return t

    module._apply(full)
    for layer in module.modules():
        for key, value in list(vars(layer).items()):
            if key not in _OWN and any(map(_is_constant, tree_leaves(value))):
                vars(layer)[key] = tree_map(lambda t: full(t) if _is_constant(t) else t, value)
    return tuple(found)


def _is_constant(value: object) -> bool:
    if not isinstance(value, Tensor) or isinstance(value, nn.Parameter):
        return False
    real = value.is_floating_point() or value.is_complex()
    return real and not value.requires_grad and value.device.type != "meta"


def _as(value: Tensor, like: Tensor) -> Tensor:
    dtype = like.dtype.to_complex() if value.is_complex() else like.dtype
    return value.to(like.device, dtype)


def hook_target(module: nn.Module) -> nn.Module:
    """The module on which to put hooks in place of `module`.

    Loops call a DistributedDataParallel module and, at times, what it wraps, which hears both. The hooks of
    a compiled module's inner one would be traced, and DataParallel calls copies of its own: these are
    listened to from outside.
    """
    while type(module).__name__ == "DistributedDataParallel":
        module = module.module  # type: ignore[assignment]
    return module
