"""Audits of a user's own modules and checkpoint, with nothing else of this library around them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from equilibrist import formulations
from equilibrist._errors import GameError, RecipeError, did_you_mean
from equilibrist.checks._audit import Audit, audit_game, replayable
from equilibrist.checks._registry import CHECKS
from equilibrist.checks._settings import Settings
from equilibrist.data import Source
from equilibrist.data.loaders import source_of
from equilibrist.formulations import Formulation
from equilibrist.games import GAN, _foreign, _setup
from equilibrist.games._foreign import Foreign

MODES = ("as is", "eval", "train")
FORMULATIONS = {
    "vanilla": formulations.Vanilla,
    "wgan": formulations.WGAN,
    "hinge": formulations.Hinge,
    "least-squares": formulations.LeastSquares,
    "relativistic": formulations.Relativistic,
}


@dataclass(frozen=True)
class Pair:
    """What `equilibrist audit FILE:FUNCTION` needs to know; the function may return it, the same as a
    dictionary, or a tuple (generator, critic, data, formulation, latent).

    Args:
        generator, critic: modules that hold the trained weights.
        data: real samples, as `audit_pair` takes them.
        formulation: `Vanilla()`, `WGAN()`, ..., or a name: "vanilla", "wgan", "hinge", "least-squares",
            "relativistic".
        latent: dimension, shape or law of the generator's input.
        mode: "as is", "eval" or "train" (see `audit_pair`).
        condition, penalties, auxiliary, projections, spectral_norm: as `GAN` takes them.
        settings: of the audit, by the names of `Settings`'s fields.
    """

    generator: nn.Module
    critic: nn.Module
    data: Any
    formulation: Formulation | str
    latent: Any
    mode: str = "as is"
    condition: int | tuple[int, ...] | None = None
    penalties: Sequence[Any] = ()
    auxiliary: Sequence[Any] = ()
    projections: Sequence[Any] = ()
    spectral_norm: bool | Sequence[str] = False
    settings: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, where: str) -> Pair:
        """A pair from what a user's function returned.

        Raises GameError for anything that is none, naming what is missing.
        """
        names = [f.name for f in fields(cls)]
        needed = names[:5]
        if isinstance(value, cls):
            return value
        if isinstance(value, tuple | list):
            if len(value) != len(needed):
                raise GameError(
                    f"{where} returns {len(value)} things: it must return ({', '.join(needed)})"
                )
            return cls(*value)
        if isinstance(value, Mapping):
            for key in value:
                if key not in names:
                    hint = did_you_mean(str(key), names)
                    raise GameError(f"{where} returns {key!r}, which no pair has{hint}")
            for key in needed:
                if key not in value:
                    raise GameError(
                        f"{where} returns no {key!r}: it must return {', '.join(needed)}"
                    )
            return cls(**value)
        raise GameError(
            f"{where} returns {type(value).__name__}: it must return a Pair, a dictionary or a tuple "
            f"({', '.join(needed)})"
        )

    def audit(self, settings: Mapping[str, Any] | None = None, **options: Any) -> Audit:
        """The audit of this pair; `settings` over its own, `options` as `audit_pair` takes them."""
        chosen = {**self.settings, **(settings or {})}
        held = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "settings"}
        return audit_pair(**held, settings=_settings(chosen), **options)


def audit_pair(
    generator: nn.Module,
    critic: nn.Module,
    data: Any,
    formulation: Formulation | str,
    *,
    latent: Any,
    mode: str = "as is",
    spectral_norm: bool | Sequence[str] = False,
    settings: Settings | None = None,
    seed: int = 0,
    checks: Sequence[str] = CHECKS,
    progress: str = "auto",
    out: Path | str | None = None,
    **game: Any,
) -> Audit:
    """Audit two modules: nothing is written to them, and they are never run, only copies of them.

    The losses are built from the modules. What a training loop does to its own (a detached batch of
    samples, a scaled gradient) cannot reach the audit; the self-tests run before any verdict.

    torch's spectral norm (hook or parametrisation, either player, transposed convolutions too) is read as
    what it estimates: the copies divide by the exact norm. How far the estimate was off is in
    `audit.about["spectral_norm"]`, and in a warning where that is more than 5%. Weight norm, both forms, is
    kept: magnitude and direction are the parameters.

    Args:
        generator, critic: the modules, with their weights. Wrapped ones (DistributedDataParallel,
            torch.compile) are unwrapped.
        data: real samples: a `Source`, a tensor or a DataLoader (`equilibrist.data.source_of`).
        formulation: `Vanilla()`, `WGAN()`, ..., or its name (`Pair`).
        latent: dimension, shape or law of the generator's input.
        mode: "as is": the mode in which the modules are handed over; "eval" or "train": all layers in
            that one. Batch norm takes a batch's own statistics in "train", which is the game that was
            trained, and the running ones in "eval". Dropout can only be audited in "eval".
        spectral_norm: as in `GAN`, for modules without spectral norm of their own.
        settings, seed, checks, progress: see `audit`.
        out: a folder to write audit.json, the witnesses and the sheets of samples to. A witness is a
            state_dict that loads into the user's module.
        game: arguments of `GAN` besides (condition, penalties, projections, auxiliary).

    Raises:
        GameError: modules whose losses are no functions of their parameters, with the mend.
        DataError: data that cannot be read.
        RecipeError: a mode, formulation or check that does not exist.
    """
    if mode not in MODES:
        raise RecipeError(f"mode={mode!r} is not one of {', '.join(map(repr, MODES))}")
    modules = {"generator": generator, "critic": critic}
    for player, module in modules.items():
        _usable(module, player)
    modules = {player: _foreign.unwrapped(module) for player, module in modules.items()}
    _setup.apart(modules["generator"], modules["critic"])
    source = source_of(data)
    loss = _formulation(formulation)
    with _foreign.by_itself(modules["generator"]):
        made = {player: _foreign.foreign(module, player) for player, module in modules.items()}
        if mode != "as is":
            for one in made.values():
                one.module.train(mode == "train")
        norms = normalised(made["critic"], spectral_norm)
        built = _built(made, loss, latent=latent, spectral_norm=norms, **game)
        here = built.read(made["generator"].module, made["critic"].module)
        constants = _foreign.with_vectors(here.constants, made["critic"], modules["critic"])
        lags = {player: one.lags(modules[player]) for player, one in made.items()}
        for player, values in lags.items():
            if lag := _foreign.lag_of(player, values):
                built.note(lag)
        found = audit_game(
            built,
            here.players,
            constants,
            source,
            settings,
            seed=seed,
            checks=checks,
            progress=progress,
            generator_batch=(settings or Settings()).batch,
        )
    found = replace(
        found,
        about={
            "pair": {player: type(module).__name__ for player, module in modules.items()},
            "mode": mode,
            "seed": seed,
            "game": built.describe(),
            "spectral_norm": {p: values for p, values in lags.items() if values},
        },
    )
    if out is not None:
        write(found, Path(out), source, built, here.players, here.constants, made)
    return found


def normalised(critic: Foreign, wanted: bool | Sequence[str]) -> bool | tuple[str, ...]:
    """`GAN`'s spectral_norm: what torch normalised and what is asked for besides."""
    from equilibrist.spectral_norm import normalised_names

    if not critic.normalised:
        return wanted if isinstance(wanted, bool) else tuple(wanted)
    if wanted is True:
        wanted = normalised_names(critic.module)
    return tuple(dict.fromkeys((*critic.normalised, *(wanted or ()))))


def write(
    found: Audit,
    out: Path,
    source: Source,
    game: GAN,
    players: Any,
    constants: Any,
    made: Mapping[str, Foreign],
) -> None:
    """Write an audit as a folder; its witnesses load into the user's modules."""
    states = replayable(found, game, players, constants)
    of = {c.claim: c.player for c in found}
    states = {claim: made[of[claim] or ""].settled(state) for claim, state in states.items()}
    found.save(out, source, states)


def _usable(module: Any, player: str) -> None:
    """GameError unless this is a module with trainable weights of one precision."""
    if not isinstance(module, nn.Module):
        raise GameError(f"the {player} is of type {type(module).__name__}: pass an nn.Module")
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        raise GameError(
            f"all parameters of the {player} are frozen, so it has nothing to choose: call "
            "requires_grad_(True) on those that were trained"
        )
    for name, p in module.named_parameters():
        if p.dtype not in (torch.float32, torch.float64) and p.is_floating_point():
            dtype = str(p.dtype).removeprefix("torch.")
            raise GameError(
                f"the {player}'s {name} is {dtype}: call .float() on the {player} first"
            )


def _built(made: Mapping[str, Foreign], formulation: Formulation, **options: Any) -> GAN:
    try:
        return GAN(made["generator"].module, made["critic"].module, formulation, **options)
    except TypeError as error:
        raise RecipeError(f"audit_pair: {error}") from None
    except GameError as error:
        if "call .eval() on it" in str(error):
            raise GameError(f"{error} (mode='eval' does so for the audit)") from error
        raise


def _formulation(named: Formulation | str) -> Formulation:
    if not isinstance(named, str):
        return named
    if named not in FORMULATIONS:
        hint = did_you_mean(named, FORMULATIONS)
        raise RecipeError(
            f"there is no formulation {named!r}{hint}; choose from {', '.join(FORMULATIONS)}"
        )
    made: Formulation = FORMULATIONS[named]()
    return made


def _settings(values: Mapping[str, Any]) -> Settings:
    known = [f.name for f in fields(Settings)]
    for key in values:
        if key not in known:
            hint = did_you_mean(key, known)
            raise RecipeError(f"an audit has no setting {key!r}{hint}; it has {', '.join(known)}")
    return Settings(**values)
