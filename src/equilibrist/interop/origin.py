"""Where a tensor came from: which module's output it is, or was computed from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd.graph import Node

T = TypeVar("T")

NODES = 2_000  # of the graph behind one input; a generator's last weight is met after a few
DEPTH = 4  # of nested tuples, lists and dictionaries


def tensors_of(value: object, depth: int = DEPTH) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, tuple | list):
        for part in value:
            yield from tensors_of(part, depth - 1)
    elif depth and isinstance(value, dict):
        for part in value.values():
            yield from tensors_of(part, depth - 1)


def ancestor(tensor: Tensor, owners: Mapping[int, T], nodes: int = NODES) -> T | None:
    """Whose parameters a tensor was computed from, or None.

    The graph is followed backwards, depth first, until it ends in a parameter whose `id` is in `owners`;
    what is nearest to the tensor is nearly always met first. Nothing of the graph is kept.
    """
    stack: list[Node | None] = [tensor.grad_fn]
    met: set[Node] = set()
    while stack and len(met) < nodes:
        node = stack.pop()
        if node is None or node in met:
            continue
        met.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) in owners:
            return owners[id(leaf)]
        stack.extend(parent for parent, _ in node.next_functions)
    return None


def block_of(rows: Tensor, made: Tensor) -> slice | None:
    """Which rows of `rows` are those of `made`, by value: all, the first or the last; None where none are.

    The first and the last row of `made` are compared, not all: a chance agreement of two real rows with
    two generated ones is next to impossible where values are continuous.
    """
    if rows.ndim == 0 or rows.shape[1:] != made.shape[1:] or not 0 < len(made) <= len(rows):
        return None
    if rows.dtype != made.dtype or rows.device != made.device:
        return None
    for begin in {0, len(rows) - len(made)}:
        end = begin + len(made)
        ends = (rows[begin], made[0]), (rows[end - 1], made[-1])
        if all(torch.equal(one, other) for one, other in ends):
            return slice(begin, end)
    return None


def storage(tensor: Tensor) -> int:
    """The address of a tensor's memory: views and detached tensors share it. 0 where it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # sparse tensors, tensor subclasses
        return 0
