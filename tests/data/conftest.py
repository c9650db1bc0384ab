"""Folders of made-up MNIST files, and a tester's environment that decides nothing."""

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_mnist import STEMS, classes, idx, pixels


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The tester's own folders must not decide a test, and no test may reach them."""
    monkeypatch.delenv("EQUILIBRIST_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / "cache" / project)


@pytest.fixture
def write_mnist() -> Callable[..., Path]:
    def write(folder: Path, zipped: bool = True) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for stem in STEMS:
            for name, body in (
                (f"{stem}-images-idx3-ubyte", idx(pixels(stem))),
                (f"{stem}-labels-idx1-ubyte", idx(classes(stem))),
            ):
                if zipped:
                    (folder / f"{name}.gz").write_bytes(gzip.compress(body, mtime=0))
                else:
                    (folder / name).write_bytes(body)
        return folder

    return write
