"""Runs whose steps are compiled. The graph stands in for machine code, which takes seconds to make."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import killing
import pytest
import torch
from killing import differences, picture

from equilibrist.compiled import step as compiled_step
from equilibrist.errors import CompilationError, RecipeError
from equilibrist.run import ensemble, stepping, train
from equilibrist.solvers import Competitive


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many graphs were compiled."""
    found: list[int] = []

    def compiler(graph: torch.fx.GraphModule, examples: object) -> torch.fx.GraphModule:
        found.append(len(graph.graph.nodes))
        return graph

    monkeypatch.setattr(compiled_step, "compile_graph", compiler)
    return found


def go(directory: Path, compile: Any = "on", **settings: Any) -> Any:
    recipe = killing.CONFIGURATIONS["plain"](**settings)
    return train(recipe, directory, device="cpu", progress="none", compile=compile)


def sessions(directory: Path) -> list[Any]:
    found = json.loads((directory / "environment.json").read_text())
    return [session["steps"] for session in found]


def without_sessions(directory: Path) -> Any:
    return {k: v for k, v in picture(directory).items() if k != "environment.json"}


def test_a_compiled_run_is_resumed_as_it_began(tmp_path, made, stop_at) -> None:
    go(tmp_path / "whole")
    stop_at(5, 15)
    go(tmp_path / "parts")
    go(tmp_path / "parts", "auto")
    run = go(tmp_path / "parts", "auto")
    assert run.step == 24
    assert len(made) == 4
    assert [s["mode"] for s in sessions(tmp_path / "parts")] == ["compiled"] * 3
    whole, parts = without_sessions(tmp_path / "whole"), without_sessions(tmp_path / "parts")
    newest = {k: v for k, v in whole.items() if not k.startswith("checkpoints/step") or "24" in k}
    assert differences(newest, parts) == []


def test_an_eager_run_is_not_compiled_on_the_way(tmp_path, made, stop_at, monkeypatch) -> None:
    monkeypatch.setattr(stepping, "_STEPS", 1)
    monkeypatch.setattr(stepping, "_SHARE", 1e9)
    stop_at(5)
    go(tmp_path, "off")
    go(tmp_path, "auto")
    assert not made
    assert [s["mode"] for s in sessions(tmp_path)] == ["eager"] * 2


def test_a_change_of_steps_is_said(tmp_path, made, stop_at) -> None:
    stop_at(5)
    go(tmp_path)
    with pytest.warns(UserWarning, match="steps: compiled, now eager"):
        go(tmp_path, "off")


@pytest.mark.parametrize(("quicker", "mode"), [(0.5, "compiled"), (0.95, "eager")])
def test_auto_measures(tmp_path, made, monkeypatch, quicker, mode) -> None:
    """What takes nearly as long as an eager step is not used, and the record says why."""
    monkeypatch.setattr(stepping, "_STEPS", 1)
    monkeypatch.setattr(stepping, "_SHARE", 1e9)
    monkeypatch.setattr(stepping, "_ratio", lambda *_: quicker)
    go(tmp_path, "auto")
    assert len(made) == 1
    (entry,) = sessions(tmp_path)
    assert entry["mode"] == mode
    assert entry.get("ratio") == (0.5 if mode == "compiled" else None)
    assert ("0.95 of an eager one's time" in entry.get("why", "")) == (mode == "eager")


def test_auto_leaves_short_runs_alone(tmp_path, made, monkeypatch) -> None:
    go(tmp_path / "few", "auto")  # 24 steps
    monkeypatch.setattr(stepping, "_STEPS", 1)
    go(tmp_path / "quick", "auto")  # a fraction of a second
    assert not made
    assert [*sessions(tmp_path / "few"), *sessions(tmp_path / "quick")] == [{"mode": "eager"}] * 2


def test_both_clocks_take_steps_of_their_own(tmp_path, made, monkeypatch) -> None:
    """The measurement overwrites nothing of the run."""
    monkeypatch.setattr(stepping, "_STEPS", 1)
    monkeypatch.setattr(stepping, "_SHARE", 1e9)
    monkeypatch.setattr(stepping, "_LOOK", 0.01)
    monkeypatch.setattr(stepping, "_QUICKER", 1e9)
    go(tmp_path / "measured", "auto")
    go(tmp_path / "asked", "on")
    assert sessions(tmp_path / "measured")[0]["ratio"] > 0
    both = [without_sessions(tmp_path / name) for name in ("measured", "asked")]
    assert differences(*both) == []


def test_what_cannot_be_compiled(tmp_path, made, monkeypatch) -> None:
    """An error where it was asked for; an eager run, and the reason, where it was not."""
    monkeypatch.setattr(stepping, "_STEPS", 1)
    monkeypatch.setattr(stepping, "_SHARE", 1e9)
    recipe = dataclasses.replace(killing.CONFIGURATIONS["plain"](), solver=Competitive())
    with pytest.raises(CompilationError, match="cannot be traced"):
        train(recipe, tmp_path / "on", device="cpu", progress="none", compile="on")
    train(recipe, tmp_path / "auto", device="cpu", progress="none")
    (entry,) = sessions(tmp_path / "auto")
    assert entry["mode"] == "eager"
    assert "cannot be traced" in entry["why"]


def test_ensembles_are_compiled_as_one(tmp_path, made) -> None:
    recipe = killing.CONFIGURATIONS["plain"]()
    for mode in ("on", "off"):
        where = tmp_path / mode
        found = ensemble(recipe, where, (0, 1), device="cpu", progress="none", compile=mode)
        assert [run.step for run in found.runs] == [24, 24]
    assert len(made) == 1
    a, b = (
        torch.cat([t.flatten() for t in run.players["generator"].values()])
        for run in (
            found.runs[0],
            ensemble(recipe, tmp_path / "on", (0, 1), device="cpu", progress="none").runs[0],
        )
    )
    assert float((a - b).abs().max()) < 1e-4


def test_modes_are_named(tmp_path) -> None:
    with pytest.raises(RecipeError, match="auto, on, off"):
        go(tmp_path / "a", "yes")
