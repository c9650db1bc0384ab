"""The audit of a critic alone: arguments, the questions in their order, the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from equilibrist.certificates import STATES, Json
from equilibrist.checks import Certificate, Verdict, require_place
from equilibrist.checks.context import Meter
from equilibrist.core.full_precision import full_float32
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.critics._case import CriticCase
from equilibrist.critics._groups import Columns
from equilibrist.critics._prepare import (
    check_mode,
    checked_settings,
    copied_critic,
    heads_and_noise,
    parsed_loss,
    read_kinds,
)
from equilibrist.critics._result import CriticAudit
from equilibrist.critics._reward import Reward
from equilibrist.critics._samples import split_samples
from equilibrist.critics.best import best
from equilibrist.critics.blind import blind
from equilibrist.critics.held_back import held_back, lags, nearness
from equilibrist.critics.informative import informative
from equilibrist.critics.judge import CriticLoss, CriticPenalty, Judge, takes_two
from equilibrist.critics.memorising import memorising
from equilibrist.critics.saturated import saturated
from equilibrist.critics.telling import telling
from equilibrist.files.owned import require_free
from equilibrist.formulations import Formulation
from equilibrist.nn import torch_spectral_norm
from equilibrist.nn.wrapped import unwrapped
from equilibrist.progress import showing
from equilibrist.projections import Projection
from equilibrist.run import environment
from equilibrist.run.requirements import require_seed

CLAIMS = (*STATES, "best-response", "best-of-class", "penalty-costs-nothing", "indistinguishable")


# Many parameters, for users hold their critics and samples in many forms; all but four are passed by name. Most lines
# of the function are their documentation.
@usual_errors
def audit_critic(
    critic: nn.Module,
    real: object,
    fake: object,
    loss: Formulation | str | Callable[..., Tensor],
    *,
    penalties: Sequence[CriticPenalty] = (),
    reward: Callable[..., object] | None = None,
    score: Callable[..., object] | None = None,
    train_real: object = None,
    train_fake: object = None,
    fresh: Callable[[], nn.Module] | None = None,
    columns: Columns | None = None,
    projections: Sequence[Projection] = (),
    pack: int = 1,
    mode: str = "eval",
    gradients: int = 2000,
    batch: int = 64,
    confidence: float = 0.95,
    tolerance: float = 0.02,
    absolute: float = 0.0,
    limit: int = 10_000,
    seed: int = 0,
    progress: str = "auto",
    out: Path | str | None = None,
) -> CriticAudit:
    """Audit a critic whose generator is out of reach: a policy, a simulator, a frozen model, recorded samples.

    The critic is copied, never touched. Critics are trained on half of the samples, chosen on a fifth and scored on
    the rest; checks of the critic as it stands need no training and read all of them.

    Args:
        critic: the module. It returns one score a sample, [n] or [n, 1]; a map of scores [n, 1, h, w], of which the
            loss and the score are means; a tuple whose first entry is that; or a list of heads.
        real, fake: samples that the critic was not trained on: tensors or arrays [N, ...], tables, Datasets or
            loaders. As tuples (x, y) they are shown to a critic whose `forward` takes two arguments.
        loss: what the critic minimises: a formulation or its name ("vanilla", "wgan", "hinge", "least-squares",
            "relativistic"), or a function `loss(critic, real, fake)` that returns one number, penalties included
            or not.
        penalties: what is added to it: `GradientPenalty()`, `R1()`, or functions `penalty(critic, real, fake)`.
            Only a penalty that is named here can be lifted.
        reward: what the generator receives: `reward(scores)` or `reward(critic, samples)`. Without it, minus the
            generator's loss of the formulation; of a loss of your own, the score. Samples come as the loss gets them.
        score: maps the critic's output to one score a sample, where it is something else.
        train_real, train_fake: samples that the critic was trained on, to judge whether it memorises them.
        fresh: returns an untrained critic of the class; without it a copy's parameters are drawn again.
        columns: names of the input's entries, or a mapping from a group's name to its entries.
        projections: the critic's feasible set (`WeightClipping()`).
        pack: rows that the critic judges at once.
        mode: "eval" or "train": the mode of the critic's layers.
        gradients: minibatch gradients that all trainings may spend together.
        batch: samples of each kind in a minibatch.
        confidence: of the intervals; those of the states hold together at this confidence.
        tolerance: the gain up to which counts as none, relative to the formulation's scale (of a loss of your own: to
            the critic's advantage over chance); `absolute` gives it in the loss's unit.
        limit: at most this many samples of each kind are read.
        seed: of every draw.
        progress: "auto", "bar", "lines" or "none".
        out: a folder to write audit.json, the witnesses and the page report.html to.

    Returns:
        The audit: a mapping from claims to certificates, with `states`, `columns` and `rows`.

    Raises:
        GameError: a critic, loss, penalty or reward that does not fit.
        DataError: samples that cannot be read, too few of them, or of several shapes.
        RecipeError: a setting out of its range.
        RecordError: files of others where the audit would be written.

    Examples:
        >>> import torch
        >>> from equilibrist import audit_critic
        >>> _ = torch.manual_seed(0)
        >>> real, fake = torch.randn(600, 2), torch.randn(600, 2) + torch.tensor([1.0, 0.0])
        >>> critic = torch.nn.Linear(2, 1)  # not trained at all
        >>> audit = audit_critic(critic, real, fake, "vanilla", gradients=400, progress="none")
        >>> audit["best-response"].verdict.value
        'REFUTED'
    """
    begun = time.monotonic()
    seed = require_seed(seed)
    settings = checked_settings(gradients, batch, confidence, tolerance, absolute)
    check_mode(mode, pack)
    if out is not None:
        require_place(Path(out))
        require_free(Path(out), "report.html", "report.json")
    module, normalised, half = copied_critic(critic, mode)
    formulation, own = parsed_loss(loss)
    given = {"real": real, "fake": fake, "train_real": train_real, "train_fake": train_fake}
    with torch_spectral_norm.by_itself(module):
        held, notes = read_kinds(module, given, limit, pack)
        judge = Judge(score, pack, takes_two(module) and held["real"].batch.y is not None)
        heads, noisy = heads_and_noise(judge, module, held["fake"].batch)
        with showing(progress, "critic", gradients) as bar, full_float32():

            def shown(gradients: float = 1.0) -> None:
                bar.update(round(meter.spent), {})

            meter = Meter(shown)
            case = CriticCase(
                module,
                CriticLoss(judge, formulation, own, penalties, heads),
                split_samples(held, seed),
                settings,
                seed,
                reward=reward,
                fresh=fresh,
                projections=projections,
                columns=columns,
                meter=meter,
                noisy=noisy,
                normalised=normalised,
            )
            certificates = _certificates(case)
    notes += [half] * bool(half)
    about = _about(critic, case, mode, out is not None)
    found = _answer(case, certificates, about, notes, time.monotonic() - begun)
    if out is not None:
        from equilibrist.report import write_report  # pages are made on demand

        found.save(Path(out))
        write_report(Path(out))
    return found


def _certificates(case: CriticCase) -> list[Certificate]:
    """All certificates, in the order in which they are shown."""
    rewarded = Reward(case)
    near = nearness(case)
    learnt, unseen = memorising(case), blind(case, lags(near))
    explained = next(
        (
            state
            for c, state in ((learnt, "memorising"), (unseen, "blind to part of the input"))
            if c.verdict is Verdict.REFUTED
        ),
        "",
    )
    return [
        saturated(case, rewarded),
        *held_back(case, near, explained),
        unseen,
        learnt,
        informative(case, rewarded),
        *best(case),
        telling(case),
    ]


def _answer(
    case: CriticCase,
    certificates: Sequence[Certificate],
    about: Json,
    notes: Sequence[str],
    seconds: float,
) -> CriticAudit:
    """The audit with what it cost and what has to be noted."""
    kept = [
        f"the parameters {', '.join(case.kept[:3])} of the critic have no rule to draw them again and kept their "
        "trained values in fresh critics: pass fresh=, which makes an untrained critic"
    ] * bool(case.kept)
    cost = {
        "gradients": case.meter.spent,
        "planned": float(case.settings.gradients),
        "seconds": round(seconds, 2),
    }
    return CriticAudit(
        tuple(certificates),
        case.settings,
        seconds,
        about,
        precision=str(case.dtype).removeprefix("torch."),
        work={"critics": cost},
        notes=(*notes, *kept),
    )


def _about(critic: nn.Module, case: CriticCase, mode: str, session: bool) -> Json:
    formulation = case.objective.formulation
    count = sum(p.numel() for p in case.critic.parameters())
    name = type(unwrapped(critic)).__name__
    loss = "a loss of the user's own" if formulation is None else str(formulation)
    real, fake = case.samples.real, case.samples.fake
    about: Json = {
        "pair": {"critic": name},
        "mode": mode,
        "seed": case.seed,
        "game": {
            "formulation": loss,
            "loss": loss if formulation is None else formulation.formula,
            "players": {"critic": {"class": name, "parameters": count}},
            "penalties": [repr(p)[:200] for p in case.objective.penalties],
        },
        "data": {
            "name": "real and generated samples",
            "kind": "samples",
            "size": len(real),
            "shape": list(real.batch.x.shape[1:]),
            "source": f"{real.origin}; {len(fake)} generated ones: {fake.origin}",
        },
    }
    if session:
        about["session"] = environment.environment(case.device, 0)
    return about
