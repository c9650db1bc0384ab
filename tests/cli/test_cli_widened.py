"""Through the command: averages, conditions, folders of images, every recipe, and new ways to go wrong."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from equilibrist import EquilibristError, resolve, train
from equilibrist.cli import main
from equilibrist.run import load
from equilibrist_recipes import RECIPES

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
import made_up_cifar
import made_up_mnist

sys.path.pop(0)

QUICK = [
    "--set",
    "steps=4",
    "--set",
    "starts=1",
    "--set",
    "groups=3",
    "--set",
    "group_batches=1",
    "--set",
    "looks=1",
]
QUICK += ["--set", "batches=4", "--set", "look_batches=2", "--set", "spectrum_products=10"]
QUICK += ["--set", "local_products=8", "--progress", "none"]
SMALL = [
    "--set",
    "steps=4",
    "--set",
    "dim=4",
    "--set",
    "latent=4",
    "--set",
    "batch=20",
    "--progress",
    "none",
]

OWN = """
import torch
from torch import nn
import equilibrist as eq
from equilibrist.data import ArraySource, folder
from equilibrist.formulations import FGAN
from equilibrist.formulations.divergences import divergence
from equilibrist.networks import DCGAN64Critic, DCGAN64Generator, ConditionalDigitsGenerator, ProjectionDigitsCritic
from equilibrist.scores import Frechet
from equilibrist.solvers import Averaged

def pair(norm=False):
    middle = [nn.BatchNorm1d(8)] if norm else []
    return (nn.Sequential(nn.Linear(4, 8), *middle, nn.ReLU(), nn.Linear(8, 2)),
            nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1)))

def made(game=None, data=None, solver=None, **more):
    game = game or eq.GAN(*pair(more.pop("norm", False)), eq.Vanilla(), latent=4)
    return eq.Recipe(game, data or eq.eight_gaussians(), solver or eq.Alternating(), steps=2, batch=8, **more)

def plain(accumulate: int = 1, norm: bool = False, average: float = 0.0, precise: bool = False, mixed: bool = False):
    solver = Averaged(eq.Alternating(), average) if average else eq.Alternating()
    kind = {"dtype": torch.float64} if precise else {}
    return made(solver=solver, accumulate=accumulate, norm=norm, mixed_precision=mixed, **kind)

def twelve(classes: int = 12, labels: bool = True):
    x = torch.rand(48, 1, 8, 8)
    data = ArraySource(x, labels=torch.arange(48) % classes if labels else None)
    game = eq.GAN(ConditionalDigitsGenerator(4, 4), ProjectionDigitsCritic(4), eq.Vanilla(), latent=4, condition=10)
    return made(game, data)

def labels(top: int = 3, classes: int = 3):
    return made(data=ArraySource(torch.rand(9, 1, 8, 8), labels=torch.arange(9) % top, classes=classes))

def negative():
    return made(data=ArraySource(torch.rand(9, 1, 8, 8), labels=torch.arange(9) - 1))

def pictures(path: str, channels: int = 3, network: int = 3, size: int = 64):
    game = eq.GAN(lambda: DCGAN64Generator(2, channels=network), lambda: DCGAN64Critic(2, channels=network),
                  eq.Vanilla(), latent=128)
    return made(game, folder(path, size or None, channels=channels))

def domain(u: float = 1.5):
    divergence("squared_hellinger").check(torch.tensor([u]))
    return made(eq.GAN(*pair(), FGAN("squared_hellinger"), latent=4))

def diverging(name: str = "kl"):
    return made(eq.GAN(*pair(), FGAN(name), latent=4))

def scored(what: int = 0):
    return made(scores=[(Frechet,), Frechet(), ("fid",), (Frechet(),)][what])

def settings():
    return made(audit={"stepz": 3})

def nobody():
    return made(solver=Averaged(eq.Alternating(), 0.9, ("discriminator",)))

def term():
    from equilibrist.auxiliary import Term
    return made(eq.GAN(*pair(), eq.Vanilla(), latent=4, auxiliary=[Term("critic", lambda d, x, draw: d(x))]))

def scheduled():
    from equilibrist.schedules import Cosine, Scheduled
    return made(solver=eq.Alternating(1, Scheduled(eq.Adam, Cosine(3))))

def shifted():
    from equilibrist.data import Gaussian
    from equilibrist.formulations import W2GAN
    from equilibrist.networks import LinearGenerator, QuadraticCritic
    from equilibrist.projections import SpectralBall
    return made(eq.GAN(LinearGenerator(2, 2), QuadraticCritic(2), W2GAN(), latent=2,
                       projections=[SpectralBall("generator", "w")]), Gaussian(torch.zeros(2), torch.eye(2)))
"""


def picture(path: Path, size: tuple[int, int] = (70, 64), mode: str = "RGB", seed: int = 0) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recipes of one's own, and folders of images of several kinds."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EQUILIBRIST_DATA", raising=False)
    Path("own.py").write_text(OWN)
    for i in range(8):
        picture(Path(f"colour/{i}.png"), seed=i)
        picture(Path(f"grey/{i}.png"), mode="L", seed=i)
        picture(Path(f"mixed/{i}.png"), (64, 64 + i % 2), seed=i)
    for folder in ("empty", "words", "spoilt"):
        Path(folder).mkdir()
    Path("words/notes.txt").write_text("no picture")
    shutil.copy("colour/0.png", "spoilt/0.png")
    Path("spoilt/1.png").write_bytes(Path("colour/1.png").read_bytes()[:200])
    faces = np.random.default_rng(0).uniform(-1, 1, (8, 3, 64, 64)).astype(np.float32)
    np.save("faces.npy", faces)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("loud", 7.0)):
        spoilt = faces.copy()
        spoilt[3, 1, 5, 5] = value
        np.save(f"{name}.npy", spoilt)
    np.save("small.npy", faces[:, :, :32, :32])
    np.save("four.npy", np.concatenate([faces, faces[:, :1]], 1))
    np.save("flat.npy", faces.reshape(8, -1))
    np.save("objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.save("none.npy", faces[:0])
    Path("text.npy").write_text("1 2 3")
    return tmp_path


def faces(*pairs: str) -> list[str]:
    held = {"steps": "2", "dim": "2", "batch": "4", **dict(p.split("=", 1) for p in pairs)}
    return ["run", "faces64-sngan", "--dir", "new", "--progress", "none"] + [
        w for k, v in held.items() for w in ("--set", f"{k}={v}")
    ]


def own(name: str, *pairs: str) -> list[str]:
    sets = [w for p in pairs for w in ("--set", p)]
    return ["run", f"own.py:{name}", "--dir", "new", "--progress", "none", *sets]


def builtin(name: str, *pairs: str) -> list[str]:
    sets = [w for p in ("steps=2", *pairs) for w in ("--set", p)]
    return ["run", name, "--dir", "new", "--progress", "none", *sets]


# (call, exit code, what the line must say)
ROWS: list[tuple[list[str], int, list[str]]] = [
    # images of the wrong kind
    (own("pictures", "path=colour", "network=1"), 2, ["[1, 64, 64]", "[3, 64, 64]", "generator"]),
    (
        own("pictures", "path=grey", "channels=1"),
        2,
        ["makes samples of shape [3, 64, 64]", "[1, 64, 64]"],
    ),
    (own("pictures", "path=grey", "size=32"), 2, ["[3, 64, 64]", "[3, 32, 32]"]),
    (own("pictures", "path=mixed", "size=0"), 3, ["mixed/1.png", "64 x 65", "give a size"]),
    (faces("data=colour", "channels=4"), 3, ["colour", "4 channels", "1 for grey"]),
    (faces("data=colour", "channels=0"), 3, ["colour", "0 channels"]),
    (faces("data=colour", "batch=9"), 2, ["batch=9", "8 samples"]),
    (faces("data=colour", "limit=-1"), 3, ["limit of -1"]),
    (faces("data=empty"), 3, ["empty", "no image"]),
    (faces("data=words"), 3, ["words", "no image"]),
    (faces("data=nowhere"), 3, ["nowhere"]),
    (faces("data="), 3, ["data= is empty"]),
    (faces("data=spoilt"), 3, ["spoilt/1.png"]),
    (faces("data=colour/0.png"), 3, ["colour/0.png"]),
    (faces("data=nan.npy"), 3, ["nan.npy", "NaN or infinite"]),
    (faces("data=inf.npy"), 3, ["inf.npy", "NaN or infinite"]),
    (faces("data=loud.npy"), 3, ["loud.npy", "values run from", "to 7"]),
    (faces("data=small.npy"), 3, ["small.npy", "[3, 32, 32]", "[channels, 64, 64]"]),
    (faces("data=flat.npy"), 3, ["flat.npy", "[12288]", "[channels, 64, 64]"]),
    (faces("data=objects.npy"), 3, ["objects.npy"]),
    (faces("data=none.npy"), 3, ["none.npy", "empty"]),
    (faces("data=text.npy"), 3, ["text.npy"]),
    (faces("data=absent.npy"), 3, ["absent.npy"]),
    (faces("data=faces.npy", "average=1.5"), 2, ["Averaged.decay", "1.5"]),
    (faces("data=faces.npy", "average=-1"), 2, ["Averaged.decay", "-1"]),
    (faces("data=faces.npy", "flip=perhaps"), 2, ["flip=perhaps", "true or false"]),
    (["run", "faces64-sngan"], 2, ["faces64-sngan needs a value for data", "--set data=..."]),
    (["run", "faces64-sngan", "--set", "dta=x"], 2, ["'dta'", "did you mean data?"]),
    # labels and conditions
    (own("twelve"), 2, ["12 classes", "built for 10", "condition=12"]),
    (own("twelve", "labels=false"), 3, ["no labels or conditions"]),
    (own("labels", "top=5"), 3, ["a label of 4", "3 classes"]),
    (own("negative"), 3, ["a label of -1"]),
    # formulations
    (own("domain"), 2, ["conjugate of squared Hellinger", "u = 1.5", "u < 1"]),
    (own("diverging", "name=kll"), 2, ["'kll'", "did you mean kl"]),
    (
        builtin("eight-gaussians-fgan", "divergence=kll"),
        2,
        ["divergence=kll", "did you mean kl"],
    ),
    (builtin("eight-gaussians-fgan", "divergence=wasserstein"), 2, ["wasserstein", "pearson"]),
    (builtin("eight-gaussians-fgan", "clip=0"), 2, ["Clipped.limit", "0.0"]),
    (builtin("eight-gaussians-fgan", "penalty=-1"), 2, ["R1", "-1"]),
    (builtin("gaussian-w2gan", "eta=0"), 2, ["eta"]),
    (builtin("gaussian-w2gan", "t=0"), 2, ["NormBall.limit", "0"]),
    (builtin("gaussian-w2gan", "dim=0"), 3, ["mean [0]", "[d]"]),
    (builtin("gaussian-w2gan", "batch=2"), 3, ["groups of 2 points", "at least 6"]),
    # recipes
    (own("plain", "accumulate=3"), 2, ["batch=8", "accumulate=3", "multiple"]),
    (own("plain", "accumulate=0"), 2, ["accumulate=0", "at least 1"]),
    (own("plain", "accumulate=2", "norm=true"), 2, ["accumulate=2", "batch norm", "leave it at 1"]),
    (own("plain", "average=1.5"), 2, ["Averaged.decay", "1.5"]),
    (own("plain", "mixed=true", "precise=true"), 2, ["mixed_precision", "float32"]),
    (own("scored", "what=0"), 2, ["scores holds", "scores=(Frechet(),)"]),
    (own("scored", "what=1"), 2, ["scores=Frechet(", "write scores=(Frechet(),)"]),
    (own("scored", "what=2"), 2, ["'fid'", "scores=(Frechet(),)"]),
    (own("scored", "what=3"), 3, ["the data states no range"]),
    (own("nobody"), 2, ["'discriminator'", "generator, critic"]),
    (own("term"), 2, ["Term(critic", "shape [8]", "0-d tensor"]),
    (own("scheduled"), 2, ["Scheduled.rule", "Adam(1e-3)"]),
    (own("shifted"), 2, ["SpectralBall", "'w'", "name one of W, u"]),
    (builtin("digits-conditional", "average=1"), 2, ["Averaged.decay", "1.0"]),
    # which iterate
    (["sample", "mine", "--recipe", "own.py:plain", "--iterate", "nonsense"], 2, ["nonsense"]),
    (["export", "mine", "--recipe", "own.py:plain", "--iterate", "average"], 2, ["no averages"]),
    (["sample", "mine", "--recipe", "own.py:plain", "--iterate", "average"], 2, ["no averages"]),
    (["audit", "mine", "--recipe", "own.py:plain", "--iterate", "average"], 2, ["no averages"]),
    (["audit", "mine", "--recipe", "own.py:plain", "--iterate", "best"], 2, ["iterate='best'"]),
]


def said(row: Any) -> str:
    return " ".join(w for w in row[0] if w not in ("--set", "--progress", "none", "--dir", "new"))


@pytest.mark.parametrize("row", ROWS, ids=said)
def test_bad_input(row: Any, place: Path, cli: Callable[..., Any]) -> None:
    words, code, mentions = row
    if "mine" in words:
        assert cli(*own("plain")[:-4], "--dir", "mine", "--progress", "none").code == 0
    answer = cli(*words)
    assert "Traceback" not in answer.err
    assert answer.code == code, answer.err
    assert len(answer.err.splitlines()) == 1, answer.err
    assert answer.err.startswith("equilibrist: error: ")
    for word in mentions:
        assert word in answer.err
    assert not Path("new/recipe.json").exists(), "what cannot begin leaves no record"
    assert not Path("mine/audit").exists()
    assert not Path("samples.npy").exists()


def test_good_calls_among_the_bad_ones(place: Path, well: Callable[..., Any]) -> None:
    """That the table does not fail for a reason of its own."""
    for index, call in enumerate(
        [
            faces("data=grey", "channels=1", "flip=false", "average=0.5"),
            own("plain", "accumulate=2", "mixed=true"),
            own("twelve", "classes=10"),
            own("domain", "u=0.5"),
            own("diverging"),
        ]
    ):
        well(*[f"good{index}" if w == "new" else w for w in call])


# -- averages and conditions ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def conditional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditional run that keeps an average: do not write to it."""
    folder = tmp_path_factory.mktemp("widened") / "run"
    assert main(["run", "digits-conditional", *SMALL, "--dir", str(folder)]) == 0
    return folder


@pytest.fixture
def run(conditional: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(conditional, tmp_path / "run"))


def loaded(run: Path) -> Any:
    settings = json.loads((run / "recipe.json").read_text())["settings"]
    return load(run, resolve("digits-conditional", settings).build(), device="cpu")


def test_sample_and_export_take_the_iterate_that_is_named(
    run: Path, tmp_path: Path, well: Callable[..., Any]
) -> None:
    held = loaded(run)
    for iterate in ("auto", "average", "last"):
        source = held.players if iterate == "last" else held.average
        out = tmp_path / f"{iterate}.npy"
        well("sample", run, "-n", 20, "--out", out, "--iterate", iterate)
        assert np.array_equal(np.load(out), held.samples(20, iterate=iterate).numpy())
        well("export", run, "--out", tmp_path / iterate, "--iterate", iterate)
        written = load_file(tmp_path / iterate / "generator.safetensors")
        assert all(torch.equal(written[k], v) for k, v in source["generator"].items())
        assert written.keys() == source["generator"].keys()
    average, last = (np.load(tmp_path / f"{i}.npy") for i in ("average", "last"))
    assert not np.array_equal(average, last)
    assert (tmp_path / "auto/generator.safetensors").read_bytes() == (
        tmp_path / "average/generator.safetensors"
    ).read_bytes()


@pytest.mark.parametrize(
    ("iterate", "expected"),
    [("auto", "exponential average of the generator"), ("last", "last")],
)
def test_audit_names_the_iterate(
    iterate: str, expected: str, run: Path, well: Callable[..., Any]
) -> None:
    well("audit", run, *QUICK, "--iterate", iterate)
    assert json.loads((run / "audit/audit.json").read_text())["iterate"] == expected
    assert expected in (run / "report.html").read_text(encoding="utf-8")
    rows = json.loads((run / "report.json").read_text())["scores"]
    assert [r["step"] for r in rows] == [0, 1, 2, 3, 4]


# -- every recipe --------------------------------------------------------------------------------


def test_list_and_info_of_every_recipe_need_no_torch() -> None:
    calls = [["list"], ["list", "--json"]]
    calls += [["info", name, *more] for name in RECIPES for more in ([], ["--json"])]
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'numpy', 'scipy', 'sklearn', 'PIL', 'safetensors'):\n"
        "            raise ImportError('needs ' + name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "from equilibrist.cli import main\n"
        f"print('codes', [main(words) for words in {calls!r}])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == f"codes {[0] * len(calls)}"


def test_info_shows_a_setting_without_default(well: Callable[..., Any]) -> None:
    line = next(
        line for line in well("info", "faces64-sngan").out.splitlines() if "  data " in line
    )
    assert line.split() == ["data", "required", "str"]
    about = json.loads(well("info", "faces64-sngan", "--json").out)
    assert about["required"] == ["data"]
    assert "data" not in about["settings"]
    assert about["settings"]["channels"] == 3
    assert "required" not in json.loads(well("info", "digits-sngan", "--json").out)


TINY: dict[str, dict[str, Any]] = {
    "cifar10-dcgan": {"dim": 2},
    "cifar10-r3gan": {"width": 8, "blocks": 1},
    "cifar10-sngan": {"dim": 2},
    "cifar10-wgan-gp": {"dim": 2},
    "cifar10-wgan-wc": {"dim": 2},
    "faces64-resnet": {"data": "faces.npy", "dim": 2},
    "faces64-sngan": {"data": "faces.npy", "dim": 2},
    "mnist-sngan": {"dim": 2},
    "mnist-wgan-gp": {"dim": 2},
    "mnist-wgan-wc": {"dim": 2},
    "gaussian-w2gan": {},
    "plane-mirror": {"width": 8, "depth": 1, "latent": 2, "particles": 2},
    **{name: {"dim": 4, "latent": 4} for name in RECIPES if name.startswith("digits")},
}


@pytest.fixture
def sets(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of made-up MNIST and CIFAR-10 files."""
    made_up_cifar.write(place / "data", "binary")
    for stem in made_up_mnist.STEMS:
        body = made_up_mnist.idx(made_up_mnist.pixels(stem))
        (place / "data" / f"{stem}-images-idx3-ubyte").write_bytes(body)
        body = made_up_mnist.idx(made_up_mnist.classes(stem))
        (place / "data" / f"{stem}-labels-idx1-ubyte").write_bytes(body)
    monkeypatch.setenv("EQUILIBRIST_DATA", str(place / "data"))
    return place


def quick(recipe: Any) -> Any:
    """The recipe with its own scores on few samples."""
    return replace(recipe, scores=tuple(replace(score, samples=24) for score in recipe.scores))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_trains(name: str, sets: Path) -> None:
    tiny = TINY.get(name, {"width": 8, "depth": 1, "latent": 2})
    settings = {"steps": 2, "batch": 8 if name == "gaussian-w2gan" else 4, **tiny}
    if "critic_steps" in inspect.signature(RECIPES[name]).parameters:
        settings["critic_steps"] = 1
    built = quick(resolve(name, settings).build())
    done = train(built, sets / "run", device="cpu", progress="none")
    assert done.step == 2
    assert all(torch.isfinite(t).all() for p in done.players.values() for t in p.values())
    assert built.references
    for reference in built.references:
        assert reference.bibtex.count("{") == reference.bibtex.count("}")
    sheet = next((sets / "run/samples").glob("step_00000002.*"))
    assert sheet.stat().st_size > 100


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cifar10-sngan", {"dim": 2, "conditional": True, "flip": True, "average": 0.9}),
        ("cifar10-sngan", {"dim": 2, "accumulate": 2, "batch_norm": False}),
        ("cifar10-sngan", {"dim": 2, "mixed_precision": True, "saturating": True}),
        ("cifar10-dcgan", {"dim": 2, "layers": 4, "batch_norm": True, "method": "alternating"}),
        ("cifar10-r3gan", {"width": 8, "blocks": 1, "accumulate": 2, "mixed_precision": True}),
        ("digits-conditional", {"dim": 4, "latent": 4, "average": 0.0}),
        ("eight-gaussians", {"width": 4, "depth": 1, "method": "simultaneous"}),
        (
            "eight-gaussians-fgan",
            {"width": 4, "depth": 1, "divergence": "jeffreys", "penalty": 0.0},
        ),
        ("gaussian-w2gan", {"exact": False, "s": 0.5}),
    ],
    ids=str,
)
def test_their_settings(name: str, settings: dict[str, Any], sets: Path) -> None:
    built = quick(resolve(name, {"steps": 2, "batch": 8, **settings}).build())
    done = train(built, sets / "run", device="cpu", progress="none")
    assert done.step == 2
    assert done.samples(12).shape[0] == 12


def test_cifar10_with_batch_norm_cannot_accumulate(sets: Path) -> None:
    with pytest.raises(EquilibristError, match="accumulate=2, but losses depend on whole batches"):
        resolve("cifar10-sngan", {"dim": 2, "batch": 8, "accumulate": 2}).build()
    assert "EQUILIBRIST_DATA" in os.environ
