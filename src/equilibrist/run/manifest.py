"""recipe.json: what a run directory says about the recipe that it holds."""

from __future__ import annotations

import json
from dataclasses import dataclass

import torch

from equilibrist.certificates import Json
from equilibrist.run import code
from equilibrist.run.recipe import Recipe

FORMAT = 1


@dataclass(frozen=True)
class Provenance:
    """Where a recipe comes from.

    Attributes:
        name: of the recipe, as the command takes it.
        settings: what was set of it.
        origin: the kind of place ("builtin", "file", "python") and what tells it apart.
    """

    name: str = "python"
    settings: Json | None = None
    origin: Json | None = None

    def manifest(self, recipe: Recipe, seed: int, device: torch.device) -> Json:
        """The content of recipe.json for this recipe and seed."""
        return {
            "format": FORMAT,
            "recipe": self.name,
            "settings": self.settings or {},
            "seed": seed,
            "steps": recipe.steps,
            "device": str(device),
            **identity(recipe),
            "title": recipe.title,
            "summary": recipe.summary,
            "origin": self.origin or {"kind": "python"},
            **({"code": known} if (known := code.sources(recipe)) else {}),
            "references": [{"text": r.text, "bibtex": r.bibtex} for r in recipe.references],
        }


def identity(recipe: Recipe) -> Json:
    """The entries by which two recipes are told apart."""
    return {
        "dtype": str(recipe.dtype).removeprefix("torch."),
        "description": recipe.describe(),
    }


def identifying_part(key: str, value: object) -> object:
    """The part of an entry that makes it another run: not the steps asked for, nor the sentence that
    says which file the data came from (their checksum counts)."""
    if key == "settings" and isinstance(value, dict):
        return {k: v for k, v in value.items() if k != "steps"}
    if key == "description" and isinstance(value, dict) and isinstance(value.get("data"), dict):
        return value | {"data": {k: v for k, v in value["data"].items() if k != "source"}}
    return value


def differing_entry(was: object, now: object, where: str) -> tuple[str, object, object]:
    """The innermost place at which two values differ."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *now]:
            if key not in was or key not in now or was[key] != now[key]:
                return differing_entry(was.get(key), now.get(key), f"{where} {key}")
    return where, was, now


def cut_json(value: object) -> str:
    """A value as JSON, cut for one line."""
    text = json.dumps(value)
    return text if len(text) <= 200 else text[:197] + "..."
