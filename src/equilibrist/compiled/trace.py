"""From a function of tensors to a graph of their operations, and from there to machine code."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from equilibrist.errors import CompilationError, EquilibristError
from equilibrist.optimizers import unfused

# The pattern matcher of torch 2.13 changes results: in a consensus step on 4x16 networks, the first weight's
# update is lost on the CPU. Steps are as fast without it.
_OPTIONS = {"pattern_matcher": False}


class Counter(TorchDispatchMode):
    """Counts the operations that are performed in its context."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations: int = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        self.operations += 1
        return func(*args, **(kwargs or {}))


def traced(
    function: Callable[..., list[Tensor]], examples: list[Tensor], what: str = "step"
) -> torch.fx.GraphModule:
    """Every tensor operation that `function(*examples)` performs, derivatives of any order included.

    Args:
        function: of tensors.
        examples: arguments.
        what: it is, in errors.

    Raises:
        CompilationError: the function reads a number from a tensor, or draws random numbers by itself.
    """
    try:
        with torch.no_grad(), unfused():
            graph = make_fx(function)(*examples)
    except EquilibristError:
        raise
    except Exception as error:  # whatever torch raises on what it cannot trace
        raise CompilationError(
            f"the {what} cannot be traced ({_first_line(error)}): take eager {what}s"
        ) from error
    for node in graph.graph.nodes:
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise CompilationError(
                f"the {what} draws random numbers by itself ({node.target}), which a compiled one would draw "
                f"otherwise: take eager {what}s"
            )
    return graph


def operations(graph: torch.fx.GraphModule) -> int:
    """How many operations a graph has."""
    return sum(node.op == "call_function" for node in graph.graph.nodes)


def compile_graph(
    graph: torch.fx.GraphModule, examples: list[Tensor], what: str = "step"
) -> Callable[..., list[Tensor]]:
    """The graph compiled by TorchInductor, for arguments shaped as the examples.

    Raises:
        CompilationError: there is no C++ compiler, or another reason why it fails.
    """
    if (
        torch.device(examples[0].device).type == "cpu"
        and shutil.which(os.environ.get("CXX", "g++")) is None
    ):
        raise CompilationError(
            f"no C++ compiler was found (g++, or what CXX names): install one, or take eager {what}s"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about its own parts
            from torch._inductor import compile as inductor
            from torch._inductor import config
        with config.patch(_OPTIONS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cast(Callable[..., list[Tensor]], inductor(graph, [*examples]))
    except Exception as error:
        raise CompilationError(
            f"the {what} cannot be compiled ({_first_line(error)}): take eager {what}s"
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__
