"""How fast datasets are checked and converted, beside the original project's scripts on the same files in one run.

    OMP_NUM_THREADS=1 python benchmarks/data_tools.py [--rows 50000] [--dim 1024] [--threads 2] [--repeats 2] [--write]

A synthetic set of documents of 1 to 8 sentences with ids, a language and random vectors is made in a temporary folder,
in 4 files; 50,000 rows are 225,000 vectors. It is stored in three ways, one after the other: float32 and float16 as
`prepare` writes them, and lists of lists of doubles, a row group a file, compressed by snappy, as the original's own
converter does. All ways read the same files, in turns, with the file cache warm; the best of the repeats counts.

- *verify*: `fairseq2 lcm verify`, with everything it looks for.
- *scan*: pyarrow decodes every column in as many threads, a few megabytes at a time, and drops them: what no check can
  be faster than.
- *original, read*: the original's verify as far as its reading goes: the embedding column of each file in a data frame.
- *original, verify*: that, and each row stacked as float32, its shape and width checked, and looked through for NaN and
  infinity. It looks for nothing else.
- *convert*: `fairseq2 lcm convert`, every row checked, splits drawn by hash, zstd.
- *rewrite*: pyarrow decodes every column and writes it anew as convert does, a file a thread, and looks at nothing.
- *original, convert*: each file in a data frame, each row made an array, its shape checked, rounded to float32 and
  turned to Python lists, and all of it written by pandas.

Processor time is that of all threads: where other work shares the machine, it is the fairer measure of a way's cost.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Final, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.reader import cpu_name
from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.data.write_table import ParquetTableWriter
from lexalcm.pipelines.convert.config import ConvertConfig
from lexalcm.pipelines.convert.plan import make_plan
from lexalcm.pipelines.convert.run import convert
from lexalcm.pipelines.verify.config import VerifyConfig
from lexalcm.pipelines.verify.run import verify

_RESULTS: Final = Path(__file__).resolve().parent / "results" / "data_tools.md"
_NUM_FILES: Final = 4
_STEP_ROWS: Final = 455
_STORAGES: Final = {"float32": "float32, zstd", "float16": "float16, zstd", "double": "lists of doubles, snappy"}


@dataclass(frozen=True)
class Measured:
    """The best run of a way."""

    num_rows: int

    seconds: float

    cpu_seconds: float
    """Of all threads."""

    num_bytes: int
    """Of the files read."""


def make_dataset(folder: Path, storage: str, *, num_rows: int, dim: int) -> None:
    """Writes documents of 1 to 8 random vectors; random bits hardly compress, as real embeddings."""
    rng = np.random.default_rng(0)
    dtype: Literal["float16", "float32"] = "float16" if storage == "float16" else "float32"
    for number in range(_NUM_FILES):
        rows = range(number * num_rows // _NUM_FILES, (number + 1) * num_rows // _NUM_FILES)

        def documents(rows: range = rows) -> Iterator[NewDocument]:
            for row in rows:
                length = int(rng.integers(1, 9))
                vectors = rng.standard_normal((length, dim), dtype=np.float32) / np.float32(np.sqrt(dim))
                sentences = [f"Sentence {i} of document {row}, about as long as sentences are." for i in range(length)]
                yield NewDocument(sentences, vectors, {"id": str(row), "lang": "eng_Latn"})

        file = folder / f"part-{number:05d}.parquet"
        write_documents(file, documents(), dtype=dtype)
        if storage == "double":
            table = pq.read_table(file)
            index = table.schema.get_field_index(EMBEDDING_COLUMN)
            doubles = table.column(index).cast(pa.list_(pa.list_(pa.float64())))
            pq.write_table(table.set_column(index, EMBEDDING_COLUMN, doubles), file, compression="snappy")


def scan(files: list[str], *, threads: int) -> int:
    """Decodes every row group and counts its rows."""

    def one(task: tuple[str, int]) -> int:
        with pq.ParquetFile(task[0]) as parquet:
            batches = parquet.iter_batches(batch_size=_STEP_ROWS, row_groups=[task[1]], use_threads=False)
            return sum(batch.num_rows for batch in batches)

    tasks = [(file, group) for file in files for group in range(pq.read_metadata(file).num_row_groups)]
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, tasks))


def verify_all(folder: Path, *, threads: int) -> int:
    """Every check, and counts the rows."""
    found = verify(VerifyConfig(data=ConceptParquetConfig(path=str(folder)), num_workers=threads))
    assert not found.findings.count("error"), found.findings.counts
    return found.totals.num_checked


def original_read(files: list[str]) -> int:
    """The embedding column of each file in a data frame."""
    return sum(len(pd.read_parquet(file, columns=[EMBEDDING_COLUMN])) for file in files)


def original_verify(files: list[str], *, dim: int) -> int:
    """As the original does it."""
    count = 0
    for file in files:
        for row in pd.read_parquet(file, columns=[EMBEDDING_COLUMN])[EMBEDDING_COLUMN]:
            vectors = np.stack([np.array(vector, dtype=np.float32) for vector in row])
            assert vectors.ndim == 2 and vectors.shape[1] == dim
            assert not np.isnan(vectors).any() and not np.isinf(vectors).any()
            count += 1
    return count


def convert_all(folder: Path, *, threads: int) -> int:
    """Converts into a folder that is removed, and counts the rows."""
    with tempfile.TemporaryDirectory() as output:
        config = ConvertConfig(source=str(folder), output=f"{output}/out", num_workers=threads)
        return convert(config, make_plan(config)).num_kept


def rewrite(files: list[str], *, threads: int) -> int:
    """Decodes and writes, types as they are."""

    def one(file: str, output: str) -> int:
        with pq.ParquetFile(file) as parquet:
            path = Path(output) / Path(file).name
            with ParquetTableWriter(path, parquet.schema_arrow, embedding_columns=[EMBEDDING_COLUMN]) as writer:
                for batch in parquet.iter_batches(batch_size=_STEP_ROWS, use_threads=False):
                    writer.write(pa.Table.from_batches([batch]))
        return writer.num_rows

    with tempfile.TemporaryDirectory() as output, ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(partial(one, output=output), files))


def original_convert(files: list[str], *, dim: int) -> int:
    """As the original does it."""
    count = 0
    with tempfile.TemporaryDirectory() as output:
        for file in files:
            frame = pd.read_parquet(file)
            kept, rows = [], []
            for index, value in enumerate(frame[EMBEDDING_COLUMN]):
                vectors = np.array([np.array(vector) for vector in value])
                if vectors.ndim == 2 and len(vectors) >= 1 and vectors.shape[1] == dim:
                    kept.append(index)
                    rows.append(vectors.astype(np.float32).tolist())
            frame = frame.iloc[kept].copy()
            frame[EMBEDDING_COLUMN] = rows
            frame.to_parquet(Path(output) / Path(file).name)
            count += len(frame)
    return count


def best_of(repeats: int, ways: Mapping[str, Callable[[], int]], *, num_bytes: int) -> dict[str, Measured]:
    """Runs the ways in turns, and returns each one's best run."""
    best: dict[str, Measured] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            start, cpu = perf_counter(), process_time()
            num_rows = way()
            run = Measured(num_rows, perf_counter() - start, process_time() - cpu, num_bytes)
            if name not in best or run.seconds < best[name].seconds:
                best[name] = run
    return best


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Measured]:
    """All ways on one storage."""
    files = sorted(str(path) for path in folder.glob("*.parquet"))
    ways: dict[str, dict[str, Callable[[], int]]] = {
        "verify": {
            "verify": lambda: verify_all(folder, threads=arguments.threads),
            "verify, 1 thread": lambda: verify_all(folder, threads=1),
            "scan": lambda: scan(files, threads=arguments.threads),
            "original, read": lambda: original_read(files),
            "original, verify": lambda: original_verify(files, dim=arguments.dim),
        },
        "convert": {
            "convert": lambda: convert_all(folder, threads=arguments.threads),
            "convert, 1 thread": lambda: convert_all(folder, threads=1),
            "rewrite": lambda: rewrite(files, threads=arguments.threads),
            "original, convert": lambda: original_convert(files, dim=arguments.dim),
        },
    }
    chosen = {name: way for part, some in ways.items() if arguments.only in (None, part) for name, way in some.items()}
    return best_of(arguments.repeats, chosen, num_bytes=sum(os.path.getsize(file) for file in files))


def table(results: Mapping[str, Measured]) -> list[str]:
    """One storage; how many times the original's loop each way is, and how many times by processor time."""
    columns = ("way", "seconds", "CPU seconds", "rows/s", "MB/s", "times the original", "by CPU")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, run in results.items():
        against = results["original, convert" if "convert" in name or name == "rewrite" else "original, verify"]
        lines.append(
            f"| {name} | {run.seconds:.2f} | {run.cpu_seconds:.2f} | {run.num_rows / run.seconds:,.0f} "
            f"| {run.num_bytes / 1e6 / run.seconds:,.0f} | {against.seconds / run.seconds:.1f} "
            f"| {against.cpu_seconds / run.cpu_seconds:.1f} |"
        )
    return lines


def aims(results: Mapping[str, Mapping[str, Measured]], *, load: float) -> str:
    """What the figures mean, in one paragraph.

    :param load: Of the machine, before the run.
    """

    def each(way: str, against: str) -> str:
        return ", ".join(f"{runs[against].seconds / runs[way].seconds:.1f}" for runs in results.values())

    def cpu(way: str, against: str) -> str:
        return ", ".join(f"{runs[way].cpu_seconds / runs[against].cpu_seconds:.0%}" for runs in results.values())

    original = "original, verify"
    shared = (
        " Other work shared the cores in this run, so that a second thread brought little, and processor time tells "
        "more than seconds do."
    )
    return (
        f"The aims were 20 times the original's loop for verify and 10 times for convert. In the order of the tables "
        f"({', '.join(results)}), verify is {each('verify', original)} times as fast, and convert "
        f"{each('convert', 'original, convert')} times. Decoding bounds verify: the original reads by the same decoder "
        f"as ours, and spends {cpu('original, read', original)} of its processor time there. Decoding all columns with "
        f"no check at all, in as many threads, is {each('scan', original)} times as fast as its loop, so that 20 times "
        f"cannot be had on these cores by any check that reads parquet through Arrow; the processor time of verify in "
        f"one thread is {cpu('verify, 1 thread', 'scan')} of that scan's. Decoding and writing bound convert: "
        f"reading a file and writing it anew, with nothing looked at, is {each('rewrite', 'original, convert')} times "
        f"as fast as the original, and convert in one thread takes {cpu('convert, 1 thread', 'rewrite')} of its "
        f"processor time. Both go on by row groups and files, so more cores bring more; the original has one thread."
        f"{shared if load > 0.5 else ''}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000, help="documents of the synthetic set")
    parser.add_argument("--dim", type=int, default=1024, help="width of its vectors")
    parser.add_argument("--threads", type=int, default=2, help="threads of our commands, of the scan and the rewrite")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", choices=("verify", "convert"), help="measure one command alone")
    parser.add_argument("--storage", choices=sorted(_STORAGES), help="measure one storage alone")
    parser.add_argument("--write", action="store_true", help="write the tables to benchmarks/results/data_tools.md")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    lines = [
        f"{date.today()}, {cpu_name()}, {os.cpu_count()} cores, {arguments.threads} threads, pyarrow "
        f"{pa.__version__}, pandas {pd.__version__}",
        f"{arguments.rows:,} documents of 1 to 8 vectors of {arguments.dim} in {_NUM_FILES} files; load of the machine "
        f"before the run: {load:.1f}",
    ]
    results: dict[str, dict[str, Measured]] = {}
    for storage, named in _STORAGES.items():
        if arguments.storage in (None, storage):
            with tempfile.TemporaryDirectory() as folder:
                make_dataset(Path(folder), storage, num_rows=arguments.rows, dim=arguments.dim)
                results[storage] = measure(Path(folder), arguments)
            num_bytes = next(iter(results[storage].values())).num_bytes
            lines += ["", f"Stored as {named}, {num_bytes / 1e6:,.0f} MB:", "", *table(results[storage])]
    if arguments.only is None:
        lines += ["", aims(results, load=load)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines += ["", f"Peak memory of the process, the original's ways included: {peak:.2f} GiB."]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        _RESULTS.parent.mkdir(exist_ok=True)
        command = " ".join(["python benchmarks/data_tools.py", *(a for a in sys.argv[1:] if a != "--write")])
        _RESULTS.write_text(f"# Data tools\n\n`{command}`\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
