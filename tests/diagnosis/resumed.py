"""A small adversarial loop whose load may forget something."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import softplus

OPTIMIZERS: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, 1e-2, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 1e-3, (0.5, 0.9)),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, amsgrad=True, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, 1e-3, momentum=0.5, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, 1e-2),
    "capturable": lambda p: torch.optim.NAdam(p, 1e-3),
}


class Trainer:
    """Two players, a schedule each (the critic's steps twice a round), an average, a pool, a running mean.

    Args:
        forget: what load does not restore, or restores wrongly.
        optimizer: of OPTIMIZERS.
        average: "module" (a copy, with buffers), or "dict" (of tensors).
    """

    names = ("generator", "critic", "adam_g", "adam_c", "rate_g", "rate_c")

    def __init__(self, forget: str = "", optimizer: str = "adam", average: str = "module") -> None:
        self.forget, self.hand_made = forget, average == "dict"
        self.generator = nn.Sequential(
            nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2)
        )
        self.critic = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 1))
        make = OPTIMIZERS[optimizer]
        self.adam_g, self.adam_c = make(self.generator.parameters()), make(self.critic.parameters())
        schedule = torch.optim.lr_scheduler
        self.rate_g = schedule.StepLR(self.adam_g, 2, 0.9)
        self.rate_c = schedule.CosineAnnealingLR(self.adam_c, 50)
        self.average: Any = self.averaged()
        self.noise = np.random.default_rng(0)
        self.data = torch.randn(256, 2)
        self.weight, self.place = 0.5, 0
        self.pool: list[torch.Tensor] = []
        self.log: list[float] = []

    def averaged(self) -> Any:
        if self.hand_made:
            return {k: v.detach().clone() for k, v in self.generator.named_parameters()}
        return copy.deepcopy(self.generator)

    def step(self, i: int) -> None:
        for _ in range(2):
            real = self.data[self.place : self.place + 16]
            self.place = (self.place + 16) % 256
            real = real + 0.01 * torch.from_numpy(self.noise.standard_normal((16, 2))).float()
            self.pool = [*self.pool, self.generator(torch.randn(16, 4)).detach()][-3:]
            loss = softplus(-self.critic(real)).mean() + softplus(self.critic(self.pool[0])).mean()
            self.adam_c.zero_grad()
            (self.weight * loss).backward()
            self.adam_c.step()
            self.rate_c.step()
        loss = softplus(-self.critic(self.generator(torch.randn(16, 4)))).mean()
        self.adam_g.zero_grad()
        loss.backward()
        self.adam_g.step()
        self.rate_g.step()
        self.weight = 0.9 * self.weight + 0.1 * loss.item()
        self.log.append(loss.item())
        with torch.no_grad():
            if self.hand_made:
                for key, value in self.generator.named_parameters():
                    self.average[key].lerp_(value, 0.1)
                return
            pairs = zip(self.average.parameters(), self.generator.parameters(), strict=True)
            for mine, theirs in pairs:
                mine.lerp_(theirs, 0.1)
            for mine, theirs in zip(self.average.buffers(), self.generator.buffers(), strict=True):
                mine.copy_(theirs)

    def save(self) -> dict[str, Any]:
        saved = {name: getattr(self, name).state_dict() for name in self.names}
        average = self.average if self.hand_made else self.average.state_dict()
        return saved | {
            "average": average,
            "torch": torch.get_rng_state(),
            "noise": self.noise.bit_generator.state,
            **{name: getattr(self, name) for name in ("weight", "place", "pool")},
        }

    def load(self, saved: dict[str, Any]) -> None:
        forget = self.forget
        for name in self.names:
            source = {
                "average as weights": {"generator": "average"},
                "schedules crossed": {"rate_c": "rate_g"},
            }.get(forget, {}).get(name, name)
            if name != forget:
                getattr(self, name).load_state_dict(saved[source])
        if forget == "buffers":
            self.generator[1].reset_running_stats()
        if forget == "average restarted":
            self.average = self.averaged()
        elif forget != "average" and self.hand_made:
            self.average = saved["average"]
        elif forget != "average":
            self.average.load_state_dict(saved["average"])
        if forget == "half":
            self.critic.load_state_dict({k: v.half() for k, v in saved["critic"].items()})
        if forget != "torch":
            torch.set_rng_state(saved["torch"])
        if forget != "noise":
            self.noise.bit_generator.state = saved["noise"]
        for name in ("weight", "place", "pool"):
            if name != forget:
                setattr(self, name, saved[name])
