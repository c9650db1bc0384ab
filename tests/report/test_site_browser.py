"""The documentation's site in a real browser, read from files: narrow and wide, silent, and its search finds."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("mkdocs", "material", "mkdocstrings")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(
        any(importlib.util.find_spec(name) is None for name in NEEDED),
        reason="the site is built where the extra docs is installed",
    ),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(folder)]
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, check=True)
    return folder


@pytest.mark.parametrize("width", [400, 1200])
def test_every_page_fits_and_is_silent(browser: Any, site: Path, width: int) -> None:
    for page in sorted(site.rglob("*.html")):
        browser.open(page, width)
        assert browser.value("document.documentElement.scrollWidth") <= width, page.name
        methods = {event.get("method"): event for event in browser.events}
        for trouble in ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            assert trouble not in methods, (page.name, methods[trouble])
        asked = [
            event["params"]["request"]["url"]
            for event in browser.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        assert [url for url in asked if not url.startswith((site.as_uri(), "data:"))] == []


def test_the_search_works_without_a_server(browser: Any, site: Path) -> None:
    browser.open(site / "index.html", 1200)
    browser.value("document.querySelector('[data-md-component=search-query]').focus()")
    browser.send("Input.insertText", text="FollowTheRidge")
    found, deadline = None, time.monotonic() + 20
    while not found and time.monotonic() < deadline:
        time.sleep(0.1)
        found = browser.value("document.querySelector('.md-search-result__link')?.href")
    assert found
    assert Path(found.split("#")[0].split("?")[0]).name == "solvers.html"
