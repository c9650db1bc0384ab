"""Findings about the critic's penalties: their sign, whether they have a gradient, what their norm is taken over."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import torch

from equilibrist.diagnosis._calls import FAKE, REAL, Norm, wrong_norms
from equilibrist.diagnosis._coefficients import (
    CLEAR,
    LEAST,
    SHARE,
    as_evidence,
    below,
    median,
    share,
    within,
)
from equilibrist.diagnosis._explain import (
    AGAINST,
    MIXED,
    OTHER,
    OWN,
    SWAPPED_FAKE,
    SWAPPED_REAL,
    Explained,
)
from equilibrist.diagnosis._recorder import Recorder
from equilibrist.diagnosis._seen import BEFORE, CRITIC
from equilibrist.findings import Finding

ABSENT = 1e-3  # residual of a step that received nothing besides the loss
FAINT = 1e-3  # of what is received: gradients below are not seen
NOTHING = 2e-4  # of a penalty's coefficient: a smaller weight than declared is no penalty without gradient


def judge_penalties(recorder: Recorder, name: str, steps: list[Explained]) -> list[Finding]:
    """All findings of this kind; `name` is the critic's, `steps` are its own."""
    found = []
    for penalty in recorder.known:
        # Where slopes have vanished, as in a critic whose layers are saturated, a penalty has no gradient to miss.
        paying = [e for e in steps if e.residual < CLEAR and _weighs(e, penalty)]
        if len(paying) < LEAST:
            found += _hidden(recorder, name, penalty, steps)
            continue
        if share(paying, below(penalty, -0.3)) >= SHARE:
            text = (
                f"The penalty ({penalty}) enters with the opposite sign (coefficient "
                f"{median(paying, penalty):.2f} where 1 is "
                "declared): steep slopes are paid for."
            )
            evidence = as_evidence(paying, REAL, FAKE, penalty)
            found.append(Finding("wrong-sign", f"{name}, penalty", text, evidence=evidence))
            continue
        if share(paying, within(penalty, NOTHING)) < SHARE:
            continue
        wrong = _normed(recorder, paying)
        if wrong is not None:
            found.append(wrong)
            continue
        plain = statistics.median(e.residual for e in paying)
        if plain < 0.1 and not any(set(e.totals) - _usual(recorder) for e in paying[-LEAST:]):
            slope = _slope(paying)
            found.append(
                Finding(
                    "constant-penalty",
                    f"{name}, penalty",
                    f"The penalty ({penalty}) is computed and has no gradient: what the {name} "
                    "receives is the unpenalised "
                    f"loss to {plain:.1g} (the penalty's coefficient is {median(paying, penalty):.3f} "
                    "where 1 is declared)"
                    + (f"; slopes are {slope:.3g} now." if math.isfinite(slope) else "."),
                    evidence={**as_evidence(paying, REAL, FAKE, penalty), "slope": slope},
                )
            )
    return found


def _hidden(
    recorder: Recorder, name: str, penalty: str, steps: Sequence[Explained]
) -> list[Finding]:
    """A penalty that is computed inside a transform of torch.func, where nothing of it is seen, and has no effect."""
    inside = [e for e in steps if e.step.transformed and e.residual < ABSENT]
    if len(inside) < LEAST or len(inside) < SHARE * len(steps):
        return []
    plain = statistics.median(e.residual for e in inside)
    text = (
        f"The penalty ({penalty}) is computed by torch.func and has no gradient: what the {name} receives is the "
        f"unpenalised loss to {plain:.1g}. Weights that are detached before functional_call gets them have none."
    )
    evidence = as_evidence(inside, REAL, FAKE)
    return [Finding("constant-penalty", f"{name}, penalty", text, sure="likely", evidence=evidence)]


def _weighs(e: Explained, penalty: str) -> bool:
    """Whether a penalty's gradient would be seen in what was received."""
    problem = e.step.problem
    return problem is not None and any(
        role == penalty and problem.share(name) > FAINT
        for name, (_, role) in e.step.columns.items()
    )


def _usual(recorder: Recorder) -> set[str]:
    return {
        REAL,
        FAKE,
        BEFORE,
        OTHER,
        SWAPPED_FAKE,
        SWAPPED_REAL,
        OWN,
        AGAINST,
        MIXED,
        *recorder.known,
    }


def _slope(steps: Sequence[Explained]) -> float:
    sizes = [c.slopes["norm"].mean() for e in steps for c in e.step.calls if "norm" in c.slopes]
    return float(torch.stack(sizes[-4:]).mean()) if sizes else math.nan


def _normed(recorder: Recorder, steps: Sequence[Explained]) -> Finding | None:
    """The norm over the wrong axes that explains the received gradients, if one does."""
    with_norms = [e for e in steps if set(e.totals) - _usual(recorder)]
    if len(with_norms) < LEAST:
        return None
    names = [n for e in with_norms for n in e.totals if n not in _usual(recorder)]
    best = statistics.mode(names)
    fitting = [e for e in with_norms if abs(e.get(best)) > 0.3 and e.residual < 0.1]
    if len(fitting) < LEAST:
        return None
    shape = next(
        c.samples.shape for e in fitting for c in reversed(e.step.calls) if "norm" in c.slopes
    )
    norm = next((n for n in wrong_norms(recorder.penalties, shape) if n.name == best), None)
    if norm is None:
        return None
    return _norm_finding(recorder, norm, fitting)


def _norm_finding(recorder: Recorder, norm: Norm, fitting: Sequence[Explained]) -> Finding:
    target = next(p.target for p in recorder.penalties if getattr(p, "target", 0))
    name = recorder.sides[CRITIC].name
    return Finding(
        "penalty-norm",
        f"{name}, penalty",
        f"The penalty takes {norm.name}, not one norm for each sample: the {name}'s slopes will settle at about "
        f"{norm.law * target:.3g} where {target:g} is asked for; that is {norm.why}.",
        evidence={
            **as_evidence(fitting, REAL, FAKE, norm.name),
            "expected_slope": norm.law * target,
            "slope": _slope(fitting),
        },
    )
