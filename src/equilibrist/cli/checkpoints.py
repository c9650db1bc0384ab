"""The command `checkpoints`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equilibrist.cli.loading import load_run
from equilibrist.cli.options import (
    DataOption,
    DeviceOption,
    IterateOption,
    JsonOption,
    ProgressOption,
    RecipeOption,
    RunArgument,
    ThreadsOption,
)
from equilibrist.cli.output import say
from equilibrist.cli.setup import prepare
from equilibrist.errors import RecipeError


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
    ] = 400,
    confidence: Annotated[
        float, typer.Option(help="Of all intervals of a column together.")
    ] = 0.95,
    iterate: IterateOption = "auto",
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    data_root: DataOption = None,
    threads: ThreadsOption = 0,
    progress: ProgressOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Say when to stop, and which checkpoint to take: stop, go on, or an earlier one.

    Each checkpoint's samples are scored on held-out rows, and what the players could still gain alone (the gap) is
    measured on held-out batches, with intervals that hold however often one looks. Writes RUN/checkpoints.json and
    RUN/checkpoints.html. A run keeps its newest three unless it is trained with --keep.

    Example: equilibrist checkpoints runs/digits-sngan --held-out other_digits.npy
    """
    prepare(data_root, threads, progress)
    rows = None if held_out is None else _rows(held_out)
    call = "equilibrist.choose_checkpoint({run})"
    run = load_run(directory, recipe=recipe, device=device, call=call)
    from equilibrist.checkpoints import choose_checkpoint, write_choice
    from equilibrist.data import ArraySource
    from equilibrist.files.owned import require_free

    require_free(directory, "checkpoints.json", "checkpoints.html")  # before the work
    source = None
    if rows is not None:
        source = ArraySource(
            rows,
            kind=run.data.kind,
            value_range=run.data.value_range,
            dtype=run.recipe.dtype,
            name=str(held_out),
        )
    found = choose_checkpoint(
        run,
        held_out=source,
        gradients=gradients,
        by=by,
        confidence=confidence,
        iterate=iterate,
        progress=progress,
    )
    page = write_choice(found, directory)
    if as_json:
        import json

        from equilibrist.files.atomic import finite

        print(json.dumps(finite(found.describe()), indent=1))
        return
    print(found)
    say(f"Page: {page}")


def _rows(path: Path):  # type: ignore[no-untyped-def]
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
