"""The command `spectrum`."""

from __future__ import annotations

from typing import Annotated

import typer

from equilibrist.cli.loading import load_run
from equilibrist.cli.options import (
    DataOption,
    DeviceOption,
    IterateOption,
    ProgressOption,
    RecipeOption,
    RunArgument,
    StepOption,
    ThreadsOption,
)
from equilibrist.cli.output import say
from equilibrist.cli.setup import prepare
from equilibrist.errors import RecipeError


# More parameters than other functions: each is an option of the command.
def spectrum(
    directory: RunArgument,
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
    step: StepOption = None,
    iterate: IterateOption = "last",
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    data_root: DataOption = None,
    threads: ThreadsOption = 0,
    progress: ProgressOption = "auto",
) -> None:
    """Eigenvalues of the game's Jacobian at a run's pair, against the stability disc of its step size.

    All eigenvalues up to about 2,500 parameters, else extremes by Krylov-Schur, with residuals. Writes
    RUN/spectrum.json and RUN/spectrum.html.

    Example: equilibrist spectrum runs/eight-gaussians --gamma 10
    """
    prepare(data_root, threads, progress)
    for name, value in (("gamma", gamma), ("lr", lr)):
        if value is not None and not 0 < value < float("inf"):
            raise RecipeError(f"--{name} {value:g}: it must be positive")
    call = "equilibrist.spectra.spectrum_of({run})"
    run = load_run(directory, recipe=recipe, device=device, step=step, call=call)
    from equilibrist.play import write_spectrum
    from equilibrist.play.spectrum_page import sentences
    from equilibrist.spectra import spectrum_of

    found = spectrum_of(
        run,
        gamma=gamma,
        lr=lr,
        batches=batches,
        batch=batch,
        iterate=iterate,
        k=extremes,
        progress=progress,
    )
    for line in sentences(found):
        say(line)
    say(f"Spectrum: {write_spectrum(found, run, iterate)}")
