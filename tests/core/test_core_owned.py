"""Results in folders: only files of one's own are replaced, and no link hides another's."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from equilibrist import RecordError
from equilibrist.errors import UnwritableError
from equilibrist.files import atomic
from equilibrist.files import owned as owning
from equilibrist.files.owned import LEDGER, owned, publish, require_free


def names(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name != LEDGER)


def refused(call: Any, *words: str) -> None:
    with pytest.raises(RecordError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_an_own_file_is_replaced_and_a_user_s_never(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    publish(tmp_path, {"a": b"one"})
    publish(tmp_path, {"a": b"two", "b": b"three"})
    assert (tmp_path / "a").read_bytes() == b"two"
    refused(lambda: publish(tmp_path, {"c": b"x", "notes.txt": b"x"}), "notes.txt", "move it away")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert names(tmp_path) == ["a", "b", "notes.txt"]


def test_an_own_file_that_was_changed_is_the_user_s(tmp_path: Path) -> None:
    publish(tmp_path, {"a": b"one"})
    (tmp_path / "a").write_bytes(b"one, with remarks")
    refused(lambda: publish(tmp_path, {"a": b"two"}), "a was not written by equilibrist")
    refused(lambda: publish(tmp_path, {"a": b"two"}, force=False), "--force")
    with owned(tmp_path) as place:
        place.remove("a")
    assert (tmp_path / "a").read_bytes() == b"one, with remarks"
    publish(tmp_path, {"a": b"two"}, force=True)
    publish(tmp_path, {"a": b"three"})
    assert (tmp_path / "a").read_bytes() == b"three"


@pytest.mark.parametrize("force", [None, False, True])
def test_what_is_no_regular_file_is_kept_even_if_forced(tmp_path: Path, force: Any) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "target").write_text("mine")
    (tmp_path / "link").symlink_to("target")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")  # opening it would hang
    for name in ("folder", "link", "dangling", "pipe"):
        refused(lambda n=name: publish(tmp_path, {n: b"x"}, force=force), name)
    assert (tmp_path / "target").read_text() == "mine"
    assert not (tmp_path / "nowhere").exists()


def test_a_link_in_the_place_of_the_folder(tmp_path: Path) -> None:
    for name in ("empty", "full", "ours"):
        (tmp_path / name).mkdir()
        (tmp_path / f"to-{name}").symlink_to(tmp_path / name)
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    publish(tmp_path / "ours", {"a": b"one"})
    for name in ("empty", "ours"):
        for content in (b"two", b"three"):
            with owned(tmp_path / f"to-{name}") as place:
                place.write({"a": content})
            assert (tmp_path / name / "a").read_bytes() == content
            assert (tmp_path / f"to-{name}").is_symlink()

    def enter(name: str) -> None:
        with owned(tmp_path / name):
            pytest.fail("it was opened")

    refused(lambda: enter("to-full"), "to-full is a link", "other files")
    (tmp_path / "dangling").symlink_to("nowhere")
    refused(lambda: enter("dangling"), "dangling is a link", "no folder")
    (tmp_path / "file").write_text("mine")
    refused(lambda: enter("file"), "file is a file")
    assert names(tmp_path / "full") == ["thesis.tex"]


def test_asking_changes_nothing(tmp_path: Path) -> None:
    require_free(tmp_path / "new", "a")
    assert os.listdir(tmp_path) == []
    (tmp_path / "a").write_text("mine")
    refused(lambda: require_free(tmp_path, "a"), "a was not written")
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"written": 3}', '{"written": {"a": 7}}'])
def test_a_damaged_ledger_owns_nothing(tmp_path: Path, content: str) -> None:
    publish(tmp_path, {"a": b"one"})
    (tmp_path / LEDGER).write_text(content)
    if "7" in content:
        refused(lambda: publish(tmp_path, {"a": b"two"}), "a was not written")
        return
    with pytest.warns(UserWarning, match="is damaged"):
        refused(lambda: publish(tmp_path, {"a": b"two"}), "a was not written")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: None, "is missing"),
        (Path.mkdir, "is no regular file"),
        (os.mkfifo, "is no regular file"),
        (lambda path: path.symlink_to("elsewhere"), "is no regular file"),
    ],
)
def test_a_ledger_that_is_lost_is_named_with_the_way_out(
    tmp_path: Path, harm: Any, said: str
) -> None:
    publish(tmp_path, {"a": b"one"})
    (tmp_path / LEDGER).unlink()
    harm(tmp_path / LEDGER)
    words = ("a was not written by equilibrist", f"{LEDGER} beside it, which would know it, {said}")
    refused(lambda: publish(tmp_path, {"a": b"two"}), *words, "move it away")


def test_a_file_of_a_size_that_nobody_writes_is_not_read(tmp_path: Path) -> None:
    publish(tmp_path, {"a": b"one"})
    os.truncate(tmp_path / "a", 2**36)
    refused(lambda: publish(tmp_path, {"a": b"two"}), "a was not written")
    assert (tmp_path / "a").stat().st_size == 2**36


def test_a_place_that_cannot_be_written_is_told_when_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("mine")
    refused(lambda: require_free(tmp_path / "file" / "new", "a"), "file is a file")
    monkeypatch.setattr(
        os, "access", lambda *_: False
    )  # a test may run as root, who may everything
    for place in (tmp_path, tmp_path / "new" / "newer"):
        with pytest.raises(UnwritableError, match="cannot be written"):
            require_free(place, "a")


@pytest.mark.parametrize("call", range(1, 12))
def test_a_process_that_dies_knows_its_files_again(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the n-th renaming: every file is old or new, and may be replaced by the next writer."""
    publish(tmp_path, {"a": b"one", "b": b"one"})
    real, count = os.replace, 0

    def replace(*paths: Any) -> None:
        nonlocal count
        count += 1
        if count == call:
            raise KeyboardInterrupt
        real(*paths)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        try:
            publish(tmp_path, {"a": b"two", "b": b"two", "c": b"two"})
        except KeyboardInterrupt:
            pass
        else:
            assert call > 5
    publish(tmp_path, {"a": b"three", "b": b"three", "c": b"three"})
    assert {(tmp_path / name).read_bytes() for name in "abc"} == {b"three"}
    assert names(tmp_path) == ["a", "b", "c"]


def test_two_writers_take_turns(tmp_path: Path) -> None:
    order: list[str] = []

    def second() -> None:
        publish(tmp_path, {"a": b"second"})
        order.append("second")

    with owned(tmp_path) as place:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        place.write({"a": b"first"})
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert (tmp_path / "a").read_bytes() == b"second"


def test_a_writer_that_does_not_finish_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owning, "PATIENCE", 0.1)
    with owned(tmp_path):
        refused(lambda: publish(tmp_path, {"a": b"x"}), "another process", str(tmp_path))


# -- file systems of other kinds -------------------------------------------------------------------


def refuse(number: int, *, folders: bool = False) -> Any:
    """A call that a file system does not know; of fsync only where it is a folder's."""
    real = os.fsync

    def call(handle: Any, *rest: Any) -> None:
        if folders and not os.path.isdir(f"/proc/self/fd/{handle}"):
            real(handle)
            return
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL])
def test_without_locks(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fcntl, "flock", refuse(number))
    publish(tmp_path, {"a": b"one"})
    publish(tmp_path, {"a": b"two"})
    assert (tmp_path / "a").read_bytes() == b"two"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_without_permissions(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "chmod", refuse(number))
    publish(tmp_path, {"a": b"one"})
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EACCES])
def test_without_flushing_of_folders(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", refuse(number, folders=True))
    publish(tmp_path, {"a": b"one"})
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_names_the_file(
    tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, {"a": b"old"})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse(number))
        with pytest.raises(UnwritableError, match=os.strerror(number)) as caught:
            atomic.write_atomically(tmp_path / "a", b"new")
    assert str(tmp_path / "a") in str(caught.value)
    assert isinstance(caught.value, RecordError | OSError)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_only_own_unfinished_files_are_removed(tmp_path: Path) -> None:
    ours = tmp_path / f".a.xyz{atomic.PART}"
    theirs = [tmp_path / name for name in (".movie.mp4.part", "b.part", ".equilibrist.part.txt")]
    for path in (ours, *theirs):
        path.write_bytes(b"half")
    written = tmp_path / f".b.xyz{atomic.PART}"  # by a process that lives
    with written.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        atomic.remove_leftovers(tmp_path)
        assert written.exists()
    assert not ours.exists()
    assert all(path.exists() for path in theirs)
    publish(tmp_path, {"a": b"one"})
    assert not written.exists()
