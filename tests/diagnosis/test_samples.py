"""Collapse, ignored latents and opposed terms: planted, beside healthy twins."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from sklearn.datasets import load_breast_cancer, load_digits
from torch import Tensor, nn

from equilibrist.diagnosis import check_terms
from equilibrist.diagnosis.latents import check_latent
from equilibrist.diagnosis.samples import check_diversity
from equilibrist.errors import DataError


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def ring(n: int = 2000) -> tuple[Tensor, Tensor]:
    mode = torch.randint(8, (n,), generator=seeded(0))
    angle = mode * math.pi / 4
    points = torch.stack([angle.cos(), angle.sin()], 1)
    return points + 0.05 * torch.randn(n, 2, generator=seeded(1)), mode


def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    order = torch.randperm(len(found.data), generator=seeded(2))
    return torch.tensor(found.data / 16)[order], torch.tensor(found.target)[order]


def table() -> tuple[Tensor, Tensor]:
    rows = torch.tensor(load_breast_cancer().data)
    rows = ((rows - rows.mean(0)) / rows.std(0))[torch.randperm(len(rows), generator=seeded(3))]
    return rows, (rows[:, 0] > 0).long()


@pytest.mark.parametrize("data", [ring, digits, table])
def test_collapse_is_told_from_whole_samples(data: object) -> None:
    rows, kinds = data()  # type: ignore[operator]
    half = len(rows) // 2
    real, spare = rows[:half], rows[half:]
    assert check_diversity(spare, real) == ()
    # One mode of the ring, one digit, one row of the table with a little noise.
    usual = (spare - spare.mean(0)).norm(dim=1).argsort()[len(spare) // 2]
    one = spare[kinds[half:] == 0] if data is not table else spare[usual].repeat(200, 1)
    one = one + 0.1 * real.std() * torch.randn(one.shape, generator=seeded(4)) * (data is table)
    (found,) = check_diversity(one, real)
    assert (found.name, found.level) == ("collapsed", "warning")
    assert found.evidence["missed_interval"][0] > 0.5
    # What a generator makes that has not learnt: a narrow cloud that looks like nothing.
    cloud = real.mean(0) + 0.1 * real.std() * torch.randn(300, real.shape[1], generator=seeded(5))
    (early,) = check_diversity(cloud, real)
    assert early.level == "note"
    (fell,) = check_diversity(cloud, real, before=real.mean(0) + 3 * (cloud - real.mean(0)))
    assert fell.level == "warning"
    assert fell.evidence["left_interval"][0] < 1 / 3 < fell.evidence["left_interval"][1] + 1e-9
    (same,) = check_diversity(real[:1].repeat(300, 1), real)
    assert same.level == "warning"


def test_the_ratio_of_variation_is_the_scale() -> None:
    rows = torch.randn(2000, 3, generator=seeded(6), dtype=torch.float64)
    (found,) = check_diversity(0.25 * torch.randn(2000, 3, generator=seeded(7)), rows)
    low, high = found.evidence["interval"]
    assert low < 0.25 < high
    assert high - low < 0.03
    assert check_diversity(0.75 * rows, rows) == ()
    with pytest.raises(DataError, match="too few"):
        check_diversity(rows[:9], rows)


def conditional(n: int, noise: float) -> tuple[Tensor, Tensor]:
    """y = x + noise * (a sign and a little more), whose variance at x is noise^2 * 1.0025."""
    x = torch.rand(n, 1, generator=seeded(8), dtype=torch.float64) * 4
    sign = torch.randint(2, (n, 1), generator=seeded(9)) * 2.0 - 1
    return x, x + noise * (sign + 0.05 * torch.randn(n, 1, generator=seeded(10)))


def test_an_ignored_latent_is_told_from_data_that_the_condition_decides() -> None:
    def ignores(x: Tensor) -> Tensor:
        return x + 0.01 * torch.randn_like(x)

    def follows(x: Tensor) -> Tensor:
        return x + torch.randn_like(x)

    x, y = conditional(2000, 1.0)
    (found,) = check_latent(ignores, x, y)
    assert (found.name, found.level) == ("latent-ignored", "fault")
    low, high = found.evidence["data_interval"]
    assert low < 1.0025 < high
    assert found.evidence["value"] == pytest.approx(1e-4, rel=0.1)
    assert check_latent(follows, x, y) == ()
    x, y = conditional(2000, 0.0)
    assert check_latent(ignores, x, y) == ()  # nothing is left to generate
    (note,) = check_latent(ignores, x)
    assert note.level == "note"
    labels = torch.randint(10, (2000,), generator=seeded(11))
    classes = torch.randn(2000, 5, generator=seeded(12), dtype=torch.float64) + labels[:, None]
    (found,) = check_latent(lambda c: c[:, None].repeat(1, 5) + 0.0, labels, classes)
    assert found.evidence["data"] == pytest.approx(5, rel=0.1)
    before = torch.get_rng_state()
    check_latent(follows, *conditional(200, 1.0))
    assert torch.equal(before, torch.get_rng_state())


def test_an_ignored_latent_of_conditions_without_near_neighbours() -> None:
    x = torch.randn(500, 30, generator=seeded(13), dtype=torch.float64)
    weights = 0.25 * torch.randn(30, 2, generator=seeded(14), dtype=torch.float64)
    noise = 0.7 * torch.randn(500, 2, generator=seeded(15), dtype=torch.float64)
    y = x @ weights + noise

    def learnt(size: float, bias: float = 0.0) -> Callable[[Tensor], Tensor]:
        return lambda c: c @ weights + bias + size * torch.randn(len(c), 2, dtype=torch.float64)

    (found,) = check_latent(learnt(0.05), x, y)
    assert (found.name, found.level, found.sure) == ("latent-ignored", "warning", "likely")
    low, high = found.evidence["data_interval"]
    assert low < 2 * 0.49 < high * 1.1  # a regression leaves the noise, and its own error
    assert high < 2 * 2 * 0.49
    assert check_latent(learnt(0.7), x, y) == ()
    assert check_latent(learnt(0.05, bias=2.5), x, y) == ()  # it has not learnt the mean either
    assert check_latent(learnt(0.05), x, x @ weights) == ()  # the condition decides


@pytest.mark.parametrize(
    ("angle", "size", "level"),
    [(0, 1, None), (90, 1, None), (120, 0.1, None), (120, 0.8, "warning"), (180, 2, "warning")],
)
def test_opposed_terms_take_back_what_geometry_says(
    angle: float, size: float, level: str | None
) -> None:
    """Gradients of known angle and sizes: the share is -size * cos(angle)."""
    w = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    turned = torch.tensor([math.cos(math.radians(angle)), math.sin(math.radians(angle))])

    def losses() -> tuple[Tensor, Tensor]:
        scale = 1 + 0.1 * torch.rand(())
        return size * scale * (turned.double() @ w), scale * w[0]

    found = check_terms(losses, [w])
    assert [f.level for f in found] == ([level] if level else [])
    if found:
        assert found[0].evidence["value"] == pytest.approx(-size * math.cos(math.radians(angle)))
        assert ("rises" in found[0].text) == (size == 2)
    assert w.grad is None
