"""Findings about the size of what is received: clipping without effect or of scaled gradients, small gradients."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from equilibrist.diagnosis._explain import MIXED, Explained
from equilibrist.diagnosis._recorder import Recorder
from equilibrist.diagnosis._seen import BEFORE, Clip, PlayerStep, Side
from equilibrist.findings import Finding

LEAST = 3
SHARE = 0.8  # of the steps that must agree
SCALE = 64.0  # a factor from which it is a loss scale
CUT = 8.0  # times that clipping must cut a gradient, to be cut for its scale
CLEAR = 0.05  # residuals below are of a gradient that is explained


def judge_clips(recorder: Recorder, by: Mapping[str, Sequence[Explained]]) -> list[Finding]:
    """All findings of this kind."""
    found = _clipping(recorder)
    for role, side in recorder.sides.items():
        mine = [s for s in recorder.steps if s.player == role]
        scaled = _scaled(side, mine, recorder.clips)
        found += scaled or _small(side, by.get(role, []), recorder.clips)
    return found


def _scaled(side: Side, mine: Sequence[PlayerStep], clips: Sequence[Clip]) -> list[Finding]:
    """Clipping to a norm of which the optimiser receives a small part: a loss scale was on the gradients."""
    last = {c.step: c for c in clips if c.players == (side.role,) and c.limit > 0 and c.graded}
    rows = [(last[k], s.received) for k, s in enumerate(mine) if k in last and s.received]
    cut = [(c, got) for c, got in rows if c.norm > CUT * c.limit and got * SCALE < c.limit]
    if len(cut) < LEAST or len(cut) < SHARE * len(rows):
        return []
    scale = statistics.median(c.limit / got for c, got in cut)
    norm = statistics.median(c.norm for c, _ in cut)
    limit = cut[-1][0].limit
    text = (
        f"The gradients of the {side.name} are clipped while a loss scale of about {scale:,.0f} is on them: a norm of "
        f"{norm:.3g} is cut to {limit:g}, and the optimiser receives {limit / scale:.2g}, in {len(cut)} of {len(rows)} "
        "steps."
    )
    evidence = {"scale": scale, "norm": norm, "limit": limit, "steps": len(cut)}
    cure = "call scaler.unscale_(optimizer) before clipping, or clip to the limit times the scale"
    return [Finding("clipping", side.name, text, evidence=evidence, cure=cure)]


def _small(side: Side, steps: Sequence[Explained], clips: Sequence[Clip]) -> list[Finding]:
    """A note where the declared gradient arrives much too small."""
    sizes = [_size(e) for e in steps if e.residual < CLEAR]
    small = [s for s in sizes if 0 < s < 1 / SCALE]
    if len(small) < LEAST or len(small) < SHARE * len(sizes):
        return []
    size = statistics.median(small)
    seen = sum(side.role in c.players for c in clips) >= LEAST
    constant = statistics.pstdev(small) < 0.02 * size
    name = "loss-scale" if constant or not seen else "clipping"
    why = (
        "the loss, or its gradient, is divided by a number that was not declared"
        if name == "loss-scale"
        else "clipping cuts nearly all of it, in nearly every step"
    )
    text = (
        f"The {side.name} receives {size:.2g} times the declared gradient in {len(small)} of {len(sizes)} steps: {why}"
        ". Adam makes up for it; SGD, momentum and weight decay do not."
    )
    evidence = {"factor": size, "steps": len(small)}
    cure = "make sure that the factor is meant"
    return [Finding(name, side.name, text, "note", "possible", evidence, cure)]


def _size(e: Explained) -> float:
    """The largest coefficient of what is received."""
    return max((abs(v) for part, v in e.totals.items() if part not in (BEFORE, MIXED)), default=0.0)


def _clipping(recorder: Recorder) -> list[Finding]:
    clips = recorder.clips
    if len(clips) < LEAST:
        return []
    groups = defaultdict(list)
    for clip in clips:
        groups[clip.players].append(clip)
    found = []
    for players, every in groups.items():
        # torch groups gradients to measure their norm as well: that is no clipping by value.
        mine = [clip for clip in every if clip.limit] or every
        if len(mine) < LEAST:
            continue
        names = " and ".join(recorder.sides[r].name for r in players)
        if not players:
            unused = sum(not c.given for c in mine)
            if unused >= LEAST:
                why = "it is given no weights at all (an iterator that was used up before)"
                found.append(_no_clip("", why, unused))
            if any(c.strangers for c in mine):
                found.append(_no_clip("", "it is given tensors that no player uses", len(mine)))
            continue
        found += _beside(recorder, players, mine)
        empty = [c for c in mine if not c.graded]
        late = [c for c in mine if c.graded and not c.fresh]
        if len(empty) > 0.8 * len(mine):
            found.append(
                _no_clip(
                    names, "no gradient is there yet (it is called before backward)", len(empty)
                )
            )
        elif len(late) > 0.8 * len(mine):
            found.append(_no_clip(names, "the step is over (it is called after step())", len(late)))
    return found


def _beside(recorder: Recorder, players: tuple[str, ...], mine: Sequence[Clip]) -> list[Finding]:
    """Clipping of a player without a new gradient, right before the step of another one that is never clipped."""
    if len(players) != 1:
        return []
    clipped = {role for clip in recorder.clips for role in clip.players}
    after = {step.count: step.player for step in recorder.steps if step.player}
    idle = [c for c in mine if not c.graded or not c.fresh]
    others = Counter(after.get(c.count + 1, "") for c in idle)
    for other, count in others.items():
        if other and other not in clipped and count >= LEAST and count < len(mine):
            name, owner = recorder.sides[other].name, recorder.sides[players[0]].name
            text = (
                f"The {name}'s gradients are never clipped: right before its step those of the {owner} are, which have "
                f"no new gradient then, {count} times."
            )
            return [Finding("clipping", name, text, evidence={"calls": count})]
    return []


def _no_clip(names: str, why: str, count: int) -> Finding:
    whose = f" of the {names}" if names else ""
    return Finding(
        "clipping",
        names or "no player",
        f"Clipping of the gradients{whose} has no effect: {why}, {count} times.",
        evidence={"calls": count},
    )
