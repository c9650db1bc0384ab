"""`choose_checkpoint`: of a run, or of the checkpoints of any other loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from equilibrist.checkpoints.choice import Choice
from equilibrist.checkpoints.measured import SHEET, HeldOut, Ledger
from equilibrist.checks.pair import Prepared
from equilibrist.core.draws import Use
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.data import Source
from equilibrist.data.loaders import as_made, source_of
from equilibrist.errors import GameError, RecipeError, RecordError
from equilibrist.formulations import Formulation
from equilibrist.games.inputs import law_of
from equilibrist.nn import torch_spectral_norm
from equilibrist.nn.wrapped import copied, unwrapped
from equilibrist.progress import showing
from equilibrist.run import Run, checkpoint, load

GRADIENTS = 200  # minibatch gradients for the gap of one checkpoint
OPTIONS = ("by", "confidence", "batch", "seed", "progress", "iterate", "steps")

NEEDED = (
    "checkpoints with a critic need data and formulation, as audit_pair takes them: "
    "choose_checkpoint(checkpoints, loader, Vanilla(), latent=64, held_out=rows)"
)


@dataclass(frozen=True)
class _Asked:
    """The options of `choose_checkpoint` that are not of the game; None where they depend on what is given."""

    by: str = "auto"
    confidence: float = 0.95
    batch: int | None = None
    seed: int | None = None
    progress: str = "auto"
    iterate: str | None = None
    steps: Sequence[int] | None = None


class _Given(NamedTuple):
    """A checkpoint of any loop: a generator or its samples, and a critic where there is one."""

    step: int
    what: Any
    critic: nn.Module | None


@usual_errors
def choose_checkpoint(
    of: Run | Iterable[object],
    data: object = None,
    formulation: Formulation | str | None = None,
    *,
    held_out: object = None,
    score: object = None,
    gradients: int | None = None,
    **options: Any,
) -> Choice:
    """When to stop, and which checkpoint to take: over all checkpoints that there are.

    Of each checkpoint are measured: the score of its generated samples on held-out rows, and the duality gap on
    held-out batches, that is what the players gain by the best deviations that a search finds, each alone, summed.
    Rows, latents and batches are the same for all checkpoints, and comparisons are paired. All intervals hold together
    however often one looks (see `Ledger`).

    Advised is to take k where the last checkpoint is worse than k for certain; to go on where it is better than that of
    half of its steps; else to stop.

    Args:
        of: a run of ours, as `train` or `load` returned it; or the checkpoints of any loop, in their order: tuples
            (step, generator, critic), (step, generator), or (step, samples [N, ...]).
        data, formulation: of checkpoints that are modules, as `audit_pair` takes them; a run has its own. Without
            them the gap is left out.
        held_out: real samples that training did not see, in any form that `source_of` takes. Without them a quarter of
            the data, which training may have seen.
        score: `EnergyScore()` where it is left out; `RowScore(function)` of your own; or one of
            `equilibrist.scores`, taken on 16 blocks of the rows.
        gradients: what the gap of one checkpoint may cost, in minibatch gradients (200); 0 leaves it out.
        options: by ("score", "gap", or "auto": the score where there is one), confidence (0.95), batch, seed,
            progress; of a run steps (which checkpoints; all of them) and iterate (as `audit` has it); and of modules
            the arguments of `audit_pair` about the game (latent, mode, penalties, condition, ...).

    Returns:
        The recommendation, its reason, and every look.

    Raises:
        RecordError: a run without checkpoints. GameError, DataError, RecipeError: arguments that do not fit.
    """
    asked = _Asked(**{key: options.pop(key) for key in OPTIONS if key in options})
    images = isinstance(options.get("condition"), tuple | list)
    out = None if held_out is None else source_of(held_out, conditions=images)
    if isinstance(of, Run):
        if data is not None or formulation is not None or options:
            extra = next(iter(options), "data")
            raise RecipeError(f"{extra} is part of the run's recipe: leave it out")
        return _of_run(of, out, score, gradients, asked)
    given = [_given(row) for row in of]
    if not given:
        raise RecordError(
            "there are no checkpoints: give (step, generator, critic) of one at least"
        )
    if of_run := [key for key in ("steps", "iterate") if getattr(asked, key) is not None]:
        raise RecipeError(f"{of_run[0]} is of a run: give the checkpoints that are meant instead")
    if all(isinstance(what, Tensor) or critic is None for _, what, critic in given):
        return _of_samples(given, data, out, score, asked, options)
    if data is None or formulation is None:
        raise RecipeError(NEEDED)
    return _of_modules(given, data, formulation, out, score, gradients, asked, options)


def _of_run(
    run: Run, out: Source | None, score: object, gradients: int | None, asked: _Asked
) -> Choice:
    recipe = run.recipe
    there = [step for step, _ in checkpoint.existing(run.directory / "checkpoints")]
    steps = sorted(asked.steps or there)
    if not there:
        raise RecordError(f"{run.directory} holds no checkpoint: train it first")
    held = HeldOut(
        run.data,
        out,
        score=score,
        gradients=GRADIENTS if gradients is None else gradients,
        batch=recipe.seen_together if asked.batch is None else asked.batch,
        seed=run.seed if asked.seed is None else asked.seed,
    )
    ledger = _ledger(held, asked, recipe.game.formulation.unit)
    with showing(asked.progress, "checkpoints", len(steps)) as bar:
        for k, step in enumerate(steps):
            at = load(run.directory, recipe, device=str(_device(run)), step=step)
            pair = at.pair(asked.iterate or "auto")
            score_, gap, failed = held.measure(
                recipe.game, pair, at.constants, recipe.seen_together
            )
            ledger.add(step, score_, gap, failed)
            bar.update(k + 1, {})
    notes = held.notes
    if steps == there and recipe.keep <= run.step // recipe.every("checkpoint"):
        notes = (
            *notes,
            f"the run keeps its newest {recipe.keep} checkpoints: train with keep= to choose among more",
        )
    return ledger.choice(notes, run=run.directory.name)


def _device(run: Run) -> torch.device:
    return next(iter(next(iter(run.players.values())).values())).device


def _ledger(held: HeldOut, asked: _Asked, unit: str = "") -> Ledger:
    return Ledger(asked.by, asked.confidence, score=held.score, unit=unit)


# A call for each kind of checkpoint: arguments in the order of `choose_checkpoint`.
def _of_modules(
    given: Sequence[_Given],
    data: object,
    formulation: Formulation | str,
    out: Source | None,
    score: object,
    gradients: int | None,
    asked: _Asked,
    game: dict[str, Any],
) -> Choice:
    held: HeldOut | None = None
    ledger: Ledger | None = None
    with showing(asked.progress, "checkpoints", len(given)) as bar:
        for k, (step, generator, critic) in enumerate(given):
            if critic is None:
                raise GameError(
                    f"the checkpoint of step {step} has no critic, others have: give all"
                )
            ready = Prepared.of(generator, critic, data, formulation, **game)
            if held is None or ledger is None:
                data = ready.data  # a loader is read once
                out = None if out is None else as_made(out, ready.game.sample_shape)
                held = HeldOut(
                    data,
                    out,
                    score=score,
                    gradients=GRADIENTS if gradients is None else gradients,
                    batch=64 if asked.batch is None else asked.batch,
                    seed=0 if asked.seed is None else asked.seed,
                )
                ledger = _ledger(held, asked, ready.game.formulation.unit)
            with torch_spectral_norm.by_itself(generator):
                players, constants = ready.here()
                found = held.measure(ready.game, players, constants, held.settings.batch)
            ledger.add(step, *found)
            bar.update(k + 1, {})
    assert held is not None
    assert ledger is not None
    return ledger.choice(held.notes)


def _of_samples(
    given: Sequence[_Given],
    data: object,
    out: Source | None,
    score: object,
    asked: _Asked,
    game: dict[str, Any],
) -> Choice:
    """Of samples at hand, or of generators alone."""
    if out is None and data is None:
        raise RecipeError("samples are judged by real ones: give held_out")
    latent = game.pop("latent", None)
    if game:
        raise RecipeError(f"{next(iter(game))} is of a game: give (step, generator, critic)")
    seed = 0 if asked.seed is None else asked.seed
    source = source_of(data) if out is None else out
    held = HeldOut(source, out, score=score, gradients=0, seed=seed)
    ledger = _ledger(held, asked)
    for step, what, _ in given:
        fake = what if isinstance(what, Tensor) else _made(what, latent, held, seed, step)
        values, failed = held.of_samples(fake.detach())
        ledger.add(step, values, None, failed)
    return ledger.choice(held.notes)


def _made(module: nn.Module, latent: object, held: HeldOut, seed: int, step: int) -> Tensor:
    """Samples of a generator alone, from the same latents for all."""
    if latent is None:
        raise RecipeError(f"the generator of step {step} needs latent=, its input's law")
    law = law_of(latent)
    copy = copied(unwrapped(module), "generator")
    anchor = next(copy.parameters())
    rng = Use.SHEET.at(sheet=SHEET).generator(seed)
    z = law.sample(rng, held.wanted * held.score.per_row, anchor.dtype, anchor.device)
    with torch.no_grad():
        made: Tensor = copy(z)
    return made


def _given(row: object) -> _Given:
    """A checkpoint as it was given; RecipeError for anything else."""
    if not isinstance(row, tuple | list) or len(row) not in (2, 3):
        raise RecipeError(
            f"a checkpoint is (step, generator, critic), (step, generator) or (step, samples), not {row!r:.60}"
        )
    step, what, critic = row[0], row[1], row[2] if len(row) == 3 else None
    if isinstance(step, bool) or not isinstance(step, int):
        raise RecipeError(f"a checkpoint's step must be a whole number, not {step!r:.60}")
    if not isinstance(what, Tensor | nn.Module):
        what = torch.as_tensor(what)
    return _Given(step, what, critic)
