"""Fits the center and scale that concepts are normalized with, in one pass over a dataset and in bounded memory.

A dimension without spread gets scale 1 and a warning: real embedding models have dead ones.
"""

from __future__ import annotations

import sys
import warnings
from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="a parquet file or directory, or a dataset's card")
    parser.add_argument(
        "output",
        metavar="OUT",
        help="the file to write, .safetensors or .pt (the layout of Meta's release); a card is written beside it",
    )
    parser.add_argument("--split", default="train", help='split to fit on, "all" for everything (default: train)')
    parser.add_argument(
        "--method",
        default="robust",
        help="robust: median and 0.7413 x interquartile range; standard: mean and standard deviation; "
        "gaussian_robust: median and range between two quantiles, as a multiple of a Gaussian's; range: median and that "
        'range itself, which Meta\'s release calls "robust"; meta_compatible: what Meta\'s release fits by default, '
        "gaussian_robust from the 0.25th to the 0.75th percentile, a fraction having been taken for a percentage "
        "(default: robust)",
    )
    parser.add_argument(
        "--quantiles",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="percentages for gaussian_robust and range (default: 25 75)",
    )
    parser.add_argument(
        "--arch",
        default="base",
        help="base; base_fft: normalise the Fourier transform; clipping: clamp normalised values; clipping_fft: both "
        "(default: base)",
    )
    parser.add_argument(
        "--clip-proba",
        type=float,
        metavar="P",
        help="clamp normalised values at their quantiles P and 1 - P (default: what the arch says, 0.0001 or not at all)",
    )
    parser.add_argument("--column", metavar="NAME", help="column of embeddings (default: text_sentences_sonar_emb)")
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave out and count rows that are broken")


def run(args: Namespace) -> int:
    from lexalcm.installation import check_setup

    check_setup()
    from lexalcm import __version__
    from lexalcm.checkpoints.normalizer_file import SUFFIXES, save_normalizer_file, write_normalizer_card
    from lexalcm.errors import ConfigError
    from lexalcm.evaluation.documents import chosen_split
    from lexalcm.models.normalizer.config import normalizer_arch
    from lexalcm.pipelines.fit_normalizer import fit_normalizer, listed_dims
    from lexalcm.pipelines.fit_rule import fit_rule
    from lexalcm.recipes.dataset import open_named_dataset

    output = Path(args.output)
    if output.suffix not in SUFFIXES or output.is_dir():
        raise ConfigError(f"OUT must be a file that ends in {' or '.join(SUFFIXES)}, but is {output}.")
    arch = normalizer_arch(args.arch)
    rule = fit_rule(
        args.method,
        quantiles=None if args.quantiles is None else (args.quantiles[0], args.quantiles[1]),
        with_fft=arch.with_fft,
        clip_proba=arch.clip_proba if args.clip_proba is None else args.clip_proba,
    )
    dataset = open_named_dataset(args.dataset, column=args.column, skip_bad_rows=args.skip_bad_rows)
    split = chosen_split(dataset, args.split)
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        fit = fit_normalizer(dataset, split, rule, progress=_say if sys.stderr.isatty() else None)
    facts = {
        "method": fit.method,
        "quantiles": list(rule.quantiles) if rule.method != "standard" else None,
        "clip_proba": rule.clip_proba,
        "dataset": args.dataset,
        "split": split,
        "num_documents": fit.num_documents,
        "num_concepts": fit.num_concepts,
        "files": list(fit.files),
        "dead_dims": list(fit.dead_dims),
        "error_bound": fit.error_bound,
        "lexalcm": __version__,
    }
    save_normalizer_file(output, fit.statistics, facts, sources=[args.dataset])
    card = write_normalizer_card(output, rule.recorded_config(len(fit.center)), args.arch)
    dead = f"{len(fit.dead_dims)} without spread: {listed_dims(fit.dead_dims)}" if fit.dead_dims else "all with spread"
    how = "exact" if fit.error_bound == 0.0 else f"error at most {fit.error_bound:.2%} of a dimension's range"
    data = f"{fit.num_concepts:,} concepts of {fit.num_documents:,} documents in {len(fit.files):,} file(s)"
    # A .pt file does not say whether it is for the Fourier transform; its card does.
    source = f"normalizer.name={card}" if output.suffix == ".pt" else f"normalizer.path={output}"
    print(
        f"{output}\n"
        f"  method      {fit.method}, {how}\n"
        f"  fitted to   {data}\n"
        f"  dimensions  {len(fit.center)}, {dead}\n"
        f"  card        {card}\n"
        f"Train with it: --config {source} normalizer.fit=null"
    )
    return 0


def _warn(message: Warning | str, *place: object, **more: object) -> None:
    sys.stderr.write(f"warning: {message}\n")


def _say(num_documents: int, num_concepts: int) -> None:
    sys.stderr.write(f"\r\033[K{num_documents:,} documents, {num_concepts:,} concepts")
    sys.stderr.flush()
