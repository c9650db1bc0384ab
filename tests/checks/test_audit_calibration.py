"""The audit's calibration in small: planted truths against autograd and brute force, a few games of each claim."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from equilibrist import tree
from equilibrist.core.exact import Exact
from equilibrist.core.field import VectorField
from equilibrist.core.jacobian import JacobianOperator

FILE = Path(__file__).parents[2] / "campaigns" / "audit_calibration.py"


def campaign() -> Any:
    if "audit_calibration" in sys.modules:
        return sys.modules["audit_calibration"]
    spec = importlib.util.spec_from_file_location("audit_calibration", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit_calibration"] = module
    spec.loader.exec_module(module)
    return module


C = campaign()


def drawn(game: Any, law: Any, n: int = 200_000) -> dict[str, torch.Tensor]:
    draw: dict[str, torch.Tensor] = game.draw(
        np.random.default_rng(5), law, n, torch.float64, torch.device("cpu")
    )
    return draw


# -- the planted truths --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_gradients_of_the_box(seed: int) -> None:
    """Against autograd on many samples; a coordinate that pushes against its wall is left out."""
    rng = np.random.default_rng(seed)
    law = C.law_of(rng, 0.0, 1.0, (0.3, 2.0))
    a, u, w, q = rng.uniform(-0.9, 0.9, (4, len(law.mean)))
    box = C.Box(law, a, u, w, q)
    _, players, constants = C.begun(game := box.game())
    v, _ = VectorField(game)(players, constants, drawn(game, law))
    for player in C.PLAYERS:
        truth = box.gradient(player)
        assert np.abs(tree.flatten({"v": v[player]}).numpy() - truth).max() < 0.05
    w[0] = -np.sign(C.Box(law, a, u, w, q).gradient("critic")[0])
    held = C.Box(law, a, u, w, q, (1.0, 1.0)).gradient("critic")
    assert held[0] == 0
    assert np.array_equal(held[1:], C.Box(law, a, u, w, q).gradient("critic")[1:])


@pytest.mark.parametrize("player", ["generator", "critic"])
def test_best_responses_of_the_box(player: str) -> None:
    """No random point of the box gains more, the gain is planted for this player alone, and V is the game's."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        box = C.planted_nash(rng, player, False)
        gain, sign = box.gain(player), 1 if player == "critic" else -1
        here = box.value(player, box.parameters(player))
        assert gain > 0
        assert box.gain(C.PLAYERS[player == "generator"]) == pytest.approx(0, abs=1e-12)
        size = box.limit[player == "critic"]
        others = [box.value(player, rng.uniform(-size, size, 2 * len(box.u))) for _ in range(2000)]
        assert max(sign * (x - here) for x in others) <= gain + 1e-12
        _, players, constants = C.begun(game := box.game())
        loss = game.losses(players, constants, drawn(game, box.law))["generator"]
        assert float(loss) == pytest.approx(here, rel=0.02, abs=0.3)  # 200,000 samples
    still = C.planted_nash(rng, "critic", True)
    assert still.gain("generator") == 0
    assert still.gain("critic") == pytest.approx(0, abs=1e-12)


def test_matrices_of_the_noisy_game() -> None:
    """J in expectation against products on many samples, and the pair at rest."""
    made = C.weighted(np.random.default_rng(1), 3, 2, -0.5, 0.3, 1.0)
    _, players, constants = C.begun(game := made.game())
    draw = drawn(game, made.law)
    field = VectorField(Exact(game))
    found = JacobianOperator(field, players, constants, [draw]).dense().numpy()
    assert np.abs(found - made.jacobian).max() < 0.03
    assert abs(made.jacobian[:3, 3:]).max() > 0.3
    v, _ = field(players, constants, draw)
    assert float(tree.norm(v)) < 0.03


def test_planted_curvatures() -> None:
    rng = np.random.default_rng(2)
    for _ in range(5):
        assert C.leading(rng, holds=False).schur() < 0
        made = C.leading(rng, holds=True)
        A, _, C_ = made.matrices
        assert np.linalg.eigvalsh(A)[0] < 0 < np.linalg.eigvalsh(C_)[0]
        star = C.lambda_star(made)
        assert made.schur(0.99 * star) > 0 > made.schur(1.01 * star)


# -- counting ------------------------------------------------------------------------------------------


def test_coverage_of_lambda_star() -> None:
    def found(high: float, noise: float | None) -> Any:
        return SimpleNamespace(evidence={"lambda_star": [high, high], "lambda_star_noise": noise})

    assert C.covered(1.0, found(1.1, 0.2)) is True
    assert C.covered(1.0, found(1.3, 0.2)) is False
    assert C.covered(1.0, found(1.3, None)) is None


def test_tables() -> None:
    counts = {
        ("stable", 0.9): Counter(REFUTED=5, NOT_REFUTED=195),
        ("stable", 2.0): Counter(REFUTED=150, UNASSESSED=50),
        ("stationary", 2.0): Counter(VERIFIED=1, REFUTED=198, **{"raised ValueError": 1}),
    }
    said = C.table(counts)
    assert "| stable | 5 of 200, 2.5% (0.8 to 5.7) |" in said
    assert "| stable | 75.0% (25.0%) |" in said
    assert "| stationary | 1 of 200, 0.5% (0.0 to 2.8) |" in said
    assert "raised: {'raised ValueError': 1}" in said


# -- a few games of each -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(C.CASES))
def test_no_false_alarm_and_some_power(name: str) -> None:
    """Half a tolerance is never refuted in eight games (five of two slow kinds), five tolerances nearly always."""
    counts: dict[tuple[str, float], Counter[str]] = {}
    games = 5 if name in ("local-minimax", "nash") else 8
    C.count(name, games, 7, (0.5, 5.0), lambda values: None, counts, C.Kept(None))
    assert sum(c.total() for (row, _), c in counts.items() if "printed" not in row) == 2 * games
    for (_, k), said in counts.items():
        assert set(said) <= set(C.VERDICTS)
        if k < 1:
            assert said["REFUTED"] == 0
        else:
            assert said["REFUTED"] >= said.total() - 1
            assert said["VERIFIED"] == 0


def test_exact_games() -> None:
    """Every verdict is what the matrices say, and both kinds occur."""
    seen = set()
    for i in range(25):
        for claim, (said, must) in C.exact_case(C.address(1, "exact", 0.0, i), i).items():
            assert said == must, (i, claim)
            seen.add((claim, must))
    assert {("stable", "REFUTED"), ("local-minimax", "REFUTED"), ("nash", "VERIFIED")} <= seen


@pytest.mark.parametrize("name", sorted(C.LAMBDAS))
def test_lambda_star_is_near_the_truth(name: str) -> None:
    errors = []
    for i in range(6):
        truth, found = C.LAMBDAS[name](C.address(2, name, 0.0, i), i)
        assert C.covered(truth, found) is not None
        errors.append(found.evidence["lambda_star"][1] / truth - 1)
    assert float(np.median(np.abs(errors))) < 0.3


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    C.main(["--games", "1", "--only", "stable", "exact", "--sizes", "5", "--progress", "none"])
    said = capsys.readouterr().out
    assert "| stable | 1, 0, 0, 0 |" in said
    assert "| stationary | VERIFIED | VERIFIED | 1 |" in said
    assert "2 games" in said


def test_finished_games_are_kept_and_a_line_cut_short_is_played_again(tmp_path: Path) -> None:
    path = tmp_path / "games.jsonl"
    counts: Any = {}
    C.count("stationary", 2, 0, (0.5,), lambda values: None, counts, C.Kept(path))
    lines = path.read_text().splitlines()
    assert len(lines) == 2
    held = json.loads(lines[0])
    held[1] = [["stationary", "made up"]]
    path.write_text(json.dumps(held) + "\n" + lines[1][:20])
    again: Any = {}
    C.count("stationary", 2, 0, (0.5,), lambda values: None, again, C.Kept(path))
    assert again["stationary", 0.5]["made up"] == 1
    assert sum(sum(found.values()) for found in again.values()) == 2
