"""Float32 as it is written: without TF32, which rounds products on a GPU to 11 bits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products and convolutions in float32 keep all 24 bits while this is entered.

    torch leaves TF32 on for convolutions on a GPU. A gain of a thousandth, or a residual of a gradient, is below what
    it rounds away. Nothing changes on a CPU.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = convolutions.allow_tf32, products.allow_tf32
    convolutions.allow_tf32 = products.allow_tf32 = False
    try:
        yield
    finally:
        convolutions.allow_tf32, products.allow_tf32 = before
