"""Faults of resumption: what a loop keeps beside modules and optimisers, and savings that disturb it."""

from __future__ import annotations

import copy

import torch
from torch import nn

from equilibrist.diagnosis import Loop
from equilibrist.zoo._case import fault
from equilibrist.zoo._kits import Kit
from equilibrist.zoo.resume import follow, from_bytes, to_bytes, usual_round


@fault("state-not-restored", "digits gait table")
def noise_level_forgotten(kit: Kit, faulty: bool) -> Loop:
    """Instance noise adapts to how well the critic tells the samples apart; its level is in no checkpoint."""
    G, D, opt_g, opt_d = kit.players()
    level = 0.0

    def step(i: int) -> None:
        nonlocal level
        (x,) = kit.draw()
        fake = G(kit.noise())
        on_real = D(x + level * torch.randn_like(x))
        on_fake = D(fake.detach() + level * torch.randn_like(fake))
        opt_d.zero_grad()
        kit.loss_d(on_real, on_fake).backward()
        opt_d.step()
        order = float((on_real > on_fake).float().mean())
        level = min(0.2, max(0.0, level + (0.005 if order > 0.5 else -0.005)))
        opt_g.zero_grad()
        kit.loss_g(D(fake + level * torch.randn_like(fake))).backward()
        opt_g.step()

    def save() -> bytes:
        weights = {"G": G.state_dict(), "D": D.state_dict(), "random": torch.get_rng_state()}
        rest = {"opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
        return to_bytes({**weights, **rest, "level": level})

    def load(saved: bytes) -> None:
        nonlocal level
        state = from_bytes(saved)
        G.load_state_dict(state["G"])
        D.load_state_dict(state["D"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        level = 0.0 if faulty else state["level"]  # fault: from 0 again
        torch.set_rng_state(state["random"])

    return kit.loop(step, G, D, save=save, load=load)


@fault("state-not-restored", "ring features conv")
def pool_not_saved(kit: Kit, faulty: bool) -> Loop:
    """The pool of earlier samples that the critic is shown is empty after a resumption."""
    G, D, opt_g, opt_d = kit.players()
    pool: list[torch.Tensor] = []

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        pool.append(fake.detach()[: len(x) // 2])
        del pool[:-4]
        shown = torch.cat([fake.detach()[: len(x) - len(pool[0])], pool[0]])
        opt_d.zero_grad()
        kit.loss_d(D(x), D(shown)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    def save() -> bytes:
        weights = {"G": G.state_dict(), "D": D.state_dict(), "random": torch.get_rng_state()}
        rest = {"opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
        return to_bytes({**weights, **rest, "pool": pool})

    def load(saved: bytes) -> None:
        state = from_bytes(saved)
        G.load_state_dict(state["G"])
        D.load_state_dict(state["D"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        pool[:] = [] if faulty else state["pool"]  # fault: empty
        torch.set_rng_state(state["random"])

    return kit.loop(step, G, D, save=save, load=load)


@fault("save-disturbs", "ring digits table")
def average_left_in_place(kit: Kit, faulty: bool) -> Loop:
    """For the checkpoint the average is swapped in, and the weights are not put back."""
    G, D, opt_g, opt_d = kit.players()
    average = copy.deepcopy(G).requires_grad_(False)
    train = usual_round(kit, G, D, opt_g, opt_d)

    def step(i: int) -> None:
        train(i)
        follow(average, G, 0.05)

    def save() -> bytes:
        weights = copy.deepcopy(G.state_dict())
        G.load_state_dict(average.state_dict())
        best = copy.deepcopy(G.state_dict())  # what is handed out
        if not faulty:  # fault: not put back
            G.load_state_dict(weights)
        state = {"G": weights, "best": best, "average": average.state_dict(), "D": D.state_dict()}
        rest = {"opt_g": opt_g.state_dict(), "opt_d": opt_d.state_dict()}
        return to_bytes({**state, **rest, "random": torch.get_rng_state()})

    def load(saved: bytes) -> None:
        state = from_bytes(saved)
        G.load_state_dict(state["G"])
        average.load_state_dict(state["average"])
        D.load_state_dict(state["D"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        torch.set_rng_state(state["random"])

    return kit.loop(step, G, D, save=save, load=load, average=average)


@fault("save-disturbs", "conv features labels")
def left_in_evaluation_mode(kit: Kit, faulty: bool) -> Loop:
    """Saving makes a few samples in evaluation mode, and leaves the generator in it."""
    G, D, opt_g, opt_d = kit.players()

    def save() -> bytes:
        random = torch.get_rng_state()
        kit.sample(G, 8)
        torch.set_rng_state(random)
        G.train(not faulty)  # fault: eval() stays
        state: dict[str, nn.Module | torch.optim.Optimizer] = {"G": G, "D": D}
        state |= {"opt_g": opt_g, "opt_d": opt_d}
        return to_bytes({name: part.state_dict() for name, part in state.items()} | {"rng": random})

    def load(saved: bytes) -> None:
        state = from_bytes(saved)
        G.load_state_dict(state["G"])
        D.load_state_dict(state["D"])
        opt_g.load_state_dict(state["opt_g"])
        opt_d.load_state_dict(state["opt_d"])
        torch.set_rng_state(state["rng"])

    return kit.loop(usual_round(kit, G, D, opt_g, opt_d), G, D, save=save, load=load)
