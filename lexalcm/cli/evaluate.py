"""Measures how well a model predicts the next concept of real documents, beside copying, the mean and ridge regression.

Ranks by retrieval among the concepts of 16 documents, own history left out ("unseen"), and by the energy score of
samples, lower is better. Cosine and MSE reward the mean of all plausible next sentences: read them last.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

_CLEAR = "\r\033[K"


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a card's name, a card file, or the folder of a training run")
    parser.add_argument("dataset", metavar="DATASET", help="a parquet file or directory, or a dataset's card")
    parser.add_argument("--split", default="validation", help='split to measure, or "all" (default: validation)')
    parser.add_argument("--column", metavar="NAME", help="column of embeddings (default: text_sentences_sonar_emb)")
    parser.add_argument(
        "--baseline-data", metavar="DATASET", help="what the baselines are fitted on (default: DATASET's split train)"
    )
    parser.add_argument("--samples", type=int, default=4, metavar="S", help="samples a position, or 0 (default: 4)")
    parser.add_argument("--sampler", default="ddim", help="ddim or dpm_solver_2m (default: ddim)")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="denoiser passes a sample (default: 20)")
    parser.add_argument("--guidance-scale", type=float, default=3.0, help="of the guided row, 1 for none (default: 3)")
    parser.add_argument("--guidance-rescale", type=float, default=0.7, help="of the guided row (default: 0.7)")
    parser.add_argument("--initial-noise-scale", type=float, default=0.6, help="of the guided row (default: 0.6)")
    parser.add_argument("--max-documents", type=int, metavar="N", help="only the first N documents")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (default: 0)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: Namespace) -> int:
    from lexalcm.installation import check_setup

    check_setup()
    from lexalcm.checkpoints.load import load_model
    from lexalcm.device import check_device
    from lexalcm.diffusion.samplers import SamplerConfig
    from lexalcm.errors import CardError, ConfigError
    from lexalcm.evaluation.documents import SplitDocuments, check_dim, chosen_split, training_documents
    from lexalcm.evaluation.evaluate import EvaluationSettings, evaluate
    from lexalcm.models.interface import TwoTowerModel
    from lexalcm.recipes.dataset import open_named_dataset

    device = check_device(args.device)
    sampler = SamplerConfig(
        name=args.sampler,
        num_steps=args.steps,
        guidance_scale=args.guidance_scale,
        guidance_rescale=args.guidance_rescale,
        initial_noise_scale=args.initial_noise_scale,
    )
    settings = EvaluationSettings(sampler=sampler, num_samples=args.samples, seed=args.seed, device=device)
    settings.check()
    if args.max_documents is not None and args.max_documents < 1:
        raise ConfigError(f"`--max-documents` must be at least 1, but is {args.max_documents}.")
    dataset = open_named_dataset(args.dataset, column=args.column)
    split = chosen_split(dataset, args.split)
    other = None if args.baseline_data is None else open_named_dataset(args.baseline_data, column=args.column)
    baseline_documents = training_documents(dataset, split, other=other)
    model = load_model(args.model, device=device)
    if not isinstance(model, TwoTowerModel):
        raise CardError(f"{args.model} is a {type(model).__name__}, not a model that predicts concepts.")
    check_dim(model.concept_dim, dataset)
    report = evaluate(
        model,
        SplitDocuments(dataset, split, args.max_documents),
        settings,
        baseline_documents=baseline_documents,
        model_name=args.model,
        dataset_name=args.dataset,
        split=split,
        progress=_say if sys.stderr.isatty() else None,
    )
    if sys.stderr.isatty():
        sys.stderr.write(_CLEAR)
    print(report.to_json() if args.json else report.table())
    return 0


def _say(name: str, num_documents: int) -> None:
    if num_documents % 32 != 1:
        return
    sys.stderr.write(f"{_CLEAR}{name}: {num_documents:,} documents")
    sys.stderr.flush()
