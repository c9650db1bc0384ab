"""Scores while training goes on: when, of what, after stops and kills, and damaged records."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import killing
import numpy as np
import pytest
import torch
from killing import Sabotage, differences, picture, session, undisturbed, unsound

from equilibrist import Adam, DataError, RecipeError, RecordError
from equilibrist.run import checkpoint, samples, train
from equilibrist.run.record import Record
from equilibrist.scores import Frechet, Result
from equilibrist.solvers import Alternating, Averaged

NAME = "averages, schedule, clipping, scores"


class Spy:
    """Records what it is shown; its value is the mean of the generated samples."""

    def __init__(self, n: int = 24, fail: bool = False) -> None:
        self.samples, self.name, self.fail, self.seen = n, "spy", fail, []

    def __repr__(self) -> str:
        return f"Spy({self.samples})"

    def __call__(self, fake: torch.Tensor, real: Any, rng: np.random.Generator) -> Result:
        if self.fail:
            raise DataError("spy: the data do not fit; take others")
        self.seen.append((fake.clone(), real.sample(rng, self.samples)))
        return Result("spy", {"mean": float(fake.mean())}, {"mean": 0.0}, {}, self.samples)


def play(recipe: Any, folder: Path) -> Any:
    return train(recipe, folder, device="cpu", progress="none")


def spied(*spies: Spy, steps: int = 24, **further: Any) -> Any:
    return killing.recipe(
        Averaged(Alternating(1, Adam(1e-2)), 0.9),
        steps=steps,
        further={"scores": spies, "score_every": 5, **further},
    )


def test_when_and_of_what(tmp_path: Path) -> None:
    """At the beginning, every fifth step and at the end; of the average; on the same latents and the
    same real samples each time, others for each score."""
    first, second = Spy(), Spy(16)
    recipe = spied(first, second)
    run = play(recipe, tmp_path / "r")
    rows = Record(tmp_path / "r").scores()
    assert [(r["step"], r["samples"]) for r in rows] == [
        (step, n) for step in (0, 5, 10, 15, 20, 24) for n in (24, 16)
    ]
    assert len(first.seen) == 6
    fake, real = first.seen[-1]
    assert torch.equal(fake, run.samples(24, index=1))
    assert not torch.equal(fake, run.samples(24, index=1, iterate="last"))
    assert torch.equal(second.seen[-1][0], run.samples(16, index=2))
    assert all(torch.equal(r, real) for _, r in first.seen)
    assert not torch.equal(real[:16], second.seen[0][1])
    start = recipe.game.init(0)
    expected = samples.generate(recipe.game, *start, 24, 0, 1, batch=16)
    assert torch.equal(first.seen[0][0], expected)
    assert rows[-2]["values"]["mean"] == float(fake.mean())


def test_conditions_of_scored_samples_follow_the_data(tmp_path: Path) -> None:
    spy = Spy(30)
    recipe = killing.conditional(Alternating(1, Adam(1e-2)), further={"scores": (spy,)}, steps=4)
    run = play(recipe, tmp_path / "r")
    pairs = run.data.sample_pairs
    _, labels = pairs(samples.score_generator(0, 0, 1), 30)
    expected = samples.generate(
        recipe.game, run.players, run.constants, 30, 0, 1, batch=16, condition=labels
    )
    assert torch.equal(spy.seen[-1][0], expected)
    equal_shares = samples.generate(recipe.game, run.players, run.constants, 30, 0, 1, batch=16)
    assert not torch.equal(expected, equal_shares)


@pytest.mark.parametrize("steps", [(1, 4, 5), (9, 10, 11, 23)])
def test_stops_add_and_lose_no_row(steps: Any, tmp_path: Path, go: Any, stop_at: Any) -> None:
    go(tmp_path / "whole", NAME)
    stop_at(*steps)
    for _ in range(len(steps) + 1):
        go(tmp_path / "parts", NAME)
    whole, parts = (Record(tmp_path / name).scores() for name in ("whole", "parts"))
    assert [row["step"] for row in whole] == [0, 5, 10, 15, 20, 24]
    assert parts == whole


@pytest.mark.filterwarnings("ignore:.* is gone. going on from step 12")
def test_rows_past_the_checkpoint_are_taken_back(tmp_path: Path, go: Any) -> None:
    go(tmp_path, NAME)
    before = picture(tmp_path)
    for path in sorted((tmp_path / "checkpoints").glob("step_*"))[1:]:
        path.unlink()  # back to step 12: the rows of 15, 20 and 24 must be measured again
    go(tmp_path, NAME)
    assert differences(before, picture(tmp_path)) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("phase", "count"), [("half", 1), ("half", 3), ("renamed", 4)])
def test_killed_while_scores_are_written(phase: str, count: int, tmp_path: Path) -> None:
    reference, _ = undisturbed(NAME, tmp_path / "undisturbed")
    directory = tmp_path / "run"
    code = session(NAME, directory, sabotage=Sabotage(phase, "scores.jsonl", count))
    assert code == -signal.SIGKILL
    assert unsound(directory) == []
    assert session(NAME, directory) == 0
    assert list(directory.rglob("*.part")) == []
    assert differences(reference, picture(directory)) == []


@pytest.mark.parametrize(
    "line", [b"{", b"[]", b"3", b'{"name": "x"}', b'{"step": "soon"}', b"\xff\xfe", b"", b"null"]
)
def test_a_damaged_line_is_named(line: bytes, tmp_path: Path, go: Any) -> None:
    go(tmp_path, NAME, steps=6)
    path = tmp_path / "scores.jsonl"
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([rows[0], line + b"\n", *rows[1:]]))
    with pytest.raises(RecordError, match=r"scores\.jsonl, line 2 is damaged") as caught:
        go(tmp_path, NAME)
    assert "\n" not in str(caught.value)
    path.write_bytes(b"".join(rows))
    assert go(tmp_path, NAME).step == 24


def test_a_last_line_cut_short_does_not_count(tmp_path: Path, go: Any) -> None:
    go(tmp_path / "whole", NAME)
    go(tmp_path / "cut", NAME, steps=6)
    with (tmp_path / "cut/scores.jsonl").open("ab") as file:
        file.write(b'{"step": 7, "na')
    go(tmp_path / "cut", NAME)
    whole, cut = (Record(tmp_path / name).scores() for name in ("whole", "cut"))
    assert [r for r in cut if r["step"] not in (1, 6)] == whole


def test_a_score_that_does_not_fit_shows_before_the_first_step(tmp_path: Path) -> None:
    """And leaves no record, so that the mended recipe may use the same directory."""
    with pytest.raises(DataError, match="spy: the data do not fit"):
        play(spied(Spy(), Spy(fail=True)), tmp_path / "r")
    with pytest.raises(DataError, match="the data states no range") as caught:
        play(spied(Frechet()), tmp_path / "r")
    assert "\n" not in str(caught.value)
    assert [p.name for p in (tmp_path / "r").iterdir()] == [".lock"]
    assert play(spied(Spy(), steps=2), tmp_path / "r").step == 2


def test_a_failure_later_on_keeps_the_record(tmp_path: Path) -> None:
    spy = Spy()
    play(spied(spy, steps=10), tmp_path / "r")
    spy.fail = True
    with pytest.raises(DataError):
        play(spied(spy), tmp_path / "r")
    assert checkpoint.newest(tmp_path / "r/checkpoints") is not None
    assert [r["step"] for r in Record(tmp_path / "r").scores()] == [0, 5, 10]


@pytest.mark.parametrize(
    "scores", [Frechet(), (Frechet,), ("fid",), "fid", None, (0.5,), [lambda fake, real, rng: 0]]
)
def test_what_is_no_score(scores: Any) -> None:
    with pytest.raises(RecipeError, match=r"write scores=\(Frechet\(\),\)") as caught:
        killing.recipe(Alternating(), further={"scores": scores})
    assert "\n" not in str(caught.value)


def test_scores_are_written_as_json(tmp_path: Path) -> None:
    class Infinite(Spy):
        def __call__(self, fake: Any, real: Any, rng: Any) -> Result:
            return Result("spy", {"mean": float("inf")}, {"mean": float("nan")}, {}, 3)

    play(spied(Infinite(), steps=1), tmp_path / "r")
    for line in (tmp_path / "r/scores.jsonl").read_text().splitlines():
        row = json.loads(line, parse_constant=pytest.fail)
        assert row["values"] == {"mean": None}
