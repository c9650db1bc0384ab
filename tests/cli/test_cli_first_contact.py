"""What the command says to somebody who meets it: errors of one's own file, pages, commands that can be pasted."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import equilibrist as eq
from conftest import POINTS, Answer, sets

Call = Callable[..., Answer]

FILE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))

def pair():
    torch.manual_seed(0)
    return net(), nn.Linear(2, 1), (torch.randn(200, 2), torch.zeros(200)), "vanilla", 2

def saved_in_parallel():
    net().load_state_dict({f"module.{k}": v for k, v in net().state_dict().items()})

def compiled():
    net().load_state_dict({f"_orig_mod.{k}": v for k, v in net().state_dict().items()})

def compiled_part_in_parallel():
    state = {f"module.{k[0]}._orig_mod{k[1:]}": v for k, v in net().state_dict().items()}
    net().load_state_dict(state)

def still_wrapped():
    inner = net()
    nn.DataParallel(inner).load_state_dict(inner.state_dict())

def deep():
    return helper(7)

def helper(n):
    raise RuntimeError("the first line\\nand the second, with the cause")

def recipe(size: int = 3):
    return helper(size)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a file of one's own, in a path that a shell would take apart."""
    place = tmp_path / "my work"
    place.mkdir()
    (place / "my pair.py").write_text(FILE)
    monkeypatch.chdir(place)
    return place


def test_the_version(cli: Call) -> None:
    assert cli("--version") == Answer(0, f"equilibrist {eq.__version__}\n", "")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (
            "deep",
            r"RuntimeError: the first line and the second, with the cause \(my pair.py, line 30, in helper: "
            r"raise RuntimeError",
        ),
        ("saved_in_parallel", r"in saved_in_parallel: .*removeprefix\('module\.'\)"),
        ("compiled", r"in compiled: .*saved from a module inside torch\.compile"),
        (
            "compiled_part_in_parallel",
            r"inside DistributedDataParallel and torch\.compile: load "
            r"\{k\.replace\('_orig_mod\.', ''\)\.removeprefix\('module\.'\): v",
        ),
        ("still_wrapped", r"in still_wrapped: .*load into its inner one"),
    ],
)
def test_an_error_of_ones_own_file_is_told_whole_with_its_line(
    cli: Call, folder: Path, function: str, said: str
) -> None:
    answer = cli("audit", f"my pair.py:{function}")
    assert answer.code == 2
    assert re.search(said, answer.err), answer.err
    assert answer.err.count("\n") == 1


def test_a_recipe_of_ones_own_fails_with_its_line(cli: Call, folder: Path) -> None:
    answer = cli("run", "my pair.py:recipe")
    assert "and the second, with the cause (my pair.py, line 30, in helper" in answer.err
    (folder / "broken.py").write_text("import torch\nfoo = torch.nosuch\n")
    answer = cli("run", "broken.py:recipe")
    assert "(broken.py, line 2: foo = torch.nosuch)" in answer.err


def test_an_own_pairs_audit_writes_a_page_whose_command_can_be_pasted(
    cli: Call, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["audit", "my pair.py:pair", "--check", "stationary", "--gradients", "200"]
    monkeypatch.setattr("sys.argv", ["equilibrist", *words])
    answer = cli(*words, "--progress", "none")
    assert answer.code == 0, answer.err
    page = Path(answer.out.rsplit("Report: ", 1)[1].strip())
    assert page == Path("audit-my pair-pair/report.html")
    text = page.read_text()
    assert "http-equiv" in text
    found = re.findall(r"<pre>(equilibrist audit [^<]*)</pre>", text)
    (command,) = [one for one in found if "profile" not in one]
    assert shlex.split(command.replace("&#x27;", "'")) == ["equilibrist", *words]
    assert cli("report", page.parent).code == 0, "and the page can be made again"


def test_a_run_that_python_made_says_how_to_audit_it(cli: Call, folder: Path) -> None:
    game = eq.GAN(nn.Linear(2, 2), nn.Linear(2, 1), "vanilla", latent=2)
    source = eq.ArraySource(torch.randn(50, 2), kind="points")
    solver = eq.Alternating(optimizer=eq.Adam(1e-3))
    eq.train(eq.Recipe(game, source, solver, steps=2, batch=8), "runs/mine", progress="none")
    answer = cli("audit", "runs/mine")
    assert answer.code == 3
    assert "eq.audit(eq.load('runs/mine', recipe))" in answer.err
    assert "--recipe FILE.py:FUNCTION" in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("sample", "eq.load('runs/mine', recipe).samples(64)"),
        (
            "export",
            "run = eq.load('runs/mine', recipe); run.recipe.game.load(run.pair(), run.consta",
        ),
        ("spectrum", "equilibrist.spectra.spectrum_of(eq.load('runs/mine', recipe))"),
    ],
)
def test_a_run_that_python_made_says_what_to_call(
    cli: Call, folder: Path, command: str, said: str
) -> None:
    game = eq.GAN(nn.Linear(2, 2), nn.Linear(2, 1), "vanilla", latent=2)
    source = eq.ArraySource(torch.randn(50, 2), kind="points")
    solver = eq.Alternating(optimizer=eq.Adam(1e-3))
    eq.train(eq.Recipe(game, source, solver, steps=2, batch=8), "runs/mine", progress="none")
    answer = cli(command, "runs/mine")
    assert answer.code == 3
    assert said in answer.err
    assert "eq.audit" not in answer.err


@pytest.mark.parametrize("name", [b"b\xff", b"two\nlines", b"it's \\ \x1b[31m"])
def test_printed_commands_can_be_pasted_whatever_the_name(
    cli: Call, folder: Path, name: bytes
) -> None:
    run = ["run", "eight-gaussians", *sets(POINTS), "--dir", os.fsdecode(name)]
    made = cli(*run, "--progress", "none")
    assert all(line.isprintable() for line in made.out.splitlines())
    (line,) = [text for text in made.out.splitlines() if text.startswith("Next: ")]
    words = line.partition(": ")[2].replace("equilibrist audit", "printf %s", 1)
    done = subprocess.run(["bash", "-c", words], capture_output=True, check=True)
    assert done.stdout == name
    answer = cli("spectrum", os.fsdecode(name), "--progress", "none")
    assert answer.code == 0
    assert all(line.isprintable() for line in answer.out.splitlines())


def test_printed_commands_are_quoted(cli: Call, folder: Path) -> None:
    made = cli("run", "eight-gaussians", *sets(POINTS), "--dir", "a run", "--progress", "none")
    (line,) = [text for text in made.out.splitlines() if text.startswith("Next: ")]
    assert shlex.split(line)[1:] == ["equilibrist", "audit", "a run"]
    (line,) = [text for text in cli("info", "a run").out.splitlines() if "not audited" in text]
    assert shlex.split(line.partition(": ")[2]) == ["equilibrist", "audit", "a run"]


def test_samples_and_weights_need_no_data(cli: Call, folder: Path) -> None:
    """A folder of images that is gone by then: the same samples, the same weights."""
    (folder / "faces").mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "faces.npy", rng.uniform(-1, 1, (40, 1, 64, 64)).astype(np.float32))
    few = ["data=faces.npy", "steps=2", "dim=1", "channels=1", "batch=4"]
    done = cli("run", "faces64-sngan", *sets(few), "--dir", "run", "--progress", "none")
    assert done.code == 0, done.err
    assert cli("sample", "run", "-n", "3", "-o", "with.npy").code == 0
    os.rename("faces.npy", "gone.npy")
    for out in ("without.npy", "without.png"):
        answer = cli("sample", "run", "-n", "3", "-o", out)
        assert answer.code == 0, answer.err
    assert np.array_equal(np.load("with.npy"), np.load("without.npy"))
    answer = cli("export", "run")
    assert answer.code == 0, answer.err
    assert load_file("run/export/generator.safetensors")
    answer = cli("audit", "run", "--progress", "none")
    assert answer.code == 3
    assert "faces.npy" in answer.err


def test_a_spectrum_tells_how_far_it_is(cli: Call, folder: Path) -> None:
    cli("run", "eight-gaussians", *sets(POINTS), "--dir", "run", "--progress", "none")
    answer = cli("spectrum", "run", "--progress", "lines")
    assert answer.code == 0, answer.err
    assert re.search(r"spectrum \d+/\d+ .* s left", answer.err)
    assert "s left" not in cli("spectrum", "run", "--progress", "none").err
