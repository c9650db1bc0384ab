"""The documentation as a site: it builds without a warning, and reading it needs no network."""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import equilibrist as eq

ROOT = Path(__file__).parents[2]
NEEDED = ("mkdocs", "material", "mkdocstrings")
pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED),
    reason="the site is built where the extra docs is installed",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it: a link that leads nowhere is an error."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    loads = re.compile(r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^>]*")
    links = re.compile(
        r"<link\b(?![^>]*\brel=[\"']?(?:canonical|next|prev)\b)[^>]*(?:https?:)?//[^>]*"
    )
    imports = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)]*")
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        assert loads.findall(text(page)) + links.findall(text(page)) == [], page.name
    for sheet in site.rglob("*.css"):
        assert imports.findall(text(sheet)) == [], sheet.name
    assert loads.search('<script src="https://unpkg.com/shim"></script>')
    assert links.search('<link rel="stylesheet" href="https://fonts.googleapis.com/css">')


def test_the_home_page_is_the_readme(site: Path) -> None:
    home = text(site / "index.html")
    for heading in re.findall(r"^## (.+)$", text(ROOT / "README.md"), re.M):
        assert heading in home
    assert 'href="own_pair.html"' in home
    assert 'href="contributing.html"' in home


def test_the_reference_has_every_public_name(site: Path) -> None:
    """The site's inventory, which other documentations link by, names all of them."""
    raw = (site / "objects.inv").read_bytes()
    lines = zlib.decompress(raw.split(b"\n", 4)[4]).decode().splitlines()
    known = {line.split()[0] for line in lines}
    for name in {*eq._MODULE, *eq.__all__} - {"tree"}:
        value = getattr(eq, name)
        assert f"{value.__module__}.{value.__qualname__}" in known, name
    for package in eq._MODULES:
        assert (site / f"reference/{package}.html").stat().st_size > 10_000, package
        home = getattr(eq, package)
        for name in getattr(home, "__all__", ()):
            if inspect.isclass(value := getattr(home, name)) or inspect.isfunction(value):
                assert f"{value.__module__}.{value.__qualname__}" in known, f"{package}.{name}"


def test_the_command_page_has_every_command(site: Path) -> None:
    from equilibrist.cli import app

    page = text(site / "reference/command.html")
    names = [c.name or c.callback.__name__ for c in app.registered_commands if c.callback]
    assert len(names) > 10
    for name in names:
        assert f'id="equilibrist-{name}"' in page, name
    assert "--require" in page
    assert "Exit codes" in page
