"""The statements of Farnia and Ozdaglar 2020, each on chosen numbers, by a closed form and a second time without it."""

from __future__ import annotations

from equilibrist.theory import _section_3, _section_4
from equilibrist.theory._section_4 import two_shifts
from equilibrist.theory._statement import VERDICTS, CheckedStatement, Number, Setting, Verdict

__all__ = [
    "VERDICTS",
    "CheckedStatement",
    "Number",
    "Setting",
    "Verdict",
    "statements",
    "two_shifts",
]


def statements(setting: Setting | None = None) -> tuple[CheckedStatement, ...]:
    """All statements, in the paper's order."""
    setting = setting or Setting()
    parts = (*_section_3.PARTS, *_section_4.PARTS)
    return tuple(found for part in parts for found in part(setting))
