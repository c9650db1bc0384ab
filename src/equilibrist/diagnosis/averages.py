"""Averages of weights whose batch-norm statistics are not those of the average."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim.swa_utils import AveragedModel

from equilibrist.certificates import Json
from equilibrist.core.draws import Use
from equilibrist.diagnosis._untouched import untouched
from equilibrist.errors import DataError, GameError
from equilibrist.findings import Finding
from equilibrist.nn.wrapped import copied, unwrapped
from equilibrist.statistics import Estimate, estimate

BLOCKS, ROWS = 10, 128
WORSE = 1.5  # times as far from the real samples with the average's own statistics: averaged ones lag a little

Layers = list[tuple[str, Any, Any]]
SEEN = (
    0.005  # of the mean distance of real samples: energy distances below it are of no consequence
)
Effect = tuple[
    Estimate, float, float, float
]  # the difference, both distances, and real samples' mean distance


def check_average(
    average: nn.Module,
    module: nn.Module,
    real: Tensor | None = None,
    sample: Callable[[nn.Module, int], Tensor] | None = None,
    *,
    where: str = "average",
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Whether an averaged generator has batch-norm statistics that fit it.

    Statistics that were never updated (no batch was counted, or they are what a new layer has) are found by looking.
    Stale ones are found by their effect, as is what the former cost: the energy distance to real samples in
    evaluation mode, with the average's statistics against those of `module`, from the same latents.

    Args:
        average: the averaged generator; an `AveragedModel` is unwrapped.
        module: the generator that is trained.
        real: real samples [n, ...] that training does not see.
        sample: sample(net, n) makes n samples with a network of the same class as `module`.
        where: the average's name.
        confidence: of the interval.
        seed: of the random states in which `sample` is called; they are put back. Both modules are copied.

    Returns:
        The finding "average-buffers", or nothing.

    Raises:
        GameError: the two are not of one architecture, or cannot be copied.
        DataError: fewer than 200 real samples, or samples of another shape.
    """
    mine, theirs = (_plain(m) for m in (average, module))
    layers = _layers(mine, theirs)
    idle = [name for name, a, m in layers if _never(a) and not _never(m)]
    differ = [name for name, a, m in layers if not _alike(a, m)]
    if not differ:
        return ()
    effect = None
    if real is not None and sample is not None:
        effect = _effect(mine, theirs, layers, real, sample, confidence, seed)
    return _judged(idle, differ, effect, where, confidence)


def _judged(
    idle: list[str], differ: list[str], effect: Effect | None, where: str, confidence: float
) -> tuple[Finding, ...]:
    """The finding, from layers that were never updated, layers that are not the generator's, and what it costs."""
    worse = effect is not None and effect[0].low is not None and effect[0].low > 0
    evidence: Json = {"layers": differ[:8], "never_updated": len(idle)}
    cost = ""
    if effect is not None:
        gap, own, with_module, _ = effect
        evidence |= {"value": gap.mean, "interval": [gap.low, gap.high], "confidence": confidence}
        evidence |= {"own": own, "with_module": with_module}
        cost = (
            f" In evaluation mode its samples' energy distance to real ones is {own:.3g}, and {with_module:.3g} with "
            f"the statistics of the generator that is trained (difference {gap})."
        )
    if idle:
        level = "note" if effect is not None and not worse else "fault" if worse else "warning"
        text = (
            f"The batch-norm statistics of {idle[0]} ({len(idle)} layers) were never updated.{cost}"
        )
        return (Finding("average-buffers", where, text, level, "certain", evidence),)
    if not worse or effect is None or effect[1] < max(WORSE * effect[2], SEEN * effect[3]):
        return ()
    text = f"The batch-norm statistics of {differ[0]} ({len(differ)} layers) are out of date.{cost}"
    return (Finding("average-buffers", where, text, "fault", "likely", evidence),)


def _plain(module: nn.Module) -> nn.Module:
    module = unwrapped(module)
    return unwrapped(module.module) if isinstance(module, AveragedModel) else module


def _layers(mine: nn.Module, theirs: nn.Module) -> Layers:
    """Layers with running statistics, each with its twin."""
    own = dict(mine.named_modules())
    found = []
    for name, layer in theirs.named_modules():
        if isinstance(layer, _NormBase) and layer.running_mean is not None:
            twin = own.get(name)
            if not isinstance(twin, _NormBase) or twin.num_features != layer.num_features:
                raise GameError(
                    f"the average has no layer {name} like the module's: hand over two modules of one architecture"
                )
            if twin.running_mean is not None:
                found.append((name, twin, layer))
    return found


def _never(layer: Any) -> bool:
    """Whether statistics are those of a new layer."""
    counted = layer.num_batches_tracked
    if counted is not None and int(counted) == 0:
        return True
    return bool((layer.running_mean == 0).all()) and bool((layer.running_var == 1).all())


def _alike(a: Any, b: Any) -> bool:
    return torch.equal(a.running_mean, b.running_mean) and torch.equal(a.running_var, b.running_var)


def _effect(
    mine: nn.Module,
    theirs: nn.Module,
    layers: Layers,
    real: Tensor,
    sample: Callable[[nn.Module, int], Tensor],
    confidence: float,
    seed: int,
) -> Effect:
    """How much further from the real samples the average is with its own statistics, from paired blocks."""
    rows = real.detach().flatten(1).double().cpu()
    if len(rows) < 20 * BLOCKS:
        raise DataError(f"real: {len(rows)} samples are too few; give at least {20 * BLOCKS}")
    order = Use.DIAGNOSIS_ROWS.at(place=4).generator(seed).permutation(len(rows))
    rows = rows[torch.from_numpy(order)][: BLOCKS * ROWS]
    own = copied(mine, "average").eval()
    other = copy.deepcopy(own)
    parts, twins = dict(other.named_modules()), dict(theirs.named_modules())
    with torch.no_grad():
        for name, _, _ in layers:
            to: Any = parts[name]
            source: Any = twins[name]
            to.running_mean.copy_(source.running_mean)
            to.running_var.copy_(source.running_var)
    far: list[list[float]] = [[], []]
    for k, block in enumerate(rows.chunk(BLOCKS)):
        for net, found in zip((own, other), far, strict=True):
            with torch.no_grad(), untouched(seed, k):
                made = sample(net, len(block)).detach().flatten(1).double().cpu()
            if made.shape != block.shape:
                raise DataError(
                    f"sample(net, {len(block)}) makes {list(made.shape)}, real samples are {list(block.shape)}"
                )
            found.append(energy(made, block))
    gap = estimate([a - b for a, b in zip(*far, strict=True)], confidence)
    return gap, sum(far[0]) / BLOCKS, sum(far[1]) / BLOCKS, float(torch.pdist(rows).mean())


def energy(x: Tensor, y: Tensor) -> float:
    """The energy distance 2 E|x - y| - E|x - x'| - E|y - y'| of two samples, unbiased (Szekely and Rizzo 2013).

    Args:
        x, y: rows [n, d] and [m, d].

    Returns:
        The distance; about 0 for samples of one law.
    """
    within = float(torch.pdist(x).mean()) + float(torch.pdist(y).mean())
    return 2 * float(torch.cdist(x, y).mean()) - within
