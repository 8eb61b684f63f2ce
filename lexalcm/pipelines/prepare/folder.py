"""The folder that prepared data goes to, and what it remembers of the work: settings, plan, finished shards.

A shard is finished when its note is there and its files have the sizes that the note says. All that is not data lies in
``_prepare``, which readers pass over.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lexalcm.data.dataset_card import DATASET_CARD
from lexalcm.errors import ConfigError
from lexalcm.folder_lock import folder_lock
from lexalcm.pipelines.json_file import read_json, write_json
from lexalcm.pipelines.prepare.record import ShardRecord

_WORK: Final = "_prepare"
REPORT_FILE: Final = "preparation.json"
"""What happened to all documents, beside the data."""


@dataclass(frozen=True)
class ShardNote:
    """A finished shard."""

    index: int

    files: Mapping[str, int]
    """Sizes in bytes, by path below the folder."""

    record: ShardRecord

    facts: Mapping[str, Any]
    """Of what ran: segmenter, encoder, seconds."""

    @property
    def comparable_facts(self) -> dict[str, Any]:
        """Of these, what all shards of a dataset must have in common."""
        return comparable(self.facts)


class PreparedFolder:
    """Files and folders of one output."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.work = self.path / _WORK
        self.settings_file = self.work / "settings.json"
        self.plan_file = self.work / "plan.json"
        self.logs = self.work / "logs"
        self.progress = self.work / "progress"
        self.staging = self.work / "staging"
        self._notes = self.work / "shards"
        self._lock = self.work / "lock"

    def check(self, settings: Mapping[str, Any], *, overwrite: bool) -> bool:
        """Looks at what is there; nothing is written.

        :returns: Whether there is something to go on with.
        :raises ConfigError: It holds something else, or was begun with other settings.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"OUT must be a folder, but {self.path} is a file.")
        present = sorted(entry.name for entry in self.path.iterdir()) if self.path.is_dir() else []
        if present and not self.work.is_dir():
            raise ConfigError(
                f"{self.path} is not empty and does not come from `prepare` ({present[0]} lies in it). Name another folder."
            )
        # Where no shard is done, what was asked for before does not matter.
        is_begun = self.plan_file.is_file() and self.settings_file.is_file() and any(self._notes.glob("*.json"))
        if overwrite or not is_begun:
            return False
        self._compare(settings)
        return True

    def begin(self, settings: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
        """Makes the folder ready for new work; data of earlier work in it are removed."""
        with self.locked():
            self._clear()
            for folder in (self._notes, self.logs, self.progress, self.staging):
                folder.mkdir(parents=True, exist_ok=True)
            write_json(self.settings_file, {"settings": settings})
            write_json(self.plan_file, plan)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else works here meanwhile.

        :raises ConfigError: Somebody does.
        """
        # The folder that a user knows is named, not the one in it.
        with folder_lock(self._lock, folder=self.path):
            yield

    def settings(self) -> dict[str, Any]:
        """:raises DataError: They are missing or damaged."""
        return read_json(self.settings_file)["settings"]

    def finish_shard(self, note: ShardNote) -> None:
        """Says that a shard's files are complete; they must be in their places."""
        data = {"files": note.files, "record": note.record.to_json(), "facts": note.facts}
        write_json(self._note_file(note.index), data)

    def finished_shards(self) -> Iterator[ShardNote]:
        """Yields the shards that need not be done again, in order."""
        for file in sorted(self._notes.glob("*.json")):
            data = read_json(file)
            sizes = {name: _size(self.path / name) for name in data["files"]}
            if sizes == data["files"]:
                yield ShardNote(int(file.stem), data["files"], ShardRecord.from_json(data["record"]), data["facts"])

    def clear_staging(self) -> None:
        """Removes what workers that died have left unfinished, and what they reported."""
        for folder in (self.staging, self.progress):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)

    def _note_file(self, index: int) -> Path:
        return self._notes / f"{index:06d}.json"

    def _clear(self) -> None:
        # Only what this command writes: people put notes of their own beside data. The plan first: without it, nothing
        # of what is left counts as done.
        self.plan_file.unlink(missing_ok=True)
        for entry in self.path.iterdir():
            if entry.is_dir() and entry.name.startswith("split="):
                shutil.rmtree(entry)
            elif entry.name in (DATASET_CARD, REPORT_FILE):
                entry.unlink()
        for entry in self.work.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)

    def _compare(self, settings: Mapping[str, Any]) -> None:
        found = self.settings()
        for field in sorted({*found, *settings}):
            if found.get(field) != settings.get(field):
                was, now = (json.dumps(of.get(field), ensure_ascii=False) for of in (found, settings))
                raise ConfigError(
                    f"{self.path} was begun with `{field}` {was}, but now it is {now}.\n"
                    f"Give the same settings to go on, name another folder, or replace it with --overwrite."
                )


def comparable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What of segmenter and encoder decides the result; the device, and how much it does at a time, only its last
    bits."""
    tools = {name: facts[name] for name in ("segmenter", "encoder")}
    free = ("device", "batch_tokens", "batch_size")
    return {name: {key: value for key, value in of.items() if key not in free} for name, of in tools.items()}


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None
