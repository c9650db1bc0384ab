"""What wheel and sdist hold: all that is needed, and nothing else. (`make dist` installs and tries them.)"""

from __future__ import annotations

import email
import importlib.util
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import pytest

import equilibrist

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed"
)
KINDS = {".py", ".css", ".typed"}  # of files in the packages


def build(source: Path, kind: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (archive,) = folder.iterdir()
    return archive


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return zipfile.ZipFile(build(ROOT, "wheel", tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    archive = build(ROOT, "sdist", tmp_path_factory.mktemp("sdist"))
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    (there,) = folder.iterdir()
    assert there.name == f"equilibrist-{equilibrist.__version__}"
    return there


def sources(root: Path) -> set[str]:
    """The files of both packages, from `root`."""
    found = (p for name in ("equilibrist", "equilibrist_recipes") for p in (root / name).rglob("*"))
    return {
        p.relative_to(root).as_posix()
        for p in found
        if p.is_file() and "__pycache__" not in p.parts
    }


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == sources(ROOT / "src")
    assert {PurePosixPath(name).suffix for name in names} == KINDS
    for needed in (
        "equilibrist/report/report.css",
        "equilibrist/py.typed",
        "equilibrist_recipes/digits.py",
    ):
        assert needed in names


def test_the_wheel_says_what_it_is(wheel: zipfile.ZipFile) -> None:
    about = f"equilibrist-{equilibrist.__version__}.dist-info"
    meta = email.message_from_bytes(wheel.read(f"{about}/METADATA"))
    assert meta["Version"] == equilibrist.__version__
    assert meta["Requires-Python"] == ">=3.11"
    assert meta["License-Expression"] == "MIT"
    adaptors = {"accelerate", "ctgan", "imitation", "lightning", "monai"}
    assert adaptors | {"dev", "docs", "inception", "mutants", "ray", "slurm", "tensorboard"} == set(
        meta.get_all("Provides-Extra")
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme.splitlines()[2] in meta.get_payload(decode=True).decode()
    assert wheel.read(f"{about}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    entries = wheel.read(f"{about}/entry_points.txt").decode()
    assert "equilibrist = equilibrist.__main__:script" in entries
    assert "equilibrist = equilibrist_recipes:RECIPES" in entries


def test_the_sdist_holds_what_is_needed(sdist: Path) -> None:
    assert sources(sdist / "src") == sources(ROOT / "src")
    for name in (
        *("LICENSE", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff"),
        *("pyproject.toml", "constraints.txt", "Makefile", "mkdocs.yml", "docs/site/pages.py"),
        *("docs/images/report.png", "examples/audit_a_gan.ipynb", "benchmarks/house.py"),
        *("tests/conftest.py", "tests/api/interface.txt", "campaigns/audit_power.py", ".ci/run"),
    ):
        assert (sdist / name).read_bytes() == (ROOT / name).read_bytes(), name
    tests = {p.relative_to(ROOT) for p in (ROOT / "tests").rglob("*.py")}
    assert tests == {p.relative_to(sdist) for p in (sdist / "tests").rglob("*.py")}


def test_the_sdist_holds_nothing_made(sdist: Path) -> None:
    made = {".venv", "runs", "site", "dist", "build", ".git", ".mypy_cache", ".pytest_cache"}
    assert not made & {path.name for path in sdist.iterdir()}
    assert not list(sdist.rglob("__pycache__"))


def test_the_wheel_of_the_sdist_is_the_same(
    wheel: zipfile.ZipFile, sdist: Path, tmp_path: Path
) -> None:
    again = zipfile.ZipFile(build(sdist, "wheel", tmp_path))
    assert sorted(again.namelist()) == sorted(wheel.namelist())
    for name in wheel.namelist():
        assert again.read(name) == wheel.read(name), name
