"""The pages: well-formed pictures that show what was computed, in a browser too."""

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from equilibrist import JacobianOperator, VectorField
from equilibrist.games import Quadratic, bilinear
from equilibrist.play import pictures, play, write_play, write_spectrum
from equilibrist.play.page import play_html
from equilibrist.play.spectrum_page import sentences, spectrum_html
from equilibrist.spectra import spectrum_at


def svgs(text: str) -> list[ET.Element]:
    """Every outermost picture, parsed as XML."""
    # Nested svg elements clip to the frame; each chart ends with two closing tags.
    found = re.findall(r'<svg class="chart.*?</svg></svg>', text)
    assert found
    assert len(found) == text.count('<svg class="chart')
    return [ET.fromstring(svg) for svg in found]


@pytest.fixture(scope="module")
def played():
    return play("bilinear", ["simultaneous", "consensus", "extragradient"], steps=40)


@pytest.fixture(scope="module")
def wells():
    return play("three-nash", ["simultaneous", "consensus"], steps=40, basins=True)


def test_pictures_are_well_formed(played, wells):
    for shown in (played, wells):
        drawn = svgs(play_html(shown))
        # Each solver's plane and the chart of distances, wide and narrow.
        assert len(drawn) == 2 * (len(shown.shown) + 1)
        for svg in drawn:
            assert svg.get("aria-label")


def test_the_trajectories_drawn_are_the_paths(played):
    wide = svgs(play_html(played))[0]
    ways = [p for p in wide.iter("path") if (p.get("class") or "").startswith("way")]
    assert len(ways) == len(played.starts)
    size = pictures.SQUARE[0]
    axes = pictures.axes_of(size, played.window)
    for k, way in enumerate(ways):
        d = np.array([float(w) for w in way.get("d", "")[1:].split()]).reshape(-1, 2)
        path = played.shown[0].paths[:, k]
        pixels = np.array([[axes.x(float(x)), axes.y(float(y))] for x, y in path])
        assert d[0] == pytest.approx(pixels[0], abs=0.06)
        # Every vertex is an iterate; every iterate is within 1.3 pixels of a vertex.
        gaps = np.linalg.norm(d[:, None] - pixels, axis=2)
        assert gaps.min(axis=1).max() < 0.1
        assert gaps.min(axis=0).max() < 1.3


def test_arrows_point_along_gradient_steps():
    """On f = x^2/2 + y^2/2 in own losses everything points at the origin."""
    one = torch.eye(1, dtype=torch.float64)
    from equilibrist.play.trajectories import Table

    table = Table(Quadratic(one, 0 * one, one))
    at = pictures.arrows_at((-1, 1, -1, 1), 2)
    axes = pictures.axes_of(pictures.SQUARE[0], (-1.0, 1.0, -1.0, 1.0))
    drawn = pictures._arrows(axes, at, table.field(at), 2)
    lines = re.findall(r"M([-\d. ]+)L([-\d. ]+)M", drawn)
    assert len(lines) == 4
    centre = np.array([axes.width / 2, axes.height / 2])
    for tail, tip in lines:
        a, b = (np.array([float(w) for w in text.split()]) for text in (tail, tip))
        assert np.linalg.norm(b - centre) < np.linalg.norm(a - centre)
        turn = (b - a) / np.linalg.norm(b - a) @ (centre - a) / np.linalg.norm(centre - a)
        assert turn == pytest.approx(1, abs=1e-3)


def test_basins_are_drawn_once_each(wells):
    wide = svgs(play_html(wells))[0]
    basins = [p for p in wide.iter("path") if (p.get("class") or "").startswith("basin")]
    assert 1 <= len(basins) <= 10
    area = 0.0
    for basin in basins:
        for x0, y0, x1, y1 in re.findall(
            r"M([-\d.]+) ([-\d.]+)H([-\d.]+)V([-\d.]+)H", basin.get("d", "")
        ):
            area += (float(x1) - float(x0)) * (float(y1) - float(y0))
    cells = wells.shown[0].basins
    assert area / 410**2 == pytest.approx((cells != -1).mean(), abs=0.01)


def test_the_table_is_on_the_page(played):
    text = play_html(played)
    for row in played.rows():
        for cell in row:
            assert cell in text
    assert 'scope="col"' in text


def test_the_same_play_gives_the_same_bytes(played, tmp_path):
    again = play("bilinear", ["simultaneous", "consensus", "extragradient"], steps=40)
    one, two = write_play(played, tmp_path / "a.html"), write_play(again, tmp_path / "b.html")
    assert one.read_bytes() == two.read_bytes()


def test_what_users_type_is_escaped(tmp_path):
    source = tmp_path / "a&b.py"
    source.write_text(
        'def made(kind: str = "<b>"):\n    """<script>alert(1)</script>"""\n'
        "    from equilibrist.games import bilinear\n    return bilinear()\n"
    )
    text = play_html(play(f"{source}:made", ["simultaneous"], steps=2))
    assert "<script>" not in text
    assert "<b>&lt;" not in text
    assert "&lt;script&gt;" in text


def test_the_disc_is_drawn_to_scale():
    frame = pictures.axes_of(pictures.SQUARE[0], (-1.0, 3.0, -2.0, 2.0))
    for h in (1.0, 0.4, 1e-6):
        d = pictures.disc(frame, h)
        points = np.array(
            [float(w) for w in re.search(r'd="M(.*?)Z"', d).group(1).split()]  # type: ignore[union-attr]
        ).reshape(-1, 2)
        x = -1 + 4 * points[:, 0] / frame.width
        y = 2 - 4 * points[:, 1] / frame.height
        inside = (x > -1.2) & (x < 3.2)
        off = np.abs((1 - h * x) ** 2 + (h * y) ** 2 - 1)[inside] / h
        assert off.max() < 0.01
    assert pictures.disc(pictures.axes_of(pictures.SQUARE[0], (-3.0, -1.0, -1.0, 1.0)), 1.0) == ""


def operator(game, n, m):
    players = {
        "x": {"value": torch.ones(n, dtype=torch.float64)},
        "y": {"value": torch.ones(m, dtype=torch.float64)},
    }
    return JacobianOperator(VectorField(game), players, {}, [{}])


def spectra():
    one = torch.eye(2, dtype=torch.float64)
    steady = Quadratic(one, torch.diag(torch.tensor([1.0, 30.0])).double(), 2 * one)
    rates = {"x": 0.1, "y": 0.2}
    return {
        "turning": spectrum_at(operator(bilinear(2), 2, 2), {"x": 0.1, "y": 0.1}, gamma=1.0),
        "steady": spectrum_at(operator(steady, 2, 2), {"x": 1e-4, "y": 1e-4}, samples=9),
        "too far": spectrum_at(operator(steady, 2, 2), rates, gamma=0.5),
        "no rates": spectrum_at(operator(steady, 2, 2)),
        "zero": spectrum_at(operator(Quadratic(0 * one, 0 * one, 0 * one), 2, 2), rates),
        "extremes": spectrum_at(operator(steady, 2, 2), rates, dense=1, k=2),
    }


def test_spectra_are_drawn_and_put_into_words():
    said = {}
    for name, found in spectra().items():
        said[name] = " ".join(sentences(found))
        text = spectrum_html(found, "<t>", 3)
        assert "<t>" not in text
        drawn = svgs(text)
        wide = [svg for svg in drawn if "wide" in (svg.get("class") or "")]
        dots = sum(
            (p.get("d") or "").count("M")
            for p in wide[0].iter("path")
            if (p.get("class") or "").startswith("eigen")
        )
        assert dots == len(found.stepped.values)
        assert any(p.get("class") == "disc" for p in wide[0].iter("path")) == (found.h is not None)
    assert said["turning"].startswith("No step size makes plain gradient steps stable here: 4")
    assert "q = max |Im/Re| is infinite" in said["turning"]
    assert "With consensus, gamma 1: h_max = 1, q = 1, 0 eigenvalues outside" in said["turning"]
    assert said["steady"].startswith("Locally stable at the step size in use, h = 10⁻⁴")
    assert said["too far"].startswith("Not stable at the step size in use")
    assert "(x 0.1, y 0.2)" in said["too far"]
    assert said["no rates"].startswith("All eigenvalues of J have positive real parts")
    assert said["zero"].startswith("No eigenvalue differs from zero")
    assert "4 of 4 eigenvalues are zero to rounding" in said["zero"]
    assert "eigenvalues found" in said["extremes"]
    assert "zero-sum value V" not in said["steady"]


def test_own_losses_are_told_apart_from_v():
    class General(Quadratic):
        zero_sum = False

    one = torch.eye(1, dtype=torch.float64)
    found = spectrum_at(operator(General(one, one, one), 1, 1))
    assert any("not those of the zero-sum value V" in text for text in sentences(found))


def test_the_record_of_a_spectrum(tmp_path):
    found = spectra()["too far"]
    run = SimpleNamespace(
        directory=tmp_path,
        step=7,
        checkpoint="c",
        sha256="s",
        recipe=SimpleNamespace(title="A run"),
    )
    assert write_spectrum(found, run) == tmp_path / "spectrum.html"  # type: ignore[arg-type]
    record = json.loads((tmp_path / "spectrum.json").read_text())
    values = [complex(*pair) for pair in record["jacobian"]["eigenvalues"]]
    assert values == list(found.jacobian.values)
    assert record["h"] == 0.2
    assert record["jacobian"]["h_max"] == found.jacobian.h_max
    assert record["consensus"]["q"] == found.consensus.q  # type: ignore[union-attr]
    assert len(record["scaled"]["residuals"]) == 4
    assert [p.name for p in tmp_path.glob(".*")] == [".equilibrist"]  # which files are ours
    write_spectrum(spectra()["turning"], run)  # type: ignore[arg-type]
    assert json.loads((tmp_path / "spectrum.json").read_text())["jacobian"]["q"] is None


TOO_WIDE = (
    "[...document.querySelectorAll('body *')].filter(e => !e.closest('thead') && "
    "!e.closest('svg') && e.getBoundingClientRect().right > innerWidth + 0.5).length"
)


@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(360, True), (1200, False)])
def test_pages_open_in_a_browser(browser, played, tmp_path, width, dark):
    spectrum = tmp_path / "spectrum.html"
    spectrum.write_text(spectrum_html(spectra()["too far"], "A run", 3), encoding="utf-8")
    for path, pages in ((write_play(played, tmp_path / "play.html"), 4), (spectrum, 2)):
        assert isinstance(path, Path)
        browser.open(path, width, dark)
        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value(TOO_WIDE) == 0
        shown = "[...document.querySelectorAll('.chart')].filter(c => c.checkVisibility()).length"
        assert browser.value(shown) >= pages
        assert browser.value("[...document.querySelectorAll('.way, .eigen')].length") > 0
        stroke = "getComputedStyle(document.querySelector('.way, .eigen')).stroke"
        assert browser.value(stroke) != "none"
        kinds = {"Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown"}
        assert [event for event in browser.events if event.get("method") in kinds] == []
