"""What the command prints of names and records that others made."""

from __future__ import annotations

import json
import shlex

from equilibrist.cli import main

ESCAPE = "\x1b]0;owned\x07\x1b[31m"
MANIFEST = {
    "format": 1,
    "recipe": "my file.py:make it",
    "title": f"title {ESCAPE}",
    "settings": {},
    "seed": 0,
    "steps": 1,
    "origin": {"kind": "file"},
    "description": {
        "game": {"players": {f"critic{ESCAPE}": {"class": f"MLP{ESCAPE}", "parameters": 3}}},
        "data": {"source": f"from {ESCAPE}\udcff"},
        "solver": {"text": f"SGD{ESCAPE}\u202e"},
    },
}


def test_control_characters_of_a_record_do_not_reach_the_terminal(tmp_path, capsys) -> None:
    run = tmp_path / f"a run{ESCAPE}"
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps(MANIFEST))
    assert main(["info", str(run)]) == 0
    shown = capsys.readouterr().out
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert "critic\\x1b]0;owned\\x07\\x1b[31m: MLP" in shown
    assert main(["report", str(run / "nowhere")]) == 3
    told = capsys.readouterr().err
    assert all(c.isprintable() or c == "\n" for c in told)


def test_commands_that_are_suggested_are_quoted(tmp_path, capsys) -> None:
    run = tmp_path / "a run; rm x"
    run.mkdir()
    (run / "recipe.json").write_text(json.dumps(MANIFEST))
    assert main(["info", str(run)]) == 0
    command = capsys.readouterr().out.splitlines()[-1].partition("not audited yet: ")[2]
    words = ["equilibrist", "audit", str(run), "--recipe", "my file.py:make it"]
    assert shlex.split(command) == words
    assert main(["audit", str(run)]) == 3
    assert "--recipe 'my file.py:make it'" in capsys.readouterr().err
