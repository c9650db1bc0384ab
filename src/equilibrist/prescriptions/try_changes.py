"""`prescribe`: successive halving over changes, then a judgement of the best on seeds that chose nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from equilibrist.core.draws import Use
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.diagnosis import Loop
from equilibrist.errors import RecipeError
from equilibrist.interop import Play
from equilibrist.prescriptions.fork import AS_IS, Fork, Measured
from equilibrist.prescriptions.fork_of import fork_of
from equilibrist.prescriptions.prescription import Prescription, Tried
from equilibrist.progress import showing
from equilibrist.run import Run
from equilibrist.run.requirements import require_seed
from equilibrist.statistics import Estimate, paired

ROUNDS = 10  # of a branch without a change, at least
JUDGING = 0.5  # of the gradients, for the branches that judge
LAST = 2  # changes that are judged
LIMITS = (
    "branches are short: what helps later is not seen, and a change may begin without the moments that training had",
    "the interval is over branches' seeds, on the same held-out rows",
)


@dataclass
class _Record:
    """What became of a change so far."""

    cost: float
    selected: list[float | None] = field(default_factory=list)
    judged: dict[int, float | None] = field(default_factory=dict)
    beside: dict[int, float | None] = field(default_factory=dict)
    rounds: int = 0


@usual_errors
def prescribe(
    of: Run | Play | Loop,
    changes: Mapping[str, Callable[..., object]] | None = None,
    *,
    gradients: int = 20_000,
    seeds: int = 5,
    confidence: float = 0.95,
    progress: str = "auto",
    **options: Any,
) -> Prescription:
    """Try changes of training from one state, and say which closes the gap that was found there.

    Every branch begins at the audited state with one change (or none), trains with random numbers that all branches of
    its seed share, for as many gradients as the others, and is measured on held-out rows. Successive halving drops
    the worse half of the changes after each round, every round with a seed of its own and longer branches (Jamieson
    and Talwalkar 2016). The two that are left are judged against the branch without a change on `seeds` further
    seeds, paired: a change is prescribed where the interval of its effect, corrected for both, lies below zero.

    Args:
        of: a run of ours, at the step whose audit found the gap; an `interop.Play`; or a `diagnosis.Loop` with `save`
            and `load`.
        changes: of a run {name: change(recipe)} in place of `changes_of(recipe)`; of a loop {name: change(loop)} beside
            the rates of its optimisers, which are found by themselves. What change(loop) returns is called to undo it.
        gradients: what all branches and measurements may cost, in minibatch gradients of the batch that is used now.
        seeds: that judge, at least 3.
        confidence: of the effects' intervals together.
        progress: "auto", "bar", "lines" or "none".
        options: seed; of a run and a Play `by` ("gap", the default, or "score") and `held_out`, as `choose_checkpoint`
            has them; of a Play also `data` and `batch`; of a loop `measure` (measure(loop) is what shall fall, a number
            or held-out values) and `start` (the number of the first round).

    Returns:
        The change that helped, by how much and at which cost, or that none did; and what was tried. A run is left
        as it was; a loop is at the audited state again, by its own `load`.

    Raises:
        RecipeError: too few gradients, nothing to change, a loop that cannot be forked or measured.
    """
    if not isinstance(seeds, int) or seeds < 3:
        raise RecipeError(f"seeds={seeds!r}: at least 3 are needed for an interval")
    seed = require_seed(options.get("seed", 0))
    fork = fork_of(of, changes, dict(options))
    if not fork.names:
        raise RecipeError("there is nothing to change: give changes={name: change}")
    trial = _Trial(fork, gradients, seeds, seed, progress)
    trial.run()
    return trial.result(confidence)


class _Trial:
    """The branches of one prescription."""

    def __init__(self, fork: Fork, gradients: int, seeds: int, seed: int, progress: str) -> None:
        self.fork = fork
        self.before = fork.now()[0]
        self.seed, self.seeds, self.progress = seed, seeds, progress
        self.records = {name: _Record(fork.cost(name)) for name in (AS_IS, *fork.names)}
        self.counts = _halves(len(fork.names))
        self.last = min(LAST, self.counts[-1])
        self.branches = sum(self.counts[:-1]) + (self.last + 1) * seeds
        self.spent = float(fork.measuring)
        self.steps: float = gradients - fork.measuring * (self.branches + 1)
        self._require(gradients)

    def _require(self, gradients: int) -> None:
        own = self.records[AS_IS].cost
        shares = [*self._shares(), self._judging()]
        if min(shares) < ROUNDS * own:
            scale = ROUNDS * own / (min(shares) / self.steps) if self.steps > 0 else math.inf
            least = self.fork.measuring * (self.branches + 1) + (
                scale if math.isfinite(scale) else 4 * ROUNDS * own * self.branches
            )
            raise RecipeError(
                f"gradients={gradients!r} are too few for {len(self.fork.names)} changes on {self.seeds} seeds: give "
                f"{math.ceil(least):,} at least, or fewer changes"
            )

    def _shares(self) -> list[float]:
        """Gradients of a branch in each round of the halving."""
        rounds = self.counts[:-1]
        return [(1 - JUDGING) * self.steps / len(rounds) / n for n in rounds]

    def _judging(self) -> float:
        share = JUDGING if len(self.counts) > 1 else 1.0
        return float(share) * self.steps / ((self.last + 1) * self.seeds)

    def run(self) -> None:
        """All branches."""
        alive = list(self.fork.names)
        with showing(self.progress, "branches", self.branches) as bar:
            done = 0
            for k, share in enumerate(self._shares()):
                for name in alive:
                    self.records[name].selected.append(self._branches(name, [k], share)[0][0])
                    done += 1
                    bar.update(done, {})
                alive = sorted(alive, key=self._rank)[: self.counts[k + 1]]
            numbers = [len(self.counts) + s for s in range(self.seeds)]
            for name in (AS_IS, *alive[: self.last]):
                found = self._branches(name, numbers, self._judging())
                self.records[name].judged = {s: value for s, (value, _) in enumerate(found)}
                self.records[name].beside = {s: other for s, (_, other) in enumerate(found)}
                done += self.seeds
                bar.update(done, {})

    def _rank(self, name: str) -> float:
        value = self.records[name].selected[-1]
        return math.inf if value is None else value

    def _branches(self, name: str, numbers: Sequence[int], share: float) -> list[Measured]:
        """Branches with this change, one for each number, which tells their draws apart."""
        record = self.records[name]
        rounds = max(1, int(share / record.cost))
        record.rounds = rounds
        self.spent += len(numbers) * (rounds * record.cost + self.fork.measuring)
        rngs = [Use.BRANCH.at(branch=number).generator(self.seed) for number in numbers]
        return self.fork.values(name, [int(rng.integers(2**31)) for rng in rngs], rounds)

    def result(self, confidence: float) -> Prescription:
        """What the branches say."""
        own = self.records[AS_IS]
        level = 1 - (1 - confidence) / self.last
        tried = []
        for name in self.fork.names:
            record = self.records[name]
            failed = sum(v is None for v in (*record.selected, *record.judged.values()))
            effect: Estimate | None = None
            if record.judged:
                effect = paired(record.judged, own.judged, level)
                if any(v is None for v in record.judged.values()) or not effect.n:
                    effect = None  # a change that fails on some seed is none
            beside = paired(record.beside, own.beside, level) if effect else None
            tried.append(
                Tried(
                    name,
                    record.cost,
                    record.rounds,
                    tuple(record.selected),
                    effect,
                    _mean(record.judged.values()),
                    failed,
                    beside if beside is not None and beside.n else None,
                )
            )
        tried.sort(key=_order)
        best = tried[0].effect
        helps = best is not None and best.high is not None and best.high < 0
        before = math.nan if self.before is None else self.before
        unchanged = _mean(own.judged.values())
        lost = sum(v is None for v in own.judged.values())
        notes: tuple[str, ...] = LIMITS
        if lost:
            notes = (*notes, f"without a change {lost} of {self.seeds} branches are not finite")
        return Prescription(
            tried[0].name if helps else None,
            self.fork.quantity,
            before,
            math.nan if unchanged is None else unchanged,
            tuple(tried),
            round(self.spent),
            self.fork.unit,
            confidence,
            own.cost,
            self.fork.other,
            notes,
        )


def _halves(count: int) -> list[int]:
    """How many changes are alive in each round, and in the end: at most `LAST`."""
    found = [count]
    while found[-1] > LAST:
        found.append(max(LAST, found[-1] // 2))
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    sound = [v for v in values if v is not None]
    return sum(sound) / len(sound) if sound else None


def _order(one: Tried) -> tuple[bool, float]:
    """Judged ones first, by their effect; others by the last branch that dropped them."""
    if one.effect is not None:
        return False, one.effect.mean
    last = one.selected[-1] if one.selected else None
    return True, math.inf if last is None else last
