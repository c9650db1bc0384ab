"""The command `checkpoints`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equilibrist.cli.loading import load_run
from equilibrist.cli.options import (
    DataOption,
    DeviceOption,
    IterateOption,
    ProgressOption,
    RecipeOption,
    RunArgument,
    ThreadsOption,
)
from equilibrist.cli.output import say
from equilibrist.cli.setup import prepare
from equilibrist.errors import RecipeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from equilibrist.data import Source
    from equilibrist.run import Run


# More parameters than other functions: each is an option of the command.
def checkpoints(
    directory: RunArgument,
    held_out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.npy",
            help="Real samples that training did not see, as an array [n, ...] scaled as the data are. Left out: a "
            "quarter of the data.",
        ),
    ] = None,
    by: Annotated[str, typer.Option(help="What decides: auto, score or gap.")] = "auto",
    gradients: Annotated[
        int,
        typer.Option(min=0, help="Minibatch gradients for the gap of one checkpoint; 0: no gap."),
    ] = 200,
    confidence: Annotated[
        float, typer.Option(help="Of all intervals of a column together.")
    ] = 0.95,
    iterate: IterateOption = "auto",
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    data_root: DataOption = None,
    threads: ThreadsOption = 0,
    progress: ProgressOption = "auto",
) -> None:
    """Say when to stop, and which checkpoint to take: stop, go on, or an earlier one.

    Each checkpoint's samples are scored on held-out rows, and what the players could still gain alone (the gap) is
    measured on held-out batches, with intervals that hold however often one looks. Writes RUN/checkpoints.json and
    RUN/checkpoints.html. A run keeps its newest three unless it is trained with --keep.

    Example: equilibrist checkpoints runs/digits-sngan --held-out other_digits.npy
    """
    prepare(data_root, threads, progress)
    rows = None if held_out is None else _rows(held_out)  # before anything that takes long
    call = "equilibrist.choose_checkpoint({run})"
    run = load_run(directory, recipe=recipe, device=device, call=call)
    from equilibrist.checkpoints import choose_checkpoint, write_choice
    from equilibrist.files.owned import require_free

    require_free(directory, "checkpoints.json", "checkpoints.html")
    found = choose_checkpoint(
        run,
        held_out=None if rows is None else _as_data(rows, run, str(held_out)),
        gradients=gradients,
        by=by,
        confidence=confidence,
        iterate=iterate,
        progress=progress,
    )
    print(found)
    say(f"Page: {write_choice(found, directory)}")


def _as_data(rows: NDArray[np.generic], run: Run, name: str) -> Source:
    """Held-out rows as the run's data are."""
    from equilibrist.data import ArraySource

    like = run.data
    return ArraySource(
        rows, kind=like.kind, value_range=like.value_range, dtype=run.recipe.dtype, name=name
    )


def _rows(path: Path) -> NDArray[np.generic]:
    """The array in a .npy file, read without executing anything.

    Raises:
        RecipeError: another file.
    """
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        text = str(error).splitlines()[0]
        raise RecipeError(f"--held-out {path}: this is no readable .npy array ({text})") from None
    if not isinstance(found, np.ndarray):
        raise RecipeError(f"--held-out {path}: name a .npy file with one array")
    return found
