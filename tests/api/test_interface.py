"""The public interface, written down: names, arguments, defaults. A change of it is made on purpose:

    python tests/api/test_interface.py

writes `interface.txt` anew, whose difference a reviewer reads.
"""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

KEPT = Path(__file__).with_name("interface.txt")


def interface() -> str:
    """A line for every public callable: `module.name(argument=default, ...)`, methods of classes below it."""
    import equilibrist

    lines: list[str] = []
    for module in ("", *equilibrist._MODULES):
        home = importlib.import_module(f"equilibrist.{module}" if module else "equilibrist")
        for name in sorted(getattr(home, "__all__", ())):
            value = getattr(home, name)
            if inspect.isclass(value):
                lines.append(f"{module}.{name}{_arguments(value)}".lstrip("."))
                for member in sorted(vars(value)):
                    one = vars(value)[member]
                    if member.startswith("_"):
                        continue
                    if isinstance(one, staticmethod | classmethod):
                        one = one.__func__
                    if inspect.isfunction(one):
                        lines.append(f"    .{member}{_arguments(one)}")
                    elif isinstance(one, property):
                        lines.append(f"    .{member}")
            elif callable(value):
                lines.append(f"{module}.{name}{_arguments(value)}".lstrip("."))
    return "\n".join(lines) + "\n"


def _arguments(value: Any) -> str:
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return ""
    parts = []
    for p in signature.parameters.values():
        star = {p.VAR_POSITIONAL: "*", p.VAR_KEYWORD: "**"}.get(p.kind, "")
        default = "" if p.default is p.empty else f"={_written(p.default)}"
        keyword = "*, " if p.kind is p.KEYWORD_ONLY and "*" not in "".join(parts) else ""
        parts.append(f"{keyword}{star}{p.name}{default}")
    return f"({', '.join(parts)})"


def _written(value: Any) -> str:
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text.replace(str(Path.home()), "~")


def test_the_interface_changes_on_purpose_only() -> None:
    there, now = KEPT.read_text(encoding="utf-8").splitlines(), interface().splitlines()
    assert now == there, "python tests/api/test_interface.py writes interface.txt anew"


if __name__ == "__main__":
    KEPT.write_text(interface(), encoding="utf-8")
