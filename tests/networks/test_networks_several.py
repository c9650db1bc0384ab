from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy.stats import binom, norm
from torch import Tensor, nn
from torch.func import functional_call, vmap

from equilibrist.networks import (
    MLP,
    ConditionalDigitsGenerator,
    CriticEnsemble,
    DigitsCritic,
    DigitsGenerator,
    GeneratorMixture,
    MixtureCritic,
    MixtureGenerator,
    ProjectionDigitsCritic,
)

F64 = {"dtype": torch.float64}
Scramble = Callable[[nn.Module], nn.Module]


def latents(n: int, dim: int, last: list[float] | None = None) -> Tensor:
    z = torch.randn(n, dim + 1, **F64)
    if last is not None:
        z[:, -1] = torch.tensor(last, **F64)
    return z


def test_ensemble_scores_are_those_of_its_critics() -> None:
    critics = [MixtureCritic(4, 1, **F64) for _ in range(3)]
    ensemble = CriticEnsemble(critics)
    assert ensemble.heads == 3
    x = torch.randn(5, 2, **F64)
    assert ensemble(x).shape == (5, 3)
    for k, critic in enumerate(critics):
        assert torch.equal(ensemble(x)[:, k], critic(x))
        assert torch.equal(ensemble(x, head=k), critic(x))


def test_one_head_runs_and_moves_one_critic() -> None:
    ensemble = CriticEnsemble(MixtureCritic(4, 1, **F64) for _ in range(3))
    runs = [0, 0, 0]
    for k, critic in enumerate(ensemble.critics):
        critic.register_forward_hook(lambda *_, k=k: runs.__setitem__(k, runs[k] + 1))
    ensemble(torch.randn(5, 2, **F64), head=1).sum().backward()
    assert runs == [0, 1, 0]
    moved = [all(p.grad is not None for p in c.parameters()) for c in ensemble.critics]
    assert moved == [False, True, False]


def test_columns_of_scores_become_vectors() -> None:
    plain = MLP([2, 3, 1], **F64)  # [B, 1]
    x = torch.randn(4, 2, **F64)
    assert torch.equal(CriticEnsemble([plain, plain])(x), plain(x).expand(4, 2))
    assert torch.equal(CriticEnsemble([plain])(x, head=0), plain(x)[:, 0])


def test_ensemble_passes_conditions_on() -> None:
    critics = [ProjectionDigitsCritic(2, 5, **F64) for _ in range(2)]
    x, y = torch.rand(3, 1, 8, 8, **F64), torch.tensor([4, 0, 2])
    assert torch.equal(CriticEnsemble(critics)(x, y)[:, 1], critics[1](x, y))


def test_ensemble_refuses_what_does_not_fit() -> None:
    ensemble = CriticEnsemble([MixtureCritic(4, 1), MixtureCritic(4, 1)])
    for head in (-1, 2):
        with pytest.raises(ValueError, match=rf"^head {head} is outside 0..1 of this"):
            ensemble(torch.zeros(3, 2), head=head)
    with pytest.raises(ValueError, match=r"^CriticEnsemble needs at least one critic, got none$"):
        CriticEnsemble([])
    with pytest.raises(ValueError, match=r"^CriticEnsemble: critic 0 maps 3 samples to \[3, 2\]"):
        CriticEnsemble([MLP([2, 2])])(torch.zeros(3, 2))


@pytest.mark.parametrize("K", [1, 2, 3, 7])
def test_each_component_has_its_quantiles(K: int) -> None:
    """Just inside and outside of the quantiles of N(0, 1), from SciPy."""
    mixture = GeneratorMixture(MixtureGenerator(2, 3, 1, **F64) for _ in range(K))
    assert mixture.heads == K
    inner = norm.ppf([k / K for k in range(1, K)])
    below, above = torch.as_tensor(inner - 1e-9), torch.as_tensor(inner + 1e-9)
    for last, first in ((below, 0), (above, 1)):
        z = torch.cat([torch.randn(K - 1, 2, **F64), last[:, None]], 1)
        assert mixture.component(z).tolist() == list(range(first, first + K - 1))
    ends = latents(4, 2, [-40.0, 40.0, -float("inf"), float("inf")])
    assert mixture.component(ends).tolist() == [0, K - 1, 0, K - 1]
    assert mixture.component(ends.float()).tolist() == [0, K - 1, 0, K - 1]


def test_proportions_are_equal() -> None:
    mixture = GeneratorMixture(MixtureGenerator(2, 3, 1) for _ in range(3))
    z = torch.randn(30_000, 3)
    counts = mixture.component(z).bincount(minlength=3)
    low, high = binom.interval(1 - 1e-6, 30_000, 1 / 3)
    assert all(low <= int(n) <= high for n in counts)


def test_samples_are_those_of_the_chosen_component() -> None:
    parts = [DigitsGenerator(2, 3, **F64) for _ in range(3)]
    mixture = GeneratorMixture(parts)
    z = latents(6, 3, [-1.0, 2.0, 0.0, 0.1, -3.0, 0.5])
    chosen = mixture.component(z).tolist()
    assert chosen == [0, 2, 1, 1, 0, 2]
    x = mixture(z)
    assert x.shape == (6, 1, 8, 8)
    for i, k in enumerate(chosen):
        torch.testing.assert_close(x[i], parts[k](z[i : i + 1, :-1])[0], rtol=0, atol=1e-14)
        torch.testing.assert_close(x[i], mixture(z[i : i + 1])[0], rtol=0, atol=1e-14)
    assert len({float(x.detach()[i, 0, 0, 0]) for i in range(6)}) == 6


def test_only_the_chosen_component_is_moved() -> None:
    mixture = GeneratorMixture(MixtureGenerator(2, 4, 1, **F64) for _ in range(3))
    z = latents(4, 2, [0.0, 0.1, -0.1, 0.2]).requires_grad_()
    mixture(z).square().sum().backward()
    moved = [any(bool(p.grad.any()) for p in g.parameters()) for g in mixture.generators]
    assert moved == [False, True, False]
    assert bool(z.grad[:, :-1].any())
    assert not z.grad[:, -1].any()


def test_a_broken_component_stays_by_itself() -> None:
    parts = [MixtureGenerator(2, 4, 1, **F64) for _ in range(2)]
    with torch.no_grad():
        parts[1].layers[0].weight.fill_(float("nan"))
    mixture = GeneratorMixture(parts)
    x = mixture(latents(2, 2, [-1.0, -2.0]))
    assert x.isfinite().all()
    assert mixture(latents(1, 2, [1.0])).isnan().any()


def test_mixture_passes_conditions_on() -> None:
    parts = [ConditionalDigitsGenerator(2, 3, 5, **F64) for _ in range(2)]
    z, y = latents(2, 3, [-1.0, 1.0]), torch.tensor([4, 0])
    x = GeneratorMixture(parts)(z, y)
    torch.testing.assert_close(x[:1], parts[0](z[:1, :-1], y[:1]), rtol=0, atol=1e-14)
    torch.testing.assert_close(x[1:], parts[1](z[1:, :-1], y[1:]), rtol=0, atol=1e-14)


def test_mixture_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"^GeneratorMixture needs at least one generator"):
        GeneratorMixture([])
    mixture = GeneratorMixture([MixtureGenerator(2, 3, 1), MLP([2, 5])])
    with pytest.raises(ValueError, match=r"one output shape, got \[\[4, 2\], \[4, 5\]\]$"):
        mixture(torch.zeros(4, 3))
    with pytest.raises(ValueError, match=r"\[batch, latent \+ 1\], .* got \[4\]$"):
        mixture(torch.zeros(4))
    with pytest.raises(ValueError, match=r"MixtureGenerator .* \[batch, 2\], got \[4, 3\]"):
        mixture(torch.zeros(4, 4))


def test_vmap_over_mixture_and_ensemble_equals_the_loop(scrambled: Scramble) -> None:
    def game() -> tuple[nn.Module, nn.Module]:
        g = GeneratorMixture(DigitsGenerator(2, 3, **F64) for _ in range(2))
        d = CriticEnsemble(DigitsCritic(2, **F64) for _ in range(3))
        return scrambled(g), scrambled(d)

    games = [game() for _ in range(3)]
    stacks = []
    for i in (0, 1):
        parts = [{n: p.detach() for n, p in pair[i].named_parameters()} for pair in games]
        stacks.append({n: torch.stack([p[n] for p in parts]) for n in parts[0]})
    z = torch.randn(3, 4, 4, **F64)
    g0, d0 = games[0]
    out = vmap(lambda g, d, z: functional_call(d0, d, (functional_call(g0, g, (z,)),)))(*stacks, z)
    loop = torch.stack([d(g(z[i])) for i, (g, d) in enumerate(games)])
    assert out.shape == (3, 4, 3)
    torch.testing.assert_close(out, loop.detach(), rtol=0, atol=1e-12)
