"""Counts what makes a house hard to live in: sizes, circles, private doors, names of two meanings.

python benchmarks/house.py                 # the table of docs/design.md
python benchmarks/house.py --list          # and every place behind a number
python benchmarks/house.py --src OTHER/src # of another checkout
"""

from __future__ import annotations

import argparse
import ast
import collections
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "equilibrist"
LINES, LONG, WIDE = 400, 60, 8  # of a file, of a function, parameters of a signature
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


def modules(src: Path) -> dict[str, tuple[Path, ast.Module]]:
    """Every module of the package by its dotted name, parsed."""
    found = {}
    for path in sorted((src / PACKAGE).rglob("*.py")):
        parts = path.relative_to(src).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = (path, ast.parse(path.read_text(encoding="utf-8")))
    return found


def statements(body: ast.Module) -> int:
    """Statements of a module, docstrings left out."""
    return sum(
        isinstance(node, ast.stmt)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in ast.walk(body)
    )


def imports(body: ast.Module) -> Iterator[tuple[str, str, int]]:
    """(module, name, line) of every import out of the package itself."""
    for node in ast.walk(body):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module.split(".")[0] == PACKAGE:
                yield from ((node.module, alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == PACKAGE:
                    yield alias.name, "", node.lineno


def private_doors(found: dict[str, tuple[Path, ast.Module]]) -> list[str]:
    """Imports of a private module or a private name that belongs to another package."""
    doors = []
    for name, (path, body) in found.items():
        home = name.split(".")[1:2]
        for module, wanted, line in imports(body):
            parts = [*module.split(".")[1:], *([wanted] if wanted else [])]
            private = any(p.startswith("_") and not p.startswith("__") for p in parts)
            if private and parts[:1] != home:
                doors.append(f"{path.name}:{line} {module} {wanted}")
    return doors


def circles(found: dict[str, tuple[Path, ast.Module]]) -> list[str]:
    """Groups of packages that import each other."""
    arrows: dict[str, set[str]] = collections.defaultdict(set)
    for name, (_, body) in found.items():
        if "." not in name:
            continue  # the package's face imports nothing until it is asked
        home = name.split(".")[1]
        for module, wanted, _ in imports(body):
            parts = module.split(".")[1:] or [wanted]
            if f"{PACKAGE}.{parts[0]}" in found and parts[0] != home:
                arrows[home].add(parts[0])

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            for there in arrows[todo.pop()] - seen:
                seen.add(there)
                todo.append(there)
        return seen

    reach = {home: reached(home) for home in list(arrows)}
    groups = {
        frozenset(b for b in reach if b in reach[a] and a in reach[b])
        for a in reach
        if a in reach[a]
    }
    return [" ".join(sorted(group)) for group in groups]


def functions(
    found: dict[str, tuple[Path, ast.Module]],
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function with its place."""
    for path, body in found.values():
        for node in ast.walk(body):
            if isinstance(node, FUNCTION):
                yield f"{path.name}:{node.lineno} {node.name}", node


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters a signature has besides self."""
    own = node.args.args[:1] != [] and node.args.args[0].arg in ("self", "cls")
    return len(node.args.args + node.args.kwonlyargs + node.args.posonlyargs) - own


def explained(node: ast.FunctionDef | ast.AsyncFunctionDef, text: list[str]) -> bool:
    """Whether a comment stands right above a function or at its signature."""
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    above, signature = text[max(first - 2, 0)], text[first - 1 : node.body[0].lineno - 1]
    return above.lstrip().startswith("#") or any("# " in line for line in signature)


def twice(found: dict[str, tuple[Path, ast.Module]]) -> list[str]:
    """Public classes and functions of one name in several packages, re-exports left out."""
    homes: dict[str, set[str]] = collections.defaultdict(set)
    for name, (_, body) in found.items():
        for node in body.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                homes[node.name].add(".".join(name.split(".")[1:2]))
    return [f"{name}: {', '.join(sorted(w))}" for name, w in sorted(homes.items()) if len(w) > 1]


def counts(src: Path) -> dict[str, tuple[int, list[str]]]:
    """Each number with the places behind it."""
    found = modules(src)
    text = {path: path.read_text(encoding="utf-8").splitlines() for path, _ in found.values()}
    long = [
        f"{place} ({(node.end_lineno or 0) - node.lineno + 1})"
        for place, node in functions(found)
        if (node.end_lineno or 0) - node.lineno + 1 > LONG
    ]
    wide = [
        f"{path.name}:{node.lineno} {node.name}"
        for path, body in found.values()
        for node in ast.walk(body)
        if isinstance(node, FUNCTION)
        and parameters(node) > WIDE
        and not explained(node, text[path])
    ]
    any_ = [
        f"{path.name}:{node.lineno}"
        for path, body in found.values()
        for node in ast.walk(body)
        if isinstance(node, ast.Name) and node.id == "Any"
    ]
    large = [f"{path.name} ({len(lines)})" for path, lines in text.items() if len(lines) > LINES]
    doors, groups, names = private_doors(found), circles(found), twice(found)
    return {
        "modules": (len(found), []),
        "lines": (sum(map(len, text.values())), []),
        "statements": (sum(statements(body) for _, body in found.values()), []),
        f"files over {LINES} lines": (len(large), large),
        f"functions over {LONG} lines": (len(long), long),
        f"signatures over {WIDE} parameters without a reason": (len(wide), wide),
        "`Any`": (len(any_), []),
        "circles between packages": (len(groups), groups),
        "private names imported from another package": (len(doors), doors),
        "public names in several packages": (len(names), names),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--src", type=Path, default=ROOT / "src")
    parser.add_argument("--list", action="store_true", help="every place behind a number")
    asked = parser.parse_args()
    for name, (count, places) in counts(asked.src).items():
        print(f"{name:48}{count:>8,}")
        for place in places if asked.list else ():
            print(f"    {place}")


if __name__ == "__main__":
    main()
