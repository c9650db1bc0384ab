from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from equilibrist.networks import (
    MLP,
    CIFAR10Critic,
    CIFAR10Generator,
    ConditionalDigitsGenerator,
    DigitsCritic,
    DigitsGenerator,
    EmbeddingGenerator,
    LabelEmbedding,
    ProjectionCritic,
    ProjectionDigitsCritic,
    R3GANCritic,
    R3GANGenerator,
)
from equilibrist.nn.spectral_norm import normalised_names

F64 = {"dtype": torch.float64}
Scramble = Callable[[nn.Module], nn.Module]


def size(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts() -> None:
    for dim, latent, classes in ((32, 32, 10), (4, 3, 5)):
        g, d = (
            ConditionalDigitsGenerator(dim, latent, classes),
            ProjectionDigitsCritic(dim, classes),
        )
        assert size(g) == size(DigitsGenerator(dim, 2 * latent)) + classes * latent
        assert size(g) == 32 * dim**2 + 42 * dim + 64 * dim * latent + 1 + classes * latent
        assert size(d) == size(DigitsCritic(dim)) + 32 * dim * classes
        assert size(d) == 32 * dim**2 + 44 * dim + 1 + 32 * dim * classes
    assert size(ConditionalDigitsGenerator()) == 99_969
    assert size(ProjectionDigitsCritic()) == 44_417
    phi = MLP([2, 6])
    assert size(ProjectionCritic(phi, 6, 3)) - size(phi) == 6 * (3 + 1) + 1


def test_embedding_looks_the_label_up() -> None:
    embedding = LabelEmbedding(5, 3, **F64)
    y = torch.tensor([4, 0, 4, 2])
    reference = nn.functional.embedding(y, embedding.weight.T)
    assert torch.equal(embedding(y), reference)
    assert torch.equal(embedding(y.to(torch.uint8)), reference)
    assert embedding(y[:0]).shape == (0, 3)


def test_initialisation() -> None:
    def mean_square(w: Tensor) -> tuple[float, float]:
        return float(w.detach().square().mean()), 5 * (2 / w.numel()) ** 0.5

    g, d = ConditionalDigitsGenerator(4, 64), ProjectionDigitsCritic(8)
    for weight, variance in (
        (g.embedding.weight, 1.0),
        (d.embedding.weight, 2 / (10 + 256)),
        (CIFAR10Critic(4, conditions=10).embedding.weight, 2 / (10 + 256)),
        (LabelEmbedding(50, 20, std=0.3).weight, 0.09),
    ):
        value, exact = mean_square(weight)
        assert value == pytest.approx(variance, rel=exact)


def test_generator_reads_its_label_beside_z(scrambled: Scramble) -> None:
    inner = scrambled(MLP([3 + 2, 4], **F64))
    g = EmbeddingGenerator(inner, 3, 5, 2, **F64)
    z, y = torch.randn(4, 3, **F64), torch.tensor([0, 4, 1, 4])
    w = g.embedding.weight
    expected = torch.stack([inner(torch.cat([z[i], w[:, y[i]]])[None])[0] for i in range(4)])
    torch.testing.assert_close(g(z, y), expected, rtol=0, atol=1e-14)
    assert EmbeddingGenerator(MLP([6, 1]), 3, 5).embedding.weight.shape == (3, 5)


def test_projection_critic_is_its_formula(scrambled: Scramble) -> None:
    phi = MLP([2, 6], **F64)
    d = scrambled(ProjectionCritic(phi, 6, 3, **F64))
    x, y = torch.randn(4, 2, **F64), torch.tensor([2, 0, 1, 2])
    h, psi, v = phi(x), d.linear, d.embedding.weight
    for i in range(4):
        expected = psi.weight[0] @ h[i] + psi.bias[0] + v[:, y[i]] @ h[i]
        torch.testing.assert_close(d(x, y)[i], expected, rtol=0, atol=1e-13)


def test_digits_critic_projects_its_last_features(scrambled: Scramble) -> None:
    d = scrambled(ProjectionDigitsCritic(2, 3, **F64))
    plain = DigitsCritic(2, **F64)
    plain.load_state_dict({k: v for k, v in d.state_dict().items() if "embedding" not in k})
    x, y = torch.rand(4, 1, 8, 8, **F64), torch.tensor([2, 0, 1, 2])
    inner = (d.features(x) * d.embedding.weight.T[y]).sum(1)
    torch.testing.assert_close(d(x, y), plain(x) + inner, rtol=0, atol=1e-13)
    assert float(inner.detach().abs().min()) > 1e-3


PAIRS = [
    lambda: (ConditionalDigitsGenerator(4, 3, 5, **F64), ProjectionDigitsCritic(4, 5, **F64)),
    lambda: (
        CIFAR10Generator(2, 3, False, conditions=5, **F64),
        CIFAR10Critic(2, conditions=5, **F64),
    ),
    lambda: (
        R3GANGenerator(8, 4, 3, 1, 2, 4, conditions=5, **F64),
        R3GANCritic(8, 4, 1, 2, 4, conditions=5, **F64),
    ),
]


@pytest.mark.parametrize("make", PAIRS)
def test_each_sample_depends_on_its_own_label_alone(
    make: Callable[[], tuple[nn.Module, nn.Module]],
) -> None:
    g, d = make()
    z, y = torch.randn(4, 3, **F64), torch.tensor([0, 1, 2, 3])
    other = torch.tensor([0, 4, 2, 3])
    x = g(z, y)
    moved = (g(z, other) - x).detach().flatten(1).abs().amax(1)
    assert moved[1] > 1e-6
    assert not moved[[0, 2, 3]].any()
    moved = (d(x, other) - d(x, y)).detach().abs()
    assert moved[1] > 1e-6
    assert not moved[[0, 2, 3]].any()


@pytest.mark.parametrize("make", PAIRS)
@pytest.mark.parametrize("label", [-1, 5])
def test_labels_out_of_range_are_refused(
    make: Callable[[], tuple[nn.Module, nn.Module]], label: int
) -> None:
    g, d = make()
    z, y = torch.randn(2, 3, **F64), torch.tensor([0, 4])
    x, wrong = g(z, y), torch.tensor([0, label])
    for call in (lambda: g(z, wrong), lambda: d(x, wrong)):
        with pytest.raises(ValueError, match=rf"^label {label} is outside 0..4: correct .*$"):
            call()


def test_a_stack_of_labels_out_of_range_never_stands_for_another_class() -> None:
    members = [LabelEmbedding(4, 2, **F64) for _ in range(3)]
    stacked = torch.stack([m.weight.detach() for m in members])
    y = torch.tensor([[0, 3], [4, 1], [2, -1]])

    def look(weight: Tensor, y: Tensor) -> Tensor:
        return functional_call(members[0], {"weight": weight}, (y,))

    out = vmap(look)(stacked, y)
    assert out[1, 0].isnan().all()
    assert out[2, 1].isnan().all()
    assert int(out.isnan().sum()) == 4
    assert torch.equal(out[0, 1], stacked[0][:, 3])
    with pytest.raises(ValueError, match="label 4 is outside"):  # one vector for all is looked at
        vmap(look, in_dims=(0, None))(stacked, y[1])


@pytest.mark.parametrize("make", PAIRS)
def test_labels_that_do_not_fit_are_one_line(
    make: Callable[[], tuple[nn.Module, nn.Module]],
) -> None:
    g, d = make()
    z, y = torch.randn(2, 3, **F64), torch.tensor([0, 4])
    x = g(z, y)
    for player, sample in ((g, z), (d, x)):
        name = type(player).__name__
        with pytest.raises(ValueError, match=rf"^{name} is conditional: call it with labels 0..4"):
            player(sample)
        with pytest.raises(
            ValueError, match=rf"^{name} expects labels of shape \[2\], got \[2, 1\]$"
        ):
            player(sample, y[:, None])
        with pytest.raises(ValueError, match=r"expects labels of shape \[2\], got \[1\]$"):
            player(sample, y[:1])
        with pytest.raises(ValueError, match=r"^labels must be integers .* torch.float64 \[2\]$"):
            player(sample, y.double())
    with pytest.raises(ValueError, match=r"\[batch, 3\], got \[2, 4\]"):
        g(torch.zeros(2, 4, **F64), y)


def test_unconditional_networks_take_no_labels() -> None:
    y = torch.tensor([0, 1])
    with pytest.raises(ValueError, match=r"^CIFAR10Generator is unconditional: call it without"):
        CIFAR10Generator(1, 2)(torch.zeros(2, 2), y)
    with pytest.raises(ValueError, match=r"^CIFAR10Critic is unconditional: call it without"):
        CIFAR10Critic(1)(torch.zeros(2, 3, 32, 32), y)
    with pytest.raises(ValueError, match="LabelEmbedding needs at least 1 class, got 0"):
        ProjectionDigitsCritic(2, 0)
    with pytest.raises(ValueError, match=r"^LabelEmbedding.std must be finite"):
        LabelEmbedding(2, 3, -1.0)


def test_features_of_another_width_are_refused() -> None:
    d = ProjectionCritic(MLP([2, 6]), 5, 3)
    with pytest.raises(ValueError, match=r"ProjectionCritic .* \[batch, 5\], got \[2, 6\]"):
        d(torch.zeros(2, 2), torch.tensor([0, 1]))


def test_label_vectors_take_part_in_spectral_norm() -> None:
    assert "embedding.weight" in normalised_names(ProjectionDigitsCritic(2))
    assert "embedding.weight" in normalised_names(CIFAR10Critic(2, conditions=3))
    assert normalised_names(nn.Sequential(nn.Embedding(3, 2))) == ()  # torch's own would not
