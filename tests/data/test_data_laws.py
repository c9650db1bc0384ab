"""The grid of 25 Gaussians, the Swiss roll and Gaussians in any dimension: densities and moments."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest, multivariate_normal
from sklearn.datasets import make_swiss_roll

from equilibrist.data import (
    DataError,
    Gaussian,
    Mixture2D,
    Paired,
    Source,
    SwissRoll,
    roll,
    swiss_roll,
    twenty_five_gaussians,
)

F64 = torch.float64
START, END = 1.5 * math.pi, 4.5 * math.pi


def philox(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def integral(law, half: float, points: int = 801) -> float:
    """The density's integral over a square, by the trapezoid rule."""
    axis = torch.linspace(-half, half, points, dtype=F64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), -1)
    return float(law.log_density(grid).exp().sum()) * (2 * half / (points - 1)) ** 2


# The grid


def test_the_grid() -> None:
    law = twenty_five_gaussians()
    assert isinstance(law, Mixture2D)
    assert (law.name, law.sigma, law.balanced, law.classes) == (
        "twenty-five-gaussians",
        0.05,
        False,
        25,
    )
    want = [[x, y] for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)]
    assert law.modes.tolist() == want
    assert "0.05 on a square grid of spacing 2, drawn afresh (after" in law.origin
    balanced = twenty_five_gaussians(3.0, balanced=True)
    assert balanced.modes.max() == 6
    counts = np.bincount(balanced.sample_pairs(philox(), 100)[1], minlength=25)
    assert counts.tolist() == [4] * 25


def test_the_grids_density() -> None:
    law = twenty_five_gaussians(sigma=0.3)
    assert integral(law, 6.5, 401) == pytest.approx(1, abs=1e-10)
    x = philox().normal(size=(20, 2)) * 3
    want = np.mean([multivariate_normal(m, 0.09).pdf(x) for m in law.modes.numpy()], axis=0)
    np.testing.assert_allclose(law.log_density(torch.from_numpy(x)), np.log(want), rtol=1e-11)


# The roll


def density(x: float, y: float, noise: float, scale: float) -> float:
    """The roll's density by adaptive quadrature."""
    sigma = noise / scale

    def at(t: float) -> float:
        gap = (x - t * math.cos(t) / scale) ** 2 + (y - t * math.sin(t) / scale) ** 2
        return math.exp(-gap / (2 * sigma**2)) / (2 * math.pi * sigma**2)

    pieces = np.linspace(START, END, 81)
    parts = [quad(at, a, b, epsabs=0, epsrel=1e-12)[0] for a, b in itertools.pairwise(pieces)]
    return math.fsum(parts) / (END - START)


def test_the_roll_is_a_source() -> None:
    law = swiss_roll()
    assert isinstance(law, SwissRoll)
    assert isinstance(law, Source)
    assert not isinstance(law, Paired)
    assert (law.name, law.kind, law.shape, law.size) == ("swiss-roll", "points", (2,), None)
    assert law.sigma == pytest.approx(1 / 30)
    assert law.split((0.5, 0.5), philox()) == (law, law)


def test_the_rolls_curve_is_that_of_scikit_learn() -> None:
    points, t = make_swiss_roll(200, noise=0.0, random_state=0)
    assert START <= t.min() < START + 0.5
    assert END - 0.5 < t.max() <= END
    np.testing.assert_allclose(swiss_roll()._curve(t), points[:, [0, 2]] / 7.5, rtol=1e-12)


def test_the_rolls_moments() -> None:
    n, law = 200_000, swiss_roll().to(dtype=F64)
    points = law.sample(philox(), n)
    # E[T cos T] and so on, by quadrature; tolerances are five standard errors of values below 2.
    size = (END - START) * 7.5
    mean = [
        quad(lambda t: t * math.cos(t), START, END)[0] / size,
        quad(lambda t: t * math.sin(t), START, END)[0] / size,
    ]
    np.testing.assert_allclose(points.mean(0), mean, atol=5 * 1.1 / n**0.5)
    square = quad(lambda t: t * t, START, END)[0] / (size * 7.5) + 2 * law.sigma**2
    assert points.square().sum(1).mean() == pytest.approx(square, abs=5 * 1.2 / n**0.5)


def test_the_rolls_noise_and_parameter() -> None:
    # With next to no noise the radius tells T.
    points = SwissRoll(1e-6, 1.0, dtype=F64).sample(philox(), 5000)
    t = points.norm(dim=1).numpy()
    assert kstest((t - START) / (END - START), "uniform").pvalue > 1e-4
    wide, n = SwissRoll(1e4, 10.0, dtype=F64).sample(philox(), 50_000), 50_000
    # Here the curve, 1.4 long, is nothing beside the noise of 1000.
    assert wide.std(0).numpy() == pytest.approx(1000, rel=5 / (2 * n) ** 0.5)


@pytest.mark.parametrize(("noise", "scale"), [(0.25, 7.5), (1.0, 7.5), (0.05, 1.0), (8.0, 2.0)])
def test_the_rolls_density_against_adaptive_quadrature(noise, scale) -> None:
    law = swiss_roll(noise, scale)
    near = law.to(dtype=F64).sample(philox(), 6)
    ends = torch.from_numpy(law._curve(np.array([START, END])))
    off = near[:3] + 4 * law.sigma
    x = torch.cat([near, ends, off, torch.zeros(1, 2, dtype=F64)])
    got = law.log_density(x)
    for point, value in zip(x.tolist(), got.tolist(), strict=True):
        want = density(*point, noise, scale)
        if want > 1e-200:
            assert value == pytest.approx(math.log(want), abs=1e-10)
    assert law.log_density(x.float()).dtype == torch.float32


@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_the_rolls_density_integrates_to_one(noise) -> None:
    assert integral(swiss_roll(noise), 2.3 + 8 * noise / 7.5, 151) == pytest.approx(1, abs=1e-8)


def test_the_rolls_density_in_parts(monkeypatch) -> None:
    law = swiss_roll()
    x = law.to(dtype=F64).sample(philox(), 12).requires_grad_()
    (whole,) = torch.autograd.grad(law.log_density(x).sum(), x)
    values = law.log_density(x.reshape(3, 4, 2)).detach()
    assert values.shape == (3, 4)
    monkeypatch.setattr(roll, "_CHUNK", 5 * len(law._quadrature()[0]))
    parted = law.log_density(x)
    torch.testing.assert_close(parted, values.flatten(), rtol=0, atol=1e-13)
    torch.testing.assert_close(torch.autograd.grad(parted.sum(), x)[0], whole)
    step = 1e-6
    for axis in range(2):
        shift = step * torch.eye(2, dtype=F64)[axis]
        ahead, back = law.log_density(x.detach() + shift), law.log_density(x.detach() - shift)
        torch.testing.assert_close(
            (ahead - back) / (2 * step), whole[:, axis], rtol=1e-6, atol=1e-6
        )


def test_density_at_no_points() -> None:
    for law in (swiss_roll(), Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])):
        assert law.log_density(torch.zeros(0, 2)).shape == (0,)
        assert law.log_density(torch.zeros(2)).shape == ()


# Gaussians

MEAN = np.array([1.0, -2.0, 0.5])
COV = np.array([[2.0, 0.6, -0.3], [0.6, 1.0, 0.2], [-0.3, 0.2, 0.5]])


def test_a_gaussian_is_a_source() -> None:
    law = Gaussian(MEAN, COV)
    assert isinstance(law, Source)
    assert (law.kind, law.shape, law.size, law.value_range) == ("points", (3,), None, None)
    assert law.mean.dtype == torch.float32
    assert law.sample(philox(), 4).dtype == torch.float32
    assert law.to(dtype=F64).sample(philox(), 4).dtype == F64
    assert law.to("meta").sample(philox(), 4).device.type == "meta"
    assert law.to("meta").covariance.device.type == "meta"
    assert torch.equal(law.sample(philox(), 9), law.sample(philox(), 9))
    with pytest.raises(DataError, match="no list of samples"):
        law.all()


def test_a_gaussians_moments() -> None:
    n = 100_000
    points = Gaussian(MEAN, COV, dtype=F64).sample(philox(), n).numpy()
    np.testing.assert_allclose(points.mean(0), MEAN, atol=5 * 2**0.5 / n**0.5)
    # Var of a sample covariance is (C_ii C_jj + C_ij^2) / n, at most 8 / n.
    np.testing.assert_allclose(np.cov(points.T), COV, atol=5 * 8**0.5 / n**0.5)
    one = Gaussian([3.0], [[4.0]], dtype=F64).sample(philox(), 5000)[:, 0].numpy()
    assert kstest((one - 3) / 2, "norm").pvalue > 1e-4


def test_a_gaussians_density() -> None:
    law = Gaussian(MEAN, COV)
    x = philox().normal(size=(4, 5, 3)) * 2
    want = multivariate_normal(MEAN, COV).logpdf(x)
    np.testing.assert_allclose(law.log_density(torch.from_numpy(x)), want, rtol=1e-12)
    flat = Gaussian([0.3, -0.2], [[0.5, 0.2], [0.2, 0.4]])
    assert integral(flat, 8.0) == pytest.approx(1, abs=1e-10)
    at = torch.from_numpy(x[0]).requires_grad_()
    law.log_density(at).sum().backward()
    np.testing.assert_allclose(at.grad, -(x[0] - MEAN) @ np.linalg.inv(COV), rtol=1e-10)


def moments(points: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    values = points.double().numpy()
    return values.mean(0), np.cov(values.T, bias=True)


@pytest.mark.parametrize(("dtype", "error"), [(F64, 1e-13), (torch.float32, 1e-6)])
@pytest.mark.parametrize("n", [8, 9, 64, 1000])
def test_exact_moments(dtype, error, n) -> None:
    law = Gaussian(MEAN, COV, exact_moments=True, dtype=dtype)
    points = law.sample(philox(), n)
    assert points.shape == (n, 3)
    assert points.dtype == dtype
    mean, cov = moments(points)
    np.testing.assert_allclose(mean, MEAN, atol=error)
    np.testing.assert_allclose(cov, COV, atol=error)
    plain_mean, _ = moments(Gaussian(MEAN, COV, dtype=dtype).sample(philox(), n))
    assert np.abs(plain_mean - MEAN).max() > 1e-3
    assert not torch.equal(points, law.sample(philox(1), n))


def test_exact_moments_leave_quadratic_means_without_noise() -> None:
    law = Gaussian(MEAN, COV, exact_moments=True, dtype=F64)
    A, b = philox(5).normal(size=(3, 3)), philox(6).normal(size=3)
    want = np.trace(A @ COV) + MEAN @ A @ MEAN + b @ MEAN
    for seed in range(3):
        x = law.sample(philox(seed), 16).numpy()
        assert np.mean(np.einsum("ni,ij,nj->n", x, A, x) + x @ b) == pytest.approx(want, rel=1e-12)


def test_groups_of_exact_moments() -> None:
    law = Gaussian(MEAN, COV, exact_moments=10, dtype=F64)
    for group in law.sample(philox(), 160).split(10):
        mean, cov = moments(group)
        np.testing.assert_allclose(mean, MEAN, atol=1e-12)
        np.testing.assert_allclose(cov, COV, atol=1e-12)
    rest = law.sample(philox(), 35)
    assert rest.shape == (35, 3)
    for group in (rest[:10], rest[10:20], rest[20:]):
        np.testing.assert_allclose(moments(group)[1], COV, atol=1e-12)
    np.testing.assert_allclose(moments(law.sample(philox(), 9))[1], COV, atol=1e-12)
    assert "every 10 points" in law.origin
    assert law.exact_moments == 10


def test_what_exact_moments_cost() -> None:
    """Rows: bounded, lighter tails, correlation -1/(n-1), as the class says."""
    n, draws = 8, 4000
    law = Gaussian([0.0, 0.0], [[1.0, 0.0], [0.0, 1.0]], exact_moments=n, dtype=F64)
    x = law.sample(philox(), n * draws).reshape(draws, n, 2)
    assert x.square().sum(-1).max() <= n - 1
    first = x[:, 0, 0]
    assert first.square().mean() == pytest.approx(1, abs=5 * 2**0.5 / draws**0.5)
    want = 3 * (n - 1) / (n + 1)  # 2.33; a Gaussian has 3
    assert x[:, :, 0].pow(4).mean() == pytest.approx(want, abs=0.08)
    pairs = (x.sum(1).square() - x.square().sum(1)) / (n * (n - 1))
    np.testing.assert_allclose(pairs.numpy(), -1 / (n - 1), atol=1e-12)


EYE = np.eye(2)


@pytest.mark.parametrize(
    ("make", "wrong", "remedy"),
    [
        (lambda: Gaussian([0.0], EYE), "mean [1] and covariance [2, 2]", "give [d] and [d, d]"),
        (lambda: Gaussian(EYE, EYE), "mean [2, 2]", "give [d] and [d, d]"),
        (lambda: Gaussian([], np.zeros((0, 0))), "mean [0]", "give [d] and [d, d]"),
        (lambda: Gaussian([0, 0], [[1.0], [0.0, 1.0]]), "no table", "give [d] and [d, d]"),
        (lambda: Gaussian([math.nan, 0], EYE), "NaN or infinite", "finite numbers"),
        (lambda: Gaussian([0, 0], np.full((2, 2), math.inf)), "NaN or infinite", "finite numbers"),
        (lambda: Gaussian([0, 0], [[1, 0.5], [0, 1]]), "not symmetric", "(C + C^T) / 2"),
        (lambda: Gaussian([0, 0], [[1, 2], [2, 1]]), "not positive definite", "diagonal"),
        (lambda: Gaussian([0, 0], EYE * 0), "not positive definite", "diagonal"),
        (lambda: Gaussian([0, 0], EYE, exact_moments=5), "groups of 5 points", "at least 6"),
        (lambda: Gaussian([0, 0], EYE, exact_moments=-1), "groups of -1 points", "at least 6"),
        (lambda: Gaussian([0, 0], EYE, exact_moments=1), "groups of 1 points", "at least 6"),
        (
            lambda: Gaussian([0, 0], EYE, exact_moments=True).sample(philox(), 5),
            "5 points in 2 dimensions are too few",
            "at least 6",
        ),
        (lambda: Gaussian([0, 0], EYE, dtype=torch.float16), "torch.float16", "torch.float64"),
        (lambda: Gaussian([0, 0], EYE).sample(philox(), 0), "draw 0", "at least 1"),
        (lambda: Gaussian([0, 0], EYE).log_density(torch.zeros(3)), "float32 [3]", "[..., 2]"),
        (lambda: swiss_roll(noise=0.0), "noise is 0.0", "positive"),
        (lambda: swiss_roll(noise=math.nan), "noise is nan", "positive"),
        (lambda: swiss_roll(scale=-1.0), "scale is -1.0", "positive"),
        (lambda: swiss_roll().sample(philox(), -3), "draw -3", "at least 1"),
        (lambda: swiss_roll().all(), "no list of samples", "sample(rng, n)"),
        (lambda: swiss_roll().to(dtype=torch.int64), "torch.int64", "torch.float64"),
        (lambda: swiss_roll().log_density(torch.zeros(2, dtype=torch.int64)), "int64", "[..., 2]"),
        (lambda: swiss_roll().split((2.0,), philox()), "[2.0]", "at most 1"),
        (lambda: twenty_five_gaussians(spacing=0.0), "spacing is 0.0", "positive"),
        (lambda: twenty_five_gaussians(sigma=-1.0), "sigma is -1.0", "positive"),
    ],
)
def test_refusals_name_the_thing_and_the_remedy(make, wrong, remedy) -> None:
    with pytest.raises(DataError) as caught:
        make()
    message = str(caught.value)
    assert message.startswith(("gaussian: ", "swiss-roll: ", "twenty-five-gaussians: "))
    assert wrong in message
    assert remedy in message
    assert message.isprintable()
