"""The command `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from equilibrist.cli.loading import load_run
from equilibrist.cli.options import (
    DataOption,
    ForceOption,
    IterateOption,
    RecipeOption,
    RunArgument,
    StepOption,
)
from equilibrist.cli.output import say
from equilibrist.cli.setup import prepare


def export(
    directory: RunArgument,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder; RUN/export if left out.")
    ] = None,
    step: StepOption = None,
    iterate: IterateOption = "auto",
    recipe: RecipeOption = None,
    data_root: DataOption = None,
    force: ForceOption = False,
) -> None:
    """Write plain state_dicts as safetensors: generator.safetensors and critic.safetensors.

    Load them with safetensors.torch.load_file and module.load_state_dict. Spectral normalisation is
    folded into the critic's weights. Files that an earlier `export` wrote are replaced; any others are
    kept, unless --force is given.
    """
    prepare(data_root)
    call = "run = {run}; run.recipe.game.load(run.pair(), run.constants)"
    run = load_run(directory, recipe=recipe, device="cpu", step=step, data=False, call=call)
    from equilibrist.run import samples

    folder = out.resolve() if out else directory / "export"
    paths = samples.export_players(
        run.recipe.game, run.pair(iterate), run.constants, folder, force=force
    )
    for path in paths:
        say(str((out or folder) / path.name))
