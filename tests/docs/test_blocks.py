"""Every block of code on every page: Python is run by a test, commands exist with their options."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from fences import PAGES, ROOT, blocks, to_run

from equilibrist.arguments import parameters
from equilibrist.cli import app
from equilibrist.recipe_lookup import catalogue

RUN_BY = {
    "README.md": "docs/test_readme.py",
    "docs/already_train.md": "docs/test_already_train.py",
    "docs/checkpoints.md": "checkpoints/test_choose_checkpoint.py",
    "docs/choose.md": "docs/test_replay.py",
    "docs/cluster.md": "run/test_team.py",
    "docs/critic.md": "critics/test_critic_docs.py",
    "docs/extend.md": "docs/test_extend.py",
    "docs/listen.md": "interop/test_listen_docs.py",
    "docs/mixed.md": "docs/test_examples.py",
    "docs/new_solver.md": "solvers/test_solvers_new.py",
    "docs/own_loop.md": "docs/test_examples.py",
    "docs/own_losses.md": "docs/test_own_losses_page.py",
    "docs/prescribe.md": "prescriptions/test_prescribe.py",
    "docs/own_pair.md": "checks/test_audit_pair.py",
    "docs/diagnose.md": "diagnosis/test_diagnose_docs.py",
    "docs/zoo.md": "zoo/test_zoo_docs.py",
    "docs/resume.md": "diagnosis/test_resume_docs.py",
}
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
OTHERS = {"pip", ".", "python3"}  # what readers have already


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_say_what_they_are(page: Path) -> None:
    """Python and commands are held to account below; text and toml are neither."""
    for block in blocks(page):
        assert block.language in ("python", "console", "text", "toml"), block.text
        assert not block.reason or block.language == "python"
    assert "```" not in re.sub(r"^```\S*\n.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)


def test_python_is_run_by_a_test() -> None:
    assert {name(page) for page in PAGES if to_run(page)} == set(RUN_BY)
    for page, test in RUN_BY.items():
        source = (ROOT / "tests" / test).read_text(encoding="utf-8")
        assert Path(page).name in source, page
        assert re.search(r"\bexec\(|\"-c\"", source), test


def test_what_is_not_run_is_little() -> None:
    """Each with its reason; no page hides behind them."""
    left = [block for page in PAGES for block in blocks(page, "python") if block.reason]
    assert len(left) == 5
    assert all("examples/" in block.reason for block in left), "run by test_examples.py"


def commands() -> Iterator[tuple[str, str]]:
    """Every command of every page, with its page: of blocks, and of code within sentences."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for block in blocks(page, "console"):
            for line in block.text.replace("\\\n", " ").splitlines():
                yield name(page), line.removeprefix("$ ")
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
        for code in re.findall(r"`([^`\n]+)`|^    (\w.*)$", prose, re.M):
            line = next(filter(None, code))
            if re.match(r"(?:equilibrist|make) [a-z-]", line):
                yield name(page), line


def subcommands() -> dict[str, Any]:
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


def fault(line: str) -> str:
    """What is wrong with a command; empty where nothing is."""
    words = shlex.split(line, comments=True)
    program, rest = words[0], words[1:]
    if program == "make":
        targets = [word for word in rest if "=" not in word]
        unknown = [t for t in targets if not re.search(rf"^{re.escape(t)}:", MAKEFILE, re.M)]
        return f"no target {unknown}" if unknown else ""
    if program == "python":
        script = ROOT / rest[0]
        source = script.read_text(encoding="utf-8") if script.is_file() else ""
        if re.search(r"^from bench_rows import .*\barguments\b", source, re.M):  # shared options
            source += (script.parent / "bench_rows.py").read_text(encoding="utf-8")
        options = [word.partition("=")[0] for word in rest[1:] if word.startswith("--")]
        missing = [o for o in options if f'"{o}"' not in source]
        return f"{rest[0]} has no {missing}" if missing or not source else ""
    if program == "torchrun":
        program, *rest = rest[rest.index("-m") + 1 :]
    if program != "equilibrist":
        return "" if program in OTHERS else f"what is {program}?"
    return fault_of_ours(rest)


def fault_of_ours(words: list[str]) -> str:
    if words[0] in ("--version", "--help"):
        return ""
    command = subcommands().get(words[0])
    if command is None:
        return f"no command {words[0]}"
    try:
        command.make_context(words[0], list(words[1:]))
    except Exception as error:
        if type(error).__name__ != "MissingParameter":  # sentences name commands without arguments
            return str(error) or type(error).__name__
    recipe = words[1] if words[0] in ("run", "compare") and len(words) > 1 else ""
    if not recipe or ".py:" in recipe or recipe.isupper():
        return ""
    if recipe not in catalogue():
        return f"no recipe {recipe}"
    keys = [b.partition("=")[0] for a, b in itertools.pairwise(words) if a == "--set"]
    unknown = [key for key in keys if key not in parameters(catalogue()[recipe])]
    return f"{recipe} has no {unknown}" if unknown else ""


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_commands_exist_with_their_options(page: str, line: str) -> None:
    if shlex.split(line, comments=True):
        assert fault(line) == ""


def test_faults_are_seen() -> None:
    assert len(set(commands())) > 50
    for line in (
        "make demos",
        "python campaigns/none.py",
        "python campaigns/mirror_plane.py --none",
        "equilibrist trai digits-sngan",
        "equilibrist run digits-sgan",
        "equilibrist run digits-sngan --sets steps=3",
        "equilibrist run digits-sngan --set stepz=3",
        "equilibrist audit runs/x --gradients many",
        "curl example.org",
        "torchrun --nproc-per-node 2 -m equilibrist run digits-sngan --part 4",
    ):
        assert fault(line), line
