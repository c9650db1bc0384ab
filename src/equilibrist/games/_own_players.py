"""Players as a user holds them: a module, several, or plain tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

from torch import Tensor, nn

from equilibrist.errors import GameError
from equilibrist.nn.wrapped import unwrapped
from equilibrist.projections import Projection

Held = nn.Module | Tensor | Sequence[object] | Mapping[str, object]
Function = Callable[..., Any]  # of the user's: losses, samples, a score

# How the two players of other trainers are called: which of them answers.
_CRITICS = ("critic", "disc", "netd", "adversary")
_SHORT = {"d": True, "dis": True, "g": False, "gen": False, "netg": False, "generator": False}
GENERATOR, CRITIC = "generator", "critic"


class Modules(dict[str, Any]):
    """A player's modules by its name: `modules["critic"]` or `modules.critic`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"there is no player {name!r}: {', '.join(self)}") from None


class Several(nn.Module):
    """A player of several modules; `shown` returns them in a list or dictionary, as they were given."""

    def __init__(self, modules: Mapping[str, nn.Module], listed: bool) -> None:
        super().__init__()
        self.listed = listed
        for key, module in modules.items():
            self.add_module(key, module)

    def shown(self, values: Mapping[str, Tensor]) -> object:
        """The modules."""
        return list(self._modules.values()) if self.listed else dict(self._modules)


class Tensors(nn.Module):
    """A player that chooses tensors; `shown` returns their values."""

    def __init__(self, tensors: Mapping[str, nn.Parameter], single: bool) -> None:
        super().__init__()
        self.single = single
        for key, tensor in tensors.items():
            self.register_parameter(key, tensor)

    def shown(self, values: Mapping[str, Tensor]) -> object:
        """The tensors."""
        return values["value"] if self.single else {key: values[key] for key in self._parameters}


def one_module(name: str, held: Held) -> nn.Module:
    """What a player holds as one module: a module itself (unwrapped), or a `Several` or `Tensors` of the rest.

    Raises:
        GameError: anything else.
    """
    if isinstance(held, nn.Module):
        return unwrapped(held)
    if isinstance(held, Tensor):
        return Tensors({"value": _parameter(name, held)}, single=True)
    given: Iterable[tuple[object, object]] = ()
    if isinstance(held, list | tuple):
        given = enumerate(held)
    elif isinstance(held, Mapping):
        given = held.items()
    parts = {_key(name, key): part for key, part in given}
    modules = {key: unwrapped(p) for key, p in parts.items() if isinstance(p, nn.Module)}
    if parts and len(modules) == len(parts):
        return Several(modules, listed=not isinstance(held, Mapping))
    tensors = {key: part for key, part in parts.items() if isinstance(part, Tensor)}
    if parts and isinstance(held, Mapping) and len(tensors) == len(parts):
        return Tensors({key: _parameter(name, t) for key, t in tensors.items()}, single=False)
    raise GameError(
        f"the player {name!r} is of type {type(held).__name__}: give an nn.Module, a list or dictionary of them, or "
        "tensors that it chooses"
    )


def called_modules(module: nn.Module) -> list[nn.Module]:
    """The modules that a user's function calls by themselves."""
    if isinstance(module, Several):
        return list(module.children())
    return [] if isinstance(module, Tensors) else [module]


def in_given_form(module: nn.Module, values: Mapping[str, Tensor]) -> object:
    """What a user's function is handed of a player, in the form in which it was given."""
    return module.shown(values) if isinstance(module, Several | Tensors) else module


def _parameter(name: str, value: Tensor) -> nn.Parameter:
    if not value.is_floating_point():
        raise GameError(
            f"the player {name!r} holds a tensor of {value.dtype}: give floats, which can be descended"
        )
    return value if isinstance(value, nn.Parameter) else nn.Parameter(value.detach())


def _key(name: str, key: object) -> str:
    if "." in str(key) or not str(key):
        raise GameError(f"the player {name!r} holds a part called {str(key)!r}: leave the dot out")
    return str(key)


def roles(names: Sequence[str]) -> dict[str, str]:
    """The names that audits use.

    Args:
        names: those that the user gave.

    Returns:
        By the user's names: of two players the critic is the one so called, else the second; of more, their own.

    Raises:
        GameError: fewer than two players.
    """
    for name in names:
        if not isinstance(name, str):
            raise GameError(f"a player is called {name!r}: give players names, 'generator', say")
    if len(names) < 2:
        raise GameError(
            f"a game has two players or more, not {len(names)}: write "
            "AdversarialGame({'generator': ..., 'critic': ...}, losses, data)"
        )
    if len(names) > 2:
        return {name: name for name in names}
    first, second = names
    one, other = _is_critic(first), _is_critic(second)
    swapped = other is not True if one else one is None and other is False
    leader, follower = (second, first) if swapped else (first, second)
    return {leader: GENERATOR, follower: CRITIC}


def _is_critic(name: str) -> bool | None:
    """What a name says: a critic, a generator, or nothing."""
    called = name.lower()
    return True if called.startswith(_CRITICS) else _SHORT.get(called)


def check_frozen(frozen: object, names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules that no player trains, by name.

    Raises:
        GameError: something else than modules, or one under a player's name.
    """
    if frozen is None:
        return {}
    if not isinstance(frozen, Mapping):
        kind = type(frozen).__name__
        raise GameError(f"frozen={kind}: give a dictionary of modules, frozen={{'vgg': vgg}}")
    for name, module in frozen.items():
        if not isinstance(module, nn.Module):
            raise GameError(
                f"frozen holds a {type(module).__name__} under {name!r}: give an nn.Module; what is no module need not "
                "be handed over"
            )
        if name in names:
            raise GameError(f"frozen and players both hold {name!r}: give one of them another name")
    return dict(frozen)


def functions_of(losses: object, names: Sequence[str]) -> dict[str, Function] | Function:
    """The losses: one function, or one a player.

    Raises:
        GameError: something else, or a player without.
    """
    if isinstance(losses, Mapping):
        for name in names:
            if not callable(losses.get(name)):
                raise GameError(f"losses gives no function for the player {name!r}")
        return dict(losses)
    if not callable(losses):
        raise GameError(
            f"losses={type(losses).__name__}: give a function losses(modules, batch) that returns {{player: loss}}"
        )
    return losses


def class_of(module: nn.Module) -> str:
    """The class of a player's module, or those of its several, for the record."""
    if isinstance(module, Several):
        return ", ".join(type(part).__name__ for part in module.children())
    return "tensors" if isinstance(module, Tensors) else type(module).__name__


def projection_list(projections: Any) -> Iterable[Projection]:
    """Projections in a list, also where one is given by itself."""
    return [projections] if hasattr(projections, "player") else projections


def renamed(projection: Projection, roles: Mapping[str, str]) -> Projection:
    """A projection of a player under the name that audits use.

    Raises:
        GameError: a projection that cannot be given another player.
    """
    given: Any = projection
    role = roles.get(getattr(given, "player", ""), "")
    if not role or role == given.player:
        return projection
    if not is_dataclass(given):
        raise GameError(
            f"{given!r} is of the player {given.player!r}, which audits call {role!r}: give it player={role!r}"
        )
    return replace(given, player=role)  # type: ignore[type-var,return-value]
