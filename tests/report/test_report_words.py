"""The sentences: numbers, headlines, commands."""

import json
import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equilibrist.report._commands import audit_command, run_command
from equilibrist.report._headline import headline
from equilibrist.report._load import load_record
from equilibrist.report._missing import missing
from equilibrist.report.formatting import format_estimate, format_number

Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (1.9, "1.9"),
        (-0.01234, "\N{MINUS SIGN}0.0123"),
        (3000.0, "3,000"),
        (123456.0, "123,456"),
        (1e30, "10³⁰"),
        (-2.5e-7, "\N{MINUS SIGN}2.5 \N{MULTIPLICATION SIGN} 10⁻⁷"),
        (math.nan, "not a number"),
        (-math.inf, "minus infinite"),
        (None, "not recorded"),
    ],
)
def test_numbers(value: float | None, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("value", "interval", "text"),
    [
        (1.9, (1.5, 2.3), ("1.9", "1.5", "2.3")),
        (1.9, (1.7, 2.1), ("1.90", "1.70", "2.10")),
        (0.033696, (0.03369, 0.0337), ("0.03370", "0.03369", "0.03370")),
        (1.9, (1.88, 1.92), ("1.900", "1.880", "1.920")),
        (0.021, (0.002, 0.05), ("0.021", "0.002", "0.050")),
        (1234.0, (1000.0, 1500.0), ("1,234", "1,000", "1,500")),
        (-0.5, (-0.7, 0.0), ("\N{MINUS SIGN}0.5", "\N{MINUS SIGN}0.7", "0.0")),
        (math.nan, (0.0, 1.0), ("not a number", "0", "1")),
        (1.0, (1.0, 1.0), ("1", "1", "1")),
    ],
)
def test_estimates_carry_the_digits_that_the_interval_allows(
    value: float, interval: tuple[float, float], text: tuple[str, str, str]
) -> None:
    assert format_estimate(value, interval) == text


def with_verdicts(run: Path, **verdicts: str | None) -> None:
    """Sets the verdicts of the Nash claims; None removes the claim."""
    path = run / "audit" / "audit.json"
    audit = json.loads(path.read_text())
    names = {"nash": "nash", "generator": "nash/generator", "critic": "nash/critic"}
    for key, verdict in verdicts.items():
        found = next(c for c in audit["certificates"] if c["claim"] == names[key])
        if verdict is None:
            audit["certificates"].remove(found)
        else:
            found["verdict"] = verdict
    path.write_text(json.dumps(audit))


@pytest.mark.parametrize(
    ("verdicts", "tone", "begins"),
    [
        (
            {"nash": "REFUTED", "generator": "REFUTED", "critic": "NOT_REFUTED"},
            "refuted",
            "Not a Nash equilibrium: with the critic frozen, the generator alone lowers its loss "
            "by 1.90 nats",
        ),
        (
            {"nash": "REFUTED", "generator": "NOT_REFUTED", "critic": "REFUTED"},
            "refuted",
            "Not a Nash equilibrium: with the generator frozen, the critic alone",
        ),
        (
            {"nash": "NOT_REFUTED", "generator": "NOT_REFUTED", "critic": "NOT_REFUTED"},
            "open",
            "No way out found: searching alone, neither player lowered its loss by more than "
            "0.014 nats",
        ),
        (
            {"nash": "UNASSESSED", "generator": "UNASSESSED", "critic": "NOT_REFUTED"},
            "unknown",
            "Undecided: ",
        ),
        (
            {"nash": "VERIFIED", "generator": "VERIFIED", "critic": "VERIFIED"},
            "verified",
            "A Nash equilibrium: neither player alone",
        ),
        (
            {"nash": None, "generator": "VERIFIED", "critic": "NOT_REFUTED"},
            "open",
            "No way out found",
        ),
        (
            {"nash": None, "generator": "NOT_REFUTED", "critic": None},
            "open",
            "The generator alone found no gain above 0.014 nats; the critic was not searched",
        ),
        (
            {"nash": None, "generator": None, "critic": None},
            "unknown",
            "The generator is at rest: unassessed",
        ),
    ],
)
def test_headlines(make_run: Make, verdicts: dict[str, str], tone: str, begins: str) -> None:
    run = make_run()
    with_verdicts(run, **verdicts)
    head = headline(load_record(run))
    assert head.tone == tone
    assert head.text.startswith(begins)


def test_the_headline_names_its_interval(make_run: Make) -> None:
    assert headline(load_record(make_run())).aside == "(95% interval 1.71 to 2.09)"


def test_a_pair_that_still_moves_is_said_to_move(make_run: Make) -> None:
    run = make_run()
    still = "Training was still moving then: a longer run may land elsewhere."
    assert still not in headline(load_record(run)).detail
    path = run / "audit" / "audit.json"
    audit = json.loads(path.read_text())
    rest = next(c for c in audit["certificates"] if c["claim"] == "stationary/critic")
    rest["verdict"] = "REFUTED"
    path.write_text(json.dumps(audit))
    assert still in headline(load_record(run)).detail


def test_an_old_audit_is_called_old(make_run: Make) -> None:
    run = make_run()
    path = run / "audit" / "audit.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "step": 2000}))
    record = load_record(run)
    assert any("audit again" in text for text in headline(record).detail)
    assert any("older" in part.what for part in missing(record))


def test_a_stopped_run_gets_the_command_that_resumes_it(make_run: Make) -> None:
    run = make_run(without=("audit", "samples", "status"))
    path = run / "metrics.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:100]))
    record = load_record(run)
    assert headline(record).text.startswith("Training stopped at step 500 of 3,000")
    parts = missing(record)
    resume = next(part for part in parts if "resumes" in part.what)
    assert resume.command is not None
    assert resume.command.startswith("equilibrist run digits-sngan")
    assert any(part.command == "equilibrist audit digits-run" for part in parts)


def test_a_run_that_broke_down_is_not_told_to_resume(make_run: Make) -> None:
    run = make_run(without=("audit",))
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3005, "loss": {"critic": null}}\n')
    record = load_record(run)
    head = headline(record)
    assert head.text == (
        "Training broke down: the critic's loss is no finite number from step 3,005 on"
    )
    assert not any("resumes" in part.what for part in missing(record))


def test_a_run_that_recorded_its_divergence_says_so(make_run: Make) -> None:
    """The loop stops before it logs a number that is not finite: only status.json knows."""
    run = make_run(without=("audit",))
    message = "step 2711: the critic's loss is not finite; try a smaller step size"
    status = {"state": "diverged", "step": 2711, "message": message}
    (run / "status.json").write_text(json.dumps(status))
    head = headline(load_record(run))
    assert head.text.startswith("Training broke down at step 2,711:")
    assert head.detail[0] == f"S{message[1:]}."


def test_a_running_run_is_not_called_stopped(make_run: Make) -> None:
    run = make_run(without=("audit", "samples"))
    path = run / "metrics.jsonl"
    path.write_text("\n".join(path.read_text().splitlines()[:100]))
    (run / "status.json").write_text('{"state": "running", "step": 0, "message": ""}')
    assert headline(load_record(run)).text.startswith("Training was under way at step 500 of 3,000")


def test_a_run_made_by_a_program_gets_no_false_command(make_run: Make) -> None:
    run = make_run(without=("samples",))
    recipe = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(json.dumps({**recipe, "origin": {"kind": "python"}}))
    record = load_record(run)
    assert run_command(record) is None
    assert [m.what for m in missing(record)] == [
        "No samples were saved. It was made by a Python program: run that again."
    ]


def test_the_run_command_survives_a_shell(make_run: Make) -> None:
    run = make_run()
    recipe: dict[str, Any] = json.loads((run / "recipe.json").read_text())
    recipe["settings"] = {"note": "it's; rm -rf $HOME", "rate": 0.0002, "wide": True}
    recipe["recipe"] = "my recipes/a b.py:build"
    recipe["origin"] = {"kind": "file", "path": "my recipes/a b.py", "sha256": "00"}
    (run / "recipe.json").write_text(json.dumps(recipe))
    command = run_command(load_record(run))
    assert command is not None
    parts = shlex.split(command)
    assert parts[:3] == ["equilibrist", "run", "my recipes/a b.py:build"]
    for setting in ("note=it's; rm -rf $HOME", "rate=0.0002", "wide=true"):
        assert setting in parts
    assert parts[parts.index("--seed") + 1] == "0"
    assert parts[parts.index("--threads") + 1] == "2"
    audit = shlex.split(audit_command(load_record(run)))
    assert audit[3:] == ["--recipe", "my recipes/a b.py:build"]


def test_the_printed_commands_are_ones_that_the_command_line_takes(make_run: Make) -> None:
    """Holds the sentences against the command's own parser (which needs no torch to parse)."""
    typer = pytest.importorskip("typer")
    cli = pytest.importorskip("equilibrist.cli")
    record = load_record(make_run())
    group = typer.main.get_command(cli.app)
    for text in (run_command(record), audit_command(record, settings=True)):
        assert text is not None
        name, *rest = shlex.split(text)[1:]
        command = group.get_command(None, name)
        parsed = command.make_context(name, rest).params
        assert parsed["settings"]
        assert Path(parsed["directory"]) == Path("digits-run")


def test_a_complete_run_misses_nothing(make_run: Make) -> None:
    assert missing(load_record(make_run())) == []
