"""The page in a real browser: no error, no request, nothing wider than the screen."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_rows import whole

from equilibrist.report import write_report

pytestmark = pytest.mark.browser
Make = Callable[..., Path]


def complaints(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
    return [event for event in events if event.get("method") in kinds]


def too_wide(browser: Any, width: int) -> Any:
    """The elements that reach beyond the window, by tag and class."""
    return browser.value(
        "[...document.querySelectorAll('body *')].filter(e => !e.closest('.skip, thead') && "
        f"e.getBoundingClientRect().right > {width} + 0.5)"
        ".map(e => e.tagName + '.' + (e.className.baseVal ?? e.className))"
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_fits_and_is_silent(browser: Any, make_run: Make, width: int, dark: bool) -> None:
    path = write_report(make_run(points=True) if dark else whole(make_run()))
    browser.open(path, width, dark)
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert browser.value("innerWidth") == width
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert too_wide(browser, width) == []
    assert complaints(browser.events) == []
    requests = [
        event["params"]["request"]["url"]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]


def test_endless_words_wrap(browser: Any, make_run: Make) -> None:
    run = whole(make_run())

    def stretch(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                k: v if k in ("verdict", "samples", "claim", "lambda") else stretch(v)
                for k, v in value.items()
            }
        if isinstance(value, list):
            return [stretch(item) for item in value]
        return "w" * 200 + value if isinstance(value, str) else value

    for name in ("recipe.json", "environment.json", "audit/audit.json"):
        path = run / name
        path.write_text(json.dumps(stretch(json.loads(path.read_text()))))
    browser.open(write_report(run), 360)
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert too_wide(browser, 360) == []


def test_the_checks_above_can_fail(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "bad.html"
    path.write_text(
        '<meta name="viewport" content="width=device-width"><div style="width:900px">wide</div>'
        '<script>console.error("no")</script>'
    )
    browser.open(path, 360)
    assert browser.value("document.documentElement.scrollWidth") > 360
    assert too_wide(browser, 360) == ["DIV."]
    assert complaints(browser.events)


@pytest.mark.parametrize("width", [360, 1280])
def test_no_label_covers_another(browser: Any, make_run: Make, width: int) -> None:
    """Of each chart's texts no two overlap by more than a pixel."""
    browser.open(write_report(whole(make_run())), width)
    browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
    clashes = browser.value(
        """[...document.querySelectorAll('.chart')].filter(c => c.checkVisibility()).flatMap(c => {
          const boxes = [...c.querySelectorAll('text')].map(t => [t.textContent, t.getBoundingClientRect()]);
          return boxes.flatMap(([a, p], i) => boxes.slice(i + 1).filter(([b, q]) =>
            p.left < q.right - 1 && q.left < p.right - 1 && p.top < q.bottom - 4 && q.top < p.bottom - 4)
            .map(([b, q]) => a + ' / ' + b + ' in ' + c.getAttribute('aria-label').slice(0, 60)));
        })"""
    )
    assert clashes == []


def test_the_ladder_marks_differ_in_shape(browser: Any, make_run: Make) -> None:
    """The rungs can be told apart without colour: by glyph, and refuted ones by their corners."""
    browser.open(write_report(whole(make_run())), 360)
    marks = browser.value(
        "[...document.querySelectorAll('.ladder > li')].map(l => [l.className.split(' ')[0], "
        "l.querySelector('.mark').textContent, "
        "getComputedStyle(l.querySelector('.mark')).borderRadius])"
    )
    by_tone = {tone: (glyph, corners) for tone, glyph, corners in marks}
    assert len({glyph for glyph, _ in by_tone.values()}) == len(by_tone) == 4
    assert by_tone["refuted"][1] != by_tone["open"][1]


def test_every_picture_is_drawn_and_each_chart_once(browser: Any, make_run: Make) -> None:
    path = write_report(make_run())
    for width, shown, hidden in ((360, "narrow", "wide"), (1280, "wide", "narrow")):
        browser.open(path, width)
        browser.value("document.querySelectorAll('details').forEach(d => d.open = true)")
        drawn = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
        assert browser.value(drawn)
        visible = "[...document.querySelectorAll('.chart.%s')].filter(c => c.checkVisibility())"
        assert browser.value(f"{visible % shown}.length") >= 10
        assert browser.value(f"{visible % hidden}.length") == 0


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(browser: Any, make_run: Make, dark: bool) -> None:
    """Every text colour has a contrast of at least 4.5 to 1 (WCAG AA) on page and card."""
    browser.open(write_report(make_run()), 1280, dark)
    names = "ink soft link generator critic verified refuted open unknown none"
    worst = browser.value(
        """(() => {
          const style = getComputedStyle(document.documentElement);
          const read = name => style.getPropertyValue('--' + name).trim();
          const light = hex => [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16) / 255)
            .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
            .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
          const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
          return Math.min(...'NAMES'.split(' ').flatMap(n => ['paper', 'card'].map(
            g => ratio(light(read(n)), light(read(g))))));
        })()""".replace("NAMES", names)
    )
    assert worst >= 4.5
