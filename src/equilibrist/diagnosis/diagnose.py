"""One ordered list of what is wrong with a training loop: wiring first, then data, numerics, averages and players."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from equilibrist.certificates import Json
from equilibrist.critics import CriticAudit
from equilibrist.diagnosis._after import after, early_sizes
from equilibrist.diagnosis._critic import audit_of
from equilibrist.diagnosis._frame import without_the_frame
from equilibrist.diagnosis._judge_rates import ruled
from equilibrist.diagnosis._outcome import Outcome
from equilibrist.diagnosis._running import Running
from equilibrist.diagnosis._sizes import exploded
from equilibrist.diagnosis._states import Way, states
from equilibrist.diagnosis.loop import Loop
from equilibrist.diagnosis.resume import check_resume
from equilibrist.diagnosis.wiring import Wiring, without_echoes
from equilibrist.display import Rows, Shown
from equilibrist.errors import GameError, RecipeError
from equilibrist.findings import Finding, foremost, is_cause, ordered, with_causes
from equilibrist.games import roles
from equilibrist.progress import showing

ALTERED = ("augmentation-mismatch", "normalization-mismatch")
OPENS = ("no-gradient", "missing-term", "constant-penalty")  # where a weight is zero at first
RARE = 0.5  # steps a round: a critic below is kept from following
WHOLE = 40  # rounds after which a player without a step is never stepped
CRITIC = "critic"


@dataclass(repr=False)
class Diagnosis(Shown):
    """What `diagnose` found.

    Attributes:
        findings: what to act on first in front. A finding about a player that a fault of wiring or data explains is a
            note.
        rounds: how many rounds were run.
        steps: by player.
        early, late: the wiring check of the first and of the last rounds.
        critic: the audit of the critic at the end, where it could be had.
        outcome: how the game went, by looks at held-out samples on the way.
        skipped: what was not looked at, and why.
    """

    findings: tuple[Finding, ...]
    rounds: int
    steps: dict[str, int]
    early: Wiring
    late: Wiring | None = None
    critic: CriticAudit | None = None
    outcome: Outcome = field(default_factory=Outcome)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing above a note was found."""
        return all(f.level == "note" for f in self.findings)

    @property
    def first(self) -> Finding | None:
        """What to act on first; None where nothing above a note was found."""
        return foremost(self.findings)

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
    fresh: Callable[[], Loop] | None = None,
    first: int = 0,
    gradients: int = 300,
    seed: int = 0,
    progress: str = "auto",
) -> Diagnosis:
    """Runs somebody's loop for a while, watches it, and names what is wrong.

        loop = Loop(train_step, {"generator": G, "critic": D}, "vanilla", real=held_out, sample=make_samples)
        print(equilibrist.diagnose(loop, rounds=500))

    The wiring is checked in the first rounds and in the last, numbers in all; then the samples, the average and the
    size of steps are looked at, and the critic is audited on held-out samples. The loop's modules train.

    Args:
        loop: the loop.
        rounds: how many of its rounds are run; some twenty more measure the size of steps.
        fresh: makes the loop anew: with it, whether the loop resumes is checked too (`check_resume`).
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
    critic, generator = _names(loop.players)
    run = Running(loop, rounds, first, critic, seed)
    with showing(progress, "rounds", rounds) as bar:
        run.run(lambda done: bar.update(done, {}), lambda: early_sizes(run, generator, critic))
    found = _of_loop(run, loop, generator, critic, seed)
    skipped: dict[str, str] = {}
    audit = None
    if run.stopped is None:
        others, skipped = after(run, generator, critic)
        found += [f for f in _unopposed(others) if _new(f, found)]
        found += [run.stopped] if run.stopped is not None else []  # in the rounds that it ran
    if fresh is not None and run.stopped is None:
        found += _resumed(fresh, seed, skipped)
    if any(map(is_cause, found)):
        skipped["the critic's state"] = "what is found already explains it: fix that first"
    elif run.stopped is None:
        audit = audit_of(loop, critic, gradients, seed, progress, skipped)
        found += states(audit, critic, _way(run, critic, generator))
        found = _rarely(run, critic, found)
    findings = ordered(with_causes(found))
    return Diagnosis(
        findings, run.done, dict(run.steps), run.early, run.late, audit, run.outcome, skipped
    )


def _of_loop(run: Running, loop: Loop, generator: str, critic: str, seed: int) -> list[Finding]:
    """What was found while the loop ran: wiring, data, rates, numbers."""
    found = [_lasting(f, run.late) for f in run.early.findings]
    late = run.late.findings if run.late else ()
    if any(f.name == "wrong-sign" and f.sure == "certain" for f in found):
        late = ()  # where a game that is turned round has come to
    # A check of the last rounds takes samples that were made before them for altered ones.
    found += [f for f in late if _new(f, found) and not (run.ages.known and f.name in ALTERED)]
    found = without_the_frame(without_echoes(found), loop, generator, seed)
    found += _asleep(run, found)
    if not any(f.name == "rate-rewritten" and f.level != "note" for f in found):
        found += [f for f in ruled(run.rates, critic) if f.level != "note" or _new(f, found)]
    found += [run.stopped] if run.stopped is not None else []
    return found + (run.sizes or (exploded(run) if run.stopped is not None else []))


def _names(players: Mapping[str, object]) -> tuple[str, str]:
    """The critic's name and the generator's."""
    called = {role: name for name, role in roles(tuple(players)).items()}
    if set(called) != {CRITIC, "generator"}:
        raise GameError(
            f"a diagnosis is of a generator and a critic, not of {', '.join(players)}: check_wiring takes others"
        )
    return called[CRITIC], called["generator"]


def _way(run: Running, critic: str, generator: str) -> Way:
    travels = [check.travel for check in (run.early, run.late) if check is not None]
    ratios = (t[critic] / t[generator] for t in travels if t[critic] > 0 and t[generator] > 0)
    return Way(run.outcome, tuple(ratios), run.done, bool(run.loop.penalties), run.ages.old)


def _new(finding: Finding, found: Sequence[Finding]) -> bool:
    return all((f.name, f.where) != (finding.name, finding.where) for f in found)


def _resumed(fresh: Callable[[], Loop], seed: int, skipped: dict[str, str]) -> list[Finding]:
    """What is forgotten at a resumption."""
    try:
        return list(check_resume(fresh, seed=seed).findings)
    except Exception as error:  # the loop's own functions may fail in any way
        skipped["whether it resumes"] = f"{type(error).__name__}: {error}".splitlines()[0]
        return []


def _asleep(run: Running, found: Sequence[Finding]) -> list[Finding]:
    """Players without a step in a whole run, which a few rounds cannot tell from those that begin later."""
    wiring = {"never-stepped", "wrong-optimizer", "stale-parameters"}
    if run.done < WHOLE or any(f.name in wiring and f.level != "note" for f in found):
        return []
    most = max(run.steps.values())
    return [
        Finding(
            "never-stepped",
            name,
            f"The {name} is never stepped in {run.done} rounds, while the other player is stepped {most} times.",
            evidence={"steps": 0, "other_steps": most, "rounds": run.done},
        )
        for name in run.loop.players
        if run.steps[name] == 0 and most >= WHOLE
    ]


def _lasting(finding: Finding, late: Wiring | None) -> Finding:
    """A finding of the first rounds, as a note where the last ones show that it was of a term that opens later."""
    if finding.name not in OPENS or finding.level == "note" or late is None:
        return finding
    still = any((f.name, f.where) == (finding.name, finding.where) for f in late.findings)
    player = next((name for name in late.steps if name in finding.where), "")
    if still or not late.explains(player):
        return finding
    text = f"{finding.text} That was so in the first rounds only."
    return replace(finding, level="note", sure="possible", text=text)


def _unopposed(found: list[Finding]) -> list[Finding]:
    """Narrow samples as a note where the adversarial term leaves the term that would spread them no effect."""
    if not any(f.name == "opposed-terms" and f.level != "note" for f in found):
        return found
    return [replace(f, level="note") if f.name == "collapsed" else f for f in found]


def _rarely(run: Running, critic: str, found: list[Finding]) -> list[Finding]:
    """Narrow samples as a note where the critic lags because it is stepped in few rounds only."""
    lags = any(f.name == "lagging" and f.level == "fault" for f in found)
    if not lags or run.steps[critic] > RARE * run.done:
        return found
    because = f" (the critic is stepped {run.steps[critic]} times in {run.done} rounds, and lags)."
    return [
        replace(f, level="note", text=f.text.rstrip(".") + because) if f.name == "collapsed" else f
        for f in found
    ]
