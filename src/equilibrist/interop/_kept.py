"""What is kept of players and batches, and how it is described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from equilibrist.display import Rows, Shown
from equilibrist.interop._root import Root
from equilibrist.interop._rounds import FAKE, REAL

KINDS = (REAL, FAKE)
Batch = Tensor | tuple[Tensor, ...]


@dataclass(frozen=True)
class Player:
    """What was heard of one player.

    Attributes:
        name: its module's class, with a number where several share it.
        role: "critic", "generator", or "" for neither.
        module: the module, without wrappers (DistributedDataParallel, torch.compile).
        steps: how often it was stepped.
        optimizer: the class of what stepped it.
        rates: its learning rates, [(step, (rate of each group, ...)), ...], where they changed.
        without_gradient: names of parameters that no step ever had a gradient for.
    """

    name: str
    role: str
    module: nn.Module
    steps: int
    optimizer: str
    rates: tuple[tuple[int, tuple[float, ...]], ...]
    without_gradient: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Snapshot(Shown):
    """A critic as it was after one of its steps.

    Attributes:
        step: of the critic.
        critic, generator: copies; the generator is None where none was found.
        real, fake: the batches that it had been shown last, oldest first.
    """

    step: int
    critic: nn.Module
    generator: nn.Module | None
    real: tuple[Batch, ...]
    fake: tuple[Batch, ...]

    def _facts(self) -> tuple[str, Rows]:
        source = "none" if self.generator is None else type(self.generator).__name__
        return f"Snapshot after step {self.step:,}", [
            ("critic", type(self.critic).__name__),
            ("generator", source),
            ("batches", f"{len(self.real)} real, {len(self.fake)} generated"),
        ]


def single(tensors: tuple[Tensor, ...]) -> Batch:
    """A critic's inputs as they are shown: a tensor, or a tuple of several."""
    return tensors[0] if len(tensors) == 1 else tensors


def stacked(batches: Sequence[Batch], kind: str) -> Batch | None:
    """All rows of some batches; real ones once each, however often they were shown."""
    if not batches:
        return None
    if isinstance(batches[0], Tensor):
        joined = [torch.cat([batch for batch in batches if isinstance(batch, Tensor)])]
    else:
        joined = [torch.cat(part) for part in zip(*batches, strict=True)]
    if kind == REAL:
        rows = zip(*(part.reshape(len(part), -1).cpu().numpy() for part in joined), strict=True)
        first = {
            b"".join(part.tobytes() for part in row): k
            for k, row in reversed(list(enumerate(rows)))
        }
        chosen = torch.tensor(sorted(first.values()))
        joined = [part[chosen.to(part.device)] for part in joined]
    return single(tuple(joined))


def rates(noted: Sequence[tuple[int, tuple[float, ...]]]) -> str:
    """Learning rates in words."""
    if not noted:
        return ""
    first, last = noted[0][1], noted[-1][1]
    text = ", ".join(f"{rate:g}" for rate in first)
    return f" at {text}" if first == last else f" at {text} to {', '.join(f'{r:g}' for r in last)}"


def was_shown(root: Root) -> str:
    """What a critic was shown, in words."""
    tally = root.rounds.tally
    kinds = [f"{n:,} {kind} ({how})" for (kind, how), n in tally.items()]
    kept = sum(len(root.rounds.batches(kind)) for kind in KINDS)
    text = ", ".join(kinds) or "nothing that could be told apart"
    if root.rounds.open:
        text += f", {root.rounds.open:,} calls of unknown kind"
    return f"{text}; {kept} batches kept"
