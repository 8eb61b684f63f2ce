"""Makes a dataset of raw text: sentences by SaT, concepts by SONAR, Meta-format parquet, a report and a card.

Shards of documents are done by one or several workers, here or under Slurm. A shard is written whole or not at all, and
never twice: after a stop, a kill or a crash the same command goes on, and ends with what an undisturbed run would have
written. Sentences of a document join to its text, character by character.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lexalcm.cli.launch_options import add_launch_arguments, launch_config
from lexalcm.cli.segmenter_options import add_segmenter_options

if TYPE_CHECKING:
    from lexalcm.pipelines.launch_config import LaunchConfig
    from lexalcm.pipelines.prepare.config import PrepareConfig
    from lexalcm.pipelines.prepare.run import Prepared, PreparePlan
    from lexalcm.pipelines.worker_progress import Progress


_MANY: Final = 10**6
"""Shards, for the question how many workers there would be at most."""

_USUAL_DIM: Final = 1024


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "input",
        metavar="INPUT",
        nargs="+",
        help=".jsonl, .json, .csv, .tsv or .txt (a document a file), plain or compressed; .parquet; a folder of these; a "
        "dataset that Hugging Face saved to disk; each a path or a URL, such as hf://datasets/ORG/NAME",
    )
    parser.add_argument("output", metavar="OUT", help="the folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace what an earlier run has put there")
    parser.add_argument("--dry-run", action="store_true", help="look through the input, tell the plan, write nothing")
    _add_input_options(parser)
    _add_text_options(parser)
    _add_output_options(parser)
    parser.add_argument(
        "--device",
        metavar="NAME",
        default="auto",
        help="auto, cpu, cuda or cuda:1 (default: auto, a GPU if there is one)",
    )
    add_launch_arguments(parser)


def _add_input_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("input")
    group.add_argument(
        "--format", metavar="NAME", help="jsonl, json, csv, tsv, txt, parquet or arrow (default: by the suffix)"
    )
    group.add_argument("--text-column", metavar="NAME", help="the text of a document (default: text)")
    group.add_argument(
        "--prompt-column",
        metavar="NAME",
        help="for data to fine-tune on, with --answer-column in place of --text-column",
    )
    group.add_argument("--answer-column", metavar="NAME", help="what is to be learned to answer a prompt")
    group.add_argument("--id-column", metavar="NAME", help="(default: id if there is one, else file and row number)")
    group.add_argument(
        "--split-column",
        metavar="NAME",
        help="the split of a document (default: what paths say, as split=train/; else drawn, see below)",
    )
    group.add_argument(
        "--drop-column",
        metavar="NAME",
        action="append",
        default=[],
        help="leave a column out; several times for several",
    )
    group.add_argument(
        "--as-text",
        metavar="NAME",
        action="append",
        default=[],
        help="keep a column as text whatever it holds, say one of numbers and words; several times for several",
    )
    group.add_argument(
        "--lang-column", metavar="NAME", help="the language of a document, such as eng_Latn, en or English"
    )
    group.add_argument("--lang", metavar="CODE", help="of documents that name none")
    group.add_argument(
        "--unknown-lang",
        metavar="RULE",
        help="a document whose language is not known, or not named without --lang: error, default (take --lang) or drop; "
        "the column lang_rule tells of each document how it came to its language (default: error)",
    )


def _add_text_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("sentences and concepts")
    add_segmenter_options(group)
    group.add_argument(
        "--encoder",
        metavar="NAME",
        help="sonar; sonar:CARD; hf:DIR, a Hugging Face encoder's folder; stand_in, which knows spelling and not meaning, "
        "to try things (default: sonar)",
    )
    group.add_argument("--tokenizer-card", metavar="CARD", help="of SONAR (default: the encoder's own)")
    group.add_argument(
        "--pooling", metavar="NAME", help="of hf: mean, cls, max or last (default: what its folder says)"
    )
    group.add_argument("--dim", metavar="C", type=int, help="width of the stand-in's concepts (default: 1024)")
    group.add_argument(
        "--encoder-dtype",
        metavar="TYPE",
        help="of the encoder's weights: float32, bfloat16 or float16 (default: float32)",
    )
    group.add_argument(
        "--batch-tokens", metavar="N", type=int, help="tokens encoded together (default: what suits the device)"
    )
    group.add_argument(
        "--too-long",
        metavar="RULE",
        help="a sentence of more tokens than the encoder takes: flag, encode its start and name it in the row and in the "
        "report; or refuse (default: flag)",
    )


def _add_output_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "--dtype",
        metavar="TYPE",
        help="of stored concepts: float16, half of the disk and of what training must read, and finer than what bfloat16 "
        "trains with; or float32 (default: float16)",
    )
    group.add_argument(
        "--validation-share", metavar="P", type=float, help="of documents, by the hash of their id (default: 0.05)"
    )
    group.add_argument("--test-share", metavar="P", type=float, help="(default: 0)")
    group.add_argument("--split-seed", metavar="N", type=int, help="another one draws other splits (default: 0)")
    group.add_argument(
        "--num-shards", metavar="N", type=int, help="(default: one for about 8 MiB of input, and at least one a worker)"
    )


def run(args: Namespace) -> int:
    launch = launch_config(args)
    from lexalcm.installation import check_setup

    check_setup()
    from lexalcm.pipelines.prepare.run import plan_prepare, run_prepare

    config = _config(args)
    plan = plan_prepare(
        config,
        args.output,
        num_shards=args.num_shards,
        least_shards=_least_shards(launch, args.device),
        overwrite=args.overwrite,
        write=not args.dry_run,
        progress=_say_bytes if sys.stderr.isatty() else None,
    )
    _tell_plan(plan)
    if args.dry_run:
        return 0
    bar = _Bar(plan)
    try:
        prepared = run_prepare(plan, launch, device=args.device, on_progress=bar.show)
    except KeyboardInterrupt:
        bar.close()
        sys.stderr.write(
            f"Interrupted: {len(list(plan.folder.finished_shards()))} of {len(plan.raw.shards)} shards are done.\n"
            f"To go on, run the same command.\n"
        )
        return 130
    finally:
        bar.close()
    _tell_result(prepared)
    return 0


def _config(args: Namespace) -> PrepareConfig:
    from lexalcm.errors import ConfigError
    from lexalcm.pipelines.prepare.config import PrepareConfig
    from lexalcm.pipelines.prepare.inputs import InputConfig
    from lexalcm.text.segment import DEFAULT_SEGMENTER

    pair = (args.prompt_column, args.answer_column)
    if any(pair) and not all(pair):
        raise ConfigError("--prompt-column and --answer-column belong together: give both, or --text-column alone.")
    if all(pair) and args.text_column is not None:
        raise ConfigError("--text-column is for documents without prompts: leave it out beside --prompt-column.")
    inputs = InputConfig(
        paths=tuple(args.input),
        format=args.format,
        text_columns=pair if all(pair) else (args.text_column or "text",),
        lang_column=args.lang_column,
        id_column=args.id_column,
        split_column=args.split_column,
        drop_columns=tuple(args.drop_column),
        as_text_columns=tuple(args.as_text),
    )
    if args.segmenter_path is not None and args.segmenter not in (None, "sat"):
        raise ConfigError(f"--segmenter-path is the folder of a SaT, but --segmenter is {args.segmenter}.")
    segmenter = args.segmenter_path or (DEFAULT_SEGMENTER if args.segmenter == "sat" else args.segmenter)
    if args.segmenter_path is not None and not Path(args.segmenter_path).is_dir():
        raise ConfigError(f"--segmenter-path must be a folder with a SaT model, but {args.segmenter_path} is none.")
    names = (
        *("lang", "unknown_lang", "segmenter_backend", "segmenter_threshold", "segment_length", "newlines", "encoder"),
        *("tokenizer_card", "pooling", "dim", "encoder_dtype", "batch_tokens", "too_long", "dtype"),
        *("validation_share", "test_share", "split_seed"),
    )
    given: dict[str, Any] = {name: value for name in names if (value := getattr(args, name)) is not None}
    if segmenter is not None:
        given["segmenter"] = segmenter
    return PrepareConfig(inputs=inputs, **given)


def _least_shards(launch: LaunchConfig, device: str) -> int:
    """One for each worker that somebody asked for, or that this machine has."""
    if launch.launcher == "slurm":
        return launch.num_workers or launch.nodes or 1
    return launch.sized(_MANY, device=device).num_workers or 1


def _tell_plan(plan: PreparePlan) -> None:
    raw, done = plan.raw, len(plan.finished)
    print(
        f"{raw.num_documents:,} documents in {raw.num_bytes / 1e6:,.1f} MB, {len(raw.shards):,} shard(s)"
        + (f", {done:,} of them done already" if done else "")
    )
    kept = [field.name for field in raw.schema]
    print(f"columns: {', '.join(kept)}")


def _tell_result(prepared: Prepared) -> None:
    record = prepared.record
    splits = ", ".join(f"{split}: {count:,}" for split, count in sorted(record.documents.items()))
    print(
        f"{prepared.folder}: {record.num_documents:,} documents ({splits}), {record.num_sentences:,} sentences, "
        f"{prepared.num_files:,} file(s) of {prepared.num_bytes / 1e6:,.1f} MB"
    )
    for reason, count in record.left_out.most_common():
        place, found = next((place, found) for place, why, found in record.left_out_places if why == reason)
        print(f"  left out: {count:,} document(s), {reason}; the first is {place}{f': {found!r}' if found else ''}")
    if record.num_truncated:
        place, _, number = record.truncated_places[0]
        print(
            f"  {record.num_truncated:,} sentence(s) have more tokens than the encoder takes, and only their start is "
            f"encoded; the first is sentence {number} of {place}. See the columns ..._truncated and preparation.json."
        )
    if not record.documents["train"]:
        print("  no document is in the split train: there is nothing to train on")
    width = "" if prepared.dim == _USUAL_DIM else f" model.config_overrides.concept_dim={prepared.dim}"
    print(f"Train on it: fairseq2 lcm train pre1 runs/a --config dataset.name={prepared.card}{width}")


def _say_bytes(done: int, total: int) -> None:
    sys.stderr.write(f"\r\033[Klooking through the input: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB")
    if done >= total:
        sys.stderr.write("\r\033[K")
    sys.stderr.flush()


class _Bar:
    """Documents a second, sentences a second and what time is left."""

    def __init__(self, plan: PreparePlan) -> None:
        from tqdm import tqdm

        self._done = plan.num_documents_done
        self._bar = tqdm(
            total=plan.raw.num_documents, initial=self._done, unit="doc", file=sys.stderr, disable=None, smoothing=0.05
        )

    def show(self, progress: Progress) -> None:
        self._bar.set_postfix_str(f"{progress.sentences_per_second:,.0f} sentences/s", refresh=False)
        self._bar.update(self._done + progress.num_documents - self._bar.n)

    def close(self) -> None:
        self._bar.close()
