"""Commands keep the user's files, and every end has its word and exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from equilibrist.checks import REGISTRY


def one_line(answer: Any, code: int, *words: str) -> None:
    assert answer.code == code
    assert len(answer.err.splitlines()) == 1
    for word in words:
        assert word in answer.err


@pytest.mark.parametrize("name", ["picture.png", "array.npy"])
def test_sample_replaces_its_own_file_and_no_other(
    name: str, digits: Path, here: Path, cli: Any, well: Any
) -> None:
    (here / name).write_text("mine")
    one_line(cli("sample", digits, "-o", name), 3, name, "not written by equilibrist", "--force")
    assert (here / name).read_text() == "mine"
    well("sample", digits, "-o", name, "--force")
    well("sample", digits, "-n", 7, "-o", name)
    content = (here / name).read_bytes()
    (here / name).write_bytes(content + b" with a remark")
    one_line(cli("sample", digits, "-o", name), 3, "has been changed since")


def test_export_replaces_its_own_files_and_no_other(
    digits: Path, here: Path, cli: Any, well: Any
) -> None:
    (here / "weights").mkdir()
    (here / "weights" / "notes.txt").write_text("mine")
    for _ in range(2):
        well("export", digits)
        well("export", digits, "-o", "weights")
    (here / "weights" / "critic.safetensors").write_text("mine")
    before = (here / "weights" / "generator.safetensors").read_bytes()
    one_line(cli("export", digits, "-o", "weights"), 3, "critic.safetensors", "--force")
    assert (here / "weights" / "critic.safetensors").read_text() == "mine"
    assert (here / "weights" / "generator.safetensors").read_bytes() == before
    well("export", digits, "-o", "weights", "--force")
    assert (here / "weights" / "notes.txt").read_text() == "mine"


def test_report_and_pages_replace_their_own_files_and_no_other(
    digits: Path, here: Path, cli: Any, well: Any
) -> None:
    for _ in range(2):
        well("report", digits)
    (digits / "report.html").write_text("mine")
    one_line(cli("report", digits), 3, "report.html")
    assert (digits / "report.html").read_text() == "mine"
    words = ["play", "bilinear", "--solver", "simultaneous", "--steps", 3, "--starts", 1]
    for _ in range(2):
        well(*words)
    (here / "play-bilinear.html").write_text("mine")
    one_line(cli(*words), 3, "play-bilinear.html")
    assert (here / "play-bilinear.html").read_text() == "mine"


def test_the_place_of_a_report_is_asked_for_before_the_work(
    digits: Path, here: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any, **__: Any) -> None:
        pytest.fail("the work was begun")

    run = ["run", "digits-sngan", "--dir", digits, "--progress", "none"]
    well = ["--set", "steps=4", "--set", "dim=4", "--set", "latent=4", "--set", "batch=16"]
    assert cli(*run, *well).code == 0
    (digits / ".equilibrist").unlink()
    monkeypatch.setattr("equilibrist.run.train", never)
    monkeypatch.setattr("equilibrist.checks.audit", never)
    for words in ((*run, *well), ("audit", digits, "--progress", "none")):
        one_line(cli(*words), 3, "report.json", ".equilibrist beside it", "is missing")


@pytest.mark.parametrize("command", ["report", "audit"])
def test_a_damaged_ledger_is_told_in_one_line(command: str, digits: Path, cli: Any) -> None:
    (digits / ".equilibrist").write_text("{")
    answer = cli(command, digits)
    lines = answer.err.splitlines()
    assert (answer.code, len(lines)) == (3, 2)
    assert lines[0].startswith("equilibrist: warning: ")
    assert "is damaged" in lines[0]
    assert lines[1].startswith("equilibrist: error: ")


def test_a_diverged_run_says_so(tmp_path: Path, cli: Any) -> None:
    words = ["run", "digits-sngan", "--set", "steps=4", "--set", "dim=4", "--set", "latent=4"]
    words += ["--set", "batch=16", "--set", "lr=1e9", "--dir", str(tmp_path), "--progress", "none"]
    for _ in range(2):
        answer = cli(*words)
        one_line(answer, 4, "this pair has diverged", "smaller step size")
        assert "Trained" not in answer.out
        assert "Diverged: all 4 steps are done and saved" in answer.out
        assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("count", [1025, 10**6])
def test_threads_that_no_machine_has(count: int, here: Path, cli: Any) -> None:
    one_line(cli("run", "eight-gaussians", "--threads", count), 2, f"--threads {count}", "at most")
    assert list(here.iterdir()) == []


def test_ctrl_c_in_an_audit_says_what_is_kept(
    digits: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    def stop(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setitem(REGISTRY, "nash", dataclasses.replace(REGISTRY["nash"], run=stop))
    answer = cli("audit", digits, "--check", "nash", "--progress", "none")
    one_line(answer, 130, "interrupted; the checks that are finished are kept")


START = """
import signal, sys
class Strike:
    def find_spec(self, name, *_):
        if name == MODULE:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)
# As in a terminal: a parent that runs in the background may have left the signal ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Strike())
from equilibrist.__main__ import script
sys.argv[1:] = ["run", "eight-gaussians", "--set", "steps=4", "--dir", sys.argv[1], "--progress", "none"]
script()
"""


@pytest.mark.parametrize(
    "module", ["equilibrist.cli", "typer", "torch", "torch._ops", "safetensors"]
)
def test_ctrl_c_while_the_command_starts_is_one_line(module: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START.replace("MODULE", repr(module)), tmp_path / "r"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "equilibrist: error: interrupted\n"
    assert not (tmp_path / "r").exists()


def test_a_full_output_is_named(digits: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "equilibrist", "info", digits],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    assert done.returncode == 3
    assert "equilibrist: error: standard output: No space left on device" in done.stderr
