"""Mixtures of Gaussians: counts, moments, densities."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import chi2, multivariate_normal

from equilibrist.data import DataError, Mixture2D, Source, eight_gaussians

ANGLES = [math.pi * k / 4 for k in range(8)]
CIRCLE = torch.tensor([[math.cos(a), math.sin(a)] for a in ANGLES], dtype=torch.float64)


def philox(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def modes_of(points: torch.Tensor) -> np.ndarray:
    return torch.cdist(points.double(), CIRCLE).argmin(1).numpy()


def counts(points: torch.Tensor) -> list[int]:
    return np.bincount(modes_of(points), minlength=8).tolist()


def even(observed: np.ndarray) -> bool:
    """Whether counts fit equal shares; a fair draw fails once in a million seeds."""
    share = observed.sum() / len(observed)
    return ((observed - share) ** 2 / share).sum() < chi2.isf(1e-6, len(observed) - 1)


def test_it_is_a_source() -> None:
    source: Source = eight_gaussians()
    assert isinstance(source, Source)
    assert (source.name, source.kind, source.shape) == ("eight-gaussians", "points", (2,))
    assert (source.size, source.value_range) == (None, None)
    assert "0.01" in source.origin
    assert "equally many of each" in source.origin
    assert "equally" not in eight_gaussians(balanced=False).origin


def test_modes_lie_on_the_circle() -> None:
    modes = eight_gaussians(radius=2.5).modes
    torch.testing.assert_close(modes.double(), 2.5 * CIRCLE, rtol=0, atol=3e-7)


@pytest.mark.parametrize("seed", range(3))
def test_a_batch_of_512_has_64_of_each(seed: int) -> None:
    assert counts(eight_gaussians().sample(philox(seed), 512)) == [64] * 8


@pytest.mark.parametrize("n", [1, 3, 7, 9, 19, 100])
def test_the_remainder_comes_from_different_modes(n: int) -> None:
    source, rng = eight_gaussians(), philox()
    extra = np.zeros(8)
    for _ in range(400):
        surplus = np.array(counts(source.sample(rng, n))) - n // 8
        assert set(surplus) <= {0, 1}
        assert surplus.sum() == n % 8
        extra += surplus
    assert even(extra)


def test_rows_of_a_balanced_draw_are_exchangeable() -> None:
    source, rng = eight_gaussians(), philox()
    first, last, step = np.zeros(8), np.zeros(8), np.zeros(8)
    for _ in range(2000):
        modes = modes_of(source.sample(rng, 12))
        first[modes[0]] += 1
        last[modes[-1]] += 1
        step[(modes[1] - modes[0]) % 8] += 1
    assert even(first)
    assert even(last)
    assert even(step[1:])


def test_unbalanced_counts_are_multinomial() -> None:
    source, rng = eight_gaussians(balanced=False), philox()
    points = torch.cat([source.sample(rng, 512) for _ in range(400)])
    draws = np.array([np.bincount(m, minlength=8) for m in modes_of(points).reshape(400, 512)])
    assert even(draws.sum(0))
    # Var = n p (1 - p) = 56; of 3200 nearly independent counts the estimate errs by about 1.5.
    assert draws.var(0, ddof=1).mean() == pytest.approx(512 / 8 * 7 / 8, abs=8)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_moments(balanced: bool, dtype: torch.dtype) -> None:
    radius, sigma, n = 2.0, 0.05, 200_000
    source = eight_gaussians(radius, sigma, balanced).to(dtype=dtype)
    points = source.sample(philox(), n).double()
    residual = points - radius * CIRCLE[modes_of(points)]
    # Tolerances are five standard errors.
    assert residual.mean(0).abs().max() < 5 * sigma / n**0.5
    assert (residual.var(0) / sigma**2 - 1).abs().max() < 5 * (2 / n) ** 0.5
    assert ((residual / sigma) ** 4).mean() == pytest.approx(3, abs=5 * (96 / (2 * n)) ** 0.5)
    # Var(x) = radius^2 / 2 + sigma^2 on each axis, no correlation.
    want = torch.eye(2, dtype=torch.float64) * (radius**2 / 2 + sigma**2)
    torch.testing.assert_close(points.T.cov(), want, rtol=0, atol=5 * radius**2 / n**0.5)


def test_draws_depend_on_the_generator_alone() -> None:
    source = eight_gaussians()
    first = source.sample(philox(), 64)
    assert first.dtype == torch.float32
    assert torch.equal(first, source.sample(philox(), 64))
    assert not torch.equal(first, source.sample(philox(1), 64))
    rng = philox()
    assert not torch.equal(source.sample(rng, 64), source.sample(rng, 64))


def test_float64_is_drawn_not_converted() -> None:
    narrow = eight_gaussians()
    wide = narrow.to(dtype=torch.float64)
    noise = Mixture2D([[0.0, 0.0]], 1.0, dtype=torch.float64).sample(philox(), 64)
    assert (noise.float().double() != noise).float().mean() > 0.9
    points = wide.sample(philox(), 64)
    assert points.dtype == wide.modes.dtype == torch.float64
    # The centres were never rounded on the way.
    assert torch.equal(narrow.to(dtype=torch.float32).to(dtype=torch.float64).modes, wide.modes)
    torch.testing.assert_close(wide.modes, CIRCLE, rtol=0, atol=1e-15)
    # The modes of the rows are the same in both, the noise is not.
    assert modes_of(points).tolist() == modes_of(narrow.sample(philox(), 64)).tolist()
    assert narrow.sample(philox(), 1).dtype == torch.float32
    assert wide.to("cpu").sample(philox(), 1).dtype == torch.float64


def test_draws_are_made_for_the_device() -> None:
    moved = eight_gaussians().to("meta")
    assert moved.sample(philox(), 4).device.type == "meta"
    assert moved.modes.device.type == "meta"
    assert moved.to(dtype=torch.float64).modes.device.type == "meta"


def test_split_gives_the_law_itself() -> None:
    source = eight_gaussians()
    assert source.split((0.5, 0.25, 0.25), philox()) == (source,) * 3


@pytest.mark.parametrize(("sigma", "half"), [(0.01, 0.1), (0.1, 1.0)])
def test_density_integrates_to_one(sigma: float, half: float) -> None:
    source = eight_gaussians(sigma=sigma)
    if sigma == 0.01:  # the modes do not overlap: eight small squares
        squares = [(x, y) for x, y in CIRCLE.tolist()]
    else:
        squares = [(0.0, 0.0)]
        half += 1.0
    axis = torch.linspace(-half, half, 401, dtype=torch.float64)
    cell = (2 * half / 400) ** 2
    total = 0.0
    for x, y in squares:
        grid = torch.stack(torch.meshgrid(axis + x, axis + y, indexing="ij"), -1)
        density = source.log_density(grid)
        assert density.shape == (401, 401)
        total += density.exp().sum().item() * cell
    assert total == pytest.approx(1, abs=1e-12)


def test_density_against_scipy() -> None:
    # Centres that float32 would round: the density must not depend on the dtype of the draws.
    modes = np.array([[0.0, 0.1], [1 / 3, 2.1], [-3.3, 0.7]])
    source = Mixture2D(modes, 0.7)
    x = philox().normal(size=(50, 2)) * 3
    want = np.mean([multivariate_normal(m, 0.49 * np.eye(2)).pdf(x) for m in modes], axis=0)
    got = source.log_density(torch.from_numpy(x))
    np.testing.assert_allclose(got.numpy(), np.log(want), rtol=1e-12)
    single = source.log_density(torch.from_numpy(x).float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), got, rtol=1e-4, atol=1e-4)


def test_density_has_a_gradient_far_away() -> None:
    source = Mixture2D([[1.0, 0.0]], 0.01)
    x = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    source.log_density(x).sum().backward()
    # grad log p = -(x - m) / sigma^2, where p itself underflows.
    torch.testing.assert_close(x.grad, torch.tensor([[-2e4, -4e4]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "wrong", "remedy"),
    [
        (lambda: Mixture2D(CIRCLE, math.nan), "sigma is nan", "positive"),
        (lambda: Mixture2D(CIRCLE, math.inf), "sigma is inf", "positive"),
        (lambda: Mixture2D(CIRCLE, 0.0), "sigma is 0.0", "positive"),
        (lambda: Mixture2D(CIRCLE, -1.0), "sigma is -1.0", "positive"),
        (lambda: Mixture2D([1.0, 2.0], 1.0), "shape [2]", "[K, 2]"),
        (lambda: Mixture2D([[1.0, 2.0, 3.0]], 1.0), "shape [1, 3]", "[K, 2]"),
        (lambda: Mixture2D(np.zeros((0, 2)), 1.0), "shape [0, 2]", "[K, 2]"),
        (lambda: Mixture2D([[1.0], [2.0, 3.0]], 1.0), "not a table", "[K, 2]"),
        (lambda: Mixture2D([[math.nan, 0.0]], 1.0), "NaN or infinite", "finite centres"),
        (lambda: Mixture2D(CIRCLE, 1.0, dtype=torch.float16), "torch.float16", "torch.float64"),
        (lambda: Mixture2D(CIRCLE, 1.0).to(dtype=torch.bfloat16), "bfloat16", "torch.float64"),
        (lambda: Mixture2D(CIRCLE, 1.0).sample(philox(), 0), "draw 0", "at least 1"),
        (lambda: Mixture2D(CIRCLE, 1.0).all(), "no list of samples", "sample(rng, n)"),
        (lambda: Mixture2D(CIRCLE, 1.0).split((0.7, 0.7), philox()), "[0.7, 0.7]", "at most 1"),
        (
            lambda: Mixture2D(CIRCLE, 1.0).log_density(torch.zeros(3)),
            "torch.float32 [3]",
            "[..., 2]",
        ),
        (
            lambda: Mixture2D(CIRCLE, 1.0).log_density(torch.zeros(3, 2, dtype=torch.int64)),
            "torch.int64",
            "give floats",
        ),
        (lambda: eight_gaussians(radius=math.nan), "radius is nan", "positive"),
        (lambda: eight_gaussians(radius=0.0), "radius is 0.0", "positive"),
        (lambda: eight_gaussians(sigma=math.nan), "sigma is nan", "positive"),
    ],
)
def test_refusals_name_the_thing_and_the_remedy(make, wrong, remedy) -> None:
    with pytest.raises(DataError) as caught:
        make()
    message = str(caught.value)
    assert message.startswith(("mixture: ", "eight-gaussians: "))
    assert wrong in message
    assert remedy in message
    assert message.isprintable()
