"""What is seen of a loop: steps, calls of clipping, players; and small readings of tensors."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from equilibrist.diagnosis._calls import GENERATOR, Call, Coordinates
from equilibrist.diagnosis._fit import Problem
from equilibrist.nn.wrapped import unwrapped

CRITIC = "critic"
ALONE = 0.01  # residual below which a generator receives its adversarial loss alone
BEFORE = "before"
RESHAPES = {"View", "Reshape", "ReshapeAlias", "UnsafeView", "Unsqueeze", "Squeeze", "Transpose"}


class Opposition(NamedTuple):
    """How the adversarial gradient a of a generator lies to the rest of what it receives, o.

    Attributes:
        undone: -<a, o> / |o|^2, the share of what a step along o gains that a takes back.
        cosine: of a and o.
        ratio: |a| / |o|.
    """

    undone: float
    cosine: float
    ratio: float


@dataclass
class PlayerStep:
    """One step of an optimiser on one player.

    Attributes:
        player: its role.
        round: how many rounds of the loop were over.
        optimizer: its identity.
        received: norm of the gradient, over all weights; None where there was none.
        fresh: backward passes that reached the player since its last step.
        problem: inner products of the received gradient with every candidate; None where there was none.
        calls: of the critic since the player's last step.
        columns: by column, (place of the call, role).
        shared: whether the optimiser holds another player's weights too.
        rates: learning rates of the player's groups.
        altered: whether gradients were changed in place between the backward pass and the step.
        held: identities of the player's weights in the optimiser.
        foreign: tensors in the optimiser that no player uses.
        finite: whether the gradient is.
        opposition: of a generator's step; None where it received nothing but the adversarial gradient, or the slopes
            are not the declared ones.
        schedules: schedulers of torch that hold the optimiser.
        overwritten: whether the rate is not the one that its only scheduler has set.
        count: of all steps of optimisers so far.
        turned: whether the optimiser maximises, so that what it received is minus what was compared.
        decay: share of the weights that weight decay takes at a step, where it does so by itself.
        cleared: whether a backward pass since the player's last step found its gradients empty.
        transformed: whether the critic was called inside a transform of torch.func since that step.
    """

    player: str
    round: int
    optimizer: int
    kind: str
    received: float | None
    fresh: int
    problem: Problem | None
    calls: list[Call]
    columns: dict[str, tuple[int, str]]
    shared: bool
    rates: tuple[float, ...]
    altered: bool
    held: frozenset[int]
    foreign: int
    finite: bool
    opposition: Opposition | None = None
    schedules: int = 0
    overwritten: bool = False
    count: int = 0
    turned: bool = False
    decay: float = 0.0
    cleared: bool = True
    transformed: bool = False


@dataclass
class Clip:
    """A call of torch's gradient clipping: whose weights, how many had a gradient, the norm, the limit, how many
    backward passes had reached them since the owner's last step, how many steps its only owner had made, how many
    all optimisers, and how many weights it was given."""

    players: tuple[str, ...]
    graded: int
    norm: float
    limit: float
    fresh: int
    strangers: int
    step: int = -1
    count: int = 0
    given: int = 0


@dataclass
class Side:
    """A player as the loop holds it."""

    role: str
    name: str
    modules: list[nn.Module]
    params: list[nn.Parameter]
    names: dict[int, str]
    at: Coordinates
    start: Tensor
    steps: int = 0
    calls: list[Call] = field(default_factory=list)
    last: Tensor | None = None
    reached: set[int] = field(default_factory=set)
    counts: dict[int, int] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    optimizers: set[int] = field(default_factory=set)
    travel: float = 0.0  # of its weights, relative to their norm at the start
    cleared: bool = False  # whether a backward pass since its last step found its gradients empty
    transformed: bool = (
        False  # whether the critic was called inside a transform of torch.func since then
    )

    @property
    def fresh(self) -> int:
        """Backward passes that reached it since its last step."""
        return max(self.counts.values(), default=0)

    @property
    def altered(self) -> bool:
        """Whether gradients were changed in place since the backward pass."""
        return any(
            p.grad is not None and p.grad._version != self.versions.get(id(p), p.grad._version)
            for p in self.params
        )

    def end_step(self, received: Tensor | None) -> None:
        """Its optimiser is about to step: what comes next is of the next step."""
        self.last = received
        self.calls = []
        self.counts.clear()
        self.versions.clear()
        self.cleared = self.transformed = False
        self.steps += 1

    def forget(self) -> None:
        """What was seen since its last step, and its gradient there."""
        self.end_step(None)
        self.steps -= 1

    @property
    def moved(self) -> float:
        """How far its weights are from where they were, at the compared coordinates."""
        return float((self.at.vector(self.params) - self.start).norm())


def backward_hooks(side: Side, listening: Callable[[], bool]) -> list[Any]:
    """Hooks that count the backward passes which reach a player's weights, and see whether gradients were empty.

    Returns:
        Their handles.
    """

    def counted(p: Tensor) -> None:
        if listening() and p.grad is not None:
            side.counts[id(p)] = side.counts.get(id(p), 0) + 1
            side.versions[id(p)] = p.grad._version
            side.reached.add(id(p))

    def arrives_at(p: nn.Parameter) -> Callable[[Tensor], None]:
        def arrives(_: Tensor) -> None:  # before it is added
            if not side.cleared and id(p) in side.reached and listening():
                side.cleared = p.grad is None or not bool(p.grad.any())

        return arrives

    handles: list[Any] = []
    trained = [p for p in side.params if p.requires_grad]
    ends = {id(p) for p in trained[:1] + trained[-1:]}  # two tell, and cost little
    for p in side.params:
        with contextlib.suppress(RuntimeError):
            if p.requires_grad or p.is_leaf:
                handles.append(p.register_post_accumulate_grad_hook(counted))
            if id(p) in ends:
                handles.append(p.register_hook(arrives_at(p)))
    return handles


class ModuleHook:
    """A hook on one of the user's modules. Copies and pickles of the module do not call it, and need nothing of this
    library."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *args: object, **kwargs: object) -> None:
        self._call(*args, **kwargs)

    def __reduce__(self) -> Any:
        return getattr, (contextlib.nullcontext(), "__exit__")

    def __deepcopy__(self, memo: dict[int, object]) -> object:
        return contextlib.nullcontext().__exit__


def heads_of(output: object) -> Iterator[Tensor]:
    """The scores in what a critic returns: a tensor, the first entry of a tuple, every entry of a list."""
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.ndim:
            yield output
    elif isinstance(output, tuple) and output:
        yield from heads_of(output[0])
    elif isinstance(output, list):
        for part in output:
            yield from heads_of(part)


def factor_of(one: Tensor, other: Tensor) -> float | None:
    """c where one = c * other."""
    size = float(other.square().sum())
    if not 0 < size < float("inf"):
        return None
    factor = float((one * other).sum()) / size
    same = torch.allclose(one, factor * other, rtol=1e-6, atol=1e-7 * float(other.abs().max()))
    return factor if same else None


def last_function(made: Tensor) -> str:
    """The function of torch that made a tensor, before its shape was changed: "Tanh"."""
    node = made.grad_fn
    while node is not None and node.name().rstrip("0").removesuffix("Backward") in RESHAPES:
        node = node.next_functions[0][0]
    return "" if node is None else node.name().rstrip("0").removesuffix("Backward")


def fingerprints(samples: Tensor, most: int = 256) -> list[int]:
    """One number for each of the first rows: equal for equal rows, and for others once in 2**64 pairs or so.

    Returns:
        sum_j c_j b_j modulo 2**64, b_j the bits of a row's entries in float32, c_j odd numbers of one stream.
    """
    rows = samples.detach()[:most].to("cpu", torch.float32).flatten(1).contiguous().numpy()
    bits = rows.view(np.uint32)
    found: list[int] = (bits.astype(np.uint64) @ _factors(bits.shape[1])).tolist()
    return found


@functools.lru_cache(maxsize=8)
def _factors(count: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    drawn = np.random.default_rng(0).integers(2**63, size=count, dtype=np.uint64)
    return 2 * drawn + 1


def side_of(role: str, name: str, modules: list[nn.Module]) -> Side:
    params: dict[int, nn.Parameter] = {}
    names: dict[int, str] = {}
    for i, module in enumerate(modules):
        for key, p in unwrapped(module).named_parameters():
            if id(p) not in params and p.is_floating_point():
                params[id(p)] = p
                names[id(p)] = key if len(modules) == 1 else f"{i}.{key}"
    held = list(params.values())
    at = Coordinates(held)
    return Side(role, name, modules, held, names, at, at.vector(held))


def opposition(side: Side, received: Tensor, problem: Problem | None) -> Opposition | None:
    """How a generator's adversarial gradient lies to the rest of what it receives.

    Its size is known from the slopes that the loop's loss sent into the scores.
    """
    names = [f"{i}:{GENERATOR}" for i, call in enumerate(side.calls) if call.linked]
    if side.role == CRITIC or problem is None or problem.fit(names).residual < ALONE:
        return None  # nothing else is received, whatever scaled it
    own = None
    for call in side.calls:
        column = call.columns.get(GENERATOR, {}).get(side.role)
        declared = call.slopes.get(GENERATOR)
        if column is None or declared is None or not call.received or not call.linked:
            continue
        got = call.received[-1].double().reshape(-1)
        slope = declared.double().reshape(-1)
        if got.shape != slope.shape or not slope.any():
            return None
        factor = float((got @ slope) / (slope @ slope))
        if float((got - factor * slope).norm()) > 0.01 * float(got.norm()):
            return None
        own = factor * column if own is None else own + factor * column
    if own is None:
        return None
    return opposed_parts(own, received - own)


def opposed_parts(own: Tensor, rest: Tensor) -> Opposition | None:
    """How the adversarial gradient lies to the others'; None where one of them is zero."""
    a, o = float(own.norm()), float(rest.norm())
    if not a > 0 or not o > 1e-3 * float((own + rest).norm()):
        return None
    inner = float(own @ rest)
    return Opposition(-inner / o**2, inner / (a * o), a / o)


def ascended(
    optimizer: torch.optim.Optimizer, side: Side, grads: Sequence[Tensor | None]
) -> tuple[Tensor, Tensor]:
    """A player's gradient as it is, and as that of a loss that is minimised: an optimiser with `maximize=True` steps
    along it. One tensor twice where it does not."""
    up = {
        id(p) for group in optimizer.param_groups if group.get("maximize") for p in group["params"]
    }
    raw = side.at.vector(grads)
    if up.isdisjoint(side.names):
        return raw, raw
    turned = [
        -g if g is not None and id(p) in up else g for p, g in zip(side.params, grads, strict=True)
    ]
    return raw, side.at.vector(turned)


def bare(call: Call) -> Call:
    """A call without its vectors."""
    return Call(
        call.place,
        call.kind,
        call.linked,
        call.samples,
        call.scores,
        {},
        {},
        call.received,
        call.slopes,
        call.lowered,
        call.source,
        call.asked,
        call.cut,
    )


def weights_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All tensors that an optimiser steps."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def stranger(optimizer: torch.optim.Optimizer, round: int, strangers: int) -> PlayerStep:
    rates = tuple(float(g["lr"]) for g in optimizer.param_groups if "lr" in g)
    name = type(optimizer).__name__
    return PlayerStep(
        "",
        round,
        id(optimizer),
        name,
        None,
        0,
        None,
        [],
        {},
        False,
        rates,
        False,
        frozenset(),
        strangers,
        True,
    )
