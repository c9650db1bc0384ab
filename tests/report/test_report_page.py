"""The written report: complete, honest about gaps, escaped, self-contained, repeatable."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import equilibrist.report
from equilibrist.errors import RecordError
from equilibrist.report import write_report
from equilibrist.report._record import Verdict

Make = Callable[..., Path]
SECTIONS = ["verdicts", "training", "samples", "trained", "reading", "reproduce", "cite"]
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """A page's elements and texts; fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> repeats an attribute"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def report(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_every_section_is_there_in_order(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    monkeypatch.chdir(run.parent)
    page = report(Path(run.name))
    assert [a["id"] for a in page.all("section")] == SECTIONS
    assert "Not a Nash equilibrium: with the critic frozen" in page.text
    for words in (
        "refuted",
        "not refuted",
        "unassessed",
        "verified",
        "87,361",
        "critic: -E log D(x) - E log(1 - D(G(z)))",
        "Alternating(critic_steps=5",
        "Tolerance 0.014 nats",
        "4 starts, 2,000 steps each (8,000 gradients)",
        "chosen: start 2",
        "A search gives a lower bound",
        "equilibrist audit digits-run",
        "--set dim=32",
        "equilibrist audit digits-run --step 3000 --set starts=4 --set steps=2000",
        "0123456789abcdef0123456789abcdef01234567",
        "equilibrist run digits-sngan --dir 'digits run'",
        "@inproceedings{miyato2018",
        "is no proof",
    ):
        assert words in page.text, words
    assert "What is missing here" not in page.text


def test_pictures_are_embedded_described_and_in_order_of_time(make_run: Make) -> None:
    page = report(make_run())
    images = page.all("img")
    # The newest and the real ones at the top; three of the search beside real ones; seven of the rest.
    assert len(images) == 2 + 4 + 7
    assert all(
        image["alt"] and (image["src"] or "").startswith("data:image/png") for image in images
    )
    alts = [image["alt"] or "" for image in images]
    steps = [int(m[1].replace(",", "")) for a in alts if (m := re.search(r"at step ([\d,]+)$", a))]
    assert steps[0] == 3000
    assert steps[1:] == sorted(steps[1:])
    assert 3000 not in steps[1:], "each picture once"
    assert [a for a in alts if "the search" in a] == [
        f"Samples of the generator {when} the search" for when in ("before", "during", "after")
    ]


def test_points_become_scatter_plots_over_the_real_ones(make_run: Make) -> None:
    run = make_run(points=True)
    text = write_report(run).read_text(encoding="utf-8")
    plots = [a for a in Page(text).all("svg") if a.get("class") == "scatter"]
    assert len(plots) >= 1 + 7 + 1
    assert "Real points lie in grey beneath" in text
    assert "points lie outside the frame" in text  # the first samples are wide


def test_charts_come_wide_and_narrow_with_words_for_screen_readers(make_run: Make) -> None:
    page = report(make_run())
    charts = [a for a in page.all("svg") if (a.get("class") or "").startswith("chart")]
    assert sum(a["class"] == "chart wide" for a in charts) == len(charts) / 2
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)
    # Four of training, two searches, four intervals (the pair's own claim has no number).
    assert len(charts) == 2 * (4 + 2 + 4)


@pytest.mark.parametrize("part", ["recipe", "environment", "metrics", "samples", "audit"])
def test_a_missing_part_is_said(make_run: Make, part: str) -> None:
    page = report(make_run(without=(part,)))
    assert [a["id"] for a in page.all("section")] == SECTIONS
    said = {
        "recipe": "There is no recipe.json",
        "environment": "no environment.json",
        "metrics": "No losses were logged",
        "samples": "No samples were saved",
        "audit": "The run has not been audited",
    }
    assert "What is missing here" in page.text
    assert said[part] in page.text
    others = [text for name, text in said.items() if name != part]
    assert not any(text in page.text for text in others)


def test_a_run_that_has_only_one_part(make_run: Make) -> None:
    everything = ("recipe", "environment", "metrics", "samples", "audit")
    for part in everything:
        run = make_run(f"only-{part}", without=tuple(p for p in everything if p != part))
        assert [a["id"] for a in report(run).all("section")] == SECTIONS


def test_empty_files_still_give_a_report(make_run: Make) -> None:
    run = make_run(without=("recipe", "environment", "metrics", "samples", "audit"))
    for name, content in (
        ("recipe.json", "{}"),
        ("environment.json", "[]"),
        ("metrics.jsonl", ""),
        ("audit/audit.json", '{"certificates": [{"claim": "odd/one", "verdict": "VERIFIED"}]}'),
    ):
        (run / name).parent.mkdir(exist_ok=True)
        (run / name).write_text(content)
    assert "Odd: one: verified" in report(run).text


NASTY = (
    '</style><script>alert(1)</script><img src=x onerror="a()">\'"&amp; '
    "\u202e\u00e9\u4e2d\U0001f600\0\ud800"
)


def spoil(value: Any, keep: frozenset[str] = frozenset()) -> Any:
    """The same structure with nasty texts everywhere that texts are free, keys included."""
    if isinstance(value, dict):
        spoilt = {k: item if k in keep else spoil(item, keep) for k, item in value.items()}
        return spoilt | {NASTY: NASTY, f"{NASTY}2": {NASTY: [NASTY]}}
    if isinstance(value, list):
        return [spoil(item, keep) for item in value]
    return NASTY if isinstance(value, str) else value


def test_nothing_in_a_record_becomes_markup(make_run: Make) -> None:
    clean = report(make_run("clean"))
    run = make_run("<b>'\"&")
    keep = frozenset({"verdict", "samples", "curves", "chosen", "confidence", "players"})
    for name in ("recipe.json", "environment.json", "audit/audit.json"):
        value = spoil(json.loads((run / name).read_text()), keep)
        if name == "recipe.json":
            value["description"]["game"]["players"] = {NASTY: {"class": NASTY, "parameters": 1}}
            value["references"][0] = {
                "text": f"{NASTY} javascript:a() http://x/\"'>",
                "bibtex": NASTY,
            }
        (run / name).write_text(json.dumps(value))
    row = {"step": 1, "loss": {NASTY: 1.0}, NASTY: {NASTY: 2.0}}
    (run / "metrics.jsonl").write_text(json.dumps(row))
    page = report(run)

    # The kinds of element and attribute that a clean record gives, the dot of a chart with one
    # point, the fold of further numbers, and no others.
    def kinds(of: Page) -> set[tuple[str, str]]:
        return {(tag, name) for tag, attributes in of.elements for name in ("", *attributes)}

    harmless = {("circle", name) for name in ("", "class", "cx", "cy", "r")} | {
        ("details", "class")
    }
    assert kinds(page) <= kinds(clean) | harmless
    assert page.text.count("<script>alert(1)</script>") > 20
    for attributes in page.all("a"):
        assert re.match(r"#|https?://", attributes["href"] or "")


def test_extreme_numbers_give_a_report(make_run: Make) -> None:
    run = make_run()
    extremes = [1e308, -1e308, 5e-324, 0.0, None, "NaN", "-Infinity", 10**400, 1e-12, -3.0]
    with (run / "metrics.jsonl").open("w") as file:
        for step, value in enumerate(extremes):
            row = {"step": step, "loss": {"generator": value, "critic": 1e16 + step}}
            row["grad_norm"] = {"generator": 10.0 ** (step * 20), "critic": 0}
            file.write(json.dumps(row) + "\n")
    path = run / "audit" / "audit.json"
    original = json.loads(path.read_text())
    for value in extremes:
        audit = json.loads(json.dumps(original))
        for certificate in audit["certificates"]:
            certificate["tolerance"]["value"] = value
            evidence = certificate["evidence"]
            for key in ("gain", "residual", "loss_before", "confidence"):
                evidence[key] = value
            evidence["interval"] = [value, value]
            for curve in evidence.get("curves", []):
                curve["gain"] = [(extremes * 5)[i] for i in range(len(curve["gain"]))]
        path.write_text(json.dumps(audit))
        text = write_report(run).read_text(encoding="utf-8")
        Page(text)
        assert not re.search(r'(?:d|x|y|cx|cy|width|height)="[^"]*(?:nan|inf)', text)
        strict = (run / "report.json").read_text()
        json.loads(strict, parse_constant=lambda name: pytest.fail(f"{name} in report.json"))


def test_extreme_points_give_a_report(make_run: Make) -> None:
    run = make_run(points=True)
    wild = np.array([[np.nan, 0], [np.inf, 1], [1e308, -1e308], [0, 0]])
    np.save(run / "samples" / "step_00003000.npy", wild)
    np.save(run / "samples" / "step_00002500.npy", np.zeros((0, 2)))
    assert "3 points lie outside the frame" in report(run).text
    np.save(run / "samples" / "real.npy", wild)
    assert "nan" not in re.findall(r'd="([^"]*)"', write_report(run).read_text())


def test_the_same_record_gives_the_same_bytes(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(points=True)
    monkeypatch.chdir(run.parent)  # commands name the run as it was named
    html = write_report(Path(run.name)).read_bytes()
    facts = (run / "report.json").read_bytes()
    copy = tmp_path / "elsewhere" / run.name
    shutil.copytree(run, copy)
    program = (
        "import sys, pathlib; from equilibrist.report import write_report; "
        "write_report(pathlib.Path(sys.argv[1]))"
    )
    source = str(Path(equilibrist.report.__file__).parents[2])
    again = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": source}
    subprocess.run(
        [sys.executable, "-c", program, copy.name], check=True, env=again, cwd=copy.parent
    )
    assert (copy / "report.html").read_bytes() == html
    assert (copy / "report.json").read_bytes() == facts


def test_nothing_is_loaded_from_outside(make_run: Make) -> None:
    for points in (False, True):
        text = write_report(make_run(f"run-{points}", points=points)).read_text(encoding="utf-8")
        page = Page(text)
        assert not page.all("script")
        for tag, attributes in page.elements:
            for name in ("src", "srcset", "href", "xlink:href", "data", "poster", "action"):
                value = attributes.get(name) or ""
                if value and not (tag == "a" and name == "href"):
                    assert value.startswith("data:"), (tag, name, value[:60])
        style = text[text.index("<style>") : text.index("</style>")]
        assert "url(" not in style
        assert "@import" not in style
        policy = next(a["content"] for a in page.all("meta") if "http-equiv" in a) or ""
        assert policy.startswith("default-src 'none'")


def test_the_report_needs_no_torch(make_run: Make) -> None:
    """Runs with torch forbidden, and without the package's front door, which may import it."""
    run = make_run()
    source = Path(equilibrist.report.__file__).parents[1]
    program = f"""
import pathlib, sys, types
sys.modules["torch"] = None
sys.modules["matplotlib"] = None
package = types.ModuleType("equilibrist")
package.__path__ = [{str(source)!r}]
sys.modules["equilibrist"] = package
from equilibrist.report import write_report
print(write_report(pathlib.Path({str(run)!r})))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(run / "report.html")


def test_a_failed_write_leaves_the_old_report(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    before = write_report(run).read_bytes()
    files = sorted(path.name for path in run.iterdir())

    def refuse(handle: int) -> None:
        raise OSError("disk full")

    (run / "environment.json").unlink()
    files.remove("environment.json")
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_report(run)
    assert (run / "report.html").read_bytes() == before
    assert sorted(path.name for path in run.iterdir()) == files


def test_a_folder_without_a_run_gets_no_report(tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (
            "audit/audit.json",
            lambda d: d["certificates"][0].update(evidence={"chosen": {"start": {}}}),
        ),
        ("audit/audit.json", lambda d: d.update(certificates=[3])),
        ("audit/audit.json", lambda d: d.clear() or d.update(format=7)),
        ("recipe.json", lambda d: d.update(steps=[1])),
        ("recipe.json", lambda d: d["description"].update(game={"players": {"critic": 3}})),
        ("environment.json", lambda d: d.append("x")),
    ],
)
def test_a_damaged_part_is_named_and_the_rest_is_shown(
    make_run: Make, name: str, change: Callable[[Any], object]
) -> None:
    run = make_run()
    value = json.loads((run / name).read_text())
    change(value)
    (run / name).write_text(json.dumps(value))
    page = report(run)
    facts = json.loads((run / "report.json").read_text())
    for note in facts["notes"]:
        assert note.startswith(f"{name}: ")
        assert note in page.text
    if name == "audit/audit.json" and facts["audit"] is None:
        assert "the audit of it is damaged" in facts["headline"]["text"]
    assert len(facts["samples"]) == 9
    assert facts["metrics"]["loss"]


def test_the_facts_for_machines_match_the_page(make_run: Make) -> None:
    run = make_run()
    page = report(run)
    facts = json.loads((run / "report.json").read_text())
    assert facts["format"] == 1
    assert facts["headline"]["text"] in page.text
    assert facts["last_step"] == 3000
    assert facts["missing"] == []
    verdicts = {c["claim"]: c["verdict"] for c in facts["audit"]["certificates"]}
    assert verdicts["nash/generator"] == "REFUTED"
    assert set(verdicts.values()) <= set(Verdict)
    assert facts["audit"]["certificates"][1]["evidence"]["gain"] == 1.9
    assert facts["metrics"]["loss"]["critic"]["count"] == 600
    assert facts["commands"]["run"] in page.text
