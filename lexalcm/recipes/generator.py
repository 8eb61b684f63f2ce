"""From the name of a model to what continues texts with it: :func:`load_generator`.

Everything that can be checked without weights is checked in :func:`plan_generator`, before any is loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import torch
from fairseq2.assets import AssetCard
from fairseq2.logging import log
from safetensors.torch import load_file
from torch.nn import Module

from lexalcm.checkpoints.load import load_described
from lexalcm.checkpoints.locate import SAFETENSORS_FILE
from lexalcm.checkpoints.published_folder import CONFIG_FILE, is_published_folder, read_published_folder
from lexalcm.checkpoints.special_concepts import special_concepts_of
from lexalcm.device import check_device
from lexalcm.diffusion.samplers import ConfiguredSampler, Sampler, SamplerConfig, create_sampler
from lexalcm.errors import CardError, ConfigError, unknown_name
from lexalcm.generation.config import GenerationConfig
from lexalcm.generation.generator import ConceptGenerator
from lexalcm.generation.original_passes import OriginalPasses
from lexalcm.generation.special_section import SpecialSection
from lexalcm.generation.stop_rules import SpecialVectors
from lexalcm.generation.text_generator import ConceptSource, TextGenerator
from lexalcm.generation.text_parts import TextConfig, load_encoder, load_segmenter, load_sonar_decoder
from lexalcm.memory import check_fits
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.pre1.original import OriginalPre1, create_original
from lexalcm.models.pre1.original_hub import ORIGINAL_FAMILY
from lexalcm.recipes.components import SAMPLERS, choose_component
from lexalcm.recipes.config import ComponentSection, LcmTrainConfig
from lexalcm.recipes.dataset import open_named_dataset
from lexalcm.recipes.host import RecipeHost
from lexalcm.recipes.known_sentences import known_sentences
from lexalcm.recipes.train import LcmTrainRecipe
from lexalcm.text.interface import ConceptDecoder
from lexalcm.text.nearest import NearestDecoder

DEFAULT_SAMPLER: Final = "few_step_sampler"
_DEFAULT_LANG: Final[Mapping[str | None, str]] = {None: ""}
DTYPES: Final = ("float32", "bfloat16", "float16")


@dataclass(kw_only=True)
class GeneratorConfig:
    """All that decides what comes out of a model."""

    model: str
    """A card's name, a card file, or a folder."""

    device: str = "cpu"

    dtype: str = "float32"
    """Of the parameters: float32, bfloat16 or float16."""

    sampler: ComponentSection | None = None
    """A card with some fields changed; ``None``: the few-step one."""

    generation: GenerationConfig = field(default_factory=GenerationConfig)

    text: TextConfig = field(default_factory=TextConfig)

    special: SpecialSection = field(default_factory=SpecialSection)

    override_trained: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the model's configuration to change against what it was trained with."""

    original: bool = False
    """Run the published LexaLCM-Pre1 code's own forward."""


@dataclass(frozen=True)
class GeneratorPlan:
    """A configuration that is checked, with nothing loaded yet."""

    config: GeneratorConfig

    device: torch.device

    sampler: Sampler | None = None
    """``None`` for what runs without one."""

    sampler_fields: Mapping[str, Any] | None = None

    has_text: bool = True
    """Whether prompts are to be encoded."""

    @property
    def settings(self) -> dict[str, Any]:
        """What the result depends on, as plain data by section; device and batch change nothing."""
        config = self.config
        generation, text = asdict(config.generation), asdict(config.text)
        del generation["batch_size"], generation["cuda_graphs"]
        return {
            "model": config.model,
            "override_trained": dict(config.override_trained),
            "dtype": config.dtype,
            "original": config.original,
            "sampler": self.sampler_fields,
            "generation": generation,
            "text": text,
            "special": asdict(config.special),
        }

    def load(self) -> TextGenerator:
        """Loads the model and what stands around it.

        :raises LexalcmError: The model cannot be loaded, or does not go with the configuration.
        """
        config, dtype = self.config, getattr(torch, self.config.dtype)
        # The published code ran in half precision by autocast alone.
        model, card = self._load_model(torch.float32 if config.original else dtype)
        if isinstance(model, OriginalPre1) != config.original:
            raise _other_kind(config)
        if not isinstance(model, (TwoTowerModel, OriginalPre1)):
            raise CardError(f"{config.model} is a {type(model).__name__}, not a model that predicts concepts.")
        concept_dim = model.config.concept_dim if isinstance(model, OriginalPre1) else model.concept_dim
        encoder = None
        if self.has_text or config.special.has_text:
            encoder = load_encoder(config.text, self.device, dtype, concept_dim)
        carried = None if card is None else special_concepts_of(card, concept_dim)
        of_model = SpecialVectors()
        if carried is not None:
            of_model = SpecialVectors(carried.start, carried.behind, carried.end, carried.others)
        special = config.special.load(encoder, config.text.lang, concept_dim, of_model=of_model)
        log.info("Generation - {}.", _told(special))
        return TextGenerator(
            self._concept_source(model, special),
            concept_dim=concept_dim,
            segmenter=load_segmenter(config.text, self.device) if self.has_text else None,
            encoder=encoder,
            decoder=_load_decoder(config.text, self.device, dtype, concept_dim),
            lang=config.text.lang,
            target_langs=None if config.text.decoder == "nearest" else config.text.target_langs,
            read_ahead=config.generation.batch_size,
        )

    def _load_model(self, dtype: torch.dtype) -> tuple[Module, AssetCard | None]:
        config, folder = self.config, Path(self.config.model)
        if config.original and is_published_folder(folder):
            # By itself the folder means the family that trains, which computes something else with these weights.
            if all(card.field("model_family").value != ORIGINAL_FAMILY for card in read_published_folder(folder).cards):
                raise _other_kind(config)
            check_fits((folder / SAFETENSORS_FILE).stat().st_size, self.device, what=f"The model of {folder}")
            published = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
            return create_original(load_file(folder / SAFETENSORS_FILE), published).to(self.device), None
        loaded = load_described(config.model, device=self.device, dtype=dtype, overrides=config.override_trained)
        return loaded.model, loaded.described.card

    def _concept_source(self, model: TwoTowerModel | OriginalPre1, special: SpecialVectors) -> ConceptSource:
        config = self.config
        if isinstance(model, OriginalPre1):
            dtype = getattr(torch, config.dtype)
            return OriginalPasses(model, seed=config.generation.seed, start=special.start, dtype=dtype)
        if model.predicts_directly and config.sampler is not None:
            raise ConfigError(
                f"{config.model} is a base model, which predicts in one pass: leave the sampler and its options out."
            )
        assert self.sampler is not None
        return ConceptGenerator(model, self._suited(model), config.generation, special=special)

    def _suited(self, model: TwoTowerModel) -> Sampler:
        """The sampler; without guidance where nobody chose one and the model does not know what it would need.

        :raises ConfigError: Guidance was asked for, of a model without training for it.
        """
        sampler = self.sampler
        if model.trained_with_guidance is not False or not isinstance(sampler, ConfiguredSampler):
            return sampler
        if sampler.config.guidance_scale == 1.0 or model.predicts_directly:
            return sampler
        if self.config.sampler is not None:
            raise ConfigError(
                f"{self.config.model} was not trained without context, so that there is nothing to guide away from, but "
                f"`sampler.guidance_scale` is {sampler.config.guidance_scale:g}.\nSet it to 1 (--guidance-scale 1)."
            )
        log.warning("{} was not trained for guidance: it is switched off.", self.config.model)
        return create_sampler(replace(sampler.config, guidance_scale=1.0, guidance_rescale=0.0))


def load_generator(
    source: str | Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
    sampler: str | SamplerConfig | ComponentSection | None = None,
    generation: GenerationConfig | None = None,
    text: TextConfig | None = None,
    special: SpecialSection | None = None,
    override_trained: Mapping[str, Any] | None = None,
    original: bool = False,
) -> TextGenerator:
    """Loads a model with what turns text into concepts and back, ready to continue texts.

    >>> from lexalcm import load_generator
    >>> generator = load_generator("my_model", sampler="pre1_sampler")  # doctest: +SKIP
    >>> for sentence in generator.stream("It rained all night. The river rose."):  # doctest: +SKIP
    ...     print(sentence)

    :param source: A card's name, a card file, or the folder of a run or export.
    :param sampler: A card's name, fields, or a card with some fields changed; by default ``few_step_sampler``.
    :param original: Run the own forward of a published LexaLCM-Pre1 checkpoint: one pass, no sampler, no loop.
    :raises LexalcmError: Something that the caller can mend.
    """
    if isinstance(sampler, SamplerConfig):
        sampler = ComponentSection(config=asdict(sampler))
    elif isinstance(sampler, str):
        sampler = ComponentSection(name=sampler)
    config = GeneratorConfig(
        model=str(source),
        device=device,
        dtype=str(dtype).removeprefix("torch."),
        sampler=sampler,
        generation=generation or GenerationConfig(),
        text=text or TextConfig(),
        special=special or SpecialSection(),
        override_trained=override_trained or {},
        original=original,
    )
    return plan_generator(config).load()


def plan_generator(
    config: GeneratorConfig,
    *,
    has_text: bool = True,
    encoded_langs: Mapping[str | None, str] = _DEFAULT_LANG,
    prompt_langs: Mapping[str | None, str] = _DEFAULT_LANG,
) -> GeneratorPlan:
    """Checks a configuration; no weights are loaded.

    :param has_text: Whether prompts are to be encoded; without, neither segmenter nor encoder is loaded.
    :param encoded_langs: Languages of the prompts that are, ``None`` being the default one, each with its place.
    :param prompt_langs: Languages of all prompts.
    :raises ConfigError: A field cannot be honoured.
    :raises CardError: The sampler's card is not one.
    """
    if config.dtype not in DTYPES:
        raise ConfigError(f"`dtype`: {unknown_name('type', config.dtype, DTYPES)}")
    device = check_device(config.device)
    config.generation.check()
    config.text.check()
    config.special.check()
    encoded = {**(encoded_langs if has_text else {}), **(_DEFAULT_LANG if config.special.has_text else {})}
    config.text.check_languages(encoded=encoded, prompts=prompt_langs)
    if config.original:
        _check_original(config)
        return GeneratorPlan(config, device, has_text=has_text)
    if config.text.corpus is not None:
        open_named_dataset(config.text.corpus)  # refused now, not after the model is loaded
    host = RecipeHost(LcmTrainRecipe())
    host.asset_store(LcmTrainConfig())
    section = config.sampler or ComponentSection(name=DEFAULT_SAMPLER)
    chosen = choose_component(host.resolver, section, SAMPLERS, where="sampler")
    return GeneratorPlan(config, device, chosen.create(), host.unstructure(chosen.config), has_text=has_text)


def _check_original(config: GeneratorConfig) -> None:
    """:raises ConfigError: Something is set that one pass without sampler, loop and stop rules has no use for."""
    used = ("seed", "batch_size", "cuda_graphs")
    usual = GenerationConfig(**{name: getattr(config.generation, name) for name in used})
    ignored = {
        "sampler": config.sampler is not None,
        "override_trained": bool(config.override_trained),
        "generation": config.generation != usual,
        "special": bool(config.special.behind or config.special.end or config.special.has_text),
    }
    for name, is_set in ignored.items():
        if is_set:
            raise ConfigError(f"`original` is one pass without sampler, loop and stop rules: leave `{name}` as it is.")


def _other_kind(config: GeneratorConfig) -> ConfigError:
    if config.original:
        return ConfigError(
            f"`--original` runs the published LexaLCM-Pre1 code's own forward, but {config.model} is not such a "
            f"checkpoint (family lexalcm_original).\nLeave --original out."
        )
    return ConfigError(
        f"{config.model} holds what the published LexaLCM-Pre1 code computed: one pass, which cannot be sampled.\n"
        f"Run that with --original, or train the weights further."
    )


def _told(special: SpecialVectors) -> str:
    """What there is of special concepts, in words."""
    start = "a start concept stands before every prompt" if special.start is not None else "no start concept"
    behind = "one stands behind it, " if special.behind is not None else ""
    end = "an end concept ends a text" if special.end is not None else "no end concept"
    return f"{start}, {behind}{end}"


def _load_decoder(
    text: TextConfig, device: torch.device, dtype: torch.dtype, concept_dim: int
) -> ConceptDecoder | None:
    if text.decoder == "none":
        return None
    if text.decoder == "sonar":
        return load_sonar_decoder(text, device, dtype)
    assert text.corpus is not None
    return NearestDecoder(known_sentences(text.corpus, text.corpus_sentences, concept_dim), corpus=text.corpus)
