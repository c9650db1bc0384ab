"""An audit on disk: audit.json, its witnesses and sheets as one folder; finished checks kept for resuming."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from equilibrist import tree
from equilibrist._files import finite, write_atomically, write_json
from equilibrist.checks._registry import Found
from equilibrist.checks.certificate import Certificate, Tolerance, Verdict

State = dict[str, torch.Tensor]
PLAIN = ("claim", "player", "summary", "evidence", "scope", "limits", "references")


def row(c: Certificate) -> dict[str, Any]:
    """A certificate as audit.json has it."""
    values = {k: getattr(c, k) for k in PLAIN}
    return values | {
        "verdict": c.verdict.value,
        "tolerance": asdict(c.tolerance) if c.tolerance else None,
        "witness": f"{named(c.claim)}.safetensors" if c.witness else None,
        "witness_kind": c.witness_kind if c.witness else None,
    }


def named(claim: str) -> str:
    """A claim as part of a file's name."""
    return claim.replace("/", "_").replace(":", "_")


def write_folder(
    directory: Path,
    value: dict[str, Any],
    certificates: tuple[Certificate, ...],
    states: dict[str, State],
    sheets: dict[str, torch.Tensor],
    write_sheet: Callable[[Path, torch.Tensor], Path],
) -> None:
    """Write audit.json, the witnesses and the sheets as the folder `directory`, whole or not at all.

    `states` are plain state_dicts by claim, which stand for the witnesses of those claims. Sheets are
    named "claim:when".
    """
    aside = directory.with_name(f".{directory.name}.old")
    if aside.exists() and not directory.exists():
        os.replace(aside, directory)  # an earlier save died between its two renamings
    directory.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=directory.parent, prefix=".audit.", suffix=".part"))
    try:
        os.chmod(part, 0o755)
        for c in certificates:
            if c.witness is not None:
                flat = states.get(c.claim) or _flat(c.witness, whole=c.witness_kind == "deviation")
                flat = {k: t.detach().cpu().contiguous().clone() for k, t in flat.items()}
                write_atomically(part / f"{named(c.claim)}.safetensors", save(flat))
        shown: dict[str, dict[str, str]] = {}
        for name, sheet in sheets.items():
            claim, _, when = name.rpartition(":")
            shown.setdefault(claim, {})[when] = write_sheet(part / named(name), sheet).name
        for entry in value["certificates"]:
            if entry["claim"] in shown:
                entry["evidence"] = {**entry["evidence"], "samples": shown[entry["claim"]]}
        write_json(part / "audit.json", value)
        if directory.exists():
            if aside.exists():
                shutil.rmtree(aside)
            os.replace(directory, aside)
        try:
            os.replace(part, directory)
        except BaseException:
            if aside.exists():
                os.replace(aside, directory)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _flat(witness: dict[str, State], whole: bool) -> State:
    """One player's parameters under their own names, or "player/name" where directions of several
    players belong together."""
    if whole and len(witness) == 1:
        return next(iter(witness.values()))
    return {"/".join(path): leaf for path, leaf in tree.items(witness)}


class Kept:
    """The finished checks of an audit that is not finished: an interrupted audit goes on after them.

    Args:
        folder: where they lie; made on first use.
        key: everything that the answer depends on (pair, data, settings, seed, threads). What was kept under
            another key is never used.
    """

    def __init__(self, folder: Path, key: Any) -> None:
        text = json.dumps(finite(key), sort_keys=True, default=str)
        self.folder = folder
        self.key = hashlib.sha256(text.encode()).hexdigest()

    def get(self, check: str) -> tuple[Found, dict[str, float]] | None:
        """What this check found and spent, or None where nothing sound is kept under this key."""
        try:
            text = (self.folder / f"{named(check)}.json").read_bytes()
            raw = (self.folder / f"{named(check)}.safetensors").read_bytes()
            value = json.loads(text)
            tensors = load(raw)
            if (
                value["key"] != self.key
                or value["tensors"] != hashlib.sha256(raw).hexdigest()
                or value["sum"] != _sum(value)
            ):
                return None
            return _found(value, tensors), value["work"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            return None

    def put(self, check: str, found: Found, work: dict[str, float]) -> None:
        """Keep a finished check."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"sheet/{k}": t for k, t in found.sheets.items()}
        for i, c in enumerate(found.certificates):
            for path, leaf in tree.items(c.witness or {}):
                tensors["/".join(("witness", str(i), *path))] = leaf
        raw = save({k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()})
        value: dict[str, Any] = {
            "key": self.key,
            "work": work,
            "tensors": hashlib.sha256(raw).hexdigest(),
            "certificates": [row(c) for c in found.certificates],
        }
        value["sum"] = _sum(value)
        write_atomically(self.folder / f"{named(check)}.safetensors", raw)
        # Not write_json: what is infinite must come back infinite.
        write_atomically(self.folder / f"{named(check)}.json", json.dumps(value).encode())

    def drop(self) -> None:
        """Forget everything: the audit is written."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _sum(value: dict[str, Any]) -> str:
    rest = {k: v for k, v in value.items() if k != "sum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _found(value: dict[str, Any], tensors: State) -> Found:
    witnesses: dict[int, dict[str, State]] = {}
    for key, leaf in tensors.items():
        if key.startswith("witness/"):
            _, i, player, name = key.split("/", 3)
            witnesses.setdefault(int(i), {}).setdefault(player, {})[name] = leaf
    certificates = [
        Certificate(
            **{k: entry[k] for k in PLAIN if k not in ("limits", "references")},
            limits=tuple(entry["limits"]),
            references=tuple(entry["references"]),
            verdict=Verdict(entry["verdict"]),
            tolerance=Tolerance(**entry["tolerance"]) if entry["tolerance"] else None,
            witness=witnesses.get(i),
            witness_kind=entry["witness_kind"] or "deviation",
        )
        for i, entry in enumerate(value["certificates"])
    ]
    sheets = {k.removeprefix("sheet/"): t for k, t in tensors.items() if k.startswith("sheet/")}
    return Found(certificates, sheets)
