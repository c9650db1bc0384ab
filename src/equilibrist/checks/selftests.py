"""Can what an audit computes be believed? Tests of the game's code, before any verdict.

A loss that is no function of the weights, or a gradient that is not the loss's own, gives an audit that
looks as good as any other: a critic's loss on detached samples has a block of J that is exactly zero, and
nothing complains. These tests can tell, for their reference is the losses' values.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from equilibrist import tree
from equilibrist.checks import _culprit as culprit
from equilibrist.checks._differences import PER_DIRECTION, PER_STEP, difference_tests, direction
from equilibrist.checks._precision import lossy_operation
from equilibrist.checks._selftest_point import EvaluationPoint, SelfTestResult
from equilibrist.checks.certificate import Certificate, Verdict
from equilibrist.checks.context import AuditContext, Tick, no_tick
from equilibrist.core.draws import Use, normal
from equilibrist.core.field import Evaluation
from equilibrist.core.game import Game, Players
from equilibrist.errors import GameError

CLAIM = "self-tests"
REFERENCES = (
    "Griewank and Walther 2008, Evaluating Derivatives, section 3.2 (adjoint identity)",
    "Nocedal and Wright 2006, Numerical Optimization, section 8.1 (finite differences)",
)
EXACT = 1e-9
EVALUATIONS = 16.0  # cost of all tests but differences, in gradients
ROWS = 16  # a fault of the code shows on few samples, and few samples have few kinks


def planned_gradients(context: AuditContext) -> float:
    """Planned minibatch gradients: those of tests that pass, with one try of each player's differences."""
    return (EVALUATIONS + len(context.game.players) * (PER_DIRECTION + PER_STEP)) * _share(context)


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
    point = EvaluationPoint(context, context.smooth(), *context.wide, draw)
    found = _results(point, tick)
    semi = getattr(context.game, "semi_gradient", False)
    failed = [result for result in found if not result.passed]
    if failed:
        failed[0] = _explained(_blamed(failed[0], point), context.game)
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
            "failed": [result.name for result in failed],
            "tests": {r.name: {"passed": r.passed, "off": r.off} for r in found},
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


def _results(point: EvaluationPoint, tick: Tick) -> list[SelfTestResult]:
    """The tests' results; of losses that cannot be differentiated or computed, one failure that says so."""
    share = _share(point.context)
    try:
        return _tested(point, lambda n=1.0: tick(n * share))
    except GameError as error:  # a derivative that torch does not have
        return [SelfTestResult("derivatives", False, float("nan"), str(error))]
    except RuntimeError as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        means = (
            f"the losses cannot be computed in float64 ({first}): make tensors in the dtype of what they meet "
            "(x.new_zeros, torch.ones_like), and hand other modules over with the players"
        )
        return [SelfTestResult("precision", False, float("nan"), means)]


def _tested(point: EvaluationPoint, tick: Tick) -> list[SelfTestResult]:
    before = point.state()
    here = point.evaluated()
    if not tree.all_finite(*here.losses.values()):
        return [
            SelfTestResult("finite", False, float("nan"), "the losses are not finite at this pair")
        ]
    if not tree.all_finite(*tree.leaves(here.v)):
        return [SelfTestResult("differentiable", False, float("nan"), _ROOT.format("gradient"))]
    lost = lossy_operation(point.field.game, point.players, point.constants, point.draw)
    precision = SelfTestResult(
        "precision",
        not lost,
        float(bool(lost)),
        f"a network computes in less than float64 ({lost}), which rounds derivatives away: let it "
        "follow the dtype of its weights",
    )
    first, *adjoint = _of_products(point, here)
    if not adjoint:
        return [precision, first]
    tick(EVALUATIONS)
    semi = getattr(point.context.game, "semi_gradient", False)
    tested = () if semi else tuple(point.players)
    differences = [r for player in tested for r in difference_tests(point, here, player, tick)]
    after = point.state()
    changed = next((name for name in before if before[name] != after[name]), None)
    buffers = SelfTestResult(
        "buffers",
        changed is None,
        float(changed is not None),
        f"evaluating the losses changes {changed}, so they are no function of the weights: call .eval() "
        "on the layer that does it, or compute the new value outside the forward pass",
    )
    return [precision, first, buffers, *adjoint, *differences]


# -- the tests ------------------------------------------------------------------------------------------


def _of_products(point: EvaluationPoint, here: Evaluation) -> list[SelfTestResult]:
    """Repeat and adjoint; one failure alone where J w is not finite."""
    w = {player: direction(point, here.v, player, 0)[player] for player in point.players}
    jw = point.forward(w)
    if not tree.all_finite(*tree.leaves(jw)):
        means = _ROOT.format("second derivative")
        return [SelfTestResult("differentiable", False, float("nan"), means)]
    return [_repeat(point, here, w, jw), _adjoint(point, w, jw)]


def _repeat(point: EvaluationPoint, here: Evaluation, w: Players, jw: Players) -> SelfTestResult:
    again = point.evaluated()
    values = _compared(
        [*here.losses.values(), *tree.leaves(here.v)],
        [*again.losses.values(), *tree.leaves(again.v)],
    )
    del again  # as large as the pair
    products = _compared(tree.leaves(jw), tree.leaves(point.forward(w)))
    off, equal = max(values[0], products[0]), values[1] and products[1]
    # Kernels on a GPU may add up in any order.
    passed = equal or (point.context.device.type != "cpu" and off <= EXACT)
    means = (
        "the same evaluation gives two answers, so the losses are no function of the weights: look for "
        "random numbers (dropout) and for state kept between calls (call .eval())"
    )
    return SelfTestResult("repeat", passed, off, means)


def _compared(once: list[Tensor], twice: list[Tensor]) -> tuple[float, bool]:
    """How far apart two vectors in parts are at most, relatively; whether they are equal bit for bit."""
    pairs = list(zip(once, twice, strict=True))
    off = max(float((a - b).norm() / (a.norm() + b.norm()).clamp_min(1e-300)) for a, b in pairs)
    return off, all(torch.equal(a, b) for a, b in pairs)


def _adjoint(point: EvaluationPoint, w: Players, jw: Players) -> SelfTestResult:
    rng = Use.ADJOINT.at().generator(point.context.seed)
    u = tree.map(lambda t: normal(rng, t.shape, t.dtype, t.device), point.players)
    jtu = point.field.vjp(point.players, point.constants, u, point.draw)
    size = tree.norm(u) * tree.norm(jw) + tree.norm(jtu) * tree.norm(w)
    off = float((tree.dot(u, jw) - tree.dot(jtu, w)).abs() / size.clamp_min(1e-300))
    means = (
        "J and its transpose disagree, so a backward pass is not linear or not repeatable: look for "
        "gradients that are clipped or scaled on their way (hooks, custom autograd functions)"
    )
    return SelfTestResult("adjoint", off <= EXACT, off, means)


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
    "slopes": culprit.wrong_derivative,
    "differences": culprit.wrong_derivative,
}


def _explained(result: SelfTestResult, game: Game) -> SelfTestResult:
    """The result with the places where a user's losses stop gradients, where derivatives are not those of values."""
    stops = getattr(game, "stops", None)
    if stops is None or result.name.partition("/")[0] not in _VALUES:
        return result
    where = (
        f"the losses stop gradients at {', '.join(stops)}"
        if stops
        else "nothing was seen to be detached (.item(), NumPy, torch.tensor(x), sample() of distributions are not seen)"
    )
    return replace(
        result,
        means=f"{result.means}; {where}: where that is on purpose (straight-through estimates, weights that are held "
        "constant, reversed gradients), write semi_gradient=True",
    )


def _blamed(result: SelfTestResult, point: EvaluationPoint) -> SelfTestResult:
    """The result with the layer that shows the same fault by itself, where there is one."""
    test = _TESTS.get(result.name.split("/")[0])
    at = point.context.game, point.players, point.constants, point.draw
    layer = culprit.faulty_layer(*at, test) if test else ""
    if not layer:
        return result
    fault = (
        "its derivative is wrong by itself"
        if test is culprit.wrong_derivative
        else "it shows the same fault by itself"
    )
    return replace(result, means=f"{result.means}; look at {layer}: {fault}")
