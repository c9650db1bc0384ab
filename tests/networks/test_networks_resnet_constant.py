from __future__ import annotations

from collections.abc import Callable

import networks_reference as ref
import pytest
import torch
from torch import nn

from equilibrist.networks import ResNetConstantCritic, ResNetConstantGenerator

F64 = {"dtype": torch.float64}
META = {"device": "meta"}
Scramble = Callable[[nn.Module], nn.Module]


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("pixels", "levels", "dim", "latent", "channels"), [(64, 4, 128, 256, 3), (8, 1, 5, 2, 1)]
)
def test_parameter_counts(pixels: int, levels: int, dim: int, latent: int, channels: int) -> None:
    half = dim // 2
    strided, inner = 25 * dim**2 + dim, 18 * dim * half + half + dim
    g = (latent + 1) * 16 * dim + (levels - 1) * (strided + inner) + 25 * dim * channels + channels
    d = 25 * dim * channels + dim + 2 * (9 * dim**2 + dim) + 16 * dim + 1
    d += (levels - 1) * (strided + inner)
    assert size(ResNetConstantGenerator(pixels, dim, latent, channels, **META)) == g
    assert size(ResNetConstantCritic(pixels, dim, channels, **META)) == d


def test_documented_sizes() -> None:
    assert size(ResNetConstantGenerator(**META)) == 2_208_067
    assert size(ResNetConstantCritic(**META)) == 1_979_073


def residual(h: ref.Array, p: dict[str, ref.Array], i: int) -> ref.Array:
    w = [(p[f"residuals.{i}.conv{j}.weight"], p[f"residuals.{i}.conv{j}.bias"]) for j in (1, 2)]
    inner = ref.conv(ref.leaky(h), *w[0], 1, (1, 1))
    return h + 0.1 * ref.conv(ref.leaky(inner), *w[1], 1, (1, 1))


@pytest.mark.parametrize(("pixels", "levels"), [(8, 1), (16, 2), (64, 4)])
def test_pair_against_scipy(pixels: int, levels: int, scrambled: Scramble) -> None:
    g = scrambled(ResNetConstantGenerator(pixels, 2, 3, 1, **F64))
    z = torch.randn(2, 3, **F64)
    p = {name: q.detach().numpy() for name, q in g.named_parameters()}
    h = (z.numpy() @ p["linear.weight"].T + p["linear.bias"]).reshape(2, 2, 4, 4)
    for i in range(levels):
        h = ref.deconv(ref.leaky(h), p[f"deconvs.{i}.weight"], p[f"deconvs.{i}.bias"], first=1)
        h = residual(h, p, i) if i < levels - 1 else ref.np.tanh(h)
    assert h.shape == (2, 1, pixels, pixels)
    assert 0.01 < h.std() < 0.99
    torch.testing.assert_close(g(z), torch.from_numpy(h), rtol=0, atol=1e-12)

    d = scrambled(ResNetConstantCritic(pixels, 2, 1, **F64))
    p = {name: q.detach().numpy() for name, q in d.named_parameters()}
    x = h
    for i in range(levels):
        h = ref.leaky(h) if i else h
        h = ref.conv(h, p[f"convs.{i}.weight"], p[f"convs.{i}.bias"], 2, (1, 2))
        h = residual(h, p, i)
    s = ref.leaky(h).reshape(2, -1) @ p["linear.weight"][0] + p["linear.bias"]
    torch.testing.assert_close(d(torch.from_numpy(x)), torch.from_numpy(s), rtol=0, atol=1e-12)


def test_initialisation_is_glorot_with_zero_biases() -> None:
    for module in (ResNetConstantGenerator(16, 32, 64), ResNetConstantCritic(16, 32)):
        for name, w in module.named_parameters():
            if name.endswith("bias"):
                assert not w.detach().any()
                continue
            kernel = w[0, 0].numel()
            variance = 2 / (kernel * (w.shape[0] + w.shape[1]))
            exact = 5 * (0.8 / w.numel()) ** 0.5
            assert float(w.detach().var()) == pytest.approx(variance, rel=exact), name
            assert float(w.detach().abs().max()) <= (3 * variance) ** 0.5 * (1 + 1e-6), name


@pytest.mark.parametrize("wrong", [0, 4, 12, 63, -8])
def test_sizes_are_powers_of_two(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"^ResNetConstantGenerator.size .* not {wrong}$"):
        ResNetConstantGenerator(wrong, 4)
    with pytest.raises(ValueError, match=rf"^ResNetConstantCritic.size .* not {wrong}$"):
        ResNetConstantCritic(wrong, 4)


def test_a_residual_layer_needs_a_channel_inside() -> None:
    with pytest.raises(ValueError, match=r"^ResNetConstantCritic.dim must be at least 2, not 1$"):
        ResNetConstantCritic(16, 1)
