"""docs/extend.md does what it says: a check with its chart, a formulation, a data set and a score, used together;
an experiment."""

from __future__ import annotations

import json
import math
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fences import to_run
from torch import nn

import equilibrist as eq
from equilibrist.checks import REGISTRY, registry


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    module = types.ModuleType("extend_page")
    sys.modules[module.__name__] = module
    known = dict(REGISTRY)
    for block in to_run("docs/extend.md"):
        exec(compile(block, "docs/extend.md", "exec", dont_inherit=True), vars(module))
    yield module
    REGISTRY.clear()
    REGISTRY.update(known)
    del sys.modules[module.__name__]


def mlp(a: int, b: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(a, 8), nn.Tanh(), nn.Linear(8, b))


def recipe(page: Any) -> eq.Recipe:
    torch.manual_seed(0)
    game = eq.GAN(mlp(2, 2), mlp(2, 1), page.Exponential(), latent=2)
    return eq.Recipe(
        game,
        page.two_rings(400),
        eq.Simultaneous(eq.SGD(0.01)),
        steps=4,
        batch=16,
        scores=(page.MeanShift(100),),
        score_every=4,
        audit={"batches": 8, "look_batches": 4, "groups": 3, "group_batches": 1},
    )


def test_all_four_work_together_and_the_report_draws_the_chart(page: Any, tmp_path: Path) -> None:
    run = eq.train(recipe(page), tmp_path / "run", progress="none")
    audit = eq.audit(run, checks=["gradient-line"], progress="none")
    found = audit["gradient-line"]
    assert found.verdict in (eq.Verdict.REFUTED, eq.Verdict.NOT_REFUTED, eq.Verdict.UNASSESSED)
    assert found.chart is not None
    assert found.chart.lines["gain"][0] == 0
    score = json.loads((tmp_path / "run/scores.jsonl").read_text().splitlines()[-1])
    assert score["name"] == "shift of the mean"
    assert score["values"]["shift"] > 0
    # The check is forgotten: the report has its words and its chart from audit.json.
    forgotten = REGISTRY.pop("gradient-line")
    try:
        text = Path(eq.write_report(tmp_path / "run")).read_text(encoding="utf-8")
    finally:
        REGISTRY["gradient-line"] = forgotten
    assert "Does one long step gain?" in text
    assert "No long step gains" in text
    assert "length of the step, of the generator&#x27;s norm" in text
    assert 'class="line c0"' in text
    assert "exponential loss" in text


def test_the_gain_is_that_of_the_losses(page: Any) -> None:
    """Against the losses computed at the moved weights by hand, on the same batches."""
    torch.manual_seed(1)
    game = eq.GAN(mlp(2, 2), mlp(2, 1), page.Exponential(), latent=2)
    players = game.init(0).players
    audit = eq.checks.audit_game(
        game, players, data=page.two_rings(400), checks=["gradient-line"], progress="none"
    )
    chart = audit["gradient-line"].chart
    assert chart is not None
    assert chart.lines["gain"][1] == pytest.approx(chart.lines["gain"][2] / 3, rel=0.2)


def test_the_formulation_is_its_formula(page: Any) -> None:
    real, fake = torch.randn(50).double(), torch.randn(50).double()
    made = page.Exponential()
    assert float(made.critic_loss(real, fake)) == pytest.approx(
        np.exp(-real.numpy()).mean() + np.exp(fake.numpy()).mean()
    )
    assert float(made.generator_loss(fake)) == pytest.approx(np.exp(-fake.numpy()).mean())


def test_the_rings_and_the_shift(page: Any) -> None:
    rings = page.two_rings(4000, noise=0.0)
    radius = rings.all().norm(dim=1)
    assert np.allclose(sorted(set(radius.numpy().round(3))), [0.5, 1.0])
    rng = np.random.default_rng(0)
    moved = page.MeanShift(1000)(rings.sample(rng, 1000) + 3.0, rings, rng)
    assert moved.values["shift"] == pytest.approx(
        3 * 2**0.5 / float(rings.all().std(0).norm()), rel=0.1
    )
    assert moved.floor["shift"] < 0.2


def test_names_that_are_taken_are_refused(page: Any) -> None:
    check = REGISTRY["gradient-line"]
    for name in ("gradient-line", "nash", "nash/critic"):
        with pytest.raises(ValueError, match=f"there is a check or a claim '{name}' already"):
            registry.register(eq.checks.Check(name, "", check.work, check.run))


def test_a_package_offers_a_check_by_an_entry_point(
    page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = eq.checks.Check("offered", "?", lambda context: 1.0, page.gradient_line, default=False)
    entry = types.SimpleNamespace(name="offered", load=lambda: lambda: own)
    asked: list[str] = []

    def points(group: str) -> list[Any]:
        asked.append(group)
        return [entry]

    registry._load_offered.cache_clear()
    monkeypatch.setattr(registry.importlib.metadata, "entry_points", points)
    try:
        assert registry.named_checks(["nash"]) == ("nash",)
        assert asked == []  # looked for only where a name is not known
        assert registry.named_checks(["offered"]) == ("offered",)
        with pytest.raises(eq.RecipeError, match="there is no check 'ofered'"):
            registry.named_checks(["ofered"])
        assert asked == [registry.GROUP]
    finally:
        REGISTRY.pop("offered", None)


def test_the_experiment_runs_and_is_judged(page: Any, tmp_path: Path) -> None:
    from equilibrist.papers import records, runner

    one, folders = page.ROTATION, runner.Folders(tmp_path / "records", tmp_path / "runs")
    for unit in one.units("tiny"):
        runner.run_unit(one, "tiny", unit, folders, "cpu")
    found = records.read_records(folders.records, one, "tiny")
    (outcome,) = one.outcomes(found, "tiny")
    assert outcome.word == "holds"
    # By hand: each simultaneous step multiplies |x| by sqrt(1 + h^2).
    assert found["step-0.1"].measures["size"] == pytest.approx(math.sqrt(1.01) ** 100, rel=1e-5)
