"""Imports within the command's package point downwards: program, then commands, then helpers."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import equilibrist.cli
from equilibrist.cli import app

FOLDER = Path(equilibrist.cli.__file__).parent
PACKAGE = "equilibrist.cli"
MODULES = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path in FOLDER.glob("*.py")}
COMMANDS = {info.callback.__module__.rpartition(".")[2] for info in app.registered_commands}
TOP = {"__init__", "program"}
HELPERS = set(MODULES) - COMMANDS - TOP


def imported(tree: ast.Module) -> list[tuple[str, str]]:
    """(module, name) of every import, wherever it stands."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not followed here"
            found += [(node.module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
    return found


def within(tree: ast.Module) -> set[str]:
    """The modules of this package that are imported, `__init__` for the package itself."""
    found = set()
    for module, name in imported(tree):
        if module == PACKAGE:
            found.add(name if name in MODULES else "__init__")
        elif module.startswith(f"{PACKAGE}."):
            found.add(module.removeprefix(f"{PACKAGE}.").partition(".")[0])
    return found


def test_every_command_has_a_module_of_its_own() -> None:
    assert len(COMMANDS) == len(app.registered_commands) == 13
    assert COMMANDS.issubset(MODULES)


def test_no_import_goes_round_in_a_circle() -> None:
    graph = {name: within(tree) for name, tree in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())[-1] == "__init__"


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_commands_import_helpers_only(name: str) -> None:
    assert within(MODULES[name]) <= HELPERS


@pytest.mark.parametrize("name", sorted(HELPERS))
def test_helpers_import_helpers_only(name: str) -> None:
    assert within(MODULES[name]) <= HELPERS


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_private_name_is_imported(name: str) -> None:
    private = [
        (module, found)
        for module, found in imported(MODULES[name])
        if found.startswith("_") and not found.startswith("__")
    ]
    assert not private
    assert ("equilibrist", "cli") not in imported(MODULES[name])
    assert not any(module == "equilibrist.__main__" for module, _ in imported(MODULES[name]))
