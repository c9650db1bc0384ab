"""What holds for every test of watching and listening."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from listened import hooks


@pytest.fixture(autouse=True)
def no_hook_is_left() -> Iterator[None]:
    assert hooks() == 0
    yield
    assert hooks() == 0
