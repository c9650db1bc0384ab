"""Findings from what the critic was shown: range and precision of real and generated samples, and what alters them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from equilibrist.certificates import Json
from equilibrist.diagnosis._alterations import LEAST, ROWS, judge_alterations
from equilibrist.diagnosis._calls import FAKE, REAL, Call
from equilibrist.diagnosis._explain import Explained
from equilibrist.diagnosis._recorder import Recorder
from equilibrist.diagnosis._seen import CRITIC
from equilibrist.findings import Finding
from equilibrist.nn.wrapped import unwrapped

BOUNDS: dict[type[nn.Module], tuple[float, float]] = {
    nn.Tanh: (-1.0, 1.0),
    nn.Sigmoid: (0.0, 1.0),
    nn.Hardtanh: (-1.0, 1.0),
    nn.Hardsigmoid: (0.0, 1.0),
    nn.Softsign: (-1.0, 1.0),
    nn.ReLU: (0.0, math.inf),
    nn.Softplus: (0.0, math.inf),
}
ENDS = {  # functions of torch
    "Tanh": (-1.0, 1.0),
    "Sigmoid": (0.0, 1.0),
    "Softmax": (0.0, 1.0),
    "Relu": (0.0, math.inf),
    "Softplus": (0.0, math.inf),
    "Exp": (0.0, math.inf),
    "Abs": (0.0, math.inf),
}
MANY = 500  # different values, from which data are not quantised by themselves
FAR = 30.0  # ratio of scales that no training bridges


def judge_data(
    recorder: Recorder, by: dict[str, list[Explained]], real: Tensor | None, train: Tensor | None
) -> list[Finding]:
    """All findings of this kind; `real` and `train` are real samples as the generated ones are meant to be."""
    shown = _shown(recorder, by.get(CRITIC, []))
    if not shown[REAL] or not shown[FAKE]:
        return []
    rows = {kind: _rows(call.samples for call in calls) for kind, calls in shown.items()}
    if min(map(len, rows.values())) < LEAST or rows[REAL].shape[1:] != rows[FAKE].shape[1:]:
        return []
    given = [t for t in (train, real) if t is not None and t.shape[1:] == rows[REAL].shape[1:]]
    found = _precision(shown, rows, given[-1] if given else None)
    # Where the data fit the generator's range and what the critic is shown does not, it was altered on the way.
    plain = {**rows, REAL: given[0].detach().float().cpu()} if given else rows
    ranges = _range(recorder, plain)
    if not ranges and not given:
        return found
    return found + (ranges or judge_alterations(recorder, shown, rows, real, train))


def _shown(recorder: Recorder, explained: Sequence[Explained]) -> dict[str, list[Call]]:
    found: dict[str, list[Call]] = {REAL: [], FAKE: []}
    by = {id(e.step): e for e in explained}
    usual: Explained | None = None
    for step in recorder.steps:
        e = by.get(id(step))
        if e is None and (step.player != CRITIC or usual is None or step.problem is None):
            continue
        usual = e = e or usual  # a step that was not compared goes like the one before
        assert e is not None
        if len(step.calls) != len(e.kinds):
            continue
        for i, (kind, call) in enumerate(zip(e.kinds, step.calls, strict=True)):
            # A second pass for a penalty on slopes is no batch that a loss is taken of, whatever it fits.
            again = call.asked and not call.kind and kind == FAKE
            mine = kind == FAKE and call.linked and call.kind
            if kind in found and i in e.used and not mine and not again:
                found[kind].append(call)
    return found


def _rows(batches: Iterable[Tensor]) -> Tensor:
    held: list[Tensor] = []
    shape = None
    for batch in batches:
        if not batch.is_floating_point() or (shape is not None and batch.shape[1:] != shape):
            continue
        shape = batch.shape[1:]
        held.append(batch.to("cpu", torch.float32))
        if sum(map(len, held)) >= ROWS:
            break
    return torch.cat(held)[:ROWS] if held else torch.zeros(0)


# -- precision -------------------------------------------------------------------------------------


def _precision(
    shown: dict[str, list[Call]], rows: dict[str, Tensor], plain: Tensor | None
) -> list[Finding]:
    dtypes = {
        kind: {c.samples.dtype for c in calls if not c.lowered} for kind, calls in shown.items()
    }
    if dtypes[REAL] and dtypes[FAKE] and not dtypes[REAL] & dtypes[FAKE]:
        names = {k: "/".join(str(d).removeprefix("torch.") for d in v) for k, v in dtypes.items()}
        return [_precision_finding(f"in {names[REAL]}", f"in {names[FAKE]}", names)]
    coarse = {kind: _grid(r, plain) for kind, r in rows.items()}
    if bool(coarse[REAL]) == bool(coarse[FAKE]) or any(
        c.lowered for v in shown.values() for c in v
    ):
        return []
    kind = REAL if coarse[REAL] else FAKE
    words = {
        REAL: "at full precision",
        FAKE: "at full precision",
        kind: f"rounded to {coarse[kind]}",
    }
    return [_precision_finding(words[REAL], words[FAKE], words)]


def _grid(rows: Tensor, plain: Tensor | None) -> str:
    """The half precision on whose grid all values lie, though they are many, or real ones have many more."""
    flat = rows.flatten()
    if len(flat.unique()) < MANY:
        # Few values, such as pixels of 8 bits or categories, unless those that nobody altered lie between them.
        if plain is None or not plain.is_floating_point():
            return ""
        sample = plain.detach().flatten()[: flat.numel()].to("cpu", torch.float32)
        if len(sample.unique()) < MANY:
            return ""
    for dtype in (torch.bfloat16, torch.float16):
        if torch.equal(flat.to(dtype).float(), flat):
            return str(dtype).removeprefix("torch.")
    return ""


def _precision_finding(real: str, fake: str, evidence: Json) -> Finding:
    return Finding(
        "dtype-mismatch",
        "real and generated samples",
        f"Real samples reach the critic {real}, generated ones {fake}: it can tell them by rounding alone.",
        evidence=dict(evidence),
    )


# -- range -----------------------------------------------------------------------------------------


def _range(recorder: Recorder, rows: dict[str, Tensor]) -> list[Finding]:
    generator = next((s for s in recorder.sides.values() if s.role != CRITIC), None)
    if generator is None:
        return []
    real, fake = rows[REAL], rows[FAKE]
    evidence: Json = {
        "real": [float(real.min()), float(real.max())],
        "generated": [float(fake.min()), float(fake.max())],
    }
    seen = f"[{real.min():.3g}, {real.max():.3g}]"
    bounds = _bounds(generator.modules) or ENDS.get(recorder.generated.end)
    if bounds is not None and not _is_rescaled(fake, bounds):
        low, high = bounds
        slack = 0.02 * (high - low if math.isfinite(high) else float(real.std()))
        outside = ((real < low - slack) | (real > high + slack)).float().mean()
        astray = ((fake < low - slack) | (fake > high + slack)).float().mean()
        evidence |= {"attainable": [low, high], "outside": float(outside)}
        where = f"the generator's last layer can only make [{low:g}, {high:g}]"
        if outside > 0.01 and astray < outside / 2:
            text = f"Real samples lie in {seen}, {where}: {outside:.0%} of their entries are out of reach."
            return [_range_finding(text, "certain", evidence)]
        if (
            math.isfinite(high)
            and low < 0 <= float(real.min()) + slack
            and 0.5 < float(real.max()) <= high + slack
        ):
            text = f"Real samples lie in {seen}, {where}: they fill the upper half of it alone."
            return [_range_finding(text, "likely", evidence)]
        return []
    scales = [float(r.abs().mean()) for r in (real, fake)]
    if float(real.abs().max()) > 20 and scales[0] > FAR * scales[1]:
        text = (
            f"Real samples lie in {seen}, generated ones in [{fake.min():.3g}, {fake.max():.3g}]: "
            "their scales differ by a "
            f"factor of {scales[0] / max(scales[1], 1e-12):.0f}."
        )
        return [_range_finding(text, "likely", evidence)]
    return []


def _range_finding(text: str, sure: str, evidence: Json) -> Finding:
    return Finding(
        "range-mismatch", "real and generated samples", text, sure=sure, evidence=evidence
    )


def _bounds(modules: Sequence[nn.Module]) -> tuple[float, float] | None:
    """What the generator's last layer can make."""
    leaves = [
        m for module in modules for m in unwrapped(module).modules() if not list(m.children())
    ]
    shapes = (nn.Flatten, nn.Unflatten, nn.Identity, nn.Upsample, nn.PixelShuffle)
    last = next((m for m in reversed(leaves) if not isinstance(m, shapes)), None)
    return BOUNDS.get(type(last)) if last is not None else None


def _is_rescaled(fake: Tensor, bounds: tuple[float, float]) -> bool:
    """Whether generated samples leave the last layer's range on the way to the critic."""
    low, high = bounds
    return bool(
        (fake < low - 0.5).float().mean() > 0.01 or (fake > high + 0.5).float().mean() > 0.01
    )
