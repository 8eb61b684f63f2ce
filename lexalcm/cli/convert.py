"""Turns a dataset in Meta's layout, or any parquet files of documents, into LexaLCM's: OUT/Train, OUT/Val, OUT/Test.

All columns keep their order, types and values; partitions of the path (lang=eng_Latn) become columns of text.
Embeddings are stored as lists of vectors of fixed size, half as half and float or double as float32. Every row is
checked. After a stop, a kill or a crash the same command goes on. OUT/conversion.json tells what became of each file;
OUT/dataset.yaml is the card to train with.
"""

from __future__ import annotations

import sys
import warnings
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lexalcm.pipelines.convert.config import ConvertConfig
    from lexalcm.pipelines.convert.plan import Plan
    from lexalcm.pipelines.convert.result import FileResult
    from lexalcm.pipelines.convert.run import Conversion


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "input", metavar="IN", help="a parquet file, or a folder with such files at any depth; a path or a URL"
    )
    parser.add_argument(
        "output", metavar="OUT", help="the folder to write; empty, or that of the conversion to go on with"
    )
    parser.add_argument("--overwrite", action="store_true", help="begin anew in the folder of another conversion")
    parser.add_argument("--dry-run", action="store_true", help="tell what would be written where, and write nothing")
    parser.add_argument(
        "--layout",
        metavar="NAME",
        default="lexalcm",
        help="lexalcm: Train/, Val/, Test/; hive: split=train/ and so on, as Meta's trainer reads (default: lexalcm)",
    )
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        default="keep",
        help="of the components: float16, float32, or keep, which makes double float32 (default: keep)",
    )
    parser.add_argument("--workers", metavar="N", type=int, help="threads (default: as many as processors, at most 8)")
    _add_row_options(parser)
    _add_split_options(parser)


def _add_row_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("rows")
    group.add_argument(
        "--repair",
        metavar="RULE",
        default="fail",
        help="what a broken row does (another width, NaN, a zero or missing vector, other numbers of sentences and "
        "vectors): fail, stop at it; drop, leave it out and list it in conversion.json (default: fail)",
    )
    group.add_argument(
        "--skip-damaged-files",
        action="store_true",
        help="with --repair drop: leave out and list files that cannot be read, which are errors otherwise",
    )
    group.add_argument("--embedding-column", metavar="NAME", help="(default: text_sentences_sonar_emb)")
    group.add_argument(
        "--text-column",
        metavar="NAME",
        help='its sentences, "none" for data without; further columns X and X_sonar_emb are treated alike '
        "(default: text_sentences)",
    )
    group.add_argument(
        "--concept-dim", metavar="C", type=int, help="width of a vector (default: that of the first file)"
    )


def _add_split_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("splits")
    group.add_argument(
        "--split-column",
        metavar="NAME",
        help="column that names each row's split, which is then left out; none: draw splits whatever the source says "
        "(default: as paths say, split=train or Train/; else a text column split; else drawn)",
    )
    group.add_argument(
        "--validation-share", metavar="P", type=float, help="of documents, where splits are drawn (default: 0.05)"
    )
    group.add_argument(
        "--id-column",
        metavar="NAME",
        help="splits are drawn by its hash, the same in any order and on any machine (default: id if there is one, "
        "else the sentences, or without text the vectors, so that copies of a document stay together)",
    )
    group.add_argument("--seed", metavar="N", type=int, help="another one draws other splits (default: 0)")


def run(args: Namespace) -> int:
    from lexalcm.pipelines.convert.notes import Notes
    from lexalcm.pipelines.convert.plan import make_plan
    from lexalcm.pipelines.convert.run import convert

    config = _config(args)
    config.check()
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        plan = make_plan(config)
    if args.dry_run:
        Notes(config, plan).check()
        _tell_plan(config, plan)
        return 0
    bar = _Bar(plan)
    try:
        conversion = convert(config, plan, progress=bar.update, say=bar.say)
    except KeyboardInterrupt:
        bar.close()
        sys.stderr.write("Interrupted. To go on, run the same command.\n")
        return 130
    finally:
        bar.close()
    _tell_result(config, plan, conversion)
    return 0


def _config(args: Namespace) -> ConvertConfig:
    import os

    from lexalcm.pipelines.convert.config import ConvertConfig

    given = {"embedding_column": args.embedding_column, "text_column": args.text_column}
    columns = {name: value for name, value in given.items() if value is not None}
    if args.text_column == "none":
        columns["text_column"] = None
    return ConvertConfig(
        source=args.input,
        output=args.output,
        layout=args.layout,
        dtype=args.dtype,
        repair=args.repair,
        skip_damaged_files=args.skip_damaged_files,
        id_column=args.id_column,
        concept_dim=args.concept_dim,
        split_column=args.split_column,
        validation_share=args.validation_share,
        seed=args.seed,
        num_workers=min(os.cpu_count() or 1, 8) if args.workers is None else args.workers,
        overwrite=args.overwrite,
        **columns,
    )


def _tell_plan(config: ConvertConfig, plan: Plan) -> None:
    from lexalcm.pipelines.convert.splits import folder_of

    for job in plan.jobs:
        splits = [job.split] if job.split is not None else list(plan.rule.shares)
        folders = [folder_of(split, config.layout, where=job.file.path) for split in splits] or ["(its row's split)"]
        places = ", ".join(f"{config.folder / folder / job.name}" for folder in folders)
        print(f"{job.file.relative}: {sum(job.file.rows):,} documents -> {places}")
    _tell_damaged(plan.damaged)
    _tell_rules(plan)
    first = plan.jobs[0]
    print(f"columns of {first.file.relative}:")
    for field in first.schema:
        there = field.name in first.file.schema.names
        old = first.file.schema.field(field.name).type if there else None
        was = "" if old == field.type else f" (was {old})" if there else " (from the path)"
        print(f"  {field.name}: {field.type}{was}")
    print("Nothing was written: this was a dry run.")


def _tell_rules(plan: Plan) -> None:
    print(f"splits: {plan.rule.describe()}")
    for notice in plan.notices:
        print(f"note: {notice}")


def _tell_damaged(files: dict[str, str]) -> None:
    for name, reason in files.items():
        print(f"{name}: cannot be read and is left out: {reason.splitlines()[0]}")


def _tell_result(config: ConvertConfig, plan: Plan, conversion: Conversion) -> None:
    from lexalcm.data.dataset_card import DATASET_CARD
    from lexalcm.pipelines.convert.notes import SUMMARY

    _tell_damaged(plan.damaged)
    _tell_rules(plan)
    earlier = len(conversion.files) - conversion.num_new
    before, after = conversion.bytes_before_and_after
    splits = ", ".join(f"{split}: {rows:,}" for split, rows in conversion.rows_by_split.items())
    num_damaged = len(plan.damaged) + len(conversion.damaged)
    print(
        f"{len(conversion.files):,} file(s)"
        + (f", {earlier:,} of them by an earlier run" if earlier else "")
        + f": {conversion.num_kept:,} documents kept ({splits}), {conversion.num_dropped:,} dropped"
        + (f", {num_damaged:,} file(s) left out" if num_damaged else "")
        + f"; {before / 1e6:,.1f} MB became {after / 1e6:,.1f} MB"
    )
    for kind, count in conversion.dropped_by_kind.most_common():
        print(f"  dropped: {kind.replace('_', ' ')}: {count:,}")
    if plan.rule.kind == "hash" and len(conversion.rows_by_split) < len(plan.rule.shares):
        print("  A split has no document: there are too few of them for its share.")
    if conversion.num_dropped or num_damaged:
        print(f"  Places: {config.folder / SUMMARY}")
    print(f"{config.folder}")
    print(f"Train on it: fairseq2 lcm train pre1 runs/a --config dataset.name={config.folder / DATASET_CARD}")


def _warn(message: Warning | str, *place: object, **more: object) -> None:
    sys.stderr.write(f"warning: {message}\n")


class _Bar:
    """Documents done and what time is left, and above it a line for each file."""

    def __init__(self, plan: Plan) -> None:
        from tqdm import tqdm

        total = sum(sum(job.file.rows) for job in plan.jobs)
        self._bar = tqdm(total=total, unit="doc", file=sys.stderr, disable=None)

    def update(self, num_rows: int) -> None:
        self._bar.update(num_rows)

    def say(self, result: FileResult) -> None:
        """Tells of a file that is done."""
        from lexalcm.pipelines.convert.run import dropped_kinds

        if result.damaged is not None:
            line = f"{result.file}: cannot be read and is left out: {result.damaged.splitlines()[0]}"
        else:
            kinds = ", ".join(f"{kind.replace('_', ' ')}: {n:,}" for kind, n in dropped_kinds(result).most_common())
            line = f"{result.file}: kept {result.num_kept:,}, dropped {len(result.bad):,}"
            line += f" ({kinds})" if kinds else ""
        self._bar.clear()
        print(line, flush=True)
        self._bar.refresh()

    def close(self) -> None:
        self._bar.close()
