"""Makes the family known to fairseq2: ``get_two_tower_model_hub().load_model("card")``."""

from __future__ import annotations

from fairseq2.composition import register_model_family
from fairseq2.models import ModelHubAccessor
from fairseq2.runtime.dependency import DependencyContainer, DependencyResolver

from lexalcm.models.normalizer.lookup import with_normalizer_of_card
from lexalcm.models.parallel import apply_ac_to_two_towers, apply_fsdp_to_two_towers, compile_two_towers
from lexalcm.models.two_tower.config import TWO_TOWER_FAMILY, TwoTowerConfig, register_two_tower_configs
from lexalcm.models.two_tower.factory import create_two_tower_model
from lexalcm.models.two_tower.interop import convert_two_tower_state_dict
from lexalcm.models.two_tower.model import TwoTowerDiffusionLCM

get_two_tower_model_hub = ModelHubAccessor(TWO_TOWER_FAMILY, kls=TwoTowerDiffusionLCM, config_kls=TwoTowerConfig)


def create_with_normalizer(resolver: DependencyResolver, config: TwoTowerConfig) -> TwoTowerDiffusionLCM:
    """Builds a model whose normalizer is as its card says.

    :raises CardError: ``sonar_normalizer_name`` names no normalizer's card.
    """
    return create_two_tower_model(with_normalizer_of_card(resolver, config))


def register_two_tower_family(container: DependencyContainer) -> None:
    register_model_family(
        container,
        TWO_TOWER_FAMILY,
        kls=TwoTowerDiffusionLCM,
        config_kls=TwoTowerConfig,
        advanced_factory=create_with_normalizer,
        state_dict_converter=convert_two_tower_state_dict,
        compiler=compile_two_towers,
        fsdp_applier=apply_fsdp_to_two_towers,
        layerwise_ac_applier=apply_ac_to_two_towers,
    )
    register_two_tower_configs(container)
