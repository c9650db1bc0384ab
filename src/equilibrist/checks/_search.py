"""The search for a deviation of one player: line searches, then descents from several starts at several step
sizes, by successive halving."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks._objective import Objective, Params
from equilibrist.checks._probes import Reach, Scan, ScanPoint, scan
from equilibrist.checks.context import AuditContext, Show, Tick, relative_noise, student
from equilibrist.core.draws import Use
from equilibrist.core.game import Constants, Players
from equilibrist.optimizers import Coupled, Optimizer
from equilibrist.schedules import update
from equilibrist.tree import Tree

SCAN_SHARE = 0.25  # of the budget, for line searches
RESERVE_SHARE = 0.2  # for going on where the best descent still gains
COOLING = 0.3  # of the last round, over which step sizes fall to zero
LEAST = 60  # minibatch gradients for which two descents begin
OWN = 5  # descents among which training's own rule is one anyway
LARGE = 5_000_000  # parameters beyond which few descents are kept at once


@dataclass(frozen=True)
class Relative:
    """Adam whose step sizes are relative to each tensor's scale.

    x_k <- x_k - lr s_k m_k / sqrt(v_k), s_k the tensor's root mean square where the search began. v_k is one
    number for a tensor whose entries the feasible set couples, s_k and v_k one number for all of them where it
    couples all at once (see `schedules.update`).

    Attributes:
        lr: relative step size.
        scales: s_k by name.
        coupled: what the player's feasible set couples.
    """

    lr: float
    scales: dict[str, Tensor]
    coupled: Coupled
    beta1: float = 0.9
    beta2: float = 0.99

    def init(self, params: Params) -> Tree:
        return {
            "mean": tree.zeros_like(params),
            "square": {
                k: x.new_zeros(()) if self._one(k) else torch.zeros_like(x)
                for k, x in params.items()
            },
            "count": 0,
        }

    def update(self, grads: Params, state: Tree, params: Params, pace: float = 1.0) -> None:
        """Overwrite `params` and `state`; `pace` multiplies the step size."""
        state["count"] += 1
        t = state["count"]
        scales = self.scales
        if self.coupled is None:
            together = tree.flatten(grads).square().mean()
            scales = dict.fromkeys(params, torch.stack(list(scales.values())).mean())
        for k, x in params.items():
            g, m, v = grads[k], state["mean"][k], state["square"][k]
            m.mul_(self.beta1).add_(g, alpha=1 - self.beta1)
            if self.coupled is None:
                square = together
            else:
                square = g.square().mean() if self._one(k) else g.square()
            v.mul_(self.beta2).add_(square, alpha=1 - self.beta2)
            root = (v / (1 - self.beta2**t)).sqrt().clamp_min(torch.finfo(x.dtype).tiny)
            x.sub_(pace * self.lr * scales[k] / (1 - self.beta1**t) * m / root)

    def _one(self, name: str) -> bool:
        return self.coupled is None or name in self.coupled

    def __repr__(self) -> str:
        return f"Adam with steps of {self.lr:g} times each tensor's root mean square"


@dataclass(frozen=True)
class _Given:
    """A rule of training's own, with its own step size."""

    rule: Optimizer
    coupled: Coupled

    def init(self, params: Params) -> Tree:
        return self.rule.init(params)

    def update(self, grads: Params, state: Tree, params: Params, pace: float = 1.0) -> None:
        if pace == 1.0:
            update(self.rule, grads, state, params, coupled=self.coupled)
            return
        before = tree.clone(params)
        update(self.rule, grads, state, params, coupled=self.coupled)
        for k, x in params.items():
            x.copy_(torch.lerp(before[k], x, pace))

    def __repr__(self) -> str:
        return repr(self.rule)


_Start = tuple[str, float, Relative | _Given, Params]  # kind, perturbation, rule, parameters


@dataclass
class Descent:
    """One descent: where it began, its gains on the selection split, and the best point that it passed."""

    start: str
    perturbation: float
    rule: Relative | _Given
    params: Params
    state: Tree | None = None
    step: int = 0
    steps: list[int] = field(default_factory=list)
    gains: list[float] = field(default_factory=list)
    looks: list[Tensor] = field(default_factory=list)  # gains of each, by batch
    samples: list[Tensor] = field(default_factory=list)
    travelled: float = 0.0
    best: Params | None = None
    best_gain: float = 0.0
    best_step: int = 0
    failed: str = ""

    @property
    def rank(self) -> float:
        """The best gain of the latest looks: what a descent is kept for."""
        return max(self.gains[-2:], default=-math.inf) if not self.failed else -math.inf


@dataclass
class SearchOutcome:
    """What a search found.

    Attributes:
        descents: all of them, the one that was kept to the end first.
        reach: how far each kind of direction was searched, relative to the player's norm.
        finished: whether the last descent had stopped gaining; where not, `rise` is what its last third gained.
        spent: minibatch gradients.
    """

    descents: list[Descent]
    reach: dict[str, Reach]
    finished: bool
    rise: float
    spent: float

    @property
    def best(self) -> Descent:
        """The descent that passed the best point of all."""
        return max(self.descents, key=lambda d: d.best_gain)


def search_deviation(
    context: AuditContext,
    player: str,
    budget: float,
    tolerance: float,
    tick: Tick,
    show: Show | None = None,
) -> SearchOutcome:
    """Look for parameters of `player` that lower its loss, the others frozen, on the search split alone.

    A quarter of the budget goes to line searches (`scan`). Descents begin at the pair, at perturbed copies of it
    near and far, and where the line searches gained most, each with one of several step sizes over two decades
    relative to every tensor's scale, or with training's own rule; each round keeps the better half, judged on the
    selection split, and gives it twice the steps. The last descent ends with step sizes that fall to zero. One that
    would exceed the tolerance if it kept gaining is continued, with a fifth of the budget kept for it.

    Args:
        context: the pair and its splits.
        player: who deviates.
        budget: minibatch gradients in total.
        tolerance: the gain below which a search that still gains must continue.
        tick: takes what is spent.
        show: makes a sheet of samples at a point.

    Returns:
        The descents, the reach, and whether the search was finished.
    """
    objective = Objective(context, player, tick)
    where = Use.DEVIATION.at(player=context.game.players.index(player))
    rng = where.generator(context.seed)
    lines = scan(objective, SCAN_SHARE * budget, rng)
    engine = _Engine(objective, show)
    rest = budget - objective.spent
    descents = list(_starts(objective, lines, rest, rng))
    main = rest * (1 - RESERVE_SHARE)
    kept = engine.rounds(descents, main)
    end, finished, rise = budget, *engine.rising(kept, tolerance)
    while not finished and engine.affords(end):
        engine.go_on(kept, end)
        finished, rise = engine.rising(kept, tolerance)
    engine.examine(descents, kept)
    reach = dict(lines.reach)
    reach["descents"] = Reach(len(descents), max((d.travelled for d in descents), default=0.0))
    ordered = [kept, *(d for d in descents if d is not kept)]
    return SearchOutcome(ordered, reach, finished, rise, objective.spent)


def _starts(
    objective: Objective, lines: Scan, budget: float, rng: np.random.Generator
) -> Iterator[Descent]:
    """The descents to begin with, most promising first, as many as the budget allows."""
    player, settings = objective.player, objective.context.settings
    here, tied = objective.start, objective.field.coupled[player]

    def rule(lr: float) -> Relative:
        return Relative(lr, objective.scales, tied)

    def near(size: float) -> Params:
        noise = relative_noise(here, size, rng)
        return {k: x + noise[k] for k, x in here.items()}

    size, given = settings.perturbation, settings.optimizers.get(player)

    def along(point: ScanPoint, lr: float) -> _Start:
        return f"along the {point.kind}", point.size, rule(lr), point.params

    own: list[_Start] = []
    if given is not None:
        own = [("the pair", 0.0, _Given(given, tied), here)]
    first, second = lines.points[:1], lines.points[1:2]
    # The order in which `near` draws is that of this list.
    plan: list[_Start] = [
        *(along(p, 0.03) for p in first),
        ("the pair", 0.0, rule(0.03), here),
        ("perturbed", size, rule(0.1), near(size)),
        ("perturbed", size, rule(0.01), near(size)),
        *own,
        ("the pair", 0.0, rule(0.003), here),
        ("perturbed", 0.3, rule(0.03), near(0.3)),
        *(along(p, 0.1) for p in second),
        ("perturbed", size, rule(0.3), near(size)),
        ("perturbed", 3.0, rule(0.1), near(3.0)),
        *(along(p, 0.003) for p in first),
        ("perturbed", 1.0, rule(0.1), near(1.0)),
        ("the pair", 0.0, rule(0.3), here),
    ]
    count = max(1, min(len(plan), int(budget // 60), 3 * settings.starts + 3))
    if tree.count(here) > LARGE:
        count = min(count, 4)
    if settings.starts == 1:
        count = min(count, 2)
    if budget >= LEAST:
        count = max(count, 2)
    if own and 1 < count < OWN:
        # Line searches look at one minibatch: where its noise chose their point, a descent from there is lost.
        # Training's rule from the pair comes with it: made for these losses, it may need few steps.
        plan = [plan[0], *own, *plan[1:]]
    for start, size, chosen, params in plan[:count]:
        yield Descent(start, size, chosen, tree.clone(params))


class _Engine:
    """Steps, looks and rounds of the descents of one search."""

    def __init__(self, objective: Objective, show: Show | None) -> None:
        self.objective, self.show = objective, show
        self.looks = objective.context.settings.looks

    def rounds(self, descents: list[Descent], budget: float) -> Descent:
        """Successive halving within `budget` minibatch gradients; returns the descent that is left."""
        end = self.objective.spent + budget
        alive = descents
        rounds = 1 + int(math.log2(len(alive)))
        for k in range(rounds):
            last = k == rounds - 1
            share = (end - self.objective.spent) / (rounds - k) / len(alive)
            cost = self.objective.look_cost(quick=not last)
            looks = max(3, min(self.looks, int(0.2 * share / cost))) if last else 1
            # The first look of all is one at the start.
            steps = max(1, int(share - (looks + (last or k == 0)) * cost))
            if last:
                self._hold(alive[0])
            for descent in alive:
                self.run(descent, steps, looks, quick=not last, cool=last)
            alive = sorted(alive, key=lambda d: d.rank, reverse=True)
            if not last:
                alive = alive[: max(1, len(alive) // 2)]
        return alive[0]

    def affords(self, end: float) -> bool:
        """Whether enough is left for going on."""
        return end - self.objective.spent >= 3 * self.objective.look_cost() + 6

    def go_on(self, descent: Descent, end: float) -> None:
        """Half of what is left, or as much again as the descent has run."""
        left = end - self.objective.spent - 3 * self.objective.look_cost()
        self.run(descent, max(3, min(int(left), max(descent.step, int(left / 2)))), 3)

    def examine(self, descents: list[Descent], kept: Descent) -> None:
        """Hold the best point of the descents that were dropped, chosen on few batches, to all of them."""
        for descent in descents:
            if descent is kept or descent.best is None:
                continue
            if descent.best_gain <= kept.best_gain:
                descent.best, descent.best_gain = None, 0.0
                continue
            self._hold(descent)

    def _hold(self, descent: Descent) -> None:
        """Score the best point, chosen on few batches, on all batches of the selection split."""
        if descent.best is not None:
            players, constants = self.objective.at(descent.best)
            descent.best_gain = float(self.objective.selected(players, constants).mean())

    def rising(self, descent: Descent, tolerance: float) -> tuple[bool, float]:
        """(whether the descent had stopped gaining, what its second half gained).

        It had not where as much again as its second half gained, twice over, would take it past the
        tolerance, or where that half gained a good part of a gain that is not small itself, and the rise is no noise of
        the selection split. A gain that is above the tolerance anyway needs no more.
        """
        whole = max((len(look) for look in descent.looks), default=0)
        seen = [i for i, look in enumerate(descent.looks) if len(look) == whole]
        if descent.failed or len(seen) < 2:
            return True, 0.0
        gains, end = descent.gains, descent.steps[-1]
        since = max(i for i in seen[:-1] if i == seen[0] or descent.steps[i] <= end // 2)
        first = max((i for i in seen if i <= since), key=lambda i: gains[i])
        top = max(seen, key=lambda i: gains[i])
        # A descent from far away that comes home to the pair does not gain.
        rise = gains[top] - max(gains[first], 0.0)
        on_its_way = tolerance < gains[top] + 2 * rise
        climbing = gains[top] > 0.1 * tolerance and rise > 0.25 * gains[top]
        if rise <= 0 or gains[top] > tolerance or not (on_its_way or climbing):
            return True, max(rise, 0.0)
        if not self.objective.context.sampled:
            return False, rise
        difference = descent.looks[top] - (descent.looks[first] if gains[first] > 0 else 0.0)
        return not student(difference, 0.9).low > 0, rise

    def run(
        self, descent: Descent, steps: int, looks: int, quick: bool = False, cool: bool = False
    ) -> None:
        """`steps` further steps with `looks` looks; with `cool` the step sizes fall to zero at the end."""
        if descent.failed:
            return
        objective = self.objective
        here = descent.params
        if descent.state is None:
            here = objective.at(here)[0][objective.player]
            here = {k: x.clone() for k, x in here.items()}
            descent.state = descent.rule.init(here)
        players, constants = objective.at(here)
        fresh = not descent.steps or not quick  # what few batches saw is seen again by all
        if fresh and not self._look(descent, players, constants, quick):
            return
        every = -(-steps // looks)
        cooling = max(1, int(COOLING * steps)) if cool else 0
        for k in range(1, steps + 1):
            v = objective.gradient(players, constants, descent.step)
            here = {name: x.clone() for name, x in players[objective.player].items()}
            pace = min(1.0, (steps - k + 1) / cooling) if cooling else 1.0
            with torch.no_grad():
                descent.rule.update(v, descent.state, here, pace)
            players, constants = objective.at(here, constants)
            descent.step += 1
            if (k % every == 0 or k == steps) and not self._look(
                descent, players, constants, quick
            ):
                break
        descent.params = players[objective.player]

    def _look(self, descent: Descent, players: Players, constants: Constants, quick: bool) -> bool:
        """Evaluate on the selection split; False where the loss is not finite."""
        objective = self.objective
        gains = objective.selected(players, constants, quick)
        gain = float(gains.mean())
        params = players[objective.player]
        if not math.isfinite(gain):
            descent.failed = f"the loss became non-finite at step {descent.step}"
            return False
        descent.travelled = max(descent.travelled, objective.distance(params))
        descent.steps.append(descent.step)
        descent.gains.append(gain)
        descent.looks.append(gains)
        if self.show is not None:
            descent.samples.append(self.show(players, constants))
        if gain > descent.best_gain:
            descent.best, descent.best_gain = tree.clone(params), gain
            descent.best_step = descent.step
        return True
