"""Does the critic answer best? Trained on, fresh, and freed of its penalty, held against itself on held-out samples."""

from __future__ import annotations

from equilibrist.certificates import Json
from equilibrist.checks import Certificate, Interval, Verdict, decide
from equilibrist.checks.context import student
from equilibrist.critics._case import CriticCase
from equilibrist.critics._train import RATES, Trained

CLAIMS = ("best-response", "best-of-class", "penalty-costs-nothing")
LIMITS = (
    "a search by gradient steps bounds the gain from below: a longer one may find more",
    "critics of the same architecture and feasible set, against these samples",
)
REFERENCES = (
    "Lopez-Paz and Oquab, Revisiting Classifier Two-Sample Tests, ICLR 2017 (fresh critics on held-out samples)",
)


def best(case: CriticCase) -> list[Certificate]:
    """The three certificates."""
    found = [
        _gain(case, CLAIMS[0], "trained on", case.continued, True),
        _gain(case, CLAIMS[1], "fresh", case.retrained, True),
    ]
    if case.unpenalised is not None and case.bounded:
        found.append(_gain(case, CLAIMS[2], "freed of its penalty", case.unpenalised, False))
    else:
        why = (
            "without its penalty this loss has no least value"
            if case.penalised
            else "no penalty was named that could be lifted (penalties=)"
        )
        summary = f"Not assessed: {why}."
        found.append(
            Certificate(CLAIMS[2], Verdict.UNASSESSED, summary, scope=case.scope(), player="critic")
        )
    return found


def _gain(
    case: CriticCase, claim: str, name: str, trained: Trained, penalised: bool
) -> Certificate:
    own, other = case.measured("own"), case.measured(name)
    gains = own.paid - other.paid if penalised else own.plain - other.plain
    gain = student(gains, case.settings.confidence)
    tolerance = case.tolerance
    decision = decide(gain, tolerance.value, finished=trained.finished)
    before, after = (m.paid if penalised else m.plain for m in (own, other))
    evidence: Json = {
        "gain": gain.mean,
        "interval": gain.ends,
        "confidence": case.settings.confidence,
        "unit": case.unit,
        "loss_before": float(before.mean()),
        "loss_after": float(after.mean()),
        "separation": case.separation(name).mean,
        "budget": {
            "starts": len(trained.curves),
            "steps": trained.steps // len(trained.curves),
            "gradients": trained.steps,
        },
        "failed": trained.failed,
        "still_gaining": not trained.finished,
        "curves": _curves(trained),
        "chosen": {"start": 0, "step": min(trained.curves[0], key=lambda e: e[1])[0]},
    }
    return Certificate(
        claim,
        decision.verdict,
        _summary(name, trained, gain, case, decision.verdict),
        evidence,
        tolerance,
        case.scope(),
        LIMITS,
        REFERENCES,
        player="critic",
        witness={"critic": dict(other_state(case, name))}
        if decision.verdict is Verdict.REFUTED
        else None,
    )


def other_state(case: CriticCase, name: str) -> Json:
    """The parameters and buffers of a trained critic."""
    return {k: v.detach().clone() for k, v in case.module(name).state_dict().items()}


def _curves(trained: Trained) -> list[Json]:
    found = []
    for start, curve in enumerate(trained.curves):
        first = curve[0][1]
        found.append(
            {
                "start": start,
                "steps": [step for step, _ in curve],
                "gain": [first - value for _, value in curve],
                "optimizer": f"Adam, one of the step sizes {RATES}",
            }
        )
    return found


_WHO = {
    "trained on": "Trained on, the critic",
    "fresh": "A fresh critic of its class",
    "freed of its penalty": "Without its penalty, a critic of its class",
}


def _summary(
    name: str, trained: Trained, gain: Interval, case: CriticCase, verdict: Verdict
) -> str:
    words, who = gain.in_words(case.unit), _WHO[name]
    spent = f"{trained.steps:,} gradients"
    if verdict is Verdict.REFUTED:
        return f"{who} lowers the loss by {words} on held-out samples ({spent})."
    if verdict is Verdict.NOT_REFUTED:
        return (
            f"{who} gains no more than the tolerance on held-out samples: {words} by {spent}, step sizes "
            f"{' and '.join(f'{rate:g}' for rate in RATES)}."
        )
    if trained.failed == len(trained.curves):
        return f"{who} could not be trained: every run met a loss that is not finite."
    still = "; it was still gaining when its gradients ended" if not trained.finished else ""
    return f"Cannot tell whether {who[:1].lower()}{who[1:]} gains: {words} by {spent}{still}."
