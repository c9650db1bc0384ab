"""Files of JSON in a run directory, read with suspicion: they may be cut short, edited, or made by others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from equilibrist.certificates import Json
from equilibrist.errors import RecordError
from equilibrist.files.reading import JSON_BYTES, json_lines, parse_json, read_regular, reason


def json_rows(path: Path, *numbers: str, **kinds: type) -> list[Json]:
    """The whole rows of a file of JSON lines, each with a step and these numbers, and with entries of
    these kinds where it has them."""
    rows = []
    try:
        for number, line in enumerate(json_lines(path), 1):
            try:
                row = parse_json(line)
                for name in numbers:
                    float(row[name])
                for name, kind in kinds.items():
                    if not isinstance(row.get(name) or kind(), kind):
                        raise ValueError(f"{name} is of another kind")
                if type(row["step"]) is not int or not 0 <= row["step"] < 2**53:
                    raise ValueError("no usable step")
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
                raise RecordError(f"{path}, line {number} is damaged: remove that line") from None
            rows.append(row)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RecordError(f"{path} cannot be read ({reason(error)})") from None
    return rows


def read_json(path: Path) -> Any:
    """The value in a JSON file; RecordError where it cannot be read."""
    try:
        return parse_json(read_regular(path, JSON_BYTES))
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is damaged ({reason(error)}): remove it") from None
