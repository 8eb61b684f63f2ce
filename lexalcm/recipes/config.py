"""The configuration of a training run: fairseq2's sections, and those an LCM adds."""

from __future__ import annotations

from dataclasses import dataclass, field

from fairseq2.recipe.config import (
    CommonSection,
    DatasetSection,
    GangSection,
    LRSchedulerSection,
    MixedPrecisionConfig,
    ModelSection,
    OptimizerSection,
    RegimeSection,
    TrainerSection,
)

from lexalcm.data.sources import CONCEPT_PARQUET, ReadingConfig, SourceConfig
from lexalcm.models.pre1.config import PRE1_FAMILY
from lexalcm.training.lr_schedule import WARMUP_SHARE_LR, WarmupShareConfig
from lexalcm.training.optimizers import LCM_ADAMW, LcmAdamWConfig


@dataclass(kw_only=True)
class ConceptDatasetSection(DatasetSection):
    """Which data to train and validate on, and how to batch it. One of ``path``, ``sources`` and ``name`` is needed."""

    family: str | None = CONCEPT_PARQUET
    """The dataset family; only needed to name another package's."""

    path: str | None = None
    """A parquet file or directory, local or an fsspec URL: the short form for one source."""

    sources: list[SourceConfig] = field(default_factory=list)
    """Several sources, with weights if they are to be mixed."""

    train_split: str | None = "train"
    """The split to train on; ``null`` takes the whole dataset."""

    valid_split: str | None = "validation"
    """The split to validate on; ``null`` switches validation off."""

    hold_out_every: int | None = None
    """Validate on every n-th row of the training split's files instead of ``valid_split``, and do not train on them."""

    reading: ReadingConfig = field(default_factory=ReadingConfig)
    """How documents become batches."""


@dataclass(kw_only=True)
class NormalizerSection:
    """Where the statistics that concepts are normalised with come from. Ignored when a trained model is loaded: its
    checkpoint holds them."""

    path: str | None = None
    """A file written by ``fairseq2 lcm fit-normalizer``."""

    name: str | None = None
    """The card of a normalizer."""

    fit: str | None = None
    """Fit to the training split when the run begins, and keep the result in its folder: ``robust``, ``standard`` or another
    method of ``fairseq2 lcm fit-normalizer``."""

    max_concepts: int | None = 1_000_000
    """How many concepts ``fit`` reads; ``null`` reads all."""

    identity: bool = False
    """Do not normalise: the embeddings have zero mean and unit variance already."""


@dataclass(kw_only=True)
class ComponentSection:
    """A component described by a card, by fields written here, or by a card with some fields changed."""

    name: str | None = None
    """The component's card."""

    family: str | None = None
    """The component's family where no card names one; only needed to name another package's."""

    config: dict[str, object] = field(default_factory=dict)
    """Fields of the component's configuration; they win over the card's."""


@dataclass(kw_only=True)
class LcmTrainerSection(TrainerSection):
    """fairseq2's section, and what it lacks."""

    max_nonfinite_steps: int = 10
    """How many steps in a row may have a loss or gradient that is NaN or infinite before the run ends. None of them is
    taken."""


@dataclass(kw_only=True)
class EmaSection:
    """An exponential moving average of the weights, used for validation and saved as the run's model."""

    decay: float | None = None
    """How much of the average is kept at each step, say 0.999; ``null`` switches it off."""


@dataclass(kw_only=True)
class ValidationSection:
    """What validation measures beside the loss. When it runs is set in ``regime``."""

    max_documents: int | None = 1024
    """How many documents of the split are used, from its start; ``null`` uses all."""

    num_samples: int = 2
    """Samples a position for the energy score; 0 leaves it out."""

    sampler: ComponentSection = field(default_factory=lambda: ComponentSection(name="pre1_sampler"))
    """How those samples are drawn."""


@dataclass(kw_only=True)
class LcmTrainConfig:
    """The configuration of ``fairseq2 lcm train``."""

    model: ModelSection = field(default_factory=lambda: ModelSection(family=PRE1_FAMILY, arch="pre1_400m"))

    normalizer: NormalizerSection = field(default_factory=NormalizerSection)

    dataset: ConceptDatasetSection = field(default_factory=ConceptDatasetSection)

    objective: ComponentSection = field(default_factory=lambda: ComponentSection(name="pre1_objective"))

    gang: GangSection = field(default_factory=GangSection)

    trainer: LcmTrainerSection = field(
        default_factory=lambda: LcmTrainerSection(mixed_precision=MixedPrecisionConfig(mode="auto"), max_grad_norm=1.0)
    )

    ema: EmaSection = field(default_factory=EmaSection)

    optimizer: OptimizerSection = field(
        default_factory=lambda: OptimizerSection(name=LCM_ADAMW, config=LcmAdamWConfig())
    )

    lr_scheduler: LRSchedulerSection = field(
        default_factory=lambda: LRSchedulerSection(name=WARMUP_SHARE_LR, config=WarmupShareConfig())
    )

    regime: RegimeSection = field(
        default_factory=lambda: RegimeSection(
            num_steps=250_000,
            validate_every_n_steps=5_000,
            checkpoint_every_n_steps=5_000,
            keep_last_n_checkpoints=2,
            publish_metrics_every_n_steps=50,
        )
    )

    validation: ValidationSection = field(default_factory=ValidationSection)

    common: CommonSection = field(default_factory=lambda: CommonSection(no_sweep_dir=True))
