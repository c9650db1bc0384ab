"""A module's forward pass as a pure function of its parameters and buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_leaves

from equilibrist.errors import GameError
from equilibrist.nn import noise, slopes
from equilibrist.nn.layer_watch import LayerWatch
from equilibrist.nn.stacked import fuse_linear_chains
from equilibrist.nn.weight_norm import replace_weight_norm
from equilibrist.nn.wrapped import Attributes, copied

_Norm = nn.modules.batchnorm._NormBase
Output = Any  # whatever a module returns
Slot = tuple[
    dict[str, Any], str, str
]  # where a layer keeps a tensor, its key there, and its name in the module
# What `release` puts back: torch's cache of parametrisations, recurrent layers' lists of weights, and the tensors.
Former = tuple[int, list[list[Tensor | None]], list[Tensor | None]]


SAME = 64  # of the last bits of the largest entry, by which two kernels may differ


class PureModule:
    """`module` without its tensors: `pure(params, buffers, x)` puts them in place for one call.

    Layers that keep running statistics while training (batch norm) use batch statistics and leave
    the running ones alone; `statistics` moves those on. The user's module is copied, never touched.

    Attributes:
        noise: where it draws random numbers in its forward pass: "critic.2 (Dropout)". Known after `check`.
        noise_sources: whose random numbers these are (`noise.GLOBAL`).

    torch.func.functional_call does the same at ten times the overhead; small networks feel it.
    """

    def __init__(self, module: nn.Module, name: str) -> None:
        _refuse(module, name)
        self.name = name
        self.noise: tuple[str, ...] = ()
        self.noise_sources: tuple[str, ...] = ()
        self._module = copied(module, name).to("meta")
        replace_weight_norm(self._module)
        fuse_linear_chains(self._module)
        self._lists = [m for m in self._module.modules() if _keeps_flat_weights(m)]
        self._recurrent = bool(self._lists)
        self._tracking = [
            m
            for m in self._module.modules()
            if isinstance(m, _Norm) and m.training and m.track_running_stats
        ]
        for layer in self._tracking:
            layer.track_running_stats = False
        # Tied tensors stand in several places and are addressed by their first name. Names are read
        # off the original: moving to "meta" has untied the copy.
        places = dict(self._module.named_modules(remove_duplicate=False))
        names = {id(t): path for path, t in [*module.named_parameters(), *module.named_buffers()]}
        self._parameters: list[Slot] = []
        self._constants: list[Slot] = []
        for path, owner in module.named_modules():
            for key, p in owner._parameters.items():
                if p is not None:
                    slots = self._parameters if p.requires_grad else self._constants
                    slots.append((places[path]._parameters, key, names[id(p)]))
            for key, b in owner._buffers.items():
                if b is not None:
                    self._constants.append((places[path]._buffers, key, names[id(b)]))
        self._places = [*self._parameters, *self._constants]
        self._attributes = Attributes.of(self._module)
        anchor = next(module.parameters(), None)
        self._native = None if anchor is None else (anchor.dtype, anchor.device)

    @property
    def keeps_statistics(self) -> bool:
        """Whether some layer keeps running statistics."""
        return bool(self._tracking)

    def __call__(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        *args: Tensor,
        **kwargs: object,
    ) -> Output:
        # A cache that is switched on would go on giving the weights of an earlier call.
        enabled, parametrize._cache_enabled = parametrize._cache_enabled, 0
        called = self._called if self._attributes is None else self._following
        try:
            return called(params, buffers, *args, **kwargs)
        finally:
            parametrize._cache_enabled = enabled

    def _following(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        *args: Tensor,
        **kwargs: object,
    ) -> Output:
        """The same with constants in the precision of the parameters, where that is not the module's own."""
        like = next(iter(params.values()), None)
        if self._attributes is None or like is None or (like.dtype, like.device) == self._native:
            return self._called(params, buffers, *args, **kwargs)
        with self._attributes.like(like):
            return self._called(params, buffers, *args, **kwargs)

    def _called(
        self,
        params: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        *args: Tensor,
        **kwargs: object,
    ) -> Output:
        if self._recurrent:  # their forward reads a private list that only functional_call renews
            held = {**params, **buffers}
            if slopes.active():  # cuDNN's recurrent kernels have no second derivative
                with torch.backends.cudnn.flags(enabled=False):
                    return torch.func.functional_call(self._module, held, args, kwargs)
            return torch.func.functional_call(self._module, held, args, kwargs)
        former = self._put(params, buffers)
        try:
            return self._module(*args, **kwargs)
        finally:
            self._restore(former)

    @property
    def module(self) -> nn.Module:
        """The module itself, which has values within `held` only."""
        return self._module

    def hold(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Former:
        """`module` with these values, to be used in any way: called several times, by its methods, in parts.

        Returns: what `release` needs to take them out again. `held` does both, and takes ten microseconds more.
        """
        enabled, parametrize._cache_enabled = parametrize._cache_enabled, 0
        lists = [layer._flat_weights for layer in self._lists]
        try:
            values = self._put(params, buffers)
        except KeyError:
            parametrize._cache_enabled = enabled
            raise
        for layer in self._lists:  # what a recurrent layer reads instead of its parameters
            names = layer._flat_weights_names
            layer._flat_weights = [getattr(layer, name, None) for name in names]
        return enabled, lists, values

    @contextmanager
    def held(self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> Iterator[None]:
        """`hold` as a context."""
        former = self.hold(params, buffers)
        try:
            yield
        finally:
            self.release(former)

    def release(self, former: Former) -> None:
        """Undo `hold`."""
        enabled, lists, values = former
        for layer, weights in zip(self._lists, lists, strict=True):
            layer._flat_weights = weights
        self._restore(values)
        parametrize._cache_enabled = enabled

    @contextmanager
    def tracking(self) -> Iterator[None]:
        """Running statistics are moved on within."""
        for layer in self._tracking:
            layer.track_running_stats = True
        try:
            yield
        finally:
            for layer in self._tracking:
                layer.track_running_stats = False

    def statistics(
        self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], *args: Tensor
    ) -> dict[str, Tensor]:
        """`buffers` after one forward pass in which running statistics are moved on."""
        renewed = {key: b.clone() for key, b in buffers.items()}
        with self.tracking(), torch.no_grad():
            self(params, renewed, *args)
        return renewed

    def _put(
        self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> list[Tensor | None]:
        """Put values in their places; what was there."""
        former = [owner[key] for owner, key, _ in self._places]
        try:
            for owner, key, name in self._parameters:
                owner[key] = params[name]
            for owner, key, name in self._constants:
                owner[key] = buffers[name]
        except KeyError:
            self._restore(former)
            raise
        return former

    def _restore(self, former: list[Tensor | None]) -> None:
        for (owner, key, _), value in zip(self._places, former, strict=True):
            owner[key] = value

    def check(
        self, params: Mapping[str, Tensor], buffers: Mapping[str, Tensor], *args: Tensor
    ) -> Output:
        """Run twice under one seed; note where random numbers are drawn, and return the output.

        Raises:
            GameError: a layer writes a buffer, the input is changed, the output is not finite, or two runs differ.
        """
        held = {key: b.clone() for key, b in buffers.items()}
        watch = LayerWatch()
        versions = [x._version for x in args]
        with watch.over(self._module, self.name), torch.no_grad():
            with noise.seeded(0, noise.GLOBAL):
                output = self(params, held, *args)
            fresh = {k: b.clone() for k, b in buffers.items()}
            # With a graph only of what does not come of the parameters that were put in.
            with noise.seeded(0, noise.GLOBAL), torch.enable_grad():
                again = output if watch.impure else self(params, fresh, *args)
        if not watch.impure and versions != [x._version for x in args]:
            watch.impure = (
                f"the {self.name} changes its input in place",
                "set inplace=False on its first layer",
            )
        if watch.impure:
            problem, remedy = watch.impure
            raise GameError(f"{problem}, so its loss is not a function of its parameters: {remedy}")
        made, anew = ([t for t in tree_leaves(o) if isinstance(t, Tensor)] for o in (output, again))
        if watch.unsound and not all(torch.isfinite(t).all() for t in made):
            raise GameError(
                f"the {self.name}'s output is not finite on a batch, and that of {watch.unsound[0]} is the first that "
                "is not: look at its weights and at what it divides by"
            )
        if any(t.requires_grad for t in anew):
            raise GameError(
                f"the {self.name} computes with weights that it does not hold as parameters (a lambda or a hook that "
                "keeps the module it was made for, or a tensor with requires_grad): reach them through self in "
                "forward, and make them nn.Parameter"
            )
        if len(made) != len(anew) or not all(
            _same_answer(a, b) for a, b in zip(made, anew, strict=True)
        ):
            raise GameError(
                f"the {self.name} gives two answers to the same input under the same seed, so its loss is not a "
                "function of its parameters: look for state kept between calls, or for random numbers from a "
                "generator of its own (take torch's, NumPy's or Python's global one, or make them part of the latent)"
            )
        self.noise = tuple(dict.fromkeys((*self.noise, *watch.noise)))
        self.noise_sources = noise.sources_to_seed({*self.noise_sources, *watch.sources})
        return output


def _keeps_flat_weights(layer: nn.Module) -> TypeGuard[nn.RNNBase]:
    return hasattr(layer, "_flat_weights")


def _refuse(module: nn.Module, name: str) -> None:
    for path, parameter in module.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise GameError(
                f"the {name}'s parameter {path} has no shape yet (a lazy layer): run the module once on a "
                "batch before you build the game"
            )
        if parameter.is_complex():
            raise GameError(
                f"the {name}'s parameter {path} is complex: keep it as real numbers [..., 2], and write "
                "torch.view_as_complex(self.{path}) in forward".replace(
                    "{path}", path.rsplit(".", 1)[-1]
                )
            )
    for path, layer in module.named_modules():
        hooks = [type(h).__name__ for h in layer._forward_pre_hooks.values()]
        # In training mode torch's forms overwrite their power vectors in every forward pass, in
        # evaluation mode they freeze them for good: a search then escapes the constraint.
        if type(layer).__name__ == "_SpectralNorm" or "SpectralNorm" in hooks:
            where = path.removesuffix(".0").replace("parametrizations.", "")
            raise GameError(
                f"the {name}'s {where or type(layer).__name__} has torch's spectral norm, which overwrites or freezes "
                "buffers of its own, so its loss is not a function of its parameters: take it off and pass "
                "spectral_norm=True to GAN (audit_pair does both by itself)"
            )


def _same_answer(a: Tensor, b: Tensor) -> bool:
    """Whether two outputs are one but for rounding: with a graph and without, a processor may take another kernel
    (oneDNN's LSTM does on some)."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if torch.equal(a, b):
        return True
    if not a.is_floating_point():
        return False
    most = float(torch.maximum(a.abs(), b.abs()).max())
    return float((a - b).abs().max()) <= SAME * torch.finfo(a.dtype).eps * most
