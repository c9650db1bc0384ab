"""Where code stops gradients (`detach`, `no_grad`), and how to let them pass there.

A training loop detaches the generated samples in the critic's loss: its own gradient needs nothing of them. How the
critic's gradient moves with the generator's weights, half of the game's Jacobian, is lost with them.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.variable import Variable, VariableMeta
from torch.overrides import TorchFunctionMode

from equilibrist.errors import GameError
from equilibrist.nn.functional import Arguments, Options

Place = tuple[str, int, int]  # file, line and column

# With the separator: torchvision is not torch.
_LIBRARIES = tuple(str(Path(p).parent) + os.sep for p in (torch.__file__, Path(__file__).parent))
_CONTEXTS = ("grad_mode.py", "_contextlib.py")  # through which torch switches gradients off
_DATA: Any = Tensor.data.__get__  # type: ignore[attr-defined]
_CUTS = frozenset({Tensor.detach, Tensor.detach_, torch.detach, _DATA})
_FLAG: Any = Tensor.requires_grad
_FREEZES = frozenset({Tensor.requires_grad_, _FLAG.__set__})


class StopGradients(TorchFunctionMode):
    """Records where a user's code stops gradients, and lets them pass at some of these places.

    Places in torch's own code and in this library are left alone. Freezing (`requires_grad_(False)`) does nothing
    within: which gradients are taken is not the losses' to say. Inference mode is `no_grad` within, at each line that
    computes under it.

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

    def __enter__(self) -> StopGradients:
        super().__enter__()  # type: ignore[no-untyped-call]
        self._graph = torch.is_grad_enabled()
        self._former = vars(VariableMeta).get("__call__", type.__call__)
        VariableMeta.__call__ = self._variable()  # type: ignore[method-assign]
        return self

    def __exit__(self, *how: object) -> None:
        if self._former is type.__call__:
            del VariableMeta.__call__
        else:
            VariableMeta.__call__ = self._former  # type: ignore[method-assign]
        super().__exit__(*how)  # type: ignore[no-untyped-call]

    def _variable(self) -> Callable[..., object]:
        """What calling `torch.autograd.Variable` is within: it cuts the graph without notice to function modes."""
        former, thread = self._former, threading.get_ident()

        def called(kind: type, *args: object, **kwargs: object) -> object:
            given = args[0] if args else kwargs.get("data")
            mine = kind is Variable and threading.get_ident() == thread
            cuts = mine and isinstance(given, Tensor) and given.requires_grad
            if cuts and self._passes(_place(sys._getframe(1))):
                return given
            return former(kind, *args, **kwargs)

        return called

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Arguments = (),
        kwargs: Options | None = None,
    ) -> object:
        if func in _CUTS:
            if self._passes(_place(sys._getframe(1))):
                return args[0]
        elif func is torch._C._set_grad_enabled:
            if not args[0] and self._passes(_place(sys._getframe(1))):
                return None
        elif func is Tensor.backward:
            raise GameError(
                "a loss is differentiated within (.backward()): return the losses and leave the rest of the step out, "
                "or take torch.autograd.grad for a gradient that belongs to a loss"
            )
        elif func in _FREEZES and _freezes(args, kwargs or {}):
            self.froze = True
            return args[0]
        elif func in _FREEZES and not args[0].is_leaf:  # True, which it has where it can have it
            return args[0]
        if torch.is_inference_mode_enabled():
            passes = self._passes(_place(sys._getframe(1), through=True))
            with torch.inference_mode(False), torch.set_grad_enabled(passes and self._graph):
                return func(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _passes(self, place: Place | None) -> bool:
        if place is None:
            return False
        self.seen[place] = None
        return place in self.passing


def _place(frame: FrameType | None, through: bool = False) -> Place | None:
    """Where a user's code stops a gradient; None where a library does it for itself, unless its callers are asked
    (`through`)."""
    while frame is not None and (
        frame.f_code.co_filename.endswith(_CONTEXTS)
        or (through and frame.f_code.co_filename.startswith(_LIBRARIES))
    ):
        frame = frame.f_back
    if frame is None or frame.f_code.co_filename.startswith(_LIBRARIES):
        return None
    positions = islice(frame.f_code.co_positions(), frame.f_lasti // 2, None)
    column = next(positions, (None,) * 4)[2]
    return frame.f_code.co_filename, frame.f_lineno, column or 0


def _freezes(args: Arguments, kwargs: Options) -> bool:
    wanted = args[1] if len(args) > 1 else kwargs.get("requires_grad", True)
    return not wanted


def place_name(place: Place) -> str:
    """A place as messages show it: "train.py:12"."""
    return f"{Path(place[0]).name}:{place[1]}"
