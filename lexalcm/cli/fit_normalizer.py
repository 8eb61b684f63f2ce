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
    parser.add_argument("output", metavar="OUT.safetensors", help="the file to write; a card is written beside it")
    parser.add_argument("--split", default="train", help='split to fit on, "all" for everything (default: train)')
    parser.add_argument(
        "--method",
        default="robust",
        help="robust: median and 0.7413 x interquartile range; standard: mean and standard deviation (default: robust)",
    )
    parser.add_argument("--column", metavar="NAME", help="column of embeddings (default: text_sentences_sonar_emb)")
    parser.add_argument("--skip-bad-rows", action="store_true", help="leave out and count rows that are broken")


def run(args: Namespace) -> int:
    from lexalcm.installation import check_setup

    check_setup()
    import torch

    from lexalcm import __version__
    from lexalcm.checkpoints.normalizer_file import save_normalizer_file, write_normalizer_card
    from lexalcm.errors import ConfigError
    from lexalcm.evaluation.documents import chosen_split
    from lexalcm.models.normalizer.config import NormalizerConfig
    from lexalcm.pipelines.fit_normalizer import fit_normalizer, listed_dims
    from lexalcm.recipes.dataset import open_named_dataset

    output = Path(args.output)
    if output.suffix != ".safetensors" or output.is_dir():
        raise ConfigError(f"OUT must be a file that ends in .safetensors, but is {output}.")
    dataset = open_named_dataset(args.dataset, column=args.column, skip_bad_rows=args.skip_bad_rows)
    split = chosen_split(dataset, args.split)
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        fit = fit_normalizer(dataset, split, args.method, progress=_say if sys.stderr.isatty() else None)
    facts = {
        "method": fit.method,
        "dataset": args.dataset,
        "split": split,
        "num_documents": fit.num_documents,
        "num_concepts": fit.num_concepts,
        "files": list(fit.files),
        "dead_dims": list(fit.dead_dims),
        "error_bound": fit.error_bound,
        "lexalcm": __version__,
    }
    save_normalizer_file(output, torch.from_numpy(fit.center), torch.from_numpy(fit.scale), facts)
    config = NormalizerConfig(dim=len(fit.center), normalization_method="standard")
    if fit.method == "robust":
        config = NormalizerConfig(dim=len(fit.center), quantile_min=25.0, quantile_max=75.0)
    card = write_normalizer_card(output, config)
    dead = f"{len(fit.dead_dims)} without spread: {listed_dims(fit.dead_dims)}" if fit.dead_dims else "all with spread"
    how = "exact" if fit.error_bound == 0.0 else f"error at most {fit.error_bound:.2%} of a dimension's range"
    data = f"{fit.num_concepts:,} concepts of {fit.num_documents:,} documents in {len(fit.files):,} file(s)"
    print(
        f"{output}\n"
        f"  method      {fit.method}, {how}\n"
        f"  fitted to   {data}\n"
        f"  dimensions  {len(fit.center)}, {dead}\n"
        f"  card        {card}\n"
        f"Train with it: --config normalizer.path={output} normalizer.fit=null"
    )
    return 0


def _warn(message: Warning | str, *place: object, **more: object) -> None:
    sys.stderr.write(f"warning: {message}\n")


def _say(num_documents: int, num_concepts: int) -> None:
    sys.stderr.write(f"\r\033[K{num_documents:,} documents, {num_concepts:,} concepts")
    sys.stderr.flush()
