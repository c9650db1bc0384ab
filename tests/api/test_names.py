"""The package's face: curated, complete, lazy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import equilibrist


def test_names_resolve_and_are_few() -> None:
    assert len(equilibrist.__all__) <= 40
    assert sorted(equilibrist.__all__) == dir(equilibrist)
    for name in equilibrist.__all__:
        assert getattr(equilibrist, name) is not None


def test_type_checkers_see_the_same_names() -> None:
    offered = {name for names in equilibrist._WHERE.values() for name in names} | {"tree"}
    assert offered == set(equilibrist.__all__)
    source = Path(equilibrist.__file__).read_text(encoding="utf-8")
    block = source[source.index("if TYPE_CHECKING") : source.index("_WHERE")]
    assert not [name for name in equilibrist.__all__ if name not in block]


def test_unknown_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Gan'"):
        _ = equilibrist.Gan


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["list"], ["info", "mnist-sngan"]]
)
def test_help_and_lists_need_no_torch(arguments: list[str]) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"from equilibrist.cli import main; sys.exit(main({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
