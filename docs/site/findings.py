"""Writes docs/findings.md from the vocabulary: `python docs/site/findings.py`."""

from __future__ import annotations

from pathlib import Path

from equilibrist.findings import GROUPS, VOCABULARY

PAGE = Path(__file__).parents[1] / "findings.md"
TITLES = {
    "wiring": (
        "Wiring",
        "What each optimiser receives and steps, in a dozen rounds: `check_wiring`.",
    ),
    "data": (
        "Data",
        "What the critic is shown of both kinds, against the data and the generator's output.",
    ),
    "numerics": ("Numbers", "Values that are not finite, single samples, steps that overshoot."),
    "average": (
        "Averages",
        "An averaged generator against the one that is trained: `check_average`.",
    ),
    "resume": (
        "Resumption",
        "An uninterrupted run against one that is saved and loaded: `check_resume`.",
    ),
    "audit": ("A trained pair", "What an audit's plain facts and certificates show besides."),
    "player": ("Players", "What a critic or a generator is like, on held-out samples."),
}


def page() -> str:
    """The page."""
    parts = [
        "# Findings\n\nWhat `diagnose`, `check_wiring` and `check_resume` can say of a loop, and an audit of what it "
        "trained (`audit.findings`), by name. Written from `equilibrist.findings.VOCABULARY`.\n\n"
        "Each finding has a level (fault: act on it; warning: it hurts where it was not meant; note), how sure it is "
        "(certain: observed; likely: all evidence fits, and no other named cause does; possible), its numbers, and "
        "what to change first. An audit sees a pair and not the loop that trained it: what it says of a player is "
        "likely at most, and the wiring is to be checked first; where equilibrist trained the run itself, the wiring "
        "is excluded.\n"
    ]
    for group in GROUPS:
        title, about = TITLES[group]
        parts.append(f"\n## {title}\n\n{about}\n")
        for name, kind in VOCABULARY.items():
            if kind.group == group:
                parts.append(
                    f"\n### {name}\n\n- **You see:** {kind.symptom}.\n- **Cause:** {kind.cause}.\n"
                    f"- **Change first:** {kind.cure}.\n- **How we know:** {kind.known}.\n"
                    + (f"- **Read:** {kind.source}.\n" if kind.source else "")
                )
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
