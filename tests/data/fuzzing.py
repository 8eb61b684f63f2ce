"""Damages files at random and reads them, each in a process of its own: Arrow may end it. Prints what breaks a promise.

``python -m tests.data.fuzzing FIRST_SEED COUNT FOLDER``, from the root of the repository.
"""

from __future__ import annotations

import io
import logging
import os
import random
import resource
import signal
import sys
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lexalcm.data.sources import EMBEDDING_COLUMN, ConceptParquetConfig
from lexalcm.errors import LexalcmError
from lexalcm.pipelines.verify.config import VerifyConfig
from lexalcm.pipelines.verify.run import verify
from tests.data.numbered import fixed, nested, open_dataset, stands_right, texts
from tests.data.readers import reading

SECONDS = 30
KILOBYTES = 400_000
LENGTHS = [1 + i % 5 for i in range(24)]


def sound_files() -> list[tuple[bytes, bool]]:
    """Files of every codec, with and without dictionaries, and whether checksums guard their pages."""
    kinds = (fixed(pa.float32()), pa.list_(pa.list_(pa.float16())))
    made = []
    for codec, version, dictionary, kind, checksums in product(
        ("none", "snappy", "zstd", "gzip", "lz4", "brotli"), ("1.0", "2.0"), (True, False), kinds, (True, False)
    ):
        columns = {
            "id": [f"d{i}" for i in range(24)],
            "text_sentences": texts(LENGTHS),
            EMBEDDING_COLUMN: pa.array(nested(LENGTHS), kind),
        }
        file = io.BytesIO()
        pq.write_table(
            pa.table(columns),
            file,
            row_group_size=8,
            compression=codec,
            data_page_version=version,
            use_dictionary=dictionary,
            write_page_checksum=checksums,
            data_page_size=64,
        )
        made.append((file.getvalue(), checksums))
    return made


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Bytes changed in the footer or in the pages, cut off, or taken out."""
    out = bytearray(content)
    footer = len(out) - 8 - int.from_bytes(out[-8:-4], "little")
    first, last = rng.choice([(0, len(out)), (footer, len(out)), (4, footer)])
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8])):
        place = rng.randrange(first, last)
        out[place] = rng.randrange(256) if rng.random() < 0.5 else out[place] ^ (1 << rng.randrange(8))
    how = rng.random()
    if how < 0.05:
        del out[rng.randrange(len(out)) :]
    elif how < 0.1:
        place = rng.randrange(first, last)
        del out[place : place + rng.randrange(1, 9)]
    return bytes(out)


def read(folder: Path, *, checksums: bool) -> None:
    """Reads in three ways; each ends in order, or in an error of ours that says where."""
    try:
        dataset = open_dataset(
            folder, text_column="text_sentences", id_column="id", on_bad_rows="skip", max_bad_share=1.0
        )
        documents = list(dataset.documents())
        assert not checksums or all(stands_right(d) for d in documents), "a vector under a wrong row"
    except LexalcmError as error:
        check(error)
    try:
        dataset = open_dataset(folder, on_bad_rows="skip", max_bad_share=1.0)
        reader = dataset.create_reader(None, reading())
        for (batch,) in reader:
            assert batch.ids is not None
            right = batch.concepts[:, 0].numpy() == np.repeat(batch.ids.row, batch.layout.lengths) + 1
            assert not checksums or right.all(), "a vector under a wrong row"
        reader.close()
    except LexalcmError as error:
        check(error)
    verify(VerifyConfig(data=ConceptParquetConfig(path=str(folder))))


def check(error: LexalcmError) -> None:
    text = str(error)
    assert len(text.splitlines()) <= 3, text
    assert "p.parquet" in text or "no document" in text.lower(), text


def outcome(folder: Path, *, checksums: bool) -> str:
    """What breaks a promise, in a process of its own; empty if nothing does."""
    child = os.fork()
    if child == 0:
        told = os.open(folder / "told", os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
        os.dup2(told, 2)
        signal.alarm(SECONDS)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read(folder, checksums=checksums)
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown < KILOBYTES, f"{grown} kB of memory"
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is told
            os.write(2, f"{type(error).__name__}: {error}".encode("utf-8", "replace"))
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status == 0:
        return ""
    text = (folder / "told").read_text(encoding="utf-8", errors="replace")
    ended = f"signal {os.WTERMSIG(status)} " if os.WIFSIGNALED(status) else ""
    return ended + " ".join(text.split())[-300:]


def main(first: int, count: int, folder: Path) -> int:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    files = sound_files()
    broken = 0
    for seed in range(first, first + count):
        rng = random.Random(seed)
        content, checksums = rng.choice(files)
        (folder / "p.parquet").write_bytes(damaged(content, rng))
        found = outcome(folder, checksums=checksums)
        if found:
            broken += 1
            print(f"seed {seed}: {found}", flush=True)
    print(f"{count} files, {broken} broke a promise")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])))
