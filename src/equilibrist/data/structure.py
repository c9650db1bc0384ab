"""How a batch is nested, as loaders hold it: tensors in tuples, lists and dictionaries."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from equilibrist.errors import DataError

SAMPLES = "real"  # the name of a batch that is one tensor
# What draws hold besides batches: an entry of one of these names is called "batch.noise".
_RESERVED = ("noise", "latent", "mix", "condition", "fake")


class Structure:
    """How a batch is nested: a tensor, or tuples, lists and dictionaries of tensors.

    Args:
        batch: an example.

    Attributes:
        names: of its tensors, in order: "real" of one by itself, else the path, "0" or "image.1".

    Raises:
        DataError: something else than tensors and arrays within it, or none.
    """

    def __init__(self, batch: object) -> None:
        self._shape = _skeleton(batch, "")
        self.names = tuple(_names(self._shape))
        if not self.names:
            raise DataError(
                "a batch holds no tensor: give tensors, or tuples and dictionaries of them"
            )
        if twice := next((n for n in self.names if self.names.count(n) > 1), None):
            raise DataError(
                f"two entries of a batch are both called {twice!r}: rename the key that holds a dot"
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self._shape == other._shape

    __hash__ = None  # type: ignore[assignment]

    def flat(self, batch: object) -> dict[str, Tensor]:
        """The tensors of a batch of this structure by name.

        Raises:
            DataError: a batch of another structure.
        """
        found: dict[str, Tensor] = {}
        if _skeleton(batch, "", found) != self._shape:
            raise DataError(
                f"batches differ in structure: one holds {', '.join(self.names)}, another "
                f"{', '.join(found) or 'no tensor'}"
            )
        return found

    def nested(self, tensors: Mapping[str, Tensor]) -> object:
        """The batch of these tensors."""
        return _built(self._shape, tensors)


class _Nest(NamedTuple):
    """A container within a batch: its type, its keys (None for tuples and lists), and what it holds."""

    kind: type
    keys: tuple[Hashable, ...] | None
    parts: tuple[_Skeleton, ...]


_Skeleton = str | _Nest  # the name of a tensor, or a container


def _skeleton(value: object, path: str, found: dict[str, Tensor] | None = None) -> _Skeleton:
    """The skeleton of a batch, or of what lies at a path within it; its tensors go into `found` by name."""
    if isinstance(value, Tensor | np.ndarray):
        name = f"batch.{path}" if path in _RESERVED else path or SAMPLES
        if found is not None:
            found[name] = torch.as_tensor(value)
        return name
    below = f"{path}." if path else ""
    if isinstance(value, Mapping):
        keys = tuple(value)
        parts = tuple(_skeleton(value[key], f"{below}{key}", found) for key in keys)
        return _Nest(dict, keys, parts)
    if isinstance(value, tuple | list):
        parts = tuple(_skeleton(part, f"{below}{i}", found) for i, part in enumerate(value))
        kind = list if isinstance(value, list) else tuple
        return _Nest(type(value) if _is_namedtuple(type(value)) else kind, None, parts)
    where = f"batch entry {path}" if path else "a batch"
    raise DataError(
        f"{where} is of type {type(value).__name__}: a batch may hold tensors and arrays, in tuples, lists and "
        "dictionaries; leave it out (by collate_fn= of your DataLoader) or turn it into a tensor"
    )


def _is_namedtuple(kind: type) -> bool:
    return hasattr(kind, "_fields")


def _names(skeleton: _Skeleton) -> Iterator[str]:
    if isinstance(skeleton, str):
        yield skeleton
    else:
        for part in skeleton.parts:
            yield from _names(part)


def _built(skeleton: _Skeleton, tensors: Mapping[str, Tensor]) -> object:
    if isinstance(skeleton, str):
        return tensors[skeleton]
    values = [_built(part, tensors) for part in skeleton.parts]
    if skeleton.keys is not None:
        return dict(zip(skeleton.keys, values, strict=True))
    made: object = (
        skeleton.kind(*values) if _is_namedtuple(skeleton.kind) else skeleton.kind(values)
    )
    return made
