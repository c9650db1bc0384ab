"""Scores as runs use them: labels, floors, failures, and what is kept between calls."""

from __future__ import annotations

import copy
import gc
import json
import math
import pickle
import weakref
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from equilibrist.data import ArraySource, DataError, digits, eight_gaussians
from equilibrist.scores import (
    ClassScore,
    FeatureNetwork,
    Frechet,
    Kernel,
    MixtureQuality,
    PrecisionRecall,
    Result,
    Score,
    coordinates,
    frechet_distance,
    pixels,
    with_floor,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64(seed))


def points(n: int = 100, d: int = 2, seed: int = 0) -> ArraySource:
    return ArraySource(np.random.default_rng(seed).normal(size=(n, d)), kind="points")


def made(n: int = 60, d: int = 2, seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d)))


class Counting(nn.Module):
    """Passes points on and counts them."""

    seen: int = 0

    def forward(self, x: Tensor) -> Tensor:
        Counting.seen += len(x)
        return x


ALL = (
    Frechet(coordinates(), samples=40),
    Kernel(coordinates(), samples=40, subsets=5, subset_size=10),
    ClassScore(FeatureNetwork(nn.Identity(), "two", value_range=None), samples=40, splits=2),
    PrecisionRecall(coordinates(), samples=40),
    MixtureQuality(samples=40, transport=20),
)


@pytest.mark.parametrize("score", ALL, ids=lambda s: type(s).__name__)
def test_every_score(score: Score) -> None:
    assert isinstance(score, Score)
    source, fake = points(), made()
    first = score(fake, source, rng())
    assert first.failed is None
    assert first.samples == 40
    assert first.name == score.name
    assert set(first.values) == set(first.floor)
    assert set(first.better) <= set(first.values)
    assert set(first.better.values()) <= {"lower", "higher"}
    assert all(math.isfinite(v) for v in [*first.values.values(), *first.floor.values()])
    assert json.loads(json.dumps(first.to_json(), allow_nan=False)) == first.to_json()
    # A perfect generator: the same comparison as the floor's, by another sample.
    assert score(fake, source, rng()) == first
    assert score(fake, source, rng(1)).floor != first.floor
    # An unused row changes nothing, a used one does.
    assert score(torch.cat([fake[:40], made(9, seed=2)]), source, rng()) == first
    assert score(fake.flip(0) + 3, source, rng()).values != first.values


def test_labels_name_the_network() -> None:
    score = Frechet()
    short = pixels().sha256[:8]  # type: ignore[index]
    assert score.name == f"Frechet distance (pixels-8x8, {short})"
    for kind, title in (
        (Kernel, "Kernel distance"),
        (PrecisionRecall, "Precision and recall"),
        (ClassScore, "Class score"),
    ):
        assert kind(pixels(4)).name.startswith(f"{title} (pixels-4x4, ")
    result = score(digits().all()[:100], digits(), rng())
    assert result.network == pixels().to_json()
    assert str(result).startswith(f"{score.name}: frechet_distance ")
    assert "(floor " in str(result)
    assert str(result).endswith("; 100 samples")


def test_values_and_floor_are_one_figure_of_disjoint_halves() -> None:
    source, fake = points(41), made(15)
    seen: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        seen.append(x)
        return x

    result = Frechet(FeatureNetwork(look, "look", value_range=None))(fake, source, rng())
    first, second, generated = seen
    assert len(first) == len(second) == len(generated) == result.samples == 15
    assert torch.equal(generated, fake.to(generated.dtype))
    rows = {tuple(r) for r in torch.cat([first, second]).tolist()}
    assert len(rows) == 30
    assert rows <= {tuple(r) for r in source.all().tolist()}
    assert result.values == {"frechet_distance": frechet_distance(first, generated)}
    assert result.floor == {"frechet_distance": frechet_distance(first, second)}


@pytest.mark.parametrize(("size", "fakes", "samples", "n"), [(41, 99, 99, 20), (400, 30, 99, 30)])
def test_how_many_samples(size: int, fakes: int, samples: int, n: int) -> None:
    score = Frechet(coordinates(), samples=samples)
    assert score(made(fakes), points(size), rng()).samples == n


def test_an_infinite_law() -> None:
    law, score = eight_gaussians(sigma=0.3), Frechet(coordinates(), samples=500)
    result = score(law.sample(rng(3), 500), law, rng())
    assert result.samples == 500
    assert 0 < result.floor["frechet_distance"] < 0.05
    assert result.values["frechet_distance"] < 0.05


def test_a_collapsed_generator_stands_far_above_the_floor() -> None:
    source = digits()
    one = source.all()[:1].expand(800, -1, -1, -1)
    real = source.all()[:800]
    for score, key in ((Frechet(), "frechet_distance"), (Kernel(subsets=10), "kernel_distance")):
        bad, good = score(one, source, rng()), score(real, source, rng())
        assert bad.values[key] > 20 * abs(bad.floor[key])
        assert good.values[key] < 0.05 * bad.values[key]
    found = PrecisionRecall()(one, source, rng())
    assert found.values["recall"] == 0
    assert found.floor["recall"] > 0.7


def test_real_features_are_kept() -> None:
    source, fake = points(), made()
    score = Frechet(FeatureNetwork(Counting(), "counting", value_range=None), samples=40)
    Counting.seen = 0
    first, rest = score(fake, source, start := rng()), 40
    assert Counting.seen == 3 * 40
    again, second = rng(), score(fake, source, other := rng())
    assert Counting.seen == 3 * 40 + rest
    assert first == second
    # The generator stands where it would without the memory.
    assert repr(start.bit_generator.state) == repr(other.bit_generator.state)
    assert repr(again.bit_generator.state) != repr(other.bit_generator.state)

    score(fake, source, rng(1))  # other real samples
    score(fake, points(), rng(1))  # an equal source, but another object
    score(fake[:30], source, rng(1))  # fewer of them
    assert Counting.seen == 3 * 40 + rest + 3 * 40 + 3 * 40 + 3 * 30


def test_memory_changes_no_figure() -> None:
    source = points()
    for score in ALL:
        used = copy.deepcopy(score)
        used(made(seed=5), source, rng())
        for fake in (made(seed=6), made(seed=7)):
            state, fresh = rng(), rng()
            assert used(fake, source, state) == copy.deepcopy(score)(fake, source, fresh)
            assert repr(state.bit_generator.state) == repr(fresh.bit_generator.state)


def test_memory_does_not_outlive_its_source() -> None:
    source, score = points(), Frechet(coordinates())
    score(made(), source, rng())
    assert score._kept._value is not None
    kept = weakref.ref(score._kept._value.features)
    del source
    gc.collect()
    assert kept() is None


def test_a_source_that_cannot_be_referenced_weakly() -> None:
    class Slotted:
        __slots__ = ("inner",)
        kind, name, shape, size, value_range = "points", "slotted", (2,), 100, None

        def __init__(self) -> None:
            self.inner = points()

        def all(self) -> Tensor:
            return self.inner.all()

    score = Frechet(coordinates(), samples=40)
    source = Slotted()
    assert score(made(), source, rng()) == score(made(), source, rng())  # type: ignore[arg-type]


def test_scores_are_values() -> None:
    score = Frechet(coordinates())
    score(made(), points(), rng())
    twin = pickle.loads(pickle.dumps(score))
    assert twin.name == score.name
    assert twin._kept._value is None
    assert (
        repr(score) == f"Frechet(network=FeatureNetwork({coordinates().describe()}), samples=2048)"
    )
    with pytest.raises(AttributeError):
        score.samples = 3  # type: ignore[misc]


@pytest.mark.parametrize("score", ALL, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_samples_that_are_not_finite_fail_softly(score: Score, bad: float) -> None:
    fake, source = made(), points()
    fake[3, 1] = fake[7, 0] = bad
    result = score(fake, source, rng())
    assert result.failed == "2 of 40 generated samples are NaN or infinite"
    assert all(math.isnan(v) for v in result.values.values())
    assert result.floor == score(made(), source, rng()).floor
    plain = result.to_json()
    assert set(plain["values"].values()) == {None}
    assert None not in plain["floor"].values()
    assert str(result) == f"{score.name}: failed, {result.failed}"


@pytest.mark.parametrize("score", ALL, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("scale", [1e160, 1e300])
def test_samples_that_are_too_large_fail_softly(score: Score, scale: float) -> None:
    result = score(made() * scale, points(), rng())
    if isinstance(score, ClassScore):  # logits may be as large as they like
        assert result.failed is None
        return
    assert result.failed is not None
    assert "\n" not in result.failed
    assert all(math.isnan(v) for v in result.values.values())


def test_features_that_are_not_finite_fail_softly() -> None:
    network = FeatureNetwork(lambda x: 1 / (x > -50).float() * x, "net", value_range=None)
    fake = made()
    fake[5] = -100
    result = Frechet(network, samples=40)(fake, points(), rng())
    assert result.failed == "the features of 1 of 40 samples are not finite"


def test_mistakes_raise() -> None:
    source = points()
    with pytest.raises(DataError, match=r"samples have shape \[3\], real ones \[2\]"):
        Frechet(coordinates())(made(9, 3), source, rng())
    with pytest.raises(DataError, match="leave less than two"):
        Frechet(coordinates())(made(1), source, rng())
    with pytest.raises(DataError, match="leave less than two"):
        Frechet(coordinates())(made(), points(3), rng())
    with pytest.raises(DataError, match="states no range"):
        Frechet()(made(), source, rng())
    with pytest.raises(DataError, match="no 3 neighbours"):
        PrecisionRecall(coordinates())(made(3), source, rng())
    with pytest.raises(DataError, match="logits=True"):
        ClassScore(coordinates(), logits=False)(made(), source, rng())


@pytest.mark.parametrize(
    ("kind", "setting", "least"),
    [
        (Frechet, "samples", 2),
        (Kernel, "samples", 2),
        (Kernel, "subsets", 1),
        (Kernel, "subset_size", 2),
        (ClassScore, "samples", 2),
        (ClassScore, "splits", 1),
        (PrecisionRecall, "samples", 2),
        (PrecisionRecall, "k", 1),
        (MixtureQuality, "samples", 2),
        (MixtureQuality, "transport", 1),
    ],
)
def test_settings(kind: type, setting: str, least: int) -> None:
    """The least is taken, and enough where as many samples are."""
    network = FeatureNetwork(nn.Softmax(1), "soft", value_range=None)
    more: dict[str, Any] = {} if kind is MixtureQuality else {"network": network}
    for value in (least - 1, -least):
        with pytest.raises(
            ValueError, match=rf"{kind.__name__}\.{setting} must be at least {least}, not {value}$"
        ):
            kind(**more, **{setting: value})
    if kind is PrecisionRecall and setting == "samples":
        more["k"] = 1
    if kind is ClassScore:
        more |= {"logits": False, "splits": 1}
    result = kind(**{**more, setting: least})(made(), points(), rng())
    assert result.samples == (2 if setting == "samples" else 50)
    assert result.failed is None
    assert all(math.isfinite(value) for value in result.values.values())


def test_kernel_subsets_shrink_with_few_samples() -> None:
    score = Kernel(coordinates(), subsets=5)
    result = score(made(40), points(), rng())
    assert result.values["kernel_distance_std"] > 0
    assert result.samples == 40


def test_with_floor() -> None:
    pairs: list[tuple[Tensor, Tensor]] = []

    def figure(real: Tensor, other: Tensor) -> float:
        pairs.append((real, other))
        return float(other.mean() - real.mean())

    real, fake = torch.arange(10.0)[:, None], torch.full((4, 1), 20.0)
    found = with_floor(figure, real, fake, rng())
    (first, generated), (same, second) = pairs
    assert torch.equal(generated, fake)
    assert torch.equal(first, same)
    assert len(set(first.flatten().tolist()) | set(second.flatten().tolist())) == 8
    assert found == (20 - float(first.mean()), float(second.mean() - first.mean()), 4)
    assert with_floor(figure, real, fake.tile(9, 1), rng()).samples == 5
    assert len(pairs[-2][1]) == len(pairs[-1][1]) == 5
    assert with_floor(figure, real.numpy(), fake.numpy(), rng()) == found
    for few in (real[:1], real[:0]):
        with pytest.raises(DataError, match="leave no floor"):
            with_floor(figure, few, fake, rng())


def test_a_result_without_network() -> None:
    result = Result("x", {"a": math.inf}, {"a": 1.0}, {"a": "lower"}, 3)
    assert result.to_json() == {
        "name": "x",
        "values": {"a": None},
        "floor": {"a": 1.0},
        "better": {"a": "lower"},
        "samples": 3,
        "network": None,
        "failed": None,
    }
