"""A search for a deviation: its curves, the samples before and after."""

from equilibrist.report import charts
from equilibrist.report._claims import gain_words, side
from equilibrist.report._html import escape, picture, player_class, window
from equilibrist.report._record import CertificateRecord, RunRecord
from equilibrist.report.formatting import as_label, format_number, format_tolerance

_WHEN = {
    "before": ("Before", "as training left it"),
    "during": ("During", "the search, critic frozen"),
    "after": ("After", "the chosen deviation"),
}


def search_section(certificate: CertificateRecord, record: RunRecord) -> str:
    """The curves of a claim's searches and the samples before and after; "" where none are recorded."""
    if not certificate.curves and not certificate.samples:
        return ""
    player = side(certificate)
    gain, between = gain_words(certificate)
    parts = ['<div class="search">']
    if certificate.curves:
        limit = certificate.limit
        alt = f"Gain of the {player} over its search from {len(certificate.curves)} starts; "
        alt += f"scored gain {gain} {between}; tolerance "
        alt += format_tolerance(certificate.tolerance)
        chart, note = charts.gain_chart(
            certificate.curves, certificate.chosen, limit, player_class(player), alt
        )
        unit = f", in {certificate.unit}" if certificate.unit else ""
        parts.append(_legend(certificate))
        whose = f"the {player}'s" if player else "the"
        caption = (
            f"How far {whose} loss fell{unit}, on the data that selects among starts; the gain above was "
            "scored on other data, and can be smaller"
        )
        parts.append(
            f"<figure>{chart}<figcaption>{escape(caption)}. {escape(note)}</figcaption></figure>"
        )
    if certificate.samples:
        parts.append(_before_and_after(certificate, record))
    return "\n".join(parts) + "</div>"


def _legend(certificate: CertificateRecord) -> str:
    kind, chosen = player_class(side(certificate)), certificate.chosen
    items = []
    picked = [c for c in certificate.curves if chosen is not None and c.start == chosen[0]]
    if chosen is not None and picked:
        curve = picked[0]
        text = f"chosen: start {chosen[0]}"
        if curve.perturbation is not None:
            text += f", disturbed by {format_number(curve.perturbation)}"
        if curve.optimizer and len({c.optimizer for c in certificate.curves}) > 1:
            text += f", {curve.optimizer}"
        if chosen[1] is not None:
            text += f", taken at step {format_number(chosen[1])}"
        items.append(f'<li><i class="{kind}"></i>{escape(text)}</li>')
    rest = len(certificate.curves) - len(picked)
    if rest:
        items.append(f"<li><i></i>{rest} other start{'' if rest == 1 else 's'}</li>")
    if certificate.limit is not None:
        text = f"tolerance, {format_tolerance(certificate.tolerance)}"
        items.append(f'<li><i class="dash"></i>{escape(text)}</li>')
    return f'<ul class="legend">{"".join(items)}</ul>'


def _before_and_after(certificate: CertificateRecord, record: RunRecord) -> str:
    frame = window(record)
    order = [*(w for w in _WHEN if w in certificate.samples)]
    order += [w for w in certificate.samples if w not in _WHEN]
    figures = []
    for when in order:
        name, text = _WHEN.get(when, (as_label(when), ""))
        caption = f"<b>{escape(name)}</b>" + (f": {escape(text)}" if text else "")
        alt = f"Samples of the generator {when} the search"
        figures.append(picture(certificate.samples[when], record.real, frame, caption, alt))
    if record.real is not None:
        caption = "<b>Real data</b>, for comparison"
        figures.append(picture(record.real, record.real, frame, caption, "Real data", "truth"))
    return f'<div class="strip">{"".join(figures)}</div>'
