"""The critic's step on images (dim 64, 3 channels, 32 x 32) against the rate of a matrix product in the same run.

The step is the library's: minibatch, the generator's pass, both of the critic's and Adam. Its operations are counted
by torch (a multiplication and an addition are two). Matrix products of 1024 x 1024 in float32 are timed in between;
the ratio is their rate over the step's. Below stand what was tried to raise it: channels last, whole steps compiled,
and the exact form of the image-side transposed convolution by an ordinary one and `pixel_shuffle`.

    python benchmarks/convolutions.py [--pairs 9] [--threads 1]
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial

import torch
from bench_rows import arguments, row
from compiled_steps import Training
from torch import Tensor, nn
from torch.nn.functional import conv2d, pixel_shuffle
from torch.utils.flop_counter import FlopCounterMode
from training_step import LR, Case, critic_step, ratios

from equilibrist.networks import CIFAR10Critic, CIFAR10Generator
from equilibrist.optimizers import Adam
from equilibrist.solvers import Alternating

BOUND = 1 / 0.45
SIDE, PRODUCTS = 1024, 8
TABLE, NAME = "Convolutions", "critic's step, dim 64, 32 x 32 x 3, batch 64"
Step = Callable[[int], None]


def last(make: Callable[[], nn.Module]) -> nn.Module:
    """The network with its channels last in memory."""
    return make().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def case(generator: Callable[[], nn.Module], critic: Callable[[], nn.Module]) -> Case:
    return Case(generator, critic, 128, 64, (3, 32, 32), 0.0, 1)


PLAIN = case(lambda: CIFAR10Generator(64), lambda: CIFAR10Critic(64))
LAST = case(partial(last, PLAIN.generator), partial(last, PLAIN.critic))


def products(k: int) -> None:
    """Matrix products, `PRODUCTS` of them."""
    for _ in range(PRODUCTS):
        torch.mm(LEFT, RIGHT)


LEFT, RIGHT = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)


def operations(step: Step) -> int:
    """Floating-point operations of a step."""
    with FlopCounterMode(display=False) as counter:
        step(0)
    return int(counter.get_total_flops())


def compiled_step() -> Step:
    """A whole alternating step, compiled; and the same, eager, is its rival."""
    return Training(PLAIN, Alternating(1, Adam(LR, 0.5, 0.9))).step(compiled=True)


class Shuffled(nn.Module):
    """A transposed convolution of stride 2 as an ordinary one of four times the channels, then `pixel_shuffle`.

    Output pixel (2 i + a, 2 j + b) reads the kernel's entries of the parity of (a, b) only: four kernels of 3 x 3.
    """

    def __init__(self, layer: nn.ConvTranspose2d) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        weight = (
            self.layer.weight
        )  # [in, out, 5, 5]; out[2i + a] = sum_k x[i + 1 - k] w[2k + a - 1]
        padded = nn.functional.pad(weight, (1, 0, 1, 0))
        parts = padded.reshape(*weight.shape[:2], 3, 2, 3, 2).flip(2, 4)
        small = parts.permute(1, 3, 5, 0, 2, 4).reshape(-1, weight.shape[0], 3, 3)
        assert self.layer.bias is not None
        out = conv2d(x, small, self.layer.bias.repeat_interleave(4), padding=1)
        return pixel_shuffle(out, 2)


def image_side() -> tuple[Step, Step]:
    """The generator's last layer by both forms, forward and backward."""
    generator = CIFAR10Generator(64)
    layer = next(
        m for m in reversed(list(generator.modules())) if isinstance(m, nn.ConvTranspose2d)
    )
    shuffled = Shuffled(layer)
    x = torch.randn(64, layer.in_channels, 16, 16, requires_grad=True)
    torch.testing.assert_close(shuffled(x), layer(x), rtol=1e-4, atol=1e-4)

    def taken(module: nn.Module, k: int) -> None:
        torch.autograd.grad(module(x).square().sum(), [x, layer.weight])

    return partial(taken, shuffled), partial(taken, layer)


def main() -> int:
    options = arguments(__doc__, 9).parse_args()
    torch.set_num_threads(options.threads)
    block = Case(**{**vars(PLAIN), "steps": 2})
    step = critic_step(PLAIN, False)
    share = operations(step) / (PRODUCTS * 2 * SIDE**3)
    found, *times = ratios(block, options.pairs, step, products)
    kept = row(
        TABLE, NAME, "matrix products of 1024 x 1024, by operations",
        [ratio / share for ratio in found], BOUND, (times[0], times[1] * share),
        f"{share * PRODUCTS * 2 * SIDE**3 / times[0] / 1e6:.0f} of {PRODUCTS * 2 * SIDE**3 / times[1] / 1e6:.0f} "
        "billion operations a second",
    )  # fmt: skip
    eager = Training(PLAIN, Alternating(1, Adam(LR, 0.5, 0.9)))
    tried: dict[str, tuple[Callable[[], tuple[Step, Step]], str]] = {
        "critic's step, channels last": (
            lambda: (critic_step(LAST, False), critic_step(PLAIN, False)),
            "channels first",
        ),
        "whole step, compiled": (
            lambda: (eager.step(compiled=True), eager.step(compiled=False)),
            "our eager step",
        ),
        "image-side transposed convolution, by pixel_shuffle": (image_side, "as it is"),
    }
    for name, (pair, rival) in tried.items():
        mine, theirs = pair()
        found, *times = ratios(block, options.pairs, mine, theirs)
        row(TABLE, name, rival, found, None, (times[0], times[1]))
    return 1 if kept.missed else 0


if __name__ == "__main__":
    sys.exit(main())
