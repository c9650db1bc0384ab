"""Pages open with the first finding: an audit's, or what the record of training shows by itself."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit_rows import PLACE, whole

from equilibrist.findings import Finding, as_recorded
from equilibrist.report import write_report
from equilibrist.report._findings import record_findings
from equilibrist.report._headline import headline
from equilibrist.report._load import load_record

Make = Callable[..., Path]
FAULT = Finding(
    "collapsed",
    "generator",
    "Generated samples are not diverse. They <b>lie</b> together.",
    sure="likely",
    evidence={"value": 0.1, "interval": [0.08, 0.12], "confidence": 0.95},
)
NOTE = Finding("rotation", "pair", "Rotation dominates.", "note", "likely")


def relogged(run: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Changes every row of the logged numbers."""
    path = run / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    for row in rows:
        change(row)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def test_a_page_opens_with_the_first_finding_then_lists_all(make_run: Make) -> None:
    recorded = as_recorded([FAULT, NOTE])
    run = whole(make_run(), findings=recorded, place=f"{FAULT.text} {PLACE}")
    head = headline(load_record(run))
    assert (head.tone, head.badge) == ("refuted", "collapsed")
    assert head.text == FAULT.text.rstrip(".")
    assert head.aside == PLACE
    page = write_report(run).read_text()
    assert "<b>lie</b>" not in page
    places = [
        page.index(x) for x in ("&lt;b&gt;lie", "Change first", "What was found", "The verdicts")
    ]
    assert places == sorted(places)
    assert "fault: collapsed (generator, likely: 0.1, 95% interval 0.08 to 0.12)" in page
    assert "note: rotation (pair, likely)</b>. Rotation dominates. Change first: a solver" in page
    facts = json.loads((run / "report.json").read_text())
    assert facts["findings"] == recorded["list"]
    assert facts["headline"]["text"] == head.text


def test_notes_alone_leave_the_headline_to_the_verdicts(make_run: Make) -> None:
    run = whole(make_run(), findings=as_recorded([NOTE]))
    plain = whole(make_run("plain"))
    assert headline(load_record(run)) == headline(load_record(plain))
    assert "What was found" in write_report(run).read_text()
    for silent in (plain, make_run("earlier")):  # audits of versions without findings
        page = write_report(silent).read_text()
        assert "What was found" not in page
        assert "Change first" not in page


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ({"format": 2, "list": [FAULT.describe()]}, "in format 2, this version reads 1"),
        ({"format": 1, "list": [FAULT.describe() | {"name": "of-later"}]}, "'of-later'"),
        ({"format": 1, "list": [FAULT.describe() | {"sure": "so-so"}]}, "so-so"),
        ({"format": 1, "list": [3]}, "a finding cannot be read"),
        ({"format": 1, "list": 3}, "a finding cannot be read"),
    ],
)
def test_what_cannot_be_read_is_left_out_and_said(
    make_run: Make, findings: dict[str, Any], said: str
) -> None:
    record = load_record(whole(make_run(), findings=findings))
    assert record.audit is not None
    assert record.audit.findings == []
    assert [note for note in record.notes if said in note]


def test_the_record_of_training_has_findings_of_its_own(make_run: Make) -> None:
    assert record_findings(load_record(make_run())) == ()

    def still(row: dict[str, Any]) -> None:
        row["grad_norm"] = {"generator": 0.3, "critic": 0.0}

    record = load_record(relogged(make_run("still"), still))
    (found,) = record_findings(record)
    assert (found.name, found.where, found.sure) == ("no-gradient", "critic", "certain")
    head = headline(record)
    assert head.badge == "no gradient"
    assert re.match(r"The critic's gradient was exactly 0 at every one of [\d,]+ logged steps$", head.text)  # fmt: skip
    assert head.aside.startswith("Not a Nash equilibrium")

    def broken(row: dict[str, Any]) -> None:
        if row["step"] > 1000:
            row["loss"]["critic"] = None

    record = load_record(relogged(whole(make_run("broken"), findings=as_recorded([FAULT])), broken))
    first, second = record_findings(record)
    assert (first.name, first.where, second.name) == ("not-finite", "critic", "collapsed")
    assert headline(record).badge == "diverged"
    assert f"{headline(record).text}." == first.text
