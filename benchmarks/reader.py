"""How fast the training reader hands out batches, beside a plain scan of the same files and beside pandas row by row.

    python benchmarks/reader.py [--path DATASET] [--concepts 400000] [--dim 1024] [--threads 2] [--repeats 3]

Without ``--path`` a synthetic float16 set in Meta's layout is made in a temporary folder. All ways read the same files
in one run, in turns, with the file cache warm; the best of the repeats counts. Concepts and bytes are those of the
embeddings as stored.

- *scan*: pyarrow decodes the embedding column of every row group, in as many threads, and drops it.
- *reader*: batches as training gets them, every vector validated, shuffled, packed, converted, made ready in the
  background.
- *pandas*: the original project's way: a file at a time into a data frame, each row stacked into a tensor (on the first
  ``--pandas-rows`` rows, since it is slow).
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from lexalcm.data.dataset import ConceptParquetDataset
from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig, ReadingConfig
from lexalcm.data.write import NewDocument, write_documents

_RESULTS = Path(__file__).resolve().parent / "results" / "reader.md"


def make_dataset(folder: Path, *, num_concepts: int, dim: int, num_files: int = 4) -> None:
    """Writes documents of 5 to 59 random unit-scale vectors; random bits hardly compress, as real embeddings."""
    rng = np.random.default_rng(0)
    for number in range(num_files):
        documents = []
        left = num_concepts // num_files
        while left > 0:
            length = min(int(rng.integers(5, 60)), left)
            vectors = (rng.standard_normal((length, dim), dtype=np.float32) / np.sqrt(dim)).astype(np.float16)
            documents.append(NewDocument([""] * length, vectors))
            left -= length
        write_documents(folder / f"part-{number:05d}.parquet", documents)


def scan(files: list[str], *, threads: int) -> int:
    """Decodes every row group and counts its vectors."""

    def one(task: tuple[str, int]) -> int:
        with pq.ParquetFile(task[0]) as parquet:
            column = parquet.read_row_group(task[1], columns=[EMBEDDING_COLUMN], use_threads=False).column(0)
        return sum(len(chunk.values) for chunk in column.chunks)

    tasks = [(file, group) for file in files for group in range(pq.read_metadata(file).num_row_groups)]
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, tasks))


def read(dataset: ConceptParquetDataset, reading: ReadingConfig) -> int:
    """One epoch of the training reader."""
    reader = dataset.create_reader(None, reading)
    try:
        return sum(batch.num_targets for batches in reader for batch in batches)
    finally:
        reader.close()


def read_with_pandas(files: list[str], *, max_rows: int) -> int:
    """As the original does it."""
    count = rows = 0
    for file in files:
        frame = pq.ParquetFile(file).read_row_group(0, columns=[EMBEDDING_COLUMN]).to_pandas()
        for _, row in frame.iterrows():
            tensor = torch.tensor(np.array([list(v) for v in row[EMBEDDING_COLUMN]], dtype=np.float32))
            count += len(tensor)
            rows += 1
            if rows >= max_rows:
                return count
    return count


def best_of(repeats: int, ways: dict[str, Callable[[], int]]) -> dict[str, tuple[int, float]]:
    """Runs the ways in turns; returns concepts and seconds of each one's best run."""
    best: dict[str, tuple[int, float]] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            start = perf_counter()
            count = way()
            seconds = perf_counter() - start
            if name not in best or count / seconds > best[name][0] / best[name][1]:
                best[name] = count, seconds
    return best


def cpu_name() -> str:
    """The processor's name where Linux tells it, else its kind."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="a dataset to read instead of a synthetic one")
    parser.add_argument("--concepts", type=int, default=400_000, help="size of the synthetic set")
    parser.add_argument("--dim", type=int, default=1024, help="width of its vectors")
    parser.add_argument("--threads", type=int, default=2, help="decoding threads of scan and reader")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pandas-rows", type=int, default=200)
    parser.add_argument("--write", action="store_true", help="write the table to benchmarks/results/reader.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.path is None:
            make_dataset(Path(folder), num_concepts=arguments.concepts, dim=arguments.dim)
        dataset = ConceptParquetDataset(ConceptParquetConfig(path=arguments.path or folder))
        files = [file.path for source in dataset.files(None) for file in source.files]
        column = dataset.files(None)[0].files[0].schema.field(EMBEDDING_COLUMN).type
        leaf = column.value_type.value_type
        bytes_a_concept = dataset.concept_dim * {pa.float16(): 2, pa.float32(): 4, pa.float64(): 8}[leaf]

        def reading(dtype: str) -> ReadingConfig:
            return ReadingConfig(dtype=dtype, num_workers=arguments.threads)  # type: ignore[arg-type]

        results = best_of(
            arguments.repeats,
            {
                "scan": lambda: scan(files, threads=arguments.threads),
                "reader, float16 batches": lambda: read(dataset, reading("float16")),
                "reader, float32 batches": lambda: read(dataset, reading("float32")),
                "pandas": lambda: read_with_pandas(files, max_rows=arguments.pandas_rows),
            },
        )
        described = dataset.describe()
    versions = f"pyarrow {pa.__version__}, torch {torch.__version__}"
    lines = [
        f"{date.today()}, {cpu_name()}, {os.cpu_count()} cores, {arguments.threads} threads decoding, {versions}",
        f"{'synthetic' if arguments.path is None else Path(arguments.path).name}: {described}, stored as {leaf}",
        "",
        "| way | concepts/s | GB/s | of the scan | times pandas |",
        "|---|---|---|---|---|",
    ]
    rates = {name: count / seconds for name, (count, seconds) in results.items()}
    for name, rate in rates.items():
        share, times = rate / rates["scan"], rate / rates["pandas"]
        lines.append(f"| {name} | {rate:,.0f} | {rate * bytes_a_concept / 1e9:.3f} | {share:.2f} | {times:,.0f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines += ["", f"Peak memory of the process: {peak:.2f} GiB."]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        _RESULTS.parent.mkdir(exist_ok=True)
        command = " ".join(["python benchmarks/reader.py", *(a for a in sys.argv[1:] if a != "--write")])
        _RESULTS.write_text(f"# Reader\n\n`{command}`\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
