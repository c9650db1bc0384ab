"""What the report reads, and how it names what it cannot read."""

import json
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from equilibrist.errors import RecordError
from equilibrist.report._load import load_record
from equilibrist.report._record import as_number

Make = Callable[..., Path]


def damaged(run: Path) -> str:
    """The message with which the run is refused: one line that names a path."""
    with pytest.raises(RecordError) as caught:
        load_record(run)
    message = str(caught.value)
    assert "\n" not in message
    assert str(run) in message
    return message


def left_out(run: Path, name: str) -> str:
    """The one note on the damaged file `name`; nothing else of the run is missing."""
    record = load_record(run)
    assert record.damaged == [name]
    (note,) = record.notes
    assert note.startswith(f"{name}: ")
    assert note.isprintable()
    assert note.endswith(". It is left out.")
    assert (record.recipe is None) == (name == "recipe.json")
    assert (record.sessions == []) == (name == "environment.json")
    assert (record.audit is None) == (name == "audit/audit.json")
    assert len(record.samples) == 9
    return note


def edit(path: Path, change: Callable[[Any], None]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


def test_a_complete_run_is_read_whole(make_run: Make) -> None:
    record = load_record(make_run())
    assert record.last_step == 3000
    assert [s.step for s in record.samples] == [0, 100, 250, 500, 1000, 1500, 2000, 2500, 3000]
    assert record.series["loss"]["critic"].steps.size == 600
    assert record.real is not None
    assert (record.real.width, record.real.height) == (55, 55)
    assert record.audit is not None
    claims = [c.claim for c in record.audit.certificates]
    assert claims[:3] == ["nash", "nash/generator", "nash/critic"]
    assert len(record.audit.certificates[1].curves) == 4
    assert set(record.audit.certificates[1].samples) == {"before", "during", "after"}
    assert record.notes == []
    assert record.first_broken is None


def test_no_folder_and_no_run(tmp_path: Path) -> None:
    assert "not a folder" in damaged(tmp_path / "nowhere")
    (tmp_path / "holiday.txt").write_text("sun")
    assert "equilibrist run" in damaged(tmp_path)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("recipe.json", lambda d: d.update(steps="many"), "'steps' should be a whole number"),
        ("recipe.json", lambda d: d.update(steps=True), "'steps' should be a whole number"),
        ("recipe.json", lambda d: d.update(format=2), "format 2"),
        ("recipe.json", lambda d: d["description"].update(game=[]), "'game' should be an object"),
        ("recipe.json", lambda d: d.update(references=["x"]), "'references'"),
        ("environment.json", lambda d: d.append(3), "list of objects"),
        (
            "audit/audit.json",
            lambda d: d["certificates"][0].update(verdict="FINE"),
            "none of VERIFIED",
        ),
        ("audit/audit.json", lambda d: d["certificates"][0].pop("claim"), "no 'claim'"),
        (
            "audit/audit.json",
            lambda d: d["certificates"][0]["evidence"]["curves"][1]["gain"].pop(),
            "curve 1",
        ),
        (
            "audit/audit.json",
            lambda d: d["certificates"][0]["evidence"]["samples"].update(after="../../secret.png"),
            "not the name of a file",
        ),
    ],
)
def test_wrong_content_is_named(
    make_run: Make, name: str, change: Callable[[Any], None], words: str
) -> None:
    run = make_run()
    edit(run / name, change)
    assert words in left_out(run, name)


@pytest.mark.parametrize("name", ["recipe.json", "environment.json", "audit/audit.json"])
@pytest.mark.parametrize("content", [b'{"format": 1', b"\xff\xfe", b"[" * 100_000])
def test_damaged_json_is_named(make_run: Make, name: str, content: bytes) -> None:
    run = make_run()
    (run / name).write_bytes(content)
    left_out(run, name)


def test_json_that_is_nested_deeply_or_is_no_regular_file_is_left_out(make_run: Make) -> None:
    run = make_run()
    edit(
        run / "recipe.json",
        lambda d: d.update(settings=json.loads('{"a":' * 600 + "1" + "}" * 600)),
    )
    assert "nested too deeply" in left_out(run, "recipe.json")
    (run / "recipe.json").unlink()
    os.mkfifo(run / "recipe.json")
    assert "not a regular file" in left_out(run, "recipe.json")


def test_half_a_last_line_is_ignored_with_a_note(make_run: Make) -> None:
    run = make_run()
    path = run / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 3005, "los')
    record = load_record(run)
    assert record.series["loss"]["generator"].steps[-1] == 3000
    assert len(record.notes) == 1
    assert "line 601" in record.notes[0]


def test_damage_elsewhere_in_the_metrics_is_named_with_its_line(make_run: Make) -> None:
    run = make_run()
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], '{"step": 2', *lines[3:]]))
    record = load_record(run)
    assert record.notes == ["metrics.jsonl, line 4: damaged, not JSON. It is left out."]
    assert record.series["loss"]["critic"].steps.size == 600
    path.write_text("\n".join([*lines[:3], '{"loss": 2}', *lines[3:], "[]", '{"step": 1.5}']))
    (note,) = load_record(run).notes
    assert note.startswith("metrics.jsonl, line 4: no usable 'step'")
    assert note.endswith("It is left out, and so are 2 other lines.")


def test_a_repeated_step_keeps_its_last_value(make_run: Make) -> None:
    run = make_run(without=("metrics",))
    rows = [(10, 1.0), (20, 2.0), (30, 3.0), (20, 5.0)]
    text = "\n".join(json.dumps({"step": s, "loss": {"critic": v}}) for s, v in rows)
    (run / "metrics.jsonl").write_text(text)
    series = load_record(run).series["loss"]["critic"]
    assert series.steps.tolist() == [10, 20, 30]
    assert series.values.tolist() == [1.0, 5.0, 3.0]


@pytest.mark.parametrize(
    ("value", "number"),
    [(2, 2.0), ("NaN", math.nan), ("-Infinity", -math.inf), (10**400, math.inf), (1e300, 1e300)],
)
def test_numbers_in_disguise(value: Any, number: float) -> None:
    found = as_number(value)
    assert found is not None
    assert found == number or (math.isnan(found) and math.isnan(number))


@pytest.mark.parametrize("value", [True, None, "12", "many", [], {}])
def test_no_numbers(value: Any) -> None:
    assert as_number(value) is None


def test_a_broken_tail_is_told_from_a_passing_spike(make_run: Make) -> None:
    def rows(*values: Any) -> str:
        lines = [{"step": i, "loss": {"critic": v}} for i, v in enumerate(values)]
        return "\n".join(json.dumps(line) for line in lines)

    run = make_run(without=("metrics",))
    (run / "metrics.jsonl").write_text(rows(1.0, None, 1.0, 1.0))
    assert load_record(run).first_broken is None
    (run / "metrics.jsonl").write_text(rows(1.0, None, 1.0, "inf", None))
    assert load_record(run).first_broken == ("loss", "critic", 3)


def test_unreadable_samples_are_left_out_with_a_note(make_run: Make) -> None:
    run = make_run()
    whole = (run / "samples" / "step_00000100.png").read_bytes()
    (run / "samples" / "step_00000100.png").write_bytes(whole[:-30])
    np.save(run / "samples" / "step_00000250.npy", np.zeros((4, 5)))
    (run / "samples" / "step_00000600.npy").write_bytes(b"")
    (run / "samples" / "notes.txt").write_text("not a sample")
    record = load_record(run)
    assert [s.step for s in record.samples] == [0, 250, 500, 1000, 1500, 2000, 2500, 3000]
    assert len(record.notes) == 2 or len(record.notes) == 3
    assert any("step_00000100.png" in note for note in record.notes)
    assert any("step_00000600.npy" in note for note in record.notes)


def test_an_array_of_objects_is_not_unpickled(make_run: Make) -> None:
    run = make_run(without=("samples",))
    np.save(run / "samples" / "step_00000001.npy", np.array([{"a": 1}]), allow_pickle=True)
    record = load_record(run)
    assert record.samples == []
    assert "cannot be read" in record.notes[0]


def png(*parts: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these parts, each with its checksum."""
    whole = b"\x89PNG\r\n\x1a\n"
    for kind, body in parts:
        total = zlib.crc32(kind + body).to_bytes(4)
        whole += len(body).to_bytes(4) + kind + body + total
    return whole


HEAD, REST, END = (b"IHDR", b"\0\0\0\x09\0\0\0\x05" + bytes(5)), (b"IDAT", b"xx"), (b"IEND", b"")
SHAPE = "{'descr': '<f8', 'fortran_order': False, 'shape': %s}"


def npy(header: str, body: bytes = b"") -> bytes:
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + body


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("step_1.png", png(HEAD, REST)),
        ("step_1.png", png(HEAD, END)),
        ("step_1.png", png(END)),
        ("step_1.png", png(HEAD, REST, END)[:-4] + b"four"),
        ("step_1.png", png(HEAD, REST, END) + b"more"),
        ("step_1.png", png((b"IHDR", b"\xff" * 8 + bytes(5)), REST, END)),
        ("step_1.npy", npy("{'descr': '<f4', ")),
        ("step_1.npy", npy(SHAPE % "(1000000000000, 2)")),
        ("step_1.npy", npy(SHAPE % "(True, 2)", bytes(16))),
        ("step_1.npy", npy(SHAPE % f"({'-' * 3000}1,)", bytes(8))),
        ("step_1.npy", npy(SHAPE % "(2, 1)", bytes(16))),
        ("step_1.npy", npy((SHAPE % "(2,)").replace("<f8", "|O"), bytes(16))),
    ],
)
def test_a_damaged_sheet_is_noted_and_the_others_are_shown(
    make_run: Make, name: str, content: bytes
) -> None:
    run = make_run()
    (run / "samples" / name).write_bytes(content)
    record = load_record(run)
    assert [s.step for s in record.samples] == [0, 100, 250, 500, 1000, 1500, 2000, 2500, 3000]
    (note,) = record.notes
    assert note.startswith(f"{name} cannot be read (")
    assert len(note) < 150
    assert note.isprintable()


def test_whole_sheets_are_shown(make_run: Make) -> None:
    run = make_run(without=("samples",))
    (run / "samples" / "step_1.png").write_bytes(png(HEAD, REST, END))
    (run / "samples" / "step_2.npy").write_bytes(
        npy(SHAPE % "(1, 2)", struct.pack("<2d", 3.0, 4.0))
    )
    first, second = load_record(run).samples
    assert (first.width, first.height) == (9, 5)
    assert second.points is not None
    assert second.points.tolist() == [[3.0, 4.0]]


def test_a_guard_is_told_and_a_damaged_one_left_out(make_run: Make) -> None:
    from equilibrist.report._trained import trained_section

    run = make_run()
    assert "Guard" not in trained_section(load_record(run))
    entry = {"diverged": 120, "back_to": 100, "factor": 0.5, "why": "step 120: ..."}
    (run / "guard.json").write_text(json.dumps([entry]))
    page = trained_section(load_record(run))
    assert "diverged once, last at step 120; went back to step 100 and on with 0.5 of the" in page
    (run / "guard.json").write_text(json.dumps([entry, entry | {"back_to": 0, "factor": 0.25}]))
    page = trained_section(load_record(run))
    assert "diverged 2 times" in page
    assert "the initial weights and on with 0.25 of the step sizes" in page
    for wrong in ({}, [1], [entry | {"back_to": "x"}], [entry | {"factor": None}]):
        (run / "guard.json").write_text(json.dumps(wrong))
        assert "guard.json" in left_out(run, "guard.json")
        assert "Guard" not in trained_section(load_record(run))
