from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.func import functional_call, vmap

from equilibrist.networks._layers import GlorotLinear, SameConv2d, SameConvTranspose2d

F64 = {"dtype": torch.float64}
# (pixels, kernel, stride): zeros that TensorFlow's SAME puts before and after, worked out by hand
SAME = {
    (28, 5, 2): (1, 2),
    (14, 5, 2): (1, 2),
    (7, 5, 2): (2, 2),
    (8, 4, 2): (1, 1),
    (8, 3, 1): (1, 1),
    (5, 4, 2): (1, 2),
    (6, 1, 2): (0, 0),
}


@pytest.mark.parametrize(("geometry", "pad"), SAME.items())
def test_conv_sums_the_pixels_that_same_says(
    geometry: tuple[int, int, int], pad: tuple[int, int]
) -> None:
    n, k, s = geometry
    layer = SameConv2d(2, 3, k, s, **F64)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(1, 2, n, n, **F64)
    m = -(-n // s)
    expected = layer.bias.detach()[:, None, None].repeat(1, m, m)
    for i, j, a, b in itertools.product(range(m), range(m), range(k), range(k)):
        row, column = s * i + a - pad[0], s * j + b - pad[0]
        if 0 <= row < n and 0 <= column < n:
            expected[:, i, j] += layer.weight.detach()[:, :, a, b] @ x[0, :, row, column]
    torch.testing.assert_close(layer(x)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("n", [4, 7])
def test_conv_pads_height_and_width_separately(n: int) -> None:
    layer = SameConv2d(1, 1, **F64)
    x = torch.randn(1, 1, n, n + 1, **F64)
    turned = SameConv2d(1, 1, **F64)
    turned.load_state_dict({"weight": layer.weight.mT, "bias": layer.bias})
    torch.testing.assert_close(layer(x), turned(x.mT).mT, rtol=0, atol=1e-12)
    assert layer(x).shape == (1, 1, (n + 1) // 2, (n + 2) // 2)


@pytest.mark.parametrize(
    ("n", "k", "s", "before"),
    [(4, 5, 2, 1), (7, 5, 2, 1), (4, 4, 2, 1), (3, 3, 1, 1), (3, 5, 3, 1), (3, 2, 2, 0)],
)
def test_transposed_conv_lays_kernels_down(n: int, k: int, s: int, before: int) -> None:
    layer = SameConvTranspose2d(2, 3, k, s, **F64)
    torch.nn.init.normal_(layer.bias)
    x = torch.randn(1, 2, n, n, **F64)
    expected = layer.bias.detach()[:, None, None].repeat(1, s * n, s * n)
    for i, j, a, b in itertools.product(range(n), range(n), range(k), range(k)):
        row, column = s * i + a - before, s * j + b - before
        if 0 <= row < s * n and 0 <= column < s * n:
            expected[:, row, column] += x[0, :, i, j] @ layer.weight.detach()[:, :, a, b]
    torch.testing.assert_close(layer(x)[0], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n", "k", "s"), [(4, 5, 2), (7, 5, 2), (4, 4, 2), (5, 3, 1)])
def test_transposed_conv_is_the_adjoint(n: int, k: int, s: int) -> None:
    up, down = SameConvTranspose2d(3, 2, k, s, **F64), SameConv2d(2, 3, k, s, **F64)
    down.weight.data = up.weight.data
    x, y = torch.randn(1, 2, s * n, s * n, **F64), torch.randn(1, 3, n, n, **F64)
    left, right = (down(x) * y).sum().detach(), (x * up(y)).sum().detach()
    assert abs(float(left - right)) < 1e-11 * float(left.abs().clamp(min=1))


def test_transposed_conv_refuses_gaps_and_other_sizes() -> None:
    with pytest.raises(ValueError, match="kernel_size 1 is smaller than stride 2"):
        SameConvTranspose2d(1, 1, 1, 2)
    with pytest.raises(ValueError, match="always multiplies"):
        SameConvTranspose2d(1, 1)(torch.zeros(1, 1, 2, 2), [4, 4])


@pytest.mark.parametrize(
    ("layer", "variance"),
    [
        (lambda: GlorotLinear(128, 4096), 2 / (128 + 4096)),
        (lambda: SameConv2d(64, 128), 4 / (25 * 64 + 25 * 128 / 4)),
        (lambda: SameConv2d(128, 256, 3, 1), 4 / (9 * 128 + 9 * 256)),
        (lambda: SameConvTranspose2d(256, 128), 4 / (25 * 256 / 4 + 25 * 128)),
        (lambda: SameConvTranspose2d(64, 128, 4, 2), 4 / (16 * 64 / 4 + 16 * 128)),
    ],
)
def test_initialisation(layer: type[GlorotLinear], variance: float) -> None:
    made = layer()
    w = made.weight.detach().double()
    bound = float(np.sqrt(3 * variance))
    assert float(w.var()) == pytest.approx(variance, rel=0.02)
    # A normal or truncated law of the same variance has another fourth moment and another edge.
    assert float(w.pow(4).mean()) == pytest.approx(9 / 5 * variance**2, rel=0.03)
    assert abs(float(w.mean())) < 5 * (variance / w.numel()) ** 0.5
    assert 0.999 * bound < float(w.max()) <= bound * (1 + 1e-6)
    assert -0.999 * bound > float(w.min()) >= -bound * (1 + 1e-6)
    assert not made.bias.detach().any()


def test_initialisation_follows_the_seed() -> None:
    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return SameConv2d(1, 2).weight.detach()

    assert torch.equal(draw(3), draw(3))
    assert not torch.equal(draw(3), draw(4))


LAYERS = [
    (lambda: SameConv2d(2, 3, **F64), 4),
    (lambda: SameConv2d(2, 3, **F64), 5),
    (lambda: SameConvTranspose2d(2, 1, **F64), 3),
]


@pytest.mark.parametrize(("make", "n"), LAYERS)
def test_vmap_over_weights_equals_the_loop(make: type[SameConv2d], n: int) -> None:
    layers = [make() for _ in range(3)]
    x = torch.randn(3, 2, 2, n, n, **F64)
    stacked = {
        name: torch.stack([dict(layer.named_parameters())[name] for layer in layers])
        for name in ("weight", "bias")
    }
    out = vmap(lambda p, x: functional_call(layers[0], p, (x,)))(stacked, x)
    loop = torch.stack([layer(x[i]) for i, layer in enumerate(layers)])
    torch.testing.assert_close(out, loop, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("make", "n"), LAYERS)
def test_first_and_second_derivatives(make: type[SameConv2d], n: int) -> None:
    layer = make()
    x = torch.randn(1, 2, n, n, **F64, requires_grad=True)

    def apply(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    inputs = (x, layer.weight, layer.bias)
    assert torch.autograd.gradcheck(apply, inputs)
    assert torch.autograd.gradgradcheck(apply, inputs)
