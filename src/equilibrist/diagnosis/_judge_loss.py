"""Whether the loop's loss is the declared one: what its backward passes send into the critic's scores."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from scipy import optimize
from torch import Tensor

from equilibrist.diagnosis._calls import FAKE, GENERATOR, REAL, Call, slopes_of
from equilibrist.diagnosis._explain import Explained
from equilibrist.diagnosis._recorder import Recorder
from equilibrist.diagnosis._seen import CRITIC
from equilibrist.findings import Finding
from equilibrist.formulations import WGAN, Formulation, Hinge, LeastSquares, Vanilla

LEAST = 3
SHARE = 0.8
CLEAR = 0.3  # of the received slopes: what no sum of declared ones explains
FITS = 2e-3  # another loss that explains all but this is the loop's
MOST = 0.8  # of a batch's scores that a loss must move, to be compared (the best k of a batch are a choice)
FUNCTION = 0.9  # of the slopes' variation that must be a function of the score
CUT = 1e-8  # of p (1 - p): probabilities whose logarithms are rounded away, or cut off
NEAR = 1e-3  # of the received slopes: less is rounding
NAMED: tuple[tuple[str, Formulation], ...] = (
    ("vanilla", Vanilla()),
    ("hinge", Hinge()),
    ("least squares to 1 and 0", LeastSquares(1, 0, 1)),
    ("least squares to 1 and -1", LeastSquares(1, -1, 1)),
    ("WGAN", WGAN()),
)
BOUNDS: tuple[tuple[str, Callable[[Tensor], Tensor]], ...] = (
    ("tanh", torch.tanh),
    ("sigmoid", torch.sigmoid),
)


@dataclass
class Misfit:
    """How far the slopes that reach a batch's scores are from the declared ones.

    Attributes:
        size: |what no sum of declared terms with positive coefficients explains| / |slopes|.
        function: the share of the slopes' variation that is a smooth function of the score.
        named: other losses whose term explains them.
        varied: whether scores vary enough to tell losses apart.
    """

    size: float
    function: float
    named: frozenset[str]
    varied: bool


def judge_loss(recorder: Recorder, by: dict[str, list[Explained]]) -> list[Finding]:
    """Findings about the loss itself.

    A weight, smoothed or flipped labels leave the received slopes a sum of declared ones with positive coefficients.
    Of a declared loss of pairs, whose slopes need the partner of each score, only losses of single scores are looked
    for in its place.
    """
    if recorder.loss is None:
        return []
    found = []
    for role in recorder.sides:
        steps = by.get(role, [])
        misfits = [
            m for e in steps for m in _misfits(recorder.loss, e, role, recorder.columns.separable)
        ]
        if len(misfits) < LEAST:
            continue
        finding = _finding(recorder, role, misfits)
        if finding is not None:
            found.append(finding)
    return found


def _finding(recorder: Recorder, role: str, misfits: Sequence[Misfit]) -> Finding | None:
    name = recorder.sides[role].name
    telling = [m for m in misfits if m.varied or m.named]
    off = [m for m in telling if m.size > NEAR]
    if len(telling) >= LEAST and len(off) >= SHARE * len(telling):
        others = frozenset.intersection(*(m.named for m in off))
        if others:
            other = min(others)
            what = (
                f"the declared one of {other}(scores), not of the scores"
                if other in dict(BOUNDS)
                else f"the {other} loss, not the declared one"
            )
            return Finding(
                "wrong-loss",
                f"{name}'s loss",
                f"The loop's loss of the {name} is {what}: its slopes "
                "at the critic's scores "
                "are exactly those, and differ from the declared ones by "
                f"{statistics.median(m.size for m in off):.0%}.",
                evidence={"loss": other, "difference": statistics.median(m.size for m in off)},
            )
    if not recorder.columns.separable:
        return None
    far = [m for m in misfits if m.size > CLEAR and m.function > FUNCTION]
    if len(far) < LEAST or len(far) < SHARE * len(misfits):
        return None
    size = statistics.median(m.size for m in far)
    return Finding(
        "wrong-loss",
        f"{name}'s loss",
        f"The loop's loss of the {name} is not the declared one: the slopes that it sends into the "
        "critic's scores are a "
        f"function of the score, and differ from any sum of the declared terms by {size:.0%}.",
        sure="likely",
        evidence={"difference": size, "function": statistics.median(m.function for m in far)},
    )


def _misfits(loss: Formulation, e: Explained, role: str, separable: bool) -> Iterator[Misfit]:
    kinds = [
        (e.kinds[i] if i < len(e.kinds) else "")
        if role == CRITIC
        else (GENERATOR if call.linked else "")
        for i, call in enumerate(e.step.calls)
    ]
    apart = any(k == FAKE and not c.linked for c, k in zip(e.step.calls, kinds, strict=True))
    for call, kind in zip(e.step.calls, kinds, strict=True):
        if role == CRITIC and apart and call.linked:
            continue  # the generator's own call
        if not kind or not call.received or call.lowered or kind not in call.slopes:
            continue
        declared = [_flat(call.slopes[r]) for r in (REAL, FAKE, GENERATOR) if r in call.slopes]
        if not separable:
            partner = _partner(e.step.calls, kinds, call, kind)
            if partner is None:
                continue
            declared = [_flat(slopes_of(loss, kind, call.scores[0], partner))]
        found = _misfit(loss, call, kind, declared, -1.0 if e.step.turned else 1.0)
        if found is not None:
            yield found


def _partner(calls: Sequence[Call], kinds: Sequence[str], call: Call, kind: str) -> Tensor | None:
    """Scores of the other kind in the same step, of which a loss of pairs is made."""
    shape = call.scores[0].shape
    return next(
        (
            other.scores[0]
            for other, its in zip(reversed(calls), reversed(kinds), strict=True)
            if its != kind and (its or kind == GENERATOR) and other.scores[0].shape == shape
        ),
        None,
    )


def _misfit(
    loss: Formulation, call: Call, kind: str, declared: Sequence[Tensor], sign: float
) -> Misfit | None:
    # A call may have had several backward passes: the one that fits best is this player's.
    scores = call.scores[0].reshape(-1).cpu()
    distinct = _distinct(loss, scores)
    if not bool(distinct.any()):
        return None
    scores, declared = scores[distinct], [slopes[distinct] for slopes in declared]
    best: tuple[float, Tensor] | None = None
    for received in call.received:
        got = sign * _flat(received)
        got = got[distinct] if got.numel() == distinct.numel() else got
        if got.numel() == scores.numel() and float((got != 0).double().mean()) > MOST:
            size = _left_over(got, declared)
            if best is None or size < best[0]:
                best = size, got
    if best is None:
        return None
    size, got = best
    if size <= NEAR:
        return Misfit(size, 0.0, frozenset(), True)
    others = {name: _flat(slopes_of(other, kind, scores, scores)) for name, other in NAMED}
    others |= {name: _bounded(loss, kind, scores, bound) for name, bound in BOUNDS}
    exact = min(FITS, size / 10)
    named = frozenset(name for name, slopes in others.items() if _left_over(got, [slopes]) < exact)
    return Misfit(size, _as_function(scores.double(), got), named, _varied(loss, kind, call))


def _distinct(loss: Formulation, scores: Tensor) -> Tensor:
    """Scores whose slopes are not rounded away: torch's loss of probabilities is cut off where they are 0 or 1."""
    if not (isinstance(loss, Vanilla) and loss.probabilities):
        return torch.ones_like(scores, dtype=torch.bool)
    p = scores.double()
    return p * (1 - p) > CUT


def _bounded(
    loss: Formulation, kind: str, scores: Tensor, bound: Callable[[Tensor], Tensor]
) -> Tensor:
    """Slopes at the scores of a loss that is given a bounded function of them."""
    with torch.enable_grad():
        leaf = scores.detach().double().requires_grad_()
        inside = bound(leaf)
        outer = slopes_of(loss, kind, inside.detach(), inside.detach())
        (found,) = torch.autograd.grad(inside, leaf, outer)
    return _flat(found)


def _flat(t: Tensor) -> Tensor:
    return t.detach().cpu().double().reshape(-1)


def _left_over(got: Tensor, columns: Sequence[Tensor]) -> float:
    """Of non-negative least squares."""
    x = torch.stack(list(columns), dim=1).numpy()
    scale = float(got.norm())
    _, rest = optimize.nnls(x / scale, got.numpy() / scale)
    return float(rest)


def _varied(loss: Formulation, kind: str, call: Call) -> bool:
    """Whether the named losses differ here."""
    scores = call.scores[0].reshape(-1)
    mine = _flat(slopes_of(loss, kind, scores, scores))
    others = [_flat(slopes_of(other, kind, scores, scores)) for _, other in NAMED]
    apart = [_left_over(o, [mine]) if o.any() and mine.any() else 1.0 for o in others]
    return sum(a > 10 * FITS for a in apart) >= len(NAMED) - 2


def _as_function(scores: Tensor, slopes: Tensor) -> float:
    """The share of the slopes' variation that neighbours in score share: 1 for a smooth function."""
    y = slopes[scores.argsort()]
    if len(y) < 8:
        return 0.0
    total = float((y - y.mean()).square().mean())
    if total < 1e-12 * float(y.square().mean()):
        return 1.0
    # A value less the mean of its neighbours has 1.5 times the variance of noise.
    rest = float((y[1:-1] - (y[2:] + y[:-2]) / 2).square().mean())
    return max(0.0, 1 - rest / total / 1.5)
