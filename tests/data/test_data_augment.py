"""Flips and shifts against a reference that moves one image at a time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from equilibrist.data import ArraySource, Augmented, DataError, Paired, Source, eight_gaussians

IMAGES = torch.rand(50, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def philox(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def plain(**settings: object) -> ArraySource:
    return ArraySource(IMAGES, **{"name": "noise", "labels": np.arange(50) % 4, **settings})


def reference(source, rng, n: int, flip: bool, crop: int):
    """Each image by itself: mirror it, pad it, cut a window from it."""
    rows = torch.from_numpy(rng.integers(0, source.size, size=n))
    flips = rng.integers(0, 2, size=(n, 1)) if flip else np.zeros((n, 1), int)
    shifts = rng.integers(-crop, crop + 1, size=(2, n, 1)) if crop else np.zeros((2, n, 1), int)
    moved = []
    for i, row in enumerate(rows):
        image = source.all()[row]
        if flips[i, 0]:
            image = torch.flip(image, (2,))
        padded = functional.pad(image[None], (crop,) * 4, mode="reflect")[0] if crop else image
        top, left = crop - int(shifts[0, i, 0]), crop - int(shifts[1, i, 0])
        moved.append(padded[:, top : top + 6, left : left + 8])
    return torch.stack(moved), rows


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("crop", [0, 1, 2, 5])
@pytest.mark.parametrize("n", [1, 40])
def test_against_the_reference(flip, crop, n) -> None:
    source = Augmented(plain(), flip, crop)
    one, two = philox(), philox()
    for _ in range(2):
        x, y = source.sample_pairs(one, n)
        want, rows = reference(source.source, two, n, flip, crop)
        assert torch.equal(x, want)
        assert torch.equal(y, rows % 4)
    assert one.random() == two.random()
    assert torch.equal(source.sample(philox(), n), source.sample_pairs(philox(), n)[0])


def test_the_reference_moves() -> None:
    x, rows = reference(plain(), philox(), 40, True, 2)
    assert not torch.equal(x, IMAGES[rows])


def test_rows_are_those_of_the_plain_source() -> None:
    number = torch.arange(50.0)[:, None, None, None].expand(50, 1, 4, 4) / 50
    source = ArraySource(number)
    drawn = Augmented(source, True, 2).sample(philox(), 64)
    assert torch.equal(drawn, source.sample(philox(), 64))


def test_flips_are_fair_and_shifts_uniform() -> None:
    ramp = (torch.arange(6.0)[:, None] * 8 + torch.arange(8.0)).expand(1, 1, 6, 8) / 48
    x = Augmented(ArraySource(ramp), True, 2).sample(philox(), 20_000)[:, 0]
    flipped = x[:, 3, 3] > x[:, 3, 4]  # the middle never comes from beyond the border
    assert flipped.float().mean() == pytest.approx(0.5, abs=5 * 0.5 / 20_000**0.5)
    down = 3 - (x[:, 3, 3] * 48 + 0.5).int() // 8
    counts = np.bincount(down + 2, minlength=5)
    assert np.abs(counts - 4000).max() < 5 * (20_000 * 0.2 * 0.8) ** 0.5


def test_it_is_a_source() -> None:
    source = Augmented(plain(value_range=(-1, 1), class_names=list("abcd")), True, 4)
    assert isinstance(source, Source)
    assert isinstance(source, Paired)
    assert (source.name, source.kind, source.shape) == ("noise+flip+crop4", "images", (3, 6, 8))
    assert (source.size, source.value_range, source.classes) == (50, (-1.0, 1.0), 4)
    assert source.class_names == tuple("abcd")
    assert torch.equal(source.labels, plain().labels)
    assert source.origin == (
        "an array in memory; when drawn, flipped left to right with probability 1/2 and shifted "
        "by up to 4 pixels, padded by reflection"
    )
    assert torch.equal(source.all(), IMAGES)
    assert torch.equal(source.take(torch.tensor([4, 2])), IMAGES[[4, 2]])
    assert Augmented(plain(), crop=1).name == "noise+crop1"


def test_nothing_to_do() -> None:
    source = Augmented(plain())
    assert source.name == "noise"
    assert source.sha256 == plain().sha256
    assert "left as they are" in source.origin
    one, two = philox(), philox()
    assert torch.equal(source.sample(one, 9), plain().sample(two, 9))
    assert one.random() == two.random()


def test_checksums_tell_what_is_done() -> None:
    sums = [Augmented(plain(), flip, crop).sha256 for flip in (False, True) for crop in (0, 1, 2)]
    assert len(set(sums)) == 6
    assert all(len(text) == 64 for text in sums)
    assert Augmented(plain(), True).sha256 == Augmented(plain(), True).sha256
    assert Augmented(ArraySource(IMAGES * 0.5), True).sha256 != Augmented(plain(), True).sha256


def test_parts_are_augmented_alike() -> None:
    source = Augmented(plain(), True, 1)
    parts = source.split((0.5, 0.5), philox())
    for part, bare in zip(parts, plain().split((0.5, 0.5), philox()), strict=True):
        assert isinstance(part, Augmented)
        assert (part.flip, part.crop, part.size) == (True, 1, 25)
        assert torch.equal(part.all(), bare.all())
        want, _ = reference(bare, philox(3), 8, True, 1)
        assert torch.equal(part.sample(philox(3), 8), want)
        assert "part" in part.origin


def test_moves() -> None:
    source = Augmented(plain(), True, 1)
    wide = source.to(dtype=torch.float64)
    assert torch.equal(wide.sample(philox(), 5), source.sample(philox(), 5).double())
    moved = source.to("meta")
    x, y = moved.sample_pairs(philox(), 5)
    assert (x.device.type, y.device.type, x.shape) == ("meta", "meta", (5, 3, 6, 8))


def test_images_that_are_conditions_move_along() -> None:
    source = Augmented(plain(labels=None, conditions=IMAGES[:, :2] * 2 - 7), True, 2)
    x, y = source.sample_pairs(philox(), 40)
    assert torch.equal(x, source.sample(philox(), 40))
    assert torch.equal(y, x[:, :2] * 2 - 7)
    flat = Augmented(plain(labels=None, conditions=np.zeros((50, 3))), True)
    assert flat.sample_pairs(philox(), 4)[1].shape == (4, 3)


class Bare:
    """A source with what the protocol asks for, and no more."""

    name, kind, shape, size, value_range, origin = "bare", "images", (1, 4, 4), 2, (0, 1), "here"

    def sample(self, rng, n):
        return torch.zeros(n, 1, 4, 4)

    def all(self):
        return torch.arange(2.0)[:, None, None, None].expand(2, 1, 4, 4)


def test_a_bare_source() -> None:
    source = Augmented(Bare(), True)
    assert source.sample(philox(), 3).shape == (3, 1, 4, 4)
    assert (source.sha256, source.classes, source.labels, source.class_names) == (None,) * 4
    assert source.take(torch.tensor([1])).tolist() == [[[[1.0] * 4] * 4]]


@pytest.mark.parametrize(
    ("make", "wrong", "remedy"),
    [
        (lambda: Augmented(eight_gaussians(), True), "points cannot be flipped", "give images"),
        (lambda: Augmented(plain(), crop=-1), "by crop=-1 pixels", "from 0 to 5"),
        (lambda: Augmented(plain(), crop=6), "by crop=6 pixels", "from 0 to 5"),
        (lambda: Augmented(plain(), crop=1.5), "by crop=1.5 pixels", "a whole number"),
        (lambda: Augmented(Bare(), True).sample_pairs(philox(), 2), "no conditions", "use sample"),
        (
            lambda: Augmented(plain(labels=None), True).sample_pairs(philox(), 2),
            "no labels or conditions",
            "without conditions",
        ),
        (
            lambda: Augmented(plain(labels=None, conditions=IMAGES[..., :4]), crop=1).sample_pairs(
                philox(), 2
            ),
            "conditions [3, 6, 4] cannot be moved with images [3, 6, 8]",
            "resize them",
        ),
        (lambda: Augmented(plain(), True).sample(philox(), 0), "draw 0", "at least 1"),
    ],
)
def test_refusals_name_the_thing_and_the_remedy(make, wrong, remedy) -> None:
    with pytest.raises(DataError) as caught:
        make()
    message = str(caught.value)
    assert message.startswith(("noise: ", "bare: ", "eight-gaussians: "))
    assert wrong in message
    assert remedy in message
    assert message.isprintable()
