"""Whether a player's weights are still as they were initialised."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

LEAST = 64  # entries of a weight, with fewer of which its law cannot be recognised
GAINS = (1.0, 2.0, 25 / 9, 2 / 1.04)  # squared: linear, ReLU, tanh, leaky ReLU (0.2)


def as_initialised(module: nn.Module, params: Mapping[str, Tensor]) -> bool:
    """Whether weights are as an initialisation leaves them, by either trace of it:

    - torch's own: every linear and convolutional weight uniform in +-1/sqrt(fan in) and filling that interval, every
      norm's scale 1 and shift 0;
    - every bias and shift exactly 0, and every weight by a law that sets them so: DCGAN's N(0, 0.02), Xavier's or
      Kaiming's, uniform or normal, or orthogonal. Norms' scales are 1, or DCGAN's N(1, 0.02).

    Training moves some entry out of the interval, or a norm's scale off 1, or a bias off 0; a few steps that are tiny
    beside the interval may not do the first. False where no such layer is found.
    """
    params = {name: value.detach() for name, value in params.items()}
    return _as_torch(module, params) or _as_drawn(module, params)


def _layers(module: nn.Module, params: Mapping[str, Tensor]) -> list[tuple[bool, Tensor, Tensor]]:
    """Every layer with a weight: whether it is linear or convolutional, weight, bias (empty where there is none)."""
    found = []
    for name, layer in module.named_modules():
        prefix = f"{name}." if name else ""
        weight, bias = params.get(f"{prefix}weight"), params.get(f"{prefix}bias")
        if weight is not None:
            maps = isinstance(layer, nn.Linear | nn.modules.conv._ConvNd)
            found.append((maps, weight, weight.new_empty(0) if bias is None else bias))
    return found


def _as_torch(module: nn.Module, params: Mapping[str, Tensor]) -> bool:
    """As torch's own layers do it."""
    evidence = 0
    for maps, weight, bias in _layers(module, params):
        if maps:
            if weight.numel() < LEAST:
                continue
            if not _uniform(weight, float(_fans(weight)[0]) ** -0.5):
                return False
            evidence += 1
        elif len(bias) and weight.ndim == 1 and not _norm(weight, bias):
            return False
    return evidence > 0


def _as_drawn(module: nn.Module, params: Mapping[str, Tensor]) -> bool:
    """By one of the laws that leave biases at 0, which no step does."""
    evidence = zeros = 0
    for maps, weight, bias in _layers(module, params):
        if len(bias) and bool((bias != 0).any()):
            return False
        zeros += len(bias)
        if not maps:
            if weight.ndim == 1 and len(bias) and not (_norm(weight, bias) or _near_one(weight)):
                return False
        elif weight.numel() >= LEAST:
            if _by_hand(weight) or not any(law(weight) for law in LAWS):
                return False
            evidence += 1
    return evidence > 0 and zeros > 0


def _by_hand(weight: Tensor) -> bool:
    """Whether entries repeat (an identity, a constant), as those of no draw do."""
    some = weight.flatten()[:1000]
    return len(some.unique()) < len(some) / 2


def _fans(weight: Tensor) -> tuple[int, int]:
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
    return int(fan_in), int(fan_out)


def _uniform(weight: Tensor, bound: float) -> bool:
    """Whether entries fill +-bound and stay in it, with a uniform law's spread, to five standard errors."""
    n = weight.numel()
    if not bound * (1 - 20 / n) <= float(weight.abs().max()) <= bound * (1 + 1e-6):
        return False
    spread = float(weight.double().square().mean()) / (bound**2 / 3)
    error: float = math.sqrt(0.8 / n)
    return abs(spread - 1) < 5 * error


def _normal(weight: Tensor, std: float) -> bool:
    """Whether entries look like N(0, std^2): mean, spread and fourth moment, to five standard errors."""
    z, n = weight.double().flatten() / std, weight.numel()
    error: float = n**-0.5
    return (
        abs(float(z.mean())) < 5 * error
        and abs(float(z.square().mean()) - 1) < 5 * math.sqrt(2) * error
        and abs(float(z.pow(4).mean()) - 3) < 5 * math.sqrt(96) * error
    )


def _orthogonal(weight: Tensor) -> bool:
    """Whether W W^T (or W^T W) is a multiple of the identity: of one row only by a usual gain, for any row is such
    a multiple."""
    w = weight.double().flatten(1)
    w = w if w.shape[0] <= w.shape[1] else w.T
    gram = w @ w.T
    gain = float(gram.diagonal().mean())
    if gain <= 0:
        return False
    off = gram / gain - torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    usual = len(w) > 1 or any(abs(gain / usual - 1) < 1e-5 for usual in GAINS)
    return usual and float(off.abs().max()) < 1e-5


def _kaiming(weight: Tensor) -> list[float]:
    """Variances of Kaiming's laws: gains of ReLU, leaky ReLU (0.2) and a linear layer, either fan."""
    return [gain / fan for fan in _fans(weight) for gain in (2.0, 2 / 1.04, 1.0)]


def _xavier(weight: Tensor) -> list[float]:
    return [gain * 2 / sum(_fans(weight)) for gain in GAINS]


LAWS: tuple[Callable[[Tensor], bool], ...] = (
    lambda w: _normal(w, 0.02),
    lambda w: any(_normal(w, v**0.5) for v in (*_xavier(w), *_kaiming(w))),
    lambda w: any(_uniform(w, (3 * v) ** 0.5) for v in (*_xavier(w), *_kaiming(w))),
    _orthogonal,
)


def _norm(weight: Tensor, bias: Tensor) -> bool:
    """Whether a norm's scale is exactly 1 and its shift exactly 0."""
    return bool((weight == 1).all()) and bool((bias == 0).all())


def _near_one(weight: Tensor) -> bool:
    """Whether a norm's scales look like DCGAN's N(1, 0.02)."""
    return len(weight) > 1 and _normal(weight - 1, 0.02)
