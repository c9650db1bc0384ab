"""Records of finished units: one JSON file each, written once, from which the page is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equilibrist.errors import RecordError
from equilibrist.files.atomic import write_json
from equilibrist.files.reading import JSON_BYTES, parse_json, read_regular, reason
from equilibrist.papers.model import Experiment, Record, Size

FORMAT = 1
STATES = ("done", "diverged", "failed")


def folder_of(root: Path, experiment: Experiment, size: Size) -> Path:
    """Where the records of an experiment at a size lie."""
    return root / experiment.key / size


def write(folder: Path, record: Record) -> Path:
    """Write a record; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{record.unit}.json"
    write_json(
        path,
        {
            "format": FORMAT,
            "unit": record.unit,
            "state": record.state,
            "message": record.message,
            "about": dict(record.about),
            "measures": record.measures,
        },
    )
    return path


def read(path: Path) -> Record:
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
    return Record(*(value[k] for k in ("unit", "state", "measures", "about", "message")))


def read_all(root: Path, experiment: Experiment, size: Size) -> dict[str, Record]:
    """The records of the experiment's own units at a size, in the order of its units."""
    folder = folder_of(root, experiment, size)
    paths = [folder / f"{unit.key}.json" for unit in experiment.units(size)]
    return {path.stem: read(path) for path in paths if path.exists()}


def plain(value: Any) -> Any:
    """A value as JSON keeps it, to compare what is written with what is read."""
    return json.loads(json.dumps(value))


def seconds(records: Mapping[str, Record]) -> float:
    """CPU seconds that the records report."""
    return sum(float(record.about.get("cpu_seconds", 0.0)) for record in records.values())
