"""What every pair must be: pure, stackable, twice differentiable, of the dtype that was asked for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from equilibrist import networks as n

F64 = {"dtype": torch.float64}
Scramble = Callable[[nn.Module], nn.Module]
Pair = tuple[nn.Module, nn.Module]

# name: (a function that makes the pair, shape of a sample, classes); latents have 3 coordinates
PAIRS: dict[str, tuple[Callable[[], Pair], tuple[int, ...], int]] = {
    "cifar10": (
        lambda: (n.CIFAR10Generator(1, 3, **F64), n.CIFAR10Critic(1, **F64)),
        (3, 32, 32),
        0,
    ),
    "cifar10 labels": (
        lambda: (
            n.CIFAR10Generator(1, 3, conditions=5, **F64),
            n.CIFAR10Critic(1, True, conditions=5, **F64),
        ),
        (3, 32, 32),
        5,
    ),
    "dcgan64": (
        lambda: (n.DCGAN64Generator(1, 3, 1, **F64), n.DCGAN64Critic(1, 1, **F64)),
        (1, 64, 64),
        0,
    ),
    "resnet": (
        lambda: (n.ResNetConstantGenerator(16, 2, 3, **F64), n.ResNetConstantCritic(16, 2, **F64)),
        (3, 16, 16),
        0,
    ),
    "r3gan": (
        lambda: (n.R3GANGenerator(8, 4, 3, 1, 2, 4, **F64), n.R3GANCritic(8, 4, 1, 2, 4, **F64)),
        (3, 8, 8),
        0,
    ),
    "r3gan labels": (
        lambda: (
            n.R3GANGenerator(8, 4, 3, 1, 2, 4, 1, 5, **F64),
            n.R3GANCritic(8, 4, 1, 2, 4, 1, 5, **F64),
        ),
        (1, 8, 8),
        5,
    ),
    "digits labels": (
        lambda: (
            n.ConditionalDigitsGenerator(2, 3, 5, **F64),
            n.ProjectionDigitsCritic(2, 5, **F64),
        ),
        (1, 8, 8),
        5,
    ),
}
every_pair = pytest.mark.parametrize("name", PAIRS)


def draw(name: str, stack: int | None = None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Latents and, where the pair is conditional, labels: [4, ...] or [stack, 4, ...]."""
    _, _, classes = PAIRS[name]
    shape = (4,) if stack is None else (stack, 4)
    labels = (torch.randint(classes, shape),) if classes else ()
    return torch.randn(*shape, 3, **F64), labels


def values(module: nn.Module) -> dict[str, Tensor]:
    return {k: p.detach() for k, p in module.named_parameters()}


@every_pair
def test_shapes_and_dtype(name: str) -> None:
    make, shape, _ = PAIRS[name]
    g, d = make()
    z, y = draw(name)
    x = g(z, *y)
    assert x.shape == (4, *shape)
    assert d(x, *y).shape == (4,)
    assert d(x[:1], *(v[:1] for v in y)).shape == (1,)
    assert {p.dtype for m in (g, d) for p in m.parameters()} == {torch.float64}
    assert not [*g.buffers(), *d.buffers()]
    if "r3gan" not in name:
        assert float(x.detach().abs().max()) < 1


@every_pair
def test_calls_change_nothing(name: str, scrambled: Scramble) -> None:
    g, d = (scrambled(m) for m in PAIRS[name][0]())
    z, y = draw(name)
    before = [t.clone() for t in (z, *y, *values(g).values(), *values(d).values())]
    x = g(z, *y).detach()
    kept = x.clone()
    assert torch.equal(d(x, *y), d(x, *y))
    assert torch.equal(g(z, *y), x)
    after = [z, *y, *values(g).values(), *values(d).values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert torch.equal(x, kept)


@every_pair
def test_samplewise_where_there_is_no_batch_norm(name: str, scrambled: Scramble) -> None:
    g, d = (scrambled(m) for m in PAIRS[name][0]())
    z, y = draw(name)
    x = g(z, *y)
    first = [v[:2] for v in y]
    for module, whole, part in (
        (g, x[:2], g(z[:2], *first)),
        (d, d(x, *y)[:2], d(x[:2], *first)),
    ):
        alone = torch.allclose(whole, part, rtol=1e-10, atol=1e-12)
        assert alone != any("BatchNorm" in type(m).__name__ for m in module.modules())


@every_pair
def test_vmap_over_a_stack_of_pairs_equals_the_loop(name: str, scrambled: Scramble) -> None:
    pairs = [tuple(scrambled(m) for m in PAIRS[name][0]()) for _ in range(3)]
    g0, d0 = pairs[0]
    z, y = draw(name, 3)

    def score(g: dict[str, Tensor], d: dict[str, Tensor], z: Tensor, *y: Tensor) -> Tensor:
        return functional_call(d0, d, (functional_call(g0, g, (z, *y)), *y))

    def loss(g: dict[str, Tensor], d: dict[str, Tensor], z: Tensor, *y: Tensor) -> Tensor:
        return score(g, d, z, *y).square().mean()

    stacks = []
    for i in (0, 1):
        parts = [values(pair[i]) for pair in pairs]
        stacks.append({k: torch.stack([p[k] for p in parts]) for k in parts[0]})
    out = vmap(score)(*stacks, z, *y)
    slopes = vmap(grad(loss, argnums=(0, 1)))(*stacks, z, *y)
    for i, (g, d) in enumerate(pairs):
        own = [v[i] for v in y]
        alone = d(g(z[i], *own), *own)
        torch.testing.assert_close(out[i], alone.detach(), rtol=1e-12, atol=1e-12)
        alone.square().mean().backward()
        for stacked, module in zip(slopes, (g, d), strict=True):
            for k, p in module.named_parameters():
                torch.testing.assert_close(stacked[k][i], p.grad, rtol=1e-9, atol=1e-11)


@every_pair
def test_second_derivatives_against_differences(name: str, scrambled: Scramble) -> None:
    """d/dw of |grad_x D_w(x)|^2, what a gradient penalty needs, along one random direction."""
    make, shape, _ = PAIRS[name]
    d = scrambled(make()[1])
    _, y = draw(name)
    x = torch.randn(4, *shape, **F64)
    base = values(d)
    direction = {k: torch.randn_like(p) for k, p in base.items()}

    def penalty(step: Tensor) -> Tensor:
        w = {k: p + step * direction[k] for k, p in base.items()}
        slope = grad(lambda x: functional_call(d, w, (x, *y)).square().sum())(x)
        return slope.square().sum()

    zero, h = torch.zeros((), **F64), 1e-7
    exact = float(grad(penalty)(zero))
    numeric = float(penalty(zero + h) - penalty(zero - h)) / (2 * h)
    assert abs(exact) > 1e-3
    assert exact == pytest.approx(numeric, rel=1e-4)


@every_pair
def test_wrong_shapes_are_one_line(name: str) -> None:
    make, shape, _ = PAIRS[name]
    g, d = make()
    _, y = draw(name)
    inner = ", ".join(map(str, shape))
    with pytest.raises(ValueError, match=r"Generator expects .* \[batch, 3\], got \[4, 1, 3\]$"):
        g(torch.zeros(4, 1, 3, **F64), *y)
    wrong = torch.zeros(4, *shape[:-1], shape[-1] + 1, **F64)
    with pytest.raises(
        ValueError, match=rf"Critic expects images of shape \[batch, {inner}\], got"
    ):
        d(wrong, *y)
