"""Hooks by which torch's older forms of weight and spectral norm compute a weight before the forward pass."""

from __future__ import annotations

from typing import Protocol, TypeGuard


class NormHook(Protocol):
    """A hook that sets the weight `name`; dimension `dim` is the rows of its matrix."""

    name: str
    dim: int


def is_norm_hook(hook: object, kind: str) -> TypeGuard[NormHook]:
    """Whether a hook is torch's of this class: "WeightNorm" or "SpectralNorm"."""
    return type(hook).__name__ == kind
