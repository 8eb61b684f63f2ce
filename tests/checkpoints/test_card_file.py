"""Cards of a file, and the cards they build on, are found without any asset store having to know them."""

from __future__ import annotations

from pathlib import Path

import pytest
from fairseq2.runtime.dependency import get_dependency_resolver

from lexalcm.checkpoints.card_file import card_beside, cards_in_file
from lexalcm.checkpoints.described import describe_model
from lexalcm.errors import CardError


def config_of(file: Path) -> object:
    return describe_model(cards_in_file(file)[0], get_dependency_resolver()).config


def test_bases_are_found_in_the_file_then_beside_it_then_in_the_store(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "name: a\nbase: b\nmodel_config: {num_heads: 2}\n---\n"
        "name: b\nbase: c\nmodel_config: {num_heads: 1, ffn_dim: 64}\n"
    )
    # The file's own comes first, though another lies beside it.
    (tmp_path / "aa.yaml").write_text("name: b\nmodel_family: nobodys\n")
    (tmp_path / "c.yml").write_text("name: c\nbase: pre1_tiny\nmodel_config: {ffn_dim: 32, timestep_dim: 16}\n")
    (tmp_path / "other.yaml").write_text("- not a card\n")
    config = config_of(tmp_path / "a.yaml")
    assert (config.num_heads, config.ffn_dim, config.timestep_dim) == (2, 64, 16)  # type: ignore[attr-defined]
    assert (config.model_dim, config.num_context_layers) == (128, 2)  # type: ignore[attr-defined]


def test_parts_of_a_nested_configuration_are_merged_base_first(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "name: a\nbase: b\nmodel_config: {denoiser: {num_layers: 3}}\n---\nname: b\n"
        "model_family: two_tower_diffusion_lcm\nmodel_arch: toy_two_tower_diffusion_lcm\n"
        "model_config: {denoiser: {num_layers: 4, dropout_p: 0.2}, max_seq_len: 64}\n"
    )
    config = config_of(tmp_path / "a.yaml")
    assert (config.denoiser.num_layers, config.denoiser.dropout_p) == (3, 0.2)  # type: ignore[attr-defined]
    assert (config.max_seq_len, config.denoiser.num_attn_heads) == (64, 8)  # type: ignore[attr-defined]


def test_what_a_trainer_notes_for_itself_gives_way_to_where_the_card_is(tmp_path: Path) -> None:
    file = tmp_path / "model_card.yaml"
    file.write_text("__source__: inproc\n__base_path__: /elsewhere\nname: x@user\n")
    (card,) = cards_in_file(file)
    assert card.name == "x"
    assert card.metadata["__source__"] == f"path:{file}" and card.metadata["__base_path__"] == tmp_path.resolve()


def test_a_card_beside_is_found_by_name_among_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: [")
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe")
    (tmp_path / "c.yaml").write_text("name: one\n---\nname: two\nmodel_arch: base\n")
    card = card_beside(tmp_path, "two")
    assert card is not None and card.metadata["model_arch"] == "base"
    assert card_beside(tmp_path, "three") is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is empty"),
        ("name: [", "not valid YAML"),
        ("- a", "card 1 must be a mapping with a `name`, but is list"),
        ("name: a\n---\nmodel_arch: b", "card 2 must be a mapping with a `name`, but is dict without one"),
        ("name: 3", "but is dict without one"),
        ("name: ' '", "but is dict without one"),
        ("name: a\nbase: a", "in a circle: a -> a"),
        ("name: a\nbase: b\n---\nname: b\nbase: a", "in a circle: a -> b -> a"),
        ("name: a\nbase: pre1_tinny", '`base` of card a: "pre1_tinny" .* Did you mean "pre1_tiny"'),
        ("name: a\nmodel_config: {list: ['${env:HOME}']}", "would substitute something of this machine"),
        ("name: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_card_names_itself(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "card.yaml").write_text(text)
    with pytest.raises(CardError, match=f"card.yaml.*{told}"):
        cards_in_file(tmp_path / "card.yaml")
