"""Generated samples that vary too little."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from equilibrist.certificates import Json
from equilibrist.core.draws import Use
from equilibrist.diagnosis._intervals import Ratio, wilson_share
from equilibrist.errors import DataError
from equilibrist.findings import Finding
from equilibrist.statistics import Estimate, estimate

BLOCKS = 10  # independent parts of the samples, from which intervals are made
CELLS = 16  # of the real samples
NARROW = MISSED = (
    0.5  # the ratio of variation; the share of real samples in cells that are left out
)
CONSTANT = 0.02  # the ratio of variation under which samples are one sample
RARE = 0.1  # a cell that is visited this many times as often as it should be is left out
NEAR = (
    0.2  # of generated samples must be as near to real ones as half of the held-out real ones are
)
AWAY = 0.75  # times as far from the mean as real samples: nearer to it, a narrow cloud is near everything
FELL = 0.7  # of the variation that earlier samples had


def check_diversity(
    fake: Tensor,
    real: Tensor,
    *,
    before: Tensor | None = None,
    where: str = "generator",
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Whether generated samples vary much less than held-out real ones.

    Measured are the mean distance between two samples, generated against real, and the share of real samples that
    lie in cells (nearest of 16 centres) which generated samples visit less than a tenth as often. A generator that
    has only begun to learn varies little as well: the finding is a note, unless the samples are all but one sample,
    or look real, or varied more before.

    Args:
        fake: generated samples [n, ...].
        real: real samples that training did not see [m, ...]; half of them make the cells.
        before: samples of the same generator at an earlier time.
        where: the generator's name.
        confidence: of the intervals.
        seed: of the order of rows.

    Returns:
        The finding "collapsed", or nothing.

    Raises:
        DataError: fewer than 40 samples of a kind, of different shapes, or not finite.
    """
    x, y = _rows("real", real, 40, seed, 0), _rows("fake", fake, 40, seed, 1)
    if x.shape[1] != y.shape[1]:
        raise DataError(f"real samples have {x.shape[1]} entries, generated ones {y.shape[1]}")
    spread = _spread(y, x, confidence)
    cells, held = x.chunk(2)
    missed = _missed(cells, held, y, confidence)
    if not (spread.high < NARROW or missed.low > MISSED):
        return ()
    fell = None if before is None else _spread(y, _rows("before", before, 40, seed, 2), confidence)
    level, reason = _severity(spread, fell, _looks_real(cells, held, y, confidence))
    text = (
        f"Generated samples vary {spread} times as much as real ones, and miss {missed.value:.0%} "
        f"({missed.low:.0%} to {missed.high:.0%}) of the real samples' places; {reason}."
    )
    evidence: Json = {
        "value": spread.value,
        "interval": [spread.low, spread.high],
        "missed": missed.value,
        "missed_interval": [missed.low, missed.high],
        "confidence": confidence,
    }
    if fell is not None:
        evidence |= {"left": fell.value, "left_interval": [fell.low, fell.high]}
    return (
        Finding(
            "collapsed", where, text, level, "likely" if level != "note" else "possible", evidence
        ),
    )


def _severity(spread: Ratio, fell: Ratio | None, real: bool) -> tuple[str, str]:
    """A level and its reason."""
    if spread.high < CONSTANT:
        return "warning", "they are all but one sample"
    if fell is not None and fell.high < FELL:
        return "warning", f"they varied more before ({fell} of it is left)"
    if real:
        return "warning", "they lie as close to real samples as real ones do"
    return "note", "a generator that has only begun to learn looks the same"


def _rows(what: str, values: Tensor, least: int, seed: int, place: int) -> Tensor:
    """Rows in float64, in an order of their own: data often come sorted."""
    rows = torch.as_tensor(values).detach().flatten(1).double().cpu()
    if len(rows) < least:
        raise DataError(f"{what}: {len(rows)} samples are too few; give at least {least}")
    if not bool(torch.isfinite(rows).all()):
        raise DataError(f"{what}: some samples are NaN or infinite; remove them")
    order = Use.DIAGNOSIS_ROWS.at(place=place).generator(seed).permutation(len(rows))
    return rows[torch.from_numpy(order)]


def _spread(y: Tensor, x: Tensor, confidence: float) -> Ratio:
    """The mean distance within y over that within x, from blocks of rows that share none."""
    n = min(len(x), len(y), 2000)
    within = [
        [float(torch.pdist(part).mean()) for part in rows[:n].chunk(BLOCKS)] for rows in (y, x)
    ]
    low = [math.log(max(a, 1e-300) / max(b, 1e-300)) for a, b in zip(*within, strict=True)]
    return _exponential(estimate(low, confidence))


def _exponential(found: Estimate) -> Ratio:
    low = found.mean if found.low is None else found.low
    high = found.mean if found.high is None else found.high
    return Ratio(*(math.exp(min(v, 700.0)) for v in (found.mean, low, high)))


def _missed(cells: Tensor, held: Tensor, y: Tensor, confidence: float) -> Ratio:
    """The share of held-out real samples whose cell generated samples hardly visit."""
    centres = _centres(cells[:2000])
    mine, theirs = (torch.cdist(rows[:2000], centres).argmin(1) for rows in (held, y))
    counts = [torch.bincount(t, minlength=len(centres)).double() / len(t) for t in (mine, theirs)]
    left_out = counts[1] < RARE * counts[0]
    missing = left_out[mine].double()
    return wilson_share(float(missing.mean()), len(missing), confidence)


def _centres(rows: Tensor) -> Tensor:
    """Centres of cells that hold equally much: rows are halved along the direction in which they vary most."""
    parts = [rows]
    while len(parts) < CELLS:
        halves: list[Tensor] = []
        for part in parts:
            away = part - part.mean(0)
            along = away @ torch.linalg.svd(away, full_matrices=False).Vh[0]
            upper = along > along.median()
            halves += [part[upper], part[~upper]] if bool(upper.any()) else [part]
        if len(halves) == len(parts):
            break
        parts = halves
    return torch.stack([part.mean(0) for part in parts])


def _looks_real(cells: Tensor, held: Tensor, y: Tensor, confidence: float) -> bool:
    """Whether real samples are as near as they are to held-out real ones, away from the real samples' mean."""
    mine, theirs = (torch.cdist(rows, cells).min(1).values for rows in (y, held))
    nearer = wilson_share(float((mine <= theirs.median()).double().mean()), len(mine), confidence)
    centre = cells.mean(0)
    away = [float((rows - centre).norm(dim=1).median()) for rows in (y, held)]
    return nearer.low > NEAR and away[0] >= AWAY * away[1]
