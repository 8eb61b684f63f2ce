"""From raw text to a dataset: plan, shards, workers, and at the end a report and a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lexalcm.data.dataset_card import write_dataset_card
from lexalcm.data.write import TEXT_COLUMN
from lexalcm.errors import ConfigError, DataError, RunError
from lexalcm.pipelines.json_file import read_json, write_json
from lexalcm.pipelines.launch_config import LaunchConfig
from lexalcm.pipelines.prepare.config import PrepareConfig, without_secrets
from lexalcm.pipelines.prepare.folder import REPORT_FILE, PreparedFolder, ShardNote
from lexalcm.pipelines.prepare.inputs import ID_COLUMN, RawPlan, plan_inputs
from lexalcm.pipelines.prepare.output_schema import OutputSchema
from lexalcm.pipelines.prepare.raw_files import changes_between, find_files
from lexalcm.pipelines.prepare.record import ShardRecord
from lexalcm.pipelines.worker_progress import Progress, ProgressBoard
from lexalcm.text.languages import SONAR_CARD, check_language, sonar_languages


@dataclass(frozen=True)
class PreparePlan:
    """What is to be done, and what of it is done already."""

    folder: PreparedFolder

    config: PrepareConfig

    raw: RawPlan

    finished: tuple[ShardNote, ...]

    settings: Mapping[str, Any]
    """As the folder remembers them."""

    @property
    def pending(self) -> list[int]:
        """Numbers of the shards that are left."""
        done = {note.index for note in self.finished}
        return [shard.index for shard in self.raw.shards if shard.index not in done]

    @property
    def num_documents_done(self) -> int:
        return sum(note.record.num_seen for note in self.finished)


@dataclass(frozen=True)
class Prepared:
    """A complete dataset."""

    folder: Path

    card: Path

    record: ShardRecord

    dim: int
    """Width of a concept."""

    num_files: int

    num_bytes: int


def plan_prepare(
    config: PrepareConfig,
    out: str | Path,
    *,
    num_shards: int | None = None,
    least_shards: int = 1,
    overwrite: bool = False,
    write: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> PreparePlan:
    """Looks through the input, and at what is in the output folder already.

    :param num_shards: ``None``: by the size of the input, and at least ``least_shards``, so that each worker has some.
    :param write: Make the folder ready for the work; else nothing is written.
    :param progress: Told how many bytes of how many have been looked through.
    :raises ConfigError: A setting cannot be honoured, or the folder holds something else.
    :raises DataError: The input is damaged, or has changed since the work began.
    """
    config.check()
    _check_language(config)
    if num_shards is not None and num_shards < 1:
        raise ConfigError(f"`num_shards` must be at least 1, but is {num_shards}.")
    if "://" in str(out) or ":/" in str(out):
        raise ConfigError(f"OUT must be a folder on this machine, but is {out}. Copy it there when it is complete.")
    folder = PreparedFolder(out)
    _check_apart(config, folder.path)
    settings = {**config.settings(), "num_shards": num_shards}
    if folder.check(settings, overwrite=overwrite):
        raw = _plan_of_before(folder, config)
        return PreparePlan(folder, config, raw, tuple(folder.finished_shards()), folder.settings())
    raw = plan_inputs(config.inputs, num_shards=num_shards, least_shards=least_shards, progress=progress)
    _check_planned(config, raw)
    if write:
        folder.begin(settings, raw.to_json())
    return PreparePlan(folder, config, raw, (), settings)


def _check_apart(config: PrepareConfig, out: Path) -> None:
    """:raises ConfigError: The output would be read as input, or written over it."""
    for path in config.inputs.paths:
        if not Path(path).exists():
            continue
        inside, outside = out.resolve(), Path(path).resolve()
        if inside.is_relative_to(outside) or outside.is_relative_to(inside):
            raise ConfigError(f"OUT, {out}, and the input {path} lie in each other. Name a folder apart.")


def _check_planned(config: PrepareConfig, raw: RawPlan) -> None:
    """What can be told once the input's columns are known, so that no worker has to.

    :raises ConfigError: A column cannot be written, or an option has no effect.
    """
    # The width of vectors does not matter for that.
    schema = OutputSchema(config, raw.schema, 1, split_column=raw.split_column)
    schema.check_writable()
    drawn = ("validation_share", "test_share", "split_seed")
    given = [name for name in drawn if getattr(config, name) is not None]
    if raw.split_column is not None and given:
        raise ConfigError(
            f"`{given[0]}` is for splits that are drawn, but the input names them: `{raw.split_column}`. Leave one of them "
            f"out (--drop-column {raw.split_column})."
        )


def _plan_of_before(folder: PreparedFolder, config: PrepareConfig) -> RawPlan:
    """:raises DataError: The input has changed."""
    raw = RawPlan.from_json(read_json(folder.plan_file))
    changes = changes_between(raw.files, find_files(config.inputs.paths, config.inputs.format))
    if changes:
        raise DataError(
            f"The input is not what {folder.path} was begun with: {changes[0]}.\n"
            f"Name another folder, or begin anew with --overwrite."
        )
    return raw


def run_prepare(
    plan: PreparePlan,
    launch_config: LaunchConfig,
    *,
    device: str = "auto",
    on_progress: Callable[[Progress], None] | None = None,
) -> Prepared:
    """Does the shards that are left, and finishes the dataset.

    :param device: ``auto``, ``cpu``, ``cuda`` or one of several GPUs, say ``cuda:1``.
    :param on_progress: Told now and then what the workers have done.
    :raises RunError: A worker died; shards that are done are kept.
    :raises LexalcmError: A worker met something that the user can mend.
    """
    from lexalcm.pipelines.launch import launch
    from lexalcm.pipelines.prepare.work import PrepareWork

    with plan.folder.locked():
        if plan.folder.settings() != plan.settings:
            raise ConfigError(f"{plan.folder.path} was begun anew by another command meanwhile.")
        pending = plan.pending
        if pending:
            sized = launch_config.sized(len(pending), device=device)
            num_workers = sized.num_workers or 1
            plan.folder.clear_staging()
            board = ProgressBoard(plan.folder.progress)
            launch(
                PrepareWork(plan.folder, [pending[i::num_workers] for i in range(num_workers)], device=device),
                sized,
                name="prepare",
                board=board,
                log_folder=plan.folder.logs,
                on_tick=lambda: None if on_progress is None else on_progress(board.totals()),
            )
        return _finish(plan)


def _finish(plan: PreparePlan) -> Prepared:
    folder = plan.folder
    notes = list(folder.finished_shards())
    missing = {shard.index for shard in plan.raw.shards} - {note.index for note in notes}
    if missing:
        raise RunError(
            f"{len(missing)} of {len(plan.raw.shards)} shards are not done, shard {min(missing)} first, though no worker "
            f"says why. See {folder.logs}; run the same command to go on."
        )
    record = ShardRecord()
    for note in notes:
        record.add(note.record)
    if record.num_documents == 0:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in record.left_out.most_common())
        raise DataError(f"None of the {record.num_seen:,} documents could be used ({reasons}).")
    different = next((note for note in notes if note.comparable_facts != notes[0].comparable_facts), None)
    if different is not None:
        raise DataError(
            f"Shards {notes[0].index} and {different.index} of {folder.path} were made by different models or versions.\n"
            f"Begin anew with --overwrite."
        )
    facts = _facts(plan, notes, record)
    sizes = {name: size for note in notes for name, size in note.files.items()}
    details = ("num_characters", "lang_rules", "left_out", "left_out_places", "truncated_places")
    told = {name: value for name, value in record.to_json().items() if name in details}
    report = {**facts, **told, "settings": folder.settings(), "files": sizes}
    write_json(folder.path / REPORT_FILE, report)
    card = write_dataset_card(
        folder.path,
        config=_card_config(plan.config, notes[0].facts["encoder"]["dim"]),
        facts=facts,
    )
    return Prepared(folder.path, card, record, notes[0].facts["encoder"]["dim"], len(sizes), sum(sizes.values()))


def _facts(plan: PreparePlan, notes: Sequence[ShardNote], record: ShardRecord) -> dict[str, Any]:
    """How the data came about."""
    from lexalcm import __version__

    first = notes[0].facts
    return {
        "command": "fairseq2 lcm prepare",
        "lexalcm": __version__,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "input": [without_secrets(path) for path in plan.config.inputs.paths],
        "segmenter": first["segmenter"],
        "encoder": first["encoder"],
        "dtype": plan.config.dtype,
        "num_documents": dict(sorted(record.documents.items())),
        "num_sentences": record.num_sentences,
        "num_left_out": sum(record.left_out.values()),
        "num_truncated_sentences": record.num_truncated,
        "languages": dict(record.langs.most_common()),
    }


def _card_config(config: PrepareConfig, dim: int) -> dict[str, Any]:
    *source, last = config.roles
    columns = {"embedding_column": last.concepts, "text_column": last.sentences}
    if source:
        columns = {
            "embedding_column": source[0].concepts,
            "text_column": source[0].sentences,
            "target_column": last.concepts,
            "target_text_column": last.sentences,
        }
    assert last.sentences == TEXT_COLUMN
    return {**columns, "id_column": ID_COLUMN, "concept_dim": dim}


def _check_language(config: PrepareConfig) -> None:
    """The default language is checked before anything is read; those of rows as they come."""
    kind, _, card = config.encoder.partition(":")
    if config.lang is not None and kind == "sonar":
        check_language(config.lang, sonar_languages(config.tokenizer_card or card or SONAR_CARD))
