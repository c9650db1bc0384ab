"""Exponential averages from the checkpoint on: what is sampled, audited, exported and replayed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import killing
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import softplus

from equilibrist import Adam, RecipeError, RecordError, audit, tree
from equilibrist.run import checkpoint, load, train
from equilibrist.run.samples import export_players
from equilibrist.solvers import Alternating, Averaged

FAST: dict[str, Any] = {
    "steps": 4,
    "looks": 2,
    "starts": 1,
    "batches": 8,
    "look_batches": 4,
    "groups": 3,
    "group_batches": 1,
    "progress": "none",
}


def averaged(decay: float = 0.9, players: tuple[str, ...] = ("generator",), **settings: Any) -> Any:
    return killing.recipe(
        Averaged(Alternating(1, Adam(1e-2)), decay, players), spectral_norm=True, **settings
    )


def played(recipe: Any, folder: Path) -> Any:
    return train(recipe, folder, device="cpu", progress="none")


def equal(a: Any, b: Any) -> bool:
    return all(torch.equal(x, y) for x, y in zip(tree.leaves(a), tree.leaves(b), strict=True))


def test_the_average_on_the_disk_is_the_recursion(tmp_path: Path) -> None:
    recipe = averaged(0.8, ("generator", "critic"), every=(4, 8, 1), keep=100)
    run = played(recipe, tmp_path / "r")
    start = recipe.game.init(0)
    for player in ("generator", "critic"):
        expected = {k: t.double() for k, t in start.players[player].items()}
        for step in range(1, 25):
            flat, _, _ = checkpoint.read_checkpoint(
                checkpoint.path_of(tmp_path / "r/checkpoints", step)
            )
            for name in expected:
                value = flat[f"players/{player}/{name}"].double()
                expected[name] = 0.8 * expected[name] + 0.2 * value
        for name, value in expected.items():
            torch.testing.assert_close(
                run.average[player][name].double(), value, rtol=1e-5, atol=1e-6
            )
    for step in (7, None):
        held = load(tmp_path / "r", recipe, device="cpu", step=step)
        again = load(tmp_path / "r", recipe, device="cpu", step=step or 24)
        assert equal(held.average, again.average)
    assert equal(load(tmp_path / "r", recipe, device="cpu").average, run.average)
    early = load(tmp_path / "r", recipe, device="cpu", step=7)
    assert not equal(early.average, run.average)


def test_which_pair(tmp_path: Path) -> None:
    recipe = averaged()
    played(recipe, tmp_path / "r")
    run = load(tmp_path / "r", recipe, device="cpu")
    for iterate in ("auto", "average"):
        pair = run.pair(iterate)
        assert list(pair) == list(run.players)
        assert equal(pair["generator"], run.average["generator"])
        assert equal(pair["critic"], run.players["critic"])
    assert equal(run.pair("last"), run.players)
    assert not equal(run.average["generator"], run.players["generator"])
    assert torch.equal(run.samples(9), run.samples(9, iterate="average"))
    assert not torch.equal(run.samples(9), run.samples(9, iterate="last"))
    for word in ("averaged", "", "Average", None):
        with pytest.raises(RecipeError, match="choose 'auto', 'average' or 'last'"):
            run.pair(word)


def test_a_run_without_averages(tmp_path: Path) -> None:
    recipe = killing.recipe(Alternating(1, Adam(1e-2)))
    run = played(recipe, tmp_path / "r")
    assert run.average == {}
    assert equal(run.pair("auto"), run.players)
    for call in (run.pair, lambda i: run.samples(4, iterate=i), lambda i: audit(run, iterate=i)):
        with pytest.raises(RecipeError, match=r"keeps no averages: .*Averaged\(solver\)") as caught:
            call("average")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "r/audit").exists()


def test_the_sheets_of_training_show_the_average(tmp_path: Path) -> None:
    run = played(averaged(), tmp_path / "r")
    sheet = np.load(tmp_path / "r/samples/step_00000024.npy")
    assert np.array_equal(sheet, run.samples(2048).numpy())
    assert not np.array_equal(sheet, run.samples(2048, iterate="last").numpy())


def test_another_decay_is_another_run(tmp_path: Path) -> None:
    played(averaged(0.9, steps=2), tmp_path / "r")
    for other in (averaged(0.5, steps=2), averaged(0.9, ("critic",), steps=2)):
        with pytest.raises(RecordError, match="another run: its description solver"):
            load(tmp_path / "r", other, device="cpu")
        with pytest.raises(RecordError, match="another run: its description solver"):
            played(other, tmp_path / "r")


def test_a_solver_that_averages_nobody_leaves_no_record(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="'discriminator', but the players are generator, critic"):
        played(averaged(players=("discriminator",)), tmp_path / "r")
    assert not (tmp_path / "r/recipe.json").exists()
    assert played(averaged(steps=2), tmp_path / "r").step == 2


@pytest.mark.parametrize(
    "arguments",
    [(Alternating, 0.9), (None, 0.9), (Alternating(), 1.5), (Alternating(), "0.9")]
    + [(Alternating(), 0.9, players) for players in ("generator", (), ["generator"])],
)
def test_bad_averages_are_refused(arguments: Any) -> None:
    with pytest.raises(ValueError, match="Averaged") as caught:
        Averaged(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("players", [("generator",), ("critic",), ("generator", "critic")])
def test_audit_says_which_iterate_it_is_about(players: Any, tmp_path: Path) -> None:
    recipe = averaged(players=players, steps=8)
    run = played(recipe, tmp_path / "r")
    said = f"exponential average of the {' and '.join(players)}"
    losses = {}
    for iterate, expected in (("auto", said), ("average", said), ("last", "last")):
        found = audit(run, checks=("nash",), iterate=iterate, **FAST)
        held = json.loads((tmp_path / "r/audit/audit.json").read_text())
        assert held["iterate"] == expected
        assert {row["scope"].get("iterate", expected) for row in held["certificates"]} == {expected}
        assert held["certificates"][0]["scope"]["iterate"] == expected
        losses[iterate] = found["nash/generator"].evidence["loss_before"]
    assert losses["auto"] == losses["average"] != losses["last"]


def test_export_writes_the_average(tmp_path: Path) -> None:
    recipe = averaged(players=("generator", "critic"))
    run = played(recipe, tmp_path / "r")
    for iterate, source in (("auto", run.average), ("last", run.players)):
        export_players(recipe.game, run.pair(iterate), run.constants, tmp_path / iterate)
        held = load_file(tmp_path / iterate / "generator.safetensors")
        assert held.keys() == source["generator"].keys()
        assert all(torch.equal(held[k], source["generator"][k]) for k in held)
        critic = load_file(tmp_path / iterate / "critic.safetensors")
        for name in recipe.game.normalised:  # folded in at the average itself, exactly
            own = source["critic"][name]
            torch.testing.assert_close(
                critic[name], own / torch.linalg.matrix_norm(own, 2), rtol=1e-5, atol=1e-6
            )


def test_a_witness_replays_on_the_exported_average(tmp_path: Path) -> None:
    """docs/choose.md, with averages: export and audit speak of the same pair."""
    recipe = averaged(0.999, steps=150, batch=128, every=(50, 50, 50))
    run = played(recipe, tmp_path / "r")
    settings = {**FAST, "steps": 60, "batches": 64}
    audit(run, checks=("nash",), absolute=0.005, **settings)
    rows = json.loads((tmp_path / "r/audit/audit.json").read_text())["certificates"]
    row = next(r for r in rows if r["claim"] == "nash/generator")
    assert row["verdict"] == "REFUTED"
    z = torch.randn(40_000, 4, generator=torch.Generator().manual_seed(0))

    def exported(iterate: str) -> tuple[float, float]:
        folder = tmp_path / iterate
        export_players(recipe.game, run.pair(iterate), run.constants, folder)
        generator, critic = killing.perceptron(4, 12, 2), killing.perceptron(2, 12, 1)
        critic.load_state_dict(load_file(folder / "critic.safetensors"))
        generator.load_state_dict(load_file(folder / "generator.safetensors"))
        with torch.no_grad():
            before = softplus(-critic(generator(z))).mean()
            generator.load_state_dict(load_file(tmp_path / "r/audit" / row["witness"]))
            return float(before), float(before - softplus(-critic(generator(z))).mean())

    low, high = row["evidence"]["interval"]
    before, gain = exported("auto")
    assert before == pytest.approx(row["evidence"]["loss_before"], abs=0.002)
    assert low - 0.002 <= gain <= high + 0.002
    other, _ = exported("last")
    assert abs(other - row["evidence"]["loss_before"]) > 0.005, "the last pair is another one"


def test_nested_averages_keep_the_outer_one(tmp_path: Path) -> None:
    inner = Averaged(Alternating(1, Adam(1e-2)), 0.5)
    recipe = killing.recipe(Averaged(inner, 0.9), steps=6)
    run = played(recipe, tmp_path / "r")
    alone = played(
        killing.recipe(Averaged(Alternating(1, Adam(1e-2)), 0.9), steps=6), tmp_path / "a"
    )
    assert equal(run.average, alone.average)
    assert equal(load(tmp_path / "r", recipe, device="cpu").average, alone.average)
    assert audit(run, checks=("nash",), **FAST)["nash"].scope is not None
