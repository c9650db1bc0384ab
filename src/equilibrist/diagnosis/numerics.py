"""Numbers that fail: batches of one, values that are not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.utils._pytree import tree_leaves, tree_map

from equilibrist.certificates import Json
from equilibrist.diagnosis._seen import weights_of
from equilibrist.diagnosis._untouched import untouched
from equilibrist.errors import EquilibristError
from equilibrist.findings import Finding
from equilibrist.nn.functional import in_transform
from equilibrist.nn.wrapped import copied, unwrapped


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
    failure = _failure(net, one, seed)
    if failure is None:
        return ()
    last = rows is not None and batch is not None and rows % batch == 1 % batch and not drop_last
    occurs = seen or last
    when = "a batch of one was seen" if seen else ""
    if last and not seen:
        when = f"{rows} samples in batches of {batch} leave a last batch of one"
    text = (
        f"On one sample in training mode, {failure}; {when or 'no batch of one is known to occur'}."
    )
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
            message = (str(error).splitlines() or [""])[0][:120]
            return f"{_innermost(bad)} fails ({message})"
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
        if doubtful or id(module) not in layers or in_transform():
            return
        if not all(_finite(v) for v in _floats(out)):
            name, path = layers[id(module)]
            fed = "" if all(_finite(v) for v in _floats(inputs)) else ", whose input is not either"
            text = f"In round {i}, what {path} of {name} returns is not finite{fed}."
            doubtful.append(_not_finite(name, text, i, path, "output"))

    def before(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for p in weights_of(optimizer):
            if not found and p.grad is not None and not _finite(p.grad):
                name, path = weights.get(id(p), ("loop", "a weight"))
                text = f"In round {i}, the gradient of {path} of {name} is not finite when its optimiser steps."
                found.append((doubtful or [_not_finite(name, text, i, path, "gradient")])[0])

    def after(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for p in weights_of(optimizer):
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
