"""Audits of a game whose losses are a user's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from equilibrist import tree
from equilibrist.certificates import Json
from equilibrist.checks._audit import audit_game
from equilibrist.checks._result import Audit
from equilibrist.checks._save import require_place
from equilibrist.checks._settings import Settings
from equilibrist.checks.arguments import settings_of
from equilibrist.checks.registry import CHECKS
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.errors import warn_user
from equilibrist.files.owned import require_free
from equilibrist.games import AdversarialGame
from equilibrist.nn import torch_spectral_norm
from equilibrist.run import environment
from equilibrist.run.requirements import require_seed


def data_row(data: Source) -> Json:
    """What an audit records of its data."""
    return {
        "name": data.name,
        "kind": data.kind,
        "size": data.size,
        "shape": list(data.shape),
        "source": data.origin,
    }


@dataclass(frozen=True)
class OwnGame:
    """A game of own losses, ready to be audited whenever the weights of its modules have changed."""

    game: AdversarialGame

    def audit(
        self,
        settings: Settings | Mapping[str, object] | None = None,
        *,
        gradients: int | None = None,
        batch: int | None = None,
        seed: int = 0,
        checks: Sequence[str] = CHECKS,
        progress: str = "auto",
        out: Path | str | None = None,
    ) -> Audit:
        """The audit of the players as they are now; arguments as those of `audit_pair`."""
        seed, game = require_seed(seed), self.game
        if out is not None:
            require_place(Path(out))
            require_free(Path(out), "report.html", "report.json")
        chosen = settings if isinstance(settings, Settings) else dict(settings or {})
        if isinstance(chosen, dict):
            chosen.setdefault("batch", game.batch)
        chosen = settings_of(chosen, gradients, batch)
        with torch_spectral_norm.by_itself(next(iter(game.modules.values()))):
            start = game.read()
            found = audit_game(
                game,
                start.players,
                start.constants,
                game.data,
                chosen,
                seed=seed,
                checks=checks,
                progress=progress,
                generator_batch=chosen.batch,
            )
        notes = self._notes()
        for note in notes:
            warn_user(note)
        found = self._named(replace(found, about=self._about(seed), notes=(*found.notes, *notes)))
        if out is not None:
            self._write(found, start.players, start.constants, Path(out))
        return found

    def _named(self, found: Audit) -> Audit:
        """The audit in the players' own names, with a note of which is which where they have others."""
        names = {p: name for p, name in self.game.names.items() if p != name}
        if not names:
            return found
        found = replace(found, names=names)
        which = ", ".join(f"{p!r} is the {name}" for p, name in names.items())
        return replace(
            found,
            notes=(f"in the names of claims {which}", *found.notes),
            certificates=tuple(
                replace(
                    c,
                    summary=found.named(c.summary),
                    limits=tuple(found.named(line) for line in c.limits),
                    tolerance=c.tolerance
                    and replace(c.tolerance, why=found.named(c.tolerance.why)),
                )
                for c in found.certificates
            ),
        )

    def _about(self, seed: int) -> Json:
        game, described = self.game, self.game.describe()
        return {
            "pair": {game.names[p]: described["players"][p]["class"] for p in game.players},
            "mode": "as is",
            "seed": seed,
            "game": described,
            "data": data_row(game.data),
            "spectral_norm": {p: values for p, values in game.lags().items() if values},
        }

    def _notes(self) -> tuple[str, ...]:
        lags = self.game.lags().items()
        notes = [torch_spectral_norm.lag_note(self.game.names[p], lag) for p, lag in lags]
        notes += [torch_spectral_norm.half_note(self.game.names[p], h) for p, h in self.game.half()]
        return tuple(note for note in notes if note)

    def _write(self, found: Audit, players: Players, constants: Constants, out: Path) -> None:
        """The audit and its page in a folder; witnesses load into the user's modules."""
        from equilibrist.report import write_report  # pages stand above audits

        states = {}
        for c in found.values():
            if c.witness is None or c.player is None or c.witness_kind != "deviation":
                continue
            loaded = self.game.load({**players, **c.witness}, constants)[c.player]
            states[c.claim] = self.game.state_of(c.player, loaded.state_dict())
        anchor = tree.leaves(players)[0]
        session = environment.environment(anchor.device, 0)
        found = replace(found, about={**found.about, "session": session})
        found.save(out, self.game.data, states)
        write_report(out)
