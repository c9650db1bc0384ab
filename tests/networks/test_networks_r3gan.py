from __future__ import annotations

from collections.abc import Callable

import networks_reference as ref
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from equilibrist.networks import R3GANCritic, R3GANGenerator
from equilibrist.networks.r3gan import R3Block, downsampled, upsampled

F64 = {"dtype": torch.float64}
META = {"device": "meta"}
Scramble = Callable[[nn.Module], nn.Module]


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("conditions", [0, 7])
@pytest.mark.parametrize(("pixels", "stages"), [(8, 2), (32, 4), (64, 5)])
def test_parameter_counts(pixels: int, stages: int, conditions: int) -> None:
    width, latent, blocks, expansion, group, channels = 6, 5, 3, 2, 4, 1
    inner = expansion * width
    block = width * inner + inner + 9 * inner * group + inner + inner * width
    inputs = latent * 2 if conditions else latent
    g = inputs * width + 16 * width + stages * blocks * block + width * channels
    g += conditions * latent
    outputs = width if conditions else 1
    d = channels * width + stages * blocks * block + 16 * width + width * outputs
    d += conditions * width
    rest = (blocks, expansion, group, channels, conditions)
    assert size(R3GANGenerator(pixels, width, latent, *rest, **META)) == g
    assert size(R3GANCritic(pixels, width, *rest, **META)) == d
    S, e = stages * blocks, expansion
    shared = S * (2 * e * width**2 + 9 * e * width * group + 2 * e * width)
    assert g == width * (inputs + 16 + channels) + shared + conditions * latent
    labels = width * (width - 1 + conditions) if conditions else 0
    assert d == width * (channels + 17) + shared + labels


def test_documented_sizes() -> None:
    assert size(R3GANGenerator(**META)) == 285_888
    assert size(R3GANCritic(**META)) == 281_856


@pytest.mark.parametrize("n", [1, 2, 5])
def test_resampling_against_the_filter_as_a_matrix(n: int) -> None:
    down = torch.from_numpy(ref.lowpass(n))
    x, h = torch.randn(2, 3, 2 * n, 2 * n, **F64), torch.randn(2, 3, n, n, **F64)
    torch.testing.assert_close(downsampled(x), down @ x @ down.mT, rtol=0, atol=1e-14)
    torch.testing.assert_close(upsampled(h), 4 * down.mT @ h @ down, rtol=0, atol=1e-14)


def test_upsampling_is_bilinear_inside() -> None:
    h = torch.randn(1, 1, 6, 6, **F64)
    torch_version = interpolate(h, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(
        upsampled(h)[..., 1:-1, 1:-1], torch_version[..., 1:-1, 1:-1], rtol=0, atol=1e-14
    )
    assert not torch.allclose(upsampled(h), torch_version)  # zeros beyond the border, not copies


def block(h: ref.Array, p: dict[str, ref.Array], path: str, group: int) -> ref.Array:
    w = {k: p.get(f"{path}.{k}") for k in ("expand.weight", "expand.bias", "project.weight")}
    inner = ref.leaky(ref.conv(h, w["expand.weight"], w["expand.bias"], 1, (0, 0)))
    groups = inner.shape[1] // group
    kernel, bias = p[f"{path}.grouped.weight"], p[f"{path}.grouped.bias"]
    inner = ref.leaky(ref.grouped_conv(inner, kernel, bias, (1, 1), groups))
    return h + ref.conv(inner, w["project.weight"], np.zeros(h.shape[1]), 1, (0, 0))


@pytest.mark.parametrize(("pixels", "stages"), [(8, 2), (16, 3)])
def test_pair_against_scipy(pixels: int, stages: int, scrambled: Scramble) -> None:
    g = scrambled(R3GANGenerator(pixels, 4, 3, 2, 2, 4, 3, **F64))
    z = torch.randn(3, 3, **F64)
    p = {name: q.detach().numpy() for name, q in g.named_parameters()}
    h = (z.numpy() @ p["linear.weight"].T)[:, :, None, None] * p["basis"]
    for i in range(stages):
        if i:
            down = ref.lowpass(h.shape[-1])
            h = 4 * down.T @ h @ down
        for j in range(2):
            h = block(h, p, f"stages.{i}.{j}", 4)
    h = ref.conv(h, p["conv.weight"], np.zeros(3), 1, (0, 0))
    assert h.shape == (3, 3, pixels, pixels)
    torch.testing.assert_close(g(z), torch.from_numpy(h), rtol=0, atol=1e-11)

    d = scrambled(R3GANCritic(pixels, 4, 2, 2, 4, 3, **F64))
    p = {name: q.detach().numpy() for name, q in d.named_parameters()}
    x = h
    h = ref.conv(x, p["conv.weight"], np.zeros(4), 1, (0, 0))
    for i in range(stages):
        for j in range(2):
            h = block(h, p, f"stages.{i}.{j}", 4)
        if i < stages - 1:
            down = ref.lowpass(h.shape[-1] // 2)
            h = down @ h @ down.T
    h = np.einsum("bcij,cij->bc", h, p["basis.weight"][:, 0])
    s = h @ p["linear.weight"][0]
    torch.testing.assert_close(d(torch.from_numpy(x)), torch.from_numpy(s), rtol=0, atol=1e-11)


def test_conditional_score_is_the_scalar_product(scrambled: Scramble) -> None:
    d = scrambled(R3GANCritic(8, 4, 1, 2, 4, 3, conditions=5, **F64))
    x, y = torch.randn(3, 3, 8, 8, **F64), torch.tensor([4, 0, 4])
    h = downsampled(d.stages[0](d.conv(x)))
    h = d.linear(d.basis(d.stages[1](h)).flatten(1))
    expected = torch.stack([h[i] @ d.embedding.weight[:, y[i]] for i in range(3)])
    torch.testing.assert_close(d(x, y), expected, rtol=0, atol=1e-12)


def test_initialisation_is_fix_up() -> None:
    g = R3GANGenerator(16, 32, 24, 2, 2, 16, conditions=5)
    d = R3GANCritic(16, 32, 2, 2, 16, conditions=5)
    gain = 2 / (1 + 0.2**2) * 6**-0.5  # squared; six blocks
    for module in (g, d):
        expected = {"embedding.weight": 1 / 5 if module is g else 1 / (5 * 32), "basis": 1.0}
        for name, w in module.named_parameters():
            if name.endswith(("bias", "project.weight")):
                assert not w.detach().any(), name
                continue
            own = 1 / w[0].numel() * (gain if "stages" in name else 1)
            variance = expected.get(name, own)
            # The mean square of normal numbers strays by sqrt(2 / n): five of those.
            mean = float(w.detach().square().mean())
            assert mean == pytest.approx(variance, rel=5 * (2 / w.numel()) ** 0.5), name


def test_networks_begin_linear() -> None:
    g, d = R3GANGenerator(16, 4, 3, 1, 2, 4, **F64), R3GANCritic(16, 4, 1, 2, 4, **F64)
    z, w = torch.randn(2, 3, **F64), torch.randn(2, 3, **F64)
    torch.testing.assert_close(g(2 * z - w), 2 * g(z) - g(w), rtol=0, atol=1e-12)
    x, v = g(z), g(w)
    torch.testing.assert_close(d(2 * x - v), 2 * d(x) - d(v), rtol=0, atol=1e-12)
    assert float(d(x).detach().abs().max()) > 0


def test_leaky_relu_keeps_the_mean_square_with_its_gain() -> None:
    h = torch.randn(200_000, **F64)
    kept = (nn.functional.leaky_relu(h, 0.2) * (2 / 1.04) ** 0.5).square().mean()
    assert float(kept) == pytest.approx(1, abs=0.02)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^R3GANGenerator.size must be a power .* not 24$"):
        R3GANGenerator(24)
    with pytest.raises(ValueError, match=r"^R3GANCritic.size must be a power .* not 4$"):
        R3GANCritic(4)
    with pytest.raises(ValueError, match=r"^groups of 16 .* expansion \* width = 24: choose"):
        R3GANGenerator(8, 12)
    with pytest.raises(ValueError, match="at least 1 block for each resolution, not 0"):
        R3GANCritic(8, 16, 0)
    assert R3Block(6, 1, group=3)(torch.zeros(1, 6, 2, 2)).shape == (1, 6, 2, 2)
