"""Checkpoints of runs, of other loops and of samples: the same rows for all, nothing touched, errors in one line."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import equilibrist as eq
from equilibrist.checkpoints import write_choice
from equilibrist.cli import main
from equilibrist.data import Gaussian
from equilibrist.errors import DataError, RecipeError
from equilibrist.interop import Watch, lightning_callback
from equilibrist.networks import LinearGenerator

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

from fences import to_run

ROWS = torch.randn(300, 2, generator=torch.Generator().manual_seed(1))
HELD = torch.randn(200, 2, generator=torch.Generator().manual_seed(2))


def generator(shift: float) -> nn.Module:
    """Makes the law of the rows, moved along the first axis."""
    module = LinearGenerator(2, 2)
    with torch.no_grad():
        module.W.copy_(torch.eye(2))
        module.u.copy_(torch.tensor([shift, 0.0]))
    return module


def critic() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))


def checkpoints(*shifts: float) -> list[Any]:
    return [(100 * (k + 1), generator(s), critic()) for k, s in enumerate(shifts)]


def test_modules_of_another_loop() -> None:
    given = checkpoints(2.0, 0.0, 1.0)
    before = copy.deepcopy([(a.state_dict(), b.state_dict()) for _, a, b in given])
    state = torch.get_rng_state()
    asked: dict[str, Any] = {"latent": 2, "held_out": HELD, "gradients": 120, "progress": "none"}
    found = eq.choose_checkpoint(given, ROWS, "vanilla", **asked)
    assert (found.advice, found.step) == ("take", 200)
    assert torch.equal(state, torch.get_rng_state())
    for (_, a, b), (x, y) in zip(given, before, strict=True):
        assert all(torch.equal(v, x[k]) for k, v in a.state_dict().items())
        assert all(torch.equal(v, y[k]) for k, v in b.state_dict().items())
    # Bit for bit again, and the gap sees that a critic gains less against the data's own law.
    again = eq.choose_checkpoint(given, ROWS, "vanilla", **asked)
    assert again.describe() == found.describe()
    gaps = [look.gap.mean for look in found.looks if look.gap is not None]
    assert gaps[0] > gaps[2] > gaps[1]
    by_gap = eq.choose_checkpoint(given, ROWS, "vanilla", by="gap", **asked)
    assert (by_gap.step, by_gap.by) == (200, "duality gap")


def test_a_gap_that_no_search_can_measure_leaves_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = SimpleNamespace(gains=torch.full((4,), torch.nan))
    monkeypatch.setattr("equilibrist.checkpoints.measured.respond", lambda *_: lost)
    asked: dict[str, Any] = {"latent": 2, "held_out": HELD, "progress": "none"}
    found = eq.choose_checkpoint(checkpoints(1.0, 0.0), ROWS, "vanilla", **asked)
    assert [look.gap for look in found.looks] == [None, None]
    assert found.step == 200


def test_held_out_rows_decide_and_generators_alone_are_enough() -> None:
    """Rows moved by one: the checkpoint that is moved by one is the best."""
    given = [(step, made) for step, made, _ in checkpoints(0.0, 1.0, 2.0)]
    moved = HELD + torch.tensor([1.0, 0.0])
    assert eq.choose_checkpoint(given, latent=2, held_out=moved).step == 200
    assert eq.choose_checkpoint(given, latent=2, held_out=HELD).step == 100
    samples = [(step, made(torch.randn(3200, 2)).detach()) for step, made in given]
    found = eq.choose_checkpoint(samples, held_out=moved)
    assert (found.step, found.advice) == (200, "take")
    near = eq.RowScore(lambda x: (x[:, 0] > 0).float(), bounds=(0, 1), name="share to the right")
    right = eq.choose_checkpoint(samples, held_out=HELD, score=near)
    assert (right.step, right.advice) == (300, "go on")
    assert all(0 <= x <= 1 for look in right.looks if look.score for x in look.score.ends)
    library = eq.choose_checkpoint(
        samples, held_out=moved, score=eq.Frechet(network=eq.scores.coordinates())
    )
    assert library.step == 200


def test_what_does_not_fit_is_said_in_a_line() -> None:
    given = checkpoints(0.0)
    with pytest.raises(RecipeError, match="need data and formulation"):
        eq.choose_checkpoint(given, latent=2)
    with pytest.raises(RecipeError, match="too few for the gap of 2 players"):
        eq.choose_checkpoint(given, ROWS, "vanilla", latent=2, gradients=50, progress="none")
    with pytest.raises(DataError, match="5 held-out rows are too few"):
        eq.choose_checkpoint(given, ROWS, "vanilla", latent=2, held_out=HELD[:5], progress="none")
    with pytest.raises(RecipeError, match="needs latent"):
        eq.choose_checkpoint([(1, generator(0.0))], held_out=HELD)
    with pytest.raises(RecipeError, match="give held_out"):
        eq.choose_checkpoint([(1, HELD)])
    with pytest.raises(RecipeError, match="a checkpoint is"):
        eq.choose_checkpoint([generator(0.0)], held_out=HELD)
    with pytest.raises(RecipeError, match="score=3 is none"):
        eq.choose_checkpoint([(1, HELD)], held_out=HELD, score=3)
    with pytest.raises(RecipeError, match="by='best'"):
        eq.choose_checkpoint([(1, HELD)], held_out=HELD, by="best")


def recipe() -> eq.Recipe:
    """A generator whose critic is too slow: the pair circles ever further away from its start."""
    data = Gaussian(np.zeros(2), np.eye(2))
    game = eq.GAN(generator(0.0), critic(), eq.WGAN(), latent=2)
    return eq.Recipe(
        game, data, eq.Simultaneous(eq.SGD(0.3)), steps=60, batch=32, checkpoint_every=15, keep=9
    )


def test_a_run_that_gets_worse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    run = eq.train(recipe(), folder, progress="none")
    found = eq.choose_checkpoint(run, gradients=0, progress="none")
    assert len(found.looks) == 4
    assert (found.advice, found.step) == ("take", 15)
    assert not found.notes  # drawn from a law: nothing was seen in training
    written = write_choice(found, folder)
    assert json.loads((folder / "checkpoints.json").read_text())["step"] == 15
    page = written.read_text()
    assert "Take step 15: since then" in page
    assert "<svg" in page
    # The same by the command, which replaces its own files.
    file = tmp_path / "own.py"
    file.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_choose_checkpoint import recipe\n"
    )
    named = ["--recipe", f"{file}:recipe", "--progress", "none", "--gradients", "0"]
    np.save(tmp_path / "rows.npy", HELD.numpy())
    rows = ["--held-out", str(tmp_path / "rows.npy")]
    assert main(["checkpoints", str(folder), *named, *rows]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Take step 15: since then the energy distance of held-out rows rose by")
    assert main(["checkpoints", str(folder), *named, "--held-out", str(file)]) == 2
    assert "is no readable .npy array" in capsys.readouterr().err


@pytest.mark.parametrize("better", ["lower", "higher"])
def test_a_watch_and_a_lightning_callback_stop(
    better: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Callback:
        pass

    callbacks = ModuleType("callbacks")
    callbacks.Callback = Callback  # type: ignore[attr-defined]
    for name in ("lightning", "lightning.pytorch"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "lightning.pytorch.callbacks", callbacks)
    made = generator(1.0)
    score = eq.RowScore(lambda x: x[:, 0], better=better)
    options: dict[str, Any] = {"latent": 2, "every": 1, "gradients": 240, "checks": ["stationary"]}
    watch = Watch(made, critic(), "vanilla", ROWS, held_out=HELD, score=score, **options)
    assert watch.choice is None
    logged: list[dict[str, float]] = []
    logger = SimpleNamespace(log_metrics=lambda values, step: logged.append(values))
    trainer = SimpleNamespace(is_global_zero=True, loggers=[logger], should_stop=False)
    callback = lightning_callback(watch, stop=True)
    for _ in range(3):
        with torch.no_grad():
            made.u.add_(torch.tensor([1.0, 0.0]))
        callback.on_train_batch_end(trainer)
    assert watch.choice is not None
    assert watch.choice.advice == ("take" if better == "lower" else "go on")
    assert watch.choice.step == (1 if better == "lower" else 3)
    assert trainer.should_stop is (better == "lower")
    assert [values["checkpoints/score"] for values in logged] == sorted(
        values["checkpoints/score"] for values in logged
    )
    bare = Watch(made, critic(), "vanilla", ROWS, **options)
    with pytest.raises(RecipeError, match="held_out"):
        lightning_callback(bare, stop=True)
    with pytest.raises(RecipeError, match="give held_out"):
        Watch(made, critic(), "vanilla", ROWS, score=score, **options)


def test_the_blocks_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, Any] = {}
    for block in to_run("docs/checkpoints.md"):
        exec(block, space)
    out = capsys.readouterr().out
    assert out.startswith(("Go on", "Stop", "Take step"))
    assert out.count("energy distance ") > 6
    assert (
        out.count("one checkpoint shows no trend") == out.count("2 checkpoints show no trend") == 1
    )
