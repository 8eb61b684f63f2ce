"""What fairseq2 calls through the entry-point group ``fairseq2.extension``: registers families, components and cards.

A package of your own does the same with its own entry point; a model family registered there trains with these recipes.
"""

from __future__ import annotations

from fairseq2.composition import register_dataset_family, register_file_assets
from fairseq2.optim.lr_schedulers import LRScheduler
from fairseq2.recipe.component import register_component
from fairseq2.runtime.dependency import DependencyContainer
from torch.optim import Optimizer

from lexalcm.checkpoints.archive_members import refuse_unsafe_members
from lexalcm.checkpoints.asset_folders import register_asset_folders
from lexalcm.data.dataset import ConceptParquetDataset, open_concept_parquet
from lexalcm.data.sources import CONCEPT_PARQUET, ConceptParquetConfig
from lexalcm.diffusion.objective import ObjectiveConfig, TrainingObjective
from lexalcm.diffusion.regression import RegressionConfig
from lexalcm.diffusion.samplers import Sampler, SamplerConfig
from lexalcm.models.base_lcm.hub import register_base_family
from lexalcm.models.normalizer.hub import register_normalizer_family
from lexalcm.models.pre1.hub import register_pre1_family
from lexalcm.models.pre1.original_hub import register_original_family
from lexalcm.models.two_tower.hub import register_two_tower_family
from lexalcm.shipped import shipped_folder
from lexalcm.training.families import (
    LCM_OBJECTIVE,
    LCM_REGRESSION,
    LCM_SAMPLER,
    create_lcm_objective,
    create_lcm_regression,
    create_lcm_sampler,
)
from lexalcm.training.lr_schedule import WARMUP_SHARE_LR, WarmupShareConfig, create_warmup_share_lr
from lexalcm.training.meta_lr_schedule import META_LR, MetaLRConfig, create_meta_lr
from lexalcm.training.metrics import register_metric_descriptors
from lexalcm.training.optimizers import (
    LCM_ADAMW,
    MUON,
    LcmAdamWConfig,
    MuonConfig,
    create_lcm_adamw,
    create_muon,
)


def setup_fairseq2_extension(container: DependencyContainer) -> None:
    """Registers everything that recipes and cards may name."""
    register_pre1_family(container)
    register_original_family(container)
    register_two_tower_family(container)
    register_base_family(container)
    register_normalizer_family(container)
    register_dataset_family(
        container, CONCEPT_PARQUET, ConceptParquetDataset, ConceptParquetConfig, opener=open_concept_parquet
    )
    register_component(container, Optimizer, LCM_ADAMW, LcmAdamWConfig, create_lcm_adamw)
    register_component(container, Optimizer, MUON, MuonConfig, create_muon)
    register_component(container, LRScheduler, WARMUP_SHARE_LR, WarmupShareConfig, create_warmup_share_lr)
    register_component(container, LRScheduler, META_LR, MetaLRConfig, create_meta_lr)
    register_component(container, TrainingObjective, LCM_OBJECTIVE, ObjectiveConfig, create_lcm_objective)
    register_component(container, TrainingObjective, LCM_REGRESSION, RegressionConfig, create_lcm_regression)
    register_component(container, Sampler, LCM_SAMPLER, SamplerConfig, create_lcm_sampler)
    register_metric_descriptors(container)
    register_asset_folders(container)
    refuse_unsafe_members()
    register_file_assets(container, shipped_folder("cards"))
