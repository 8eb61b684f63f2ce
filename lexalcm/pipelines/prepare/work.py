"""The work of one worker: shard after shard, each of them done whole or not at all."""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import pyarrow as pa

from lexalcm.errors import DataError, RunError
from lexalcm.pipelines.json_file import read_json
from lexalcm.pipelines.launch_worker import worker_device
from lexalcm.pipelines.prepare.config import PrepareConfig, read_settings
from lexalcm.pipelines.prepare.folder import PreparedFolder, ShardNote, comparable
from lexalcm.pipelines.prepare.inputs import RawPlan, RawShard, RawShardsConfig
from lexalcm.pipelines.prepare.mapper import DocumentMapper
from lexalcm.pipelines.prepare.output import ConceptOutput, ShardFiles
from lexalcm.pipelines.prepare.output_schema import OutputSchema
from lexalcm.pipelines.prepare.record import ShardRecord
from lexalcm.pipelines.prepare.row_languages import LanguageRule
from lexalcm.pipelines.prepare.windows import Windows
from lexalcm.pipelines.quiet_stopes import PartitionedDataMapper, PartitionedDataMapperConfig, Requirements
from lexalcm.pipelines.worker_progress import WorkerProgress
from lexalcm.text.encoders import create_encoder
from lexalcm.text.interface import SentenceEncoder
from lexalcm.text.languages import check_language, resolve_language
from lexalcm.text.segment import CuttingSegmenter, create_segmenter

# stopes reports each batch, and that it does not check schemas, under the name of the class.
logging.getLogger("PrepareWork").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Tools:
    """What a worker loads once."""

    config: PrepareConfig

    segmenter: CuttingSegmenter

    encoder: SentenceEncoder

    languages: LanguageRule

    @staticmethod
    def load(config: PrepareConfig, device: str) -> Tools:
        """:raises LexalcmError: A model is not there, damaged, or does not go with the configuration."""
        segmenter = create_segmenter(
            config.segmenter,
            device=device,
            max_length=config.segment_length,
            threshold=config.segmenter_threshold,
            newlines=config.newlines,
            backend=config.segmenter_backend,
        )
        encoder = create_encoder(
            config.encoder,
            dim=config.dim,
            device=device,
            dtype=config.encoder_dtype,
            batch_tokens=config.batch_tokens,
            tokenizer=config.tokenizer_card,
            pooling=config.pooling,
        )
        if config.lang is not None and encoder.langs is not None:
            check_language(resolve_language(config.lang, encoder.langs) or config.lang, encoder.langs)
        languages = LanguageRule(
            default=config.lang,
            unknown=config.unknown_lang,
            known=encoder.langs,
        )
        return Tools(config, segmenter, encoder, languages)

    def facts(self) -> dict[str, Any]:
        """What ran, as plain data."""
        return {"segmenter": self.segmenter.facts(), "encoder": self.encoder.facts()}


class PrepareWork(PartitionedDataMapper):
    """stopes' data mapper over raw documents. An item of its array is a worker: the shards that it is to do."""

    def __init__(
        self,
        folder: PreparedFolder,
        workers: Sequence[Sequence[int]],
        *,
        device: str = "auto",
    ) -> None:
        """
        :param folder: With settings and plan.
        :param workers: Numbers of the shards of each worker.
        :param device: ``auto``, ``cpu``, ``cuda``, or one of several GPUs, say ``cuda:1``. Workers of a machine take its
            GPUs in turn where none is named.
        """
        # stopes reads its configuration with OmegaConf, which would put the environment into a path with ${...}: what
        # the user names travels beside it. Each window is handed on at once.
        inputs = RawShardsConfig(input_file=folder.plan_file.name)
        output = ConceptOutput(dataset_path="", batch_size=1)
        super().__init__(PartitionedDataMapperConfig(inputs, output))
        self._folder = folder.path
        self._workers = [list(shards) for shards in workers]
        self._device = device
        self._tools: Tools | None = None
        self._mapper: DocumentMapper | None = None
        self._progress: WorkerProgress | None = None

    def name(self) -> str:
        return "prepare"

    def requirements(self) -> Requirements:
        return Requirements()  # what a worker gets is the launcher's business

    def array(self) -> list[list[int]]:
        return self._workers

    def get_custom_metadata(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {}

    def get_metadata(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """None: a user without a name, as in containers, must not matter."""
        return {}

    def get_batch_mapper(self) -> Callable[[pa.Table], pa.Table]:
        assert self._mapper is not None
        return self._reported

    def run(self, iteration_value: Any = None, iteration_index: int = 0) -> list[Path]:
        """Does the shards of a worker."""
        folder = PreparedFolder(self._folder)
        plan = RawPlan.from_json(read_json(folder.plan_file))
        config = read_settings(folder.settings())
        with WorkerProgress(folder.progress, iteration_index) as progress:
            progress.at("loading")
            self._progress = progress
            self._tools = Tools.load(config, worker_device(self._device, iteration_index))
            _check_alike(self._tools, folder)
            # stopes collects garbage after each window: what is loaded for good need not be looked through each time.
            gc.freeze()
            schema = OutputSchema(config, plan.schema, self._tools.encoder.dim, split_column=plan.split_column)
            for number in iteration_value:
                progress.at(f"shard {number}")
                try:
                    self._run_shard(folder, plan.shards[number], schema)
                except OSError as ex:
                    raise RunError(
                        f"Shard {number} of {folder.path} could not be finished: {ex}.\nMend that and run the same command: "
                        f"it goes on with this shard."
                    ) from ex
                progress.add(units=1)
            progress.at(None)
        return []

    def _run_shard(self, folder: PreparedFolder, shard: RawShard, schema: OutputSchema) -> None:
        assert self._tools is not None
        tools, began = self._tools, perf_counter()
        self._mapper = DocumentMapper(tools.config, schema, tools.segmenter, tools.encoder, tools.languages)
        name = f"part-{shard.index:05d}"
        files = ShardFiles(folder.path, folder.staging, name, schema.embedding_columns)
        self.output_dataset_config.files = files
        self.state = None
        try:
            super().run(Windows(shard=shard), shard.index)
            sizes = files.commit()
        except BaseException:
            files.discard()
            raise
        facts = {**tools.facts(), "seconds": round(perf_counter() - began, 3)}
        folder.finish_shard(ShardNote(shard.index, sizes, self._mapper.record, facts))

    def _reported(self, raw: pa.Table) -> pa.Table:
        assert self._mapper is not None and self._progress is not None
        before: ShardRecord = self._mapper.record
        sentences = before.num_sentences
        table = self._mapper(raw)
        self._progress.add(documents=raw.num_rows, sentences=self._mapper.record.num_sentences - sentences)
        return table


def _check_alike(tools: Tools, folder: PreparedFolder) -> None:
    """:raises DataError: Shards that are finished were made by other models or versions."""
    note = next(folder.finished_shards(), None)
    if note is None:
        return
    found, now = note.comparable_facts, json.loads(json.dumps(comparable(tools.facts())))
    for part in found:
        for fact in sorted({*found[part], *now[part]}):
            if found[part].get(fact) != now[part].get(fact):
                raise DataError(
                    f"{folder.path} was begun with a {part} whose `{fact}` was {found[part].get(fact)}, but now it is "
                    f"{now[part].get(fact)}.\nPut it back as it was, or begin anew with --overwrite."
                )
