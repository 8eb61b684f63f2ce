"""Every field of a model's card is honoured or refused by its path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fairseq2.runtime.dependency import get_dependency_resolver

from lexalcm.checkpoints.card_file import cards_in_file
from lexalcm.checkpoints.described import describe_model
from lexalcm.errors import CardError


def describe(tmp_path: Path, *cards: dict[str, Any]) -> Any:
    named = [{"name": f"card{number}", **card} for number, card in enumerate(cards)]
    (tmp_path / "cards.yaml").write_text(yaml.safe_dump_all(named))
    return describe_model(cards_in_file(tmp_path / "cards.yaml")[0], get_dependency_resolver()).config


def test_an_arch_comes_first_and_the_class_defaults_without_one(tmp_path: Path) -> None:
    config = describe(tmp_path, {"model_family": "lexalcm", "model_arch": "pre1_tiny", "model_config": {"ffn_dim": 32}})
    assert (config.model_dim, config.ffn_dim) == (128, 32)
    config = describe(tmp_path, {"model_family": "lexalcm", "model_config": {"ffn_dim": 32}})
    assert (config.model_dim, config.ffn_dim) == (1536, 32)


def test_a_whole_number_is_a_number_and_null_stays_null(tmp_path: Path) -> None:
    fields = {
        "denoiser": {"dropout_p": 0, "scale_residual": 1, "final_norm_order_style": None},
        "normalizer": {"dim": 8},
    }
    config = describe(tmp_path, {"model_family": "two_tower_diffusion_lcm", "model_config": fields})
    assert (config.denoiser.dropout_p, config.denoiser.scale_residual, config.normalizer.dim) == (0.0, 1.0, 8)


META = "two_tower_diffusion_lcm"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"model_dmi": 8}, '`model_config` has no field `model_dmi`. Did you mean "model_dim"'),
        ({"denoiser": {"num_layer": 2}}, '`model_config.denoiser` has no field `num_layer`. Did you mean "num_layers"'),
        ({"denoiser": {"num_layers": 3.9}}, "`model_config.denoiser.num_layers` must be a whole number, but is 3.9"),
        (
            {"denoiser": {"num_layers": "three"}},
            "`model_config.denoiser.num_layers` must be a whole number, but is 'three'",
        ),
        ({"denoiser": 3}, "`model_config.denoiser` must be a mapping of fields, but is 3"),
        ({"max_seq_len": True}, "`model_config.max_seq_len` must be a whole number, but is True"),
        ({"trained_with_cf_guidance": 1}, "`trained_with_cf_guidance`: .*bool"),
        ({"normalizer": {"dim": 3.5}}, "`model_config.normalizer.dim` must be a whole number, but is 3.5"),
        ({"denoiser": {"norm_order_style": "prre"}}, "`denoiser.norm_order_style`: .*prre"),
    ],
)
def test_a_field_that_cannot_be_honoured_is_named_with_its_path(
    tmp_path: Path, fields: dict[str, Any], told: str
) -> None:
    with pytest.raises(CardError, match=rf"Card card0 \(.*cards\.yaml\).*{told}") as caught:
        describe(tmp_path, {"model_family": META, "model_config": fields})
    assert len(str(caught.value).splitlines()) <= 3
    with pytest.raises(CardError, match=told):  # in a base card too
        describe(tmp_path, {"base": "card1"}, {"model_family": META, "model_config": fields})


def test_a_configuration_that_is_no_mapping_and_one_given_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="`model_config` must be a mapping of fields, but is 'big'"):
        describe(tmp_path, {"model_family": META, "model_config": "big"})
    twice = {"model_config": {"max_seq_len": 8}, "model_config_overrides": {"max_seq_len": 9}}
    with pytest.raises(CardError, match="has `model_config_overrides` and `model_config`|has `model_config` and"):
        describe(tmp_path, {"model_family": META, **twice})
