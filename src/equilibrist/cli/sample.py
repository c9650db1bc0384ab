"""The command `sample`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equilibrist.cli.loading import load_run
from equilibrist.cli.options import (
    DataOption,
    DeviceOption,
    ForceOption,
    IterateOption,
    RecipeOption,
    RunArgument,
    StepOption,
)
from equilibrist.cli.output import say
from equilibrist.cli.paths import refuse_folder, require_parent
from equilibrist.cli.setup import prepare
from equilibrist.errors import RecipeError, RecordError


# More parameters than other functions: each is an option of the command.
def sample(
    directory: RunArgument,
    n: Annotated[int, typer.Option("-n", "--number", min=1, help="How many.")] = 64,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="A .png sheet (images) or a .npy array [n, ...].")
    ] = Path("samples.npy"),
    index: Annotated[int, typer.Option(min=0, help="Another index, other latents.")] = 0,
    step: StepOption = None,
    iterate: IterateOption = "auto",
    recipe: RecipeOption = None,
    device: DeviceOption = "auto",
    data_root: DataOption = None,
    force: ForceOption = False,
) -> None:
    """Generate samples from a trained run: the same seed and index give the same samples.

    A file that an earlier `sample` wrote is replaced; any other is kept, unless --force is given.
    """
    prepare(data_root)
    if out.suffix not in (".png", ".npy"):
        raise RecipeError(f"--out {out}: the name must end in .png or .npy")
    refuse_folder(out)
    require_parent(out)
    from equilibrist.files.owned import publish, require_free

    require_free(out.parent, out.name, force=force)
    call = f"{{run}}.samples({n})"
    run = load_run(directory, recipe=recipe, device=device, step=step, data=False, call=call)
    from equilibrist.run import samples

    is_sheet = out.suffix == ".png"
    if is_sheet and run.data.kind != "images":
        raise RecordError(
            f"--out {out}: this run generates {run.data.kind}, not images; use a name ending in .npy"
        )
    values = run.samples(n, index, iterate)
    content = samples.sheet(values, run.data)[1] if is_sheet else samples.npy_bytes(values)
    publish(out.parent, {out.name: content}, force=force)
    say(f"{n} samples of shape {list(values.shape[1:])}: {out}")
