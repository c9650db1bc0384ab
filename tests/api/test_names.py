"""The package's face: curated, complete, lazy."""

from __future__ import annotations

import importlib
import re
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
    with pytest.raises(AttributeError, match=r"no attribute 'Gan' \(did you mean GAN\?\)"):
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


def test_every_name_is_where_a_reader_would_look() -> None:
    names = (
        "Hinge LeastSquares FGAN R1 R2 Relativistic Averaged Consensus Extragradient Frechet Watch Settings Pair "
        "source_of SpectralBall Scheduled Clipped SGLD Mixture ensemble Play TorchRule Reconstruction"
    )
    for name in names.split():
        assert getattr(equilibrist, name) is not None
    for module, offered in equilibrist._ALSO.items():
        for name in offered:
            there = getattr(importlib.import_module(f"equilibrist.{module}"), name)
            assert getattr(equilibrist, name) is there
    assert not set(equilibrist._MODULES) & set(equilibrist._MODULE) - {"tree"}


def test_the_docs_use_names_that_can_be_imported() -> None:
    """Every class or function that a page writes as code, from the package or from a module that it names."""
    root = Path(equilibrist.__file__).parents[2]
    for page in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        text = page.read_text(encoding="utf-8")
        for name in set(re.findall(r"\beq\.([A-Za-z_]\w*)", text)):
            assert hasattr(equilibrist, name), f"{page.name}: eq.{name}"
        for module, name in re.findall(r"\beq\.([a-z_]+)\.([A-Za-z_]\w*)", text):
            assert hasattr(getattr(equilibrist, module), name), f"{page.name}: eq.{module}.{name}"
        for path in re.findall(r"\bfrom (equilibrist[\w.]*) import ([\w, ]+)", text):
            for name in path[1].split(","):
                assert hasattr(importlib.import_module(path[0]), name.strip()), (
                    f"{page.name}: {path}"
                )


def test_an_unknown_name_says_where_it_is() -> None:
    with pytest.raises(AttributeError, match=r"it is equilibrist\.mixed\.GridProx"):
        _ = equilibrist.GridProx
    with pytest.raises(AttributeError, match=r"did you mean Consensus\?"):
        _ = equilibrist.Concensus
