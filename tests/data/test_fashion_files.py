"""Fashion-MNIST: its own folder, checksums and class names; MNIST's equally named files are refused."""

from __future__ import annotations

import dataclasses
import hashlib

import pytest
from made_up_mnist import classes

from equilibrist.data import DataError, fashion_mnist, mnist
from equilibrist.data import _idx_set as sets

IMAGES = "train-images-idx3-ubyte.gz"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("below", ["fashion-mnist", "FashionMNIST/raw"])
def test_places(write_mnist, tmp_path, below, zipped) -> None:
    write_mnist(tmp_path / below, zipped)
    source = fashion_mnist(tmp_path)
    assert (source.name, source.shape, source.size) == ("fashion-mnist", (1, 28, 28), 30)
    assert (source.classes, source.class_names[9]) == (10, "ankle boot")
    assert source.labels.tolist() == classes("train").tolist()
    assert "Fashion-MNIST, training part, 30 images (Xiao" in source.origin
    assert fashion_mnist(tmp_path, train=False, value_range=(-1, 1)).value_range == (-1, 1)


@pytest.mark.parametrize("below", [".", "mnist", "MNIST/raw"])
def test_mnists_folders_are_not_its(write_mnist, tmp_path, below) -> None:
    write_mnist(tmp_path / below)
    with pytest.raises(DataError) as caught:
        fashion_mnist(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'fashion-mnist' / IMAGES}: not found; put it there")
    assert "zalandoresearch/fashion-mnist/master/data/fashion/train-images" in message
    assert message.isprintable()


def test_its_folders_are_not_mnists(write_mnist, tmp_path) -> None:
    write_mnist(tmp_path / "fashion-mnist")
    with pytest.raises(DataError, match="not found"):
        mnist(tmp_path)


def test_files_of_the_other_set_are_told_by_their_checksum(
    write_mnist, tmp_path, monkeypatch
) -> None:
    root = write_mnist(tmp_path / "fashion-mnist")
    held = {IMAGES: hashlib.md5((root / IMAGES).read_bytes()).hexdigest()}
    monkeypatch.setattr(sets, "SETS", (dataclasses.replace(sets.FASHION, md5=held), sets.MNIST))
    # The folder itself, named as MNIST's.
    with pytest.raises(DataError) as caught:
        mnist(root)
    want = f"{root / IMAGES}: a file of Fashion-MNIST, not of MNIST; fetch it again from https://"
    assert str(caught.value).startswith(want)
    assert str(caught.value).isprintable()


def test_checksums_of_the_sets_differ_and_are_md5() -> None:
    sums = [md5 for one in sets.SETS for md5 in one.md5.values()]
    assert len(set(sums)) == len(sums) == 8
    assert all(len(md5) == 32 and int(md5, 16) for md5 in sums)
    assert set(sets.MNIST.md5) == set(sets.FASHION.md5)


def test_refusals() -> None:
    with pytest.raises(DataError, match="fashion-mnist: value range"):
        fashion_mnist(value_range=(1, 0))
    with pytest.raises(DataError, match=r"fashion-mnist.*not found and download is off"):
        fashion_mnist(download=False)


def test_a_label_that_is_no_class(write_mnist, tmp_path) -> None:
    root = write_mnist(tmp_path / "fashion-mnist", zipped=False)
    file = root / "train-labels-idx1-ubyte"
    file.write_bytes(file.read_bytes()[:-1] + b"\x0b")
    with pytest.raises(DataError, match="a label of 11 is no class of clothes"):
        fashion_mnist(tmp_path)
