from __future__ import annotations

from collections.abc import Callable

import networks_reference as ref
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from equilibrist.networks import MNISTCritic, MNISTGenerator

F64 = {"dtype": torch.float64}
Scramble = Callable[[nn.Module], nn.Module]


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def arrays(module: nn.Module) -> dict[str, ref.Array]:
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def test_parameter_counts_of_the_reference() -> None:
    assert size(MNISTGenerator(device="meta")) == 1_554_177
    assert size(MNISTCritic(device="meta")) == 1_030_145
    assert size(MNISTGenerator(batch_norm=True, device="meta")) == 1_554_177 + 134 * 64
    assert size(MNISTCritic(batch_norm=True, device="meta")) == 1_030_145 + 12 * 64


def test_dim_and_latent_are_free() -> None:
    g, d = MNISTGenerator(dim=3, latent=5), MNISTCritic(dim=3)
    x = g(torch.randn(4, 5))
    assert x.shape == (4, 1, 28, 28)
    assert d(x).shape == (4,)
    assert size(g) == 6 * 192 + (25 * 12 * 6 + 6) + (25 * 6 * 3 + 3) + (25 * 3 + 1)
    assert size(d) == (25 * 3 + 3) + (25 * 3 * 6 + 6) + (25 * 6 * 12 + 12) + 193


@pytest.mark.parametrize("batch_norm", [False, True])
def test_generator_against_scipy(batch_norm: bool, scrambled: Scramble) -> None:
    g = scrambled(MNISTGenerator(2, 3, batch_norm, **F64))
    z = torch.randn(3, 3, **F64)
    p = arrays(g)

    def norm(h: ref.Array, i: int) -> ref.Array:
        return ref.standardise(h, p[f"norm{i}.weight"], p[f"norm{i}.bias"]) if batch_norm else h

    h = ref.relu(norm(z.numpy() @ p["linear.weight"].T + p["linear.bias"], 1)).reshape(3, 8, 4, 4)
    h = ref.deconv(h, p["deconv1.weight"], p["deconv1.bias"], first=1)
    assert h.shape == (3, 4, 8, 8)
    h = ref.relu(norm(h, 2))[:, :, :7, :7]
    h = ref.relu(norm(ref.deconv(h, p["deconv2.weight"], p["deconv2.bias"], first=1), 3))
    h = ref.sigmoid(ref.deconv(h, p["deconv3.weight"], p["deconv3.bias"], first=1))
    assert h.std() > 0.01
    torch.testing.assert_close(g(z), torch.from_numpy(h), rtol=0, atol=1e-12)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_critic_against_scipy(batch_norm: bool, scrambled: Scramble) -> None:
    d = scrambled(MNISTCritic(2, batch_norm, **F64))
    x = torch.rand(3, 1, 28, 28, **F64)
    p = arrays(d)

    def norm(h: ref.Array, i: int) -> ref.Array:
        return ref.standardise(h, p[f"norm{i}.weight"], p[f"norm{i}.bias"]) if batch_norm else h

    h = ref.leaky(ref.conv(x.numpy(), p["conv1.weight"], p["conv1.bias"], 2, (1, 2)))
    h = ref.leaky(norm(ref.conv(h, p["conv2.weight"], p["conv2.bias"], 2, (1, 2)), 2))
    h = ref.leaky(norm(ref.conv(h, p["conv3.weight"], p["conv3.bias"], 2, (2, 2)), 3))
    assert h.shape == (3, 8, 4, 4)
    h = h.reshape(3, 128) @ p["linear.weight"][0] + p["linear.bias"]
    torch.testing.assert_close(d(x), torch.from_numpy(h), rtol=0, atol=1e-12)


def test_initialisation_has_the_documented_variances() -> None:
    g, d = MNISTGenerator(), MNISTCritic()
    expected = {
        "linear": 2 / (128 + 4096),
        "deconv1": 4 / (25 * 256 / 4 + 25 * 128),
        "deconv2": 4 / (25 * 128 / 4 + 25 * 64),
        "deconv3": 4 / (25 * 64 / 4 + 25),
    }
    for name, variance in expected.items():
        w = g.get_submodule(name).weight.detach()
        assert float(w.var()) == pytest.approx(variance, rel=0.1), name
        assert float(w.abs().max()) <= (3 * variance) ** 0.5 * (1 + 1e-6), name
    expected = {
        "conv1": 4 / (25 + 25 * 64 / 4),
        "conv2": 4 / (25 * 64 + 25 * 128 / 4),
        "conv3": 4 / (25 * 128 + 25 * 256 / 4),
        "linear": 2 / (4096 + 1),
    }
    for name, variance in expected.items():
        w = d.get_submodule(name).weight.detach()
        assert float(w.var()) == pytest.approx(variance, rel=0.1), name
        assert float(w.abs().max()) <= (3 * variance) ** 0.5 * (1 + 1e-6), name
    for module in (g, d):
        assert all(not p.detach().any() for n, p in module.named_parameters() if "bias" in n)


def test_batch_norm_keeps_no_state_and_ignores_the_mode() -> None:
    g, d = MNISTGenerator(2, 3, True), MNISTCritic(2, True)
    assert not list(g.buffers())
    assert not list(d.buffers())
    z = torch.randn(4, 3)
    x = g(z)
    assert torch.equal(x, g.eval()(z))
    assert torch.equal(d(x), d.eval()(x))
    assert not torch.allclose(d(x)[:2], d(x[:2]))  # an image's value depends on its batch


@pytest.mark.parametrize("batch_norm", [False, True])
def test_vmap_over_a_stack_of_pairs_equals_the_loop(batch_norm: bool, scrambled: Scramble) -> None:
    gs = [scrambled(MNISTGenerator(1, 2, batch_norm, **F64)) for _ in range(3)]
    ds = [scrambled(MNISTCritic(1, batch_norm, **F64)) for _ in range(3)]
    z = torch.randn(3, 4, 2, **F64)

    def loss(g: dict[str, Tensor], d: dict[str, Tensor], z: Tensor) -> Tensor:
        return functional_call(ds[0], d, (functional_call(gs[0], g, (z,)),)).square().mean()

    def stack(modules: list[nn.Module]) -> dict[str, Tensor]:
        parts = [dict(m.named_parameters()) for m in modules]
        return {n: torch.stack([p[n].detach() for p in parts]) for n in parts[0]}

    values, gradient = stack(gs), stack(ds)
    out = vmap(loss)(values, gradient, z)
    slopes = vmap(grad(loss))(values, gradient, z)
    for i in range(3):
        alone = ds[i](gs[i](z[i])).square().mean()
        alone.backward()
        torch.testing.assert_close(out[i], alone.detach(), rtol=1e-11, atol=1e-12)
        for name, p in gs[i].named_parameters():
            torch.testing.assert_close(slopes[name][i], p.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_second_derivatives_against_differences(batch_norm: bool, scrambled: Scramble) -> None:
    """d/dw of |grad_x D_w(x)|^2, what a gradient penalty needs, along one random direction."""
    d = scrambled(MNISTCritic(1, batch_norm, **F64))
    x = torch.rand(4, 1, 28, 28, **F64)
    base = {n: p.detach() for n, p in d.named_parameters()}
    direction = {n: torch.randn_like(p) for n, p in base.items()}

    def penalty(step: Tensor) -> Tensor:
        w = {n: p + step * direction[n] for n, p in base.items()}
        slope = grad(lambda x: functional_call(d, w, (x,)).square().sum())(x)
        return slope.square().sum()

    zero, h = torch.zeros((), **F64), 1e-7
    exact = float(grad(penalty)(zero))
    numeric = float(penalty(zero + h) - penalty(zero - h)) / (2 * h)
    assert abs(exact) > 1e-3
    assert exact == pytest.approx(numeric, rel=1e-4)


def test_shape_errors_name_both_shapes() -> None:
    with pytest.raises(
        ValueError, match=r"MNISTGenerator .* shape \[batch, 128\], got \[4, 1, 128\]"
    ):
        MNISTGenerator(1)(torch.zeros(4, 1, 128))
    with pytest.raises(
        ValueError, match=r"MNISTCritic .* shape \[batch, 1, 28, 28\], got \[4, 784\]"
    ):
        MNISTCritic(1)(torch.zeros(4, 784))


def test_dtype_is_honoured() -> None:
    for module in (MNISTGenerator(1, batch_norm=True, **F64), MNISTCritic(1, True, **F64)):
        assert {p.dtype for p in module.parameters()} == {torch.float64}
