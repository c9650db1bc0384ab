"""What a session records of its surroundings, without starting any of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from equilibrist.run import environment

COMMIT, OTHER = "0123456789abcdef" * 2 + "01234567", "f" * 40
CPU = torch.device("cpu")


def repository(folder: Path, head: str = "ref: refs/heads/main\n") -> Path:
    git = folder / ".git"
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text(head)
    return git


def commit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str | None:
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    found = environment.environment(CPU, 0)["git"]
    return None if found is None else found["commit"]


def test_the_commit_of_a_loose_reference(tmp_path, monkeypatch) -> None:
    (repository(tmp_path) / "refs" / "heads" / "main").write_text(f"{COMMIT}\n")
    assert commit(tmp_path, monkeypatch) == COMMIT
    assert commit(tmp_path / "a" / "b", monkeypatch) == COMMIT


def test_the_commit_of_a_packed_reference_and_of_a_detached_head(tmp_path, monkeypatch) -> None:
    git = repository(tmp_path)
    (git / "packed-refs").write_text(
        f"# pack-refs with: peeled\n{OTHER} refs/heads/main2\n{COMMIT} refs/heads/main\n^{OTHER}\n"
    )
    assert commit(tmp_path, monkeypatch) == COMMIT
    (git / "HEAD").write_text(f"{OTHER}\n")
    assert commit(tmp_path, monkeypatch) == OTHER


def test_the_commit_of_a_work_tree(tmp_path, monkeypatch) -> None:
    git = repository(tmp_path / "main")
    (git / "refs" / "heads" / "topic").write_text(COMMIT)
    (git / "worktrees" / "a").mkdir(parents=True)
    (git / "worktrees" / "a" / "HEAD").write_text("ref: refs/heads/topic")
    (git / "worktrees" / "a" / "commondir").write_text("../..\n")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / ".git").write_text(f"gitdir: {git / 'worktrees' / 'a'}\n")
    assert commit(tmp_path / "a", monkeypatch) == COMMIT


@pytest.mark.parametrize(
    "head",
    ["", "ref: ../../secret", "ref: refs/heads/../../../../secret", "ref: x", "\xff\0", "a" * 9999],
)
def test_an_odd_repository_tells_no_commit(tmp_path, monkeypatch, head) -> None:
    (tmp_path / "secret").write_text(COMMIT)
    repository(tmp_path / "a" / "b", head)
    assert commit(tmp_path / "a" / "b", monkeypatch) is None


def test_a_pipe_in_a_repository_does_not_keep_a_session_waiting(tmp_path, monkeypatch) -> None:
    (repository(tmp_path) / "HEAD").unlink()
    os.mkfifo(tmp_path / ".git" / "HEAD")
    assert commit(tmp_path, monkeypatch) is None


def test_it_agrees_with_git(tmp_path, monkeypatch) -> None:
    def git(*words: str) -> str:
        named = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
        run = ["git", *named, *words]
        return subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    try:
        git("init")
    except FileNotFoundError:
        pytest.skip("no git")
    assert commit(tmp_path, monkeypatch) is None
    git("commit", "--allow-empty", "-m", "first")
    assert commit(tmp_path, monkeypatch) == git("rev-parse", "HEAD").strip()
    git("pack-refs", "--all")
    assert commit(tmp_path, monkeypatch) == git("rev-parse", "HEAD").strip()


def test_a_session_starts_no_program(tmp_path) -> None:
    """Neither git, which runs what the folder's configuration names, nor what PATH finds."""
    (repository(tmp_path) / "config").write_text("[core]\n\tfsmonitor = touch ran\n")
    code = """
import sys
import torch
from equilibrist.run import environment
def hook(event, arguments):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "os.system"):
        print("STARTED", event, arguments)
sys.addaudithook(hook)
print(environment.environment(torch.device("cpu"), 0)["machine"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "STARTED" not in done.stdout
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("entry", [{}, {"versions": []}, {"machine": 3, "threads": None}, [], None])
def test_an_entry_of_another_form_has_no_identity(entry) -> None:
    assert set(environment.identity(entry).values()) == {None}
