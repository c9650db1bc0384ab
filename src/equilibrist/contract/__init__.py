"""What every solver and every game must satisfy: checks for yours, and the table of ours.

from equilibrist import contract

contract.require(contract.check_solver(MySolver(), equilibrist.games.bilinear()))
contract.require(contract.check_game(MyGame()))
for cell in contract.cells():
    print(cell.solver, cell.game, *cell.run())
"""

from equilibrist.contract._arena import Arena, arena
from equilibrist.contract._checks import CHECKS, check_solver
from equilibrist.contract._games import GAME_CHECKS, check_game
from equilibrist.contract._outcomes import CheckOutcome, require
from equilibrist.contract._table import GAMES, SOLVERS, Cell, SolverRow, cells

__all__ = [
    "CHECKS",
    "GAMES",
    "GAME_CHECKS",
    "SOLVERS",
    "Arena",
    "Cell",
    "CheckOutcome",
    "SolverRow",
    "arena",
    "cells",
    "check_game",
    "check_solver",
    "require",
]
