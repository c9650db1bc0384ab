"""The networks' geometry once more, in NumPy and SciPy, from TensorFlow's definition of SAME."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import convolve2d, correlate2d

Array = NDArray[np.float64]


def conv(x: Array, w: Array, b: Array, stride: int, pad: tuple[int, int]) -> Array:
    """Correlate images [B, in, n, n] with kernels [out, in, k, k], `pad` zeros before and after."""
    x = np.pad(x, ((0, 0), (0, 0), pad, pad))
    planes = [
        [sum(correlate2d(c, k, "valid") for c, k in zip(image, out, strict=True)) for out in w]
        for image in x
    ]
    return np.asarray(planes)[..., ::stride, ::stride] + b[:, None, None]


def deconv(x: Array, w: Array, b: Array, first: int) -> Array:
    """Transposed convolution of stride 2, kernels [in, out, k, k]: n pixels to 2 n.

    Zeros go between the pixels, the kernel is laid down at each, and 2 n pixels are kept from
    index `first`.
    """
    n = x.shape[-1]
    sparse = np.zeros((*x.shape[:2], 2 * n - 1, 2 * n - 1))
    sparse[..., ::2, ::2] = x
    planes = [
        [
            sum(convolve2d(c, w[i, o], "full") for i, c in enumerate(image))
            for o in range(w.shape[1])
        ]
        for image in sparse
    ]
    return np.asarray(planes)[..., first : first + 2 * n, first : first + 2 * n] + b[:, None, None]


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def leaky(x: Array) -> Array:
    return np.where(x > 0, x, 0.2 * x)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def standardise(x: Array, scale: Array, shift: Array) -> Array:
    """Batch norm over all axes but the second, with the batch's own biased variance."""
    axes = tuple(i for i in range(x.ndim) if i != 1)
    column = (-1, *[1] * (x.ndim - 2))
    mean, var = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * scale.reshape(column) + shift.reshape(column)


def grouped_conv(x: Array, w: Array, b: Array, pad: tuple[int, int], groups: int) -> Array:
    """Stride 1; kernels [out, in / groups, k, k], the channels in `groups` separate parts."""
    parts = zip(np.split(x, groups, 1), np.split(w, groups), np.split(b, groups), strict=True)
    return np.concatenate([conv(a, k, c, 1, pad) for a, k, c in parts], 1)


def lowpass(n: int) -> Array:
    """The matrix [n, 2 n] that filters with (1, 3, 3, 1) / 8 and keeps every second pixel."""
    matrix = np.zeros((n, 2 * n))
    for i in range(n):
        for j, weight in zip(range(2 * i - 1, 2 * i + 3), (1, 3, 3, 1), strict=True):
            if 0 <= j < 2 * n:
                matrix[i, j] = weight / 8
    return matrix
