"""Whether a conditional generator's samples depend on its latent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from equilibrist.certificates import Json
from equilibrist.core.draws import Use
from equilibrist.diagnosis._untouched import untouched
from equilibrist.errors import DataError
from equilibrist.findings import Finding
from equilibrist.statistics import Estimate, estimate

BLOCKS = 10  # independent parts of the samples, from which intervals are made
IGNORED = 0.15  # the variance over the latent against that of the data at the same condition
VARIES = 0.02  # of the data's variance must be left at one condition, for something to generate
NEIGHBOURS = 8
UNEXPLAINED = 0.1  # of the data's variance must be left by a regression on the condition
HALF = 0.5  # of the variance that neighbours tell, where they tell one
APART = 0.1  # of the conditions must be different ones for a regression
WORSE = 1.5  # times a regression's error: a generator that errs more has not learnt the mean


def check_latent(
    sample: Callable[[Tensor], Tensor],
    conditions: Tensor,
    real: Tensor | None = None,
    *,
    where: str = "generator",
    confidence: float = 0.95,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Whether a conditional generator's samples depend on its latent.

    The variance over the latent at a fixed condition is half the mean square between two samples of one condition. What
    it should be is the data's own variance at a fixed condition: the intercept of half the mean square between near
    neighbours' samples over the square of the distance between their conditions (the Gamma test; Stefansson, Koncar
    and Jones 1997), zero where the condition decides the sample. Where conditions have no near neighbours, it is at
    most what a regression on the condition leaves; that a generator which predicts as well as it does should vary is
    likely then, and a warning.

    Args:
        sample: sample(conditions) makes one sample for each condition, with latents of its own at every call.
        conditions: labels [n], numbers or images [n, ...].
        real: the real sample of each condition [n, ...]; without them the finding is a note.
        where: the generator's name.
        confidence: of the intervals.
        seed: of the random states in which `sample` is called; they are put back.

    Returns:
        The finding "latent-ignored", or nothing.

    Raises:
        DataError: fewer than 40 conditions, or other numbers of samples than of conditions.
    """
    n = len(conditions)
    order = torch.from_numpy(Use.DIAGNOSIS_ROWS.at(place=3).generator(seed).permutation(n))
    made = [m[order] for m in _four_times(sample, conditions, seed)]
    within = (_halved(made[0], made[1]) + _halved(made[2], made[3])) / 2
    whole = _halved(torch.cat(made[:2]), torch.cat(made[:2]).roll(n // 2, 0))[:n]
    parts = [float(p.mean()) for p in within.chunk(BLOCKS)]
    if real is None:
        return _without_data(parts, float(whole.mean()), where, confidence)
    conditions = _samples("conditions", conditions, n)[order]
    rows = _samples("real", real, n)[order]
    total = float((rows - rows.mean(0)).square().sum(1).mean())
    due = _at_one_condition(conditions, rows)
    mine = estimate(parts, confidence)
    known = due is not None and _below(0.0, [v - VARIES * total for v in due], confidence)
    if due is not None and known and _below(mine.high, [IGNORED * v for v in due], confidence):
        data, level, what = estimate(due, confidence), "fault", "the data vary by"
    else:
        # Neighbours of conditions of many entries are far apart, and what they tell is too little: what a regression
        # leaves is too much, and what both tell is likely. One that errs far more has not learnt the mean either.
        if len(torch.unique(conditions, dim=0)) < APART * n:
            return ()  # labels: neighbours tell all there is to tell
        left, missed = _unexplained(conditions, rows, torch.stack(made).mean(0))
        data, level, what = estimate(left, confidence), "warning", "a regression on it leaves"
        varies = _below(UNEXPLAINED * total, left, confidence) and missed < WORSE * data.mean
        beside = not known or due is None or mine.mean < HALF * estimate(due, confidence).mean
        if not (varies and beside and _below(mine.high, [IGNORED * v for v in left], confidence)):
            return ()
    return (_ignored(where, mine, data, what, level, confidence),)


def _four_times(
    sample: Callable[[Tensor], Tensor], conditions: Tensor, seed: int
) -> Iterator[Tensor]:
    """Samples of all conditions, with four latents."""
    for k in range(4):
        with torch.no_grad(), untouched(seed, k):
            yield _samples("sample(conditions)", sample(conditions), len(conditions))


def _ignored(
    where: str, mine: Estimate, data: Estimate, what: str, level: str, confidence: float
) -> Finding:
    evidence: Json = {
        "value": mine.mean,
        "interval": [mine.low, mine.high],
        "data": data.mean,
        "data_interval": [data.low, data.high],
        "confidence": confidence,
    }
    text = (
        f"At one condition, samples vary by {mine} over the latent, where {what} {data}: the latent has hardly any "
        "effect."
    )
    return Finding("latent-ignored", where, text, level, "likely", evidence)


def _below(value: float | None, values: list[float], confidence: float) -> bool:
    """Whether a value is below the mean of others for certain."""
    low = estimate(values, confidence).low
    return value is not None and low is not None and value < low


def _unexplained(conditions: Tensor, rows: Tensor, guess: Tensor) -> tuple[list[float], float]:
    """What a regression on the condition leaves of the data's variance, in blocks, and the generator's square error.

    Kernel ridge regression with a Gaussian kernel; each row is predicted from the others, by the identity
    e / (1 - H_ii) of the residuals e and the smoother H (Hastie, Tibshirani and Friedman 2009, equation 7.52); width
    and ridge are those that predict best.

    Args:
        conditions: [n, c]; of equal ones the first is used.
        rows: the data [n, d].
        guess: the generator's mean at each condition [n, d].
    """
    _, which = torch.unique(conditions, dim=0, return_inverse=True)
    first = torch.stack([(which == i).nonzero()[0, 0] for i in range(int(which.max()) + 1)])[:800]
    c, x = conditions[first], rows[first]
    away = torch.cdist(c, c).square()
    typical = max(float(away.mean()), 1e-300)
    y = x - x.mean(0)
    best: Tensor | None = None
    for width in (0.1, 1.0, 10.0):
        values, vectors = torch.linalg.eigh(torch.exp(-away / (width * typical)))
        for ridge in (1e-3, 1e-2, 0.1, 1.0, 10.0):
            smoother = (vectors * (values / (values + ridge))) @ vectors.T
            error = (y - smoother @ y) / (1 - smoother.diag()).clamp_min(1e-9)[:, None]
            squares = error.square().sum(1)
            best = squares if best is None or squares.mean() < best.mean() else best
    assert best is not None
    missed = float((x - guess[first]).square().sum(1).mean())
    return [float(part.mean()) for part in best.chunk(BLOCKS)], missed


def _without_data(
    parts: list[float], whole: float, where: str, confidence: float
) -> tuple[Finding, ...]:
    """A note where samples of one condition are all but equal: whether they should be is not known."""
    mine = estimate(parts, confidence)
    if not (mine.high or 0.0) < 1e-3 * whole:
        return ()
    text = (
        f"At one condition, samples vary by {mine.mean:.2g} over the latent, where they vary by {whole:.2g} over all "
        "conditions: the latent has no effect, if it should have one."
    )
    evidence: Json = {"value": mine.mean, "interval": [mine.low, mine.high], "variance": whole}
    evidence["confidence"] = confidence
    return (Finding("latent-ignored", where, text, "note", "possible", evidence),)


def _samples(what: str, values: Tensor, n: int) -> Tensor:
    rows = torch.as_tensor(values).detach().double().cpu()
    rows = rows[:, None] if rows.ndim == 1 else rows.flatten(1)
    if len(rows) != n or n < 40:
        raise DataError(
            f"{what}: {len(rows)} rows for {n} conditions; 40 and more, one each, are needed"
        )
    if not bool(torch.isfinite(rows).all()):
        raise DataError(f"{what}: some rows are NaN or infinite; remove them")
    return rows


def _halved(a: Tensor, b: Tensor) -> Tensor:
    """Half the square of the distance, row by row: its mean is the sum of the entries' variances."""
    return (a - b).square().sum(1) / 2


def _at_one_condition(conditions: Tensor, rows: Tensor) -> list[float] | None:
    """The variance of rows at a fixed condition, from blocks; None where no two conditions are near."""
    conditions, rows = conditions[:2000], rows[:2000]
    away = torch.cdist(conditions, conditions).square()
    typical = float(away.mean())
    away.fill_diagonal_(math.inf)
    near, who = away.topk(NEIGHBOURS, largest=False)
    if typical == 0 or float(near[:, 0].mean()) > 0.25 * typical:
        return None
    half = (rows[:, None] - rows[who]).square().sum(2) / 2
    found = []
    for d, h in zip(near.chunk(BLOCKS), half.chunk(BLOCKS), strict=True):
        x, y = d.mean(0), h.mean(0)
        slope = float(((x - x.mean()) * (y - y.mean())).sum())
        spread = float((x - x.mean()).square().sum())
        found.append(float(y.mean()) - (slope / spread * float(x.mean()) if spread > 0 else 0.0))
    return found
