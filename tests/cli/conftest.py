"""The command, called in this process, and small runs for it to work on."""

import contextlib
import io
import os
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from equilibrist.cli import main

DIGITS = ["steps=4", "dim=4", "latent=4", "batch=16"]
POINTS = ["steps=4", "width=4", "depth=1", "latent=2", "batch=16"]
AUDIT = [
    "steps=4",
    "starts=2",
    "groups=3",
    "group_batches=2",
    "looks=2",
    "batches=4",
    "look_batches=2",
    "spectrum_products=10",
    "local_products=8",
]


def sets(pairs: list[str]) -> list[str]:
    """--set once for each."""
    return [word for pair in pairs for word in ("--set", pair)]


@dataclass
class Answer:
    code: int
    out: str
    err: str


def call(*words: object) -> Answer:
    """One call of the command; warnings go where the command sends them."""
    out, err = io.StringIO(), io.StringIO()
    data = os.environ.get("EQUILIBRIST_DATA")
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        warnings.simplefilter("default")
        try:
            code = main([str(word) for word in words])
        finally:
            os.environ.pop("EQUILIBRIST_DATA", None)
            if data is not None:
                os.environ["EQUILIBRIST_DATA"] = data
    return Answer(code, out.getvalue(), err.getvalue())


@pytest.fixture
def cli() -> Callable[..., Answer]:
    return call


@pytest.fixture
def well(cli: Callable[..., Answer]) -> Callable[..., Answer]:
    """A call that must succeed, silent on stderr."""

    def run(*words: object) -> Answer:
        answer = cli(*words)
        assert (answer.code, answer.err) == (0, "")
        return answer

    return run


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of four steps, audited: do not write to them."""
    folder = tmp_path_factory.mktemp("cli")
    found = {}
    for name, pairs in (("digits-sngan", DIGITS), ("eight-gaussians", POINTS)):
        found[name] = folder / name
        assert call("run", name, *sets(pairs), "--dir", found[name], "--progress", "none").code == 0
        assert call("audit", found[name], *sets(AUDIT), "--progress", "none").code == 0
    return found


@pytest.fixture
def digits(trained: dict[str, Path], tmp_path: Path) -> Path:
    """A run on digits to write to."""
    return Path(shutil.copytree(trained["digits-sngan"], tmp_path / "digits"))


@pytest.fixture
def points(trained: dict[str, Path], tmp_path: Path) -> Path:
    """A run in the plane to write to."""
    return Path(shutil.copytree(trained["eight-gaussians"], tmp_path / "points"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder
