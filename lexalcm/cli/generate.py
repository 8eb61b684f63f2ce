"""Continues texts, or concepts, sentence by sentence. Everything runs on this machine.

With --prompt, sentences are printed as they come. With --input, every prompt that is finished is written to --output
at once, in order at the end; a run that was broken off goes on with --resume. One prompt's result does not depend on
the others.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lexalcm.cli.generate_options import (
    add_sampler_options,
    add_stop_options,
    add_text_options,
    check_original,
    generation_config,
    parse_pairs,
    sampler_section,
    special_section,
    text_config,
)
from lexalcm.errors import ConfigError

if TYPE_CHECKING:
    from lexalcm.generation.output import OutputFile
    from lexalcm.generation.prompts import InputPrompt, PromptSummary
    from lexalcm.generation.text_generator import NewSentence, TextGenerator
    from lexalcm.recipes.generator import GeneratorPlan


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="a card's name, a card file, or a folder: of a run or an export"
    )
    parser.add_argument("--prompt", metavar="TEXT", help="the text to continue")
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="prompts: .txt, one a line; .jsonl with text, sentences or concepts, and perhaps id and lang; "
        ".safetensors, a tensor [T, C] a prompt; .parquet, or a folder of it, in the layout of datasets",
    )
    parser.add_argument("--column", metavar="NAME", help="parquet's column of embeddings (default: Meta's)")
    parser.add_argument("--id-column", metavar="NAME", help="parquet's column of ids (default: id, if there is one)")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help=".jsonl, or .parquet with text and embeddings as datasets have them; FILE.settings.json tells how they "
        "were made",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the output that is there")
    parser.add_argument("--overwrite", action="store_true", help="replace the output that is there")
    parser.add_argument("--batch-size", metavar="N", type=int, help="prompts continued at a time (default: 8)")
    parser.add_argument(
        "--no-cuda-graphs", dest="cuda_graphs", action="store_false", default=None, help="launch kernels one by one"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--dtype", default="float32", help="float32, bfloat16 or float16 (default: float32)")
    parser.add_argument(
        "--override-trained",
        metavar="FIELD=VALUE",
        action="append",
        default=[],
        help="change what the model was trained with, say its schedule; several times for several",
    )
    parser.add_argument(
        "--original",
        action="store_true",
        help="run a published LexaLCM-Pre1 checkpoint's own forward: one pass at t = 39, no sampler, no loop",
    )
    add_text_options(parser)
    add_stop_options(parser)
    add_sampler_options(parser)


def run(args: Namespace) -> int:
    from lexalcm.installation import check_setup

    check_setup()
    if args.list_languages:
        return _list_languages(args)
    _check_words(args)
    from lexalcm.generation.output import OutputFile
    from lexalcm.generation.prompt_files import PromptFile
    from lexalcm.generation.prompts import look_through, text_prompt
    from lexalcm.recipes.generator import GeneratorConfig, plan_generator

    output = None
    if args.output is not None:
        output = OutputFile(args.output, resume=args.resume, overwrite=args.overwrite)
    if args.prompt is not None:
        prompts: Iterable[InputPrompt] = [text_prompt(args.prompt)]
    else:
        _check_apart(args.input, output)
        prompts = PromptFile(args.input, column=args.column, id_column=args.id_column)
    summary = look_through(prompts)
    config = GeneratorConfig(
        model=args.model,
        device=args.device,
        dtype=args.dtype,
        sampler=sampler_section(args),
        generation=generation_config(args),
        text=text_config(args),
        special=special_section(args),
        override_trained=parse_pairs(args.override_trained, "--override-trained"),
        original=args.original,
    )
    if output is None and config.text.decoder == "none":
        raise ConfigError("`--decoder none` writes no text: name a file for the concepts, --output.")
    plan = plan_generator(
        config, has_text=summary.has_text, encoded_langs=summary.langs, prompt_langs=summary.all_langs
    )
    if output is not None:
        return _run_batch(args, plan, prompts, summary, output)
    generator = plan.load()
    _say_what_runs(generator)
    return _stream(generator, next(iter(prompts)))


def _check_words(args: Namespace) -> None:
    if args.model is None:
        raise ConfigError("MODEL is missing: a card's name, a card file, or a folder. See fairseq2 lcm assets list")
    if (args.prompt is None) == (args.input is None):
        raise ConfigError("Give the text to continue, --prompt, or a file of prompts, --input, and not both.")
    if args.input is not None and args.output is None:
        raise ConfigError("`--input` needs `--output`, the file for the continuations.")
    if args.output is None and (args.resume or args.overwrite):
        raise ConfigError("`--resume` and `--overwrite` are for an `--output`.")
    if args.prompt is not None and (args.column or args.id_column):
        raise ConfigError("`--column` and `--id-column` are for an `--input` of parquet.")
    check_original(args)


def _check_apart(source: str, output: OutputFile) -> None:
    if Path(source).resolve() in (output.path.resolve(), output.journal.resolve(), output.settings_file.resolve()):
        raise ConfigError(f"`--output` {output.path} would be written over `--input`: name another file.")


def _list_languages(args: Namespace) -> int:
    from lexalcm.text.languages import SONAR_CARD, sonar_languages

    for code in sonar_languages(args.tokenizer_card or args.encoder_card or SONAR_CARD):
        print(code)
    return 0


def _run_batch(
    args: Namespace, plan: GeneratorPlan, prompts: Iterable[InputPrompt], summary: PromptSummary, output: OutputFile
) -> int:
    from tqdm import tqdm

    from lexalcm import __version__
    from lexalcm.generation.batch_run import continue_into

    total = len(summary.indices)
    if output.check(plan.settings, summary.indices, summary.digests):
        output.finish()
        print(f"{output.path} is complete: all {total:,} prompts are continued.")
        return 0
    generator = plan.load()
    if summary.concept_dim is not None:
        generator.check_width(summary.concept_dim, args.input)
    _say_what_runs(generator)
    facts = {"passes": getattr(generator.concepts, "num_passes", None), "lexalcm": __version__}
    if generator.decoder is not None:
        facts["decoder"] = {"name": generator.decoder.name, "options": dict(generator.decoder.options)}
    bar = tqdm(total=total, initial=len(output.done), unit="prompt", file=sys.stderr, disable=None)
    try:
        output.open(plan.settings, facts)
        continue_into(output, generator, prompts, on_done=lambda num_concepts: bar.update())
    except KeyboardInterrupt:
        bar.close()
        sys.stderr.write(
            f"Interrupted: {len(output.done):,} of {total:,} prompts are done and kept in {output.journal}.\n"
            f"To go on, run the same command with --resume.\n"
        )
        return 130
    finally:
        bar.close()
    print(f"{output.path}: {total:,} prompts continued. How: {output.settings_file}")
    return 0


def _stream(generator: TextGenerator, prompt: InputPrompt) -> int:
    from lexalcm.generation.text_generator import NewSentence

    for event in generator.follow(prompt):
        if isinstance(event, NewSentence):
            _print_sentence(event)
            continue
        sys.stderr.write(f"{event.reason}: {event.detail}; {event.num_concepts} sentence(s)\n")
    return 0


def _print_sentence(sentence: NewSentence) -> None:
    for lang, decoded in sentence.texts.items():
        name = f"{lang}: " if len(sentence.texts) > 1 else ""
        cosine = "" if decoded.cosine is None else f" ({decoded.cosine:.2f})"
        print(f"{name}{decoded.text}{cosine}", flush=True)


def _say_what_runs(generator: TextGenerator) -> None:
    describe = getattr(generator.concepts, "describe", None)
    passes = getattr(generator.concepts, "num_passes", None)
    if describe is not None:
        sys.stderr.write(f"{describe()}\n")
    elif passes is not None:
        sys.stderr.write(f"{passes} pass(es) of the denoiser a sentence\n")
