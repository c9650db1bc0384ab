"""Audits of a user's own modules and checkpoint, with nothing else of this library around them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from equilibrist.auxiliary import Auxiliary
from equilibrist.checks._audit import audit_game, replayable
from equilibrist.checks._budget import require_budget
from equilibrist.checks._result import Audit
from equilibrist.checks._save import require_place
from equilibrist.checks._settings import Settings
from equilibrist.checks.arguments import in_order, settings_of
from equilibrist.checks.own import OwnGame, data_row
from equilibrist.checks.registry import CHECKS
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.data.loaders import as_made, source_of
from equilibrist.errors import GameError, RecipeError, did_you_mean, warn_user
from equilibrist.files.owned import require_free
from equilibrist.formulations import Formulation
from equilibrist.games import GAN, AdversarialGame
from equilibrist.games import inputs as _setup
from equilibrist.games.compatibility import require_fit
from equilibrist.nn import torch_spectral_norm
from equilibrist.nn.torch_spectral_norm import Foreign
from equilibrist.nn.wrapped import unwrapped
from equilibrist.penalties import Penalty
from equilibrist.projections import Projection
from equilibrist.run import environment
from equilibrist.run.requirements import require_seed

MODES = ("as is", "eval", "train")


@dataclass(frozen=True)
class Pair:
    """What `equilibrist audit FILE:FUNCTION` needs to know; the function may return it, the same as a
    dictionary, or a tuple (generator, critic, data, formulation, latent).

    Args:
        generator, critic, data, formulation, latent, mode, condition, penalties, auxiliary, projections,
            spectral_norm, settings, gradients: as `audit_pair` takes them.
    """

    generator: nn.Module
    critic: nn.Module
    data: object
    formulation: Formulation | str
    latent: Any
    mode: str = "as is"
    condition: int | tuple[int, ...] | None = None
    penalties: Sequence[Penalty] = ()
    auxiliary: Sequence[Auxiliary] = ()
    projections: Sequence[Projection] = ()
    spectral_norm: bool | Sequence[str] = False
    settings: Settings | Mapping[str, object] = field(default_factory=dict)
    gradients: int | None = None

    @classmethod
    def of(cls, value: object, where: str) -> Pair | OwnGame:
        """A pair from what a user's function returned.

        Raises GameError for anything else, naming what is missing.
        """
        names = [f.name for f in fields(cls)]
        needed = names[:5]
        if isinstance(value, cls):
            return value
        if isinstance(value, AdversarialGame):
            return OwnGame(value)
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

    def audit(
        self,
        settings: Mapping[str, object] | None = None,
        *,
        gradients: int | None = None,
        **options: Any,
    ) -> Audit:
        """The audit of this pair; `settings` and `gradients` over its own, `options` as `audit_pair` takes
        them."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        own, more = held.pop("settings"), settings or {}
        whole = isinstance(own, Settings)
        if whole and gradients is not None:
            own, whole = {}, False  # a budget that is asked for replaces one that was written down
        chosen = replace(own, **more) if whole else {**own, **more}
        if gradients is not None:
            held["gradients"] = gradients
        return audit_pair(**held, settings=chosen, **options)


# Many parameters, each an option of one call by its name: modules, data, formulation and latent are all that is needed.
def audit_pair(
    generator: nn.Module,
    critic: nn.Module,
    data: object,
    formulation: Formulation | str,
    *,
    latent: Any,
    mode: str = "as is",
    spectral_norm: bool | Sequence[str] = False,
    settings: Settings | Mapping[str, object] | None = None,
    gradients: int | None = None,
    batch: int | None = None,
    seed: int = 0,
    checks: Sequence[str] = CHECKS,
    progress: str = "auto",
    out: Path | str | None = None,
    **game: Any,
) -> Audit:
    """Audit two modules: nothing is written to them, and only copies of them are run.

    The losses are built from the modules, so that a fault of a training loop (a scaled gradient) cannot reach the
    audit; the self-tests run before any verdict. For torch's spectral norm and weight norm see `Prepared`.

    Args:
        generator, critic: the modules, with their weights. Wrapped ones (DistributedDataParallel, torch.compile) are
            unwrapped; weights in half precision are audited in a float32 copy.
        data: real samples: a `Source`, a tensor or array [N, ...], a tuple (samples, labels), a Dataset or a
            DataLoader (`equilibrist.data.source_of`).
        formulation: `Vanilla()`, `WGAN()`, ..., or its name (`formulations.formulation_of`); may come before the data.
        latent: dimension, shape or law of the generator's input.
        mode: "as is": the mode in which the modules are handed over; "eval" or "train": all layers in that one. Batch
            norm takes a batch's own statistics in "train", which is the game that was trained, and the running ones in
            "eval". Dropout is left out in "eval"; in "train" losses are expectations over it (see `GAN`).
        spectral_norm: as in `GAN`, for modules without spectral norm of their own.
        settings: a `Settings`, or a dictionary of some of its fields, such as `batch`.
        gradients, seed, checks, progress: as `audit` takes them.
        batch: samples in a minibatch.
        out: a folder for report.html, audit.json, sheets of samples and witnesses (state_dicts of the user's modules).
        game: arguments of `GAN` besides (condition, penalties, projections, auxiliary).

    Returns:
        The audit. Its `notes` say what data and generator do not share, which is warned of too.

    Raises:
        GameError: modules whose losses are no functions of their parameters, or data that do not fit them.
        DataError: data that cannot be read.
        RecipeError: a mode, formulation, setting or check that does not exist.
        RecordError: files of others where the audit would be written.
    """
    seed = require_seed(seed)
    if out is not None:
        require_place(Path(out))
        require_free(Path(out), "report.html", "report.json")
    chosen = settings_of(settings, gradients, batch)
    game |= {"mode": mode, "latent": latent, "spectral_norm": spectral_norm}
    prepared = Prepared.of(generator, critic, data, formulation, **game)
    found = prepared.audit(chosen, seed=seed, checks=checks, progress=progress)
    for note in prepared.lag_notes():
        warn_user(note)
    return found if out is None else prepared.write_with_session(found, Path(out))


@dataclass(frozen=True)
class Prepared:
    """Two modules of a user's as a game, ready to be audited whenever their weights have changed.

    torch's spectral norm (hook or parametrisation, either player, transposed convolutions too) is read as what it
    estimates: the copies divide by the exact norm. How far the estimate was off is in the audit's
    `about["spectral_norm"]`, and in a warning where that is more than 5%. Weight norm, both forms, is kept: magnitude
    and direction are the parameters.

    Attributes:
        modules: the user's own, unwrapped.
        made: copies that a game can have.
        game, data: what is audited.
        mode: as in `audit_pair`.
    """

    modules: dict[str, nn.Module]
    made: dict[str, Foreign]
    game: GAN
    data: Source
    mode: str

    @classmethod
    def of(
        cls,
        generator: nn.Module,
        critic: nn.Module,
        data: object,
        formulation: Formulation | str,
        mode: str = "as is",
        **game: Any,
    ) -> Prepared:
        """The game of two modules, held against its data. Raises what `audit_pair` does."""
        if mode not in MODES:
            raise RecipeError(f"mode={mode!r} is not one of {', '.join(map(repr, MODES))}")
        modules = {"generator": generator, "critic": critic}
        for player, module in modules.items():
            _usable(module, player)
        modules = {player: unwrapped(module) for player, module in modules.items()}
        _setup.apart(modules["generator"], modules["critic"])
        data, formulation = in_order(data, formulation)
        source = source_of(data, conditions=isinstance(game.get("condition"), tuple | list))
        with torch_spectral_norm.by_itself(modules["generator"]):
            made = {
                player: torch_spectral_norm.foreign(module, player)
                for player, module in modules.items()
            }
            if mode != "as is":
                for one in made.values():
                    one.module.train(mode == "train")
            game["spectral_norm"] = _normalised(made["critic"], game.get("spectral_norm", False))
            built = _built(made, formulation, **game)
            # The game has copies of its own: one set is enough.
            made = {p: replace(one, module=built.modules[p]) for p, one in made.items()}
            source = as_made(source, built.sample_shape)
            prepared = cls(modules, made, built, source, mode)
            players, constants = prepared.here()
            require_fit(built, source, players, constants)
        return prepared

    def here(self) -> tuple[Players, Constants]:
        """Players and constants as the user's modules hold them now."""
        here = self.game.read(self.modules["generator"], self.modules["critic"])
        constants = torch_spectral_norm.with_vectors(
            here.constants, self.made["critic"], self.modules["critic"]
        )
        return here.players, constants

    def audit(
        self, settings: Settings, *, seed: int, checks: Sequence[str], progress: str
    ) -> Audit:
        """An audit of the modules as they are now."""
        with torch_spectral_norm.by_itself(self.modules["generator"]):
            players, constants = self.here()
            found = audit_game(
                self.game,
                players,
                constants,
                self.data,
                settings,
                seed=seed,
                checks=checks,
                progress=progress,
                generator_batch=settings.batch,
            )
        lags = {player: one.lags(self.modules[player]) for player, one in self.made.items()}
        return replace(
            found,
            about={
                "pair": {player: type(module).__name__ for player, module in self.modules.items()},
                "mode": self.mode,
                "seed": seed,
                "game": self.game.describe(),
                "data": data_row(self.data),
                "spectral_norm": {p: values for p, values in lags.items() if values},
            },
            notes=(*found.notes, *self.lag_notes(), *self.half_notes()),
        )

    def require_budget(self, settings: Settings, checks: Sequence[str]) -> None:
        """RecipeError where `settings` allow too few gradients for these checks."""
        with torch_spectral_norm.by_itself(self.modules["generator"]):
            require_budget(self.game, *self.here(), self.data, settings, checks)

    def lag_notes(self) -> tuple[str, ...]:
        """A sentence for each player whose spectral norm torch estimates badly."""
        summary = (
            torch_spectral_norm.lag_note(p, one.lags(self.modules[p]))
            for p, one in self.made.items()
        )
        return tuple(note for note in summary if note)

    def half_notes(self) -> tuple[str, ...]:
        """A sentence for each player whose weights are in half precision."""
        summary = (torch_spectral_norm.half_note(p, one.half) for p, one in self.made.items())
        return tuple(note for note in summary if note)

    def write_with_session(self, found: Audit, out: Path) -> Audit:
        """Write an audit and its page (see `write`) with the environment that it was made in, and return it so."""
        anchor = next(self.game.modules["generator"].parameters()).device
        session = environment.environment(anchor, 0)
        found = replace(found, about={**found.about, "session": session})
        self.write(found, out)
        return found

    def write(self, found: Audit, out: Path) -> Path:
        """Write an audit and its page as a folder; its witnesses load into the user's modules.

        Returns the page's path.
        """
        from equilibrist.report import (
            write_report,  # pages stand above audits
        )

        with torch_spectral_norm.by_itself(self.modules["generator"]):
            here = self.game.read(self.modules["generator"], self.modules["critic"])
            states = replayable(found, self.game, here.players, here.constants)
        states = {
            claim: self.made[found[claim].player or ""].settled(state)
            for claim, state in states.items()
        }
        found.save(out, self.data, states)
        return write_report(out)


def _normalised(critic: Foreign, wanted: bool | Sequence[str]) -> bool | tuple[str, ...]:
    """`GAN`'s spectral_norm: what torch normalised and what is asked for besides."""
    from equilibrist.nn.spectral_norm import normalised_names

    if not critic.normalised:
        return wanted if isinstance(wanted, bool) else tuple(wanted)
    if wanted is True:
        wanted = normalised_names(critic.module)
    return tuple(dict.fromkeys((*critic.normalised, *(wanted or ()))))


def _usable(module: object, player: str) -> None:
    """GameError unless this is a module with trainable weights."""
    if not isinstance(module, nn.Module):
        raise GameError(f"the {player} is of type {type(module).__name__}: pass an nn.Module")
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        raise GameError(
            f"all parameters of the {player} are frozen, so it has nothing to choose: call "
            "requires_grad_(True) on those that were trained"
        )


def _built(made: Mapping[str, Foreign], formulation: Formulation, **options: Any) -> GAN:
    known = [*inspect.signature(GAN).parameters][3:]
    for name in options:
        if name not in known:
            hint = did_you_mean(name, [*known, *inspect.signature(audit_pair).parameters])
            raise RecipeError(
                f"an audit of two modules has no argument {name!r}{hint}; of a GAN it takes {', '.join(known)}"
            )
    return GAN(made["generator"].module, made["critic"].module, formulation, **options)
