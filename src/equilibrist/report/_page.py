"""The HTML page. Every text of the record passes through `e` on its way in: it is data."""

import base64
import html
import re
import shlex
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import Any

from . import _charts as charts
from . import _words as words
from ._load import Certificate, Record, Sample, dig
from ._scores import scores

# Nothing may be fetched or run, whatever a record contains. The browser enforces it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_LINK = re.compile(r"https?://[^\s<>\"'`]+[^\s<>\"'`.,;:)\]}]")
_MOST_SAMPLES = 7


def e(value: object) -> str:
    """Escapes a value for text and for attributes."""
    return html.escape(str(value))


def page(record: Record) -> str:
    """The whole report as one HTML document."""
    head = words.headline(record)
    title = record.text("title") or record.text("recipe") or record.name
    parts = [
        _top(record, title),
        _hero(record, head),
        _missing(record),
        _section("trained", "What was trained", _trained(record)),
        _section("samples", "Samples over time", _samples(record)),
        _section("scores", "Scores of the samples", scores(record)) if record.scores else "",
        _section("training", "Losses and gradients", _training(record)),
        _section("verdicts", "The verdicts", _verdicts(record)),
        _section("nash", "The Nash check, step by step", _nash(record)),
        _section("reading", "How to read this", _reading(record)),
        _section("reproduce", "How to reproduce it", _reproduce(record)),
        _section("cite", "How to cite it", _cite(record)),
    ]
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{e(title)}: {e(head.badge)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#verdict">Skip to the verdict</a>\n<div class="page">\n'
        + "\n".join(part for part in parts if part)
        + "\n<footer>Made by equilibrist from the run directory alone. This file holds everything "
        "it shows: it loads nothing and runs nothing.</footer>\n</div>\n</body>\n</html>\n"
    )


def _section(name: str, title: str, body: str) -> str:
    return f'<section id="{name}" aria-labelledby="{name}-title">\n' + (
        f'<h2 id="{name}-title">{e(title)}</h2>\n{body}\n</section>'
    )


def _top(record: Record, title: str) -> str:
    facts = [words.progress(record)]
    seed = record.integer("seed")
    if seed is not None:
        facts.append(f"seed {seed}")
    return (
        f'<div class="top"><span><b>{e(title)}</b></span><span>{e(", ".join(facts))}</span></div>'
    )


def _badge(tone: str, text: str) -> str:
    marks = {words.TONES[verdict]: mark for verdict, mark in words.MARKS.items()}
    mark = marks.get(tone, "\N{EN DASH}")
    return f'<span class="badge {tone}"><span aria-hidden="true">{mark}</span>{e(text)}</span>'


def _hero(record: Record, head: words.Headline) -> str:
    aside = f' <span class="aside">{e(head.aside)}</span>' if head.aside else ""
    detail = "".join(f'<p class="detail">{e(text)}</p>' for text in head.detail)
    certificates = record.audit.certificates if record.audit else []
    rows = "".join(
        f'<li><a href="#claim-{position}"><span>{e(words.claim_short(certificate))}</span>'
        f'<span class="says {words.TONES[certificate.verdict]}">'
        f'<span aria-hidden="true">{words.MARKS[certificate.verdict]}</span> '
        f"{words.BADGES[certificate.verdict]}</span></a></li>"
        for position, certificate in enumerate(certificates)
    )
    reading = '<a href="#reading">What this means, and what it does not</a>' if rows else ""
    overview = f'<ul class="overview" aria-label="All verdicts">{rows}</ul>' if rows else ""
    shown = record.samples[-1] if record.samples else record.real
    if shown is None:
        figure, kind = "", "hero alone"
    else:
        kind = "hero"
        if shown is record.real:
            caption = "The real data; no samples of the generator were saved"
        else:
            caption = f"What the generator makes, at step {words.count(shown.step or 0)}"
            if shown.points is not None and record.real is not None:
                caption += " (real points in grey)"
        figure = _picture(shown, record.real, _window(record), e(caption), caption)
    return (
        f'<main id="verdict" class="{kind}"><div>{_badge(head.tone, head.badge)}'
        f"<h1>{e(head.text)}{aside}</h1>{detail}"
        f"{reading}{overview}</div>{figure}</main>"
    )


def _missing(record: Record) -> str:
    items = [
        f"<li>{e(part.what)}" + (f"<code>{e(part.command)}</code>" if part.command else "")
        for part in words.missing(record)
    ]
    items += [f"<li>{e(note)}" for note in record.notes]
    if not items:
        return ""
    rows = "</li>".join(items)
    return f'<aside class="todo"><h2>What is missing here</h2><ul>{rows}</li></ul></aside>'


# --- what was trained -------------------------------------------------------------------------


def _facts(rows: Iterable[tuple[str, str]], kind: str = "facts") -> str:
    """A list of labels and texts that stacks on a narrow screen."""
    body = "".join(f"<div><dt>{e(name)}</dt><dd>{e(text)}</dd></div>" for name, text in rows)
    return f'<dl class="{kind}">{body}</dl>' if body else ""


def _trained(record: Record) -> str:
    if record.recipe is None:
        return "<p>Not recorded: this run has no recipe.json.</p>"
    game = dig(record.recipe, "description", "game") or {}
    data = dig(record.recipe, "description", "data") or {}
    solver = dig(record.recipe, "description", "solver") or {}
    parts = []
    if record.text("summary"):
        parts.append(f'<p class="lead">{e(record.text("summary"))}</p>')
    if game.get("loss"):
        lines = [e(line) for line in re.split(r";\s+|\n", words.plain(game["loss"]))]
        parts.append(f'<p class="formula">{"<br>".join(lines)}</p>')
    parts.append(_networks(game.get("players") or {}))
    rows: list[tuple[str, str]] = []
    if game.get("formulation"):
        rows.append(("Game", words.plain(game["formulation"])))
    if isinstance(game.get("zero_sum"), bool):
        zero = "Yes: what one player wins, the other loses."
        own = "No: each player has its own loss and minimises it."
        rows.append(("Zero-sum", zero if game["zero_sum"] else own))
    for key, name in (
        ("penalties", "Penalties"),
        ("auxiliary", "Further terms"),
        ("projections", "Constraints"),
    ):
        if game.get(key):
            rows.append((name, words.plain(game[key])))
    if game.get("condition"):
        shown = game["condition"]
        kind = f"{shown} classes" if isinstance(shown, int) else f"shape {words.plain(shown)}"
        rows.append(("Both are shown", kind))
    if isinstance(game.get("spectral_norm"), bool):
        rows.append(("Spectral norm", words.plain(game["spectral_norm"])))
    if game.get("latent") is not None:
        latent = game["latent"]
        unit = " numbers" if isinstance(latent, int) else ""
        rows.append(("Noise input", f"{words.plain(latent)}{unit}"))
    if data:
        rows.append(("Data", _data_words(data)))
    if solver:
        rows.append(("Solver", words.plain(solver.get("text") or solver.get("name"))))
        if solver.get("batch") is not None:
            rows.append(("Batch", words.plain(solver["batch"])))
        for key in ("accumulate", "mixed_precision"):
            if solver.get(key) is not None:
                rows.append((words.label(key), words.plain(solver[key])))
    steps = record.integer("steps")
    if steps is not None:
        reached = "" if record.last_step is None else f"; reached {words.count(record.last_step)}"
        rows.append(("Steps", f"{words.count(steps)} asked for{reached}"))
    if record.seconds is not None:
        rows.append(("Training time", words.duration(record.seconds)))
    parts.append(_facts(rows, "facts pairs"))
    return "\n".join(part for part in parts if part) or "<p>The recipe describes nothing.</p>"


def _data_words(data: dict[str, Any]) -> str:
    parts = [words.plain(data["name"])] if data.get("name") else []
    kind = words.plain(data.get("kind") or "samples")
    parts.append(kind if data.get("size") is None else f"{words.plain(data['size'])} {kind}")
    if data.get("kind") == "points" and isinstance(data.get("shape"), list):
        parts.append(f"in {words.plain(data['shape'])} dimensions")
    elif isinstance(data.get("shape"), list):
        parts.append(
            "each " + " \N{MULTIPLICATION SIGN} ".join(words.plain(side) for side in data["shape"])
        )
    if data.get("source"):
        parts.append(f"from {words.plain(data['source'])}")
    return ", ".join(parts)


def _networks(players: dict[str, Any]) -> str:
    rows = "".join(
        f'<tr><td><span class="swatch {_kind(name)}"></span>{e(words.label(name))}</td>'
        f"<td>{e(words.plain(player.get('class')))}</td>"
        f'<td class="figure" data-name="Parameters">{e(words.plain(player.get("parameters")))}</td>'
        "</tr>"
        for name, player in players.items()
    )
    if not rows:
        return ""
    return (
        '<table><thead><tr><th scope="col">Player</th><th scope="col">Network</th>'
        f'<th scope="col" class="figure">Parameters</th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _kind(player: str) -> str:
    """The CSS class of a player. Names are data, so only known ones become a class."""
    return player if player in ("generator", "critic") else "other"


# --- samples ----------------------------------------------------------------------------------


def _window(record: Record) -> charts.Window:
    clouds = [s.points for s in (record.real, *record.samples) if s and s.points is not None]
    return charts.window(clouds)


def _picture(
    sample: Sample,
    real: Sample | None,
    frame: charts.Window,
    caption: str,
    alt: str,
    kind: str = "",
) -> str:
    """A figure. `caption` is HTML, `alt` is text."""
    if sample.points is not None:
        under = real.points if real and real is not sample else None
        body, outside = charts.scatter(
            sample.points, under, frame, alt, "real" if sample is real else "made"
        )
        if outside:
            caption += f". {e(words.count(outside))} points lie outside the frame."
    else:
        data = base64.b64encode(sample.png or b"").decode("ascii")
        # A grid of small pictures is shown larger than it is: sharp pixels beat a blur.
        small = " pixelated" if sample.width <= 256 else ""
        body = (
            f'<img class="picture{small}" src="data:image/png;base64,{data}" '
            f'width="{sample.width}" height="{sample.height}" alt="{e(alt)}">'
        )
    return f'<figure class="{kind}">{body}<figcaption>{caption}</figcaption></figure>'


def _pick(samples: list[Sample], most: int) -> list[Sample]:
    """At most `most` samples, evenly through time, with the first and the last."""
    if len(samples) <= most:
        return samples
    return [samples[round(i * (len(samples) - 1) / (most - 1))] for i in range(most)]


def _samples(record: Record) -> str:
    shown = _pick(record.samples, _MOST_SAMPLES)
    if not shown and record.real is None:
        return "<p>No samples were saved.</p>"
    frame = _window(record)
    figures = []
    for sample in shown:
        step = words.count(sample.step or 0)
        alt = f"Samples of the generator at step {step}"
        figures.append(_picture(sample, record.real, frame, f"Step <b>{step}</b>", alt))
    if record.real is not None:
        caption = "<b>Real data</b>, for comparison"
        figures.append(_picture(record.real, record.real, frame, caption, "Real data", "truth"))
    notes = []
    if len(shown) < len(record.samples):
        notes.append(f"{len(shown)} of {len(record.samples)} saved pictures are shown.")
    if any(sample.points is not None for sample in shown):
        notes.append(f"All plots show the same square: {frame}. Real points lie in grey beneath.")
    lead = "What the generator makes as training goes on, in order of time."
    if not shown:
        lead = "The generator's samples were not saved; these are the real data."
    note = f'<p class="note gap">{e(" ".join(notes))}</p>' if notes else ""
    return f'<p class="lead">{e(lead)}</p><div class="strip">{"".join(figures)}</div>{note}'


# --- training ---------------------------------------------------------------------------------

_PLAYERS = {"generator": 0, "critic": 1}
_QUANTITIES = {"loss": "loss", "grad_norm": "gradient norm"}


def _training(record: Record) -> str:
    if not record.series:
        return "<p>Nothing was logged: metrics.jsonl is missing or empty.</p>"
    lead = (
        "Each player minimises its own loss. In a game, flat losses are no sign of convergence, "
        "nor are falling ones: both players move. That is why the verdicts below exist."
    )
    figures = list(_training_charts(record, "loss", "grad_norm"))
    rest = [name for name in record.series if name not in _QUANTITIES]
    more = list(_training_charts(record, *rest))[:16]
    extra = ""
    if more:
        extra = (
            '<details class="gap"><summary>Other logged numbers</summary>'
            f'<div class="charts">{"".join(more)}</div></details>'
        )
    return f'<p class="lead">{e(lead)}</p><div class="charts">{"".join(figures)}</div>{extra}'


def _training_charts(record: Record, *quantities: str) -> Iterator[str]:
    for quantity in quantities:
        found = record.series.get(quantity, {})
        for player in sorted(found, key=lambda name: _PLAYERS.get(name, len(_PLAYERS))):
            series = found[player]
            what = _QUANTITIES.get(quantity, words.label(quantity))
            title = words.label(f"{player} {what}".strip())
            final = words.number(float(series.values[-1]))
            alt = f"{title} over {words.count(len(series.steps))} logged steps, last value {final}"
            log = quantity == "grad_norm"
            chart, note = charts.training_chart(series, _kind(player), alt, log)
            yield (
                f'<figure><h4><span class="swatch {_kind(player)}"></span>{e(title)}</h4>{chart}'
                f"<figcaption>Last value {e(final)}. {e(note)}</figcaption></figure>"
            )


# --- verdicts ---------------------------------------------------------------------------------


def _verdicts(record: Record) -> str:
    audit = record.audit
    if audit is None or not audit.certificates:
        command = e(words.audit_command(record))
        return (
            "<p>No audit has been made, so nothing can be said about equilibria. This makes one "
            f"and adds it to this report:</p><pre>{command}</pre>"
        )
    step = "an unknown step" if audit.step is None else f"step {words.count(audit.step)}"
    spent = f" It took {words.duration(audit.seconds)}." if audit.seconds is not None else ""
    lead = (
        f"The audit took the pair as it stood at {step} and tested one claim at a time.{spent} "
        "Each verdict comes with its numbers, its tolerance and its limits."
    )
    cards = "\n".join(_card(certificate, i) for i, certificate in enumerate(audit.certificates))
    return f'<p class="lead">{e(lead)}</p>\n{cards}'


def _card(certificate: Certificate, position: int) -> str:
    tone = words.TONES[certificate.verdict]
    parts = [
        f'<header><div><span class="claim-id">Claim: {e(certificate.claim)}</span>'
        f"<h3>{e(words.claim_title(certificate))}</h3></div>"
        f"{_badge(tone, words.BADGES[certificate.verdict])}</header>"
    ]
    if certificate.summary:
        parts.append(f"<p>{e(certificate.summary)}</p>")
    parts.append(_measure(certificate, tone))
    if certificate.tolerance is not None:
        why = f": {certificate.tolerance.why}" if certificate.tolerance.why else ""
        text = f"{words.tolerance_words(certificate.tolerance)}{why}".rstrip(".") + "."
        parts.append(f'<p class="why"><b>Tolerance</b> {e(text)}</p>')
    meaning = words.claim_meaning(certificate)
    if meaning:
        parts.append(_fold("What this claim means", f"<p>{e(meaning)}</p>"))
    rows = words.evidence_rows(certificate)
    if certificate.witness:
        rows.append(("Witness", f"audit/{certificate.witness}"))
    rows += [(words.label(key), words.plain(value)) for key, value in certificate.scope.items()]
    items = [f"<li>{e(limit[:1].upper() + limit[1:])}</li>" for limit in certificate.limits]
    items += [f"<li>Source: {_linked(text)}</li>" for text in certificate.references]
    if rows or items:
        notes = f"<ul>{''.join(items)}</ul>" if items else ""
        parts.append(_fold("Numbers, scope and limits", _facts(rows, "facts tight") + notes))
    body = "\n".join(part for part in parts if part)
    return f'<article class="card {tone}" id="claim-{position}">\n{body}\n</article>'


def _fold(title: str, body: str) -> str:
    return f"<details><summary>{e(title)}</summary>{body}</details>"


def _measure(certificate: Certificate, tone: str) -> str:
    """The claim's main number, large, beside its interval drawn against the tolerance."""
    for name, text in (
        ("gain", "Gain when it moves alone"),
        ("residual", "Gain that its gradient promises"),
    ):
        value = certificate.number(name)
        if name in certificate.evidence and value is None:
            value = float("nan")  # recorded as null: it was measured and was not finite
        if value is None:
            continue
        interval = certificate.interval
        shown, low, high = words.estimate(value, interval)
        shown = words.with_unit(shown, certificate.unit)
        between = f"{words.interval_name(certificate)} {low} to {high}" if interval else ""
        chart = ""
        if interval is not None:
            limit = certificate.tolerance.value if certificate.tolerance else None
            alt = f"{text} {shown}, {between}; tolerance "
            alt += words.tolerance_words(certificate.tolerance)
            chart = charts.interval_chart(value, interval, limit, tone, alt)
        return (
            f'<div class="measure"><div><span class="name">{text}</span>'
            f'<span class="value">{e(shown)}</span><span class="name">{e(between)}</span></div>'
            f"<div>{chart}</div></div>"
        )
    return ""


# --- the Nash check ---------------------------------------------------------------------------

_WHEN = {
    "before": ("Before", "as training left it"),
    "during": ("During", "the search, critic frozen"),
    "after": ("After", "the chosen deviation"),
}


def _nash(record: Record) -> str:
    certificates = record.audit.certificates if record.audit else []
    searched = [c for c in certificates if c.curves or c.samples]
    if not searched:
        return (
            "<p>No search was recorded. A Nash check freezes one player and trains the other "
            f"alone:</p><pre>{e(words.audit_command(record))}</pre>"
        )
    lead = (
        "One player is frozen and the other trains on alone, from several disturbed starts. At a "
        "Nash equilibrium no curve rises above the tolerance. The best start is chosen on one "
        "part of the data and scored on another, so the scored gain can be smaller than its curve."
    )
    blocks = "".join(_search(c, record) for c in searched)
    return f'<p class="lead">{e(lead)}</p>{blocks}'


def _search(certificate: Certificate, record: Record) -> str:
    player = words.side(certificate)
    frozen = words.other(player)
    gain, between = words.gain_words(certificate)
    title = f"The {player} moves, the {frozen} is frozen" if player else certificate.claim
    parts = [f'<div class="search"><h3>{e(title)}</h3>']
    if certificate.curves:
        limit = certificate.tolerance.value if certificate.tolerance else None
        alt = f"Gain of the {player} over its search from {len(certificate.curves)} starts; "
        alt += f"scored gain {gain} {between}; tolerance "
        alt += words.tolerance_words(certificate.tolerance)
        chart, note = charts.gain_chart(
            certificate.curves, certificate.chosen, limit, _kind(player), alt
        )
        unit = f", in {certificate.unit}" if certificate.unit else ""
        parts.append(_legend(certificate))
        whose = f"the {player}'s" if player else "the"
        caption = (
            f"How far {whose} loss fell{unit}, on the data that selects among starts. "
            f"Scored gain: {gain} {between}".rstrip()
        )
        parts.append(f"<figure>{chart}<figcaption>{e(caption)}. {e(note)}</figcaption></figure>")
    if certificate.samples:
        parts.append(_before_and_after(certificate, record))
    return "\n".join(parts) + "</div>"


def _legend(certificate: Certificate) -> str:
    kind, chosen = _kind(words.side(certificate)), certificate.chosen
    items = []
    picked = [c for c in certificate.curves if chosen is not None and c.start == chosen[0]]
    if chosen is not None and picked:
        curve = picked[0]
        text = f"chosen: start {chosen[0]}"
        if curve.perturbation is not None:
            text += f", disturbed by {words.number(curve.perturbation)}"
        if curve.optimizer and len({c.optimizer for c in certificate.curves}) > 1:
            text += f", {curve.optimizer}"
        if chosen[1] is not None:
            text += f", taken at step {words.number(chosen[1])}"
        items.append(f'<li><i class="{kind}"></i>{e(text)}</li>')
    rest = len(certificate.curves) - len(picked)
    if rest:
        items.append(f"<li><i></i>{rest} other start{'' if rest == 1 else 's'}</li>")
    if certificate.tolerance is not None and certificate.tolerance.value is not None:
        text = f"tolerance, {words.tolerance_words(certificate.tolerance)}"
        items.append(f'<li><i class="dash"></i>{e(text)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _before_and_after(certificate: Certificate, record: Record) -> str:
    frame = _window(record)
    order = [*(w for w in _WHEN if w in certificate.samples)]
    order += [w for w in certificate.samples if w not in _WHEN]
    figures = []
    for when in order:
        name, text = _WHEN.get(when, (words.label(when), ""))
        caption = f"<b>{e(name)}</b>" + (f": {e(text)}" if text else "")
        alt = f"Samples of the generator {when} the search"
        figures.append(_picture(certificate.samples[when], record.real, frame, caption, alt))
    if record.real is not None:
        caption = "<b>Real data</b>, for comparison"
        figures.append(_picture(record.real, record.real, frame, caption, "Real data", "truth"))
    return f'<div class="strip">{"".join(figures)}</div>'


# --- explanations, reproduction, citation -----------------------------------------------------


def _reading(record: Record) -> str:
    meanings = "".join(
        f"<div>{_badge(words.TONES[verdict], words.BADGES[verdict])}<p>{e(text)}</p></div>"
        for verdict, text in words.VERDICT_MEANINGS.items()
    )
    cautions = "".join(f"<div><h4>{e(a)}</h4><p>{e(b)}</p></div>" for a, b in words.CAUTIONS)
    certificates = record.audit.certificates if record.audit else []
    units = [
        words.UNIT_WORDS[unit]
        for unit in words.UNIT_WORDS
        if any(c.unit.split(" ")[0] == unit for c in certificates)
    ]
    note = "".join(f'<p class="note">{e(text)}</p>' for text in units)
    return (
        '<p class="lead">Four verdicts are possible, and none of them is a mark.</p>'
        f'<div class="meanings">{meanings}</div>'
        f'<h3 class="gap">What they do not say</h3><div class="meanings gap">{cautions}</div>{note}'
    )


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested objects as rows of label and text, values exactly as recorded."""
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict) and item:
            yield from _flat(item, f"{name}: ")
        else:
            yield words.label(name), words.exact(item)


def _typed(session: dict[str, Any]) -> dict[str, Any]:
    """The session with its command as it was typed in a shell."""
    command = session.get("command")
    if isinstance(command, list) and command:
        return {**session, "command": shlex.join(map(str, command))}
    return session


def _reproduce(record: Record) -> str:
    parts = []
    command = words.run_command(record)
    if command is None:
        why = "Without recipe.json the exact command is unknown."
        if record.recipe is not None:
            why = "A Python program made this run. Its settings are above, its sessions below."
        parts.append(f"<p>{why} This audits it:</p><pre>{e(words.audit_command(record))}</pre>")
    else:
        parts.append(
            "<p>Every setting, written out. In the folder that holds this run, the command "
            "resumes it; with another --dir it trains afresh.</p>"
            f"<pre>{e(command)}\n{e(words.audit_command(record, settings=True))}</pre>"
        )
    origin = dig(record.recipe, "origin") or {}
    if origin.get("kind") == "file":
        rows = [
            ("Recipe file", words.plain(origin.get("path"))),
            ("SHA-256", words.plain(origin.get("sha256"))),
        ]
        parts.append(f'<div class="gap">{_facts(rows, "facts tight")}</div>')
    parts += _sessions(record)
    audit = record.audit
    if audit is not None:
        rows = [("Checkpoint", audit.checkpoint or "not recorded")]
        rows += [("Its SHA-256", audit.sha256)] if audit.sha256 else []
        rows += [(words.label(f"{k} in"), words.exact(v)) for k, v in audit.dtype.items()]
        rows += list(_flat(audit.settings))
        parts.append(f'<h3 class="gap">The audit</h3>{_facts(rows, "facts tight")}')
    return "\n".join(parts)


def _sessions(record: Record) -> list[str]:
    if not record.sessions:
        return ['<p class="gap">Versions and machine were not recorded.</p>']
    *earlier, last = record.sessions
    title = "The machine" if not earlier else "The machine (last session)"
    parts = [f'<h3 class="gap">{title}</h3>{_facts(_flat(_typed(last)), "facts tight")}']
    for position, session in enumerate(earlier, start=1):
        body = _facts(_flat(_typed(session)), "facts tight")
        parts.append(_fold(f"Session {position} of {len(record.sessions)}", body))
    return parts


def _linked(text: str) -> str:
    """Escaped text whose web addresses are links (nothing is fetched until someone clicks)."""
    parts, end = [], 0
    for match in _LINK.finditer(text):
        parts.append(e(text[end : match.start()]))
        parts.append(f'<a href="{e(match[0])}" rel="noreferrer">{e(match[0])}</a>')
        end = match.end()
    return "".join(parts) + e(text[end:])


def _cite(record: Record) -> str:
    references = (record.recipe or {}).get("references") or []
    if not references:
        return "<p>The recipe names no references.</p>"
    parts = ['<p class="lead">If you use this run, please cite the work that it builds on.</p>']
    for reference in references:
        text = _linked(str(reference.get("text") or ""))
        bibtex = reference.get("bibtex")
        fold = _fold("BibTeX", f"<pre>{e(bibtex)}</pre>") if bibtex else ""
        parts.append(f'<div class="reference"><p>{text}</p>{fold}</div>')
    return "".join(parts)
