"""The report's section on scores, and scores.jsonl that is damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from equilibrist.report import write_report
from equilibrist.report._load import load_record

Make = Callable[..., Path]
NAME = "Frechet distance (pixels-8x8, 5bdb432a)"


def row(step: int, value: Any, name: str = NAME, **more: Any) -> dict[str, Any]:
    return {
        "step": step,
        "name": name,
        "values": {"frechet_distance": value},
        "floor": {"frechet_distance": 0.0625},
        "better": {"frechet_distance": "lower"},
        "samples": 898,
        "network": {"name": "pixels-8x8"},
        "failed": None,
        **more,
    }


def write(run: Path, *rows: Any) -> Path:
    path = run / "scores.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def text_of(page: Path) -> str:
    body = page.read_text(encoding="utf-8")
    section = re.search(r'<section[^>]*id="scores".*?</section>', body, re.DOTALL)
    return "" if section is None else section[0]


def test_figures_stand_beside_their_floors(make_run: Make) -> None:
    run = make_run()
    write(run, row(0, 9.5), row(1500, 3.25), row(3000, 0.875))
    found = text_of(write_report(run))
    for part in (NAME, "0.875", "0.0625", "lower is better", "3,000"):
        assert part in found.replace("\u202f", ",").replace("&#8239;", ",").replace("\u2009", ",")
    assert found.count("<figure>") == 1
    assert "Last value 0.875" in found
    facts = json.loads((run / "report.json").read_text())
    assert [r["values"]["frechet_distance"] for r in facts["scores"]] == [9.5, 3.25, 0.875]


def test_without_scores_there_is_no_section(make_run: Make) -> None:
    run = make_run()
    assert text_of(write_report(run)) == ""
    write(run)
    assert text_of(write_report(run)) == ""
    assert load_record(run).scores == []


def test_one_row_has_no_chart_and_several_names_a_line_each(make_run: Make) -> None:
    run = make_run()
    write(run, row(3000, 0.5), row(3000, 0.25, "other"))
    found = text_of(write_report(run))
    assert "<svg" not in found
    assert found.count("<h3>") == 2
    assert found.count("<tr>") == 4, "a head and a row each"


def test_failed_and_missing_figures(make_run: Make) -> None:
    run = make_run()
    write(run, row(0, 2.0), row(10, None, failed="the samples are NaN"), row(20, 1.0))
    assert "the samples are NaN" not in text_of(write_report(run)), "it has recovered"
    write(run, row(0, 2.0), row(10, None, failed="the samples are NaN"))
    found = text_of(write_report(run))
    assert "there is no figure: the samples are NaN" in found
    write(run, row(0, None), row(10, None), {"step": 20, "name": NAME})
    assert text_of(write_report(run))


@pytest.mark.parametrize("values", [(0.0, 0.0), (0.0, -1.0), (1e-300, 1e300), ("NaN", "inf")])
def test_values_that_no_logarithm_takes(values: Any, make_run: Make) -> None:
    run = make_run()
    write(run, *(row(10 * i, v) for i, v in enumerate(values)))
    found = text_of(write_report(run))
    assert "nan," not in found.lower().replace("nano", "")
    json.loads((run / "report.json").read_text(), parse_constant=pytest.fail)


def test_bare_infinities_are_no_obstacle(make_run: Make) -> None:
    """JSON has none, but Python's writes and reads them."""
    run = make_run()
    write(run, row(0, float("nan")), row(10, float("inf")), row(20, 1.5))
    assert "1.5" in text_of(write_report(run))
    json.loads((run / "report.json").read_text(), parse_constant=pytest.fail)


def test_names_are_escaped(make_run: Make) -> None:
    run = make_run()
    evil = "<script>alert('x')</script>\"&"
    more = {
        "name": evil,
        "values": {evil: 1.0},
        "floor": {evil: 2.0},
        "better": {evil: evil},
    }
    write(run, row(0, 1.0, **{**more, "failed": evil}), row(10, 1.0, **{**more, "failed": evil}))
    found = text_of(write_report(run))
    assert "<script" not in found
    assert "&lt;script&gt;" in found


@pytest.mark.parametrize(
    "line",
    [
        b"{",
        b"[]",
        b"3",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"step": 3}',
        b'{"name": "x"}',
        b'{"step": "3", "name": "x"}',
        b'{"step": true, "name": "x"}',
        b'{"step": -1, "name": "x"}',
        b'{"step": 1' + b"0" * 400 + b', "name": "x"}',
        b'{"step": 3, "name": 5}',
        b'{"step": 3, "name": "x", "values": 5}',
        b'{"step": 3, "name": "x", "floor": [1]}',
        b'{"step": 3, "name": "x", "better": "lower"}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_line_is_named(line: bytes, make_run: Make) -> None:
    run = make_run()
    path = write(run, row(0, 1.0), row(10, 1.0))
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(whole[0] + line + b"\n" + whole[1])
    record = load_record(run)
    (note,) = [note for note in record.notes if "scores.jsonl, line 2: damaged" in note]
    assert "\n" not in note
    assert note in write_report(run).read_text(encoding="utf-8")
    assert [r["step"] for r in record.scores] == [0, 10]


def test_a_last_line_cut_short_is_noted(make_run: Make) -> None:
    run = make_run()
    path = write(run, row(0, 1.0), row(10, 1.0))
    path.write_bytes(path.read_bytes() + b'{"step": 20, "na')
    record = load_record(run)
    assert [r["step"] for r in record.scores] == [0, 10]
    assert any("scores.jsonl" in note and "line 3" in note for note in record.notes)
    path.write_bytes(path.read_bytes() + b"\n")
    assert any("line 3: damaged" in note for note in load_record(run).notes)


def test_a_folder_in_its_place(make_run: Make) -> None:
    run = make_run()
    (run / "scores.jsonl").mkdir()
    record = load_record(run)
    assert record.damaged == ["scores.jsonl"]
    assert any("scores.jsonl: cannot be read" in note for note in record.notes)


def test_the_same_rows_give_the_same_bytes(make_run: Make) -> None:
    run = make_run()
    write(run, row(0, 9.5), row(3000, 0.875))
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first
    write(run, row(0, 9.5), row(3000, 0.9375))
    assert write_report(run).read_bytes() != first
