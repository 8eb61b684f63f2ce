"""The one interface that every two-tower family implements, and all that trainer, sampler and generator may know.

A *concept* is one sentence embedding. A two-tower model reads the past concepts of a document with a causal
*contextualizer* and turns noise into the next concept with a *denoiser*.

Shapes: N concepts of a packed batch (or B, T of a padded one), C concept_dim, K noise draws a position. ``*P`` stands
for ``N`` or ``B, T``, whichever form the batch's :class:`~lexalcm.layout.DocumentLayout` has, and ``*Q`` for the
positions of it where the denoiser runs: all of them, or those behind the sources of a layout that has sources.

A family implements :meth:`TwoTowerModel.encode`, :meth:`TwoTowerModel.predict`, :meth:`TwoTowerModel.denoise_cache`
and :meth:`TwoTowerModel.predict_step`, for generation a state and :meth:`TwoTowerModel.next_cache` too; the rest stands
here once. Inside the project every prediction is the *clean*,
normalised concept; what a network was trained to output is converted here and nowhere else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import Module
from typing_extensions import Self

from lexalcm.diffusion.parametrization import OutputForm, PredictionType, to_clean
from lexalcm.diffusion.schedule import NoiseSchedule
from lexalcm.errors import ConfigError
from lexalcm.layout import DocumentLayout
from lexalcm.models.normalizer.config import NormalizerConfig


class GrowingDocuments(Protocol):
    """A batch of documents that grow concept by concept; each may have another length, leave, and be joined by others.

    Layers with the usual parts have :class:`lexalcm.models.layers.document_state.DocumentState`.
    """

    def fork(self) -> Self:
        """A state without documents, which shares what depends on the weights alone."""

    def select(self, rows: Sequence[int], device: torch.device) -> None:
        """Keeps the documents with these numbers, in this order."""

    def join(self, other: Self) -> None:
        """Adds another state's documents behind these."""


class TwoTowerModel(Module, ABC):
    """A model that predicts concept i of a document from concepts 0..i-1 and a noisy version of concept i."""

    concept_dim: int

    schedule: NoiseSchedule
    """The noise schedule the model is trained with; it travels with the weights."""

    prediction_type: PredictionType

    output_form: OutputForm

    max_document_len: int | None = None
    """The longest document, special concepts included, that the model has positions for; ``None``: any."""

    min_context_len: int = 0
    """How many concepts must stand before one that is to be predicted."""

    normalizer_name: str | None = None
    """The card that a new model's statistics come from where nobody names another."""

    predicts_directly: bool = False
    """Whether a prediction depends on neither noise nor timestep: one pass is all there is to draw."""

    trained_with_guidance: bool | None = None
    """Whether positions without context are trained; ``None`` where the configuration does not say."""

    @abstractmethod
    def normalize(self, concepts: Tensor) -> Tensor:
        """Maps raw embeddings ``[..., C]`` of any float type into the model's space, float32."""

    @abstractmethod
    def denormalize(self, concepts: Tensor) -> Tensor:
        """The inverse of :meth:`normalize`, float32."""

    @abstractmethod
    def set_normalizer(self, *, center: Tensor, scale: Tensor) -> None:
        """Takes over fitted statistics, both ``[C]``; they become part of the model's state.

        A family whose :attr:`normalizer_config` may clip takes ``clip_min`` and ``clip_max`` too.
        """

    @property
    def normalizer_config(self) -> NormalizerConfig:
        """How the model normalises, and so which statistics suit it."""
        return NormalizerConfig(dim=self.concept_dim)

    @abstractmethod
    def encode(self, concepts: Tensor, layout: DocumentLayout, state: Any | None = None) -> Any:
        """Runs the causal contextualizer.

        :param concepts: Clean, normalised concepts ``[*P, C]``.
        :param state: From :meth:`new_state`. With it, ``concepts`` are padded ``[B, T_new, C]`` and continue the
            state's documents, each by at least one; what the next concept needs of them is kept in it.
        :returns: The context: an object of the family's own, which only its other methods read.
        """

    @abstractmethod
    def predict(
        self,
        noisy: Tensor,
        timesteps: Tensor,
        context: Any,
        layout: DocumentLayout,
        *,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """Runs the denoiser once at every position and returns the network's own output.

        Position i sees the context of positions < i of its document and a zero vector.

        :param noisy: ``[*Q, C]``, or ``[K, *Q, C]`` for several noise draws on one context.
        :param timesteps: int64, the shape of ``noisy`` without C.
        :param dropped: bool ``[*Q]``: positions that see the zero vector alone (guidance training).
        :returns: float32, the shape of ``noisy``.
        """

    @abstractmethod
    def denoise_cache(self, context: Any, layout: DocumentLayout, *, next_only: bool = False) -> Any:
        """Computes once what :meth:`predict_step` needs of the context at every diffusion step.

        :param next_only: False: queries stand at every position, as in training. True: one query a document, at the
            position after its last concept; ``layout`` must be padded and its documents of equal length. Of a context
            with a state, this is :meth:`next_cache`.
        """

    @abstractmethod
    def predict_step(self, noisy: Tensor, timestep: int, cache: Any, *, dropped: bool | Tensor = False) -> Tensor:
        """:meth:`predict` with one timestep for all positions and a ready cache.

        :param noisy: The shape :meth:`predict` takes; with a ``next_only`` cache ``[B, 1, C]`` or ``[K, B, 1, C]``.
        :param dropped: True: every position sees the zero vector alone; or bool ``[*Q]``.
        """

    def predict_both(self, noisy: Tensor, timestep: int, cache: Any) -> Tensor:
        """:meth:`predict_step` with the context and without it, as guidance needs them.

        A family overrides it where one pass over its weights does for the two.

        :param noisy: ``[B, 1, C]``; the cache is a ``next_only`` one.
        :returns: ``[2, B, 1, C]``, the prediction that sees the context first.
        """
        return torch.stack([self.predict_step(noisy, timestep, cache, dropped=dropped) for dropped in (False, True)])

    @abstractmethod
    def new_state(self, timesteps: Sequence[int] = ()) -> GrowingDocuments:
        """Returns a state without documents for incremental :meth:`encode`.

        It and what is forked from it hold tables computed from the weights: where these change, make a new one.

        :param timesteps: Those that will be asked for, so that their tables can be computed at once.
        """

    @abstractmethod
    def next_cache(self, state: Any) -> Any:
        """What :meth:`predict_step` needs for the next concept of every document of a state, however long each is."""

    @abstractmethod
    def flops_per_concept(self, context_len: int, *, noise_draws: float = 1) -> int:
        """FLOPs of forward and backward a concept, in the fast formulation, at ``context_len`` concepts a document.

        :param noise_draws: Passes of the denoiser for each; below 1 when some concepts are context alone.
        """

    @abstractmethod
    def towers(self) -> list[Module]:
        """The towers; each has a ``ModuleList`` named ``layers``, the unit of sharding and recomputation."""

    def compiled_units(self) -> list[Module]:
        """Modules that take and return tensors alone: the units of ``torch.compile``. What a batch's layout decides
        stays outside, or every batch would be compiled anew."""
        return []

    def inert_parameters(self) -> set[str]:
        """Names of parameters that are kept for their checkpoint's sake but cannot influence the output."""
        return set()

    def check_length(self, length: int) -> None:
        """:raises ConfigError: A document of ``length`` concepts is longer than :attr:`max_document_len`."""
        if self.max_document_len is not None and length > self.max_document_len:
            raise ConfigError(
                f"A document of {length:,} concepts is longer than the model's `max_seq_len` of {self.max_document_len:,}.\n"
                f"Cut documents: `dataset.reading.max_seq_len`, or a shorter prompt."
            )

    def forward(
        self,
        concepts: Tensor,
        noisy: Tensor,
        timesteps: Tensor,
        layout: DocumentLayout,
        dropped: Tensor | None = None,
    ) -> Tensor:
        """Encode and denoise: the only call of training, made on the data-parallel wrapper.

        :param noisy: May be more precise than ``concepts``; the network reads it in their type.
        :returns: The predicted clean, normalised concepts, the shape and type of ``noisy``.
        """
        context = self.encode(concepts, layout)
        output = self.predict(noisy.to(concepts.dtype), timesteps, context, layout, dropped=dropped)
        return self._clean(output, noisy, self.schedule.alpha_cumprod(timesteps))

    def denoise(
        self, noisy: Tensor, timesteps: Tensor, context: Any, layout: DocumentLayout, *, dropped: Tensor | None = None
    ) -> Tensor:
        """:meth:`predict`, converted: the predicted clean, normalised concepts in float32."""
        output = self.predict(noisy, timesteps, context, layout, dropped=dropped)
        return self._clean(output, noisy, self.schedule.alpha_cumprod(timesteps))

    def denoise_both(self, noisy: Tensor, timestep: int, cache: Any) -> tuple[Tensor, Tensor]:
        """:meth:`predict_both`, converted: the predicted clean, normalised concepts in float32."""
        at = torch.full((), timestep, device=noisy.device)
        with_context, without = self._clean(
            self.predict_both(noisy, timestep, cache), noisy.expand(2, *noisy.shape), self.schedule.alpha_cumprod(at)
        )
        return with_context, without

    def denoise_step(self, noisy: Tensor, timestep: int, cache: Any, *, dropped: bool | Tensor = False) -> Tensor:
        """:meth:`predict_step`, converted: the predicted clean, normalised concepts in float32."""
        output = self.predict_step(noisy, timestep, cache, dropped=dropped)
        at = torch.full((), timestep, device=noisy.device)
        return self._clean(output, noisy, self.schedule.alpha_cumprod(at))

    def _clean(self, output: Tensor, noisy: Tensor, alpha_cumprod: Tensor) -> Tensor:
        return to_clean(output, noisy, alpha_cumprod, self.prediction_type, self.output_form)
