"""Farnia and Ozdaglar 2020: the numbered statements, on numbers, by closed forms and a second time without them."""

from __future__ import annotations

import dataclasses
from functools import partial

from equilibrist.certificates import Json
from equilibrist.papers.model import (
    Claim,
    ClaimOutcome,
    Experiment,
    Measures,
    Records,
    Size,
    Unit,
    Workspace,
)
from equilibrist.papers.sources import FARNIA
from equilibrist.theory.statements import CheckedStatement, Setting, statements

SETTINGS = {
    "plane": Setting(2, 2.0, 0.5, 1.0),
    "line": Setting(1, 1.5, 1.0, 0.5),
    "space": Setting(3, 3.0, 0.25, 2.0),
    "narrow": Setting(2, 0.5, 2.0, 1.0),
}
# Where it stands, what it says, and how the titles of its statements begin.
PLACES = (
    (
        "Section 3.1, equation (7)",
        "With f, (7) minimises the integral of p f(q/p).",
        "Section 3.1, definition",
    ),
    (
        "Proposition 1",
        "If some G realises P, then G with a constant D is a Nash equilibrium.",
        "Proposition 1",
    ),
    (
        "Theorem 1, f-GANs",
        "For s > 1 no f-GAN of the list has a Nash equilibrium.",
        "Theorem 1, f-GAN",
    ),
    (
        "Theorem 1, its condition",
        "t^2 f'' never falls, for all f of Nowozin et al.",
        "Theorem 1, after",
    ),
    (
        "Theorem 1, W2GAN",
        "With a quadratic critic W2GAN has no local Nash equilibrium.",
        "Theorem 1, W2GAN",
    ),
    (
        "Theorem 1, WGAN",
        "In one dimension WGAN has no Nash equilibrium.",
        "Theorem 1, WGAN",
    ),
    (
        "Remark 1",
        "For s < 1 the distance-minimising pair is Nash, for WGAN and W2GAN.",
        "Remark 1",
    ),
    (
        "Proposition 2",
        "Proximal equilibria are the pairs with V(G*, D) <= V(G*, D*) <= V_prox(G, D*).",
        "Definition 1",
    ),
    (
        "Corollary 1",
        "A proximal equilibrium with lambda > 0 is a Stackelberg equilibrium.",
        "Corollary 1",
    ),
    (
        "Proposition 3, figure 3",
        "What is a proximal equilibrium for lambda is one for every smaller lambda.",
        "Proposition 3",
    ),
    (
        "Proposition 4",
        "The gradient of V_prox in the generator is V's own at the answering critic.",
        "Proposition 4, equation",
    ),
    (
        "Proposition 4, its conditions",
        "Its definition of strong convexity.",
        "Proposition 4, its",
    ),
    (
        "Theorem 2",
        "The W2GAN optimum is a 1/(4 eta)-proximal equilibrium if the best critics form a convex set.",
        "Theorem 2",
    ),
    (
        "Theorem 3",
        "Likewise the WGAN optimum, if the transport moves every point at least eta.",
        "Theorem 3",
    ),
)


def units(size: Size) -> tuple[Unit, ...]:
    """A unit a setting; numbers do not depend on the size."""
    if size != "tiny":
        return ()
    return tuple(
        Unit(key, f"all statements at {setting}", 0.5, partial(_check, setting))
        for key, setting in SETTINGS.items()
    )


def _check(setting: Setting, place: Workspace) -> Measures:
    del place
    return {"statements": [_plain(found) for found in statements(setting)]}


def _plain(found: CheckedStatement) -> Json:
    return {
        "title": found.title,
        "verdict": found.verdict,
        "why": found.why,
        "printed": found.printed,
        "numbers": [dataclasses.asdict(number) for number in found.numbers],
    }


def judge(prefix: str, records: Records) -> ClaimOutcome:
    """All settings' statements whose titles begin so, as far as the paper claims them."""
    found = [
        one
        for record in records.values()
        for one in record.measures.get("statements", ())
        if one["title"].startswith(prefix) and one["printed"]
    ]
    if not found:
        return ClaimOutcome("not tried", "no statement was evaluated")
    count = f"{len(found)} statements at {len(records)} settings of d, s, eta and t"
    verdicts = {one["verdict"] for one in found}
    wrong = [one for one in found if one["verdict"] in ("fails", "numbers disagree")]
    if "numbers disagree" in verdicts:
        return ClaimOutcome(
            "undecided", f"closed form and search disagree: {wrong[0]['why']}".rstrip(".")
        )
    if not wrong:
        beyond = sum(one["verdict"] != "holds" for one in found)
        extra = f"; {beyond} although the condition given for it fails" if beyond else ""
        return ClaimOutcome("holds", f"{count}, closed form and search agree{extra}")
    word = "does not hold" if len(wrong) == len(found) else "holds in part"
    return ClaimOutcome(word, f"{len(wrong)} of {count} fail: {wrong[0]['why']}".rstrip("."))  # type: ignore[arg-type]


STATEMENTS = Experiment(
    "farnia-statements",
    "The theorems on numbers",
    FARNIA,
    tuple(
        Claim(
            place,
            text,
            "every number by a closed form and again by quadrature or search; holds: at every setting; in part: at "
            "some",
            partial(judge, prefix),
        )
        for place, text, prefix in PLACES
    ),
    units,
    {"tiny": "`equilibrist theory` prints every number and draws them."},
)
