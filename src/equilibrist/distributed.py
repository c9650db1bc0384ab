"""Many processes with plain torch.distributed (gloo or nccl): averages, and one training by all of them."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.core.parts import mean_in_order
from equilibrist.errors import GameError, RankLostError, RecipeError
from equilibrist.tree import Tree

STEP, END, FAILED = 1, 0, -1  # what rank 0 tells the others
MINUTES = 30.0  # that a process waits for the others: rank 0 scores and saves meanwhile


def mean_over_ranks(tensors: list[Tensor]) -> list[Tensor]:
    """The mean of each tensor over all ranks of the default process group.

    Pass it to `VectorField(reduce=...)` in a loop of your own, in which every rank draws its own minibatches.
    DistributedDataParallel is no alternative: its hooks miss second derivatives (measured by others: relative errors
    of 0.1 and more).
    """
    import torch.distributed as dist

    if not dist.is_initialized():
        raise RuntimeError(
            "mean_over_ranks needs a process group: call torch.distributed.init_process_group first"
        )
    if not tensors:
        return tensors
    flat = torch.cat([t.reshape(-1) for t in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([t.numel() for t in tensors])
    return [part.reshape(t.shape) for part, t in zip(parts, tensors, strict=True)]


class Ranks:
    """The processes of one training: `torchrun --nproc-per-node N -m equilibrist run RECIPE`.

    Every process draws the whole minibatch, by the same addresses as a single one, and evaluates its own parts of it
    (`VectorField(ranks=...)`). Only linear quantities are averaged, inside the field, so that every solver is exact.

    Args:
        canonical: whether each part's gradient is sent to all and added in the order of parts. Then the bits are those
            of one process that accumulates over as many parts, whatever the number of processes. Otherwise sums are
            reduced, which sends less, and bits depend on the number of processes.

    Attributes:
        rank, size: this process's number, and how many there are.

    Raises:
        RuntimeError: no process group has been made.
    """

    def __init__(self, canonical: bool = True) -> None:
        import torch.distributed as dist

        if not dist.is_initialized():
            raise RuntimeError(
                "Ranks needs a process group: enter `process_group()`, or call torch.distributed.init_process_group"
            )
        self.canonical = canonical
        self.rank, self.size = dist.get_rank(), dist.get_world_size()

    def own(self, parts: int) -> range:
        """Which of so many parts this process evaluates.

        Raises:
            GameError: parts that are no multiple of the number of processes.
        """
        if parts % self.size:
            raise GameError(
                f"{parts} parts of a batch cannot be divided among {self.size} processes: take a multiple"
            )
        count = parts // self.size
        return range(self.rank * count, (self.rank + 1) * count)

    def mean(self, rows: Sequence[Sequence[Tensor]], parts: int) -> list[Tensor]:
        """The means over all parts; `rows` has this process's, in order.

        Raises:
            RankLostError: another process is gone.
        """
        found: list[Tensor] = list(rows[0])
        for dtype in {t.dtype for t in found}:  # one buffer each
            which = [i for i, t in enumerate(found) if t.dtype == dtype]
            flat = [torch.cat([row[i].reshape(-1) for i in which]) for row in rows]
            whole = self._mean(torch.stack(flat), parts)
            pieces = whole.split([found[i].numel() for i in which])
            for i, piece in zip(which, pieces, strict=True):
                found[i] = piece.reshape(found[i].shape)
        return found

    def _mean(self, mine: Tensor, parts: int) -> Tensor:
        """The mean over parts of [own parts, n]."""
        import torch.distributed as dist

        with _together():
            if not self.canonical:
                total = mine.sum(0)
                dist.all_reduce(total)
                return total / parts
            rows = [torch.empty_like(mine) for _ in range(self.size)]
            dist.all_gather(rows, mine)
        return mean_in_order([row for held in rows for row in held])

    def share(self, values: Tree) -> Tree:
        """Rank 0's values on every process; the others give tensors of the same shapes."""
        import torch.distributed as dist

        def shared(t: Tensor) -> Tensor:
            sent = t.detach().to(torch.uint8) if t.dtype == torch.bool else t.detach().clone()
            sent = sent.contiguous()
            dist.broadcast(sent, 0)
            return sent.to(t.dtype)

        with _together():
            return tree.map(shared, values)

    def tell(self, word: int = 0) -> int:
        """Rank 0's word to all: `STEP`, `END`, `FAILED`, or a number of steps; the others give none."""
        import torch.distributed as dist

        held = torch.tensor([word], dtype=torch.int64, device=_device_of_words())
        with _together():
            dist.broadcast(held, 0)
        return int(held)


def _device_of_words() -> str:
    import torch.distributed as dist

    return f"cuda:{torch.cuda.current_device()}" if dist.get_backend() == "nccl" else "cpu"


@contextmanager
def _together() -> Iterator[None]:
    """Turns what torch raises where a process is gone into one line."""
    try:
        yield
    except RuntimeError as error:
        raise RankLostError(
            "another process of this training is gone, or did not answer in time: run the same command again, with "
            "any number of processes, and it goes on from the last checkpoint"
        ) from error


def launched() -> int:
    """How many processes torchrun has started: 1 without it."""
    text = os.environ.get("WORLD_SIZE", "1")
    return int(text) if text.isdigit() and "RANK" in os.environ else 1


@contextmanager
def process_group(
    device: str = "auto", minutes: float = MINUTES, canonical: bool = True
) -> Iterator[Ranks]:
    """The processes that torchrun has started, as one group while this is entered.

    Args:
        device: of training; "cuda" (and "auto" where there is one) is the GPU of this process's number on its
            machine, with nccl.
        minutes: that a process waits for the others before it gives up.
        canonical: see `Ranks`.

    Raises:
        RecipeError: torchrun has not started this process, or a device that several would share.
        RankLostError: the others do not come.
    """
    import torch.distributed as dist

    if "RANK" not in os.environ:
        raise RecipeError(
            "this process was not started by torchrun: torchrun --nproc-per-node 2 -m equilibrist run ..."
        )
    gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if device.startswith("cuda:"):
        raise RecipeError(
            f"--device {device}: every process has a GPU of its own under torchrun; give --device cuda"
        )
    if gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    with _together():
        dist.init_process_group(
            "nccl" if gpu else "gloo", timeout=datetime.timedelta(minutes=minutes)
        )
    try:
        yield Ranks(canonical)
    finally:
        dist.destroy_process_group()
