"""Arrays on disk: what is read, how it is arranged, what is refused and never executed."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from equilibrist.data import DataError, array_file

RNG = np.random.default_rng(0)
BYTES = RNG.integers(0, 256, (6, 3, 4, 5), dtype=np.uint8)
FLOATS = RNG.random((6, 3, 4, 5), dtype=np.float32)
LABELS = np.arange(6) % 3


def npy(path: Path, values: np.ndarray) -> Path:
    np.save(path / "a.npy", values)
    return path / "a.npy"


def npz(path: Path, **values: np.ndarray) -> Path:
    np.savez(path / "a.npz", **values)
    return path / "a.npz"


def zipped(path: Path, **values: np.ndarray) -> Path:
    np.savez_compressed(path / "a.npz", **values)
    return path / "a.npz"


def tensors(path: Path, **values: np.ndarray) -> Path:
    save_file(
        {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in values.items()},
        path / "a.safetensors",
    )
    return path / "a.safetensors"


@pytest.mark.parametrize("write", [npz, zipped, tensors])
def test_keys_and_labels(tmp_path, write) -> None:
    file = write(tmp_path, x=BYTES, y=LABELS, other=FLOATS)
    source = array_file(file, "x", "y", value_range=(-1, 1))
    assert (source.name, source.kind, source.shape) == (file.name, "images", (3, 4, 5))
    want = torch.from_numpy(BYTES).float().div(255).mul(2).sub(1)
    torch.testing.assert_close(source.all(), want)
    assert (source.labels.tolist(), source.classes) == (LABELS.tolist(), 3)
    assert source.origin == f"6 images 3x4x5 of uint8 from {file.name}, array 'x'"
    assert torch.equal(array_file(file, "other").all(), torch.from_numpy(FLOATS))
    assert array_file(file, "other").labels is None
    assert array_file(file, "other", dtype=torch.float64).all().dtype == torch.float64
    # One array beside the labels needs no key.
    assert array_file(write(tmp_path, x=BYTES, y=LABELS), labels_key="y").size == 6
    assert array_file(write(tmp_path, x=BYTES)).size == 6


@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, order) -> None:
    source = array_file(npy(tmp_path, np.asarray(FLOATS, order=order)))
    assert torch.equal(source.all(), torch.from_numpy(FLOATS))
    assert (source.value_range, source.labels) == ((0.0, 1.0), None)
    assert source.origin == "6 images 3x4x5 of float32 from a.npy"


def test_the_file_may_go_once_it_is_read(tmp_path) -> None:
    file = npy(tmp_path, FLOATS)
    source = array_file(file)
    file.write_bytes(b"\0" * file.stat().st_size)
    assert torch.equal(source.all(), torch.from_numpy(FLOATS))


@pytest.mark.parametrize("write", [npy, lambda p, v: npz(p, a=v), lambda p, v: tensors(p, a=v)])
@pytest.mark.parametrize(
    ("shape", "wanted", "said"),
    [
        ((6, 7), (7,), "6 points 7 of"),
        ((6, 7, 8), (1, 7, 8), ", one channel added to [N, H, W]"),
        ((6, 7, 8, 3), (3, 7, 8), ", channels moved from [N, H, W, C]"),
        ((6, 7, 8, 1), (1, 7, 8), ", channels moved from [N, H, W, C]"),
        ((6, 7, 8, 4), (4, 7, 8), ", channels moved from [N, H, W, C]"),
        ((6, 3, 8, 3), (3, 8, 3), "images 3x8x3"),
        ((6, 1, 8, 4), (1, 8, 4), "images 1x8x4"),
        ((6, 2, 8, 8), (2, 8, 8), "images 2x8x8"),
        ((6, 5, 8, 2), (5, 8, 2), "images 5x8x2"),
    ],
)
def test_shapes(tmp_path, write, shape, wanted, said) -> None:
    values = RNG.random(shape, dtype=np.float32)
    source = array_file(write(tmp_path, values))
    assert source.shape == wanted
    assert said in source.origin
    assert ("moved" in source.origin) == ("moved" in said)
    got, want = source.all().numpy(), values
    if "moved" in said:
        want = np.stack([np.stack([image[..., c] for c in range(shape[3])]) for image in values])
    np.testing.assert_array_equal(got.reshape(want.shape), want)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_floats(tmp_path, dtype) -> None:
    source = array_file(npy(tmp_path, FLOATS.astype(dtype)))
    np.testing.assert_array_equal(source.all(), FLOATS.astype(dtype).astype(np.float32))


def test_safetensors_of_bfloat16(tmp_path) -> None:
    save_file({"a": torch.ones(2, 1, 2, 2, dtype=torch.bfloat16)}, tmp_path / "b.safetensors")
    source = array_file(tmp_path / "b.safetensors")
    assert source.all().dtype == torch.float32
    assert "of bfloat16" in source.origin


MARKS: list[str] = []


def note(text: str) -> None:
    MARKS.append(text)


class Attack:
    def __reduce__(self):
        return note, ("executed",)


def _bad(value: float) -> np.ndarray:
    bad = FLOATS.copy()
    bad[1, 2, 3, 4] = value
    return bad


def _text(path: Path, name: str, body: bytes) -> Path:
    (path / name).write_bytes(body)
    return path / name


def _objects(path: Path) -> Path:
    np.save(path / "a.npy", np.array([Attack(), None]), allow_pickle=True)
    return path / "a.npy"


def _zipped_objects(path: Path) -> Path:
    return npz(path, a=np.array([Attack(), None], dtype=object))


def _short(file: Path, lost: int) -> Path:
    file.write_bytes(file.read_bytes()[:-lost])
    return file


def _flipped(file: Path) -> Path:
    body = bytearray(file.read_bytes())
    body[len(body) // 2] ^= 0xFF
    file.write_bytes(body)
    return file


HUGE = b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'


@pytest.mark.parametrize(
    ("make", "settings", "wrong"),
    [
        (lambda p: p / "none.npy", {}, "not found; name an array file"),
        (lambda p: p / "none.txt", {}, "not an array file; give .npy, .npz, .safetensors"),
        (lambda p: _text(p, "a.pt", b""), {}, "reading .pt files executes code that they hold"),
        (lambda p: p / "a.PTH", {}, "reading .pth files executes code"),
        (lambda p: p / "a.pkl", {}, "save the array with numpy.save or safetensors"),
        (_objects, {}, "holds Python objects, which only running code could read"),
        (_zipped_objects, {}, "holds Python objects, which only running code could read"),
        (lambda p: _text(p, "a.npy", pickle.dumps(Attack())), {}, "truncated or damaged"),
        (lambda p: _text(p, "a.npz", pickle.dumps(Attack())), {}, "truncated or damaged"),
        (lambda p: _text(p, "a.npy", b""), {}, "truncated or damaged"),
        (lambda p: _text(p, "a.npz", b""), {}, "truncated or damaged"),
        (lambda p: _text(p, "a.safetensors", b""), {}, "truncated or damaged"),
        (lambda p: _text(p, "a.npz", b"<html>404</html>"), {}, "truncated or damaged"),
        (lambda p: _text(p, "a.safetensors", b"<html>404</html>"), {}, "truncated or damaged"),
        (
            lambda p: _text(p, "a.safetensors", struct.pack("<Q", len(HUGE)) + HUGE),
            {},
            "truncated or damaged",
        ),
        (lambda p: _short(npy(p, FLOATS), 1), {}, "truncated or damaged"),
        (lambda p: _short(npz(p, a=FLOATS), 30), {}, "truncated or damaged"),
        (lambda p: _short(tensors(p, a=FLOATS), 1), {}, "truncated or damaged"),
        (lambda p: _flipped(npz(p, a=FLOATS)), {}, "truncated or damaged"),
        (lambda p: _flipped(zipped(p, a=FLOATS)), {}, "truncated or damaged"),
        (lambda p: npz(p, a=BYTES).rename(p / "b.npy"), {}, "a .npz file by its content"),
        (lambda p: npy(p, BYTES).rename(p / "b.npz"), {}, "a .npy file by its content"),
        (lambda p: npy(p, BYTES), {"key": "a"}, "a .npy file has no keys; leave them out"),
        (lambda p: npy(p, BYTES), {"labels_key": "a"}, "a .npy file has no keys"),
        (lambda p: npz(p, images=BYTES), {"key": "image"}, "no array 'image'; choose another key"),
        (lambda p: npz(p, a=BYTES), {"key": "zz"}, "(it has a)"),
        (lambda p: npz(p, a=BYTES), {"labels_key": "y"}, "no array 'y'"),
        (lambda p: tensors(p, a=BYTES), {"key": "zz"}, "no array 'zz'"),
        (lambda p: npz(p, a=BYTES, b=BYTES), {}, "holds 2 arrays (a, b); choose one by key"),
        (lambda p: tensors(p, a=BYTES, b=FLOATS), {}, "holds 2 arrays (a, b); choose one by key"),
        (lambda p: npz(p), {}, "holds 0 arrays (none)"),
        (lambda p: p, {}, "not an array file"),
    ],
)
def test_refused_files(tmp_path, make, settings, wrong) -> None:
    file = make(tmp_path)
    with pytest.raises(DataError) as caught:
        array_file(file, **settings)
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert wrong in message
    assert message.isprintable()
    assert MARKS == []


def test_the_attack_is_one() -> None:
    pickle.loads(pickle.dumps(Attack()))
    assert MARKS == ["executed"]
    MARKS.clear()


@pytest.mark.parametrize(
    ("values", "settings", "wrong"),
    [
        (_bad(np.nan), {}, "1 values are NaN or infinite"),
        (_bad(np.inf), {}, "1 values are NaN or infinite"),
        (_bad(2.0), {}, "outside of (0.0, 1.0); pass the value_range"),
        (np.zeros(5, np.float32), {}, "shape [5] does not fit images"),
        (np.zeros((2, 2, 2, 2, 2), np.float32), {}, "shape [2, 2, 2, 2, 2] does not fit images"),
        (np.float32(1.0), {}, "shape [] does not fit images"),
        (np.zeros((0, 3, 4, 4), np.float32), {}, "the array is empty"),
        (BYTES.astype(np.int32), {}, "torch.int32 is neither floating nor uint8"),
        (BYTES.astype(str), {}, "holds text, not numbers"),
        (BYTES[:, 0, 0], {}, "uint8 has no scale here"),
        (BYTES, {"value_range": (1, 0)}, "value range (1, 0)"),
        (BYTES, {"dtype": torch.int64}, "choose torch.float32"),
    ],
)
def test_refused_arrays(tmp_path, values, settings, wrong) -> None:
    file = npy(tmp_path, values)
    with pytest.raises(DataError) as caught:
        array_file(file, **settings)
    assert str(caught.value).startswith(f"{file}: ")
    assert wrong in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        (LABELS[:5], "labels of shape [5]"),
        (LABELS - 1, "a label of -1 is none of"),
        (LABELS * 0.5, "give 6 integers"),
    ],
)
def test_refused_labels(tmp_path, labels, wrong) -> None:
    with pytest.raises(DataError) as caught:
        array_file(npz(tmp_path, x=BYTES, y=labels), "x", "y")
    assert wrong in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path / 'a.npz'}: ")


def test_a_refusing_system(tmp_path, monkeypatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise PermissionError(13, "Permission denied")

    file = npy(tmp_path, BYTES)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DataError) as caught:
        array_file(file)
    assert str(caught.value).startswith(f"{file}: cannot be read (Permission denied)")


def test_every_truncation_is_noticed(tmp_path) -> None:
    for write in (npz, tensors):
        file = write(tmp_path, a=BYTES[:1])
        whole = file.read_bytes()
        for length in range(0, len(whole), 7):
            file.write_bytes(whole[:length])
            with pytest.raises(DataError) as caught:
                array_file(file)
            assert str(caught.value).startswith(f"{file}: ")
            assert str(caught.value).isprintable()
