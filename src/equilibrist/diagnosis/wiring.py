"""The wiring check: does each optimiser receive the gradients of the game that was declared?"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from equilibrist.certificates import Json
from equilibrist.diagnosis._coefficients import CLEAR, median, residuals
from equilibrist.diagnosis._explain import (
    AGAINST,
    MIXED,
    OTHER,
    OWN,
    SWAPPED_FAKE,
    SWAPPED_REAL,
    TERM,
    Explained,
)
from equilibrist.diagnosis._judge_data import judge_data
from equilibrist.diagnosis._judge_gradients import judge_gradients
from equilibrist.diagnosis._judge_loss import judge_loss
from equilibrist.diagnosis._judge_steps import judge_steps
from equilibrist.diagnosis._own import Declared
from equilibrist.diagnosis._recorder import Recorder
from equilibrist.diagnosis._seen import Opposition
from equilibrist.diagnosis.loop import Held, Loss, modules_of
from equilibrist.display import Rows, Shown
from equilibrist.errors import GameError, RecipeError, warn_user
from equilibrist.findings import Finding, ordered
from equilibrist.formulations import Formulation, formulation_of
from equilibrist.formulations.named import is_formulation
from equilibrist.games import roles

ROUNDS = 12
CALLS = 64  # whose scores are measured
MOST = 20


class Wiring(Shown):
    """What `check_wiring` finds. As a context manager it watches the loop that runs inside.

    Attributes:
        findings: ordered, what to act on first in front; complete after the block.
        residuals: by player, the share of the received gradient that no declared part explains (median over steps).
        coefficients: by player, the coefficient of each part of the received gradient (median over steps); 1 is as
            declared.
        steps: by player.
    """

    def __init__(
        self, recorder: Recorder, rounds: int, real: Tensor | None, train: Tensor | None
    ) -> None:
        self._recorder, self._rounds, self._real, self._train = recorder, rounds, real, train
        self.findings: tuple[Finding, ...] = ()
        self.residuals: dict[str, float] = {}
        self.coefficients: dict[str, dict[str, float]] = {}
        self.steps: dict[str, int] = {}

    def __enter__(self) -> Wiring:
        self._recorder.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._recorder.stop()
        self._judge()
        if self._recorder.fault is not None and kind is None:
            fault = self._recorder.fault
            warn_user(
                f"the wiring check stopped early, the training went on: {type(fault).__name__}: {fault}"
            )

    @property
    def ok(self) -> bool:
        """Whether gradients were compared, and nothing above a note was found."""
        return not self.unseen and all(f.level == "note" for f in self.findings)

    @property
    def unseen(self) -> str:
        """Why nothing could be compared; "" where something was."""
        recorder = self._recorder
        if self.residuals or (
            recorder.loss is None and recorder.declared is None and recorder.steps
        ):
            return ""
        if recorder.fault is not None:
            return f"it stopped early ({type(recorder.fault).__name__}: {recorder.fault})"
        if not recorder.steps:
            return "no optimiser of torch stepped a player"
        if not recorder.calls:
            return (
                "no call of the critic returned scores with a gradient: hand over the module that is "
                "called, and score= where "
                "it returns something else than a tensor, a tuple or a list"
            )
        return "no step of a player could be compared with the declared loss"

    def round(self, i: int, step: Callable[[int], object], first: int = 0) -> None:
        """Runs one round, step(first + i), within the block."""
        self._recorder.begin(i)
        step(first + i)

    @contextlib.contextmanager
    def sampling(self) -> Iterator[Callable[[int, Callable[[int], object], int], None]]:
        """Watches single rounds of a longer stretch: those that are run by what it returns, as by `round`.

        Only gradients are taken down (`oppositions`), nothing is judged.
        """
        recorder = self._recorder
        recorder.start()
        recorder.pause(True)

        def one(i: int, step: Callable[[int], object], first: int = 0) -> None:
            recorder.pause(False)
            try:
                self.round(i, step, first)
            finally:
                recorder.pause(True)

        try:
            yield one
        finally:
            recorder.stop()

    def run(self, step: Callable[[int], object], first: int = 0) -> None:
        """Runs `rounds` rounds of a loop, step(first), step(first + 1), ..., and watches them."""
        with self:
            for i in range(self._rounds):
                self.round(i, step, first)

    def _judge(self) -> None:
        recorder = self._recorder
        found, by = judge_gradients(recorder)
        found += judge_steps(recorder, by)
        if not any(f.name == "wrong-sign" for f in found):
            found += [f for f in judge_loss(recorder, by) if f not in found]
        found += judge_data(recorder, by, self._real, self._train)
        self.residuals = {recorder.sides[r].name: v for r, v in residuals(by).items()}
        self.steps = {side.name: side.steps for side in recorder.sides.values()}
        self.coefficients = {
            recorder.sides[role].name: _coefficients(steps, recorder.words.get(role, {}))
            for role, steps in by.items()
            if steps
        }
        self.findings = ordered(without_echoes(found))

    @property
    def oppositions(self) -> list[Opposition]:
        """Of the generator's steps, how its adversarial gradient lies to the rest: see `check_terms`."""
        return [s.opposition for s in self._recorder.steps if s.opposition is not None]

    def explains(self, player: str) -> bool:
        """Whether most steps of a player had a gradient, and it was the declared one by and large."""
        mine = [s for s in self._recorder.steps if self._name_of(s.player) == player]
        moved = sum(bool(s.received) for s in mine)
        return self.residuals.get(player, 1.0) < CLEAR and 2 * moved > len(mine)

    def _name_of(self, role: str) -> str:
        sides = self._recorder.sides
        return sides[role].name if role in sides else ""

    @property
    def travel(self) -> dict[str, float]:
        """By player, how far its weights moved while watched, relative to their norm."""
        return {side.name: side.travel for side in self._recorder.sides.values()}

    @property
    def score_size(self) -> float:
        """The median size of the critic's scores."""
        scores = [c.scores[0].double().abs().flatten() for c in self._recorder.calls[-CALLS:]]
        return float(torch.cat(scores).median()) if scores else 0.0

    @property
    def first_size(self) -> float:
        """The median size of the critic's first scores."""
        calls = self._recorder.calls[:2]
        return (
            float(torch.cat([c.scores[0].double().abs().flatten() for c in calls]).median())
            if calls
            else 0.0
        )

    @property
    def largest(self) -> float:
        """The largest finite size of the critic's scores."""
        sizes = [c.scores[0].double().abs().max() for c in self._recorder.calls]
        return float(max((s for s in sizes if bool(torch.isfinite(s))), default=torch.tensor(0.0)))

    @property
    def real_given(self) -> tuple[Any, ...] | None:
        """What the critic was last given of samples that the generator did not make."""
        batch = self._recorder.batch
        return batch if batch is None or isinstance(batch, tuple) else (batch,)

    def describe(self) -> Json:
        """Plain values, as a JSON file holds them."""
        return {
            "findings": [f.describe() for f in self.findings],
            "residuals": self.residuals,
            "coefficients": self.coefficients,
            "steps": self.steps,
        }

    def _facts(self) -> tuple[str, Rows]:
        loud = [f for f in self.findings if f.level != "note"]
        calm = f"not looked at: {self.unseen}" if self.unseen else "no fault found"
        title = f"Wiring: {loud[0].text if loud else calm}"
        rows = [
            (f"{f.level}: {f.name}", f"{f.text} {f.cure[:1].upper()}{f.cure[1:]}.")
            for f in self.findings
        ]
        for name, residual in self.residuals.items():
            parts = ", ".join(f"{v:.2g} x {k}" for k, v in self.coefficients[name].items())
            if residual < 2e-3:
                explained = f"receives {parts}; nothing is left over"
            elif residual < 0.3:
                explained = f"receives {parts}; {residual:.0%} is explained by no declared part"
            else:
                explained = f"{residual:.0%} of what it receives is of no declared part: a term that was not declared?"
            rows.append(
                (
                    name,
                    f"{self.steps[name]} steps; {explained}",
                )
            )
        return title, rows


# Many parameters, each an option of one call by its name: players and a loss are all that is needed.
def check_wiring(
    players: Mapping[str, Held],
    loss: Loss | None = None,
    *,
    step: Callable[[int], Any] | None = None,
    penalties: Sequence[Any] = (),
    rounds: int = ROUNDS,
    real: Tensor | None = None,
    train: Tensor | None = None,
    score: Callable[[Any], Any] | None = None,
    inputs: Callable[[], Sequence[Any]] | None = None,
) -> Wiring:
    """Compares what each optimiser of somebody's loop receives with the gradients of the declared game.

        found = equilibrist.check_wiring({"generator": G, "critic": D}, "vanilla", step=train_step)
        print(found)

    or around a loop, a trainer's own too:

        with equilibrist.check_wiring({"generator": G, "critic": D}, "wgan", penalties=[GradientPenalty(10)]) as found:
            trainer.fit(data)
        print(found)

    At each call of the critic the gradients of the declared loss's parts are taken through the loop's own graph, at its
    own weights, samples and random numbers; at each step of an optimiser what it received is decomposed into them by
    least squares. The training is not changed: no random number is drawn, no weight, gradient or buffer written.

    Args:
        players: the modules that are trained, by name; a list of modules is one player.
        loss: a formulation or its name; or losses of your own, `losses(modules, batch[, z])` as an `AdversarialGame`
            takes them, whose terms are told apart; None looks at steps alone.
        step: step(i) runs round i of the loop; without it the result is a context manager.
        penalties: what the critic pays besides (`GradientPenalty`, `R1`, `R2`).
        rounds: how many rounds are watched, at most 20.
        real, train: real samples that the critic is not, and is, trained on, in the form in which generated ones are
            compared with them: for findings about scaling and augmentation.
        score: from the critic's output to scores, where that is not a tensor, the first of a tuple, or a list of them.
        inputs: inputs() returns what losses of your own are given at the present step, (batch,) or (batch, z); without
            it, what the critic was last shown of real samples and what the generator was last given.

    Returns:
        Findings, coefficients and residuals.

    Raises:
        GameError: players that are no modules, or not a generator and a critic.
        RecipeError: a number of rounds that is none.
    """
    if not 1 <= rounds <= MOST:
        raise RecipeError(f"rounds={rounds}: the wiring is checked in 1 to {MOST} rounds")
    held = _held(players)
    declared = formulation = None
    if callable(loss) and not is_formulation(loss) and not isinstance(loss, type):
        declared = Declared(loss, held, players)
    elif loss is not None:
        formulation = formulation_of(cast("Formulation | str", loss))
    recorder = Recorder(held, formulation, penalties, score, declared, inputs)
    found = Wiring(recorder, rounds, real, train)
    if step is not None:
        found.run(step)
    return found


def _held(players: Mapping[str, Held]) -> dict[str, tuple[str, list[nn.Module]]]:
    if not isinstance(players, Mapping):
        raise GameError("players must be a dictionary: {'generator': G, 'critic': D}")
    called = roles(tuple(players))
    found = {}
    for name, given in players.items():
        try:
            modules = modules_of(given)
        except TypeError:
            modules = []
        if not modules or not all(isinstance(m, nn.Module) for m in modules):
            raise GameError(f"players[{name!r}] must be a module, or a list of modules")
        if not any(True for m in modules for _ in m.parameters()):
            raise GameError(f"players[{name!r}] has no parameters: nothing of it is trained")
        found[called[name]] = (name, modules)
    return found


def _coefficients(steps: Sequence[Explained], words: Mapping[str, str]) -> dict[str, float]:
    parts = dict.fromkeys(part for e in steps for part in e.totals)
    found = {part: round(median(steps, part), 4) for part in parts}
    quiet = {AGAINST, OTHER, MIXED, "before", SWAPPED_FAKE, SWAPPED_REAL}
    return {
        _called(part, words): value
        for part, value in found.items()
        if (part not in quiet or abs(value) > 0.02) and part != MIXED
    }


def _called(part: str, words: Mapping[str, str]) -> str:
    if part in words:
        return f"term {part.removeprefix(TERM)} ({words[part]})"
    return "declared loss" if part == OWN else part


def without_echoes(found: Sequence[Finding]) -> list[Finding]:
    """Findings without those that another one explains."""
    names = {f.name for f in found}
    explained: set[str] = set()
    if "wrong-optimizer" in names:
        explained |= {"stepped-twice", "never-stepped", "gradient-leak", "missing-term"}
    if "stale-parameters" in names:
        explained |= {"never-stepped", "no-gradient"}
    if names & {"stepped-twice", "loss-scale", "stale-gradients"}:
        explained |= {"wrong-loss"}
    if "wrong-loss" in names and any(f.name == "wrong-loss" and f.level != "note" for f in found):
        explained |= {"gradient-leak", "wrong-sign", "missing-term"}
    # What was never cleared holds the other player's gradients as well; and a critic that also minimises the
    # generator's loss may end where its own has no slope.
    echo = {("gradient-leak", f.where) for f in found if f.name == "stale-gradients"}
    echo |= {("no-gradient", f.where) for f in found if f.name == "gradient-leak"}
    # So does one that weight decay has emptied.
    emptied = ("smothered", "collapsed")
    echo |= {("no-gradient", f.where) for f in found if f.name in emptied and f.sure == "certain"}
    return [f for f in found if f.name not in explained and (f.name, f.where) not in echo]
