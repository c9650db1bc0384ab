"""The page of outcomes, in Markdown, made from records alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from equilibrist.papers import records
from equilibrist.papers.catalogue import EXPERIMENTS
from equilibrist.papers.model import SIZES, WORDS, ClaimOutcome, Experiment, Size, UnitRecord
from equilibrist.papers.sources import PAPERS

# Which size speaks for a claim: the largest that was tried.
Held = dict[str, dict[Size, dict[str, UnitRecord]]]
Best = dict[str, list[tuple[ClaimOutcome, Size | None]]]
_LARGEST_FIRST: tuple[Size, ...] = tuple(reversed(SIZES))


def papers_page(root: Path) -> str:
    """The whole page, to lie beside the folder of records `root`.

    Returns: Markdown.
    """
    held = {
        experiment.key: {size: records.read_records(root, experiment, size) for size in SIZES}
        for experiment in EXPERIMENTS
    }
    best = {
        experiment.key: [
            _best(experiment, held[experiment.key], i) for i in range(len(experiment.claims))
        ]
        for experiment in EXPERIMENTS
    }
    lines = [
        "# What became of the papers' claims",
        "",
        "A GAN is a game of two networks. Three papers say what such games have and how to play them: Farnia and "
        "Ozdaglar that trained pairs are no Nash equilibria, but proximal ones, and that training for these gives "
        "better samples; Mescheder and others that consensus optimisation calms training; Hsieh and others that "
        "mixtures of networks have equilibria that Langevin dynamics finds. Below is what became of every claim that "
        "they number, and of a question that they leave open.",
        "",
        "Made by `equilibrist papers report` from the records in `papers/`; `equilibrist papers run` makes "
        "more of them. Each claim is judged by a rule that was written before the runs, at the largest size that was "
        "run: tiny (8x8 digits or the plane, minutes), small (real MNIST and CIFAR-10, narrow networks, hours of "
        "one CPU core) or paper (the paper's own size).",
        "",
        *_summary(best, held),
        "",
        *_overview(best, held),
    ]
    for experiment in EXPERIMENTS:
        lines += _section(experiment, held[experiment.key], root)
    lines += _ledger(held)
    return "\n".join(lines) + "\n"


def _best(
    experiment: Experiment, held: dict[Size, dict[str, UnitRecord]], index: int
) -> tuple[ClaimOutcome, Size | None]:
    """The outcome at the largest size that was tried, or why none was."""
    for size in _LARGEST_FIRST:
        outcome = experiment.outcomes(held[size], size)[index]
        if held[size] and outcome.word != "not tried":
            return outcome, size
    return experiment.outcomes(held["tiny"], "tiny")[index], None


def _unfinished(experiment: Experiment, held: Held, size: Size | None) -> str:
    """How many of a size's units have ended, where not all have; "" where they have."""
    if size is None:
        return ""
    ended, planned = len(held[experiment.key][size]), len(experiment.units(size))
    return f"{ended} of {planned} units" if ended < planned else ""


def _summary(best: Best, held: Held) -> Iterator[str]:
    counts = Counter(outcome.word for rows in best.values() for outcome, _ in rows)
    total = sum(counts.values())
    caption = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
    open_ = sum(
        bool(_unfinished(experiment, held, size))
        for experiment in EXPERIMENTS
        for _, size in best[experiment.key]
    )
    so_far = (
        f" Of these, {open_} are judged by runs of which some are still to come." if open_ else ""
    )
    yield f"**{total} claims: {caption}.**{so_far}"


def _overview(best: Best, held: Held) -> Iterator[str]:
    paper = ""
    for experiment in sorted(EXPERIMENTS, key=lambda one: PAPERS.index(one.paper)):
        if experiment.paper.text != paper:
            paper = experiment.paper.text
            head = ("| where | claim | outcome | size |", "|---|---|---|---|")
            yield from ("", f"## {paper}", "", *head)
        for claim, (outcome, size) in zip(experiment.claims, best[experiment.key], strict=True):
            part = _unfinished(experiment, held, size)
            word = outcome.word if size is None else f"**{outcome.word}**" + " so far" * bool(part)
            link = f"[{claim.place}](#{_anchor(experiment)})"
            yield f"| {link} | {escaped(claim.text)} | {word} | {size or ''}{f', {part}' if part else ''} |"


def escaped(text: str) -> str:
    """Text whose asterisks and bars mean themselves, in Markdown."""
    return text.replace("*", r"\*").replace("|", r"\|")


def _anchor(experiment: Experiment) -> str:
    kept = "".join(c for c in experiment.title.lower() if c.isalnum() or c in " -_")
    return kept.replace(" ", "-")


def _section(
    experiment: Experiment, held: dict[Size, dict[str, UnitRecord]], root: Path
) -> Iterator[str]:
    yield from ("", f"## {experiment.title}", "", f"{experiment.paper.text}.")
    for size in _LARGEST_FIRST:
        if held[size]:
            yield from _at_size(experiment, size, held[size], root)
    if not any(held.values()):
        yield from ("", "Not run yet.", "")
        yield from (f"- {claim.place}: {claim.rule}" for claim in experiment.claims[:1])


def _at_size(
    experiment: Experiment, size: Size, found: dict[str, UnitRecord], root: Path
) -> Iterator[str]:
    planned = experiment.units(size)
    states = Counter(record.state for record in found.values())
    reported = ", ".join(f"{n} {state}" for state, n in states.items())
    yield from ("", f"### {experiment.title}: {size}", "")
    yield f"```console\nequilibrist papers run {experiment.key} --size {size}\n```"
    yield ""
    yield f"{len(found)} of {len(planned)} units ended ({reported}). {experiment.differs.get(size, '')}".rstrip()
    yield ""
    open_ = len(found) < len(planned)
    for claim, outcome in zip(experiment.claims, experiment.outcomes(found, size), strict=True):
        so_far = " so far" * (open_ and outcome.word != "not tried")
        yield f"- **{claim.place}: {outcome.word}{so_far}.** {escaped(outcome.why)}."
    rules = dict.fromkeys(claim.rule for claim in experiment.claims)
    yield ""
    yield "Rule, written before the runs: " + "; ".join(rule.rstrip(".") for rule in rules) + "."
    if experiment.table is not None:
        yield ""
        # Links are relative to the folder that holds the records' own: where the page lies.
        yield from experiment.table(found, records.folder_of(Path(root.name), experiment, size))
    for record in found.values():
        if record.state == "failed":
            yield from ("", f"Failed: {record.about.get('text', record.unit)}: {record.message}")


def _ledger(held: Held) -> Iterator[str]:
    yield from (
        "",
        "## What it cost",
        "",
        "CPU time of one thread, on a machine that did other things as well.",
        "",
        "| experiment | size | units: ended, planned | planned, hours | spent, hours | commits | machine |",
        "|---|---|---|---|---|---|---|",
    )
    for experiment in EXPERIMENTS:
        for size in SIZES:
            units, found = experiment.units(size), held[experiment.key][size]
            if not units:
                continue
            planned = sum(unit.minutes for unit in units) / 60
            commits = sorted({str(r.about.get("commit") or "")[:7] for r in found.values()} - {""})
            machines = {
                str((r.about.get("machine") or {}).get("processor")) for r in found.values()
            }
            yield (
                f"| {experiment.key} | {size} | {len(found)}, {len(units)} | {planned:.2g} | "
                f"{records.seconds(found) / 3600:.2g} | {', '.join(commits)} | {', '.join(sorted(machines))} |"
            )
