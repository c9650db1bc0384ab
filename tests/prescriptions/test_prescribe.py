"""Changes that were tried, on games whose answer is known: the right one is prescribed, or none."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import equilibrist as eq
from equilibrist.cli import main
from equilibrist.data import Gaussian
from equilibrist.diagnosis import Loop
from equilibrist.errors import RecipeError
from equilibrist.interop import Play, TorchRule
from equilibrist.networks import LinearGenerator
from equilibrist.prescriptions import Prescription, changes_of, prescribe
from equilibrist.prescriptions.run_fork import RunFork

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

from fences import to_run


class Scalar(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))


class Game:
    """min_x max_y a x^2 / 2 + b x y - c y^2 / 2 by simultaneous noisy gradient steps, with consensus of some weight."""

    def __init__(self, a: float, c: float, b: float, h: float, stale: bool = False) -> None:
        self.a, self.c, self.b, self.weight = a, c, b, 0.0
        self.g, self.d = Scalar(), Scalar()
        held = (copy.deepcopy(self.g), copy.deepcopy(self.d)) if stale else (self.g, self.d)
        self.held = held
        self.rules = [torch.optim.SGD(m.parameters(), lr=h) for m in held]

    def step(self, i: int) -> None:
        x, y = self.g.x, self.d.x
        pull = self.weight * self.b**2
        noise = 1e-3 * torch.randn(2, dtype=torch.float64)
        self.held[0].x.grad = (self.a * x + self.b * y + pull * x + noise[0]).detach()
        self.held[1].x.grad = (self.c * y - self.b * x + pull * y + noise[1]).detach()
        for rule in self.rules:
            rule.step()

    def loop(self) -> Loop:
        def save() -> Any:
            return [m.state_dict() for m in (self.g, self.d, *self.held, *self.rules)]

        def load(saved: Any) -> None:
            for m, state in zip((self.g, self.d, *self.held, *self.rules), saved, strict=True):
                m.load_state_dict(state)

        players = {"generator": self.g, "critic": self.d}
        return Loop(self.step, players, "wgan", save=save, load=load)

    def distance(self, loop: Loop) -> float:
        return float(torch.hypot(self.g.x.detach(), self.d.x.detach()))

    def consensus(self, loop: Loop) -> Any:
        self.weight = 1.0

        def undo() -> None:
            self.weight = 0.0

        return undo


def tried(game: Game, **options: Any) -> Prescription:
    return prescribe(game.loop(), measure=game.distance, gradients=2500, progress="none", **options)


def test_a_smaller_rate_where_that_is_the_cure() -> None:
    """A round multiplies by [[1 - h a, -h b], [k b, 1 - k c]], h and k the rates. Its eigenvalues are complex, their
    modulus sqrt((1 - h a) (1 - k c) + h k b^2): 1.04 as it is, 0.93 with a quarter of h, 0.97 with a quarter of k or of
    both, and above 1 with four times any."""
    game = Game(0.5, 1.0, 3.0, 0.2)
    state = torch.get_rng_state()
    found = tried(game)
    assert found.change == "a quarter of the generator's rate"
    assert found.sentence.startswith(
        "Change to a quarter of the generator's rate: the quantity ends at"
    )
    best = found.best
    assert best is not None
    assert best.effect is not None
    assert best.effect.high is not None
    assert best.effect.high < 0
    step = np.array([[0.9, -0.6], [0.6, 0.8]])
    truth = np.linalg.norm(np.linalg.matrix_power(step, best.rounds) @ [1.0, 1.0])
    assert found.unchanged == pytest.approx(truth, rel=0.02)
    assert best.after is not None
    assert best.after < 0.15
    assert {t.name for t in found.tried} >= {
        "four times the critic's rate",
        "a quarter of all rates",
    }
    # Everything is where it was.
    assert torch.equal(state, torch.get_rng_state())
    assert game.g.x.item() == game.d.x.item() == 1.0
    assert [rule.param_groups[0]["lr"] for rule in game.rules] == [0.2, 0.2]
    assert tried(game).describe() == found.describe()


def test_consensus_where_no_rate_converges() -> None:
    """a = 0: every rate diverges, and consensus of weight 1 contracts (b = 1: by sqrt((1 - h)^2 + h^2))."""
    game = Game(0.0, 0.0, 1.0, 0.3)
    found = tried(game, changes={"consensus": game.consensus})
    assert found.change == "consensus"
    assert found.best is not None
    assert found.best.after is not None
    assert found.best.after < 0.05
    assert game.weight == 0.0
    dropped = [t for t in found.tried if t.effect is None]
    assert len(dropped) == 5
    assert all(t.selected for t in dropped)


def test_none_where_no_change_helps() -> None:
    """The optimisers hold other tensors than the modules: no rate moves anything."""
    found = tried(Game(0.5, 1.0, 3.0, 0.2, stale=True), changes={"nothing": lambda loop: None})
    assert found.change is None
    assert found.sentence.startswith("None of the")
    assert found.before == found.unchanged == pytest.approx(2**0.5)


def test_noise_is_not_prescribed() -> None:
    """Changes without effect, measured with noise of its own in every branch: no more than the nominal share helps."""
    wrong = 0
    for k in range(12):
        rng = np.random.default_rng(k)
        game = Game(0.5, 0.5, 1.0, 0.1)
        found = prescribe(
            game.loop(),
            {f"nothing {i}": lambda loop: None for i in range(2)},
            measure=lambda loop, rng=rng: rng.normal(),
            gradients=640,
            seed=k,
            progress="none",
        )
        wrong += found.change is not None
    assert wrong <= 3  # of 12, at 2.5% in all: more has a probability below 1e-3


def recipe() -> eq.Recipe:
    """WGAN of a shift against a linear critic: bilinear in the means, so simultaneous steps swing ever wider."""
    made = LinearGenerator(1, 1)
    with torch.no_grad():
        made.W.fill_(1.0)
        made.u.fill_(0.5)
    critic = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        critic.weight.zero_()
    game = eq.GAN(made, critic, eq.WGAN(), latent=1, penalties=[eq.R1(1e-3)])
    data = Gaussian(np.zeros(1), np.eye(1))
    return eq.Recipe(game, data, eq.Simultaneous(eq.SGD(0.3)), steps=20, batch=64)


def test_a_run_of_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    run = eq.train(recipe(), folder, progress="none")
    known = changes_of(run.recipe)
    assert {"a quarter of both rates", "ten times of the penalty", "consensus"} <= set(known)
    assert known["ten times of the penalty"](run.recipe).game.penalties[0].weight == 0.01
    assert run.recipe.game.penalties[0].weight == 1e-3
    before = copy.deepcopy(run.players)
    chosen = {k: known[k] for k in ("consensus", "a tenth of the penalty", "four times the batch")}
    found = prescribe(run, chosen, by="score", gradients=1200, seeds=3, progress="none")
    assert found.change == "consensus"
    assert found.quantity == "energy distance"
    costs = {t.name: t.cost for t in found.tried}
    assert (found.own_cost, costs["four times the batch"], costs["consensus"]) == (2.0, 8.0, 3.0)
    assert all(torch.equal(v, run.players[p][k]) for p, q in before.items() for k, v in q.items())
    file = tmp_path / "own.py"
    file.write_text(
        f"import sys\nsys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_prescribe import recipe\n"
    )
    named = ["prescribe", str(folder), "--recipe", f"{file}:recipe", "--progress", "none"]
    assert main([*named, "--changes"]) == 0
    assert "a quarter of both rates" in capsys.readouterr().out
    assert main([*named, "--change", "consensu"]) == 2
    assert "did you mean" in capsys.readouterr().err
    asked = ["--change", "consensus", "--by", "score", "--gradients", "1000", "--seeds", "3"]
    assert main([*named, *asked]) == 0
    assert capsys.readouterr().out.startswith("Change to consensus: the energy distance ends at")
    assert (folder / "prescription.json").is_file()


def test_what_cannot_be_tried_is_said() -> None:
    game = Game(0.5, 1.0, 3.0, 0.2)
    with pytest.raises(RecipeError, match="at least, or fewer changes"):
        prescribe(game.loop(), measure=game.distance, gradients=100, progress="none")
    with pytest.raises(RecipeError, match="give Loop its save"):
        prescribe(Loop(game.step, {}, "wgan"))
    with pytest.raises(RecipeError, match="what shall fall"):
        prescribe(game.loop())
    with pytest.raises(RecipeError, match="needs a run of ours, a Play or a Loop"):
        prescribe(3)
    with pytest.raises(RecipeError, match="no option 'bye'"):
        prescribe(game.loop(), measure=game.distance, bye=1)


def test_the_blocks_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    space: dict[str, Any] = {}
    for block in to_run("docs/prescribe.md"):
        exec(block, space)
    assert capsys.readouterr().out.startswith("Change to a quarter of ")


def test_what_else_a_change_does_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the gap: the score of the samples stands beside it."""
    monkeypatch.setattr("equilibrist.prescriptions.run_fork.SEARCH", 120)
    run = eq.train(recipe(), tmp_path / "run", progress="none")
    chosen = {"consensus": changes_of(run.recipe)["consensus"]}
    found = prescribe(run, chosen, gradients=1000, seeds=3, progress="none")
    assert (found.quantity, found.unit) == ("duality gap", "score units")
    assert found.best is not None
    assert found.best.beside is not None
    assert found.best.beside.n == 3
    assert "; the energy distance " in str(found)
    assert found.describe()["tried"][0]["beside"]["n"] == 3


def test_stacked_branches_are_single_ones(tmp_path: Path) -> None:
    run = eq.train(recipe(), tmp_path / "run", progress="none")
    chosen = {k: changes_of(run.recipe)[k] for k in ("consensus", "an average of the generator")}
    fork = RunFork(run, chosen, by="score")
    for name in ("", *chosen):
        together = [value for value, _ in fork.values(name, (1, 2, 3), 12)]
        alone = [value for seed in (1, 2, 3) for value, _ in fork.values(name, (seed,), 12)]
        assert together == pytest.approx(alone, rel=1e-4)
        assert len(set(alone)) == 3
    assert not fork._alone


def test_a_play_on_modules_of_a_loop() -> None:
    """The same branches as of a run; a Play over torch's optimisers would step them, and is refused."""
    made = recipe()
    start = made.game.init(0)
    modules = made.game.load(start.players, start.constants)
    play = Play(made.game, modules["generator"], modules["critic"], made.solver)
    data = torch.randn(500, 1, generator=torch.Generator().manual_seed(0))
    for k in range(10):
        play.step(data[k * 50 : (k + 1) * 50])
    before = copy.deepcopy(play.state_dict()), copy.deepcopy(modules["critic"].state_dict())
    chosen = {"consensus": changes_of(made)["consensus"]}
    found = prescribe(play, chosen, data=data, by="score", gradients=700, seeds=5, progress="none")
    assert found.change == "consensus"
    assert play.state_dict()["steps"] == before[0]["steps"] == 10
    assert all(torch.equal(v, before[1][k]) for k, v in modules["critic"].state_dict().items())
    with pytest.raises(RecipeError, match="give data"):
        prescribe(play, chosen)
    rule = {p: TorchRule(torch.optim.SGD(m.parameters(), 0.1), m) for p, m in modules.items()}
    torches = eq.Simultaneous(optimizers=rule)
    other = Play(made.game, modules["generator"], modules["critic"], torches)
    with pytest.raises(RecipeError, match="cannot be branched off"):
        prescribe(other, chosen, data=data)
