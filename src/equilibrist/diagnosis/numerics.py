"""Numbers that fail: batches of one, values that are not finite, steps that overshoot."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._pytree import tree_leaves, tree_map

from equilibrist.certificates import Json
from equilibrist.diagnosis._untouched import untouched
from equilibrist.errors import EquilibristError
from equilibrist.findings import Finding
from equilibrist.nn.wrapped import copied, unwrapped
from equilibrist.statistics import Estimate, estimate

TINY = 0.02  # of the weights' norm: steps below are not what is too large
PARTS = (1.0, 0.5, 0.1, 0.01)  # of a step


def check_single(
    module: nn.Module,
    *inputs: Any,
    where: str = "critic",
    rows: int | None = None,
    batch: int | None = None,
    drop_last: bool = False,
    seen: bool = False,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Whether a player is finite, and has a finite gradient, on one sample in training mode.

    Args:
        module: the player; it is copied.
        *inputs: what it is called with: tensors whose first dimension is the batch. The first row is used.
        where: the player's name.
        rows, batch: samples in the data and in a batch: with rows % batch == 1 the last batch is a single sample.
        drop_last: whether the loader leaves that batch out.
        seen: whether a batch of one sample was seen in training.
        seed: of the random states; they are put back.

    Returns:
        The finding "batch-of-one": a fault where batches of one occur, a note where they do not.
    """
    net = copied(unwrapped(module), where).train()
    # A module that fails on whole batches has another fault than this one.
    one, whole = ([tree_map(_first(n), value) for value in inputs] for n in (1, None))
    if _failure(net, whole, seed) is not None:
        return ()
    said = _failure(net, one, seed)
    if said is None:
        return ()
    last = rows is not None and batch is not None and rows % batch == 1 % batch and not drop_last
    occurs = seen or last
    when = "a batch of one was seen" if seen else ""
    if last and not seen:
        when = f"{rows} samples in batches of {batch} leave a last batch of one"
    text = f"On one sample in training mode, {said}; {when or 'no batch of one is known to occur'}."
    evidence: Json = {"rows": rows, "batch": batch, "seen": seen}
    level = "fault" if occurs else "note"
    return (Finding("batch-of-one", where, text, level, evidence=evidence),)


def _first(n: int | None) -> Callable[[Any], Any]:
    def rows(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        value = (
            value.detach().clone() if n is None or value.ndim == 0 else value[:n].detach().clone()
        )
        return value.requires_grad_() if value.is_floating_point() else value

    return rows


def _failure(net: nn.Module, inputs: list[Any], seed: int) -> str | None:
    """What is wrong with a call, in words; None where nothing is."""
    with torch.enable_grad(), untouched(seed), _first_bad(net) as bad:
        try:
            out = net(*inputs)
        except Exception as error:  # of the user's module
            said = (str(error).splitlines() or [""])[0][:120]
            return f"{_innermost(bad)} fails ({said})"
        if bad["name"]:
            return f"the first value that is not finite is in {bad['name']}"
        total = sum(v.float().mean() for v in _floats(out))
        if not isinstance(total, Tensor) or not total.requires_grad:
            return None
        weights = [p for p in net.parameters() if p.requires_grad]
        leaves = [v for v in _floats(inputs) if v.requires_grad]
        found = torch.autograd.grad(total, [*weights, *leaves], allow_unused=True)
    if all(g is None or bool(torch.isfinite(g).all()) for g in found):
        return None
    names = [n for n, p in net.named_parameters() if p.requires_grad]
    names += ["its input"] * len(leaves)
    wrong = [n for n, g in zip(names, found, strict=True) if g is not None and not _finite(g)]
    return f"its output is finite, the gradient of {wrong[-1]} is not"


def _innermost(bad: dict[str, Any]) -> str:
    return bad["open"][-1] if bad["open"] else "it"


@contextmanager
def _first_bad(net: nn.Module) -> Iterator[dict[str, Any]]:
    """Where the first value that is not finite appears: in a layer, or between two of them."""
    names = {id(m): f"{n} ({type(m).__name__})" for n, m in net.named_modules() if n}
    names[id(net)] = f"{type(net).__name__}.forward"
    seen: dict[str, Any] = {"name": "", "open": []}

    def before(module: nn.Module, inputs: Any) -> None:
        if id(module) in names:
            if not seen["name"] and not all(_finite(v) for v in _floats(inputs)):
                around = seen["open"][-1] if seen["open"] else "its input"
                seen["name"] = f"{around}, before {names[id(module)]}" if seen["open"] else around
            seen["open"].append(names[id(module)])

    def after(module: nn.Module, _: Any, out: Any) -> None:
        if id(module) in names:
            if not seen["name"] and not all(_finite(v) for v in _floats(out)):
                seen["name"] = names[id(module)]
            seen["open"].pop()

    handles = [register_module_forward_pre_hook(before), register_module_forward_hook(after)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _floats(value: Any) -> list[Tensor]:
    leaves = [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return [leaf for leaf in leaves if leaf.is_floating_point()]


def _finite(value: Tensor) -> bool:
    return bool(torch.isfinite(value).all())


def check_finite(
    step: Callable[[int], Any], players: Mapping[str, nn.Module], *, rounds: int = 10
) -> tuple[Finding, ...]:
    """Where the first value that is not finite appears in a few rounds of a loop.

    Looked at are the weights before the first round, what every module returns, the gradients that optimisers step
    with, and the weights after each step. Steps that a loss scaler leaves out are none: gradients that overflow
    there are its way of finding the scale.

    Args:
        step: step(i) runs round i.
        players: the modules that are trained, by name.
        rounds: at most so many are run.

    Returns:
        The finding "not-finite", or nothing.
    """
    for name, player in players.items():
        for path, p in player.named_parameters():
            if not _finite(p):
                text = f"{path} of {name} is not finite before the first round."
                return (_not_finite(name, text, 0, path, "weight"),)
    for i in range(rounds):
        with watched(players, i) as found:
            try:
                step(i)
            except EquilibristError:
                raise
            except Exception:
                # A loop may stop itself at a value that is not finite: the value is the cause.
                if not found:
                    raise
        if found:
            return (found[0],)
    return ()


def _not_finite(where: str, text: str, i: int, tensor: str, kind: str) -> Finding:
    return Finding("not-finite", where, text, evidence={"round": i, "tensor": tensor, "kind": kind})


@contextmanager
def watched(players: Mapping[str, nn.Module], i: int) -> Iterator[list[Finding]]:
    """Findings of a round, the first first."""
    layers = {
        id(m): (name, path or type(m).__name__)
        for name, player in players.items()
        for path, m in player.named_modules()
    }
    weights = {
        id(p): (name, path) for name, m in players.items() for path, p in m.named_parameters()
    }
    found: list[Finding] = []
    doubtful: list[Finding] = []  # under a scaler, forward values may overflow once and be left out

    def returned(module: nn.Module, inputs: Any, out: Any) -> None:
        if doubtful or id(module) not in layers or torch.compiler.is_compiling():
            return
        if not all(_finite(v) for v in _floats(out)):
            name, path = layers[id(module)]
            fed = "" if all(_finite(v) for v in _floats(inputs)) else ", whose input is not either"
            text = f"In round {i}, what {path} of {name} returns is not finite{fed}."
            doubtful.append(_not_finite(name, text, i, path, "output"))

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for p in _stepped(optimizer):
            if not found and p.grad is not None and not _finite(p.grad):
                name, path = weights.get(id(p), ("loop", "a weight"))
                text = f"In round {i}, the gradient of {path} of {name} is not finite when its optimiser steps."
                found.append((doubtful or [_not_finite(name, text, i, path, "gradient")])[0])

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for p in _stepped(optimizer):
            if not found and not _finite(p):
                name, path = weights.get(id(p), ("loop", "a weight"))
                text = f"In round {i}, {path} of {name} is not finite after its optimiser's step."
                found.append((doubtful or [_not_finite(name, text, i, path, "weight")])[0])

    handles = [
        register_module_forward_hook(returned),
        register_optimizer_step_pre_hook(before),
        register_optimizer_step_post_hook(after),
    ]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _stepped(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def check_step_size(
    step: Callable[[int], Any],
    players: Mapping[str, nn.Module],
    losses: Mapping[str, Callable[[], Tensor]],
    *,
    rounds: int = 20,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Whether a player's own steps go too far: past what lowers its own loss on the same batch.

    Of every step of a player's optimiser, the change of its own loss at the weights w is taken four times: for the
    whole step d, and for d/2, d/10 and d/100, at the same batch, with everything else held. Along d a smooth loss
    changes by -a s + b s^2: it falls for small s where a > 0. The whole step gains less than half of what half of it
    gains where b > 0.86 a, which for gradient descent is a rate above 1.7 over the curvature (at 2, b = a, it
    diverges).
    A step that is no descent at all (a <= 0: momentum,
    minibatches, a loss that is not the loop's) rises at every s and is no sign of its size.

    Args:
        step: step(i) runs round i.
        players: the modules that are trained, by name.
        losses: for a player's name, a function that returns its loss at the weights as they are, on the batch of
            the round or on one large batch. It is called with the same random state each time.
        rounds: rounds that are run.
        confidence: of the intervals over rounds.
        seed: of the random states in which losses are taken; they and all buffers are put back.

    Returns:
        Findings "step-too-large", one for a player at most.
    """
    seen: dict[str, list[list[float]]] = {name: [] for name in losses}
    sizes: dict[str, list[float]] = {name: [] for name in losses}
    for i in range(rounds):
        with _measured(players, losses, seen, sizes, seed, i):
            step(i)
    found = []
    for name, rows in seen.items():
        rows = [row for row in rows if all(map(math.isfinite, row))]
        if len(rows) >= 5:
            found += _overshoots(name, rows, sizes[name], confidence)
    return tuple(found)


@contextmanager
def _measured(
    players: Mapping[str, nn.Module],
    losses: Mapping[str, Callable[[], Tensor]],
    seen: dict[str, list[list[float]]],
    sizes: dict[str, list[float]],
    seed: int,
    i: int,
) -> Iterator[None]:
    """Takes the losses around every step of a round."""
    held: dict[int, list[Tensor]] = {}
    inside = False

    def value(name: str) -> float:
        with untouched(seed, i), torch.enable_grad():  # penalties differentiate
            return float(losses[name]().detach())

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        held[id(optimizer)] = [p.detach().clone() for p in _stepped(optimizer)]

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        nonlocal inside
        old = held.pop(id(optimizer), None)
        if old is None or inside:
            return
        own = _stepped(optimizer)
        ids = {id(p) for p in own}
        stepped = [n for n in losses if any(id(p) in ids for p in players[n].parameters())]
        if len(stepped) != 1:  # both players at once: neither's step is its own
            return
        new = [p.detach().clone() for p in own]
        inside = True
        try:
            _put(own, old)
            start = value(stepped[0])
            row = []
            for part in PARTS:
                _put(
                    own,
                    [
                        torch.lerp(a.double(), b.double(), part).to(a)
                        for a, b in zip(old, new, strict=True)
                    ],
                )
                row.append(value(stepped[0]) - start)
        finally:
            _put(own, new)
            inside = False
        seen[stepped[0]].append([*row, start])
        moved = math.sqrt(
            sum(float((a - b).double().square().sum()) for a, b in zip(old, new, strict=True))
        )
        whole = math.sqrt(sum(float(a.double().square().sum()) for a in old))
        sizes[stepped[0]].append(moved / whole if whole > 0 else math.inf)

    handles = [
        register_optimizer_step_pre_hook(before),
        register_optimizer_step_post_hook(after),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _put(weights: list[Tensor], values: list[Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip(weights, values, strict=True):
            p.copy_(value)


def _overshoots(
    name: str, rows: list[list[float]], sizes: list[float], confidence: float
) -> list[Finding]:
    """The finding, where the whole step raises the loss and a part of it lowers it, round after round."""
    changes = {part: [row[k] for row in rows] for k, part in enumerate(PARTS)}
    whole = estimate(changes[1.0], confidence)
    # Along a parabola that falls by a s and rises by b s^2, the whole step gains less than half of what half of it does
    # for b > 0.86 a, which for gradient descent is a rate above 1.7 over the curvature; it raises the loss for b > a.
    wasted = [one - two / 2 for one, two in zip(changes[1.0], changes[0.5], strict=True)]
    p = float(stats.wilcoxon(wasted, alternative="greater").pvalue) if any(wasted) else 1.0
    if p > (1 - confidence) / 2 or sum(wasted) <= 0:
        return []
    below = [part for part in PARTS[1:] if _below(estimate(changes[part], confidence))]
    if not below:
        return []
    lowered = estimate(changes[below[0]], confidence)
    share = sum(w > 0 for w in wasted) / len(wasted)
    if share < 0.6:  # a few large jumps are no rule
        return []
    scale = sorted(sizes)[len(sizes) // 2]
    if scale < TINY:  # momentum goes past the minimum of a batch in small steps too
        return []
    text = (
        f"The {name}'s steps overshoot: they change its own loss by {whole} on the same batch, where "
        f"{below[0]:g} of the "
        f"same steps changes it by {lowered} ({share:.0%} of {len(rows)} steps go too far); a step "
        "moves the weights by "
        f"{scale:.2g} of their norm."
    )
    evidence: Json = {
        "value": whole.mean,
        "interval": [whole.low, whole.high],
        "part": below[0],
        "part_change": lowered.mean,
        "part_interval": [lowered.low, lowered.high],
        "share": share,
        "p": p,
        "relative_size": scale,
        "confidence": confidence,
    }
    cure = f"lower the {name}'s learning rate, to {below[0]:g} of it first"
    return [Finding("step-too-large", name, text, "fault", "likely", evidence, cure)]


def _below(found: Estimate) -> bool:
    return found.high is not None and found.high < 0
