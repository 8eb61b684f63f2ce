"""From a model's name to its continuations, in Python."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import lexalcm
from lexalcm.data.special_concepts import write_special_concepts
from lexalcm.data.write import NewDocument, write_documents
from lexalcm.diffusion.samplers import SamplerConfig
from lexalcm.errors import CardError, ConfigError, DataError
from lexalcm.generation.config import GenerationConfig
from lexalcm.generation.generator import ConceptGenerator
from lexalcm.generation.special_section import SpecialSection
from lexalcm.generation.stop_rules import SpecialVectors
from lexalcm.generation.text_parts import TextConfig
from lexalcm.models.base_lcm.config import BaseConfig
from lexalcm.models.base_lcm.factory import create_base_model
from lexalcm.models.layers.transformer_config import TransformerConfig
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.two_tower.config import DenoiserConfig, NoiseSchedulerConfig, TwoTowerConfig
from lexalcm.models.two_tower.factory import create_two_tower_model
from lexalcm.recipes.config import ComponentSection
from lexalcm.recipes.generator import GeneratorConfig, load_generator, plan_generator
from lexalcm.recipes.known_sentences import known_sentences
from lexalcm.text.stand_in_encoder import StandInEncoder
from tests.checkpoints.tiny_models import shake

DIM = 8
SENTENCES = ["It rains.", "It pours.", "The river rises.", "A boat floats by."]
TOWER = {"num_layers": 1, "num_attn_heads": 2, "ffn_inner_dim": 12, "dropout_p": 0.0, "final_dropout_p": 0.0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for split, sentences in (("train", SENTENCES), ("validation", ["Held out.", "Held out too."])):
        document = NewDocument(sentences, StandInEncoder(DIM).encode(sentences))
        write_documents(folder / f"split={split}" / "a.parquet", [document], dtype="float32")
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model's card."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    sizes = {"sonar_embed_dim": DIM, "max_seq_len": 12, "model_dim": 8}
    model = create_base_model(BaseConfig(**sizes, lcm=TransformerConfig(**TOWER)))
    shake(model)
    save_file(model.state_dict(), folder / "model.safetensors")
    config = {**sizes, "lcm": TOWER}
    card = {"name": "base", "model_family": "base_lcm", "model_config": config, "checkpoint": "model.safetensors"}
    (folder / "card.yaml").write_text(yaml.safe_dump(card))
    return folder / "card.yaml"


def text(corpus: Path) -> TextConfig:
    return TextConfig(segmenter="punctuation", encoder="stand_in", decoder="nearest", corpus=str(corpus))


def test_a_models_name_is_all_it_takes_to_stream(base: Path, corpus: Path) -> None:
    generation = GenerationConfig(max_sentences=3, repetition_threshold=None)
    generator = lexalcm.load_generator(base, text=text(corpus), generation=generation)
    made = list(generator.stream("It rains. It pours."))
    assert len(made) == 3 and set(made) <= set(SENTENCES)
    assert generator.continue_text("It rains. It pours.").texts["text"][0].text == made[0]


def test_a_base_model_takes_no_sampler_and_others_no_temperature(base: Path, corpus: Path) -> None:
    warm = load_generator(base, text=text(corpus), generation=GenerationConfig(temperature=0.5, max_sentences=2))
    assert isinstance(warm.concepts, ConceptGenerator) and warm.concepts.num_passes == 1
    with pytest.raises(ConfigError, match="base model, which predicts in one pass"):
        load_generator(base, text=text(corpus), sampler=SamplerConfig(num_steps=2))


def test_guidance_is_not_given_to_a_model_without_training_for_it(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    log = SimpleNamespace(warning=lambda message, *_: warned.append(message), info=lambda *_: None)
    monkeypatch.setattr("lexalcm.recipes.generator.log", log)
    sizes = {"sonar_embed_dim": DIM, "max_seq_len": 12, "model_dim": 8, "sonar_normalizer_name": None}
    config = {**sizes, "context_encoder": TOWER, "denoiser": {**TOWER, "timestep_embed_dim": 8}}
    config |= {"noise_scheduler": {"num_diffusion_train_steps": 20}, "normalizer": {"dim": DIM}}
    card = {"name": "tt", "model_family": "two_tower_diffusion_lcm", "checkpoint": "model.safetensors"}
    parts = {"context_encoder": TransformerConfig(**TOWER), "denoiser": DenoiserConfig(**TOWER, timestep_embed_dim=8)}
    schedule = NoiseSchedulerConfig(num_diffusion_train_steps=20)
    made = TwoTowerConfig(**sizes, **parts, noise_scheduler=schedule)
    made.normalizer = NormalizerConfig(dim=DIM)
    model = create_two_tower_model(made)
    shake(model)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    for trained in (False, True):
        card["model_config"] = {**config, "trained_with_cf_guidance": trained}  # type: ignore[assignment]
        (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
        warned.clear()
        generator = load_generator(tmp_path / "card.yaml", text=text(corpus)).concepts
        assert isinstance(generator, ConceptGenerator)
        assert generator.sampler.config.guidance_scale == (3.0 if trained else 1.0)  # type: ignore[attr-defined]
        assert any("not trained for guidance: it is switched off" in message for message in warned) == (not trained)
    card["model_config"] = {**config, "trained_with_cf_guidance": False}  # type: ignore[assignment]
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(ConfigError, match=r"`sampler.guidance_scale` is 2.\n"):
        load_generator(
            tmp_path / "card.yaml", text=text(corpus), sampler=SamplerConfig(num_steps=2, guidance_scale=2.0)
        )


def test_the_start_concept_and_the_end_come_from_files_or_a_text(base: Path, corpus: Path, tmp_path: Path) -> None:
    vectors = {name: torch.randn(DIM) for name in ("start", "end", "pad")}
    save_file(vectors, tmp_path / "special.safetensors")
    save_file({"embedding": torch.randn(1, DIM)}, tmp_path / "Other.safetensors")
    files = (str(tmp_path / "special.safetensors"), str(tmp_path / "Other.safetensors"))
    section = SpecialSection(files=files, start="start", end="end")
    loaded = load_generator(base, text=text(corpus), special=section)
    assert isinstance(loaded.concepts, ConceptGenerator)
    special = loaded.concepts.special
    assert torch.equal(special.start, vectors["start"]) and torch.equal(special.end, vectors["end"])
    assert special.others.shape == (2, DIM), "pad and Other are rivals of the end"
    with pytest.raises(DataError, match='"ned" is not a known special concept.*"end"'):
        load_generator(base, text=text(corpus), special=SpecialSection(files=files, end="ned"))
    by_text = SpecialSection(end_text="It rains.").load(StandInEncoder(DIM), "eng_Latn", DIM)
    assert np.array_equal(by_text.end.numpy(), StandInEncoder(DIM).encode(["It rains."])[0])
    for wrong in ({"end": "x"}, {"files": files}, {"files": files, "end": "end", "end_text": "It rains."}):
        with pytest.raises(ConfigError):
            SpecialSection(**wrong).check()


def test_the_end_in_another_language_is_no_rival_of_the_end(tmp_path: Path) -> None:
    names = ("start_of_text", "end_of_text", "end_of_text.jpn_Jpan", "pad")
    vectors = {name: np.random.default_rng(i).normal(size=DIM).astype(np.float32) for i, name in enumerate(names)}
    facts = {name: {"role": name.split(".")[0], "lang": "", "sentence": "", "encoder": ""} for name in names}
    write_special_concepts(tmp_path / "special.safetensors", vectors, facts, encoder={})
    section = SpecialSection(files=(str(tmp_path / "special.safetensors"),), start="start_of_text", end="end_of_text")
    special = section.load(None, "eng_Latn", DIM)
    assert np.array_equal(special.others.numpy(), vectors["pad"][None])


def test_special_concepts_of_the_card_hold_where_nothing_else_is_said(base: Path, corpus: Path, tmp_path: Path) -> None:
    vectors = {name: torch.randn(DIM) for name in ("start", "end", "pad")}
    save_file(vectors, tmp_path / "special.safetensors")
    fields = {"file": "special.safetensors", "prefix": "start", "suffix": "end"}
    card = {**yaml.safe_load(base.read_text()), "special_concepts": fields}
    card["checkpoint"] = str(base.parent / card["checkpoint"])
    (tmp_path / "card.yaml").write_text(yaml.safe_dump(card))

    def special(section: SpecialSection) -> SpecialVectors:
        loaded = load_generator(tmp_path / "card.yaml", text=text(corpus), special=section)
        assert isinstance(loaded.concepts, ConceptGenerator)
        return loaded.concepts.special

    of_card = special(SpecialSection())
    assert torch.equal(of_card.start, vectors["start"]) and torch.equal(of_card.end, vectors["end"])
    assert torch.equal(of_card.others, vectors["pad"][None])
    other_end = special(SpecialSection(end_text="It rains."))
    assert torch.equal(other_end.start, vectors["start"]) and not torch.equal(other_end.end, vectors["end"])


def test_the_known_sentences_are_those_of_the_training_split(corpus: Path) -> None:
    known = known_sentences(str(corpus), 100, DIM)
    assert known.find(StandInEncoder(DIM).encode(["Held out."]))[0][0] in SENTENCES and len(known) == 4
    assert len(known_sentences(str(corpus), 3, DIM)) == 3
    with pytest.raises(DataError, match="8 dimensions, but the model's have 5"):
        known_sentences(str(corpus), 3, 5)


def test_settings_hold_what_changes_the_result_alone(base: Path, corpus: Path) -> None:
    def settings(**fields: object) -> dict:
        section = ComponentSection(name="plain_sampler", config={"num_steps": 3})
        return plan_generator(GeneratorConfig(model=str(base), text=text(corpus), sampler=section, **fields)).settings

    assert settings() == settings(generation=GenerationConfig(batch_size=3))
    assert settings() != settings(generation=GenerationConfig(seed=1))
    assert settings()["sampler"]["num_steps"] == 3 and settings()["model"] == str(base)


def test_other_models_are_refused(tmp_path: Path, corpus: Path) -> None:
    save_file({"center": torch.zeros(DIM), "scale": torch.ones(DIM)}, tmp_path / "n.safetensors")
    card = {
        "name": "n",
        "model_family": "sonar_normalizer",
        "model_config": {"dim": DIM},
        "checkpoint": "n.safetensors",
    }
    (tmp_path / "n.yaml").write_text(yaml.safe_dump(card))
    with pytest.raises(CardError, match="not a model that predicts concepts"):
        load_generator(tmp_path / "n.yaml", text=text(corpus))


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"segmenter": "stat"}, 'Did you mean "sat"'),
        ({"segmenter": "punctuation", "segmenter_path": "."}, "for the segmenter sat"),
        ({"segmenter_path": "/nowhere"}, "must be a folder"),
        ({"decoder": "nearest"}, "needs `corpus`"),
        ({"corpus": "x"}, "needs `corpus`"),
        ({"decoder": "none", "target_langs": ("eng_Latn",)}, "a decoder that writes"),
        ({"decoder": "none", "decoder_options": {"beam_size": 2}}, "for SONAR, not for none"),
        ({"encoder": "stand_in", "encoder_card": "x"}, "for SONAR, not for stand_in"),
        ({"decoder": "nearest", "corpus": "x", "corpus_sentences": 0}, "at least 1"),
        ({"corpus_sentences": 7}, "for the decoder nearest"),
        ({"segmenter": "newline", "newlines": "ignore"}, "for the other segmenters"),
        ({"segmenter": "punctuation", "segmenter_threshold": 0.3}, "for SaT, not for punctuation"),
        ({"segmenter_threshold": 5.0}, "between 0 and 1"),
        ({"segment_length": 0}, "at least 1"),
        ({"newlines": "lines"}, 'Did you mean "line"'),
        ({"encoder": "stand_in", "decoder": "none", "tokenizer_card": "x"}, "neither encodes nor decodes"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(fields: dict, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        TextConfig(**fields).check()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"override_trained": {"ffn_dim": 3}}, "override_trained"),
        ({"sampler": ComponentSection(name="plain_sampler")}, "sampler"),
        ({"generation": GenerationConfig(max_sentences=3)}, "generation"),
        ({"special": SpecialSection(end_text="End.")}, "special"),
    ],
)
def test_the_original_forward_refuses_what_it_has_no_use_for(fields: dict, told: str) -> None:
    plan_generator(GeneratorConfig(model="x", original=True, generation=GenerationConfig(seed=3)), has_text=False)
    with pytest.raises(ConfigError, match=f"leave `{told}` as it is"):
        plan_generator(GeneratorConfig(model="x", original=True, **fields), has_text=False)
