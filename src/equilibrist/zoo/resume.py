"""Faults of resumption: what a checkpoint leaves out. What they train is healthy."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from equilibrist.diagnosis import Loop
from equilibrist.zoo._case import fault
from equilibrist.zoo._kits import Kit


def packed(state: dict[str, Any]) -> bytes:
    """What torch.save would write to a file."""
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def unpacked(saved: bytes) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(saved), weights_only=True)
    return state


def usual_round(
    kit: Kit, G: nn.Module, D: nn.Module, opt_g: torch.optim.Optimizer, opt_d: torch.optim.Optimizer
) -> Callable[[int], None]:
    """A round of a healthy loop."""

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()

    return step


@fault("weights-not-restored", "ring conv-spectral gait")
def critic_not_saved(kit: Kit, faulty: bool) -> Loop:
    """The generator is what one wants in the end, so the checkpoint holds the generator."""
    G, D, opt_g, opt_d = kit.players()

    def save() -> bytes:
        state = {"G": G.state_dict(), "opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
        if not faulty:  # fault: the critic's weights are missing
            state["D"] = D.state_dict()
        return packed({**state, "random": torch.get_rng_state()})

    def load(saved: bytes) -> None:
        state = unpacked(saved)
        G.load_state_dict(state["G"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        if "D" in state:
            D.load_state_dict(state["D"])
        torch.set_rng_state(state["random"])

    return kit.loop(usual_round(kit, G, D, opt_g, opt_d), G, D, save=save, load=load)


@fault("weights-not-restored", "conv patch")
def buffers_not_saved(kit: Kit, faulty: bool) -> Loop:
    """named_parameters() was saved: batch norm's statistics are buffers."""
    G, D, opt_g, opt_d = kit.players()

    def save() -> bytes:
        weights = {"G": G.state_dict(), "D": D.state_dict()}
        if faulty:  # fault: parameters alone
            weights = {"G": dict(G.named_parameters()), "D": dict(D.named_parameters())}
        rest = {"opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
        return packed({**weights, **rest, "random": torch.get_rng_state()})

    def load(saved: bytes) -> None:
        state = unpacked(saved)
        G.load_state_dict(state["G"], strict=False)
        D.load_state_dict(state["D"], strict=False)
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        torch.set_rng_state(state["random"])

    return kit.loop(usual_round(kit, G, D, opt_g, opt_d), G, D, save=save, load=load)


@fault("moments-not-restored", "ring labels gait")
def weights_alone(kit: Kit, faulty: bool) -> Loop:
    """The checkpoint holds both networks and no optimiser."""
    G, D, opt_g, opt_d = kit.players()
    train = usual_round(kit, G, D, opt_g, opt_d)

    def save() -> bytes:
        state = {"G": G.state_dict(), "D": D.state_dict(), "random": torch.get_rng_state()}
        return packed({**state, "opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()})

    def load(saved: bytes) -> None:
        nonlocal opt_g, opt_d, train
        state = unpacked(saved)
        G.load_state_dict(state["G"])
        D.load_state_dict(state["D"])
        opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())
        if not faulty:  # fault: the optimisers start anew
            opt_g.load_state_dict(state["opt_g"])
            opt_d.load_state_dict(state["opt_d"])
        train = usual_round(kit, G, D, opt_g, opt_d)
        torch.set_rng_state(state["random"])

    return kit.loop(lambda i: train(i), G, D, save=save, load=load)


@fault("moments-not-restored", "digits table scales")
def one_optimizer_saved(kit: Kit, faulty: bool) -> Loop:
    """The generator's optimiser is in the checkpoint, the critic's is not."""
    G, D, opt_g, opt_d = kit.players()

    def save() -> bytes:
        state = {"G": G.state_dict(), "D": D.state_dict(), "opt_g": opt_g.state_dict()}
        if not faulty:  # fault: opt_d is missing
            state["opt_d"] = opt_d.state_dict()
        return packed({**state, "random": torch.get_rng_state()})

    def load(saved: bytes) -> None:
        state = unpacked(saved)
        G.load_state_dict(state["G"])
        D.load_state_dict(state["D"])
        opt_g.load_state_dict(state["opt_g"])
        if "opt_d" in state:
            opt_d.load_state_dict(state["opt_d"])
        torch.set_rng_state(state["random"])

    return kit.loop(usual_round(kit, G, D, opt_g, opt_d), G, D, save=save, load=load)


@fault("average-not-restored", "ring digits labels")
def average_loaded_as_weights(kit: Kit, faulty: bool) -> Loop:
    """The checkpoint holds the average under the generator's name, and training goes on from it."""
    G, D, opt_g, opt_d = kit.players()
    average = copy.deepcopy(G).requires_grad_(False)
    train = usual_round(kit, G, D, opt_g, opt_d)

    def step(i: int) -> None:
        train(i)
        for mean, p in zip(average.parameters(), G.parameters(), strict=True):
            mean.lerp_(p.detach(), 0.05)

    def save() -> bytes:
        weights = {"G": G.state_dict(), "average": average.state_dict(), "D": D.state_dict()}
        if faulty:  # fault: the average in place of the weights
            weights["G"] = average.state_dict()
        rest = {"opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
        return packed({**weights, **rest, "random": torch.get_rng_state()})

    def load(saved: bytes) -> None:
        state = unpacked(saved)
        G.load_state_dict(state["G"])
        average.load_state_dict(state["average"])
        D.load_state_dict(state["D"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        torch.set_rng_state(state["random"])

    return kit.loop(step, G, D, save=save, load=load, average=average)


@fault("average-not-restored", "table gait features")
def average_starts_anew(kit: Kit, faulty: bool) -> Loop:
    """The average is not in the checkpoint; after a resumption it starts from the weights of that moment."""
    G, D, opt_g, opt_d = kit.players()
    average = copy.deepcopy(G).requires_grad_(False)
    train = usual_round(kit, G, D, opt_g, opt_d)

    def step(i: int) -> None:
        train(i)
        for mean, p in zip(average.parameters(), G.parameters(), strict=True):
            mean.lerp_(p.detach(), 0.02)

    def save() -> bytes:
        weights = {"G": G.state_dict(), "D": D.state_dict(), "average": average.state_dict()}
        rest = {"opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
        return packed({**weights, **rest, "random": torch.get_rng_state()})

    def load(saved: bytes) -> None:
        state = unpacked(saved)
        G.load_state_dict(state["G"])
        D.load_state_dict(state["D"])
        average.load_state_dict(state["G" if faulty else "average"])  # fault: the weights' own
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        torch.set_rng_state(state["random"])

    return kit.loop(step, G, D, save=save, load=load, average=average)


@fault("schedule-not-restored", "digits ring conv")
def scheduler_not_saved(kit: Kit, faulty: bool) -> Loop:
    """The scheduler is made anew after a resumption, and decays from the start again."""
    G, D, opt_g, opt_d = kit.players()
    decay = LambdaLR(opt_g, lambda epoch: 0.98**epoch)
    train = usual_round(kit, G, D, opt_g, opt_d)

    def step(i: int) -> None:
        train(i)
        decay.step()

    def save() -> bytes:
        state = {"G": G.state_dict(), "D": D.state_dict(), "random": torch.get_rng_state()}
        if not faulty:  # fault: the scheduler's state is missing
            state["decay"] = decay.state_dict()
        return packed({**state, "opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()})

    def load(saved: bytes) -> None:
        nonlocal decay
        state = unpacked(saved)
        G.load_state_dict(state["G"])
        D.load_state_dict(state["D"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        rates = [group["lr"] for group in opt_g.param_groups]
        decay = LambdaLR(opt_g, lambda epoch: 0.98**epoch)
        if "decay" in state:
            decay.load_state_dict(state["decay"])
            for group, rate in zip(opt_g.param_groups, rates, strict=True):
                group["lr"] = rate
        torch.set_rng_state(state["random"])

    return kit.loop(step, G, D, save=save, load=load)


@fault("schedule-not-restored", "gait labels patch")
def critic_schedule_at_other_step(kit: Kit, faulty: bool) -> Loop:
    """The critic's schedule, which started later, is resumed at the generator's step."""
    G, D, opt_g, opt_d = kit.players()
    cosine_g, cosine_d = CosineAnnealingLR(opt_g, 300), CosineAnnealingLR(opt_d, 300)
    train = usual_round(kit, G, D, opt_g, opt_d)

    def step(i: int) -> None:
        train(i)
        cosine_g.step()
        if i >= 5:
            cosine_d.step()

    def save() -> bytes:
        weights = {"G": G.state_dict(), "D": D.state_dict(), "random": torch.get_rng_state()}
        schedules = {"cosine_g": cosine_g.state_dict(), "cosine_d": cosine_d.state_dict()}
        rest = {"opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
        return packed({**weights, **schedules, **rest})

    def load(saved: bytes) -> None:
        state = unpacked(saved)
        G.load_state_dict(state["G"])
        D.load_state_dict(state["D"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        cosine_g.load_state_dict(state["cosine_g"])
        cosine_d.load_state_dict(state["cosine_g" if faulty else "cosine_d"])  # fault: the other's
        torch.set_rng_state(state["random"])

    return kit.loop(step, G, D, save=save, load=load)


@fault("schedule-not-restored", "table features")
def count_of_warm_up(kit: Kit, faulty: bool) -> Loop:
    """The rate's warm-up counts updates in a variable that no checkpoint holds."""
    G, D, opt_g, opt_d = kit.players()
    train = usual_round(kit, G, D, opt_g, opt_d)
    updates = 0

    def step(i: int) -> None:
        nonlocal updates
        updates += 1
        for optimizer in (opt_g, opt_d):
            for group in optimizer.param_groups:
                group["lr"] = group.setdefault("full", group["lr"]) * min(1.0, updates / 150)
        train(i)

    def save() -> bytes:
        weights = {"G": G.state_dict(), "D": D.state_dict(), "random": torch.get_rng_state()}
        rest = {"opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
        return packed({**weights, **rest, "updates": updates})

    def load(saved: bytes) -> None:
        nonlocal updates
        state = unpacked(saved)
        G.load_state_dict(state["G"])
        D.load_state_dict(state["D"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        updates = 0 if faulty else state["updates"]  # fault: it counts from 0 again
        torch.set_rng_state(state["random"])

    return kit.loop(step, G, D, save=save, load=load)


@fault("random-not-restored", "ring digits conv")
def random_state_not_saved(kit: Kit, faulty: bool) -> Loop:
    """Weights and optimisers are saved; the random state is not."""
    G, D, opt_g, opt_d = kit.players()

    def save() -> bytes:
        state = {"G": G.state_dict(), "D": D.state_dict()}
        rest = {"opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
        return packed({**state, **rest, "random": torch.get_rng_state()})

    def load(saved: bytes) -> None:
        state = unpacked(saved)
        G.load_state_dict(state["G"])
        D.load_state_dict(state["D"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        if not faulty:  # fault: the random state stays that of the new process
            torch.set_rng_state(state["random"])

    return kit.loop(usual_round(kit, G, D, opt_g, opt_d), G, D, save=save, load=load)


@fault("random-not-restored", "table gait features")
def place_in_the_data(kit: Kit, faulty: bool) -> Loop:
    """Data are gone through in order; after a resumption the epoch begins anew."""
    G, D, opt_g, opt_d = kit.players()
    place = 0

    def next_batch() -> torch.Tensor:
        nonlocal place
        rows = torch.arange(place, place + kit.batch) % len(kit.train)
        place += kit.batch
        return kit.train[rows]

    def step(i: int) -> None:
        x = next_batch()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    def save() -> bytes:
        state = {"G": G.state_dict(), "D": D.state_dict(), "random": torch.get_rng_state()}
        rest = {"opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
        return packed({**state, **rest, "place": place})

    def load(saved: bytes) -> None:
        nonlocal place
        state = unpacked(saved)
        G.load_state_dict(state["G"])
        D.load_state_dict(state["D"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        place = 0 if faulty else state["place"]  # fault: from the first sample again
        torch.set_rng_state(state["random"])

    return kit.loop(step, G, D, save=save, load=load)
