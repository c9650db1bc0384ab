"""Losses of one's own in the wiring check: the gradients of their terms at the loop's own weights and samples."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from equilibrist.diagnosis._calls import Coordinates
from equilibrist.diagnosis._seen import CRITIC, Opposition, opposed_parts
from equilibrist.diagnosis._untouched import untouched
from equilibrist.games import Modules, accepted_arguments
from equilibrist.interop.origin import tensors_of

Losses = Callable[..., Mapping[str, Tensor]]
TERMS = 12  # of a sum that are told apart
DEPTH = 24  # of nested sums
SUMS = ("AddBackward0", "SubBackward0")
PLAIN = {
    "Mean": "mean",
    "Sum": "sum",
    "Abs": "absolute value",
    "Softplus": "softplus",
    "Relu": "relu",
    "Pow": "square",
    "MseLoss": "MSE",
    "L1Loss": "L1",
    "SmoothL1Loss": "smooth L1",
    "BinaryCrossEntropyWithLogits": "BCE with logits",
    "BinaryCrossEntropy": "BCE",
    "NllLoss": "cross entropy",
    "Neg": "minus",
    "LogSigmoid": "logsigmoid",
    "Norm": "norm",
    "LinalgVectorNorm": "norm",
    "Var": "variance",
}


class Declared:
    """The user's losses, evaluated where the loop is.

    Args:
        losses: `losses(modules, batch[, z])`, as an `AdversarialGame` takes them.
        players: by role, (the user's name, modules).
        shown: by the user's name, what the function is handed of a player.
    """

    def __init__(
        self,
        losses: Losses,
        players: Mapping[str, tuple[str, list[nn.Module]]],
        shown: Mapping[str, object],
    ) -> None:
        self.losses, self.players = losses, players
        self.modules = Modules(shown)
        self.count = accepted_arguments(losses)[0]
        self.fault = ""
        self.through: set[str] = set()  # terms of the generator's loss that go through the critic

    def columns(
        self,
        role: str,
        at: Coordinates,
        batch: object,
        z: object = None,
        *,
        made: tuple[object, object],
    ) -> tuple[dict[str, Tensor], dict[str, str]]:
        """Gradients for a player's weights: of each term of its own loss ("own:1"), and of the other players' losses
        ("other").

        Where the critic is asked for, the generator gives for the input made[0] what it gave in the loop, made[1]:
        it may
        have been stepped since.

        Returns:
            The gradients, and each term in words.
        """
        name = self.players[role][0]
        with untouched(), torch.enable_grad():
            modules = self.modules
            if role == CRITIC:
                modules = Modules({k: _recorded(v, *made) for k, v in self.modules.items()})
                modules[name] = self.modules[name]
            with _outputs(self.players[CRITIC][1]) as scores:
                found = self._evaluated(modules, batch, z)
            if not isinstance(found, Mapping) or name not in found:
                return {}, {}
            columns: dict[str, Tensor] = {}
            words: dict[str, str] = {}
            self.through.clear()
            for k, (node, term, description) in enumerate(terms(found[name], at), 1):
                columns[f"own:{k}"], words[f"own:{k}"] = term, description
                if role != CRITIC and _reaches(node, scores):
                    self.through.add(f"own:{k}")
            others = [loss for other, loss in found.items() if other != name and loss.requires_grad]
            if others:
                columns["other"] = _gradient(torch.stack([o.reshape(()) for o in others]).sum(), at)
        return columns, words

    def opposition(self, columns: Mapping[str, Tensor], terms: Iterable[str]) -> Opposition | None:
        """How the generator's terms that go through the critic lie to its others: see `opposed_parts`."""
        own = [columns[name] for name in self.through if name in columns]
        rest = [columns[k] for k in terms if k in columns and k not in self.through]
        if not own or not rest:
            return None
        return opposed_parts(torch.stack(own).sum(0), torch.stack(rest).sum(0))

    def _evaluated(self, modules: Modules, batch: object, z: object) -> object:
        """What the losses return; of a generator with several inputs, the one that they take for z."""
        for latent in (z, *reversed(z)) if isinstance(z, tuple) else (z,):
            try:
                return self.losses(*(modules, batch, latent)[: self.count])
            except (TypeError, RuntimeError, AttributeError, IndexError) as error:
                self.fault = f"{type(error).__name__}: {error}"
        return None


class _Recorded:
    """A module that gives for one input what it gave before."""

    def __init__(self, module: nn.Module, given: object, made: object) -> None:
        self._module, self._given, self._made = module, given, made

    def __call__(self, *args: object, **kwargs: object) -> object:
        if args and args[0] is self._given and len(args) + len(kwargs) == 1:
            return tree_map(lambda t: t.detach() if isinstance(t, Tensor) else t, self._made)
        return self._module(*args, **kwargs)

    def __getattr__(self, name: str) -> object:
        return getattr(self._module, name)


def _recorded(held: object, given: object, made: object) -> object:
    return _Recorded(held, given, made) if isinstance(held, nn.Module) else held


@contextlib.contextmanager
def _outputs(modules: Sequence[nn.Module]) -> Iterator[set[object]]:
    """The places in graphs of what these modules return, while they are called."""
    places: set[object] = set()

    def note(module: nn.Module, args: object, made: object) -> None:
        places.update(t.grad_fn for t in tensors_of(made) if t.grad_fn is not None)

    handles = [module.register_forward_hook(note) for module in modules]
    try:
        yield places
    finally:
        for handle in handles:
            handle.remove()


def _reaches(node: Any, places: set[Any]) -> bool:
    """Whether a graph comes by one of these places."""
    stack, met = [node], set()
    while stack:
        here = stack.pop()
        if here is None or here in met:
            continue
        if here in places:
            return True
        met.add(here)
        stack.extend(parent for parent, _ in here.next_functions)
    return False


def terms(loss: Tensor, at: Coordinates) -> list[tuple[Any, Tensor, str]]:
    """A loss's terms, as far as its graph shows what it adds up: place in the graph, gradient, words."""
    nodes = list(_summands(loss.grad_fn))
    if not 1 < len(nodes) <= TERMS:
        return [(loss.grad_fn, _gradient(loss, at), _words(loss.grad_fn))]
    found = []
    for kept in nodes:
        handles = [
            node.register_prehook(lambda grads: tuple(None if g is None else g * 0 for g in grads))
            for node in nodes
            if node is not kept
        ]
        try:
            found.append((kept, _gradient(loss, at), _words(kept)))
        finally:
            for handle in handles:
                handle.remove()
    return found


def _gradient(loss: Tensor, at: Coordinates) -> Tensor:
    wanted = [p for p in at.params if p.requires_grad]
    if not wanted or not loss.requires_grad:
        return at.vector([None] * len(at.params))
    grads = torch.autograd.grad(loss, wanted, retain_graph=True, allow_unused=True)
    by = {id(p): g for p, g in zip(wanted, grads, strict=True)}
    return at.vector([by.get(id(p)) for p in at.params])


def _summands(node: Any, depth: int = DEPTH) -> Iterator[Any]:
    """Nodes of the graph that are added up."""
    if node is None:
        return
    parents = [parent for parent, _ in node.next_functions if parent is not None]
    if node.name() in SUMS and depth:
        for parent in parents:
            yield from _summands(parent, depth - 1)
    else:
        yield node


def _twice(node: Any, most: int = 200) -> bool:
    """Whether a term's graph differentiates a backward pass: a penalty on a gradient."""
    stack: list[Any] = [node]
    met: set[Any] = set()
    while stack and len(met) < most:
        here = stack.pop()
        if here is None or here in met:
            continue
        met.add(here)
        if "BackwardBackward" in here.name():
            return True
        stack.extend(parent for parent, _ in here.next_functions)
    return False


def _words(node: Any) -> str:
    """What a term is, by the functions nearest to its end."""
    parts: list[str] = []
    if _twice(node):
        return "gradient penalty"
    for _ in range(5):
        if node is None or len(parts) == 2:
            break
        word = PLAIN.get(node.name().removesuffix("0").removesuffix("Backward"))
        if word and word not in parts:
            parts.append(word)
        following: Sequence[Any] = [p for p, _ in node.next_functions if p is not None]
        node = following[0] if following else None
    return " of ".join(parts) or "term"
