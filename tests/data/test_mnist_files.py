"""MNIST from files on disk: where they are looked for and what is refused."""

import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_mnist import classes, idx, pixels

from equilibrist.data import DataError, mnist
from equilibrist.data._idx import read_idx

IMAGES = "train-images-idx3-ubyte.gz"
LABELS = "train-labels-idx1-ubyte.gz"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("below", [".", "mnist", "MNIST/raw"])
def test_layouts(write_mnist, tmp_path, below, zipped) -> None:
    write_mnist(tmp_path / below, zipped)
    source = mnist(tmp_path)
    assert (source.name, source.kind, source.shape) == ("mnist", "images", (1, 28, 28))
    assert (source.size, source.value_range) == (30, (0.0, 1.0))
    want = torch.from_numpy(pixels("train")).float() / 255
    assert torch.equal(source.all()[:, 0], want)
    assert source.labels.tolist() == classes("train").tolist()
    file = tmp_path / below / (IMAGES if zipped else IMAGES.removesuffix(".gz"))
    assert file.name in source.origin
    assert hashlib.md5(file.read_bytes()).hexdigest() in source.origin
    assert "training part, 30 images" in source.origin


def test_test_part_and_value_range(write_mnist, tmp_path) -> None:
    source = mnist(write_mnist(tmp_path), train=False, value_range=(-1.0, 1.0))
    assert source.size == 20
    assert "test part" in source.origin
    assert (source.all().min().item(), source.all().max().item()) == (-1.0, 1.0)
    assert source.labels.tolist() == classes("t10k").tolist()


def test_argument_goes_before_environment(write_mnist, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EQUILIBRIST_DATA", str(write_mnist(tmp_path / "env")))
    assert mnist().size == 30
    monkeypatch.setenv("EQUILIBRIST_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match="let EQUILIBRIST_DATA name"):
        mnist()
    assert mnist(write_mnist(tmp_path / "arg")).size == 30


def test_empty_environment_counts_as_unset(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("EQUILIBRIST_DATA", "")
    with pytest.raises(DataError, match="download is off"):
        mnist(download=False)


def test_home_is_expanded(write_mnist, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_mnist(tmp_path / "sets")
    assert mnist("~/sets").size == 30


def test_a_named_folder_is_left_alone(write_mnist, tmp_path) -> None:
    root = write_mnist(tmp_path / "files")
    (root / LABELS).unlink()
    before = sorted(root.iterdir())
    with pytest.raises(DataError):
        mnist(root, mirrors=["http://127.0.0.1:9/"])
    assert sorted(root.iterdir()) == before
    assert not (tmp_path / "cache").exists()


def _rewrite(name: str, change):
    def harm(root: Path) -> Path:
        file = root / name
        file.write_bytes(change(file.read_bytes()))
        return file

    return harm


def _inside(name: str, change):
    return _rewrite(name, lambda raw: gzip.compress(change(gzip.decompress(raw)), mtime=0))


def _remove(name: str):
    def harm(root: Path) -> Path:
        (root / name).unlink()
        return root / name

    return harm


def _folder(root: Path) -> Path:
    (root / IMAGES).unlink()
    (root / IMAGES).mkdir()
    return root / IMAGES


def _flip(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 0xFF]) + raw[middle + 1 :]


HUGE = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**32 - 1, 28, 28) + b"\0" * 99
FETCH = "fetch it again from https://ossci-datasets.s3.amazonaws.com/mnist/"


@pytest.mark.parametrize(
    ("harm", "wrong", "remedy"),
    [
        pytest.param(_remove(IMAGES), "not found", "put it there from https://", id="no-images"),
        pytest.param(_remove(LABELS), "not found", "put it there from https://", id="no-labels"),
        pytest.param(_rewrite(IMAGES, lambda b: b[:-20]), "truncated", FETCH, id="short-gzip"),
        pytest.param(_rewrite(LABELS, lambda b: b[:12]), "truncated", FETCH, id="stub-gzip"),
        pytest.param(_rewrite(IMAGES, _flip), "damaged gzip", FETCH, id="flipped-byte"),
        pytest.param(_rewrite(IMAGES, lambda b: b + b"x"), "damaged gzip", FETCH, id="gzip-tail"),
        pytest.param(
            _rewrite(IMAGES, lambda b: b"<html>404</html>"),
            "not an IDX file (it begins with 3c 68 74 6d)",
            FETCH,
            id="web-page",
        ),
        pytest.param(
            _rewrite(IMAGES, lambda b: bytes(range(200, 256)) * 9), "not an IDX", FETCH, id="noise"
        ),
        pytest.param(_rewrite(IMAGES, lambda b: b""), "0 bytes are less", FETCH, id="empty"),
        pytest.param(_inside(IMAGES, lambda b: b[:9]), "less than its header", FETCH, id="stub"),
        pytest.param(
            _inside(IMAGES, lambda b: b"\1" + b[1:]), "begins with 01 00 08 03", FETCH, id="magic"
        ),
        pytest.param(
            _inside(IMAGES, lambda b: b[:2] + b"\x0d" + b[3:]), "IDX type 0x0d", FETCH, id="type"
        ),
        pytest.param(
            _inside(IMAGES, lambda b: idx(np.zeros(5))), "1 dimensions, not 3", FETCH, id="dims"
        ),
        pytest.param(
            _inside(LABELS, lambda b: idx(np.zeros((5, 1)))),
            "2 dimensions, not 1",
            FETCH,
            id="ldim",
        ),
        pytest.param(
            _inside(IMAGES, lambda b: idx(np.zeros((3, 28, 27)))),
            "holds 3 x 28 x 27 values, not N x 28 x 28",
            FETCH,
            id="size",
        ),
        pytest.param(
            _inside(IMAGES, lambda b: idx(np.zeros((0, 28, 28)))), "0 x 28 x 28", FETCH, id="none"
        ),
        pytest.param(
            _inside(IMAGES, lambda b: b[:-7]), "truncated, 7 bytes are missing", FETCH, id="short"
        ),
        pytest.param(
            _inside(IMAGES, lambda b: b + b"abc"), "more bytes follow its end", FETCH, id="tail"
        ),
        pytest.param(_inside(IMAGES, lambda b: HUGE), "bytes are missing", FETCH, id="terabytes"),
        pytest.param(
            _inside(LABELS, lambda b: idx(np.zeros(29))),
            "29 labels for 30 images",
            "fetch both files again from https://",
            id="counts",
        ),
        pytest.param(
            _inside(LABELS, lambda b: idx(np.full(30, 12))), "a label of 12", FETCH, id="classes"
        ),
        pytest.param(_folder, "Is a directory", "make it a file", id="folder-as-file"),
    ],
)
def test_harmed_files_get_one_line(write_mnist, tmp_path, harm, wrong, remedy) -> None:
    culprit = harm(write_mnist(tmp_path))
    with pytest.raises(DataError) as caught:
        mnist(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{culprit}: ")
    assert wrong in message
    assert remedy in message
    assert message.isprintable()
    # The other part is whole, and says so.
    assert mnist(tmp_path, train=False).size == 20


def test_a_missing_folder(tmp_path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(DataError) as caught:
        mnist(gone)
    want = f"{gone}: no such folder; let --data-root name the folder of the MNIST files"
    assert str(caught.value) == want


def test_a_folder_that_is_a_file(write_mnist, tmp_path) -> None:
    file = write_mnist(tmp_path) / IMAGES
    with pytest.raises(DataError) as caught:
        mnist(file)
    assert str(caught.value).startswith(f"{file}: a file, not a folder; let --data-root name")


def test_a_name_with_a_line_break_stays_on_one_line(tmp_path) -> None:
    with pytest.raises(DataError) as caught:
        mnist(tmp_path / "two\nlines")
    assert str(caught.value).isprintable()
    assert "two\\nlines" in str(caught.value)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("locked", [IMAGES, "."])
def test_no_permission(write_mnist, tmp_path, locked) -> None:
    root = write_mnist(tmp_path / "files")
    (root / locked).chmod(0)
    try:
        with pytest.raises(DataError, match="Permission denied") as caught:
            mnist(root)
    finally:
        (root / locked).chmod(0o700)
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(str(root))


@pytest.mark.parametrize(("owner", "method"), [(os, "open"), (Path, "exists")])
def test_a_refusing_system(write_mnist, tmp_path, monkeypatch, owner, method) -> None:
    """Permission errors, for testers who are root."""

    def refuse(path: Path, *flags: int) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    root = write_mnist(tmp_path)
    monkeypatch.setattr(owner, method, refuse)
    with pytest.raises(DataError) as caught:
        mnist(root)
    assert str(caught.value).startswith(str(root))
    assert "cannot be read (Permission denied)" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("zipped", [True, False])
def test_every_truncation_is_noticed(tmp_path, zipped) -> None:
    body = idx(np.arange(12).reshape(3, 2, 2))
    whole = gzip.compress(body, mtime=0) if zipped else body
    file = tmp_path / "small"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(DataError) as caught:
            read_idx(file, (None, 2, 2), "get another")
        assert str(caught.value).startswith(f"{file}: ")
        assert str(caught.value).endswith("; get another")
        assert str(caught.value).isprintable()
    file.write_bytes(whole)
    assert (
        read_idx(file, (None, 2, 2), "").values.tolist() == np.arange(12).reshape(3, 2, 2).tolist()
    )


def test_no_flipped_bit_of_a_gzipped_file_changes_a_value(tmp_path) -> None:
    values = np.arange(12).reshape(3, 2, 2)
    whole = gzip.compress(idx(values), mtime=0)
    file = tmp_path / "small"
    for place in range(8 * len(whole)):
        harmed = bytearray(whole)
        harmed[place // 8] ^= 1 << place % 8
        file.write_bytes(harmed)
        try:
            got = read_idx(file, (None, 2, 2), "get another").values
        except DataError as error:
            assert str(error).isprintable()  # noqa: PT017
        else:
            # Some bits carry nothing: the time stamp, and those that fill up the last byte.
            assert got.tolist() == values.tolist()
