"""`equilibrist play` and `equilibrist spectrum`: what they print and write, and how they refuse."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_games_are_listed_without_torch():
    code = (
        "import sys\n"
        "from equilibrist.cli import main\n"
        "codes = [main(['play']), main(['play', '--help']), main(['play', 'bilinaer'])]\n"
        "assert 'torch' not in sys.modules\n"
        "print(codes)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[0, 0, 2]"
    assert "did you mean bilinear?" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[0] == "bilinear"
    assert all(len(line) <= 115 for line in lines[:7])


def test_play(here, well):
    answer = well("play", "bilinear", "--solver", "consensus", "--steps", 30, "--starts", 2)
    lines = answer.out.splitlines()
    assert lines[0].split() == ["stationary", "point", "kind", "solver", "predicted", "observed"]
    # sqrt((1 - 0.5 h)^2 + h^2) at h = 0.15
    assert lines[1].split()[-2:] == ["0.937083", "0.937083"]
    assert lines[1].startswith("(0, 0)            local Nash  consensus:gamma=0.5")
    assert lines[-1] == "Pictures: play-bilinear.html"
    text = (here / "play-bilinear.html").read_text()
    assert "Consensus, gamma 0.5" in text


def test_solvers_side_by_side(here, well):
    answer = well(
        *("play", "quadratic", "--set", "a=1", "--set", "c=0", "--lr", 0.5, "--steps", 12),
        *("--solver", "simultaneous", "--solver", "extragradient:lr=0.1", "--basins"),
        *("--window", "-1,1,-2,2", "--starts", "1,0;0,1", "--out", "x.html"),
    )
    assert "extragradient:lr=0.1: after 12 steps" in answer.out
    text = (here / "x.html").read_text()
    assert text.count("<figure>") == 2
    assert 'class="basin' in text or "at no stationary point yet" in text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("bilinaer", 2, "no game 'bilinaer' (did you mean bilinear?)"),
        ("nowhere.py:game", 2, "nowhere.py does not exist"),
        ("bilinear --solver consesus", 2, "no solver 'consesus' (did you mean consensus?)"),
        ("bilinear --solver consensus:gamma", 2, "write it as NAME:key=value"),
        ("bilinear --set scale", 2, "write it as key=value"),
        ("bilinear --set size=2", 2, "has no such option"),
        ("bilinear --lr 0", 2, "a step size must be positive"),
        ("bilinear --lr fast", 2, "Invalid value for '--lr'"),
        ("bilinear --steps 0", 2, "it must lie between 1 and 100,000"),
        ("bilinear --starts many", 2, "write a number, or places"),
        ("bilinear --window 1,2", 2, "write four numbers"),
        ("bilinear --window a,b,c,d", 2, "write four numbers"),
        ("bilinear --out x.png", 2, "the name must end in .html"),
        ("bilinear --out .", 2, "this is a folder"),
        ("bilinear --out no/x.html", 3, "the folder no does not exist"),
    ],
)
def test_play_refuses_in_one_line(here, cli, words, code, message):
    answer = cli("play", *words.split(" "))
    assert answer.code == code
    assert answer.out == ""
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not list(here.glob("*.html"))


def test_a_game_of_ones_own(here, well, cli):
    Path("mine.py").write_text(
        "from equilibrist.games import bilinear\n"
        "def turn():\n    'A turn.'\n    return bilinear()\n"
        "def large():\n    return bilinear(3)\n"
        "def wrong():\n    return 3\n"
    )
    out = well("play", "mine.py:turn", "--steps", 3, "--solver", "simultaneous").out
    assert out.splitlines()[-1] == "Pictures: play-mine.py-turn.html"
    answer = cli("play", "mine.py:large")
    assert (answer.code, answer.out) == (2, "")
    assert "has 6 parameters: pictures are of games with two" in answer.err
    answer = cli("play", "mine.py:wrong")
    assert answer.code == 2
    assert "carries no truth" in answer.err


def test_spectrum(points, well):
    answer = well("spectrum", "--progress", "none", points, "--gamma", 10, "--batches", 2)
    lines = answer.out.splitlines()
    assert lines[-1] == f"Spectrum: {points}/spectrum.html"
    assert any("TFRMSProp preconditions its steps" in line for line in lines)
    record = json.loads((points / "spectrum.json").read_text())
    assert record["step"] == 4
    assert record["samples"] == 32
    assert record["gamma"] == 10
    assert record["jacobian"]["complete"]
    assert len(record["jacobian"]["eigenvalues"]) == record["parameters"]
    assert record["h"] == 1e-4
    first = (points / "spectrum.html").read_bytes()
    well("spectrum", "--progress", "none", points, "--gamma", 10, "--batches", 2)
    assert (points / "spectrum.html").read_bytes() == first


def test_spectrum_of_extremes(digits, well, monkeypatch):
    """A critic with spectral norm, and more parameters than a dense matrix may have here."""
    monkeypatch.setattr("equilibrist.spectra.of_run.DENSE", 100)
    answer = well(
        "spectrum", "--progress", "none", digits, "--extremes", 1, "--batches", 1, "--lr", 0.01
    )
    record = json.loads((digits / "spectrum.json").read_text())
    assert record["parameters"] > 100
    assert not record["jacobian"]["complete"]
    assert record["jacobian"]["h_max_is"] == "an upper bound"
    largest = max(abs(complex(*pair)) for pair in record["jacobian"]["eigenvalues"])
    assert all(r <= 1e-3 * largest for r in record["jacobian"]["residuals"])
    assert record["step_sizes"] == {"generator": 0.01, "critic": 0.01}
    assert not record["zero_sum"]
    assert "not those of the zero-sum value V" in answer.out


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("nowhere", 3, "not a run directory"),
        ("points --gamma -1", 2, "--gamma -1: it must be positive"),
        ("points --gamma nan", 2, "it must be positive"),
        ("points --lr 0", 2, "--lr 0: it must be positive"),
        ("points --batches 0", 2, "--batches"),
        ("points --iterate best", 2, "choose 'auto', 'average' or 'last'"),
        ("points --step 99", 3, "step_00000099"),
    ],
)
def test_spectrum_refuses_in_one_line(points, cli, monkeypatch, words, code, message):
    monkeypatch.chdir(points.parent)
    answer = cli("spectrum", *words.split(" "))
    assert answer.code == code
    assert answer.out == ""
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
    assert not (points / "spectrum.json").exists()
