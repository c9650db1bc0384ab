"""The memory that a process holds, and the most that it held meanwhile (Linux)."""

from __future__ import annotations

from pathlib import Path

from equilibrist.core.memory import give_back

_PROCESS = Path("/proc/self")


def held(entry: str = "VmRSS") -> int:
    """Bytes of this process: now (VmRSS), or at most (VmHWM)."""
    status = (_PROCESS / "status").read_text(encoding="ascii")
    return 1024 * int(
        next(line.split()[1] for line in status.splitlines() if line.startswith(entry))
    )


class Peak:
    """The most bytes that the process holds inside the block, beyond what it held before.

    Not getrusage: its maximum survives exec, and is that of the whole life of a process. The kernel's own mark is set
    back at the beginning, so that what lasts a millisecond counts too.
    """

    bytes = 0

    def __enter__(self) -> Peak:
        give_back()  # or what was freed before would be used first, and not be counted
        (_PROCESS / "clear_refs").write_text("5")  # sets VmHWM to what is held now
        self._before = held("VmRSS")
        return self

    def __exit__(self, *_: object) -> None:
        self.bytes = held("VmHWM") - self._before
