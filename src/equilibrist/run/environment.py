"""What a session ran on."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from typing import Any

import torch


def environment(device: torch.device, from_step: int) -> dict[str, Any]:
    """Versions, machine, threads, git state and start of this session, as plain values."""
    return {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "from_step": from_step,
        "command": [os.path.basename(sys.argv[0]), *sys.argv[1:]],
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        },
        "threads": torch.get_num_threads(),
        "git": _git(),
    }


def identity(entry: dict[str, Any]) -> dict[str, Any]:
    """The part of a session's environment on which bit-identical resumption depends."""
    return {
        "torch": entry["versions"].get("torch"),
        "threads": entry["threads"],
        "processor": entry["machine"]["processor"],
        "device": entry["machine"]["device"],
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in ("equilibrist", "torch", "numpy", "scipy", "safetensors"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found | {"torch": torch.__version__}


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git() -> dict[str, Any] | None:
    """Commit and cleanness of the repository in the working directory; None where there is none."""
    try:
        ask = ["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"]
        commit, changes = (
            subprocess.run(a, capture_output=True, text=True, timeout=5, check=True).stdout
            for a in ask
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}
