"""Terms of a generator's loss that work against one another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from equilibrist.certificates import Json
from equilibrist.diagnosis._seen import Opposition, opposed_parts
from equilibrist.diagnosis._untouched import untouched
from equilibrist.findings import Finding
from equilibrist.statistics import Estimate, estimate

UNDONE = 0.1  # of what one term's step gains, taken back by the other term
DROWNS = (
    2.5  # times the other terms' size, from which an adversarial term leaves them little of a step
)
HELPS = 0.25  # the cosine above which it goes their way
LOST = 20.0  # times their size, from which they have no effect whichever way it goes


def check_terms(
    losses: Callable[[], tuple[Tensor, Tensor]],
    parameters: Iterable[Tensor],
    *,
    where: str = "generator",
    repeats: int = 16,
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Whether the adversarial term works against another term of the same loss.

    With the gradients a of the adversarial term and o of the other one on the same batch, a step along -(a + o) lowers
    the other term by |o|^2 + <a, o> to first order, where a step along -o lowers it by |o|^2: the adversarial
    term takes back the share -<a, o> / |o|^2. Above 1, the other term rises.

    Args:
        losses: losses() draws a batch and returns the adversarial term and the other one, weighted as they are
            added up.
        parameters: the generator's, or those of its last layer.
        where: the generator's name.
        repeats: batches.
        confidence: of the intervals.
        seed: of the random states in which `losses` is called; they and all buffers are put back.

    Returns:
        The finding "opposed-terms", or nothing.
    """
    weights = [p for p in parameters if p.requires_grad]
    rows = []
    for k in range(repeats):
        with torch.enable_grad(), untouched(seed, k):
            row = opposed_parts(*(_gradient(term, weights) for term in losses()))
        if row is not None and all(map(math.isfinite, row)):
            rows.append(row)
    return opposed(rows, where, confidence)


def opposed(rows: Sequence[Opposition], where: str, confidence: float) -> tuple[Finding, ...]:
    """The finding "opposed-terms" where the adversarial term takes back what the other one gains, or nothing.

    Args:
        rows: of several batches.
        where: the generator's name.
        confidence: of the intervals.
    """
    share, cosine, ratio = _estimates(rows, confidence)
    if share.low is None or share.low < UNDONE:
        return ()
    text = (
        f"The adversarial term's gradient has {ratio} times the size of the other term's at cosine {cosine}: it takes "
        f"back {share.mean:.0%} of what a step along the other term gains"
    )
    text += ", and more than that: the other term rises." if share.low > 1 else "."
    evidence = _evidence(share, cosine, confidence) | {"ratio": ratio.mean}
    return (Finding("opposed-terms", where, text, "warning", "certain", evidence),)


def drowned(rows: Sequence[Opposition], where: str, confidence: float) -> tuple[Finding, ...]:
    """The same finding of an adversarial term that is no help to the other, and many times its size.

    Args:
        rows: of several batches.
        where: the generator's name.
        confidence: of the intervals.
    """
    _, cosine, ratio = _estimates(rows, confidence)
    if ratio.low is None or cosine.high is None or ratio.low < DROWNS:
        return ()
    if cosine.high > HELPS and ratio.low < LOST:
        return ()
    text = (
        f"The adversarial term's gradient has {ratio} times the size of the other term's, at cosine {cosine}: of a "
        "step hardly anything serves the other term."
    )
    evidence = _evidence(ratio, cosine, confidence)
    return (Finding("opposed-terms", where, text, "warning", "likely", evidence),)


def _estimates(
    rows: Sequence[Opposition], confidence: float
) -> tuple[Estimate, Estimate, Estimate]:
    """Of the share that is taken back, the cosine, and the ratio of sizes."""
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    undone, cosines, sizes = (estimate(list(column), confidence) for column in columns)
    return undone, cosines, sizes


def _evidence(value: Estimate, cosine: Estimate, confidence: float) -> Json:
    return {
        "value": value.mean,
        "interval": [value.low, value.high],
        "cosine": cosine.mean,
        "cosine_interval": [cosine.low, cosine.high],
        "confidence": confidence,
    }


def _gradient(term: Tensor, weights: list[Tensor]) -> Tensor:
    if not term.requires_grad:
        return torch.zeros(sum(p.numel() for p in weights), dtype=torch.float64)
    found = torch.autograd.grad(term, weights, retain_graph=True, allow_unused=True)
    flat = [
        (torch.zeros_like(p) if g is None else g).reshape(-1)
        for p, g in zip(weights, found, strict=True)
    ]
    return torch.cat(flat).double().cpu()
