"""What the published LexaLCM-Pre1 checkpoints compute with the published code (specification, sections 2 to 5).

Old numbers can be checked with it: inference and loss only, in four revisions. It is no part of the family that trains
and generates; with the same weights that one, :mod:`lexalcm.models.pre1.model`, computes something else.

Shapes: B documents, T positions, C concept_dim, M model_dim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from lexalcm.diffusion.schedule import NoiseSchedule, ScheduleConfig
from lexalcm.errors import CheckpointError, ConfigError, DataError
from lexalcm.models.layers.precision import at_least_float32, no_autocast
from lexalcm.models.pre1.interop import check_keys, split_off_schedule
from lexalcm.models.pre1.original_config import OriginalConfig, find_revision, original_config, revision_of
from lexalcm.models.pre1.original_layers import (
    ContextualizerTower,
    DenoiserTower,
    LatentBridge,
    PostNet,
    PreNet,
    TimestepEmbedder,
)


class OriginalOutput(NamedTuple):
    """What one call gives."""

    predicted: Tensor
    """Concepts ``[B, T, C]``, float32 at least; in use, position i is read as the guess at concept i + 1."""

    returned: Tensor
    """What the published code returned of them: without labels, the last position alone ``[B, 1, C]`` before ``final``
    (``first_trainable`` could not run without)."""

    loss: Tensor | None
    """The revision's loss ``[]`` when there are labels."""


class OriginalPre1(Module):
    """The published model. Parameters have their published names."""

    def __init__(self, config: OriginalConfig, revision: str) -> None:
        """
        :param revision: A name in :data:`lexalcm.models.pre1.original_config.REVISIONS`.
        :raises ConfigError: There is no such revision.
        """
        super().__init__()
        self.config, self.revision = config, find_revision(revision)
        self.schedule = NoiseSchedule(ScheduleConfig(kind="cosine", num_steps=config.num_schedule_steps))
        concept_dim, model_dim, latent_dim = config.concept_dim, config.model_dim, config.latent_dim
        clamped = self.revision.clamped_conditioning
        self.TimestepEmbedder = TimestepEmbedder(config.timestep_dim, model_dim, clamped=clamped)
        self.PreNet_C_Up = PreNet(concept_dim, model_dim)
        self.ContextualizerTower = ContextualizerTower(config, self.revision)
        self.PostNet_C_Down = PostNet(model_dim, latent_dim)
        self.LatentBridge = LatentBridge(latent_dim)
        self.PreNet_D_Up = PreNet(latent_dim, model_dim)
        self.DenoiserTower = DenoiserTower(config, self.revision)
        self.PostNet_D_Down = PostNet(model_dim, concept_dim)

    def forward(
        self,
        embeddings: Tensor,
        mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        noise: Tensor | None = None,
        timestep: int | None = None,
        row_keep: Sequence[Tensor] | None = None,
        guidance_scale: float | None = None,
        generator: torch.Generator | None = None,
    ) -> OriginalOutput:
        """
        The published loop carries nothing from one pass to the next, so its last pass alone is run (section 3).

        :param embeddings: Raw concepts ``[B, T, C]``.
        :param mask: ``[B, T]``, 1 or True at real positions; by default all are.
        :param labels: ``[B, T, C]`` for ``final``, the concept after each; ``[B, C]`` for the others.
        :param noise: ``[B, T, M]``; by default drawn from ``generator``.
        :param timestep: By default that of the last pass: 39 in evaluation mode, 79 in training mode with the published
            sizes.
        :param row_keep: For each denoiser layer ``[B, 1 + T]``, 1 or True for the zero vector and each context that
            cross-attention may see; by default all. In training the published code drew them; no other dropout is here.
        :param guidance_scale: By default the configuration's in evaluation mode, and 0, which switches guidance off, in
            training mode.
        :raises ConfigError: ``timestep`` is not in the schedule.
        :raises DataError: ``labels`` do not have the revision's shape.
        """
        if mask is None:
            real = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        else:
            real = mask.bool()
        with torch.no_grad():  # as published: its contextualizer never got a gradient
            context = self.encode(embeddings, real)
        if noise is None:
            noise = torch.randn(context.shape, generator=generator, dtype=context.dtype, device=context.device)
        if timestep is None:
            timestep = (self.config.num_train_steps if self.training else self.config.num_inference_steps) - 1
        if guidance_scale is None:
            guidance_scale = 0.0 if self.training else self.config.guidance_scale
        y = self.denoise(context, real, noise, timestep, row_keep)
        if guidance_scale > 0.0:
            first = torch.zeros_like(context)
            first[:, :1] = context[:, :1]
            without = self.denoise(first, real, noise, timestep, row_keep)
            y = without + guidance_scale * (y - without)
        with no_autocast(y):
            predicted = self.PostNet_D_Down(at_least_float32(y))
        if labels is not None:
            return OriginalOutput(predicted, predicted, self.loss(predicted, labels, real))
        return OriginalOutput(predicted, predicted[:, -1:] if self.revision.returns_last else predicted, None)

    def encode(self, embeddings: Tensor, real: Tensor) -> Tensor:
        """``[B, T, C]`` to context latents ``[B, T, M]``; causal."""
        hidden = self.ContextualizerTower(self.PreNet_C_Up(embeddings), real)
        return self.PreNet_D_Up(self.LatentBridge(self.PostNet_C_Down(hidden)))

    def denoise(
        self, context: Tensor, real: Tensor, noise: Tensor, timestep: int, row_keep: Sequence[Tensor] | None = None
    ) -> Tensor:
        """One pass of the denoiser, whose noisy input is the context itself: ``[B, T, M]``."""
        if not 0 <= timestep <= self.schedule.last_timestep:
            raise ConfigError(f"`timestep` must be from 0 to {self.schedule.last_timestep}, but is {timestep}.")
        at = torch.full((len(context),), timestep, device=context.device)
        # In bfloat16 alpha-bar is rounded before its root is taken, as published.
        alpha_bar = self.schedule.alpha_cumprod(at[:1]).to(context.dtype)
        noisy = alpha_bar.sqrt() * context + (1.0 - alpha_bar).sqrt() * noise.to(context)
        embedding = self.TimestepEmbedder(at.to(self.TimestepEmbedder.lin1.weight.dtype))
        if row_keep is not None:
            row_keep = [keep.bool() for keep in row_keep]
        return self.DenoiserTower(noisy, context, embedding, real, row_keep)

    def loss(self, predicted: Tensor, labels: Tensor, real: Tensor) -> Tensor:
        """
        The revision's loss (2.13), of Euclidean distances that are not squared.

        :raises DataError: ``labels`` do not have the revision's shape. Of ``final`` the lengths may differ.
        """
        form = self.revision.loss
        expected = predicted.shape if form == "per_position" else predicted.shape[::2]
        fits = labels.dim() == len(expected) and (labels.size(0), labels.size(-1)) == (expected[0], expected[-1])
        if not fits:
            raise DataError(
                f"`labels` must have the shape {list(expected)} for this revision, but have {list(labels.shape)}."
            )
        return _LOSSES[form](at_least_float32(predicted), at_least_float32(labels), real)


def _own_label_loss(predicted: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    return torch.linalg.vector_norm(predicted - labels.unsqueeze(1), dim=-1).mean()


def _all_pairs_loss(predicted: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    """Each label against the predictions of all documents: the published code broadcasts one axis too many."""
    return torch.linalg.vector_norm(predicted - labels[:, None, None], dim=-1).mean()


def _per_position_loss(predicted: Tensor, labels: Tensor, real: Tensor) -> Tensor:
    """The mean over real positions, 0 when there are none; lengths are cut to the shortest."""
    predicted, labels = (x.unsqueeze(1) if x.dim() == 2 else x for x in (predicted, labels))
    length = min(predicted.size(1), labels.size(1), real.size(1))
    distances = torch.linalg.vector_norm(predicted[:, :length] - labels[:, :length], dim=-1)
    real = real[:, :length].to(distances.dtype)
    return (distances * real).sum() / real.sum().clamp(min=1.0)


_LOSSES: Final = {"own_label": _own_label_loss, "all_pairs": _all_pairs_loss, "per_position": _per_position_loss}


def create_original(
    state_dict: Mapping[str, Tensor], published: Mapping[str, object], *, revision: str | None = None
) -> OriginalPre1:
    """Builds the model of a published checkpoint on the tensors given, in their dtype and in evaluation mode.

    :param state_dict: With the published keys; ``alpha_bar_schedule`` may be missing.
    :param published: The fields of its ``config.json``.
    :param revision: By default ``documented`` or ``final``, as the keys say.
    :raises CheckpointError: Keys, shapes or fields are not those of a published checkpoint.
    :raises ConfigError: There is no such revision.
    """
    if revision is None:
        revision = revision_of(state_dict)
    with torch.device("meta"):
        model = OriginalPre1(original_config(published), revision)
    weights = split_off_schedule(state_dict, num_steps=model.config.num_schedule_steps)
    wanted = model.state_dict()
    check_keys(weights, list(wanted), optional=set())
    _check_shapes(weights, wanted)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def _check_shapes(state_dict: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    for name, expected in wanted.items():
        found = state_dict[name]
        if found.shape != expected.shape:
            raise CheckpointError(
                f"`{name}` has the shape {list(found.shape)}, but by its config.json the checkpoint's is "
                f"{list(expected.shape)}."
            )
