"""Pictures of games: fields, trajectories and basins of two-parameter games; pages of spectra.

Names are loaded on first use: the list of games needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from equilibrist.play.page import write_play
    from equilibrist.play.played import Played, play
    from equilibrist.play.spectrum_page import write_spectrum

_MODULE = {
    "Played": "played",
    "play": "played",
    "write_play": "page",
    "write_spectrum": "spectrum_page",
}

__all__ = [
    "Played",
    "play",
    "write_play",
    "write_spectrum",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE:
        raise AttributeError(f"module 'equilibrist.play' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"equilibrist.play.{_MODULE[name]}"), name)
    globals()[name] = value
    return value
