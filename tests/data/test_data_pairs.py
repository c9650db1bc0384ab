"""Samples with their conditions: classes, images, modes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from equilibrist.data import (
    ArraySource,
    DataError,
    Mixture2D,
    Paired,
    Source,
    digits,
    eight_gaussians,
    mnist,
)


def philox(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


RAMP = torch.arange(40.0)[:, None, None, None].expand(40, 1, 2, 3) / 40


def numbers(images: torch.Tensor) -> torch.Tensor:
    return (images[:, 0, 0, 0] * 40).round().long()


def labelled(**settings: object) -> ArraySource:
    return ArraySource(RAMP, name="ramp", labels=np.arange(40) % 7, **settings)


def test_pairs_are_the_draws_of_sample() -> None:
    source = labelled()
    assert isinstance(source, Paired)
    assert isinstance(source, Source)
    one, two = philox(), philox()
    for n in (5, 64):
        x, y = source.sample_pairs(one, n)
        assert torch.equal(x, source.sample(two, n))
        assert y.dtype == torch.int64
        assert torch.equal(y, numbers(x) % 7)
    # Both used the generator up alike.
    assert one.random() == two.random()


def test_pairs_follow_parts_and_moves() -> None:
    for part in labelled().split((0.5, 0.5), philox()):
        x, y = part.sample_pairs(philox(), 100)
        assert torch.equal(y, numbers(x) % 7)
        assert part.classes == 7
    moved = labelled().to("meta", torch.float64)
    x, y = moved.sample_pairs(philox(), 4)
    assert (x.device.type, y.device.type, x.dtype) == ("meta", "meta", torch.float64)


def test_numbers_of_classes(write_mnist, tmp_path) -> None:
    assert ArraySource(RAMP).classes is None
    assert ArraySource(RAMP).labels is None
    assert labelled().classes == 7
    assert labelled(classes=12).classes == 12
    named = labelled(class_names=list("abcdefg"))
    assert (named.classes, named.class_names) == (7, tuple("abcdefg"))
    assert labelled().class_names is None
    assert digits().classes == 10
    # Of three images none is a nine.
    source = mnist(write_mnist(tmp_path))
    assert (source.classes, source.class_names) == (10, tuple("0123456789"))


def conditioned(**settings: object) -> ArraySource:
    pictures = torch.stack([RAMP[:, 0] * 8 - 3, -RAMP[:, 0]], 1)
    return ArraySource(RAMP, name="ramp", conditions=pictures, **settings)


def test_conditions_are_images_that_follow_their_samples() -> None:
    source = conditioned()
    assert isinstance(source, Paired)
    assert (source.classes, source.labels) == (None, None)
    assert source.conditions.shape == (40, 2, 2, 3)
    one, two = philox(), philox()
    x, y = source.sample_pairs(one, 30)
    assert torch.equal(x, source.sample(two, 30))
    assert one.random() == two.random()
    torch.testing.assert_close(y[:, 1], -x[:, 0])
    for part in source.split((0.6, 0.4), philox()):
        x, y = part.sample_pairs(philox(), 30)
        torch.testing.assert_close(y[:, 0], x[:, 0] * 8 - 3)
        assert part.conditions.shape == (part.size, 2, 2, 3)
    x, y = source.to(dtype=torch.float64).sample_pairs(philox(), 3)
    assert x.dtype == y.dtype == torch.float64
    assert source.to("meta").sample_pairs(philox(), 3)[1].device.type == "meta"


def test_conditions_are_copied_and_bytes_are_scaled() -> None:
    data = torch.full((2, 1, 1, 1), 51, dtype=torch.uint8)
    source = ArraySource(data, conditions=data, value_range=(-1, 1))
    data.zero_()
    torch.testing.assert_close(source.conditions, torch.full((2, 1, 1, 1), -0.6))
    torch.testing.assert_close(source.all(), torch.full((2, 1, 1, 1), -0.6))
    points = ArraySource(np.zeros((3, 2)), kind="points", conditions=np.ones((3, 5)))
    assert points.sample_pairs(philox(), 4)[1].shape == (4, 5)


@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("n", [3, 64, 67])
def test_modes_of_a_mixture(balanced, n) -> None:
    law = eight_gaussians(balanced=balanced)
    assert isinstance(law, Paired)
    assert law.classes == 8
    one, two = philox(), philox()
    x, y = law.sample_pairs(one, n)
    assert torch.equal(x, law.sample(two, n))
    assert one.random() == two.random()
    assert y.dtype == torch.int64
    assert torch.equal(y, torch.cdist(x, law.modes).argmin(1))
    assert law.to("meta").sample_pairs(philox(), n)[1].device.type == "meta"
    assert Mixture2D([[0.0, 0.0], [1.0, 1.0]], 0.1).classes == 2


@pytest.mark.parametrize(
    ("make", "wrong", "remedy"),
    [
        (lambda: ArraySource(RAMP, name="ramp").sample_pairs(philox(), 2), "no labels", "labels="),
        (lambda: labelled().sample_pairs(philox(), 0), "draw 0", "at least 1"),
        (lambda: labelled(classes=6), "a label of 6 is none of 6 classes", "from 0"),
        (lambda: labelled(classes=-1), "is none of 0 classes", "from 0"),
        (lambda: labelled(class_names=list("abc")), "a label of 6 is none of 3 classes", "from 0"),
        (lambda: labelled(classes=8, class_names=["a"]), "1 class names for 8", "once"),
        (
            lambda: ArraySource(RAMP, name="ramp", labels=np.arange(40) - 1),
            "a label of -1 is none of 39 classes",
            "from 0",
        ),
        (lambda: ArraySource(RAMP, name="ramp", classes=3), "classes without labels", "labels too"),
        (lambda: ArraySource(RAMP, name="ramp", class_names="ab"), "without labels", "labels too"),
        (lambda: conditioned(labels=np.zeros(40, int)), "labels and conditions", "one of them"),
        (lambda: _conditions(RAMP[:39]), "shape [39, 1, 2, 3] do not fit 40", "[40, ...]"),
        (lambda: _conditions(np.zeros(40)), "shape [40] do not fit 40", "as labels"),
        (lambda: _conditions(RAMP[:, :0]), "do not fit", "[40, ...]"),
        (lambda: _conditions(RAMP * np.nan), "NaN or infinite", "remove them"),
        (lambda: _conditions(RAMP.long()), "torch.int64", "convert"),
        (lambda: _conditions("text"), "cannot make a tensor of str", "float32"),
    ],
)
def test_refusals_name_the_thing_and_the_remedy(make, wrong, remedy) -> None:
    with pytest.raises(DataError) as caught:
        make()
    message = str(caught.value)
    assert message.startswith("ramp: ")
    assert wrong in message
    assert remedy in message
    assert message.isprintable()


def _conditions(conditions: object) -> ArraySource:
    return ArraySource(RAMP, name="ramp", conditions=conditions)
