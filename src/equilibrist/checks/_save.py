"""An audit on disk: audit.json, its witnesses and sheets as one folder; finished checks kept for resuming."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from equilibrist import tree
from equilibrist.checks.certificate import Certificate, Json
from equilibrist.checks.registry import REGISTRY, Found
from equilibrist.errors import RecordError
from equilibrist.files.atomic import json_bytes, json_ready
from equilibrist.files.owned import LARGEST, Owned, owned, require_folder, require_free
from equilibrist.files.reading import JSON_BYTES, parse_json, read_regular

State = dict[str, torch.Tensor]


def witness_file(c: Certificate) -> str | None:
    """The name of the file that holds the witness of a certificate; None without a witness."""
    return f"{file_stem(c.claim)}.safetensors" if c.witness else None


def file_stem(claim: str) -> str:
    """A claim as part of a file's name."""
    return claim.replace("/", "_").replace(":", "_")


def require_place(directory: Path) -> None:
    """RecordError where an audit could not be written to this folder: asked before it is made."""
    require_folder(directory)
    require_free(directory, "audit.json")


def write_folder(
    directory: Path,
    value: Json,
    certificates: tuple[Certificate, ...],
    states: dict[str, State],
    sheets: dict[str, torch.Tensor],
    sheet: Callable[[torch.Tensor], tuple[str, bytes]],
) -> None:
    """Write audit.json, the witnesses and the sheets into the folder `directory`.

    At every moment audit.json and the files that it names belong together: where another audit's file
    has a name, the new one is written under another name first. Other files in the folder are left alone,
    and a file of the new audit never takes the place of one (`equilibrist.files.owned`).

    `states` are plain state_dicts by claim, which stand for the witnesses of those claims. Sheets are
    named "claim:when"; `sheet` turns one into the ending of a file's name and its content.

    Raises: RecordError where a file that this library did not write is called audit.json, or a link is in the way.
    """
    files: dict[str, bytes] = {}
    shown: dict[str, dict[str, str]] = {}
    for c in certificates:
        if c.witness is not None:
            flat = states.get(c.claim) or _flat(c.witness, whole=c.witness_kind == "deviation")
            flat = {k: t.detach().cpu().contiguous().clone() for k, t in flat.items()}
            files[f"{file_stem(c.claim)}.safetensors"] = save(flat)
    for name, picture in sheets.items():
        claim, _, when = name.rpartition(":")
        ending, content = sheet(picture)
        files[f"{file_stem(name)}{ending}"] = content
        shown.setdefault(claim, {})[when] = f"{file_stem(name)}{ending}"
    for entry in value["certificates"]:
        if entry["claim"] in shown:
            entry["evidence"] = {**entry["evidence"], "samples": shown[entry["claim"]]}
    with owned(directory) as place:
        place.refuse("audit.json")
        first = {n: n if place.holds(n, raw) else place.unused(n) for n, raw in files.items()}
        _put(place, value, files, first)
        last = {n: n if place.free(n) else first[n] for n in files}
        if last != first:
            _put(place, value, files, last)
        place.remove(*set(place.names) - {*last.values(), "audit.json"})


def _put(place: Owned, value: Json, files: dict[str, bytes], names: dict[str, str]) -> None:
    """The files by these names, then audit.json, which alone says which of them count."""
    found = {names[n]: raw for n, raw in files.items()}
    if new := {n: raw for n, raw in found.items() if not place.holds(n, raw)}:
        place.write(new)
    place.write({"audit.json": json_bytes(_renamed(value, names))})


def _renamed(value: Json, names: dict[str, str]) -> Json:
    """audit.json with other names for its files."""
    rows = []
    for row_ in value["certificates"]:
        evidence = row_["evidence"]
        if "samples" in evidence:
            samples = {when: names.get(n, n) for when, n in evidence["samples"].items()}
            evidence = {**evidence, "samples": samples}
        witness = row_["witness"]
        rows.append({**row_, "witness": names.get(witness, witness), "evidence": evidence})
    return {**value, "certificates": rows}


def _flat(witness: dict[str, State], whole: bool) -> State:
    """One player's parameters under their own names, or "player/name" where directions of several
    players belong together."""
    if whole and len(witness) == 1:
        return next(iter(witness.values()))
    return {"/".join(path): leaf for path, leaf in tree.items(witness)}


class CheckCache:
    """The finished checks of an audit that is not finished: an interrupted audit continues after them.

    Args:
        folder: where they lie; made on first use.
        key: everything that the answer depends on (pair, data, settings, seed, threads). What was kept under
            another key is never used.
    """

    def __init__(self, folder: Path, key: object) -> None:
        text = json.dumps(json_ready(key), sort_keys=True, default=str)
        self.folder = folder
        self.key = hashlib.sha256(text.encode()).hexdigest()

    def get(self, check: str) -> tuple[Found, dict[str, float]] | None:
        """What this check found and spent, or None where nothing sound is kept under this key."""
        try:
            value = parse_json(read_regular(self.folder / f"{file_stem(check)}.json", JSON_BYTES))
            if value["key"] != self.key or value["sum"] != _sum(value):
                return None
            # No further than what was written is long: another file may have taken the place.
            most = min(value["bytes"], LARGEST)
            raw = read_regular(self.folder / f"{file_stem(check)}.safetensors", most)
            if value["tensors"] != hashlib.sha256(raw).hexdigest():
                return None
            return _found(value, load(raw)), value["work"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError, SafetensorError):
            return None

    def put(self, check: str, found: Found, work: dict[str, float]) -> None:
        """Keep a finished check, where that is possible: no audit fails for what it only keeps."""
        tensors = {f"sheet/{k}": t for k, t in found.sheets.items()}
        for i, c in enumerate(found.certificates):
            for path, leaf in tree.items(c.witness or {}):
                tensors["/".join(("witness", str(i), *path))] = leaf
        raw = save({k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()})
        value: Json = {
            "key": self.key,
            "work": work,
            "tensors": hashlib.sha256(raw).hexdigest(),
            "bytes": len(raw),
            "certificates": [c.to_row(witness_file(c)) for c in found.certificates],
        }
        value["sum"] = _sum(value)
        # Not write_json: what is infinite must come back infinite.
        files = {
            f"{file_stem(check)}.safetensors": raw,
            f"{file_stem(check)}.json": json.dumps(value).encode(),
        }
        # A link is never needed here: the answers are a few temporary files. What is suppressed: files of the user in
        # the way, a place that cannot be written, or another audit that has just finished, and dropped it.
        with contextlib.suppress(RecordError, OSError):
            if not self.folder.is_symlink():
                with owned(self.folder) as place:
                    place.write(files)

    def drop(self) -> None:
        """Delete everything that was kept, once the audit is written. The user's own files stay."""
        if self.folder.is_symlink() or not self.folder.is_dir():
            return
        with contextlib.suppress(RecordError, OSError):
            with owned(self.folder) as place:
                endings = (".json", ".safetensors")
                place.remove(*(f"{file_stem(n)}{ending}" for n in REGISTRY for ending in endings))
            self.folder.rmdir()  # unless there is something else in it


def _sum(value: Json) -> str:
    rest = {k: v for k, v in value.items() if k != "sum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _found(value: Json, tensors: State) -> Found:
    witnesses: dict[int, dict[str, State]] = {}
    for key, leaf in tensors.items():
        if key.startswith("witness/"):
            _, i, player, name = key.split("/", 3)
            witnesses.setdefault(int(i), {}).setdefault(player, {})[name] = leaf
    certificates = [
        Certificate.from_row(
            entry,
            witness=witnesses.get(i),
            witness_kind=entry["witness_kind"] or "deviation",
        )
        for i, entry in enumerate(value["certificates"])
    ]
    sheets = {k.removeprefix("sheet/"): t for k, t in tensors.items() if k.startswith("sheet/")}
    return Found(certificates, sheets)
