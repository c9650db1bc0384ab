"""Values that are not finite, Ctrl-C, SIGTERM."""

import json
import os
import signal
import threading

import pytest
import torch
from killing import differences, picture, recipe

from equilibrist import NonFiniteError
from equilibrist.optimizers import Adam
from equilibrist.run import checkpoint, train
from equilibrist.run.record import Record
from equilibrist.run.stopping import StopRequest
from equilibrist.solvers import Simultaneous


def status(directory):
    return json.loads((directory / "status.json").read_text())


@pytest.fixture
def poison(monkeypatch):
    """Makes one measurement of one step infinite or undefined."""

    def arrange(kind, player, at, value=float("nan"), solver=Simultaneous):
        real = solver.step

        def step(self, field, players, constants, state, draws):
            result = real(self, field, players, constants, state, draws)
            if draws.step + 1 == at:
                result.info[kind][player] = torch.full_like(result.info[kind][player], value)
            return result

        monkeypatch.setattr(solver, "step", step)

    return arrange


@pytest.mark.parametrize(
    ("kind", "player", "at", "value", "kept"),
    [
        ("loss", "generator", 1, float("nan"), None),
        ("loss", "critic", 7, float("inf"), "step_00000006.safetensors"),
        ("grad_norm", "generator", 12, float("nan"), "step_00000006.safetensors"),
        ("grad_norm", "critic", 13, float("-inf"), "step_00000012.safetensors"),
        ("loss", "critic", 24, float("nan"), "step_00000018.safetensors"),
    ],
)
def test_not_finite(kind, player, at, value, kept, tmp_path, go, poison, monkeypatch):
    go(tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(Simultaneous, "step", Simultaneous.step)
        poison(kind, player, at, value)
        for _ in range(2):  # the same command again says the same
            with pytest.raises(NonFiniteError) as caught:
                go(tmp_path / "run")
            error = caught.value
            assert (error.step, error.player, error.checkpoint) == (at, player, kept)
            assert error.quantity == ("loss" if kind == "loss" else "gradient")
            text = str(error)
            assert "\n" not in text
            assert f"step {at}: the {player}'s {error.quantity} is not finite" in text
            assert (kept or "no checkpoint yet") in text
            wanted = {"state": "diverged", "step": at, "message": text, "checkpoint": kept}
            assert status(tmp_path / "run") == wanted
            rows = Record(tmp_path / "run").rows()
            assert all(row["step"] < at for row in rows)
            names = [p.name for _, p in checkpoint.existing(tmp_path / "run" / "checkpoints")]
            assert (names[-1] if names else None) == kept
        monkeypatch.undo()
    # Once the cause is gone it goes on, and nothing of the failure stays behind.
    assert go(tmp_path / "run").step == 24
    assert differences(picture(tmp_path / "whole"), picture(tmp_path / "run")) == []


def test_the_first_bad_step_is_named(tmp_path, go, poison):
    poison("loss", "critic", 6)
    poison("loss", "generator", 5)
    with pytest.raises(NonFiniteError, match="step 5: the generator's loss"):
        go(tmp_path)


def test_a_game_that_blows_up(tmp_path):
    with pytest.raises(NonFiniteError) as error:
        train(recipe(Simultaneous(Adam(1e30))), tmp_path, device="cpu", progress="none")
    assert error.value.step == 2
    assert status(tmp_path)["state"] == "diverged"


def test_parameters_that_are_not_finite_are_never_saved(tmp_path):
    rule = Adam(1e-3)
    object.__setattr__(rule, "lr", 1e39)  # no rule can be made with that
    subject = recipe(Simultaneous(rule), steps=1, every=(1, 1, 1))
    with pytest.raises(NonFiniteError, match="parameter is not finite") as error:
        train(subject, tmp_path, device="cpu", progress="none")
    assert (error.value.step, error.value.quantity) == (1, "parameter")
    assert checkpoint.existing(tmp_path / "checkpoints") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(number, tmp_path, go, stop_at):
    before = signal.getsignal(number)
    stop_at(5, number=number)
    run = go(tmp_path)
    assert run.interrupted
    assert run.step == 5
    assert run.checkpoint == "step_00000005.safetensors"
    assert (tmp_path / "checkpoints" / run.checkpoint).exists()
    assert status(tmp_path) == {
        "state": "interrupted",
        "step": 5,
        "message": "",
        "checkpoint": run.checkpoint,
    }
    assert signal.getsignal(number) is before


def test_asked_to_stop_in_the_last_step(tmp_path, go, stop_at):
    stop_at(24)
    run = go(tmp_path)
    assert not run.interrupted
    assert status(tmp_path)["state"] == "finished"


@pytest.mark.parametrize(
    "numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT)]
)
def test_asked_twice(numbers, tmp_path, go, at_step):
    def twice():
        for number in numbers:
            signal.raise_signal(number)

    before = signal.getsignal(signal.SIGINT)
    at_step({9: twice})
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path / "run")
    assert signal.getsignal(signal.SIGINT) is before
    names = [p.name for _, p in checkpoint.existing(tmp_path / "run" / "checkpoints")]
    assert names == ["step_00000006.safetensors"]  # at once: nothing more was saved
    go(tmp_path / "run")  # the lock is free and nothing is broken
    go(tmp_path / "whole")
    assert differences(picture(tmp_path / "whole"), picture(tmp_path / "run")) == []


def test_asked_to_stop_while_a_row_is_logged(tmp_path, go, monkeypatch):
    real = Record.log

    def log(self, row):
        real(self, row)
        if row["step"] == 8:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Record, "log", log)
    run = go(tmp_path)
    assert run.interrupted
    assert run.checkpoint == f"step_{run.step:08d}.safetensors"
    assert (tmp_path / "checkpoints" / run.checkpoint).exists()


def test_asked_to_stop_before_the_first_step(tmp_path, go, monkeypatch):
    real = Record.session

    def session(self, entry):
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, entry)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "session", session)
        run = go(tmp_path / "run")
    assert run.interrupted
    assert run.step == 0
    go(tmp_path / "run")
    go(tmp_path / "whole")
    assert differences(picture(tmp_path / "whole"), picture(tmp_path / "run")) == []


def test_outside_of_the_main_thread(tmp_path, go):
    found = []
    thread = threading.Thread(target=lambda: found.append(go(tmp_path)))
    thread.start()
    thread.join()
    assert found[0].step == 24


def test_every_error_frees_the_lock(tmp_path, go, at_step):
    def fail():
        raise ValueError("boom")

    at_step({3: fail})
    with pytest.raises(ValueError, match="boom"):
        go(tmp_path)
    assert go(tmp_path).step == 24
    assert not StopRequest()
