"""One ordered list of what is wrong with a training loop: wiring first, then data, numerics, averages and players."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from equilibrist.certificates import Json
from equilibrist.critics import CriticAudit, audit_critic
from equilibrist.diagnosis._states import states
from equilibrist.diagnosis.findings import GROUPS, Finding, ordered
from equilibrist.diagnosis.loop import Loop
from equilibrist.diagnosis.wiring import MOST, ROUNDS, Wiring, check_wiring
from equilibrist.display import Rows, Shown
from equilibrist.errors import EquilibristError, RecipeError
from equilibrist.games.adversarial import roles
from equilibrist.nn.noise import GLOBAL, derived, seeded
from equilibrist.progress import showing

LATE = 8  # rounds at the end that are watched again
WHOLE = 40  # rounds after which a player without a step is never stepped
SAMPLES = 2_000
CRITIC = "critic"


@dataclass
class Diagnosis(Shown):
    """What `diagnose` found.

    Attributes:
        findings: what to act on first in front. A finding about a player that a fault of wiring or data explains is a
            note.
        rounds: how many rounds were run.
        steps: by player.
        early, late: the wiring check of the first and of the last rounds.
        critic: the audit of the critic at the end, where it could be had.
        skipped: what was not looked at, and why.
    """

    findings: tuple[Finding, ...]
    rounds: int
    steps: dict[str, int]
    early: Wiring
    late: Wiring | None = None
    critic: CriticAudit | None = None
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing above a note was found."""
        return all(f.level == "note" for f in self.findings)

    @property
    def first(self) -> Finding | None:
        """What to act on first; None where nothing above a note was found."""
        return next((f for f in self.findings if f.level != "note"), None)

    def describe(self) -> Json:
        """Plain values, as a JSON file holds them."""
        return {
            "findings": [f.describe() for f in self.findings],
            "rounds": self.rounds,
            "steps": self.steps,
            "wiring": self.early.describe(),
            "skipped": self.skipped,
        }

    def _facts(self) -> tuple[str, Rows]:
        first = self.first
        title = first.text if first else f"No fault found in {self.rounds} rounds."
        rows: list[tuple[str, str]] = []
        if first:
            rows.append(("change first", first.cure))
        rows += [
            (f"{f.level}: {f.name}", f"{f.text} ({f.sure})")
            for f in self.findings
            if f is not first
        ]
        rows += [(f"not looked at: {what}", why) for what, why in self.skipped.items()]
        return title, rows


def diagnose(
    loop: Loop,
    rounds: int = 200,
    *,
    first: int = 0,
    gradients: int = 600,
    seed: int = 0,
    progress: str = "auto",
) -> Diagnosis:
    """Runs somebody's loop for a while, watches it, and names what is wrong.

    The wiring is checked in the first rounds and in the last; then the critic is audited on held-out samples, and the
    samples, averages and numbers are looked at. The loop is stepped as it is: its modules train. Random states are put
    back afterwards.

    Args:
        loop: the loop.
        rounds: how many of its rounds are run.
        first: the number of the first round.
        gradients: that the audit of the critic may spend.
        seed: of what the checks draw.
        progress: "auto", "bar", "lines" or "none".

    Returns:
        The findings, in the order in which to act on them.

    Raises:
        RecipeError: fewer than one round.
        GameError: players that are no modules, or not a generator and a critic.
    """
    if rounds < 1:
        raise RecipeError(f"rounds={rounds}: at least one round must be run")
    counted: Counter[str] = Counter()
    skipped: dict[str, str] = {}
    call = {"penalties": loop.penalties, "real": loop.real, "train": loop.train}
    early = check_wiring(loop.players, loop.loss, rounds=min(ROUNDS, MOST), **call)
    late = None
    with showing(progress, "rounds", rounds) as bar, _counting(loop.players, counted):
        watched = min(ROUNDS, rounds)
        late_from = rounds - LATE if rounds >= watched + 2 * LATE else rounds

        def run(begin: int, end: int, each: Callable[[int], None]) -> None:
            for i in range(begin, end):
                each(i)
                bar.update(i + 1, {})

        with early:
            run(0, watched, lambda i: early.round(i, loop.step, first))
        run(watched, late_from, lambda i: loop.step(first + i))
        if late_from < rounds:
            late = check_wiring(loop.players, loop.loss, rounds=LATE, **call)
            with late:
                run(late_from, rounds, lambda i: late.round(i, loop.step, first))
    found = [*early.findings]
    found += [f for f in (late.findings if late else ()) if _new(f, found)]
    found += _asleep(loop.players, counted, rounds, found)
    audit = _critic(loop, gradients, seed, progress, skipped)
    if audit is not None:
        found += states(audit, _critic_name(loop.players))
    return Diagnosis(
        ordered(_explained(found)),
        rounds,
        dict(counted),
        early,
        late,
        audit,
        skipped,
    )


def _new(finding: Finding, found: Sequence[Finding]) -> bool:
    return all((f.name, f.where) != (finding.name, finding.where) for f in found)


class _counting:
    """Counts the steps of every player, by name."""

    def __init__(self, players: Mapping[str, Any], counted: Counter[str]) -> None:
        self.owners = {
            id(p): name
            for name, held in players.items()
            for module in (
                [held]
                if isinstance(held, nn.Module)
                else list(held.values() if isinstance(held, Mapping) else held)
            )
            for p in module.parameters()
        }
        self.counted = counted
        counted.update(dict.fromkeys(players, 0))

    def __enter__(self) -> None:
        self.handle = register_optimizer_step_post_hook(self._stepped)

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _stepped(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        held = (id(p) for group in optimizer.param_groups for p in group["params"])
        self.counted.update({self.owners[i] for i in held if i in self.owners})


def _asleep(
    players: Mapping[str, Any], counted: Counter[str], rounds: int, found: Sequence[Finding]
) -> list[Finding]:
    """Players without a step in a whole run, which a few rounds cannot tell from those that begin later."""
    wiring = {"never-stepped", "wrong-optimizer", "stale-parameters"}
    if rounds < WHOLE or any(f.name in wiring and f.level != "note" for f in found):
        return []
    most = max(counted.values())
    return [
        Finding(
            "never-stepped",
            name,
            f"The {name} is never stepped in {rounds} rounds, while the other player is stepped {most} times.",
            evidence={"steps": 0, "other_steps": most, "rounds": rounds},
        )
        for name in players
        if counted[name] == 0 and most >= WHOLE
    ]


def _explained(found: Sequence[Finding]) -> list[Finding]:
    """Findings about players as notes where a fault of an earlier group explains them."""
    causes = [
        f
        for f in found
        if f.level == "fault" and GROUPS.index(f.kind.group) < GROUPS.index("player")
    ]
    if not causes:
        return list(found)
    because = f" (explained by {causes[0].name})"
    return [
        replace(f, level="note", text=f.text.rstrip(".") + because + ".")
        if f.kind.group == "player" and f.level != "note"
        else f
        for f in found
    ]


# -- the critic at the end -------------------------------------------------------------------------


def _critic_name(players: Mapping[str, Any]) -> str:
    called = roles(tuple(players))
    return next(name for name, role in called.items() if role == CRITIC)


def _critic(
    loop: Loop, gradients: int, seed: int, progress: str, skipped: dict[str, str]
) -> CriticAudit | None:
    """The audit of the critic as training left it; None where it cannot be had, with the reason in `skipped`."""
    critic = loop.players[_critic_name(loop.players)]
    if loop.real is None or loop.sample is None:
        skipped["the critic's state"] = "it needs real= (held-out samples) and sample="
        return None
    if not isinstance(critic, nn.Module):
        skipped["the critic's state"] = "several critics: audit_critic takes one at a time"
        return None
    if not all(bool(torch.isfinite(p).all()) for p in critic.parameters()):
        skipped["the critic's state"] = "its weights are not finite"
        return None
    try:
        with seeded(derived(seed), GLOBAL):
            with torch.no_grad():
                fake = loop.sample(SAMPLES)
            return audit_critic(
                copy.deepcopy(critic),
                loop.real,
                fake,
                loop.loss,
                penalties=loop.penalties,
                train_real=loop.train,
                gradients=gradients,
                seed=seed,
                progress=progress,
            )
    except EquilibristError as error:
        skipped["the critic's state"] = str(error)
        return None
