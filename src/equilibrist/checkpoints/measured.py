"""Checkpoints on held-out rows: what is measured of each, and what all of them together say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from equilibrist.checkpoints.choice import Choice, Course, Look
from equilibrist.checkpoints.intervals import Array, Values, spent
from equilibrist.checkpoints.row_scores import AnyScore, score_of
from equilibrist.checks import AuditContext, Settings
from equilibrist.checks.deviation import respond
from equilibrist.core.draws import Use
from equilibrist.core.game import Constants, Players
from equilibrist.data import Source
from equilibrist.errors import DataError, RecipeError
from equilibrist.games import AdversarialGame, SampledGame
from equilibrist.run import samples
from equilibrist.run.requirements import require_seed

ROWS = 1024  # held-out rows of a score, at most
LEAST = 16  # held-out rows below which nothing is measured
SHEET = 2**31  # number of the sheet of latents with which checkpoints are judged
SEARCH = 60  # minibatch gradients of the least search of one player


class HeldOut:
    """Held-out rows, and how a checkpoint is measured on them: the same rows and latents for all.

    Args:
        data: what players that deviate may learn from.
        held_out: real samples that neither training nor those searches see. None: a quarter of `data`, which the
            searches do not see; whether training did is not known here.
        score: as `choose_checkpoint` takes it.
        gradients: what the gap of one checkpoint may cost, in minibatch gradients of all players together; 0: no gap.
        batch: samples in a minibatch of those searches.
        seed: of rows, latents and searches.

    Raises:
        RecipeError: too few gradients for a search, or a score that is none.
        DataError: too few held-out rows.
    """

    def __init__(
        self,
        data: Source,
        held_out: Source | None = None,
        *,
        score: object = None,
        gradients: int = 200,
        batch: int = 64,
        seed: int = 0,
    ) -> None:
        self.data, self.held_out, self.seed = data, held_out, require_seed(seed)
        if held_out is not None and tuple(held_out.shape) != tuple(data.shape):
            raise DataError(
                f"held_out has samples of shape {list(held_out.shape)}, the data of {list(data.shape)}: give both alike"
            )
        if not isinstance(gradients, int) or isinstance(gradients, bool) or gradients < 0:
            raise RecipeError(
                f"gradients={gradients!r}: give a whole number, 0 to leave the gap out"
            )
        self.gradients = gradients
        self.settings = Settings(batch=batch)
        self.score: AnyScore = score_of(score, seed)
        self._judge: Callable[[Tensor], Array] | None = None
        self._condition: Tensor | None = None
        self._rows = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """What to know about the rows."""
        if self.held_out is not None or self.data.size is None:
            return ()
        return (
            "the rows are a quarter of the data, which training may have seen: pass held_out to judge by others",
        )

    def measure(
        self, game: SampledGame, players: Players, constants: Constants, batch: int = 0
    ) -> tuple[Values | None, Values | None, str]:
        """(score, gap, why there are no numbers) of a checkpoint; None for what is not measured, and for a gap whose
        searches all failed beside a sound score.

        `batch`: how many samples are generated at a time, 0 for all.
        """
        context = AuditContext(game, players, constants, self.data, self.settings, self.seed)
        if self.held_out is not None:
            context.parts["score"] = self.held_out.to(context.device, context.dtype)
        score = None if game.lacks("samples") else self._scored(context, game, batch)
        gap = self._gap(context) if self.gradients else None
        if gap is not None and not gap.sound:
            gap = None
        if score is not None and not score.sound:
            return None, None, "the score is not finite"
        return score, gap, "" if score or gap else "the losses are not finite"

    def of_samples(self, fake: Tensor) -> tuple[Values | None, str]:
        """The score of generated samples at hand, as many for each row as there are."""
        rows = self._held_rows(self.held_out or self.data)
        each = self.score.per_row
        n = min(len(rows), len(fake) // each)
        if n < LEAST:
            raise DataError(
                f"{len(fake)} generated samples are too few: give {LEAST * each} at least, {each} for each of "
                f"{len(rows)} held-out rows at best"
            )
        if self._judge is None or self._rows != n:
            source = self.held_out or self.data
            self._judge = self.score.on(rows[:n], source.kind, source.value_range)
            self._rows = n
        values = Values(self._judge(fake[: n * each].to(rows)), self.score.bounds)
        return (values, "") if values.sound else (None, "the score is not finite")

    @property
    def wanted(self) -> int:
        """How many held-out rows a score takes."""
        size = (self.held_out or self.data).size
        return ROWS if size is None else min(ROWS, size)

    def _held_rows(self, source: Source) -> Tensor:
        rng = Use.CHECKPOINT_ROWS.at().generator(self.seed)
        if source.size is None:
            return source.sample(rng, ROWS)
        _enough(source.size)
        order = torch.from_numpy(rng.permutation(source.size)[:ROWS])
        take = getattr(source, "take", None)
        found: Tensor = source.all()[order] if take is None else take(order)
        return found

    def _scored(self, context: AuditContext, game: SampledGame, batch: int) -> Values:
        source = context.parts["score"]
        if self._judge is None:
            real = self._real(context, game, source)
            self._judge = self.score.on(real, source.kind, source.value_range)
            self._rows = len(real)
        fake = samples.generate(
            game,
            context.players,
            context.constants,
            self._rows * self.score.per_row,
            self.seed,
            SHEET,
            batch,
            source,
            self._condition,
        )
        return Values(self._judge(fake), self.score.bounds)

    def _real(self, context: AuditContext, game: SampledGame, source: Source) -> Tensor:
        """The rows, and their conditions once for each generated sample."""
        rng = Use.CHECKPOINT_ROWS.at().generator(self.seed)
        if isinstance(game, AdversarialGame):
            count = ROWS if source.size is None else min(ROWS, source.size)
            _enough(count)
            return samples.real(
                game, context.players, context.constants, count, self.seed, source
            ).detach()
        if source.size is None:
            draw = game.draw(rng, source, ROWS, context.dtype, context.device)
        else:
            _enough(source.size)
            order = torch.from_numpy(rng.permutation(source.size)[:ROWS]).to(context.device)
            draw = game.covered(source, order, context.device, context.dtype)
        if "condition" in draw:
            self._condition = draw["condition"].repeat_interleave(self.score.per_row, 0)
        return draw["real"]

    def _gap(self, context: AuditContext) -> Values:
        """What all players gain by the best deviations that are found, summed, on every held-out batch."""
        players = context.game.players
        each = self.gradients / len(players)
        if each < SEARCH:
            raise RecipeError(
                f"gradients={self.gradients} are too few for the gap of {len(players)} players: give "
                f"{SEARCH * len(players)} at least, or 0 to leave it out"
            )
        gains = sum(respond(context, player, each).gains for player in players)
        return Values(np.asarray(gains.cpu()), widen=context.resampling("score"))  # type: ignore[union-attr]


def _enough(rows: int) -> None:
    if rows < LEAST:
        raise DataError(f"{rows} held-out rows are too few: give {LEAST} at least")


class Ledger:
    """The looks so far, and what they say: add one at any time, ask at any time.

    All intervals of the scores hold together with probability `confidence`, and so do all of the gaps, and all
    comparisons: look number k may miss with probability `spent(1 - confidence, k)`, divided by k - 1 for each of its
    comparisons with earlier ones. That needs no independence among looks, and no number of looks that is fixed
    beforehand; only the rows must not have been used in training.

    Args:
        by: "score", "gap", or "auto": the score where there is one.
        confidence: of each of the three.
        score: its name, `lower` whether lower is better. unit: of the gap.
    """

    def __init__(
        self,
        by: str = "auto",
        confidence: float = 0.95,
        *,
        score: AnyScore | None = None,
        unit: str = "",
    ) -> None:
        if by not in ("auto", "score", "gap"):
            raise RecipeError(f"by={by!r}: choose 'auto', 'score' or 'gap'")
        if not 0.5 <= confidence < 1:
            raise RecipeError(f"confidence={confidence!r}: it must lie in [0.5, 1)")
        self.by, self.confidence, self.unit = by, confidence, unit
        self.name = "score" if score is None else score.name
        self.turned = score is not None and not score.lower
        self.looks: list[Look] = []
        self._scores: list[Values | None] = []
        self._gaps: list[Values | None] = []

    def add(
        self, step: int, score: Values | None = None, gap: Values | None = None, failed: str = ""
    ) -> Look:
        """The next look; returns it with its intervals."""
        number = len(self.looks) + 1
        level = spent(1 - self.confidence, number)
        intervals = [None if v is None else v.interval(level) for v in (score, gap)]
        look = Look(step, number, intervals[0], intervals[1], failed)
        self.looks.append(look)
        if score is not None and self.turned:
            score = replace(score, values=-score.values, bounds=_turned(score.bounds))
        self._scores.append(score)
        self._gaps.append(gap)
        return look

    def choice(self, notes: tuple[str, ...] = (), **about: object) -> Choice:
        """The recommendation from the looks so far.

        Raises:
            RecipeError: the quantity that shall decide was not measured.
        """
        has = {
            "score": any(v is not None for v in self._scores),
            "gap": any(v is not None for v in self._gaps),
        }
        by = (
            ("score" if has["score"] or not has["gap"] else "gap") if self.by == "auto" else self.by
        )
        failed = [look for look in self.looks if look.failed]
        if not has[by] and len(failed) < len(self.looks):
            remedy = "give gradients" if by == "gap" else "these players make no samples"
            raise RecipeError(f"by={by!r}, but no {by} was measured: {remedy}")
        name = self.name if by == "score" else "duality gap"
        course = Course(
            [look.step for look in self.looks],
            self._scores if by == "score" else self._gaps,
            1 - self.confidence,
            name,
            self.turned and by == "score",
        )
        advice, index, reason = course.decide()
        if advice == "stop" and index is not None and (gap := self.looks[-1].gap) is not None:
            reason += f"; what the players could still gain alone: {gap.in_words(self.unit)}"
        return Choice(
            advice,
            None if index is None else self.looks[index].step,
            reason,
            tuple(self.looks),
            name,
            self.confidence,
            notes,
            {"score": self.name, "unit": self.unit, **about},
        )


def _turned(bounds: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if bounds is None else (-bounds[1], -bounds[0])
