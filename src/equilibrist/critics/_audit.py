"""The audit of a critic alone: arguments, the questions in their order, the answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equilibrist.certificates import STATES, Json
from equilibrist.checks import Certificate, Verdict, require_place
from equilibrist.core.numpy_errors import usual_errors
from equilibrist.critics import _samples
from equilibrist.critics._case import Case
from equilibrist.critics._result import CriticAudit, CriticSettings
from equilibrist.critics._reward import Reward
from equilibrist.critics.best import best
from equilibrist.critics.blind import blind
from equilibrist.critics.held_back import held_back, lags, nearness
from equilibrist.critics.informative import informative
from equilibrist.critics.judge import CriticLoss, Judge, takes_two
from equilibrist.critics.memorising import memorising
from equilibrist.critics.saturated import saturated
from equilibrist.critics.telling import telling
from equilibrist.errors import DataError, GameError, RecipeError
from equilibrist.files.owned import require_free
from equilibrist.formulations import Formulation, formulation_of
from equilibrist.formulations.named import is_formulation
from equilibrist.nn import torch_spectral_norm
from equilibrist.nn.noise import GLOBAL, drawn_since, seeded, states
from equilibrist.nn.wrapped import unwrapped
from equilibrist.progress import showing
from equilibrist.run import environment
from equilibrist.run.requirements import require_seed

NATURAL = 0.1  # of rows that another is equal to: of discrete data
LEAST_GRADIENTS = 100
CLAIMS = (*STATES, "best-response", "best-of-class", "penalty-costs-nothing", "indistinguishable")


# Longer than other signatures for what users may have: every argument after the fourth is a name.
@usual_errors
def audit_critic(
    critic: nn.Module,
    real: object,
    fake: object,
    loss: Formulation | str | Callable[..., Tensor],
    *,
    penalties: Sequence[Any] = (),
    reward: Callable[..., object] | None = None,
    score: Callable[..., object] | None = None,
    train_real: object = None,
    train_fake: object = None,
    fresh: Callable[[], nn.Module] | None = None,
    columns: Sequence[str] | Mapping[str, object] | None = None,
    projections: Sequence[Any] = (),
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
    the rest; what is said of the critic as it is needs no training and reads all of them.

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
        reward: what the generator is paid: `reward(scores)` or `reward(critic, samples)`. Without it, minus the
            generator's loss of the formulation; of a loss of your own, the score. Samples come as the loss gets them.
        score: makes of the critic's output one score a sample, where it is something else.
        train_real, train_fake: samples that the critic was trained on, to judge whether it memorises them.
        fresh: returns an untrained critic of the class; without it a copy's parameters are drawn anew.
        columns: names of the input's entries, or a mapping from a group's name to its entries.
        projections: the critic's feasible set (`WeightClipping()`).
        pack: rows that the critic judges at once.
        mode: "eval" or "train": the mode of the critic's layers.
        gradients: minibatch gradients that all trainings may spend together.
        batch: samples of each kind in a minibatch.
        confidence: of the intervals; those of the states hold together at this confidence.
        tolerance: what gain is called nothing, relative to the formulation's scale (of a loss of your own: to
            the critic's advantage over chance); `absolute` says it in the loss's unit.
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
    settings = _settings(gradients, batch, confidence, tolerance, absolute)
    if mode not in ("eval", "train"):
        raise RecipeError(f"mode={mode!r}: it must be 'eval' or 'train'")
    if not isinstance(pack, int) or pack < 1:
        raise RecipeError(f"pack={pack!r}: it must be a whole number of at least 1")
    if out is not None:
        require_place(Path(out))
        require_free(Path(out), "report.html", "report.json")
    module, normalised, half = _copied(critic, mode)
    formulation, own = _of_loss(loss)
    with torch_spectral_norm.by_itself(module):
        held, notes = _read(module, real, fake, train_real, train_fake, limit=limit, pack=pack)
        conditional = takes_two(module) and held["real"].batch.y is not None
        judge = Judge(score, pack, conditional)
        heads, noisy = _probe(judge, module, held["fake"].batch)
        objective = CriticLoss(judge, formulation, own, penalties, heads)
        with showing(progress, "critic", gradients) as bar:
            spent = [0.0]

            def meter(gradients: float) -> None:
                spent[0] += gradients
                bar.update(round(spent[0]), {})

            case = Case(
                module,
                objective,
                **_split(held, seed),
                reward=reward,
                fresh=fresh,
                projections=projections,
                seed=seed,
                batch=batch,
                gradients=gradients,
                confidence=confidence,
                share=tolerance,
                absolute=absolute,
                columns=columns,
                meter=meter,
                noisy=noisy,
                normalised=normalised,
            )
            certificates = _asked(case)
    notes += [half] * bool(half)
    notes += [
        f"the parameters {', '.join(case.kept[:3])} of the critic have no rule to draw them anew and kept their "
        "trained values in fresh critics: pass fresh=, which makes an untrained critic"
    ] * bool(case.kept)
    found = CriticAudit(
        tuple(certificates),
        settings,
        time.monotonic() - begun,
        _about(critic, case, mode, out is not None),
        precision=str(case.dtype).removeprefix("torch."),
        work={
            "critics": {
                "gradients": spent[0],
                "planned": float(gradients),
                "seconds": round(time.monotonic() - begun, 2),
            }
        },
        notes=tuple(notes),
    )
    if out is not None:
        from equilibrist.report import write_report  # pages are made on demand

        found.save(Path(out))
        write_report(Path(out))
    return found


def _split(held: Mapping[str, _samples.Samples], seed: int) -> Json:
    """The samples of a `Case`, and their parts."""
    real, fake = held["real"], held["fake"]
    split = zip(*(_samples.parts(held[k], k, seed) for k in ("real", "fake")), strict=True)
    indices = dict(zip(("optimise", "select", "score"), split, strict=True))
    return {
        "real": real,
        "fake": fake,
        "train_real": held.get("train_real"),
        "train_fake": held.get("train_fake"),
        "indices": indices,
        "parts": {n: (real.batch.rows(a), fake.batch.rows(b)) for n, (a, b) in indices.items()},
    }


def _asked(case: Case) -> list[Certificate]:
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


def _settings(
    gradients: int, batch: int, confidence: float, tolerance: float, absolute: float
) -> CriticSettings:
    if not isinstance(gradients, int) or gradients < LEAST_GRADIENTS:
        raise RecipeError(
            f"gradients={gradients!r}: it must be a whole number of at least {LEAST_GRADIENTS}"
        )
    return CriticSettings(
        batch=batch,
        confidence=confidence,
        tolerance=tolerance,
        absolute=absolute,
        gradients=gradients,
    )


def _copied(critic: object, mode: str) -> tuple[nn.Module, bool, str]:
    """A copy to look at and to train: unwrapped, in single precision at least, spectral norms exact; whether it has
    any; and a note on its precision."""
    if not isinstance(critic, nn.Module):
        kind = type(critic).__name__
        raise GameError(
            f"critic={kind}: pass an nn.Module (wrap a function in one, with its weights)"
        )
    made = torch_spectral_norm.foreign(critic, "critic", by_game=False)
    module = made.module
    for name, p in module.named_parameters():
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise GameError(
                f"the critic's {name} has no shape yet (a lazy layer): run it once on a batch"
            )
    floats = [p for p in module.parameters() if p.is_floating_point()]
    if not floats:
        raise GameError("the critic has no parameters: there is nothing that a search could train")
    note = torch_spectral_norm.half_note("critic", made.half)
    return module.train(mode == "train"), bool(made.spectral), note


def _of_loss(loss: Any) -> tuple[Formulation | None, Callable[..., Tensor] | None]:
    """(formulation, None) or (None, the user's own loss)."""
    if isinstance(loss, str) or is_formulation(loss) or isinstance(loss, type):
        return formulation_of(loss), None
    if callable(loss):
        return None, loss
    raise GameError(
        f"loss={type(loss).__name__}: pass a formulation, its name, or a function loss(critic, real, fake)"
    )


def _read(
    module: nn.Module,
    real: object,
    fake: object,
    train_real: object,
    train_fake: object,
    limit: int,
    pack: int,
) -> tuple[dict[str, _samples.Samples], list[str]]:
    """All samples by kind, and notes on those that were left out."""
    first = next(p for p in module.parameters() if p.is_floating_point())
    whole = any(isinstance(m, nn.Embedding | nn.EmbeddingBag) for m in module.modules())
    held, notes = {}, []
    given = {"real": real, "fake": fake, "train_real": train_real, "train_fake": train_fake}
    for kind, data in given.items():
        if data is None and kind in ("real", "fake"):
            raise DataError(f"{kind}: no samples were given")
        if data is not None:
            least = (_samples.LEAST if kind in ("real", "fake") else 2) * pack
            held[kind] = _samples.read_samples(
                kind, data, limit, least, first.dtype, first.device, whole
            )
            _samples.same_shape(held["real"], held[kind], kind)
    for kind, own in (("real", "train_real"), ("fake", "train_fake")):
        if own not in held:
            continue
        left, count = _samples.without(held[kind], held[own])
        if count and _samples.repeats(held[own]) > NATURAL:
            notes.append(
                f"{count} of the {kind} samples equal one of {own}, as rows of {own} equal one another: they were kept"
            )
        elif count:
            held[kind] = left
            notes.append(
                f"{count} of the {kind} samples are among {own}, and were left out of {kind}"
            )
            if len(left) < _samples.LEAST * pack:
                raise DataError(
                    f"{kind}: {len(left)} samples are left without those of {own}: give held-out ones"
                )
    return {kind: _samples.packed(samples, pack) for kind, samples in held.items()}, notes


def _probe(judge: Judge, module: nn.Module, batch: _samples.Inputs) -> tuple[int, bool]:
    """How many heads the critic has, and whether it draws random numbers.

    Raises:
        GameError: it cannot be run, is not finite, or answers otherwise under the same seed.
    """
    few = batch.rows(slice(16))
    try:
        with torch.no_grad():
            with seeded(0, GLOBAL):
                before = states()
                first = judge.heads(module, few)
                noisy = bool(drawn_since(before))
            with seeded(0, GLOBAL):
                second = judge.heads(module, few)
    except GameError:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [""])[0][:200]
        hint = (
            " (it takes two arguments: give real and fake as tuples (x, y))"
            if takes_two(module) and not judge.conditional
            else ""
        )
        if judge.pack > 1:
            hint = f" (it is shown rows, {judge.pack} to a pack: let it reshape them, as its loop does)"
        shape = list(judge.spread(few.x).shape)
        raise GameError(
            f"the critic cannot be run on samples {shape}: {type(error).__name__}: {said}{hint}"
        ) from error
    if not all(bool(torch.isfinite(head).all()) for head in first):
        raise GameError(
            "the critic's scores of the generated samples are not finite: look at its weights"
        )
    if not all(torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise GameError(
            "the critic gives two answers to the same samples: look for state kept between calls, or a random "
            "generator of its own (pass mode='eval')"
        )
    return len(first), noisy


def _about(critic: nn.Module, case: Case, mode: str, session: bool) -> Json:
    formulation = case.objective.formulation
    count = sum(p.numel() for p in case.critic.parameters())
    name = type(unwrapped(critic)).__name__
    loss = "a loss of the user's own" if formulation is None else str(formulation)
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
            "size": len(case.real),
            "shape": list(case.real.batch.x.shape[1:]),
            "source": f"{case.real.origin}; {len(case.fake)} generated ones: {case.fake.origin}",
        },
    }
    if session:
        about["session"] = environment.environment(case.device, 0)
    return about
