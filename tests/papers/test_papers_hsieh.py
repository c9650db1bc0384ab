"""The claims of Hsieh, Liu and Cevher: judges on made-up records, and units run at the smallest size."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from equilibrist.errors import StoppedError
from equilibrist.papers import (
    hsieh_images,
    hsieh_methods,
    hsieh_plane,
    hsieh_rates,
    hsieh_theory,
    runner,
)
from equilibrist.papers.catalogue import EXPERIMENTS
from equilibrist.papers.hsieh_methods import MEAN, PLAIN, Budget, Hyperparameters, Method
from equilibrist.papers.model import ClaimOutcome, Experiment, UnitRecord, Workspace

W2 = "Mixture quality / w2"
MICRO = Budget(8, (1e-3,), 1e-3, (0, 1), (100,))


def record(unit: str, **measures: Any) -> UnitRecord:
    return UnitRecord(unit, "done", measures, {})


def outcome(
    experiment: Experiment, place: str, *records: UnitRecord, claim: str = ""
) -> ClaimOutcome:
    """The outcome of the claim at `place` whose text holds `claim`."""
    (found,) = (c for c in experiment.claims if c.place == place and claim in c.text)
    return found.judge({one.unit: one for one in records})


# -- theory ---------------------------------------------------------------------------------------------


def games(**changes: float) -> UnitRecord:
    free = {"game": "a", "min_max": 1.0, "max_min": 0.6, "beaten": 0.0, "mixed_gap": 0.0}
    return record("equilibria", games=[{**free, **changes}])


def test_pure_saddle_points() -> None:
    def judged(*records: UnitRecord) -> str:
        return outcome(hsieh_theory.THEORY, "slides, theoretical challenges", *records).word

    assert judged() == "not tried"
    assert judged(games()) == "holds"
    assert judged(games(max_min=1.0)) == "does not hold"
    assert judged(games(beaten=1e-3)) == "undecided"


def test_mixed_equilibria() -> None:
    def judged(*records: UnitRecord) -> str:
        return outcome(hsieh_theory.THEORY, "slides, Glicksberg", *records).word

    both = games().measures["games"] + games(mixed_gap=0.1).measures["games"]
    assert judged() == "not tried"
    assert judged(games()) == "holds"
    assert judged(record("equilibria", games=both)) == "holds in part"
    assert judged(games(mixed_gap=0.1)) == "undecided"


def test_the_form_of_a_step() -> None:
    def judged(*records: UnitRecord) -> str:
        return outcome(hsieh_theory.THEORY, "slides, theorem: form", *records).word

    assert judged() == "not tried"
    assert judged(record("form", checks={"a": 1e-15, "b": 1e-12})) == "holds"
    assert judged(record("form", checks={"a": 1e-15, "b": 1e-6})) == "does not hold"


def test_rates_on_measures() -> None:
    def judged(circle: float, square: float) -> str:
        found = {"circle": [circle, circle], "square": square, "square over log": square - 0.15}
        one = record("rates-on-measures", prox=found)
        place = "slides, theorem: rate of mirror-prox"
        return outcome(hsieh_theory.THEORY, place, one).word

    assert judged(-1.0, -0.95) == "holds"
    assert judged(-1.0, -0.8) == "holds in part"
    assert judged(-0.8, -1.0) == "does not hold"


def test_rates_of_matrix_games() -> None:
    def judged(slopes: list[float], ratio: float) -> str:
        cells = [
            {"law": "sign", "size": 2, "slopes": [slope, slope], "ratio": ratio} for slope in slopes
        ]
        one = record("rates-prox", cells=cells, times=[1, 10])
        return outcome(hsieh_theory.THEORY, "rates: mirror-prox", one).word

    assert judged([-1.0, -0.94], 0.9) == "holds"
    assert judged([-1.0, -0.9], 0.9) == "holds in part"
    assert judged([-1.0, -1.0], 1.1) == "does not hold"
    assert judged([-1.0, -1.0], float("nan")) == "does not hold"
    assert outcome(hsieh_theory.THEORY, "rates: mirror-prox").word == "not tried"


def test_wrong_steps_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The three checks of the form notice a step of another length; the gaps of random pairs a wrong optimum."""
    exact = hsieh_theory.Density.tilted
    assert max(hsieh_theory._form(None)["checks"].values()) < 1e-9  # type: ignore[arg-type]
    monkeypatch.setattr(
        hsieh_theory.Density, "tilted", lambda self, h, step, t=0.0: exact(self, h, 1.01 * step, t)
    )
    assert min(hsieh_theory._form(None)["checks"].values()) > 1e-4  # type: ignore[arg-type]
    monkeypatch.setattr(hsieh_theory.W2Gaussian, "optimal_value", 1.2)
    monkeypatch.setattr(hsieh_theory, "PAIRS", 50)
    assert hsieh_theory._gaussian(2, 2.0, 0.5, 1.0)["beaten"] > 0.1


def test_the_recursion_on_the_circle_is_the_average_of_densities() -> None:
    """The gap by two numbers a player is that of the densities' average, with exact best responses."""
    from equilibrist.mixed import Circle, GridDescent, GridProx, circle_game, von_mises

    nu, mu = hsieh_rates.starts(1)[0]
    grid, T = Circle().grid(128), 36
    start = von_mises(nu, grid), von_mises(mu, grid)
    for method, rule in (("descent", GridDescent(1 / 6)), ("prox", GridProx(0.5))):
        trace = rule.run(circle_game(), T, start=start, record=(T,))
        gap = hsieh_rates.circle_gap(method, nu, mu, T)
        assert gap == pytest.approx(float(trace.gap_average[-1]), rel=1e-9)


def test_a_method_of_another_rate_does_not_pass() -> None:
    """Mirror descent in mirror-prox's place: slopes of -1/2 where -1 is claimed."""
    scale = hsieh_rates.Scale((100, 300, 1000), 3, (5,), 1)
    row = dataclasses.replace(hsieh_rates.ROWS[1], method=hsieh_rates.MirrorDescent())
    cell = scale.cell(row, "uniform", 5)
    one = record("rates-prox", cells=[cell], times=list(scale.times))
    assert hsieh_rates.judge(row, {"rates-prox": one}).word == "holds in part"
    honest = scale.cell(hsieh_rates.ROWS[1], "uniform", 5)
    one = record("rates-prox", cells=[honest], times=list(scale.times))
    assert hsieh_rates.judge(hsieh_rates.ROWS[1], {"rates-prox": one}).word == "holds"


# -- trained networks -----------------------------------------------------------------------------------


def unit(
    data: str, method: str, ends: list[float | None], tuned: tuple[float | None, ...] = (0.3, 0.6)
) -> UnitRecord:
    """A unit whose seeds ended at these distances (None: it diverged at step 5)."""
    seeds = {
        str(i): {
            "scores": {W2: [[0, 9.0], [10, end if end is not None else 9.0]]},
            "diverged": 5 if end is None else None,
            "reached": 10,
        }
        for i, end in enumerate(ends)
    }
    tuning = [[1e-3, 1 + i, value] for i, value in enumerate(tuned)]
    return record(f"{data}-{method}", seeds=seeds, tuning=tuning, setting=[1e-3, 1], decisive=W2)


NOISE = (0.0, 0.01, 0.02, -0.01, 0.005)


def near(level: float) -> list[float | None]:
    return [level + e * (1 + level) for e in NOISE]


def law(mirror: float, sgd: float, rmsprop: float, adam: float, data: str) -> list[UnitRecord]:
    levels = {
        "sgd": sgd,
        "rmsprop": rmsprop,
        "adam": adam,
        "mirror-gan": mirror,
        "mirror-prox-gan": 1.0,
    }
    found = [unit(data, key, near(level)) for key, level in levels.items()]
    found[-1] = unit(data, "mirror-prox-gan", near(1.0), (0.5, 0.6))  # it tuned worse
    return found


@pytest.mark.parametrize(
    ("levels", "word"),
    [
        ((0.2, 0.5, 0.4, 0.3), "holds"),
        ((0.3, 0.5, 0.4, 0.3), "holds in part"),
        ((0.3, 0.3, 0.3, 0.3), "undecided"),
        ((0.3, 0.5, 0.4, 0.2), "does not hold"),
    ],
)
def test_mirror_methods_against_plain_ones(levels: Any, word: str) -> None:
    plane, images = hsieh_plane.PLANE, hsieh_images.IMAGES
    found = law(*levels, "swiss-roll")
    assert outcome(plane, "experiments, Swiss roll", *found).word == word
    assert outcome(plane, "experiments, Swiss roll", *found[1:]).word == "not tried"
    assert outcome(plane, "experiments, eight Gaussians", *found).word == "not tried"
    assert outcome(images, "experiments, MNIST", *law(*levels, "digits")).word == word
    assert outcome(images, "experiments, LSUN bedrooms", *law(*levels, "cifar10")).word == word


def test_divergence_counts() -> None:
    """A mirror method that is best where it ends, but diverges, is none that is closer in every seed."""
    found = law(0.2, 0.5, 0.4, 0.3, "swiss-roll")
    found[3] = unit("swiss-roll", "mirror-gan", [0.2, None, 0.21, None, 0.2])
    records = {one.unit: one for one in found}
    gain = hsieh_plane.comparisons(records)["swiss-roll"][0].gain
    worst = max(near(1.0))  # type: ignore[type-var]
    sgd = near(0.5)
    apart = [sgd[0] - 0.2, sgd[1] - worst, sgd[2] - 0.21, sgd[3] - worst, sgd[4] - 0.2]  # type: ignore[operator]
    assert gain.mean == pytest.approx(sum(apart) / 5)
    assert gain.n == 5
    assert outcome(hsieh_plane.PLANE, "experiments, Swiss roll", *found).word == "undecided"


def everywhere(make: Callable[[str], list[UnitRecord]]) -> list[UnitRecord]:
    return [one for data in hsieh_plane.LAWS for one in make(data)]


@pytest.mark.parametrize(
    ("mean", "word"),
    [(0.2, "holds"), (0.3, "undecided"), (0.4, "does not hold")],
)
def test_mean_networks_against_mixtures(mean: float, word: str) -> None:
    def made(data: str) -> list[UnitRecord]:
        return [unit(data, one.key, near(mean)) for one in MEAN] + [
            unit(data, one.key, near(0.3)) for one in hsieh_plane.MIXTURES
        ]

    assert outcome(hsieh_plane.PLANE, "practical algorithm", *everywhere(made)).word == word
    assert (
        outcome(hsieh_plane.PLANE, "practical algorithm", *made("swiss-roll")).word == "not tried"
    )


def test_plain_sgd() -> None:
    place, claim = "slides, practical challenges", "SGD"

    def judged(sgd: float) -> str:
        found = everywhere(lambda data: law(0.2, sgd, 0.4, 0.3, data))
        return outcome(hsieh_plane.PLANE, place, *found, claim=claim).word

    assert judged(0.6) == "holds"
    assert judged(0.1) == "does not hold"
    assert outcome(hsieh_plane.PLANE, place, claim=claim).word == "not tried"


def test_heavy_tuning() -> None:
    place, claim = "slides, practical challenges", "heavy tuning"

    def judged(adaptive: tuple[float | None, ...], mirror: tuple[float | None, ...]) -> str:
        def made(data: str) -> list[UnitRecord]:
            tuned = {"rmsprop": adaptive, "adam": adaptive}
            tuned |= {"mirror-gan": mirror, "mirror-prox-gan": mirror}
            return [unit(data, key, near(0.3), values) for key, values in tuned.items()]

        return outcome(hsieh_plane.PLANE, place, *everywhere(made), claim=claim).word

    assert judged((0.2, 1.0), (0.2, 0.4)) == "holds"
    assert (
        judged((0.2, None), (0.2, 0.4)) == "holds"
    )  # a setting that diverges is the worst there is
    assert judged((0.2, 0.4), (0.2, 1.0)) == "does not hold"
    assert judged((0.2, 0.4), (0.2, 0.4)) == "undecided"
    assert judged((None, None), (None, None)) == "undecided"
    assert outcome(hsieh_plane.PLANE, place, claim=claim).word == "not tried"


@pytest.mark.parametrize("method", [*PLAIN, *MEAN], ids=lambda one: one.key)
@pytest.mark.parametrize("pace", [1, 5])
def test_equal_compute(method: Method, pace: int) -> None:
    """Steps times the gradients that a step is seen to take are the budget."""
    from equilibrist.core.draws import Batches
    from equilibrist.core.field import VectorField

    class Counted(VectorField):
        taken = 0

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            self.taken += 1 if kwargs.get("only") else 2
            return super().__call__(*args, **kwargs)

    made = hsieh_plane.Scale(MICRO, width=4, depth=1, batch=16).recipe("swiss-roll", method)
    field, solver = Counted(made.game), method.build(Hyperparameters(1e-3, pace), 1e-3)
    cpu = torch.device("cpu")
    players, constants = made.game.init(0, device=cpu, dtype=made.dtype)
    draws = Batches(
        lambda rng, n: made.game.draw(rng, made.data, n, made.dtype, cpu), made.batch, seed=0
    )
    solver.step(field, players, constants, solver.init(players), draws.at(0))
    assert method.steps(Hyperparameters(1e-3, pace), 12_000) * field.taken == 12_000


def test_grids_are_of_one_size() -> None:
    for scale in (
        *hsieh_plane.SCALES.values(),
        *(s for x in hsieh_images.SCALES.values() for s in x),
    ):
        assert len(scale.budget.grid) == 6
        assert not set(scale.budget.seeds) & set(scale.budget.tuning)


# -- run for real ---------------------------------------------------------------------------------------


def run(experiment: Experiment, key: str, tmp_path: Path, size: Any = "tiny") -> UnitRecord:
    folders = runner.Folders(tmp_path / "results", tmp_path / "runs")
    found = runner.unit_named(experiment, size, key)
    return runner.run_unit(experiment, size, found, folders, "cpu")


def test_theory_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = hsieh_rates.Scale((10, 30), 2, (3,), 2)
    monkeypatch.setitem(hsieh_theory.SCALES, "tiny", (small, 0.0, (10, 100), 2, 32))
    monkeypatch.setattr(hsieh_theory, "PAIRS", 20)
    keys = [one.key for one in hsieh_theory.units("tiny")]
    found = {key: run(hsieh_theory.THEORY, key, tmp_path) for key in keys}
    assert {one.state for one in found.values()} == {"done"}, [r.message for r in found.values()]
    words = [one.word for one in hsieh_theory.THEORY.outcomes(found, "tiny")]
    assert words[:3] == ["holds"] * 3
    assert "not tried" not in words
    text = "\n".join(hsieh_theory.markdown_tables(found, tmp_path))
    assert "| mirror-prox (-1) |" in text
    assert hsieh_theory.units("paper") == ()


@pytest.mark.parametrize("method", ["adam", "mirror-gan", "mirror-gan-of-8"])
def test_plane_for_real(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both paces are tuned on; all seeds and a picture are recorded; a finished unit trains nothing again."""
    scale = hsieh_plane.Scale(MICRO, width=4, depth=1, batch=16, samples=20)
    monkeypatch.setitem(hsieh_plane.SCALES, "tiny", scale)
    found = run(hsieh_plane.PLANE, f"eight-gaussians-{method}", tmp_path)
    assert found.state == "done", found.message
    measured = found.measures
    assert [row[:2] for row in measured["tuning"]] == [[1e-3, 1], [1e-3, 5]]
    assert measured["setting"] == min(measured["tuning"], key=lambda row: row[2])[:2]
    assert set(measured["seeds"]) == {"0", "1"}
    assert measured["decisive"].endswith("/ w2")
    folder = tmp_path / "results" / "hsieh-plane" / "tiny"
    assert (folder / measured["picture"]).stat().st_size > 100
    text = "\n".join(hsieh_plane.markdown_tables({found.unit: found}, folder))
    assert f"(results/hsieh-plane/tiny/{found.unit}.png)" in text
    ends = hsieh_methods.ends({found.unit: found}, "eight-gaussians", method)
    assert all(end is not None and 0 < end < 10 for end in ends.values())
    trained = list((tmp_path / "runs").rglob("metrics.jsonl"))
    before = {path: path.read_bytes() for path in trained}
    again = run(hsieh_plane.PLANE, f"eight-gaussians-{method}", tmp_path)
    assert again.measures == measured
    assert {path: path.read_bytes() for path in trained} == before


def test_images_for_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted after the first setting, it goes on there."""
    scale = hsieh_images.Scale("digits", 2, MICRO, 0.0, 32)
    monkeypatch.setitem(hsieh_images.SCALES, "tiny", (scale,))
    honest, calls = hsieh_methods.train_seeds, []

    def stopping(place: Workspace, *args: Any, **kwargs: Any) -> Any:
        calls.append(place.runs.name)
        if len(calls) == 2:
            raise StoppedError("interrupted")
        return honest(place, *args, **kwargs)

    monkeypatch.setattr(hsieh_methods, "train_seeds", stopping)
    with pytest.raises(StoppedError):
        run(hsieh_images.IMAGES, "digits-mirror-gan", tmp_path)
    assert not list((tmp_path / "results").rglob("*.json"))
    (first,) = (tmp_path / "runs").rglob("tuning-*/seed_100/metrics.jsonl")
    before = first.read_bytes()
    found = run(hsieh_images.IMAGES, "digits-mirror-gan", tmp_path)
    assert found.state == "done", found.message
    assert first.read_bytes() == before
    assert "pixels" in found.measures["decisive"]
    folder = tmp_path / "results" / "hsieh-images" / "tiny"
    assert json.loads((folder / "digits-mirror-gan.json").read_text())["state"] == "done"
    assert (folder / found.measures["picture"]).exists()


def test_all_are_in_the_catalogue() -> None:
    keys = [one.key for one in EXPERIMENTS]
    assert [key for key in keys if key.startswith("hsieh")] == [
        "hsieh-theory",
        "hsieh-plane",
        "hsieh-images",
    ]
