"""The state of a training loop, leaf by leaf, so that two of them can be compared to the bit."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from equilibrist.nn.noise import random_states

LARGEST = 2**24  # bytes of an array, or of a tensor that no module holds: what is larger is data
# Kinds of leaves, in the order in which a difference is looked for; the first make two runs the same training.
CARRIED = ("held", "weight", "buffer", "average", "moment", "rate", "schedule", "scaler")
KINDS = (*CARRIED, "mode", "random")
# Beside them: "place" (of a loader), "value" (anything else) and "gradient", which a round need not leave behind.


@dataclass(frozen=True)
class Leaf:
    """One number or tensor of a loop.

    Attributes:
        kind: of KINDS, "place", "value" or "gradient".
        owner: the module, optimiser, schedule or variable.
        part: its name within the owner.
        mark: what is equal where the bits are.
        value: the tensor's copy or the number; None where it was not kept.
    """

    kind: str
    owner: str
    part: str
    mark: Any
    value: Any = None

    @property
    def name(self) -> str:
        """For sentences."""
        if self.kind == "place":
            return f"the place of the loader {self.owner.rpartition('.')[0] or self.owner}"
        return f"{self.part} of {self.owner}" if self.part else self.owner


State = dict[tuple[str, str], Leaf]


class Roles:
    """Who is a player and who an average, which names alone tell in a loop that was made anew.

    Args:
        found: what the loop refers to, after some rounds.
        given: the name of the average, where the user gave one.
    """

    def __init__(self, found: Mapping[str, object], given: str | None = None) -> None:
        stepped = {
            id(p)
            for value in found.values()
            if isinstance(value, torch.optim.Optimizer)
            for group in value.param_groups
            for p in group["params"]
        }
        modules = {n: m for n, m in found.items() if isinstance(m, nn.Module)}
        shapes = {
            n: tuple(p.shape for p in m.parameters())
            for n, m in modules.items()
            if any(id(p) in stepped for p in m.parameters())
        }
        self.players = set(shapes)
        self.averages = {
            n
            for n, m in modules.items()
            if n == given
            or isinstance(m, AveragedModel)
            or (
                n not in shapes
                and tuple(p.shape for p in m.parameters()) in shapes.values()
                and any(True for _ in m.parameters())
            )
        }
        self.shadows = _shadows(found, list(modules.values()), self.players, modules)


def _shadows(
    found: Mapping[str, object],
    all_modules: list[nn.Module],
    players: set[str],
    modules: Mapping[str, nn.Module],
) -> set[str]:
    """Containers of loose tensors that are shaped as a player's weights: averages made by hand."""
    groups: dict[str, list[tuple[int, ...]]] = {}
    for name, value in found.items():
        if isinstance(value, Tensor) and value.is_floating_point():
            groups.setdefault(_container(name, found), []).append(tuple(value.shape))
    wanted = []
    for name in players:
        own = [tuple(p.shape) for p in modules[name].parameters()]
        whole = [
            tuple(t.shape) for t in modules[name].state_dict().values() if t.is_floating_point()
        ]
        wanted += [sorted(own), sorted(whole)]
    return {name for name, shapes in groups.items() if len(shapes) > 1 and sorted(shapes) in wanted}


def _container(name: str, found: Mapping[str, object]) -> str:
    """What a loose tensor lies in: keys such as "0.weight" have dots of their own."""
    head = name.partition(".")[0]
    siblings = [n for n in found if n.startswith(f"{head}.")]
    if len(siblings) > 1 and not all(n.count(".") == 1 for n in siblings):
        second = ".".join(name.split(".")[:2])
        inside = [n for n in siblings if n.startswith(f"{second}.")]
        # An object with a dictionary of tensors: `ema.shadow.0.weight`.
        if len(inside) > 2 and not second.rpartition(".")[2].isdigit():
            return second
    return head


def look(found: Mapping[str, object], roles: Roles | None = None, keep: bool = False) -> State:
    """The state of what a loop refers to.

    Args:
        found: by name.
        roles: which of the modules are averages.
        keep: whether tensors are copied, so that differences can be measured.
    """
    state: State = {}
    taken: set[int] = set()
    names = _names(found)
    for name, value in found.items():
        for kind, part, leaf in _leaves(name, value, names):
            owner = name
            if kind == "value" and isinstance(leaf, Tensor) and (box := _box(name, roles)):
                kind, owner, part = "average", box, name[len(box) + 1 :]
            elif roles is not None and name in roles.averages and kind in ("weight", "buffer"):
                kind = "average"
            if isinstance(leaf, Tensor):
                if id(leaf) in taken:
                    continue
                taken.add(id(leaf))
            state[owner, part] = _leaf(kind, owner, part, leaf, keep)
    for source, drawn in random_states().items():
        state["", source] = Leaf("random", f"{source}'s random state", "", bits(drawn))
    return state


def _box(name: str, roles: Roles | None) -> str:
    """The average made by hand that a loose tensor belongs to; empty where there is none."""
    if roles is None:
        return ""
    return next((box for box in roles.shadows if name.startswith(f"{box}.")), "")


def look_at(owner: str, value: object, found: Mapping[str, object], keep: bool = True) -> State:
    """The state of one object that was found late."""
    leaves = _leaves(owner, value, _names(found))
    return {(owner, part): _leaf(kind, owner, part, leaf, keep) for kind, part, leaf in leaves}


def _leaf(kind: str, owner: str, part: str, value: object, keep: bool) -> Leaf:
    kept: object = None
    if isinstance(value, Tensor):
        kept = value.detach().clone() if keep else None
    elif isinstance(value, bool | int | float):
        kept = value
    return Leaf(kind, owner, part, bits(value), kept)


def _names(found: Mapping[str, object]) -> dict[int, str]:
    return {
        id(p): f"{name}.{path}"
        for name, module in reversed(list(found.items()))
        if isinstance(module, nn.Module)
        for path, p in module.named_parameters()
    }


def _leaves(
    owner: str, value: object, names: Mapping[int, str]
) -> Iterator[tuple[str, str, object]]:
    if isinstance(value, nn.Module):
        yield from _of_module(value)
    elif isinstance(value, torch.optim.Optimizer):
        yield from _of_optimizer(value, names)
    elif isinstance(value, LRScheduler):
        yield from _of_schedule("", value)
    elif isinstance(value, torch.amp.GradScaler):
        yield from (("scaler", key, part) for key, part in value.state_dict().items())
    elif isinstance(value, torch.Generator):
        yield "random", "", value.get_state()
    elif isinstance(value, np.random.Generator):
        yield "random", "", repr(value.bit_generator.state)
    elif isinstance(value, random.Random):
        yield "random", "", value.getstate()
    elif isinstance(value, Tensor | np.ndarray):
        if value.nbytes <= LARGEST:
            yield "value", "", value
    elif owner.rpartition(".")[2] == "yielded":
        yield "place", "", value
    else:
        yield "value", "", value


def _of_module(module: nn.Module) -> Iterator[tuple[str, str, object]]:
    yield from (("weight", path, p) for path, p in module.named_parameters())
    yield from (("buffer", path, b) for path, b in module.named_buffers())
    graded = ((path, p.grad) for path, p in module.named_parameters() if p.grad is not None)
    yield from (("gradient", f"gradient of {path}", grad) for path, grad in graded)
    yield "mode", "mode", "".join("t" if layer.training else "e" for layer in module.modules())


def _of_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[int, str]
) -> Iterator[tuple[str, str, object]]:
    for g, group in enumerate(optimizer.param_groups):
        where = f" of group {g}" if len(optimizer.param_groups) > 1 else ""
        for key, value in group.items():
            if key not in ("params", "param_names", "foreach", "fused", "initial_lr"):
                parts = _flat("", value)
                yield from (("rate", f"{key}{path}{where}", v) for path, v in parts)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    yield "held", "weights", tuple(names.get(id(p), "") for p in held)
    place = 0
    for group in optimizer.param_groups:
        for p in group["params"]:
            name = names.get(id(p), f"weight {place}")
            place += 1
            # Reading an entry that is not there would make it.
            own = optimizer.state.get(p, {})
            for key, value in own.items():
                parts = _flat("", value)
                yield from (("moment", f"{key}{path} of {name}", v) for path, v in parts)


def _of_schedule(prefix: str, schedule: Any) -> Iterator[tuple[str, str, Any]]:
    """What it counts: its private fields are bookkeeping, which a schedule that was made at a later step lacks."""
    for key, value in schedule.state_dict().items():
        if key == "_schedulers":
            for i, inner in enumerate(schedule._schedulers):
                yield from _of_schedule(f"{prefix}{i}.", inner)
        elif key[:1] != "_" and isinstance(value, bool | int | float | Tensor):
            yield "schedule", f"{prefix}{key}", value


def _flat(path: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _flat(f"{path}.{key}", part)
    elif isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
        for i, part in enumerate(value):
            yield from _flat(f"{path}[{i}]", part)
    elif isinstance(value, bool | int | float | Tensor | list | tuple):
        yield path, value


def bits(value: object) -> object:
    """Equal for two values where their bits are."""
    if isinstance(value, Tensor):
        return _of_tensor(value)
    if isinstance(value, np.ndarray):
        return (str(value.dtype), value.shape, digest(np.ascontiguousarray(value).tobytes()))
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return tuple(bits(part) for part in value)
    return value


def _of_tensor(value: Tensor) -> object:
    try:
        dense = value.detach().cpu().contiguous().reshape(-1)
        dense = torch.view_as_real(dense) if dense.is_complex() else dense
        raw = dense.view(torch.uint8).numpy()
    except (RuntimeError, NotImplementedError, TypeError):  # sparse, quantised, on no device
        return repr(value)
    return str(value.dtype), tuple(value.shape), digest(raw.data if raw.size else b"")


def digest(data: Any) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def relative_gap(a: Leaf, b: Leaf) -> float | None:
    """The norm of the difference over the larger norm; None where it is not defined."""
    x, y = a.value, b.value
    if isinstance(x, Tensor) and isinstance(y, Tensor) and x.shape == y.shape:
        x, y = x.detach().double().cpu(), y.detach().double().cpu()
        size = max(float(x.norm()), float(y.norm()))
        return float((x - y).norm()) / size if size > 0 else 0.0
    if isinstance(x, int | float) and isinstance(y, int | float):
        return abs(x - y) / max(abs(x), abs(y)) if x != y else 0.0
    return None
