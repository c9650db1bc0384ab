"""Whether a loop maps what its generator makes on purpose: where `sample` does the same, and data are alike."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from equilibrist.diagnosis._untouched import untouched
from equilibrist.diagnosis.loop import Loop, first_of, modules_of
from equilibrist.findings import Finding
from equilibrist.nn.wrapped import unwrapped

ALTERED = ("normalization-mismatch", "augmentation-mismatch")
ROWS = 256
EXACT = 0.02  # of the spread: what an affine map of the generator's output leaves over
ALIKE = 0.05  # relative: two scales that are one


class Frame(NamedTuple):
    """From the generator's output to a sample: an affine map, or another one."""

    scale: float
    shift: float
    mapped: bool


def without_the_frame(found: list[Finding], loop: Loop, generator: str, seed: int) -> list[Finding]:
    """Findings without those of a map between the generator's output and the critic that belongs to the samples.

    A generator's output may be scaled outside the module. Where `sample`, which makes samples as they are compared with
    the data, scales it in the same way and thereby brings it nearer to the data's spread, the critic is shown
    samples in the data's own units. It may have its last activation there too, as the softmax of a table's
    categories: where `sample` makes such samples as well, they are what the loop generates.

    Args:
        found: findings of a wiring check.
        loop: the loop that was run.
        generator: its generator's name.
        seed: of the random states in which `sample` is called.

    Returns:
        The findings that remain.
    """
    doubtful = [f for f in found if f.name in ALTERED and _generated(f)]
    frame = _frame(loop, generator, seed) if doubtful else None
    if frame is None:
        return found
    return [f for f in found if f not in doubtful or not _belongs(f, frame)]


def _generated(finding: Finding) -> dict[str, object]:
    """What was found of generated samples, where they are scaled and real ones are shown as they are."""
    real, made = finding.evidence.get("real"), finding.evidence.get("generated")
    if not isinstance(real, dict) or not isinstance(made, dict):
        return {}
    return made if "scale" not in real and "scale" in made else {}


def _belongs(finding: Finding, frame: Frame) -> bool:
    """Whether `sample` does what was found to be done to generated samples."""
    made: dict[str, Any] = _generated(finding)
    mapped = float(made.get("altered", 0.0)) > EXACT
    if mapped or frame.mapped:
        return mapped and frame.mapped
    near = ALIKE * max(abs(frame.scale), 1e-12)
    return (
        abs(float(made["scale"]) - frame.scale) < near
        and abs(float(made["shift"]) - frame.shift) < near
    )


def _frame(loop: Loop, generator: str, seed: int) -> Frame | None:
    """What lies between generator and sample; None where that is a scale that makes samples less like the data."""
    if loop.sample is None or loop.held_out is None:
        return None
    outputs: list[Tensor] = []

    def keep_output(_: object, __: object, output: object) -> None:
        if isinstance(output, Tensor):
            outputs.append(output.detach())

    hooks = [
        unwrapped(m).register_forward_hook(keep_output) for m in modules_of(loop.players[generator])
    ]
    try:
        with untouched(seed, 0), torch.no_grad():
            made = first_of(loop.sample(ROWS)).detach()
    except Exception:  # a user's own sample() may fail in any way: then nothing is known
        return None
    finally:
        for hook in hooks:
            hook.remove()
    source = [o for o in outputs if o.shape == made.shape]
    if len(source) != 1:
        return None
    if not bool(torch.isfinite(made).all()):  # training has failed since: is it the output itself?
        same = made.data_ptr() == source[0].data_ptr()
        return None if same else Frame(1.0, 0.0, True)
    x, y, data = (t.double().flatten() for t in (source[0], made, loop.held_out))
    spread = float(x.std())
    if not spread > 0:
        return None
    scale = float(((x - x.mean()) * (y - y.mean())).mean() / x.var())
    shift = float(y.mean() - scale * x.mean())
    mapped = float((y - scale * x - shift).std()) > EXACT * spread
    if not mapped and _gap(y, data) >= _gap(x, data):
        return None
    return Frame(scale, shift, mapped)


def _gap(samples: Tensor, data: Tensor) -> float:
    """How far means and spreads lie apart, over the data's spread."""
    apart = (samples.mean() - data.mean()).abs() + (samples.std() - data.std()).abs()
    return float(apart / data.std().clamp_min(1e-12))
