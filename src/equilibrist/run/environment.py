"""What a session ran on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path

import torch

from equilibrist.certificates import Json
from equilibrist.errors import RecipeError
from equilibrist.files.reading import dig, read_regular


def device_of(name: str) -> torch.device:
    """The device of this name; "auto" is the first CUDA device where there is one, else the CPU.

    Raises: RecipeError for a device that cannot compute here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        if device.type not in ("cpu", "cuda", "mps", "xpu"):
            raise RuntimeError("it does not compute")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(
            f"--device {name} cannot be used ({str(error).splitlines()[0]}): try 'auto' or 'cpu'"
        ) from None
    return device


def environment(device: torch.device, from_step: int) -> Json:
    """Versions, machine, threads, git commit and start of this session, as plain values."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "from_step": from_step,
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {
            "system": _system(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        },
        "threads": torch.get_num_threads(),
        "git": _git(),
    }


class deterministic:  # noqa: N801 (reads as a statement)
    """cuDNN's deterministic kernels while a run goes on: resumption is bit-identical on a GPU too.

    Convolutions take TF32 where matrix products do, by choice: `torch.set_float32_matmul_precision("high")`.
    """

    def __init__(self, device: torch.device) -> None:
        self.cuda = device.type == "cuda"

    def __enter__(self) -> None:
        backend = torch.backends.cudnn
        self.before = (backend.deterministic, backend.benchmark, backend.allow_tf32)
        if self.cuda:
            backend.deterministic, backend.benchmark = True, False
            backend.allow_tf32 = torch.get_float32_matmul_precision() != "highest"

    def __exit__(self, *_: object) -> None:
        backend = torch.backends.cudnn
        backend.deterministic, backend.benchmark, backend.allow_tf32 = self.before


def identity(entry: object) -> Json:
    """The part of a session's environment on which bit-identical resumption depends; None for what an
    entry that was damaged or made elsewhere does not say."""
    return {
        name: dig(entry, *path)
        for name, path in (
            ("torch", ("versions", "torch")),
            ("threads", ("threads",)),
            ("processor", ("machine", "processor")),
            ("device", ("machine", "device")),
        )
    }


def changes(first: Json, now: Json, stacked: bool) -> str:
    """In what two sessions differ, as far as bits depend on it: "threads: 2, now 1", or nothing. A member of a stack
    may go on by itself, but not in another stack."""
    was, here = (
        {
            **identity(entry),
            "steps": dig(entry, "steps", "mode") or "eager",
            "processes": dig(entry, "processes") if dig(entry, "sums") == "reduced" else 1,
            **({"members": entry.get("members")} if stacked else {}),
        }
        for entry in (first, now)
    )
    return "; ".join(f"{key}: {was[key]}, now {here[key]}" for key in was if was[key] != here[key])


def _versions() -> dict[str, str]:
    found = {}
    for name in ("equilibrist", "torch", "numpy", "scipy", "safetensors"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found | {"torch": torch.__version__}


def _system() -> str:
    """The kernel and the C library. Python's own answer starts a program that PATH finds."""
    this = os.uname()
    library = "".join(platform.libc_ver())
    return "-".join(
        (this.sysname, this.release, this.machine, *(("with", library) if library else ()))
    )


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return os.uname().machine


_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_REFERENCE = re.compile(r"refs(?:/(?!\.)[^/\s\\:]+)+")


def _git() -> Json | None:
    """The commit of the repository that holds the working directory; None where none can be read.

    Its files are read: a repository's configuration, which may have come with a folder of somebody
    else, names programs that git starts even to tell whether anything has changed.
    """
    try:
        here = Path.cwd()
        for folder in (here, *here.parents):
            if os.path.lexists(folder / ".git"):
                commit = _commit(folder / ".git")
                return None if commit is None else {"commit": commit}
    except (OSError, ValueError):
        pass
    return None


def _commit(git: Path) -> str | None:
    if not git.is_dir():  # a work tree or submodule: a file that says where the rest is
        git = git.parent / _text(git).removeprefix("gitdir:").strip()
    head = _text(git / "HEAD")
    if _COMMIT.fullmatch(head):
        return head
    name = head.removeprefix("ref:").strip()
    if not head.startswith("ref:") or not _REFERENCE.fullmatch(name):
        return None
    shared = [git / _text(git / "commondir")] if (git / "commondir").is_file() else []
    for place in (git, *shared):
        if (place / name).is_file() and _COMMIT.fullmatch(commit := _text(place / name)):
            return commit
        if (place / "packed-refs").is_file():
            for line in _text(place / "packed-refs", 2**24).splitlines():
                commit, _, reference = line.partition(" ")
                if reference == name and _COMMIT.fullmatch(commit):
                    return commit
    return None


def _text(path: Path, most: int = 4096) -> str:
    return read_regular(path, most).decode("utf-8", "surrogateescape").strip()
