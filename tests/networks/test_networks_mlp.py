from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from equilibrist.networks import MLP, MixtureCritic, MixtureGenerator

F64 = {"dtype": torch.float64}


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_pair_for_the_mixture() -> None:
    g, d = MixtureGenerator(), MixtureCritic()
    assert size(g) == 17 * 16 * 4 + 17 * 2 == 1122
    assert size(d) == 3 * 16 + 17 * 16 * 3 + 17 == 881
    x = g(torch.randn(5, 16))
    assert x.shape == (5, 2)
    assert d(x).shape == (5,)
    assert d(x[:1]).shape == (1,)
    assert size(MixtureGenerator(3, 4, 1)) == 4 * 4 + 5 * 2
    assert size(MixtureCritic(width=4, depth=1)) == 3 * 4 + 5


@pytest.mark.parametrize(
    ("activation", "numpy_version"),
    [(None, lambda h: np.maximum(h, 0)), (nn.Tanh, np.tanh)],
)
def test_values_against_numpy(activation: type[nn.Module] | None, numpy_version: np.ufunc) -> None:
    sizes = [3, 7, 5, 2]
    net = MLP(sizes, activation, **F64) if activation else MLP(sizes, **F64)
    x = torch.randn(6, 3, **F64)
    h = x.numpy()
    weights = [p.detach().numpy() for p in net.parameters()]
    for i in range(3):
        h = h @ weights[2 * i].T + weights[2 * i + 1]
        if i < 2:
            h = numpy_version(h)
    torch.testing.assert_close(net(x), torch.from_numpy(h), rtol=0, atol=1e-13)


def test_critic_is_the_plain_network_without_its_last_axis() -> None:
    d = MixtureCritic(**F64)
    plain = MLP([2, 16, 16, 16, 16, 1], **F64)
    plain.load_state_dict(d.state_dict())
    x = torch.randn(4, 2, **F64)
    assert torch.equal(d(x), plain(x)[:, 0])


def test_initialisation_is_that_of_linear_layers() -> None:
    torch.manual_seed(5)
    net = MLP([2, 3, 1])
    torch.manual_seed(5)
    linears = [nn.Linear(2, 3), nn.Linear(3, 1)]
    expected = [p for layer in linears for p in layer.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), expected, strict=True))


def test_glorot_initialisation() -> None:
    for net in (MixtureGenerator(200, 300, 2, glorot=True), MixtureCritic(300, 2, glorot=True)):
        for name, p in net.named_parameters():
            if p.ndim == 1:
                assert not p.detach().any()
                continue
            variance = 2 / (p.shape[0] + p.shape[1])
            # A sample variance of uniform numbers strays by sqrt(0.8 / n): five of those.
            exact = 5 * (0.8 / p.numel()) ** 0.5
            assert float(p.detach().square().mean()) == pytest.approx(variance, rel=exact), name
            assert float(p.detach().abs().max()) <= (3 * variance) ** 0.5 * (1 + 1e-6), name


def test_vmap_equals_the_loop() -> None:
    ds = [MixtureCritic(**F64) for _ in range(3)]
    x = torch.randn(3, 4, 2, **F64)
    parts = [dict(d.named_parameters()) for d in ds]
    stacked = {n: torch.stack([p[n] for p in parts]) for n in parts[0]}
    out = vmap(lambda p, x: functional_call(ds[0], p, (x,)))(stacked, x)
    loop = torch.stack([d(x[i]) for i, d in enumerate(ds)])
    torch.testing.assert_close(out, loop, rtol=0, atol=1e-13)


def test_shape_errors_name_both_shapes() -> None:
    with pytest.raises(ValueError, match=r"MixtureCritic .* \[batch, 2\], got \[4, 3\]"):
        MixtureCritic()(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"MixtureGenerator .* \[batch, 16\], got \[16\]"):
        MixtureGenerator()(torch.zeros(16))
    with pytest.raises(ValueError, match=r"at least two sizes .* got \[3\]"):
        MLP([3])
