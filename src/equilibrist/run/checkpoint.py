"""Checkpoints: one file each, atomic, self-checksummed, loaded without executing code.

A checkpoint is a safetensors file. Its metadata hold the step and a SHA-256 over every tensor's
name, type, shape and bytes, so that any damage is noticed.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.errors import RecordError
from equilibrist.files.atomic import write_atomically
from equilibrist.files.reading import parse_json, reason
from equilibrist.files.safetensors import opened

_NAME = re.compile(r"step_(\d{8,})\.safetensors")


def path_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` lies."""
    return folder / f"step_{step:08d}.safetensors"


def step_of(name: str) -> int | None:
    """The step in a checkpoint's file name; None for another name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


Found = tuple[Path, dict[str, Tensor], Json, str]  # path, tensors by key, meta, checksum


def existing(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of the checkpoints in `folder`, oldest first; unfinished files do not count."""
    found = [
        (int(m[1]), p) for p in folder.glob("step_*.safetensors") if (m := _NAME.fullmatch(p.name))
    ]
    return sorted(found)


def write_checkpoint(path: Path, values: tree.Tree, meta: Json) -> str:
    """Write `values` (nested dictionaries of tensors) and `meta` (JSON); returns the checksum."""
    flat = {_key(p): t.detach().cpu().contiguous() for p, t in tree.items(values)}
    text = json.dumps(meta, sort_keys=True)
    digest = _digest(flat, text)
    # Tied or viewed tensors share memory, which the format refuses: each leaf is stored by itself.
    # One key: the format writes several in random order, and equal states should be equal files.
    header = {"equilibrist": json.dumps({"meta": text, "sha256": digest})}
    content = save({k: t.clone() for k, t in flat.items()}, header)
    write_atomically(path, content)
    return digest


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], Json, str]:
    """(tensors by key, meta, checksum) of a checkpoint; RecordError names what is wrong with it."""
    try:
        with opened(path) as file:
            header = file.metadata
            flat = {key: file.tensor(key) for key in file.keys}
    except FileNotFoundError:
        raise RecordError(
            f"{path} does not exist: look at the folder for the steps that do"
        ) from None
    except (OSError, ValueError, MemoryError) as error:
        raise RecordError(f"{path} is damaged ({reason(error)}): use an older checkpoint") from None
    if "equilibrist" not in header:
        raise RecordError(f"{path} was not written by equilibrist: it has no checksum")
    try:
        held = parse_json(header["equilibrist"])
        meta, digest = held["meta"], held["sha256"]
        sound = _digest(flat, meta) == digest
        values = parse_json(meta)
        step = values["step"]
        sound = sound and type(step) is int and 0 <= step < 2**53
    except (ValueError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise RecordError(
            f"{path} is damaged (its checksum does not match): use an older checkpoint"
        )
    if path_of(path.parent, step).name != path.name:
        raise RecordError(f"{path} is the checkpoint of step {step}: it has been renamed")
    return flat, values, digest


def newest(folder: Path) -> Found | None:
    """The newest checkpoint that is sound, with a warning for each newer one that is not; None
    where there is none at all."""
    found, damaged = existing(folder), []
    for _, path in reversed(found):
        try:
            sound = (path, *read_checkpoint(path))
        except RecordError as error:
            damaged.append(str(error))
            continue
        for problem in damaged:
            warnings.warn(f"{problem}; falling back to {path.name}", stacklevel=2)
        return sound
    if found:
        raise RecordError(
            f"none of the {len(found)} checkpoints in {folder} is sound ({damaged[0]}): start again in "
            "another folder"
        )
    return None


def fit(flat: dict[str, Tensor], like: tree.Tree, path: Path) -> tree.Tree:
    """Tensors arranged, typed and placed as the tree `like`; RecordError where they do not fit."""
    wanted = {_key(p): t for p, t in tree.items(like)}
    for key, t in wanted.items():
        if key not in flat or flat[key].shape != t.shape or flat[key].dtype != t.dtype:
            held = f"{list(flat[key].shape)} {flat[key].dtype}" if key in flat else "nothing"
            raise RecordError(
                f"{path} holds {held} for {key} where the recipe needs {list(t.shape)} {t.dtype}: "
                "it belongs to another recipe"
            )
    # Into memory laid out as the recipe's: kernels may round differently on another layout.
    return tree.fill(like, [torch.empty_like(t).copy_(flat[key]) for key, t in wanted.items()])


def prune(folder: Path, keep: int, sound: set[str]) -> None:
    """Delete all but the newest `keep` of the sound checkpoints.

    One that is not sound counts for nothing and is left where it is. `sound` holds the names of those
    that need not be read to know it, and gets those that were.
    """
    kept = 0
    for _, path in reversed(existing(folder)):
        if path.name not in sound:
            try:
                read_checkpoint(path)
            except RecordError:
                continue
            sound.add(path.name)
        kept += 1
        if kept > keep:
            path.unlink(missing_ok=True)


def drop_after(folder: Path, step: int) -> None:
    """Delete the checkpoints of later steps."""
    for at, path in existing(folder):
        if at > step:
            path.unlink(missing_ok=True)


def _key(path: tuple[str, ...]) -> str:
    return "/".join(path)


def _digest(flat: dict[str, Tensor], meta: str) -> str:
    total = hashlib.sha256(meta.encode())
    for key in sorted(flat):
        t = flat[key]
        total.update(f"\n{key} {t.dtype} {list(t.shape)}\n".encode())
        if t.numel():
            total.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
