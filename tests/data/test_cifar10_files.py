"""CIFAR-10 from made-up files in every form: what is found, what is refused, what never runs."""

from __future__ import annotations

import functools
import http.server
import os
import pickle
import threading
from pathlib import Path

import made_up_cifar as made
import numpy as np
import pytest
import torch

from equilibrist.data import DataError, Paired, cifar10
from equilibrist.data._batches import read_pickle, read_rows

FORMS = ["python", "binary", "python-tar", "binary-tar"]
TRAIN_PIXELS = np.concatenate([made.pixels(stem) for stem in made.TRAIN])
TRAIN_LABELS = np.concatenate([made.classes(stem) for stem in made.TRAIN])
REAL = os.environ.get("EQUILIBRIST_DATA")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("below", [".", "cifar10"])
def test_forms_and_places(tmp_path, form, below) -> None:
    place, md5 = made.write(tmp_path / below, form)
    source = cifar10(tmp_path, (0.0, 1.0), md5=md5)
    assert isinstance(source, Paired)
    assert (source.name, source.kind, source.shape) == ("cifar10", "images", (3, 32, 32))
    assert (source.size, source.value_range, source.classes) == (30, (0.0, 1.0), 10)
    want = torch.from_numpy(TRAIN_PIXELS).float().reshape(30, 3, 32, 32) / 255
    assert torch.equal(source.all(), want)
    assert source.labels.tolist() == TRAIN_LABELS.tolist()
    assert source.class_names[3] == "cat"
    assert len(source.class_names) == 10
    assert "training part, 30 images" in source.origin
    assert place.name in source.origin


@pytest.mark.parametrize("form", FORMS)
def test_test_part(tmp_path, form) -> None:
    _, md5 = made.write(tmp_path, form)
    source = cifar10(tmp_path, train=False, md5=md5)
    assert source.size == made.ROWS
    assert source.labels.tolist() == made.classes("test_batch").tolist()
    assert (source.all().min().item(), source.all().max().item()) == (-1.0, 1.0)
    assert "test part" in source.origin


@pytest.mark.parametrize("form", ["python", "binary"])
def test_the_folder_itself_may_be_named(tmp_path, form) -> None:
    place, md5 = made.write(tmp_path, form)
    assert cifar10(place, md5=md5).size == 30


def test_the_environment_names_the_folder(tmp_path, monkeypatch) -> None:
    _, md5 = made.write(tmp_path, "python")
    monkeypatch.setenv("EQUILIBRIST_DATA", str(tmp_path))
    assert cifar10(md5=md5).size == 30


def test_other_channels_are_other_thirds_of_a_row(tmp_path) -> None:
    _, md5 = made.write(tmp_path, "binary")
    images = cifar10(tmp_path, (0.0, 1.0), md5=md5).all()
    row = torch.from_numpy(made.pixels("data_batch_1")[2]).float() / 255
    assert images[2, 1, 3, 4] == row[1024 + 3 * 32 + 4]


def _harm(name: str, change):
    def harm(place: Path) -> Path:
        file = place / name if place.is_dir() else place
        file.write_bytes(change(file.read_bytes()))
        return file

    return harm


def _lose(name: str):
    def lose(place: Path) -> Path:
        (place / name).unlink()
        return place / name

    return lose


def _flip(raw: bytes) -> bytes:
    middle = len(raw) // 2
    return raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :]


def _folder(place: Path) -> Path:
    (place / "data_batch_2").unlink()
    (place / "data_batch_2").mkdir()
    return place / "data_batch_2"


@pytest.mark.parametrize(
    ("form", "harm", "wrong"),
    [
        pytest.param("python", _harm("data_batch_3", _flip), "truncated, damaged or", id="flip"),
        pytest.param("python", _harm("data_batch_3", lambda b: b[:99]), "(MD5 ", id="short"),
        pytest.param("python", _lose("data_batch_5"), "not found", id="lost"),
        pytest.param("python", _folder, "Is a directory", id="folder"),
        pytest.param("binary", _lose("data_batch_1.bin"), "not found", id="lost-bin"),
        pytest.param(
            "binary", _harm("data_batch_2.bin", lambda b: b[:-1]), "no rows of 3073", id="short-bin"
        ),
        pytest.param(
            "binary", _harm("data_batch_2.bin", lambda b: b""), "0 bytes are no", id="empty-bin"
        ),
        pytest.param(
            "binary",
            _harm("data_batch_2.bin", lambda b: b"\x0a" + b[1:]),
            "a label of 10, not 0 to 9",
            id="label-bin",
        ),
        pytest.param("python-tar", _harm("", _flip), "truncated, damaged or", id="flip-tar"),
        pytest.param("binary-tar", _harm("", lambda b: b[:-99]), "(MD5 ", id="short-tar"),
    ],
)
def test_harmed_files_get_one_line(tmp_path, form, harm, wrong) -> None:
    place, md5 = made.write(tmp_path, form)
    culprit = harm(place)
    with pytest.raises(DataError) as caught:
        cifar10(tmp_path, md5=md5)
    message = str(caught.value)
    assert message.startswith(f"{culprit}: ")
    assert wrong in message
    assert "again from https://www.cs.toronto.edu/~kriz/" in message
    assert message.isprintable()


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        (lambda b: b[: len(b) // 2], "truncated or damaged archive"),
        (lambda b: b"<html>404</html>", "truncated or damaged archive"),
        (lambda b: b"", "truncated or damaged archive"),
        (lambda b: made.archive("elsewhere", {"a": b"b"}), "lacks cifar-10-batches-bin/data_batch"),
    ],
)
def test_archives_without_a_checksum_are_read_with_care(tmp_path, body, wrong) -> None:
    place, _ = made.write(tmp_path, "binary-tar")
    place.write_bytes(body(place.read_bytes()))
    with pytest.raises(DataError) as caught:
        cifar10(tmp_path, md5={})
    assert str(caught.value).startswith(f"{place}: ")
    assert wrong in str(caught.value)
    assert str(caught.value).isprintable()


def test_nothing_found(tmp_path) -> None:
    with pytest.raises(DataError, match="not found, nor the other forms") as caught:
        cifar10(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'cifar-10-binary.tar.gz'}: ")
    with pytest.raises(DataError, match="no such folder; let --data-root name"):
        cifar10(tmp_path / "none")
    with pytest.raises(DataError, match="not found and download is off"):
        cifar10(download=False)
    with pytest.raises(DataError, match=r"cifar10: value range \(1.0, 1.0\)"):
        cifar10(value_range=(1.0, 1.0))


def test_the_binary_archive_is_fetched_once(tmp_path, monkeypatch) -> None:
    _, md5 = made.write(tmp_path / "served", "binary-tar")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        for _ in range(2):
            url = f"http://127.0.0.1:{server.server_port}"
            assert cifar10(mirrors=[url], md5=md5).size == 30
        server.shutdown()
        thread.join()
    assert asked == ["/cifar-10-binary.tar.gz"]
    kept = tmp_path / "cache/equilibrist/cifar10"
    assert [file.name for file in kept.iterdir()] == ["cifar-10-binary.tar.gz"]


def test_the_made_up_pickle_is_one() -> None:
    """The standard library reads the same from it: the tests below harm a sound file."""
    held = pickle.loads(made.pickled("data_batch_1"), encoding="bytes")
    got, labels = read_pickle(made.pickled("data_batch_1"))
    np.testing.assert_array_equal(got, held[b"data"])
    assert labels.tolist() == held[b"labels"]


GOOD = made.array(2, 3072, bytes(6144))
TWO = made.numbers([0, 9])
MARKS: list[str] = []


def note(text: str) -> None:
    MARKS.append(text)


class Attack:
    """What a hostile pickle holds: reading it naively calls a function of its choice."""

    def __reduce__(self):
        return note, ("executed",)


@pytest.mark.parametrize(
    ("raw", "wrong"),
    [
        (b"cos\nsystem\n(S'exit 3'\ntR.", "names os.system, which is no array"),
        (b"cbuiltins\neval\n(S'1/0'\ntR.", "names builtins.eval"),
        (b"cnumpy\nfromfile\n(S'x'\ntR.", "names numpy.fromfile"),
        (b"cequilibrist.data._batches\nread_rows\n.", "names equilibrist.data._batches.read_rows"),
        (pickle.dumps(Attack(), 2), "which is no array"),
        (pickle.dumps(Attack(), 5), "which is no array"),
        (b"Pnumber\n.", "has a PERSID"),
        (b"", "truncated or damaged"),
        (b"\x80\x02}", "truncated or damaged"),
        (b"<html>404</html>", "damaged pickle|truncated or damaged|CIFAR-10"),
        (b"\x80\x02}.", "no data and labels"),
        (b"\x80\x02K\x01.", "no data and labels"),
        (made.dictionary(data=made.short(b"x"), labels=TWO), "no data and labels"),
        (made.dictionary(data=GOOD, labels=made.short(b"x")), "no data and labels"),
        (made.dictionary(data=made.array(2, 3072, bytes(6143)), labels=TWO), "6143 bytes of data"),
        (made.dictionary(data=made.array(2, 3071, bytes(6142)), labels=TWO), "not 2 rows of 3072"),
        (made.dictionary(data=made.array(0, 3072, b""), labels=TWO), "not 0 rows"),
        (
            made.dictionary(data=made.array(2, 3072, bytes(6144), b"O8"), labels=TWO),
            "rows of bytes",
        ),
        (made.dictionary(data=GOOD, labels=made.numbers([1])), "1 labels for 2 images"),
        (made.dictionary(data=GOOD, labels=made.numbers([1, 10])), "a label that is not 0 to 9"),
        (made.dictionary(data=GOOD, labels=made.numbers([1, -1])), "a label that is not 0 to 9"),
        (
            made.dictionary(data=b"cnumpy\nndarray\n)R", labels=TWO),
            "its data are not rows of bytes",
        ),
        # A memo at place 2^31 would take 16 GiB, were it made.
        (
            b"\x80\x02K\x01r\xff\xff\xff\x7f.",
            "numbers what it remembers|truncated or damaged|no data",
        ),
    ],
)
def test_hostile_and_damaged_pickles(raw, wrong) -> None:
    with pytest.raises(ValueError, match=wrong) as caught:
        read_pickle(raw)
    assert str(caught.value).isprintable()
    assert MARKS == []


def test_the_attack_is_one() -> None:
    pickle.loads(pickle.dumps(Attack(), 2))
    assert MARKS == ["executed"]
    MARKS.clear()


def test_every_truncation_of_a_pickle_is_noticed() -> None:
    raw = made.dictionary(labels=made.numbers([7]), data=made.array(1, 3072, bytes(3072)))
    assert read_pickle(raw)[1].tolist() == [7]
    for length in [*range(200), *range(200, len(raw), 37), *range(len(raw) - 20, len(raw))]:
        with pytest.raises(ValueError):
            read_pickle(raw[:length])


def test_rows_of_bytes() -> None:
    got, labels = read_rows(made.binary("data_batch_2"))
    np.testing.assert_array_equal(got, made.pixels("data_batch_2"))
    np.testing.assert_array_equal(labels, made.classes("data_batch_2"))


@pytest.mark.skipif(
    not REAL or not [*Path(REAL).glob("cifar-10-*"), *Path(REAL).glob("cifar10/cifar-10-*")],
    reason="EQUILIBRIST_DATA names no folder that holds CIFAR-10",
)
def test_the_published_files() -> None:
    train, test = cifar10(REAL, (0.0, 1.0)), cifar10(REAL, (0.0, 1.0), train=False)
    assert (train.size, test.size) == (50_000, 10_000)
    assert np.bincount(train.labels).tolist() == [5000] * 10
    assert np.bincount(test.labels).tolist() == [1000] * 10
    means = sum(part.double().mean((0, 2, 3)) * len(part) for part in train.all().split(5000))
    # Per-channel means as everyone quotes them.
    np.testing.assert_allclose(means / 50_000, [0.4914, 0.4822, 0.4465], atol=5e-5)
