"""How much losses fluctuate and how good samples become: the DCGANs of `mescheder_cifar10`, judged.

What decides on "almost constant" losses, chosen before any run: the standard deviation of a player's logged losses
over the last half of the iterations, divided by what that player pays where the critic cannot tell real from
generated: 2 log 2 for the critic, log 2 for the generator. That is one unit for every method, seed and player; a
loss's own mean is none, for it is close to zero where a player has won. The last half leaves out the way there. A
drift counts as fluctuation, as it would for whoever looks at the curve; so does the noise of minibatches, which is
alike for all.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from equilibrist.papers.model import ClaimOutcome, Measures, Records
from equilibrist.papers.table1 import decisive, lower
from equilibrist.papers.training import last
from equilibrist.statistics import Estimate, estimate, holm, paired

# What each player pays where the critic cannot tell.
LEVELS = {"critic": 2 * math.log(2), "generator": math.log(2)}
CONSTANT = 0.1  # a fluctuation below this share of the level is "almost constant"
FACTOR = 2.0  # "highly fluctuating" is at least so many times more
WON = 0.1  # a critic whose mean loss is below this share of its level has won: losses say nothing


class Net(NamedTuple):
    """One of the two DCGANs of the slides: convolutions in each player at CIFAR-10's size, and gamma."""

    key: str
    layers: int
    gamma: float

    @property
    def title(self) -> str:
        return f"DCGAN of {self.layers} convolutions"


class Arm(NamedTuple):
    """A method, with or without batch norm in both players."""

    method: str
    batch_norm: bool

    @property
    def key(self) -> str:
        return f"{self.method}-{'norm' if self.batch_norm else 'plain'}"

    @property
    def title(self) -> str:
        return f"{self.method} {'with' if self.batch_norm else 'without'} batch norm"


THREE, FOUR = NETS = (Net("three", 3, 0.1), Net("four", 4, 10.0))
CALM, WILD = Arm("consensus", False), Arm("alternating", True)  # what the slides compare
CELLS = (WILD, CALM, Arm("alternating", False), Arm("consensus", True))


# -- what was measured ------------------------------------------------------------------------------


def by_seed(records: Records, net: Net, cell: Arm) -> dict[int, Measures]:
    """What every seed of a cell recorded."""
    stem = f"{net.key}-{cell.key}"
    return {
        int(seed): one
        for key, record in records.items()
        if key == stem or key.startswith(f"{stem}-seed-")
        for seed, one in record.measures.get("seeds", {}).items()
    }


def late(seen: Measures, player: str) -> list[float]:
    """A player's losses over the last half of the iterations, in shares of its level."""
    rows = seen["losses"].get(player, ())
    half = max((at for at, _ in rows), default=0) / 2
    return [value / LEVELS[player] for at, value in rows if at > half]


def fluctuation(seen: Measures, player: str) -> float | None:
    """The standard deviation of `late`; None for a seed that diverged, or where too little was logged."""
    values = late(seen, player)
    if seen["diverged"] is not None or len(values) < 2:
        return None
    return statistics.stdev(values)


def fluctuations(records: Records, net: Net, cell: Arm, player: str) -> dict[int, float | None]:
    """Those of every seed of a cell."""
    return {seed: fluctuation(one, player) for seed, one in by_seed(records, net, cell).items()}


def times_more(records: Records, net: Net, cell: Arm, than: Arm, player: str) -> Estimate:
    """log of how many times more the losses of one cell fluctuate than those of another, paired by seed."""
    mine, theirs = (
        {s: _log(v) for s, v in fluctuations(records, net, one, player).items()}
        for one in (cell, than)
    )
    return paired(mine, theirs)


def _log(value: float | None) -> float | None:
    return math.log(value) if value else None


def factor(found: Estimate) -> str:
    """exp of an estimate of logarithms, for people."""
    if found.low is None or found.high is None:
        return "no value" if not found.n else f"{math.exp(found.mean):.3g} (one seed)"
    return f"{math.exp(found.mean):.3g} ({math.exp(found.low):.3g} to {math.exp(found.high):.3g})"


def how_many_diverged(records: Records, net: Net, cell: Arm) -> int:
    """How many seeds of a cell diverged."""
    return sum(one["diverged"] is not None for one in by_seed(records, net, cell).values())


def cost_of(records: Records, net: Net, cell: Arm) -> float:
    """What a step of a cell costs in steps of alternating descent with batch norm; 0 where it was not measured."""
    stem = f"{net.key}-{cell.key}"
    found = [
        float(record.measures["cost"]["ratio"])
        for key, record in records.items()
        if (key == stem or key.startswith(f"{stem}-seed-")) and "cost" in record.measures
    ]
    return statistics.mean(found) if found else 0.0


def score_at(records: Records, net: Net, cell: Arm, share: float = 1.0) -> dict[int, float | None]:
    """The deciding score of every seed after a share of the iterations, with the sign that makes more better."""
    found: dict[int, float | None] = {}
    for seed, one in by_seed(records, net, cell).items():
        name = decisive(one["scores"])
        end = max((at for at, _ in one["scores"].get(name, ())), default=0)
        value = last(one, name, round(share * end))
        found[seed] = value if value is None or not lower(name) else -value
    return found


def equal_iterations(records: Records, net: Net, cell: Arm, than: Arm) -> Estimate:
    """The gain in the score at the end, paired by seed."""
    return paired(score_at(records, net, cell), score_at(records, net, than))


def equal_seconds(records: Records, net: Net, cell: Arm, than: Arm) -> Estimate:
    """The gain where the cell has cost as many CPU seconds as the other one at its end."""
    mine, theirs = cost_of(records, net, cell), cost_of(records, net, than)
    share = min(1.0, theirs / mine) if mine > 0 and theirs > 0 else 0.0
    return paired(score_at(records, net, cell, share), score_at(records, net, than))


# -- what became of it ------------------------------------------------------------------------------

NOT_YET = ClaimOutcome("not tried", "fewer than two seeds of each cell yet")


def judge_losses(net: Net, records: Records) -> ClaimOutcome:
    """The rule of the curves of losses."""
    ours = {p: estimate([*fluctuations(records, net, CALM, p).values()]) for p in LEVELS}
    more = {p: times_more(records, net, WILD, CALM, p) for p in LEVELS}
    gone = how_many_diverged(records, net, CALM)
    if not gone and any(one.n < 2 for one in more.values()):
        return NOT_YET
    levels = [late(one, "critic") for one in by_seed(records, net, CALM).values()]
    won = sum(bool(values) and statistics.mean(values) < WON for values in levels)
    words = "; ".join(f"the {p}'s {ours[p]}, {factor(more[p])} times" for p in LEVELS)
    why = (
        f"fluctuation with {CALM.title}, and how many times more with {WILD.title}: {words}; "
        f"consensus: {gone} seeds diverged, in {won} the critic had won"
    )
    lows = [one.low for one in more.values()]
    constant = all(one.high is not None and one.high < CONSTANT for one in ours.values())
    if not (gone or won) and constant and all(x is not None and x > math.log(FACTOR) for x in lows):
        return ClaimOutcome("holds", why)
    if not gone and all(x is not None and x > 0 for x in lows):
        return ClaimOutcome("holds in part", why)
    if gone or any(one.high is not None and one.high < 0 for one in more.values()):
        return ClaimOutcome("does not hold", why)
    return ClaimOutcome("undecided", why)


def judge_score(net: Net, records: Records) -> ClaimOutcome:
    """The rule of the score over iterations and seconds."""
    first, timed = (
        compare(records, net, CALM, WILD) for compare in (equal_iterations, equal_seconds)
    )
    if first.n < 2 or first.low is None or first.high is None:
        return NOT_YET
    cost = cost_of(records, net, CALM)
    why = (
        f"gain in the score by {CALM.title} over {WILD.title} (positive is better): {first} at equal "
        f"iterations, {timed} at equal seconds (a step costs {cost:.2f} times as much)"
    )
    if first.low > 0:
        slower = timed.high is None or timed.high < 0
        return ClaimOutcome("holds in part" if slower else "holds", why)
    return ClaimOutcome("does not hold" if first.high < 0 else "undecided", why)


def judge_cause(net: Net, records: Records) -> ClaimOutcome:
    """The rule of what the calm is owed to: four cells, both players' logarithms averaged."""
    effects = {
        f"consensus instead of alternating, {'with' if norm else 'without'} batch norm": _both(
            records, net, Arm("alternating", norm), Arm("consensus", norm)
        )
        for norm in (True, False)
    }
    if any(one.n < 2 for one in effects.values()):
        return NOT_YET
    p = holm([one.p for one in effects.values()])
    removed = {
        f"no batch norm, {method}": _both(records, net, Arm(method, True), Arm(method, False))
        for method in ("alternating", "consensus")
    }
    words = "; ".join(f"{what}: {factor(one)}" for what, one in (effects | removed).items())
    why = f"the losses' fluctuation is divided by, with {words}"
    signs = [
        (one.mean > 0) - (one.mean < 0) if corrected < 0.05 else 0
        for one, corrected in zip(effects.values(), p, strict=True)
    ]
    if min(signs) > 0:
        return ClaimOutcome("holds", why)
    if max(signs) > 0:
        return ClaimOutcome("holds in part", why)
    return ClaimOutcome("does not hold" if min(signs) < 0 else "undecided", why)


def _both(records: Records, net: Net, cell: Arm, than: Arm) -> Estimate:
    """`times_more`, averaged over both players before it is paired."""

    def averaged(one: Arm) -> dict[int, float | None]:
        logs = [fluctuations(records, net, one, player) for player in LEVELS]
        found: dict[int, float | None] = {}
        for seed in logs[0]:
            values = [_log(part[seed]) for part in logs]
            sound = [v for v in values if v is not None]
            found[seed] = statistics.mean(sound) if len(sound) == len(values) else None
        return found

    return paired(averaged(cell), averaged(than))


def judge_training(net: Net, records: Records) -> ClaimOutcome:
    """The rule of the samples of a network without batch norm."""
    end, start = score_at(records, net, CALM), score_at(records, net, CALM, 0.0)
    risen, against = (
        paired(end, start),
        equal_iterations(records, net, CALM, Arm(WILD.method, False)),
    )
    gone = how_many_diverged(records, net, CALM)
    if not gone and risen.n < 2:
        return NOT_YET
    why = (
        f"{CALM.title} improves the score of the initial pair by {risen}, and is ahead of alternating on the "
        f"same network by {against}; {gone} of {len(end)} seeds diverged"
    )
    if gone or risen.low is None or risen.low <= 0:
        worse = gone > len(end) / 2 or (risen.high is not None and risen.high < 0)
        return ClaimOutcome("does not hold" if worse else "undecided", why)
    behind = against.high is not None and against.high < 0
    return ClaimOutcome("holds in part" if behind else "holds", why)


def markdown_tables(records: Records, folder: Path) -> list[str]:
    """The four cells of both networks."""
    lines: list[str] = []
    for net in NETS:
        rows = [row for cell in CELLS for row in _row(records, net, cell)]
        if rows:
            name = _score_name(records, net)
            lines += [
                f"{net.title}, gamma {net.gamma:g}; score: {name}, "
                f"{'lower' if lower(name) else 'higher'} is better.",
                "",
                "| cell | fluctuation: critic | generator | mean loss: critic | generator | score at the "
                "start | a tenth | half | end | cost of a step | diverged |",
                "|---|---|---|---|---|---|---|---|---|---|---|",
                *rows,
                "",
            ]
    if lines:
        lines.append(
            "Fluctuation: standard deviation of the logged losses over the last half of the iterations; it "
            "and the mean losses in shares of the loss where the critic cannot tell (2 log 2, log 2). Means "
            "over seeds with 95% intervals. Cost: CPU time, in steps of alternating descent with batch norm."
        )
    return lines


def _score_name(records: Records, net: Net) -> str:
    seen = (one for cell in CELLS for one in by_seed(records, net, cell).values())
    return next((name for one in seen if (name := decisive(one["scores"]))), "")


def _row(records: Records, net: Net, cell: Arm) -> Iterable[str]:
    found = by_seed(records, net, cell)
    if not found:
        return
    moved = [estimate([*fluctuations(records, net, cell, p).values()]) for p in LEVELS]
    means = [
        estimate([statistics.mean(v) if (v := late(one, p)) else None for one in found.values()])
        for p in LEVELS
    ]
    scores = [
        estimate([None if v is None else abs(v) for v in score_at(records, net, cell, at).values()])
        for at in (0.0, 0.1, 0.5, 1.0)
    ]
    cells = [str(one) for one in (*moved, *means, *scores)]
    cells += [f"{cost_of(records, net, cell):.2f}", str(how_many_diverged(records, net, cell))]
    yield f"| {cell.title} | {' | '.join(cells)} |"
