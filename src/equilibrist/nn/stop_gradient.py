"""Where code stops gradients (`detach`, `no_grad`), and how to let them pass there.

A training loop detaches the generated samples in the critic's loss: its own gradient needs nothing of them. How the
critic's gradient moves with the generator's weights, half of the game's Jacobian, is lost with them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Place = tuple[str, int]  # file and line

_LIBRARIES = tuple(str(Path(p).parent) for p in (torch.__file__, str(Path(__file__).parent)))
_CONTEXTS = ("grad_mode.py", "_contextlib.py")  # through which torch switches gradients off
_DATA: Any = Tensor.data.__get__  # type: ignore[attr-defined]
_CUTS = frozenset({Tensor.detach, Tensor.detach_, torch.detach, _DATA})
_FLAG: Any = Tensor.requires_grad
_FREEZES = frozenset({Tensor.requires_grad_, _FLAG.__set__})


class StopGradients(TorchFunctionMode):
    """Records where a user's code stops gradients, and lets them pass at some of these places.

    Places in torch's own code and in this library are left alone. Freezing (`requires_grad_(False)`) does nothing
    within: which gradients are taken is not the losses' to say.

    Args:
        passing: places at which gradients pass.

    Attributes:
        seen: places at which they are stopped, or would be, in the order in which they were met.
        froze: whether something was to be frozen.
    """

    def __init__(self, passing: frozenset[Place] = frozenset()) -> None:
        super().__init__()
        self.passing = passing
        self.seen: dict[Place, None] = {}
        self.froze = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func in _CUTS:
            if self._passes(_place(sys._getframe(1))):
                return args[0]
        elif func is torch._C._set_grad_enabled:
            if not args[0] and self._passes(_place(sys._getframe(1))):
                return None
        elif func in _FREEZES and _freezes(args, kwargs or {}):
            self.froze = True
            return args[0]
        return func(*args, **(kwargs or {}))

    def _passes(self, place: Place | None) -> bool:
        if place is None:
            return False
        self.seen[place] = None
        return place in self.passing


def _place(frame: FrameType | None) -> Place | None:
    """The line of a user's code that stops a gradient; None where a library does it for itself."""
    while frame is not None and frame.f_code.co_filename.endswith(_CONTEXTS):
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith(_LIBRARIES):
        return None
    return frame.f_code.co_filename, frame.f_lineno


def _freezes(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    wanted = args[1] if len(args) > 1 else kwargs.get("requires_grad", True)
    return not wanted


def named(place: Place) -> str:
    """A place for people: "train.py:12"."""
    return f"{Path(place[0]).name}:{place[1]}"
