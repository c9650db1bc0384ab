"""The claims of Mescheder, Nowozin and Geiger.

Lemmas by brute force, units at a microscopic size, judges on made-up records.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from equilibrist.games.truth import classify, exact_jacobian
from equilibrist.papers import mescheder_celeba as celeba
from equilibrist.papers import mescheder_cifar10 as cifar
from equilibrist.papers import mescheder_figure1 as figure
from equilibrist.papers import mescheder_lemmas as lemmas
from equilibrist.papers import mescheder_losses as losses
from equilibrist.papers.catalogue import EXPERIMENTS
from equilibrist.papers.model import ClaimOutcome, Experiment, Size, UnitRecord
from equilibrist.papers.page import papers_page
from equilibrist.papers.runner import Folders, left, run_unit, unit_named
from equilibrist.spectra import eigenvalues
from equilibrist_recipes import RECIPES

OURS = (lemmas.LEMMAS, figure.FIGURE_1, cifar.CIFAR10, celeba.CELEBA)


def made(unit: str, measures: dict[str, Any], state: str = "done") -> UnitRecord:
    return UnitRecord(unit, state, measures, {})


def run(experiment: Experiment, size: Size, key: str, folders: Folders) -> UnitRecord:
    return run_unit(experiment, size, unit_named(experiment, size, key), folders, "cpu")


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "records", tmp_path / "runs")


def well_formed(lines: Sequence[str]) -> bool:
    """Whether every row of every table has as many cells as its head."""
    blocks = "\n".join(lines).split("\n\n")
    tables = [[line for line in block.split("\n") if line.startswith("|")] for block in blocks]
    return all(len({line.count("|") for line in rows}) == 1 for rows in tables if rows)


# -- all of them -----------------------------------------------------------------------------------


def test_they_stand_in_the_catalogue() -> None:
    assert [one.key for one in EXPERIMENTS if one in OURS] == [one.key for one in OURS]
    for experiment in OURS:
        for size in ("tiny", "small", "paper"):
            keys = [unit.key for unit in experiment.units(size)]
            assert len(keys) == len(set(keys))
            assert size not in experiment.differs or keys
            assert all(unit.minutes > 0 for unit in experiment.units(size))
    assert all(unit.minutes <= 60 for one in OURS for unit in one.units("small"))
    assert not celeba.CELEBA.units("tiny")


def test_without_records_nothing_was_tried(tmp_path: Path) -> None:
    for experiment in OURS:
        assert {one.word for one in experiment.outcomes({}, "small")} == {"not tried"}
        empty = {"x": made("x", {}, "failed")}
        assert {one.word for one in experiment.outcomes(empty, "small")} == {"not tried"}
        if experiment.table is not None:
            assert well_formed(experiment.table(empty, tmp_path))


# -- the corollary of (2) ---------------------------------------------------------------------------


def test_local_nash_by_deviations_is_that_of_own_hessians() -> None:
    kinds = set()
    for i in range(120):
        game = lemmas.random_game(np.random.default_rng(i), plain=False)
        game.T.zero_()
        origin = {
            p: {"value": torch.zeros(k, dtype=torch.float64)}
            for p, k in zip(game.players, game.B.shape, strict=True)
        }
        J = exact_jacobian(game, origin)
        kind, _, _ = classify(J, dict(zip(game.players, game.B.shape, strict=True)), "x")
        n = game.B.shape[0]
        own = torch.cat([torch.linalg.eigvalsh(J[:n, :n]), torch.linalg.eigvalsh(J[n:, n:])])
        if own.abs().min() > lemmas.CURVATURE:
            assert game.local_nash() == (kind == "local nash")
            kinds.add(kind)
    assert "local nash" in kinds
    assert len(kinds) > 1


def test_a_cubic_descent_is_seen() -> None:
    zero = torch.zeros(1, 1, dtype=torch.float64)
    T = torch.zeros(2, 2, 2, dtype=torch.float64)
    assert lemmas.Cubic(zero, zero, zero, T).local_nash()
    T[0, 0, 0] = 1.0  # x^3 falls on one side
    assert not lemmas.Cubic(zero, zero, zero, T).local_nash()


def test_corollary_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lemmas, "CASES", 60)
    found = lemmas.corollary(None)  # type: ignore[arg-type]
    assert found["nash"] > 20
    assert found["definite"] > 2
    assert found["nash_violations"] == found["definite_violations"] == 0
    monkeypatch.setattr(lemmas, "exact_jacobian", lambda *at: -exact_jacobian(*at))
    wrong = lemmas.corollary(None)  # type: ignore[arg-type]
    assert wrong["nash_violations"] > 0
    assert wrong["definite_violations"] > 0


# -- lemma (5) --------------------------------------------------------------------------------------


def bisected(A: np.ndarray[Any, Any]) -> float:
    """The largest stable step, by bisection on the spectral radius."""
    low, high = 0.0, 1.0
    while lemmas.spectral_radius(A, high) < 1:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if lemmas.spectral_radius(A, middle) < 1 else (low, middle)
    return low


@pytest.mark.parametrize("i", range(9))
def test_largest_steps_by_bisection(i: int) -> None:
    A = lemmas.stable_matrix(np.random.default_rng(i), i)
    assert np.linalg.eigvals(A).real.max() < 0
    h = bisected(A)
    assert lemmas.printed_step(A) == pytest.approx(h, rel=1e-6)
    assert eigenvalues(torch.from_numpy(-A)).h_max == pytest.approx(h, rel=1e-6)
    assert lemmas.is_threshold(h, A)
    assert not lemmas.is_threshold(1.1 * h, A)
    assert not lemmas.is_threshold(h / 1.1, A)


def test_steps_count_a_wrong_bound(monkeypatch: pytest.MonkeyPatch, folders: Folders) -> None:
    monkeypatch.setattr(lemmas, "CASES", 30)
    record = run(lemmas.LEMMAS, "tiny", "steps", folders)
    assert record.state == "done"
    assert record.measures == {"cases": 30, "violations": 0, "library_violations": 0}
    right = lemmas.printed_step
    monkeypatch.setattr(lemmas, "printed_step", lambda A: 2 * right(A))
    assert lemmas.steps(None)["violations"] == 30  # type: ignore[arg-type]


# -- lemma (10) -------------------------------------------------------------------------------------


def test_c_is_the_least_ratio() -> None:
    t, p = np.meshgrid(np.linspace(0, np.pi / 2, 1001), np.linspace(0, 2 * np.pi, 1001))
    v = np.stack([np.cos(t), np.sin(t) * np.exp(1j * p)], -1)

    def least(A: np.ndarray[Any, Any]) -> float:
        up, down = (np.einsum("...i,ij,...j->...", v.conj(), M, v) for M in (A + A.T, A - A.T))
        sound = np.abs(down) > 1e-9
        return float((np.abs(up[sound]) / np.abs(down[sound])).min())

    for seed in range(5):
        A = lemmas.semidefinite_matrix(np.random.default_rng(seed), 0)
        while len(A) != 2:
            seed += 100
            A = lemmas.semidefinite_matrix(np.random.default_rng(seed), 0)
        assert lemmas.c_of(A) > 0
        assert lemmas.c_of(A) == pytest.approx(least(A), rel=1e-3)
    singular = np.array([[-1.0, 1.0], [-1.0, 0.0]])
    assert lemmas.c_of(singular) == 0
    assert least(singular) < 0.002


def test_the_counterexample() -> None:
    A = lemmas.COUNTEREXAMPLE
    assert lemmas.quotient(A, 1.0) == pytest.approx(1)
    assert lemmas.bounds(A, 1.0) == pytest.approx((0.5, 1.0, 1.0))


def test_quotients_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lemmas, "CASES", 90)
    found = lemmas.quotients(None)  # type: ignore[arg-type]
    assert found["printed_violations"] > 5
    names = ("plain_violations", "rotation_violations", "stubborn", "library_violations")
    assert [found[name] for name in names] == [0, 0, 0, 0]
    right = lemmas.quotient
    monkeypatch.setattr(lemmas, "quotient", lambda A, gamma: 2 * right(A, gamma))
    wrong = lemmas.quotients(None)  # type: ignore[arg-type]
    assert all(wrong[name] > 10 for name in names)


def test_lemmas_are_judged() -> None:
    def words(**changed: int) -> list[str]:
        one = {"A": [], "gamma": 1.0, "q": 1.0, "bound": float(changed.get("bound", 2))}
        corollary = {"nash": 500, "definite": 500, "nash_violations": 0, "definite_violations": 0}
        counts = ("printed", "plain", "rotation", "library")
        quotients = {"cases": 500, "stubborn": 0, "counterexample": one}
        quotients |= {f"{name}_violations": 0 for name in counts}
        steps = {"cases": 500, "violations": 0, "library_violations": 0}
        records = {
            key: made(key, {k: changed.get(k, v) for k, v in measures.items()})
            for key, measures in (
                ("corollary", corollary),
                ("steps", steps),
                ("quotients", quotients),
            )
        }
        return [found.word for found in lemmas.LEMMAS.outcomes(records, "tiny")]

    assert words() == ["holds"] * 4
    assert words(cases=10, nash=10) == ["undecided"] * 4
    assert words(nash_violations=1, violations=1) == ["does not hold"] * 2 + ["holds"] * 2
    assert words(definite_violations=1)[0] == "does not hold"
    assert words(printed_violations=1)[2:] == ["does not hold", "holds"]
    assert words(bound=0)[2:] == ["does not hold", "holds"]
    assert words(plain_violations=1)[2:] == ["holds", "does not hold"]
    assert words(stubborn=1)[3] == words(rotation_violations=1)[3] == "does not hold"


# -- figure 1 ---------------------------------------------------------------------------------------


def test_figure_1_runs(monkeypatch: pytest.MonkeyPatch, folders: Folders, tmp_path: Path) -> None:
    small = dataclasses.replace(
        figure.SCALES["tiny"], iterations=8, batch=16, seeds=(0, 1, 2), spectra=2, width=4
    )
    monkeypatch.setitem(figure.SCALES, "tiny", small)
    monkeypatch.setattr(figure, "LOOKS", 2)
    records = {method: run(figure.FIGURE_1, "tiny", method, folders) for method in figure.METHODS}
    assert [record.state for record in records.values()] == ["done", "done"], records
    assert not left(figure.FIGURE_1, "tiny", folders)
    for record in records.values():
        assert set(record.measures["spectra"]) == {"0", "1"}
        for one in record.measures["spectra"].values():
            assert 0 <= one["consensus"]["angle"] <= one["jacobian"]["angle"] <= 90
    assert records["consensus"].measures["cost"]["ratio"] > 1.2
    assert records["simga"].measures["cost"]["ratio"] == pytest.approx(1, abs=0.3)
    assert set(figure.scores_at(records, "simga", "modes", 0.0)) == {0, 1, 2}
    assert {one.word for one in figure.FIGURE_1.outcomes(records, "tiny")} <= {
        "undecided",
        "holds",
        "holds in part",
        "does not hold",
    }
    lines = figure.markdown_tables(records, tmp_path)
    assert len(lines) > 12
    assert well_formed(lines)
    assert figure.FIGURE_1.title in papers_page(folders.records)
    # What was done is not done again.
    monkeypatch.setattr(figure, "spectrum_of", lambda *_, **__: pytest.fail("taken again"))
    again = run(figure.FIGURE_1, "tiny", "simga", folders)
    assert again.measures["seeds"] == records["simga"].measures["seeds"]
    assert again.measures["spectra"] == records["simga"].measures["spectra"]


def test_a_spectrum_described() -> None:
    # 0.001 is below a hundredth of the largest.
    found = figure.causes(np.array([3 + 4j, 3 - 4j, -0.1, 0.001 + 0.002j]))
    assert found["angle"] == pytest.approx(math.degrees(math.atan(4 / 3)))
    assert found["least_real"] == pytest.approx(-0.1 / 5)
    assert found["imaginary"] == pytest.approx(4 / 5)
    assert found["repelling"] == pytest.approx(1 / 3)
    assert found["large"] == 3


def gaussians(
    modes: tuple[float, float], good: tuple[float, float], angles: tuple[float, float]
) -> dict[str, UnitRecord]:
    """Records of SimGA and consensus with these means, over four seeds."""
    records = {}
    for i, method in enumerate(figure.METHODS):
        seeds, spectra = {}, {}
        for seed in range(4):
            jitter = 0.01 * (-1) ** (seed // (1 + i))
            end = {"modes": modes[i] + jitter, "good": good[i] + jitter / 10}
            scores = {f"Q / {name}": [[0, 0.0], [100, value]] for name, value in end.items()}
            seeds[str(seed)] = {"scores": scores, "losses": {}, "diverged": None, "reached": 100}
            one = {"angle": angles[i] + jitter, "least_real": 0.1, "imaginary": 0.5}
            one |= {"repelling": 0.0, "large": 9}
            spectra[str(seed)] = {"jacobian": one, "consensus": one}
        measures = {"seeds": seeds, "spectra": spectra, "cost": {"ratio": 2.0 if i else 1.0}}
        records[method] = made(method, measures)
    return records


def test_figure_1_is_judged(tmp_path: Path) -> None:
    def words(*values: tuple[float, float]) -> list[str]:
        return [one.word for one in figure.FIGURE_1.outcomes(gaussians(*values), "small")]

    assert words((1, 8), (0.1, 0.5), (80, 30)) == ["holds", "holds"]
    assert words((1, 8), (0.5, 0.1), (80, 60)) == ["holds in part", "holds in part"]
    assert words((8, 1), (0.3, 0.3), (30, 80)) == ["does not hold", "does not hold"]
    assert words((5, 5), (0.3, 0.3), (50, 50)) == ["undecided", "undecided"]
    assert words((1, 8), (0.1, 0.5), (40, 30))[1] == "holds in part"
    records = gaussians((1, 8), (0.1, 0.5), (80, 30))
    assert well_formed(figure.markdown_tables(records, tmp_path))
    # At half of the iterations the last look was at the start.
    assert figure.scores_at(records, "consensus", "modes", 0.5) == dict.fromkeys(range(4), 0.0)
    gone = records["simga"].measures["seeds"]
    for seed in gone.values():
        seed["diverged"] = 50
    assert figure.judge_modes(records).word == "not tried"


# -- CIFAR-10 ---------------------------------------------------------------------------------------


def test_cifar10_cells_run(
    monkeypatch: pytest.MonkeyPatch, folders: Folders, tmp_path: Path
) -> None:
    small = dataclasses.replace(cifar.SCALES["tiny"], dim=2, iterations=8, seeds=(0, 1), samples=32)
    monkeypatch.setitem(cifar.SCALES, "tiny", small)
    keys = ("three-alternating-norm", "three-consensus-plain", "four-consensus-norm")
    records = {key: run(cifar.CIFAR10, "tiny", key, folders) for key in keys}
    assert [record.state for record in records.values()] == ["done"] * 3, records
    assert losses.cost_of(records, losses.THREE, losses.WILD) == pytest.approx(1, abs=0.3)
    assert losses.cost_of(records, losses.THREE, losses.CALM) > 1
    found = losses.fluctuations(records, losses.THREE, losses.CALM, "critic")
    assert set(found) == {0, 1}
    assert all(value is not None and value > 0 for value in found.values())
    lines = losses.markdown_tables(records, tmp_path)
    assert len(lines) > 8
    assert well_formed(lines)


def test_cells_are_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    for net in losses.NETS:
        for cell in losses.CELLS:
            game = cifar.SCALES["tiny"].recipe(net, cell).game
            assert game.separable != cell.batch_norm
    asked: list[dict[str, Any]] = []

    class Found:
        def build(self) -> None: ...

    def resolve(name: str, settings: dict[str, Any], builtin: bool) -> Found:
        inspect.signature(RECIPES[name]).bind(**settings)
        asked.append(settings)
        return Found()

    monkeypatch.setattr(cifar, "resolve", resolve)
    for net in losses.NETS:
        cifar.SCALES["paper"].recipe(net, losses.CALM)
    shown = [(one["layers"], one["gamma"], one["batch_norm"], one["lr"]) for one in asked]
    assert shown == [(3, 0.1, False, 1e-4), (4, 10.0, False, 1e-4)]


def test_fluctuation_is_that_of_the_last_half() -> None:
    rows = [[step, 9.0] for step in range(1, 51)] + [[step, step % 2] for step in range(51, 101)]
    seen = {"losses": {"critic": rows}, "diverged": None}
    expected = np.std([0, 1] * 25, ddof=1) / (2 * math.log(2))
    assert losses.fluctuation(seen, "critic") == pytest.approx(expected)
    assert losses.fluctuation(seen, "generator") is None
    assert losses.fluctuation({**seen, "diverged": 80}, "critic") is None


Cells = dict[str, tuple[float, float]]


def pictures(
    cells: Cells, net: str = "three", level: float = 1.0, gone: int = 0
) -> dict[str, UnitRecord]:
    """Records of cells with a fluctuation (of both players) and a score at the end; consensus without batch norm
    with a mean loss of the critic, and so many seeds that diverged."""
    records = {}
    for key, (moves, score) in cells.items():
        calm = key == losses.CALM.key
        for seed in range(4):
            jitter = 1 + 0.02 * math.sin(seed + len(key))
            curves = {}
            for player, unit in losses.LEVELS.items():
                mean = level if calm and player == "critic" else 1.0
                rise = moves * jitter * math.sqrt(49 / 50)  # of a swing between -1 and 1
                values = [mean + rise * (-1) ** step for step in range(100)]
                curves[player] = [[step + 1, unit * v] for step, v in enumerate(values)]
            scores = {"C / class_score": [[0, 1.0], [50, 1.5 * jitter], [100, score * jitter]]}
            one = {
                "scores": scores,
                "losses": curves,
                "diverged": 90 if calm and seed < gone else None,
                "reached": 100,
            }
            measures = {"seeds": {str(seed): one}, "cost": {"ratio": 2.0 if calm else 1.0}}
            name = f"{net}-{key}-seed-{seed}"
            records[name] = made(name, measures)
    return records


def cells(calm: float, wild: float, ours: float = 3.0, theirs: float = 2.0) -> Cells:
    """The two cells that the slides compare."""
    return {losses.CALM.key: (calm, ours), losses.WILD.key: (wild, theirs)}


def test_losses_are_judged() -> None:
    def word(found: Cells, **more: Any) -> str:
        return losses.judge_losses(losses.THREE, pictures(found, **more)).word

    assert word(cells(0.05, 0.4)) == "holds"
    assert word(cells(0.05, 0.07)) == "holds in part"  # less than twice
    assert word(cells(0.2, 0.8)) == "holds in part"  # not almost constant
    assert word(cells(0.05, 0.4), level=0.02) == "holds in part"  # the critic has won
    assert word(cells(0.4, 0.05)) == "does not hold"
    assert word(cells(0.05, 0.4), gone=1) == "does not hold"
    assert word(cells(0.05, 0.4), gone=4) == "does not hold"
    assert word(cells(0.1, 0.1)) == "undecided"
    assert losses.judge_losses(losses.FOUR, pictures(cells(0.05, 0.4))).word == "not tried"


def test_scores_are_judged() -> None:
    def word(ours: float, theirs: float) -> str:
        return losses.judge_score(losses.THREE, pictures(cells(0.1, 0.1, ours, theirs))).word

    assert word(3.0, 1.4) == "holds"  # half way, at equal seconds, consensus had 1.5
    assert word(3.0, 2.0) == "holds in part"
    assert word(2.0, 3.0) == "does not hold"
    assert word(2.0, 2.0) == "undecided"


def test_the_cause_is_judged() -> None:
    def word(*moves: float) -> str:
        keys = ("alternating-norm", "consensus-norm", "alternating-plain", "consensus-plain")
        found = {key: (move, 2.0) for key, move in zip(keys, moves, strict=True)}
        return losses.judge_cause(losses.THREE, pictures(found)).word

    assert word(0.4, 0.1, 0.4, 0.1) == "holds"
    assert word(0.4, 0.1, 0.1, 0.1) == "holds in part"
    assert word(0.1, 0.1, 0.1, 0.4) == "does not hold"
    assert word(0.1, 0.1, 0.1, 0.1) == "undecided"
    assert losses.judge_cause(losses.THREE, pictures(cells(0.1, 0.1))).word == "not tried"


def test_training_is_judged() -> None:
    def word(ours: float, theirs: float, gone: int = 0) -> str:
        found = {losses.CALM.key: (0.1, ours), "alternating-plain": (0.1, theirs)}
        return losses.judge_training(losses.FOUR, pictures(found, "four", gone=gone)).word

    assert word(3.0, 2.0) == word(2.0, 2.0) == "holds"
    assert word(2.0, 3.0) == "holds in part"
    assert word(0.5, 2.0) == word(3.0, 2.0, gone=3) == "does not hold"
    assert word(1.0, 2.0) == word(3.0, 2.0, gone=1) == "undecided"


# -- celebA -----------------------------------------------------------------------------------------


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = celeba.Scale(2, 2, 2, (0,), 8, 0.001)
    monkeypatch.setitem(celeba.SCALES, "small", scale)
    monkeypatch.delenv(celeba.FACES, raising=False)


@pytest.mark.usefixtures("little")
def test_celeba_without_faces_fails_in_one_line(folders: Folders) -> None:
    record = run(celeba.CELEBA, "small", "consensus-seed-0", folders)
    assert record.state == "failed"
    assert record.message.startswith("DataError: EQUILIBRIST_FACES is not set: name a folder")
    assert "\n" not in record.message


@pytest.mark.usefixtures("little")
def test_celeba_runs_and_its_record_shows_no_face(
    monkeypatch: pytest.MonkeyPatch, folders: Folders, tmp_path: Path
) -> None:
    faces = tmp_path / "faces.npy"
    np.save(faces, np.random.default_rng(0).integers(0, 256, (16, 64, 64), dtype=np.uint8))
    monkeypatch.setenv(celeba.FACES, str(faces))
    record = run(celeba.CELEBA, "small", "consensus-seed-0", folders)
    assert record.state == "done", record.message
    assert record.measures["seeds"]["0"]["reached"] == 2
    kept = [path for path in folders.records.rglob("*") if path.is_file()]
    assert [path.name for path in kept] == ["consensus-seed-0.json"]
    assert str(faces) not in kept[0].read_text()
    lines = celeba.markdown_tables({record.unit: record}, tmp_path)
    assert any(line.startswith("| consensus |") for line in lines)
    assert well_formed(lines)


def test_celeba_is_judged() -> None:
    def outcome(ends: Sequence[float], gone: int = 0) -> ClaimOutcome:
        records = {}
        for seed, end in enumerate(ends):
            for method in celeba.METHODS:
                lost = method == "consensus" and seed < gone
                scores = {"F / distance": [[0, 10.0], [100, end]]}
                one = {"scores": scores, "diverged": 50 if lost else None, "reached": 100}
                key = f"{method}-seed-{seed}"
                records[key] = made(key, {"seeds": {str(seed): one}})
        return celeba.judge(records)

    assert outcome([2.0, 1.0, 2.4]).word == "holds"
    assert outcome([2.0, 1.0, 4.0]).word == "holds in part"
    assert outcome([11.0, 12.0, 13.0]).word == "does not hold"
    assert outcome([2.0, 1.0, 2.4], gone=2).word == "does not hold"
    assert outcome([2.0, 1.0, 2.4], gone=1).word == "undecided"
    assert outcome([2.0, 11.0, 2.4]).word == "undecided"
    assert outcome([2.0]).word == "not tried"
