"""Makes the family known to fairseq2: ``get_pre1_model_hub().load_model("card")``."""

from __future__ import annotations

from fairseq2.composition import register_model_family
from fairseq2.models import ModelHubAccessor
from fairseq2.runtime.dependency import DependencyContainer

from lexalcm.models.parallel import apply_ac_to_two_towers, apply_fsdp_to_two_towers, compile_two_towers
from lexalcm.models.pre1.config import PRE1_FAMILY, Pre1Config, register_pre1_configs
from lexalcm.models.pre1.factory import create_pre1_model
from lexalcm.models.pre1.interop import convert_pre1_state_dict
from lexalcm.models.pre1.model import Pre1Model

get_pre1_model_hub = ModelHubAccessor(PRE1_FAMILY, kls=Pre1Model, config_kls=Pre1Config)


def register_pre1_family(container: DependencyContainer) -> None:
    register_model_family(
        container,
        PRE1_FAMILY,
        kls=Pre1Model,
        config_kls=Pre1Config,
        factory=create_pre1_model,
        state_dict_converter=convert_pre1_state_dict,
        compiler=compile_two_towers,
        fsdp_applier=apply_fsdp_to_two_towers,
        layerwise_ac_applier=apply_ac_to_two_towers,
    )
    register_pre1_configs(container)
