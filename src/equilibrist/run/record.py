"""The run directory: the one record of a run (its format is in docs/formats.md)."""

from __future__ import annotations

import contextlib
import json
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from equilibrist.certificates import Json
from equilibrist.errors import RecordError
from equilibrist.files.atomic import (
    PART,
    json_ready,
    remove_leftovers,
    try_lock,
    unless_unsupported,
    unwritable,
    write_atomically,
    write_json,
)
from equilibrist.files.owned import LEDGER, mark_written, require_folder, unmark_written
from equilibrist.files.reading import JSON_BYTES, parse_json, read_regular, reason
from equilibrist.run import checkpoint, code
from equilibrist.run.manifest import FORMAT, cut_json, differing_entry, identifying_part
from equilibrist.run.reading import json_rows, read_json

_SHEET = re.compile(r"(?:step_(\d{8,})|real|mean)\.(?:png|npy)")
_KEYS = {
    "recipe": str,
    "settings": dict,
    "seed": int,
    "steps": int,
    "origin": dict,
    "description": dict,
}


class Record:
    """Paths, manifest and metrics of one run directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.checkpoints = self.directory / "checkpoints"
        self.samples = self.directory / "samples"
        self.audit = self.directory / "audit"
        self.manifest_path = self.directory / "recipe.json"
        self.metrics_path = self.directory / "metrics.jsonl"
        self.scores_path = self.directory / "scores.jsonl"
        self.status_path = self.directory / "status.json"
        self.guard_path = self.directory / "guard.json"
        self.checkpoint: str | None = None  # the newest that this session knows of
        self._metrics: IO[str] | None = None

    def manifest(self) -> Json:
        """recipe.json; RecordError where there is none or it cannot be read."""
        path = self.manifest_path
        try:
            value = parse_json(read_regular(path, JSON_BYTES))
        except FileNotFoundError:
            raise RecordError(
                f"{self.directory} is not a run directory (it has no recipe.json): "
                "make one with `equilibrist run RECIPE`"
            ) from None
        except NotADirectoryError:
            raise RecordError(f"{self.directory} is a file, not a run directory") from None
        except (OSError, ValueError) as error:
            raise RecordError(f"{path} cannot be read ({reason(error)})") from None
        if not isinstance(value, dict) or "format" not in value:
            raise RecordError(f"{path} is no record of a run (it has no 'format')")
        if value["format"] != FORMAT:
            raise RecordError(
                f"{path} is not of format {FORMAT}: it comes from another version of equilibrist"
            )
        for key, kind in _KEYS.items():
            if not isinstance(value.get(key), kind):
                raise RecordError(f"{path} is damaged: its {key!r} is missing or of the wrong kind")
        return value

    def refuse_foreign(self) -> None:
        """RecordError where the directory is a file, or holds other things than a run: a recipe.json that is
        none of a run's, too. Nothing is made or changed."""
        if self.directory.exists() and not self.directory.is_dir():
            raise RecordError(f"{self.directory} is a file: choose another folder with --dir")
        if not self.directory.exists():
            return
        if self.manifest_path.exists():
            try:
                self.manifest()
            except RecordError as error:
                raise RecordError(f"{error}: choose another folder with --dir") from None
            for folder in (self.checkpoints, self.samples):
                require_folder(folder)
            return
        for path in sorted(self.directory.iterdir()):
            if path.name not in (".lock", LEDGER) and not path.name.endswith(PART):
                raise RecordError(
                    f"{self.directory} holds other files ({path.name}) and no recipe.json: choose an empty "
                    "folder with --dir"
                )

    def create(self, manifest: Json) -> None:
        """Make the folders and recipe.json, or see that what is there is the same run.

        A record of a run in which no step was done gives way to another; what is no record never does.
        """
        self.refuse_foreign()
        if self.manifest_path.exists():
            try:
                self.require_same(manifest)
            except RecordError:
                if not self.forget_untrained():
                    raise
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self.directory)
            if fresh := not self.manifest_path.exists():
                # Before the folders: a process killed in between leaves nothing that looks foreign.
                write_json(self.manifest_path, manifest)
            for folder in (self.checkpoints, self.samples):
                folder.mkdir(exist_ok=True)
                remove_leftovers(folder)
                # A process may have been killed before it came to this. (Runs of earlier versions go without.)
                begun = self.status_path.exists() or any(folder.iterdir())
                if fresh or folder.is_symlink() or not begun:
                    mark_written(folder)
        except OSError as error:
            raise unwritable(Path(error.filename or self.directory), error) from None

    def forget_untrained(self) -> bool:
        """Take back a record in which no step was ever done; whether there was one.

        Only files of the run's own go, none behind a link, and folders that are empty without them.
        """
        if not self._untrained():
            return False
        begun = self.manifest_path.stat().st_mtime
        own = [path for _, path in checkpoint.existing(self.checkpoints)]
        own += [
            p
            for p in self.samples.glob("*.*")
            if (n := _SHEET.fullmatch(p.name)) and not int(n[1] or 0)
        ]
        events = (self.directory / "tensorboard").glob("events.out.tfevents.*")
        own += [p for p in events if p.lstat().st_mtime >= begun]
        for path in own:
            if not path.is_symlink() and not path.parent.is_symlink():
                path.unlink(missing_ok=True)
        for name in (
            "metrics.jsonl",
            "scores.jsonl",
            "environment.json",
            "status.json",
            "guard.json",
            "recipe.json",
        ):
            (self.directory / name).unlink(missing_ok=True)
        for folder in (self.checkpoints, self.samples, self.directory / "tensorboard"):
            if not folder.is_symlink():
                unmark_written(folder)
                with contextlib.suppress(OSError):
                    folder.rmdir()
        return True

    def _untrained(self) -> bool:
        """Whether this is a record, and all of it can be read and says that no step was done."""
        try:
            self.manifest()
            status = parse_json(read_regular(self.status_path, JSON_BYTES))
            begun = bool(status.get("step") or status.get("state") == "diverged")
        except FileNotFoundError:  # killed before the first word
            begun = False
        except (RecordError, OSError, ValueError, AttributeError):
            return False
        try:
            steps = [step for step, _ in checkpoint.existing(self.checkpoints)]
            return not (begun or any(steps) or self.rows())
        except RecordError:
            return False

    def update(self, manifest: Json, step: int) -> None:
        """Renew recipe.json (more steps, another device) once it is clear that training goes on at
        `step`. Where the code is another, what it was until then stays in its "history"."""
        held = self.manifest()
        history = list(held.get("history") or [])
        if step > 0 and code.changes(held, manifest):
            history.append({"until_step": step, **{k: held.get(k) for k in ("origin", "code")}})
        if history:
            manifest = {**manifest, "history": history}
        if held != json_ready(manifest):
            write_json(self.manifest_path, manifest)

    def warn_of_other_code(self, now: Json, step: int | None = None) -> None:
        """A warning where the run was made, before or all of it, by other code than `now`.

        Args:
            now: a manifest's "code" and, where it has one, "origin".
            step: where training goes on; None: it does not.
        """
        held = self.manifest()
        names = ", ".join(code.changes(held, now))
        if names and step is not None:
            warnings.warn(
                f"{self.directory}: the code of {names} has changed since step {step}: another game goes on "
                "from here (recipe.json keeps the history); take the code as it was, or another directory "
                "(--dir)",
                stacklevel=4,
            )
        elif names:
            warnings.warn(
                f"{self.directory} was trained by other code: that of {names} has changed since",
                stacklevel=4,
            )
        for entry in (held.get("history") or []) if step is None else []:
            warnings.warn(
                f"{self.directory} was trained by other code until step {entry.get('until_step')}: where it "
                "is now, neither code alone has led",
                stacklevel=4,
            )

    def require_checkpoints(self, found: int) -> None:
        """RecordError where the checkpoints that were written are gone; a warning where only newer ones
        than `found` (-1: none) are. Training would begin anew, and its record with it."""
        wrote = self._wrote()
        path = checkpoint.path_of(self.checkpoints, wrote)
        if wrote <= max(found, 0) or path.exists():
            return
        if found < 0:
            raise RecordError(
                f"{self.directory} was trained to step {wrote} or further, but its checkpoints are gone: put "
                f"them back into {self.checkpoints}, or begin again in another directory (--dir)"
            )
        warnings.warn(
            f"{path} is gone: going on from step {found}, and what was recorded after it is made again",
            stacklevel=4,
        )

    def _wrote(self) -> int:
        """The step of the newest checkpoint that was written, as far as status.json knows."""
        status = self.status_values()
        name = status.get("checkpoint")
        if isinstance(name, str) and (step := checkpoint.step_of(name)) is not None:
            return step
        step = status.get("step") if status.get("state") in ("finished", "interrupted") else 0
        return step if isinstance(step, int) else 0

    def state(self) -> str:
        """The state in status.json; empty where there is none."""
        return str(self.status_values().get("state") or "")

    def status_values(self) -> Json:
        """status.json, empty where there is none that can be read."""
        try:
            value = parse_json(read_regular(self.status_path, JSON_BYTES))
        except (OSError, ValueError):
            return {}
        return value if isinstance(value, dict) else {}

    def require_same(self, wanted: Json, *keys: str) -> None:
        """RecordError unless the record and `wanted` agree in these keys, naming where they do not."""
        held, wanted = self.manifest(), json_ready(wanted)
        for key in keys or ("recipe", "seed", "settings", "dtype", "description"):
            was, now = (identifying_part(key, m.get(key)) for m in (held, wanted))
            if was != now:
                where, was, now = differing_entry(was, now, key)
                raise RecordError(
                    f"{self.directory} holds another run: its {where} is {cut_json(was)}, not {cut_json(now)}; "
                    "take the recipe and settings that made it, or another directory (--dir)"
                )

    @contextmanager
    def lock(self, what: str = "") -> Iterator[None]:
        """Held while one process trains here (or audits: `what`); a second is refused."""
        self.refuse_foreign()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle = os.open(
                self.directory / f".{what}lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666
            )
        except OSError as error:
            raise RecordError(
                f"{self.directory} cannot be written ({error.strerror}): choose another --dir"
            ) from None
        try:
            locked = try_lock(handle)
            if locked is False:
                raise RecordError(
                    f"another process is writing to {self.directory}: wait for it, or choose another --dir"
                )
            if locked is None:
                warnings.warn(
                    f"{self.directory} lies on a file system without locks: nothing notices another process "
                    "that trains there",
                    stacklevel=4,
                )
            yield
        finally:
            os.close(handle)

    # -- metrics --------------------------------------------------------------------------------

    def rows(self) -> list[Json]:
        """Every whole row of metrics.jsonl; a last line cut short by a crash does not count."""
        return [
            {**row, "seconds": float(row["seconds"])}
            for row in json_rows(self.metrics_path, "seconds", loss=dict)
        ]

    def scores(self) -> list[Json]:
        """Every whole row of scores.jsonl."""
        return json_rows(self.scores_path, name=str, values=dict, floor=dict, better=dict)

    def score(self, row: Json) -> None:
        """Append one row of scores.jsonl, on the disk at once: they are few."""
        rows = [*self.scores(), row]
        text = "".join(json.dumps(json_ready(r)) + "\n" for r in rows)
        write_atomically(self.scores_path, text.encode())

    def rewind(self, step: int) -> float:
        """Forget metrics, scores and samples after `step`; returns the seconds trained until then."""
        if self.scores_path.exists():
            rows = [json.dumps(r) + "\n" for r in self.scores() if r["step"] <= step]
            write_atomically(self.scores_path, "".join(rows).encode())
        kept = [row for row in self.rows() if row["step"] <= step]
        write_atomically(self.metrics_path, "".join(json.dumps(r) + "\n" for r in kept).encode())
        # Behind a link may lie others' files: a sheet there is replaced when its step comes again.
        for sheet in [] if self.samples.is_symlink() else self.samples.glob("step_*"):
            named = _SHEET.fullmatch(sheet.name)
            if named and int(named[1]) > step:
                sheet.unlink()
        return float(kept[-1]["seconds"]) if kept else 0.0

    def log(self, row: Json) -> None:
        """Append one row."""
        try:
            if self._metrics is None:
                self._metrics = self.metrics_path.open("a", encoding="utf-8")
            self._metrics.write(json.dumps(json_ready(row)) + "\n")
            self._metrics.flush()
        except OSError as error:
            raise unwritable(self.metrics_path, error) from None

    def fsync_metrics(self) -> None:
        """Metrics on the disk: called before a checkpoint is, so that no checkpoint outlives its rows."""
        if self._metrics is not None:
            try:
                with unless_unsupported():
                    os.fsync(self._metrics.fileno())
            except OSError as error:
                raise unwritable(self.metrics_path, error) from None

    def close(self) -> None:
        """Release metrics.jsonl."""
        if self._metrics is not None:
            with contextlib.suppress(
                OSError
            ):  # a row that no disk took was told of when it was logged
                self._metrics.close()
            self._metrics = None

    def session(self, entry: Json) -> list[Json]:
        """Add a session to environment.json; returns all of them."""
        path = self.directory / "environment.json"
        sessions = read_json(path) if path.exists() else []
        if not isinstance(sessions, list) or not all(
            isinstance(e, dict) and "versions" in e for e in sessions
        ):
            raise RecordError(f"{path} is damaged: remove it to go on without the earlier sessions")
        sessions.append(entry)
        write_json(path, sessions)
        return sessions

    def last_session(self) -> Json | None:
        """The newest entry of environment.json; None where there is none that can be read."""
        path = self.directory / "environment.json"
        sessions = read_json(path) if path.exists() else []
        last = sessions[-1] if isinstance(sessions, list) and sessions else None
        return last if isinstance(last, dict) else None

    def status(self, state: str, step: int, message: str = "") -> None:
        """Write status.json: running, interrupted, diverged or finished; and the newest checkpoint."""
        value = {"state": state, "step": step, "message": message, "checkpoint": self.checkpoint}
        write_json(self.status_path, value)
