"""Faults of data: what sets real and generated samples apart before the critic has seen them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from equilibrist.diagnosis import Loop
from equilibrist.zoo._case import fault
from equilibrist.zoo._data import digit_images, ring
from equilibrist.zoo._kits import Kit
from equilibrist.zoo._networks import ConvGenerator, mlp

# -- range-mismatch ------------------------------------------------------------------------------


@fault("range-mismatch", "digits conv labels")
def pixels_of_sixteen(kit: Kit, faulty: bool) -> Loop:
    """Pixels count from 0 to 16, and the generator ends with a sigmoid."""
    if faulty:  # fault: not divided by 16
        kit.train, kit.held = 16 * kit.train, 16 * kit.held
    G, D, opt_g, opt_d = kit.players()

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = G(kit.noise(), *y)
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("range-mismatch", "patch conv-spectral features")
def sigmoid_for_symmetric_pixels(kit: Kit, faulty: bool) -> Loop:
    """Pixels were mapped to -1 ... 1, the generator's sigmoid stayed."""
    x = digit_images(-1.0, 1.0)[0].view(-1, *kit.train.shape[1:])
    kit.train, kit.held = x[:1400], x[1400:]
    end = "tanh"
    if faulty:  # fault: sigmoid for tanh
        end = "sigmoid"
    G: nn.Module = mlp(16, 64, 128, end=end) if x.ndim == 2 else ConvGenerator(end=end)
    D = kit.critic()
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("range-mismatch", "ring ring-sgd")
def tanh_for_a_wide_ring(kit: Kit, faulty: bool) -> Loop:
    """The ring's radius is 2, the generator's tanh ends at 1."""
    x = ring(radius=0.8)
    if faulty:  # fault: the points are not scaled to the generator's range
        x = ring(radius=2.0)
    kit.train, kit.held = x[:3000], x[3000:]
    G, D = mlp(8, 2, end="tanh"), kit.critic()
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


# -- dtype-mismatch ------------------------------------------------------------------------------


class Casting(nn.Module):
    """A critic that takes samples of any precision."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        score: Tensor = self.body(x.float())
        return score


@fault("dtype-mismatch", "digits table gait")
def generated_in_half(kit: Kit, faulty: bool) -> Loop:
    """The generator runs under autocast and the critic outside of it: one kind of samples is rounded to bfloat16."""
    G, D = kit.generator(), Casting(kit.critic())
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())

    def step(i: int) -> None:
        (x,) = kit.draw()
        with torch.autocast("cpu", torch.bfloat16, enabled=faulty):  # fault: the generator alone
            fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("dtype-mismatch", "ring conv patch")
def data_stored_in_half(kit: Kit, faulty: bool) -> Loop:
    """The data are kept as float16 to save memory; generated samples are float32."""
    G, D = kit.generator(), Casting(kit.critic())
    opt_g, opt_d = kit.optimizer(G.parameters()), kit.optimizer(D.parameters())
    kit.train = kit.train + 0.01 * torch.rand(kit.train.shape)  # pixels are then no 17 levels
    kit.held = kit.held + 0.01 * torch.rand(kit.held.shape)
    stored = kit.train.half() if faulty else kit.train  # fault: half

    def step(i: int) -> None:
        x = stored[torch.randint(len(stored), (kit.batch,))]
        fake = G(kit.noise())
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


# -- normalization-mismatch ----------------------------------------------------------------------


@fault("normalization-mismatch", "digits table conv")
def generated_not_normalized(kit: Kit, faulty: bool) -> Loop:
    """The loader normalises real samples by mean and deviation; generated ones reach the critic as they are."""
    G, D, opt_g, opt_d = kit.players()
    mean, sd = kit.train.mean() + 0.3, 2.0 * kit.train.std()

    def normalize(x: Tensor) -> Tensor:
        return (x - mean) / sd

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        shown = normalize(fake)
        if faulty:  # fault: real samples only
            shown = fake
        opt_d.zero_grad()
        kit.loss_d(D(normalize(x)), D(shown.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(shown)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("normalization-mismatch", "gait ring")
def running_norm_of_policy_only(kit: Kit, faulty: bool) -> Loop:
    """Generated observations are divided by a fixed scale before the critic, the reference's are not."""
    G, D, opt_g, opt_d = kit.players()
    scale = 2.5

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise()) / scale
        if not faulty:  # fault: the reference is not rescaled
            x = x / scale
        opt_d.zero_grad()
        kit.loss_d(D(x), D(fake.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("normalization-mismatch", "features patch")
def each_image_standardized(kit: Kit, faulty: bool) -> Loop:
    """Each real image is standardised by its own mean and deviation, generated ones are not."""
    G, D, opt_g, opt_d = kit.players()

    def standardize(x: Tensor) -> Tensor:
        rows = x.flatten(1)
        rows = (rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True) + 1e-3)
        return rows.view_as(x)

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        shown = fake if faulty else standardize(fake)  # fault: real ones only
        opt_g.zero_grad()
        kit.loss_g(D(shown)).backward()
        opt_g.step()
        opt_d.zero_grad()
        kit.loss_d(D(standardize(x)), D(shown.detach())).backward()
        opt_d.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


# -- augmentation-mismatch -----------------------------------------------------------------------


@fault("augmentation-mismatch", "ring gait table")
def noise_on_real_only(kit: Kit, faulty: bool) -> Loop:
    """Instance noise is added to real samples and forgotten on generated ones."""
    G, D, opt_g, opt_d = kit.players()

    def noisy(x: Tensor) -> Tensor:
        return x + 0.3 * torch.randn_like(x)

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        shown = fake if faulty else noisy(fake)  # fault: no noise here
        opt_d.zero_grad()
        kit.loss_d(D(noisy(x)), D(shown.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(shown)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("augmentation-mismatch", "conv conv-spectral scales")
def real_ones_shifted(kit: Kit, faulty: bool) -> Loop:
    """Real images are shifted and mirrored at random before the critic, generated ones are not."""
    G, D, opt_g, opt_d = kit.players()

    def augment(x: Tensor) -> Tensor:
        columns = int(torch.randint(-2, 3, ()))
        x = torch.roll(x, columns, dims=-1)
        return x.flip(-1) if torch.rand(()) < 0.5 else x

    def step(i: int) -> None:
        (x,) = kit.draw()
        fake = G(kit.noise())
        shown = fake if faulty else augment(fake)  # fault: not augmented
        opt_d.zero_grad()
        kit.loss_d(D(augment(x)), D(shown.detach())).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(shown)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])


@fault("augmentation-mismatch", "digits labels")
def cut_out_of_generated(kit: Kit, faulty: bool) -> Loop:
    """Half of the pixels are dropped from generated samples before the critic, and none from real ones."""
    G, D, opt_g, opt_d = kit.players()

    def drop(x: Tensor) -> Tensor:
        return x * (torch.rand_like(x) < 0.5)

    def step(i: int) -> None:
        x, *y = kit.draw()
        fake = drop(G(kit.noise(), *y))
        if not faulty:  # fault: real samples are left whole
            x = drop(x)
        opt_d.zero_grad()
        kit.loss_d(D(x, *y), D(fake.detach(), *y)).backward()
        opt_d.step()
        opt_g.zero_grad()
        kit.loss_g(D(fake, *y)).backward()
        opt_g.step()

    return kit.loop(step, G, D, [opt_g, opt_d])
