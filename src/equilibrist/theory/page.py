"""The page of `equilibrist theory`: the paper's statements on chosen numbers, with pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from equilibrist.files.owned import publish
from equilibrist.report.formatting import format_number
from equilibrist.report.shell import document, escape, table
from equilibrist.theory import pictures
from equilibrist.theory.statements import CheckedStatement, Setting

_TONE = {
    "holds": "verified",
    "holds although its condition fails": "open",
    "fails": "refuted",
    "numbers disagree": "unknown",
}

_PLURAL = {
    "holds": "hold",
    "holds although its condition fails": "holds although its condition fails",
    "fails": "fail",
    "numbers disagree": "with numbers that disagree",
}


def write_theory(setting: Setting, found: Sequence[CheckedStatement], path: Path) -> Path:
    """The page as one self-contained HTML file; an earlier one is replaced, a user's file never."""
    publish(path.parent, {path.name: theory_html(setting, found).encode()})
    return path


def theory_html(setting: Setting, found: Sequence[CheckedStatement]) -> str:
    """The page as one HTML document."""
    wide = setting.wide
    at = f"d = {setting.d}, s = {setting.s:g}, eta = {setting.eta:g}, t = {setting.t:g}"
    other = wide.s if setting.s < 1 else setting.narrow.s
    theorem = "Theorem 1" if setting.s < 1 else "Remark 1"
    parts = [
        '<div class="top"><span><b>equilibrist theory</b></span></div>',
        '<main class="head"><h1>Do GANs always have Nash equilibria?</h1>'
        f"<p>The statements of Farnia and Ozdaglar (2020) at {escape(at)} ({theorem} at s = {other:g}): data "
        "N(0, s²I), generator Wz + u. Each number is computed twice, by a closed form and from the "
        "definition.</p>"
        f'<p class="lead">{escape(_count(found))}</p></main>',
        _overview(found),
        f'<section><h2>Pictures</h2><div class="charts">{"".join(_figures(setting))}</div></section>',
        f"<section><h2>Figure 3: nested proximal equilibria</h2>{pictures.nested(setting)}"
        f"<figcaption>{escape(_NESTED)}</figcaption></section>",
        "<section><h2>The statements</h2>" + "".join(map(_card, found)) + "</section>",
        f"<section><h2>Reference</h2><p>{escape(_REFERENCE)}</p></section>",
    ]
    return document("Do GANs always have Nash equilibria? On numbers", parts)


_NESTED = (
    "Bars: the values of lambda for which the distance-minimising pair of the W2GAN is a proximal equilibrium, from "
    "0 (every such pair) to lambda* = s / (4 eta (s - 1)), on a logarithmic scale. Dashed: the bound of Theorem 2. "
    "For s < 1 (Remark 1) the pair is Nash, and a proximal equilibrium for every lambda."
)
_REFERENCE = (
    "F. Farnia and A. Ozdaglar. Do GANs always have Nash equilibria? International Conference on Machine "
    "Learning, 2020."
)


def _count(found: Sequence[CheckedStatement]) -> str:
    words = []
    for verdict in _TONE:
        if count := sum(x.verdict == verdict for x in found):
            words.append(f"{count} {_PLURAL[verdict]}")
    unclaimed = sum(not x.printed for x in found)
    return (
        f"{len(found)} statements: {', '.join(words)}. {unclaimed} of them are not claimed by the "
        "paper: they show what a hypothesis is for, or go beyond it."
    )


def _overview(found: Sequence[CheckedStatement]) -> str:
    rows = "".join(
        f'<li><a class="{_TONE[x.verdict]}" href="#{x.key}"><span>{escape(x.title)}</span>'
        f'<span class="says">{escape(x.verdict)}</span></a></li>'
        for x in found
    )
    return f'<ul class="overview">{rows}</ul>'


def _figures(setting: Setting) -> list[str]:
    wide = setting.wide
    drawn = [
        (
            "Theorem 1: the deviation",
            pictures.deviations(setting),
            f"What a shift gains the generator against the optimal critic, as a share of V*, at s = {wide.s:g}. "
            "Above 0: the pair is not Nash.",
        ),
        (
            "Theorem 1: its condition",
            pictures.conditions(),
            "t² f''(t), scaled to 1 at t = 1. Neyman's falls, and the theorem's conclusion holds all the same.",
        ),
        (
            "Theorem 1: the values, W2GAN",
            pictures.values_chart(setting),
            f"A Nash equilibrium would make the two equal; they are equal at t = 0 only. Here s = {wide.s:g}.",
        ),
        (
            "V_prox along the shift, W2GAN",
            pictures.prox_along_shift(setting),
            f"V_prox(I, u; D*) less V*, at s = {wide.s:g}. Up to lambda* the least is at u = 0.",
        ),
        (
            "Theorem 2: the profile, W2GAN",
            pictures.profile_chart(setting),
            f"What the generator gains on V_prox. Theorem 2 promises 0 up to 1/(4 eta) = "
            f"{format_number(wide.theorem_2)}; it is 0 up to lambda* = {format_number(wide.lambda_star)}.",
        ),
        (
            "Theorem 3: the profile, WGAN, d = 1",
            pictures.profile_wgan_chart(setting),
            "Positive for every lambda > 0: in Theorem 1's setting the transport leaves a point in place, and no "
            "lambda makes the pair a proximal equilibrium.",
        ),
    ]
    return [
        f"<figure><h3>{escape(title)}</h3>{chart}<figcaption>{escape(caption)}</figcaption></figure>"
        for title, chart, caption in drawn
    ]


def _card(x: CheckedStatement) -> str:
    rows = [
        (
            n.name,
            n.how,
            _plain(n.closed),
            "not computed" if n.checked is None else _plain(n.checked),
        )
        for n in x.numbers
    ]
    head = ["Number", "Independently by", "Closed form", "Independent"]
    aside = "" if x.printed else '<p class="small">Not claimed by the paper.</p>'
    return (
        f'<article class="card {_TONE[x.verdict]}" id="{x.key}"><header><div><h3>{escape(x.title)}</h3></div>'
        f'<span class="badge">{escape(x.verdict)}</span></header>{aside}<p>{escape(x.claim)}</p>'
        f'<p class="small">{escape(x.at)}</p>{table(head, rows, (2, 3))}<p class="why">{escape(x.why)}</p></article>'
    )


def _plain(value: float) -> str:
    if abs(value) < 1e-12:
        return "0"
    if abs(value) == float("inf"):
        return "infinite"
    return f"{value:.8g}".replace("-", "\N{MINUS SIGN}")
