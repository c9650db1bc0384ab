"""Accelerate: listening on the main process alone, to modules as `prepare` wraps them.

    with listening(accelerator, critic=critic, generator=generator) as heard:
        ...                      # the loop as it was
    heard.critic

Accelerate is not imported here: the accelerator is the user's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, Unpack

from torch import nn

from equilibrist.interop.listening import Heard, ListenOptions, listen


class _Accelerator(Protocol):
    """What is used of an `Accelerator`."""

    @property
    def is_main_process(self) -> bool: ...


@contextmanager
def listening(
    accelerator: _Accelerator,
    critic: nn.Module | str | None = None,
    generator: nn.Module | str | None = None,
    **options: Unpack[ListenOptions],
) -> Iterator[Heard]:
    """`listen` on the main process; on the others nothing is heard, and nothing is registered.

    What is recorded are the main process's batches. Steps that a gradient scaler skips, or that accumulation
    puts off, are none.

    Args:
        accelerator: the `Accelerator`.
        critic, generator: modules, prepared or not, or their classes' names.
        options: those of `listen`.

    Yields:
        What is heard; empty on other processes.
    """
    heard = listen(critic, generator, **options)
    if accelerator.is_main_process:
        with heard:
            yield heard
    else:
        yield heard
