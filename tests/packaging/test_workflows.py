"""The forge's workflows: valid YAML of the form that the forge reads, and what they run is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import equilibrist

ROOT = Path(__file__).parents[2]
yaml = pytest.importorskip("yaml")
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


def loaded(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return value


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_form(path: Path) -> None:
    workflow = loaded(path)
    assert set(workflow) <= {"name", True, "permissions", "concurrency", "jobs"}, (
        "`on` reads as true"
    )
    assert workflow["permissions"] == {"contents": "read"}, "more only where a job needs it"
    for name, job in workflow["jobs"].items():
        assert job["runs-on"], name
        assert set(job.get("needs", "").split()) <= set(workflow["jobs"])
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step)
        assert re.fullmatch(r"[\w-]+/[\w-]+@(?:v\d+|release/v\d+)", step.get("uses", "a/b@v1"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_what_is_run_is_there(path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for step in steps(loaded(path)):
        command = step.get("run", "")
        for target in re.findall(r"^make (\w+)$", command, re.M):
            assert re.search(rf"^{target}:", makefile, re.M), target
        if command.startswith("."):
            assert (ROOT / command).stat().st_mode & 0o111, command


def test_all_three_are_there() -> None:
    assert [path.stem for path in WORKFLOWS] == ["docs", "release", "test"]


def test_the_versions_that_are_tested_are_those_that_are_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    assert (
        loaded(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
        == named
    )
    assert project["requires-python"] == f">={named[0]}"


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == equilibrist.__version__ == str(cited["version"])
    assert cited["license"] == project["license"]
    assert {"cff-version", "message", "title", "type", "authors"} <= set(cited)
