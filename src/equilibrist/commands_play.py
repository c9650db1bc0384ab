"""The commands `play` and `spectrum`. Nothing here imports torch before it must."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equilibrist._errors import RecipeError, RecordError

if TYPE_CHECKING:
    from equilibrist.play import Played


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
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An option of the game."),
    ] = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Step size of every solver.")] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of every solver.")] = None,
    starts: Annotated[
        str, typer.Option("--starts", help="How many starts, or places: 1,0;0.5,-1.")
    ] = "4",
    window: Annotated[
        str | None,
        typer.Option("--window", metavar="X0,X1,Y0,Y1", help="The part of the plane."),
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
        width = max(map(len, boards.BOARDS))
        for name, board in boards.BOARDS.items():
            print(f"{name:{width}}  {board.line}")
        return
    boards.board(game)  # a wrong name is told before torch is imported
    path = _page(out or Path(f"play-{Path(game.replace(':', '-')).name}.html"))
    from equilibrist.cli import _pairs, _say
    from equilibrist.play import play as played
    from equilibrist.play import write_play

    frame = _numbers(window) if window is not None else None
    found = played(
        game,
        solver or (),
        settings=_pairs(settings),
        lr=lr,
        steps=steps,
        starts=starts,
        window=frame,
        basins=basins,
    )
    write_play(found, path)
    _print(found)
    _say(f"Pictures: {path}")


def spectrum(
    directory: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run directory, as made by `equilibrist run`.")
    ],
    gamma: Annotated[
        float | None,
        typer.Option(help="Also the eigenvalues of J + gamma J^T J (consensus)."),
    ] = None,
    lr: Annotated[
        float | None, typer.Option("--lr", help="Step size of the disc; the run's if left out.")
    ] = None,
    batches: Annotated[int, typer.Option(min=1, help="Minibatches to average over.")] = 4,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Samples in each; the run's if left out.")
    ] = None,
    extremes: Annotated[
        int, typer.Option(min=1, help="Eigenvalues of each search, where only extremes are found.")
    ] = 8,
    step: Annotated[int | None, typer.Option(help="Of this checkpoint, not the newest.")] = None,
    iterate: Annotated[
        str, typer.Option(help="last, average, or auto (the average where the run keeps one).")
    ] = "last",
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="FILE:FUNCTION",
            help="The recipe of a run that came from a file of your own.",
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    data_root: Annotated[
        Path | None, typer.Option("--data-root", help="Folder of data files.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0 leaves torch's choice.")] = 0,
    progress: Annotated[str, typer.Option(help="auto, bar, lines or none.")] = "auto",
) -> None:
    """Eigenvalues of the game's Jacobian at a run's pair, against the stability disc of its step size.

    All eigenvalues up to about 2,500 parameters, else extremes by Krylov-Schur, with residuals. Writes
    RUN/spectrum.json and RUN/spectrum.html.

    Example: equilibrist spectrum runs/eight-gaussians --gamma 10
    """
    from equilibrist.cli import _loaded, _prepare, _say

    _prepare(data_root, threads, progress)
    for name, value in (("gamma", gamma), ("lr", lr)):
        if value is not None and not 0 < value < float("inf"):
            raise RecipeError(f"--{name} {value:g}: it must be positive")
    call = "equilibrist.spectra.spectrum_of({run})"
    subject = _loaded(directory, recipe, device, step, call=call)
    from equilibrist.play import write_spectrum
    from equilibrist.play.spectrum_page import sentences
    from equilibrist.spectra import spectrum_of

    found = spectrum_of(
        subject,
        gamma=gamma,
        lr=lr,
        batches=batches,
        batch=batch,
        iterate=iterate,
        k=extremes,
        progress=progress,
    )
    for line in sentences(found):
        _say(line)
    page = write_spectrum(found, subject, iterate)
    _say(f"Spectrum: {page}")


def _print(found: Played) -> None:
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


def _page(path: Path) -> Path:
    if path.is_dir():
        raise RecipeError(f"--out {path}: this is a folder; name a file in it")
    if path.suffix not in (".html", ".htm"):
        raise RecipeError(f"--out {path}: the name must end in .html")
    if not path.parent.is_dir():
        raise RecordError(f"--out {path}: the folder {path.parent} does not exist")
    return path


def _numbers(text: str) -> list[float]:
    try:
        return [float(word) for word in text.split(",")]
    except ValueError:
        raise RecipeError(f"--window {text}: write four numbers, such as -2,2,-2,2") from None
