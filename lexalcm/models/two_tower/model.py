"""Meta's two-tower diffusion LCM in the fast formulation; module names are those of its checkpoints.

A causal *context encoder* reads the past, a *denoiser* turns noise into the next concept (specification, section 1).

Shapes: N concepts of a packed batch (``*P``: N, or B, T of a padded one; ``*Q`` where the denoiser runs), C
sonar_embed_dim, M model_dim, K noise draws, H heads, E head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import Linear, Module, ModuleList

from lexalcm.diffusion.schedule import NoiseSchedule
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.layers.attention import CachedLayer, OwnPositionAttention, PastCrossAttention, RotaryTable
from lexalcm.models.layers.denoiser_passes import DenoiserPasses, LayerParts, Past
from lexalcm.models.layers.document_state import CachedTower, DocumentState, PastKeys
from lexalcm.models.layers.dropout import Dropout
from lexalcm.models.layers.modulation import Modulation, TimestepConditioning
from lexalcm.models.layers.norm_styles import create_norm
from lexalcm.models.layers.precision import at_least_float32
from lexalcm.models.layers.residual import Residual
from lexalcm.models.layers.timestep import TimestepEncoder
from lexalcm.models.layers.transformer import (
    CausalTransformer,
    ConceptFrontend,
    Projection,
    compiled_parts,
    create_attention,
    create_feed_forward,
    create_positions,
    rotary_table,
)
from lexalcm.models.normalizer.config import NormalizerConfig
from lexalcm.models.normalizer.factory import create_normalizer
from lexalcm.models.two_tower.config import TIMESTEP_FEATURES, DenoiserConfig, TwoTowerConfig


class Modulator(Module):
    """Shift, scale and gate of self-attention, cross-attention and feed-forward, from the timestep's embedding."""

    def __init__(self, model_dim: int) -> None:
        super().__init__()
        self.fc = Linear(model_dim, 9 * model_dim)


class DenoiserLayer(Module):
    """Own-position attention, cross-attention to the past and a feed-forward network, modulated by the timestep."""

    def __init__(self, config: DenoiserConfig, model_dim: int) -> None:
        super().__init__()
        norm = partial(create_norm, config.layer_normalization_style, model_dim)
        self.self_attn_layer_norm = norm(adaptive=True)
        self.self_attn = create_attention(OwnPositionAttention, config, model_dim)
        self.self_attn_norm = norm() if config.norm_order_style == "normformer" else None
        self.cross_attention_layer_norm = norm(adaptive=True)
        self.cross_attention = create_attention(PastCrossAttention, config, model_dim)
        self.ffn_layer_norm = norm(adaptive=True)
        self.ffn = create_feed_forward(config, model_dim)
        self.modulator = Modulator(model_dim)
        self.residual = Residual(config.dropout_p)

    @property
    def parts(self) -> LayerParts:
        return LayerParts(
            own_norm=self.self_attn_layer_norm,
            own=self.self_attn,
            own_after=self.self_attn_norm,
            cross_norm=self.cross_attention_layer_norm,
            cross=self.cross_attention,
            ffn_norm=self.ffn_layer_norm,
            ffn=self.ffn,
        )

    def modulations(self, conditioning: TimestepConditioning) -> list[Modulation]:
        norms = (self.self_attn_layer_norm, self.cross_attention_layer_norm, self.ffn_layer_norm)
        made = []
        for part, norm in zip(conditioning.apply(self.modulator.fc).chunk(3, dim=-1), norms):
            shift, scale, gate = part.chunk(3, dim=-1)
            made.append(conditioning.modulation(scale=scale, shift=shift, gate=gate, norm=norm))
        return made

    def forward(
        self,
        x: Tensor,
        modulations: list[Modulation] | TimestepConditioning,
        past: Past | Tensor,
        layout: DocumentLayout | None,
        dropped: bool | Tensor | None,
        query_rotary: RotaryTable | None,
        key_rotary: RotaryTable | None,
    ) -> Tensor:
        """
        :param modulations: Ready, or what they are made from.
        :param past: Keys and values of the past, or the context that they are projected from. Training leaves both to
            the layer: under FSDP its weights are whole in here alone.
        :param key_rotary: Of the context's positions, if ``past`` is one.
        """
        if isinstance(modulations, TimestepConditioning):
            modulations = self.modulations(modulations)
        own, cross, ffn = modulations
        k, v = self.cross_attention.keys_and_values(past, key_rotary) if isinstance(past, Tensor) else past
        h = self.self_attn(self.self_attn_layer_norm(x, own.scale, own.shift))
        x = self.residual(x, h if self.self_attn_norm is None else self.self_attn_norm(h), own.gate)
        h = self.cross_attention_layer_norm(x, cross.scale, cross.shift)
        x = self.residual(x, self.cross_attention(h, k, v, layout, dropped, query_rotary), cross.gate)
        return self.residual(x, self.ffn(self.ffn_layer_norm(x, ffn.scale, ffn.shift)), ffn.gate)


class Denoiser(Module):
    """The denoising tower between its two projections."""

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        tower, model_dim = config.denoiser, config.model_dim
        self.embed_time = TimestepEncoder(TIMESTEP_FEATURES, model_dim, inner_dim=model_dim, cosine_first=True)
        self.initial_proj = Projection(config.sonar_embed_dim, model_dim, tower.pre_denoiser)
        self.final_proj = Projection(model_dim, config.sonar_embed_dim, tower.post_denoiser)
        self.pos_encoder = create_positions(tower, model_dim, config.max_seq_len, std=1.0)
        self.layers = ModuleList(DenoiserLayer(tower, model_dim) for _ in range(tower.num_layers))
        self.layer_norm = create_norm(tower.layer_normalization_style, model_dim)
        self.final_dropout = Dropout(tower.final_dropout_p)
        self._head_dim = model_dim // tower.num_attn_heads
        self._rope_theta = tower.rope_theta if tower.pos_embedding_style == "rope" else None

    def rotary(self, positions: Tensor, x: Tensor) -> RotaryTable | None:
        return rotary_table(positions, self._head_dim, self._rope_theta, x)

    @property
    def has_positions(self) -> bool:
        return self.pos_encoder is not None or self._rope_theta is not None

    def enter(self, noisy: Tensor, positions: Tensor, projection: Projection | None = None) -> Tensor:
        """``[..., *Q, C]`` to ``[..., *Q, M]``, float32.

        :param positions: int64 ``[*Q]``.
        :param projection: In place of the tower's own.
        """
        x = (self.initial_proj if projection is None else projection)(noisy)
        return x if self.pos_encoder is None else self.pos_encoder(x, positions)

    def leave(self, x: Tensor, projection: Projection | None = None) -> Tensor:
        """``[..., M]`` to ``[..., C]``, float32."""
        return (self.final_proj if projection is None else projection)(
            self.final_dropout(self.layer_norm(at_least_float32(x)))
        )


@dataclass
class TwoTowerState(DocumentState):
    """What incremental encoding keeps of the sentences so far."""

    tables: DenoiserPasses

    tower: CachedTower

    past: PastKeys


@dataclass
class TwoTowerContext:
    """What the denoiser reads of the past."""

    past: Tensor | None
    """``[*P, M]`` the context of each position's predecessor, zero at the start; ``None`` when there is a state."""

    hidden: Tensor | None
    """``[B, T, M]`` the contexts of the new positions; padded layouts only."""

    state: TwoTowerState | None


@dataclass
class TwoTowerCache:
    """What all diffusion steps share."""

    keys_and_values: list[Past]

    layout: DocumentLayout | None

    positions: Tensor
    """int64 ``[*Q]``, or ``[B, 1]`` for the next position: where the queries stand."""

    passes: DenoiserPasses

    mask: Tensor | None = None
    """bool ``[B, 1, 1, T]`` of the real keys, for the next position of documents that are not equally long."""


class TwoTowerDiffusionLCM(TwoTowerModel):
    """Meta's two-tower model."""

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__()
        self.config = config
        self.concept_dim = config.sonar_embed_dim
        self.schedule = NoiseSchedule(config.noise_scheduler.schedule())
        self.prediction_type = config.noise_scheduler.prediction_type
        self.output_form = "direct"
        self.max_document_len = config.max_seq_len
        self.trained_with_guidance = config.trained_with_cf_guidance
        self.normalizer_name = config.sonar_normalizer_name
        self.sonar_normalizer = create_normalizer(config.normalizer_config)
        self.encoder_frontend = ConceptFrontend(
            config.frontend,
            config.context_encoder,
            concept_dim=config.sonar_embed_dim,
            model_dim=config.model_dim,
            max_seq_len=config.max_seq_len,
        )
        self.context_encoder = CausalTransformer(config.context_encoder, config.model_dim)
        self.denoiser = Denoiser(config)

    def normalize(self, concepts: Tensor) -> Tensor:
        return self.sonar_normalizer.normalize(concepts)

    def denormalize(self, concepts: Tensor) -> Tensor:
        return self.sonar_normalizer.denormalize(concepts)

    def set_normalizer(
        self, *, center: Tensor, scale: Tensor, clip_min: Tensor | None = None, clip_max: Tensor | None = None
    ) -> None:
        self.sonar_normalizer.set_statistics(center=center, scale=scale, clip_min=clip_min, clip_max=clip_max)

    @property
    def normalizer_config(self) -> NormalizerConfig:
        return self.config.normalizer_config

    def encode(self, concepts: Tensor, layout: DocumentLayout, state: TwoTowerState | None = None) -> TwoTowerContext:
        """:raises ConfigError: A document is longer than the configuration's ``max_seq_len``."""
        self.check_length(layout.width + (0 if state is None else state.tower.rows.width))
        if state is not None:
            hidden = self._contexts(concepts, layout, *state.tower.grow(concepts))
            state.tower.rows.shorten(layout.lengths, layout.width)
            self._add_past(state.past, hidden, layout)
            return TwoTowerContext(None, hidden, state)
        if layout.past is not None:
            past = layout.delay(self._contexts(layout.drop_last(concepts), layout.past))
            return TwoTowerContext(past, None, None)
        hidden = self._contexts(concepts, layout)
        return TwoTowerContext(layout.shift(hidden), hidden, None)

    def _contexts(
        self,
        concepts: Tensor,
        layout: DocumentLayout,
        positions: Tensor | None = None,
        cached: list[CachedLayer] | None = None,
    ) -> Tensor:
        """``[*P, C]`` to ``[*P, M]``: what each concept and those before it tell about the next."""
        positions = layout.positions if positions is None else positions
        return self.context_encoder(self.encoder_frontend(concepts, positions), layout, positions, cached)

    def _add_past(self, past: PastKeys, hidden: Tensor, layout: DocumentLayout) -> None:
        attentions = [layer.cross_attention for layer in self.denoiser.layers]
        past.append(attentions, hidden, layout.lengths, self.denoiser.rotary)

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        context: TwoTowerContext,
        layout: DocumentLayout,
        *,
        dropped: Tensor | None = None,
    ) -> Tensor:
        past = context.past
        assert past is not None, "a state encodes for generation, which asks for the next position only"
        denoiser = self.denoiser
        positions = self._query_positions(layout)
        conditioning = TimestepConditioning(
            timesteps, denoiser.embed_time, self.schedule.trained_timesteps(noisy.device)
        )
        x = denoiser.enter(noisy, positions)
        rotary, key_rotary = denoiser.rotary(positions, x), denoiser.rotary(layout.positions, x)
        for layer in denoiser.layers:
            x = layer(x, conditioning, past, layout, dropped, rotary, key_rotary)
        return denoiser.leave(x)

    def _query_positions(self, layout: DocumentLayout) -> Tensor:
        if self.config.query_positions == "meta_compatible":
            return layout.query_positions
        return layout.at_queries(layout.positions)

    def denoise_cache(
        self, context: TwoTowerContext, layout: DocumentLayout, *, next_only: bool = False
    ) -> TwoTowerCache:
        if not next_only:
            past = context.past
            assert past is not None, "a state encodes for generation, which asks for the next position only"
            rotary = self.denoiser.rotary(layout.positions, past)
            pairs = [layer.cross_attention.keys_and_values(past, rotary) for layer in self.denoiser.layers]
            return TwoTowerCache(pairs, layout, self._query_positions(layout), self._passes())
        state = context.state
        if state is None:
            assert context.hidden is not None, "the next position is asked for padded documents only"
            state = self.new_state()
            self._add_past(state.past, context.hidden, layout)
        return self.next_cache(state)

    def next_cache(self, state: TwoTowerState) -> TwoTowerCache:
        pairs = state.past.seen()
        device = pairs[0][0].device
        # Concept j has key j + 1, so that the next concept's place is that of the last key.
        at = state.past.last_positions(device)
        if self.config.query_positions == "meta_compatible":
            at = torch.zeros_like(at)
        return TwoTowerCache(pairs, None, at, state.tables, state.past.rows.mask(device))

    def predict_step(
        self, noisy: Tensor, timestep: int, cache: TwoTowerCache, *, dropped: bool | Tensor = False
    ) -> Tensor:
        denoiser, pasts, passes = self.denoiser, cache.keys_and_values, cache.passes
        if cache.layout is None:
            x = denoiser.enter(noisy, cache.positions, passes.entrance)
            rotary = denoiser.rotary(cache.positions, x)
            x = passes.run(x, timestep, pasts, mask=cache.mask, dropped=dropped, rotary=rotary)
            return denoiser.leave(x, passes.exit)
        x = denoiser.enter(noisy, cache.positions)
        rotary = denoiser.rotary(cache.positions, x)
        for layer, modulations, past in zip(denoiser.layers, passes.modulations(timestep, x.device), pasts):
            x = layer(x, modulations, past, cache.layout, dropped, rotary, None)
        return denoiser.leave(x)

    def predict_both(self, noisy: Tensor, timestep: int, cache: TwoTowerCache) -> Tensor:
        denoiser, passes = self.denoiser, cache.passes
        x = denoiser.enter(noisy, cache.positions, passes.entrance)
        rotary = denoiser.rotary(cache.positions, x)
        x = passes.run_both(x, timestep, cache.keys_and_values, mask=cache.mask, rotary=rotary)
        return denoiser.leave(x, passes.exit)

    def new_state(self, timesteps: Sequence[int] = ()) -> TwoTowerState:
        layers = self.denoiser.layers
        state = TwoTowerState(self._passes(), CachedTower(len(self.context_encoder.layers)), PastKeys(len(layers)))
        state.tables.prepare(timesteps, self.denoiser.embed_time.fc1.weight.device)
        return state

    def _passes(self) -> DenoiserPasses:
        denoiser = self.denoiser
        return DenoiserPasses(
            denoiser.layers,
            denoiser.embed_time,
            self.schedule.trained_timesteps,
            entrance=denoiser.initial_proj,
            exit=denoiser.final_proj,
        )

    def flops_per_concept(self, context_len: int, *, noise_draws: float = 1) -> int:
        """Counted as :meth:`lexalcm.models.pre1.config.Pre1Config.flops_per_concept` does."""
        config = self.config
        c, m = config.sonar_embed_dim, config.model_dim
        seen = (context_len + 1) / 2
        encoder, denoiser = config.context_encoder, config.denoiser
        context = c * m + encoder.num_layers * (4 * m * m + encoder.ffn_multiplications(m) + 2 * m * seen)
        context *= (context_len - 1) / context_len
        context += denoiser.num_layers * 2 * m * m
        draws = 2 * c * m + denoiser.num_layers * (4 * m * m + denoiser.ffn_multiplications(m) + 2 * m * seen)
        return int(3 * 2 * (context + noise_draws * draws))

    def towers(self) -> list[Module]:
        return [self.context_encoder, self.denoiser]

    def compiled_units(self) -> list[Module]:
        return compiled_parts(self)

    def inert_parameters(self) -> set[str]:
        """Query and key projections of own-position attention, and their norms: the softmax of one score is 1."""
        unused = ("q_proj.", "k_proj.", "q_layer_norm.", "k_layer_norm.")
        prefixes = tuple(
            f"denoiser.layers.{i}.self_attn.{part}" for i in range(len(self.denoiser.layers)) for part in unused
        )
        return {name for name, _ in self.named_parameters() if name.startswith(prefixes)}
