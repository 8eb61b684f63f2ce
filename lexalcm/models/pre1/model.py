"""LexaLCM-Pre1: a causal contextualizer tower and a denoiser tower over sentence embeddings.

Built as section 7 of the specification says, on the parts of the published model, with names as in its table 7.4.

Shapes: N concepts of a packed batch (``*P``: N, or B, T of a padded one), C concept_dim, M model_dim, K noise draws,
H heads, E head dim, F features of the linear path.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Linear, Module, ModuleList

from lexalcm.diffusion.schedule import NoiseSchedule
from lexalcm.layout import DocumentLayout
from lexalcm.models.interface import TwoTowerModel
from lexalcm.models.layers.attention import (
    CausalSelfAttention,
    KeyValueCache,
    OwnPositionAttention,
    PastCrossAttention,
    RotaryTable,
)
from lexalcm.models.layers.dropout import Dropout
from lexalcm.models.layers.feed_forward import SwiGLU
from lexalcm.models.layers.linear_context import LinearContext
from lexalcm.models.layers.modulation import AdaptiveRMSNorm, Modulation, TimestepConditioning
from lexalcm.models.layers.precision import PreciseLayerNorm, RMSNorm, at_least_float32, no_autocast, precise_linear
from lexalcm.models.layers.residual import Residual
from lexalcm.models.layers.timestep import TimestepEncoder
from lexalcm.models.normalizer.model import ConceptNormalizer
from lexalcm.models.pre1.config import Pre1Config


class Frontend(Module):
    """``SiLU(W LayerNorm(x) + b)``: the door of concepts into a tower."""

    def __init__(self, concept_dim: int, model_dim: int) -> None:
        super().__init__()
        self.norm = PreciseLayerNorm(concept_dim)
        self.proj = Linear(concept_dim, model_dim)

    def forward(self, x: Tensor, *, precise: bool = False) -> Tensor:
        """:param precise: Project in float32 too, as the noisy concept needs."""
        x = self.norm(x)
        return F.silu(precise_linear(x, self.proj) if precise else self.proj(x))


class LatentBridge(Module):
    """``Dropout(GELU(W RMSNorm(x) + b))`` between the towers, exact GELU."""

    def __init__(self, concept_dim: int, dropout_p: float) -> None:
        super().__init__()
        self.norm = RMSNorm(concept_dim)
        self.proj = Linear(concept_dim, concept_dim)
        self.dropout = Dropout(dropout_p)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(F.gelu(self.proj(self.norm(x))))


class ContextualizerLayer(Module):
    """Pre-norm causal attention and SwiGLU."""

    def __init__(self, config: Pre1Config) -> None:
        super().__init__()
        self.self_attn = CausalSelfAttention(config.model_dim, config.num_heads)
        self.self_attn_layer_norm = RMSNorm(config.model_dim)
        self.ffn = SwiGLU(config.model_dim, config.ffn_dim)
        self.ffn_layer_norm = RMSNorm(config.model_dim)
        self.residual = Residual(config.context_dropout_p)

    def forward(self, x: Tensor, layout: DocumentLayout, rotary: RotaryTable, cache: KeyValueCache | None) -> Tensor:
        x = self.residual(x, self.self_attn(self.self_attn_layer_norm(x), layout, rotary, cache))
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
        past: tuple[Tensor, Tensor] | Tensor,
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
class Pre1State:
    """What incremental encoding keeps of the sentences so far."""

    self_attn: list[KeyValueCache]
    cross_attn: list[KeyValueCache]
    modulations: dict[int, list[list[Modulation]]] = field(default_factory=dict)
    concepts: Tensor | None = None


@dataclass
class Pre1Context:
    """What the denoiser reads of the past."""

    past: Tensor | None
    """``[*P, M]`` the context of each position's predecessor, zero at the start; ``None`` when there is a state."""

    hidden: Tensor | None
    """``[B, T, M]`` the contexts of the new positions; padded layouts only."""

    features: Tensor | None
    """``[*Q, F]`` the linear path's input for each position that is predicted."""

    next_features: Tensor | None
    """``[B, 1, F]`` the linear path's input for the position after the last; padded layouts of equal lengths only."""

    state: Pre1State | None


@dataclass
class Pre1Cache:
    """What all diffusion steps share: keys and values of the context, and modulations by timestep."""

    keys_and_values: list[tuple[Tensor, Tensor]]
    features: Tensor | None
    layout: DocumentLayout | None
    modulations: dict[int, list[list[Modulation]]]


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
        past = hidden = None
        if state is not None:
            hidden = self._contexts(concepts, layout, state)
        elif layout.past is not None:
            past = layout.delay(self._contexts(layout.drop_last(concepts), layout.past))
        else:
            hidden = self._contexts(concepts, layout)
            past = layout.shift(hidden)
        features = next_features = None
        if self.linear_context is not None:
            history = concepts
            if state is not None:
                history = concepts if state.concepts is None else torch.cat([state.concepts, concepts], dim=1)
                state.concepts = history
            else:
                features = layout.at_queries(self.linear_context.features(concepts, layout))
            if not layout.packed:
                next_features = self.linear_context.next_features(history)
        return Pre1Context(past, hidden, features, next_features, state)

    def _contexts(self, concepts: Tensor, layout: DocumentLayout, state: Pre1State | None = None) -> Tensor:
        """``[*P, C]`` to ``[*P, M]``: what each concept and those before it tell about the next."""
        positions = layout.positions
        if state is not None:
            positions = positions + state.self_attn[0].length
        head_dim = self.config.model_dim // self.config.num_heads
        rotary = RotaryTable(positions, head_dim, theta=self.config.rope_theta, dtype=concepts.dtype)
        h = self.context_frontend(concepts)
        for i, layer in enumerate(self.contextualizer.layers):
            h = layer(h, layout, rotary, None if state is None else state.self_attn[i])
        h = self.contextualizer.layer_norm(h)
        latent = self.latent_bridge(self.context_down_proj(h))
        # The latent path is a branch around the tower's output: alone it would be a bottleneck (spec 7.5).
        return h + self.denoiser_frontend(latent)

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
        conditioning = TimestepConditioning(timesteps, self.timestep_encoder, self.schedule.trained_timesteps(noisy.device))
        x = self.denoiser_frontend(noisy, precise=True)
        for layer in self.denoiser.layers:
            x = layer(x, conditioning, past, layout, dropped)
        return self._output(x, timesteps, context.features, dropped)

    def denoise_cache(self, context: Pre1Context, layout: DocumentLayout, *, next_only: bool = False) -> Pre1Cache:
        state = context.state
        modulations = {} if state is None else state.modulations
        if not next_only:
            past = context.past
            assert past is not None, "a state encodes for generation, which asks for the next position only"
            pairs = [layer.cross_attn.keys_and_values(past) for layer in self.denoiser.layers]
            return Pre1Cache(pairs, context.features, layout, modulations)
        assert context.hidden is not None, "the next position is asked for padded documents only"
        pairs = []
        for i, layer in enumerate(self.denoiser.layers):
            store = KeyValueCache() if state is None else state.cross_attn[i]
            hidden = context.hidden
            if store.length == 0:
                hidden = F.pad(hidden, (0, 0, 1, 0))  # the zero vector stands before the first concept
            pairs.append(store.append(*layer.cross_attn.keys_and_values(hidden)))
        return Pre1Cache(pairs, context.next_features, None, modulations)

    def predict_step(self, noisy: Tensor, timestep: int, cache: Pre1Cache, *, dropped: bool | Tensor = False) -> Tensor:
        at = torch.tensor(timestep, device=noisy.device)
        if timestep not in cache.modulations:
            conditioning = TimestepConditioning(at, self.timestep_encoder, self.schedule.trained_timesteps(noisy.device))
            cache.modulations[timestep] = [layer.modulations(conditioning) for layer in self.denoiser.layers]
        x = self.denoiser_frontend(noisy, precise=True)
        for layer, modulation, past in zip(self.denoiser.layers, cache.modulations[timestep], cache.keys_and_values):
            x = layer(x, modulation, past, cache.layout, dropped)
        return self._output(x, at, cache.features, dropped)

    def _output(self, x: Tensor, timesteps: Tensor, features: Tensor | None, dropped: bool | Tensor | None) -> Tensor:
        output = precise_linear(self.denoiser.layer_norm(at_least_float32(x)), self.output_proj)
        if self.linear_context is None or dropped is True:
            return output
        alpha_cumprod = self.schedule.alpha_cumprod(timesteps)
        with no_autocast(output):
            linear = self.linear_context(features, dropped)
            return output + self._linear_share(alpha_cumprod).to(output.dtype).unsqueeze(-1) * linear

    def _linear_share(self, alpha_cumprod: Tensor) -> Tensor:
        """What ``(1 - a) * linear`` in the clean prediction is in the network's own output."""
        sigma = (1.0 - alpha_cumprod).sqrt()
        if self.prediction_type == "epsilon":
            return -sigma * alpha_cumprod.sqrt()
        if self.prediction_type == "v_prediction":
            return -sigma
        return sigma if self.output_form == "residual" else 1.0 - alpha_cumprod

    def new_state(self) -> Pre1State:
        return Pre1State(
            [KeyValueCache() for _ in self.contextualizer.layers], [KeyValueCache() for _ in self.denoiser.layers]
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
