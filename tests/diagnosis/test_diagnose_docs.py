"""docs/diagnose.md runs, and says of its loop what is wrong with it; docs/findings.md is the vocabulary's."""

from __future__ import annotations

import contextlib
import io
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "docs"))
from fences import blocks, to_run  # noqa: E402

from equilibrist.diagnosis import VOCABULARY  # noqa: E402
from equilibrist.findings import GROUPS  # noqa: E402

PAGE = "docs/diagnose.md"


def test_the_page_runs_and_names_its_fault() -> None:
    space: dict[str, Any] = {}
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for block in to_run(PAGE):
            exec(block, space)
    said = printed.getvalue()
    assert said.startswith(
        "Wiring: The critic receives the generator's loss as well (coefficient 1.00)"
    )
    assert "gradient-leak | clear the player's gradients" in said
    assert not space["found"].ok
    assert space["result"].first.name == "gradient-leak"


def test_every_finding_has_its_place_on_the_page() -> None:
    made = runpy.run_path(str(ROOT / "docs/site/findings.py"))["page"]()
    assert (ROOT / "docs/findings.md").read_text(encoding="utf-8") == made
    assert {kind.group for kind in VOCABULARY.values()} == set(GROUPS)
    for name, kind in VOCABULARY.items():
        assert f"### {name}\n" in made
        for text in (kind.symptom, kind.cause, kind.cure, kind.known):
            assert text, name
            assert not text.endswith("."), name


def test_what_the_page_quotes_is_in_the_examples() -> None:
    quoted = [block for block in blocks(PAGE) if block.reason]
    assert len(quoted) == 2
    for block in quoted:
        text = (ROOT / block.reason.removeprefix("lines of ")).read_text(encoding="utf-8")
        assert block.text.strip() in text


@pytest.mark.parametrize("package", ["lightning", "accelerate"])
@pytest.mark.parametrize(("argument", "said"), [("", "no fault found"), ("--slip", "The ")])
def test_the_examples_run_where_their_package_is(package: str, argument: str, said: str) -> None:
    pytest.importorskip(package)
    script = str(ROOT / f"examples/wiring_{package}.py")
    done = subprocess.run(
        [sys.executable, script, *argument.split()], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"Wiring: {said}" in done.stdout
