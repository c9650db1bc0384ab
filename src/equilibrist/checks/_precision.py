"""Which operation of a forward pass computes in less than float64."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TypeGuard

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Game, Players


def lossy_operation(game: Game, players: Players, constants: Constants, draw: Draw) -> str:
    """The first operation of the losses that takes float64 and returns less, such as "float32 in aten._to_copy";
    "" where there is none."""
    watching = _Precision()
    with torch.no_grad(), watching:
        game.losses(players, constants, draw)
    return watching.found


class _Precision(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = ""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: skipping it imports torch's compiler, two seconds of everybody's first audit."""
        return False

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: Collection[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        if not self.found:
            low = [t.dtype for t in tree_leaves(out) if _is_float(t) and t.dtype != torch.float64]
            if low and any(
                _is_float(t) and t.dtype == torch.float64 for t in tree_leaves((args, kwargs))
            ):
                self.found = f"{str(low[0]).removeprefix('torch.')} in {func.overloadpacket}"
        return out


def _is_float(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point()
