"""Atomic files: whole or absent."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from equilibrist.files import atomic

CRASH = """
import os, sys
from pathlib import Path
from equilibrist.files import atomic
os.replace = lambda *a: os._exit(9)          # the machine dies between the write and the rename
atomic.write_atomically(Path(sys.argv[1]), b"new")
"""


def test_writes_and_overwrites(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    for content in (b"one", b"", b"\x00" * 100_000):
        atomic.write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["file.bin"]


def test_death_between_write_and_rename_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", CRASH, str(path)],
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 9
    assert path.read_bytes() == b"old"
    assert len(os.listdir(tmp_path)) == 2, "the test says nothing if no unfinished file was there"
    atomic.remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["file.bin"]


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
def test_an_error_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(OSError, match="No space left"):
            atomic.write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file.bin"]


def test_content_is_flushed_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, r=real: (calls.append(n), r(*a))[1])
    atomic.write_atomically(tmp_path / "x", b"1")
    assert calls == ["fsync", "replace", "fsync"]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        atomic.write_atomically(tmp_path / "x", b"1")
        assert os.umask(mask) == mask, "the umask was changed"
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o666 & ~mask


def test_json_has_no_infinities_and_tuples_are_lists(tmp_path: Path) -> None:
    atomic.write_json(
        tmp_path / "x.json",
        {"a": (1, math.inf), "b": {2: -math.inf, "c": [math.nan, 0.5]}, "ü": None},
    )
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"a": [1, None], "b": {"2": None, "c": [None, 0.5]}, "ü": None}
    assert text.endswith("}\n")
