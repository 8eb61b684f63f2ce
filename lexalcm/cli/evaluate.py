"""Measures how well a model predicts the next concept of real documents, beside copying, the mean and ridge regression.

Ranks by retrieval among the concepts of 16 documents, own history left out ("unseen"), and by the energy score of samples,
lower is better. Cosine and MSE reward the mean of all plausible next sentences: read them last.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="a card's name, a card file, or the folder of a training run")
    parser.add_argument("dataset", metavar="DATASET", help="a parquet file or directory, or a dataset's card")
    parser.add_argument("--split", default="validation", help='split to measure on, "all" for everything (default: validation)')
    parser.add_argument("--column", metavar="NAME", help="column of embeddings (default: text_sentences_sonar_emb)")
    parser.add_argument("--baseline-data", metavar="DATASET", help="what the baselines are fitted on (default: the split train)")
    parser.add_argument("--samples", type=int, default=4, metavar="S", help="samples a position, 0 for none (default: 4)")
    parser.add_argument("--sampler", default="ddim", help="ddim or dpm_solver_2m (default: ddim)")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="passes of the denoiser a sample (default: 20)")
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
    from lexalcm.diffusion.samplers import SamplerConfig
    from lexalcm.errors import CardError
    from lexalcm.evaluation.evaluate import EvaluationSettings, check_device, check_fit, cut_documents, evaluate
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
    sampler.check()
    dataset = open_named_dataset(args.dataset, column=args.column)
    split = None if args.split == "all" else args.split
    documents = cut_documents(dataset, split, most=args.max_documents)
    model = load_model(args.model, device=device)
    if not isinstance(model, TwoTowerModel):
        raise CardError(f"{args.model} is a {type(model).__name__}, not a model that predicts concepts.")
    check_fit(model, dataset)
    baseline_documents = None
    if args.baseline_data is not None:
        baseline_documents = cut_documents(open_named_dataset(args.baseline_data, column=args.column), None)
    elif "train" in dataset.splits and split != "train":
        baseline_documents = cut_documents(dataset, "train")
    settings = EvaluationSettings(sampler=sampler, num_samples=args.samples, seed=args.seed, device=str(device))
    report = evaluate(
        model,
        documents,
        settings,
        baseline_documents=baseline_documents,
        names=(args.model, args.dataset, split),
        progress=_say if sys.stderr.isatty() else None,
    )
    print(report.to_json() if args.json else report.table())
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text} ...\n")
