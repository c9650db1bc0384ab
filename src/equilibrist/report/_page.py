"""The HTML page."""

from collections.abc import Iterator
from importlib import resources

from equilibrist.report import charts
from equilibrist.report._cards import verdicts
from equilibrist.report._findings import lists, opening
from equilibrist.report._headline import Headline, headline, training_progress
from equilibrist.report._html import (
    badge,
    escape,
    fold,
    part,
    picture,
    player_class,
    section,
    window,
)
from equilibrist.report._missing import missing
from equilibrist.report._notes import cite, reading, reproduce
from equilibrist.report._record import RunRecord, Sample
from equilibrist.report._scores import scores
from equilibrist.report._trained import trained_section
from equilibrist.report.formatting import as_label, format_count, format_number

# Nothing may be fetched or run, whatever a record contains. The browser enforces it.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_MOST_SAMPLES = 7
_LONG = 90  # characters of a headline that is set smaller


def report_page(record: RunRecord) -> str:
    """The whole report as one HTML document."""
    head, own = headline(record), record.is_pair
    title = record.text("title") or record.text("recipe") or record.name
    parts = [
        _top(record, title),
        _hero(record, head),
        _missing(record),
        section("verdicts", "The verdicts", verdicts(record)),
    ]
    if not own:
        parts += [
            section("training", "Losses", _training(record)),
            part("samples", "Samples over time", _samples(record)),
            part("scores", "Scores of the samples", scores(record)) if record.scores else "",
        ]
    parts += [
        part("trained", _what(record), trained_section(record)),
        part("reading", "How to read this", reading(record)),
        part("reproduce", "How to reproduce it", reproduce(record)),
    ]
    if not own:
        parts.append(part("cite", "How to cite it", cite(record)))
    style = resources.files(__package__).joinpath("report.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}: {escape(head.badge)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#verdict">Skip to the verdict</a>\n<div class="page">\n'
        + "\n".join(part for part in parts if part)
        + "\n<footer>Made by equilibrist from its folder alone. This file holds everything "
        "it shows: it loads nothing and runs nothing.</footer>\n</div>\n</body>\n</html>\n"
    )


def _what(record: RunRecord) -> str:
    """The title of the section on what was trained."""
    if record.is_critic:
        return "The critic"
    return "The pair" if record.is_pair else "What was trained"


def _top(record: RunRecord, title: str) -> str:
    facts = [training_progress(record)]
    seed = record.integer("seed")
    if seed is not None:
        facts.append(f"seed {seed}")
    return f'<div class="top"><span><b>{escape(title)}</b></span><span>{escape(", ".join(facts))}</span></div>'


def _hero(record: RunRecord, head: Headline) -> str:
    aside = f' <span class="aside">{escape(head.aside)}</span>' if head.aside else ""
    detail = "".join(f'<p class="detail">{escape(text)}</p>' for text in head.detail)
    plain, notes = (record.audit.facts, record.audit.notes) if record.audit else ([], [])
    facts = f'<p class="plain">{escape(" ".join(plain))}</p>' if plain else ""
    reported = "".join(f'<p class="told"><b>Note</b> {escape(note)}.</p>' for note in notes)
    figures = _figures(record)
    long = ' class="long"' if len(head.text) > _LONG else ""
    kind = "hero" if figures else "hero alone"
    return (
        f'<main id="verdict" class="{kind}"><div>{badge(head.tone, head.badge)}'
        f"<h1{long}>{escape(head.text)}{aside}</h1>{opening(record)}{reported}{facts}{detail}{lists(record)}</div>{figures}</main>"
    )


def _figures(record: RunRecord) -> str:
    """The newest samples, and the real data beside them."""
    shown = record.samples[-1] if record.samples else None
    figures = []
    if shown is not None:
        at = "" if shown.step is None else f", at step {format_count(shown.step)}"
        caption = f"What the generator makes{at}"
        if shown.points is not None and record.real is not None:
            caption += " (real points in grey)"
        figures.append(picture(shown, record.real, window(record), escape(caption), caption))
    if record.real is not None:
        alone = "" if shown is not None else "; no samples of the generator were saved"
        caption = f"Real data{alone}"
        figures.append(
            picture(record.real, record.real, window(record), escape(caption), caption, "truth")
        )
    return f'<div class="figures">{"".join(figures)}</div>' if figures else ""


def _missing(record: RunRecord) -> str:
    items = [
        f"<li>{escape(part.what)}"
        + (f"<code>{escape(part.command)}</code>" if part.command else "")
        for part in missing(record)
    ]
    items += [f"<li>{escape(note)}" for note in record.notes]
    if not items:
        return ""
    rows = "</li>".join(items)
    return f'<aside class="todo"><h2>What is missing here</h2><ul>{rows}</li></ul></aside>'


def _pick(samples: list[Sample], most: int) -> list[Sample]:
    """At most `most` samples, evenly through time, with the first and the last."""
    if len(samples) <= most:
        return samples
    return [samples[round(i * (len(samples) - 1) / (most - 1))] for i in range(most)]


def _samples(record: RunRecord) -> str:
    # The newest and the real data are at the head of the page.
    shown = _pick(record.samples[:-1], _MOST_SAMPLES)
    if not shown and record.mean is None:
        return "<p>No earlier samples were saved.</p>"
    frame = window(record)
    figures = []
    for sample in shown:
        step = format_count(sample.step or 0)
        alt = f"Samples of the generator at step {step}"
        figures.append(picture(sample, record.real, frame, f"Step <b>{step}</b>", alt))
    if record.mean is not None:
        caption = "<b>Mean network</b> at the last of these: the weights of all generators averaged"
        alt = "Samples of the mean network"
        figures.append(picture(record.mean, record.real, frame, caption, alt))
    notes = []
    if len(shown) + 1 < len(record.samples):
        notes.append(f"{len(shown) + 1} of {len(record.samples)} saved pictures are shown.")
    if any(sample.points is not None for sample in shown):
        notes.append(f"All plots show the same square: {frame}. Real points lie in grey beneath.")
    lead = "In order of time; the newest are at the head of the page, beside the real data."
    if record.mean is not None:
        lead = (
            "In order of time; the newest are at the head of the page. Each sample is made by one of the mixture's "
            "generators. The mean network is the other summary of a mixture: what it makes need not resemble what they "
            "make."
        )
    note = f'<p class="note gap">{escape(" ".join(notes))}</p>' if notes else ""
    return f'<p class="lead">{escape(lead)}</p><div class="strip">{"".join(figures)}</div>{note}'


# --- training ---------------------------------------------------------------------------------

_PLAYERS = {"generator": 0, "critic": 1}
_QUANTITIES = {"loss": "loss", "grad_norm": "gradient norm"}


def _training(record: RunRecord) -> str:
    if not record.series:
        return "<p>Nothing was logged: metrics.jsonl is missing or empty.</p>"
    lead = (
        "In a game flat losses are no sign of convergence, nor are falling ones: both players move. That is why "
        "the verdicts above exist."
    )
    figures = list(_training_charts(record, "loss"))
    rest = [name for name in record.series if name not in _QUANTITIES]
    more = list(_training_charts(record, "grad_norm", *rest))[:18]
    extra = ""
    if more:
        extra = fold(
            "Gradients and other logged numbers", f'<div class="charts">{"".join(more)}</div>'
        )
    return f'<p class="lead">{escape(lead)}</p><div class="charts">{"".join(figures)}</div>{extra}'


def _training_charts(record: RunRecord, *quantities: str) -> Iterator[str]:
    for quantity in quantities:
        found = record.series.get(quantity, {})
        for player in sorted(found, key=lambda name: _PLAYERS.get(name, len(_PLAYERS))):
            series = found[player]
            what = _QUANTITIES.get(quantity, as_label(quantity))
            title = as_label(f"{player} {what}".strip())
            final = format_number(float(series.values[-1]))
            alt = f"{title} over {format_count(len(series.steps))} logged steps, last value {final}"
            log = quantity == "grad_norm"
            chart, note = charts.training_chart(series, player_class(player), alt, log)
            yield (
                f'<figure><h4><span class="swatch {player_class(player)}"></span>{escape(title)}</h4>{chart}'
                f"<figcaption>Last value {escape(final)}. {escape(note)}</figcaption></figure>"
            )
