"""Reads the folder that an audit of a user's own pair wrote: an audit without a run around it."""

from pathlib import Path

from equilibrist.errors import RecordError
from equilibrist.report._load_audit import load_audit
from equilibrist.report._read import expect, json_object, read_json_if_there
from equilibrist.report._record import PAIR, Json, RunRecord

AUDIT = "audit.json"


def is_pair(folder: Path) -> bool:
    """Whether this is such a folder and no run."""
    return (folder / AUDIT).is_file() and not (folder / "recipe.json").exists()


def load_pair(folder: Path) -> RunRecord:
    """The folder's audit as a record of its own.

    Raises:
        RecordError: audit.json is damaged.
    """
    notes: list[str] = []
    path = folder / AUDIT
    audit = load_audit(path, notes)
    if audit is None:
        raise RecordError(f"{folder} holds no {AUDIT}: audit the pair again")
    about = json_object(read_json_if_there(path), path)
    names = expect(about, "pair", dict, "an object", path) or {}
    game = expect(about, "game", dict, "an object", path) or {}
    for player in expect(game, "players", dict, "an object", path) or {}:
        expect(game["players"], player, dict, "an object", path)
    session = expect(about, "session", dict, "an object", path)
    recipe: Json = {
        "title": " against ".join(str(name) for name in names.values()),
        "seed": expect(about, "seed", int, "a whole number", path),
        "origin": {"kind": PAIR},
        "description": {
            "game": game,
            "data": expect(about, "data", dict, "an object", path) or {},
            "solver": {},
        },
    }
    shown = next((c.samples["before"] for c in audit.certificates if "before" in c.samples), None)
    return RunRecord(
        name=folder.resolve().name,
        recipe=recipe,
        sessions=[session] if session else [],
        series={},
        samples=[shown] if shown else [],
        real=None,
        audit=audit,
        status=None,
        last_step=None,
        seconds=None,
        notes=notes,
        damaged=[],
    )
