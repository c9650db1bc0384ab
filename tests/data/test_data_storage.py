"""Bytes that are stored as bytes: the same numbers, a quarter of the memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from equilibrist.data import ArraySource, DataError, _rows

BYTES = np.random.default_rng(0).integers(0, 256, (300, 1, 4, 5), dtype=np.uint8)
BYTES[0] = np.arange(20, dtype=np.uint8).reshape(1, 4, 5)
BYTES[1, 0, 0, :2] = 0, 255
ALL = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)


def philox(seed: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@pytest.fixture
def both(monkeypatch):
    """The same source twice: stored as floats, and as bytes."""

    def make(data=BYTES, **settings: object) -> tuple[ArraySource, ArraySource]:
        settings = {"labels": np.arange(len(data)) % 7, **settings}
        floats = ArraySource(data, **settings)
        with monkeypatch.context() as patch:
            patch.setattr(_rows, "LARGE", 0)
            held = ArraySource(data, **settings)
        assert floats._rows.values.dtype.is_floating_point
        assert held._rows.values.dtype == torch.uint8
        return floats, held

    return make


@pytest.mark.parametrize("value_range", [(0, 1), (-1, 1), (-2.0, -0.8), (1 / 3, 2 / 3), (0, 255)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_every_byte_has_one_value(both, value_range, dtype) -> None:
    floats, held = both(ALL, value_range=value_range, dtype=dtype)
    assert torch.equal(floats.all(), held.all())
    assert held.all().dtype == dtype
    # As an accelerator reads them.
    assert torch.equal(held._rows._table, floats.all().flatten())


def test_draws_parts_and_checksums_are_the_same(both) -> None:
    floats, held = both(value_range=(-1, 1))
    assert (held.shape, held.size) == ((1, 4, 5), 300)
    assert torch.equal(floats.all(), held.all())
    assert torch.equal(floats.sample(philox(), 50), held.sample(philox(), 50))
    assert torch.equal(floats.take(torch.tensor([3, 1])), held.take(torch.tensor([3, 1])))
    assert held.sha256 == floats.sha256
    for one, two in zip(
        floats.split((0.5, 0.3), philox()), held.split((0.5, 0.3), philox()), strict=True
    ):
        assert two._rows.values.dtype == torch.uint8
        assert torch.equal(one.all(), two.all())
        assert torch.equal(one.labels, two.labels)
        assert one.sha256 == two.sha256


@pytest.mark.parametrize(
    "path",
    [
        (torch.float64,),
        (torch.float16,),
        (torch.float16, torch.float64),
        (torch.float64, torch.float32, torch.float64),
    ],
)
def test_what_was_rounded_stays_rounded(both, path) -> None:
    floats, held = both(value_range=(0, 1 / 3))
    for dtype in path:
        floats, held = floats.to(dtype=dtype), held.to(dtype=dtype)
    assert held.all().dtype == path[-1]
    assert torch.equal(floats.all(), held.all())
    assert torch.equal(floats.sample(philox(), 9), held.sample(philox(), 9))
    assert floats.sha256 == held.sha256
    assert torch.equal(held._rows._tabulated(torch.device("cpu"))[255], held.all().max())


def test_bytes_move_as_bytes(both) -> None:
    _, held = both()
    moved = held.to("meta", torch.float64)
    assert moved._rows.values.dtype == torch.uint8
    draw = moved.sample(philox(), 4)
    assert (draw.device.type, draw.dtype, draw.shape) == ("meta", torch.float64, (4, 1, 4, 5))
    assert moved.all().device.type == "meta"
    assert held.to("cpu")._rows.values.data_ptr() == held._rows.values.data_ptr()


def test_an_accelerator_reads_the_same(both) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for value_range in ((-1, 1), (-2.0, -0.8), (0, 1 / 3)):
        floats, held = both(value_range=value_range)
        for dtype in (torch.float32, torch.float64):
            one, two = floats.to("cuda", dtype), held.to("cuda", dtype)
            assert torch.equal(one.all(), two.all())
            assert torch.equal(one.sample(philox(), 50), two.sample(philox(), 50))
            assert one.sha256 == two.sha256


@pytest.mark.parametrize("convert", [torch.from_numpy, lambda x: x], ids=["tensor", "array"])
def test_bytes_are_copied(both, convert) -> None:
    data = BYTES.copy()
    sources = both(convert(data))
    data[:] = 0
    for source in sources:
        assert torch.equal(source.all(), both()[0].all())


def test_draws_do_not_alias(both) -> None:
    for source in both():
        source.sample(philox(), 300).zero_()
        assert source.all().max() == 1


def test_the_limit(monkeypatch) -> None:
    assert _rows.LARGE == 2**28
    need = BYTES.size * 4
    for limit, dtype in ((need, torch.float32), (need - 1, torch.uint8)):
        monkeypatch.setattr(_rows, "LARGE", limit)
        assert ArraySource(BYTES)._rows.values.dtype == dtype
    monkeypatch.setattr(_rows, "LARGE", 2 * need - 1)
    assert ArraySource(BYTES)._rows.values.dtype == torch.float32
    assert ArraySource(BYTES, dtype=torch.float64)._rows.values.dtype == torch.uint8


def test_memory_is_a_quarter(both) -> None:
    floats, held = both()
    assert floats._rows.values.nbytes == 4 * held._rows.values.nbytes


def test_checksums_do_not_depend_on_the_chunks(both, monkeypatch) -> None:
    floats, held = both()
    whole = floats.sha256
    monkeypatch.setattr(_rows, "_CHUNK", 7 * 20)
    assert len(list(held._rows.chunks())) == 43
    assert held.sha256 == floats.sha256 == whole


def test_bytes_need_a_range(monkeypatch) -> None:
    monkeypatch.setattr(_rows, "LARGE", 0)
    with pytest.raises(DataError, match="uint8 has no scale"):
        ArraySource(BYTES.reshape(300, 20), kind="points")


def test_wider_floats_need_no_second_copy() -> None:
    rows = torch.rand(50, 3, dtype=torch.float32)
    source = ArraySource(rows, kind="points")
    wide = source.to(dtype=torch.float64)
    assert wide._rows.values.data_ptr() == source._rows.values.data_ptr()
    assert torch.equal(wide.all(), rows.double())
    assert torch.equal(wide.take(torch.tensor([3])), rows[3:4].double())
    assert source.to(dtype=torch.float16)._rows.values.dtype == torch.float16
