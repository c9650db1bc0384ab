"""Findings from who steps what and when: steps, optimisers, frozen parts, wrappers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from scipy import stats
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from equilibrist.certificates import Json
from equilibrist.diagnosis._calls import Call
from equilibrist.diagnosis._decay import judge_decay
from equilibrist.diagnosis._explain import OTHER, Explained
from equilibrist.diagnosis._hidden import judge_hidden
from equilibrist.diagnosis._judge_clips import judge_clips
from equilibrist.diagnosis._judge_rates import judge_rates
from equilibrist.diagnosis._recorder import SEVERAL, Recorder
from equilibrist.diagnosis._seen import BEFORE, CRITIC, PlayerStep, Side
from equilibrist.findings import Finding

LEAST = 3
ENTRIES = 32  # of a layer's weights, from which their distribution is known


def judge_steps(recorder: Recorder, by: dict[str, list[Explained]]) -> list[Finding]:
    """All findings of this kind."""
    found: list[Finding] = []
    for side in recorder.sides.values():
        mine = [s for s in recorder.steps if s.player == side.role]
        found += _steps(recorder, side, mine, by)
        found += _repeated(side, mine)
        found += _parts(side, mine)
        if len(mine) >= LEAST and any(s.received for s in mine) and side.role in recorder.hidden:
            found += judge_hidden(side, recorder.hidden[side.role].unstepped(recorder.stepped))
    found += judge_rates(recorder.sides, recorder.steps, recorder.schedulers)
    found += judge_decay(recorder.sides, recorder.steps)
    return found + judge_clips(recorder, by) + _wrappers(recorder)


# -- who steps -------------------------------------------------------------------------------------


def _steps(
    recorder: Recorder, side: Side, mine: Sequence[PlayerStep], by: dict[str, list[Explained]]
) -> list[Finding]:
    others = [s for s in recorder.steps if s.player and s.player != side.role]
    strangers = [s for s in recorder.steps if not s.player and s.foreign]
    if mine:
        return _no_gradient(recorder, side, mine, by.get(side.role, []))
    if strangers:
        return [
            Finding(
                "stale-parameters",
                f"{side.name}'s optimiser",
                f"An optimiser ({strangers[0].kind}) steps {strangers[0].foreign} tensors that no player uses, "
                f"{len(strangers)} times, and nothing steps the {side.name}: it holds tensors that "
                "the module no longer "
                "uses.",
                evidence={"steps": len(strangers), "tensors": strangers[0].foreign},
            )
        ]
    if len(others) < LEAST or side.moved:
        return []
    called = _own_calls(recorder, side)
    reached = any(call.received for call in called) or bool(side.reached and side.role != CRITIC)
    for kind, count, how in (
        (
            "stale",
            sum(s.fresh == 0 and bool(s.received) for s in others),
            "with a gradient that it has used already",
        ),
        (
            "idle",
            sum(s.fresh == 0 and not s.received for s in others),
            "without a gradient of its own",
        ),
    ):
        if reached and count >= LEAST and (kind == "stale" or count < len(others)):
            other = recorder.sides[others[0].player].name
            return [
                Finding(
                    "wrong-optimizer",
                    f"{side.name}'s optimiser",
                    f"The {side.name}'s gradients are computed and its optimiser never steps; the {other}'s optimiser "
                    f"steps {len(others)} times, {count} of them {how}.",
                    evidence={"steps": 0, "other_steps": len(others), kind: count},
                )
            ]
    borrowed = _borrowed(recorder, side, by)
    if borrowed is not None:
        return [borrowed]
    if not called and side.role == CRITIC:
        return []  # a critic that is not trained in these rounds (it opens later, or is fixed)
    sleeping = side.role != CRITIC and not called  # it may begin later
    what = (
        "its gradients are computed and no optimiser steps it"
        if reached
        else "no backward pass of its own loss and no step of its weights was seen"
    )
    return [
        Finding(
            "never-stepped",
            side.name,
            f"The {side.name} is never stepped: {what}, in {len(others)} steps of the other player; "
            "its weights are those "
            "that it began with.",
            level="note" if sleeping else "fault",
            sure="possible" if sleeping else "certain",
            evidence={"steps": 0, "other_steps": len(others), "moved": side.moved},
        )
    ]


def _borrowed(recorder: Recorder, side: Side, by: dict[str, list[Explained]]) -> Finding | None:
    """Another player's optimiser that steps on this player's loss alone, in steps of its own."""
    for role, steps in by.items():
        alone = [
            e
            for e in steps
            if role != side.role
            and abs(e.get(OTHER)) > 0.1
            and abs(e.get(OTHER))
            > 20 * max((abs(v) for k, v in e.totals.items() if k not in (OTHER, BEFORE)), default=0)
        ]
        if len(alone) < LEAST or len(alone) < 0.25 * len(steps) or not side.reached:
            continue
        other = recorder.sides[role].name
        return Finding(
            "wrong-optimizer",
            f"{side.name}'s optimiser",
            f"The {side.name}'s optimiser never steps; the {other}'s optimiser steps on the {side.name}'s loss, in "
            f"{len(alone)} of its {len(steps)} steps.",
            evidence={"steps": 0, "other_steps": len(steps), "on_this_loss": len(alone)},
        )
    return None


def _own_calls(recorder: Recorder, side: Side) -> list[Call]:
    """Calls that a player's own loss is made of: of a critic, those that no generator's step needs."""
    if side.role != CRITIC:
        return [c for c in recorder.calls if c.linked]
    return [c for c in recorder.calls if not c.linked]


def _no_gradient(
    recorder: Recorder, side: Side, mine: Sequence[PlayerStep], steps: Sequence[Explained]
) -> list[Finding]:
    later = [s for s in mine[len(mine) // 4 :] if s.received is not None]
    if len(mine) >= 2 * LEAST and not later and not any(p.requires_grad for p in side.params):
        text = (
            f"The {side.name}'s optimiser steps {len(mine)} times and has no gradient after the "
            "first: requires_grad is False "
            "for all of its weights, and is not switched on again."
        )
        return [
            Finding("no-gradient", side.name, text, evidence={"steps": len(mine), "frozen": True})
        ]
    if len(mine) < LEAST or any(s.received for s in mine):
        return []
    cut = [c.cut for s in mine for c in s.calls if c.cut > 0]
    if steps and all(s.received == 0 for s in mine) and not any(map(_due, steps)) and not cut:
        return []  # the declared gradient is zero too: the critic is flat, nothing is cut
    how = "None" if all(s.received is None for s in mine) else "zero"
    linked = [c for c in recorder.calls if c.linked]
    why = (
        ": the critic is called on its samples only without a way back to its weights (detached, or under no_grad)"
        if side.role != CRITIC and not linked
        else ""
    )
    if cut:
        why = (
            ": the critic's slope at its samples is not zero, and nothing of it reaches its weights (something between "
            "is rounded, compared, counted, or taken by argmax or sign)"
        )
    frozen = not any(p.requires_grad for p in side.params)
    why = ": requires_grad is False for all of its weights" if frozen else why
    return [
        Finding(
            "no-gradient",
            side.name,
            f"The {side.name}'s optimiser steps {len(mine)} times and its gradient is {how} each time{why}.",
            evidence={"steps": len(mine), "detached": not linked, "frozen": frozen},
        )
    ]


def _due(e: Explained) -> bool:
    """Whether the declared loss has a gradient at this step."""
    names = e.step.problem.names if e.step.problem is not None else []
    if not e.kinds:
        return any(not name.startswith(BEFORE) for name in names)
    return any(f"{i}:{kind}" in names for i, kind in enumerate(e.kinds))


def _repeated(side: Side, mine: Sequence[PlayerStep]) -> list[Finding]:
    again = [s for s in _used_again(mine) if s.received]
    if len(again) < LEAST or len(again) < 0.25 * len(mine):
        return []
    if not any(s.fresh for s in mine):
        return []  # gradients that the loop puts in place itself, which no backward pass announces
    who = Counter(s.kind for s in again).most_common(1)[0][0]
    several = len({s.optimizer for s in mine}) > 1
    return [
        Finding(
            "stepped-twice",
            side.name,
            f"{len(again)} of {len(mine)} steps of the {side.name} use a gradient that was used "
            "already: no backward pass "
            "reached it since the step before"
            + (
                f"; {len({s.optimizer for s in mine})} optimisers step it."
                if several
                else f" ({who})."
            ),
            evidence={"repeated": len(again), "steps": len(mine), "rounds": mine[-1].round + 1},
        )
    ]


def _used_again(mine: Sequence[PlayerStep]) -> Iterator[PlayerStep]:
    """Steps with gradients that another step has used since the last backward pass. Optimisers that hold different
    weights of a player (several networks, a body and its head) may all step after one."""
    used: frozenset[int] = frozenset()
    for step in mine:
        if step.fresh:
            used = step.held
            continue
        if not step.held or used & step.held:
            yield step
        used |= step.held


# -- parts of a player -----------------------------------------------------------------------------


def _parts(side: Side, mine: Sequence[PlayerStep]) -> list[Finding]:
    if len(mine) < LEAST or not any(s.received for s in mine) or len(side.optimizers) > SEVERAL:
        return []
    found = []
    stepped = _in_optimizers(mine)
    asleep = [
        side.names[id(p)]
        for p in side.params
        if id(p) not in side.reached and p.requires_grad and id(p) in stepped
    ]
    touched = [n for n in asleep if _used(side, n)]
    if touched:
        found.append(
            Finding(
                "frozen-part",
                f"{side.name}: {_few(touched)}",
                f"{len(touched)} of {len(side.params)} weights of the {side.name} never get a gradient although their "
                f"layers are used: {_few(touched)}.",
                evidence={"weights": touched[:20], "steps": len(mine)},
            )
        )
    found += _switched_off(side, stepped, len(mine))
    alone = [
        side.names[id(p)] for p in side.params if id(p) in side.reached and id(p) not in stepped
    ]
    strangers = max(s.foreign for s in mine)
    if alone and stepped and strangers and all(s.foreign for s in mine):
        text = (
            f"The {side.name}'s optimiser ({mine[-1].kind}) steps {strangers} tensors that no player "
            "uses, and nothing steps "
            f"{len(alone)} of its weights: {_few(alone)}."
        )
        evidence = {"weights": alone[:20], "tensors": strangers, "steps": len(mine)}
        found.append(
            Finding("stale-parameters", f"{side.name}'s optimiser", text, evidence=evidence)
        )
    elif alone and stepped:
        found.append(
            Finding(
                "frozen-part",
                f"{side.name}: {_few(alone)}",
                f"{len(alone)} of {len(side.params)} weights of the {side.name} get gradients and no optimiser steps "
                f"them: {_few(alone)}.",
                evidence={"weights": alone[:20], "steps": len(mine)},
            )
        )
    return found


def _switched_off(side: Side, stepped: set[int], steps: int) -> list[Finding]:
    """Layers whose gradients are switched off, which an optimiser holds and which were never trained.

    A pretrained part is frozen on purpose. One that still is as PyTorch draws its layers, uniform in
    +-1/sqrt(fan_in), and that the optimiser was given, is frozen by what was left over.
    """
    off = [
        f"{path}.weight" if path else "weight"
        for module in side.modules
        for path, layer in module.named_modules()
        if isinstance(layer, nn.Linear | _ConvNd)
        and id(layer.weight) in stepped
        and id(layer.weight) not in side.reached
        and not layer.weight.requires_grad
        and untrained(layer.weight.detach())
    ]
    if not off or all(not p.requires_grad for p in side.params):
        return []
    text = (
        f"requires_grad is False for {_few(off)} of the {side.name}: its optimiser holds these weights and never "
        "moves them, and they still are as PyTorch draws a new layer's."
    )
    cure = "set requires_grad to True for them; layers that are frozen on purpose do not belong into the optimiser"
    evidence: Json = {"weights": off[:20], "steps": steps}
    where = f"{side.name}: {_few(off)}"
    return [Finding("frozen-part", where, text, "warning", "likely", evidence, cure)]


def untrained(weight: Tensor) -> bool:
    """Whether a layer's weights are as PyTorch draws them: uniform in +-1/sqrt(fan_in).

    Args:
        weight: [out, in, ...].

    Returns:
        Whether none lies outside, and Kolmogorov and Smirnov's test does not reject at 1%.
    """
    flat = weight.double().flatten(1)
    bound = 1 / math.sqrt(flat.shape[1])
    if flat.numel() < ENTRIES or float(flat.abs().max()) > bound * (1 + 1e-6):
        return False
    uniform = stats.uniform(-bound, 2 * bound)
    return bool(stats.kstest(flat.flatten().cpu().numpy(), uniform.cdf).pvalue > 0.01)


def _in_optimizers(mine: Sequence[PlayerStep]) -> set[int]:
    return set().union(*(s.held for s in mine))


def _used(side: Side, name: str) -> bool:
    return name.rpartition(".")[0] in side.used


def _few(names: Sequence[str]) -> str:
    more = len(names) - 3
    return ", ".join(names[:3]) + (f" and {more} more" if more > 0 else "")


# -- wrappers ----------------------------------------------------------------------------------------


def _wrappers(recorder: Recorder) -> list[Finding]:
    found = []
    for role, (outer, inner) in recorder.wrappers.items():
        if inner >= LEAST and outer < 0.5 * inner:
            name = recorder.sides[role].name
            found.append(
                Finding(
                    "bypassed-wrapper",
                    name,
                    f"The {name} is wrapped in DistributedDataParallel and {inner - outer} of {inner} "
                    "forward passes with "
                    "gradients go around the wrapper: ranks do not share these gradients.",
                    evidence={"calls": inner, "through_wrapper": outer},
                )
            )
    return found
