"""How fast datasets are checked and converted, beside the original project's scripts on the same files in one run.

    OMP_NUM_THREADS=1 python benchmarks/data_tools.py [--rows 50000] [--dim 1024] [--threads 2] [--repeats 3] [--write]

A synthetic set in Meta's layout is made in a temporary folder: documents of 1 to 8 sentences with ids, a language and
random float32 vectors, in 4 files; 50,000 rows are 225,000 vectors, 0.9 GB. All ways read the same files, in turns,
with the file cache warm; the best of the repeats counts.

- *verify*: `fairseq2 lcm verify`, with everything it looks for.
- *scan*: pyarrow decodes every column in as many threads, and drops it: what no check can be faster than.
- *pandas, verify*: the original's way: each file into a data frame, each row stacked, its shape and width checked, and
  looked through for NaN and infinity. It looks for nothing else.
- *convert*: `fairseq2 lcm convert`, every row checked, splits drawn by hash, zstd.
- *pandas, convert*: the original's way: each file into a data frame, each row made an array, its shape checked, rounded
  to float32 and turned to Python lists, and all of it written by pandas.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.reader import best_of, cpu_name
from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.pipelines.convert.config import ConvertConfig
from lexalcm.pipelines.convert.plan import make_plan
from lexalcm.pipelines.convert.run import convert
from lexalcm.pipelines.verify.config import VerifyConfig
from lexalcm.pipelines.verify.run import verify

_RESULTS = Path(__file__).resolve().parent / "results" / "data_tools.md"
_NUM_FILES = 4


def make_dataset(folder: Path, *, num_rows: int, dim: int) -> None:
    """Writes documents of 1 to 8 random vectors; random bits hardly compress, as real embeddings."""
    rng = np.random.default_rng(0)
    for number in range(_NUM_FILES):
        rows = range(number * num_rows // _NUM_FILES, (number + 1) * num_rows // _NUM_FILES)

        def documents(rows: range = rows) -> Iterator[NewDocument]:
            for row in rows:
                length = int(rng.integers(1, 9))
                vectors = rng.standard_normal((length, dim), dtype=np.float32) / np.float32(np.sqrt(dim))
                sentences = [f"Sentence {i} of document {row}, about as long as sentences are." for i in range(length)]
                yield NewDocument(sentences, vectors, {"id": str(row), "lang": "eng_Latn"})

        write_documents(folder / f"part-{number:05d}.parquet", documents(), dtype="float32")


def scan(files: list[str], *, threads: int) -> int:
    """Decodes every row group and counts its rows."""

    def one(task: tuple[str, int]) -> int:
        with pq.ParquetFile(task[0]) as parquet:
            return parquet.read_row_group(task[1], use_threads=False).num_rows

    tasks = [(file, group) for file in files for group in range(pq.read_metadata(file).num_row_groups)]
    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(one, tasks))


def verify_all(folder: Path, *, threads: int) -> int:
    """Every check, and counts the rows."""
    found = verify(VerifyConfig(data=ConceptParquetConfig(path=str(folder)), num_workers=threads))
    assert not found.findings.count("error"), found.findings.counts
    return found.totals.num_checked


def verify_with_pandas(files: list[str], *, dim: int, max_rows: int | None = None) -> int:
    """As the original does it; ``max_rows`` a file, of which the first are taken."""
    count = 0
    for file in files:
        frame = pd.read_parquet(file)
        for _, row in frame.iloc[:max_rows].iterrows():
            vectors = np.stack(row[EMBEDDING_COLUMN])
            assert vectors.ndim == 2 and vectors.shape[1] == dim
            assert not np.isnan(vectors).any() and not np.isinf(vectors).any()
            count += 1
    return count


def verify_part(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Verify beside the original's loop, as rows of a table."""
    files = sorted(str(path) for path in folder.glob("*.parquet"))
    ways: dict[str, Callable[[], int]] = {
        "verify": lambda: verify_all(folder, threads=arguments.threads),
        "verify, 1 thread": lambda: verify_all(folder, threads=1),
        "scan": lambda: scan(files, threads=arguments.threads),
        "pandas, verify": lambda: verify_with_pandas(files, dim=arguments.dim),
    }
    return table(best_of(arguments.repeats, ways), against="pandas, verify", num_bytes=size_of(files))


def table(results: dict[str, tuple[int, float]], *, against: str, num_bytes: int) -> list[str]:
    """Rows of a table: rows and bytes a second, and how many times the way ``against`` each one is."""
    rates = {name: count / seconds for name, (count, seconds) in results.items()}
    lines = [f"| way | seconds | rows/s | MB/s | times {against} |", "|---|---|---|---|---|"]
    for name, (_, seconds) in results.items():
        times = rates[name] / rates[against]
        speed = f"{rates[name]:,.0f} | {num_bytes / 1e6 / seconds:,.0f}"
        lines.append(f"| {name} | {seconds:.2f} | {speed} | {times:.1f} |")
    return lines


def size_of(files: list[str]) -> int:
    """Bytes of the files."""
    return sum(os.path.getsize(file) for file in files)


def convert_all(folder: Path, *, threads: int) -> int:
    """Converts into a folder that is removed, and counts the rows."""
    with tempfile.TemporaryDirectory() as output:
        config = ConvertConfig(source=str(folder), output=f"{output}/out", num_workers=threads)
        return convert(config, make_plan(config)).num_kept


def convert_with_pandas(files: list[str], *, dim: int) -> int:
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


def convert_part(folder: Path, arguments: argparse.Namespace) -> list[str]:
    """Convert beside the original's loop, as rows of a table."""
    files = sorted(str(path) for path in folder.glob("*.parquet"))
    ways: dict[str, Callable[[], int]] = {
        "convert": lambda: convert_all(folder, threads=arguments.threads),
        "convert, 1 thread": lambda: convert_all(folder, threads=1),
        "pandas, convert": lambda: convert_with_pandas(files, dim=arguments.dim),
    }
    return table(best_of(arguments.repeats, ways), against="pandas, convert", num_bytes=size_of(files))


PARTS: dict[str, Callable[[Path, argparse.Namespace], list[str]]] = {"verify": verify_part, "convert": convert_part}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=50_000, help="documents of the synthetic set")
    parser.add_argument("--dim", type=int, default=1024, help="width of its vectors")
    parser.add_argument("--threads", type=int, default=2, help="threads of our commands, and of the scan")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--only", choices=sorted(PARTS), help="measure one command alone")
    parser.add_argument("--write", action="store_true", help="write the tables to benchmarks/results/data_tools.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_dataset(Path(folder), num_rows=arguments.rows, dim=arguments.dim)
        num_bytes = size_of([str(path) for path in Path(folder).glob("*.parquet")])
        lines = [
            f"{date.today()}, {cpu_name()}, {os.cpu_count()} cores, {arguments.threads} threads, pyarrow "
            f"{pa.__version__}, pandas {pd.__version__}",
            f"{arguments.rows:,} documents of 1 to 8 vectors of {arguments.dim} float32 in {_NUM_FILES} files, zstd, "
            f"{num_bytes / 1e6:,.0f} MB",
        ]
        for name, part in PARTS.items():
            if arguments.only in (None, name):
                lines += ["", *part(Path(folder), arguments)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines += ["", f"Peak memory of the process, pandas included: {peak:.2f} GiB."]
    text = "\n".join(lines)
    print(text)
    if arguments.write:
        _RESULTS.parent.mkdir(exist_ok=True)
        command = " ".join(["python benchmarks/data_tools.py", *(a for a in sys.argv[1:] if a != "--write")])
        _RESULTS.write_text(f"# Data tools\n\n`{command}`\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
