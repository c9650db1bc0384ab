"""The main number of each claim, with its interval: what a card shows large."""

import math
from dataclasses import dataclass

from equilibrist.report._claims import interval_name
from equilibrist.report._record import CertificateRecord, Verdict, as_number
from equilibrist.report.formatting import format_estimate, format_fixed, format_number, with_unit

_BY_KIND = {
    # kind: (evidence of the number, of its interval, what the number is)
    "nash": ("gain", "interval", "Gain when it moves alone"),
    "stationary": ("residual", "interval", "Gain that its gradient promises"),
    "local-nash": ("gain", "gain_interval", "Gain that the worst small move promises"),
    "local-minimax": ("gain", "gain_interval", "Gain of the worst small move, after the answer"),
    "generator-vs-prox": ("fall", "interval", "Fall of the value, the critic answering"),
    "duality-gap": ("gap", "interval", "Gap"),
    "proximal-duality-gap": ("gap", "interval", "Gap"),
    "not-saturated": ("share", "interval", "Generated samples without slope"),
    "informative": ("share", "interval", "Generated samples at which the reward is flat"),
    "not-smothered": ("missing", "interval", "Missing of the best critic's advantage over chance"),
    "not-lagging": ("missing", "interval", "Missing of the best critic's advantage over chance"),
    "not-memorising": ("excess", "interval", "Pairs in which its own samples come first"),
    "not-blind": ("depends", "interval", "Change of the score when that part is shuffled"),
    "best-response": ("gain", "interval", "Gain by training on"),
    "best-of-class": ("gain", "interval", "Gain of a fresh critic"),
    "penalty-costs-nothing": ("gain", "interval", "Gain without the penalty"),
    "indistinguishable": ("excess", "interval", "Pairs that the best critic orders rightly"),
}
_STAR = "λ*, the highest price of an answer at which it holds"


@dataclass(frozen=True)
class Measure:
    """A number in words, and what a chart of it needs.

    `low` and `high` are its interval (None: none is recorded); `scale` is "linear", "lambda", or "" where
    no chart is drawn.
    """

    name: str
    shown: str
    between: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    scale: str = ""


def measure_of(certificate: CertificateRecord) -> Measure | None:
    """The claim's main number, None where it has none."""
    kind = certificate.kind
    if kind == "stable":
        return _stable(certificate)
    if kind in ("proximal", "lambda-search", "profile"):
        return _star(certificate)
    if kind == "self-tests":
        return _tests(certificate)
    if kind in _BY_KIND:
        return _number(certificate, *_BY_KIND[kind])
    # A claim of a check that this version does not know may have a gain all the same.
    for key in ("nash", "stationary"):
        if found := _number(certificate, *_BY_KIND[key]):
            return found
    return None


def _number(certificate: CertificateRecord, key: str, ends: str, name: str) -> Measure | None:
    if key not in certificate.evidence:
        return None
    value = certificate.number(key)
    if value is None:
        if certificate.evidence[key] is not None:
            return None
        value = math.nan  # recorded as null: it was measured and was not finite
    interval = certificate.ends(ends)
    shown, low, high = format_estimate(value, interval)
    shown = with_unit(shown, certificate.unit)
    if interval is None:
        return Measure(name, shown, value=value)
    if interval[0] == interval[1] and ends == "gain_interval":
        return Measure(name, shown, "exact", value, *interval, scale="linear")
    between = f"{interval_name(certificate)} {low} to {high}"
    return Measure(name, shown, between, value, *interval, scale="linear")


def _stable(certificate: CertificateRecord) -> Measure | None:
    ends = certificate.evidence.get("extremes")
    least = ends.get("smallest real part") if isinstance(ends, dict) else None
    pair = least.get("value") if isinstance(least, dict) else None
    real = as_number(pair[0]) if isinstance(pair, list) and pair else None
    if real is None:
        return None
    confirmed = certificate.evidence.get("confirmed")
    between = ""
    if isinstance(confirmed, dict) and isinstance(confirmed.get("interval"), list):
        low, high = ([*map(as_number, confirmed["interval"]), None, None])[:2]
        if low is not None and high is not None:
            _, a, b = format_estimate(as_number(confirmed.get("value")), (low, high))
            between = f"on unseen samples {a} to {b}"
    return Measure(
        "Smallest real part of an eigenvalue (negative: it is left)",
        format_number(real),
        between,
        real,
    )


def _star(certificate: CertificateRecord) -> Measure | None:
    key = "interval" if certificate.kind == "lambda-search" else "lambda_star"
    ends = certificate.evidence.get(key)
    if not isinstance(ends, list) or len(ends) != 2:
        return None
    low, high = as_number(ends[0]), as_number(ends[1])
    if high is None:  # infinite numbers are written as null
        high = math.inf
    if certificate.evidence.get("infinite") is True:
        low = math.inf
    if low is None or math.isnan(low) or math.isnan(high):
        return None
    name, between = _STAR, ""
    noise = certificate.number("lambda_star_noise")
    if noise is not None and math.isfinite(noise) and math.isfinite(low):
        between = f"noise of the batches: about ±{format_number(abs(noise), 2)}"
    strict = certificate.ends("lambda_star_strict")
    if math.isinf(low) and strict is not None and math.isfinite(strict[0]):
        between = f"for any gain at all, within no tolerance: {lambda_words(*strict)}"
    if certificate.kind == "profile":
        name = "λ*, where r leaves the tolerance (the critic's slack aside)"
        between = "neighbours on the grid of λ"
    return Measure(name, lambda_words(low, high), between, None, low, high, "lambda")


def lambda_words(low: float, high: float) -> str:
    """An interval of lambda* in words."""
    if math.isinf(low):
        return "every λ"
    if math.isinf(high):
        return f"at least {format_number(low)}" if low > 0 else "unknown"
    if high <= 0:
        return "0"
    if low <= 0:
        return f"below {format_number(high)}"
    # As many digits as the interval's width asks for.
    if high - low <= 5e-3 * high:
        return format_number(math.sqrt(low) * math.sqrt(high))
    a, b = format_number(low), format_number(high)
    return f"{a} to {b}" if a != b else a


def _tests(certificate: CertificateRecord) -> Measure | None:
    tests = certificate.evidence.get("tests")
    if not isinstance(tests, dict) or not tests:
        return None
    passed = sum(isinstance(t, dict) and t.get("passed") is True for t in tests.values())
    return Measure("Tests passed", f"{format_fixed(passed, 0)} of {format_fixed(len(tests), 0)}")


def small_words(certificate: CertificateRecord) -> str:
    """The number in a few words, for the ladder: lambda*, or what a player gains."""
    if certificate.kind in ("proximal", "lambda-search"):
        found = measure_of(certificate)
        refuted = certificate.verdict is Verdict.REFUTED
        if found is None or refuted:
            return ""
        return "for every λ" if found.low == math.inf else f"λ* {found.shown}"
    return ""
