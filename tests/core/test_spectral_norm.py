"""Spectral normalisation against singular values."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equilibrist.errors import GameError
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN
from equilibrist.nn import spectral_norm as sn

F64 = torch.float64


def sigma(weight: Tensor) -> Tensor:
    return torch.linalg.svdvals(weight.flatten(1))


def critic() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)),
        nn.Conv2d(1, 5, 3, stride=2, dtype=F64),
        nn.Softplus(),
        nn.Conv2d(5, 3, 2, dtype=F64),
        nn.Flatten(),
        nn.Linear(3, 7, dtype=F64),
        nn.Tanh(),
        nn.Linear(7, 1, dtype=F64),
    )


def game(c: nn.Module | None = None) -> GAN:
    torch.manual_seed(0)
    return GAN(nn.Linear(2, 36, dtype=F64), c or critic(), Vanilla(), latent=2, spectral_norm=True)


def drawn() -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(1)
    return {
        "real": torch.randn(4, 36, generator=g, dtype=F64),
        "latent": torch.randn(4, 2, generator=g, dtype=F64),
    }


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 6), (6, 1), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_top_singular_vectors(shape: tuple[int, int], dtype: torch.dtype) -> None:
    m = torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=dtype)
    u, v = sn.top_singular_vectors(m)
    tolerance = 1e-13 if dtype == F64 else 1e-6
    s = torch.linalg.svdvals(m)[0]
    assert u.dtype == v.dtype == dtype
    for t in (u, v):
        assert abs(float(t.norm()) - 1) < tolerance
    torch.testing.assert_close(u @ m @ v, s, rtol=tolerance, atol=0)
    torch.testing.assert_close(m @ v, s * u, rtol=10 * tolerance, atol=10 * tolerance)
    torch.testing.assert_close(m.T @ u, s * v, rtol=10 * tolerance, atol=10 * tolerance)


def test_effective_weights_have_norm_one_at_exact_vectors() -> None:
    g = game()
    players, constants = g.init()
    assert g.normalised == ("1.weight", "3.weight", "5.weight", "7.weight")
    seen = sn.effective(players["critic"], constants["critic"], g.normalised)
    for name, p in players["critic"].items():
        if name in g.normalised:
            assert abs(float(sigma(seen[name])[0]) - 1) < 1e-12
            assert abs(float(sigma(p)[0]) - 1) > 1e-4
        else:
            assert seen[name] is p


def test_loaded_critic_carries_the_normalised_weights() -> None:
    g = game()
    players, constants = g.init()
    module = g.load(players, constants)["critic"]
    for layer in module:
        if hasattr(layer, "weight"):
            assert abs(float(sigma(layer.weight.detach())[0]) - 1) < 1e-12


def test_scale_of_a_weight_is_immaterial_but_its_bias_is_not() -> None:
    g = game()
    players, constants = g.init()
    x = drawn()["real"]
    before = g.critic(players, constants)(x)
    scaled = {
        **players,
        "critic": {**players["critic"], "5.weight": 3 * players["critic"]["5.weight"]},
    }
    torch.testing.assert_close(g.critic(scaled, constants)(x), before, rtol=1e-12, atol=1e-13)


def test_derivative_equals_finite_differences_of_the_exact_norm() -> None:
    generator = torch.Generator().manual_seed(4)
    for shape in ((3, 4), (4, 2, 3, 3)):
        W, R = (torch.randn(shape, generator=generator, dtype=F64) for _ in range(2))
        vectors = sn.power_vectors({"weight": W}, ("weight",))
        leaf = W.clone().requires_grad_()
        (sn.effective({"weight": leaf}, vectors, ("weight",))["weight"] * R).sum().backward()

        def value(w: Tensor, r: Tensor = R) -> float:
            return float((w / sigma(w)[0] * r).sum())

        step, numeric = 1e-6, torch.zeros_like(W)
        for i in range(W.numel()):
            e = torch.zeros(W.numel(), dtype=F64)
            e[i] = step
            e = e.reshape(shape)
            numeric.view(-1)[i] = (value(W + e) - value(W - e)) / (2 * step)
        torch.testing.assert_close(leaf.grad, numeric, rtol=1e-6, atol=1e-8)
        without = R / sigma(W)[0]  # sigma held constant: another derivative
        assert (leaf.grad - without).norm() > 0.1


@pytest.mark.parametrize("ratio", [0.5, 0.9])
def test_power_iteration_converges_at_the_squared_ratio(ratio: float) -> None:
    g = torch.Generator().manual_seed(5)
    U, V = (torch.linalg.qr(torch.randn(4, 4, generator=g, dtype=F64))[0] for _ in range(2))
    W = U[:, :2] @ torch.diag(torch.tensor([2.0, 2.0 * ratio], dtype=F64)) @ V[:, :2].T
    u = (U[:, 0] + 0.7 * U[:, 1]) / (1 + 0.49) ** 0.5
    constants = {"spectral_norm/weight/u": u, "spectral_norm/weight/v": V[:, 0]}
    tangents = []
    for _ in range(6):
        constants = sn.refreshed({"weight": W}, constants, ("weight",), exact=False)
        u, v = constants["spectral_norm/weight/u"], constants["spectral_norm/weight/v"]
        tangents.append(float(abs(u @ U[:, 1]) / abs(u @ U[:, 0])))
        # v is one multiplication behind u.
        assert float(abs(v @ V[:, 1]) / abs(v @ V[:, 0])) == pytest.approx(
            tangents[-1] / ratio, rel=1e-9
        )
    assert tangents[0] == pytest.approx(0.7 * ratio**2, rel=1e-9)
    for a, b in itertools.pairwise(tangents):
        assert b / a == pytest.approx(ratio**2, rel=1e-9)


def test_exact_refresh_equals_the_svd_and_leaves_the_old_constants() -> None:
    g = game()
    players, constants = g.init()
    moved = {
        **players,
        "critic": {
            k: p + 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(6), dtype=F64)
            for k, p in players["critic"].items()
        },
    }
    kept = {k: t.clone() for k, t in constants["critic"].items()}
    exact = g.refresh(moved, constants, drawn(), exact=True)
    once = g.refresh(moved, constants, drawn())
    for name in g.normalised:
        W = moved["critic"][name].flatten(1)
        U, S, Vh = torch.linalg.svd(W, full_matrices=False)
        u, v = (exact["critic"][f"spectral_norm/{name}/{k}"] for k in "uv")
        torch.testing.assert_close(
            torch.outer(u, v), torch.outer(U[:, 0], Vh[0]), rtol=1e-9, atol=1e-9
        )
        estimates = [
            float(
                c["critic"][f"spectral_norm/{name}/u"] @ W @ c["critic"][f"spectral_norm/{name}/v"]
            )
            for c in (constants, once, exact)
        ]
        assert estimates[0] <= estimates[1] + 1e-12 <= estimates[2] + 2e-12
        assert estimates[2] == pytest.approx(float(S[0]), rel=1e-12)
    assert all(torch.equal(constants["critic"][k], t) for k, t in kept.items())


def test_a_search_escapes_frozen_vectors_but_not_exact_ones() -> None:
    """SCIENCE 7: raise <R, W / (u^T W v)> with u, v frozen, and the norm of what the network sees passes 1."""
    g = torch.Generator().manual_seed(7)
    U, V = (torch.linalg.qr(torch.randn(4, 4, generator=g, dtype=F64))[0] for _ in range(2))
    start = U @ torch.diag(torch.tensor([2.0, 1.5, 1.0, 0.5], dtype=F64)) @ V.T
    R = torch.outer(U[:, 1], V[:, 1])
    largest = {}
    for exact in (False, True):
        W, largest[exact] = start.clone(), 0.0
        vectors = sn.power_vectors({"weight": W}, ("weight",))
        for _ in range(30):
            leaf = W.clone().requires_grad_()
            seen = sn.effective({"weight": leaf}, vectors, ("weight",))["weight"]
            largest[exact] = max(largest[exact], float(sigma(seen.detach())[0]))
            (gradient,) = torch.autograd.grad((seen * R).sum(), leaf)
            W = W + 0.05 * gradient
            if exact:
                vectors = sn.refreshed({"weight": W}, vectors, ("weight",), exact=True)
    assert largest[False] > 2
    assert largest[True] == pytest.approx(1.0, abs=1e-12)


def test_names() -> None:
    module = nn.Sequential(
        nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Sequential(nn.Conv1d(3, 4, 2)), nn.PReLU()
    )
    assert sn.normalised_names(module) == ("0.weight", "2.0.weight")
    assert sn.is_power_vector("spectral_norm/0.weight/u")
    assert not sn.is_power_vector("1.running_mean")


def test_a_critic_without_matrices_is_refused() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gain = nn.Parameter(torch.ones(36, dtype=F64))

        def forward(self, x: Tensor) -> Tensor:
            return (self.gain * x).sum(1)

    with pytest.raises(GameError, match="no weight matrix"):
        game(Sums())


@pytest.mark.parametrize("style", ["old", "new"])
def test_first_power_iterations_equal_torchs(style: str) -> None:
    """Miyato's order, v then u, is that of torch's older function. The newer parametrization moves u
    first; read on the transposed matrix (dim=1) it moves our v first, and its _u is our v."""
    g = torch.Generator().manual_seed(8)
    W = torch.randn(5, 3, generator=g, dtype=F64)
    layer = nn.Linear(3, 5, bias=False, dtype=F64)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer.weight.copy_(W)
        if style == "old":
            nn.utils.spectral_norm(layer)
        else:
            nn.utils.parametrizations.spectral_norm(layer, dim=1)
    ours = {
        f"spectral_norm/weight/{k}": torch.nn.functional.normalize(
            torch.randn(n, generator=g, dtype=F64), dim=0
        )
        for k, n in (("u", 5), ("v", 3))
    }

    def theirs() -> tuple[Tensor, Tensor]:
        if style == "old":
            return layer.weight_u, layer.weight_v
        inner: Any = layer.parametrizations.weight[0]
        return inner._v, inner._u

    for reference, value in zip(theirs(), ours.values(), strict=True):
        reference.copy_(value)
    for _ in range(4):
        layer.train()
        with torch.no_grad():
            layer(torch.zeros(1, 3, dtype=F64))
        ours = sn.refreshed({"weight": W}, ours, ("weight",), exact=False)
        for reference, value in zip(theirs(), ours.values(), strict=True):
            torch.testing.assert_close(value, reference, rtol=1e-13, atol=1e-13)
        layer.eval()
        layer(torch.zeros(1, 3, dtype=F64))
        torch.testing.assert_close(
            sn.effective({"weight": W}, ours, ("weight",))["weight"],
            layer.weight.detach(),
            rtol=1e-12,
            atol=1e-13,
        )


def test_gains_of_layer_norm_are_no_matrices() -> None:
    assert sn.normalised_names(nn.Sequential(nn.LayerNorm([4, 4]), nn.Linear(4, 1))) == (
        "1.weight",
    )
