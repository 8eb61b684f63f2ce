"""Converts one file, a few row groups at a time; what stands under the name of an output is complete."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import ExitStack
from pathlib import Path

from lexalcm.data.open_files import OpenFiles
from lexalcm.data.order import units_of_file
from lexalcm.data.write_table import ParquetTableWriter
from lexalcm.pipelines.convert.config import ConvertConfig
from lexalcm.pipelines.convert.convert_unit import Part, convert_unit, is_whole
from lexalcm.pipelines.convert.plan import FileJob, Plan
from lexalcm.pipelines.convert.result import FileResult, Output
from lexalcm.pipelines.convert.splits import folder_of


class Stopped(Exception):
    """Another file ended the conversion."""


def convert_file(
    job: FileJob,
    plan: Plan,
    config: ConvertConfig,
    *,
    aside: Path,
    pool: Executor,
    ahead: int,
    stopped: Callable[[], bool],
    progress: Callable[[int], None],
) -> FileResult:
    """
    :param aside: A folder for files that are not complete yet.
    :param pool: Reads and converts row groups.
    :param ahead: How many of them at once.
    :param stopped: Asked between them.
    :param progress: Told how many rows are done.
    :raises DamagedFileError: The file cannot be read.
    :raises DataError: A bad row is an error, or a value does not fit the type asked for.
    :raises Stopped: ``stopped`` said so.
    """
    result = FileResult(job.file.relative, num_bytes=job.file.size)
    writers: dict[str, ParquetTableWriter] = {}
    with ExitStack() as stack:
        for part in _converted(job, plan, config, pool, ahead):
            if stopped():
                raise Stopped
            result.bad += part.bad
            result.num_rows += part.num_rows
            for split, tables in part.tables.items():
                if split not in writers:
                    path = config.folder / folder_of(split, config.layout, where=job.file.path) / job.name
                    writer = ParquetTableWriter(
                        path,
                        job.schema,
                        embedding_columns=[side.embedding for side in job.sides],
                        aside=aside / f"{path.parent.name}-{job.name}",
                    )
                    writers[split] = stack.enter_context(writer)
                for table in tables:
                    writers[split].write(table)
            progress(part.num_rows)
    for split, writer in sorted(writers.items()):
        path = writer.path.relative_to(config.folder).as_posix()
        result.outputs[split] = Output(path, writer.num_rows, writer.path.stat().st_size)
    return result


def _converted(job: FileJob, plan: Plan, config: ConvertConfig, pool: Executor, ahead: int) -> Iterator[Part]:
    """Units in order, some of them in work ahead; those of a file with large row groups one after the other, since a
    part of one is read from where the last ended."""
    units = units_of_file(job.file.rows, job.file.components, concept_dim=plan.concept_dim)
    files = OpenFiles()
    waiting: deque[Future[Part]] = deque()
    ahead = ahead if all(is_whole(unit, job.file) for unit in units) else 1
    try:
        for unit in units:
            if ahead == 1 and waiting:
                wait([waiting[-1]])
            waiting.append(pool.submit(convert_unit, files, job, plan, config, unit))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
