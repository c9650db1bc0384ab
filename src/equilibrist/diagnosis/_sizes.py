"""Whether the steps of a loop overshoot: its own rounds, each step's losses before and after."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from equilibrist.diagnosis._running import Running
from equilibrist.diagnosis.step_size import check_step_size
from equilibrist.findings import Finding
from equilibrist.formulations import formulation_of
from equilibrist.formulations.named import is_formulation
from equilibrist.interop.origin import tensors_of

LARGE = 50.0  # size of scores that no loss of one unit slope needs
GROWN = 100.0  # times
ROUND = 0.08  # of the weights' norm, travelled in each of the first steps: after a dozen nothing of them is left
FAR = 0.15  # of the weights' norm, travelled in the first rounds
STEPS = 20  # rounds in which the size of steps is measured
CONFIDENCE = 0.95


def step_sizes(run: Running, generator: str, critic: str) -> list[Finding]:
    """Whether steps overshoot, in rounds of their own: STEPS further ones of the loop."""
    loop = run.loop
    g, d = loop.players[generator], loop.players[critic]
    named = isinstance(loop.loss, str) or is_formulation(loop.loss)
    if not (named and isinstance(g, nn.Module) and isinstance(d, nn.Module)):
        return []
    formulation = formulation_of(loop.loss)  # type: ignore[arg-type]
    real = (run.late or run.early).real_given
    if real is None or not run.given[generator]:
        return []
    z = tuple(a.detach() if isinstance(a, Tensor) else a for a in run.given[generator][-1])
    rest = real[1:]

    def score(x: Tensor) -> Tensor:
        return next(tensors_of(d(x, *rest)))

    def loss(player: str) -> Callable[[], Tensor]:
        def value() -> Tensor:
            fake = next(tensors_of(g(*z)))
            return formulation.losses(_Plain(score), real[0], fake, only=player)[player]

        return value

    losses = {critic: loss("critic"), generator: loss("generator")}
    players = {critic: d, generator: g}
    return list(
        check_step_size(
            lambda _: run.one(),
            players,
            losses,
            rounds=STEPS,
            confidence=CONFIDENCE,
            seed=run.seed,
        )
    )


def exploded(run: Running) -> list[Finding]:
    """Scores that grew beyond all measure after steps that were large from the beginning."""
    before = max(run.early.first_size, 1e-3)
    now = run.late.score_size if run.late is not None else run.early.largest
    name, travel = max(run.early.travel.items(), key=lambda item: item[1])
    steps = run.early.steps[name]
    moved = f"in its first {steps} steps the {name} moved by {travel:.0%} of its weights' norm"
    if run.late is None and not (run.stopped is not None and now > GROWN * before):
        return []
    if run.stopped is not None and run.stopped.evidence.get("round") == 0:
        return []  # what is not finite before any step has been taken is not so because of steps
    if run.late is None:
        text = f"The critic's scores grew from {before:.2g} to {now:.2g} before a value was not finite."
    elif steps and travel > ROUND * steps:
        text = f"The {name}'s steps are as large as its weights: {moved}."
    elif now > LARGE and now > GROWN * before and travel > FAR:
        text = f"The critic's scores grew from {before:.2g} to {now:.2g} in {run.done} rounds; {moved}."
    else:
        return []
    evidence = {"before": before, "now": now, "travel": travel, "steps": steps}
    cure = f"lower the {name}'s learning rate, to a tenth of it first"
    return [Finding("step-too-large", name, text, "fault", "likely", evidence, cure)]


class _Plain:
    """A critic as formulations see it."""

    samplewise = False

    def __init__(self, score: Callable[[Tensor], Tensor]) -> None:
        self._score = score

    def __call__(self, x: Tensor) -> Tensor:
        return self._score(x)
