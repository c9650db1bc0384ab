"""A user's own modules: what torch's layers compute is what is audited, or one line names the mend."""

from __future__ import annotations

import copy
import json
import re
import runpy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from equilibrist.checks import Settings, Verdict, audit_pair
from equilibrist.checks.pair import Pair
from equilibrist.errors import EquilibristError, GameError, RecipeError
from equilibrist.formulations import WGAN, Vanilla
from equilibrist.games import GAN
from equilibrist.interop import Watch
from equilibrist.nn.torch_spectral_norm import foreign, largest_singular_value

F64 = torch.float64
REAL = torch.randn(300, 2, generator=torch.Generator().manual_seed(1)) * torch.tensor([2.0, 0.5])
QUICK = Settings(
    batch=32, starts=1, steps=30, groups=3, group_batches=2, looks=2, batches=8, look_batches=4
)
CHECKS = ("self-tests", "stationary", "nash")


def old_weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(layer)


NORMS: dict[str, Callable[[Any], Any]] = {
    "none": lambda layer: layer,
    "hook": nn.utils.spectral_norm,
    "parametrisation": parametrizations.spectral_norm,
}


def weights(module: nn.Module, seed: int) -> nn.Module:
    """The same numbers in whichever form the module keeps them; power iterations converged."""
    draws = torch.Generator().manual_seed(seed)
    ends = {"bias": 0, "weight": 1, "weight_orig": 1, "original": 1}
    named = [(k, p) for k, p in module.named_parameters() if k.rsplit(".", 1)[-1] in ends]
    named.sort(key=lambda pair: (pair[0].split(".")[0], ends[pair[0].rsplit(".", 1)[-1]]))
    with torch.no_grad():
        for _, p in named:
            p.copy_(torch.randn(p.shape, generator=draws) / max(p.shape[-1], 1) ** 0.5)
    return module


def generator(*middle: nn.Module, wrap: Any = NORMS["none"]) -> nn.Module:
    layers = [wrap(nn.Linear(3, 16)), *middle, nn.Tanh(), wrap(nn.Linear(16, 2))]
    return weights(nn.Sequential(*layers), 2)


def critic(wrap: Any = NORMS["none"], *middle: nn.Module) -> nn.Module:
    layers = [wrap(nn.Linear(2, 16)), *middle, nn.LeakyReLU(0.2), wrap(nn.Linear(16, 1))]
    module = weights(nn.Sequential(*layers), 3)
    mode = module.training
    for layer in module.train().modules():  # converge the power iterations
        if isinstance(layer, nn.Linear):
            for _ in range(200):
                layer(torch.zeros(1, layer.in_features))
    return module.train(mode)


def audited(g: nn.Module, c: nn.Module, **options: Any) -> Any:
    return audit_pair(
        g,
        c,
        options.pop("data", REAL),
        options.pop("formulation", Vanilla()),
        **{"latent": 3, "settings": QUICK, "checks": CHECKS, "progress": "none", **options},
    )


def verdicts(found: Any) -> dict[str, Verdict]:
    return {c.claim: c.verdict for c in found.values()}


# -- spectral norm ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["hook", "parametrisation"])
@pytest.mark.parametrize("mode", ["as is", "eval"])
def test_torchs_spectral_norm_is_audited_as_ours(form: str, mode: str) -> None:
    clean = audited(generator(), critic(), spectral_norm=True)
    found = audited(generator(), critic(NORMS[form]), mode=mode)
    assert verdicts(found) == verdicts(clean)
    assert found["self-tests"].verdict is Verdict.VERIFIED
    for player in ("generator", "critic"):
        a, b = (x[f"stationary/{player}"].evidence["residual"] for x in (found, clean))
        assert a == pytest.approx(b, rel=1e-4)
    lags = found.about["spectral_norm"]["critic"]
    assert len(lags) == 2
    assert all(lag == pytest.approx(1, abs=1e-4) for lag in lags.values())
    assert found["nash"].scope["sigma_in_training"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("form", ["hook", "parametrisation"])
def test_the_audited_scores_are_those_of_the_users_module(form: str) -> None:
    module = critic(NORMS[form])
    made = foreign(module, "critic")
    game = GAN(generator(), made.module, WGAN(), latent=3, spectral_norm=made.normalised)
    start = game.init()
    with torch.no_grad():
        ours = game.critic(start.players, start.constants)(REAL)
        theirs = copied_eval(module)(REAL)
    torch.testing.assert_close(ours, theirs.flatten(), rtol=1e-4, atol=1e-5)


def copied_eval(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode by way of the state_dict, as a checkpoint goes."""
    state = module.state_dict()
    form = "hook" if any(k.endswith("_orig") for k in state) else "parametrisation"
    fresh = critic(NORMS[form])
    fresh.load_state_dict(state)
    return fresh.eval()


def test_an_estimate_that_is_off_is_warned_of_and_reported() -> None:
    module = critic(nn.utils.spectral_norm)
    with torch.no_grad():
        module[0].weight_u.copy_(nn.functional.normalize(torch.arange(1.0, 17.0), dim=0))
    sigma = float(torch.linalg.matrix_norm(module[0].weight_orig.detach(), 2))
    estimate = float(module[0].weight_u @ module[0].weight_orig.detach() @ module[0].weight_v)
    with pytest.warns(UserWarning, match=r"critic's 0\.weight_orig is divided by torch's estimate"):
        found = audited(generator(), module, checks=("stationary",))
    lag = found.about["spectral_norm"]["critic"]["0.weight_orig"]
    assert lag == pytest.approx(sigma / estimate, rel=1e-4)
    assert abs(lag - 1) > 0.05


@pytest.mark.parametrize("form", ["hook", "parametrisation"])
def test_generators_and_transposed_convolutions(form: str) -> None:
    """Divided by the norm of the matrix that torch reads: the second dimension as rows."""
    wrap = NORMS[form]
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(3, 18),
        nn.Unflatten(1, (2, 3, 3)),
        wrap(nn.ConvTranspose2d(2, 1, 3)),
        nn.Flatten(),
    )
    for _ in range(300):
        module(torch.zeros(1, 3))
    expected = copy_of(module).eval()(torch.ones(4, 3)).detach()
    made = foreign(module, "generator")
    torch.testing.assert_close(
        made.module(torch.ones(4, 3)).detach(), expected, rtol=1e-4, atol=1e-5
    )
    assert made.normalised == ()
    assert [s.dim for s in made.spectral] == [1]
    found = audited(module, nn.Linear(25, 1), data=torch.randn(100, 25), checks=("self-tests",))
    assert found["self-tests"].verdict is Verdict.VERIFIED, found["self-tests"].summary
    assert len(found.about["spectral_norm"]["generator"]) == 1


def copy_of(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        module(torch.zeros(1, 3))  # leaves no graph behind in torch's hooks
    return copy.deepcopy(module)


def test_the_norm_is_twice_differentiable() -> None:
    matrix = torch.randn(4, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    matrix.requires_grad_()
    assert torch.autograd.gradcheck(largest_singular_value, matrix)
    assert torch.autograd.gradgradcheck(largest_singular_value, matrix)
    tied = torch.eye(3, dtype=F64, requires_grad=True)  # a derivative of an SVD would be NaN
    (slope,) = torch.autograd.grad(largest_singular_value(tied), tied)
    assert float(slope.norm()) == pytest.approx(1)


# -- weight norm --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrap", [old_weight_norm, parametrizations.weight_norm], ids=["hook", "new"]
)
def test_weight_norm_is_kept(wrap: Any) -> None:
    """In the parametrisation by hand, g v / |v|, everything comes out the same."""
    modules = []
    for form in (wrap, Written):
        torch.manual_seed(5)
        modules.append(nn.Sequential(form(nn.Linear(2, 8)), nn.Tanh(), form(nn.Linear(8, 1))))
    modules[0](REAL)  # a forward pass leaves a weight with a graph behind
    ours, clean = (audited(generator(), m) for m in modules)
    assert ours["self-tests"].verdict is Verdict.VERIFIED, ours["self-tests"].summary
    assert verdicts(ours) == verdicts(clean)
    a, b = (x["stationary/critic"].evidence["residual"] for x in (ours, clean))
    assert a == pytest.approx(b, rel=1e-4)


class Written(nn.Module):
    """Weight norm of a linear layer, written out."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.v = nn.Parameter(layer.weight.detach().clone())
        self.g = nn.Parameter(self.v.detach().norm(dim=1, keepdim=True))
        self.bias = nn.Parameter(layer.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.g * self.v / self.v.norm(dim=1, keepdim=True)
        return nn.functional.linear(x, weight, self.bias)


# -- dropout, batch norm, conditions ----------------------------------------------------------------------


def test_dropout_is_left_out_in_evaluation_mode() -> None:
    module = critic(NORMS["none"], nn.Dropout(0.5))
    found = audited(generator(), module, mode="eval")
    assert "noise" not in found["nash"].scope
    assert module.training
    plain = audited(generator(), critic(NORMS["none"], nn.Identity()))
    assert verdicts(found) == verdicts(plain)
    assert found["self-tests"].verdict is Verdict.VERIFIED


def test_batch_norm_in_either_mode() -> None:
    module = generator(nn.BatchNorm1d(16))
    with torch.no_grad():
        module[1].running_mean.fill_(1.5)
    before = copy.deepcopy(module.state_dict())
    training, evaluation = (audited(module, critic(), mode=m) for m in ("train", "eval"))
    for found in (training, evaluation):
        assert found["self-tests"].verdict is Verdict.VERIFIED
    a, b = (x["stationary/critic"].evidence["residual"] for x in (training, evaluation))
    assert a != pytest.approx(b, rel=1e-2)
    assert training.about["game"]["separable"] is False
    assert evaluation.about["game"]["separable"] is True
    assert module.training
    assert all(torch.equal(before[k], v) for k, v in module.state_dict().items())


class Labelled(nn.Module):
    """A player that is shown a label."""

    def __init__(self, inner: int, outer: int) -> None:
        super().__init__()
        self.code, self.body = nn.Embedding(3, 4), nn.Linear(inner + 4, outer)

    def forward(self, x: Tensor, label: Tensor) -> Tensor:
        out: Tensor = self.body(torch.cat([x, self.code(label)], 1).tanh())
        return out


def test_conditional_pairs_with_a_loader_of_labels() -> None:
    torch.manual_seed(0)
    g, c = Labelled(3, 2), Labelled(2, 1)
    labels = torch.arange(len(REAL)) % 3
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(REAL.clamp(-0.9, 0.9), labels), batch_size=50, shuffle=True
    )
    state = torch.get_rng_state()
    found = audited(g, c, data=loader, condition=3)
    assert torch.equal(state, torch.get_rng_state())
    assert found["self-tests"].verdict is Verdict.VERIFIED
    assert found["nash"].verdict in (Verdict.REFUTED, Verdict.NOT_REFUTED)


# -- what is left behind, and what is written -------------------------------------------------------------


@pytest.mark.parametrize("form", ["hook", "parametrisation"])
def test_nothing_is_left_behind_and_witnesses_load(form: str, tmp_path: Path) -> None:
    """A critic of a bad pair gains; the witness goes into the user's own module by load_state_dict."""
    g, c = generator(), critic(NORMS[form])
    with torch.no_grad():
        g[-1].bias.add_(3.0)
    c(REAL)
    before = [copy.deepcopy(m.state_dict()) for m in (g, c)]
    state = torch.get_rng_state()
    settings = Settings(
        batch=64,
        starts=1,
        steps=200,
        groups=3,
        group_batches=2,
        looks=4,
        batches=8,
        tolerance=0.001,
    )
    found = audited(g, c, formulation=WGAN(), settings=settings, out=tmp_path / "a")
    assert torch.equal(state, torch.get_rng_state())
    for m, held in zip((g, c), before, strict=True):
        assert all(torch.equal(held[k], v) for k, v in m.state_dict().items())
    value = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert [row["claim"] for row in value["certificates"]] == list(found)
    assert value["mode"] == "as is"
    certificate = found["nash/critic"]
    assert certificate.verdict is Verdict.REFUTED
    witness = load_file(tmp_path / "a" / "nash_critic.safetensors")
    fresh = critic(NORMS[form]).eval()
    fresh.load_state_dict(witness)
    with torch.no_grad():
        torch.manual_seed(0)
        fake = g(torch.randn(4000, 3))
        old, new = (float(m(fake).mean() - m(REAL).mean()) for m in (copied_eval(c), fresh))
    assert old - new == pytest.approx(certificate.evidence["gain"], rel=0.25)


def test_a_watch_takes_spectral_norm_too() -> None:
    c = critic(nn.utils.spectral_norm)
    watch = Watch(generator(), c, Vanilla(), REAL, latent=3, gradients=240, batch=32, checks=CHECKS)
    first = watch.audit()
    assert first["self-tests"].verdict is Verdict.VERIFIED
    with torch.no_grad():
        c[0].weight_orig.mul_(3)  # the scale of a normalised weight is nothing
    second = watch.audit()
    a, b = (x["nash/generator"].evidence["gain"] for x in (first, second))
    assert a == pytest.approx(b, rel=1e-3)


# -- refusals ----------------------------------------------------------------------------------------------


def frozen(module: nn.Module) -> nn.Module:
    for p in module.parameters():
        p.requires_grad_(False)
    return module


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (
            lambda: audited(generator(), frozen(critic())),
            GameError,
            "critic are frozen.*requires_grad_",
        ),
        (lambda: audited(generator().half(), critic()), GameError, r"float16: call \.float\(\)"),
        (lambda: audited("g", critic()), GameError, "the generator is of type str"),
        (lambda: audited(generator(), critic(), mode="test"), RecipeError, "mode='test'"),
        (
            lambda: audited(generator(), critic(), formulation="wgn"),
            RecipeError,
            "did you mean wgan",
        ),
        (lambda: audited(generator(), critic(), penalty=[]), RecipeError, "penalty"),
        (
            lambda: audited(generator(), critic(), checks=("nahs",)),
            RecipeError,
            "did you mean nash",
        ),
        (
            lambda: audited(generator(), critic(), spectral_norm=("0.wait",)),
            GameError,
            "did you mean 0.weight",
        ),
        (lambda: Pair.of(3, "f.py:pair"), GameError, "f.py:pair returns int"),
        (lambda: Pair.of((1, 2), "f.py:pair"), GameError, "returns 2 things"),
        (lambda: Pair.of({"generater": 1}, "f.py:pair"), GameError, "did you mean generator"),
        (lambda: Pair.of({"generator": 1}, "f.py:pair"), GameError, "no 'critic'"),
    ],
)
def test_refused_in_one_line(make: Any, error: type[EquilibristError], said: str) -> None:
    with pytest.raises(error, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


# -- the example and the page -------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "examples/audit_my_pair.py").read_text(encoding="utf-8")
    assert "import equilibrist" not in text
    assert "from equilibrist" not in text
    space = runpy.run_path(str(ROOT / "examples/audit_my_pair.py"))
    space["train"](20)
    held = Pair.of(space["pair"](), "example")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # twenty steps: the power iteration may lag
        found = held.audit(vars(QUICK), checks=CHECKS, progress="none", out="a")
    assert found["self-tests"].verdict is Verdict.VERIFIED
    assert (tmp_path / "a" / "audit.json").exists()


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs/own_pair.md").read_text(encoding="utf-8")
    block, bank = re.findall(r"```python\n(.*?)```", page, re.S)
    quick = 'checks=("self-tests", "nash"), progress="none", settings=Settings(starts=1, '
    assert "settings=Settings(" in block
    space: dict[str, Any] = {}
    exec(block.replace("settings=Settings(", quick), space)
    assert space["found"]["self-tests"].verdict is Verdict.VERIFIED
    exec(bank, space)
    assert "exactly these 64 samples" in space["found"]["stationary/critic"].scope["data"]
    for link in re.findall(r"\]\(([^)#]+)\)", page):
        assert (ROOT / "docs" / link).exists(), link
    from equilibrist.formulations.named import FORMULATIONS

    for name in FORMULATIONS:
        assert f'"{name}"' in page
