"""Encodes the sentences that play the role of special tokens: start and end of text, pad, system, tool, AI and user.

The file holds one concept a name: `start_of_text` in the first of --langs, `start_of_text.jpn_Jpan` and so on in the
others. Train with it: --config dataset.reading.special_concepts=OUT dataset.reading.prefix=start_of_text
dataset.reading.suffix=end_of_text. Generate with it: --special-concepts OUT --start start_of_text --end end_of_text; a
model that was trained with it has it in its card.

How near the concepts are to each other is printed, with a warning where two of different roles can hardly be told
apart.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lexalcm.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from lexalcm.data.special_concepts import SpecialConcepts

_SUFFIX = ".safetensors"
_OF_MAKING = ("langs", "sentences", "encoder", "device", "dtype", "dim")


_MOST_NAMED = 5


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("output", metavar="OUT", nargs="?", type=Path, help="the .safetensors file to write")
    parser.add_argument(
        "--langs",
        metavar="CODES",
        help="languages, say eng_Latn,jpn_Jpan; the first gives the plain names (default: all)",
    )
    parser.add_argument(
        "--sentences",
        metavar="FILE",
        type=Path,
        help="YAML with sentences of your own, in the form of those that ship, which are the default: fairseq2 lcm "
        "assets show special_sentences",
    )
    parser.add_argument("--encoder", help="sonar, sonar:CARD, stand_in or hf:DIR (default: sonar)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--dtype", help="of the encoder's weights: float32, bfloat16 or float16 (default: float32)")
    parser.add_argument("--dim", type=int, metavar="C", help="width of the stand-in's concepts (default: 1024)")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there")
    parser.add_argument("--show", metavar="FILE", type=Path, help="print what a file, or a folder of files, holds")
    parser.add_argument(
        "--max-cosine", metavar="X", type=float, default=0.9, help="warn of two that are nearer (default: 0.9)"
    )


def run(args: Namespace) -> int:
    _check_words(args)
    if args.show is not None:
        return _show(args.show, args.max_cosine)
    if args.output.suffix != _SUFFIX or args.output.is_dir():
        raise ConfigError(f"OUT must be a file that ends in {_SUFFIX}, but is {args.output}.")
    if args.output.exists() and not args.overwrite:
        raise ConfigError(f"{args.output} exists already. Write another file, or replace it with --overwrite.")

    from lexalcm.text.special_sentences import (
        choose_special_sentences,
        read_special_sentences,
        shipped_special_sentences,
    )

    file = args.sentences or shipped_special_sentences()
    langs = None if args.langs is None else [lang.strip() for lang in args.langs.split(",") if lang.strip()]
    sentences = choose_special_sentences(read_special_sentences(file), langs, file)

    from lexalcm.installation import check_setup

    check_setup()
    from lexalcm.pipelines.special_concepts import make_special_concepts
    from lexalcm.text.encoders import create_encoder

    encoder = create_encoder(
        args.encoder or "sonar", dim=args.dim, device=args.device or "cpu", dtype=args.dtype or "float32"
    )
    make_special_concepts(args.output, sentences, encoder)
    return _show(args.output, args.max_cosine)


def _check_words(args: Namespace) -> None:
    if (args.output is None) == (args.show is None):
        raise ConfigError("Give the file to write, OUT, or one to look at, --show FILE, and not both.")
    if not 0.0 < args.max_cosine <= 1.0:
        raise ConfigError(f"`--max-cosine` must be above 0 and at most 1, but is {args.max_cosine}.")
    given = [name for name in _OF_MAKING if getattr(args, name) is not None] + ["overwrite"] * args.overwrite
    if args.show is not None and given:
        raise ConfigError(f"`--show` only reads: leave --{given[0]} out.")


def _show(path: Path, max_cosine: float) -> int:
    from lexalcm.data.special_concepts import load_special_concepts
    from lexalcm.pipelines.special_concepts import close_pairs, pairwise_cosines

    special = load_special_concepts(path)
    if not special.names:
        print(f"{path} holds no concepts.")
        return 0
    cosines_NN = pairwise_cosines(special.vectors)
    print("\n".join([*_names(special, path), "", "Cosine similarity", *_table(cosines_NN)]))
    pairs = close_pairs(special, max_cosine)
    if pairs:
        named = [f"{pair.first} and {pair.second} ({pair.cosine:.3f})" for pair in pairs[:_MOST_NAMED]]
        more = f" and {len(pairs) - _MOST_NAMED} more" if len(pairs) > _MOST_NAMED else ""
        sys.stderr.write(
            f"warning: too near to tell apart, cosine above {max_cosine:g}: {', '.join(named)}{more}.\n"
            f"What is near one is near the other. Choose other words (--sentences), or generate with an --end-threshold "
            f"above it.\n"
        )
    return 0


def _names(special: SpecialConcepts, path: Path) -> Iterator[str]:
    vectors = special.vectors
    encoders = sorted({told["encoder"] for told in special.facts.values() if "encoder" in told})
    by = f" by {', '.join(encoders)}" if encoders else ""
    dim = len(next(iter(vectors.values())))
    yield f"{path}: {len(vectors)} special concept{'s' * (len(vectors) > 1)} of {dim:,} dimensions{by}"
    width = max(map(len, vectors))
    for number, name in enumerate(vectors, start=1):
        told = special.facts.get(name, {})
        lang, sentence = told.get("lang", ""), told.get("sentence", "(the file does not tell its sentence)")
        yield f"  {number:>2}  {name:<{width}}  {lang:<8}  {sentence}"


def _table(cosines_NN: np.ndarray) -> Iterator[str]:
    """Below the diagonal, under the numbers of the list."""
    for i in range(1, len(cosines_NN)):
        yield f"  {i + 1:>2}  " + " ".join(f"{cosine:5.2f}" for cosine in cosines_NN[i, :i])
    yield "      " + " ".join(f"{number:>5}" for number in range(1, len(cosines_NN)))
