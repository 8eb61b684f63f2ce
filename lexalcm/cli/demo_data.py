"""Writes a small bilingual (English, Japanese) corpus of stories to try things on, in the layout of real data.

Its embeddings come from a stand-in for SONAR that knows spelling, not meaning, and needs no download.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUT", type=Path, help="the folder to write")
    parser.add_argument("--documents", type=int, default=2400, metavar="N", help="stories to write (default: 2400)")
    parser.add_argument("--dim", type=int, default=1024, help="width of an embedding (default: 1024)")
    parser.add_argument("--seed", type=int, default=0, help="of the stories (default: 0)")
    parser.add_argument("--langs", default="eng_Latn,jpn_Jpan", help="languages (default: eng_Latn,jpn_Jpan)")


def run(args: Namespace) -> int:
    from lexalcm.pipelines.demo_corpus import DemoCorpusConfig, write_demo_corpus
    from lexalcm.text.stand_in_encoder import STAND_IN_NAME

    langs = tuple(lang.strip() for lang in args.langs.split(",") if lang.strip())
    config = DemoCorpusConfig(num_documents=args.documents, dim=args.dim, seed=args.seed, langs=langs)
    corpus = write_demo_corpus(args.output, config, progress=_say if sys.stderr.isatty() else None)
    verb = "already holds" if corpus.was_there else "now holds"
    print(
        f"{args.output} {verb} {corpus.num_documents:,} stories with {corpus.num_sentences:,} sentences in "
        f"{', '.join(langs)}.\nEmbeddings of {args.dim} dimensions by a {STAND_IN_NAME}."
    )
    return 0


def _say(done: int, total: int) -> None:
    sys.stderr.write(f"\r{done:,} of {total:,} stories" + ("\n" if done == total else ""))
    sys.stderr.flush()
