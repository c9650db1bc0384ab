"""A comparison from training to page, on two-layer networks and a few steps."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

from equilibrist.compare import Cost, compare, cost
from equilibrist.compare import _words as say
from equilibrist.compare._page import comparison_page
from equilibrist.data import eight_gaussians
from equilibrist.errors import GameError, RecipeError, RecordError
from equilibrist.formulations import Vanilla
from equilibrist.games import GAN, Mixture
from equilibrist.langevin import SGLD
from equilibrist.optimizers import SGD, Adam
from equilibrist.penalties import R1
from equilibrist.run import Recipe, load
from equilibrist.run.record import Record
from equilibrist.scores import MixtureQuality
from equilibrist.solvers import (
    Alternating,
    AnchoredExtragradient,
    Averaged,
    Competitive,
    Consensus,
    Extragradient,
    FollowTheRidge,
    Lookahead,
    MirrorGAN,
    MirrorProxGAN,
    Optimistic,
    PastExtragradient,
    Proximal,
    Simultaneous,
    SymplecticAdjustment,
    Unrolled,
)
from equilibrist.solvers.named import solver_from_text
from equilibrist.statistics import estimate

ADAM = Adam(1e-2)
ONE = {"generator": 1, "critic": 1}


def tiny(solver=None, **changes):
    scores = (MixtureQuality(samples=30),)
    changes = {"steps": 8, "log_every": 2, "score_every": 4, "scores": scores, **changes}
    return Recipe(
        game=GAN(
            lambda: nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 2)),
            lambda: nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 1)),
            Vanilla(),
            latent=2,
            penalties=[R1(0.1)],
        ),
        data=eight_gaussians(sigma=0.2),
        solver=solver or Alternating(1, ADAM),
        batch=8,
        title="Tiny <game>",
        sample_every=8,
        checkpoint_every=8,
        **changes,
    )


def go(solvers, folder, recipe=None, seeds=(0, 1, 2), **options):
    return compare(
        recipe or tiny(), solvers, folder, seeds, device="cpu", progress="none", **options
    )


# -- cost -----------------------------------------------------------------------------------------

COSTS = [
    (Simultaneous(ADAM), Cost(ONE)),
    (Alternating(4, ADAM), Cost({"generator": 1, "critic": 4})),
    (Consensus(ADAM), Cost(ONE, 1)),
    (Consensus(ADAM, batches=2), Cost({"generator": 2, "critic": 2}, 2)),
    (Extragradient(ADAM), Cost({"generator": 2, "critic": 2})),
    (Extragradient(ADAM, explore=4.0), Cost({"generator": 2, "critic": 2})),
    (AnchoredExtragradient(SGD(0.1)), Cost({"generator": 2, "critic": 2})),
    (PastExtragradient(ADAM), Cost(ONE)),
    (Optimistic(ADAM), Cost(ONE)),
    (SymplecticAdjustment(ADAM), Cost(ONE, 1, 1)),
    # O^T v and, in each of two iterations, O and O^T: one product a player each.
    (Competitive(ADAM, iterations=2), Cost(ONE, 6, 4)),
    # J_yx dx, J_yy of it, and J_yy twice in each of two iterations.
    (FollowTheRidge(ADAM, iterations=2), Cost(ONE, 0, 6)),
    # The follower's own step, and k differentiated ones.
    (Unrolled(ADAM, unroll=3), Cost({"generator": 1, "critic": 4})),
    # The anchor's slopes and the fixed fakes are passes of their own, once.
    (Proximal(5, 0.1, ADAM), Cost({"generator": 1, "critic": 5}, 0, 0, 2)),
    (Proximal(5, 0.1, ADAM, fresh=True), Cost({"generator": 1, "critic": 5}, 0, 0, 10)),
    (MirrorGAN(SGLD(1e-3), inner=3), Cost({"generator": 3, "critic": 3})),
    (MirrorProxGAN(SGLD(1e-3), inner=3), Cost({"generator": 6, "critic": 6})),
    (Averaged(Lookahead(Extragradient(ADAM))), Cost({"generator": 2, "critic": 2})),
]


@pytest.mark.parametrize(("solver", "truth"), COSTS, ids=[type(s).__name__ for s, _ in COSTS])
def test_cost_is_counted(solver, truth):
    recipe = tiny(solver)
    assert cost(recipe) == truth
    # Counting leaves the recipe's own game alone.
    assert "losses" not in vars(recipe.game)
    assert truth.products == truth.pullbacks + truth.pushforwards


def test_cost_of_a_mixture():
    """Pairs that share a minibatch pass it once; where all play all, so do the generators, and every critic."""
    for pairing in ("random", "all"):
        solver = MirrorGAN(SGLD(1e-3), inner=2, pairing=pairing)
        recipe = tiny(solver)
        mixed = dataclasses.replace(recipe, game=Mixture(recipe.game, 2))
        assert cost(mixed) == Cost({"generator": 2, "critic": 2})
        assert "losses" not in vars(mixed.game)
        assert "losses" not in vars(mixed.game.base)


# -- the whole --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    solvers = {
        "recipe": Alternating(1, ADAM),
        "consensus:gamma=1": Consensus(ADAM, gamma=1.0),
        "wild <b>": Simultaneous(SGD(3e38)),
    }
    return go(solvers, folder), solvers


def test_record(whole):
    found, solvers = whole
    held = json.loads((found.directory / "compare.json").read_text())
    assert held["solvers"] == found.facts["solvers"]
    assert [entry["folder"] for entry in held["solvers"]] == [
        "recipe",
        "consensus-gamma=1",
        "wild-b",
    ]
    assert held["seeds"] == [0, 1, 2]
    assert held["steps"] == 8
    assert held["solvers"][1]["cost"] == {
        "gradients": ONE, "J^T u": 1, "J u": 0, "passes": 0
    }  # fmt: skip
    assert held["solvers"][1]["text"] == str(solvers["consensus:gamma=1"])
    # Its numbers are those of the runs' own records.
    figure = next(f for f in held["figures"] if f["figure"] == "w2")
    last = []
    for seed in (0, 1, 2):
        rows = Record(found.directory / "consensus-gamma=1" / f"seed_{seed}").scores()
        last.append(rows[-1]["values"]["w2"])
        assert rows[-1]["step"] == 8
    assert figure["iterations"]["consensus:gamma=1"]["values"] == {
        str(s): v for s, v in enumerate(last)
    }
    assert figure["iterations"]["consensus:gamma=1"]["mean"] == pytest.approx(
        estimate(last, 0.95).mean
    )
    loss = next(f for f in held["figures"] if f["key"] == "loss / critic")
    rows = [Record(found.directory / "recipe" / f"seed_{s}").rows()[-1] for s in (0, 1, 2)]
    mean = sum(row["loss"]["critic"] for row in rows) / 3
    assert loss["iterations"]["recipe"]["mean"] == pytest.approx(mean)
    # The clock: a member's share of its stack's.
    assert held["solvers"][0]["seconds"] == pytest.approx(rows[0]["seconds"] / 3)
    assert held["solvers"][0]["members"] == [3]


def test_equal_compute_is_within_the_time(whole):
    found, _ = whole
    limit = found.facts["seconds_at_equal_compute"]
    sound = [entry for entry in found.facts["solvers"] if not entry["diverged"]]
    assert limit == min(entry["seconds"] for entry in sound)
    fastest = next(entry["name"] for entry in sound if entry["seconds"] == limit)
    for figure in found.facts["figures"]:
        assert figure["compute"][fastest]["steps"] == [8, 8]
        assert figure["compute"][fastest]["mean"] == figure["iterations"][fastest]["mean"]


def test_failures_are_counted_and_shown(whole):
    found, _ = whole
    entry = found.facts["solvers"][2]
    assert set(entry["diverged"]) == {"0", "1", "2"}
    assert entry["seconds"] is None
    for figure in found.facts["figures"]:
        assert figure["iterations"]["wild <b>"]["n"] == 0
    assert "seed 0 at step" in str(found)
    text = found.page.read_text()
    assert "3 of 3 diverged" in text


def test_table(whole):
    found, _ = whole
    text = str(found)
    lines = text.splitlines()
    assert lines[0] == "Tiny <game>: 3 solvers, 3 seeds, 8 steps"
    assert any(line.startswith("W2 (Mixture quality") for line in lines)
    assert "after 8 steps" in text
    assert "paired difference from recipe" in text
    row = next(line for line in lines if line.strip().startswith("consensus:gamma=1  generator"))
    assert re.search(r"generator 1, critic 1 +1 +0 ", row)


def test_members_are_runs(whole):
    found, solvers = whole
    recipe = tiny(solvers["consensus:gamma=1"])
    run = load(found.directory / "consensus-gamma=1" / "seed_2", recipe, device="cpu")
    assert run.step == 8
    assert torch.equal(run.samples(4), found.ensembles["consensus:gamma=1"].runs[2].samples(4))


class _Reader(HTMLParser):
    """Tags in balance, and what the page would load."""

    VOID = ("meta", "link")

    def __init__(self):
        super().__init__()
        self.open, self.fetched, self.tags = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [
            v for k, v in attrs if k in ("src", "href") and not v.startswith(("#", "data:"))
        ]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page(whole):
    found, _ = whole
    text = found.page.read_text()
    reader = _Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.fetched == []
    assert "script" not in reader.tags
    assert "wild &lt;b&gt;" in text
    assert "<b>wild" not in text
    assert "Tiny &lt;game&gt;" in text
    assert "NaN" not in text
    assert " nan" not in text
    # Each figure over steps and over seconds, in two sizes; each sound solver has a line.
    assert text.count("<figure>") == 2 * len(found.facts["figures"])
    assert text.count('class="chart wide"') == 2 * len(found.facts["figures"])
    assert text == comparison_page(json.loads((found.directory / "compare.json").read_text()))


def test_headline_follows_the_first_figure(whole):
    found, _ = whole
    facts = json.loads(json.dumps(found.facts))
    figure = next(f for f in facts["figures"] if f["better"])
    side = figure["iterations"]["consensus:gamma=1"]["difference"]
    for interval, word in (
        ([0.1, 0.3], "better"),
        ([-0.3, -0.1], "worse"),
        ([-1, 1], "cannot be told"),
    ):
        side["mean"], side["interval"] = sum(interval) / 2, interval
        figure["better"] = "higher"
        assert re.search(
            rf"<h1>[^<]*consensus:gamma=1 {word}",
            comparison_page(facts).replace(" and wild &lt;b&gt;", ""),
        )
        if word != "cannot be told":
            figure["better"] = "lower"
            other = {"better": "worse", "worse": "better"}[word]
            assert f"consensus:gamma=1 {other}" in comparison_page(facts)


def test_a_sweep_has_common_random_numbers(tmp_path):
    """From each seed every entry has the same initial weights and minibatches, whatever its step size and method."""
    texts = ["recipe:lr=0.01", "recipe:lr=0.0101", "simultaneous:lr=0", "extragradient:lr=0"]
    recipe = tiny(Simultaneous(ADAM), steps=16, log_every=1, score_every=16)
    found = go(
        {text: solver_from_text(text, recipe.solver) for text in texts}, tmp_path, recipe, range(4)
    )
    first = {}
    for entry in found.facts["solvers"]:
        for seed in range(4):
            folder = tmp_path / entry["folder"] / f"seed_{seed}"
            # Step 0 is that of every entry: samples, data, scores, and the first minibatch's losses.
            sheets = [
                (folder / "samples" / n).read_bytes() for n in ("step_00000000.npy", "real.npy")
            ]
            record = Record(folder)
            seen = [*sheets, record.scores()[0]["values"], record.rows()[0]["loss"]]
            assert first.setdefault(seed, seen) == seen
    starts = [tuple(seen[:2]) for seen in first.values()]
    assert len(set(starts)) == 4  # seeds differ, in weights and in data
    # Who does not move meets the same minibatches at every step.
    still, other = [
        Record(tmp_path / f"{name}-lr=0" / "seed_2").rows()
        for name in ("simultaneous", "extragradient")
    ]
    assert [row["loss"] for row in still] == [row["loss"] for row in other]
    assert len({row["loss"]["critic"] for row in still}) == 16
    # What seeds share cancels: two near step sizes differ by far less than two seeds do.
    losses = next(f for f in found.facts["figures"] if f["key"] == "loss / critic")["iterations"]
    near = losses["recipe:lr=0.0101"]
    spread, paired = (side["interval"] for side in (near, near["difference"]))
    assert 0 < paired[1] - paired[0] < (spread[1] - spread[0]) / 10
    said = "every solver: seeds 0 to 3, and from each seed the same initial weights and minibatches"
    assert str(found).splitlines()[2] == said
    assert "common random numbers" in found.page.read_text()


def test_shared_seeds_in_words():
    for seeds, said in (([0], "seed 0,"), ([3, 4, 5], "seeds 3 to 5,"), ([0, 2], "seeds 0, 2,")):
        assert say.shared({"seeds": seeds}).startswith(f"every solver: {said} and from each")


def test_missing_pairs_are_counted():
    pair = {"mean": 0.5, "interval": [0.25, 0.75], "n": 2}
    assert say.difference({"difference": None}, 3) == ""
    assert say.difference({"difference": pair}, 3).endswith("] (2 pairs)")
    assert say.difference({"difference": pair}, 2).endswith("]")
    assert say.difference({"difference": {**pair, "interval": None, "n": 1}}, 2).endswith(
        "(1 pair)"
    )
    assert say.difference({"difference": {"mean": None, "interval": None, "n": 0}}, 3) == "none"


def test_averages_are_what_is_scored(tmp_path):
    texts = ["recipe", "recipe:average=uniform", "recipe:average=tail,average.start=8"]
    recipe = tiny(Simultaneous(ADAM))
    found = go(
        {text: solver_from_text(text, recipe.solver) for text in texts}, tmp_path, recipe, (0, 1)
    )
    last, mean, tail = (entry["folder"] for entry in found.facts["solvers"])
    scores = {
        name: Record(tmp_path / name / "seed_1").scores()[-1]["values"]
        for name in (last, mean, tail)
    }
    # A tail from the last step on is the last iterate; the training of all three is one.
    assert scores[tail] == scores[last] != scores[mean]
    rows = [Record(tmp_path / n / "seed_1").rows() for n in (last, mean)]
    assert rows[0][-1]["loss"] == rows[1][-1]["loss"]
    assert found.facts["solvers"][1]["text"].endswith("; uniform average of the generator")


def test_again_and_more(tmp_path):
    solvers = {"a": Alternating(1, ADAM), "b": Extragradient(ADAM)}
    recipe = tiny(scores=(), log_every=4)
    go({"a": solvers["a"]}, tmp_path, recipe, seeds=(0,))
    weights = sorted((tmp_path / "a").rglob("*.safetensors"))
    before = [(p.read_bytes(), p.stat().st_mtime_ns) for p in weights]
    found = go(solvers, tmp_path, recipe, seeds=(0, 1))
    assert [(p.read_bytes(), p.stat().st_mtime_ns) for p in weights] == before
    assert found.facts["solvers"][0]["members"] == [1]
    figure = found.facts["figures"][0]
    assert [figure["iterations"][name]["n"] for name in "ab"] == [2, 2]
    assert figure["iterations"]["b"]["difference"]["n"] == 2
    assert json.loads((tmp_path / "compare.json").read_text())["seeds"] == [0, 1]
    again = go(solvers, tmp_path, recipe, seeds=(0, 1))
    assert again.facts == found.facts


def test_one_seed_has_no_interval(tmp_path):
    found = go({"a": Alternating(1, ADAM), "b": Simultaneous(ADAM)}, tmp_path, seeds=(4,))
    side = found.facts["figures"][0]["iterations"]["b"]
    assert side["n"] == 1
    assert side["interval"] is None
    assert "cannot be told" in found.page.read_text()


def test_refused(tmp_path):
    recipe = tiny()
    for solvers, word in (
        ({}, "nothing to compare"),
        ({"a b": recipe.solver, "a-b": recipe.solver}, "share the folder"),
        ({"...": recipe.solver}, "no letter or digit"),
    ):
        with pytest.raises(RecipeError, match=word):
            go(solvers, tmp_path / "x", recipe)
    with pytest.raises(RecipeError, match="confidence"):
        go({"a": recipe.solver}, tmp_path / "x", recipe, confidence=1.0)
    # A solver that does not fit is told before the others are trained.
    normed = dataclasses.replace(
        recipe,
        game=GAN(
            lambda: nn.Linear(2, 2),
            lambda: nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)),
            Vanilla(),
            latent=2,
        ),
    )
    with pytest.raises(GameError, match="proximal"):
        go({"a": recipe.solver, "p": Proximal(2, optimizer=ADAM)}, tmp_path / "x", normed)
    assert not (tmp_path / "x").exists()
    go({"a": recipe.solver}, tmp_path / "y", recipe, seeds=(0,))
    with pytest.raises(RecordError, match="another run"):
        go({"a": Simultaneous(ADAM)}, tmp_path / "y", recipe, seeds=(0,))
