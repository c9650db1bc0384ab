"""Names of files and folders that commands write, checked before the work begins."""

from __future__ import annotations

from pathlib import Path

from equilibrist.errors import RecipeError, RecordError


def folder_name(recipe: str) -> str:
    """The name of a run's folder: the recipe's, or FILE-FUNCTION for a file of the user's own."""
    return Path(recipe.replace(":", "-")).name.replace(".py-", "-") if ":" in recipe else recipe


def refuse_folder(out: Path) -> None:
    """Raise RecipeError where --out names an existing folder instead of a file."""
    if out.is_dir():
        raise RecipeError(f"--out {out}: this is a folder; name a file in it")


def require_parent(out: Path) -> None:
    """Raise RecordError where the folder that --out would be written to does not exist."""
    if not out.parent.is_dir():
        raise RecordError(f"--out {out}: the folder {out.parent} does not exist")


def page_path(out: Path) -> Path:
    """The path of an HTML page to write, once it is known to be usable.

    Raises:
        RecipeError: A folder, or a name that does not end in .html.
        RecordError: The folder of the page does not exist.
    """
    refuse_folder(out)
    if out.suffix not in (".html", ".htm"):
        raise RecipeError(f"--out {out}: the name must end in .html")
    require_parent(out)
    return out
