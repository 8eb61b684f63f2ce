"""What a conversion remembers in its output folder, so that a rerun does only what is missing."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lexalcm.data.dataset_card import DATASET_CARD
from lexalcm.data.discover import DataFile
from lexalcm.errors import ConfigError
from lexalcm.pipelines.convert.config import ConvertConfig
from lexalcm.pipelines.convert.plan import Plan
from lexalcm.pipelines.convert.result import BadRow, FileResult, Output
from lexalcm.pipelines.json_file import write_json

SUMMARY: Final = "conversion.json"
_NOTES: Final = "_convert"
_FORMAT: Final = 1


class Notes:
    """The folder ``_convert`` below the output: the settings, and a note for each source file that is done."""

    def __init__(self, config: ConvertConfig, plan: Plan) -> None:
        self._output = config.folder
        self._folder = config.folder / _NOTES
        self._overwrite = config.overwrite
        self.settings = {
            "source": config.place_of_source,
            "layout": config.layout,
            "dtype": config.dtype,
            "embedding_column": config.embedding_column,
            "text_column": config.text_column,
            "concept_dim": plan.concept_dim,
            **plan.rule.settings(),
        }
        self._files = {
            job.file.relative: {"name": job.name, "size": job.file.size, "modified": _modified(job.file)}
            for job in plan.jobs
        }
        self._digest = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    @property
    def aside(self) -> Path:
        """Where files lie until they are complete."""
        return self._folder / "unfinished"

    def check(self) -> None:
        """Looks at what stands in the output folder, and changes nothing.

        :raises ConfigError: It is not a conversion's, or of other settings or another source.
        """
        if not self._output.exists():
            return
        found = {entry.name for entry in self._output.iterdir()}
        old = self._read_settings()
        if old is None:
            if found - {_NOTES}:
                raise ConfigError(
                    f"{self._output} is not empty, and no conversion made it. Name another folder, or empty it."
                )
            return
        if not self._overwrite:
            self._compare(old)

    def _read_settings(self) -> dict[str, Any] | None:
        file = self._folder / "settings.json"
        if not file.is_file():
            return None
        try:
            old = json.loads(file.read_text(encoding="utf-8"))
            known = isinstance(old, dict) and old.get("format") == _FORMAT
        except ValueError:
            known = False
        if not known or not isinstance(old.get("settings"), dict) or not isinstance(old.get("files"), dict):
            raise ConfigError(f"{file} was not written by this version of the program. Name another output folder.")
        return old

    def _compare(self, old: dict[str, Any]) -> None:
        fix = "Ask for the same, name another folder, or begin anew with --overwrite."
        for name, value in self.settings.items():
            if old["settings"].get(name) != value:
                raise ConfigError(
                    f"{self._output} was begun with {name} {old['settings'].get(name)!r}, not {value!r}.\n{fix}"
                )
        changes = {
            "is new in the source": self._files.keys() - old["files"].keys(),
            "is gone from the source": old["files"].keys() - self._files.keys(),
            "has changed": {name for name, facts in self._files.items() if old["files"].get(name) != facts},
        }
        for what, names in changes.items():
            if names:
                more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
                raise ConfigError(f"{self._output} was begun with another source: {min(names)}{more} {what}.\n{fix}")

    def begin(self) -> None:
        """Makes the folder ready: what an interrupted run left unfinished goes, and with ``overwrite`` all that was
        written."""
        if self._overwrite:
            self._remove_outputs()
        shutil.rmtree(self.aside, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_json(self._folder / "settings.json", {"format": _FORMAT, "settings": self.settings, "files": self._files})

    def _remove_outputs(self) -> None:
        old = self._read_settings() if self._output.exists() else None
        if old is None:
            return
        for name in (SUMMARY, DATASET_CARD):
            (self._output / name).unlink(missing_ok=True)
        for folder in sorted(entry for entry in self._output.iterdir() if entry.is_dir() and entry != self._folder):
            for facts in old["files"].values():
                (folder / facts["name"]).unlink(missing_ok=True)
            if not any(folder.iterdir()):
                folder.rmdir()
        for note in self._folder.glob("*.done.json"):
            note.unlink()

    def finished(self, relative: str) -> FileResult | None:
        """What became of a source file, if that is known and still there."""
        file = self._note(relative)
        if not file.is_file():
            return None
        note = json.loads(file.read_text(encoding="utf-8"))
        if note["settings"] != self._digest:
            return None
        facts = note["result"]
        outputs = {split: Output(**output) for split, output in facts.pop("outputs").items()}
        for output in outputs.values():
            path = self._output / output.path
            if not path.is_file() or path.stat().st_size != output.num_bytes:
                return None
        return FileResult(**{**facts, "bad": [BadRow(**row) for row in facts["bad"]], "outputs": outputs})

    def add(self, result: FileResult) -> None:
        """Notes that a source file is done."""
        write_json(self._note(result.file), {"settings": self._digest, "result": asdict(result)})

    def end(self) -> None:
        """Removes the folder for unfinished files."""
        shutil.rmtree(self.aside, ignore_errors=True)

    def _note(self, relative: str) -> Path:
        return self._folder / f"{hashlib.blake2b(relative.encode(), digest_size=12).hexdigest()}.done.json"


def _modified(file: DataFile) -> str | None:
    """When a file was last changed, where its file system tells."""
    try:
        return str(file.file_system.modified(file.path))
    except (NotImplementedError, KeyError, OSError, AttributeError):
        return None
