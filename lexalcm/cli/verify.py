"""Checks every row of a dataset and says what is wrong with it, without stopping at the first fault.

Errors are what training stops at: damaged files, columns missing or of a wrong type, vectors of another width, NaN,
infinity, zero vectors, nulls, and text and vectors that do not match. Warnings are what to look at: documents stored
twice (by their vectors, by their text) or in two splits, ids used twice, vectors whose components all lie within 1% of
each other, sentences over the cap or blank, and files whose columns differ. Exit code: 1 with errors, else 0; 2 for a
wrong command.

Memory does not grow with the data: about 64 MiB a worker, up to 120 MiB for hashes of documents, and temporary files of
120 bytes a document beyond a million.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

_NONE = "none"
_STDOUT = "-"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="a parquet file or directory, a URL, or a dataset's card")
    parser.add_argument("--split", default="all", help="split to check (default: all, which also compares them)")
    parser.add_argument("--column", metavar="NAME", help="column of embeddings (default: text_sentences_sonar_emb)")
    parser.add_argument(
        "--text-column", metavar="NAME", help="column of sentences; none for data without text (default: text_sentences)"
    )
    parser.add_argument("--id-column", metavar="NAME", help="column of ids (default: id where a file has it)")
    parser.add_argument(
        "--width", type=int, metavar="N", help="components that vectors must have (default: what most of the data has)"
    )
    parser.add_argument(
        "--max-length",
        type=int,
        default=250,
        metavar="N",
        help="characters that sentences may have, white space around them not counted (default: 250)",
    )
    parser.add_argument("--strict", action="store_true", help="exit with 1 when there are warnings too")
    parser.add_argument(
        "--json",
        nargs="?",
        const=_STDOUT,
        metavar="FILE",
        help="write the report with the list of all problems as JSON; without FILE to standard output, instead of text",
    )
    parser.add_argument(
        "--limit-listed", type=int, default=20, metavar="N", help="problems of each kind in the text (default: 20)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="threads (default: one a core, at most 16)")


def run(args: Namespace) -> int:
    from tqdm import tqdm

    from lexalcm.errors import ConfigError
    from lexalcm.pipelines.verify.config import VerifyConfig, default_workers
    from lexalcm.pipelines.verify.report import json_lines, text_report
    from lexalcm.pipelines.verify.run import verify

    if args.width is not None and args.width < 1:
        raise ConfigError(f"`--width` must be at least 1, but is {args.width}.")
    output = None if args.json in (None, _STDOUT) else Path(args.json)
    if output is not None and (output.suffix == ".parquet" or output.is_dir() or not output.parent.is_dir()):
        raise ConfigError(
            f"`--json` must be a file to write the report to, in a folder that exists, but is {output}.\n"
            f"Without a file, say --json behind the dataset."
        )
    given = {
        "embedding_column": args.column,
        "text_column": None if args.text_column == _NONE else args.text_column,
        "id_column": args.id_column,
        "concept_dim": args.width,
    }
    overrides = {name: value for name, value in given.items() if value is not None}
    config = VerifyConfig(
        data=_data(args.dataset, overrides),
        needs_text=args.text_column != _NONE,
        split=None if args.split == "all" else args.split,
        max_length=args.max_length,
        num_workers=default_workers() if args.workers is None else args.workers,
        most_kept=args.limit_listed,
        keep_all=args.json is not None,
    )
    with tqdm(unit=" documents", unit_scale=True, disable=None, file=sys.stderr) as bar:

        def say(done: int, total: int) -> None:
            bar.total = total
            bar.update(done)

        verified = verify(config, progress=say)
    if args.json is not None:
        lines = json_lines(verified, name=args.dataset, strict=args.strict)
        if output is None:
            sys.stdout.writelines(f"{line}\n" for line in lines)
        else:
            with output.open("w", encoding="utf-8") as handle:
                handle.writelines(f"{line}\n" for line in lines)
    if args.json != _STDOUT:
        print(text_report(verified, name=args.dataset, strict=args.strict))
    return 1 if verified.is_broken(strict=args.strict) else 0


def _data(name: str, overrides: dict[str, Any]) -> Any:
    """The dataset at a path, or the one that cards describe."""
    from lexalcm.data.dataset_card import DATASET_CARD
    from lexalcm.data.sources import ConceptParquetConfig

    is_path = "://" in name or (Path(name).exists() and not name.endswith((".yaml", ".yml")))
    if is_path and not (Path(name) / DATASET_CARD).is_file():
        # Files are checked without fairseq2, which takes seconds to start.
        return ConceptParquetConfig(path=name, **overrides)
    from lexalcm.installation import check_setup

    check_setup()
    from lexalcm.recipes.dataset import named_config

    return named_config(name, overrides)
