"""DistributedDataParallel in one process: a group of one rank that meets in memory."""

from __future__ import annotations

import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel


def wrapped(module: nn.Module) -> DistributedDataParallel:
    """`module` as the one rank of a group that needs no network."""
    if not dist.is_initialized():
        store = dist.HashStore()  # type: ignore[attr-defined]  # which torch exports, untyped
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    return DistributedDataParallel(module)
