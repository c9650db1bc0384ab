from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import networks_reference as ref
import pytest
import torch
from torch import nn

from equilibrist.networks import (
    CIFAR10Critic,
    CIFAR10Generator,
    DCGAN64Critic,
    DCGAN64Generator,
    DCGANCritic,
    DCGANGenerator,
)

F64 = {"dtype": torch.float64}
META = {"device": "meta"}
Scramble = Callable[[nn.Module], nn.Module]


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def arrays(module: nn.Module) -> dict[str, ref.Array]:
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def test_parameter_counts_of_the_reference() -> None:
    assert size(CIFAR10Generator(**META)) == 1_565_955
    assert size(CIFAR10Critic(**META)) == 1_033_345
    assert size(CIFAR10Generator(128, **META)) == 5_179_907
    assert size(CIFAR10Critic(128, **META)) == 4_114_689
    assert size(CIFAR10Generator(batch_norm=False, **META)) == 1_565_955 - 134 * 64 == 1_557_379
    assert size(CIFAR10Generator(128, batch_norm=False, **META)) == 5_162_755
    assert size(CIFAR10Critic(batch_norm=True, **META)) == 1_033_345 + 12 * 64 == 1_034_113
    assert size(CIFAR10Critic(128, batch_norm=True, **META)) == 4_116_225


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("dim", "latent"), [(3, 5), (64, 128)])
def test_parameter_counts_at_64_pixels(dim: int, latent: int, channels: int) -> None:
    sizes = [8 * dim, 4 * dim, 2 * dim, dim, channels]
    g = (latent + 1) * 128 * dim
    g += sum(25 * a * b + b for a, b in pairwise(sizes))
    d = 128 * dim + 1
    d += sum(25 * a * b + a for a, b in pairwise(sizes))
    plain = DCGAN64Generator(dim, latent, channels, batch_norm=False, **META)
    assert size(plain) == g
    assert g == 1050 * dim**2 + 135 * dim + 128 * dim * latent + 25 * dim * channels + channels
    assert size(DCGAN64Generator(dim, latent, channels, **META)) == g + 270 * dim
    assert size(DCGAN64Critic(dim, channels, **META)) == d
    assert d == 1050 * dim**2 + 143 * dim + 25 * dim * channels + 1
    assert size(DCGAN64Critic(dim, channels, batch_norm=True, **META)) == d + 28 * dim


def test_documented_sizes_at_64_pixels() -> None:
    assert size(DCGAN64Generator(**META)) == 5_380_099
    assert size(DCGAN64Critic(**META)) == 4_314_753


def test_labels_add_the_documented_parameters() -> None:
    pairs = [
        (
            CIFAR10Generator(3, 5, **META),
            CIFAR10Generator(3, 5, conditions=7, **META),
            (192 + 7) * 5,
        ),
        (
            DCGAN64Generator(3, 5, **META),
            DCGAN64Generator(3, 5, conditions=7, **META),
            (384 + 7) * 5,
        ),
        (CIFAR10Critic(3, **META), CIFAR10Critic(3, conditions=7, **META), 192 * 7),
        (DCGAN64Critic(3, **META), DCGAN64Critic(3, conditions=7, **META), 384 * 7),
    ]
    for plain, conditional, more in pairs:
        assert size(conditional) - size(plain) == more


def generated(g: nn.Module, z: ref.Array, dim: int, levels: int, batch_norm: bool) -> ref.Array:
    p = arrays(g)

    def norm(h: ref.Array, i: int) -> ref.Array:
        return ref.standardise(h, p[f"norms.{i}.weight"], p[f"norms.{i}.bias"]) if batch_norm else h

    h = ref.relu(norm(z @ p["linear.weight"].T + p["linear.bias"], 0))
    side = round((h.shape[1] / (dim * 2 ** (levels - 1))) ** 0.5)
    h = h.reshape(len(z), dim * 2 ** (levels - 1), side, side)
    for i in range(levels):
        h = ref.deconv(h, p[f"deconvs.{i}.weight"], p[f"deconvs.{i}.bias"], first=1)
        h = ref.relu(norm(h, i + 1)) if i < levels - 1 else h
    return ref.np.tanh(h)


def scored(d: nn.Module, x: ref.Array, levels: int, batch_norm: bool) -> ref.Array:
    p = arrays(d)
    h = x
    for i in range(levels):
        h = ref.conv(h, p[f"convs.{i}.weight"], p[f"convs.{i}.bias"], 2, (1, 2))
        if batch_norm and i:
            h = ref.standardise(h, p[f"norms.{i}.weight"], p[f"norms.{i}.bias"])
        h = ref.leaky(h)
    return h.reshape(len(x), -1) @ p["linear.weight"][0] + p["linear.bias"]


@pytest.mark.parametrize("batch_norm", [False, True])
def test_cifar10_pair_against_scipy(batch_norm: bool, scrambled: Scramble) -> None:
    g = scrambled(CIFAR10Generator(2, 3, batch_norm, **F64))
    z = torch.randn(3, 3, **F64)
    x = generated(g, z.numpy(), 2, 3, batch_norm)
    assert x.shape == (3, 3, 32, 32)
    assert 0.01 < x.std() < 0.99
    torch.testing.assert_close(g(z), torch.from_numpy(x), rtol=0, atol=1e-12)
    d = scrambled(CIFAR10Critic(2, batch_norm, **F64))
    s = scored(d, x, 3, batch_norm)
    assert s.shape == (3,)
    assert s.std() > 1e-3
    torch.testing.assert_close(d(torch.from_numpy(x)), torch.from_numpy(s), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("channels", "batch_norm"), [(1, True), (3, False)])
def test_64_pixel_pair_against_scipy(channels: int, batch_norm: bool, scrambled: Scramble) -> None:
    g = scrambled(DCGAN64Generator(1, 3, channels, batch_norm, **F64))
    z = torch.randn(3, 3, **F64)
    x = generated(g, z.numpy(), 1, 4, batch_norm)
    assert x.shape == (3, channels, 64, 64)
    torch.testing.assert_close(g(z), torch.from_numpy(x), rtol=0, atol=1e-12)
    d = scrambled(DCGAN64Critic(1, channels, batch_norm, **F64))
    s = scored(d, x, 4, batch_norm)
    torch.testing.assert_close(d(torch.from_numpy(x)), torch.from_numpy(s), rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize(("levels", "side"), [(4, 32), (2, 8)])
def test_other_numbers_of_layers_against_scipy(
    levels: int, side: int, batch_norm: bool, scrambled: Scramble
) -> None:
    g = scrambled(DCGANGenerator(levels, (1, side), 2, 3, batch_norm, **F64))
    z = torch.randn(3, 3, **F64)
    x = generated(g, z.numpy(), 2, levels, batch_norm)
    assert x.shape == (3, 1, side, side)
    torch.testing.assert_close(g(z), torch.from_numpy(x), rtol=0, atol=1e-12)
    d = scrambled(DCGANCritic(levels, (1, side), 2, batch_norm, **F64))
    s = scored(d, x, levels, batch_norm)
    torch.testing.assert_close(d(torch.from_numpy(x)), torch.from_numpy(s), rtol=0, atol=1e-12)


def test_a_size_that_cannot_be_halved_so_often_is_refused() -> None:
    for make in (
        lambda: DCGANGenerator(3, (1, 28), 2, 3, False),
        lambda: DCGANCritic(3, (1, 28), 2, False),
    ):
        with pytest.raises(ValueError, match=r"halves its images 3 times: a size of 28 does not"):
            make()


def test_initialisation_has_the_documented_variances() -> None:
    g, d = CIFAR10Generator(), CIFAR10Critic()
    for layer, variance in (
        (g.linear, 2 / (128 + 4096)),
        (g.deconvs[0], 4 / (25 * 256 / 4 + 25 * 128)),
        (g.deconvs[1], 4 / (25 * 128 / 4 + 25 * 64)),
        (g.deconvs[2], 4 / (25 * 64 / 4 + 25 * 3)),
        (d.convs[0], 4 / (25 * 3 + 25 * 64 / 4)),
        (d.convs[1], 4 / (25 * 64 + 25 * 128 / 4)),
        (d.convs[2], 4 / (25 * 128 + 25 * 256 / 4)),
        (d.linear, 2 / (4096 + 1)),
    ):
        w = layer.weight.detach()
        # A sample variance of uniform numbers strays by sqrt(0.8 / n): five of those.
        assert float(w.var()) == pytest.approx(variance, rel=5 * (0.8 / w.numel()) ** 0.5)
        assert float(w.abs().max()) <= (3 * variance) ** 0.5 * (1 + 1e-6)
        assert not layer.bias.detach().any()
    for norm in g.norms:
        assert bool((norm.weight == 1).all())
        assert not norm.bias.detach().any()


def test_batch_norm_is_where_the_reference_has_it() -> None:
    g, d = CIFAR10Generator(2, 3), CIFAR10Critic(2, batch_norm=True)
    assert [tuple(n.weight.shape) for n in g.norms] == [(128,), (4,), (2,)]
    assert [type(n) for n in d.norms] == [nn.Identity, nn.BatchNorm2d, nn.BatchNorm2d]
    assert not list(g.buffers())
    assert not list(d.buffers())
    z = torch.randn(4, 3)
    x = g(z)
    assert torch.equal(x, g.eval()(z))  # the batch's statistics in either mode
    assert torch.equal(d(x), d.eval()(x))
    assert not torch.allclose(d(x)[:2], d(x[:2]))
    alone = CIFAR10Critic(2)  # and none by default: scores by themselves
    torch.testing.assert_close(alone(x)[:2], alone(x[:2]))


def test_counts_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^CIFAR10Generator.dim must be at least 1, not 0$"):
        CIFAR10Generator(0)
    with pytest.raises(ValueError, match=r"^DCGAN64Critic.channels must be at least 1, not 0$"):
        DCGAN64Critic(4, 0)
    with pytest.raises(ValueError, match=r"^CIFAR10Critic.conditions must be 0 .* not -1$"):
        CIFAR10Critic(4, conditions=-1)
