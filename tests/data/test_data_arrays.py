"""Arrays in memory: draws, parts, dtypes, and what is refused."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from equilibrist.data import ArraySource, DataError, Source


def philox(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def numbered(count: int = 40, **settings: object) -> ArraySource:
    """Images whose pixels all tell the number of the image."""
    ramp = torch.arange(count, dtype=torch.float64) / count
    data = ramp[:, None, None, None].expand(count, 1, 2, 3)
    settings = {"name": "ramp", "origin": "made up", "labels": np.arange(count), **settings}
    return ArraySource(data, **settings)


def numbers(images: torch.Tensor, count: int = 40) -> list[int]:
    assert torch.equal(images, images[:, :1, :1, :1].expand_as(images))
    return (images[:, 0, 0, 0].double() * count).round().long().tolist()


def test_it_is_a_source() -> None:
    source: Source = numbered()
    assert isinstance(source, Source)
    assert (source.name, source.kind, source.shape) == ("ramp", "images", (1, 2, 3))
    assert (source.size, source.value_range, source.origin) == (40, (0.0, 1.0), "made up")
    assert source.all().shape == (40, 1, 2, 3)
    assert source.all().dtype == torch.float32
    assert numbers(source.all()) == list(range(40))


def test_draws_depend_on_the_generator_alone() -> None:
    source = numbered()
    first = source.sample(philox(), 64)
    source.sample(philox(7), 5)
    assert first.shape == (64, 1, 2, 3)
    assert torch.equal(first, source.sample(philox(), 64))
    assert not torch.equal(first, source.sample(philox(1), 64))


def test_draws_are_uniform_with_replacement() -> None:
    counts = np.bincount(numbers(numbered().sample(philox(), 40_000)), minlength=40)
    chi2 = ((counts - 1000) ** 2 / 1000).sum()
    # 39 degrees of freedom: below 12 or above 86 happens once in about 100 000 seeds. Drawing
    # without replacement would give 0.
    assert 12 < chi2 < 86


def test_successive_draws_go_on() -> None:
    source, rng = numbered(), philox()
    assert not torch.equal(source.sample(rng, 64), source.sample(rng, 64))


def test_draws_do_not_alias_the_data() -> None:
    source = numbered()
    source.sample(philox(), 8).fill_(0.5)
    assert numbers(source.all()) == list(range(40))


@pytest.mark.parametrize("convert", [lambda x: x, lambda x: x.numpy()], ids=["tensor", "array"])
def test_the_data_are_copied(convert) -> None:
    data = torch.rand(5, 2)
    source = ArraySource(convert(data), name="p", origin="", kind="points")
    before = source.all().clone()
    data.zero_()
    assert torch.equal(source.all(), before)


@pytest.mark.parametrize(
    ("value_range", "middle"), [((0.0, 1.0), 51 / 255), ((-1.0, 1.0), -0.6), ((-2.0, -0.8), -1.76)]
)
def test_bytes_fill_the_value_range(value_range, middle) -> None:
    data = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    source = ArraySource(data, name="b", origin="", value_range=value_range)
    values = source.all().flatten()
    torch.testing.assert_close(values, torch.tensor([value_range[0], middle, value_range[1]]))
    # Rounding must not leave the range in the dtype of the draws.
    ends = torch.tensor(value_range)
    assert values[0] >= ends[0]
    assert values[2] <= ends[1]


@pytest.mark.parametrize("value_range", [(0.0, 0.1), (-0.1, 0.7), (1 / 3, 2 / 3)])
def test_ends_that_float32_rounds_are_in_range(value_range) -> None:
    data = torch.tensor(value_range, dtype=torch.float64).reshape(2, 1, 1, 1)
    assert ArraySource(data, name="e", origin="", value_range=value_range).size == 2


def test_awkward_arrays_are_digested() -> None:
    plain = np.arange(12, dtype=np.float32).reshape(6, 2)
    frozen = plain.copy()
    frozen.flags.writeable = False
    for array in (frozen, plain[::-1][::-1], plain.astype(">f4"), np.asfortranarray(plain)):
        source = ArraySource(array, name="p", origin="", kind="points")
        assert torch.equal(source.all(), torch.from_numpy(plain))
        assert source.all().is_contiguous()
    backwards = ArraySource(plain[::-1], name="p", origin="", kind="points")
    assert torch.equal(backwards.all(), torch.from_numpy(plain.copy()).flip(0))


def test_points_have_no_range_unless_told() -> None:
    far = ArraySource(np.array([[-50.0, 99.0]]), name="p", origin="", kind="points")
    assert far.value_range is None
    assert far.shape == (2,)


def test_a_leaf_that_needs_gradients_is_cut_off() -> None:
    data = torch.rand(4, 2, requires_grad=True)
    source = ArraySource(data, name="p", origin="", kind="points")
    assert not source.sample(philox(), 3).requires_grad


def test_split_is_disjoint_and_complete() -> None:
    source = numbered()
    parts = source.split((0.5, 0.3, 0.2), philox())
    held = [numbers(part.all()) for part in parts]
    assert [len(h) for h in held] == [20, 12, 8]
    assert sorted(row for rows in held for row in rows) == list(range(40))
    assert held[0] != sorted(held[0])
    for number, (part, rows) in enumerate(zip(parts, held, strict=True), 1):
        assert part.labels.tolist() == rows
        assert part.size == len(rows)
        assert part.name == "ramp"
        assert part.origin == f"made up; part {number} of 3, {len(rows)} samples"
        assert set(numbers(part.sample(philox(), 200))) <= set(rows)
    assert source.size == 40


def test_split_depends_on_the_generator_alone() -> None:
    source = numbered()
    first, again, other = (source.split((0.5, 0.5), philox(s))[0].all() for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_split_may_leave_samples_out() -> None:
    assert [p.size for p in numbered().split((0.25, 0.25), philox())] == [10, 10]


def test_split_forgives_rounded_fractions() -> None:
    assert [p.size for p in numbered().split((0.1,) * 10, philox())] == [4] * 10
    assert [p.size for p in numbered().split((0.5, 0.5 + 1e-12), philox())] == [20, 20]
    assert [p.size for p in numbered(7).split((1 / 3,) * 3, philox())] == [2, 3, 2]


def test_to_changes_the_dtype_of_the_draws() -> None:
    source = numbered()
    wide = source.to(dtype=torch.float64)
    assert source.sample(philox(), 4).dtype == torch.float32
    assert wide.sample(philox(), 4).dtype == torch.float64
    assert torch.equal(wide.sample(philox(), 4), source.sample(philox(), 4).double())
    assert (wide.name, wide.size, wide.value_range) == ("ramp", 40, (0.0, 1.0))


def test_to_shares_what_stays() -> None:
    source = numbered()
    assert source.to("cpu").all().data_ptr() == source.all().data_ptr()


class Lookups(TorchDispatchMode):
    """Notes on which device the rows of each index_select lie."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.index_select.default:
            self.devices.append(args[2].device.type)
        return func(*args, **(kwargs or {}))


def test_draws_are_made_on_the_device_of_the_data() -> None:
    # "meta" stands in for an accelerator, but it forgives rows that stayed on the CPU.
    moved = numbered().to("meta")
    with Lookups() as lookups:
        draw = moved.sample(philox(), 4)
    assert lookups.devices == ["meta"]
    assert draw.device.type == "meta"
    assert draw.shape == (4, 1, 2, 3)
    assert moved.labels.device.type == "meta"
    assert moved.split((0.5, 0.5), philox())[0].all().device.type == "meta"


def test_dtype_of_the_constructor() -> None:
    third = np.full((1, 1), 1 / 3)
    source = ArraySource(third, name="p", origin="", kind="points", dtype=torch.float64)
    assert source.all().item() == 1 / 3


GOOD = np.zeros((4, 1, 2, 2), np.float32)


def _with(value: float) -> np.ndarray:
    bad = GOOD.copy()
    bad[2, 0, 1, 1] = value
    return bad


@pytest.mark.parametrize(
    ("make", "wrong", "remedy"),
    [
        (lambda: _make(_with(np.nan)), "1 values are NaN", "remove them"),
        (lambda: _make(_with(np.inf)), "1 values are NaN or infinite", "remove them"),
        (lambda: _make(np.full((1, 1, 1, 1), 1e300)), "infinite in torch.float32", "remove them"),
        (lambda: _make(_with(1.5)), "from 0 to 1.5, outside of (0.0, 1.0)", "value_range"),
        (lambda: _make(_with(-0.5)), "from -0.5 to 0, outside of (0.0, 1.0)", "value_range"),
        (lambda: _make(GOOD[:0]), "is empty (shape [0, 1, 2, 2])", "at least one"),
        (lambda: _make(GOOD[:, :, :0]), "is empty", "at least one"),
        (lambda: _make(GOOD[:, 0]), "shape [4, 2, 2]", "[N, channels, height, width]"),
        (lambda: _make(GOOD, kind="points"), "shape [4, 1, 2, 2]", "[N, d]"),
        (lambda: _make(np.float32(1.0)), "shape []", "[N, channels, height, width]"),
        (lambda: _make(GOOD.astype(np.int64)), "torch.int64", "convert"),
        (lambda: _make(GOOD.astype(bool)), "torch.bool", "convert"),
        (lambda: _make(GOOD.astype(np.complex64)), "torch.complex64", "convert"),
        (lambda: _make(GOOD.astype(object)), "cannot make a tensor", "float32"),
        (lambda: _make([[1.0], [2.0, 3.0]]), "cannot make a tensor of list", "float32"),
        (
            lambda: _make(np.zeros((2, 2), np.uint8), kind="points"),
            "uint8 has no scale",
            "value_range",
        ),
        (lambda: _make(GOOD, kind="sounds"), "unknown kind 'sounds'", '"images", "points" or'),
        (lambda: _make(GOOD, value_range=(1.0, 0.0)), "(1.0, 0.0)", "try (0, 1)"),
        (lambda: _make(GOOD, value_range=(0.0, np.nan)), "nan", "try (0, 1)"),
        (lambda: _make(GOOD, value_range=(0.0,)), "(0.0,)", "try (0, 1)"),
        (lambda: _make(GOOD, labels=np.arange(3)), "shape [3]", "give 4 integers"),
        (lambda: _make(GOOD, labels=np.zeros(4)), "torch.float64", "give 4 integers"),
        (lambda: _make(GOOD, dtype=torch.int64), "torch.int64", "choose torch.float32"),
        (lambda: _make(GOOD).to(dtype=torch.int32), "torch.int32", "choose torch.float32"),
        (lambda: _make(GOOD).sample(philox(), 0), "draw 0 samples", "at least 1"),
        (lambda: _make(GOOD).split((0.5, 0.6), philox()), "[0.5, 0.6]", "at most 1"),
        (lambda: _make(GOOD).split((1.5, -0.5), philox()), "[1.5, -0.5]", "positive"),
        (lambda: _make(GOOD).split((0.5, np.nan), philox()), "nan", "positive"),
        (lambda: _make(GOOD).split((), philox()), "fractions []", "positive"),
        (
            lambda: _make(GOOD).split((0.9, 0.1), philox()),
            "part 2 of 2",
            "larger fractions of its 4",
        ),
    ],
)
def test_refusals_name_the_thing_and_the_remedy(make, wrong, remedy) -> None:
    with pytest.raises(DataError) as caught:
        make()
    message = str(caught.value)
    assert message.startswith("thing: ")
    assert wrong in message
    assert remedy in message
    assert message.isprintable()


def _make(data, **settings) -> ArraySource:
    return ArraySource(data, **{"name": "thing", "origin": "made up", **settings})
