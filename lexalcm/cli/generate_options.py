"""The options of ``fairseq2 lcm generate``, and the configurations they mean. An option that is not given changes
nothing: what holds then is what the sampler's card, or the configuration class, says."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lexalcm.cli.segmenter_options import add_segmenter_options
from lexalcm.errors import ConfigError

if TYPE_CHECKING:
    from lexalcm.generation.config import GenerationConfig
    from lexalcm.generation.special_section import SpecialSection
    from lexalcm.generation.text_parts import TextConfig
    from lexalcm.recipes.config import ComponentSection

_SAMPLER_FIELDS = {
    "steps": "num_steps",
    **{
        name: name
        for name in (
            "spacing",
            "guidance_scale",
            "guidance_rescale",
            "guidance_interval",
            "initial_noise_scale",
            "epsilon_scaling",
            "eta",
            "clip_noise",
            "clip_clean",
            "dynamic_thresholding_ratio",
        )
    },
}
_GENERATION_FIELDS = (
    "max_sentences",
    "min_sentences",
    "end_threshold",
    "repetition_threshold",
    "repetition_window",
    "include_stop",
    "temperature",
    "seed",
    "batch_size",
    "cuda_graphs",
)
_TEXT_FIELDS = (
    "lang",
    "segmenter",
    "segmenter_path",
    "segmenter_backend",
    "segmenter_threshold",
    "segment_length",
    "newlines",
    "encoder",
    "encoder_card",
    "tokenizer_card",
    "decoder",
    "decoder_card",
    "corpus",
    "corpus_sentences",
)
_NOT_WITH_ORIGINAL = (
    *_SAMPLER_FIELDS,
    "sampler",
    *(f for f in _GENERATION_FIELDS if f not in ("seed", "batch_size", "cuda_graphs")),
)
_OFF = "off"


def add_text_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("text")
    group.add_argument("--lang", metavar="CODE", help="language of prompts that name none (default: eng_Latn)")
    group.add_argument(
        "--target-lang",
        metavar="CODE",
        action="append",
        help="language to write; several times for several (default: the prompt's)",
    )
    group.add_argument("--list-languages", action="store_true", help="print the codes that SONAR knows, and stop")
    add_segmenter_options(group)
    group.add_argument(
        "--encoder",
        metavar="NAME",
        help="sonar; stand_in as for the demo data; hf:DIR, a Hugging Face encoder's folder (default: sonar)",
    )
    group.add_argument("--encoder-card", metavar="CARD", help="(default: text_sonar_basic_encoder)")
    group.add_argument("--tokenizer-card", metavar="CARD", help="of SONAR (default: those of its cards)")
    group.add_argument(
        "--decoder",
        metavar="NAME",
        help="sonar; nearest: show the nearest sentence of --corpus and its cosine; none: concepts alone "
        "(default: sonar)",
    )
    group.add_argument("--decoder-card", metavar="CARD", help="(default: text_sonar_basic_decoder)")
    group.add_argument(
        "--decoder-option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="of SONAR's decoder, say beam_size=1; several times for several",
    )
    group.add_argument("--corpus", metavar="DATASET", help="whose sentences nearest knows")
    group.add_argument("--corpus-sentences", metavar="N", type=int, help="how many of them (default: 100000)")


def add_stop_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("where to stop")
    group.add_argument("--max-sentences", metavar="N", type=int, help="at most so many (default: 10)")
    group.add_argument("--min-sentences", metavar="N", type=int, help="at least so many (default: 1)")
    group.add_argument(
        "--end-threshold",
        metavar="COSINE",
        type=_number_or_off,
        help="a concept so near to the end concept, and nearer than to all other special ones, ends the text; or off "
        "(default: 0.9)",
    )
    group.add_argument("--end-text", metavar="TEXT", help="the sentence that is the end concept, say 'End of text.'")
    group.add_argument(
        "--special-concepts",
        metavar="FILE",
        action="append",
        default=[],
        help="safetensors with named concepts; several times for several (default: those of the model's card)",
    )
    group.add_argument("--start", metavar="NAME", help="the special concept to put before every prompt")
    group.add_argument("--behind", metavar="NAME", help="the special concept to put behind every prompt")
    group.add_argument("--behind-text", metavar="TEXT", help="the sentence to put there, as Meta's '[MODEL]:'")
    group.add_argument("--end", metavar="NAME", help="the special concept that is the end")
    group.add_argument(
        "--repetition-threshold",
        metavar="COSINE",
        type=_number_or_off,
        help="stop at a concept so near to an earlier one; or off (default: 0.98)",
    )
    group.add_argument(
        "--repetition-window", metavar="N", type=int, help="look at the last N concepts alone (default: all)"
    )
    group.add_argument(
        "--include-stop", action="store_true", default=None, help="keep the concept that stopped it in the result"
    )


def add_sampler_options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("sampler", "What is not given stands as the sampler's card has it.")
    group.add_argument("--sampler", metavar="CARD", help="(default: few_step_sampler)")
    group.add_argument("--steps", metavar="S", type=int, help="passes of the denoiser a sentence, S")
    group.add_argument("--spacing", metavar="NAME", help="which timesteps are visited, say trailing or meta_trailing")
    group.add_argument("--guidance-scale", metavar="G", type=float, help="g of e_u + g (e_c - e_u); 1 for none")
    group.add_argument("--guidance-rescale", metavar="PHI", type=float, help="phi, from 0 to 1 (Lin et al. 2023)")
    group.add_argument(
        "--guidance-interval",
        metavar=("LOW", "HIGH"),
        nargs=2,
        type=float,
        help="shares of noise, 1 - alpha-bar, between which guidance works (Kynkaanniemi et al. 2024)",
    )
    group.add_argument("--initial-noise-scale", metavar="SIGMA", type=float, help="sigma_init, of the first latents")
    group.add_argument(
        "--epsilon-scaling",
        metavar="LAMBDA",
        type=_number_or_off,
        help="lambda, which divides the noise estimate (Ning et al. 2024); or off",
    )
    group.add_argument("--eta", metavar="ETA", type=float, help="eta of DDIM: 0 deterministic, 1 ancestral")
    group.add_argument("--clip-noise", metavar="X", type=_number_or_off, help="clamp latents to [-X, X]; or off")
    group.add_argument("--clip-clean", metavar="X", type=_number_or_off, help="clamp predictions to [-X, X]; or off")
    group.add_argument(
        "--dynamic-thresholding-ratio",
        metavar="P",
        type=_number_or_off,
        help="quantile p at which predictions are clamped (Saharia et al. 2022); or off",
    )
    group.add_argument("--temperature", metavar="T", type=float, help="noise added by a base model (default: 0)")
    group.add_argument("--seed", metavar="N", type=int, help="of the noise (default: 0)")


def sampler_section(args: Namespace) -> ComponentSection | None:
    """``None`` where nothing is said of the sampler."""
    from lexalcm.recipes.config import ComponentSection
    from lexalcm.recipes.generator import DEFAULT_SAMPLER

    config = {field: _plain(getattr(args, name)) for name, field in _SAMPLER_FIELDS.items() if _is_given(args, name)}
    if not config and args.sampler is None:
        return None
    return ComponentSection(name=args.sampler or DEFAULT_SAMPLER, config=config)


def generation_config(args: Namespace) -> GenerationConfig:
    from lexalcm.generation.config import GenerationConfig

    given = {name: _plain(getattr(args, name)) for name in _GENERATION_FIELDS if _is_given(args, name)}
    return GenerationConfig(**given)


def text_config(args: Namespace) -> TextConfig:
    from lexalcm.generation.text_parts import TextConfig

    given = {name: getattr(args, name) for name in _TEXT_FIELDS if _is_given(args, name)}
    return TextConfig(
        **given,
        target_langs=tuple(dict.fromkeys(args.target_lang or ())),
        decoder_options=parse_pairs(args.decoder_option, "--decoder-option"),
    )


def special_section(args: Namespace) -> SpecialSection:
    from lexalcm.generation.special_section import SpecialSection

    return SpecialSection(
        files=tuple(args.special_concepts),
        start=args.start,
        behind=args.behind,
        behind_text=args.behind_text or None,
        end=args.end,
        end_text=args.end_text or None,
    )


def check_original(args: Namespace) -> None:
    """:raises ConfigError: ``--original`` stands with an option that it has no use for."""
    ignored = [name for name in _NOT_WITH_ORIGINAL if _is_given(args, name)]
    ignored += ["override_trained"] if args.override_trained else []
    ignored += [name for name in ("behind", "behind_text", "end", "end_text") if _is_given(args, name)]
    if args.original and ignored:
        option = f"--{ignored[0].replace('_', '-')}"
        raise ConfigError(f"`--original` is one pass without sampler, loop and stop rules: leave {option} out.")


def parse_pairs(pairs: Sequence[str], option: str) -> dict[str, Any]:
    """Reads ``KEY=VALUE`` texts; values as YAML has them.

    :raises ConfigError: One is something else.
    """
    from lexalcm.yaml_text import parse_yaml

    values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            raise ConfigError(f"`{option}` must be KEY=VALUE, but is {pair!r}.")
        try:
            found = parse_yaml(value)
        except ValueError as ex:
            raise ConfigError(f"`{option}` {key}: {value!r} is not a value: {ex}.") from None
        if not found:
            raise ConfigError(f"`{option}` {key} has no value: {pair!r}.")
        values[key] = found[0]
    return values


def _number_or_off(text: str) -> float | str:
    if text == _OFF:
        return text
    try:
        return float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is neither a number nor {_OFF}") from None


def _is_given(args: Namespace, name: str) -> bool:
    return getattr(args, name) is not None


def _plain(value: Any) -> Any:
    return None if value == _OFF else value
