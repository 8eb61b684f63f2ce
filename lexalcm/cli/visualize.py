"""Shows a dataset in one HTML file: lengths, languages, embeddings, a map of sentences to point at, their neighbours.

The page needs no network and no server. Embeddings are read of a sample of documents, texts and dates of up to 200,000.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="a parquet file or directory, or a dataset's card")
    parser.add_argument(
        "--report",
        type=Path,
        default=Path("report.html"),
        metavar="FILE",
        help="the page to write (default: report.html)",
    )
    parser.add_argument("--png-dir", type=Path, metavar="DIR", help="write the pictures there too, as PNG files")
    parser.add_argument(
        "--sample",
        default="1000",
        metavar="SHARE|N",
        help="documents whose embeddings are read: a share with a point (0.1, 1.0 for all) or in percent (10%%), or a "
        "number (default: 1000)",
    )
    parser.add_argument("--split", default="all", help='split to show, "all" for everything (default: all)')
    parser.add_argument("--column", metavar="NAME", help="column of embeddings (default: text_sentences_sonar_emb)")
    parser.add_argument(
        "--compare",
        metavar="OTHER",
        help="another dataset, such as DATASET after conversion: figures side by side, and how far the embeddings of "
        "documents with the same id (else in the same place) differ",
    )
    parser.add_argument("--special-concepts", type=Path, metavar="FILE", help="show those of this safetensors file too")
    parser.add_argument(
        "--projection",
        default="pca",
        help="of the map. pca: the two directions of most variance; tsne: neighbours stay together, takes longer "
        "(default: pca)",
    )
    parser.add_argument("--points", type=int, default=2000, metavar="N", help="sentences in the map (default: 2000)")
    parser.add_argument(
        "--max-length",
        type=int,
        default=250,
        metavar="N",
        help="characters of a sentence to mark as the cap (default: 250)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the sample (default: 0)")


def run(args: Namespace) -> int:
    from lexalcm.installation import check_setup

    check_setup()
    from lexalcm.data.special_concepts import load_special_concepts
    from lexalcm.evaluation.documents import chosen_split
    from lexalcm.pipelines.report.config import ReportConfig, parse_sample
    from lexalcm.pipelines.report.made_by import made_by
    from lexalcm.pipelines.report.run import Subject, check_outputs, make_report, write_report
    from lexalcm.recipes.dataset import open_named_dataset

    config = ReportConfig(
        sample=parse_sample(args.sample),
        seed=args.seed,
        num_points=args.points,
        projection=args.projection,
        max_characters=args.max_length,
    )
    config.check()
    check_outputs(args.report, args.png_dir)
    special = None if args.special_concepts is None else load_special_concepts(args.special_concepts)
    subjects = []
    for name in (args.dataset, args.compare):
        if name is not None:
            dataset = open_named_dataset(name, column=args.column, skip_bad_rows=True)
            subjects.append(Subject(name=name, dataset=dataset, made_by=made_by(name, dataset)))
    splits = [chosen_split(subject.dataset, args.split) for subject in subjects]
    other = subjects[1] if len(subjects) > 1 else None
    config = config.with_split(splits[0])
    report = make_report(subjects[0], config, special_concepts=special, other=other)
    write_report(report, args.report, args.png_dir)
    found = report.figures
    counter = found.notes.counter
    bad = ""
    if counter.num_bad:
        bad = (
            f"\n  bad         {counter.num_bad:,} of {counter.seen:,} documents looked at ({counter.summary()}); "
            f"`fairseq2 lcm verify {args.dataset}` lists them"
        )
    files = "" if args.png_dir is None else f"\n  PNG files   {len(report.pictures)} in {args.png_dir}"
    print(
        f"{args.report}, {args.report.stat().st_size / 1e6:.1f} MB: open it in a browser\n"
        f"  data        {found.description}\n"
        f"  sample      {found.embeddings.num_documents:,} documents, {found.embeddings.num_sentences:,} sentences"
        f"{bad}{files}"
    )
    return 0
