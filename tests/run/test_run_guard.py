"""What a guard does about divergence: which state it goes back to, with which steps, and what it leaves behind."""

import inspect
import json
import shutil
import warnings

import pytest
import torch
from killing import recipe

from equilibrist import NonFiniteError, RecipeError, RecordError
from equilibrist.optimizers import SGD, Adam
from equilibrist.per_member import smaller_steps
from equilibrist.run import Guard, checkpoint, guard, train
from equilibrist.run.record import Record
from equilibrist.schedules import Clipped, Piecewise, Scheduled
from equilibrist.solvers import Alternating, Competitive, Simultaneous
from equilibrist.solvers.named import NAMES, solver_from_text

RATE = 0.05


@pytest.fixture
def breaking(monkeypatch):
    """Losses that are infinite at a step whenever the step size is above a limit."""

    def arrange(at, above):
        real = Simultaneous.step

        def step(self, field, players, constants, state, draws):
            result = real(self, field, players, constants, state, draws)
            if draws.step + 1 in at and self.rule("critic").lr > above:
                result.info["loss"]["critic"] = torch.full_like(
                    result.info["loss"]["critic"], torch.inf
                )
            return result

        monkeypatch.setattr(Simultaneous, "step", step)

    return arrange


def go(directory, guard=True, steps=24, rate=RATE):
    return train(
        recipe(Simultaneous(SGD(rate)), steps=steps),
        directory,
        device="cpu",
        progress="none",
        guard=guard,
        compile="off",
    )


def entries(directory):
    return json.loads((directory / "guard.json").read_text())


def weights(run):
    return torch.cat([t.flatten() for part in run.players.values() for t in part.values()])


def test_it_goes_back_to_the_newest_checkpoint_with_half_the_steps(tmp_path, breaking):
    # By hand: the whole steps up to the checkpoint, half of them from there on.
    go(tmp_path / "hand", guard=False, steps=6)
    first = go(tmp_path / "hand", guard=False, steps=6)
    manifest = json.loads((tmp_path / "hand" / "recipe.json").read_text())
    (tmp_path / "hand" / "guard.json").write_text(
        json.dumps([{"diverged": 10, "back_to": 6, "factor": 0.5, "why": "by hand"}])
    )
    by_hand = go(tmp_path / "hand", guard=False)
    assert manifest["settings"] == {}
    assert not torch.equal(weights(first), weights(by_hand))
    breaking({10}, above=0.6 * RATE)
    with pytest.warns(UserWarning, match="going back to step 6, and on from there with 0.5 of the"):
        run = go(tmp_path / "run")
    assert run.step == 24
    assert not run.diverged
    assert torch.equal(weights(run), weights(by_hand))
    (entry,) = entries(tmp_path / "run")
    assert (entry["diverged"], entry["back_to"], entry["factor"]) == (10, 6, 0.5)
    assert "the critic's loss is not finite" in entry["why"]
    steps = [row["step"] for row in Record(tmp_path / "run").rows()]
    assert steps == sorted(set(steps))
    assert json.loads((tmp_path / "run/status.json").read_text())["state"] == "finished"


def test_smaller_steps_are_those_of_a_smaller_rate(tmp_path, breaking):
    whole = go(tmp_path / "quarter", guard=False, rate=0.25 * RATE)
    # From step 6 twice in vain, then from the beginning with a quarter.
    breaking({10}, above=0.3 * RATE)
    with pytest.warns(UserWarning, match="going back to step"):
        run = go(tmp_path / "run")
    assert [(e["back_to"], e["factor"]) for e in entries(tmp_path / "run")] == [(6, 0.5), (0, 0.25)]
    assert torch.equal(weights(run), weights(whole))


def test_an_interrupted_run_keeps_its_smaller_steps(tmp_path, breaking, stop_at):
    breaking({10}, above=0.6 * RATE)
    with pytest.warns(UserWarning, match="going back"):
        whole = go(tmp_path / "whole")
    stop_at(15)
    with pytest.warns(UserWarning, match="going back"):
        part = go(tmp_path / "run")
    assert part.interrupted
    end = go(tmp_path / "run", guard=False)
    assert torch.equal(weights(end), weights(whole))
    one, two = (Record(tmp_path / name).rows() for name in ("whole", "run"))
    assert [row["loss"] for row in one] == [row["loss"] for row in two]


def test_it_gives_up_after_so_many_times(tmp_path, breaking):
    breaking({20}, above=0.0)
    with (
        pytest.warns(UserWarning, match="going back"),
        pytest.raises(NonFiniteError, match="step 20"),
    ):
        go(tmp_path, guard=Guard(factor=0.1, times=3))
    found = entries(tmp_path)
    # Each time it fails before a new checkpoint, it goes one further back; new checkpoints begin the count again.
    assert [e["back_to"] for e in found] == [18, 12, 18]
    assert [e["factor"] for e in found] == pytest.approx([0.1, 0.01, 0.001])
    with pytest.raises(NonFiniteError):  # and not again
        go(tmp_path, guard=Guard(factor=0.1, times=3))
    assert len(entries(tmp_path)) == 3


def test_states_that_have_blown_up_are_passed_over(tmp_path, breaking):
    go(tmp_path, guard=False, steps=18)
    path = checkpoint.path_of(tmp_path / "checkpoints", 18)
    flat, meta, _ = checkpoint.read_checkpoint(path)
    flat["players/critic/0.weight"] *= 1e6
    nested: dict = {}
    for key, value in flat.items():
        at = nested
        *parents, last = key.split("/")
        for name in parents:
            at = at.setdefault(name, {})
        at[last] = value
    checkpoint.write_checkpoint(path, nested, meta)
    breaking({20}, above=0.6 * RATE)
    with pytest.warns(UserWarning, match="going back to step 12"):
        assert go(tmp_path).step == 24


def test_a_real_divergence_is_survived(tmp_path):
    """Fully linear players and Wasserstein's game: simultaneous steps spiral outwards, larger ones faster."""
    with pytest.warns(UserWarning, match="going back"):
        run = train(
            recipe(Simultaneous(Adam(1e30)), every=(2, 4, 2), steps=8),
            tmp_path,
            device="cpu",
            progress="none",
            guard=Guard(factor=1e-31, times=2),
        )
    assert run.step == 8
    assert torch.isfinite(weights(run)).all()
    assert [e["back_to"] for e in entries(tmp_path)] == [0]


def test_what_it_refuses(tmp_path, breaking):
    for wrong in ({"factor": 1.0}, {"factor": 0}, {"times": 0}, {"times": True}):
        with pytest.raises(ValueError, match="Guard"):
            Guard(**wrong)
    with pytest.raises(RecipeError, match="guard='yes'"):
        go(tmp_path / "word", guard="yes")
    breaking({10}, above=0.6 * RATE)
    with pytest.warns(UserWarning, match="going back"):
        go(tmp_path / "run")
    for text in (
        "{",
        "{}",
        '[{"factor": 0.5}]',
        '[{"diverged": 1, "back_to": 0, "factor": 2, "why": ""}]',
    ):
        (tmp_path / "run/guard.json").write_text(text)
        with pytest.raises(RecordError, match=r"guard\.json"):
            go(tmp_path / "run")


def test_another_recipe_does_not_inherit_it(tmp_path):
    """A directory in which no step is kept takes any recipe."""
    go(tmp_path, guard=False, steps=6)
    for name in ("checkpoints", "samples"):
        for path in (tmp_path / name).iterdir():
            path.unlink()
    (tmp_path / "metrics.jsonl").write_text("")
    status = json.loads((tmp_path / "status.json").read_text())
    (tmp_path / "status.json").write_text(json.dumps(status | {"state": "running", "step": 0}))
    (tmp_path / "guard.json").write_text(
        json.dumps([{"diverged": 4, "back_to": 0, "factor": 0.5, "why": "then"}])
    )
    other = go(tmp_path, guard=False, rate=0.5 * RATE)
    shutil.rmtree(tmp_path)
    assert torch.equal(weights(other), weights(go(tmp_path, guard=False, rate=0.5 * RATE)))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_solver_takes_smaller_steps(name):
    solver = solver_from_text(name, Simultaneous(SGD(0.2), {"critic": SGD(0.02)}))
    made = smaller_steps(solver, 0.25)

    def rates(value):
        while not hasattr(value, "rule") and hasattr(value, "solver"):
            value = value.solver
        found = []
        for player in ("generator", "critic"):
            rule = value.rule(player)
            while not hasattr(rule, "lr"):
                rule = rule.rule
            found.append(rule.lr)
        return found

    assert rates(made) == pytest.approx([0.25 * rate for rate in rates(solver)])


def test_wrapped_rules_and_steps_beside_them():
    inside = Scheduled(Clipped(SGD(0.2), 1.0), Piecewise(((0, 1.0), (9, 0.1))))
    made = smaller_steps(Alternating(optimizers={"generator": inside, "critic": SGD(1.0)}), 0.5)
    assert made.rule("generator").rule.rule.lr == 0.1
    assert made.rule("generator").schedule == inside.schedule
    assert made.rule("critic").lr == 0.5
    assert smaller_steps(Competitive(SGD(0.2), eta=0.3), 0.5).eta == 0.15
    with pytest.raises(RecipeError, match="no update rules"):
        smaller_steps(object(), 0.5)


@pytest.mark.parametrize("part", ["status", "rewind", "drop_after", "write_json"])
@pytest.mark.parametrize("before", [True, False])
def test_a_process_that_ends_on_the_way_back_comes_to_the_same(
    part, before, tmp_path, breaking, monkeypatch
):
    breaking({10}, above=0.3 * RATE)
    with pytest.warns(UserWarning, match="going back"):
        whole = go(tmp_path / "whole")

    class Killed(BaseException):
        pass

    where = {"status": Record, "rewind": Record, "drop_after": checkpoint, "write_json": guard}
    real, calls = getattr(where[part], part), []

    def dies(*given, **named):
        if inspect.stack()[1].function == "go_back":
            calls.append(given)
            if len(calls) == 2:  # the second time that it goes back
                if not before:
                    real(*given, **named)
                raise Killed
        return real(*given, **named)

    monkeypatch.setattr(where[part], part, dies)
    with pytest.warns(UserWarning, match="going back"), pytest.raises(Killed):
        go(tmp_path / "run")
    monkeypatch.setattr(where[part], part, real)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = go(tmp_path / "run")
    assert torch.equal(weights(run), weights(whole))
    assert [(e["back_to"], e["factor"]) for e in entries(tmp_path / "run")] == [(6, 0.5), (0, 0.25)]
