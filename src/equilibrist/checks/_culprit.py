"""Which layer spoils a derivative: every layer of a pair by itself, on what it is given in one evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from equilibrist import tree
from equilibrist.core.draws import Draw
from equilibrist.core.game import Constants, Game, Players
from equilibrist.nn.slopes import Slopes

STEP = 1e-5
WRONG = 1e-4  # of a layer's own derivative: relative, by central differences in float64

Test = Callable[[Callable[..., Tensor], list[Tensor]], bool]


def faulty_layer(
    game: Game, players: Players, constants: Constants, draw: Draw, broken: Test
) -> str:
    """The first layer, innermost first, that is `broken` on its input: "the critic's 2 (MinibatchStd)"; "" where
    there is none, or the game is not made of modules."""
    found: list[str] = []
    handles: list[RemovableHandle] = []
    busy = False

    def look(player: str, path: str, layer: nn.Module, inputs: tuple[object, ...]) -> None:
        nonlocal busy
        given = inputs[0] if len(inputs) == 1 else None
        if busy or found or not isinstance(given, Tensor) or not given.is_floating_point():
            return
        busy = True
        try:
            named = dict(layer.named_parameters())
            leaves = [given.detach(), *(p.detach() for p in named.values())]

            def function(x: Tensor, *params: Tensor) -> Tensor:
                made = torch.func.functional_call(layer, dict(zip(named, params, strict=True)), x)
                return made if isinstance(made, Tensor) else x.new_zeros(())

            with torch.enable_grad(), Slopes(thrice=True):
                if broken(function, leaves):
                    where = f"'s {path}" if path else ""
                    found.append(f"the {player}{where} ({type(layer).__name__})")
        except RuntimeError:
            pass  # a layer that cannot be called this way cannot be named either
        finally:
            busy = False

    for player, pure in getattr(game, "_pure", {}).items():
        for path, layer in pure._module.named_modules():
            handles.append(
                layer.register_forward_hook(
                    lambda m, given, _, player=player, path=path: look(player, path, m, given)
                )
            )
    try:
        with torch.no_grad():
            game.losses(players, constants, draw)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def not_finite(function: Callable[..., Tensor], leaves: list[Tensor]) -> bool:
    """The layer makes values that are not finite of finite ones."""
    return tree.all_finite(*leaves) and not tree.all_finite(function(*leaves))


def no_derivative(function: Callable[..., Tensor], leaves: list[Tensor]) -> bool:
    """Its first or second derivative is not finite, though its values are."""
    made = _derivatives(function, leaves)
    return made is not None and not tree.all_finite(*made)


def not_repeatable(function: Callable[..., Tensor], leaves: list[Tensor]) -> bool:
    """It gives two answers to one input."""
    return not torch.equal(function(*leaves), function(*leaves))


def wrong_derivative(function: Callable[..., Tensor], leaves: list[Tensor]) -> bool:
    """Its first or second derivative is not that of its values, at every one of several steps and directions (a
    kink spoils some)."""
    for attempt in range(3):
        u, w = (_random(leaves, 10 + 2 * attempt + k) for k in range(2))
        for step in (STEP, STEP / 100):
            if _agrees(function, leaves, u, w, step):
                return False
    return True


def _agrees(
    function: Callable[..., Tensor],
    leaves: list[Tensor],
    u: list[Tensor],
    w: list[Tensor],
    step: float,
) -> bool:
    here = _derivatives(function, leaves, w)
    if here is None:
        return True
    moved = [[x + s * step * d for x, d in zip(leaves, u, strict=True)] for s in (1, -1)]
    count = len(leaves)
    pairs = [(_dot(here[:count], u), [_value(function, there) for there in moved])]
    sides = [made for there in moved if (made := _derivatives(function, there, w)) is not None]
    if len(sides) == 2:
        pairs.append((_dot(here[count:], u), [_dot(side[:count], w) for side in sides]))
    for exact, (ahead, behind) in pairs:
        seen = (ahead - behind) / (2 * step)
        noise = 1e-14 * (abs(ahead) + abs(behind)) / step
        if not abs(seen - exact) <= WRONG * max(abs(seen), abs(exact), 1e-6) + noise:
            return False
    return True


def _derivatives(
    function: Callable[..., Tensor], leaves: list[Tensor], w: list[Tensor] | None = None
) -> list[Tensor] | None:
    """Gradients of a random combination of outputs, then their derivative along `w`; None without a graph."""
    leaves = [x.detach().requires_grad_() for x in leaves]
    total = _combined(function(*leaves))
    if not total.requires_grad:
        return None
    first = _gradients(total, leaves, create_graph=True)
    w = w or _random(leaves, 1)
    along = torch.stack([(a * b).sum() for a, b in zip(first, w, strict=True)]).sum()
    if not along.requires_grad:
        return [*(g.detach() for g in first), *(torch.zeros_like(x) for x in leaves)]
    return [*(g.detach() for g in first), *_gradients(along, leaves)]


def _gradients(
    total: Tensor, leaves: list[Tensor], create_graph: bool = False
) -> tuple[Tensor, ...]:
    """Zero in what the total does not depend on."""
    return torch.autograd.grad(
        total, leaves, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )


def _value(function: Callable[..., Tensor], leaves: list[Tensor]) -> float:
    with torch.no_grad():
        return float(_combined(function(*leaves)))


def _combined(output: Tensor) -> Tensor:
    """A random combination of outputs, not linear in them: what a layer's linear part hides, it shows."""
    (c,) = _random([output], 0)
    return (c * output.sin()).sum()


def _random(like: list[Tensor], seed: int) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [
        torch.randn(x.shape, generator=rng, dtype=torch.float64).to(x)
        / math.sqrt(max(x.numel(), 1))
        for x in like
    ]


def _dot(a: list[Tensor], b: list[Tensor]) -> float:
    return float(sum((x * y).sum() for x, y in zip(a, b, strict=True)))
