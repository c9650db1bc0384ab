"""The command `list`."""

from __future__ import annotations

import json

from equilibrist.cli.options import JsonOption


def list_recipes(as_json: JsonOption = False) -> None:
    """List the recipes that can be run."""
    from equilibrist.recipe_lookup import catalogue

    rows = {
        name: (function.__doc__ or "").strip().splitlines()[0]
        for name, function in catalogue().items()
    }
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    width = max(map(len, rows), default=0)
    for name, line in rows.items():
        print(f"{name:{width}}  {line}")
