"""Run directories that others made, or that a disk has changed: read, or refused in one line."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from killing import CONFIGURATIONS
from safetensors.torch import save

from equilibrist.arguments import convert
from equilibrist.errors import EquilibristError
from equilibrist.files.reading import parse_json
from equilibrist.recipe_lookup import resolve
from equilibrist.report import write_report
from equilibrist.run import checkpoint, load, train
from equilibrist.run.record import Record

GOOD = {"format": 1, "recipe": "x", "settings": {}, "seed": 0, "steps": 1}
GOOD |= {"origin": {}, "description": {}}
DEEP = "[" * 5000


def refused(call: Callable[[], object], named: object) -> str:
    with pytest.raises(EquilibristError) as caught:
        call()
    message = str(caught.value)
    assert str(named) in message
    assert message.isprintable()
    return message


@pytest.mark.parametrize(
    "line",
    [
        '{"step": Infinity, "seconds": 1}',
        '{"step": 1.5, "seconds": 1}',
        '{"step": true, "seconds": 1}',
        '{"step": -1, "seconds": 1}',
        '{"step": 1, "seconds": 1' + "0" * 400 + "}",
        '{"step": 1, "seconds": []}',
        '{"step": 1, "seconds": 1, "loss": [3]}',
        "3",
        DEEP,
        "\udcff",
    ],
)
def test_a_damaged_row_of_metrics_is_named(tmp_path, line) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 0, "seconds": 0}\n' + os.fsencode(line) + b"\n")
    assert "line 2" in refused(Record(tmp_path).rows, path)


@pytest.mark.parametrize("row", [{"step": 1, "name": 3}, {"step": 1, "name": "a", "values": [1]}])
def test_a_damaged_row_of_scores_is_named(tmp_path, row) -> None:
    (tmp_path / "scores.jsonl").write_text(json.dumps(row) + "\n")
    refused(Record(tmp_path).scores, tmp_path / "scores.jsonl")


@pytest.mark.parametrize("content", [DEEP, "3", "{}", "", '{"format": 1e999}', "\udcff"])
def test_a_damaged_recipe_json_is_named(tmp_path, content) -> None:
    (tmp_path / "recipe.json").write_bytes(os.fsencode(content))
    refused(Record(tmp_path).manifest, tmp_path / "recipe.json")


@pytest.mark.parametrize("name", ["recipe.json", "metrics.jsonl", "scores.jsonl"])
def test_a_pipe_in_the_place_of_a_record_is_not_waited_for(tmp_path, name) -> None:
    os.mkfifo(tmp_path / name)
    record = Record(tmp_path)
    read = {"recipe.json": record.manifest, "metrics.jsonl": record.rows}.get(name, record.scores)
    assert "not a regular file" in refused(read, tmp_path / name)


@pytest.mark.parametrize(
    "meta", ["{}", "1", '{"step": Infinity}', '{"step": "1"}', '{"step": -1}', DEEP, "\ud800"]
)
def test_a_checkpoint_with_other_metadata_is_named(tmp_path, meta) -> None:
    flat = {"players/a": torch.zeros(2)}
    try:
        total = checkpoint._digest(flat, meta)
    except UnicodeEncodeError:
        total = ""
    header = {"equilibrist": json.dumps({"meta": meta, "sha256": total})}
    path = tmp_path / "step_00000001.safetensors"
    path.write_bytes(save(flat, header))
    refused(lambda: checkpoint.read_checkpoint(path), path)


def test_a_checkpoint_that_is_no_regular_file_is_named(tmp_path) -> None:
    path = tmp_path / "step_00000001.safetensors"
    os.mkfifo(path)
    assert "not a regular file" in refused(lambda: checkpoint.read_checkpoint(path), path)


def test_json_is_walked_before_it_is_believed() -> None:
    assert parse_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    for text in ("[" * 150 + "]" * 150, '{"a":' * 600 + "1" + "}" * 600, DEEP, "[", b"\xff"):
        with pytest.raises(ValueError, match=r"deep|Expecting|codec"):
            parse_json(text)


@pytest.mark.parametrize("kind", [float, int | None, "literal"])
def test_a_setting_beyond_all_numbers_is_refused(kind) -> None:
    from typing import Literal

    for value in (10**400, 10**5000, "1e999", [1], {}):
        if kind is not float and isinstance(value, int):
            continue
        chosen = Literal["a", "b"] if kind == "literal" else kind
        refused(lambda value=value, chosen=chosen: convert(value, chosen, "lr"), "lr")


@pytest.mark.parametrize("name", ["a" * 300 + ".py:x", "a\0.py:x", "\ud800.py:x"])
def test_a_recipe_that_no_file_can_have(name) -> None:
    with pytest.raises(EquilibristError):
        resolve(name)


def test_a_run_below_a_name_that_is_not_utf8(tmp_path) -> None:
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/r\xff"))
    made = CONFIGURATIONS["plain"]()
    settings = {"data": str(place)}
    whole = train(made, place, settings=settings, device="cpu", progress="none")
    again = load(place, made, device="cpu")
    assert again.step == whole.step
    assert Record(place).manifest()["settings"] == settings
    assert write_report(place).exists()


def harmed(value: object, rng: random.Random) -> object:
    """The JSON value with one entry somewhere replaced by another kind."""
    odd = [
        None,
        True,
        -1,
        1e308,
        10**400,
        "",
        "\ud800",
        "x" * 5000,
        [],
        {},
        [[]],
        {"a": {}},
        [None],
    ]
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        copy = value.copy()
        key = rng.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
        copy[key] = harmed(copy[key], rng)
        return copy
    return rng.choice(odd)


def test_whatever_a_record_holds_a_report_is_written_or_refused_in_one_line(tmp_path) -> None:
    run = tmp_path / "run"
    train(CONFIGURATIONS["plain"](), run, device="cpu", progress="none")
    rng = random.Random(0)
    for name in ("recipe.json", "environment.json", "status.json", "metrics.jsonl"):
        raw = (run / name).read_bytes()
        for _ in range(25):
            if name == "metrics.jsonl" or rng.random() < 0.3:
                body = bytearray(raw)
                body[rng.randrange(len(body))] ^= 1 << rng.randrange(8)
                (run / name).write_bytes(body)
            else:
                (run / name).write_text(json.dumps(harmed(json.loads(raw), rng)))
            write_report(run)
        (run / name).write_bytes(raw)
