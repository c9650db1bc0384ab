"""A synthetic run directory (made-up numbers) and a headless browser to look at the page."""

import fcntl
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


def digit_grid(path: Path, blur: float, seed: int, rows: int = 6) -> None:
    """A grid of 8x8 strokes that look a little like digits; `blur` 0 is clean, 1 is noise."""
    rng = np.random.default_rng(seed)
    sheet = np.zeros((rows * 9 + 1, rows * 9 + 1))
    y, x = np.mgrid[0:8, 0:8]
    for i in range(rows):
        for j in range(rows):
            turn, bend = rng.uniform(0, math.pi), rng.uniform(1.5, 3.2)
            ring = np.abs(np.hypot((x - 3.5) * (1 + 0.5 * math.cos(turn)), y - 3.5) - bend)
            stroke = np.exp(-(ring**2) / 0.5)
            tile = (1 - blur) * stroke + blur * rng.uniform(0, 1, (8, 8))
            sheet[i * 9 + 1 : i * 9 + 9, j * 9 + 1 : j * 9 + 9] = tile
    Image.fromarray((255 * np.clip(sheet, 0, 1)).astype(np.uint8)).save(path)


def search(player: str, gain: float, sunk: float) -> dict[str, Any]:
    """Evidence of a Nash check with four starts, the third of which is chosen."""
    steps = list(range(0, 2001, 50))
    curves = [
        {
            "start": start,
            "perturbation": [0.0, 0.01, 0.03, 0.1][start],
            "optimizer": ["Adam", "Adam", "Adam", "RMSProp"][start],
            "steps": steps,
            "gain": [
                gain
                * (1 + 0.1 * start * (start < 3) - 0.5 * (start == 3))
                * (1 - math.exp(-s / (300 + 90 * start)))
                - sunk * 0.4 * start * math.exp(-s / 120)
                + 0.01 * gain * math.sin(s / 37 + start)
                for s in steps
            ],
        }
        for start in range(4)
    ]
    return {
        "gain": gain,
        "interval": [gain - 0.1 * abs(gain), gain + 0.1 * abs(gain)],
        "confidence": 0.95,
        "loss_before": 0.71,
        "loss_after": 0.71 - gain,
        "budget": {"starts": 4, "steps": 2000, "gradients": 8000},
        "curves": curves,
        "chosen": {"start": 2, "step": 2000},
    }


def tolerance(value: float) -> dict[str, Any]:
    why = "2% of the loss of a critic that guesses (0.69 nats); the noise floor is 0.004 nats."
    return {"value": value, "unit": "nats", "why": why}


RECIPE: dict[str, Any] = {
    "format": 1,
    "recipe": "digits-sngan",
    "settings": {"dim": 32, "critic_steps": 5, "learning_rate": 0.0002, "betas": [0.0, 0.9]},
    "seed": 0,
    "steps": 3000,
    "device": "cpu",
    "dtype": "float32",
    "title": "SN-GAN on handwritten digits",
    "summary": "A small spectrally normalised GAN learns 8 by 8 digits in some minutes on a CPU.",
    "origin": {"kind": "builtin"},
    "description": {
        "game": {
            "formulation": "vanilla GAN, non-saturating generator",
            "loss": "critic: -E log D(x) - E log(1 - D(G(z)));  generator: -E log D(G(z))",
            "zero_sum": False,
            "separable": True,
            "penalties": ["R1 penalty, weight 0.1"],
            "projections": [],
            "spectral_norm": True,
            "latent": 32,
            "players": {
                "generator": {
                    "class": "Sequential (3 transposed convolutions)",
                    "parameters": 87361,
                },
                "critic": {"class": "Sequential (3 convolutions)", "parameters": 45313},
            },
        },
        "data": {
            "name": "digits",
            "kind": "images",
            "size": 1797,
            "shape": [1, 8, 8],
            "source": "scikit-learn load_digits",
        },
        "solver": {
            "name": "Alternating",
            "text": "Alternating(critic_steps=5, Adam(2e-4, betas=(0, 0.9)))",
            "batch": 64,
        },
    },
    "references": [
        {
            "text": "Miyato et al. (2018). Spectral Normalization for Generative Adversarial "
            "Networks. https://arxiv.org/abs/1802.05957.",
            "bibtex": "@inproceedings{miyato2018,\n  title = {Spectral Normalization for "
            "Generative Adversarial Networks},\n  year = {2018}\n}",
        }
    ],
}

ENVIRONMENT: list[dict[str, Any]] = [
    {
        "started": "2025-01-02T03:04:05+00:00",
        "command": ["equilibrist", "run", "digits-sngan", "--dir", "digits run"],
        "versions": {"python": "3.11.7", "torch": "2.13.0", "equilibrist": "0.1.0"},
        "machine": {"processor": "x86_64", "cores": 2, "system": "Linux"},
        "threads": 2,
        "git": {"commit": "0123456789abcdef0123456789abcdef01234567", "clean": True},
    }
]


def certificates() -> list[dict[str, Any]]:
    scope = {"checkpoint": "step 3,000", "dropout": "none", "score split": "512 pictures"}
    limits = [
        "A search gives a lower bound: the best response may gain more.",
        "The gain is in the player's own loss; the R1 penalty is part of the critic's.",
    ]
    source = ["Farnia and Ozdaglar (2020), section 2. https://arxiv.org/abs/2002.09124"]
    common = {"scope": scope, "limits": limits, "references": source}
    generator = search("generator", 1.9, 1.0)
    generator["samples"] = {
        "before": "nash_generator_before.png",
        "during": "nash_generator_during.png",
        "after": "nash_generator_after.png",
    }
    return [
        {
            "claim": "nash/generator",
            "player": "generator",
            "verdict": "REFUTED",
            "summary": "With the critic frozen, the generator lowers its loss from 0.71 to -1.19 "
            "nats, far beyond the tolerance.",
            "evidence": generator,
            "tolerance": tolerance(0.014),
            "witness": "nash_generator.safetensors",
            **common,
        },
        {
            "claim": "nash/critic",
            "player": "critic",
            "verdict": "NOT_REFUTED",
            "summary": "With the generator frozen, four searches found no such gain.",
            "evidence": search("critic", 0.006, 0.004),
            "tolerance": tolerance(0.014),
            "witness": None,
            **common,
        },
        {
            "claim": "nash",
            "player": None,
            "verdict": "REFUTED",
            "summary": "The generator's side is refuted, and with it the pair's.",
            "evidence": {},
            "tolerance": tolerance(0.014),
            "witness": None,
            **common,
        },
        {
            "claim": "stationary/generator",
            "player": "generator",
            "verdict": "UNASSESSED",
            "summary": "The gradient's sampling noise is larger than the tolerance, so that rest "
            "and slow motion cannot be told apart.",
            "evidence": {
                "residual": 0.021,
                "interval": [0.002, 0.05],
                "noise_floor": 0.03,
                "signal_to_noise": 0.7,
                "unit": "nats per 1% move",
            },
            "tolerance": {"value": 0.01, "unit": "nats per 1% move", "why": ""},
            "witness": None,
            **common,
        },
        {
            "claim": "stationary/critic",
            "player": "critic",
            "verdict": "VERIFIED",
            "summary": "The critic's gradient is zero within the tolerance on the whole data set.",
            "evidence": {
                "residual": 0.003,
                "interval": [0.002, 0.004],
                "noise_floor": 0.001,
                "signal_to_noise": 3.0,
                "unit": "nats per 1% move",
            },
            "tolerance": {"value": 0.01, "unit": "nats per 1% move", "why": ""},
            "witness": None,
            **common,
        },
    ]


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def write_metrics(path: Path, steps: int, every: int = 5) -> None:
    rng = np.random.default_rng(1)
    lines = []
    for step in range(every, steps + 1, every):
        fade = math.exp(-step / 500)
        row = {
            "step": step,
            "seconds": round(step * 0.031, 3),
            "loss": {
                "generator": 0.72 + 1.3 * fade + 0.08 * rng.normal(),
                "critic": 1.32 - 0.9 * fade + 0.04 * rng.normal(),
            },
            "grad_norm": {
                "generator": 0.05 + 6 * fade * math.exp(0.4 * rng.normal()),
                "critic": 0.08 + 3 * fade * math.exp(0.4 * rng.normal()),
            },
        }
        lines.append(json.dumps(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a complete run of pictures; `without` names the parts to leave out."""

    def make(name: str = "digits-run", without: tuple[str, ...] = (), points: bool = False) -> Path:
        run = tmp_path / name
        (run / "samples").mkdir(parents=True)
        if "recipe" not in without:
            write_json(run / "recipe.json", RECIPE)
        if "environment" not in without:
            write_json(run / "environment.json", ENVIRONMENT)
        if "status" not in without:
            state = {"state": "finished", "step": 3000, "message": ""}
            write_json(run / "status.json", state)
        if "metrics" not in without:
            write_metrics(run / "metrics.jsonl", 3000)
        if "samples" not in without:
            for i, step in enumerate((0, 100, 250, 500, 1000, 1500, 2000, 2500, 3000)):
                stem = run / "samples" / f"step_{step:08d}"
                if points:
                    cloud = _ring(step, 1.0 / (1 + i))
                    np.save(stem.with_suffix(".npy"), cloud)
                else:
                    digit_grid(stem.with_suffix(".png"), max(0.04, 0.9 - 0.13 * i), i)
            if points:
                np.save(run / "samples" / "real.npy", _ring(99, 0.02))
            else:
                digit_grid(run / "samples" / "real.png", 0.0, 99)
        if "audit" not in without:
            audit = {
                "format": 1,
                "step": 3000,
                "seconds": 41.0,
                "checkpoint": "step_00003000.safetensors",
                "sha256": "ab" * 32,
                "settings": {"starts": 4, "steps": 2000, "perturbation": 0.01},
                "dtype": {"search": "float32", "score": "float64"},
                "certificates": certificates(),
            }
            write_json(run / "audit" / "audit.json", audit)
            for i, when in enumerate(("before", "during", "after")):
                digit_grid(run / "audit" / f"nash_generator_{when}.png", 0.05 + 0.42 * i, 7)
        return run

    return make


def _ring(seed: int, spread: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle = rng.integers(0, 8, 1024) * math.pi / 4
    centre = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (centre + spread * rng.normal(size=(1024, 2))).astype(np.float32)


# --- a browser ----------------------------------------------------------------------------------


class Browser:
    """Speaks the DevTools protocol with one headless Chromium over a pair of pipes."""

    def __init__(self, program: str, profile: Path) -> None:
        # Chromium reads commands from descriptor 3 and answers on 4. The other ends are moved
        # out of the way first, so that putting one in its place cannot overwrite the other.
        read_here, there = os.pipe()
        write_there = fcntl.fcntl(there, fcntl.F_DUPFD_CLOEXEC, 10)
        os.close(there)
        there, write_here = os.pipe()
        read_there = fcntl.fcntl(there, fcntl.F_DUPFD_CLOEXEC, 10)
        os.close(there)
        place = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); "
            "os.execvp(sys.argv[3], sys.argv[3:])"
        )
        flags = [
            f"--{flag}"
            for flag in (
                "headless",
                "no-sandbox",
                "disable-gpu",
                "disable-background-networking",
                "disable-dev-shm-usage",
                "no-first-run",
                "hide-scrollbars",
                "remote-debugging-pipe",
                f"user-data-dir={profile}",
            )
        ]
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-S", "-c", place, str(read_there), str(write_there)),
                *(program, *flags, "about:blank"),
            ],
            pass_fds=(read_there, write_there),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_there)
        os.close(write_there)
        self._read, self._write = os.fdopen(read_here, "rb"), os.fdopen(write_here, "wb")
        self._last, self._rest = 0, b""
        self.events: list[dict[str, Any]] = []
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attach = self.send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attach["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    _session: str | None = None

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = self._read.read1(1 << 16)
            if not chunk:
                raise RuntimeError("the browser ended")
            self._rest += chunk
        message, self._rest = self._rest.split(b"\0", 1)
        return json.loads(message)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        body: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session:
            body["sessionId"] = self._session
        self._write.write(json.dumps(body).encode() + b"\0")
        self._write.flush()
        while (message := self._message()).get("id") != self._last:
            self.events.append(message)
        assert "error" not in message, message
        return message["result"]

    def open(self, path: Path, width: int, dark: bool = False) -> None:
        """Shows a file in a window of so many CSS pixels and waits until it is drawn."""
        scheme = "dark" if dark else "light"
        self.events.clear()
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.send(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": scheme}],
        )
        self.send("Page.navigate", url=path.as_uri())
        while not any(e.get("method") == "Page.loadEventFired" for e in self.events):
            self.events.append(self._message())

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def close(self) -> None:
        try:
            self._session = None
            self.send("Browser.close")
        except (RuntimeError, OSError):
            pass
        finally:
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self._read.close()
            self._write.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """A headless Chromium; the test is skipped where none is installed."""
    names = (os.environ.get("EQUILIBRIST_BROWSER"), "chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if name and (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium found (set EQUILIBRIST_BROWSER to one)")
    profile = Path(tempfile.mkdtemp(prefix="equilibrist-browser-"))
    opened = Browser(program, profile)
    yield opened
    opened.close()
    shutil.rmtree(profile, ignore_errors=True)
