from __future__ import annotations

from collections.abc import Callable

import networks_reference as ref
import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from equilibrist.networks import DigitsCritic, DigitsGenerator

F64 = {"dtype": torch.float64}
Scramble = Callable[[nn.Module], nn.Module]


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts() -> None:
    for dim, latent in ((32, 32), (16, 8)):
        g, d = DigitsGenerator(dim, latent), DigitsCritic(dim)
        assert size(g) == 32 * dim**2 + 42 * dim + 32 * dim * latent + 1
        assert size(d) == 32 * dim**2 + 44 * dim + 1
    assert size(DigitsGenerator()) == 66_881
    assert size(DigitsCritic()) == 34_177


def test_generator_against_scipy(scrambled: Scramble) -> None:
    g = scrambled(DigitsGenerator(2, 3, **F64))
    z = torch.randn(3, 3, **F64)
    p = {name: q.detach().numpy() for name, q in g.named_parameters()}
    h = ref.relu(z.numpy() @ p["linear.weight"].T + p["linear.bias"]).reshape(3, 4, 4, 4)
    h = ref.relu(ref.deconv(h, p["deconv.weight"], p["deconv.bias"], first=1))
    h = ref.sigmoid(ref.conv(h, p["conv.weight"], p["conv.bias"], 1, (1, 1)))
    assert h.shape == (3, 1, 8, 8)
    assert h.std() > 0.05
    torch.testing.assert_close(g(z), torch.from_numpy(h), rtol=0, atol=1e-12)


def test_critic_against_scipy(scrambled: Scramble) -> None:
    d = scrambled(DigitsCritic(2, **F64))
    x = torch.rand(3, 1, 8, 8, **F64)
    p = {name: q.detach().numpy() for name, q in d.named_parameters()}
    h = ref.leaky(ref.conv(x.numpy(), p["conv1.weight"], p["conv1.bias"], 1, (1, 1)))
    h = ref.leaky(ref.conv(h, p["conv2.weight"], p["conv2.bias"], 2, (1, 1)))
    h = h.reshape(3, 64) @ p["linear.weight"][0] + p["linear.bias"]
    torch.testing.assert_close(d(x), torch.from_numpy(h), rtol=0, atol=1e-12)


def test_initialisation_has_the_documented_variances() -> None:
    g, d = DigitsGenerator(), DigitsCritic()
    for layer, variance in (
        (g.linear, 2 / (32 + 1024)),
        (g.deconv, 4 / (16 * 64 / 4 + 16 * 32)),
        (g.conv, 4 / (9 * 32 + 9)),
        (d.conv1, 4 / (9 + 9 * 32)),
        (d.conv2, 4 / (16 * 32 + 16 * 64 / 4)),
        (d.linear, 2 / (1024 + 1)),
    ):
        w = layer.weight.detach()
        # A sample variance of uniform numbers strays by sqrt(0.8 / n): five of those.
        assert float(w.var()) == pytest.approx(variance, rel=5 * (0.8 / w.numel()) ** 0.5)
        assert float(w.abs().max()) <= (3 * variance) ** 0.5 * (1 + 1e-6)
        assert not layer.bias.detach().any()


def test_vmap_over_a_stack_of_pairs_equals_the_loop(scrambled: Scramble) -> None:
    gs = [scrambled(DigitsGenerator(2, 3, **F64)) for _ in range(3)]
    ds = [scrambled(DigitsCritic(2, **F64)) for _ in range(3)]
    z = torch.randn(3, 4, 3, **F64)
    stacks = []
    for modules in (gs, ds):
        parts = [dict(m.named_parameters()) for m in modules]
        stacks.append({n: torch.stack([p[n] for p in parts]) for n in parts[0]})
    out = vmap(lambda g, d, z: functional_call(ds[0], d, (functional_call(gs[0], g, (z,)),)))(
        *stacks, z
    )
    loop = torch.stack([d(g(z[i])) for i, (g, d) in enumerate(zip(gs, ds, strict=True))])
    torch.testing.assert_close(out, loop, rtol=0, atol=1e-12)


def test_shape_errors_name_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"DigitsGenerator .* \[batch, 32\], got \[4, 8\]"):
        DigitsGenerator()(torch.zeros(4, 8))
    with pytest.raises(ValueError, match=r"DigitsCritic .* \[batch, 1, 8, 8\], got \[4, 64\]"):
        DigitsCritic()(torch.zeros(4, 64))
