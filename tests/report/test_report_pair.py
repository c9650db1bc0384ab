"""The page of an audit of a user's own pair: a folder without a run around it."""

import itertools
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_rows import whole
from test_report_page import Page

from equilibrist.errors import RecordError
from equilibrist.report import write_report
from equilibrist.report._commands import audit_command
from equilibrist.report._pair import is_pair, load_pair

Make = Callable[..., Path]
TYPED = ["equilibrist", "audit", "my pair.py:pair", "--check", "nash", "--seed", "3"]


def own(run: Path, **keys: Any) -> Path:
    """The audit of a run as the folder of a pair."""
    folder = whole(run) / "audit"
    path = folder / "audit.json"
    audit = json.loads(path.read_text())
    for key in ("step", "checkpoint", "sha256"):
        audit.pop(key, None)
    recipe = json.loads((run / "recipe.json").read_text())
    audit |= {
        "pair": {"generator": "Mine", "critic": "Other"},
        "seed": 3,
        "game": recipe["description"]["game"],
        "data": recipe["description"]["data"],
        "session": {"command": TYPED, "versions": {"torch": "2.13"}},
        "notes": ["values of the data run from 0 to 255, but the generator's end at -1 and 1"],
        "facts": {"sentences": ["Losses in nats: generator 0.7.", "The critic sees nothing."]},
        **keys,
    }
    path.write_text(json.dumps(audit))
    return folder


def test_the_page_says_what_the_audit_found_and_misses_no_run(make_run: Make) -> None:
    folder = own(make_run())
    assert is_pair(folder)
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    sections = [a["id"] for a in page.all("section") if a.get("class") != "drawn"]
    assert sections == ["verdicts", "trained", "reading", "reproduce"]
    for said in (
        "Mine against Other",
        "Note values of the data run from 0 to 255",
        "Losses in nats: generator 0.7. The critic sees nothing.",
        shlex.join(TYPED),
        "nash_generator.safetensors",
        "What the generator makes",
    ):
        assert said in page.text, said
    for absent in ("What is missing here", "recipe.json", "run directory", "not recorded"):
        assert absent not in page.text, absent


def test_the_command_for_more_names_every_check_once(make_run: Make) -> None:
    record = load_pair(own(make_run()))
    command = shlex.split(audit_command(record, more=("profile",)))
    assert command[:3] == TYPED[:3]
    checks = [b for a, b in itertools.pairwise(command) if a == "--check"]
    assert checks == ["self-tests", "stationary", "stable", "local", "proximal", "nash", "profile"]
    assert command[command.index("--seed") + 1] == "3"


def test_a_folder_that_python_wrote_says_what_to_type(make_run: Make) -> None:
    record = load_pair(own(make_run(), session=None))
    assert audit_command(record) == "equilibrist audit FILE.py:FUNCTION --out audit"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"pair": 3}, "'pair' should be an object"),
        ({"notes": "x"}, "'notes' should be a list"),
        ({"facts": {"sentences": 3}}, "'sentences' should be a list"),
        ({"game": {"players": {"critic": 3}}}, "'critic' should be an object"),
    ],
)
def test_damage_is_named(make_run: Make, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        load_pair(own(make_run(), **keys))


@pytest.mark.browser
@pytest.mark.parametrize("width", [400, 1200])
def test_the_page_is_short_before_anything_is_opened(
    browser: Any, make_run: Make, width: int
) -> None:
    """Findings and verdicts first; a page of 17,000 pixels is read by nobody."""
    for path in (write_report(whole(make_run("run"))), write_report(own(make_run("pair")))):
        browser.open(path, width)
        height = browser.value("document.documentElement.scrollHeight")
        assert height < (4000 if width > 500 else 6000)
        tops = browser.value(
            "['.ladder', '.part'].map(s => document.querySelector(s).getBoundingClientRect().top)"
        )
        assert tops[0] < tops[1]
