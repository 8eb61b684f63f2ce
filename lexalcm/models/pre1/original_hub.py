"""Makes what the published LexaLCM-Pre1 code computed known to fairseq2, as a family that loads and does not train."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

from fairseq2.composition import register_model_family
from fairseq2.models import ModelHubAccessor
from fairseq2.runtime.config_registry import ConfigRegistrar
from fairseq2.runtime.dependency import DependencyContainer

from lexalcm.errors import CheckpointError
from lexalcm.models.pre1.interop import is_published, split_off_schedule
from lexalcm.models.pre1.original import OriginalPre1
from lexalcm.models.pre1.original_config import REVISIONS, OriginalConfig, original_config, revision_of
from lexalcm.models.unwrap import unwrap_state_dict

ORIGINAL_FAMILY: Final = "lexalcm_original"


@dataclass(kw_only=True)
class OriginalFamilyConfig:
    """Sizes as published, under the names of :class:`lexalcm.models.pre1.original_config.OriginalConfig`, and a
    revision."""

    concept_dim: int = 1024

    model_dim: int = 1536

    latent_dim: int = 1024

    num_context_layers: int = 3

    num_denoiser_layers: int = 4

    num_heads: int = 16

    ffn_dim: int = 6144

    timestep_dim: int = 256

    num_train_steps: int = 80

    num_inference_steps: int = 40

    guidance_scale: float = 0.0

    revision: str = "final"
    """A name in :data:`lexalcm.models.pre1.original_config.REVISIONS`; the archs have these names too."""

    def sizes(self) -> OriginalConfig:
        fields = asdict(self)
        del fields["revision"]
        return OriginalConfig(**fields)


def original_fields(published: Mapping[str, object], revision: str) -> dict[str, Any]:
    """The family's configuration for a published ``config.json``, as plain data.

    :raises CheckpointError: A field is missing, unknown or impossible.
    """
    return {**asdict(original_config(published)), "revision": revision}


def create_original_model(config: OriginalFamilyConfig) -> OriginalPre1:
    """:raises ConfigError: There is no such revision."""
    return OriginalPre1(config.sizes(), config.revision)


def convert_original_state_dict(state_dict: dict[str, object], config: OriginalFamilyConfig) -> dict[str, object]:
    """What fairseq2's loader calls on every checkpoint: wrappers and the noise schedule, which is checked, are removed.

    :raises CheckpointError: The tensors are another model's, or another revision's.
    """
    state = unwrap_state_dict(state_dict)
    if not is_published(state):
        raise CheckpointError(f"The family {ORIGINAL_FAMILY} loads published names only: DenoiserTower. and others.")
    found = revision_of(state)
    if REVISIONS[found].denoiser_norms != REVISIONS[config.revision].denoiser_norms:
        raise CheckpointError(
            f"The checkpoint is of the revision {found}, but the configuration says `revision: {config.revision}`."
        )
    return dict(split_off_schedule(state, num_steps=config.sizes().num_schedule_steps))


def register_original_family(container: DependencyContainer) -> None:
    register_model_family(
        container,
        ORIGINAL_FAMILY,
        kls=OriginalPre1,
        config_kls=OriginalFamilyConfig,
        factory=create_original_model,
        state_dict_converter=convert_original_state_dict,
    )
    arch = ConfigRegistrar(container, OriginalFamilyConfig)
    for revision in REVISIONS:
        arch(revision)(partial(OriginalFamilyConfig, revision=revision))


get_original_model_hub = ModelHubAccessor(ORIGINAL_FAMILY, kls=OriginalPre1, config_kls=OriginalFamilyConfig)
