"""The machinery of the papers' experiments: records, runs that die, statistics, the page."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from equilibrist.cli import main
from equilibrist.errors import DataError, NonFiniteError, RecipeError, RecordError, StoppedError
from equilibrist.papers import looks, records, runner
from equilibrist.papers.catalogue import EXPERIMENTS, experiment_named
from equilibrist.papers.model import (
    SIZES,
    Claim,
    ClaimOutcome,
    Experiment,
    Unit,
    UnitRecord,
    Workspace,
)
from equilibrist.papers.page import escaped, papers_page
from equilibrist.papers.sources import OPEN, PAPERS
from equilibrist.papers.training import last, relative_cost, seen, taken_up, train_seeds
from equilibrist.recipe_lookup import resolve
from equilibrist.statistics import estimate, holm, paired

ABOUT = {"cpu_seconds": 60.0, "commit": "0123456789", "machine": {"processor": "abacus"}}


def made(
    work: dict[str, Callable[[Workspace], Any]], needs: dict[str, tuple[str, ...]] | None = None
) -> Experiment:
    """An experiment of these units, whose one claim holds where all are done."""
    parts = tuple(Unit(k, f"unit {k}", 1.0, f, (needs or {}).get(k, ())) for k, f in work.items())

    def judge(found: Any) -> ClaimOutcome:
        done = [one for one in found.values() if one.state == "done"]
        return ClaimOutcome(
            "holds" if len(done) == len(parts) else "undecided", f"{len(done)} done"
        )

    claim = Claim("Lemma 0", "All is well.", "all done", judge)
    return Experiment(
        "made", "Made up", OPEN, (claim,), lambda size: parts if size == "tiny" else ()
    )


# -- statistics -------------------------------------------------------------------------------------


def test_an_estimate_is_students() -> None:
    values = np.random.default_rng(0).normal(1.0, 2.0, 7)
    found, truth = estimate(list(values)), stats.ttest_1samp(values, 0.0)
    assert found.p == pytest.approx(truth.pvalue, rel=1e-12)
    assert (found.low, found.high) == pytest.approx(tuple(truth.confidence_interval(0.95)))
    assert found.effect == pytest.approx(values.mean() / values.std(ddof=1))


def test_missing_values_do_not_count() -> None:
    assert estimate([1.0, None, math.nan, math.inf, 3.0]).n == 2
    assert estimate([None]).n == 0
    assert str(estimate([2.0])) == "2 (one seed)"
    assert estimate([1.0, 1.0]).p == 0.0
    assert estimate([0.0, 0.0]).p == 1.0


def test_differences_are_paired_by_seed() -> None:
    found = paired({0: 1.0, 1: 5.0, 2: 9.0, 3: None}, {0: 0.5, 1: 4.0, 4: 7.0, 3: 1.0})
    assert (found.n, found.mean) == (2, 0.75)


def test_holms_correction() -> None:
    # 0.01 * 4, 0.02 * 3, max(0.03 * 2, 0.06), max(0.04, 0.06)
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    found = holm([math.nan, 0.01])
    assert math.isnan(found[0])
    assert found[1] == 0.01


# -- records and runs -------------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    record = UnitRecord(
        "one", "done", {"a": [1, 0.123456789, None], "b": {"c": math.inf}}, ABOUT, "fine"
    )
    path = records.write_record(tmp_path, record)
    found = records.read_record(path)
    assert (found.state, found.message, found.about) == ("done", "fine", ABOUT)
    assert found.measures["a"] == [1, 0.123457, None]
    assert path.read_text().count("\n") == 1


@pytest.mark.parametrize("harm", ["cut", "format", "state", "renamed", "kind"])
def test_a_damaged_record_is_refused(harm: str, tmp_path: Path) -> None:
    path = records.write_record(tmp_path, UnitRecord("one", "done", {}, ABOUT))
    value = json.loads(path.read_text())
    value |= {"format": {"format": 2}, "state": {"state": "fine"}, "kind": {"about": []}}.get(
        harm, {}
    )
    path.write_text(json.dumps(value)[: 20 if harm == "cut" else None])
    if harm == "renamed":
        path = path.rename(tmp_path / "two.json")
    with pytest.raises(RecordError):
        records.read_record(path)


def test_every_end_of_a_unit_is_recorded(tmp_path: Path) -> None:
    def fails(place: Workspace) -> Any:
        raise ValueError("no such luck")

    def explodes(place: Workspace) -> Any:
        raise NonFiniteError("inf", step=3, player="critic", quantity="loss", checkpoint=None)

    def diverges(place: Workspace) -> Any:
        return {"seeds": {"0": {"diverged": 3}, "1": {"diverged": None}}}

    work = {"good": lambda place: {"x": 1}, "bad": fails, "inf": explodes, "part": diverges}
    one, folders = made(work), runner.Folders(tmp_path / "records", tmp_path / "runs")
    for unit in one.units("tiny"):
        runner.run_unit(one, "tiny", unit, folders, "cpu")
    found = records.read_records(folders.records, one, "tiny")
    assert {k: r.state for k, r in found.items()} == {
        "good": "done", "bad": "failed", "inf": "diverged", "part": "diverged",
    }  # fmt: skip
    assert "no such luck" in found["bad"].message
    assert found["good"].about["cpu_seconds"] >= 0
    assert runner.left(one, "tiny", folders) == []
    assert [unit.key for unit in runner.left(one, "tiny", folders, again=True)] == ["bad"]


def test_an_interrupted_unit_leaves_no_record_and_its_time_counts(tmp_path: Path) -> None:
    calls: list[int] = []

    def slow(place: Workspace) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise StoppedError("interrupted")
        return {}

    one, folders = made({"slow": slow}), runner.Folders(tmp_path / "records", tmp_path / "runs")
    with pytest.raises(StoppedError, match="goes on"):
        runner.run_unit(one, "tiny", one.units("tiny")[0], folders, "cpu")
    assert records.read_records(folders.records, one, "tiny") == {}
    assert runner.run_unit(one, "tiny", one.units("tiny")[0], folders, "cpu").about["sessions"] == 2


def test_a_unit_is_worked_on_by_one_process(tmp_path: Path) -> None:
    folders = runner.Folders(tmp_path / "records", tmp_path / "runs")
    one = made(
        {"slow": lambda place: runner.run_unit(one, "tiny", one.units("tiny")[0], folders, "cpu")}
    )
    found = runner.run_unit(one, "tiny", one.units("tiny")[0], folders, "cpu")
    assert (found.state, "another process works on slow" in found.message) == ("failed", True)


def test_a_process_that_dies_takes_no_other_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing: dict[str, Any] = dict.fromkeys(("first", "killed", "last"), lambda place: {})
    one = made(nothing, {"last": ("first",)})
    folders = runner.Folders(tmp_path / "records", tmp_path / "runs")
    order: list[str] = []

    def start(
        place: Any,
        experiment: Experiment,
        unit: Unit,
        size: Any,
        folders: runner.Folders,
        device: str,
    ) -> runner._Running:
        order.append(unit.key)
        code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        if unit.key != "killed":
            records.write_record(
                records.folder_of(folders.records, one, size),
                UnitRecord(unit.key, "done", {}, ABOUT),
            )
            code = ""
        process: Any = subprocess.Popen([sys.executable, "-c", code])
        return runner._Running(process, one, unit, 0.0)

    monkeypatch.setattr(runner, "_start", start)
    monkeypatch.setattr(runner.time, "monotonic", lambda: 0.0)
    said: list[str] = []
    wanted = [(one, unit) for unit in one.units("tiny")]
    assert not runner.run_all(wanted, "tiny", folders, jobs=2, say=said.append)
    assert sorted(order) == ["first", "killed", "killed", "last"]  # it is begun once more
    assert order.index("first") < order.index("last")
    assert any("ended with code -9" in line for line in said)
    assert [unit.key for unit in runner.left(one, "tiny", folders)] == ["killed"]


def test_a_unit_by_another_name_is_refused() -> None:
    with pytest.raises(RecipeError, match="did you mean plane"):
        runner.unit_named(experiment_named("farnia-statements"), "tiny", "plain")
    with pytest.raises(RecipeError, match="papers list"):
        experiment_named("farnia")


# -- training ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stacked", [False, True])
def test_training_says_what_was_seen(stacked: bool, tmp_path: Path) -> None:
    recipe = resolve("digits-sngan", {"steps": 6, "dim": 4, "latent": 4}).build()
    place = Workspace(tmp_path / "runs", tmp_path, "one")
    scores = looks.looks("digits", None, samples=64)
    found = train_seeds(place, recipe, (0, 1), scores=scores, looks=3, stacked=stacked)["seeds"]
    assert set(found) == {"0", "1"}
    (name,) = found["0"]["scores"]
    assert [step for step, _ in found["0"]["scores"][name]] == [0, 2, 4, 6]
    assert (found["1"]["reached"], found["1"]["diverged"]) == (6, None)
    assert last(found["0"], name, 5) == found["0"]["scores"][name][2][1]
    assert last({**found["0"], "diverged": 4}, name) is None
    import dataclasses

    run = taken_up(place.runs, dataclasses.replace(recipe, scores=scores), 1, "cpu")
    assert run.step == 6
    assert seen(place.runs / "seed_1") == found["1"]


def test_the_cost_of_a_step_is_that_of_its_gradients() -> None:
    """Not how fast, but that the reference costs about one of itself, and twenty critic steps several."""
    from equilibrist.solvers import Alternating

    recipe = resolve("digits-sngan", {"steps": 6, "dim": 4, "latent": 4}).build()
    assert 0.2 < relative_cost(recipe, steps=2)["ratio"] < 5
    assert relative_cost(recipe, Alternating(20, recipe.solver.optimizer), steps=2)["ratio"] > 3


@pytest.mark.parametrize(
    ("make", "file"), [(looks.LeNet, looks.LENET), (looks.ResNet56, looks.RESNET)]
)
def test_a_classifier_takes_the_weights_of_a_file(make: Any, file: str, tmp_path: Path) -> None:
    network = make(False).eval()
    np.savez(tmp_path / file, **{k: v.numpy() for k, v in network.state_dict().items()})
    data = "mnist" if make is looks.LeNet else "cifar10"
    shape = (4, 1, 28, 28) if data == "mnist" else (4, 3, 32, 32)
    found = looks.looks(data, tmp_path, samples=4)
    assert [score.title for score in found] == [
        "Frechet distance",
        "Frechet distance",
        "Class score",
    ]
    x = torch.rand(shape)
    classes = found[2].network(x, (0.0, 1.0))  # type: ignore[attr-defined]
    assert classes.shape == (4, 10)
    np.savez(tmp_path / file, **{k: v.numpy() for k, v in list(network.state_dict().items())[1:]})
    with pytest.raises(DataError, match="another network"):
        looks.looks(data, tmp_path)
    (tmp_path / file).write_bytes(b"no archive")
    with pytest.raises(DataError, match="cannot be read"):
        looks.looks(data, tmp_path)


# -- the catalogue and the page ---------------------------------------------------------------------


def test_the_catalogue_is_in_order() -> None:
    keys = [one.key for one in EXPERIMENTS]
    assert len(set(keys)) == len(keys)
    for one in EXPERIMENTS:
        assert one.paper in PAPERS
        for size in SIZES:
            units = one.units(size)
            names = [unit.key for unit in units]
            assert len(set(names)) == len(names)
            assert all(unit.minutes > 0 for unit in units)
            assert all(set(unit.needs) <= set(names) for unit in units)
            assert all(o.word == "not tried" for o in one.outcomes({}, size))
        for claim in one.claims:
            assert claim.rule
            assert not claim.text.endswith("..")


def test_the_page_names_every_claim_and_counts_failures(tmp_path: Path) -> None:
    text = papers_page(tmp_path)
    assert r"V(G\*, D)" in text  # not the emphasis of what stands between two asterisks
    for one in EXPERIMENTS:
        assert one.title in text
        for claim in one.claims:
            assert escaped(claim.text) in text
    count = sum(len(one.claims) for one in EXPERIMENTS)
    assert f"**{count} claims: {count} not tried.**" in text
    one = experiment_named("farnia-statements")
    for unit, state in zip(one.units("tiny"), ("failed", "done"), strict=False):
        found = {
            "statements": [{"title": "Theorem 2", "verdict": "holds", "why": "w", "printed": True}]
        }
        record = UnitRecord(unit.key, state, found if state == "done" else {}, ABOUT, "no luck")
        records.write_record(records.folder_of(tmp_path, one, "tiny"), record)
    text = papers_page(tmp_path)
    assert "2 of 4 units ended (1 failed, 1 done)" in text
    assert "no luck" in text
    assert "| **holds** so far | tiny, 2 of 4 units |" in text
    assert "abacus" in text
    assert f"{120 / 3600:.2g}" in text


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["papers", "list"]) == 0
    out = capsys.readouterr().out
    assert all(one.key in out for one in EXPERIMENTS)
    assert main(["papers", "report", "--records", "records", "--out", "page.md"]) == 0
    assert (tmp_path / "page.md").read_text().startswith("# ")
    assert main(["papers", "report", "--out", "page.md"]) == 2
    assert "beside" in capsys.readouterr().err
    assert main(["papers", "run", "farnia"]) == 2
    assert "there is no experiment 'farnia'" in capsys.readouterr().err
    assert main(["papers", "run", "--unit", "plane"]) == 2
