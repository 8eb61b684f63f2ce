"""Checks every row of a dataset, in threads over row groups, and goes on whatever it finds.

Memory does not grow with the number of rows: a worker holds a piece of a row group (8 MiB of float32 and a few copies),
the hashes of a million documents stay in memory (40 bytes each, up to three kinds) and more go to temporary files, and
of each kind of problem only the first are kept. A document is read whole, however long it is; footers stay in memory.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial

from lexalcm.data.discover import DataFile
from lexalcm.data.open_files import OpenFiles
from lexalcm.data.sources import SourceConfig
from lexalcm.errors import DataError
from lexalcm.pipelines.verify.columns import (
    CheckedFile,
    FoundWidth,
    check_file,
    embedding_columns,
    essential_columns,
    usual_width,
    width_of,
    with_usual_columns,
)
from lexalcm.pipelines.verify.config import VerifyConfig
from lexalcm.pipelines.verify.drift import drift, plain_type
from lexalcm.pipelines.verify.files import readable_files
from lexalcm.pipelines.verify.in_order import in_order
from lexalcm.pipelines.verify.problems import Findings, Problem
from lexalcm.pipelines.verify.repeated import RepeatedDocuments
from lexalcm.pipelines.verify.rows import Looked, look_at_groups, row_groups_together


@dataclass
class Totals:
    """What there is."""

    num_files: int = 0

    num_unreadable_files: int = 0

    num_row_groups: int = 0

    num_documents: int = 0
    """As the footers tell, all of the split's."""

    num_checked: int = 0

    num_filtered: int = 0
    """That the dataset's filters leave out; they are not checked."""

    num_empty: int = 0

    num_single: int = 0
    """Documents of one sentence."""

    num_sentences: int = 0

    longest: int = 0
    """Sentences of the longest document."""

    width: int | None = None
    """Of a vector, as expected; ``None`` where there is none."""

    types: Counter[str] = field(default_factory=Counter)
    """Files by the type of their embeddings."""

    splits: Counter[str] = field(default_factory=Counter)
    """Documents by split, of files whose path names one."""

    columns: list[str] = field(default_factory=list)
    """Those that were looked into."""

    num_bytes: int = 0
    """Of the files that can be read."""

    seconds: float = 0.0


@dataclass(frozen=True)
class Verified:
    """The outcome of a check."""

    config: VerifyConfig

    totals: Totals

    findings: Findings

    def is_broken(self, *, strict: bool = False) -> bool:
        """Whether there are errors, or with ``strict`` warnings."""
        return bool(self.findings.count("error") or (strict and self.findings.count("warning")))


def verify(config: VerifyConfig, *, progress: Callable[[int, int], None] | None = None) -> Verified:
    """
    :param progress: Called with the documents done and those there are.
    :raises ConfigError: A field cannot be honoured.
    :raises DataError: A source's path does not exist, or there is no such split.
    """
    config.check()
    start = time.perf_counter()
    findings = Findings(most_kept=config.most_kept, keep_all=config.keep_all)
    totals = Totals()
    files = _checked_files(config, findings, totals)
    with ExitStack() as stack:
        repeated = stack.enter_context(RepeatedDocuments([f.file for f in files], [str(f.source.name) for f in files]))
        # Closed whatever happens, since its threads would wait for ever.
        for looked in stack.enter_context(closing(_looks(config, files))):
            _take_in(looked, totals, findings, repeated)
            if progress is not None:
                progress(looked.num_passed, totals.num_documents)
        findings.add(repeated.problems())
    _look_at_the_whole(totals, findings, files)
    totals.seconds = time.perf_counter() - start
    return Verified(config, totals, findings)


def _checked_files(config: VerifyConfig, findings: Findings, totals: Totals) -> list[CheckedFile]:
    """Opens what can be opened, and checks the columns of each file."""
    opened: list[tuple[SourceConfig, bool, list[DataFile]]] = []
    splits: set[str] = set()
    for source in config.data.resolved_sources():
        found = readable_files(source, config.split)
        splits |= found.splits
        findings.add(found.problems)
        totals.num_files += found.num_found
        totals.num_unreadable_files += found.num_found - len(found.files)
        named = with_usual_columns(source, found.files, needs_text=config.needs_text)
        opened.append((named, source.id_column is not None, found.files))
    if not totals.num_files and not findings.counts["no_files"]:
        listed = f"splits found: {', '.join(sorted(splits))}" if splits else "its paths name no splits"
        what = f"files for the split `{config.split}`" if config.split else "file that `filters` and splits let pass"
        raise DataError(f"The dataset {', '.join(source.path for source, _, _ in opened)} has no {what}; {listed}.")
    placed = [(number, file) for number, (_, _, files) in enumerate(opened) for file in files]
    widths = _widths(config, [(opened[number][0], file) for number, file in placed])
    totals.width = config.data.concept_dim or usual_width(
        (file, found[str(opened[number][0].embedding_column)].of_most) for (number, file), found in zip(placed, widths)
    )
    checked = []
    for (number, file), found_widths in zip(placed, widths):
        source, must_have_id, _ = opened[number]
        one, problems = check_file(
            file,
            source,
            index=len(checked),
            source_index=number,
            must_have_id=must_have_id,
            width=totals.width or 1,
            found=found_widths,
        )
        findings.add(problems)
        checked.append(one)
    for source, must_have_id, files in opened:
        essential = essential_columns(source) | ({str(source.id_column)} if must_have_id else set())
        findings.add(drift(source, files, essential))
        if files and source.text_column is None:
            findings.add([Problem(kind="no_text", source=source.name, reason="there is no column of sentences")])
    _count_files(totals, checked)
    return checked


def _widths(config: VerifyConfig, files: list[tuple[SourceConfig, DataFile]]) -> list[dict[str, FoundWidth]]:
    readers = OpenFiles()

    def look(item: tuple[SourceConfig, DataFile]) -> dict[str, FoundWidth]:
        source, file = item
        return {column: width_of(file, column, readers) for column in embedding_columns(source)}

    with ThreadPoolExecutor(config.num_workers) as pool:
        return list(pool.map(look, files))


def _count_files(totals: Totals, files: list[CheckedFile]) -> None:
    named: dict[str, None] = {}
    for checked in files:
        file = checked.file
        totals.num_row_groups += len(file.rows)
        totals.num_documents += sum(file.rows)
        totals.num_bytes += file.size
        if file.split is not None:
            totals.splits[file.split] += sum(file.rows)
        named.update(dict.fromkeys(checked.columns))
        column = checked.sides[0].embedding_column
        if column is not None:
            totals.types[plain_type(file.schema.field(column).type)] += 1
    totals.columns = list(named)


def _looks(config: VerifyConfig, files: list[CheckedFile]) -> Generator[Looked, None, None]:
    readers = OpenFiles()
    numbers: dict[str, int] = {}

    def jobs() -> Iterator[Callable[[], Iterator[Looked]]]:
        for checked in files:
            split = -1 if checked.file.split is None else numbers.setdefault(checked.file.split, len(numbers))
            for groups in row_groups_together(checked.file):
                yield partial(look_at_groups, checked, groups, readers, split=split, max_length=config.max_length)

    return in_order(jobs(), num_workers=config.num_workers)


def _take_in(looked: Looked, totals: Totals, findings: Findings, repeated: RepeatedDocuments) -> None:
    findings.add(looked.problems)
    totals.num_checked += looked.num_rows
    totals.num_filtered += looked.num_filtered
    totals.num_empty += looked.num_empty
    totals.num_single += looked.num_single
    totals.num_sentences += looked.num_sentences
    totals.longest = max(totals.longest, looked.longest)
    repeated.add(looked)


def _look_at_the_whole(totals: Totals, findings: Findings, files: list[CheckedFile]) -> None:
    """What only shows when all has been seen."""
    if totals.num_documents == 0 and files:
        place = files[0]
        more = f", nor have {len(files) - 1} more" if len(files) > 1 else ""
        reason = f"it has no rows{more}"
        findings.add(
            [Problem(kind="no_documents", source=place.source.name, file=place.file.relative, reason=reason)]
        )
    elif totals.num_filtered and not totals.num_checked:
        reason = f"filters leave none of {totals.num_filtered:,}"
        findings.add([Problem(kind="no_documents", source=files[0].source.name, reason=reason)])
    elif totals.width is None and totals.num_checked and not findings.count("error"):
        reason = "no document has an embedding, so the width of a vector is not known"
        findings.add([Problem(kind="no_documents", source=files[0].source.name, reason=reason)])
    elif totals.num_checked and totals.longest <= 1 and totals.num_empty + totals.num_single:
        reason = "no document has more than one sentence"
        findings.add([Problem(kind="single_sentences", source=files[0].source.name, reason=reason)])
