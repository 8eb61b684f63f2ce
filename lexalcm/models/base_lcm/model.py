"""Meta's base LCM: one causal transformer that regresses the next concept; module names are those of its checkpoints.

It implements the two-tower interface with a denoiser that has nothing to do: the prediction of a position is made from
the concepts before it, whatever noise and timestep are asked about. So the same trainer, evaluation and generation serve
it, and one pass of any sampler is all of it (specification, section 5).

Shapes: N concepts of a packed batch (``*P``: N, or B, T of a padded one; ``*Q`` those that are predicted), C
sonar_embed_dim, M model_dim, K noise draws.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn import Module

from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.errors import ConfigError
from lexalcm.layout import DocumentLayout
from lexalcm.models.base_lcm.config import BaseConfig
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.layers.document_state import CachedTower, DocumentState, LastVectors
from lexalcm.models.layers.transformer import CausalTransformer, ConceptFrontend, Projection, compiled_parts
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.normalizer.factory import create_normalizer


class BaseFrontend(ConceptFrontend):
    """The frontend, which in Meta's checkpoints of this family holds the normalizer too."""

    def __init__(self, config: BaseConfig) -> None:
        super().__init__(
            config.frontend,
            config.lcm,
            concept_dim=config.sonar_embed_dim,
            model_dim=config.model_dim,
            max_seq_len=config.max_seq_len,
            scale=math.sqrt(config.model_dim) if config.frontend.scale_embeddings else 1.0,
        )
        self.sonar_normalizer = None if config.normalizer is None else create_normalizer(config.normalizer)


@dataclass
class BaseContext:
    """Predictions in place of a context: nothing is left for the denoiser to do."""

    past: Tensor | None
    """``[*P, C]`` what is predicted for each position, zero at the start; ``None`` when there is a state."""

    following: Tensor | None
    """``[B, T, C]`` what is predicted for the position after each new one; padded layouts only."""


@dataclass
class BaseState(DocumentState):
    """What incremental encoding keeps of the sentences so far."""

    tower: CachedTower

    following: LastVectors
    """``[B, 1, C]`` what is predicted for the position after the last."""


class BaseLCM(TwoTowerModel):
    """Meta's base model."""

    output_form = "direct"
    prediction_type = "sample"
    min_context_len = 1
    trained_with_guidance = False
    predicts_directly = True

    def __init__(self, config: BaseConfig) -> None:
        super().__init__()
        self.config = config
        self.concept_dim = config.sonar_embed_dim
        self.schedule = NoiseSchedule(ScheduleConfig())  # any will do
        self.max_document_len = config.max_seq_len
        self.normalizer_name = config.sonar_normalizer_name
        self.frontend = BaseFrontend(config)
        self.lcm = CausalTransformer(config.lcm, config.model_dim)
        self.postnet = Projection(config.model_dim, config.sonar_embed_dim, config.postnet)

    def normalize(self, concepts: Tensor) -> Tensor:
        normalizer = self.frontend.sonar_normalizer
        return concepts.float() if normalizer is None else normalizer.normalize(concepts)

    def denormalize(self, concepts: Tensor) -> Tensor:
        normalizer = self.frontend.sonar_normalizer
        return concepts.float() if normalizer is None else normalizer.denormalize(concepts)

    def set_normalizer(
        self, *, center: Tensor, scale: Tensor, clip_min: Tensor | None = None, clip_max: Tensor | None = None
    ) -> None:
        """:raises ConfigError: The model has no normalizer."""
        if self.frontend.sonar_normalizer is None:
            raise ConfigError(
                "The model takes concepts as they are: its `sonar_normalizer_name` and `normalizer` are null.\n"
                f"Set `normalizer.identity: true`, or model.config_overrides.normalizer: {{dim: {self.concept_dim}}}."
            )
        self.frontend.sonar_normalizer.set_statistics(center=center, scale=scale, clip_min=clip_min, clip_max=clip_max)

    @property
    def normalizer_config(self) -> NormalizerConfig:
        return super().normalizer_config if self.config.normalizer is None else self.config.normalizer

    def encode(self, concepts: Tensor, layout: DocumentLayout, state: BaseState | None = None) -> BaseContext:
        """:raises ConfigError: A document is longer than the configuration's ``max_seq_len``."""
        self.check_length(layout.width + (0 if state is None else state.tower.rows.width))
        if state is not None:
            following = self.following(concepts, layout, state)
            state.tower.rows.shorten(layout.lengths, layout.width)
            state.following.replace(following, layout.lengths)
            return BaseContext(None, following)
        if layout.past is not None:
            return BaseContext(layout.delay(self.following(layout.drop_last(concepts), layout.past)), None)
        following = self.following(concepts, layout)
        return BaseContext(layout.shift(following), following)

    def following(self, concepts: Tensor, layout: DocumentLayout, state: BaseState | None = None) -> Tensor:
        """Predicts the concept after each, ``[*P, C]``, in the model's space."""
        positions, cached = (layout.positions, None) if state is None else state.tower.grow(concepts)
        return self.postnet(self.lcm(self.frontend(concepts, positions), layout, positions, cached))

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        context: BaseContext,
        layout: DocumentLayout,
        *,
        dropped: Tensor | None = None,
    ) -> Tensor:
        assert context.past is not None, "a state encodes for generation, which asks for the next position only"
        _refuse_dropping(dropped)
        return layout.at_queries(context.past).expand(noisy.shape)

    def denoise_cache(self, context: BaseContext, layout: DocumentLayout, *, next_only: bool = False) -> Tensor:
        if not next_only:
            assert context.past is not None, "a state encodes for generation, which asks for the next position only"
            return layout.at_queries(context.past)
        assert context.following is not None, "the next position is asked for padded documents only"
        return context.following[:, -1:]

    def predict_step(self, noisy: Tensor, timestep: int, cache: Tensor, *, dropped: bool | Tensor = False) -> Tensor:
        _refuse_dropping(None if dropped is False else dropped)
        return cache.expand(noisy.shape)

    def next_cache(self, state: BaseState) -> Tensor:
        assert state.following.latest is not None, "nothing is predicted before the first concept"
        return state.following.latest

    def new_state(self, timesteps: Sequence[int] = ()) -> BaseState:
        return BaseState(None, CachedTower(len(self.lcm.layers)), LastVectors())

    def flops_per_concept(self, context_len: int, *, noise_draws: float = 1) -> int:
        """Counted as :meth:`lexalcm.models.pre1.config.Pre1Config.flops_per_concept` does; draws cost nothing."""
        config = self.config
        c, m, tower = config.sonar_embed_dim, config.model_dim, config.lcm
        layer = 4 * m * m + tower.ffn_multiplications(m) + m * (context_len + 1)
        return int(3 * 2 * (2 * c * m + tower.num_layers * layer) * (context_len - 1) / context_len)

    def towers(self) -> list[Module]:
        return [self.lcm]

    def compiled_units(self) -> list[Module]:
        return compiled_parts(self)


def _refuse_dropping(dropped: bool | Tensor | None) -> None:
    if dropped is not None:
        raise ConfigError(
            "A base_lcm predicts nothing without context, so that there is nothing to guide: set "
            "`objective.config.guidance_dropout: 0` in training and `guidance_scale: 1` in sampling."
        )
