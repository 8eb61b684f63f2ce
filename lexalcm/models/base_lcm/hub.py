"""Makes the family known to fairseq2: ``get_base_model_hub().load_model("card")``."""

from __future__ import annotations

from fairseq2.composition import register_model_family
from fairseq2.models import ModelHubAccessor
from fairseq2.runtime.dependency import DependencyContainer, DependencyResolver

from lexalcm.models.base_lcm.config import BASE_FAMILY, BaseConfig, register_base_configs
from lexalcm.models.base_lcm.factory import create_base_model
from lexalcm.models.base_lcm.interop import convert_base_state_dict
from lexalcm.models.base_lcm.model import BaseLCM
from lexalcm.models.normalizer.lookup import with_normalizer_of_card
from lexalcm.models.parallel import apply_ac_to_two_towers, apply_fsdp_to_two_towers, compile_two_towers

get_base_model_hub = ModelHubAccessor(BASE_FAMILY, kls=BaseLCM, config_kls=BaseConfig)


def create_with_normalizer(resolver: DependencyResolver, config: BaseConfig) -> BaseLCM:
    """Builds a model whose normalizer is as its card says.

    :raises CardError: ``sonar_normalizer_name`` names no normalizer's card.
    """
    return create_base_model(with_normalizer_of_card(resolver, config))


def register_base_family(container: DependencyContainer) -> None:
    register_model_family(
        container,
        BASE_FAMILY,
        kls=BaseLCM,
        config_kls=BaseConfig,
        advanced_factory=create_with_normalizer,
        state_dict_converter=convert_base_state_dict,
        compiler=compile_two_towers,
        fsdp_applier=apply_fsdp_to_two_towers,
        layerwise_ac_applier=apply_ac_to_two_towers,
    )
    register_base_configs(container)
