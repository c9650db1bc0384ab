"""The command `play`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equilibrist.cli.loading import parse_settings
from equilibrist.cli.options import GameSetOption
from equilibrist.cli.output import say
from equilibrist.cli.paths import page_path
from equilibrist.errors import RecipeError

if TYPE_CHECKING:
    from equilibrist.play import Played
    from equilibrist.play.boards import Board


# More parameters than other functions: each is an option of the command.
def play(
    game: Annotated[
        str | None,
        typer.Argument(help="A game's name, or file.py:function. Left out: lists the games."),
    ] = None,
    solver: Annotated[
        list[str] | None,
        typer.Option(
            "--solver",
            metavar="NAME:KEY=VALUE,...",
            help="A solver, such as consensus:gamma=1 or ridge; several times: side by side.",
        ),
    ] = None,
    settings: GameSetOption = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Step size of every solver.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of every solver.")] = None,
    starts: Annotated[
        str, typer.Option("--starts", help="How many starts, or places: 1,0;0.5,-1.")
    ] = "4",
    window: Annotated[
        str | None, typer.Option(metavar="X0,X1,Y0,Y1", help="The part of the plane.")
    ] = None,
    basins: Annotated[
        bool | None,
        typer.Option("--basins/--no-basins", help="Colour a grid of starts by where each ends."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The page; play-GAME.html if left out.")
    ] = None,
) -> None:
    """Draw solvers on a two-parameter game: field, trajectories, basins, rates.

    All solvers begin at the same starts. The table holds each solver's exact rate at each stationary
    point against the rate that its own steps show.

    Example: equilibrist play bilinear --solver simultaneous --solver consensus:gamma=1 --lr 0.1
    """
    from equilibrist.play import boards

    if game is None:
        _print_games(boards.BOARDS)
        return
    boards.board(game)  # refuses a wrong name before torch is imported
    path = page_path(out or Path(f"play-{Path(game.replace(':', '-')).name}.html"))
    from equilibrist.play import play as play_game
    from equilibrist.play import write_play

    found = play_game(
        game,
        solver or (),
        window=_numbers(window) if window is not None else None,
        settings=parse_settings(settings),
        lr=lr,
        steps=steps,
        starts=starts,
        basins=basins,
    )
    write_play(found, path)
    _print_table(found)
    say(f"Pictures: {path}")


def _print_games(games: Mapping[str, Board]) -> None:
    width = max(map(len, games))
    for name, board in games.items():
        print(f"{name:{width}}  {board.line}")


def _print_table(found: Played) -> None:
    head = ("stationary point", "kind", "solver", "predicted", "observed")
    rows = [head, *found.rows()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    if len(rows) > 1:
        for row in rows:
            print("  ".join(f"{cell:{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
    else:
        print(f"no stationary point: {found.table.game.why_none}")
    for shown in found.shown:
        print(f"{shown.name}: after {found.steps} steps {found.ends(shown.outcomes)}")


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise RecipeError(f"--window {text}: write four numbers, such as -2,2,-2,2") from None
