"""What a training loop refers to, under the names that its author gave: modules, optimisers, schedules, numbers."""

from __future__ import annotations

import functools
import inspect
import random
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader, Sampler

MOST, DEEPEST, WIDEST = 5000, 7, 256
_FUNCTIONS = (types.FunctionType, types.MethodType, functools.partial)
_ENDS = (Tensor, np.ndarray, torch.Generator, np.random.Generator, random.Random)
_PLAIN = (bool, int, float, complex)
# Their objects say nothing of a training, and there are many of them.
_FOREIGN = frozenset(
    [
        "_io",
        "_thread",
        "abc",
        "asyncio",
        "collections",
        "concurrent",
        "contextlib",
        "datetime",
        "enum",
        "functools",
        "io",
        "itertools",
        "json",
        "lightning",
        "lightning_fabric",
        "logging",
        "matplotlib",
        "multiprocessing",
        "numpy",
        "os",
        "pathlib",
        "pickle",
        "pytorch_lightning",
        "queue",
        "re",
        "rich",
        "socket",
        "tensorboard",
        "threading",
        "time",
        "torch",
        "torchvision",
        "tqdm",
        "typing",
        "wandb",
        "weakref",
    ]
)


def reached(loop: object) -> dict[str, object]:
    """Everything of interest that a loop refers to, by name; the nearest first.

    Looked at are the loop's own fields, what its functions close over, the globals that they name, the attributes
    of objects and the variables of generators on the way.

    Args:
        loop: an object whose attributes are functions, modules and mappings.

    Returns:
        Modules (none inside another), optimisers, schedules, scalers, random generators, tensors, arrays, numbers.
    """
    found: dict[str, object] = {}
    seen: set[int] = set()
    left = deque((name, value, 0) for name, value in _fields(loop))
    while left and len(seen) < MOST:
        name, value, depth = left.popleft()
        if _is_end(value):
            if isinstance(value, _PLAIN) or id(value) not in seen:
                seen.add(id(value))
                found.setdefault(name, value)
            if not isinstance(value, nn.Module):
                continue
        elif id(value) in seen:
            continue
        seen.add(id(value))
        if depth < DEEPEST:
            left.extend((_joined(name, key), part, depth + 1) for key, part in _parts(value))
    return _outermost(found, set(getattr(loop, "players", None) or {}) | {"average"})


def _fields(loop: Any) -> Iterator[tuple[str, Any]]:
    """Players and the average under their own names, before whatever is reached by way of functions."""
    yield from (getattr(loop, "players", None) or {}).items()
    if getattr(loop, "average", None) is not None:
        yield "average", loop.average
    for key in ("step", "save", "load"):
        yield "", getattr(loop, key, None)


def _is_end(value: object) -> bool:
    if isinstance(value, nn.Module | torch.optim.Optimizer | LRScheduler | torch.amp.GradScaler):
        return True
    return isinstance(value, _ENDS + _PLAIN)


def _joined(name: str, key: str) -> str:
    return f"{name}.{key}" if name and key else name or key


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What is one step further, each with its name."""
    if isinstance(value, _FUNCTIONS):
        yield from _of_function(value)
    elif isinstance(value, Mapping):
        yield from _few((str(key), part) for key, part in value.items())
    elif isinstance(value, list | tuple | deque | set):
        yield from _few((str(i), part) for i, part in enumerate(value))
    elif isinstance(value, types.GeneratorType):
        if value.gi_frame is not None:
            yield from value.gi_frame.f_locals.items()
    elif isinstance(value, nn.Module):
        for path, layer in value.named_modules():
            if not type(layer).__module__.startswith("torch."):
                plain = {k: v for k, v in vars(layer).items() if k[:1] != "_" and k != "training"}
                yield from ((_joined(path, key), part) for key, part in plain.items())
    elif isinstance(value, DataLoader | Sampler):
        yield from (
            (key, vars(value).get(key)) for key in ("generator", "sampler", "batch_sampler")
        )
    elif type(value).__module__.startswith("torch.utils.data.dataloader"):
        yield "yielded", vars(value).get("_num_yielded")
        yield "loader", vars(value).get("_loader")
    elif _is_theirs(value):
        yield from vars(value).items()


def _few(pairs: Iterable[tuple[str, object]]) -> Iterator[tuple[str, object]]:
    """A long container is data, or a log."""
    for count, pair in enumerate(pairs):
        if count >= WIDEST:
            return
        yield pair


def _is_theirs(value: object) -> bool:
    if isinstance(value, type | types.ModuleType) or not hasattr(value, "__dict__"):
        return False
    whole = str(type(value).__module__)
    return whole.startswith("torch.optim.swa") or whole.partition(".")[0] not in _FOREIGN


def _of_function(value: Any) -> Iterator[tuple[str, Any]]:
    """What a function closes over, the globals that it names, and what it is bound to."""
    if isinstance(value, functools.partial):
        yield "", value.func
        yield from ((str(i), part) for i, part in enumerate(value.args))
        yield from value.keywords.items()
        return
    if isinstance(value, types.MethodType):
        yield "", value.__self__
        value = value.__func__
    value = inspect.unwrap(value)
    code = getattr(value, "__code__", None)
    if code is None or (value.__module__ or "").partition(".")[0] in _FOREIGN:
        return
    for key, cell in zip(code.co_freevars, value.__closure__ or (), strict=False):
        try:
            inside = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        yield ("" if isinstance(inside, _FUNCTIONS) else key), inside
    for key in code.co_names:
        inside = value.__globals__.get(key)
        if inside is not None and not isinstance(inside, type | types.ModuleType):
            yield ("" if isinstance(inside, _FUNCTIONS) else key), inside


def _outermost(found: dict[str, object], given: set[str]) -> dict[str, object]:
    """Without what is part of a module that is there as well, but for players that were given by name."""
    modules = [value for value in found.values() if isinstance(value, nn.Module)]
    inner = {id(part) for whole in modules for part in whole.modules() if part is not whole}
    for whole in modules:
        inner |= {id(t) for t in (*whole.parameters(), *whole.buffers())}
    return {n: value for n, value in found.items() if n in given or id(value) not in inner}
