"""Code that says `float32`, in the precision of the weights that it meets."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from equilibrist.nn.functional import Arguments, Options


class InPrecision(TorchFunctionMode):
    """Within, `torch.float32` means another precision: in `x.float()`, as an argument, and as the default of
    `torch.randn`.

    Args:
        dtype: the precision.
    """

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __enter__(self) -> InPrecision:
        self._former = torch.get_default_dtype()
        super().__enter__()  # type: ignore[no-untyped-call]
        torch.set_default_dtype(self.dtype)
        return self

    def __exit__(self, *how: object) -> None:
        super().__exit__(*how)  # type: ignore[no-untyped-call]
        torch.set_default_dtype(self._former)

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Arguments = (),
        kwargs: Options | None = None,
    ) -> object:
        if func is Tensor.float:
            return args[0].to(self.dtype)
        if any(a is torch.float32 for a in args):
            args = tuple(self.dtype if a is torch.float32 else a for a in args)
        if kwargs and kwargs.get("dtype") is torch.float32:
            kwargs = {**kwargs, "dtype": self.dtype}
        return func(*args, **(kwargs or {}))
