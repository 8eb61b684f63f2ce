"""Files of continuations that survive being broken off: every finished prompt is on the disk before the next one.

Rows are JSON lines in the order in which prompts finish. JSON lines are the output itself, put into the order of the
input at the end; parquet is written from them at the end, and until then they lie beside it. ``FILE.settings.json``
tells how the continuations were made; a run that goes on must be made alike.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from time import monotonic
from typing import Any, BinaryIO, Final

from lexalcm.errors import ConfigError, DataError
from lexalcm.generation.output_parquet import read_ids, write_parquet

SUFFIXES: Final = (".jsonl", ".parquet")
_SECONDS_BETWEEN_SYNCS: Final = 1.0


class OutputFile:
    """One output. :meth:`check` looks at what is there; nothing is written before :meth:`open`."""

    def __init__(self, path: str | Path, *, resume: bool = False, overwrite: bool = False) -> None:
        """
        :param resume: Go on with what is there.
        :param overwrite: Replace what is there.
        :raises ConfigError: The path or the options cannot be honoured.
        """
        self.path = Path(path)
        self._resume, self._overwrite = resume, overwrite
        if self.path.suffix not in SUFFIXES or self.path.is_dir():
            raise ConfigError(f"`--output` must be a file that ends in {' or '.join(SUFFIXES)}, but is {self.path}.")
        if resume and overwrite:
            raise ConfigError("`--resume` goes on with what is there and `--overwrite` replaces it: give one of them.")
        if not self.path.parent.is_dir():
            raise ConfigError(f"`--output`: the folder {self.path.parent.resolve()} does not exist.")
        is_parquet = self.path.suffix == ".parquet"
        self.journal = self.path.with_name(f"{self.path.name}.partial.jsonl") if is_parquet else self.path
        """Where rows go as prompts finish."""
        self.settings_file = self.path.with_name(f"{self.path.name}.settings.json")
        self._handle: BinaryIO | None = None
        self._rows: dict[str, _Place] = {}
        self._end = 0
        self._last_sync = monotonic()

    @property
    def done(self) -> Collection[str]:
        """Ids of the prompts whose row is written."""
        return self._rows.keys()

    def check(
        self, settings: Mapping[str, Any], indices: Mapping[str, int], digests: Mapping[str, str] | None = None
    ) -> bool:
        """Looks at what is there, and tells whether all is done already.

        :param settings: What the continuations depend on, as plain data; nested by section.
        :param indices: The number of each id in the input.
        :param digests: Of what the prompt of each id says.
        :raises ConfigError: The output is there and may not be touched, or was made with other settings.
        :raises DataError: It is damaged, or was made from another input.
        """
        # A run that was broken off before its first row leaves an empty file.
        present = [file for file in (self.path, self.journal) if file.exists() and file.stat().st_size]
        if not present or self._overwrite:
            return False
        if not self._resume:
            unfinished = " from a run that was broken off" if self.path not in present else ""
            raise ConfigError(
                f"{present[0]} is there already{unfinished}.\nGo on with it: --resume. Replace it: --overwrite."
            )
        self._compare_settings(settings)
        if not self.journal.exists():
            _check_ids(self.path, indices, digests or {})
            return True
        self._rows, self._end = _read_rows(self.journal)
        for name, place in self._rows.items():
            if indices.get(name) != place.index or _differ(place.digest, (digests or {}).get(name)):
                raise DataError(
                    f'{self.journal} holds the prompt "{name}" as number {place.index}, which stands elsewhere in the '
                    f"input, or says something else there: it was made from another input.\n"
                    f"Name another output, or replace it: --overwrite."
                )
        return len(self._rows) == len(indices)

    def open(self, settings: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> None:
        """Begins, or goes on where :meth:`check` has found that rows end; a torn last row is cut off.

        :param facts: What is worth knowing, but may change when a run goes on.
        """
        text = json.dumps({"settings": settings, **(facts or {})}, indent=2, ensure_ascii=False)
        if self._rows:
            self._handle = open(self.journal, "r+b")
            self._handle.truncate(self._end)
            self._handle.seek(self._end)
            return
        if self.journal != self.path and self._overwrite:
            self.path.unlink(missing_ok=True)
        self.settings_file.write_text(text + "\n", encoding="utf-8")
        self._handle = open(self.journal, "wb")

    def add(self, row: Mapping[str, Any]) -> None:
        """Writes the row of a finished prompt, with its ``id`` and ``index``."""
        assert self._handle is not None
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        self._handle.write(line)
        self._handle.flush()
        self._rows[row["id"]] = _Place(row["index"], row.get("digest"), self._end, len(line))
        self._end += len(line)
        if monotonic() - self._last_sync > _SECONDS_BETWEEN_SYNCS:
            self._sync()

    def close(self) -> None:
        """Ends writing; what is written is on the disk."""
        if self._handle is not None:
            self._sync()
            self._handle.close()
            self._handle = None

    def finish(self) -> None:
        """Puts the rows into the order of the input, and makes parquet of them where that is asked for."""
        self.close()
        if self.path != self.journal:
            if self.journal.exists():
                write_parquet(self.path, self.rows)
                self.journal.unlink()
            return
        places = list(self._rows.values())
        if places == sorted(places, key=lambda place: place.index):
            return
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            with open(aside, "wb") as handle:
                handle.writelines(self._lines())
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(aside, self.path)
        finally:
            aside.unlink(missing_ok=True)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows written so far, in the order of the input."""
        return (json.loads(line) for line in self._lines())

    def _lines(self) -> Iterator[bytes]:
        with open(self.journal, "rb") as handle:
            for place in sorted(self._rows.values(), key=lambda place: place.index):
                handle.seek(place.start)
                yield handle.read(place.length)

    def _sync(self) -> None:
        assert self._handle is not None
        os.fsync(self._handle.fileno())
        self._last_sync = monotonic()

    def _compare_settings(self, settings: Mapping[str, Any]) -> None:
        try:
            found = json.loads(self.settings_file.read_text(encoding="utf-8"))["settings"]
        except (OSError, ValueError, KeyError, TypeError) as ex:
            raise DataError(
                f"{self.settings_file}, which tells how {self.path} was made, cannot be read: {ex}.\n"
                f"Name another output, or replace it: --overwrite."
            ) from None
        asked = json.loads(json.dumps(settings))
        for field, was, now in _differences(found, asked):
            raise ConfigError(
                f"{self.path} was begun with `{field}` {json.dumps(was, ensure_ascii=False)}, but now it is "
                f"{json.dumps(now, ensure_ascii=False)}.\nGive the same settings, name another output, or --overwrite."
            )


class _Place:
    """Where a row stands in the journal."""

    def __init__(self, index: int, digest: str | None, start: int, length: int) -> None:
        self.index, self.digest, self.start, self.length = index, digest, start, length


def _differ(found: str | None, asked: str | None) -> bool:
    return bool(found and asked) and found != asked


def _check_ids(path: Path, indices: Mapping[str, int], digests: Mapping[str, str]) -> None:
    found = read_ids(path)
    ids = list(found)
    if ids != list(indices) or any(_differ(digest, digests.get(name)) for name, digest in found.items()):
        raise DataError(
            f"{path} is complete with {len(ids)} prompts, but the input's {len(indices)} are others.\n"
            f"Name another output, or replace it: --overwrite."
        )


def _read_rows(journal: Path) -> tuple[dict[str, _Place], int]:
    """Returns the rows by id, and where the last whole one ends."""
    rows: dict[str, _Place] = {}
    start = 0
    with open(journal, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            row = _parse(line)
            if row is None:
                if lines.read(1):
                    raise DataError(f"{journal}:{number} is not a row of a continuation: the file is damaged.")
                break  # torn when the run was broken off
            rows[row["id"]] = _Place(row["index"], row.get("digest"), start, len(line))
            start += len(line)
    return rows, start


def _parse(line: bytes) -> dict[str, Any] | None:
    if not line.endswith(b"\n"):
        return None
    try:
        row = json.loads(line)
    except ValueError:
        return None
    fits = isinstance(row, dict) and isinstance(row.get("id"), str) and isinstance(row.get("index"), int)
    return row if fits else None


def _differences(found: Any, asked: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, dict) and isinstance(asked, dict):
        for name in {**found, **asked}:
            yield from _differences(found.get(name), asked.get(name), f"{path}.{name}" if path else name)
    elif found != asked:
        yield path, found, asked
