"""Runs a conversion: several files at a time, each done once, whatever interrupts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any, Final

from lexalcm import __version__
from lexalcm.data.dataset_card import DATASET_CARD, MADE_BY_FIELD, write_dataset_card
from lexalcm.data.validate import kinds_of
from lexalcm.errors import DataError
from lexalcm.pipelines.convert.config import ConvertConfig
from lexalcm.pipelines.convert.convert_file import Stopped, convert_file
from lexalcm.pipelines.convert.notes import SUMMARY, Notes
from lexalcm.pipelines.convert.plan import FileJob, Plan
from lexalcm.pipelines.convert.result import DamagedFileError, FileResult, bad_row_error
from lexalcm.pipelines.json_file import write_json
from lexalcm.yaml_text import parse_yaml

_AHEAD: Final = 2
_COLUMN_FIELDS: Final = ("embedding_column", "text_column", "target_column", "target_text_column", "id_column")


@dataclass(frozen=True)
class Conversion:
    """What was done, files in the source's order."""

    files: list[FileResult]

    num_new: int
    """Of them, how many were converted by this run and not by an earlier one."""

    @property
    def num_kept(self) -> int:
        return sum(result.num_kept for result in self.files)

    @property
    def num_dropped(self) -> int:
        return sum(len(result.bad) for result in self.files)

    @property
    def damaged(self) -> dict[str, str]:
        """Files that could not be read, and why; those that could not even be opened are the plan's."""
        return {result.file: result.damaged for result in self.files if result.damaged is not None}

    @property
    def dropped_by_kind(self) -> Counter[str]:
        """Counts by the names of kinds of bad rows."""
        return sum((dropped_kinds(result) for result in self.files), Counter())

    @property
    def rows_by_split(self) -> dict[str, int]:
        """Documents written, by split."""
        rows: Counter[str] = Counter()
        for result in self.files:
            rows.update({split: output.num_rows for split, output in result.outputs.items()})
        return dict(sorted(rows.items()))

    @property
    def bytes_before_and_after(self) -> tuple[int, int]:
        after = sum(output.num_bytes for result in self.files for output in result.outputs.values())
        return sum(result.num_bytes for result in self.files), after


def dropped_kinds(result: FileResult) -> Counter[str]:
    """Bad rows of a file by the names of their kinds."""
    return kinds_of(row.reason for row in result.bad)


def convert(
    config: ConvertConfig,
    plan: Plan,
    *,
    progress: Callable[[int], None] = lambda rows: None,
    say: Callable[[FileResult], None] = lambda result: None,
) -> Conversion:
    """Writes the output folder, or what an earlier run left to do of it.

    Memory: about 0.5 GB a worker with 1024-d concepts in float32, whatever the size of files and row groups.

    :param progress: Told of rows as they are done.
    :param say: Told of files as they are done.
    :raises ConfigError: The output folder holds something else.
    :raises DataError: A file or row is bad and must not be, or no document is left.
    """
    notes = Notes(config, plan)
    notes.check()
    notes.begin()
    results: dict[str, FileResult] = {}
    for job in plan.jobs:
        done = notes.finished(job.file.relative)
        if done is not None:
            _check_again(done, job, config)
            results[job.file.relative] = done
            progress(done.num_rows)
    missing = [job for job in plan.jobs if job.file.relative not in results]
    for result in _run(missing, plan, config, notes, progress):
        results[result.file] = result
        say(result)
    notes.end()
    conversion = Conversion([results[job.file.relative] for job in plan.jobs], len(missing))
    write_json(config.folder / SUMMARY, _summary(conversion, plan, notes))
    if conversion.num_kept == 0:
        raise DataError(
            f"No document of {config.source} is good, so nothing was converted. {config.folder / SUMMARY} says why."
        )
    _write_card(config, plan, notes)
    return conversion


def _check_again(done: FileResult, job: FileJob, config: ConvertConfig) -> None:
    """A file done by an earlier run that was told to be more lenient."""
    if done.damaged is not None and not config.skip_damaged_files:
        raise DataError(done.damaged)
    if done.bad and config.repair == "fail":
        row = done.bad[0]
        raise bad_row_error(job.file.path, row.row_group, row.row, row.reason)


def _run(
    jobs: list[FileJob], plan: Plan, config: ConvertConfig, notes: Notes, progress: Callable[[int], None]
) -> Iterator[FileResult]:
    if not jobs:
        return
    at_once = min(config.num_workers, len(jobs))
    ahead = max(1, -(-_AHEAD * config.num_workers // at_once) // 2)
    stopped, lock = Event(), Lock()

    def count(rows: int) -> None:
        with lock:
            progress(rows)

    with ThreadPoolExecutor(config.num_workers) as readers, ThreadPoolExecutor(at_once) as writers:

        def one(job: FileJob) -> FileResult:
            if stopped.is_set():
                raise Stopped
            try:
                result = convert_file(
                    job,
                    plan,
                    config,
                    aside=notes.aside,
                    pool=readers,
                    ahead=ahead,
                    stopped=stopped.is_set,
                    progress=count,
                )
            except DamagedFileError as ex:
                if not config.skip_damaged_files:
                    raise
                result = FileResult(job.file.relative, sum(job.file.rows), num_bytes=job.file.size, damaged=str(ex))
            notes.add(result)
            return result

        futures = [writers.submit(one, job) for job in jobs]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            stopped.set()
            writers.shutdown(cancel_futures=True)
            readers.shutdown(cancel_futures=True)


def _summary(conversion: Conversion, plan: Plan, notes: Notes) -> dict[str, Any]:
    before, after = conversion.bytes_before_and_after
    return {
        "settings": notes.settings,
        "splits": plan.rule.describe(),
        "notices": plan.notices,
        "num_files": len(conversion.files),
        "num_kept": conversion.num_kept,
        "num_dropped": conversion.num_dropped,
        "dropped_by_kind": dict(conversion.dropped_by_kind),
        "rows_by_split": conversion.rows_by_split,
        "bytes_before": before,
        "bytes_after": after,
        "damaged_files": {**plan.damaged, **conversion.damaged},
        "files": [
            {
                "file": result.file,
                "num_rows": result.num_rows,
                "num_kept": result.num_kept,
                "dropped": [asdict(row) for row in result.bad],
                "outputs": {split: asdict(output) for split, output in result.outputs.items()},
                "bytes_before": result.num_bytes,
            }
            for result in conversion.files
        ],
        "lexalcm": __version__,
    }


def _write_card(config: ConvertConfig, plan: Plan, notes: Notes) -> None:
    card = _card_of_source(config.source)
    columns = {"embedding_column": config.embedding_column}
    if config.text_column is not None:
        columns["text_column"] = config.text_column
    if plan.id_column is not None:
        columns["id_column"] = plan.id_column
    told = card.get("dataset_config")
    if isinstance(told, dict):
        # Which column is the source of which target, say, no option tells.
        columns |= {name: told[name] for name in _COLUMN_FIELDS if isinstance(told.get(name), str)}
    made_by = card.get(MADE_BY_FIELD)
    facts = {
        **(made_by if isinstance(made_by, dict) else {}),
        "converted": {**notes.settings, "lexalcm": __version__},
    }
    write_dataset_card(config.folder, config={**columns, "concept_dim": plan.concept_dim}, facts=facts)


def _card_of_source(source: str) -> dict[str, Any]:
    """The card beside the source, which an earlier command may have written."""
    file = Path(source) / DATASET_CARD
    if "://" in source or not file.is_file():
        return {}
    try:
        cards = parse_yaml(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return cards[0] if cards and isinstance(cards[0], dict) else {}
