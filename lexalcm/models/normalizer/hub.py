"""Makes the family known to fairseq2."""

from __future__ import annotations

from fairseq2.composition import register_model_family
from fairseq2.models import ModelHubAccessor
from fairseq2.runtime.dependency import DependencyContainer

from lexalcm.models.normalizer.config import NORMALIZER_FAMILY, NormalizerConfig, register_normalizer_configs
from lexalcm.models.normalizer.factory import create_normalizer
from lexalcm.models.normalizer.interop import convert_normalizer_state_dict
from lexalcm.models.normalizer.model import ConceptNormalizer

get_normalizer_hub = ModelHubAccessor(NORMALIZER_FAMILY, kls=ConceptNormalizer, config_kls=NormalizerConfig)


def register_normalizer_family(container: DependencyContainer) -> None:
    register_model_family(
        container,
        NORMALIZER_FAMILY,
        kls=ConceptNormalizer,
        config_kls=NormalizerConfig,
        factory=create_normalizer,
        state_dict_converter=convert_normalizer_state_dict,
    )
    register_normalizer_configs(container)
