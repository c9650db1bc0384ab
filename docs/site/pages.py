"""Pages of the site that are made from other files, so that nothing is written twice.

README.md, CONTRIBUTING.md, CHANGELOG.md and SECURITY.md become pages, and so do the examples; the reference
has a page for each public package and one with the command's help. Links between files of the repository
become links between pages.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import posixpath
import re
from pathlib import Path
from typing import Any
from unittest import mock

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
    **{f"examples/{path.name}": f"examples/{path.stem}.md" for path in ROOT.glob("examples/*.py")},
}
MADE_FROM = {page: path for path, page in PAGES.items()}
DOWNLOADS = ("LICENSE", "CITATION.cff", "examples/audit_a_gan.ipynb")
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(?=[)#])")


def on_config(config: Any) -> Any:
    """Leave out the page for addresses that do not exist: it would have to know where the site stands."""
    config.theme.static_templates.discard("404.html")
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    made = {page: source_page(path) for path, page in PAGES.items()}
    made["reference/command.md"] = command_page()
    made["reference/equilibrist.md"] = names_page()
    for package in packages():
        made[f"reference/{package}.md"] = package_page(package)
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    for path in DOWNLOADS:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    here = page.file.src_uri
    folder = posixpath.dirname(MADE_FROM.get(here, f"docs/{here}"))

    def on_the_site(link: re.Match[str]) -> str:
        if "://" in link[1]:
            return link[1]
        path = posixpath.normpath(posixpath.join(folder, link[1]))
        target = PAGES.get(path, path.removeprefix("docs/"))
        return posixpath.relpath(target, posixpath.dirname(here) or ".")

    return LINK.sub(on_the_site, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Put a script of our own in the place of the one that the offline plugin takes from a server."""
    ours = posixpath.relpath("site/worker.js", posixpath.dirname(page.url) or ".")
    return output.replace("https://unpkg.com/iframe-worker/shim", ours)


def source_page(path: str) -> str:
    """A file of the repository as a page: Markdown as it is, a script as a block of code."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    return f"# {Path(path).name}\n\n`{path}`, as it stands there:\n\n````python\n{text}````\n"


def packages() -> list[str]:
    """The public packages, and `run`, whose names the package itself offers."""
    return sorted({*importlib.import_module("equilibrist")._MODULES, "run"})


def offered(package: str) -> dict[str, Any]:
    """The public names of a package: those of `__all__`, or else what is defined there."""
    module = importlib.import_module(f"equilibrist.{package}")
    if names := getattr(module, "__all__", ()):
        return {name: getattr(module, name) for name in names}
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    }


def package_page(package: str) -> str:
    """A page of the reference."""
    lines = [f"# equilibrist.{package}", "", f"::: equilibrist.{package}"]
    for name, value in offered(package).items():
        if getattr(value, "__module__", "") == f"equilibrist.{package}.{name}":
            # A function that is named as the module it stands in: read statically, the module wins.
            lines += ["", *described(f"{value.__module__}.{name}")]
    return "\n".join([*lines, ""])


def names_page() -> str:
    """Every name of `import equilibrist as eq`, with the descriptions of those that no package has."""
    eq = importlib.import_module("equilibrist")
    homes = {name: package for package in packages() for name in offered(package)}
    rows, rest = [], []
    for name in sorted({*eq._MODULE, *eq.__all__} - set(packages()), key=str.lower):
        value = getattr(eq, name)
        path = f"{value.__module__}.{value.__qualname__}"
        home = homes.get(name)
        if home is None:
            rest += ["", *described(path)]
        rows.append(f"| [`{name}`][{path}] | `equilibrist{'.' + home if home else ''}` |")
    head = [
        "# equilibrist",
        "",
        "`import equilibrist as eq` offers these names, and each package those of its page.",
        "",
        "| name | package |",
        "|---|---|",
    ]
    return "\n".join([*head, *rows, *rest, ""])


def described(path: str) -> list[str]:
    """The lines that ask for the description of one name."""
    return [f"::: {path}", "    options:", "      show_root_heading: true"]


def command_page() -> str:
    """The help of `equilibrist` and of each of its commands, as a terminal shows it."""
    from equilibrist.cli import app

    commands = [c.name or inspect.unwrap(c.callback).__name__ for c in app.registered_commands]
    parts = ["# The command", "", shown_help(app)]
    for command in commands:
        parts += [f"## equilibrist {command}", "", shown_help(app, command)]
    return "\n".join(parts)


def shown_help(app: Any, *words: str) -> str:
    """What `--help` prints, as a block."""
    printed = io.StringIO()
    plain = {"TERMINAL_WIDTH": "88", "NO_COLOR": "1"}
    with contextlib.redirect_stdout(printed), mock.patch.dict(os.environ, plain):
        app([*words, "--help"], prog_name="equilibrist", standalone_mode=False)
    lines = [line.rstrip() for line in printed.getvalue().splitlines()]
    return "\n".join(["```text", *lines, "```", ""])
