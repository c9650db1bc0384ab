"""What is shown while a run goes on, and TensorBoard."""

import io
import re
import sys

import pytest
from killing import CONFIGURATIONS, differences, picture

from equilibrist import RecordError, progress
from equilibrist.run import train


def test_plain_lines_where_there_is_no_terminal(tmp_path, capfd):
    train(CONFIGURATIONS["plain"](every=(2, 8, 6)), tmp_path, device="cpu")
    out, err = capfd.readouterr()
    assert out == ""
    assert "\x1b" not in err
    assert "\r" not in err
    lines = err.splitlines()
    assert 9 <= len(lines) <= 12  # a line every tenth of the way
    for line in lines:
        assert re.fullmatch(
            r"tiny \d+/24  generator \S+  critic \S+  [\d.]+ steps/s  \d+ s left", line
        ), line
    assert lines[-1].startswith("tiny 24/24")


def test_lines_of_a_resumed_run_count_from_its_start(tmp_path, capfd, stop_at, go):
    stop_at(16)
    go(tmp_path)
    capfd.readouterr()
    train(CONFIGURATIONS["plain"](), tmp_path, device="cpu", progress="lines")
    assert [line.split()[1] for line in capfd.readouterr().err.splitlines()] == ["20/24", "24/24"]


def test_silence(tmp_path, capfd, go):
    go(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_long_tenth_is_not_silent(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = progress.Lines("t", 10**6, 0)
    for step in range(1, 41):
        now[0] += 1.0
        lines.update(step, {})
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_bar(tmp_path, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    train(CONFIGURATIONS["plain"](), tmp_path, device="cpu")
    assert "24/24" in terminal.getvalue()


def test_progress_changes_nothing(tmp_path, go, capfd):
    go(tmp_path / "a")
    train(CONFIGURATIONS["plain"](), tmp_path / "b", device="cpu", progress="lines")
    assert differences(picture(tmp_path / "a"), picture(tmp_path / "b")) == []


def test_tensorboard(tmp_path, go):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(
        CONFIGURATIONS["plain"](), tmp_path / "a", device="cpu", progress="none", tensorboard=True
    )
    events = EventAccumulator(str(tmp_path / "a" / "tensorboard"))
    events.Reload()
    assert {"loss/generator", "loss/critic", "grad_norm/critic"} <= set(events.Tags()["scalars"])
    assert [e.step for e in events.Scalars("loss/critic")] == [4, 8, 12, 16, 20, 24]
    go(tmp_path / "b")
    plain = {k: v for k, v in picture(tmp_path / "a").items() if not k.startswith("tensorboard/")}
    assert differences(picture(tmp_path / "b"), plain) == []


def test_tensorboard_is_missing(tmp_path, monkeypatch, go):
    for name in ("tensorboard", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(RecordError, match=r"--tensorboard needs TensorBoard: pip install") as error:
        train(CONFIGURATIONS["plain"](), tmp_path, device="cpu", progress="none", tensorboard=True)
    assert "\n" not in str(error.value)
    assert go(tmp_path).step == 24
