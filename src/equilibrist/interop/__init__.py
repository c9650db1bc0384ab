"""Other people's training loops: audits in the middle of them, closed ones heard, and solvers as steps over modules."""

from equilibrist.data.loaders import source_of
from equilibrist.interop._kept import Player, Snapshot
from equilibrist.interop.listening import Heard, listen
from equilibrist.interop.play import Play, TorchRule
from equilibrist.interop.watch import Watch, lightning_callback

__all__ = [
    "Heard",
    "Play",
    "Player",
    "Snapshot",
    "TorchRule",
    "Watch",
    "lightning_callback",
    "listen",
    "source_of",
]
