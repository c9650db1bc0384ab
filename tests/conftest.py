"""What holds for every audit that any test makes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(autouse=True, scope="session")
def no_audit_contradicts_itself() -> Iterator[None]:
    """The table of implications holds on every audit, whatever it was made for."""
    from equilibrist.checks._implications import contradictions
    from equilibrist.checks._result import Audit

    plain = Audit.__init__

    @functools.wraps(plain)
    def checked(self: Audit, *args: Any, **kwargs: Any) -> None:
        plain(self, *args, **kwargs)
        if sys._getframe(1).f_code.co_name == "audit_game":  # not made by hand
            assert contradictions(tuple(self.values())) == ()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Audit, "__init__", checked)
        yield


@pytest.fixture(autouse=True, scope="session")
def nothing_waits_for_the_disk() -> Iterator[None]:
    """A run of four steps flushes sixty files, a third of its time. Tests of flushing wrap this stand-in as they would
    the call; those that kill use processes of their own, and the call itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield
