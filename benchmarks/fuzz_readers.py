"""Feeds every reader of files and texts with damaged and hostile input, by the hundred thousand.

Sound files of a short run, of arrays and of images are damaged: bits flipped, bytes cut out, put in or doubled, ends
cut off, and pieces put in that trouble parsers (deep brackets, huge numbers, lone surrogates). Each reader must return
or raise the library's own error, within seconds and without more than half a gigabyte beyond what it had; nothing in a
file may be executed (one array file holds a pickle that would leave a mark).

    python benchmarks/fuzz_readers.py --inputs 100000 --seed 0

Exit code 1 where anything else happens; the inputs are kept in runs/fuzz.
"""

from __future__ import annotations

import argparse
import io
import pickle
import random
import resource
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from equilibrist.checks import audit
from equilibrist.data import array_file, folder
from equilibrist.errors import EquilibristError
from equilibrist.recipe_lookup import resolve
from equilibrist.report._load import load_record
from equilibrist.run import checkpoint, train
from equilibrist.run.record import Record
from equilibrist.solvers.named import solver_from_text
from equilibrist_recipes.digits import digits_sngan

SLOW = 5.0  # seconds that count as a hang
ROOM = 2**29  # bytes beyond what the process held before
KEPT = Path("runs/fuzz")
TOKENS = (
    b"[" * 5000, b'{"a":' * 600, b"1e999", b"-1", b"9" * 400, b"null", b"NaN", b"Infinity", b'"\\ud800"', b"true",
    b"\x00", b"\xff\xfe", b"\n", b'"', b"}", b"]", b",", b":", b"(" * 3000, b"../../etc/passwd", b"\xf0\x9f\x98\x80",
    (2**63).to_bytes(8, "little"), (2**31 - 1).to_bytes(4, "little"), (0).to_bytes(8, "big"),
)  # fmt: skip


class Target(NamedTuple):
    """A reader, the name of the file that it reads, and sound contents."""

    read: Callable[[Path], object]
    file: str
    sound: tuple[bytes, ...]


class Mark:
    """What a pickle would do if it were loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


def targets(place: Path, mark: Path) -> dict[str, Target]:
    """All readers; files that a reader needs beside the one that is damaged lie in `place` already."""
    recipe = replace(
        digits_sngan(dim=2, latent=2, batch=8, steps=6), scores=(), checkpoint_every=3, keep=9
    )
    run = place / "run"
    trained = train(recipe, run, progress="none", compile="off", name="digits-sngan")
    audit(trained, gradients=400, checks=("stationary",), progress="none")
    (run / "report.json").unlink(missing_ok=True)

    def content(name: str) -> tuple[bytes, ...]:
        return ((run / name).read_bytes(),)

    def array(values: object, **options: object) -> bytes:
        held = io.BytesIO()
        np.save(held, values, **options)  # type: ignore[arg-type]
        return held.getvalue()

    def image(kind: str) -> bytes:
        held = io.BytesIO()
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(held, kind)
        return held.getvalue()

    packed = io.BytesIO()
    np.savez(packed, a=np.zeros((4, 2), np.float32))
    evil = array(np.array([Mark(mark)], dtype=object), allow_pickle=True)
    evil += pickle.dumps(Mark(mark))
    tensors = save({"a": torch.zeros(4, 2)})
    newest = max((run / "checkpoints").glob("step_*.safetensors"))
    return {
        "checkpoint": Target(checkpoint.read_checkpoint, f"run/checkpoints/{newest.name}", (newest.read_bytes(),)),
        "recipe.json": Target(lambda p: Record(p.parent).manifest(), "run/recipe.json", content("recipe.json")),
        "metrics.jsonl": Target(lambda p: Record(p.parent).rows(), "run/metrics.jsonl", content("metrics.jsonl")),
        "status.json": Target(lambda p: Record(p.parent).status_values(), "run/status.json", content("status.json")),
        "environment.json": Target(
            lambda p: Record(p.parent).last_session(), "run/environment.json", content("environment.json")
        ),
        "audit.json, for a report": Target(
            lambda p: load_record(p.parent.parent), "run/audit/audit.json", content("audit/audit.json")
        ),
        "recipe.json, for a report": Target(lambda p: load_record(p.parent), "run/recipe.json", content("recipe.json")),
        "npy": Target(array_file, "a.npy", (array(np.zeros((4, 2), np.float32)), evil)),
        "npz": Target(array_file, "a.npz", (packed.getvalue(),)),
        "safetensors": Target(array_file, "a.safetensors", (tensors,)),
        "png": Target(lambda p: folder(p.parent, size=8), "images/a.png", (image("PNG"),)),
        "jpeg": Target(lambda p: folder(p.parent, size=8), "pictures/a.jpg", (image("JPEG"),)),
        "solver's text": Target(
            lambda p: solver_from_text(p.read_text("utf-8", "replace")[:500], recipe.solver), "solver.txt",
            (b"consensus:gamma=10,lr=1e-4", b"alternating:critic_steps=5,lr.critic=0.1", b"proximal:steps=20,lam=0.1"),
        ),
        "setting's text": Target(
            lambda p: resolve("digits-sngan", _settings(p.read_text("utf-8", "replace")[:500])), "setting.txt",
            (b"steps=300", b"lr=1e-4", b"saturating=true"),
        ),
    }  # fmt: skip


def _settings(text: str) -> dict[str, str]:
    key, _, value = text.partition("=")
    return {key: value}


def damaged(sound: bytes, rng: random.Random) -> bytes:
    """One to four changes."""
    held = bytearray(sound)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(held) + 1)
        length = min(len(held) - at, int(2 ** rng.uniform(0, 8)))
        kind = rng.randrange(6)
        if kind == 0 and held:
            held[min(at, len(held) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del held[at:]
        elif kind == 2:
            del held[at : at + length]
        elif kind == 3:
            held[at:at] = rng.randbytes(max(1, length // 8))
        elif kind == 4:
            held[at:at] = held[at : at + length]
        else:
            held[at : at + rng.choice((0, 4, 8))] = rng.choice(TOKENS)
    return bytes(held)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=100_000, help="default: 100,000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers whose name holds this")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    rng, faults, begun = random.Random(asked.seed), Counter[str](), time.monotonic()
    counts: dict[str, Counter[str]] = {}
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as root:
        place, mark = Path(root), Path(root) / "executed"
        readers = {n: t for n, t in targets(place, mark).items() if asked.only in n}
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, resource.RLIM_INFINITY))
        for name, target in readers.items():
            path = place / target.file
            path.parent.mkdir(exist_ok=True)
            counts[name] = Counter()
            for _ in range(asked.inputs // len(readers)):
                given = damaged(rng.choice(target.sound), rng)
                path.write_bytes(given)
                started = time.monotonic()
                try:
                    target.read(path)
                    outcome = "read"
                except EquilibristError:
                    outcome = "refused"
                except BaseException as error:
                    outcome = f"{type(error).__name__}: {str(error)[:80]}"
                if time.monotonic() - started > SLOW:
                    outcome = "slow"
                if mark.exists():
                    outcome = "EXECUTED"
                    mark.unlink()
                counts[name][outcome if outcome in ("read", "refused") else "fault"] += 1
                if outcome not in ("read", "refused"):
                    faults[f"{name}: {outcome}"] += 1
                    KEPT.mkdir(parents=True, exist_ok=True)
                    (KEPT / f"{sum(faults.values())}_{path.name}").write_bytes(given)
            path.write_bytes(target.sound[0])
            print(f"{name:28} {dict(counts[name])}", flush=True)
    total = sum(sum(c.values()) for c in counts.values())
    refused = sum(c["refused"] for c in counts.values())
    print(
        f"{total:,} inputs: {refused:,} refused, {sum(c['read'] for c in counts.values()):,} read, "
        f"{sum(faults.values())} faults; seed {asked.seed}, {time.monotonic() - begun:.0f} s"
    )
    for what, count in faults.most_common(20):
        print(f"  {count} x {what}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
