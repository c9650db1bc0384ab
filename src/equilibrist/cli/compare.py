"""The command `compare`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from equilibrist.cli.exit_codes import INTERRUPTED
from equilibrist.cli.loading import parse_settings
from equilibrist.cli.options import (
    DataOption,
    DeviceOption,
    ProgressOption,
    RecipeArgument,
    SetOption,
    ThreadsOption,
)
from equilibrist.cli.output import complain, say
from equilibrist.cli.paths import folder_name
from equilibrist.cli.setup import prepare
from equilibrist.errors import RecipeError

if TYPE_CHECKING:
    from equilibrist.compare import Comparison
    from equilibrist.recipe_lookup import Resolved

DEFAULT = ("recipe", "consensus", "extragradient")


_SolverOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[:key=value,...]",
        help="A solver; may be given several times. Left out: recipe, consensus and extragradient. "
        "Differences are taken from the first.",
    ),
]
_SeedsOption = Annotated[
    int, typer.Option(min=1, help="Seeds 0 to N-1, the same for every solver.")
]
_DirectoryOption = Annotated[
    Path | None, typer.Option("--dir", help="Folder; runs/compare-RECIPE if left out.")
]


# More parameters than other functions: each is an option of the command.
def compare(
    recipe: RecipeArgument,
    solver: _SolverOption = None,
    seeds: _SeedsOption = 8,
    directory: _DirectoryOption = None,
    settings: SetOption = None,
    device: DeviceOption = "auto",
    data_root: DataOption = None,
    threads: ThreadsOption = 0,
    progress: ProgressOption = "auto",
) -> None:
    """Train a recipe with several solvers from several seeds, and say how they differ.

    NAME is `recipe` (the recipe's own solver) or one of alternating,
    simultaneous, consensus, extragradient, past-extragradient, optimistic,
    anchored, symplectic, competitive, lookahead (around the recipe's own),
    ridge, unrolled, proximal. Each takes the recipe's update rules (anchored
    plain gradient steps, of the size lr=...). Keys are the
    solver's own (critic_steps=5, gamma=10, batches=2, align=true, period=5,
    steps=20, lam=0.1, ...), lr=... (lr.critic=...) replaces the step size, and
    average=... the average that is sampled and scored: none, uniform,
    exponential (average.decay=0.999) or tail (average.start=STEP).

    All seeds of a solver are trained at once. Every solver has the same seeds,
    and from each seed the same initial weights and minibatches: a sweep over
    step sizes (the same NAME with several lr) is one at common random numbers.
    The table has means over seeds with 95% intervals and paired differences,
    after as many steps and after as much time, and what a step costs.
    DIR/compare.html draws it; DIR/SOLVER/seed_K are run directories like any
    other. Running it again goes on where it stopped, and adds solvers and
    seeds.

    Example: equilibrist compare eight-gaussians --solver recipe
    --solver consensus:gamma=10 --solver simultaneous:lr=1e-4 --seeds 8

    A sweep: equilibrist compare eight-gaussians --solver recipe
    --solver recipe:lr=1e-4 --solver recipe:lr=1e-3
    """
    prepare(data_root, threads, progress)
    chosen = solver or list(DEFAULT)
    if twice := [text for i, text in enumerate(chosen) if text in chosen[:i]]:
        raise RecipeError(f"--solver {twice[0]} is given twice: give it once")
    from equilibrist.recipe_lookup import resolve

    resolved = resolve(recipe, parse_settings(settings))
    where = directory or Path("runs") / f"compare-{folder_name(resolved.name)}"
    found = _compare(resolved, chosen, where, seeds, device=device, progress=progress)
    if found.interrupted:
        say("Stopped and saved. Run the same command again to go on.")
        raise typer.Exit(INTERRUPTED)
    print(found)
    say(f"Page: {found.page}")


def _compare(
    resolved: Resolved,
    solvers: Sequence[str],
    where: Path,
    seeds: int,
    *,
    device: str,
    progress: str,
) -> Comparison:
    """Build the recipe and train it with each solver, in the folder `where`."""
    from equilibrist.compare import compare as compare_solvers
    from equilibrist.solvers.named import solver_from_text

    built = resolved.build()
    try:
        return compare_solvers(
            built,
            {text: solver_from_text(text, built.solver) for text in solvers},
            where,
            range(seeds),
            name=resolved.name,
            settings=resolved.settings,
            origin=resolved.origin,
            device=device,
            progress=progress,
        )
    except KeyboardInterrupt:
        complain(
            f"interrupted at once; {where} goes on from its last checkpoints when it is run again"
        )
        raise typer.Exit(INTERRUPTED) from None
