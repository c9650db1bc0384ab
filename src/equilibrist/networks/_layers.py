"""Layers shared by the image networks: "SAME" convolutions and the uniform initialisation.

"SAME" is TensorFlow's padding, in which the reference networks are written: a convolution of stride
s maps n pixels to ceil(n / s), and an odd amount of padding puts the extra pixel at the end.
PyTorch pads both ends alike, which would shift every image by a pixel per layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, pad

Device = torch.device | str | None


class Placement(TypedDict):
    """Where and in which precision parameters are made."""

    device: Device
    dtype: torch.dtype | None


def check_shape(owner: nn.Module, what: str, value: Tensor, tail: Sequence[int]) -> None:
    """Raise `ValueError` unless `value` has shape [batch, *tail]."""
    if value.ndim != 1 + len(tail) or value.shape[1:] != tuple(tail):
        expected = ", ".join(["batch", *map(str, tail)])
        raise ValueError(
            f"{type(owner).__name__} expects {what} of shape [{expected}], got {list(value.shape)}"
        )


def check_counts(owner: nn.Module, least: int = 1, **counts: int) -> None:
    """Raise `ValueError` unless each count is at least that many."""
    for name, count in counts.items():
        if count < least:
            raise ValueError(f"{type(owner).__name__}.{name} must be at least {least}, not {count}")


def batch_statistics(
    layer: type[nn.BatchNorm1d | nn.BatchNorm2d], features: int, wanted: bool, kind: Placement
) -> nn.Module:
    """Batch norm that keeps no running estimate; nothing where it is not wanted."""
    return layer(features, track_running_stats=False, **kind) if wanted else nn.Identity()


def scaled_uniform_(weight: Tensor, std: float) -> None:
    """Fill `weight` from U(-sqrt(3) std, sqrt(3) std), which has standard deviation `std`."""
    bound = 3**0.5 * std
    nn.init.uniform_(weight, -bound, bound)


class GlorotLinear(nn.Linear):
    """Affine map with weights of standard deviation sqrt(2 / (in + out)) and zero biases.

    The weights are uniform (Glorot and Bengio, AISTATS 2010).
    """

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's default generator."""
        scaled_uniform_(self.weight, (2 / (self.in_features + self.out_features)) ** 0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class SameConv2d(nn.Conv2d):
    """Square convolution with bias and SAME padding: [B, in, n, n] -> [B, out, m, m].

    m = ceil(n / s); p = max((m - 1) s + k - n, 0) zeros are added, floor(p / 2) of them in front:
    for k = 5, s = 2 that is (1, 2) for even n and (2, 2) for odd n. Weights are uniform with
    variance 4 / (k^2 in + k^2 out / s^2), the stride dividing the number of outputs that one input
    feeds; biases are zero.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 5,
        stride: int = 2,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's default generator."""
        k, s = self.kernel_size[0], self.stride[0]
        fans = k * k * self.in_channels + k * k * self.out_channels / s**2
        scaled_uniform_(self.weight, (4 / fans) ** 0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """[B, in, n, n] -> [B, out, ceil(n / s), ceil(n / s)]."""
        k, s = self.kernel_size[0], self.stride[0]
        top, bottom = _same_padding(input.shape[-2], k, s)
        left, right = _same_padding(input.shape[-1], k, s)
        if top == bottom and left == right:  # the convolution pads by itself, without a copy
            return conv2d(input, self.weight, self.bias, s, (top, left))
        padded = pad(input, (left, right, top, bottom))
        return conv2d(padded, self.weight, self.bias, s)


class SameConvTranspose2d(nn.ConvTranspose2d):
    """Square transposed convolution with bias: [B, in, n, n] -> [B, out, s n, s n].

    The adjoint, up to the bias, of the `SameConv2d` from s n to n pixels with the same kernel. For
    k = 5, s = 2: an ordinary transposed convolution of padding 1, less its last row and column.
    Weights are uniform with variance 4 / (k^2 in / s^2 + k^2 out); biases are zero.

    (For few output channels a convolution followed by `pixel_shuffle` gives the same numbers. It
    halves the forward pass of that layer on a CPU, but a generator's whole step gained under 3%
    and wide layers lost, so it is not used.)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 5,
        stride: int = 2,
        *,
        device: Device = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if kernel_size < stride:
            raise ValueError(f"kernel_size {kernel_size} is smaller than stride {stride}")
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=(kernel_size - stride) // 2,
            device=device,
            dtype=dtype,
        )

    def reset_parameters(self) -> None:
        """Draw the weights anew from torch's default generator."""
        k, s = self.kernel_size[0], self.stride[0]
        fans = k * k * self.in_channels / s**2 + k * k * self.out_channels
        scaled_uniform_(self.weight, (4 / fans) ** 0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, in, n, n] -> [B, out, s n, s n]; `output_size` must stay None."""
        if output_size is not None:
            raise ValueError("SameConvTranspose2d always multiplies the size by its stride")
        s, p = self.stride[0], int(self.padding[0])
        out = conv_transpose2d(input, self.weight, self.bias, s, p)
        return out[..., : s * input.shape[-2], : s * input.shape[-1]]


def _same_padding(n: int, kernel_size: int, stride: int) -> tuple[int, int]:
    total = max((-(-n // stride) - 1) * stride + kernel_size - n, 0)
    return total // 2, total - total // 2


def doublings(owner: nn.Module, size: int) -> int:
    """How often 4 pixels must be doubled to give `size`: at least once."""
    if size < 8 or size & (size - 1):
        raise ValueError(
            f"{type(owner).__name__}.size must be a power of two, at least 8, not {size}"
        )
    return size.bit_length() - 3
