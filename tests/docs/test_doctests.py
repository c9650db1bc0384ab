"""The examples in docstrings run, and print what they say."""

from __future__ import annotations

import doctest
import importlib
import time
from pathlib import Path

import pytest
import torch

import equilibrist

PACKAGE = Path(equilibrist.__file__).parent
MODULES = [
    ".".join(["equilibrist", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    found = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert found
    said: list[str] = []
    for test in found:
        torch.manual_seed(0)
        begun = time.process_time()
        runner.run(test, out=said.append)
        assert time.process_time() - begun < 5, f"{test.name} is too dear for an example"
    assert runner.failures == 0, "".join(said)


def test_there_are_many() -> None:
    assert len(MODULES) > 20


def test_what_is_wrong_is_seen() -> None:
    (test,) = doctest.DocTestFinder().find(
        type("Wrong", (), {"__doc__": ">>> 1 + 1\n3\n"}), "wrong", globs={}
    )
    assert doctest.DocTestRunner().run(test, out=lambda text: None).failed == 1
