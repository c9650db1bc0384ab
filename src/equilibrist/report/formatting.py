"""Numbers, time spans and recorded values in words."""

import json
import math

from equilibrist.report._record import Tolerance

_SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def format_number(value: float | None, digits: int = 3) -> str:
    """A number for reading: three digits, thousands separated, powers of ten spelled out."""
    if value is None:
        return "not recorded"
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "infinite" if value > 0 else "minus infinite"
    size = abs(value)
    if size == 0:
        text = "0"
    elif size >= 1e6 or size < 1e-3:
        mantissa, exponent = f"{size:.{digits - 1}e}".split("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        power = "10" + str(int(exponent)).translate(_SUPERSCRIPT)
        text = power if mantissa == "1" else f"{mantissa} \N{MULTIPLICATION SIGN} {power}"
    elif size >= 10 ** (digits - 1):
        text = f"{size:,.0f}"
    else:
        text = f"{size:.{digits}g}"
    return f"\N{MINUS SIGN}{text}" if value < 0 else text


def format_count(value: int) -> str:
    """A whole number with its thousands separated."""
    return f"{value:,}"


def format_fixed(value: float, decimals: int) -> str:
    """A number with so many decimals, and a real minus sign."""
    text = f"{abs(value):,.{decimals}f}"
    return f"\N{MINUS SIGN}{text}" if value < 0 and float(text.replace(",", "")) != 0 else text


def format_estimate(
    value: float | None, interval: tuple[float, float] | None
) -> tuple[str, str, str]:
    """(value, low, high) in words, to as many digits as the interval's half-width justifies."""
    if value is None or interval is None or not all(map(math.isfinite, (value, *interval))):
        low, high = interval if interval else (None, None)
        return format_number(value), format_number(low), format_number(high)
    half = abs(interval[1] - interval[0]) / 2
    if half == 0 or half < 1e-6 or max(map(abs, (value, *interval))) >= 1e6:
        return format_number(value), format_number(interval[0]), format_number(interval[1])
    decimals = -math.floor(math.log10(half))
    if half * 10**decimals < 3:  # a half-width of 0.12 must not be rounded to 0.1
        decimals += 1
    decimals = max(decimals, 0)
    ends = [abs(end) for end in interval if end]
    if ends and min(ends) < 0.5 * 10**-decimals:  # an end that is not zero must not read as zero
        decimals += 1
    # Four digits are enough for anybody, however narrow the interval.
    decimals = min(decimals, max(0, 3 - math.floor(math.log10(max(map(abs, (value, *interval)))))))
    return (
        format_fixed(value, decimals),
        format_fixed(interval[0], decimals),
        format_fixed(interval[1], decimals),
    )


def with_unit(text: str, unit: str) -> str:
    """The number's words followed by its unit, if it has one."""
    return f"{text} {unit}" if unit else text


def format_tolerance(tolerance: Tolerance | None) -> str:
    """The tolerance with its unit."""
    if tolerance is None or math.isnan(tolerance.value):
        return "not recorded"
    return with_unit(format_number(tolerance.value), tolerance.unit)


def format_duration(seconds: float | None) -> str:
    """A time span in the unit that suits it."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return "not recorded"
    if seconds < 90:
        return f"{format_number(seconds, 2)} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def format_setting(value: object) -> str:
    """A setting exactly as it was, not rounded."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def format_value(value: object) -> str:
    """Any recorded value on one line, for a table."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return format_count(value)
    if isinstance(value, float):
        return format_number(value, 4)
    if isinstance(value, list):
        return ", ".join(format_value(item) for item in value) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {format_value(item)}" for key, item in value.items()) or "none"
    return str(value)


def as_label(name: str) -> str:
    """A key of a record as a label."""
    text = name.replace("_", " ").replace("/", ": ").strip() or name
    return text[:1].upper() + text[1:]
