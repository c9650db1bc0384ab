"""Records of finished units: one JSON file each, written once, from which the page is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from equilibrist.errors import RecordError
from equilibrist.files.atomic import json_ready, write_atomically
from equilibrist.files.reading import JSON_BYTES, parse_json, read_regular, reason
from equilibrist.papers.model import Experiment, Size, UnitRecord

FORMAT = 1
STATES = ("done", "diverged", "failed")


def folder_of(root: Path, experiment: Experiment, size: Size) -> Path:
    """Where the records of an experiment at a size lie."""
    return root / experiment.key / size


def write_record(folder: Path, record: UnitRecord) -> Path:
    """Write a record; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.unit}.json"
    value = {
        "format": FORMAT,
        "unit": record.unit,
        "state": record.state,
        "message": record.message,
        "about": dict(record.about),
        "measures": _short(record.measures),
    }
    # On one line: curves of many seeds, a number a line, would be most of the repository.
    write_atomically(path, json.dumps(json_ready(value), separators=(",", ":")).encode() + b"\n")
    return path


def _short(value: object) -> object:
    """Numbers to six digits."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _short(part) for key, part in value.items()}
    return [_short(part) for part in value] if isinstance(value, list | tuple) else value


def read_record(path: Path) -> UnitRecord:
    """The record in a file; RecordError where there is none that can be read."""
    try:
        value = parse_json(read_regular(path, JSON_BYTES))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read ({reason(error)}): remove it") from None
    kinds = {"unit": str, "state": str, "message": str, "about": dict, "measures": dict}
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise RecordError(f"{path} is no record of format {FORMAT}: remove it")
    for key, kind in kinds.items():
        if not isinstance(value.get(key), kind):
            raise RecordError(f"{path} is damaged: its {key!r} is missing or of the wrong kind")
    if value["state"] not in STATES or value["unit"] != path.stem:
        raise RecordError(f"{path} is damaged: it is the record of {value['unit']!r}")
    return UnitRecord(*(value[k] for k in ("unit", "state", "measures", "about", "message")))


def read_records(root: Path, experiment: Experiment, size: Size) -> dict[str, UnitRecord]:
    """The records of the experiment's own units at a size, in the order of its units."""
    folder = folder_of(root, experiment, size)
    paths = [folder / f"{unit.key}.json" for unit in experiment.units(size)]
    return {path.stem: read_record(path) for path in paths if path.exists()}


def seconds(records: Mapping[str, UnitRecord]) -> float:
    """CPU seconds that the records report."""
    return sum(float(record.about.get("cpu_seconds", 0.0)) for record in records.values())
