"""When to stop, and which checkpoint to take: by held-out samples, with intervals that hold however often one looks."""

from equilibrist.checkpoints.choice import Choice, Look
from equilibrist.checkpoints.choose import choose_checkpoint
from equilibrist.checkpoints.intervals import bernstein, spent
from equilibrist.checkpoints.measured import HeldOut, Ledger
from equilibrist.checkpoints.page import write_choice
from equilibrist.checkpoints.row_scores import EnergyScore, RowScore

__all__ = [
    "Choice",
    "EnergyScore",
    "HeldOut",
    "Ledger",
    "Look",
    "RowScore",
    "bernstein",
    "choose_checkpoint",
    "spent",
    "write_choice",
]
