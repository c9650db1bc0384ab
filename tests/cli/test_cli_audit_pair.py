"""`equilibrist audit my_file.py:pair`: a checkpoint of one's own by one command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

FILE = """
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

def build():
    torch.manual_seed(0)
    g = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    return g, nn.Sequential(spectral_norm(nn.Linear(2, 8)), nn.LeakyReLU(0.2), nn.Linear(8, 1))

def fields():
    g, c = build()
    state = torch.load("saved.pt", weights_only=True)
    g.load_state_dict(state["g"])
    c.load_state_dict(state["c"])
    torch.manual_seed(1)
    real = torch.randn(200, 2)
    return dict(generator=g, critic=c, data=real, formulation="wgan", latent=3)

def pair():
    return fields()

def as_tuple():
    return tuple(fields().values())

def as_pair():
    from equilibrist.checks.pair import Pair
    return Pair(**fields(), settings={"tolerance": 1e-5})

def counting():
    held = fields()
    norm = nn.InstanceNorm1d(1, track_running_stats=True)
    held["critic"] = nn.Sequential(nn.Linear(2, 4), nn.Unflatten(1, (1, 4)), norm, nn.Flatten(), nn.Linear(4, 1))
    return held

def missing():
    return {"generator": build()[0]}

def number():
    return 3

def breaks():
    raise KeyError("weights")

def leaves():
    import sys
    sys.exit()

def leaves_later():
    import sys
    class Critic(nn.Linear):
        def forward(self, x):
            sys.exit(0)
    return {**fields(), "critic": Critic(2, 1)}

def recipe():
    leaves()
"""
FEW = (
    *("--set", "steps=20", "--set", "starts=1", "--set", "groups=3", "--set", "group_batches=1"),
    *("--set", "looks=2", "--set", "batches=4", "--set", "look_batches=2", "--set", "batch=32"),
    *("--progress", "none", "--check", "self-tests", "--check", "stationary", "--check", "nash"),
)


@pytest.fixture
def file(here: Path) -> str:
    (here / "mine.py").write_text(FILE, encoding="utf-8")
    space: dict[str, Any] = {}
    exec(FILE, space)
    g, c = space["build"]()
    for _ in range(50):
        c(torch.zeros(1, 2))
    torch.save({"g": g.state_dict(), "c": c.state_dict()}, here / "saved.pt")
    return "mine.py"


def test_a_checkpoint_by_one_command(well: Callable[..., Any], file: str, here: Path) -> None:
    answer = well("audit", f"{file}:pair", *FEW)
    value = json.loads((here / "audit-mine-pair" / "audit.json").read_text())
    rows = [line.split()[:2] for line in answer.out.splitlines() if " " in line]
    for row in value["certificates"]:
        assert [row["claim"], row["verdict"]] in rows
    assert answer.out.startswith(value["place"])
    assert value["certificates"][0]["verdict"] == "VERIFIED"
    assert str(Path("audit-mine-pair") / "report.html") in answer.out
    assert value["pair"] == {"generator": "Sequential", "critic": "Sequential"}


def test_three_ways_to_return_a_pair(well: Callable[..., Any], file: str, here: Path) -> None:
    found = []
    for function in ("pair", "as_tuple", "as_pair"):
        well("audit", f"{file}:{function}", *FEW, "--out", here / function, "--seed", 5)
        found.append(json.loads((here / function / "audit.json").read_text()))
    first, second, third = (
        {row["claim"]: row["evidence"].get("gain") for row in value["certificates"]}
        for value in found
    )
    assert first == second == third
    assert [value["settings"]["tolerance"] for value in found] == [0.02, 0.02, 1e-5]
    assert {value["seed"] for value in found} == {5}


def test_the_witness_loads_into_the_users_module(
    well: Callable[..., Any], file: str, here: Path
) -> None:
    well("audit", f"{file}:as_pair", *FEW, "--out", "a")
    rows = json.loads((here / "a" / "audit.json").read_text())["certificates"]
    row = next(row for row in rows if row["claim"] == "nash/critic")
    assert row["verdict"] == "REFUTED"
    space: dict[str, Any] = {}
    exec(FILE, space)
    critic: nn.Module = space["build"]()[1].eval()
    critic.load_state_dict(load_file(here / "a" / row["witness"]))
    weight = critic[0].weight.detach()  # type: ignore[index]
    assert float(torch.linalg.matrix_norm(weight, 2)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("mine.py:pare",), 2, "mine.py defines no function 'pare'"),
        (("other.py:pair",), 2, "other.py does not exist"),
        (("mine.py",), 2, "file.py:function"),
        (("mine.py:breaks",), 2, "mine.py:breaks fails: KeyError"),
        (("mine.py:number",), 2, "mine.py:number returns int"),
        (("mine.py:missing",), 2, "returns no 'critic'"),
        (("mine.py:counting",), 2, "critic.2 (InstanceNorm1d)"),
        (("mine.py:pair", "--step", "3"), 2, "--step 3: mine.py:pair is a pair of your own"),
        (("mine.py:pair", "--recipe", "x"), 2, "--recipe x"),
        (("mine.py:pair", "--check", "nahs"), 2, "did you mean nash"),
        (("mine.py:pair", "--set", "stepz=3"), 2, "did you mean steps"),
        (("mine.py:pair", "--out", "."), 3, "this exists and is no audit"),
        (("nowhere",), 3, "nowhere"),
        (("runs/x", "--out", "there"), 2, "--out there: runs/x is a run"),
    ],
)
def test_refused_in_one_line(
    cli: Callable[..., Any], file: str, words: tuple[str, ...], code: int, said: str
) -> None:
    answer = cli("audit", *words, "--progress", "none")
    assert answer.code == code, answer.err
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert answer.err.startswith("equilibrist: error: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("audit", "mine.py:leaves"), "mine.py:leaves ended the program (sys.exit) instead of"),
        (("audit", "mine.py:leaves", "--require", "nash"), "in leaves: sys.exit()"),
        (("audit", "mine.py:leaves_later"), "ended the program (sys.exit"),
        (("run", "mine.py:recipe"), "ended the program (sys.exit) instead of returning a Recipe"),
    ],
)
def test_code_that_ends_the_program_is_no_success(
    cli: Callable[..., Any], file: str, words: tuple[str, ...], said: str
) -> None:
    answer = cli(*words, "--progress", "none")
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1


def test_an_empty_folder_may_be_named(well: Callable[..., Any], file: str, here: Path) -> None:
    (here / "new").mkdir()
    well("audit", f"{file}:pair", *FEW, "--out", "new")
    assert (here / "new" / "audit.json").exists()


def test_a_required_claim_decides_the_exit_code(cli: Callable[..., Any], file: str) -> None:
    answer = cli("audit", f"{file}:as_pair", *FEW, "--require", "nash")
    assert answer.code == 5
    assert "nash is REFUTED" in answer.err
    assert cli("audit", f"{file}:as_pair", *FEW, "--require", "self-tests=verified").code == 0
