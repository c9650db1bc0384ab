"""What an audit of a critic is given, made ready: the copy of the critic, its loss, its samples and a first look."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from equilibrist.critics import _samples
from equilibrist.critics._result import CriticSettings
from equilibrist.critics._samples import Inputs, Samples
from equilibrist.critics.judge import Judge, takes_two
from equilibrist.errors import DataError, GameError, RecipeError, first_line
from equilibrist.formulations import Formulation, formulation_of
from equilibrist.formulations.named import is_formulation
from equilibrist.nn import torch_spectral_norm
from equilibrist.nn.noise import GLOBAL, drawn_since, random_states, seeded

NATURAL = 0.1  # share of rows that equal another one, as in discrete data
LEAST_GRADIENTS = 100


def checked_settings(
    gradients: int, batch: int, confidence: float, tolerance: float, absolute: float
) -> CriticSettings:
    """The settings of an audit.

    Raises:
        RecipeError: one that is out of its range.
    """
    if not isinstance(gradients, int) or gradients < LEAST_GRADIENTS:
        raise RecipeError(
            f"gradients={gradients!r}: it must be a whole number of at least {LEAST_GRADIENTS}"
        )
    return CriticSettings(
        batch=batch,
        confidence=confidence,
        tolerance=tolerance,
        absolute=absolute,
        gradients=gradients,
    )


def check_mode(mode: str, pack: int) -> None:
    """RecipeError unless the mode and the size of a pack exist."""
    if mode not in ("eval", "train"):
        raise RecipeError(f"mode={mode!r}: it must be 'eval' or 'train'")
    if not isinstance(pack, int) or pack < 1:
        raise RecipeError(f"pack={pack!r}: it must be a whole number of at least 1")


def copied_critic(critic: object, mode: str) -> tuple[nn.Module, bool, str]:
    """A copy of the critic, to evaluate and to train: unwrapped, at least in single precision, with exact spectral
    norms.

    Returns:
        The copy, whether it has spectral norms, and a note on its precision ("" for none).

    Raises:
        GameError: no module, lazy layers that were never run, or no parameters.
    """
    if not isinstance(critic, nn.Module):
        kind = type(critic).__name__
        raise GameError(
            f"critic={kind}: pass an nn.Module (wrap a function in one, with its weights)"
        )
    made = torch_spectral_norm.foreign(critic, "critic", by_game=False)
    module = made.module
    for name, p in module.named_parameters():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise GameError(
                f"the critic's {name} has no shape yet (a lazy layer): run it once on a batch"
            )
    floats = [p for p in module.parameters() if p.is_floating_point()]
    if not floats:
        raise GameError("the critic has no parameters: there is nothing that a search could train")
    note = torch_spectral_norm.half_note("critic", made.half)
    return module.train(mode == "train"), bool(made.spectral), note


def parsed_loss(
    loss: Formulation | str | Callable[..., Tensor],
) -> tuple[Formulation | None, Callable[..., Tensor] | None]:
    """(formulation, None), or (None, the user's own loss).

    Raises:
        GameError: neither of the two.
    """
    if isinstance(loss, str | type) or is_formulation(loss):
        return formulation_of(loss), None
    if callable(loss):
        return None, loss
    raise GameError(
        f"loss={type(loss).__name__}: pass a formulation, its name, or a function loss(critic, real, fake)"
    )


def read_kinds(
    module: nn.Module, given: Mapping[str, object], limit: int, pack: int
) -> tuple[dict[str, Samples], list[str]]:
    """Samples of all kinds that were given, packed, and notes on those that were left out.

    Args:
        module: the critic, whose precision and device the samples take.
        given: by kind: "real", "fake", and "train_real" and "train_fake", which may be None.
        limit: at most this many samples of each kind.
        pack: rows that the critic scores together.

    Raises:
        DataError: samples that are missing, unreadable, too few or of different shapes.
    """
    first = next(p for p in module.parameters() if p.is_floating_point())
    whole = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in module.modules())
    held: dict[str, Samples] = {}
    for kind, data in given.items():
        if data is None and kind in ("real", "fake"):
            raise DataError(f"{kind}: no samples were given")
        if data is not None:
            least = (_samples.LEAST if kind in ("real", "fake") else 2) * pack
            held[kind] = _samples.read_samples(
                kind, data, limit, least, first.dtype, first.device, whole
            )
            _samples.same_shape(held["real"], held[kind], kind)
    notes = _without_training_samples(held, pack)
    return {kind: _samples.packed(samples, pack) for kind, samples in held.items()}, notes


def _without_training_samples(held: dict[str, Samples], pack: int) -> list[str]:
    """Leave out of `held` the held-out samples that the critic was trained on; a note for each kind."""
    notes = []
    for kind, own in (("real", "train_real"), ("fake", "train_fake")):
        if own not in held:
            continue
        left, count = _samples.without(held[kind], held[own])
        if count and _samples.repeats(held[own]) > NATURAL:
            notes.append(
                f"{count} of the {kind} samples equal one of {own}, as rows of {own} equal one another: they were kept"
            )
        elif count:
            held[kind] = left
            notes.append(
                f"{count} of the {kind} samples are among {own}, and were left out of {kind}"
            )
            if len(left) < _samples.LEAST * pack:
                raise DataError(
                    f"{kind}: {len(left)} samples are left without those of {own}: give held-out ones"
                )
    return notes


def heads_and_noise(judge: Judge, module: nn.Module, batch: Inputs) -> tuple[int, bool]:
    """Run the critic twice on a few samples.

    Returns:
        How many heads it has, and whether it draws random numbers.

    Raises:
        GameError: it cannot be run, is not finite, or gives two answers under one seed.
    """
    few = batch.rows(slice(16))
    try:
        with torch.no_grad():
            with seeded(0, GLOBAL):
                before = random_states()
                first = judge.heads(module, few)
                noisy = bool(drawn_since(before))
            with seeded(0, GLOBAL):
                second = judge.heads(module, few)
    except GameError:
        raise
    except Exception as error:
        hint = (
            " (it takes two arguments: give real and fake as tuples (x, y))"
            if takes_two(module) and not judge.conditional
            else ""
        )
        if judge.pack > 1:
            hint = f" (it is shown rows, {judge.pack} to a pack: let it reshape them, as its loop does)"
        shape = list(judge.spread(few.x).shape)
        raise GameError(
            f"the critic cannot be run on samples {shape}: {type(error).__name__}: {first_line(error)[:200]}{hint}"
        ) from error
    if not all(bool(torch.isfinite(head).all()) for head in first):
        raise GameError(
            "the critic's scores of the generated samples are not finite: look at its weights"
        )
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise GameError(
            "the critic gives two answers to the same samples: look for state kept between calls, or a random "
            "generator of its own (pass mode='eval')"
        )
    return len(first), noisy
