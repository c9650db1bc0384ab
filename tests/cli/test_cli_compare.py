"""`equilibrist compare`: the table, the page, resumption, bad input."""

import json
import signal

import pytest

from equilibrist.core.draws import Batches

POINTS = ["steps=2", "width=4", "depth=1", "latent=2", "batch=16"]
SETS = [word for pair in POINTS for word in ("--set", pair)]
OWN = """
from torch import nn
from equilibrist import GAN, Alternating, Recipe, Vanilla, eight_gaussians

def tiny(steps: int = 4):
    game = GAN(lambda: nn.Linear(2, 2), lambda: nn.Linear(2, 1), Vanilla(), latent=2)
    return Recipe(game, eight_gaussians(), Alternating(), steps, batch=4)
"""
TWO = ["--solver", "recipe", "--solver", "consensus:gamma=0.5", "--seeds", 2]


def test_compare(well, here):
    answer = well(
        "compare", "eight-gaussians", *TWO, *SETS, "--progress", "none", "--device", "cpu"
    )
    folder = here / "runs" / "compare-eight-gaussians"
    assert answer.out.splitlines()[0] == "Eight Gaussians: 2 solvers, 2 seeds, 2 steps"
    assert answer.out.splitlines()[2].startswith("every solver: seeds 0 to 1, and from each seed")
    assert "consensus:gamma=0.5" in answer.out
    assert answer.out.splitlines()[-1] == "Page: runs/compare-eight-gaussians/compare.html"
    held = json.loads((folder / "compare.json").read_text())
    assert [entry["name"] for entry in held["solvers"]] == ["recipe", "consensus:gamma=0.5"]
    assert held["settings"]["width"] == 4
    manifest = json.loads((folder / "consensus-gamma=0.5/seed_1/recipe.json").read_text())
    assert manifest["origin"] == {"kind": "builtin", "solver": "consensus:gamma=0.5"}
    assert "gamma=0.5" in manifest["description"]["solver"]["spec"]
    # Members are run directories like any other.
    assert well("info", folder / "recipe" / "seed_0").code == 0
    assert well("report", folder / "consensus-gamma=0.5" / "seed_1").code == 0


def test_averages(well, here):
    own = ["recipe:average=tail,average.start=1", "recipe:average=uniform"]
    words = [word for text in own for word in ("--solver", text)]
    well("compare", "eight-gaussians", *words, *SETS, "--seeds", 1, "--progress", "none")
    for text, said in zip(own, ("tail", "uniform"), strict=True):
        folder = here / "runs/compare-eight-gaussians" / text.translate({58: "-", 44: "-"})
        answer = well("info", folder / "seed_0")  # which makes the solver from its name again
        assert f"{said} average of the generator" in answer.out


# Draws are asked for twice by the costs, and for each solver twice by its beginning and by each step.
@pytest.mark.parametrize(
    "draw", [8, 12, 17], ids=["in the first", "at its last step", "in the second"]
)
def test_stopped_and_resumed(draw, cli, here, monkeypatch):
    real, seen = Batches.at, []

    def at(batches, step):
        seen.append(step)
        if len(seen) == draw:
            signal.raise_signal(signal.SIGINT)
        return real(batches, step)

    monkeypatch.setattr(Batches, "at", at)
    (here / "own.py").write_text(OWN)
    words = ["compare", "own.py:tiny", *TWO, "--dir", here / "c", "--progress", "none"]
    stopped = cli(*words)
    assert stopped.code == 130
    assert "Run the same command again" in stopped.out
    assert (here / "c" / "consensus-gamma=0.5").exists() == (draw == 17)
    assert not (here / "c" / "compare.json").exists()
    done = cli(*words)
    assert (done.code, done.err) == (0, "")
    assert (here / "c" / "compare.html").exists()


def test_help(well):
    text = " ".join(well("compare", "--help").out.split())
    for word in (
        "consensus:gamma=10",
        "lookahead",
        "--seeds",
        "paired differences",
        "common random numbers",
        "--solver recipe:lr=1e-3",
        "average.start=STEP",
    ):
        assert word in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--solver", "consensu"], "did you mean consensus"),
        (["--solver", "consensus:gama=1"], "did you mean gamma"),
        (["--solver", "proximal:lam=0"], "positive"),
        (["--solver", "recipe:average=mean"], "not exponential or uniform or tail or none"),
        (["--solver", "recipe:average=tail"], "Averaged.start is needed"),
        (["--solver", "recipe", "--solver", "recipe"], "given twice"),
        (["--solver", "consensus:gamma=1", "--solver", "consensus-gamma=1"], "there is no solver"),
        (["--seeds", "0"], "--seeds"),
        (["--set", "stps=4"], "did you mean steps"),
        (["--progress", "loud"], "--progress"),
        (["--device", "tpu"], "--device"),
    ],
)
def test_bad_input_is_one_line(cli, here, words, says):
    answer = cli("compare", "eight-gaussians", *words)
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.count("\n") == 1
    assert says in answer.err
    assert not (here / "runs").exists()


def test_unknown_recipe(cli, here):
    answer = cli("compare", "eight-gausians")
    assert answer.code == 2
    assert "did you mean" in answer.err
