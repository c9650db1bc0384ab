"""Can what an audit computes be believed? Tests of the game's code, before any verdict.

A loss that is no function of the weights, or a gradient that is not the loss's own, gives an audit that
looks as good as any other: a critic's loss on detached samples has a block of J that is exactly zero, and
nothing complains. These tests can tell, for their reference is the losses' values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from equilibrist import tree
from equilibrist.checks import _culprit as culprit
from equilibrist.checks._linear import finite
from equilibrist.checks.certificate import Certificate, Verdict
from equilibrist.checks.context import AuditContext, Tick, no_tick
from equilibrist.core.draws import Draw, Use, normal
from equilibrist.core.field import Evaluation, VectorField
from equilibrist.core.game import Constants, Players
from equilibrist.errors import GameError

CLAIM = "self-tests"
REFERENCES = (
    "Griewank and Walther 2008, Evaluating Derivatives, section 3.2 (adjoint identity)",
    "Nocedal and Wright 2006, Numerical Optimization, section 8.1 (finite differences)",
)
ROWS = 16  # a fault of the code shows on few samples, and few samples have few kinks
STEPS = (1e-6, 1e-7, 1e-5, 1e-8, 1e-9)  # the smallest for units that are all but saturated
TINY, TRIES = 1e-13, 3
AGREE, EXACT = 1e-3, 1e-9
# Evaluations, in gradients: of all tests but differences; of a direction; of a step along it, both ways.
WHOLE, FIRST, TRY = 16.0, 7.0, 2.0


@dataclass(frozen=True)
class _Place:
    """Where the tests are made: the pair in float64, its field, one draw."""

    context: AuditContext
    field: VectorField
    players: Players
    constants: Constants
    draw: Draw

    def evaluated(self, players: Players | None = None) -> Evaluation:
        """v and the losses at these players, by default the pair's."""
        return self.field(self.players if players is None else players, self.constants, self.draw)

    def forward(self, w: Players) -> Players:
        """J w."""
        return self.field.jvp(self.players, self.constants, w, self.draw)

    def state(self) -> dict[str, tuple[Tensor, int]]:
        """Every weight and buffer, with the count of writes to it, and torch's random state."""
        named = {
            f"the {player}'s {name}": (t.clone(), t._version)
            for group in (self.players, self.constants)
            for player, part in group.items()
            for name, t in part.items()
        }
        return {**named, "torch's random state": (torch.get_rng_state(), 0)}


@dataclass(frozen=True)
class Outcome:
    """What one test saw: passed or not, how far off, and for a failure what that means."""

    name: str
    passed: bool
    off: float
    means: str = ""


def work(context: AuditContext) -> float:
    """Planned minibatch gradients: those of tests that pass, with one try of each player's differences."""
    return (WHOLE + len(context.game.players) * (FIRST + TRY)) * _share(context)


def _share(context: AuditContext) -> float:
    """What an evaluation on the tests' few samples costs, of a minibatch."""
    return min(1.0, ROWS / context.settings.batch) if context.sampled else 1.0


def self_tests(context: AuditContext, tick: Tick = no_tick) -> Certificate:
    """The certificate "self-tests": VERIFIED where all pass, else UNASSESSED, which ends an audit.

    At the pair in float64, on 16 samples of one draw, with J the Jacobian of own-loss gradients v:

    - precision: no operation turns float64 into less;
    - repeat: losses, v and J w come out the same, bit for bit (on a GPU to 1e-9), when asked twice;
    - buffers: weights, buffers and torch's random state are afterwards what they were;
    - adjoint: <u, J w> = <J^T u, w> to 1e-9 of |u| |J w| + |J^T u| |w|, u and w random;
    - slopes: each player's loss changes along a direction of its own weights as <v, d> says;
    - differences along each player: v changes along a direction d of that player's weights alone as each
      block of J d says. The blocks of the other player are what a detached sample erases.

    The last two are central differences, to 1e-3, |d| the norm of the player's weights. v of a network of
    ReLUs jumps wherever a unit switches: steps that cross such a kink give differences of another size,
    and which steps do is chance. So steps of 1e-5 to 1e-9 and up to three directions are tried and the best
    agreement counts: chance spoils some, a wrong derivative all of them. The rounding error of v and of
    the losses is measured, by what a move of 1e-13 |d| changes beyond its slope, and allowed for tenfold: "off" is
    the difference over (the larger of both sides plus 1e4 times that error over the step).
    """
    draw = context.linear_draws()[0]
    if getattr(context.game, "any_rows", True):
        draw = {k: t[:ROWS] if t.ndim else t for k, t in draw.items()}
    place, share = _Place(context, context.smooth(), *context.wide, draw), _share(context)
    try:
        found = _outcomes(place, lambda n=1.0: tick(n * share))
    except GameError as error:  # a derivative that torch does not have
        found = [Outcome("derivatives", False, float("nan"), str(error))]
    except RuntimeError as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        means = (
            f"the losses cannot be computed in float64 ({first}): make tensors in the dtype of what they meet "
            "(x.new_zeros, torch.ones_like), and hand other modules over with the players"
        )
        found = [Outcome("precision", False, float("nan"), means)]
    semi = getattr(context.game, "semi_gradient", False)
    failed = [outcome for outcome in found if not outcome.passed]
    if failed:
        failed[0] = _explained(_blamed(failed[0], place), context.game)
    right = "gradients are not compared with them" if semi else "their derivatives are right"
    summary = (
        f"The audit stops here: {failed[0].means}."
        if failed
        else f"The losses are functions of the weights alone, and {right}: {len(found)} tests passed."
    )
    return Certificate(
        CLAIM,
        Verdict.UNASSESSED if failed else Verdict.VERIFIED,
        summary,
        {
            "failed": [outcome.name for outcome in failed],
            "tests": {o.name: {"passed": o.passed, "off": o.off} for o in found},
        },
        scope={
            "losses": context.scope()["losses"],
            "score_precision": "float64",
            "samples": len(next(iter(draw.values()))) if draw else "none drawn",
        },
        limits=(
            "tested on a few samples and in random directions, at the pair itself",
            "that the losses are those of training is not tested: they are rebuilt from the modules",
        ),
        references=REFERENCES,
    )


def fails(certificate: Certificate) -> bool:
    """Whether this certificate ends an audit."""
    return certificate.claim == CLAIM and certificate.verdict is Verdict.UNASSESSED


def stopped(name: str, why: Certificate) -> Certificate:
    """The certificate of a check that was not run, because a self-test failed."""
    return Certificate(
        name,
        Verdict.UNASSESSED,
        f"Not looked at, for a self-test failed ({', '.join(why.evidence['failed'])}): see {CLAIM}.",
        {"failed": why.evidence["failed"]},
        limits=why.limits,
    )


def _outcomes(place: _Place, tick: Tick) -> list[Outcome]:
    before = place.state()
    here = place.evaluated()
    if not finite(*here.losses.values()):
        return [Outcome("finite", False, float("nan"), "the losses are not finite at this pair")]
    if not finite(*tree.leaves(here.v)):
        return [Outcome("differentiable", False, float("nan"), _ROOT.format("gradient"))]
    lost = _lossy(place)
    precision = Outcome(
        "precision",
        not lost,
        float(bool(lost)),
        f"a network computes in less than float64 ({lost}), which rounds derivatives away: let it "
        "follow the dtype of its weights",
    )
    w = {player: _direction(place, here.v, player, 0)[player] for player in place.players}
    jw = place.forward(w)
    if not finite(*tree.leaves(jw)):
        means = _ROOT.format("second derivative")
        return [precision, Outcome("differentiable", False, float("nan"), means)]
    repeat, adjoint = _repeat(place, here, w, jw), _adjoint(place, w, jw)
    tick(WHOLE)
    semi = getattr(place.context.game, "semi_gradient", False)
    tested = () if semi else tuple(place.players)
    differences = [o for player in tested for o in _differences(place, here, player, tick)]
    after = place.state()
    changed = next((name for name in before if not _same(before[name], after[name])), None)
    buffers = Outcome(
        "buffers",
        changed is None,
        float(changed is not None),
        f"evaluating the losses changes {changed}, so they are no function of the weights: call .eval() "
        "on the layer that does it, or compute the new value outside the forward pass",
    )
    return [precision, repeat, buffers, adjoint, *differences]


# -- the tests ------------------------------------------------------------------------------------------


def _repeat(place: _Place, here: Evaluation, w: Players, jw: Players) -> Outcome:
    again = place.evaluated()
    once = [*here.losses.values(), *tree.leaves(here.v), *tree.leaves(jw)]
    twice = [*again.losses.values(), *tree.leaves(again.v), *tree.leaves(place.forward(w))]
    off = max(
        float((a - b).norm() / (a.norm() + b.norm()).clamp_min(1e-300))
        for a, b in zip(once, twice, strict=True)
    )
    equal = all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))
    # Kernels on a GPU may add up in any order.
    passed = equal or (place.context.device.type != "cpu" and off <= EXACT)
    means = (
        "the same evaluation gives two answers, so the losses are no function of the weights: look for "
        "random numbers (dropout) and for state kept between calls (call .eval())"
    )
    return Outcome("repeat", passed, off, means)


def _adjoint(place: _Place, w: Players, jw: Players) -> Outcome:
    rng = Use.ADJOINT.at().generator(place.context.seed)
    u = tree.map(lambda t: normal(rng, t.shape, t.dtype, t.device), place.players)
    jtu = place.field.vjp(place.players, place.constants, u, place.draw)
    size = tree.norm(u) * tree.norm(jw) + tree.norm(jtu) * tree.norm(w)
    off = float((tree.dot(u, jw) - tree.dot(jtu, w)).abs() / size.clamp_min(1e-300))
    means = (
        "J and its transpose disagree, so a backward pass is not linear or not repeatable: look for "
        "gradients that are clipped or scaled on their way (hooks, custom autograd functions)"
    )
    return Outcome("adjoint", off <= EXACT, off, means)


def _differences(place: _Place, here: Evaluation, player: str, tick: Tick) -> list[Outcome]:
    """Central differences along one player, of its loss ("slope") and of v by blocks."""
    best, apart = _agreement(place, here, player, tick)
    slope = best["slope"]
    worst = max(place.players, key=lambda p: best[p])
    cause = (
        f"something that the {worst}'s loss depends on is detached, or a derivative is wrong"
        if worst != player
        else "a derivative is wrong"
    )

    def why(key: str, cause: str) -> str:
        # A wrong derivative is off by as much at every step; what bends within them agrees at none.
        if apart[key] > 0.3 * best[key]:
            return (
                "differences do not settle at any step, so that it cannot be checked (is a unit saturated by weights "
                "in the thousands, or does the loss jump?)"
            )
        return cause

    detached = why(
        "slope", "part of it is detached, or an autograd function has a wrong backward pass"
    )
    return [
        Outcome(
            f"slopes/{player}",
            slope <= AGREE,
            slope,
            f"the {player}'s loss does not change as its gradient says (off by {slope:.1%}): {detached}",
        ),
        Outcome(
            f"differences/{player}",
            best[worst] <= AGREE,
            best[worst],
            f"the {worst}'s gradient does not change with the {player}'s weights as the Jacobian says (off by "
            f"{best[worst]:.1%}): {why(worst, cause)}",
        ),
    ]


def _agreement(
    place: _Place, here: Evaluation, player: str, tick: Tick
) -> tuple[dict[str, float], dict[str, float]]:
    """How far differences are from derivatives, and differences of two steps from each other; both at best, over
    several directions and steps."""
    best = dict.fromkeys(["slope", *place.players], float("inf"))
    apart, at = dict(best), _parts(here, player)
    for attempt in range(TRIES):
        d = _direction(place, here.v, player, attempt)
        product = Evaluation(place.forward(d), {player: tree.dot(here.v[player], d[player])})
        predicted = _parts(product, player)
        tiny = _moved(place, d, TINY, player)
        # What so small a move changes beyond its slope is rounding.
        noise = {
            k: float((tiny[k] - at[k] - TINY * predicted[k]).norm() + 2e-16 * at[k].norm())
            for k in at
        }
        tick(FIRST)
        former: dict[str, Tensor] = {}
        for h in STEPS:
            ahead, behind = (_moved(place, d, s * h, player) for s in (1, -1))
            tick(TRY)
            for key, j in predicted.items():
                seen = (ahead[key] - behind[key]) / (2 * h)
                size = max(float(seen.norm()), float(j.norm()), 1e-300)
                off = float((seen - j).norm()) / (size + 10 * noise[key] / (h * AGREE))
                best[key] = min(best[key], off if off == off else float("inf"))
                if key in former:
                    apart[key] = min(apart[key], float((seen - former[key]).norm()) / size)
                former[key] = seen
            if max(best.values()) <= AGREE:
                return best, apart
    return best, apart


_ROOT = (
    "the losses are finite at this pair and their {} is not: a root, a norm or a standard deviation of zero (a "
    "unit or a pixel that is constant over a batch) has none, so add a small eps inside the root, "
    "sqrt(var + 1e-8)"
)
_VALUES = ("slopes", "differences")  # tests of derivatives against values
_TESTS = {
    "finite": culprit.not_finite,
    "differentiable": culprit.no_derivative,
    "repeat": culprit.not_repeatable,
    "slopes": culprit.wrong,
    "differences": culprit.wrong,
}


def _explained(outcome: Outcome, game: Any) -> Outcome:
    """The outcome with the places where a user's losses stop gradients, where derivatives are not those of values."""
    stops = getattr(game, "stops", None)
    if stops is None or outcome.name.partition("/")[0] not in _VALUES:
        return outcome
    where = (
        f"the losses stop gradients at {', '.join(stops)}"
        if stops
        else "nothing was seen to be detached (.item(), NumPy, torch.tensor(x), sample() of distributions are not seen)"
    )
    return replace(
        outcome,
        means=f"{outcome.means}; {where}: where that is on purpose (straight-through estimates, weights that are held "
        "constant, reversed gradients), write semi_gradient=True",
    )


def _blamed(outcome: Outcome, place: _Place) -> Outcome:
    """The outcome with the layer that shows the same fault by itself, where there is one."""
    test = _TESTS.get(outcome.name.split("/")[0])
    at = place.context.game, place.players, place.constants, place.draw
    layer = culprit.culprit(*at, test) if test else ""
    if not layer:
        return outcome
    fault = (
        "its derivative is wrong by itself"
        if test is culprit.wrong
        else "it shows the same fault by itself"
    )
    return replace(outcome, means=f"{outcome.means}; look at {layer}: {fault}")


def _parts(found: Evaluation, player: str) -> dict[str, Tensor]:
    """The player's loss and the players' flat gradients."""
    return {"slope": found.losses[player], **{p: tree.flatten(v) for p, v in found.v.items()}}


def _moved(place: _Place, d: Players, h: float, player: str) -> dict[str, Tensor]:
    """The same at x + h d."""
    return _parts(place.evaluated(tree.axpy(h, d, place.players)), player)


def _direction(place: _Place, v: Players, player: str, attempt: int) -> Players:
    """Zero but for one player: a random direction and the gradient's in equal parts (a random one alone is
    nearly orthogonal to the gradient), as long as the player's weights."""
    players = place.players
    own = players[player]
    where = Use.DIFFERENCE.at(player=list(players).index(player), attempt=attempt)
    rng = where.generator(place.context.seed)
    noise = tree.map(lambda t: normal(rng, t.shape, t.dtype, t.device), own)
    size = float(tree.norm(own)) or float(tree.count(own)) ** 0.5
    d = tree.scale(1 / max(float(tree.norm(noise)), 1e-300), noise)
    slope = float(tree.norm(v[player]))
    if slope > 0:
        # On the gradient's side: opposite ones (of a single weight, say) would add up to nothing.
        side = 1.0 if float(tree.dot(d, v[player])) >= 0 else -1.0
        d = tree.axpy(side / slope, v[player], d)
    return {**tree.zeros_like(players), player: tree.scale(size / float(tree.norm(d)), d)}


def _same(a: tuple[Tensor, int], b: tuple[Tensor, int]) -> bool:
    return a[1] == b[1] and torch.equal(a[0].nan_to_num(), b[0].nan_to_num())


def _lossy(place: _Place) -> str:
    """The first operation that makes less than float64 of float64, or nothing."""
    watching = _Precision()
    with torch.no_grad(), watching:
        place.field.game.losses(place.players, place.constants, place.draw)
    return watching.found


class _Precision(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found = ""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: skipping it imports torch's compiler, two seconds of everybody's first audit."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if not self.found:
            low = [t.dtype for t in tree_leaves(out) if _is_float(t) and t.dtype != torch.float64]
            if low and any(
                _is_float(t) and t.dtype == torch.float64 for t in tree_leaves((args, kwargs))
            ):
                self.found = f"{str(low[0]).removeprefix('torch.')} in {func.overloadpacket}"
        return out


def _is_float(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
