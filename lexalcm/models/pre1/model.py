"""LexaLCM-Pre1: a causal contextualizer tower and a denoiser tower over sentence embeddings.

Built as section 7 of the specification says, on the parts of the published model, with names as in its table 7.4.

Shapes: N concepts of a packed batch (``*P``: N, or B, T of a padded one), C concept_dim, M model_dim, K noise draws,
H heads, E head dim, F features of the linear path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Linear, Module, ModuleList

from lexalcm.diffusion.schedule import NoiseSchedule
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.layers.attention import (
    CachedLayer,
    CausalSelfAttention,
    OwnPositionAttention,
    PastCrossAttention,
    RotaryTable,
)
from lexalcm.models.layers.denoiser_passes import DenoiserPasses, LayerParts, Past
from lexalcm.models.layers.document_state import CachedTower, DocumentState, PastKeys
from lexalcm.models.layers.feed_forward import SwiGLU
from lexalcm.models.layers.frontend import Frontend, LatentBridge
from lexalcm.models.layers.linear_context import LinearContext, RecentConcepts
from lexalcm.models.layers.modulation import AdaptiveRMSNorm, Modulation, TimestepConditioning
from lexalcm.models.layers.packed_linear import PackedLinear
from lexalcm.models.layers.precision import RMSNorm, at_least_float32, precise_linear
from lexalcm.models.layers.residual import Residual
from lexalcm.models.layers.timestep import TimestepEncoder
from lexalcm.models.normalizer.model import ConceptNormalizer
from lexalcm.models.pre1.config import Pre1Config


class ContextualizerLayer(Module):
    """Pre-norm causal attention and SwiGLU."""

    def __init__(self, config: Pre1Config) -> None:
        super().__init__()
        self.self_attn = CausalSelfAttention(config.model_dim, config.num_heads)
        self.self_attn_layer_norm = RMSNorm(config.model_dim)
        self.ffn = SwiGLU(config.model_dim, config.ffn_dim)
        self.ffn_layer_norm = RMSNorm(config.model_dim)
        self.residual = Residual(config.context_dropout_p)

    def forward(
        self, x: Tensor, layout: DocumentLayout, rotary: RotaryTable, cached: CachedLayer | None = None
    ) -> Tensor:
        x = self.residual(x, self.self_attn(self.self_attn_layer_norm(x), layout, rotary, cached))
        return self.residual(x, self.ffn(self.ffn_layer_norm(x)))


class Contextualizer(Module):
    """The causal tower."""

    def __init__(self, config: Pre1Config) -> None:
        super().__init__()
        self.layers = ModuleList(ContextualizerLayer(config) for _ in range(config.num_context_layers))
        self.layer_norm = RMSNorm(config.model_dim)


class DenoiserLayer(Module):
    """Own-position attention, cross-attention to the past and SwiGLU, each modulated by the timestep."""

    def __init__(self, config: Pre1Config) -> None:
        super().__init__()
        affine = config.denoiser_norm_weights
        dim = config.model_dim
        self.self_attn = OwnPositionAttention(dim, config.num_heads)
        self.self_attn_layer_norm = AdaptiveRMSNorm(dim, affine=affine)
        self.self_attn_modulator = Linear(dim, 3 * dim)
        self.cross_attn = PastCrossAttention(dim, config.num_heads)
        self.cross_attn_layer_norm = AdaptiveRMSNorm(dim, affine=affine)
        self.cross_attn_modulator = Linear(dim, 3 * dim)
        self.ffn = SwiGLU(dim, config.ffn_dim)
        self.ffn_layer_norm = AdaptiveRMSNorm(dim, affine=affine)
        self.ffn_modulator = Linear(dim, 3 * dim)
        self.residual = Residual(config.denoiser_dropout_p)

    @property
    def parts(self) -> LayerParts:
        return LayerParts(
            own_norm=self.self_attn_layer_norm,
            own=self.self_attn,
            own_after=None,
            cross_norm=self.cross_attn_layer_norm,
            cross=self.cross_attn,
            ffn_norm=self.ffn_layer_norm,
            ffn=self.ffn,
        )

    def modulations(self, conditioning: TimestepConditioning) -> list[Modulation]:
        made = []
        for modulator, norm in (
            (self.self_attn_modulator, self.self_attn_layer_norm),
            (self.cross_attn_modulator, self.cross_attn_layer_norm),
            (self.ffn_modulator, self.ffn_layer_norm),
        ):
            scale, shift, gate = conditioning.apply(modulator).chunk(3, dim=-1)
            made.append(conditioning.modulation(scale=scale, shift=shift, gate=gate, norm=norm))
        return made

    def forward(
        self,
        x: Tensor,
        modulations: list[Modulation] | TimestepConditioning,
        past: Past | Tensor,
        layout: DocumentLayout | None,
        dropped: bool | Tensor | None,
    ) -> Tensor:
        """
        :param modulations: Ready, or what they are made from.
        :param past: Keys and values of the past, or the context that they are projected from. Training leaves both to
            the layer: under FSDP its weights are whole in here alone.
        """
        if isinstance(modulations, TimestepConditioning):
            modulations = self.modulations(modulations)
        own, cross, ffn = modulations
        k, v = self.cross_attn.keys_and_values(past) if isinstance(past, Tensor) else past
        h = self.self_attn_layer_norm(x, own.scale, own.shift)
        x = self.residual(x, self.self_attn(h), own.gate)
        h = self.cross_attn_layer_norm(x, cross.scale, cross.shift)
        x = self.residual(x, self.cross_attn(h, k, v, layout, dropped), cross.gate)
        h = self.ffn_layer_norm(x, ffn.scale, ffn.shift)
        return self.residual(x, self.ffn(h), ffn.gate)


class Denoiser(Module):
    """The denoising tower."""

    def __init__(self, config: Pre1Config) -> None:
        super().__init__()
        self.layers = ModuleList(DenoiserLayer(config) for _ in range(config.num_denoiser_layers))
        self.layer_norm = RMSNorm(config.model_dim)


@dataclass
class Pre1State(DocumentState):
    """What incremental encoding keeps of the sentences so far."""

    tables: DenoiserPasses

    tower: CachedTower

    past: PastKeys

    recent: RecentConcepts
    """Kept whether the model has a linear path or not."""


@dataclass
class Pre1Context:
    """What the denoiser reads of the past."""

    past: Tensor | None
    """``[*P, M]`` the context of each position's predecessor, zero at the start; ``None`` when there is a state."""

    hidden: Tensor | None
    """``[B, T, M]`` the contexts of the new positions; padded layouts only."""

    features: Tensor | None
    """``[*Q, F]`` the linear path's input for each position that is predicted."""

    recent: RecentConcepts | None
    """What the linear path's input for the position after the last is made of; padded layouts only."""

    state: Pre1State | None


@dataclass
class Pre1Cache:
    """What all diffusion steps share: keys and values of the context, and tables by timestep."""

    keys_and_values: list[Past]

    linear: Tensor | None
    """``[*Q, C]``, or ``[B, 1, C]``: what the linear path says, float32."""

    layout: DocumentLayout | None

    passes: DenoiserPasses

    mask: Tensor | None = None
    """bool ``[B, 1, 1, T]`` of the real keys, for the next position of documents that are not equally long."""


class Pre1Model(TwoTowerModel):
    """The two-tower model of LexaLCM-Pre1."""

    def __init__(self, config: Pre1Config) -> None:
        super().__init__()
        self.config = config
        self.concept_dim = config.concept_dim
        self.schedule = NoiseSchedule(config.schedule)
        self.prediction_type = config.prediction_type
        self.output_form = config.output_form
        concept_dim, model_dim = config.concept_dim, config.model_dim
        self.normalizer = ConceptNormalizer(concept_dim)
        self.timestep_encoder = TimestepEncoder(config.timestep_dim, model_dim)
        self.context_frontend = Frontend(concept_dim, model_dim)
        self.contextualizer = Contextualizer(config)
        self.context_down_proj = Linear(model_dim, concept_dim)
        self.latent_bridge = LatentBridge(concept_dim, config.bridge_dropout_p)
        self.denoiser_frontend = Frontend(concept_dim, model_dim)
        self.denoiser = Denoiser(config)
        self.output_proj = Linear(model_dim, concept_dim)
        self.linear_context = LinearContext(concept_dim, config.linear_context) if config.linear_context else None

    def normalize(self, concepts: Tensor) -> Tensor:
        return self.normalizer.normalize(concepts)

    def denormalize(self, concepts: Tensor) -> Tensor:
        return self.normalizer.denormalize(concepts)

    def set_normalizer(self, *, center: Tensor, scale: Tensor) -> None:
        self.normalizer.set_statistics(center=center, scale=scale)

    def encode(self, concepts: Tensor, layout: DocumentLayout, state: Pre1State | None = None) -> Pre1Context:
        if state is not None:
            hidden = self._contexts(concepts, layout, *state.tower.grow(concepts))
            state.tower.rows.shorten(layout.lengths, layout.width)
            self._add_past(state.past, hidden, layout)
            state.recent.append(concepts, layout.lengths)
            return Pre1Context(None, hidden, None, state.recent, state)
        hidden = features = recent = None
        if layout.past is not None:
            past = layout.delay(self._contexts(layout.drop_last(concepts), layout.past))
        else:
            hidden = self._contexts(concepts, layout)
            past = layout.shift(hidden)
        if self.linear_context is not None:
            features = layout.at_queries(self.linear_context.features(concepts, layout))
            if not layout.packed:
                recent = RecentConcepts(self.linear_context.num_previous)
                recent.append(concepts, layout.lengths)
        return Pre1Context(past, hidden, features, recent, None)

    def _contexts(
        self,
        concepts: Tensor,
        layout: DocumentLayout,
        positions: Tensor | None = None,
        cached: list[CachedLayer] | None = None,
    ) -> Tensor:
        """``[*P, C]`` to ``[*P, M]``: what each concept and those before it tell about the next."""
        positions = layout.positions if positions is None else positions
        head_dim = self.config.model_dim // self.config.num_heads
        rotary = RotaryTable(positions, head_dim, theta=self.config.rope_theta, dtype=concepts.dtype)
        h = self.context_frontend(concepts)
        for i, layer in enumerate(self.contextualizer.layers):
            h = layer(h, layout, rotary, None if cached is None else cached[i])
        h = self.contextualizer.layer_norm(h)
        latent = self.latent_bridge(self.context_down_proj(h))
        # The latent path is a branch around the tower's output: alone it would be a bottleneck (spec 7.5).
        return h + self.denoiser_frontend(latent)

    def _add_past(self, past: PastKeys, hidden: Tensor, layout: DocumentLayout) -> None:
        past.append([layer.cross_attn for layer in self.denoiser.layers], hidden, layout.lengths)

    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        context: Pre1Context,
        layout: DocumentLayout,
        *,
        dropped: Tensor | None = None,
    ) -> Tensor:
        past = context.past
        assert past is not None, "a state encodes for generation, which asks for the next position only"
        conditioning = TimestepConditioning(
            timesteps, self.timestep_encoder, self.schedule.trained_timesteps(noisy.device)
        )
        x = self.denoiser_frontend(noisy, precise=True)
        for layer in self.denoiser.layers:
            x = layer(x, conditioning, past, layout, dropped)
        return self._output(x, timesteps, self._linear(context.features), dropped)

    def denoise_cache(self, context: Pre1Context, layout: DocumentLayout, *, next_only: bool = False) -> Pre1Cache:
        if not next_only:
            past = context.past
            assert past is not None, "a state encodes for generation, which asks for the next position only"
            pairs = [layer.cross_attn.keys_and_values(past) for layer in self.denoiser.layers]
            return Pre1Cache(pairs, self._linear(context.features), layout, self._passes())
        state = context.state
        if state is None:
            assert context.hidden is not None, "the next position is asked for padded documents only"
            state = self.new_state()
            self._add_past(state.past, context.hidden, layout)
            if context.recent is not None:
                state.recent = context.recent
        return self.next_cache(state)

    def next_cache(self, state: Pre1State) -> Pre1Cache:
        pairs = state.past.seen()
        linear = None if self.linear_context is None else self._linear(state.recent.features())
        return Pre1Cache(pairs, linear, None, state.tables, state.past.rows.mask(pairs[0][0].device))

    def predict_step(self, noisy: Tensor, timestep: int, cache: Pre1Cache, *, dropped: bool | Tensor = False) -> Tensor:
        pasts, passes = cache.keys_and_values, cache.passes
        at = torch.full((), timestep, device=noisy.device)
        if cache.layout is None:
            x = passes.entrance(noisy, precise=True)
            x = passes.run(x, timestep, pasts, mask=cache.mask, dropped=dropped)
            return self._output(x, at, cache.linear, dropped, passes.exit)
        x = self.denoiser_frontend(noisy, precise=True)
        for layer, modulations, past in zip(self.denoiser.layers, passes.modulations(timestep, x.device), pasts):
            x = layer(x, modulations, past, cache.layout, dropped)
        return self._output(x, at, cache.linear, dropped)

    def predict_both(self, noisy: Tensor, timestep: int, cache: Pre1Cache) -> Tensor:
        x = cache.passes.entrance(noisy, precise=True)
        x = cache.passes.run_both(x, timestep, cache.keys_and_values, mask=cache.mask)
        linear = cache.linear
        if linear is not None:
            linear = torch.stack([linear, torch.zeros_like(linear)])
        return self._output(x, torch.full((), timestep, device=x.device), linear, None, cache.passes.exit)

    def _linear(self, features: Tensor | None) -> Tensor | None:
        if self.linear_context is None:
            return None
        assert features is not None
        return self.linear_context(features)

    def _output(
        self,
        x: Tensor,
        timesteps: Tensor,
        linear: Tensor | None,
        dropped: bool | Tensor | None,
        projection: Linear | PackedLinear | None = None,
    ) -> Tensor:
        projection = self.output_proj if projection is None else projection
        output = precise_linear(self.denoiser.layer_norm(at_least_float32(x)), projection)
        if linear is None or dropped is True:
            return output
        if isinstance(dropped, Tensor):
            linear = linear.masked_fill(dropped.unsqueeze(-1), 0.0)
        share = self._linear_share(self.schedule.alpha_cumprod(timesteps)).to(output.dtype)
        return output + share.unsqueeze(-1) * linear

    def _linear_share(self, alpha_cumprod: Tensor) -> Tensor:
        """What ``(1 - a) * linear`` in the clean prediction is in the network's own output."""
        sigma = (1.0 - alpha_cumprod).sqrt()
        if self.prediction_type == "epsilon":
            return -sigma * alpha_cumprod.sqrt()
        if self.prediction_type == "v_prediction":
            return -sigma
        return sigma if self.output_form == "residual" else 1.0 - alpha_cumprod

    def new_state(self, timesteps: Sequence[int] = ()) -> Pre1State:
        config = self.config
        tower, past = CachedTower(config.num_context_layers), PastKeys(config.num_denoiser_layers)
        state = Pre1State(self._passes(), tower, past, RecentConcepts(config.linear_context))
        state.tables.prepare(timesteps, self.output_proj.weight.device)
        return state

    def _passes(self) -> DenoiserPasses:
        return DenoiserPasses(
            self.denoiser.layers,
            self.timestep_encoder,
            self.schedule.trained_timesteps,
            entrance=self.denoiser_frontend,
            exit=self.output_proj,
        )

    def flops_per_concept(self, context_len: int, *, noise_draws: float = 1) -> int:
        return self.config.flops_per_concept(context_len, noise_draws=noise_draws)

    def towers(self) -> list[Module]:
        return [self.contextualizer, self.denoiser]

    def compiled_units(self) -> list[Module]:
        kinds = (RMSNorm, Residual, SwiGLU, Frontend, LatentBridge)
        inside = set(self.latent_bridge.children())
        return [m for m in self.modules() if isinstance(m, kinds) and m not in inside]

    def inert_parameters(self) -> set[str]:
        """Query and key projections of own-position attention: the softmax of one score is 1."""
        return {
            f"denoiser.layers.{i}.self_attn.{name}.weight"
            for i in range(len(self.denoiser.layers))
            for name in ("q_proj", "k_proj")
        }
