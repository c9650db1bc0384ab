"""Arithmetic on nested dictionaries of tensors: players, constants, gradients, states.

A tree is a dictionary whose values are tensors or trees. Order of keys is part of a tree: flat
vectors concatenate leaves in the order of insertion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

# Of tensors or trees. Values are not typed: a state's structure is its solver's own.
Tree = dict[str, Any]
Nested = Mapping[str, "Tensor | Nested"]  # the same, to be read only
Device = torch.device | str | None  # where tensors lie; None: where they are


def leaves(tree: Nested) -> list[Tensor]:
    """All tensors of `tree`, in order.

    Args:
        tree: the tree.

    Returns:
        Its tensors.
    """
    found: list[Tensor] = []
    for value in tree.values():
        if isinstance(value, Tensor):
            found.append(value)
        else:
            found.extend(leaves(value))
    return found


def items(tree: Nested, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Pairs (path, tensor) of `tree`, in order."""
    for key, value in tree.items():
        if isinstance(value, Tensor):
            yield (*prefix, key), value
        else:
            yield from items(value, (*prefix, key))


def map(fn: Callable[..., Tensor], tree: Nested, *others: Mapping[str, Any]) -> Tree:
    """Apply `fn` leaf by leaf to trees of the same structure.

    Args:
        fn: takes a leaf of each tree.
        tree: the tree whose structure counts.
        others: trees of the same structure.

    Returns:
        A new tree of what `fn` returned.

    Examples:
        >>> import torch
        >>> from equilibrist import tree
        >>> x = {"generator": {"w": torch.tensor([3.0, 4.0])}, "critic": {"b": torch.tensor([0.0])}}
        >>> tree.map(lambda t: 2 * t, x)["generator"]["w"].tolist()
        [6.0, 8.0]
    """
    return {
        key: fn(value, *(other[key] for other in others))
        if isinstance(value, Tensor)
        else map(fn, value, *(other[key] for other in others))
        for key, value in tree.items()
    }


def fill(tree: Nested, values: Sequence[Tensor]) -> Tree:
    """A tree shaped as `tree` whose leaves are `values`, in order.

    Args:
        tree: gives the structure.
        values: one for each leaf.

    Returns:
        The new tree.
    """
    remaining = iter(values)
    return map(lambda _: next(remaining), tree)


def clone(tree: Nested) -> Tree:
    """A copy that shares no memory and no graph with `tree`.

    Args:
        tree: the tree.

    Returns:
        The copy.
    """
    return map(lambda t: t.detach().clone(), tree)


def detach(tree: Nested) -> Tree:
    """The same values without their graph; memory is shared.

    Args:
        tree: the tree.

    Returns:
        The new tree.
    """
    return map(lambda t: t.detach(), tree)


def zeros_like(tree: Nested) -> Tree:
    """A tree of zeros.

    Args:
        tree: gives structure, shapes and types.

    Returns:
        The new tree.
    """
    return map(torch.zeros_like, tree)


def to(tree: Nested, *, device: Device = None, dtype: torch.dtype | None = None) -> Tree:
    """Move leaves to `device`, and those of floating type to `dtype`.

    Args:
        tree: the tree.
        device: where to; None leaves leaves where they are.
        dtype: of leaves of floating type; None leaves them as they are.

    Returns:
        The new tree; leaves that are right already are shared.
    """
    return map(lambda t: t.to(device=device, dtype=dtype if t.is_floating_point() else None), tree)


def stack(trees: Sequence[Nested]) -> Tree:
    """Stack trees along a new leading dimension: one member of an ensemble each.

    Args:
        trees: trees of the same structure and shapes.

    Returns:
        The stacked tree.

    Examples:
        >>> import torch
        >>> from equilibrist import tree
        >>> x = {"generator": {"w": torch.tensor([3.0, 4.0])}, "critic": {"b": torch.tensor([0.0])}}
        >>> tree.stack([x, x])["generator"]["w"].shape
        torch.Size([2, 2])
    """
    return map(lambda *ts: torch.stack(ts), trees[0], *trees[1:])


def member(tree: Nested, index: int) -> Tree:
    """Member `index` of a stacked tree (views).

    Args:
        tree: a stacked tree.
        index: which member.

    Returns:
        Its tree.
    """
    return map(lambda t: t[index], tree)


def flatten(tree: Nested) -> Tensor:
    """One vector with all entries of `tree`.

    Args:
        tree: the tree.

    Returns:
        The vector [n].

    Examples:
        >>> import torch
        >>> from equilibrist import tree
        >>> x = {"generator": {"w": torch.tensor([3.0, 4.0])}, "critic": {"b": torch.tensor([0.0])}}
        >>> tree.flatten(x).tolist()
        [3.0, 4.0, 0.0]
    """
    return torch.cat([leaf.reshape(-1) for leaf in leaves(tree)])


def unflatten(vector: Tensor, like: Nested) -> Tree:
    """The inverse of `flatten` for a tree shaped as `like`.

    Args:
        vector: all entries [n].
        like: gives structure and shapes.

    Returns:
        The tree.

    Examples:
        >>> import torch
        >>> from equilibrist import tree
        >>> x = {"generator": {"w": torch.tensor([3.0, 4.0])}, "critic": {"b": torch.tensor([0.0])}}
        >>> tree.unflatten(tree.flatten(x), x)["generator"]["w"].tolist()
        [3.0, 4.0]
    """
    sizes = [leaf.numel() for leaf in leaves(like)]
    parts = iter(vector.split(sizes))
    return map(lambda leaf: next(parts).reshape(leaf.shape), like)


def dot(a: Nested, b: Nested) -> Tensor:
    """Euclidean inner product, a 0-d tensor.

    Args:
        a, b: trees of the same structure.

    Returns:
        The product.
    """
    products = [(x * y).sum() for x, y in zip(leaves(a), leaves(b), strict=True)]
    return torch.stack(products).sum()


def norm(tree: Nested) -> Tensor:
    """Euclidean norm, a 0-d tensor.

    Args:
        tree: the tree.

    Returns:
        The norm.

    Examples:
        >>> import torch
        >>> from equilibrist import tree
        >>> x = {"generator": {"w": torch.tensor([3.0, 4.0])}, "critic": {"b": torch.tensor([0.0])}}
        >>> float(tree.norm(x))
        5.0
    """
    parts: list[Tensor] = list(torch._foreach_norm(leaves(tree)))
    return cast(Tensor, torch.linalg.vector_norm(torch.stack(parts)))


def axpy(alpha: float, x: Nested, y: Nested) -> Tree:
    """alpha * x + y, a new tree.

    Args:
        alpha: the factor.
        x, y: trees of the same structure.

    Returns:
        The new tree.

    Examples:
        >>> import torch
        >>> from equilibrist import tree
        >>> x = {"generator": {"w": torch.tensor([3.0, 4.0])}, "critic": {"b": torch.tensor([0.0])}}
        >>> tree.axpy(-0.5, x, x)["generator"]["w"].tolist()
        [1.5, 2.0]
    """
    return map(lambda a, b: torch.add(b, a, alpha=alpha), x, y)


def scale(alpha: float, x: Nested) -> Tree:
    """alpha * x, a new tree.

    Args:
        alpha: the factor.
        x: the tree.

    Returns:
        The new tree.
    """
    return map(lambda a: alpha * a, x)


def slices(sizes: Mapping[str, int]) -> dict[str, slice]:
    """Where parts of these sizes stand in one flat vector, one after the other.

    Returns:
        A slice a name.
    """
    where, start = {}, 0
    for name, size in sizes.items():
        where[name] = slice(start, start + size)
        start += size
    return where


def mean(trees: Iterable[Nested]) -> Tree:
    """The mean of trees of the same structure; only their sum is held.

    Returns:
        A tree of that structure.

    Raises:
        ValueError: no tree.
    """
    total: Tree | None = None
    number = 0
    for tree in trees:
        total = dict(tree) if total is None else axpy(1.0, tree, total)
        number += 1
    if total is None:
        raise ValueError("the mean of no trees")
    return scale(1 / number, total)


def count(tree: Nested) -> int:
    """Number of entries.

    Args:
        tree: the tree.

    Returns:
        How many entries all leaves have.

    Examples:
        >>> import torch
        >>> from equilibrist import tree
        >>> x = {"generator": {"w": torch.tensor([3.0, 4.0])}, "critic": {"b": torch.tensor([0.0])}}
        >>> tree.count(x)
        3
    """
    return sum(leaf.numel() for leaf in leaves(tree))


def all_finite(*trees: Nested | Tensor) -> bool:
    """Whether no tensor among these has an infinite or undefined entry.

    Args:
        trees: tensors, or trees of them.

    Returns:
        True also where there is none.
    """
    parts = [[x] if isinstance(x, Tensor) else leaves(x) for x in trees]
    return all(bool(torch.isfinite(t).all()) for part in parts for t in part)
