"""docs/formats.md names every key that is written, with its type."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import equilibrist as eq
from equilibrist.files.safetensors import opened

PAGE = (Path(__file__).parents[2] / "docs/formats.md").read_text(encoding="utf-8")
TYPES: dict[str, tuple[type, ...]] = {
    "text": (str,),
    "whole number": (int,),
    "number": (int, float),
    "true or false": (bool,),
    "list": (list,),
    "object": (dict,),
    "null": (type(None),),
    "any": (object,),
}
# A recipe as users write them, in a file whose code may change between two sessions.
RECIPE = """
import torch
from torch import nn
import equilibrist as eq
from equilibrist.scores import coordinates

class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
    def forward(self, z):
        return self.linear(z) * {factor}

def recipe(steps: int):
    torch.manual_seed(0)
    critic = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1))
    game = eq.GAN(Generator(), critic, eq.WGAN(), latent=2, penalties=[eq.R1(0.1)])
    small = dict(batches=4, look_batches=2, groups=3, group_batches=1, steps=4, starts=1, looks=2)
    return eq.Recipe(
        game, eq.eight_gaussians(), eq.Simultaneous(eq.SGD(0.01)), steps=steps, batch=16,
        scores=[eq.Frechet(samples=64, network=coordinates())], score_every=2, audit=small, accumulate=2,
    )
"""
CHECKS = ("self-tests", "stationary", "nash")


@dataclass(frozen=True)
class Entry:
    """One row of a table: the key's types, and the names that its meaning has as code."""

    types: tuple[type, ...]
    meaning: str


Table = dict[str, Entry]


def table(file: str) -> Table:
    """The table under a file's heading; `.name` after a comma stands beside the key before it."""
    section = PAGE.split(f"\n## {file}\n")[1].split("\n## ")[0]
    found: Table = {}
    for cell, kind, meaning in re.findall(r"^\| (`.*?) \| (.*?) \| (.*?)\|$", section, re.M):
        kind = kind.removesuffix("?")
        names = [kind] if kind in TYPES else kind.split(" or ")
        types = tuple(t for name in names for t in TYPES[name])
        parent = ""
        for key in re.findall(r"`([^`]+)`", cell):
            whole = f"{parent}{key}" if key.startswith(".") else key
            parent = whole.rpartition(".")[0]
            found[whole] = Entry(types, meaning)
    return found


def matches(key: str, path: tuple[str, ...]) -> bool:
    """Whether the beginning of a documented key is this path; `<name>` stands for any name."""
    parts = key.split(".")
    return len(parts) >= len(path) and all(
        a.startswith("<") or a == b for a, b in zip(parts, path, strict=False)
    )


def faults(known: Table, value: Any, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Where a value has a key that the table has not, or another type."""
    keys = [key for key in known if matches(key, path)]
    here = sorted((key for key in keys if len(key.split(".")) == len(path)), key=lambda k: "<" in k)
    deeper = len(here) < len(keys)
    if path and not keys:
        yield f"{'.'.join(path)} is not in docs/formats.md"
        return
    if path and here:
        entry = known[here[0]]
        right = isinstance(value, entry.types) and (
            not isinstance(value, bool) or {bool, object} & {*entry.types}
        )
        if not right:
            yield f"{'.'.join(path)} is of type {type(value).__name__}"
        if not deeper and object not in entry.types and ".json" not in entry.meaning:
            named = set(re.findall(r"`(\w+)`", entry.meaning))
            rows = value if isinstance(value, list) else [value]
            for name in {n for row in rows if isinstance(row, dict) for n in row} - named:
                yield f"{'.'.join(path)}: {name} is not in docs/formats.md"
    if deeper:
        for row in value if isinstance(value, list) else [value]:
            for name, one in row.items() if isinstance(row, dict) else ():
                yield from faults(known, one, (*path, name))


def recipe_in(folder: Path, factor: float) -> Any:
    """The function of a recipe file with this factor in its code."""
    folder.mkdir()
    file = folder / "own.py"
    file.write_text(RECIPE.format(factor=factor))
    spec = importlib.util.spec_from_file_location(f"own_{folder.name}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where the source of its classes is looked for
    spec.loader.exec_module(module)
    return module.recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two sessions, the second of other code, with scores, audit and report."""
    root = tmp_path_factory.mktemp("formats")
    folder = root / "run"
    eq.train(recipe_in(root / "one", 1.0)(2), folder, progress="none")
    with pytest.warns(UserWarning, match="has changed since step 2"):
        trained = eq.train(recipe_in(root / "two", 2.0)(4), folder, progress="none")
    eq.audit(trained, checks=CHECKS, progress="none")
    eq.write_report(folder)
    return folder


FILES = (
    "recipe.json",
    "status.json",
    "environment.json",
    "metrics.jsonl",
    "scores.jsonl",
    "audit/audit.json",
    "report.json",
)


def content(path: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    return (
        [json.loads(x) for x in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)
    )


@pytest.mark.parametrize("file", FILES)
def test_every_key_that_is_written_is_described(run: Path, file: str) -> None:
    known, value = table(Path(file).name), content(run / file)
    assert value
    assert list(faults(known, value)) == []


def test_the_run_has_what_is_rarely_there(run: Path) -> None:
    """So that the test above has seen it."""
    recipe = content(run / "recipe.json")
    assert recipe["history"][0]["until_step"] == 2
    assert "Generator" in recipe["code"]
    assert recipe["description"]["solver"]["accumulate"] == 2
    assert len(content(run / "environment.json")) == 2
    assert content(run / "audit/audit.json")["facts"]["losses"]


def test_an_audit_of_a_pair(tmp_path: Path) -> None:
    torch.manual_seed(0)
    pair = torch.nn.Linear(2, 2), torch.nn.Linear(2, 1)
    small = {"batches": 4, "look_batches": 2, "groups": 3, "group_batches": 1}
    data = torch.randn(200, 2)
    where = tmp_path / "pair"
    eq.audit_pair(
        *pair,
        data,
        eq.Vanilla(),
        latent=2,
        settings=small,
        checks=CHECKS[:2],
        out=where,
        progress="none",
    )
    assert list(faults(table("audit.json"), content(where / "audit.json"))) == []


def test_an_audit_of_a_critic(tmp_path: Path) -> None:
    real, fake = torch.randn(60, 2), torch.randn(60, 2)
    critic = torch.nn.Linear(2, 1)
    eq.audit_critic(critic, real, fake, "hinge", gradients=100, out=tmp_path / "c", progress="none")
    assert list(faults(table("audit.json"), content(tmp_path / "c/audit.json"))) == []


def test_a_checkpoint(run: Path) -> None:
    section = PAGE.split("\n## Checkpoints\n")[1].split("\n## ")[0]
    with opened(run / "checkpoints/step_00000004.safetensors") as file:
        assert {key.split("/")[0] for key in file.keys} <= {
            "players",
            "constants",
            "state",
            "window",
        }
        header = json.loads(file.metadata["equilibrist"])
    for name in {*header, *json.loads(header["meta"])}:
        assert f"`{name}`" in section, name


def test_every_file_is_named(run: Path) -> None:
    for path in run.rglob("*"):
        name = re.sub(r"step_\d+", "step_XXXXXXXX", path.name)
        of_a_claim = path.parent.name == "audit" and path.suffix in (".safetensors", ".npy")
        if path.is_file() and not of_a_claim and path.name != ".lock":
            assert name in PAGE, name


@pytest.mark.parametrize("file", ["recipe.json", "audit.json", "report.json"])
def test_faults_are_seen(file: str) -> None:
    assert list(faults(table(file), {"format": "1", "more": 2})) == [
        "format is of type str",
        "more is not in docs/formats.md",
    ]


@pytest.mark.parametrize("file", ["recipe.json", "audit/audit.json"])
def test_another_format_is_refused_or_left_out(run: Path, tmp_path: Path, file: str) -> None:
    """As the page says of versions."""
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    path = copied / file
    path.write_text(json.dumps({**content(path), "format": 2}))
    eq.write_report(copied)
    report = content(copied / "report.json")
    assert "format 2" in " ".join(report["notes"])
    assert not report["recipe" if file == "recipe.json" else "audit"]
    if file == "recipe.json":
        with pytest.raises(eq.RecordError, match="not of format 1"):
            eq.load(copied, recipe_in(tmp_path / "again", 2.0)(4))
