"""The report's section on what was trained."""

import re

from equilibrist.certificates import Json
from equilibrist.files.reading import dig
from equilibrist.report._html import escape, fact_list, player_class
from equilibrist.report._record import RunRecord
from equilibrist.report.formatting import as_label, format_count, format_duration, format_value


def trained_section(record: RunRecord) -> str:
    """The section's body: what the recipe says of game, networks, data and solver."""
    if record.recipe is None:
        return "<p>Not recorded: this run has no recipe.json.</p>"
    game = dig(record.recipe, "description", "game") or {}
    data = dig(record.recipe, "description", "data") or {}
    solver = dig(record.recipe, "description", "solver") or {}
    parts = []
    if record.text("summary"):
        parts.append(f'<p class="lead">{escape(record.text("summary"))}</p>')
    if game.get("loss"):
        lines = [escape(line) for line in re.split(r";\s+|\n", format_value(game["loss"]))]
        parts.append(f'<p class="formula">{"<br>".join(lines)}</p>')
    parts.append(_networks(game.get("players") or {}))
    rows: list[tuple[str, str]] = []
    if game.get("formulation"):
        rows.append(("Game", format_value(game["formulation"])))
    if isinstance(game.get("particles"), int):
        rows.append(("Mixed strategies", f"{game['particles']} networks a player, in equal shares"))
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
            rows.append((name, format_value(game[key])))
    if game.get("condition"):
        shown = game["condition"]
        kind = f"{shown} classes" if isinstance(shown, int) else f"shape {format_value(shown)}"
        rows.append(("Both are shown", kind))
    if isinstance(game.get("spectral_norm"), bool):
        rows.append(("Spectral norm", format_value(game["spectral_norm"])))
    if game.get("latent") is not None:
        latent = game["latent"]
        unit = " numbers" if isinstance(latent, int) else ""
        rows.append(("Noise input", f"{format_value(latent)}{unit}"))
    if data:
        rows.append(("Data", _data_words(data)))
    if solver:
        rows.append(("Solver", format_value(solver.get("text") or solver.get("name"))))
        if solver.get("batch") is not None:
            rows.append(("Batch", format_value(solver["batch"])))
        for key in ("accumulate", "per_part", "mixed_precision"):
            if solver.get(key) is not None:
                rows.append((as_label(key), format_value(solver[key])))
    if record.guard:
        rows.append(("Guard", _guard_words(record.guard)))
    steps = record.integer("steps")
    if steps is not None:
        reached = "" if record.last_step is None else f"; reached {format_count(record.last_step)}"
        rows.append(("Steps", f"{format_count(steps)} asked for{reached}"))
    if record.seconds is not None:
        rows.append(("Training time", format_duration(record.seconds)))
    parts.append(fact_list(rows, "facts pairs"))
    return "\n".join(part for part in parts if part) or "<p>The recipe describes nothing.</p>"


def _guard_words(entries: list[Json]) -> str:
    """How often a diverging run was taken back, and the step sizes with which it went on."""
    last = entries[-1]
    times = "once" if len(entries) == 1 else f"{len(entries)} times"
    begin = (
        f"step {format_count(last['back_to'])}" if last.get("back_to") else "the initial weights"
    )
    return (
        f"diverged {times}, last at step {format_count(last.get('diverged') or 0)}; went back to {begin} and on "
        f"with {format_value(last['factor'])} of the step sizes"
    )


def _data_words(data: Json) -> str:
    parts = [format_value(data["name"])] if data.get("name") else []
    kind = format_value(data.get("kind") or "samples")
    parts.append(kind if data.get("size") is None else f"{format_value(data['size'])} {kind}")
    if data.get("kind") == "points" and isinstance(data.get("shape"), list):
        parts.append(f"in {format_value(data['shape'])} dimensions")
    elif isinstance(data.get("shape"), list):
        parts.append(
            "each " + " \N{MULTIPLICATION SIGN} ".join(format_value(side) for side in data["shape"])
        )
    if data.get("source"):
        parts.append(f"from {format_value(data['source'])}")
    return ", ".join(parts)


def _networks(players: Json) -> str:
    rows = "".join(
        f'<tr><td><span class="swatch {player_class(name)}"></span>{escape(as_label(name))}</td>'
        f"<td>{escape(format_value(player.get('class')))}</td>"
        f'<td class="figure" data-name="Parameters">{escape(format_value(player.get("parameters")))}</td>'
        "</tr>"
        for name, player in players.items()
    )
    if not rows:
        return ""
    return (
        '<table><thead><tr><th scope="col">Player</th><th scope="col">Network</th>'
        f'<th scope="col" class="figure">Parameters</th></tr></thead><tbody>{rows}</tbody></table>'
    )
